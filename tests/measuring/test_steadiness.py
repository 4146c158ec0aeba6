"""The sentinels' verdict on a run."""

from __future__ import annotations

import pytest

from bisect_tool.measuring.steadiness import DRIFT, Readings, unsteady


def readings(arithmetic: float = 1.0, bandwidth: float = 1.0, *, change: float = 0.0) -> Readings:
    before = {"arithmetic_s": arithmetic, "bandwidth_s": bandwidth, "kind": "sentinel"}
    return {"before": before, "after": {**before, "arithmetic_s": arithmetic * (1 + change)}}


def test_steady() -> None:
    assert unsteady(readings(), []) == ""
    assert unsteady(readings(change=DRIFT * 0.9), [readings()] * 5) == ""
    assert unsteady(readings(change=-DRIFT * 0.9), []) == ""


def test_throttled_is_told_from_not_yet_boosted() -> None:
    assert unsteady(readings(change=0.05), []) == (
        "throttled: the arithmetic sentinel slowed by 5.0 % during the run"
    )
    assert unsteady(readings(change=-0.05), []) == (
        "not yet boosted: the arithmetic sentinel sped up by 5.0 % during the run"
    )


@pytest.mark.parametrize("name", ["arithmetic", "bandwidth"])
def test_either_sentinel_can_tell(name: str) -> None:
    before = {"arithmetic_s": 1.0, "bandwidth_s": 1.0}
    after = {**before, f"{name}_s": 1.1}
    assert f"the {name} sentinel" in unsteady({"before": before, "after": after}, [])


def test_another_speed_than_the_session() -> None:
    history = [readings(1.0), readings(1.01), readings(5.0)]
    assert unsteady(readings(1.2), history) == (
        "another speed: the arithmetic sentinel is +18.8 % off this session's median"
    )
    assert "bandwidth sentinel is -10.0 % off" in unsteady(readings(bandwidth=0.9), [readings()] * 3)
    assert unsteady(readings(1.2), history[:2]) == "", "two runs are no history"


def test_limit_can_be_given() -> None:
    assert unsteady(readings(change=0.05), [], limit=0.1) == ""


@pytest.mark.parametrize("lacking", ["before", "after"])
def test_script_without_sentinels_says_nothing(lacking: str) -> None:
    assert unsteady({k: v for k, v in readings(change=1.0).items() if k != lacking}, [readings()] * 3) == ""
    assert unsteady({}, []) == ""
