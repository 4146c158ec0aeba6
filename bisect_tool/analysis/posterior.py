"""Where the step lies, from values: a filter over the runs for every place that the step can have.

A run of build p reads ``level(p) + drift + noise``: level is that of the good end before the step and that of
the bad end from it on, both unknown; drift is an autoregressive process with correlation RHO from run to
run; noise is Gaussian, or with probability OUTLIERS anything (Cauchy). The two levels and the drift are the
state of a Kalman filter, which every run updates by the weight with which it is no outlier (the two
components are merged to one Gaussian after each run: Harrison & Stevens 1976). The sd of the noise and that
of the drift are a grid, with the likelihood as weight. Places between two neighbouring builds that ran share
their likelihood, so there are as many filters as builds that ran, not as commits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bisect_tool.analysis.ends import Ends, scaled
from bisect_tool.analysis.problem import Kind, Problem, Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

OUTLIERS = 0.05
OUTLIER_WIDTH = 10.0  # scale of the Cauchy, in sd of the noise
RHO = 0.97  # correlation of drift between neighbouring runs
BREAK = 10  # a change of build lets as much drift pass as so many runs
NOISES = tuple(2.0**e for e in (-1.2, -0.8, -0.4, 0.0, 0.4, 0.8, 1.2))  # times the ends' noise
DRIFTS = (0.0, 0.7, 2.0)  # sd of the drift, in sd of the noise
NULL_ODDS = math.log(0.4 / 0.6)  # four in ten ranges have no step (FACF, ICST 2023)
CENTRED = math.log(10.0)  # the prior of the bad level is centred on its data: what that gives away


@dataclass
class Filter:
    """The runs so far. Arrays: places of the step (segments; last row: no step) by grid point by state.

    ``cuts``: builds that ran, ends included; segment i holds the places cuts[i]+1 .. cuts[i+1].
    Values are in units of the ends' noise, from the good end's centre.
    """

    cuts: list[int]
    loglik: Floats  # (S+1, G)
    mean: Floats  # (S+1, G, 3): good level, bad level, drift
    cov: Floats  # (S+1, G, 3, 3)
    sigma: Floats  # (G,)
    tau: Floats  # (G,)
    before: int = -1  # the build that ran before
    seen: int = 0
    setup: tuple[float, float, float, Kind] = (0.0, 0.0, 1.0, "log")

    def copy(self) -> Filter:
        return replace(
            self, cuts=list(self.cuts), loglik=self.loglik.copy(), mean=self.mean.copy(), cov=self.cov.copy()
        )

    @property
    def evidence(self) -> Floats:
        """Log-likelihood of each segment, then of no step; up to one constant."""
        import numpy as np

        top = self.loglik.max(axis=1)
        total: Floats = top + np.log(np.exp(self.loglik - top[:, None]).sum(axis=1))
        total[-1] += NULL_ODDS + CENTRED
        return total


def start(problem: Problem, found: Ends) -> Filter:
    """Before any run: levels near the ends' centres, worth one run each."""
    import numpy as np

    sigma, tau = (g.ravel() for g in np.meshgrid(np.array(NOISES), np.array(DRIFTS), indexing="ij"))
    tau = tau * sigma
    G = len(sigma)
    mean = np.zeros((2, G, 3))
    mean[:, :, 1] = (found.bad - found.good) / found.noise
    cov = np.zeros((2, G, 3, 3))
    cov[:, :, 0, 0] = cov[:, :, 1, 1] = sigma**2 + tau**2
    cov[:, :, 2, 2] = tau**2
    setup = (found.good, found.bad, found.noise, problem.kind)
    return Filter([problem.first, problem.last], np.zeros((2, G)), mean, cov, sigma, tau, setup=setup)


def fold(problem: Problem, runs: Sequence[Run], found: Ends, earlier: Filter | None = None) -> Filter:
    """The filter after ``runs`` (all of positions first..last), from ``earlier`` where it saw a beginning."""
    f = start(problem, found) if earlier is None else earlier.copy()
    for run in runs[f.seen :]:
        position = run.position
        if position not in f.cuts:
            _split(f, position)
        _drift(f, BREAK if position != f.before and _far(problem, position, f.before) else 1)
        _update(f, position, (scaled(problem.kind, run.value) - f.setup[0]) / f.setup[2])
        if position not in (problem.first, problem.last):
            f.before = position
        f.seen += 1
    return f


_LAST: dict[tuple[int, int], tuple[Sequence[Run], Filter]] = {}
_RANGES = 16  # remembered at once


def remembered(problem: Problem, runs: Sequence[Run], found: Ends) -> Filter:
    """As ``fold``; goes on from the last answer for this range where ``runs`` begin with its runs.

    Only the time it takes differs.
    """
    key = (problem.first, problem.last)
    seen, f = _LAST.pop(key, ((), None))
    same = f is not None and f.setup == (found.good, found.bad, found.noise, problem.kind)
    if not same or len(seen) > len(runs) or any(a is not b for a, b in zip(seen, runs, strict=False)):
        f = None
    answer = fold(problem, runs, found, f)
    _LAST[key] = (runs, answer)
    while len(_LAST) > _RANGES:
        del _LAST[next(iter(_LAST))]
    return answer


def _far(problem: Problem, position: int, before: int) -> bool:
    """Another build than the last one probed: time went by."""
    return position not in (problem.first, problem.last) and before >= 0


def _split(f: Filter, position: int) -> None:
    import numpy as np

    at = next(i for i, cut in enumerate(f.cuts) if cut > position)
    f.cuts.insert(at, position)
    for name in ("loglik", "mean", "cov"):
        a = getattr(f, name)
        setattr(f, name, np.insert(a, at, a[at - 1], axis=0))


def _drift(f: Filter, steps: int) -> None:
    rho = RHO**steps
    f.mean[..., 2] *= rho
    f.cov[..., 2, :] *= rho
    f.cov[..., :, 2] *= rho
    f.cov[..., 2, 2] += f.tau**2 * (1 - rho * rho)


def _update(f: Filter, position: int, y: float) -> None:
    import numpy as np

    # Segment i holds places up to cuts[i+1]: the position is bad where all of them are at or before it.
    n = f.cuts.index(position)
    for rows, level in ((slice(0, n), 1), (slice(n, None), 0)):
        mean, cov = f.mean[rows], f.cov[rows]
        if not len(mean):
            continue
        r = y - mean[..., level] - mean[..., 2]
        gain = cov[..., level, :] + cov[..., 2, :]
        v = gain[..., level] + gain[..., 2] + f.sigma**2
        width = OUTLIER_WIDTH * f.sigma
        inlier = math.log((1 - OUTLIERS) / math.sqrt(2 * math.pi)) - 0.5 * (np.log(v) + r * r / v)
        outlier = np.log(OUTLIERS / math.pi * width / (width**2 + r * r))
        both = np.logaddexp(inlier, outlier)
        f.loglik[rows] += both
        w = np.exp(inlier - both)
        gain /= v[..., None]
        mean += (w * r)[..., None] * gain
        cov += (w * ((1 - w) * r * r - v))[..., None, None] * gain[..., :, None] * gain[..., None, :]


@dataclass(frozen=True)
class Reach:
    """What a probe would tell: all in units of the ends' noise, averaged over places and grid."""

    step: float
    noise: float
    level: float  # variance of the level a probe is compared with, before any reference run of its own

    def distance(self, runs: int, references: int) -> float:
        """Step over the sd of its estimate from so many runs beside so many reference runs."""
        known = 1 / (1 / max(self.level, 1e-9) + references / self.noise**2)
        return self.step / math.sqrt(self.noise**2 / runs + known)


def reach(f: Filter) -> Reach:
    """The same for every position: which levels there are is what is known best."""
    import numpy as np

    logs = f.loglik[:-1]
    weight = np.exp(logs - logs.max())
    weight /= weight.sum()
    mean, cov = f.mean[:-1], f.cov[:-1]

    def average(x: Any) -> float:
        return float((weight * x).sum())

    fade = RHO**BREAK
    drift = cov[..., 2, 2] * fade**2 + f.tau**2 * (1 - fade**2)
    levels = (cov[..., 0, 0] + cov[..., 1, 1]) / 2 + fade * (cov[..., 0, 2] + cov[..., 1, 2]) + drift
    return Reach(
        abs(average(mean[..., 1] - mean[..., 0])),
        math.sqrt(average(np.broadcast_to(f.sigma**2, weight.shape))),
        average(levels),
    )
