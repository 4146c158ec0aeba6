"""Someone's numbers as series: JSON, CSV, a markdown table as pasted into an issue, or #3553's own lines."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bisect_tool.analysis import segments
from bisect_tool.analysis.cost_models import ASSUMED_NOISE, LEAST_NOISE
from bisect_tool.analysis.laws import Point, Segment

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
RATIO = "ratio"
SHAPE = re.compile(r"(\d{2,})\s*(?:→|->|[x×])\s*(\d{2,})")
LINE = re.compile(r"M=(\d+)\s*[=:]\s*([\d.]+)\s*(s|ms|us|µs|μs|ns)\b")


class Unreadable(ValueError):
    """A table that cannot be used, and why, in one clause."""


@dataclass(frozen=True)
class Series:
    """One curve. ``unit``: ``s`` (times are seconds) or ``ratio`` (times are up to a scale)."""

    label: str
    points: tuple[Point, ...]
    unit: str
    K: int | None = None
    N: int | None = None
    bits: int | None = None
    group_size: int | None = None
    segments: tuple[Segment, ...] = ()
    timing: str = ""
    assumed_noise: bool = True


def read(text: str, *, unit: str | None = None, noise: float | None = None) -> list[Series]:
    """Every series in a text. ``unit``: of numbers that come without one; ``noise``: relative, of all numbers
    (else from their intervals, else 2 %). Raises Unreadable."""
    from bisect_tool.analysis import given_grid

    if not text.strip():
        raise Unreadable("the table is empty")
    if unit is not None and unit not in (*SECONDS, RATIO):
        raise Unreadable(f"{unit!r} is none of s, ms, us, ns, ratio")
    if text.lstrip()[0] in "[{":
        found = _json(text, unit)
    elif LINE.search(text) and "|" not in text:
        found = _lines(text)
    else:
        found = given_grid.grid(given_grid.cells_of(text), unit)
    if not found:
        raise Unreadable("no series of times against M was found in it")
    found = [_checked(one) for one in found]
    if len(found) == 1 and len(found[0].points) < 4:
        raise Unreadable(f"{found[0].label}: {len(found[0].points)} points; a law needs at least four")
    if noise is None:
        return found
    return [
        replace(one, points=tuple(replace(p, noise=noise) for p in one.points), assumed_noise=False)
        for one in found
    ]


def _checked(series: Series) -> Series:
    seen: set[float] = set()
    for point in series.points:
        if point.M in seen:
            raise Unreadable(f"{series.label}: M={point.M} is there twice")
        seen.add(point.M)
        if point.M < 1:
            raise Unreadable(f"{series.label}: M={point.M}, which is no number of rows")
        if not (math.isfinite(point.time) and point.time > 0):
            raise Unreadable(f"{series.label}: the time at M={point.M} is {point.time:g}, not above 0")
    return replace(series, points=tuple(sorted(series.points, key=lambda p: p.M)))


def made(
    label: str, pairs: Iterable[tuple[int, float, float | None]], unit: str | None, **about: Any
) -> Series:
    """A series from (M, value, relative noise or None). ``unit`` None: up to a scale."""
    scale = SECONDS.get(unit or "", 1.0)
    triples = list(pairs)
    points = tuple(Point(M, value * scale, noise or ASSUMED_NOISE) for M, value, noise in triples)
    assumed = any(noise is None for _, _, noise in triples)
    return Series(label, points, "s" if unit in SECONDS else RATIO, assumed_noise=assumed, **about)


def rows_of(value: object) -> int:
    """M as a whole number. Raises Unreadable."""
    try:
        number = float(str(value).strip().strip("*`"))
    except ValueError:
        raise Unreadable(f"M is {str(value).strip()!r}, which is no number") from None
    if not math.isfinite(number) or number != int(number):
        raise Unreadable(f"M is {str(value).strip()}, which is no whole number")
    return int(number)


# ------------------------------------------------------------------------------------------------ JSON


def _json(text: str, unit: str | None) -> list[Series]:
    try:
        content = json.loads(text)
    except ValueError as problem:
        raise Unreadable(f"it begins like JSON and is none: {problem}") from None
    if isinstance(content, dict) and isinstance(content.get("tables"), list):
        return [_of_report(one) for one in content["tables"] if not one.get("case", {}).get("control")]
    many = content.get("series", content) if isinstance(content, dict) else content
    many = many if isinstance(many, list) else [many]
    return [_of_object(one, f"series {i}", unit) for i, one in enumerate(many, 1)]


def _of_report(table: Mapping[str, Any]) -> Series:
    """A table of this tool's own ``--json``."""
    case = table["case"]
    pairs = []
    for row in table["rows"]:
        time = row["time_s"]
        pairs.append((row["M"], time["centre"], noise_of(time["centre"], time["low"], time["high"])))
    about = {name: case.get(name) for name in ("K", "N", "bits", "group_size")}
    label = f"{table['arm']} {case['K']} → {case['N']}"
    return made(label, pairs, "s", timing=str(case.get("timing", "")), **about)


def noise_of(centre: float, low: float | None, high: float | None) -> float | None:
    """Relative standard error from a 95 % interval; None without one."""
    if low is None or high is None or not centre > 0:
        return None
    return max(LEAST_NOISE, (high - low) / 2 / 1.96 / centre)


def _of_object(one: object, fallback: str, unit: str | None) -> Series:
    if not isinstance(one, dict):
        raise Unreadable(f"{fallback} is {str(one)[:40]!r}, no object with M and times")
    label = str(one.get("id") or one.get("label") or fallback)
    if "M" in one:
        names = [name for name in ("y", "times", "time", *SECONDS, "time_s", RATIO) if name in one]
        if len(names) != 1:
            raise Unreadable(f"{label}: {'no times' if not names else 'several columns of times'} beside M")
        values, said = one[names[0]], one.get("unit")
        said = said or (names[0] if names[0] in SECONDS else {"time_s": "s", RATIO: RATIO}.get(names[0]))
        rows = one["M"]
        if not isinstance(rows, list) or not isinstance(values, list) or len(rows) != len(values):
            raise Unreadable(f"{label}: M and {names[0]} are no lists of one length")
    elif one and all(str(key).isdigit() for key in one):
        rows, values, said = list(one), list(one.values()), None
    else:
        raise Unreadable(f"{label} has no M")
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        raise Unreadable(f"{label}: a time that is no number")
    said = said or unit
    if said is not None and said not in (*SECONDS, RATIO):
        raise Unreadable(f"{label}: the unit {said!r} is none of s, ms, us, ns, ratio")
    # A note about kernels may be free text; only what reads as segments is used.
    known: tuple[Segment, ...] = ()
    with contextlib.suppress(ValueError):
        known = tuple(segments.parse(str(one.get("kernel", ""))))
    size = one.get("group_size", one.get("gs"))
    pairs = [(rows_of(M), float(value), None) for M, value in zip(rows, values, strict=True)]
    return made(
        label, pairs, said, K=one.get("K"), N=one.get("N"), bits=one.get("bits"), group_size=size,
        segments=known, timing=str(one.get("timing", "")),
    )  # fmt: skip


# ----------------------------------------------------------------------------------- #3553's own lines


def _lines(text: str) -> list[Series]:
    found: list[Series] = []
    for line in text.splitlines():
        cells = LINE.findall(line)
        if not cells:
            continue
        units = {unit for _, _, unit in cells}
        label = line[: LINE.search(line).start()].strip(" :")  # type: ignore[union-attr]
        if len(units) > 1:
            raise Unreadable(f"{label or 'a line'} mixes the units {' and '.join(sorted(units))}")
        pairs = [(int(M), float(value), None) for M, value, _ in cells]
        found.append(made(label or f"line {len(found) + 1}", pairs, units.pop(), **shape_of(label)))
    return found


def shape_of(label: str) -> dict[str, int]:
    """K and N where a label names a shape such as ``5120 → 13824``."""
    match = SHAPE.search(label)
    return {"K": int(match[1]), "N": int(match[2])} if match else {}
