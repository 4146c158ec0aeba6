"""Builds of the small upstream, by the tool's own provider: what tests of several rooms start from."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_upstream import Commit, SmallUpstream

from bisect_tool.building.backend import Backend
from bisect_tool.building.builder import Builder, Watcher
from bisect_tool.building.environment import Environment, find_interpreter
from bisect_tool.building.output import Step
from bisect_tool.building.provision import Provided, Provider
from bisect_tool.building.sandbox import Mode, Sandbox, Walls, choose, interpreter_paths
from bisect_tool.building.store import Store
from bisect_tool.building.toolchain import Toolchain, detect
from bisect_tool.upstream.clone import Upstream
from bisect_tool.upstream.mirrors import Mirrors
from bisect_tool.upstream.revision import Revision
from bisect_tool.upstream.values import Resolved

CORE = "import mlx.core as c; print(c.__version__, c.cost(), c.marker(), c.describe(), c.spin(10), sep='|')"

_opened: list[Upstream] = []


def close_upstreams() -> None:
    """Each reads through a git process of its own."""
    while _opened:
        _opened.pop().close()


@lru_cache(maxsize=1)
def toolchain() -> Toolchain:
    """Asked once: it starts a dozen programs."""
    return detect(Backend.CPU)


def walls() -> Sandbox:
    """The walls of this machine; skips the test where there are none."""
    sandbox = choose(Mode.AUTO)
    if not sandbox.walled:
        pytest.skip(f"there are no walls here: {sandbox.why}")
    return sandbox


@dataclass
class Bench:
    """A ``builds`` folder for the small upstream. ``said``, ``steps``: what was watched of the last call."""

    upstream: SmallUpstream
    builds: Path
    said: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def provider(self, **changes: Any) -> Provider:
        def step(step: Step, _left: float | None) -> None:
            self.steps.append(step)

        settings: dict[str, Any] = {
            "builds": self.builds,
            "backend": Backend.CPU,
            "interpreter": find_interpreter(None),
            "sandbox": choose(Mode.AUTO),
            "watch": Watcher(self.said.append, self.said.append, step),
            "repo": str(self.upstream.repo),
            "mirrors": Mirrors.parse(self.upstream.mirrors),
        }
        made = Provider(**settings | changes)
        same: tuple[str, ...] = ("builds", "upstream", "backend", "interpreter", "sandbox", "mirrors")
        same += ("options", "jobs", "timeout_s", "offline", "watch")
        known = {name: getattr(made, name) for name in same}
        _opened.append(made.upstream)
        made.__dict__["builder"] = Builder(**known, toolchain=toolchain())
        return made

    def commit(self, name: str) -> Commit:
        return self.upstream.by_name[name]

    def resolved(self, name: str, provider: Provider | None = None) -> Resolved:
        """By the name that the table of the small upstream gives it; pull requests by their number."""
        text = f"#{name.removeprefix('pull-')}" if name.startswith("pull-") else self.commit(name).sha
        return (provider or self.provider()).upstream.resolve(Revision.parse(text))

    def provide(self, name: str, *, anew: bool = False, **changes: Any) -> Provided:
        """The environment of a commit. ``anew``: what is there of it is removed first."""
        self.said.clear()
        self.steps.clear()
        provider = self.provider(**changes)
        resolved = self.resolved(name, provider)
        if anew:
            self.forget(provider.builder.key(resolved.commit))
        return provider.provide_commit(resolved)

    def key(self, name: str, **changes: Any) -> str:
        provider = self.provider(**changes)
        return provider.builder.key(self.resolved(name, provider).commit)

    def forget(self, key: str) -> None:
        Store(self.builds).remove(key)
        shutil.rmtree(self.builds / "environments" / f"built-{key[:16]}", ignore_errors=True)

    @property
    def compiled(self) -> set[str]:
        """Source files that Ninja compiled in the last call."""
        return {step.name for step in self.steps if step.name.endswith(".cpp")}

    @property
    def trees(self) -> list[str]:
        """Build trees that are there, those thrown away half-way included."""
        return sorted(path.name for path in self.builds.glob("trees/*"))

    def log_of(self, name: str, **changes: Any) -> Path:
        return self.builds / "logs" / f"build-{self.key(name, **changes)[:12]}.log"

    def share_downloads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Other folders of builds take from here what comes from the package index."""
        if not os.environ.get("UV_CACHE_DIR"):
            monkeypatch.setenv("UV_CACHE_DIR", str(self.builds / "cache" / "uv"))

    def beside(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
        """Another ``builds`` folder, which has what this one downloaded and nothing that it compiled."""
        self.share_downloads(monkeypatch)
        if (self.builds / "sources").exists():
            shutil.copytree(self.builds / "sources", folder / "sources", symlinks=True)
        return Bench(self.upstream, folder)

    def expect(self, name: str, environment: Environment) -> None:
        """The environment's MLX is the one that the commit says it is."""
        commit = self.commit(name)
        version, cost, marker, _, _ = ask(environment, walled=bool(commit.attacks)).split("|")
        assert (version, int(cost), marker) == (commit.version, commit.cost, commit.marker)
        assert environment.mlx_version == commit.version


def ask(environment: Environment, *, walled: bool = False) -> str:
    """What the MLX of an environment answers."""
    sandbox = choose(Mode.REQUIRE if walled else Mode.OFF)
    python = environment.python
    done = sandbox.run(
        [python, "-c", CORE],
        walls=Walls((environment.root, *interpreter_paths(python)), (), environment.root / "home"),
        env={},
        cwd=environment.root,
        timeout_s=60,
    )
    assert done.ok, done.stderr
    return done.stdout.strip()


def running_below(folder: Path) -> list[str]:
    """Command lines of processes that work in ``folder`` or name it, but for this one and the git that the
    upstreams of this one read through."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            ours = process.pid == os.getpid() or (
                words[:2] == ["git", "cat-file"] and process.ppid() == os.getpid()
            )
            if not ours and process.status() != psutil.STATUS_ZOMBIE:
                at = process.cwd()
                if str(folder) in " ".join(words) or at.startswith(f"{folder}/"):
                    found.append(" ".join(words))
        except psutil.Error:
            continue
    return found


@contextmanager
def gone_in_the_end(folder: Path, seconds: float = 10) -> Iterator[None]:
    """Nothing of what runs in the block is left running below ``folder``."""
    yield
    deadline = time.monotonic() + seconds
    while (left := running_below(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == [], f"left running: {left}"
