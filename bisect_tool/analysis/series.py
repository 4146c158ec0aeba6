"""From run records to numbers: one value a round, for every arm and every case or metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bisect_tool.analysis.rank import log_centre

Line = Mapping[str, Any]
Key = tuple[tuple[str, Any], ...]


@dataclass
class Block:
    """The cells of one arm that differ in M alone: one step table. ``times[M][round]`` is in seconds."""

    arm: str
    case: dict[str, Any]  # without M
    times: dict[int, dict[int, float]] = field(default_factory=dict)
    lines: dict[int, list[Line]] = field(default_factory=dict)  # the case lines behind each M

    @property
    def control(self) -> bool:
        return bool(self.case.get("control"))


@dataclass
class Metric:
    """A number that a user's own script prints: ``values[round]`` in ``unit``."""

    arm: str
    name: str
    unit: str
    values: dict[int, float] = field(default_factory=dict)


def counted(lines: Iterable[Line]) -> list[Line]:
    """The run lines that count: those that ended well, in rounds that were not discarded."""
    lines = list(lines)
    discarded = {line["round"] for line in lines if line["kind"] == "discard"}
    return [
        line
        for line in lines
        if line["kind"] == "run"
        and line["round"] not in discarded
        and line["outcome"] in ("ok", "good", "bad")
    ]


def arms(lines: Iterable[Line]) -> list[str]:
    """The arms in the order in which they were asked for; that of the runs is shuffled."""
    named: dict[str, None] = {}
    ran: dict[str, None] = {}
    for line in lines:
        if line["kind"] == "arm":
            named[line["arm"]] = None
        elif line["kind"] == "run":
            ran[line["arm"]] = None
    return list(named | ran)


def blocks(lines: Iterable[Line]) -> list[Block]:
    """Every step table there is: the largest weight first, each with its arms as asked for, controls last."""
    lines = list(lines)
    place = {arm: i for i, arm in enumerate(arms(lines))}
    found: dict[tuple[str, Key], Block] = {}
    for run in counted(lines):
        for line in run.get("cases", ()):
            case = {k: v for k, v in line["case"].items() if k != "M"}
            block = found.setdefault((run["arm"], tuple(sorted(case.items()))), Block(run["arm"], case))
            M = int(line["case"]["M"])
            block.times.setdefault(M, {})[run["round"]] = float(line["time_s"])
            block.lines.setdefault(M, []).append(line)
    return sorted(found.values(), key=lambda block: (*_shown_order(block), place[block.arm]))


def _shown_order(block: Block) -> tuple[Any, ...]:
    case = block.case
    rest = tuple(str(case.get(name)) for name in ("quant", "dtype", "timing", "cache"))
    return block.control, -case["K"] * case["N"], case["K"], case.get("B", 1), case.get("bits", 0), *rest


def metrics(lines: Iterable[Line]) -> list[Metric]:
    """Every metric that the scripts printed, as first printed, each with its arms in the order asked for.

    A name printed twice in one run keeps its last value.
    """
    lines = list(lines)
    found: dict[tuple[str, str], Metric] = {}
    for run in counted(lines):
        for said in run.get("metrics", ()):
            key = (run["arm"], said["metric"])
            metric = found.setdefault(key, Metric(*key, unit=str(said.get("unit", ""))))
            metric.values[run["round"]] = float(said["value"])
    names = {name: i for i, name in enumerate(dict.fromkeys(name for _, name in found))}
    place = {arm: i for i, arm in enumerate(arms(lines))}
    return sorted(found.values(), key=lambda metric: (names[metric.name], place[metric.arm]))


def widest(lines: Iterable[Line]) -> float | None:
    """Half-width, as a share, of the widest interval that the stop rule looks at; None when there is nothing
    to look at (scripts that speak by their exit code alone), infinite while an interval is still missing.

    It looks at ratios of neighbouring M within a round, at times where no two M are neighbours, and at
    metrics; not at arms that were dropped, whose intervals can grow no narrower.
    """
    lines = list(lines)
    dropped = {line["arm"] for line in lines if line["kind"] == "dropped"}
    widths = []
    for block in blocks(lines):
        if block.control or block.arm in dropped:
            continue
        pairs = [(M, M - 1) for M in block.times if M - 1 in block.times]
        series = [_ratios(block.times[a], block.times[b]) for a, b in pairs] or list(block.times.values())
        widths += [_half_width(one) for one in series]
    widths += [_half_width(metric.values) for metric in metrics(lines) if metric.arm not in dropped]
    return max(widths, default=None)


def _ratios(above: Mapping[int, float], below: Mapping[int, float]) -> dict[int, float]:
    return {r: above[r] / below[r] for r in above if r in below}


def _half_width(values: Mapping[int, float]) -> float:
    if not values:
        return math.inf
    if any(v <= 0 for v in values.values()):
        return 0.0  # no relative width; such a metric does not steer the stop
    return log_centre(list(values.values())).half_width
