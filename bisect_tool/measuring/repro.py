"""What `bisect_tool repro` does: resolve, ensure environments, measure; the caller prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bisect_tool import __version__
from bisect_tool.errors import DiskFull, NoSuchSession, ToolError
from bisect_tool.measuring import child_env, ledger
from bisect_tool.measuring.run import Script
from bisect_tool.measuring.session import (
    Arm,
    Listeners,
    Measuring,
    Progress,
    Settings,
    arm_line,
    new_seed,
    timestamp,
)
from bisect_tool.upstream.revision import Revision

if TYPE_CHECKING:
    from bisect_tool.building.backend import Backend
    from bisect_tool.building.interpreter import Interpreter


BUDGET_S = {"cpu": 180.0, "gpu": 360.0}


class Watcher(Protocol):
    """Who watches: told of phases, of each run, and of what went wrong on the way."""

    def phase(self, text: str) -> None: ...
    def progress(self, at: Progress) -> None: ...
    def remark(self, text: str) -> None: ...


@dataclass(frozen=True)
class Request:
    """The command, parsed. ``command`` is what was typed, for the record."""

    revisions: tuple[str, ...]
    script: Path | None
    script_args: tuple[str, ...]
    backend: str | None
    python: str | None
    env_options: tuple[str, ...]
    budget_s: float | None  # None: six rounds and some, as long as they take on such a backend
    width: float
    rounds: int | None
    timeout_s: float
    seed: int | None
    form: str
    command: list[str]


def measure(asked: Request, builds: Path, watch: Watcher, *, resume: bool) -> ledger.Session:
    """Measure and return the session as the ledger has it.

    Raises UsageProblem for what cannot be asked, the environment's error when no revision has one,
    NoSuchSession when there is nothing to resume. A revision without an environment, and one whose runs
    fail, is recorded and the others are measured.
    """
    from bisect_tool.building import backend as backends
    from bisect_tool.building.environment import find_interpreter

    script = Script.load(asked.script, asked.script_args)
    backend = backends.Backend(asked.backend) if asked.backend else backends.detect()
    interpreter = find_interpreter(asked.python)
    given = [Revision.parse(text) for text in asked.revisions]
    extra = child_env.parse_env_options(asked.env_options)
    if not given:
        watch.phase("looking up the newest release")
        given = [Revision.parse(str(backends.available(backend, python=interpreter)[0]))]
    revisions = _told_apart(given)
    plan = {
        "script": script.as_dict(),
        "arms": [revision.text for revision in revisions],
        "backend": backend.value,
        "python": interpreter.version,
        "env": {name: value for name, value in extra if child_env.recorded({name: value})},
    }
    budget_s = asked.budget_s or BUDGET_S["cpu" if backend is backends.Backend.CPU else "gpu"]
    settings = Settings(budget_s, asked.width, asked.rounds, asked.timeout_s)
    if resume:
        path = _unfinished(builds, plan, asked.seed)
        with ledger.reopen(path) as (book, session):
            ready = _environments(revisions, backend, interpreter, builds, extra, watch, lambda _line: None)
            _measure(book, [session.header, *session.lines], ready, script, settings, watch)
        return ledger.read(path)
    header = {
        "id": ledger.new_id(),
        "started": timestamp(),
        "tool": __version__,
        "command": _command(asked, revisions),
        "format": asked.form,
        "plan": {**plan, "seed": new_seed() if asked.seed is None else asked.seed},
        "settings": settings.as_dict(),
    }
    # Environments first: a session that measures nothing is not begun.
    noted: list[ledger.Line] = []
    ready = _environments(revisions, backend, interpreter, builds, extra, watch, noted.append)
    watch.phase("looking at this machine")
    from bisect_tool.measuring.host.facts import facts

    header["host"] = facts().as_dict()
    with ledger.create(builds, header) as book:
        lines: list[ledger.Line] = [{"kind": "session", **header}]
        for line in noted:
            book.append(line)
            lines.append(line)
        _measure(book, lines, ready, script, settings, watch)
        path = book.path
    return ledger.read(path)


def _measure(
    book: ledger.Ledger,
    lines: list[ledger.Line],
    arms: list[Arm],
    script: Script,
    settings: Settings,
    watch: Watcher,
) -> None:
    header, rest = lines[0], lines[1:]
    listeners = Listeners(watch.progress, watch.remark)
    measuring = Measuring(book, rest, arms, script, settings, header["plan"]["seed"], listeners)
    try:
        measuring.run()
    except KeyboardInterrupt:
        kept = len([line for line in rest if line["kind"] == "run"])
        watch.remark(
            f"{kept} runs are kept in session {header['id']}; the same command with --resume goes on"
        )
        raise


def _environments(
    revisions: list[Revision],
    backend: Backend,
    interpreter: Interpreter,
    builds: Path,
    extra: list[tuple[str, str]],
    watch: Watcher,
    note: Callable[[ledger.Line], None],
) -> list[Arm]:
    """An arm for each revision whose environment could be made; raises when there is none."""
    from bisect_tool.building.environment import ensure

    arms: list[Arm] = []
    first: ToolError | None = None
    for revision in revisions:
        watch.phase(f"environment of mlx {revision.release} ({backend.value})")
        try:
            made = ensure(
                revision.release,
                backend,
                builds=builds,
                interpreter=interpreter,
                on_wait=watch.remark,
                run_env=child_env.child_environment(builds, extra),
            )
        except DiskFull:
            raise
        except ToolError as problem:
            first = first or problem
            note(
                {
                    "kind": "failed-arm",
                    "arm": revision.text,
                    "reason": problem.line(),
                    "exit_code": problem.exit_code,
                }
            )
            if len(revisions) > 1:
                watch.remark(f"mlx {revision.text}: {problem.line()}")
            continue
        if made.created:
            watch.remark(f"Made the environment of mlx {made.release} in {made.seconds:.1f} s")
        home = made.root / "home"
        home.mkdir(exist_ok=True)
        arm = Arm(revision, made, child_env.child_environment(home, [*extra, *revision.settings]))
        note(arm_line(arm))
        arms.append(arm)
    if not arms:
        assert first is not None
        raise first
    return arms


def _command(asked: Request, revisions: list[Revision]) -> list[str]:
    """What was typed, naming the release that was chosen when none was, and without ``--resume``."""
    words = [word for word in asked.command if word != "--resume"]
    chosen = [] if asked.revisions else [revision.text for revision in revisions]
    return [*words[:1], *chosen, *words[1:]]


def _told_apart(revisions: list[Revision]) -> list[Revision]:
    """The same revision twice gets a number: ``0.32.4`` and ``0.32.4 (2)``."""
    seen: dict[str, int] = {}
    named = []
    for revision in revisions:
        seen[revision.text] = seen.get(revision.text, 0) + 1
        count = seen[revision.text]
        named.append(
            dataclasses.replace(revision, text=f"{revision.text} ({count})") if count > 1 else revision
        )
    return named


def _unfinished(builds: Path, plan: dict[str, Any], seed: int | None) -> Path:
    """The newest session of this plan that has no end. Raises NoSuchSession."""
    for path in ledger.sessions(builds):
        session = ledger.read(path)
        same = {name: value for name, value in session.header["plan"].items() if name != "seed"} == plan
        if same and not session.ended and seed in (None, session.header["plan"]["seed"]):
            return path
    raise NoSuchSession(
        "no unfinished session of this command",
        "its revisions, script, backend and arguments must be the same",
        "run it without --resume, or see `bisect_tool runs`",
    )
