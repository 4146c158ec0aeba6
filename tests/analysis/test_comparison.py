from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from bisect_tool.analysis.comparison import Comparison, Plan, compare, least_rounds, widest
from bisect_tool.analysis.verdicts import Kind

Line = dict[str, Any]
SD = 0.003


def case(M: int, seconds: float, error: float = 1e-3, *, control: bool = False, **other: Any) -> Line:
    found: Line = {
        "case": {"op": "qmm", "K": 512, "N": 64, "M": M, "dtype": "float16", "timing": "chain",
                 "cache": "hot", **({"control": True} if control else {}), **other.pop("named", {})},
        "time_s": seconds,
        "marks": [],
        **other,
    }  # fmt: skip
    return found if control else {**found, "error": {"relative": error, "row_bits_as_m1": True}}


def session(
    arms: dict[str, Callable[[float], Iterable[Line]]], rounds: int = 12, seed: int = 7
) -> list[Line]:
    """Runs of every arm; each makes its case lines from a random factor of the process."""
    rng = random.Random(seed)
    return [
        {
            "kind": "run", "arm": arm, "round": number, "outcome": "ok", "metrics": [],
            "cases": list(make(math.exp(rng.gauss(0, SD)))),
        }
        for number in range(1, rounds + 1)
        for arm, make in arms.items()
    ]  # fmt: skip


def cells(change: float = 0.0, control: float = 0.0, rows: int = 3, **other: Any) -> Any:
    def make(process: float) -> list[Line]:
        found = [case(M, 1e-3 * M * process * (1 + change), **other) for M in range(1, rows + 1)]
        return [*found, case(1, 2e-3 * process * (1 + control), control=True)]

    return make


def kinds(found: Comparison, arm: str) -> list[Kind]:
    return [judged.verdict.kind for _, _, judged in found.judged(arm)]


PLAN = Plan("base", ("base", "new"))


def test_faster_slower_same() -> None:
    arms = {"base": cells(), "slow": cells(0.1), "fast": cells(-0.1), "same": cells()}
    found = compare(session(arms), Plan("base", tuple(arms)))
    assert kinds(found, "slow") == [Kind.SLOWER] * 3
    assert kinds(found, "fast") == [Kind.FASTER] * 3
    assert kinds(found, "same") == [Kind.SAME] * 3
    assert found.changed and found.decided and not found.contaminated
    (table,) = found.tables
    assert [row.M for row in table.rows] == [1, 2, 3] and table.case["K"] == 512 and "M" not in table.case
    assert table.control is not None and table.control.arms["slow"].verdict.short == "steady"
    assert table.mean is not None and table.mean.arms["slow"].verdict.kind is Kind.SLOWER
    effect = table.mean.arms["slow"].effect
    assert effect is not None and effect.ratio.centre == pytest.approx(1.1, rel=0.01)


def test_the_family_is_the_table_over_all_arms() -> None:
    """With seven rounds the smallest p is 1/64: enough for three rows of one arm, and not of two arms."""
    two = {"base": cells(rows=3), "new": cells(0.3, rows=3)}
    assert kinds(compare(session(two, rounds=7), PLAN), "new") == [Kind.SLOWER] * 3
    three = {**two, "other": cells(0.3, rows=3)}
    found = compare(session(three, rounds=7), Plan("base", ("base", "new", "other")))
    assert kinds(found, "new") == kinds(found, "other") == [Kind.AMBIGUOUS] * 3
    # The baseline's second self is no part of it.
    again = {**two, "again": cells(rows=3)}
    found = compare(session(again, rounds=7), Plan("base", ("base", "new", "again"), again="again"))
    assert kinds(found, "new") == [Kind.SLOWER] * 3


def test_a_control_that_moved() -> None:
    arms = {"base": cells(), "new": cells(0.1, control=0.05), "other": cells(0.1)}
    plan = Plan("base", tuple(arms))
    found = compare(session(arms), plan)
    assert kinds(found, "new") == [Kind.AMBIGUOUS] * 3, "its rounds measured something else as well"
    assert kinds(found, "other") == [Kind.SLOWER] * 3, "an arm's control speaks for that arm"
    assert list(found.contaminated) == ["new"] and "moved by +5." in found.contaminated["new"]
    uncontrolled = compare(session(arms), Plan("base", tuple(arms), controlled=False))
    assert kinds(uncontrolled, "new") == [Kind.SLOWER] * 3 and not uncontrolled.contaminated


def test_wrong_whatever_its_speed() -> None:
    arms = {"base": cells(), "new": cells(-0.5, control=0.1, error=math.nan), "far": cells(error=0.02)}
    found = compare(session(arms), Plan("base", tuple(arms)))
    assert kinds(found, "new") == kinds(found, "far") == [Kind.WRONG] * 3
    assert found.changed


def test_the_baseline_against_itself_shows_a_change() -> None:
    arms = {"base": cells(), "again": cells(0.05), "new": cells(0.3)}
    found = compare(session(arms), Plan("base", tuple(arms), again="again"))
    assert kinds(found, "again") == [Kind.SLOWER] * 3
    assert kinds(found, "new") == [Kind.AMBIGUOUS] * 3, "nothing else can be believed"
    assert "the baseline against itself differs by +5" in found.contaminated["new"]


def test_wrong_on_a_host_that_cannot_be_believed() -> None:
    arms = {"base": cells(), "again": cells(0.05), "new": cells(0.3, error=math.nan)}
    found = compare(session(arms), Plan("base", tuple(arms), again="again"))
    assert kinds(found, "new") == [Kind.WRONG] * 3


def test_alone_against_itself() -> None:
    arms = {"base": cells(), "again": cells()}
    found = compare(session(arms), Plan("base", tuple(arms), again="again"))
    assert found.decided and not found.changed


def test_launch_bound_cells_have_no_verdict_when_both_are() -> None:
    bound = cells(-0.3, marks=["launch-bound"])
    found = compare(session({"base": cells(marks=["launch-bound"]), "new": bound}), PLAN)
    assert kinds(found, "new") == [Kind.AMBIGUOUS] * 3
    one = compare(session({"base": cells(), "new": bound}), PLAN)
    assert kinds(one, "new") == [Kind.FASTER] * 3, "it became so fast that the host is too slow for it"


def test_cases_that_do_not_match() -> None:
    lines = session({"base": cells(rows=2), "new": cells(0.1, rows=3)})
    found = compare(lines, PLAN)
    assert kinds(found, "new") == [Kind.SLOWER, Kind.SLOWER, Kind.MISSING]
    assert found.judged("new")[2][2].verdict.reason == "not measured in base"
    apart = compare(session({"base": cells(), "new": cells(named={"bits": 8})}), PLAN)
    assert set(kinds(apart, "new")) == {Kind.MISSING} and not apart.decided and len(apart.tables) == 2


def test_a_case_that_is_measured_twice_in_a_run() -> None:
    """A shape given twice, say: the last one counts, as in every other table."""

    def twice(change: float) -> Any:
        return lambda process: [*cells(0.5)(process), *cells(change)(process)]

    found = compare(session({"base": twice(0.0), "new": twice(0.1)}), PLAN)
    assert kinds(found, "new") == [Kind.SLOWER] * 3
    assert found.tables[0].rows[0].arms["new"].time is not None and len(found.tables[0].rows) == 3


def test_arms_that_failed_or_are_the_same_build() -> None:
    lines: list[Line] = [
        {"kind": "failed-arm", "arm": "bad", "reason": "x does not compile: …", "failure": "compile"},
        {"kind": "same-build", "arm": "twin", "as": "base"},
        *session({"base": cells(), "new": cells(0.1), "gone": cells()}),
        {"kind": "dropped", "arm": "gone", "reason": "was killed"},
    ]
    found = compare(lines, Plan("base", ("base", "bad", "twin", "new", "gone")))
    assert found.failed == {"bad": "does not compile", "gone": "its runs fail"}
    assert found.same == {"twin": "base"} and found.plan.others == ("bad", "new", "gone")
    assert kinds(found, "bad") == [Kind.MISSING] * 3 and kinds(found, "new") == [Kind.SLOWER] * 3


def spoken(values: dict[str, dict[str, list[float]]], unit: str) -> list[Line]:
    """``values[arm][metric][round]``."""
    return [
        {
            "kind": "run", "arm": arm, "round": number, "outcome": "ok", "cases": [],
            "metrics": [{"metric": m, "value": vs[number], "unit": unit} for m, vs in metrics.items()],
        }
        for arm, metrics in values.items()
        for number in range(len(next(iter(metrics.values()))))
    ]  # fmt: skip


@pytest.mark.parametrize(("unit", "kind"), [("s", Kind.SLOWER), ("GB/s", Kind.FASTER), ("", Kind.SLOWER)])
def test_metrics_and_their_sense(unit: str, kind: Kind) -> None:
    rng = random.Random(3)
    noisy = [1 + rng.gauss(0, SD) for _ in range(20)]
    values = {
        "base": {"work": noisy[:10], "still": noisy[5:15]},
        "new": {"work": [v * 1.2 for v in noisy[10:]], "still": noisy[:10]},
    }
    found = compare(spoken(values, unit), Plan("base", ("base", "new"), control="still"))
    (table,) = found.tables
    assert [(row.name, row.arms["new"].verdict.kind) for row in table.rows] == [("work", kind)]
    assert table.control is not None and table.control.name == "still" and not table.mean


def test_metrics_without_a_ratio() -> None:
    values = {"base": {"t": [0.0] * 8}, "new": {"t": [1.0] * 8}}
    found = compare(spoken(values, "s"), PLAN)
    assert found.judged("new")[0][2].verdict.reason == "a value that is not above 0 has no ratio"


# --- for the stop rule ---------------------------------------------------------------------------------


def test_widest() -> None:
    lines = session({"base": cells(), "new": cells(0.1)}, rounds=12)
    width = widest(lines, PLAN)
    judged = [one for _, _, one in compare(lines, PLAN).judged("new")]
    assert width == max(one.effect.half_width for one in judged if one.effect)
    assert widest(session({"base": cells(), "new": cells()}, rounds=3), PLAN) == math.inf
    assert widest([], PLAN) is None
    gone = [*session({"base": cells(), "new": cells()}, rounds=3)]
    gone.append({"kind": "dropped", "arm": "new", "reason": ""})
    assert widest(gone, PLAN) is None, "an arm that is gone is not waited for"


def test_least_rounds() -> None:
    lines = session({"base": cells(rows=4), "new": cells(rows=4)}, rounds=2)
    assert least_rounds([], PLAN) == 6
    assert least_rounds(lines, PLAN) == 8
    assert least_rounds(lines, Plan("base", ("base", "new", "more"))) == 9
    assert least_rounds(lines, Plan("base", ("base", "new", "again"), again="again")) == 8


def test_discarded_rounds_do_not_count() -> None:
    lines = session({"base": cells(), "new": cells(0.1)}, rounds=8)
    lines += [{"kind": "discard", "round": number, "reason": "x"} for number in (1, 2, 3)]
    found = compare(lines, PLAN)
    assert found.judged("new")[0][2].verdict.reason == "5 of the 6 rounds that an interval needs"
