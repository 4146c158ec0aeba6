"""How much of the whole difference a step explains, what is left to search, and the search for every step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bisect_tool.analysis.ends import scaled, student_fit
from bisect_tool.analysis.problem import (
    Action,
    Culprit,
    Difference,
    Done,
    Measure,
    Measured,
    Outcome,
    Problem,
    Run,
    State,
    UnbuildableGap,
)
from bisect_tool.analysis.search import advance, observe, prove_more

ENOUGH = 0.8  # steps that explain this share of the difference end the search
SURELY = 0.7  # ... where their interval excludes less than this
SMALL = 0.2  # of the whole difference: less is not looked for in a part
SHARE_ROUNDS = 12  # a proof goes on to so many rounds where the share of the first step is in doubt


@dataclass(frozen=True)
class Step:
    """One step found. ``share`` of the whole difference, with the 95 % interval of its own part.

    ``change`` is from the proof where there was one.
    """

    outcome: Culprit | UnbuildableGap
    parent: int
    position: int
    change: Difference
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True)
class Remaining:
    """A range that was not explained: its outcome when it was searched, else None."""

    first: int
    last: int
    outcome: Outcome | None


@dataclass(frozen=True)
class AllSteps:
    """Every step found, in order of position, and what is left: searched in vain, or not searched at all.

    ``first`` is the outcome of the whole range. ``explained``: the steps' share of the whole difference;
    above 1 where a part goes the other way.
    """

    first: Outcome
    steps: tuple[Step, ...]
    remaining: tuple[Remaining, ...]
    explained: float


@dataclass(frozen=True)
class RangeAction:
    """An action of the search of one range: ``problem`` has its first and last."""

    problem: Problem
    action: Action


def advance_all(state: State, every: bool = True) -> RangeAction | AllSteps:
    """As ``search.advance``, over the whole range and then over what each step found leaves unexplained.

    With ``every`` False only the whole range is searched. Runs are shared by all ranges; in a part, a
    difference of less than SMALL of the whole one is not looked for.
    """
    whole = state.problem
    queue = [(whole.first, whole.last)]
    steps: list[Step] = []
    remaining: list[Remaining] = []
    main: Outcome | None = None
    size = 0.0
    while queue:
        first, last = queue.pop(0)
        if main is not None and _enough(steps):
            remaining.append(Remaining(first, last, None))
            continue
        margin = max(whole.margin, SMALL * abs(size))
        problem = whole if main is None else replace(whole, first=first, last=last, margin=margin)
        action = advance(replace(state, problem=problem))
        if not isinstance(action, Done):
            return RangeAction(problem, action)
        outcome = action.outcome
        if main is None:
            main = outcome
            size = _size(state, outcome)
        if not isinstance(outcome, Culprit | UnbuildableGap):
            if main is not outcome:
                remaining.append(Remaining(first, last, outcome))
            continue
        step = _step(outcome, size)
        steps.append(step)
        if every and not steps[1:] and not state.exhausted and _doubtful(step):
            return RangeAction(
                problem, prove_more(step.parent, step.position, step.change.rounds, SHARE_ROUNDS)
            )
        if every:
            parts = ((first, step.parent), (step.position, last))
            queue += [(a, b) for a, b in parts if a < b]
    assert main is not None
    steps.sort(key=lambda step: step.position)
    remaining.sort(key=lambda part: part.first)
    return AllSteps(main, tuple(steps), tuple(remaining), _explained(steps))


def search_all(
    problem: Problem,
    measure: Measure,
    runs: tuple[Run, ...] = (),
    untestable: frozenset[int] = frozenset(),
    every: bool = True,
) -> tuple[AllSteps, State]:
    """Act until done, as ``search.search`` does, with every step."""
    state = State(problem, runs, untestable)
    while True:
        next_one = advance_all(state, every)
        if isinstance(next_one, AllSteps):
            return next_one, state
        assert not isinstance(next_one.action, Done)
        measured = measure(next_one.action)
        if measured == Measured():
            raise ValueError("nothing was measured, nothing is untestable and no budget is spent")
        state = observe(state, measured)


def _explained(steps: list[Step]) -> float:
    return sum(step.share for step in steps)


def _enough(steps: list[Step]) -> bool:
    """They explain the difference, no less and no more, and not by luck."""
    explained = _explained(steps)
    doubt = math.hypot(*(step.share - step.share_low for step in steps))
    return abs(1 - explained) <= 1 - ENOUGH and explained - doubt >= SURELY


def _doubtful(step: Step) -> bool:
    """It seems to explain enough, from too few rounds to say so."""
    short = isinstance(step.outcome.proof, Difference) and step.change.rounds < SHARE_ROUNDS
    return short and step.share >= ENOUGH and step.share_low < SURELY


def _size(state: State, outcome: Outcome) -> float:
    """The whole difference, from every run of both ends: they were run beside every probe."""
    problem = state.problem
    if problem.kind == "passfail":
        return outcome.ends.centre
    good, bad = (
        student_fit(tuple(scaled(problem.kind, run.value) for run in state.runs if run.position == end))[0]
        for end in (problem.first, problem.last)
    )
    return bad - good


def _step(outcome: Culprit | UnbuildableGap, size: float) -> Step:
    if isinstance(outcome, Culprit):
        parent, position = outcome.parent, outcome.position
    else:
        parent, position = outcome.before, outcome.after
    change = outcome.proof or outcome.ends
    low, high = sorted((change.low / size, change.high / size))
    return Step(outcome, parent, position, change, change.centre / size, low, high)
