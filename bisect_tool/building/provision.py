"""From a revision, of whatever kind, to an environment. What `repro`, `build` and searches all call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bisect_tool.building.backend import Backend
from bisect_tool.building.interpreter import Interpreter
from bisect_tool.building.sandbox import Sandbox
from bisect_tool.errors import BuildFailed, EnvironmentBroken, Untrusted
from bisect_tool.upstream.mirrors import Mirrors
from bisect_tool.upstream.revision import Kind, Revision

if TYPE_CHECKING:
    from bisect_tool.building.builder import Builder, Watcher
    from bisect_tool.building.environment import Environment
    from bisect_tool.building.store import Build
    from bisect_tool.upstream.clone import Upstream
    from bisect_tool.upstream.values import Resolved


@dataclass(frozen=True)
class Provided:
    """An environment, and where it comes from: ``resolved`` and ``build`` are None for a release.

    ``built``: the build was made now, and not found in the store.
    """

    revision: Revision
    environment: Environment
    resolved: Resolved | None = None
    build: Build | None = None
    built: bool = False


@dataclass
class Provider:
    """Makes environments. ``repo``, ``mirrors``, ``fetch`` matter only where a commit is asked for.

    ``trust``: strangers' code may run without walls where there are none. ``run_env``: variables for the
    first import.
    """

    builds: Path
    backend: Backend
    interpreter: Interpreter
    sandbox: Sandbox
    watch: Watcher
    repo: str
    mirrors: Mirrors = field(default_factory=Mirrors)
    fetch: bool = False
    offline: bool = False
    trust: bool = False
    require_walls: bool = False
    strangers: list[str] = field(default_factory=list)  # what was provided of strangers' code, by name
    options: Mapping[str, str] = field(default_factory=dict)
    jobs: int | None = None
    timeout_s: float = 2 * 3600
    run_env: Callable[[], Mapping[str, str]] = dict

    @cached_property
    def upstream(self) -> Upstream:
        """The clone, opened when the first commit is asked for."""
        from bisect_tool.upstream.clone import Upstream

        opened = Upstream.open(
            self.builds,
            self.repo,
            mirrors=self.mirrors,
            offline=self.offline,
            on_phase=self.watch.phase,
        )
        if self.fetch:
            opened.fetch()
        return opened

    @cached_property
    def builder(self) -> Builder:
        """Looks at the toolchain when the first commit is to be built."""
        from bisect_tool.building import toolchain
        from bisect_tool.building.builder import Builder

        return Builder(
            builds=self.builds,
            upstream=self.upstream,
            backend=self.backend,
            interpreter=self.interpreter,
            toolchain=toolchain.detect(self.backend),
            sandbox=self.sandbox,
            mirrors=self.mirrors,
            options=self.options,
            jobs=self.jobs,
            timeout_s=self.timeout_s,
            offline=self.offline,
            watch=self.watch,
        )

    def provide(self, revision: Revision) -> Provided:
        """The environment of ``revision``, built where that is needed.

        Raises what ``environment.ensure``, ``Upstream.resolve`` and ``Builder.build`` raise, and
        ``Untrusted``.
        """
        from bisect_tool.building import environment

        if revision.kind is Kind.RELEASE:
            made = environment.ensure(
                revision.release,
                self.backend,
                builds=self.builds,
                interpreter=self.interpreter,
                sandbox=self.sandbox,
                on_wait=self.watch.remark,
                offline=self.offline,
                run_env=self.run_env(),
            )
            return Provided(revision, made)
        self.watch.phase(f"looking up {revision.name}")
        return self.provide_commit(self.upstream.resolve(revision))

    def provide_commit(self, resolved: Resolved) -> Provided:
        """The same for what was looked up already."""
        from bisect_tool.building import environment

        if resolved.note:
            self.watch.remark(resolved.note)
        self.admit(resolved)
        commit, label = resolved.commit, label_of(resolved)
        made: list[Environment] = []

        def environment_of(wheel: Path, key: str) -> Environment:
            return environment.ensure_wheel(
                wheel,
                key,
                label,
                self.backend,
                builds=self.builds,
                interpreter=self.interpreter,
                sandbox=self.sandbox,
                on_wait=self.watch.remark,
                run_env=self.run_env(),
            )

        def accept(wheel: Path, log: Path) -> None:
            self.watch.phase(f"importing {label}")
            try:
                made.append(environment_of(wheel, self.builder.key(commit)))
            except EnvironmentBroken as problem:
                if not problem.of_wheel:
                    raise
                failed = BuildFailed(
                    f"{label} packs but does not import", problem.why, "", problem.log or log
                )
                failed.failure = "import"
                raise failed from problem

        build = self.builder.build(commit, label=label, trusted=resolved.trusted, accept=accept)
        ready = made[0] if made else environment_of(build.wheel, build.key)
        return Provided(resolved.revision, ready, resolved, build, bool(made))

    def admit(self, resolved: Resolved) -> None:
        """Raise ``Untrusted`` for a stranger's code that nothing would hold back."""
        admit(resolved, self.sandbox, self.trust, "building")


def admit(resolved: Resolved, sandbox: Sandbox, trust: bool, doing: str) -> None:
    """Raise ``Untrusted`` for a stranger's code that nothing would hold back while ``doing`` something with
    it. ``trust``: that was asked for."""
    if resolved.trusted or sandbox.walled or trust:
        return
    raise Untrusted(
        f"{label_of(resolved)} is not of the project's own branches and there are no walls",
        f"{doing} it runs a stranger's code with all your rights: your files, keys and network "
        f"({sandbox.why})",
        "make walls possible, or say --trust after reading what it changes",
    )


def label_of(resolved: Resolved) -> str:
    """How messages call a commit: ``548dd80e8``, ``main (a1b2c3d4e)``."""
    name, short = resolved.revision.name, resolved.commit.short
    return short if resolved.commit.sha.startswith(name) else f"{name} ({short})"
