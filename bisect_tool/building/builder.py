"""From a commit to a stored wheel: looked up by its key, else built once, behind walls, in a kept tree."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bisect_tool.building import recipe as recipes
from bisect_tool.building.attempt import Attempt, Failed
from bisect_tool.building.backend import Backend
from bisect_tool.building.build_environment import Maker
from bisect_tool.building.interpreter import Interpreter
from bisect_tool.building.locks import held
from bisect_tool.building.making import explain
from bisect_tool.building.output import Step
from bisect_tool.building.recipe import Recipe
from bisect_tool.building.sandbox import Sandbox
from bisect_tool.building.store import Build, Store
from bisect_tool.building.toolchain import Toolchain
from bisect_tool.building.tree import Tree
from bisect_tool.errors import DiskFull, MachineTrouble
from bisect_tool.upstream.mirrors import Mirrors
from bisect_tool.upstream.relevance import source_digest

if TYPE_CHECKING:
    from bisect_tool.upstream.clone import Upstream
    from bisect_tool.upstream.values import Commit

GB = 10**9
MEMORY_PER_JOB = 1.5 * GB  # the largest of MLX's translation units take 1.2 GB with g++ 12
TRIES = 3  # of a build that this machine's own trouble ended
# Of disk: tree, wheel, environment and compile cache of the CPU backend take 0.2 GB; kernels take more.
ROOM = {Backend.CPU: 0.6 * GB, Backend.METAL: 2.5 * GB, Backend.CUDA12: 6.0 * GB, Backend.CUDA13: 6.0 * GB}


@dataclass
class Watcher:
    """Callbacks; each does nothing unless set. ``step``: with the seconds left, if they can be told."""

    phase: Callable[[str], None] = lambda _text: None
    remark: Callable[[str], None] = lambda _text: None
    step: Callable[[Step, float | None], None] = lambda _step, _left: None


@dataclass
class Builder:
    """Builds commits of one upstream for one backend and Python."""

    builds: Path
    upstream: Upstream
    backend: Backend
    interpreter: Interpreter
    toolchain: Toolchain
    sandbox: Sandbox
    mirrors: Mirrors = field(default_factory=Mirrors)
    options: Mapping[str, str] = field(default_factory=dict)
    jobs: int | None = None
    timeout_s: float = 2 * 3600
    offline: bool = False
    watch: Watcher = field(default_factory=Watcher)
    _memo: dict[tuple[str, str, str], str] = field(default_factory=dict)

    # ---------------------------------------------------------------- what a build is

    def recipe(self, commit: Commit) -> Recipe:
        """Raises ``BuildFailed`` for a pyproject.toml that cannot be read."""
        text = self.upstream.read(commit.sha, "pyproject.toml")
        return recipes.read(text, self.backend, self.options, commit.short)

    def key(self, commit: Commit) -> str:
        """What stands for all that can change the artifact: two commits of one key are one build.

        SHA-256 (hex) of the digest of the relevant files, the recipe, the toolchain and the Python ABI.
        """
        source = source_digest(commit.tree, self.backend.value, self.upstream.entries, self._memo)
        parts = [source, self.recipe(commit).digest, self.toolchain.digest, self.interpreter.abi]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def stored(self, commit: Commit) -> Build | None:
        """The build of that commit if it is in the store."""
        return Store(self.builds).get(self.key(commit))

    # ---------------------------------------------------------------- building

    def build(
        self, commit: Commit, *, label: str, trusted: bool, accept: Callable[[Path, Path], object]
    ) -> Build:
        """The build of ``commit``, from the store or made now.

        ``accept`` gets the wheel and the log before it is stored, and raises ``BuildFailed`` when it is no
        good: when it does not import. ``trusted``: whether it may leave things in what other builds read, the
        compile cache and the kept tree. Raises ``BuildFailed`` for what is the commit's fault,
        ``MachineTrouble``, ``DiskFull``, ``SourceUnavailable``, ``IndexUnreachable`` for what is not.
        """
        key = self.key(commit)
        store = Store(self.builds)
        found = store.get(key)
        if found is not None:
            return found
        try:
            with held(self.builds, f"build-{key[:16]}", on_wait=self.watch.remark, doing=f"building {label}"):
                found = store.get(key)  # another tool may have built it while we waited
                return found or self._with_retries(store, key, commit, label, trusted, accept)
        except OSError as problem:
            raise explain(problem, self.builds) from problem

    def _with_retries(
        self,
        store: Store,
        key: str,
        commit: Commit,
        label: str,
        trusted: bool,
        accept: Callable[[Path, Path], object],
    ) -> Build:
        jobs = self.jobs or _jobs()
        for attempt in range(1, TRIES + 1):
            self._check_room(label)
            try:
                return self._build(store, key, commit, label, trusted, accept, jobs)
            except MachineTrouble as problem:
                if attempt == TRIES:
                    raise
                jobs = max(1, jobs // 2)  # what runs out of memory needs less at once
                self.watch.remark(f"{problem.line()}; trying again with -j{jobs}")
        raise AssertionError

    def _build(
        self,
        store: Store,
        key: str,
        commit: Commit,
        label: str,
        trusted: bool,
        accept: Callable[[Path, Path], object],
        jobs: int,
    ) -> Build:
        """One attempt, with as many remedies as it takes."""
        recipe = self.recipe(commit)
        log = self.builds / "logs" / f"build-{key[:12]}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        name = f"{self.backend.value}-{self.interpreter.abi}-{self.toolchain.digest[:8]}"
        # What a stranger built in is built upon by nobody.
        tree = Tree(self.builds / "trees" / (name if trusted else f"{name}-{key[:12]}"))
        maker = Maker(
            self.builds,
            self.interpreter,
            self.sandbox,
            self.mirrors,
            label,
            self.offline,
            self.watch.remark,
            self.watch.phase,
        )
        with held(
            self.builds,
            f"tree-{tree.root.name}",
            on_wait=self.watch.remark,
            doing="a build in the same build tree",
        ):
            kept = tree.kept
            while True:
                environment = maker.ensure(recipe.requirements)
                task = Attempt(self, commit, label, recipe, environment, tree, trusted, jobs, log)
                started = time.time()
                try:
                    wheel, used = task.run()
                    accept(wheel, log)
                except Failed as failed:
                    tree.discard()
                    # It may have been for what the cache of the kept tree says: a compiler that is gone.
                    again = kept and getattr(failed.error, "failure", "") == "configure"
                    kept = False
                    mended = recipes.after(recipe, failed.text)
                    if mended is not None:
                        recipe = mended
                        self.watch.remark(f"{label}: {recipe.remedies[-1].name}: {recipe.remedies[-1].why}")
                    elif not again:
                        raise failed.error from None
                    continue
                except BaseException:
                    tree.discard()
                    raise
                record = task.record(used, started)
                if overlooked := task.overlooked():
                    record["overlooked"] = overlooked
                    self.watch.remark(
                        f"{label}: the compiler read {overlooked[0]}, which is thought not to matter; "
                        "please report that"
                    )
                built = store.put(key, wheel, record)
                if trusted:
                    tree.finish()
                else:
                    tree.discard()
                return built

    def _check_room(self, label: str) -> None:
        """A full disk before it is full."""
        need = ROOM[self.backend]
        self.builds.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.builds).free
        if free < need:
            why = f"{self.builds} has {free / GB:.1f} GB free and a build takes up to {need / GB:.1f} GB"
            remedy = "free some space (`bisect_tool cache prune`) or name another folder with --builds DIR"
            raise DiskFull(f"no room to build {label}", why, remedy)


def _jobs() -> int:
    """As many as there are cores, or as the free memory holds."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(psutil.virtual_memory().available / MEMORY_PER_JOB)))
