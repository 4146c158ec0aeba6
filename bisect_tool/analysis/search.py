"""The search for the commit: what to do next, as a pure function of what has been seen.

``advance(state)`` names the next action; ``search(problem, measure)`` is the loop around it, the same for the
simulator, the tests and the real command. A killed search goes on by giving ``search`` the runs of its ledger.
The method is docs/method.md, "Searching a history".
"""

from __future__ import annotations

from bisect_tool.analysis.problem import Action, Belief, Measure, Measured, Outcome, Problem, Run, State


def advance(state: State) -> Action:
    """What to do next. Deterministic: the same state gives the same action.

    Raises ValueError for runs outside the range, an end that is untestable, or values that the kind of the
    problem does not allow.
    """
    raise NotImplementedError


def observe(state: State, measured: Measured) -> State:
    """The state after ``measured``; a position that had runs and then failed is untestable from then on."""
    raise NotImplementedError


def belief(state: State) -> Belief | None:
    """Where the search stands; None while the ends have not been told apart."""
    raise NotImplementedError


def search(
    problem: Problem, measure: Measure, runs: tuple[Run, ...] = (), untestable: frozenset[int] = frozenset()
) -> tuple[Outcome, State]:
    """Act until done. ``measure`` does what an action asks for, and may raise to stop the search."""
    raise NotImplementedError
