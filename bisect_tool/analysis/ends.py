"""Do the ends differ? A robust difference of two builds with its interval, its significance and its reach."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bisect_tool.analysis.problem import Difference, Kind, Problem, Run
from bisect_tool.analysis.rank import MIN_ROUNDS, hodges_lehmann

NU = 4.0  # degrees of freedom of the Student-t that the centres are fitted with
GAUSS_SCALE = 0.8310  # scale of that fit on Gaussian data of sd 1: solves E[(NU+1) z^2 / (NU s^2 + z^2)] = 1
EFFICIENCY = 0.89  # of its centre, against the mean, on Gaussian data
FEWEST = 4  # rounds of both ends before anything is said
LOOK = 0.005  # two-sided tail beyond which the ends differ; looked at after every round
FUTILE = 12  # rounds after which ends that agree within the margin are left alone
LOG_ODDS = math.log(50)  # pass/fail: evidence for two rates against one
SAME_ODDS = math.log(6)  # ... and for one against two, after which the ends are left alone


@dataclass(frozen=True)
class Ends:
    """The ends so far. ``good``, ``bad``: centres; ``noise``: sd between runs, in the unit of differences.

    ``strength``: the difference against what is asked of it; below 0: passes and failures speak for one rate.
    """

    answer: Literal["step", "same", "more"]
    difference: Difference
    good: float
    bad: float
    noise: float
    strength: float = 0.0


def scaled(kind: Kind, value: float) -> float:
    """A value in the unit of differences. Raises ValueError where the kind does not allow it."""
    if not math.isfinite(value):
        raise ValueError(f"a run's value is finite, not {value}")
    if kind == "log":
        if value <= 0:
            raise ValueError(f"a value of {value} has no logarithm; use kind='raw'")
        return math.log(value)
    if kind == "passfail" and value not in (0.0, 1.0):
        raise ValueError(f"pass is 0.0 and fail 1.0, not {value}")
    return value


@functools.lru_cache(maxsize=64)  # every decision looks at the same ends again
def student_fit(values: tuple[float, ...]) -> tuple[float, float]:
    """Centre and sd of ``values``, as a Student-t with NU degrees of freedom fits them.

    Expectation-maximisation (Lange, Little & Taylor 1989); the scale is converted to the sd that Gaussian
    data would have, with n - 1 in place of n.
    """
    n = len(values)
    centre = statistics.median(values)
    square = (1.4826 * statistics.median(abs(x - centre) for x in values)) ** 2
    square = square or sum((x - centre) ** 2 for x in values) / n
    if n < 2 or square == 0:
        return centre, 0.0
    for _ in range(50):
        weights = [(NU + 1) / (NU + (x - centre) ** 2 / square) for x in values]
        last, centre = centre, sum(w * x for w, x in zip(weights, values, strict=True)) / sum(weights)
        before, square = square, sum(w * (x - centre) ** 2 for w, x in zip(weights, values, strict=True)) / n
        square = max(square, 1e-30)
        if abs(centre - last) < 1e-5 * math.sqrt(square) and abs(square / before - 1) < 1e-4:
            break
    return centre, math.sqrt(square * n / (n - 1)) / GAUSS_SCALE


def rounds_of(runs: Sequence[Run], a: int, b: int, proof: bool = False) -> list[tuple[Run, Run]]:
    """The rounds in which both positions ran, as pairs in order; with ``proof`` only those of a proof."""
    first: dict[int, Run] = {}
    second: dict[int, Run] = {}
    for run in runs:
        if proof and not run.proof:
            continue
        if run.position == a:
            first.setdefault(run.round, run)
        elif run.position == b:
            second.setdefault(run.round, run)
    return [(first[r], second[r]) for r in first if r in second]


def compare(kind: Kind, pairs: Sequence[tuple[Run, Run]]) -> tuple[Difference, float]:
    """The difference (second minus first) over rounds, and its size against what ``LOOK`` asks for."""
    if kind == "passfail":
        return _compare_rates(pairs)
    a = tuple(scaled(kind, one.value) for one, _ in pairs)
    b = tuple(scaled(kind, two.value) for _, two in pairs)
    n = len(pairs)
    if n < 2:
        centre = b[0] - a[0] if n else 0.0
        return Difference(centre, -math.inf, math.inf, n, math.inf), 0.0
    from scipy.special import stdtrit

    change = tuple(y - x for x, y in zip(a, b, strict=True))
    centre, paired = student_fit(change)
    unpaired = math.hypot(student_fit(a)[1], student_fit(b)[1])
    # Without drift both estimate the same; the larger guards against pairs that agree by luck.
    error = max(paired, unpaired) / math.sqrt(n * EFFICIENCY)
    # Two arms give 2(n-1) degrees of freedom; the fit's weights cost some.
    visible = float(stdtrit(1.5 * (n - 1), 1 - LOOK / 2)) * error
    low, high = -math.inf, math.inf
    if n >= MIN_ROUNDS:
        interval = hodges_lehmann(change)
        assert interval.low is not None and interval.high is not None
        low, high = interval.low, interval.high
        centre = interval.centre
    strength = abs(centre) / visible if visible > 0 else (math.inf if centre else 0.0)
    return Difference(centre, low, high, n, visible), strength


def _compare_rates(pairs: Sequence[tuple[Run, Run]]) -> tuple[Difference, float]:
    """Rates: evidence for two rates against one (Jeffreys priors); interval of Agresti & Caffo (2000)."""
    from scipy.special import betaln

    n = len(pairs)
    fails = [sum(run.value for run in side) for side in zip(*pairs, strict=True)] if pairs else [0.0, 0.0]
    a, b = ((f + 1) / (n + 2) for f in fails)
    half = 1.96 * math.sqrt((a * (1 - a) + b * (1 - b)) / (n + 2))
    centre = (fails[1] - fails[0]) / n if n else 0.0
    two = sum(betaln(0.5 + f, 0.5 + n - f) - math.log(math.pi) for f in fails)
    one = betaln(0.5 + sum(fails), 0.5 + 2 * n - sum(fails)) - math.log(math.pi)
    spread = math.sqrt(max(a * (1 - a) + b * (1 - b), 0.1) / (n + 2))
    difference = Difference(centre, max(-1.0, b - a - half), min(1.0, b - a + half), n, 3 * spread)
    evidence = float(two - one)
    return difference, -1.0 if evidence < -SAME_ODDS else max(0.0, evidence / LOG_ODDS)


def ends(problem: Problem, runs: Sequence[Run]) -> Ends:
    """Whether the ends differ by now: ``step``, ``same`` (within the margin, or out of runs), or ``more``."""
    pairs = rounds_of(runs, problem.first, problem.last)
    difference, strength = compare(problem.kind, pairs)
    n = len(pairs)
    sides = [tuple(scaled(problem.kind, run.value) for run in side) for side in zip(*pairs, strict=True)]
    if n < FEWEST:
        return Ends("more", difference, 0.0, 0.0, 0.0)
    (good, spread_good), (bad, spread_bad) = student_fit(sides[0]), student_fit(sides[1])
    change = tuple(y - x for x, y in zip(*sides, strict=True))
    noise = min(student_fit(change)[1], math.hypot(spread_good, spread_bad)) / math.sqrt(2)
    size = max(abs(difference.centre), abs(good - bad))
    noise = max(noise, size / 50, 1e-12)  # exact values too need a scale; 50 sd leave nothing to doubt
    if strength >= 1:
        return Ends("step", difference, good, bad, noise, strength)
    inside = max(abs(difference.centre - difference.visible), abs(difference.centre + difference.visible))
    futile = n >= FUTILE and (strength < 0 or inside <= problem.margin)
    answer: Literal["same", "more"] = "same" if futile or n >= problem.end_runs else "more"
    return Ends(answer, difference, good, bad, noise, strength)
