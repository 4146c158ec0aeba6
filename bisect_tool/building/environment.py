"""From a wheel to an environment: one virtual environment per build, or per (release, backend, Python ABI).

It lives in ``builds/environments/built-<key>/`` or ``…/<release>-<backend>-<abi>/``. It is made in a hidden
folder beside that, imported once, described by an ``environment.json`` written last, and then renamed:
whatever the name leads to was whole, and a folder without a valid ``environment.json`` is a leftover that is
removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bisect_tool.building.backend import Backend
from bisect_tool.building.interpreter import Interpreter, find_interpreter
from bisect_tool.building.locks import held
from bisect_tool.building.making import Job, check_import, explain, install, of_release, of_wheel
from bisect_tool.building.sandbox import Mode, Sandbox, choose
from bisect_tool.errors import UsageProblem

if TYPE_CHECKING:
    from packaging.version import Version

__all__ = ["Environment", "Interpreter", "ensure", "ensure_wheel", "find_interpreter", "remove"]

SCHEMA = 1


@dataclass(frozen=True)
class Environment:
    """A virtual environment that holds one release of MLX, proven to import.

    ``packages``: every installed distribution and its version. ``wheel_digest``: see ``digest_of``.
    ``mlx_version``: what the module itself reports. ``build``: the key of the build it was made from, '' for
    a released wheel. ``created``: False when it was already there. ``seconds``: wall time of the ``ensure``
    that returned it, waiting included.
    """

    root: Path
    python: Path
    release: str
    backend: str
    packages: dict[str, str]
    wheel_digest: str
    created: bool
    seconds: float
    abi: str = ""
    python_version: str = ""
    mlx_version: str = ""
    build: str = ""


def ensure(
    release: Version | str,
    backend: Backend | str,
    *,
    builds: Path,
    interpreter: Interpreter,
    sandbox: Sandbox | None = None,
    on_wait: Callable[[str], None] | None = None,
    offline: bool = False,
    timeout_s: float = 1800,
    run_env: Mapping[str, str] | None = None,
) -> Environment:
    """The environment of ``release``, made if it is not there; whole and importable when this returns.

    ``sandbox``: the walls of the first import (None: those there are). ``on_wait`` is told once, in words,
    when another process is making the same environment. ``offline``: uv may use its cache only.
    ``timeout_s``: seconds for all of it. ``run_env``: environment variables for the check that MLX imports,
    on top of a clean environment. Raises ``UsageProblem`` for what is no version, ``UnknownRelease``,
    ``IndexUnreachable``, ``DiskFull``, and ``EnvironmentBroken`` for the rest; none of them leaves an
    environment behind.
    """
    job = of_release(
        _parse(release),
        _backend(backend),
        interpreter,
        builds=builds.absolute(),
        sandbox=sandbox or choose(Mode.AUTO),
        offline=offline,
        deadline=time.monotonic() + timeout_s,
        run_env=run_env or {},
    )
    return _ensured(job, on_wait)


def ensure_wheel(
    wheel: Path,
    key: str,
    label: str,
    backend: Backend,
    *,
    builds: Path,
    interpreter: Interpreter,
    sandbox: Sandbox,
    on_wait: Callable[[str], None] | None = None,
    timeout_s: float = 600,
    run_env: Mapping[str, str] | None = None,
) -> Environment:
    """The same for a wheel that was built here. ``key``: of its build. ``label``: what messages call it.

    Needs no network: nothing but the wheel is installed.
    """
    job = of_wheel(
        wheel,
        key,
        label,
        backend,
        interpreter,
        builds=builds.absolute(),
        sandbox=sandbox,
        remark=on_wait or (lambda _text: None),
        offline=True,
        deadline=time.monotonic() + timeout_s,
        run_env=run_env or {},
    )
    return _ensured(job, on_wait)


def _ensured(job: Job, on_wait: Callable[[str], None] | None) -> Environment:
    started = time.monotonic()
    try:
        found = _load(job.root)
        if found is None:
            with held(
                job.builds, job.name, timeout_s=job.left_s(), on_wait=on_wait, doing=f"making {job.name}"
            ):
                found = _load(job.root) or _make(job)  # another process may have made it while we waited
        with contextlib.suppress(OSError):  # what was used last is pruned last
            os.utime(job.root / "environment.json")
    except OSError as problem:
        raise explain(problem, job.builds) from problem
    return dataclasses.replace(found, seconds=time.monotonic() - started)


def remove(environment: Environment) -> None:
    """Delete an environment; the wheels stay in uv's cache. Nothing happens when it is gone already.

    Raises ``EnvironmentBroken`` when the folder cannot be changed.
    """
    root = environment.root
    builds = root.parent.parent
    try:
        with held(builds, root.name, timeout_s=60):
            _discard(root)
    except OSError as problem:
        raise explain(problem, builds) from problem


def digest_of(site_packages: Path) -> str:
    """SHA-256 (hex) of what MLX consists of: the same for the same wheels, wherever they are installed.

    Taken over the sorted lines ``path,sha256,size`` of the ``RECORD`` files of every installed ``mlx*``
    distribution, leaving out what the installer adds by itself (launchers, INSTALLER, REQUESTED, …).
    """
    lines: list[str] = []
    for record in site_packages.glob("mlx*.dist-info/RECORD"):
        lines += [line.strip() for line in record.read_text(encoding="utf-8").splitlines()]
    added = re.compile(r'^"?\.\./|\.dist-info/(INSTALLER|REQUESTED|RECORD|direct_url\.json|uv_\w+\.json),')
    kept = sorted({line for line in lines if line and not added.search(line)})
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()


def _make(job: Job) -> Environment:
    """Make the environment; the lock is held."""
    for folder in (job.root.parent, job.log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    _discard(job.root)
    job.log.unlink(missing_ok=True)
    temporary = _hidden(job.root)
    try:
        install(job, temporary)
        made = _describe(job, temporary, check_import(job, temporary))
        _write(temporary / "environment.json", made)
        temporary.rename(job.root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return dataclasses.replace(made, root=job.root, python=job.root / "bin" / "python")


def _describe(job: Job, root: Path, mlx_version: str) -> Environment:
    from importlib.metadata import distributions

    site_packages = next(root.glob("lib/python*/site-packages"))
    return Environment(
        root=root,
        python=root / "bin" / "python",
        release=job.release,
        backend=job.backend.value,
        packages=dict(
            sorted((d.metadata["Name"], d.version) for d in distributions(path=[str(site_packages)]))
        ),
        wheel_digest=digest_of(site_packages),
        created=True,
        seconds=0.0,
        abi=job.interpreter.abi,
        python_version=job.interpreter.version,
        mlx_version=mlx_version,
        build=job.build,
    )


def _write(path: Path, made: Environment) -> None:
    facts = dataclasses.asdict(made)
    for passing in (
        "root",
        "python",
        "created",
        "seconds",
    ):  # true of a place or of a call, not of what is in it
        del facts[passing]
    with path.open("w", encoding="utf-8") as file:
        json.dump({"schema": SCHEMA, **facts}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _load(root: Path) -> Environment | None:
    """The environment in ``root``, or None when there is none that can be used."""
    python = root / "bin" / "python"
    try:
        facts = json.loads((root / "environment.json").read_text(encoding="utf-8"))
        if facts.pop("schema") != SCHEMA or not os.access(python, os.X_OK):  # its base Python may be gone
            return None
        return Environment(root=root, python=python, created=False, seconds=0.0, **facts)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _hidden(root: Path) -> Path:
    """A new name beside ``root`` for what is not an environment yet, or no longer."""
    return root.parent / f".{root.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _discard(root: Path) -> None:
    """Remove an environment and what is left of unfinished ones of its name; the lock is held."""
    with contextlib.suppress(FileNotFoundError):
        # Renamed first: killed half way through, the rest must not be taken for an environment.
        root.rename(_hidden(root))
    for leftover in root.parent.glob(f".{root.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
        if leftover.is_symlink() or leftover.is_file():
            leftover.unlink(missing_ok=True)


def _parse(release: Version | str) -> Version:
    from packaging.version import InvalidVersion, Version

    try:
        return release if isinstance(release, Version) else Version(release)
    except InvalidVersion as problem:
        raise UsageProblem(f"{release!r} is not a release", "", "write it like 0.32.4") from problem


def _backend(backend: Backend | str) -> Backend:
    try:
        return Backend(backend)
    except ValueError as problem:
        known = ", ".join(each.value for each in Backend)
        raise UsageProblem(f"{backend!r} is not a backend", "", f"choose one of {known}") from problem
