"""What `bisect_tool repro` does: resolve, ensure environments, measure; the caller prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bisect_tool import __version__
from bisect_tool.building.sandbox import Unwalled
from bisect_tool.errors import (
    DiskFull,
    Interrupted,
    LedgerDamaged,
    MachineTrouble,
    NoSuchSession,
    ToolError,
    UnknownRelease,
    Untrusted,
)
from bisect_tool.measuring import child_env, ledger
from bisect_tool.measuring.run import CANONICAL, Script, check_arguments, walls_of
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
    from packaging.version import Version

    from bisect_tool.building.backend import Backend
    from bisect_tool.building.interpreter import Interpreter
    from bisect_tool.building.provision import Provider
    from bisect_tool.building.sandbox import Sandbox
    from bisect_tool.process import Finished


GPU_OP = "import mlx.core as mx; mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))"
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
    env_options: tuple[str, ...]
    budget_s: float | None  # None: six rounds and some, as long as they take on such a backend
    width: float
    rounds: int | None
    timeout_s: float
    seed: int | None
    form: str
    command: list[str]
    canonical: str = CANONICAL  # the project's own script that is run where ``script`` is None


def measure(asked: Request, provider: Provider, watch: Watcher, *, resume: bool) -> ledger.Session:
    """Measure and return the session as the ledger has it.

    Raises UsageProblem for what cannot be asked, Untrusted for a script that nothing would hold back, the
    environment's error when no revision has one, NoSuchSession when there is nothing to resume. A revision
    without an environment, and one whose runs fail, is recorded and the others are measured.
    """
    from bisect_tool.building import backend as backends

    builds, backend, interpreter = provider.builds, provider.backend, provider.interpreter
    script = Script.load(asked.script, asked.script_args, asked.canonical)
    _admit(script, provider)
    given = [Revision.parse(text) for text in asked.revisions]
    extra = child_env.parse_env_options(asked.env_options)
    provider.run_env = lambda: child_env.child_environment(builds, extra)
    if not given:
        watch.phase("looking up the newest release")
        given = [_newest(backends.available(backend, python=interpreter), backend, interpreter)]
    revisions = _told_apart(given)
    plan = {
        "script": script.as_dict(),
        "arms": [revision.text for revision in revisions],
        "backend": backend.value,
        "python": interpreter.version,
        "env": {name: value for name, value in extra if child_env.recorded({name: value})},
        "walls": provider.sandbox.name,
        "options": dict(provider.options),
    }
    budget_s = asked.budget_s or BUDGET_S["cpu" if backend is backends.Backend.CPU else "gpu"]
    patient = asked.budget_s is None
    settings = Settings(budget_s, asked.width, asked.rounds, asked.timeout_s, patient)
    if resume:
        path = _unfinished(builds, plan, asked.seed, watch)
        with ledger.reopen(path) as (book, session):
            # Those that took part from the start: rounds with other arms could not be told from the others.
            began = {line["arm"]: line for line in session.of_kind("arm")}
            going_on = [revision for revision in revisions if revision.text in began]
            ready = _environments(going_on, provider, extra, watch, None)
            _let_the_gpu_work(ready[0], script, provider, watch)
            for arm in ready:
                _same_wheels(arm, began[arm.label])
            _measure(book, [session.header, *session.lines], ready, script, settings, provider.sandbox, watch)
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
    ready = _environments(revisions, provider, extra, watch, noted.append)
    _let_the_gpu_work(ready[0], script, provider, watch)
    check_arguments(ready[0].environment, script, ready[0].env, provider.sandbox)
    watch.phase("looking at this machine")
    from bisect_tool.host.facts import facts

    header["host"] = facts().as_dict()
    header["walls"] = provider.sandbox.name
    with ledger.create(builds, header, noted) as book:
        everything = [{"kind": "session", **header}, *noted]
        _measure(book, everything, ready, script, settings, provider.sandbox, watch)
        path = book.path
    return ledger.read(path)


def _measure(
    book: ledger.Ledger,
    lines: list[ledger.Line],
    arms: list[Arm],
    script: Script,
    settings: Settings,
    sandbox: Sandbox,
    watch: Watcher,
) -> None:
    header, rest = lines[0], lines[1:]
    listeners = Listeners(watch.progress, watch.remark)
    measuring = Measuring(book, rest, arms, script, settings, header["plan"]["seed"], sandbox, listeners)
    try:
        measuring.run()
    except KeyboardInterrupt:
        kept = len([line for line in rest if line["kind"] == "run"])
        runs = "1 run is" if kept == 1 else f"{kept} runs are"
        raise Interrupted(
            "interrupted", f"{runs} kept in session {header['id']}", "the same command with --resume goes on"
        ) from None


def _admit(script: Script, provider: Provider) -> None:
    if script.canonical or provider.sandbox.walled or provider.trust:
        return
    raise Untrusted(
        f"{script.path.name} is not of this project and there are no walls",
        f"it would run with all your rights: your files, keys and network ({provider.sandbox.why})",
        "make walls possible (`bisect_tool doctor`), or say --trust after reading it",
    )


def _let_the_gpu_work(arm: Arm, script: Script, provider: Provider, watch: Watcher) -> None:
    """Take the walls away where the GPU does not work behind them, which only trying tells.

    Raises Untrusted when a stranger's code is among what is to run, MachineTrouble when walls are required.
    """
    if provider.backend.value == "cpu" or not provider.sandbox.walled:
        return
    environment = arm.environment

    def tried(sandbox: Sandbox) -> Finished:
        return sandbox.run(
            [environment.python, "-s", "-c", GPU_OP],
            walls=walls_of(environment, script),
            env=arm.env,
            cwd=environment.root,
            timeout_s=300,
        )

    behind = tried(provider.sandbox)
    if behind.ok:
        return
    what = f"the GPU does not work behind the walls of this machine ({behind.last_line()})"
    if provider.require_walls:
        raise MachineTrouble(what, "walls are required", "leave --sandbox require out")
    if not script.canonical:
        provider.strangers.append(script.path.name)
    if provider.strangers and not provider.trust:
        raise Untrusted(
            what,
            f"without them {', '.join(provider.strangers)} would run with all your rights",
            "say --trust after reading it",
        )
    free = Unwalled(what)
    if tried(free).ok:  # else it is not the walls' doing, and the runs will tell
        watch.remark(f"{what}: what runs has none")
        provider.sandbox = free


def _environments(
    revisions: list[Revision],
    provider: Provider,
    extra: list[tuple[str, str]],
    watch: Watcher,
    note: Callable[[ledger.Line], None] | None,
) -> list[Arm]:
    """An arm for each revision whose environment could be made; raises when there is none.

    ``note`` gets the ledger's lines about them; without it, every one of them must be had.
    """
    from bisect_tool.building.making import explain

    arms: list[Arm] = []
    first: ToolError | None = None
    for revision in revisions:
        watch.phase(f"environment of mlx {revision.name} ({provider.backend.value})")
        try:
            provided = provider.provide(revision)
            made = provided.environment
            home = made.root / "home"
            try:
                home.mkdir(exist_ok=True)
            except OSError as problem:
                raise explain(problem, provider.builds) from problem
        except DiskFull:
            raise
        except ToolError as problem:
            if note is None:
                raise
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
        if provided.resolved is not None and not provided.resolved.trusted:
            provider.strangers.append(revision.name)
        if made.created:
            watch.remark(f"Made the environment of mlx {revision.name} in {made.seconds:.1f} s")
        arm = Arm(
            revision,
            made,
            child_env.child_environment(home, [*extra, *revision.settings]),
            sha=provided.resolved.commit.sha if provided.resolved else "",
            build=provided.build.record if provided.build else {},
        )
        if note is not None:
            note(arm_line(arm))
        arms.append(arm)
    if not arms:
        assert first is not None
        raise first
    return arms


def _newest(exist: Sequence[Version], backend: Backend, python: Interpreter) -> Revision:
    if not exist:
        raise UnknownRelease(
            f"no release of mlx has a wheel for the {backend.value} backend with CPython {python.version} "
            f"on {python.platform}",
            remedy="choose another backend or another Python",
        )
    return Revision.parse(str(exist[0]))


def _same_wheels(arm: Arm, began: ledger.Line) -> None:
    if arm.environment.wheel_digest != began["wheel_digest"]:
        raise ToolError(
            f"the wheels of mlx {arm.label} are not those that the session began with",
            "their contents differ",
            "run it without --resume",
        )


def _command(asked: Request, revisions: list[Revision]) -> list[str]:
    """What was typed, to be recorded: naming the release that was chosen when none was, without ``--resume``,
    and without values of ``--env`` that may be secrets."""
    end = asked.command.index("--") if "--" in asked.command else len(asked.command)
    ours, theirs = asked.command[:end], asked.command[end:]
    words = child_env.without_values([word for word in ours if word != "--resume"])
    chosen = [] if asked.revisions else [revision.text for revision in revisions]
    name = next((word for word in words if word in ("repro", "model")), None)
    after = words.index(name) + 1 if name is not None else 0
    return [*words[:after], *chosen, *words[after:], *theirs]


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


def _unfinished(builds: Path, plan: dict[str, Any], seed: int | None, watch: Watcher) -> Path:
    """The newest session of this plan that has no end. Raises NoSuchSession."""
    for path in ledger.sessions(builds):
        try:
            session = ledger.read(path)
        except LedgerDamaged as problem:
            watch.remark(f"passed over: {problem.line()}")
            continue
        same = {name: value for name, value in session.header["plan"].items() if name != "seed"} == plan
        if same and not session.ended and seed in (None, session.header["plan"]["seed"]):
            return path
    raise NoSuchSession(
        "no unfinished session of this command",
        "its revisions, script, backend and arguments must be the same",
        "run it without --resume, or see `bisect_tool runs`",
    )
