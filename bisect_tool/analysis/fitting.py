"""Fits of the laws in relative error, robust to one bad point, with their criterion and parameter intervals.

Times vary in proportion to themselves, so every residual is divided by the time and by its noise; a fit is a
weighted least squares with coefficients of 0 or above, over a grid of the law's one shape. The noise is
known (from rounds, or assumed and said), so the criterion is its exact form for a known variance, χ² + 2k
(Akaike 1974; Burnham & Anderson, Model Selection and Multimodel Inference, 2nd ed., section 2.3): the
further term of AICc corrects for a variance estimated from the same residuals, which is not done here. A
point that is left out costs as much as being by chance the worst of n.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bisect_tool.analysis.laws import Columns, Point, Tiles, columns, curve

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, Any]

DISTINCT = 0.05  # a law that a simpler one imitates to this share at every row is not told from it
ADEQUATE_P = 0.01
ADEQUATE_RATIO = 2.0  # residuals of more than twice the noise are no fit
MIN_SIDE = 2  # points on each side of a switch
CHANGE_POINT = 6.0  # price of M*: Ninomiya (Statist. Probab. Lett. 72(3), 2005), three parameters' worth
COVERED = 3.84  # χ² of one degree of freedom at 95 %


@dataclass(frozen=True)
class Fit:
    """One law fitted. Times are in the unit of the points, ``rms`` is relative, ``k`` counts parameters.

    ``shape``: ridge (rows), tile (rows) or M*, NaN for a law without one. ``intervals`` are 95 % profile
    intervals by parameter name (floor, slope, shape, level). ``outlier``: index of the point left out.
    ``sides``: the two laws of a switch.
    """

    law: str
    floor: float
    slope: float
    shape: float
    k: int
    n: int
    chi2: float
    aic: float
    rms: float
    adequate: bool
    predicted: tuple[float, ...]
    intervals: dict[str, tuple[float, float]]
    outlier: int | None = None
    sides: tuple[Fit, ...] = ()
    tiles: Tiles | None = None
    with_floor: bool = False

    @property
    def dof(self) -> int:
        return self.n - self.k

    @property
    def level(self) -> float:
        """What a roofline takes below its ridge, beyond the floor, for a unit of work; NaN for other laws."""
        return self.slope * self.shape if self.law == "roofline" else math.nan

    def at(self, points: Sequence[Point]) -> list[float]:
        """Times at other rows."""
        if self.sides:
            low, high = (side.at(points) for side in self.sides)
            return [b if self.shape <= p.M else a for p, a, b in zip(points, low, high, strict=True)]
        return [float(t) for t in curve(self.law, self.floor, self.slope, self.shape, points, self.tiles)]


def pair(target: Array, weights: Array, body: Array, floor: bool) -> tuple[Array, Array]:
    """Coefficients (floor, slope), each 0 or above, of weighted least squares for every row of ``body``.

    ``body`` is (G, n), ``target`` and ``weights`` (n,) or (G, n). Both come back as (G,).
    """
    import numpy

    w2 = weights * weights
    sbb = (w2 * body * body).sum(-1)
    sby = (w2 * body * target).sum(-1)
    alone = numpy.maximum(sby / sbb, 0.0)
    if not floor:
        return numpy.zeros_like(alone), alone
    s11 = numpy.broadcast_to(w2.sum(-1), sbb.shape)
    s1y = numpy.broadcast_to((w2 * target).sum(-1), sbb.shape)
    s1b = (w2 * body).sum(-1)
    det = s11 * sbb - s1b * s1b
    good = det > 1e-9 * s11 * sbb
    safe = numpy.where(good, det, 1.0)
    t0 = numpy.where(good, (sbb * s1y - s1b * sby) / safe, 0.0)
    c = numpy.where(good, (s11 * sby - s1b * s1y) / safe, alone)
    c = numpy.where(t0 < 0, alone, c)
    t0 = numpy.maximum(t0, 0.0)
    only_floor = c < 0
    return numpy.where(only_floor, s1y / s11, t0), numpy.maximum(c, 0.0)


def _scales(points: Sequence[Point]) -> tuple[Array, Array]:
    import numpy

    y = numpy.array([p.time for p in points], dtype=float)
    return y, 1 / (y * numpy.array([p.noise for p in points], dtype=float))


def adequate(chi2: float, dof: int) -> bool:
    """Whether residuals are such as this noise gives: p ≥ 1 %, and at most twice the noise."""
    from scipy.special import gammaincc

    if dof < 1:
        return False
    return bool(gammaincc(dof / 2, chi2 / 2) >= ADEQUATE_P and chi2 <= ADEQUATE_RATIO**2 * dof)


def fits(
    points: Sequence[Point], tiles: Tiles | None = None, *, floor: bool = True, intervals: bool = True
) -> list[Fit]:
    """Every law that these points can carry and that no simpler one imitates, the best first.

    ``floor``: whether a constant t0 may be part of a law; each law is then tried with and without, and the
    better by its criterion stays. A law needs one point more than it has parameters. The constant law is
    among them, as what to beat. ``intervals``: whether to look for those of the parameters, which takes
    longer. Raises ValueError for times that are not above 0, or noise that is not.
    """
    if any(not (math.isfinite(p.time) and p.time > 0 and p.noise > 0) for p in points):
        raise ValueError("needs times and noise above 0")
    found: list[Fit] = []
    for law in ("constant", "linear", "roofline", "staircase"):
        if law == "roofline" and tiles is not None and tiles.whole:
            continue  # within whole tiles it is the staircase
        simpler = (
            [fit for fit in ("constant", "linear") if fit != law] if law in ("roofline", "staircase") else []
        )
        best = _best(law, points, tiles, floor, simpler)
        if best is not None:
            found.append(best)
    if tiles is None and len({p.series for p in points}) == 1:
        found += _switches(points, found, floor)
    found.sort(key=lambda fit: fit.aic)
    return [with_intervals(fit, points) for fit in found] if intervals else found


def _best(
    law: str, points: Sequence[Point], tiles: Tiles | None, floor: bool, simpler: list[str]
) -> Fit | None:
    made = columns(law, points, tiles)
    several = len({(p.work, p.bytes) for p in points}) > 1
    variants = [False, True] if floor and (law != "constant" or several) else [False]
    candidates = [
        one
        for with_floor in variants
        if (one := _fit(made, points, tiles, with_floor, simpler, floor)) is not None
    ]
    return min(candidates, key=lambda fit: fit.aic, default=None)


def _fit(
    made: Columns,
    points: Sequence[Point],
    tiles: Tiles | None,
    with_floor: bool,
    simpler: list[str],
    floor: bool,
) -> Fit | None:
    import numpy

    n, k = len(points), 1 + with_floor + made.fitted_shape
    if n <= k:
        return None
    y, w = _scales(points)
    t0, c = pair(y, w, made.body, with_floor)
    predicted = t0[:, None] + c[:, None] * made.body
    chi2 = (((y - predicted) * w) ** 2).sum(-1)
    chi2 = numpy.where(_imitated(predicted, points, tiles, simpler, floor), numpy.inf, chi2)
    g, least = int(chi2.argmin()), float(chi2.min())
    if not math.isfinite(least):
        return None
    whole = _made(made, points, tiles, with_floor, k, (g, t0[g], c[g], predicted[g], least), None)
    # One bad point: only where the fit with all of them fails, and enough are left to contradict it.
    if n < 6 or n - 1 - k < 2 or whole.adequate:
        return whole
    keep = 1.0 - numpy.eye(n)
    body = numpy.broadcast_to(made.body[:, None, :], (len(made.shapes), n, n))
    t0d, cd = pair(y, w * keep, body, with_floor)
    pred = t0d[..., None] + cd[..., None] * body
    chi2d = ((((y - pred) * w) ** 2) * keep).sum(-1)
    flat = _imitated(pred.reshape(-1, n), points, tiles, simpler, floor).reshape(chi2d.shape)
    chi2d = numpy.where(flat, numpy.inf, chi2d)
    g, out = (int(i) for i in numpy.unravel_index(int(chi2d.argmin()), chi2d.shape))
    price = 6 + 2 * math.log(n)
    if not float(chi2d[g, out]) + price < whole.chi2:
        return whole
    place = (g, t0d[g, out], cd[g, out], pred[g, out], float(chi2d[g, out]))
    return _made(made, points, tiles, with_floor, k, place, out)


def _imitated(
    predicted: Array, points: Sequence[Point], tiles: Tiles | None, simpler: list[str], floor: bool
) -> Array:
    """Which of these curves (G, n) a simpler law follows to ``DISTINCT`` at every point."""
    import numpy

    near = numpy.zeros(len(predicted), dtype=bool)
    for law in simpler:
        body = numpy.broadcast_to(columns(law, points, tiles).body, predicted.shape)
        t0, c = pair(predicted, 1 / numpy.maximum(predicted, 1e-300), body, floor)
        off = numpy.abs((t0[:, None] + c[:, None] * body) / numpy.maximum(predicted, 1e-300) - 1).max(-1)
        near |= off < DISTINCT
    return near


def _made(
    made: Columns,
    points: Sequence[Point],
    tiles: Tiles | None,
    with_floor: bool,
    k: int,
    place: tuple[int, Any, Any, Array, float],
    out: int | None,
) -> Fit:
    g, t0, c, predicted, chi2 = place
    n = len(points) - (out is not None)
    price = 0.0 if out is None else 6 + 2 * math.log(len(points))
    off = [p / q.time - 1 for p, q, i in zip(predicted, points, range(len(points)), strict=True) if i != out]
    return Fit(
        law=made.law,
        floor=float(t0),
        slope=float(c),
        shape=made.shapes[g],
        k=k,
        n=n,
        chi2=chi2,
        aic=chi2 + 2 * k + price,
        rms=math.sqrt(sum(x * x for x in off) / n),
        adequate=adequate(chi2, n - k),
        predicted=tuple(float(x) for x in predicted),
        intervals={},
        with_floor=with_floor,
        outlier=out,
        tiles=tiles,
    )


def with_intervals(fit: Fit, points: Sequence[Point]) -> Fit:
    """The same with profile intervals: every value for which χ² stays within 3.84 of its least while the
    other parameters adjust. Where the residuals are larger than the noise said, the allowance grows with
    them."""
    import numpy

    if fit.sides:
        return replace(fit, intervals={"shape": (fit.shape, fit.shape)})
    y, w = _scales(points)
    if fit.outlier is not None:
        w[fit.outlier] = 0.0
    made = columns(fit.law, points, fit.tiles)
    t0, c = pair(y, w, made.body, fit.with_floor)
    profile = (((y - t0[:, None] - c[:, None] * made.body) * w) ** 2).sum(-1)
    spare = fit.chi2 + COVERED * max(1.0, fit.chi2 / fit.dof if fit.dof > 0 else 1.0) - profile
    ranges: dict[str, list[float]] = {}
    for g in numpy.flatnonzero(spare >= 0):
        body = made.body[g]
        X = numpy.stack([numpy.ones_like(y), body], -1) if fit.with_floor else body[:, None]
        inverse = numpy.linalg.pinv((X * w[:, None]).T @ (X * w[:, None]))
        reach = numpy.sqrt(numpy.maximum(numpy.diag(inverse), 0) * spare[g])
        slopes = [max(0.0, float(c[g] - reach[-1])), float(c[g] + reach[-1])]
        ranges.setdefault("slope", []).extend(slopes)
        if fit.with_floor:
            ranges.setdefault("floor", []).extend(
                [max(0.0, float(t0[g] - reach[0])), float(t0[g] + reach[0])]
            )
        if fit.law == "roofline":
            ranges.setdefault("level", []).extend(made.shapes[g] * slope for slope in slopes)
        if made.fitted_shape:
            ranges.setdefault("shape", []).append(made.shapes[g])
    return replace(fit, intervals={name: (min(found), max(found)) for name, found in ranges.items()})


def profile(law: str, points: Sequence[Point], shapes: Sequence[float]) -> tuple[Array, Array]:
    """χ² of one law with a floor for each of these shapes, the coefficients adjusted to each; and for which
    of them the linear law imitates it."""
    import numpy

    y, w = _scales(points)
    body = numpy.stack([curve(law, 0.0, 1.0, shape, points, None) for shape in shapes])
    t0, c = pair(y, w, body, True)
    predicted = t0[:, None] + c[:, None] * body
    near = _imitated(predicted, points, None, ["linear"], True)
    return (((y - predicted) * w) ** 2).sum(-1), near


# ------------------------------------------------------------------------------------------- the switch


def _switches(points: Sequence[Point], others: list[Fit], floor: bool) -> Iterator[Fit]:
    """The best switch, when neither side's law, nor any law without one, follows it to ``DISTINCT``."""
    order = sorted({p.M for p in points})
    found: list[Fit] = []
    for first in order[MIN_SIDE : len(order) - MIN_SIDE + 1]:
        below = [p for p in points if first > p.M]
        above = [p for p in points if first <= p.M]
        for a in _side(below, floor):
            for b in _side(above, floor):
                found.append(_joined(float(first), a, b, points))  # noqa: PERF401
    for best in sorted(found, key=lambda fit: fit.aic):
        if best.dof < 0:
            continue
        if others and best.aic > min(fit.aic for fit in others) + 30:
            return
        as_points = [replace(p, time=t) for p, t in zip(points, best.predicted, strict=True)]
        if not follows_without(as_points, floor):
            yield best
            return


def _side(points: Sequence[Point], floor: bool) -> list[Fit]:
    """Constant, linear and affine fits of one side."""
    found = []
    y, w = _scales(points)
    for law, with_floor in (("constant", False), ("linear", False), ("linear", True)):
        if with_floor and (not floor or len(points) < 2):
            continue
        made = columns(law, points)
        t0, c = pair(y, w, made.body, with_floor)
        predicted = t0[:, None] + c[:, None] * made.body
        chi2 = float((((y - predicted) * w) ** 2).sum())
        place = (0, t0[0], c[0], predicted[0], chi2)
        k = 1 + with_floor
        if len(points) >= k:
            found.append(_made(made, points, None, with_floor, k, place, None))
    return found


def _joined(first: float, a: Fit, b: Fit, points: Sequence[Point]) -> Fit:
    k, n, chi2 = a.k + b.k + 1, len(points), a.chi2 + b.chi2
    low, high = iter(a.predicted), iter(b.predicted)
    predicted = tuple(next(high) if first <= p.M else next(low) for p in points)
    rms = math.sqrt((a.rms**2 * a.n + b.rms**2 * b.n) / n)
    # A side with as many parameters as points says nothing: what is left must still be able to contradict.
    return Fit(
        "switch", a.floor, a.slope, first, k, n, chi2, chi2 + 2 * (k - 1) + CHANGE_POINT, rms,
        adequate(chi2, n - k), predicted, {"shape": (first, first)}, None, (a, b),
    )  # fmt: skip


def follows(law: str, points: Sequence[Point], floor: bool) -> bool:
    """Whether a law of any shape follows these noiseless points to ``DISTINCT``."""
    import numpy

    y = numpy.array([p.time for p in points], dtype=float)
    made = columns(law, points)
    for with_floor in (False, True) if floor else (False,):
        t0, c = pair(y, 1 / y, made.body, with_floor)
        off = numpy.abs((t0[:, None] + c[:, None] * made.body) / y - 1).max(-1)
        if (off < DISTINCT).any():
            return True
    return False


def follows_without(points: Sequence[Point], floor: bool) -> bool:
    """Whether a law without a switch follows these noiseless points to ``DISTINCT``."""
    return any(follows(law, points, floor) for law in ("constant", "linear", "roofline", "staircase"))
