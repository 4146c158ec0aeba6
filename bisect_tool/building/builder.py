"""From a commit to a stored wheel: looked up by its key, else built once, behind walls, in a kept tree."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisect_tool.building import cmake_files, output, pep517
from bisect_tool.building import recipe as recipes
from bisect_tool.building.backend import Backend
from bisect_tool.building.build_environment import BuildEnvironment, Maker, build_variables
from bisect_tool.building.compile_cache import CompileCache
from bisect_tool.building.interpreter import Interpreter
from bisect_tool.building.locks import held
from bisect_tool.building.making import explain
from bisect_tool.building.output import Failure, Step, Steps
from bisect_tool.building.recipe import Recipe
from bisect_tool.building.sandbox import Sandbox, Walls, interpreter_paths, violation
from bisect_tool.building.sources import Fetched, Source, fetch
from bisect_tool.building.store import Build, Store
from bisect_tool.building.toolchain import Toolchain, missing_blas
from bisect_tool.building.tree import Tree
from bisect_tool.errors import BuildFailed, DiskFull, MachineTrouble, SourceUnavailable, ToolError
from bisect_tool.process import Finished
from bisect_tool.upstream.mirrors import Mirrors
from bisect_tool.upstream.relevance import reaches, source_digest

if TYPE_CHECKING:
    from bisect_tool.upstream.clone import Upstream
    from bisect_tool.upstream.values import Commit

GB = 10**9
MEMORY_PER_JOB = 1.5 * GB  # the largest of MLX's translation units take 1.2 GB with g++ 12
MEMORY_SHARE = 0.9  # of the machine's, for a whole build
TRIES = 3  # of a build that this machine's own trouble ended
ROUNDS = 40  # of configuring, each of which may ask for one more source
OUTPUT_LIMIT = 256 * 1024 * 1024
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
                task = _Task(self, commit, label, recipe, environment, tree, trusted, jobs, log)
                started = time.time()
                try:
                    wheel, used = task.run()
                    accept(wheel, log)
                except _Failed as failed:
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


class _Failed(Exception):
    """An attempt that failed; ``text``: what it said, for remedies."""

    def __init__(self, error: ToolError, text: str) -> None:
        super().__init__(error.line())
        self.error = error
        self.text = text


@dataclass
class _Task:
    """One attempt at one commit, in one tree."""

    builder: Builder
    commit: Commit
    label: str
    recipe: Recipe
    environment: BuildEnvironment
    tree: Tree
    trusted: bool
    jobs: int
    log: Path

    def run(self) -> tuple[Path, list[Fetched]]:
        """The wheel in the tree, and the sources that it was made with. Raises ``_Failed``."""
        builder = self.builder
        builder.watch.phase(f"building {self.label}")
        self.tree.begin(builder.upstream.git_dir, self.commit.sha)
        known = _known(builder.builds)
        cache = CompileCache.find(builder.builds, writable=self.trusted, scratch=self.tree.home)
        self._write_files(cache)
        progress = _Progress(builder.watch)
        deadline = time.monotonic() + builder.timeout_s
        for _ in range(ROUNDS):
            self._write_sources(known)
            text, done = self._pack(cache, progress, deadline)
            wanted = cmake_files.asked_for(text, cmake_files.WANTS)
            if done.ok:
                if blocked := self._stopped(done, text):
                    builder.watch.remark(f"{self.label} went on without what the walls stopped: {blocked}")
                return self._wheel(text), self._used(text)
            if not wanted:
                raise _Failed(self._error(done, text), text)
            for asked in wanted:
                known[asked] = self._fetch(asked).folder
        raise _Failed(self._error(done, text), text)

    def _pack(self, cache: CompileCache, progress: _Progress, deadline: float) -> tuple[str, Finished]:
        """Run the commit's own build backend once; what it said, and how it ended."""
        builder, tree = self.builder, self.tree
        start = self.log.stat().st_size if self.log.exists() else 0
        python = self.environment.python
        walls = Walls(
            read=(
                tree.root,
                builder.builds / "sources",
                self.environment.root,
                *interpreter_paths(python),
                *cache.read,
            ),
            write=(tree.source, tree.build, tree.out, *cache.write),
            home=tree.home,
            gpu=builder.backend.is_cuda,  # MLX asks it for its architecture unless an option names one
        )
        import psutil

        backend = self.recipe.build_backend
        done = builder.sandbox.run(
            pep517.command(python, backend, self.recipe.backend_path, tree.out),
            walls=walls,
            env=self._variables(cache),
            cwd=tree.source,
            timeout_s=max(1.0, deadline - time.monotonic()),
            output_limit=OUTPUT_LIMIT,
            memory_limit=int(psutil.virtual_memory().total * MEMORY_SHARE),
            log=self.log,
            on_stdout=Steps(progress.step).feed,
        )
        with self.log.open("rb") as file:
            file.seek(start)
            return file.read().decode("utf-8", "replace"), done

    def _variables(self, cache: CompileCache) -> dict[str, str]:
        # CMAKE_ARGS is split at blanks, so it names files relative to where CMake is started. The warning
        # switch: another compiler's warnings are not the commit's errors.
        relative = "../../../initial_cache.cmake"
        arguments = f"-C {relative} --compile-no-warning-as-error"
        if self.builder.backend.is_cuda:
            arguments = f"-DMLX_BUILD_CUDA=ON {arguments}"  # setup.py looks for it
        return {
            **build_variables(self.environment, self.tree.home),
            **cache.variables,
            "CMAKE_ARGS": arguments,
            "CMAKE_GENERATOR": "Ninja",
            "CMAKE_BUILD_PARALLEL_LEVEL": str(self.jobs),
            "DIST_EXTRA_CONFIG": str(self.tree.root / "setup.cfg"),
            "NINJA_STATUS": "[%f/%t] ",
            # Without it the version, and with it every object file of some eras, carries commit and day.
            "PYPI_RELEASE": "1",
        }

    def _write_files(self, cache: CompileCache) -> None:
        root = self.tree.root
        initial = root / "initial_cache.cmake"
        text = cmake_files.initial_cache(
            dict(self.recipe.options),
            flags=recipes.FLAGS,
            extra={each: _extra_flags(each, cache, self.recipe) for each in cmake_files.LANGUAGES},
            launcher=cache.launcher,
            python=self.environment.python,
            provider=root / "provider.cmake",
            apple=sys.platform == "darwin",
            before=initial.read_text() if initial.exists() else "",
        )
        initial.write_text(text)
        (root / "provider.cmake").write_text(cmake_files.PROVIDER)
        (root / "setup.cfg").write_text(cmake_files.extra_config(self.tree.build))

    def _write_sources(self, known: Mapping[str, Path]) -> None:
        listing = self.builder.upstream.entries(self.commit.tree)
        patches = next((entry.oid for entry in listing if entry.name == "cmake"), "")
        (self.tree.root / "sources.cmake").write_text(cmake_files.sources(known, patches[:12]))

    def _fetch(self, asked: str) -> Fetched:
        builder = self.builder
        return fetch(
            _source(asked),
            builder.builds,
            mirrors=builder.mirrors,
            offline=builder.offline,
            on_wait=builder.watch.remark,
        )

    def _used(self, text: str) -> list[Fetched]:
        """All of them are there, so nothing is fetched."""
        return [self._fetch(asked) for asked in cmake_files.asked_for(text, cmake_files.USES)]

    def _wheel(self, text: str) -> Path:
        """The one wheel in the folder of results, which a stranger may have written to."""
        wheels = [path for path in self.tree.out.glob("*.whl") if path.is_file() and not path.is_symlink()]
        if len(wheels) != 1:
            what = f"{self.label} {Failure.PACK.value}"
            why = f"it left {len(wheels)} wheels behind, and one is needed"
            problem = BuildFailed(what, why, "see the log", self.log)
            problem.failure = Failure.PACK.name.lower()
            raise _Failed(problem, text)
        return wheels[0]

    def _error(self, done: Finished, text: str) -> ToolError:
        failure = output.judge(done, text)
        if failure in (Failure.CONFIGURE, Failure.COMPILE, Failure.LINK, Failure.PACK) and self.tree.full:
            failure = Failure.DISK  # not all of them say so
        if missing := missing_blas(self.builder.toolchain, text, self.label):
            return missing
        blocked = self._stopped(done, text) if failure in (Failure.CONFIGURE, Failure.PACK) else ""
        if blocked:
            what = f"{self.label} {Failure.WALLS.value}: {blocked}"
            remedy = "read what it does; `--sandbox off --trust` would let it, with all your rights"
            problem = BuildFailed(what, output.telling(text, failure), remedy, self.log)
            problem.failure = Failure.WALLS.name.lower()
            problem.tail = output.excerpt(text, failure)
            return problem
        what = f"{self.label} {failure.value}"
        why = output.telling(text, failure)
        if done.timed_out or done.output_exceeded or done.memory_exceeded:
            why = f"it {done.describe()}"
        if failure is Failure.DISK:
            return DiskFull(what, why, "free some space (`bisect_tool cache prune`)", self.log)
        if failure.of_machine:
            return MachineTrouble(what, why or done.describe(), "give it fewer jobs with -j", self.log)
        problem = BuildFailed(what, why, "", self.log)
        problem.failure = failure.name.lower()
        problem.tail = output.excerpt(text, failure)
        return problem

    def _stopped(self, done: Finished, text: str) -> str:
        """What a wall stopped, in words; nothing where there are no walls."""
        builder = self.builder
        if not builder.sandbox.walled:
            return ""
        visible = (builder.builds, *interpreter_paths(self.environment.python))
        said = replace(done, stdout=text, stderr="")
        return violation(said, home=Path.home(), visible=visible)

    def overlooked(self) -> list[str]:
        """Files that the compiler read although they are taken for ones that cannot matter: none, unless the
        rules of ``relevance`` are wrong for this commit. Ninja knows what was read."""
        folder = next(iter(sorted(self.tree.build.glob("temp*/*/build.ninja"))), None)
        if folder is None:
            return []
        ninja = self.environment.root / "bin" / "ninja"
        done = self.builder.sandbox.run(
            [ninja, "-t", "deps"],
            walls=Walls(read=(self.tree.root, self.environment.root), write=(), home=self.tree.home),
            env={},
            cwd=folder.parent,
            timeout_s=60,
            on_stdout=(told := bytearray()).extend,
        )
        if not done.ok:
            return []
        top = os.path.normpath(self.tree.source) + os.sep
        lines = {line.strip() for line in told.decode("utf-8", "replace").splitlines() if line[:1] == " "}
        read = {os.path.normpath(folder.parent / line) for line in lines}
        files = sorted(path.removeprefix(top) for path in read if path.startswith(top))
        return [file for file in files if not reaches(file, self.builder.backend.value)]

    def record(self, used: list[Fetched], started: float) -> dict[str, Any]:
        """What stands beside the wheel."""
        builder = self.builder
        return {
            "revision": self.label,
            "sha": self.commit.sha,
            "subject": self.commit.subject,
            "backend": builder.backend.value,
            "abi": builder.interpreter.abi,
            "python": builder.interpreter.version,
            "recipe": self.recipe.as_dict(),
            "build_environment": self.environment.packages,
            "toolchain": builder.toolchain.as_dict(),
            "sources": {
                each.source.name: {"digest": each.digest, "origin": each.origin, "ref": each.source.ref}
                for each in used
            },
            "walls": builder.sandbox.name,
            "jobs": self.jobs,
            "seconds": round(time.time() - started, 1),
            "log": self.log.name,
        }


class _Progress:
    """Turns Ninja's steps into steps with the time that is left, as the steps so far tell."""

    def __init__(self, watch: Watcher) -> None:
        self._watch = watch
        self._first: tuple[float, int] | None = None

    def step(self, step: Step) -> None:
        now = time.monotonic()
        if self._first is None or step.done <= self._first[1]:
            self._first = (now, step.done)
        began, at = self._first
        done = step.done - at
        left = (now - began) / done * (step.total - step.done) if done >= 3 else None
        self._watch.step(step, left)


def _extra_flags(language: str, cache: CompileCache, recipe: Recipe) -> tuple[str, ...]:
    """The recipe's are for C++ alone: they include its headers, which a compiler of C does not find."""
    return cache.flags if language in ("C", "OBJC") else (*cache.flags, *recipe.flags)


def _source(asked: str) -> Source:
    """What the provider was asked for, as a source."""
    name, url, hashed, repository, tag = (*asked.split("\t"), "", "", "", "")[:5]
    if repository:
        return Source(name, repository, tag)
    found = re.fullmatch(r"SHA256=([0-9a-fA-F]{64})|", hashed)
    if found is None:
        raise SourceUnavailable(f"{name} is asked for with {hashed}", "only SHA256 can be checked")
    return Source(name, url, archive=True, sha256=(found[1] or "").lower())


def _asked(source: Mapping[str, Any]) -> str:
    """The inverse of ``_source``."""
    if source["archive"]:
        hashed = f"SHA256={source['sha256']}" if source["sha256"] else ""
        return "\t".join([source["name"], source["address"], hashed, "", ""])
    return "\t".join([source["name"], "", "", source["address"], source["ref"]])


def _known(builds: Path) -> dict[str, Path]:
    """The sources that are there already, by what asks for them: CMake need not be stopped for these."""
    known = {}
    for path in (builds / "sources").glob("[!.]*/source.json"):
        try:
            known[_asked(json.loads(path.read_text(encoding="utf-8"))["source"])] = path.parent / "tree"
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it is asked for again, and fetched anew
    return known


def _jobs() -> int:
    """As many as there are cores, or as the free memory holds."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(psutil.virtual_memory().available / MEMORY_PER_JOB)))
