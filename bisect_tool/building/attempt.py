"""One attempt at one commit in one tree: CMake asks for its sources, the wheel is packed and recorded."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisect_tool.building import cmake_files, output, pep517
from bisect_tool.building import recipe as recipes
from bisect_tool.building.build_environment import BuildEnvironment, build_variables
from bisect_tool.building.compile_cache import CompileCache
from bisect_tool.building.output import Failure, Step, Steps
from bisect_tool.building.recipe import Recipe
from bisect_tool.building.sandbox import Walls, interpreter_paths, violation
from bisect_tool.building.sources import Fetched, Source, fetch
from bisect_tool.building.toolchain import missing_blas
from bisect_tool.building.tree import Tree
from bisect_tool.errors import BuildFailed, DiskFull, MachineTrouble, SourceUnavailable, ToolError
from bisect_tool.process import Finished
from bisect_tool.upstream.relevance import reaches

if TYPE_CHECKING:
    from bisect_tool.building.builder import Builder, Watcher
    from bisect_tool.upstream.values import Commit

MEMORY_SHARE = 0.9  # of the machine's, for a whole build
ROUNDS = 40  # of configuring, each of which may ask for one more source
OUTPUT_LIMIT = 256 * 1024 * 1024


class Failed(Exception):
    """An attempt that failed; ``text``: what it said, for remedies."""

    def __init__(self, error: ToolError, text: str) -> None:
        super().__init__(error.line())
        self.error = error
        self.text = text


@dataclass
class Attempt:
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
        """The wheel in the tree, and the sources that it was made with. Raises ``Failed``."""
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
                raise Failed(self._error(done, text), text)
            for asked in wanted:
                known[asked] = self._fetch(asked).folder
        raise Failed(self._error(done, text), text)

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
            raise Failed(problem, text)
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
