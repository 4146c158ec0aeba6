"""The search for the commit: what to do next, as a pure function of what has been seen.

``advance(state)`` names the next action; ``search(problem, measure)`` is the loop around it, the same for
the simulator, the tests and the real command. A killed search goes on by giving ``search`` the runs of its
ledger. The method is docs/method.md, "Searching a history".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bisect_tool.analysis.ends import FEWEST, Ends, compare, ends, rounds_of
from bisect_tool.analysis.information import chance_testable, channels, choose
from bisect_tool.analysis.passfail import Counts, count
from bisect_tool.analysis.posterior import Filter, reach, remembered
from bisect_tool.analysis.problem import (
    Action,
    Belief,
    BudgetSpent,
    CredibleSet,
    Culprit,
    Difference,
    Done,
    Measure,
    Measured,
    MeasureEnds,
    NoStep,
    Outcome,
    Probe,
    Problem,
    Prove,
    Rounds,
    Run,
    State,
    TooNoisy,
    UnbuildableGap,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_BITS = 1e-4  # a probe that tells less is not worth its runs
PROOF_ROUNDS = 6  # at least: the fewest with an exact interval
PROOF_LOOKS = 4
PROOF_SD = 3.6  # a proof is sized beforehand so that the step expected is so many standard errors


def advance(state: State) -> Action:
    """What to do next. Deterministic: the same state gives the same action.

    Runs outside first..last are left aside. With ``exhausted`` "builds" what has run may run again, but
    nothing else is built. Raises ValueError for an end that is untestable, or values that the kind of the
    problem does not allow.
    """
    problem = state.problem
    if {problem.first, problem.last} & state.untestable:
        raise ValueError("an end that cannot be tested leaves nothing to compare with")
    runs = _inside(state)
    found = ends(problem, runs)
    if found.answer == "same":
        return Done(_nothing(problem, found))
    if found.answer == "more":
        if _stopped(state):
            return Done(BudgetSpent(state.exhausted, None, found.difference))
        return MeasureEnds(_end_rounds(problem, found.difference.rounds))
    return _Search(state, runs, found).advance()


def observe(state: State, measured: Measured) -> State:
    """The state after ``measured``; a position that had runs and then failed is untestable from then on."""
    return replace(
        state,
        runs=(*state.runs, *measured.runs),
        untestable=state.untestable | measured.untestable,
        exhausted=measured.exhausted or state.exhausted,
    )


def belief(state: State) -> Belief | None:
    """Where the search stands; None while the ends have not been told apart."""
    runs = _inside(state)
    found = ends(state.problem, runs)
    return _Search(state, runs, found).belief() if found.answer == "step" else None


def search(
    problem: Problem,
    measure: Measure,
    runs: tuple[Run, ...] = (),
    untestable: frozenset[int] = frozenset(),
) -> tuple[Outcome, State]:
    """Act until done. ``measure`` does what an action asks for, and may raise to stop the search."""
    state = State(problem, runs, untestable)
    while True:
        action = advance(state)
        if isinstance(action, Done):
            return action.outcome, state
        measured = measure(action)
        if measured == Measured():
            raise ValueError("nothing was measured, nothing is untestable and no budget is spent")
        state = observe(state, measured)


def credible_set(probabilities: Sequence[float], confidence: float) -> list[int]:
    """Indices of the smallest set that holds ``confidence``, in order; it need not be contiguous.

    Of equals the earlier come first. All indices with any probability where they sum to less.
    """
    order = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
    chosen, total = [], 0.0
    for i in order:
        if total >= confidence - 1e-12 or probabilities[i] <= 0:
            break
        chosen.append(i)
        total += probabilities[i]
    return sorted(chosen)


def prove_more(parent: int, position: int, done: int, wanted: int) -> Prove:
    """The rounds of a proof from ``done`` to ``wanted``, in alternating order."""
    pair = (parent, position)
    return Prove(position, parent, tuple(pair if i % 2 == 0 else pair[::-1] for i in range(done, wanted)))


def _stopped(state: State) -> bool:
    """Nothing may run any more; without builds, runs may."""
    return state.exhausted not in ("", "builds")


def _inside(state: State) -> tuple[Run, ...]:
    """The runs of the range: a part of a longer search sees its own builds; what failed later is void."""
    first, last = state.problem.first, state.problem.last
    return tuple(r for r in state.runs if first <= r.position <= last and r.position not in state.untestable)


def _nothing(problem: Problem, found: Ends) -> Outcome:
    d = found.difference
    small = (
        (problem.kind == "passfail" and found.strength < 0)
        or d.visible <= problem.margin
        or max(abs(d.low), abs(d.high)) <= problem.margin
    )
    return NoStep(d) if small else TooNoisy(d)


def _end_rounds(problem: Problem, done: int) -> Rounds:
    """The first rounds together, then one by one; the order alternates, so that drift falls on both alike."""
    number = max(1, FEWEST - done)
    pair = (problem.first, problem.last)
    return tuple(pair if (done + i) % 2 == 0 else pair[::-1] for i in range(number))


class _Search:
    """One decision: everything after the ends have been told apart."""

    def __init__(self, state: State, runs: tuple[Run, ...], found: Ends) -> None:
        import numpy as np

        self.state, self.problem, self.runs, self.found = state, state.problem, runs, found
        p = self.problem
        self.seen: Filter | Counts = count(p, runs) if p.kind == "passfail" else remembered(p, runs, found)
        self.cuts = self.seen.cuts
        self.places = np.arange(p.first + 1, p.last + 1)
        self.segment = np.searchsorted(self.cuts, self.places) - 1
        weights = np.asarray(p.commits, dtype=float)[p.first + 1 : p.last + 1] if len(p.commits) else None
        self.weights = np.ones(len(self.places)) if weights is None or not weights.sum() else weights
        self.posterior, self.no_step = self._posterior(self.weights)

    def _posterior(self, weights: Floats) -> tuple[Floats, float]:
        import numpy as np

        evidence = self.seen.evidence
        like = np.exp(evidence - evidence.max())
        mass = weights / weights.sum() * like[self.segment]
        total = mass.sum() + like[-1]
        return mass / total, float(like[-1] / total)

    def belief(self) -> Belief:
        first = self.problem.first + 1
        best = int(self.posterior.argmax())
        members = credible_set(self.posterior.tolist(), self.problem.confidence)
        return Belief(
            tuple(self.posterior.tolist()),
            self.no_step,
            tuple(first + i for i in members),
            first + best,
            float(self.posterior[best]),
        )

    def advance(self) -> Action:
        import numpy as np

        p, d = self.problem, self.found.difference
        share = np.bincount(self.segment, self.posterior, minlength=len(self.cuts) - 1)
        at = int(share.argmax())
        before, after = self.cuts[at], self.cuts[at + 1]
        between = range(before + 1, after)
        if share[at] >= p.confidence and all(place in self.state.untestable for place in between):
            return self._settle(before, after, float(share[at]))
        if _stopped(self.state):
            return Done(BudgetSpent(self.state.exhausted, self.belief(), d))
        if self.no_step > 0.5:
            if d.rounds >= p.end_runs:
                return Done(_nothing(p, self.found))
            return MeasureEnds(_end_rounds(p, d.rounds))
        probe = self._probe()
        if probe is not None:
            return probe
        held = self.belief()
        if self.state.exhausted:
            return Done(BudgetSpent(self.state.exhausted, held, d))
        return Done(CredibleSet(held.credible, held, d))

    def _probe(self) -> Probe | None:
        """Ordered by a prior that is half the caller's: one that misleads costs one bit at most."""
        import numpy as np

        p = self.problem
        order = self.weights / self.weights.sum()
        if len(p.prior):
            given = np.asarray(p.prior, dtype=float)[p.first + 1 : p.last + 1]
            if given.sum() > 0:
                order = 0.5 * order + 0.5 * given / given.sum()
        mass = self._posterior(order)[0]
        positions = np.arange(p.first + 1, p.last)
        q = np.cumsum(mass)[:-1] / mass.sum()
        ran = np.bincount([r.position - p.first for r in self.runs], minlength=p.last - p.first + 1)[1:-1]
        build = np.asarray(p.build_s, dtype=float)[p.first + 1 : p.last] if len(p.build_s) else 0.0
        build_s = np.where(ran > 0, 0.0, build)
        lost = sorted(u for u in self.state.untestable if p.first < u < p.last)
        chance = chance_testable(positions, lost, self.cuts)
        room = np.maximum(p.probe_runs - ran, 0)
        room[[u - p.first - 1 for u in lost]] = 0
        if self.state.exhausted:
            room[ran == 0] = 0
        if not len(positions):
            return None
        best = choose(channels(self.seen, p.probe_runs), positions, q, build_s, chance, room, p.run_s)
        if best is None or best.bits < LEAST_BITS:
            return None
        rounds = self._rounds(best.position, best.channel.runs, best.channel.references)
        return Probe(best.position, best.channel.runs, rounds, best.bits, best.seconds)

    def _rounds(self, position: int, runs: int, references: int) -> Rounds:
        """Every run of a value beside a run of an end; the ends take turns, the rarer one first."""
        if not references:
            return ((position,) * runs,)
        sides = [self.problem.first, self.problem.last]
        sides.sort(key=lambda end: sum(run.position == end for run in self.runs))
        rounds: list[tuple[int, ...]] = []
        for i in range(references):
            end = sides[i % 2]
            if references < runs and 2 * i + 1 < runs:
                rounds.append((position, end, position))
            else:
                rounds.append((position, end) if i % 2 else (end, position))
        return tuple(rounds)

    def _proof_rounds(self) -> int:
        if isinstance(self.seen, Counts):
            spread = 0.5 / max(abs(self.found.difference.centre), 0.05)
        else:
            # Not from the ends: they stopped when they looked different, and look it too much.
            known = reach(self.seen)
            spread = known.noise / max(known.step, 1e-9)
        return min(max(PROOF_ROUNDS, math.ceil(2 * (PROOF_SD * spread) ** 2)), self.problem.end_runs)

    def _settle(self, before: int, after: int, probability: float) -> Action:
        """The step lies between two builds that ran: prove it with fresh runs, then say so."""
        p, d = self.problem, self.found.difference
        proof: Difference | None = None
        if p.prove:
            pairs = rounds_of(self.runs, before, after, proof=True)
            proof, _ = compare(p.kind, pairs)
            size = self._proof_rounds()
            confirmed = (proof.low > 0) if d.centre > 0 else (proof.high < 0)
            # Looked at a few times, after rounds fixed beforehand: not after each until one agrees.
            if len(pairs) < size or (len(pairs) < PROOF_LOOKS * size and not confirmed):
                if _stopped(self.state):
                    return Done(BudgetSpent(self.state.exhausted, self.belief(), d))
                return prove_more(before, after, len(pairs), len(pairs) + size - len(pairs) % size)
            if not confirmed:
                held = self.belief()
                return Done(CredibleSet(held.credible, held, d))
        if after - before == 1:
            return Done(Culprit(after, before, probability, proof, d))
        candidates = tuple(range(before + 1, after + 1))
        return Done(UnbuildableGap(before, after, candidates, probability, proof, d))
