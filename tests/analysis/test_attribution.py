"""Every step, with its share: two of the same direction, one and its undoing, and one alone."""

from __future__ import annotations

import pytest
from histories import Oracle, step

from bisect_tool.analysis.attribution import AllSteps, advance_all, search_all
from bisect_tool.analysis.problem import Culprit, Problem, State, UnbuildableGap

NOISE = 0.01


def test_two_steps_and_their_shares() -> None:
    oracle = Oracle(lambda p: 0.14 * (p >= 12) + 0.06 * (p >= 40), NOISE)
    found, state = search_all(Problem(64, build_s=(12.0,) * 65), oracle)
    assert isinstance(found.first, Culprit) and found.first.position == 12
    assert [step.position for step in found.steps] == [12, 40]
    assert [step.share for step in found.steps] == pytest.approx([0.7, 0.3], abs=0.12)
    assert all(
        step.share_low < share < step.share_high for step, share in zip(found.steps, (0.7, 0.3), strict=True)
    )
    assert found.explained == pytest.approx(1, abs=0.2)
    assert advance_all(state) == found  # a function of the runs


def test_one_step_is_enough() -> None:
    oracle = Oracle(step(12, 0.2), NOISE)
    found, state = search_all(Problem(64, build_s=(12.0,) * 65), oracle)
    assert [step.position for step in found.steps] == [12]
    assert [(part.first, part.last, part.outcome) for part in found.remaining] == [
        (0, 11, None),
        (12, 64, None),
    ]
    assert len(state.runs) < 70


def test_not_every_step_where_that_is_not_asked() -> None:
    oracle = Oracle(lambda p: 0.14 * (p >= 12) + 0.06 * (p >= 40), NOISE)
    found, _ = search_all(Problem(64), oracle, every=False)
    assert [step.position for step in found.steps] == [12] and not found.remaining


def test_a_step_that_was_partly_undone() -> None:
    oracle = Oracle(lambda p: 0.3 * (p >= 20) - 0.1 * (p >= 50), NOISE)
    found, _ = search_all(Problem(64, build_s=(12.0,) * 65), oracle)
    assert [step.position for step in found.steps] == [20, 50]
    assert [step.share for step in found.steps] == pytest.approx([1.5, -0.5], abs=0.2)


def test_a_step_inside_a_gap_has_a_share_too() -> None:
    oracle = Oracle(lambda p: 0.12 * (p >= 5) + 0.08 * (p >= 25), NOISE, untestable=frozenset({5, 6}))
    found, _ = search_all(Problem(32, build_s=(12.0,) * 33), oracle)
    assert {(s.parent, s.position) for s in found.steps} == {(4, 7), (24, 25)}
    assert any(isinstance(s.outcome, UnbuildableGap) for s in found.steps)


def test_no_step_has_no_steps() -> None:
    found, _ = search_all(Problem(16), Oracle(lambda _: 0.0, NOISE))
    assert isinstance(found, AllSteps) and found.steps == () and found.explained == 0


def test_the_first_action_is_that_of_the_whole_range() -> None:
    action = advance_all(State(Problem(16)))
    assert not isinstance(action, AllSteps) and (action.problem.first, action.problem.last) == (0, 16)
