"""The cells of a comparison: what every arm measured, row by row and table by table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bisect_tool.analysis import series, verdicts
from bisect_tool.analysis.rank import Interval, log_centre
from bisect_tool.analysis.verdicts import Effect

Line = Mapping[str, Any]
HIGHER = "/s"  # a metric in such a unit is better when it is larger


@dataclass
class Cell:
    """One row: an M of a shape, or a metric. ``times[arm][round]``, and the case lines behind them."""

    name: str
    M: int | None
    times: dict[str, dict[int, float]] = field(default_factory=dict)
    lines: dict[str, dict[int, Line]] = field(default_factory=dict)
    unit: str = "s"

    def centre(self, arm: str) -> Interval | None:
        return centre(self.times.get(arm, {}))

    def effect(self, arm: str, baseline: str) -> Effect | None:
        """Time over the baseline's; a rate is turned over, so that below 1 is faster there too."""
        times, base = self.times.get(arm, {}), self.times.get(baseline, {})
        if any(value <= 0 for value in (*times.values(), *base.values())):
            return None
        return verdicts.effect(base, times) if self.rate else verdicts.effect(times, base)

    @property
    def rate(self) -> bool:
        return self.unit.endswith(HIGHER)


@dataclass
class Group:
    """The cells of one table: ``case`` is what they have in common, nothing for the metrics of a script."""

    case: dict[str, Any]
    cells: list[Cell]
    control: bool = False

    def goes_with(self, other: Group) -> bool:
        """Whether this control stands under that table: timed the same way."""
        return self.case.get("timing") == other.case.get("timing")

    def mean_times(self, arm: str) -> dict[int, float]:
        """The geometric mean over the cells, in each round that has all of them."""
        columns = [cell.times.get(arm, {}) for cell in self.cells]
        rounds = set.intersection(*(set(times) for times in columns))
        return {
            r: math.exp(sum(math.log(times[r]) for times in columns) / len(columns)) for r in sorted(rounds)
        }


def centre(times: Mapping[int, float]) -> Interval | None:
    """Over the rounds; None where there is nothing, or nothing that has a logarithm."""
    values = list(times.values())
    return log_centre(values) if values and all(value > 0 for value in values) else None


def groups(lines: Iterable[Line], control_name: str = "") -> list[Group]:
    """Tables of cases, the largest weight first, then one of metrics; controls are groups of their own.

    ``control_name``: the metric that is the control.
    """
    lines = list(lines)
    found: dict[Any, Group] = {}
    cells: dict[Any, Cell] = {}
    said = _case_lines(lines)
    for block in series.blocks(lines):
        key = tuple(sorted(block.case.items()))
        group = found.setdefault(key, Group(block.case, [], block.control))
        for M in block.times:
            cell = cells.get((key, M))
            if cell is None:
                cell = cells[key, M] = Cell(str(M), M)
                group.cells.append(cell)
            cell.times[block.arm] = block.times[M]
            cell.lines[block.arm] = said[block.arm, key, M]
        group.cells.sort(key=lambda cell: cell.M or 0)
    for metric in series.metrics(lines):
        control = metric.name == control_name
        group = found.setdefault(("metrics", control), Group({}, [], control))
        cell = cells.get(metric.name)
        if cell is None:
            cell = cells[metric.name] = Cell(metric.name, None, unit=metric.unit)
            group.cells.append(cell)
        cell.times[metric.arm] = metric.values
    return list(found.values())


def _case_lines(lines: Iterable[Line]) -> dict[Any, dict[int, Line]]:
    """Case lines by arm, case without M, and M; of a cell that was measured twice in a round, the last."""
    found: dict[Any, dict[int, Line]] = {}
    for run in series.counted(lines):
        for line in run.get("cases", ()):
            case = {name: value for name, value in line["case"].items() if name != "M"}
            key = run["arm"], tuple(sorted(case.items())), int(line["case"]["M"])
            found.setdefault(key, {})[run["round"]] = line
    return found
