"""The metric of a search, by its name."""

from __future__ import annotations

from typing import Any

import pytest

from bisect_tool.analysis.metric import EXIT, Metric, Unknown, named, offered


def case(M: int, seconds: float, **changes: Any) -> dict[str, Any]:
    fields = {"K": 640, "N": 1728, "B": 1, "M": M, "bits": 4, "quant": "affine", "dtype": "float16"}
    return {"case": {**fields, "cache": "hot", "timing": "chain", **changes}, "time_s": seconds}


def run(*cases: dict[str, Any], metrics: Any = (), outcome: str = "ok") -> dict[str, Any]:
    return {"cases": list(cases), "metrics": list(metrics), "outcome": outcome}


def test_a_ratio_is_of_one_process() -> None:
    metric = Metric.of_case("M=3/M=1")
    assert metric.value(run(case(1, 2e-3), case(2, 9.0), case(3, 6e-3))) == pytest.approx(3.0)
    assert (metric.rows(), metric.unit, metric.passfail) == ("1,3", "", False)


def test_a_time_of_one_shape_among_several() -> None:
    metric = Metric.of_case("640x1728,M=3,bits=8")
    there = run(case(3, 1.0), case(3, 2.0, bits=8), case(3, 3.0, bits=8, K=320))
    assert metric.value(there) == 2.0
    assert (metric.rows(), metric.shapes(), metric.unit) == ("3", ("640x1728",), "s")


def test_controls_are_no_cases() -> None:
    assert Metric.of_case("M=3").value(run(case(3, 9.0, control=True), case(3, 1.0))) == 1.0


def test_several_that_fit_are_named() -> None:
    with pytest.raises(Unknown, match=r"'M=3' fits 2 cases: 640x1728,M=3,bits=4.*, 320x1728,M=3,bits=4"):
        Metric.of_case("M=3").value(run(case(3, 1.0), case(3, 2.0, K=320)))


def test_what_is_not_there_is_none() -> None:
    assert Metric.of_case("M=3/M=1").value(run(case(3, 1.0))) is None
    assert Metric.of_script("sum").value(run(metrics=[{"metric": "add", "value": 1}])) is None


def test_of_a_script_the_last_counts() -> None:
    said = [{"metric": "sum", "value": 1}, {"metric": "sum", "value": 2.5}]
    assert Metric.of_script("sum").value(run(metrics=said)) == 2.5


@pytest.mark.parametrize(("outcome", "value"), [("good", 0.0), ("bad", 1.0), ("skip", None)])
def test_an_exit_code(outcome: str, value: float | None) -> None:
    metric = Metric.of_script(EXIT)
    assert metric.passfail and metric.value(run(outcome=outcome)) == value


WRONG = {
    "M=3/M=1/M=2": "divides more than once",
    "M=3/M=3": "divides a time by itself",
    "5120x13824": "names no M",
    "K=5120,M=3": "names half a shape",
    "m3": "'m3' is neither a shape",
    "M=three": "'M=three' is neither",
    "": "is neither",
}


@pytest.mark.parametrize(("text", "says"), WRONG.items())
def test_a_name_that_is_none(text: str, says: str) -> None:
    with pytest.raises(Unknown, match=says):
        Metric.of_case(text)


def test_what_is_offered_can_be_asked_for() -> None:
    there = run(case(3, 1.0), case(3, 2.0, bits=8), case(1, 3.0, control=True))
    names = offered(there)
    assert names == [named(line["case"]) for line in there["cases"][:2]]
    assert [Metric.of_case(name).value(there) for name in names] == [1.0, 2.0]
