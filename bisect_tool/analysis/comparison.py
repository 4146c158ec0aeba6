"""From the lines of a session to a comparison: tables of verdicts, arm by arm against the baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bisect_tool.analysis import correctness, verdicts
from bisect_tool.analysis.cells import Cell, Group, centre, groups
from bisect_tool.analysis.correctness import Correctness
from bisect_tool.analysis.rank import Interval
from bisect_tool.analysis.verdicts import Effect, Kind, Verdict

Line = Mapping[str, Any]


FAILURES = {
    "configure": "does not configure",
    "compile": "does not compile",
    "link": "does not link",
    "pack": "does not pack",
    "import": "does not import",
    "walls": "tries what the walls do not allow",
}


@dataclass(frozen=True)
class Plan:
    """What was compared. ``baseline`` and ``again`` (the baseline a second time, or nothing) are labels of
    arms. ``control``: the metric of a user's script that no change can touch. ``controlled``: whether a
    control that moves takes the verdicts away."""

    baseline: str
    arms: tuple[str, ...]
    again: str = ""
    margin: float = verdicts.MARGIN
    control: str = ""
    controlled: bool = True

    @staticmethod
    def of(header: Line) -> Plan:
        """As the session's header says it."""
        said = header["plan"]["compare"]
        return Plan(
            said["baseline"],
            tuple(header["plan"]["arms"]),
            said.get("again", ""),
            said.get("margin", verdicts.MARGIN),
            said.get("control", ""),
            said.get("controlled", True),
        )

    @property
    def others(self) -> tuple[str, ...]:
        """The arms that are judged against the baseline."""
        return tuple(arm for arm in self.arms if arm != self.baseline)


@dataclass(frozen=True)
class Judged:
    """One arm in one row. ``lines``: the case lines behind it; ``right``: None where nothing tells."""

    time: Interval | None
    effect: Effect | None
    verdict: Verdict
    right: Correctness | None = None
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True)
class Row:
    """One M of a shape, or one metric. ``arms`` by label, the baseline not among them."""

    name: str
    M: int | None
    baseline: Interval | None
    arms: Mapping[str, Judged]
    lines: tuple[Line, ...] = ()  # of the baseline
    unit: str = "s"
    rate: bool = False  # more is better


@dataclass(frozen=True)
class Table:
    """Rows that differ in M alone, or the metrics of a script (``case`` is empty)."""

    case: Mapping[str, Any]
    rows: tuple[Row, ...]
    control: Row | None = None
    mean: Row | None = None  # geometric, over the rows


@dataclass(frozen=True)
class Comparison:
    """``failed``: what became of arms that could not be compared, in a few words. ``same``: arms that are the
    same build as another. ``contaminated``: why an arm gets no verdict."""

    plan: Plan
    tables: tuple[Table, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    same: Mapping[str, str] = field(default_factory=dict)
    contaminated: Mapping[str, str] = field(default_factory=dict)

    def judged(self, arm: str) -> list[tuple[Table, Row, Judged]]:
        """Every row of an arm, in the order of the tables."""
        return [(table, row, row.arms[arm]) for table in self.tables for row in table.rows if arm in row.arms]

    @property
    def verdicts(self) -> list[Verdict]:
        """Of all arms but the baseline's second self, unless that is the only one."""
        arms = [arm for arm in self.plan.others if arm != self.plan.again] or self.plan.others
        return [judged.verdict for arm in arms for _, _, judged in self.judged(arm)]

    @property
    def changed(self) -> bool:
        return any(verdict.change for verdict in self.verdicts)

    @property
    def decided(self) -> bool:
        return any(verdict.kind not in (Kind.AMBIGUOUS, Kind.MISSING) for verdict in self.verdicts)


def compare(lines: Iterable[Line], plan: Plan) -> Comparison:
    """The whole comparison, from the session's lines alone."""
    lines = list(lines)
    failed = {
        line["arm"]: FAILURES.get(line.get("failure", ""), "could not be made")
        if line["kind"] == "failed-arm"
        else "its runs fail"
        for line in lines
        if line["kind"] in ("failed-arm", "dropped")
    }
    same = {line["arm"]: line["as"] for line in lines if line["kind"] == "same-build"}
    found = groups(lines, plan.control)
    controls = [group for group in found if group.control]
    shown = [group for group in found if not group.control]
    plan = replace(plan, arms=tuple(arm for arm in plan.arms if arm not in same))
    contaminated = _contaminated(controls, plan) if plan.controlled else {}
    pairs = [(group, next((c for c in controls if c.goes_with(group)), None)) for group in shown]
    judged = [_rows(group, control, plan) for group, control in pairs]
    if plan.again and (disturbed := _again(judged, plan)):
        contaminated = {**dict.fromkeys(plan.others, disturbed), **contaminated}
        judged = [_rows(group, control, plan, disturbed) for group, control in pairs]
    tables = []
    for (group, control), rows in zip(pairs, judged, strict=True):
        mean = _mean(group, control, plan) if group.case and len(group.cells) > 1 else None
        tables.append(Table(group.case, rows, _control(control, plan) if control else None, mean))
    return Comparison(plan, tuple(tables), failed, same, contaminated)


def widest(lines: Iterable[Line], plan: Plan) -> float | None:
    """For the stop rule: the half-width, as a share, of the widest interval of a ratio to the baseline, over
    all rows and arms that still take part; infinite while one is missing, None when there is nothing."""
    lines = list(lines)
    gone = {line["arm"] for line in lines if line["kind"] == "dropped"}
    widths = []
    for cell in (cell for group in groups(lines, plan.control) if not group.control for cell in group.cells):
        for arm in cell.times:
            if arm != plan.baseline and arm not in gone and plan.baseline in cell.times:
                effect = cell.effect(arm, plan.baseline)
                widths.append(math.inf if effect is None else effect.half_width)
    return max(widths, default=None)


def least_rounds(lines: Iterable[Line], plan: Plan) -> int:
    """Rounds without which Holm could call no row of the largest table."""
    arms = len([arm for arm in plan.others if arm != plan.again])
    rows = [len(group.cells) for group in groups(lines, plan.control) if not group.control]
    return verdicts.least_rounds(max(rows, default=1) * max(1, arms))


# ---------------------------------------------------------------- verdicts


def _rows(group: Group, control: Group | None, plan: Plan, disturbed: str = "") -> tuple[Row, ...]:
    """Rows with verdicts. The family of Holm is the table: all its rows, of all arms at once; the baseline's
    second self, which tests the host and no change, is a family of its own. ``disturbed``: what that showed,
    which takes the other arms' verdicts away."""
    found: dict[str, list[Judged]] = {}
    families = [[arm for arm in plan.others if arm != plan.again], [plan.again] if plan.again else []]
    for family in families:
        effects = [cell.effect(arm, plan.baseline) for arm in family for cell in group.cells]
        given = verdicts.judge(effects, plan.margin)
        for place, arm in enumerate(family):
            part = slice(place * len(group.cells), (place + 1) * len(group.cells))
            void = disturbed if arm != plan.again else ""
            still = _still(control, arm, plan)
            found[arm] = [
                _judged(cell, arm, effect, verdicts.beside(verdict, effect, still), void, plan)
                for cell, effect, verdict in zip(group.cells, effects[part], given[part], strict=True)
            ]
    return tuple(
        Row(
            cell.name,
            cell.M,
            cell.centre(plan.baseline),
            {arm: found[arm][place] for arm in plan.others},
            tuple(cell.lines.get(plan.baseline, {}).values()),
            cell.unit,
            cell.rate,
        )
        for place, cell in enumerate(group.cells)
    )


def _still(control: Group | None, arm: str, plan: Plan) -> Effect | None:
    """What the control of a table did in an arm; None where it does not count."""
    return control.cells[0].effect(arm, plan.baseline) if control is not None and plan.controlled else None


def _control(group: Group, plan: Plan) -> Row:
    """Its one cell; the verdict says whether it moved."""
    cell = group.cells[0]
    arms = {}
    for arm in plan.others:
        effect = cell.effect(arm, plan.baseline)
        arms[arm] = Judged(cell.centre(arm), effect, _of_control(effect))
    return Row(cell.name, cell.M, cell.centre(plan.baseline), arms, unit=cell.unit, rate=cell.rate)


def _mean(group: Group, control: Group | None, plan: Plan) -> Row:
    """The geometric mean over the rows of a table, judged for itself."""
    base = group.mean_times(plan.baseline)
    arms = {}
    for arm in plan.others:
        times = group.mean_times(arm)
        effect = verdicts.effect(times, base)
        (verdict,) = verdicts.judge([effect], plan.margin)
        arms[arm] = Judged(
            centre(times), effect, verdicts.beside(verdict, effect, _still(control, arm, plan))
        )
    return Row("geometric mean", None, centre(base), arms)


def _judged(cell: Cell, arm: str, effect: Effect | None, verdict: Verdict, void: str, plan: Plan) -> Judged:
    lines, base = cell.lines.get(arm, {}), cell.lines.get(plan.baseline, {})
    right = correctness.against(lines, base) if lines else None
    if verdict.kind is not Kind.MISSING:
        if void:
            verdict = Verdict(Kind.AMBIGUOUS, f"contaminated: {void}", "contaminated")
        elif _launches(lines.values()) and _launches(base.values()):
            verdict = Verdict(Kind.AMBIGUOUS, "launch-bound in both, so the host was timed", "launch-bound")
    else:
        why = _why_missing(cell, arm, plan)
        verdict = Verdict(Kind.MISSING, why, why)
    if right is not None and right.wrong:
        # Whatever its speed, and whatever the host did.
        verdict = Verdict(Kind.WRONG, right.wrong, right.wrong)
    return Judged(cell.centre(arm), effect, verdict, right, tuple(lines.values()))


def _why_missing(cell: Cell, arm: str, plan: Plan) -> str:
    lacking = [name for name in (plan.baseline, arm) if not cell.times.get(name)]
    if lacking:
        return f"not measured in {' and '.join(lacking)}"
    if any(value <= 0 for times in cell.times.values() for value in times.values()):
        return "a value that is not above 0 has no ratio"
    return "no round has both"


def _launches(lines: Iterable[Line]) -> bool:
    """Whether most of these cells timed the host."""
    marked = ["launch-bound" in line.get("marks", ()) for line in lines]
    return 2 * sum(marked) > len(marked)


def _of_control(effect: Effect | None) -> Verdict:
    if effect is None or effect.ratio.low is None:
        return Verdict(Kind.MISSING, "too few rounds to tell", "too few rounds")
    if verdicts.moved(effect):
        return Verdict(Kind.AMBIGUOUS, "moved", "moved")
    if verdicts.steady(effect):
        return Verdict(Kind.SAME, "steady", "steady")
    return Verdict(Kind.AMBIGUOUS, "neither moved nor known to be steady", "unclear")


def _contaminated(controls: Sequence[Group], plan: Plan) -> dict[str, str]:
    """Arm -> what says that its rounds measured something else as well."""
    found = {}
    for group in controls:
        cell = group.cells[0]
        for arm in plan.others:
            effect = cell.effect(arm, plan.baseline)
            if effect is not None and verdicts.moved(effect):
                name = cell.name if cell.M is None else f"{group.case['op']} M={cell.name}"
                found[arm] = f"the control ({name}) moved by {(effect.ratio.centre - 1) * 100:+.1f} %"
    return found


def _again(tables: Iterable[Sequence[Row]], plan: Plan) -> str:
    """What the baseline against itself says of this host: empty when it shows no change, as it must."""
    for rows in tables:
        for row in rows:
            judged = row.arms.get(plan.again)
            if judged is not None and judged.verdict.kind in (Kind.FASTER, Kind.SLOWER):
                assert judged.effect is not None
                change = (judged.effect.ratio.centre - 1) * 100
                return f"the baseline against itself differs by {change:+.1f} % in row {row.name}"
    return ""
