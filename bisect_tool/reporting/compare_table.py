"""Tables of a comparison: rows are M at one shape, or metrics; columns are the baseline and the arms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bisect_tool.analysis.comparison import Comparison, Judged, Row, Table
from bisect_tool.analysis.correctness import Correctness
from bisect_tool.analysis.rank import Interval
from bisect_tool.analysis.verdicts import Kind, Verdict
from bisect_tool.reporting.step_table import OTHER_BITS, how, notes, shape
from bisect_tool.reporting.text import UNITS, table, time_unit, with_interval

COLUMNS = 7  # at most; GitHub shows no more beside each other without scrolling
UPSTREAM_HEAD = ("M", "N", "K", "Pre (ms)", "Post (ms)", "Speed Up")


@dataclass(frozen=True)
class View:
    """How a comparison is printed. ``layout``: ``default``, or ``upstream`` for the maintainers' columns."""

    layout: str = "default"
    split: bool = False
    geomean: bool = False
    only_changed: bool = False

    @staticmethod
    def of(header: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> View:
        """As the session was asked for; ``changes``: what is asked for now, where it is not None."""
        asked = {**header.get("view", {}), **{k: v for k, v in (changes or {}).items() if v is not None}}
        return View(**{name: asked[name] for name in View.__dataclass_fields__ if name in asked})


def name(label: str) -> str:
    """An arm in a heading. ``@2026-03-01`` would mention someone, ``~`` and ``*`` are markdown's."""
    return f"`{label}`" if any(ch in label.partition(",")[0] for ch in "@~*<_") else label


def tables(found: Comparison, view: View) -> list[str]:
    """Every table in markdown, with its title; one for each arm where they do not fit beside each other."""
    if view.layout == "upstream":
        return _upstream(found, view)
    arms = tuple(arm for arm in found.plan.others if arm != found.plan.again)
    apart = view.split or len(arms) > COLUMNS - 3
    parts = [(arm,) for arm in arms] if apart else [arms]
    # The baseline's second self tells of the host: a table of its own, after those that were asked for.
    parts += [(found.plan.again,)] if found.plan.again else []
    out = []
    for part in filter(None, parts):
        for one in found.tables:
            rows = shown(one, part, view)
            if rows:
                out.append(f"{title(one, found, part)}\n\n{_table(one, rows, found, part, view)}")
    return out


def shown(one: Table, arms: Sequence[str], view: View) -> list[Row]:
    """The rows of a table that are printed."""
    return [
        row
        for row in one.rows
        if not view.only_changed or any(row.arms[arm].verdict.change for arm in arms if arm in row.arms)
    ]


def title(one: Table, found: Comparison, arms: Sequence[str]) -> str:
    versus = f"{', '.join(map(name, arms))} against {name(found.plan.baseline)}"
    return f"**{shape(one.case)}** – {versus}; {how(one.case)}" if one.case else f"**metrics** – {versus}"


def _table(one: Table, rows: Sequence[Row], found: Comparison, arms: Sequence[str], view: View) -> str:
    extra = [one.control] if one.control else []
    extra = [*([one.mean] if view.geomean and one.mean else []), *extra]
    # One unit for the table; a metric of a script has its own in each cell.
    times = [row.baseline or row.arms[arm].time for row in rows for arm in arms]
    unit = time_unit([time.centre for time in times if time] or [1.0]) if one.case else ""
    heads, lines = _head(one, found, arms, unit), []
    for row in [*rows, *extra]:
        label = "control" if row is one.control else row.name
        cells = [label, _time(row.baseline, row, unit)]
        for arm in arms:
            cells += _arm_cells(row.arms[arm], row, arm, found, unit, len(arms))
        if one.case:
            cells += _results(row, arms) if row in rows else [""] * (len(heads) - len(cells))
        lines.append(cells)
    return table(heads, lines)


def _head(one: Table, found: Comparison, arms: Sequence[str], unit: str) -> list[str]:
    timed = f" {unit} [95 %]" if unit else " [95 %]"
    heads = ["M" if one.case else "metric", f"{name(found.plan.baseline)}{timed}"]
    for arm in arms:
        if len(arms) == 1:
            heads += [f"{name(arm)}{timed}", "ratio [95 %]", "verdict"]
        elif len(arms) == 2:
            heads += [f"{name(arm)}{timed}", "ratio [95 %], verdict"]
        else:
            heads += [f"{name(arm)}: ratio [95 %], verdict"]
    if one.case:
        heads += ["error", "results"] if len(arms) == 1 else ["results"]
    return heads


def _arm_cells(judged: Judged, row: Row, arm: str, found: Comparison, unit: str, arms: int) -> list[str]:
    """Time, ratio and verdict, in as many cells as ``_head`` gave them."""
    time, ratio = _time(judged.time, row, unit), _ratio(judged, row)
    said = verdict(judged.verdict, found.failed.get(arm, ""))
    if arms == 1:
        return [time, ratio, said]
    together = f"{ratio} {said}".strip()
    return [time, together] if arms == 2 else [together]


def _time(interval: Interval | None, row: Row, unit: str) -> str:
    if unit:
        return with_interval(interval, UNITS[unit])
    if interval is None:
        return ""
    if row.unit == "s":
        own = time_unit([interval.centre])
        return f"{with_interval(interval, UNITS[own])} {own}"
    return f"{with_interval(interval)} {row.unit}".strip()


def _ratio(judged: Judged, row: Row) -> str:
    """Arm over baseline, as the values are: a rate's effect is turned over, and is turned back here."""
    if judged.effect is None:
        return ""
    ratio = judged.effect.ratio
    if row.rate:
        low, high = (None if x is None else 1 / x for x in (ratio.high, ratio.low))
        ratio = Interval(1 / ratio.centre, low, high, ratio.n)
    return with_interval(ratio, at_most=4)


def verdict(said: Verdict, failed: str = "") -> str:
    """A verdict in a cell: ``FASTER``, ``AMBIGUOUS (about 4 more rounds)``, ``– (does not compile)``."""
    if said.short in ("steady", "moved", "unclear"):
        return said.short
    short = failed if said.kind is Kind.MISSING and failed else said.short
    return f"{said.kind.value} ({short})" if short else said.kind.value


def _results(row: Row, arms: Sequence[str]) -> list[str]:
    """Are they right, and how do they differ from the baseline's?"""
    if len(arms) == 1:
        judged = row.arms[arms[0]]
        return [_error(judged.right), ", ".join([*result_notes(judged), *_baseline_notes(row)])]
    texts = []
    for arm in arms:
        judged = row.arms[arm]
        most = [note for note in result_notes(judged) if "/" not in note]  # no room for what few runs carry
        said = ", ".join([*([_one_error(judged.right)] if judged.right else []), *most])
        if said:
            texts.append(f"{name(arm)}: {said}")
    texts += [note for note in _baseline_notes(row) if "/" not in note]
    return ["; ".join(texts)]


def _baseline_notes(row: Row) -> list[str]:
    """The marks of the baseline's own times; whether another kernel ran for it is no news."""
    marks = notes(row.lines) if row.lines else []
    return [f"baseline: {mark}" for mark in marks if not mark.startswith(OTHER_BITS)]


def _error(right: Correctness | None) -> str:
    if right is None or right.error is None:
        return ""
    before = "" if right.baseline is None else f"{_relative(right.baseline)} → "
    return f"{before}{_relative(right.error)}"


def _one_error(right: Correctness | None) -> str:
    return "" if right is None or right.error is None else _relative(right.error)


def _relative(error: float) -> str:
    return "NaN" if math.isnan(error) else f"{error:.1e}"


def result_notes(judged: Judged) -> list[str]:
    """Largest difference from the baseline's result, then the notes that any table of cases has."""
    right = judged.right
    first = []
    if right is not None and right.differs is not None:
        first = ["same bits" if right.differs == 0 else f"differs by {right.differs:.1e}"]
    elif right is not None and right.other_inputs:
        first = ["other inputs"]
    return [*first, *(notes(judged.lines) if judged.lines else [])]


# ---------------------------------------------------------------- the maintainers' layout


def _upstream(found: Comparison, view: View) -> list[str]:
    """| M | N | K | Pre (ms) | Post (ms) | Speed Up |, one table for each arm and way of measuring."""
    out = []
    for arm in found.plan.others:
        kinds: dict[str, list[list[str]]] = {}
        for one in found.tables:
            if not one.case:
                continue
            for row in (row for row in shown(one, [arm], view) if row.baseline or row.arms[arm].time):
                kinds.setdefault(how(one.case), []).append(_upstream_row(one, row, row.arms[arm]))
        out += [
            f"{name(found.plan.baseline)} → {name(arm)}; {kind}\n\n{table(UPSTREAM_HEAD, rows)}"
            for kind, rows in kinds.items()
        ]
    return out


def _upstream_row(one: Table, row: Row, judged: Judged) -> list[str]:
    sizes = [str(row.M), str(one.case["N"]), str(one.case["K"])]
    times = [_milliseconds(row.baseline), _milliseconds(judged.time)]
    return [*sizes, *times, f"{1 / judged.effect.ratio.centre:.2f}x" if judged.effect else ""]


def _milliseconds(interval: Interval | None) -> str:
    """Four significant digits."""
    if interval is None:
        return ""
    value = interval.centre * 1e3
    return f"{value:.{max(0, 3 - math.floor(math.log10(value)))}f}"
