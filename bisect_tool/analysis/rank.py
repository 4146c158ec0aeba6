"""Rank statistics of a small sample: the Hodges-Lehmann centre and its exact signed-rank interval.

Hodges & Lehmann (1963), Estimates of location based on rank tests; the interval inverts the Wilcoxon
signed-rank test (Hollander, Wolfe & Chicken, Nonparametric Statistical Methods, 3rd ed., section 3.2-3.3).
They assume independent replicates, symmetric about the centre, and no distribution beyond that.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

MIN_ROUNDS = 6  # the smallest n at which an exact two-sided 95 % interval exists


@dataclass(frozen=True)
class Interval:
    """A centre with the interval around it, in the unit of the values; ``low`` is None below MIN_ROUNDS."""

    centre: float
    low: float | None
    high: float | None
    n: int

    @property
    def known(self) -> bool:
        return self.low is not None and self.high is not None

    @property
    def half_width(self) -> float:
        """Half the interval's width as a share of the centre; infinite when there is no interval."""
        if self.low is None or self.high is None:
            return math.inf
        return (self.high - self.low) / 2 / abs(self.centre) if self.centre else math.inf


@functools.cache  # a table asks for the same n in every cell, and the work grows with its cube
def signed_rank_cut(n: int, alpha: float) -> int:
    """How many of the n(n+1)/2 sorted Walsh averages lie outside the interval, on each side.

    The largest c for which P(W+ < c) <= alpha / 2 under the null, from the exact distribution of the
    signed-rank statistic W+; 0 when no exact interval of that level exists.
    """
    total = n * (n + 1) // 2
    ways = [1] + [0] * total  # ways[w]: subsets of ranks 1..n that sum to w
    for rank in range(1, n + 1):
        for w in range(total, rank - 1, -1):
            ways[w] += ways[w - rank]
    below, cut = 0, 0
    while (below + ways[cut]) / 2**n <= alpha / 2:
        below += ways[cut]
        cut += 1
    return cut


def hodges_lehmann(values: Sequence[float], alpha: float = 0.05) -> Interval:
    """Median of the Walsh averages of ``values``, with the exact (1 - alpha) interval.

    Raises ValueError for no values, or values that are not finite.
    """
    if not values or not all(math.isfinite(v) for v in values):
        raise ValueError("needs at least one value, all of them finite")
    n = len(values)
    walsh = sorted((values[i] + values[j]) / 2 for i in range(n) for j in range(i, n))
    middle = len(walsh) // 2
    centre = walsh[middle] if len(walsh) % 2 else (walsh[middle - 1] + walsh[middle]) / 2
    cut = signed_rank_cut(n, alpha) if n >= MIN_ROUNDS else 0
    if cut == 0:
        return Interval(centre, None, None, n)
    return Interval(centre, walsh[cut - 1], walsh[-cut], n)


def log_centre(values: Sequence[float], alpha: float = 0.05) -> Interval:
    """The same on logarithms, returned in the values' own unit: for times and ratios, all above 0.

    Raises ValueError as ``hodges_lehmann`` does, and for values of 0 or below.
    """
    if any(not v > 0 for v in values):
        raise ValueError("needs values above 0")
    found = hodges_lehmann([math.log(v) for v in values], alpha)
    low, high = (None if x is None else math.exp(x) for x in (found.low, found.high))
    return Interval(math.exp(found.centre), low, high, found.n)
