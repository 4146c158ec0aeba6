"""What dispatch says beside what was measured on an Apple GPU.

Everything here takes lines of a ledger and asks commits through a prober, so it needs no GPU itself. Trouble
on the way is one remark: what was measured is whole without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bisect_tool.errors import ToolError, UsageProblem

if TYPE_CHECKING:
    from bisect_tool.analysis.launches import Cell
    from bisect_tool.analysis.subjects import Subject
    from bisect_tool.building.provision import Provider
    from bisect_tool.dispatch.history import Change
    from bisect_tool.dispatch.prober import Prober
    from bisect_tool.upstream.values import Commit, Resolved

Line = Mapping[str, Any]


def architecture(lines: Sequence[Line], arm: str = "") -> str:
    """The Apple GPU that the dispatch of an arm saw (of the first that ran, without a name), as Metal names
    it; '' where none ran."""
    from bisect_tool.dispatch import architectures

    arms = {line["arm"]: line for line in lines if line["kind"] == "arm"}
    for run in lines:
        if run["kind"] != "run" or arm not in ("", run["arm"]):
            continue
        device = (run.get("device") or {}).get("architecture")
        if device:
            about = arms.get(run["arm"], {})
            settings = [*about.get("env", {}).items(), *about.get("settings", {}).items()]
            try:
                (found,) = architectures.parse(architectures.of_arm(settings, str(device)))
            except (UsageProblem, ValueError):  # of CUDA; or "all"
                return ""
            return found
    return ""


def cells_of(lines: Sequence[Line], arch: str, arm: str = "") -> list[Cell]:
    """The cells that were measured (by one arm), each once, in order of shape and M."""
    from bisect_tool.dispatch import cells

    found = {
        cell
        for run in lines
        if run["kind"] == "run" and arm in ("", run["arm"])
        for line in run.get("cases", ())
        if (cell := cells.of_case(line["case"], arch)) is not None
    }
    return sorted(found)


class Notes:
    """Asks for one command. ``make``: a prober, when the first question comes."""

    def __init__(self, make: Callable[[], Prober], remark: Callable[[str], None]) -> None:
        self._make, self._remark = make, remark
        self._gave_up = False  # of a search: what failed once is not tried again

    @staticmethod
    def of(provider: Provider, remark: Callable[[str], None]) -> Notes:
        from bisect_tool.dispatch.prober import Prober

        walls = provider.sandbox

        def make() -> Prober:
            made = Prober.of(provider)
            made.sandbox = walls  # runs may have lost them to a GPU that does not work behind them
            return made

        return Notes(make, remark)

    @cached_property
    def prober(self) -> Prober:
        return self._make()

    def of_positions(
        self, lines: Sequence[Line], stage: int, shas: Sequence[str], *, prior: bool
    ) -> dict[str, Any] | None:
        """The ledger's line about what changes in dispatch at each of the positions of a search after the
        first, in their order: on the way to it from the one before.

        ``prior``: those at which something changes are to be tried first, and only those have a text; else
        each has. None where there is no answer.
        """
        from bisect_tool.dispatch import history

        if self._gave_up:
            return None
        arch = architecture(lines)
        asked_for = cells_of(lines, arch) if arch else []
        if not asked_for:
            if prior:
                why = (
                    "no plain quantized matmul was measured" if arch else "no Apple GPU says its architecture"
                )
                self._remark(f"going on without --prior dispatch: {why}")
            return None
        try:
            upstream = self.prober.upstream
            base, commits = upstream.commit(shas[0]), upstream.range(f"{shas[0]}..{shas[-1]}")
            log = history.log_of(self.prober, base, commits, asked_for, kernel_texts=True)
        except ToolError as problem:
            self._remark(f"going on without dispatch: {problem.line()}")
            self._gave_up = True
            return None
        changes: dict[str, list[tuple[Commit, Change]]] = {sha: [] for sha in shas[1:]}
        ahead: list[tuple[Commit, Change]] = []
        for commit in commits:
            if (change := log.at(commit.sha)) is not None:
                ahead.append((commit, change))
            if commit.sha in changes:
                changes[commit.sha], ahead = ahead, []
        return {
            "kind": "dispatch",
            "stage": stage,
            "architecture": arch,
            "cells": len(asked_for),
            "prior": prior,
            "suspects": [sha for sha, found in changes.items() if found] if prior else [],
            "changes": {sha: _text(sha, found) for sha, found in changes.items() if found or not prior},
        }

    def of_pairs(self, lines: Sequence[Line], baseline: str) -> list[dict[str, Any]]:
        """The ledger's lines about how arms dispatch the cells that were measured beside the baseline: of
        those that are commits, on an Apple GPU."""
        arms = {line["arm"]: line for line in lines if line["kind"] == "arm" and line.get("sha")}
        found = []
        for label, about in arms.items():
            if label == baseline or baseline not in arms or _same(about, arms[baseline]):
                continue
            try:
                line = self._pair(lines, arms[baseline], about)
            except ToolError as problem:
                self._remark(f"how {label} dispatches is not known: {problem.line()}")
                continue
            if line is not None:
                found.append(line)
        return found

    def _pair(self, lines: Sequence[Line], before: Line, after: Line) -> dict[str, Any] | None:
        from bisect_tool.dispatch import architectures, history, kernel_text
        from bisect_tool.reporting.dispatch_table import answer_dict, cell_dict

        archs = [architecture(lines, each["arm"]) for each in (before, after)]
        cells = cells_of(lines, archs[0], before["arm"]) if all(archs) else []
        if not cells:
            return None
        nax = architectures.has_nax(archs[1])
        others = [cell._replace(arch=archs[1], nax=nax) for cell in cells]
        found = history.difference(
            self.prober, self._resolved(before), self._resolved(after), cells,
            cells_after=others, kernel_texts=True,
        )  # fmt: skip
        differ = set(found.texts)
        told = []
        for cell, other in zip(cells, others, strict=True):
            old, new = found.before.answers[cell], found.after.answers[other]
            said = {"cell": cell_dict(cell), "before": answer_dict(old)}
            said |= {"after": answer_dict(new)} if new != old else {}
            told.append({**said, "texts": [name for name in kernel_text.functions([new]) if name in differ]})
        return {
            "kind": "dispatch",
            "arm": after["arm"],
            "against": before["arm"],
            "architectures": archs,
            "cells": told,
        }

    def with_segments(self, lines: Sequence[Line], subjects: Sequence[Subject]) -> list[Subject]:
        """The curves of a session; those of commits on an Apple GPU with a segment for each kernel that the
        commit launches, and a remark that says so."""
        arms = {line["arm"]: line for line in lines if line["kind"] == "arm" and line.get("sha")}
        archs = {label: architecture(lines, label) for label in arms}
        told: dict[str, list[Subject]] = {}
        for label in dict.fromkeys(each.arm for each in subjects):
            own = [each for each in subjects if each.arm == label]
            if archs.get(label):
                try:
                    own = self._segmented(arms[label], archs[label], own)
                except ToolError as problem:
                    self._remark(f"how {label} dispatches is not known: {problem.line()}")
            told[label] = own
        return [told[each.arm].pop(0) for each in subjects]

    def _segmented(self, arm: Line, arch: str, subjects: Sequence[Subject]) -> list[Subject]:
        from bisect_tool.analysis import launches
        from bisect_tool.analysis.segments import TILES, from_dispatch
        from bisect_tool.dispatch import cells

        rows = [range(1, int(max((p.M for p in each.points), default=0)) + 1) for each in subjects]
        first = [cells.of_case({**each.case, "M": 1}, arch) for each in subjects]
        asked_for = [
            [cell._replace(M=M) for M in upto] if cell is not None else []
            for cell, upto in zip(first, rows, strict=True)
        ]
        unique = list(dict.fromkeys(cell for each in asked_for for cell in each))
        if not unique:
            return list(subjects)
        answers = self.prober.ask(self._resolved(arm), unique).answers
        found = []
        for each, own in zip(subjects, asked_for, strict=True):
            parts = launches.segments({cell: answers[cell] for cell in own})
            known = from_dispatch((p.first, p.last, p.family, TILES.get(p.family)) for p in parts)
            if not known:
                found.append(each)
                continue
            told = ", ".join(f"{one.kernel or 'an exception'} at {one.rows}" for one in known)
            source = f"segments: {told}; from the host code of {str(arm['sha'])[:9]} for {arch}"
            alone = len(known) == 1 and known[0].tiles is None  # then there is nothing to fit apart
            found.append(
                replace(each, segments=() if alone else tuple(known), remarks=(*others(each), source))
            )
        return found

    def _resolved(self, arm: Line) -> Resolved:
        from bisect_tool.dispatch.architectures import VARIABLE
        from bisect_tool.upstream.revision import Kind, Revision
        from bisect_tool.upstream.values import Resolved

        upstream = self.prober.upstream
        settings = {**arm["env"], **arm["settings"]}
        settings.pop(VARIABLE, None)  # cells have it
        revision = Revision(arm["arm"], arm["arm"], Kind.COMMIT, tuple(sorted(settings.items())))
        return Resolved(revision, upstream.commit(arm["sha"]), upstream.trusted(arm["sha"]))


def others(subject: Subject) -> tuple[str, ...]:
    """The remarks of a curve that are not about its segments."""
    return tuple(text for text in subject.remarks if not text.startswith("segments: "))


def _same(one: Line, other: Line) -> bool:
    return all(one[name] == other[name] for name in ("sha", "env", "settings"))


def _text(sha: str, changes: Sequence[tuple[Commit, Change]]) -> str:
    """One line; where it is another commit than the position's own, which."""
    from bisect_tool.cli.dispatch_log import row_of
    from bisect_tool.reporting.dispatch_table import culprit_line

    if not changes:
        return culprit_line(None)
    said = []
    for commit, change in changes:
        text = culprit_line(row_of(change))
        said.append(text if commit.sha == sha else f"{text} (at {commit.short})")
    return "; ".join(said)
