from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest

from bisect_tool.analysis import series
from bisect_tool.analysis.rank import log_centre

Line = dict[str, Any]
WOBBLE = [1.0, 1.004, 0.997, 1.002, 0.999, 1.001, 1.003, 0.998]


def case(M: int, seconds: float, K: int = 64, N: int = 64, **other: Any) -> Line:
    what = {"op": "quantized_matmul", "K": K, "N": N, "M": M, "B": 1, "bits": 4, "group_size": 64,
            "quant": "affine", "dtype": "float16", "cache": "hot", "timing": "chain", **other}  # fmt: skip
    return {"kind": "case", "case": what, "time_s": seconds}


def control(seconds: float) -> Line:
    what = {"op": "matmul", "K": 4096, "N": 4096, "M": 1, "dtype": "float32", "cache": "hot",
            "timing": "chain", "control": True}  # fmt: skip
    return {"kind": "case", "case": what, "time_s": seconds}


def run(number: int, arm: str = "a", *cases: Line, outcome: str = "ok", **other: Any) -> Line:
    return {"kind": "run", "round": number, "arm": arm, "outcome": outcome, "cases": list(cases),
            "metrics": [], **other}  # fmt: skip


def metric(name: str, value: float, **other: Any) -> Line:
    return {"metric": name, "value": value, **other}


def steps(n: int, arm: str = "a") -> list[Line]:
    """``n`` rounds of M = 1, 2; the ratio wobbles by what WOBBLE says."""
    return [run(i + 1, arm, case(1, 1e-3), case(2, 1.2e-3 * WOBBLE[i])) for i in range(n)]


# --- which runs count ---------------------------------------------------------------------------------


def test_failures_and_discarded_rounds_do_not_count() -> None:
    lines = [
        {"kind": "arm", "arm": "a"},
        run(1, outcome="ok"),
        run(2, outcome="good"),
        run(3, outcome="bad"),
        run(4, outcome="failed"),
        run(5, outcome="skip"),
        run(6, "a"),
        run(6, "b"),
        {"kind": "discard", "round": 6, "reason": "throttled"},
        {"kind": "unsteady", "round": 3, "reason": "throttled"},
        {"kind": "dropped", "arm": "a", "reason": "failed twice"},
        {"kind": "end", "reason": "budget"},
    ]
    assert [line["round"] for line in series.counted(lines)] == [1, 2, 3]
    assert series.counted(iter(lines)) == series.counted(lines), "an iterator is read once"


def test_a_discard_holds_whether_it_comes_before_or_after() -> None:
    discard = {"kind": "discard", "round": 1, "reason": "throttled"}
    assert series.counted([discard, run(1)]) == series.counted([run(1), discard]) == []


def test_a_run_without_cases_gives_nothing() -> None:
    assert series.blocks([run(1)]) == [] == series.metrics([run(1)])
    assert series.blocks([]) == [] == series.metrics([])


# --- blocks -------------------------------------------------------------------------------------------


def test_a_block_holds_every_round_of_every_m() -> None:
    lines = [
        run(1, "a", case(2, 0.2), case(1, 0.1)),
        run(2, "a", case(1, 0.11), case(2, 0.21)),
        run(3, "a", case(1, 9.0), case(2, 9.0)),
        {"kind": "discard", "round": 3, "reason": "throttled"},
        run(4, "a", outcome="failed"),
        run(5, "a", case(1, 0.12)),
    ]
    (block,) = series.blocks(lines)
    assert block.times == {1: {1: 0.1, 2: 0.11, 5: 0.12}, 2: {1: 0.2, 2: 0.21}}
    assert [line["time_s"] for line in block.lines[1]] == [0.1, 0.11, 0.12]
    assert block.arm == "a" and "M" not in block.case and block.case["K"] == 64 and not block.control


def test_what_differs_in_more_than_m_is_another_block() -> None:
    others: list[dict[str, Any]] = [
        {}, {"K": 128}, {"N": 128}, {"B": 2}, {"bits": 8}, {"group_size": 32}, {"quant": "mxfp4"},
        {"dtype": "bfloat16"}, {"cache": "cold"}, {"timing": "percall"},
    ]  # fmt: skip
    cells = [case(M, 0.1, **other) for other in others for M in (1, 2)]
    found = series.blocks([run(1, "a", *cells), run(1, "b", *cells)])
    assert len(found) == 2 * len(others)
    assert all(sorted(block.times) == [1, 2] for block in found)


def test_blocks_come_largest_first_then_arms_as_asked_for_then_controls() -> None:
    cells = [control(0.1), case(1, 0.1), case(1, 0.1, 64, 128), case(1, 0.1, 128, 64), case(1, 0.1, bits=8)]
    arms = [{"kind": "arm", "arm": name} for name in ("old", "new")]
    # The first round ran the arms the other way round, and the cells as a seed had it.
    lines = [*arms, run(1, "new", *cells), run(1, "old", *reversed(cells))]
    shown = [
        (block.case["K"], block.case["N"], block.case.get("bits"), block.arm)
        for block in series.blocks(lines)
    ]
    assert shown == [
        (64, 128, 4, "old"), (64, 128, 4, "new"),
        (128, 64, 4, "old"), (128, 64, 4, "new"),
        (64, 64, 4, "old"), (64, 64, 4, "new"),
        (64, 64, 8, "old"), (64, 64, 8, "new"),
        (4096, 4096, None, "old"), (4096, 4096, None, "new"),
    ]  # fmt: skip
    assert [block.control for block in series.blocks(lines)] == [False] * 8 + [True] * 2


def test_arms() -> None:
    lines = [
        {"kind": "failed-arm", "arm": "never"},
        {"kind": "arm", "arm": "x"},
        {"kind": "arm", "arm": "y"},
        run(1, "y"),
        run(1, "x"),
    ]
    assert series.arms(lines) == ["x", "y"]
    assert series.arms(lines[3:]) == ["y", "x"], "without arm lines, as they ran"


# --- metrics ------------------------------------------------------------------------------------------


def test_metrics_by_arm_and_name() -> None:
    lines = [
        {"kind": "arm", "arm": "old"},
        {"kind": "arm", "arm": "new"},
        run(1, "new", metrics=[metric("load", 3), metric("step", 1.5, unit="ms")]),
        run(1, "old", metrics=[metric("load", 2), *(metric("step", x, unit="ms") for x in (9.0, 1.0))]),
        run(2, "old", outcome="failed", metrics=[metric("step", 7.0)]),
        run(3, "old", metrics=[metric("step", 1.1, unit="ms")]),
    ]  # fmt: skip
    found = [(m.name, m.arm, m.unit, m.values) for m in series.metrics(lines)]
    assert found == [
        ("load", "old", "", {1: 2.0}),
        ("load", "new", "", {1: 3.0}),
        ("step", "old", "ms", {1: 1.0, 3: 1.1}),
        ("step", "new", "ms", {1: 1.5}),
    ]


# --- the widest interval ------------------------------------------------------------------------------


def widest(lines: Sequence[Line]) -> float:
    found = series.widest(lines)
    assert found is not None
    return found


def test_widest_is_infinite_until_every_interval_is_there() -> None:
    assert widest(steps(5)) == math.inf
    assert widest(steps(6)) == pytest.approx(log_centre(WOBBLE[:6]).half_width)
    assert widest(steps(6) + steps(5, "b")) == math.inf
    assert widest([*steps(6), {"kind": "discard", "round": 2, "reason": ""}]) == math.inf


def test_widest_is_none_when_only_exit_codes_speak() -> None:
    assert series.widest([run(i, outcome="good") for i in range(1, 9)]) is None
    assert series.widest([]) is None
    controls_only = [run(i, "a", control(0.1)) for i in range(1, 9)]
    assert series.widest(controls_only) is None


def test_widest_looks_at_ratios_and_not_at_a_drift_that_all_rows_share() -> None:
    speeds = [1.0, 1.5, 0.7, 1.2, 2.0, 0.8]
    lines = [run(i, "a", case(1, 1e-3 * s), case(2, 1.2e-3 * s)) for i, s in enumerate(speeds, 1)]
    assert widest(lines) == pytest.approx(0, abs=1e-12)


def test_widest_looks_at_times_where_no_two_m_are_neighbours() -> None:
    lines = [run(i + 1, "a", case(1, 1e-3), case(8, 2e-3 * WOBBLE[i])) for i in range(6)]
    assert widest(lines) == pytest.approx(log_centre(WOBBLE[:6]).half_width)


def test_widest_leaves_controls_and_dropped_arms_out() -> None:
    usual = widest(steps(6))
    wild = [run(i, "a", control(10.0**i)) for i in range(1, 7)]
    assert widest([*steps(6), *wild]) == usual
    gone = [*steps(6), *steps(2, "b"), run(3, "b", outcome="failed"), run(4, "b", outcome="failed")]
    assert widest(gone) == math.inf
    assert widest([*gone, {"kind": "dropped", "arm": "b", "reason": "crashed"}]) == usual
    spoke = [run(i, "b", metrics=[metric("x", 1.0)]) for i in (1, 2)]
    assert widest([*steps(6), *spoke, {"kind": "dropped", "arm": "b", "reason": "crashed"}]) == usual


def test_widest_of_metrics() -> None:
    lines = [run(i + 1, metrics=[metric("a", 2 * WOBBLE[i]), metric("b", 5)]) for i in range(6)]
    assert widest(lines) == pytest.approx(log_centre(WOBBLE[:6]).half_width)
    assert widest(lines[:5]) == math.inf


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_metric_that_is_not_above_0_does_not_steer_the_stop(value: float) -> None:
    lines = [run(i, metrics=[metric("difference", value)]) for i in range(1, 4)]
    assert widest(lines) == 0
    lines[0]["metrics"] = [metric("difference", 2.0)]
    assert widest(lines) == 0


def test_rows_with_no_round_in_common_keep_it_open() -> None:
    lines = [run(i, "a", case(1 + i % 2, 1e-3)) for i in range(1, 20)]
    assert widest(lines) == math.inf


def test_nothing_is_changed_by_reading() -> None:
    lines = [{"kind": "arm", "arm": "a"}, *steps(7), run(8, metrics=[metric("x", 1.0)])]
    before = json.dumps(lines)
    series.blocks(lines), series.metrics(lines), series.widest(lines)
    assert json.dumps(lines) == before
