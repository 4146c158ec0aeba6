"""What the outcome of an experiment says of the laws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bisect_tool.analysis import fitting
from bisect_tool.analysis.cost_models import FLOOR_BOUND, MARGIN
from bisect_tool.analysis.experiments import Change, Support, supports
from bisect_tool.analysis.laws import Point

MOVED = 0.05  # a smaller change of a time is none
BLIND = 0.3  # where even such a change would drown in the noise, nothing is said


@dataclass(frozen=True)
class Outcome:
    """``law``: which one the outcome supports, or empty. ``text``: the same in one clause, and why.
    ``ratios``: M -> setting -> time over that of the unchanged series."""

    law: str
    text: str
    ratios: dict[float, dict[str, float]]
    supports: tuple[Support, ...] = ()


def interpret(
    experiment: str, base: str, series: Mapping[str, Sequence[Point]], changes: Mapping[str, Change]
) -> Outcome:
    """Read the outcome of ``experiment``: a series for each setting, ``base`` the unchanged one.

    Raises ValueError without another setting, or where no M was measured at both.
    """
    others = [label for label in series if label != base]
    shared = set.intersection(*({p.M for p in points} for points in series.values()))
    if not others or not shared:
        raise ValueError("an experiment needs two settings measured at the same M")
    times = {label: {p.M: p for p in points} for label, points in series.items()}
    ratios = {
        M: {label: times[label][M].time / times[base][M].time for label in others} for M in sorted(shared)
    }
    if experiment == "hot-cold":
        return _hot_cold(ratios, times, base, others[0])
    if experiment == "forced-arch":
        return _forced(ratios, times, base, others[0])
    if experiment == "k-sweep":
        return _k_sweep(ratios, times, changes)
    found = tuple(supports(series, changes))
    law, text = _supported(found)
    return Outcome(law, text, ratios, found)


def _supported(found: Sequence[Support]) -> tuple[str, str]:
    """The hypothesis that is adequate and ``MARGIN`` ahead of every other."""
    if not found:
        return "", "inconclusive: too few points for the parameters of any law"
    best = found[0]
    if not best.adequate:
        return "", f"inconclusive: not even {best.name} fits all settings within the noise"
    if len(found) > 1 and found[1].aic < best.aic + MARGIN:
        return "", f"inconclusive: {best.name}, and {found[1].name}, explain all settings about alike"
    law = best.name.split(",")[0].split(" of ")[0]
    return {"waves": "staircase"}.get(law, law), f"supports {best.name}"


def _visible(times: Mapping[str, Mapping[float, Point]], labels: Sequence[str], M: float) -> float:
    """The smallest change of a ratio that stands out, as a share: three times its noise."""
    return max(MOVED, 3 * math.hypot(*(times[label][M].noise for label in labels)))


def _drowned(seen: Mapping[float, float]) -> str:
    worst = max(seen, key=lambda M: seen[M])
    return f"inconclusive: at M = {worst:g} a change below {seen[worst] * 100:.0f} % would drown in the noise"


def _hot_cold(
    ratios: dict[float, dict[str, float]], times: Mapping[str, Mapping[float, Point]], base: str, cold: str
) -> Outcome:
    seen = {M: _visible(times, (base, cold), M) for M in ratios}
    if max(seen.values()) > BLIND:
        return Outcome("", _drowned(seen), ratios)
    slower = {M: r[cold] - 1 > seen[M] for M, r in ratios.items()}
    rows = [M for M, slow in slower.items() if slow]
    if not rows:
        text = (
            "no row slows down: memory is not what bounds them, or the weights fit no cache when hot either"
        )
        return Outcome("", text, ratios)
    if len(rows) == len(ratios):
        return Outcome("", "every row slows down: all of them are bound by reading the weights", ratios)
    last = max(rows)
    if (
        all(last >= M for M in rows)
        and all(not slower[M] for M in ratios if last < M)
        and min(ratios) in rows
    ):
        text = f"supports roofline: rows up to M = {last:g} slow down, bound by bandwidth, those above do not"
        return Outcome("roofline", text, ratios)
    return Outcome("", f"inconclusive: rows M = {', '.join(f'{M:g}' for M in rows)} slow down", ratios)


def _forced(
    ratios: dict[float, dict[str, float]], times: Mapping[str, Mapping[float, Point]], base: str, other: str
) -> Outcome:
    seen = {M: _visible(times, (base, other), M) for M in ratios}
    moved = [M for M, r in ratios.items() if abs(r[other] - 1) > seen[M]]
    if moved:
        rows = ", ".join(f"{M:g}" for M in moved)
        text = f"supports switch: another dispatch changes the time at M = {rows}"
        return Outcome("switch", text, ratios)
    if max(seen.values()) > BLIND:
        return Outcome("", _drowned(seen), ratios)
    text = "no time changes: these rows ran the same kernels, or dispatch is not the cause"
    return Outcome("", text, ratios)


def _k_sweep(
    ratios: dict[float, dict[str, float]],
    times: Mapping[str, Mapping[float, Point]],
    changes: Mapping[str, Change],
) -> Outcome:
    """t = f + s·K at each M, both 0 or above: the part f of the unchanged time that K does not move."""
    import numpy

    labels = list(times)
    deep = numpy.array([[changes[label].work for label in labels]])
    shares: dict[float, float] = {}
    chi2 = 0.0
    for M in ratios:
        y = numpy.array([times[label][M].time for label in labels])
        w = 1 / (y * numpy.array([times[label][M].noise for label in labels]))
        floor, slope = (float(part[0]) for part in fitting.pair(y, w, deep, True))
        shares[M] = floor / (floor + slope)
        chi2 += float((((y - floor - slope * deep[0]) * w) ** 2).sum())
    if not fitting.adequate(chi2, len(shares) * (len(labels) - 2)):
        return Outcome("", "inconclusive: the times do not grow evenly with K, within their noise", ratios)
    low, high = min(shares), max(shares)
    text = f"{shares[low] * 100:.0f} % of the time at M = {low:g} does not grow with K, "
    text += f"{shares[high] * 100:.0f} % at M = {high:g}"
    bound = shares[low] >= FLOOR_BOUND
    return Outcome("floor-bound" if bound else "", ("supports a floor: " if bound else "") + text, ratios)
