"""What a comparison notes about dispatch, from the ledger's lines about pairs of arms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bisect_tool.analysis.comparison import Comparison, Judged, Row, Table
from bisect_tool.analysis.launches import Answer
from bisect_tool.reporting.compare_table import name
from bisect_tool.reporting.dispatch_table import answer_of, arm_note, ranges
from bisect_tool.reporting.step_table import shape

Line = Mapping[str, Any]
Key = tuple[Any, ...]  # of a cell, whatever its GPU
Pairs = Mapping[str, Mapping[Key, tuple[Answer, Answer, bool]]]
SHARED = ("K", "N", "M", "bits", "group_size", "dtype")


def pairs(lines: Iterable[Line]) -> Pairs:
    """For each arm and cell: what the baseline launches, what the arm does, and whether the text of its
    kernels differs."""
    found: dict[str, dict[Key, tuple[Answer, Answer, bool]]] = {}
    for line in lines:
        if line["kind"] != "dispatch" or "against" not in line:
            continue
        for said in line["cells"]:
            before = answer_of(said["before"])
            after = answer_of(said["after"]) if "after" in said else before
            key = _key(said["cell"], said["cell"]["mode"])
            found.setdefault(line["arm"], {})[key] = (before, after, bool(said["texts"]))
    return found


def _key(cell: Line, mode: str) -> Key:
    return (*(cell[field] for field in SHARED), mode)


def note(known: Pairs, arm: str, table: Table, row: Row, judged: Judged) -> str:
    """Of one arm in one row; '' where there is nothing to say, or nothing known."""
    case = table.case
    if case.get("op") != "quantized_matmul" or case.get("B", 1) != 1:
        return ""
    pair = known.get(arm, {}).get(_key({**case, "M": row.M}, case["quant"]))
    if pair is None:
        return ""
    before, after, texts = pair
    return arm_note(before, after, judged.verdict.kind.name, texts_differ=texts)


def remarks(lines: Iterable[Line], found: Comparison) -> list[str]:
    """One line for each arm and note: which rows it is about. Rows of one note stand together."""
    known = pairs(lines)
    said = []
    for arm in (arm for arm in found.plan.others if arm in known):
        places: dict[str, dict[str, set[int]]] = {}
        for table, row, judged in found.judged(arm):
            if (text := note(known, arm, table, row, judged)) and row.M is not None:
                places.setdefault(text, {}).setdefault(shape(table.case), set()).add(row.M)
        if not any(before != after or texts for before, after, texts in known[arm].values()):
            said.append(
                f"{name(arm)}: dispatch and kernel text are those of {name(found.plan.baseline)} in all "
                f"{len(known[arm])} cells"
            )
        for text, shapes in places.items():
            where = "; ".join(f"{each}, M={ranges(rows)}" for each, rows in shapes.items())
            said.append(f"{name(arm)}: {text} ({where})")
    return said
