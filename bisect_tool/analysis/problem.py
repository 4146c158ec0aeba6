"""What a search knows and what it may answer: the problem, the runs so far, the actions and the outcomes.

Positions 0..N are distinct builds in order of history; the caller has collapsed what cannot differ. Position
``first`` is the good end, ``last`` the bad end. The culprit is some k in first+1..last: the first position
that has the new value. Nothing here knows of git, clocks or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["log", "raw", "passfail"]


@dataclass(frozen=True)
class Problem:
    """A range to search, and what bounds the search. Sequences are indexed by position, 0..last.

    ``kind``: ``log`` for metrics above 0 (differences are logarithms of ratios), ``raw`` for metrics that may
    be 0 or negative, ``passfail`` for values 0.0 (pass) and 1.0 (fail).
    ``build_s``: predicted seconds of the build, 0 where it is stored; empty: all 0. A position that has runs
    costs no build. ``run_s``: seconds of one run.
    ``commits``: how many commits each position stands for; empty: one each. The stated confidence is uniform
    over commits. ``prior``: the caller's own weights, any scale; they move the order, never the confidence.
    ``margin``: a smaller difference is not called a step, in the unit of differences (0.02 is 2 %).
    ``end_runs``: most runs of each end before the search. ``probe_runs``: most runs of any other build.
    """

    last: int
    first: int = 0
    kind: Kind = "log"
    confidence: float = 0.95
    build_s: Sequence[float] = ()
    run_s: float = 1.0
    commits: Sequence[float] = ()
    prior: Sequence[float] = ()
    margin: float = 0.02
    end_runs: int = 60
    probe_runs: int = 60
    prove: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.last:
            raise ValueError("a search needs 0 <= first < last")
        if not 0.5 <= self.confidence < 1:
            raise ValueError("confidence lies between 0.5 and 1")
        if not self.run_s > 0 or self.margin < 0 or self.end_runs < 6 or self.probe_runs < 2:
            raise ValueError("run_s above 0, margin at least 0, end_runs at least 6, probe_runs at least 2")
        for name in ("build_s", "commits", "prior"):
            values = getattr(self, name)
            if 0 < len(values) <= self.last or any(not 0 <= v < float("inf") for v in values):
                raise ValueError(f"{name} needs a finite value of 0 or more for each position 0..last")


@dataclass(frozen=True)
class Run:
    """One run that counts, in order of time. ``proof``: it was asked for by Prove.

    ``value``: the metric itself (not its logarithm), or 0.0 pass and 1.0 fail. ``round``: runs of one round
    stand side by side in time; numbers only have to differ between rounds.
    """

    position: int
    value: float
    round: int
    proof: bool = False


@dataclass(frozen=True)
class State:
    """All that has been seen. ``untestable``: does not build, crashes, times out: suspects, never bad.

    ``exhausted``: why no more may be spent (``time``, ...); empty while there is budget; ``builds``: nothing
    new may be built, but what has run may run again.
    """

    problem: Problem
    runs: tuple[Run, ...] = ()
    untestable: frozenset[int] = frozenset()
    exhausted: str = ""


Rounds = tuple[tuple[int, ...], ...]  # positions to run, in this order, round by round


@dataclass(frozen=True)
class MeasureEnds:
    """Run both ends, interleaved as ``rounds`` say."""

    rounds: Rounds


@dataclass(frozen=True)
class Probe:
    """Run ``position`` ``runs`` times beside the ends, as ``rounds`` say; build it first if need be.

    ``bits``: information expected. ``seconds``: predicted cost.
    """

    position: int
    runs: int
    rounds: Rounds
    bits: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Prove:
    """Run ``parent`` against ``position`` afresh, in both orders, as ``rounds`` say; runs have proof=True."""

    position: int
    parent: int
    rounds: Rounds


@dataclass(frozen=True)
class Difference:
    """A difference of two builds: logarithm of the ratio, plain difference, or difference of failure rates.

    ``low``, ``high``: 95 % interval; infinite below six rounds. ``visible``: the smallest difference that so
    many rounds of this noise would have shown.
    """

    centre: float
    low: float
    high: float
    rounds: int
    visible: float


@dataclass(frozen=True)
class Belief:
    """Where the search stands. ``probabilities[i]``: of position first+1+i, uniform over commits.

    With ``no_step`` they sum to 1. ``credible``: the smallest set of positions that holds the confidence.
    """

    probabilities: tuple[float, ...]
    no_step: float
    credible: tuple[int, ...]
    best: int
    best_probability: float


# --- every way a search can end -----------------------------------------------------------------------


@dataclass(frozen=True)
class Culprit:
    """One position holds the confidence, it and its parent were both run, and a fresh proof agrees.

    ``proof`` is None only where the problem asked for none.
    """

    position: int
    parent: int
    probability: float
    proof: Difference | None
    ends: Difference


@dataclass(frozen=True)
class UnbuildableGap:
    """The step lies between two neighbours that run, and everything between them is untestable.

    ``candidates`` are the untestable ones and the first that runs; ``proof`` is of ``after`` against
    ``before``.
    """

    before: int
    after: int
    candidates: tuple[int, ...]
    probability: float
    proof: Difference | None
    ends: Difference


@dataclass(frozen=True)
class CredibleSet:
    """No more runs are allowed or none would tell anything: the step is one of these, at the confidence."""

    candidates: tuple[int, ...]
    belief: Belief
    ends: Difference


@dataclass(frozen=True)
class NoStep:
    """The ends do not differ by more than the margin."""

    ends: Difference


@dataclass(frozen=True)
class TooNoisy:
    """The ends could not be told apart, and a step above the margin cannot be excluded on this machine.

    ``ends.visible`` is the smallest step it can see.
    """

    ends: Difference


@dataclass(frozen=True)
class BudgetSpent:
    """Time or builds ran out first. ``belief`` is None while the ends had not been told apart."""

    why: str
    belief: Belief | None
    ends: Difference


Outcome = Culprit | UnbuildableGap | CredibleSet | NoStep | TooNoisy | BudgetSpent


@dataclass(frozen=True)
class Done:
    """The search is over."""

    outcome: Outcome


Action = MeasureEnds | Probe | Prove | Done


@dataclass(frozen=True)
class Measured:
    """What a caller gives back for an action: runs in order of time, and what turned out untestable."""

    runs: tuple[Run, ...] = ()
    untestable: frozenset[int] = field(default_factory=frozenset)
    exhausted: str = ""


Measure = Callable[[MeasureEnds | Probe | Prove], Measured]
