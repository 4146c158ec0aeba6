"""Tables as series: markdown as pasted into an issue, CSV, and this tool's own CSV of runs."""

from __future__ import annotations

import csv
import io
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bisect_tool.analysis.cost_models import LEAST_NOISE
from bisect_tool.analysis.given import RATIO, SECONDS, Series, Unreadable, made, noise_of, rows_of, shape_of

CASE = ("arm", "op", "K", "N", "B", "bits", "group_size", "quant", "dtype", "cache", "timing")
VALUE = re.compile(
    r"^[~≈]?\s*(?P<value>[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)\s*(?P<unit>s|ms|us|µs|μs|ns|x|×|%)?"
    r"(?:\s*\[(?P<low>[-+\d.e]+)\s*,\s*(?P<high>[-+\d.e]+)\])?\s*(?P<after>s|ms|us|µs|μs|ns)?$",
    re.IGNORECASE,
)
UNIT = re.compile(r"(?<![\w/])(ms|us|µs|μs|ns|s)(?![\w/])")
ROWS = re.compile(r"(?:M|rows|batch(?: size)?|tokens)(?:\s*\(.*\))?", re.IGNORECASE)
RATIOS = re.compile(r"ratio|speed|(?:^|\s)/|/\s*M|vs\.?\s|relative|[×%]|GB/s|error|notes", re.IGNORECASE)


def cells_of(text: str) -> list[list[str]]:
    """The cells of the first table of a text, its header first."""
    lines = [line for line in text.splitlines() if line.strip()]
    if any("|" in line for line in lines):
        rows = [
            re.split(r"(?<!\\)\|", line.strip().lstrip(">").strip().strip("|"))
            for line in lines
            if "|" in line
        ]
        rows = [[cell.strip().strip("*`").strip() for cell in row] for row in rows]
        return [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]
    sniffed = max(",;\t", key=lines[0].count)
    return [
        [cell.strip() for cell in row] for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=sniffed)
    ]


def grid(table: list[list[str]], unit: str | None) -> list[Series]:
    head, rows = table[0], table[1:]
    if all(VALUE.match(cell) for cell in head if cell):
        raise Unreadable(
            "the table has no header",
        )
    if not rows:
        raise Unreadable("the table has a header and no rows")
    if wrong := next((row for row in rows if len(row) != len(head)), None):
        raise Unreadable(
            f"a row has {len(wrong)} cells where the header has {len(head)}: {' | '.join(wrong)[:60]}"
        )
    across = [i for i, cell in enumerate(head) if re.fullmatch(r"M\s*=\s*\d+", cell)]
    if len(across) > 1:
        return _across(head, rows, across, unit)
    place = next((i for i, cell in enumerate(head) if ROWS.fullmatch(cell)), None)
    if place is None:
        raise Unreadable(f"no column is named M, among {', '.join(head)[:80]}")
    if "time_s" in head:
        return _long(head, rows)
    times = [i for i, cell in enumerate(head) if i != place and not _ratio_column(cell, [r[i] for r in rows])]
    times = [i for i in times if any(VALUE.match(row[i]) for row in rows)]
    ratios = not times
    if ratios:
        times = [i for i in range(len(head)) if i != place and any(VALUE.match(row[i]) for row in rows)][:1]
    if not times:
        raise Unreadable("no column beside M holds times")
    found = []
    for i in times:
        values = [_value(row[i], head[i]) for row in rows if row[i] not in ("", "-", "–")]
        kept = [row for row in rows if row[i] not in ("", "-", "–")]
        said = RATIO if ratios else _unit(head[i], values, unit)
        pairs = [
            (rows_of(row[place]), v.number, noise_of(v.number, v.low, v.high))
            for row, v in zip(kept, values, strict=True)
        ]
        bare = UNIT.sub("", re.sub(r"\[.*?\]", "", head[i])).strip()
        label = head[i] if bare else "time"
        found.append(made(label, pairs, said, **shape_of(head[i])))
    return found


def _ratio_column(name: str, cells: Sequence[str]) -> bool:
    marks = [m["unit"] for cell in cells if (m := VALUE.match(cell))]
    if marks and all(mark in ("x", "×", "%") for mark in marks):
        return True
    return bool(RATIOS.search(name)) and not UNIT.search(name)


@dataclass(frozen=True)
class _Value:
    number: float
    unit: str
    low: float | None
    high: float | None


def _value(cell: str, column: str) -> _Value:
    match = VALUE.match(cell)
    if match is None:
        raise Unreadable(f"{cell!r} in the column {column!r} is no number")
    low, high = (float(match[name]) if match[name] else None for name in ("low", "high"))
    unit = (match["unit"] or match["after"] or "").lower()
    return _Value(float(match["value"]), unit if unit in SECONDS else "", low, high)


def _unit(name: str, values: Sequence[_Value], fallback: str | None) -> str | None:
    """The one unit of a column: its cells', its header's, or the one that was named."""
    of_cells = {value.unit for value in values}
    if len(of_cells) > 1:
        said = " and ".join(sorted(unit or "none" for unit in of_cells))
        raise Unreadable(f"the column {name!r} mixes units: {said}")
    in_head = UNIT.search(name)
    one = of_cells.pop() if of_cells else ""
    if one and in_head and SECONDS[one] != SECONDS[in_head[1]]:
        raise Unreadable(f"the column {name!r} says {in_head[1]}, its cells {one}")
    return one or (in_head[1] if in_head else None) or fallback


def _across(head: list[str], rows: list[list[str]], places: list[int], unit: str | None) -> list[Series]:
    """A table with M along its top: a series a row."""
    found: list[Series] = []
    for number, row in enumerate(rows, 1):
        label = " ".join(cell for i, cell in enumerate(row) if i not in places and not VALUE.match(cell))
        label = label.strip() or f"row {number}"
        cells = [(i, row[i]) for i in places if row[i] not in ("", "-", "–")]
        values = [_value(cell, head[i]) for i, cell in cells]
        tops = [int(re.sub(r"\D", "", head[i])) for i, _ in cells]
        said = _unit(f"{label} {head[0]}", values, unit)
        pairs = [(M, v.number, noise_of(v.number, v.low, v.high)) for M, v in zip(tops, values, strict=True)]
        found.append(made(label, pairs, said, **shape_of(label)))
    return found


def _long(head: list[str], rows: list[list[str]]) -> list[Series]:
    """A CSV of one measurement a row, as ``report --format csv`` prints it: a series for each case."""
    groups: dict[tuple[str, ...], dict[int, list[float]]] = {}
    names = [name for name in CASE if name in head]
    for row in rows:
        line = dict(zip(head, row, strict=True))
        if line.get("discarded") or not line["time_s"] or line.get("op") == "matmul":
            continue
        key = tuple(line[name] for name in names)
        by_rows = groups.setdefault(key, {})
        M = rows_of(line["M"])
        if M in by_rows and "round" not in head:
            raise Unreadable(f"M={M} is there twice, and no column says which run is which")
        by_rows.setdefault(M, []).append(_value(line["time_s"], "time_s").number)
    found = []
    for key, by_rows in groups.items():
        about = dict(zip(names, key, strict=True))
        pairs = []
        for M, values in by_rows.items():
            spread = (
                statistics.stdev([math.log(v) for v in values])
                if len(values) > 2 and min(values) > 0
                else None
            )
            # Of a median; 1.25 times that of a mean.
            noise = None if spread is None else max(LEAST_NOISE, 1.25 * spread / math.sqrt(len(values)))
            pairs.append((M, statistics.median(values), noise))
        shape = f"{about['K']} → {about['N']}" if {"K", "N"} <= about.keys() else ""
        rest = [about.get(name, "") for name in ("arm", "bits", "quant", "dtype", "timing", "cache")]
        label = " ".join(word for word in (shape, *rest) if word) or "times"
        numbers = {n: int(float(about[n])) for n in ("K", "N", "bits", "group_size") if about.get(n)}
        found.append(made(label, pairs, "s", timing=about.get("timing", ""), **numbers))
    return found


def _noise_of_median(values: Sequence[float]) -> float | None:
    """Relative standard error of a median over runs, 1.25 times that of a mean; None below three."""
    if len(values) < 3 or min(values) <= 0:
        return None
    spread = statistics.stdev([math.log(v) for v in values])
    return max(LEAST_NOISE, 1.25 * spread / math.sqrt(len(values)))
