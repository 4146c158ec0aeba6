"""How much of the whole difference a step explains, what is left to search, and the search for every step."""

from __future__ import annotations

from dataclasses import dataclass

from bisect_tool.analysis.problem import Action, Difference, Measure, Outcome, Problem, Run, State

ENOUGH = 0.8  # a step that explains this share of the difference ends the search


@dataclass(frozen=True)
class Step:
    """One step found. ``share`` of the whole difference, with the 95 % interval of its own part.

    ``change`` is from the proof where there was one.
    """

    outcome: Outcome  # Culprit or UnbuildableGap
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
    """Every step found, in order of position, and what was searched without finding one."""

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

    With ``every`` False only the whole range is searched. Runs are shared by all ranges.
    """
    raise NotImplementedError


def search_all(
    problem: Problem,
    measure: Measure,
    runs: tuple[Run, ...] = (),
    untestable: frozenset[int] = frozenset(),
    every: bool = True,
) -> tuple[AllSteps, State]:
    """Act until done, as ``search.search`` does, with every step."""
    raise NotImplementedError
