"""A comparison as markdown or JSON: a pure function of the session's lines. Summary first."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bisect_tool.analysis import comparison, series, verdicts
from bisect_tool.analysis.comparison import Comparison, Judged, Plan, Row, Table
from bisect_tool.analysis.rank import Interval
from bisect_tool.analysis.verdicts import Kind
from bisect_tool.reporting import compare_table, dispatch_notes, environment, report, step_table
from bisect_tool.reporting.compare_table import View, name
from bisect_tool.reporting.dispatch_notes import Pairs
from bisect_tool.reporting.text import folded

Line = Mapping[str, Any]
LIMIT = 60_000  # characters; GitHub takes 65,536 in a comment
OPEN_TABLES = 6  # more go under a fold
COUNTED = (Kind.FASTER, Kind.SLOWER, Kind.SAME, Kind.AMBIGUOUS, Kind.WRONG)
FOOT = (
    "Ratio: time over the baseline's, taken within a round (one fresh process an arm); Hodges–Lehmann centre "
    "with the exact signed-rank interval, 95 % for each cell on its own. FASTER, SLOWER: the interval "
    "excludes 1, the change is at least {margin}, p < 0.05 after Holm over the table's rows, and the control "
    "did not move. SAME: the interval lies within ±{margin}. Else AMBIGUOUS."
)
OF_CASES = (
    " WRONG: NaN, or an error at least 3 times the baseline's. `error`: largest relative error against the "
    "dequantized weight in float32, baseline → arm. `differs by`: largest absolute difference from the "
    "baseline's result among up to {kept} of its values."
)
KEPT = 256  # as the canonical repro keeps


@dataclass(frozen=True)
class Printed:
    """``text``, within LIMIT, and the tables that did not fit, to be kept in a file."""

    text: str
    rest: str = ""


def markdown(header: Line, lines: Sequence[Line], view: View | None = None) -> Printed:
    """Summary, tables, remarks, environment. Ready to paste."""
    view = view or View.of(header)
    found = comparison.compare(lines, Plan.of(header))
    made = compare_table.tables(found, view)
    if not made and not view.only_changed and not header["plan"]["script"]["canonical"]:
        made = list(filter(None, [report.exit_table(lines)]))
    head = "\n".join(f"- {text}" for text in [*summary(found), *_state(found, lines)])
    remarks = [
        *_hidden(found, view, made),
        *dispatch_notes.remarks(lines, found),
        *_missing(lines),
        *_ended_badly(lines),
    ]
    remarks += report.unsupported(lines)
    remarks += _legend(found) if view.layout == "default" else []
    tail = ["\n".join(f"- {text}" for text in remarks)] if remarks else []
    if found.tables:
        cases = any(one.case for one in found.tables)
        foot = FOOT + (OF_CASES if cases and view.layout == "default" else "")
        tail.append(foot.format(margin=f"{found.plan.margin * 100:g} %", kept=KEPT))
    tail.append(environment.block(header, lines))
    return _fitted(head, made, tail, str(header["id"]))


def _fitted(head: str, made: list[str], tail: list[str], session: str) -> Printed:
    """As many tables as fit, those beyond the first few under a fold; the rest apart."""
    note = f"{{}} more {{}}: file tables-{session}.md"
    room = LIMIT - len(head) - sum(len(part) + 2 for part in tail) - len(note) - 200
    fitting = 0
    for text in made:
        room -= len(text) + 2
        if room < 0:
            break
        fitting += 1
    shown, rest = made[:fitting], made[fitting:]
    parts = [head, *shown[:OPEN_TABLES]]
    if more := shown[OPEN_TABLES:]:
        parts.append(folded(f"{len(more)} more tables", "\n\n".join(more)))
    if rest:
        parts.append(note.format(len(rest), "table" if len(rest) == 1 else "tables"))
    return Printed("\n\n".join([*parts, *tail]), "\n\n".join(rest))


# ---------------------------------------------------------------- summary


def summary(found: Comparison) -> list[str]:
    """One line for each arm: how many cells of each verdict, and the largest of each."""
    lines = []
    for arm in found.plan.others:
        versus = f"**{name(arm)}** against **{name(found.plan.baseline)}**: "
        if arm in found.failed and not any(j.time for _, _, j in found.judged(arm)):
            lines.append(f"{versus}{found.failed[arm]}")
            continue
        lines.append(versus + _counts(found, arm))
        if arm in found.contaminated and arm != found.plan.again:
            lines.append(f"**{name(arm)}** gets no verdict of speed: {found.contaminated[arm]}")
    if not found.plan.others:
        lines.append("No two arms were measured.")
    lines += [f"**{name(arm)}** is the same build as **{name(twin)}**" for arm, twin in found.same.items()]
    if found.plan.again and (seen := _seen(found)):
        lines.append(seen)
    return lines


def _counts(found: Comparison, arm: str) -> str:
    judged = found.judged(arm)
    counts = Counter(one.verdict.kind for _, _, one in judged)
    if not judged:
        return "nothing was measured"
    said = []
    for kind in COUNTED:
        text = f"{counts[kind]} {kind.value}"
        largest = _largest([entry for entry in judged if entry[2].verdict.kind is kind])
        said.append(f"{text} ({largest})" if largest else text)
    if counts[Kind.MISSING]:
        said.append(f"{counts[Kind.MISSING]} not compared")
    return ", ".join(said)


def _largest(judged: Sequence[tuple[Table, Row, Judged]]) -> str:
    """Of rows of one verdict: the largest change and where; for wrong ones, the first of them."""
    if not judged:
        return ""
    several = "largest " if len(judged) > 1 else ""
    if judged[0][2].verdict.kind is Kind.WRONG:
        return f"{judged[0][2].verdict.reason} at {_where(*judged[0][:2])}"
    known = [(abs(one.effect.log), table, row, one.effect) for table, row, one in judged if one.effect]
    if not known:
        return ""
    _, table, row, effect = max(known, key=lambda entry: entry[0])
    ratio = 1 / effect.ratio.centre if row.rate else effect.ratio.centre
    return f"{several}{(ratio - 1) * 100:+.1f} % at {_where(table, row)}"


def _where(table: Table, row: Row) -> str:
    return f"{step_table.shape(table.case)}, M={row.M}" if table.case else row.name


def _seen(found: Comparison) -> str:
    """What the baseline against itself says of this host."""
    known = [
        (size, _where(table, row))
        for table, row, one in found.judged(found.plan.again)
        if one.effect is not None and (size := verdicts.seen(one.effect)) is not None
    ]
    if not known:
        return "baseline against itself: too few rounds to tell what this host can see"
    sizes = sorted(size for size, _ in known)
    worst, where = max(known)
    middle = sizes[len(sizes) // 2]
    return (
        f"smallest difference that can be seen here with so many rounds: {middle * 100:.1f} % in the median "
        f"row, {worst * 100:.1f} % in the worst ({where})"
    )


def _state(found: Comparison, lines: Sequence[Line]) -> list[str]:
    """What must be known before the verdicts are believed."""
    unsteady = {line["round"] for line in lines if line["kind"] == "unsteady"}
    rounds = {run["round"] for run in series.counted(lines)}
    said = []
    if rounds and 2 * len(unsteady) > len(rounds):
        said.append(
            f"**this machine was never steady**: {len(unsteady)} of {len(rounds)} rounds count although they "
            "should have been discarded"
        )
    if not found.plan.controlled:
        said.append("controls do not count here, as asked for: the host may have moved with the arms")
    elif found.tables and not any(one.control for one in found.tables):
        said.append("no control was measured; a script names one of its metrics with --control")
    return said


# ---------------------------------------------------------------- remarks


def _hidden(found: Comparison, view: View, made: list[str]) -> list[str]:
    if not view.only_changed:
        return []
    rows = [row for one in found.tables for row in one.rows]
    kept = sum(any(j.verdict.change for j in row.arms.values()) for row in rows)
    return [
        f"{len(rows) - kept} of {len(rows)} rows show no change and are left out"
        if made
        else "no row shows a change"
    ]


def _missing(lines: Sequence[Line]) -> list[str]:
    return [
        f"{name(line['arm'])} is missing: {re.sub(r' [(]log: .*[)]$', '', line['reason'])}"
        for line in lines
        if line["kind"] in ("failed-arm", "dropped")
    ]


def _ended_badly(lines: Sequence[Line]) -> list[str]:
    """Arms whose script printed no number and ended with another exit code than 0: an answer, but no time."""
    runs = series.counted(lines)
    said = []
    for arm in series.arms(runs):
        own = [run for run in runs if run["arm"] == arm]
        bad = [run["reason"] for run in own if run["outcome"] == "bad"]
        if bad:
            said.append(f"{name(arm)}: {len(bad)} of {len(own)} runs printed no number: {bad[-1]}")
    return said


def _legend(found: Comparison) -> list[str]:
    lines = [line for one in found.tables for row in one.rows for line in _lines_of(row)]
    return step_table.meanings(lines)


def _lines_of(row: Row) -> list[Line]:
    return [*row.lines, *(line for judged in row.arms.values() for line in judged.lines)]


# ---------------------------------------------------------------- data


def as_json(header: Line, lines: Sequence[Line]) -> str:
    """The same content as data: session, summary, verdicts with their reasons, and every run."""
    found = comparison.compare(lines, Plan.of(header))
    pairs = dispatch_notes.pairs(lines)
    content = {
        "schema": 1,
        "session": header,
        "summary": [text.replace("**", "") for text in summary(found)],
        "baseline": found.plan.baseline,
        "arms": list(found.plan.others),
        "changed": found.changed,
        "decided": found.decided,
        "failed": dict(found.failed),
        "same": dict(found.same),
        "contaminated": dict(found.contaminated),
        "tables": [_table_data(one, pairs) for one in found.tables],
        "lines": list(lines),
    }
    return json.dumps(report.finite(content), indent=1)


def _table_data(one: Table, pairs: Pairs) -> dict[str, Any]:
    rows = [_row_data(row) for row in one.rows]
    for row, data in zip(one.rows, rows, strict=True):
        for arm, judged in row.arms.items():
            if text := dispatch_notes.note(pairs, arm, one, row, judged):
                data["arms"][arm]["dispatch"] = text
    return {
        "case": dict(one.case),
        "rows": rows,
        "control": _row_data(one.control) if one.control else None,
        "geometric_mean": _row_data(one.mean) if one.mean else None,
    }


def _row_data(row: Row) -> dict[str, Any]:
    arms = {}
    for arm, judged in row.arms.items():
        right = judged.right
        arms[arm] = {
            "value": _interval(judged.time),
            "ratio": _interval(judged.effect.ratio) if judged.effect else None,
            "p": judged.effect.p if judged.effect else None,
            "verdict": judged.verdict.kind.name,
            "reason": judged.verdict.reason,
            "more_rounds": judged.verdict.more,
            "error": right.error if right else None,
            "baseline_error": right.baseline if right else None,
            "differs": right.differs if right else None,
            "row_bits_as_m1": right.row_bits if right else None,
            "notes": compare_table.result_notes(judged),
        }
    return {"row": row.name, "M": row.M, "unit": row.unit, "baseline": _interval(row.baseline), "arms": arms}


def _interval(found: Interval | None) -> dict[str, Any] | None:
    return report.interval(found)
