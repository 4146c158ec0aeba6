"""Experiments that tell the laws apart: what each changes, and what each law says will come of it.

A law fitted to one series predicts the series with other bits, another N, a cold cache. The experiment that
separates two laws most is the one whose predictions lie furthest apart, in units of noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bisect_tool.analysis.fitting import Fit
from bisect_tool.analysis.laws import Point


@dataclass(frozen=True)
class Change:
    """One setting of an experiment, as factors against the series it starts from: bytes of weights, work of a
    row, columns of the output, multiply-adds a second, bytes a second. ``kernel``: another may be forced."""

    label: str
    bytes: float = 1.0
    work: float = 1.0
    columns: float = 1.0
    rate: float = 1.0
    bandwidth: float = 1.0
    kernel: bool = False

    @property
    def ridge(self) -> float:
        """By what the ridge of a roofline moves: bytes over work, at these rates."""
        return self.bytes / self.work * self.rate / self.bandwidth


@dataclass(frozen=True)
class Experiment:
    """``question`` is what it asks of the laws; ``backends`` where it can be run ("" anywhere)."""

    name: str
    question: str
    changes: tuple[Change, ...]
    backend: str = ""


def weight_bytes(bits: int, group_size: int, quant: str = "affine") -> float:
    """Bytes of one weight: its bits, and its share of the group's scale and bias (2 bytes each for affine,
    one byte of scale for the floating-point modes)."""
    return bits / 8 + (4 if quant == "affine" else 1) / group_size


def _bits(bits: int) -> Change:
    return Change(f"{bits}-bit", bytes=weight_bytes(bits, 64) / weight_bytes(4, 64))


def _group(size: int) -> Change:
    return Change(f"group {size}", bytes=weight_bytes(4, size) / weight_bytes(4, 64))


def _wide(factor: float) -> Change:
    return Change(f"N × {factor:g}", bytes=factor, work=factor, columns=factor)


def _deep(factor: float) -> Change:
    return Change(f"K × {factor:g}", bytes=factor, work=factor)


EXPERIMENTS = {
    e.name: e
    for e in (
        Experiment(
            "bits",
            "does the ridge move with the bytes of a weight (roofline), or stay (waves)?",
            (_bits(2), _bits(8)),
        ),
        Experiment(
            "n-sweep",
            "does the time grow in steps with N (waves of threadgroups), or evenly?",
            tuple(_wide(f) for f in (0.5, 0.75, 1.25, 1.5)),
        ),
        Experiment(
            "k-sweep", "what part of the time does not grow with K (a floor)?", (_deep(0.5), _deep(1.5))
        ),
        Experiment(
            "hot-cold",
            "which rows slow down when no cache holds the weights (those bound by bandwidth)?",
            (Change("cold", bandwidth=0.7),),
        ),
        Experiment(
            "group-size", "does the ridge move with the bytes of the scales?", (_group(32), _group(128))
        ),
        Experiment(
            "forced-arch",
            "does the step move when another chip's kernels are chosen (dispatch)?",
            (Change("applegpu_g12s", kernel=True),),
            "metal",
        ),
        Experiment(
            "dtype",
            "does the sloped part grow when arithmetic takes longer (float32), the flat part not?",
            (Change("float32", rate=0.5),),
        ),
    )
}


def predicted(fit: Fit, points: Sequence[Point], change: Change) -> list[float]:
    """The times at these points that a law fitted to the unchanged series predicts after the change.

    The linear law is taken as issue reports take it: the weights are read again for every row.
    """
    if fit.sides:
        if change.kernel:  # the dispatch is what is changed: the lower kernel everywhere
            return predicted(fit.sides[0], points, replace(change, kernel=False))
        low, high = (predicted(side, points, change) for side in fit.sides)
        return [b if fit.shape <= p.M else a for p, a, b in zip(points, low, high, strict=True)]
    if fit.law in ("constant", "linear"):
        return [fit.floor + (t - fit.floor) * change.bytes / change.bandwidth for t in fit.at(points)]
    if fit.law == "roofline":
        moved = replace(fit, shape=fit.shape * change.ridge, slope=fit.slope * change.work / change.rate)
        return moved.at(points)
    moved = replace(fit, slope=fit.slope * change.work / change.rate)
    return moved.at([replace(p, columns=p.columns * change.columns) for p in points])


def separation(a: Fit, b: Fit, points: Sequence[Point], experiment: Experiment) -> float:
    """How far apart two laws' predictions come to lie, in units of noise: the root of the mean square over
    settings and rows of the logarithm of their ratio."""
    total, count = 0.0, 0
    for change in experiment.changes:
        pairs = zip(predicted(a, points, change), predicted(b, points, change), points, strict=True)
        for one, other, point in pairs:
            if one > 0 and other > 0:
                total += (math.log(one / other) / point.noise) ** 2
                count += 1
    return math.sqrt(total / count) if count else 0.0


def ranked(a: Fit, b: Fit, points: Sequence[Point], backend: str = "") -> list[tuple[str, float]]:
    """Experiments by what they separate, the best first. ``backend``: where they would be run, if known."""
    usable = [e for e in EXPERIMENTS.values() if not e.backend or e.backend == backend or not backend]
    found = [(e.name, separation(a, b, points, e)) for e in usable]
    return sorted(found, key=lambda pair: -pair[1])


# ------------------------------------------------------------------------------------------ the outcome


@dataclass(frozen=True)
class Support:
    """One hypothesis about all series of an experiment at once: slopes and floors are each series' own, the
    ridge or tile is shared as the hypothesis has it."""

    name: str
    shape: float  # ridge or tile of the unchanged series; NaN for none
    k: int
    n: int
    chi2: float
    aic: float
    adequate: bool


HYPOTHESES = {
    "linear": ("linear", False),
    "roofline, ridge moving with bytes per multiply-add": ("roofline", True),
    "roofline, ridge staying where it is": ("roofline", False),
    "waves of rows times columns": ("staircase", False),
}


def supports(series: Mapping[str, Sequence[Point]], changes: Mapping[str, Change]) -> list[Support]:
    """Every hypothesis against all series, the best first. ``changes`` has the setting of each series.

    A series with more columns or bytes carries them as the setting says, whatever its points say.
    """
    import numpy

    from bisect_tool.analysis import fitting, laws

    found = []
    n = sum(len(points) for points in series.values())
    rows = [p.M for points in series.values() for p in points]
    still = all(math.isclose(change.ridge, 1.0) for change in changes.values())
    for name, (law, moves) in HYPOTHESES.items():
        if still and law == "roofline":
            if moves:
                continue  # a ridge that nothing moves is one hypothesis, not two
            name = "roofline"
        shapes: tuple[float, ...] = (math.nan,)
        if law == "roofline":
            shapes = tuple(numpy.geomspace(min(rows), max(rows), laws.RIDGES).tolist())
        elif law == "staircase":
            shapes = tuple(float(q) for q in range(2, int(max(rows)) + 1))
        k = (law != "linear") + 2 * len(series)
        if n <= k:
            continue
        each = []
        for label, points in series.items():
            change = changes[label]
            placed = [
                replace(p, work=1.0, bytes=change.ridge if moves else 1.0, columns=change.columns)
                for p in points
            ]
            each.append(fitting.profile(law, placed, shapes))
        total = numpy.sum([chi2 for chi2, _ in each], axis=0)
        if law != "linear":  # what the linear law imitates in every series is no other law
            total = numpy.where(numpy.all([near for _, near in each], axis=0), numpy.inf, total)
            if not numpy.isfinite(total).any():
                continue
        g = int(total.argmin())
        least = float(total[g])
        found.append(Support(name, shapes[g], k, n, least, least + 2 * k, fitting.adequate(least, n - k)))
    return sorted(found, key=lambda one: one.aic)
