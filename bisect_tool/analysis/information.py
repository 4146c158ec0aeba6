"""How much a probe of each position is expected to tell, and the probe that tells most per second.

A probe says, more or less clearly, whether a position is at or after the step. With probability q that it is
and n runs, what it tells is the mutual information of a binary channel: Gaussian for values, binomial for
passes and failures.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bisect_tool.analysis.passfail import Counts
from bisect_tool.analysis.posterior import Filter, reach

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BATCHES = (2, 3, 4, 6, 8, 12, 16, 24)  # runs of one probe
SHY = 0.8  # probability that the neighbour of an untestable build is untestable too
SHY_REACH = 4.0  # positions after which that has fallen to 1/e of it
FARTHEST = 12.0  # a step of so many sd leaves nothing to doubt


@dataclass(frozen=True)
class Channel:
    """One kind of probe: ``runs`` of the position, ``references`` of the ends; ``bits(q)`` by probability."""

    runs: int
    references: int
    bits: Callable[[Floats], Floats]


@dataclass(frozen=True)
class Choice:
    """The best probe: expected bits and predicted seconds."""

    position: int
    channel: Channel
    bits: float
    seconds: float


def entropy(q: Floats) -> Floats:
    """Of a yes that has probability q, in bits."""
    import numpy as np

    q = np.clip(q, 1e-300, 1)
    p = np.clip(1 - q, 1e-300, 1)
    return np.asarray(-(q * np.log2(q) + p * np.log2(p)))


@functools.cache
def _gauss_table() -> tuple[Floats, Floats, Floats]:
    """Information of the Gaussian channel by q (rows) and distance in sd (columns)."""
    import numpy as np

    q = np.linspace(0, 1, 129)
    d = np.linspace(0, FARTHEST, 97)
    z = np.linspace(-8, 8 + FARTHEST, 281)
    low = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    high = np.exp(-0.5 * (z[None, :] - d[:, None]) ** 2) / math.sqrt(2 * math.pi)
    a = (1 - q)[:, None, None] * low[None, None, :]
    b = q[:, None, None] * high[None, :, :]
    left = ((a + b) * entropy(b / np.maximum(a + b, 1e-300))).sum(axis=-1) * (z[1] - z[0])
    return q, d, np.maximum(entropy(q)[:, None] - left, 0.0)


def gauss_bits(q: Floats, distance: float) -> Floats:
    """Mutual information in bits of two Gaussians ``distance`` sd apart, one with probability q."""
    import numpy as np

    grid, d, table = _gauss_table()
    at = min(distance, FARTHEST) / d[1]
    i = min(int(at), len(d) - 2)
    column = table[:, i] * (i + 1 - at) + table[:, i + 1] * (at - i)
    return np.asarray(np.interp(q, grid, column))


def binomial_bits(q: Floats, runs: int, good: float, bad: float) -> Floats:
    """Mutual information in bits of ``runs`` passes or failures at one of two rates."""
    import numpy as np
    from scipy.special import gammaln

    k = np.arange(runs + 1)
    ways = gammaln(runs + 1) - gammaln(k + 1) - gammaln(runs - k + 1)
    g, b = (
        np.exp(ways + k * math.log(rate) + (runs - k) * math.log1p(-rate))
        for rate in (min(max(good, 1e-9), 1 - 1e-9), min(max(bad, 1e-9), 1 - 1e-9))
    )
    x, y = (1 - q)[:, None] * g, q[:, None] * b
    left = ((x + y) * entropy(y / np.maximum(x + y, 1e-300))).sum(axis=1)
    return np.asarray(np.maximum(entropy(q) - left, 0.0))


def channels(seen: Filter | Counts, most: int) -> list[Channel]:
    """The probes there are, of up to ``most`` runs. Each run of a value stands beside a run of an end."""
    sizes = [n for n in BATCHES if n <= most] or [most]
    if isinstance(seen, Counts):
        return [Channel(n, 0, functools.partial(_binomial, seen, n)) for n in [1, *sizes]]
    known = reach(seen)
    return [
        Channel(n, m, functools.partial(gauss_bits, distance=known.distance(n, m)))
        for n in sizes
        for m in sorted({(n + 1) // 2, n})
    ]


def _binomial(seen: Counts, runs: int, q: Floats) -> Floats:
    return binomial_bits(q, runs, seen.good, seen.bad)


def chance_testable(positions: NDArray[np.intp], untestable: Sequence[int], tested: Sequence[int]) -> Floats:
    """How likely each position is to be testable: what lies near an untestable one often is not, either."""
    import numpy as np

    chance = np.ones(len(positions))
    ran = np.sort(np.asarray(tested))
    for bad in untestable:
        near = SHY * np.exp(-(np.abs(positions - bad) - 1) / SHY_REACH)
        # a build between the two that ran ends the block
        crossed = np.searchsorted(ran, positions) != np.searchsorted(ran, bad)
        chance = np.minimum(chance, np.where(crossed | np.isin(positions, ran), 1.0, 1 - near))
    return chance


def choose(
    options: Sequence[Channel],
    positions: NDArray[np.intp],
    q: Floats,
    build_s: Floats,
    chance: Floats,
    room: Floats,
    run_s: float,
) -> Choice | None:
    """The probe with the most bits per second; of equals the fewest runs, then the earliest position.

    ``positions``, ``q`` (probability of lying at or after the step), ``build_s``, ``chance`` of being
    testable and ``room`` (runs left) belong together. None where no probe tells anything.
    """
    import numpy as np

    best: Choice | None = None
    for channel in options:
        bits = channel.bits(q) * chance
        seconds = build_s + run_s * (channel.runs + channel.references) * chance
        rate = np.where(room >= channel.runs, bits / seconds, -1.0)
        at = int(np.argmax(rate))
        if rate[at] > 0 and (best is None or rate[at] > best.bits / best.seconds * (1 + 1e-9)):
            best = Choice(int(positions[at]), channel, float(bits[at]), float(seconds[at]))
    return best
