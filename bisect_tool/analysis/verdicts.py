"""Faster, slower, the same, or not distinguishable: from paired times to verdicts on a table's rows.

Within a round the arm's time is divided by the baseline's. Over the rounds: the Hodges-Lehmann centre of the
log ratios with its exact signed-rank interval (``rank``), and the two-sided p of the same test. Over the rows
of a table: Holm (1979), A simple sequentially rejective multiple test procedure.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from bisect_tool.analysis.rank import MIN_ROUNDS, Interval, log_centre

MARGIN = 0.02  # a smaller change is none
CONTROL_MARGIN = 0.01  # a control that moves by this says that the rounds measured something else as well
ALPHA = 0.05
TOO_MANY = 200  # rounds; a prediction of more says only that the effect lies at the margin


class Kind(Enum):
    """What is said of one row. MISSING: there was nothing to judge."""

    FASTER = "FASTER"
    SLOWER = "SLOWER"
    SAME = "SAME"
    AMBIGUOUS = "AMBIGUOUS"
    WRONG = "WRONG"
    MISSING = "–"


@dataclass(frozen=True)
class Verdict:
    """``reason``: one clause; ``short``: a word or two for a cell, where the kind alone does not say it;
    ``more``: rounds that an AMBIGUOUS row probably still needs; None where they cannot be told."""

    kind: Kind
    reason: str
    short: str = ""
    more: int | None = None

    @property
    def change(self) -> bool:
        return self.kind in (Kind.FASTER, Kind.SLOWER, Kind.WRONG)


@dataclass(frozen=True)
class Effect:
    """Time over the baseline's time: the centre with its interval, and the p of "no difference"."""

    ratio: Interval
    p: float

    @property
    def log(self) -> float:
        return math.log(self.ratio.centre)

    @property
    def half_width(self) -> float:
        """Of the interval, in logarithms; infinite when there is none."""
        if self.ratio.low is None or self.ratio.high is None:
            return math.inf
        return (math.log(self.ratio.high) - math.log(self.ratio.low)) / 2


def effect(times: Mapping[int, float], baseline: Mapping[int, float]) -> Effect | None:
    """Of two series by round, over the rounds that both have; None when there is none.

    Raises ValueError where a value is not a finite number above 0.
    """
    ratios = [times[r] / baseline[r] for r in sorted(times) if r in baseline]
    if not ratios:
        return None
    return Effect(log_centre(ratios), signed_rank_p([math.log(ratio) for ratio in ratios]))


def signed_rank_p(values: Sequence[float]) -> float:
    """Exact two-sided p of the signed-rank test that ``values`` are symmetric about 0; 1.0 for no values.

    Values of 0 are left out; equal sizes share their mean rank, and the distribution is that of these ranks.
    """
    sizes = sorted((abs(value), value > 0) for value in values if value != 0)
    if not sizes:
        return 1.0
    doubled: list[int] = []  # twice the ranks, so that a mean of two is whole
    at = 0
    while at < len(sizes):
        end = at
        while end < len(sizes) and sizes[end][0] == sizes[at][0]:
            end += 1
        doubled += [at + 1 + end] * (end - at)
        at = end
    positive = sum(rank for rank, (_, up) in zip(doubled, sizes, strict=True) if up)
    below = _below(tuple(doubled))
    smaller = min(positive, sum(doubled) - positive)
    return min(1.0, 2 * below[smaller] / below[-1])


@functools.lru_cache(maxsize=32)  # without ties there is one for each number of rounds
def _below(ranks: tuple[int, ...]) -> list[int]:
    """How many subsets of ``ranks`` sum to at most 0, 1, 2, …"""
    total = sum(ranks)
    ways = [1] + [0] * total
    for rank in ranks:
        for sum_ in range(total, rank - 1, -1):
            ways[sum_] += ways[sum_ - rank]
    for sum_ in range(1, total + 1):
        ways[sum_] += ways[sum_ - 1]
    return ways


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: reject those below alpha, and all false alarms together have at
    most that chance."""
    adjusted = [1.0] * len(ps)
    so_far = 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        so_far = max(so_far, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = so_far
    return adjusted


def least_rounds(rows: int, alpha: float = ALPHA) -> int:
    """Rounds without which no row of so many can be called: the smallest p of n rounds is 2 / 2^n."""
    return max(MIN_ROUNDS, math.ceil(math.log2(2 * max(1, rows) / alpha)))


def judge(effects: Sequence[Effect | None], margin: float = MARGIN) -> list[Verdict]:
    """Verdicts on a family of rows: those of one table. None is a row without a common round.

    FASTER or SLOWER: Holm's p below 5 %, the interval on one side of 1, the effect at least ``margin``.
    SAME: the interval within 1 ± ``margin``. Else AMBIGUOUS.
    """
    ps = iter(holm([found.p for found in effects if found is not None]))
    rows = sum(found is not None for found in effects)
    nothing = Verdict(Kind.MISSING, "no round has both", "no round has both")
    return [nothing if found is None else _verdict(found, next(ps), rows, margin) for found in effects]


def _verdict(found: Effect, p: float, rows: int, margin: float) -> Verdict:
    ratio = found.ratio
    if ratio.low is None or ratio.high is None:
        why = f"{ratio.n} of the {MIN_ROUNDS} rounds that an interval needs"
        return _undecided(why, rounds_needed(found, rows, margin))
    change = f"{(ratio.centre - 1) * 100:+.1f} %"
    span = f"{change} [{(ratio.low - 1) * 100:.1f}, {(ratio.high - 1) * 100:.1f}]"
    apart = ratio.low > 1 or ratio.high < 1
    large = abs(ratio.centre - 1) >= margin
    over = f" over {rows} rows" if rows > 1 else ""
    if apart and large and p < ALPHA:
        kind = Kind.FASTER if ratio.centre < 1 else Kind.SLOWER
        return Verdict(kind, f"{change}, p = {p:.2g}{over}")
    if 1 - margin <= ratio.low and ratio.high <= 1 + margin:
        return Verdict(Kind.SAME, f"{span} lies within ±{margin * 100:g} %")
    if apart and large:
        why = f"{change}, but p = {p:.2g}{over}"
    elif apart:
        why = f"{span} reaches across {margin * 100:g} %, below which a change is none"
    else:
        why = f"{span} allows for none and for more than {margin * 100:g} %"
    return _undecided(why, rounds_needed(found, rows, margin))


def _undecided(why: str, more: int | None) -> Verdict:
    short = f"more than {TOO_MANY}" if more is None else f"about {more}"
    return Verdict(Kind.AMBIGUOUS, why, f"{short} more {'round' if more == 1 else 'rounds'}", more)


def rounds_needed(found: Effect, rows: int = 1, margin: float = MARGIN) -> int | None:
    """Rounds that an undecided row probably still needs, if its centre stays; None for more than TOO_MANY.

    The half-width shrinks with the root of the rounds; a row of a table must be clear of 0 at Holm's first
    step, which takes a wider interval than its own.
    """
    n, width = found.ratio.n, found.half_width
    if not math.isfinite(width):
        return least_rounds(rows) - n
    usual = statistics.NormalDist().inv_cdf(1 - ALPHA / 2)
    strict = statistics.NormalDist().inv_cdf(1 - ALPHA / 2 / max(1, rows))
    size = abs(found.log)
    large = size >= math.log(1 + margin)
    goal = size * usual / strict if large else math.log(1 + margin) - size
    if goal <= 0:
        return None
    needed = max(math.ceil(n * (width / goal) ** 2), least_rounds(rows) if large else 0, n + 1) - n
    return needed if needed <= TOO_MANY else None


def moved(control: Effect, margin: float = CONTROL_MARGIN) -> bool:
    """Whether a control, which no change can touch, differs between two arms: apart from 1, by ``margin``."""
    ratio = control.ratio
    if ratio.low is None or ratio.high is None:
        return False
    return (ratio.low > 1 or ratio.high < 1) and abs(ratio.centre - 1) >= margin


def steady(control: Effect, margin: float = CONTROL_MARGIN) -> bool:
    """Whether a control is known to have stayed: its interval lies within 1 ± ``margin``."""
    ratio = control.ratio
    return (
        ratio.low is not None
        and ratio.high is not None
        and 1 - margin <= ratio.low <= ratio.high <= 1 + margin
    )


def beside(said: Verdict, found: Effect | None, control: Effect | None) -> Verdict:
    """What a control leaves of a verdict of speed.

    Nothing when it moved. When it is not known to have stayed either, a change stands only where the two
    intervals have nothing in common: else the host may have moved as much.
    """
    if control is None or found is None or said.kind is Kind.MISSING:
        return said
    if moved(control):
        change = f"{(control.ratio.centre - 1) * 100:+.1f} %"
        return Verdict(Kind.AMBIGUOUS, f"contaminated: the control moved by {change}", "contaminated")
    if not said.change or steady(control):
        return said
    if control.ratio.low is None or control.ratio.high is None:
        return Verdict(Kind.AMBIGUOUS, "the control has too few rounds", "control unclear")
    assert found.ratio.low is not None and found.ratio.high is not None
    if found.ratio.low > control.ratio.high or found.ratio.high < control.ratio.low:
        return said
    span = f"[{(control.ratio.low - 1) * 100:+.1f}, {(control.ratio.high - 1) * 100:+.1f}]"
    return Verdict(Kind.AMBIGUOUS, f"the control may have moved as much: {span} %", "control unclear")


def seen(found: Effect) -> float | None:
    """The largest difference, as a share, that the interval still allows; None without an interval."""
    if found.ratio.low is None or found.ratio.high is None:
        return None
    return max(1 - found.ratio.low, found.ratio.high - 1)
