"""What `bisect_tool repro` does: resolve, ensure environments, measure; the caller prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
    StopRule,
    arm_line,
    new_seed,
    timestamp,
)
from bisect_tool.upstream.arms import told_apart
from bisect_tool.upstream.revision import Revision

if TYPE_CHECKING:
    from packaging.version import Version

    from bisect_tool.building.backend import Backend
    from bisect_tool.building.interpreter import Interpreter
    from bisect_tool.building.provision import Provided, Provider
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


@dataclass(frozen=True)
class Work:
    """What a command measures, and how: all that ``conduct`` needs beside a provider.

    ``plan``: what a session must have in common with a command to be gone on with. ``header``: what else its
    first line says. ``provide``: makes the environment of a revision, where the provider's own way will not
    do. ``choose``: which of the arms are measured, and lines about the others.
    ``after``: what else the ledger is to hold, from its lines once all is measured.
    """

    revisions: list[Revision]
    script: Script
    extra: list[tuple[str, str]]
    plan: dict[str, Any]
    settings: Settings
    header: dict[str, Any]
    seed: int | None = None
    stop: StopRule = field(default_factory=StopRule)
    provide: Callable[[Revision], Provided] | None = None
    choose: Callable[[list[Arm]], tuple[list[Arm], list[ledger.Line]]] = lambda arms: (arms, [])
    after: Callable[[list[ledger.Line]], list[ledger.Line]] = lambda _lines: []


def measure(asked: Request, provider: Provider, watch: Watcher, *, resume: bool) -> ledger.Session:
    """Measure and return the session as the ledger has it.

    Raises UsageProblem for what cannot be asked, Untrusted for a script that nothing would hold back, the
    environment's error when no revision has one, NoSuchSession when there is nothing to resume. A revision
    without an environment, and one whose runs fail, is recorded and the others are measured.
    """
    from bisect_tool.building import backend as backends

    backend, interpreter = provider.backend, provider.interpreter
    script = Script.load(asked.script, asked.script_args, asked.canonical)
    admit(script, provider)
    given = [Revision.parse(text) for text in asked.revisions]
    extra = variables(asked.env_options, provider)
    if not given:
        watch.phase("looking up the newest release")
        given = [_newest(backends.available(backend, python=interpreter), backend, interpreter)]
    revisions = told_apart(given)
    budget_s = asked.budget_s or BUDGET_S["cpu" if backend is backends.Backend.CPU else "gpu"]
    patient = asked.budget_s is None
    work = Work(
        revisions,
        script,
        extra,
        plan_of(revisions, script, extra, provider),
        Settings(budget_s, asked.width, asked.rounds, asked.timeout_s, patient),
        {"command": _command(asked, revisions), "format": asked.form},
        asked.seed,
    )
    return conduct(work, provider, watch, resume=resume)


def variables(options: Sequence[str], provider: Provider) -> list[tuple[str, str]]:
    """What ``--env`` passes on to the runs, and to the provider's first imports. Raises UsageProblem."""
    extra = child_env.parse_env_options(options)
    provider.run_env = lambda: child_env.child_environment(provider.builds, extra)
    return extra


def plan_of(
    revisions: Sequence[Revision], script: Script, extra: Sequence[tuple[str, str]], provider: Provider
) -> dict[str, Any]:
    """What a session of any command is begun with, and gone on with."""
    return {
        "script": script.as_dict(),
        "arms": [revision.text for revision in revisions],
        "backend": provider.backend.value,
        "python": provider.interpreter.version,
        "env": {name: value for name, value in extra if child_env.recorded({name: value})},
        "walls": provider.sandbox.name,
        "options": dict(provider.options),
    }


def conduct(work: Work, provider: Provider, watch: Watcher, *, resume: bool) -> ledger.Session:
    """Make the environments and measure, in a new session or the last unfinished one of the same plan."""
    builds, script, revisions = provider.builds, work.script, work.revisions
    if resume:
        path = unfinished(builds, work.plan, work.seed, watch)
        with ledger.reopen(path) as (book, session):
            # Those that took part from the start: rounds with other arms could not be told from the others.
            began = {line["arm"]: line for line in session.of_kind("arm")}
            going_on = [revision for revision in revisions if revision.text in began]
            ready = _environments(going_on, provider, work, watch, None)
            let_the_gpu_work(ready[0], script, provider, watch)
            for arm in ready:
                same_wheels(arm, began[arm.label])
            _measure(book, [session.header, *session.lines], ready, work, provider.sandbox, watch)
        return ledger.read(path)
    header = {
        "id": ledger.new_id(),
        "started": timestamp(),
        "tool": __version__,
        **work.header,
        "plan": {**work.plan, "seed": new_seed() if work.seed is None else work.seed},
        "settings": work.settings.as_dict(),
    }
    # Environments first: a session that measures nothing is not begun.
    noted: list[ledger.Line] = []
    made = _environments(revisions, provider, work, watch, noted.append)
    ready, about_others = work.choose(made)
    noted += [*(arm_line(arm) for arm in ready), *about_others]
    let_the_gpu_work(ready[0], script, provider, watch)
    check_arguments(ready[0].environment, script, ready[0].env, provider.sandbox)
    watch.phase("looking at this machine")
    from bisect_tool.host.facts import facts

    header["host"] = facts().as_dict()
    header["walls"] = provider.sandbox.name
    with ledger.create(builds, header, noted) as book:
        everything = [{"kind": "session", **header}, *noted]
        _measure(book, everything, ready, work, provider.sandbox, watch)
        path = book.path
    return ledger.read(path)


def _measure(
    book: ledger.Ledger,
    lines: list[ledger.Line],
    arms: list[Arm],
    work: Work,
    sandbox: Sandbox,
    watch: Watcher,
) -> None:
    header, rest = lines[0], lines[1:]
    listeners = Listeners(watch.progress, watch.remark)
    seed = header["plan"]["seed"]
    measuring = Measuring(book, rest, arms, work.script, work.settings, seed, sandbox, listeners, work.stop)
    try:
        measuring.run()
    except KeyboardInterrupt:
        kept = len([line for line in rest if line["kind"] == "run"])
        runs = "1 run is" if kept == 1 else f"{kept} runs are"
        raise Interrupted(
            "interrupted", f"{runs} kept in session {header['id']}", "the same command with --resume goes on"
        ) from None
    if more := work.after(rest):
        book.append(*more)


def admit(script: Script, provider: Provider) -> None:
    """Raise Untrusted for a script that nothing would hold back."""
    if script.canonical or provider.sandbox.walled or provider.trust:
        return
    raise Untrusted(
        f"{script.path.name} is not of this project and there are no walls",
        f"it would run with all your rights: your files, keys and network ({provider.sandbox.why})",
        "make walls possible (`bisect_tool doctor`), or say --trust after reading it",
    )


def let_the_gpu_work(arm: Arm, script: Script, provider: Provider, watch: Watcher) -> None:
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


def arm_of(
    revision: Revision,
    provider: Provider,
    extra: list[tuple[str, str]],
    watch: Watcher,
    provide: Callable[[Revision], Provided] | None = None,
) -> Arm:
    """The arm of a revision: its environment, built where need be, and what its processes get.

    ``provide``: another way to the environment than the provider's own. Raises what that raises.
    """
    from bisect_tool.building.making import explain

    watch.phase(f"environment of mlx {revision.name} ({provider.backend.value})")
    provided = (provide or provider.provide)(revision)
    made = provided.environment
    home = made.root / "home"
    try:
        home.mkdir(exist_ok=True)
    except OSError as problem:
        raise explain(problem, provider.builds) from problem
    if provided.resolved is not None and not provided.resolved.trusted:
        provider.strangers.append(revision.name)
    if made.created:
        watch.remark(f"Made the environment of mlx {revision.name} in {made.seconds:.1f} s")
    return Arm(
        revision,
        made,
        child_env.child_environment(home, [*extra, *revision.settings]),
        sha=provided.resolved.commit.sha if provided.resolved else "",
        build=provided.build.record if provided.build else {},
        about={"built_s": provided.build.record["seconds"]} if provided.build and provided.built else {},
    )


def _environments(
    revisions: list[Revision],
    provider: Provider,
    work: Work,
    watch: Watcher,
    note: Callable[[ledger.Line], None] | None,
) -> list[Arm]:
    """An arm for each revision whose environment could be made; raises when there is none.

    ``note`` gets the ledger's lines about those that could not; without it, every one of them must be had.
    """
    arms: list[Arm] = []
    first: ToolError | None = None
    for revision in revisions:
        try:
            arm = arm_of(revision, provider, work.extra, watch, work.provide)
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
                    "failure": getattr(problem, "failure", ""),
                }
            )
            if len(revisions) > 1:
                watch.remark(f"mlx {revision.text}: {problem.line()}")
            continue
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


def same_wheels(arm: Arm, began: ledger.Line) -> None:
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


def unfinished(builds: Path, plan: dict[str, Any], seed: int | None, watch: Watcher) -> Path:
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
