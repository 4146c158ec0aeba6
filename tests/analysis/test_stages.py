"""From a ledger's lines to a search, and back to the same decisions."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from a_search import arm, position, search_of

from bisect_tool.analysis import stages as replay
from bisect_tool.analysis.attribution import AllSteps
from bisect_tool.analysis.problem import Culprit, NoStep, UnbuildableGap


def noisy(step: int, size: float = 1.5) -> Callable[[int, int], float]:
    rng = random.Random(3)
    return lambda at, _round: 0.01 * (size if at >= step else 1.0) * (1 + rng.gauss(0, 0.01))


def found(lines: list[dict[str, object]]) -> AllSteps:
    (stage,) = replay.stages(lines)
    there = stage.found()
    assert there is not None
    return there


def test_a_ledger_gives_its_own_decisions_again() -> None:
    """Cut after any line, the lines that follow are those that would be written."""
    lines = search_of(20, noisy(13))
    assert isinstance(found(lines).first, Culprit) and found(lines).steps[0].position == 13
    for cut in range(5, len(lines) - 1, 7):
        (stage,) = replay.stages(lines[:cut])
        todo = stage.next()
        following = [line for line in lines[cut:] if line["kind"] == "run"]
        opened = lines[cut - 1]["kind"] == "run" and lines[cut - 1]["slot"] + 1 < len(lines[cut - 1]["order"])
        if not opened and todo is not None and not isinstance(todo, AllSteps):
            wanted = {stage.label(at) for order in todo.action.rounds for at in order}  # type: ignore[union-attr]
            assert set(following[0]["order"]) <= wanted


def test_a_round_cut_short_does_not_count() -> None:
    lines = search_of(8, noisy(5))
    at = next(
        i for i, line in enumerate(lines) if line["kind"] == "run" and line["slot"] == 0 and line["round"] > 3
    )
    (whole,), (cut,) = replay.stages(lines[:at]), replay.stages(lines[: at + 1])
    assert len(cut.runs) == len(whole.runs)
    assert not replay.whole([lines[at]]) and replay.whole(lines[at - 2 : at])


def test_a_discarded_round_does_not_count() -> None:
    lines = search_of(8, noisy(5))
    last = max(line["round"] for line in lines if line["kind"] == "run")
    (stage,) = replay.stages([*lines, {"kind": "discard", "round": last, "reason": "load"}])
    assert {run.round for run in stage.runs} == set(range(1, last))


def test_what_was_dropped_is_untestable() -> None:
    lines = search_of(8, noisy(5))
    label = position(3)["label"]
    (stage,) = replay.stages([*lines, {"kind": "dropped", "arm": label, "reason": "crashed twice"}])
    assert stage.untestable == {3: "crashed twice"}
    assert stage.state(stage.searches[-1]).untestable == {3}


def test_untestable_ones_stay_suspects() -> None:
    lines = search_of(12, noisy(6), untestable={5, 6})
    outcome = found(lines).first
    assert isinstance(outcome, UnbuildableGap) and set(outcome.candidates) == {5, 6, 7}


def test_no_commit_between_builds_of_the_same_files_is_suspected() -> None:
    lines = search_of(12, noisy(9))
    places = [position(number) for number in range(13)]
    same = [arm(places[2]["label"], "one"), arm(places[6]["label"], "one")]
    (stage,) = replay.stages([*lines[:5], *same, *lines[5:]])
    assert stage.same == ((2, 6),)
    weights = stage.state(stage.searches[-1]).problem.commits
    assert [at for at, weight in enumerate(weights) if weight == 0] == [3, 4, 5, 6]


def test_no_step() -> None:
    outcome = found(search_of(12, noisy(99))).first
    assert isinstance(outcome, NoStep)
    assert replay.bounds(outcome) is None and replay.candidates(outcome) == ()


def test_pass_and_fail() -> None:
    lines = search_of(12, lambda at, _: float(at >= 4), mode="passfail")
    outcome = found(lines).first
    assert isinstance(outcome, Culprit) and outcome.position == 4
    assert replay.bounds(outcome) == (3, 4) and replay.candidates(outcome) == (4,)


def test_values_without_a_logarithm() -> None:
    """The margin is in the unit of the metric: 20 of these are no step, 900 are."""
    rng = random.Random(9)

    def of(size: float) -> Callable[[int, int], float]:
        return lambda at, _round: size * (at >= 5) - 300 + rng.gauss(0, 5)

    for size, named in ((900.0, True), (1.0, False)):
        lines = search_of(12, of(size), mode="raw", margin=20.0)
        outcome = found(lines).first
        assert isinstance(outcome, Culprit if named else NoStep)
        assert not named or (isinstance(outcome, Culprit) and outcome.position == 5)


def test_the_time_of_a_build_is_learned() -> None:
    lines = search_of(8, noisy(5))
    (stage,) = replay.stages(lines)
    assert len(stage.built) > 3 and set(stage.state(stage.searches[-1]).problem.build_s) == {5.0}
    (before,) = replay.stages(lines[:1])
    assert before.built == () and before.next() is None


def test_the_direction_of_a_step() -> None:
    for size, rises in ((1.5, True), (0.5, False)):
        (stage,) = replay.stages(search_of(6, noisy(3, size)))
        assert (replay.direction(stage.state(stage.searches[-1])) > 0) == rises


def test_several_cases_that_fit_are_an_error() -> None:
    lines = search_of(4, noisy(3))
    of_case = [{**line, "name": "M=3", "of": "case"} if line["kind"] == "metric" else line for line in lines]
    (stage,) = replay.stages(of_case)
    assert stage.runs == ()  # none has such a case
    with pytest.raises(ValueError, match="'M' is neither"):
        replay.stages([{**line, "name": "M"} if line["kind"] == "metric" else line for line in of_case])
