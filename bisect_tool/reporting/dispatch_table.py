"""What commits launch, where they differ, and the log of a history, as markdown tables and as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bisect_tool.analysis import launches
from bisect_tool.analysis.launches import Answer, Cell, Changed, Segment
from bisect_tool.reporting.text import table

NOTHING = "the same"
_TRANSITIONS = 4  # named in one cell of the log


@dataclass(frozen=True)
class LogRow:
    """A commit at which something changes. ``pull``: its pull request. ``tag``: the first release with it.
    ``day``: 2026-06-26. ``changed``, ``texts``, ``began``, ``unknown``: as the log has them."""

    commit: str
    pull: int | None
    tag: str | None
    day: str
    subject: str
    changed: tuple[Changed, ...] = ()
    texts: tuple[str, ...] = ()
    began: bool = False
    unknown: str = ""


# ---- one commit


def answers_text(answers: Mapping[Cell, Answer]) -> str:
    """A table for each mode, dtype and so on: ranges of M by kernel family, with grid and threadgroup.

    GPUs that launch the same share their rows."""
    blocks: dict[str, dict[tuple[int, int], dict[tuple[tuple[str, ...], ...], list[str]]]] = {}
    for settings, by_shape in _by_settings(launches.segments(answers)).items():
        shown = blocks.setdefault(settings, {})
        for (K, N, arch), segments in by_shape.items():
            rows = tuple(_row(segment) for segment in segments)
            shown.setdefault((K, N), {}).setdefault(rows, []).append(arch)
    parts = []
    for settings, shapes in blocks.items():
        cells = [
            [", ".join(archs), f"{K} → {N}", *row]
            for (K, N), by_rows in shapes.items()
            for rows, archs in by_rows.items()
            for row in rows
        ]
        head = ["GPU", "K → N", "M", "kernel", "grid", "threadgroup", "split K"]
        parts.append(f"{settings}\n\n{table(head, cells)}")
    return "\n\n".join(parts)


def _by_settings(
    segments: Iterable[Segment],
) -> dict[str, dict[tuple[int, int, str], list[Segment]]]:
    found: dict[str, dict[tuple[int, int, str], list[Segment]]] = {}
    for segment in segments:
        cell = segment.cells[0]
        place = (cell.K, cell.N, gpu(cell))
        found.setdefault(settings(cell), {}).setdefault(place, []).append(segment)
    return found


def _row(segment: Segment) -> tuple[str, ...]:
    answer = segment.answers[0]
    main = answer.main
    if main is None:
        why = f"exception: {answer.exception}" if answer.exception else "nothing"
        return _range(segment.first, segment.last), why, "", "", ""
    return (
        _range(segment.first, segment.last),
        answer.family + _copies(answer),
        launches.grid(segment.cells, segment.answers),
        _size(main.group),
        _split(answer),
    )


def _split(answer: Answer) -> str:
    if not answer.reductions:
        return ""
    passes = "1 pass" if answer.reductions == 1 else f"{answer.reductions} passes"
    return f"{answer.split} parts, {passes} to add up"


def _copies(answer: Answer) -> str:
    return f" after {answer.copies} copies" if answer.copies else ""


def settings(cell: Cell) -> str:
    """``affine 4-bit, group 64, float16``, and what is out of the ordinary."""
    text = f"{cell.mode} {cell.bits}-bit, group {cell.group_size}, {cell.dtype}"
    return text + ("" if cell.transpose else ", not transposed")


def gpu(cell: Cell) -> str:
    """``g16s``; with the neural accelerator ``g17s NAX``."""
    return cell.arch.removeprefix("applegpu_") + (" NAX" if cell.nax else "")


# ---- two commits


def difference_text(changed: Sequence[Changed], cells: int) -> str:
    """Which cells differ and how, neighbouring M and equal GPUs together; or that none does."""
    if not changed:
        return f"dispatch is the same in all {_cells(cells)}"
    rows: dict[tuple[str, ...], list[str]] = {}
    for group in launches.together(changed):
        cell = group[0].cell
        shown = (
            settings(cell),
            f"{cell.K} → {cell.N}",
            _range(cell.M, group[-1].cell.M),
            _launch(group, [each.before for each in group]),
            _launch(group, [each.after for each in group]),
            ", ".join(group[0].kinds),
        )
        rows.setdefault(shown, []).append(gpu(cell))
    blocks: dict[str, list[list[str]]] = {}
    for (named, *rest), archs in rows.items():
        blocks.setdefault(named, []).append([", ".join(archs), *rest])
    head = ["GPU", "K → N", "M", "before", "after", "differs"]
    tables = "\n\n".join(f"{named}\n\n{table(head, block)}" for named, block in blocks.items())
    return f"{len(changed)} of {_cells(cells)} differ\n\n{tables}"


def _launch(group: Sequence[Changed], answers: Sequence[Answer]) -> str:
    """By family, or, where only what its name carries differs, by that name."""
    answer = answers[0]
    main = answer.main
    if main is None:
        return f"exception: {answer.exception}" if answer.exception else "nothing"
    split = f", K in {_split(answer)}" if answer.reductions else ""
    name = answer.kernel if "parameters" in group[0].kinds else answer.family
    grid = launches.grid([each.cell for each in group], answers)
    return f"{name}{_copies(answer)}, grid {grid}, threadgroup {_size(main.group)}{split}"


def texts_line(texts: Sequence[str]) -> str:
    """One line about the text of the kernels that both run."""
    if not texts:
        return "the text of the kernels that both run is the same"
    return f"the text of these kernels differs: {', '.join(texts)}"


# ---- a history


def log_text(rows: Sequence[LogRow], cells: int, *, kernel_texts: bool) -> str:
    """The log, in the order given."""
    head = ["commit", "PR", "release", "date", "dispatch", "cells"]
    body = []
    for row in rows:
        pull = f"#{row.pull}" if row.pull is not None else ""
        share = f"{len(row.changed)}/{cells}" if row.changed else ""
        line = [row.commit, pull, row.tag or "not yet", row.day, _what(row), share]
        if kernel_texts:
            line.append(", ".join(row.texts))
        body.append([*line, row.subject])
    return table([*head, *(["kernel text"] if kernel_texts else []), "subject"], body)


def _what(row: LogRow) -> str:
    if row.unknown:
        return f"not known: {row.unknown}"
    if row.began:
        return "the op begins"
    return what_changed(row.changed) if row.changed else NOTHING


def what_changed(changed: Sequence[Changed]) -> str:
    """In one clause: ``qmv_fast → qmv_wide at M=2–9; grid``. ``parameters`` are those of a kernel's name."""
    moves: dict[tuple[str, str], set[int]] = {}
    kinds: dict[str, set[int]] = {}
    for each in changed:
        for kind in each.kinds:
            kinds.setdefault(kind, set()).add(each.cell.M)
        if "kernel" in each.kinds:
            move = each.before.family or "exception", each.after.family or "exception"
            moves.setdefault(move, set()).add(each.cell.M)
    parts = [f"{a} → {b} at M={ranges(rows)}" for (a, b), rows in list(moves.items())[:_TRANSITIONS]]
    if len(moves) > _TRANSITIONS:
        parts.append(f"{len(moves) - _TRANSITIONS} more")
    rest = [kind for kind in launches.KINDS if kind in kinds and kind not in ("kernel", "reduction")]
    parts += [f"{kind} at M={ranges(kinds[kind])}" for kind in rest if not moves or kinds[kind] - _all(moves)]
    if moves and (also := [kind for kind in rest if not kinds[kind] - _all(moves)]):
        parts.append(f"with it {', '.join(also)}")
    return "; ".join(parts) or ", ".join(kinds)


def _all(moves: Mapping[tuple[str, str], set[int]]) -> set[int]:
    return set().union(*moves.values())


def ranges(numbers: Iterable[int]) -> str:
    """``2–9, 12``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(_range(first, last) for first, last in runs)


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"


def _size(size: tuple[int, int, int]) -> str:
    return " × ".join(map(str, size))


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


# ---- beside measurements


def culprit_line(row: LogRow | None) -> str:
    """What a search prints beside its culprit. ``row``: of that commit in the log; None when it is not in it,
    the log having been made with kernel text."""
    if row is None:
        return "dispatch and kernel text of the measured cells are the same as before it"
    if row.unknown or row.began:
        return f"dispatch: {_what(row)}"
    text = f"; the text of these kernels changes: {', '.join(row.texts)}" if row.texts else ""
    what = what_changed(row.changed) if row.changed else "the same as before it"
    return f"dispatch: {what}{text}"


def arm_note(before: Answer, after: Answer, verdict: str, *, texts_differ: bool = False) -> str:
    """What a comparison notes about one case; '' when there is nothing to say.

    ``verdict``: FASTER, SLOWER, SAME or AMBIGUOUS. ``texts_differ``: the kernels' text does.
    """
    moved = bool(launches.kinds(before, after))
    changed = verdict in ("FASTER", "SLOWER")
    if moved:
        names = before.family or "exception", after.family or "exception"
        which = " → ".join(names) if names[0] != names[1] else f"{names[0]} launched in another way"
        equal = "; warning: and yet no difference in time" if verdict == "SAME" else ""
        return f"dispatch differs: {which}{equal}"
    if texts_differ:
        return f"the same dispatch of {after.family}, whose text differs"
    if changed:
        return (
            f"warning: the same kernel ({after.family}) in another time: it is not dispatch nor kernel text"
        )
    return ""


# ---- as data


def cell_dict(cell: Cell) -> dict[str, Any]:
    return dict(cell._asdict())


def answer_dict(answer: Answer) -> dict[str, Any]:
    """Names, grids in threadgroups, threadgroups in threads, as the host code has them."""
    return {
        "family": answer.family,
        "launches": [
            {
                "kernel": each.kernel,
                "function": each.function,
                "grid": list(each.grid),
                "threadgroup": list(each.group),
                "buffers": each.buffers,
                "split_k": each.split,
                "reduction": each.reduction,
            }
            for each in answer.launches
        ],
        "copies": answer.copies,
        "exception": answer.exception,
    }


def answer_of(said: Mapping[str, Any]) -> Answer:
    """The answer that ``answer_dict`` wrote down."""
    launches_ = tuple(
        launches.Launch(
            one["kernel"], _whole(one["grid"]), _whole(one["threadgroup"]), one["buffers"], one["split_k"],
            one["reduction"], one["function"],
        )
        for one in said["launches"]
    )  # fmt: skip
    return Answer(launches_, said["copies"], said["exception"])


def _whole(size: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = size
    return x, y, z


def answers_list(answers: Mapping[Cell, Answer]) -> list[dict[str, Any]]:
    return [{"cell": cell_dict(cell), **answer_dict(answer)} for cell, answer in answers.items()]


def changed_list(changed: Iterable[Changed]) -> list[dict[str, Any]]:
    return [
        {
            "cell": cell_dict(each.cell),
            "kinds": list(each.kinds),
            "before": answer_dict(each.before),
            "after": answer_dict(each.after),
        }
        for each in changed
    ]
