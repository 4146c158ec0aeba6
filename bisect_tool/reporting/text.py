"""Cells, tables and folded blocks of GitHub markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from bisect_tool.analysis.rank import Interval

UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6}


def time_unit(seconds: Sequence[float]) -> str:
    """The unit in which the largest of these is at least 1 (µs below 1 ms)."""
    largest = max(seconds)
    return "s" if largest >= 1 else "ms" if largest >= 1e-3 else "µs"


def decimals(interval: Interval, scale: float = 1.0) -> int:
    """Decimals that show two significant digits of the interval's half-width; of the value without one."""
    if interval.low is not None and interval.high is not None and interval.high > interval.low:
        size, digits = (interval.high - interval.low) / 2 * scale, 2
    else:
        size, digits = abs(interval.centre) * scale, 4
    if size <= 0:
        return 3
    return min(6, max(0, digits - 1 - math.floor(math.log10(size))))


def with_interval(interval: Interval | None, scale: float = 1.0, at_most: int = 6) -> str:
    """``0.2712 [0.2701, 0.2724]``; the value alone when there is no interval; empty for None."""
    if interval is None:
        return ""
    places = min(at_most, decimals(interval, scale))
    if interval.low is None or interval.high is None:
        return f"{interval.centre * scale:.{places}f}"
    low, centre, high = (f"{x * scale:.{places}f}" for x in (interval.low, interval.centre, interval.high))
    return f"{centre} [{low}, {high}]"


def percent(interval: Interval) -> str:
    """A ratio as a change: ``+27.4 % [26.9, 27.9]``."""
    centre = f"{(interval.centre - 1) * 100:+.1f} %"
    if interval.low is None or interval.high is None:
        return centre
    return f"{centre} [{(interval.low - 1) * 100:.1f}, {(interval.high - 1) * 100:.1f}]"


def escape(text: str) -> str:
    """Text for a cell: one line, with no bar that would end it, also after a backslash of its own."""
    return re.sub(r"\s+", " ", text).replace("\\", "\\\\").replace("|", "\\|").strip()


def mlx(label: str) -> str:
    """An arm by name. ``@2026-03-01`` would mention someone, two ``~`` strike out what is between them."""
    return f"mlx `{label}`" if re.search(r"[@~*<]", label.partition(",")[0]) else f"mlx {label}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table of cells that are already text. ``tabulate`` must not read shas as floats."""
    from tabulate import tabulate

    cells = [[escape(cell) for cell in row] for row in rows]
    return tabulate(cells, headers=[escape(h) for h in head], tablefmt="github", disable_numparse=True)


def folded(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def fenced(text: str) -> str:
    return f"```\n{text}\n```"
