"""Why a curve of time against rows M has its shape: a verdict from the laws, or "inconclusive" and what would
decide.

A law is named only when it is adequate against the noise and every other law that a simpler one does not
imitate is worse by ``MARGIN``. How often that is wrong is counted by ``benchmarks/diagnosis.py``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bisect_tool.analysis.experiments import ranked
from bisect_tool.analysis.fitting import Fit, fits, with_intervals
from bisect_tool.analysis.laws import Point, Segment, Tiles

MARGIN = 6.0  # of the criterion: at equal odds before, e^3 = 20 to 1 after
FLOOR_BOUND = 0.5  # of the time
NEEDED = 4  # points, at different M, before a law is fitted
ASSUMED_NOISE = 0.02  # of a number that comes without an interval
LEAST_NOISE = 0.01  # what a time is off by at best, however often it is repeated (docs/method.md)
REREAD = 0.5  # of the copy's bandwidth, above which linear means that the weights are read again


@dataclass(frozen=True)
class Answer:
    """What one series, or one segment of it, shows.

    ``name``: linear, roofline, staircase, switch, flat, floor-bound or inconclusive. ``text`` is the verdict
    in one clause, ``why`` what it rests on. ``fits``: every law tried, the best first; ``decide``: the
    experiments that would tell the best two apart, by name, the best first.
    """

    name: str
    text: str
    why: str
    points: tuple[Point, ...]
    fits: tuple[Fit, ...] = ()
    decide: tuple[str, ...] = ()
    segment: Segment | None = None

    @property
    def confident(self) -> bool:
        """Whether a law is named."""
        return self.name in ("linear", "roofline", "staircase", "switch")

    @property
    def best(self) -> Fit | None:
        return self.fits[0] if self.fits else None


@dataclass(frozen=True)
class Diagnosis:
    """A whole series: its answers, one for each dispatch segment, and the verdict over them in one clause."""

    text: str
    answers: tuple[Answer, ...]
    name: str

    @property
    def rms(self) -> float:
        """Relative error of the best laws over all their points; NaN without any."""
        off = [
            (t / p.time - 1) ** 2
            for answer in self.answers
            if answer.best is not None
            for i, (p, t) in enumerate(zip(answer.points, answer.best.predicted, strict=True))
            if i != answer.best.outlier
        ]
        return math.sqrt(sum(off) / len(off)) if off else math.nan


def diagnose(
    points: Sequence[Point],
    segments: Sequence[Segment] = (),
    *,
    floor_removed: bool = False,
    floor: float | None = None,
    facts: Facts | None = None,
    backend: str = "",
) -> Diagnosis:
    """Explain one series, within its dispatch segments when they are known.

    ``floor_removed``: the times are slopes, with no cost of a launch in them. ``floor``: that cost as
    measured, in the unit of the times. ``facts``: what the series is of, where that is known. ``backend``:
    where experiments would be run. Raises ValueError for times that are not above 0 and for an M that no
    segment holds.
    """
    known = {
        "floor_removed": floor_removed, "floor": floor, "facts": facts, "backend": backend
    }  # fmt: skip
    ordered = sorted(points, key=lambda p: (p.M, p.series))
    parts = [(segment, [p for p in ordered if segment.holds(p.M)]) for segment in segments]
    if not segments:
        answer = decide(ordered, **known)  # type: ignore[arg-type]
        return Diagnosis(answer.text, (answer,), answer.name)
    lost = [p.M for p in ordered if not any(segment.holds(p.M) for segment in segments)]
    if lost:
        raise ValueError(f"M={lost[0]} is in no segment")
    answers = []
    for segment, part in parts:
        if part:
            one = decide(part, tiles=segment.tiles, **known)  # type: ignore[arg-type]
            answers.append(replace(one, segment=segment))
    return _over_segments(tuple(answers))


def _over_segments(answers: tuple[Answer, ...]) -> Diagnosis:
    """The verdict over several kernels: another from M*, unless none of them has an answer of its own."""
    if len(answers) == 1:
        return Diagnosis(answers[0].text, answers, answers[0].name)
    later = [a.segment for a in answers[1:] if a.segment is not None]
    where = " and ".join(f"M = {s.low}" + (f" ({s.kernel})" if s.kernel else "") for s in later)
    if any(a.confident or a.name == "flat" for a in answers):
        return Diagnosis(f"another kernel from {where}", answers, "switch")
    name = "floor-bound" if any(a.name == "floor-bound" for a in answers) else "inconclusive"
    return Diagnosis(f"{name}; another kernel from {where}", answers, name)


def decide(
    points: Sequence[Point],
    *,
    tiles: Tiles | None = None,
    floor_removed: bool = False,
    floor: float | None = None,
    facts: Facts | None = None,
    backend: str = "",
    intervals: bool = True,
) -> Answer:
    """The answer for the points of one kernel. See ``diagnose``; ``intervals`` as in ``fitting.fits``."""
    given = tuple(points)
    rows = {p.M for p in given}
    if len(rows) < NEEDED:
        found = tuple(fits(given, tiles, intervals=intervals)) if len(rows) > 1 else ()
        linear = next((fit for fit in found[:1] if fit.law == "linear" and fit.adequate), None)
        if linear is not None and not floor_removed and _floor_share(linear) >= FLOOR_BOUND:
            why = f"a constant of the linear fit to {len(rows)} points"
            return Answer("floor-bound", _floor_text(_floor_share(linear)), why, given, found, ("k-sweep",))
        why = f"{len(rows)} of the {NEEDED} different M that a law needs"
        return Answer("inconclusive", f"inconclusive: {why}", why, given, found)
    found = tuple(fits(given, tiles, intervals=False))
    if intervals:
        found = tuple(with_intervals(fit, given) for fit in found)
    best = found[0]
    noise = statistics.median(p.noise for p in given)

    def answer(name: str, text: str, why: str, rival: Fit | None = None) -> Answer:
        other = rival or next((fit for fit in found[1:] if fit.law != best.law), None)
        decide_by = []
        if name == "inconclusive" and other is not None:
            decide_by = [n for n, far in ranked(best, other, given, backend) if far > 1][:3]
        elif name == "floor-bound":
            decide_by = ["k-sweep"]
        return Answer(name, text, why, given, found, tuple(decide_by))

    if floor is not None:
        share = floor / statistics.median(p.time for p in given)
        if share >= FLOOR_BOUND:
            text = f"floor-bound: {_share(share)} of this number is launch overhead"
            return answer("floor-bound", text, "an empty call was timed beside it")
    if not best.adequate:
        off = f"no law comes near enough: {best.law} is off by {best.rms * 100:.1f} % rms"
        why = f"{off}, the noise is {noise * 100:.1f} %"
        return answer("inconclusive", f"inconclusive: {why}", why)
    rivals = [fit for fit in found[1:] if fit.aic < best.aic + MARGIN]
    if best.law == "constant" and not [fit for fit in rivals if fit.law not in ("constant", "linear")]:
        text = "flat: no dependence on M within the noise; bandwidth, a tile that holds all these rows, or a "
        text += "fixed cost"
        return answer("flat", text, f"a constant fits to {best.rms * 100:.1f} % rms")
    share = statistics.median(best.floor / t for t in best.predicted)
    if share >= FLOOR_BOUND and not best.sides and not floor_removed:
        text = (
            f"floor-bound: {_share(share)} of this number does not depend on M, as launch overhead does not"
        )
        return answer("floor-bound", text, f"a constant of the {best.law} fit")
    if rivals:
        other = rivals[0]
        gap = other.aic - best.aic
        how = f"criterion {gap:.1f} apart, noise {noise * 100:.1f} %"
        why = f"{best.law} and {other.law} explain these points about alike ({how})"
        return answer("inconclusive", f"inconclusive: {why}", why, other)
    runner = next(iter(found[1:]), None)
    why = f"{best.rms * 100:.1f} % rms against a noise of {noise * 100:.1f} %"
    if runner is not None:
        why += f"; next best {runner.law}, {runner.rms * 100:.1f} %"
    text = _law_text(best, tiles, facts)
    if best.outlier is not None:
        out = given[best.outlier].M
        why += f"; M={out} lies off every law and was left out: measure it again"
        # At the end of the rows it may as well be the first of another kernel.
        hint = " (another kernel, or a bad point)" if out in (min(rows), max(rows)) else ""
        text += f"; without M={out}, which lies off it{hint}"
    return answer(best.law, text, why)


def _floor_share(fit: Fit) -> float:
    return statistics.median(fit.floor / t for t in fit.predicted)


def _floor_text(share: float) -> str:
    return f"floor-bound: {_share(share)} of this number does not depend on M, as launch overhead does not"


def _share(share: float) -> str:
    return f"{min(share, 1.0) * 100:.0f} %"


def _law_text(best: Fit, tiles: Tiles | None, facts: Facts | None) -> str:
    if best.law == "roofline":
        rows = "" if tiles is None else " rows of a tile"
        return f"bandwidth to arithmetic at M ≈ {best.shape:.1f}{rows}"
    if best.law == "staircase":
        if tiles is not None:
            return f"whole tiles of {tiles.rows} rows, each paid in full"
        return f"wave quantisation: q = {best.shape:.0f} rows a step"
    if best.law == "switch":
        return f"another kernel from M = {best.shape:.0f}"
    once = best.floor / best.slope if best.slope > 0 else 0.0
    kept = f", on top of {once:.1f} rows' worth paid once" if once >= 1 else ""
    if facts is None or not facts.copy or best.slope <= 0:
        each = "every row costs what the first does (weights read again, or arithmetic from M = 1)"
        return f"linear: {each}{kept}"
    share = facts.weight_bytes / best.slope / facts.copy
    if share >= REREAD:
        return f"linear: the weights are read again for every row, at {_share(share)} of a copy's speed{kept}"
    each = f"every row costs what the first does, at {_share(share)} of the speed at which a copy reads"
    return f"linear: {each}: arithmetic, or a cache, bounds it from M = 1{kept}"


# ---------------------------------------------------------------------------------------- physical figures


@dataclass(frozen=True)
class Facts:
    """What a series is of: multiply-adds times two of one row (2·K·N), bytes of weights, and what a copy
    reaches on this machine in bytes a second (None: not known). Times of its points are seconds."""

    flop: float
    weight_bytes: float
    copy: float | None = None


@dataclass(frozen=True)
class Implied:
    """What a fit says of the device: bytes a second while bandwidth bounds it, FLOP a second while arithmetic
    does, the floor as a share of the time at the smallest and the largest M; None where the law has none."""

    bandwidth: float | None
    arithmetic: float | None
    floor_low: float
    floor_high: float


def implied(fit: Fit, facts: Facts | None) -> Implied:
    """Figures that a fit implies. A switch implies them per side, see ``Fit.sides``."""
    low, high = fit.predicted[0], fit.predicted[-1]
    shares = (fit.floor / low, fit.floor / high)
    if facts is None or fit.slope <= 0 or fit.sides:
        return Implied(None, None, *shares)
    level = {"roofline": fit.level, "constant": fit.slope}.get(fit.law)
    bandwidth = facts.weight_bytes / level if level else None
    arithmetic = facts.flop / fit.slope if fit.law in ("linear", "roofline") else None
    return Implied(bandwidth, arithmetic, *shares)


@dataclass(frozen=True)
class Limits:
    """One M: the share of its time that the bandwidth limit, and the arithmetic limit, would take (1: at the
    limit). None where the limit is not known."""

    M: float
    bandwidth: float | None
    arithmetic: float | None


def limits(points: Sequence[Point], fit: Fit | None, facts: Facts | None, floor: float = 0.0) -> list[Limits]:
    """How far each M is from what this device can do: reading the weights at the speed of a copy, and the
    arithmetic at the speed of the kernel's own slope. ``floor`` is taken off the times first."""
    found = []
    read = facts.weight_bytes / facts.copy if facts is not None and facts.copy else None
    slope = fit.slope if fit is not None and fit.law in ("linear", "roofline") and fit.slope > 0 else None
    for p in points:
        time = max(p.time - floor, 1e-300)
        found.append(Limits(p.M, read / time if read else None, slope * p.M / time if slope else None))
    return found
