"""The virtual environment that a build runs in: one per set of requirements and Python, kept.

What is on the package index is installed from wheels, so nothing of a stranger runs while it is made. What a
commit asks for by a git address (nanobind, up to v0.15) is packed first, behind the walls.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bisect_tool import process
from bisect_tool.building import installer, pep517
from bisect_tool.building.installer import Complaint
from bisect_tool.building.interpreter import Interpreter
from bisect_tool.building.locks import held
from bisect_tool.building.making import explain
from bisect_tool.building.sandbox import Sandbox, Walls, interpreter_paths
from bisect_tool.building.sources import Source, fetch
from bisect_tool.errors import BuildFailed, DiskFull, IndexUnreachable, MachineTrouble
from bisect_tool.upstream.mirrors import Mirrors

SCHEMA = 1
# A git requirement is itself packed with what its pyproject.toml asks for; none of MLX's goes deeper.
MAX_DEPTH = 2
# Locale, SDK, compilers, CUDA: what a build is allowed to know of the environment.
PASSED = (
    "LANG", "LC_ALL", "LC_CTYPE", "TZ", "DEVELOPER_DIR", "SDKROOT", "MACOSX_DEPLOYMENT_TARGET",
    "CC", "CXX", "CUDACXX", "CUDAHOSTCXX", "CUDA_HOME", "CUDA_PATH", "CUDNN_PATH", "LD_LIBRARY_PATH",
)  # fmt: skip


@dataclass(frozen=True)
class BuildEnvironment:
    """``packages``: what is installed, by name, with its version."""

    root: Path
    packages: dict[str, str]

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"


@dataclass(frozen=True)
class Maker:
    """Makes build environments; ``subject`` is what they are for, in messages."""

    builds: Path
    interpreter: Interpreter
    sandbox: Sandbox
    mirrors: Mirrors
    subject: str
    offline: bool = False
    on_wait: Callable[[str], None] | None = None
    on_phase: Callable[[str], None] = lambda _text: None

    def ensure(self, requirements: tuple[str, ...], depth: int = 0) -> BuildEnvironment:
        """The environment with ``requirements``, made if it is not there.

        Raises ``BuildFailed`` when they cannot be had by anyone (no such release, a git requirement that does
        not pack), ``IndexUnreachable``, ``SourceUnavailable``, ``DiskFull``, ``MachineTrouble``.
        """
        asked = json.dumps([SCHEMA, sorted(requirements), self.interpreter.abi, str(self.interpreter.path)])
        name = "requirements-" + hashlib.sha256(asked.encode()).hexdigest()[:16]
        root = self.builds / "build-environments" / name
        try:
            found = _load(root)
            if found is None:
                with held(self.builds, name, on_wait=self.on_wait, doing="making a build environment"):
                    found = _load(root) or self._make(root, requirements, depth)
        except OSError as problem:
            raise explain(problem, self.builds) from problem
        return found

    def _make(self, root: Path, requirements: tuple[str, ...], depth: int) -> BuildEnvironment:
        self.on_phase(f"making a build environment: {', '.join(requirements)}")
        log = self.builds / "logs" / f"{root.name}.log"
        for folder in (root.parent, log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        shutil.rmtree(root, ignore_errors=True)
        for leftover in root.parent.glob(f".{root.name}.*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = root.parent / f".{root.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        env = installer.uv_environment(self.builds / "cache" / "uv")
        try:
            made = installer.make_venv(temporary, self.interpreter, env=env, log=log)
            self._check(made, log)
            wheels = temporary / "wheels"
            wanted = [self._by_wheel(each, wheels, depth, log) for each in requirements]
            if wanted:
                done = installer.install(
                    temporary, wanted, env=env, log=log, offline=self.offline, timeout_s=900
                )
                self._check(done, log)
            _write(temporary, requirements)
            temporary.rename(root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        found = _load(root)
        assert found is not None
        return found

    def _check(self, done: process.Finished, log: Path) -> None:
        """What uv's failure means: the index, this machine, or a requirement that nobody can meet."""
        if done.ok:
            return
        said = done.stderr + done.stdout
        what = f"the build environment of {self.subject} could not be made"
        why = installer.reason(said) or done.describe()
        kind = installer.complaint(said)
        if kind is Complaint.DISK_FULL:
            raise DiskFull(what, why, "free some space or name another folder with --builds DIR", log)
        if kind is Complaint.UNREACHABLE or (self.offline and kind is Complaint.NO_RELEASE):
            raise IndexUnreachable(what, why, "check the network and UV_DEFAULT_INDEX", log)
        if kind is Complaint.NO_RELEASE:
            raise self._failed(what, why, "another Python may have it: --python VERSION", log)
        raise MachineTrouble(what, why, "see the log", log)

    def _by_wheel(self, requirement: str, wheels: Path, depth: int, log: Path) -> str:
        """What uv can install from a wheel: the requirement itself, or the wheel packed from its address."""
        found = re.fullmatch(
            r"\s*([\w.-]+)(\[[^]]*\])?\s*@\s*git\+(\S+?)(?:@([\w./-]+))?(#\S*)?\s*", requirement
        )
        if found is None:
            return requirement
        if depth >= MAX_DEPTH:
            raise self._failed(f"{self.subject} does not configure", f"{requirement} asks for too much else")
        name, address, ref = found[1], found[3], found[4] or ""
        fetched = fetch(
            Source(name, address, ref), self.builds, mirrors=self.mirrors, offline=self.offline,
            on_wait=self.on_wait,
        )  # fmt: skip
        from bisect_tool.building import recipe

        pyproject = fetched.folder / "pyproject.toml"
        text = pyproject.read_bytes() if pyproject.is_file() else None
        system = recipe.build_system(text, f"{name} {ref}".strip())
        inner = self.ensure(tuple(system["requires"]), depth + 1)
        folder = wheels / name
        folder.mkdir(parents=True)
        work = wheels / f"{name}-source"
        shutil.copytree(fetched.folder, work, symlinks=True)
        home = wheels / f"{name}-home"
        home.mkdir()
        packed = self.sandbox.run(
            pep517.command(
                inner.python,
                system.get("build-backend", "setuptools.build_meta:__legacy__"),
                system.get("backend-path", ()),
                folder,
            ),
            walls=Walls(read=(inner.root, *interpreter_paths(inner.python)), write=(folder, work), home=home),
            env=build_variables(inner, home),
            cwd=work,
            timeout_s=900,
            log=log,
        )
        # What was packed may be a link of a stranger's making.
        wheel = next(
            (path for path in folder.glob("*.whl") if path.is_file() and not path.is_symlink()), None
        )
        if not packed.ok or wheel is None:
            why = f"{name} {ref[:9]}, which it asks for, does not pack: {packed.last_line()}"
            raise self._failed(f"{self.subject} does not configure", why, "see the log", log)
        return str(wheel)

    def _failed(self, what: str, why: str, remedy: str = "", log: Path | None = None) -> BuildFailed:
        problem = BuildFailed(what, why, remedy, log)
        problem.failure = "configure"
        return problem


def build_variables(made: BuildEnvironment, home: Path) -> dict[str, str]:
    """The environment variables of a build: an allow-list, and the build environment's programs first."""
    given = {name: os.environ[name] for name in PASSED if name in os.environ}
    path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    given |= {
        "PATH": f"{made.root / 'bin'}:{path}",
        "HOME": str(home),
        "VIRTUAL_ENV": str(made.root),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return given


def _write(root: Path, requirements: tuple[str, ...]) -> None:
    from importlib.metadata import distributions

    site = next(root.glob("lib/python*/site-packages"))
    packages = dict(sorted((d.metadata["Name"], d.version) for d in distributions(path=[str(site)])))
    shutil.rmtree(root / "wheels", ignore_errors=True)
    with (root / "build-environment.json").open("w", encoding="utf-8") as file:
        json.dump(
            {"schema": SCHEMA, "requirements": requirements, "packages": packages, "made": time.time()}, file
        )
        file.flush()
        os.fsync(file.fileno())


def _load(root: Path) -> BuildEnvironment | None:
    try:
        facts = json.loads((root / "build-environment.json").read_text(encoding="utf-8"))
        if facts["schema"] != SCHEMA or not os.access(root / "bin" / "python", os.X_OK):
            return None
        return BuildEnvironment(root, dict(facts["packages"]))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
