"""Asks commits which kernels they launch, and keeps probes and answers.

``builds/dispatch/<key>/`` holds ``probe`` with ``record.json``, or the record alone of what did not compile,
and ``answers/``, one file for each set of cells. The key is the digest of all that is compiled.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisect_tool import process
from bisect_tool.analysis.launches import Answer, Cell
from bisect_tool.building.provision import admit, label_of
from bisect_tool.building.sandbox import Mode, Sandbox, choose
from bisect_tool.dispatch import asking, compiling, ladder
from bisect_tool.dispatch.source import Sources, sources
from bisect_tool.errors import ProbeFailed
from bisect_tool.upstream.clone import Upstream
from bisect_tool.upstream.values import Resolved

if TYPE_CHECKING:
    from bisect_tool.building.provision import Provider

FOLDER = "dispatch"
WORTH_PRECOMPILING = 4  # probes at once
KEPT_ANSWERS = 32  # sets of cells of one probe
NO_MODE = "the op had no mode yet at this commit: all was affine"
NO_TRANSPOSE = "the op had no argument transpose yet at this commit: the weight was always transposed"


@dataclass(frozen=True)
class Asked:
    """What a commit answered. ``rung``: how it had to be compiled, '' for as it is. ``key``: of the probe."""

    resolved: Resolved
    key: str
    rung: str
    answers: dict[Cell, Answer]

    @property
    def label(self) -> str:
        return label_of(self.resolved)


@dataclass(frozen=True)
class Question:
    """A commit to be asked, read from git: the rest needs no git."""

    resolved: Resolved
    sources: Sources
    rungs: tuple[ladder.Rung, ...]
    keys: tuple[str, ...]

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        return self.resolved.revision.settings


@dataclass
class Prober:
    """``mode``: of the walls, which are put up when something is to be compiled or run. ``trust``: strangers'
    code may run without. ``jobs``: compilers at a time."""

    upstream: Upstream
    builds: Path
    mode: Mode = Mode.AUTO
    trust: bool = False
    on_phase: Callable[[str], None] = lambda _text: None
    on_remark: Callable[[str], None] = lambda _text: None
    jobs: int = field(default_factory=lambda: max(1, min(8, os.cpu_count() or 1)))

    @staticmethod
    def of(provider: Provider) -> Prober:
        """One beside builds: the same clone, folder, walls, trust and watcher."""
        watch = provider.watch
        made = Prober(
            provider.upstream,
            provider.builds,
            trust=provider.trust,
            on_phase=watch.phase,
            on_remark=watch.remark,
        )
        made.sandbox = provider.sandbox
        return made

    @cached_property
    def sandbox(self) -> Sandbox:
        """Raises ToolMissing when walls are required and there are none."""
        walls = choose(self.mode)
        if not walls.walled and self.mode is Mode.AUTO:
            self.on_remark(f"there are no walls around what runs: {walls.why}")
        return walls

    @cached_property
    def compiler(self) -> str:
        return compiling.find()

    @cached_property
    def folder(self) -> Path:
        """Where probes are kept; held, from now on, against `cache prune`."""
        place = self.builds.absolute() / FOLDER
        place.mkdir(parents=True, exist_ok=True)
        handle = os.open(place / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        weakref.finalize(self, os.close, handle)
        fcntl.flock(handle, fcntl.LOCK_SH)
        return place

    @cached_property
    def header(self) -> Path:
        """The folder of the stand-in's headers, where they may lie precompiled."""
        texts = {name: (ladder.STAND_IN / name).read_bytes() for name in ladder.HEADERS}
        digest = hashlib.sha256(b"\0".join(texts.values())).hexdigest()
        place = self.folder / f"header-{digest[:16]}"
        if not (place / ladder.HEADER).is_file():
            with self._aside(place.name) as made:
                for name, text in texts.items():
                    (made / name).write_bytes(text)
                with contextlib.suppress(OSError):  # another tool was faster
                    made.rename(place)
        return place

    def question(self, resolved: Resolved) -> Question:
        """Read what is to be compiled. Raises UsageProblem where there is no such op or file."""
        found = sources(self.upstream, resolved.commit, label_of(resolved))
        rungs = tuple(ladder.rungs(found))
        return Question(resolved, found, rungs, tuple(ladder.key(found, rung) for rung in rungs))

    def ask(self, resolved: Resolved, cells: Sequence[Cell]) -> Asked:
        """What the commit launches for each cell; from what is kept, where it was asked before.

        Raises ProbeFailed when it does not compile on any rung or does not answer, Untrusted for a stranger's
        code without walls, UsageProblem, ToolMissing, MachineTrouble.
        """
        return self.answer(self.question(resolved), cells)

    def ask_all(self, questions: Sequence[Question], cells: Sequence[Cell]) -> list[Asked | ProbeFailed]:
        """The same for many, ``jobs`` at a time; what cannot be asked is in its place. Raises the rest."""
        missing = [each for each in questions if self._known(each, cells) is None]
        if missing:
            _ = self.sandbox, self.compiler, self.header  # once, before there are threads
            for each in missing:
                self._admit(each.resolved)
            if len(missing) >= WORTH_PRECOMPILING:
                self._precompile()
        done = 0

        def one(question: Question) -> Asked | ProbeFailed:
            nonlocal done
            try:
                return self.answer(question, cells)
            except ProbeFailed as problem:
                return problem
            finally:
                done += 1
                if missing:
                    self.on_phase(f"asked {done} of {len(questions)} versions of the host code")

        with ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(one, each) for each in questions]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def answer(self, question: Question, cells: Sequence[Cell]) -> Asked:
        """As ``ask``, of what was read already; safe in any thread."""
        known = self._known(question, cells)
        if known is not None:
            return known
        self._admit(question.resolved)
        failures: list[str] = []
        for rung, key in zip(question.rungs, question.keys, strict=True):
            record = self._compiled(question, rung, key)
            if record["ok"]:
                answers = self._run(question, cells, key)
                return Asked(question.resolved, key, rung.name, answers)
            failures.append(f"{rung.name or 'as it is'}: {record['error']}")
        compiling.check_language()
        problem = ProbeFailed(
            f"{label_of(question.resolved)} cannot be asked which kernel it launches",
            f"its host code does not compile against the stand-in, tried in {len(failures)} ways "
            f"({failures[0]})",
            "nothing is known of it: read its quantized.cpp, or build and run it",
        )
        problem.tail = "\n".join(failures)
        raise problem

    def _admit(self, resolved: Resolved) -> None:
        if not resolved.trusted and not self.trust:
            admit(resolved, self.sandbox, self.trust, "compiling and asking")

    # -- what is kept

    def _known(self, question: Question, cells: Sequence[Cell]) -> Asked | None:
        """The answers, when they are kept."""
        name = asking.digest(_askable(question.sources, cells), question.settings)
        for rung, key in zip(question.rungs, question.keys, strict=True):
            record = _read(self.folder / key / "record.json")
            if record is None:
                return None
            if record["ok"]:
                kept = _read(self.folder / key / "answers" / f"{name}.json")
                if kept is None:
                    return None
                with contextlib.suppress(ProbeFailed, LookupError, TypeError, ValueError):
                    return Asked(question.resolved, key, rung.name, _unpacked(question.sources, cells, kept))
                return None
        return None

    def _compiled(self, question: Question, rung: ladder.Rung, key: str) -> dict[str, Any]:
        """The record of a rung, compiled now where it was not before with this compiler."""
        final = self.folder / key
        record = _read(final / "record.json")
        if record is not None and (record["ok"] and (final / "probe").is_file()):
            return record
        compiler = self.compiler
        version = (process.probe([compiler, "--version"]) or compiler).split("\n")[0]
        if record is not None and not record["ok"] and record.get("compiler") == version:
            return record
        self.on_phase(f"compiling the host code of {label_of(question.resolved)}")
        with self._aside(key) as work, self._aside(key) as made:
            error = compiling.compile_probe(work, self.header, question.sources, rung, compiler, self.sandbox)
            record = {"schema": ladder.SCHEMA, "ok": not error, "rung": rung.name, "compiler": version}
            record |= {"sha": question.resolved.commit.sha, "error": error}
            if not error:
                shutil.copyfile(work / "probe", made / "probe", follow_symlinks=False)
                (made / "probe").chmod(0o755)
            _write(made / "record.json", record)
            if final.exists() and _read(final / "record.json") != record:
                shutil.rmtree(final, ignore_errors=True)  # of another compiler, or damaged
            with contextlib.suppress(OSError):  # another tool was faster: the same
                made.rename(final)
        return record

    def _precompile(self) -> None:
        if not (self.header / f"{ladder.HEADER}.gch").exists() and not compiling.is_clang(self.compiler):
            self.on_phase("compiling the stand-in")
            with self._aside(self.header.name) as work:
                compiling.precompile(work, self.header, self.compiler, self.sandbox)

    @contextlib.contextmanager
    def _aside(self, key: str) -> Any:
        place = self.folder / f".{key[:16]}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            shutil.rmtree(compiling.home_of(place), ignore_errors=True)

    def _run(self, question: Question, cells: Sequence[Cell], key: str) -> dict[Cell, Answer]:
        wanted = _askable(question.sources, cells)
        probe = self.folder / key / "probe"
        lines = asking.ask(probe, wanted, question.settings, self.sandbox) if wanted else []
        distinct = {line: at for at, line in enumerate(dict.fromkeys(lines))}
        kept = {"schema": ladder.SCHEMA, "lines": list(distinct), "at": [distinct[line] for line in lines]}
        answers = _unpacked(question.sources, cells, kept)
        folder = self.folder / key / "answers"
        folder.mkdir(exist_ok=True)
        _write(folder / f"{asking.digest(wanted, question.settings)}.json", kept)
        _trim(folder)
        return answers


def _askable(found: Sources, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells that the op had the arguments for."""
    if found.has_mode and found.has_transpose:
        return tuple(cells)
    return tuple(cell for cell in cells if not _unasked(found, cell))


def _unasked(found: Sources, cell: Cell) -> str:
    if cell.mode != "affine" and not found.has_mode:
        return NO_MODE
    return NO_TRANSPOSE if not cell.transpose and not found.has_transpose else ""


def _unpacked(found: Sources, cells: Sequence[Cell], kept: dict[str, Any]) -> dict[Cell, Answer]:
    parsed = [asking.parse(line) for line in kept["lines"]]
    at = iter(kept["at"])
    if found.has_mode and found.has_transpose:
        return dict(zip(cells, (parsed[number] for number in at), strict=True))
    return {
        cell: Answer(exception=why) if (why := _unasked(found, cell)) else parsed[next(at)] for cell in cells
    }


def _trim(folder: Path) -> None:
    """Keep the answers of the sets of cells that were asked for last."""
    with contextlib.suppress(OSError):
        files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in files[:-KEPT_ANSWERS]:
            path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    """A record or answers; None for what is not there, damaged or of another schema."""
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) and said.get("schema") == ladder.SCHEMA else None


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(path)
