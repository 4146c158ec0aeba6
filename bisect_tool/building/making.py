"""The steps of making an environment that can go wrong, and what they raise: room, uv, the first import."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisect_tool.building import installer
from bisect_tool.building.attestation import foreign
from bisect_tool.building.backend import Backend, available, requirement
from bisect_tool.building.installer import Complaint
from bisect_tool.building.sandbox import Sandbox, Walls, interpreter_paths, violation
from bisect_tool.errors import (
    DiskFull,
    EnvironmentBroken,
    IndexUnreachable,
    MachineTrouble,
    ToolError,
    UnknownRelease,
)
from bisect_tool.paths import repro_script
from bisect_tool.upstream import releases

if TYPE_CHECKING:
    from packaging.version import Version

    from bisect_tool.building.interpreter import Interpreter

IMPORT_TIMEOUT_S = 120  # a cold CUDA environment loads gigabytes of libraries
MIB = 1024 * 1024
# Unpacked sizes in November 2026: mlx and mlx-cpu 37 MiB, mlx-metal up to 200 MiB, mlx-cuda-12 170 MiB and
# the NVIDIA libraries it needs 3.8 GiB, which uv keeps once for all CUDA environments.
ROOM_MIB = 300
ROOM_CUDA_MIB = 600
ROOM_CUDA_FIRST_MIB = 4600
REMEDY_BUILDS = "name another folder with --builds DIR"


@dataclass(frozen=True)
class Job:
    """What was asked for, with every path it uses. ``wanted``: what uv installs, a release or a wheel file;
    ``build``: the key of the build that the wheel is, '' for a release."""

    name: str
    subject: str
    wanted: str
    release: str
    backend: Backend
    interpreter: Interpreter
    builds: Path
    sandbox: Sandbox
    offline: bool
    deadline: float  # time.monotonic()
    run_env: Mapping[str, str]
    build: str = ""
    remark: Callable[[str], None] = lambda _text: None

    @property
    def root(self) -> Path:
        return self.builds / "environments" / self.name

    @property
    def log(self) -> Path:
        return self.builds / "logs" / f"environment-{self.name}.log"

    def left_s(self) -> float:
        return max(1.0, self.deadline - time.monotonic())


def of_release(version: Version, backend: Backend, interpreter: Interpreter, **how: Any) -> Job:
    """The job of making the environment of a release. Raises ``UnknownRelease``."""
    return Job(
        name=f"{version}-{backend.value}-{interpreter.abi}",
        subject=f"mlx {version} for {backend.value}",
        wanted=requirement(backend, version),
        release=str(version),
        backend=backend,
        interpreter=interpreter,
        **how,
    )


def of_wheel(
    wheel: Path, key: str, label: str, backend: Backend, interpreter: Interpreter, **how: Any
) -> Job:
    """The job of making the environment of a wheel that was built here: ``key`` is its build's."""
    return Job(
        name=f"built-{key[:16]}",
        subject=label,
        wanted=str(wheel),
        release=wheel.name.split("-")[1],
        backend=backend,
        interpreter=interpreter,
        build=key,
        **how,
    )


def install(job: Job, root: Path) -> None:
    """A virtual environment with the release in ``root``, which does not exist yet.

    Raises ``UnknownRelease``, ``IndexUnreachable``, ``DiskFull``, ``EnvironmentBroken``.
    """
    env = installer.uv_environment(job.builds / "cache" / "uv")
    if job.build:
        # What uv unpacks of a wheel made here can be had again from the store: it goes first when pruned.
        env["UV_CACHE_DIR"] = str(job.builds / "cache" / "unpacked")
    done = installer.make_venv(root, job.interpreter, env=env, log=job.log)
    if not done.ok:
        said = done.stderr + done.stdout
        raise _failure(job, installer.complaint(said), installer.reason(said) or done.describe())
    short = _short_of_room(job, Path(env["UV_CACHE_DIR"]))
    # What uv has in its cache already needs next to no room: without room, try just that.
    offline = job.offline or short is not None
    done = installer.install(
        root,
        [job.wanted],
        env=env,
        log=job.log,
        offline=offline or bool(job.build),
        timeout_s=job.left_s(),
        dependencies=not job.build,
    )
    said = done.stderr + done.stdout
    if done.ok:
        if installer.lost_extra(said):
            raise _unknown(job, installer.reason(said))
        return
    if done.timed_out:
        why = f"uv had not finished after {done.wall_s:.0f} s"
        raise EnvironmentBroken(f"{job.subject} could not be installed", why, "try again", job.log)
    kind = installer.complaint(said)
    if short is not None and kind in (Complaint.UNREACHABLE, Complaint.NO_RELEASE):
        raise short
    raise _failure(job, kind, installer.reason(said) or done.describe())


def _failure(job: Job, kind: Complaint, why: str) -> ToolError:
    """uv's complaint as one of our errors."""
    what = f"{job.subject} could not be installed"
    offline = job.offline or os.environ.get("UV_OFFLINE", "").lower() in ("1", "true")
    if kind is Complaint.DISK_FULL:
        return DiskFull(what, why, f"free some space or {REMEDY_BUILDS}", job.log)
    if kind is Complaint.NOT_WRITABLE:
        return EnvironmentBroken(what, why, REMEDY_BUILDS, job.log)
    if kind is Complaint.UNREACHABLE or (offline and kind is Complaint.NO_RELEASE):
        remedy = "check the network, the proxy settings and UV_DEFAULT_INDEX"
        if offline:
            why, remedy = "it is not in uv's cache and the index may not be asked", "try again online"
        return IndexUnreachable(what, why, remedy, job.log)
    if kind is Complaint.BROKEN_WHEEL:
        return EnvironmentBroken(what, f"its wheel is broken: {why}", "download that wheel anew", job.log)
    if kind is Complaint.NO_RELEASE:
        return _unknown(job, why)
    return EnvironmentBroken(what, why, "see the log", job.log)


def _unknown(job: Job, why: str) -> UnknownRelease:
    """Names the releases that exist, or says what uv said when they cannot be listed."""
    python = job.interpreter
    what = (
        f"mlx {job.release} has no wheel for the {job.backend.value} backend with CPython {python.version} "
        f"on {python.platform}"
    )
    remedy = "choose one of these, another Python or another backend"
    try:
        exist = available(job.backend, python=python)
    except IndexUnreachable:
        return UnknownRelease(what, why, "name a release that is there", job.log)
    if not exist:
        return UnknownRelease(what, "there is none at all", "choose another Python or backend", job.log)
    near = releases.listed(releases.nearest(job.release, exist))
    return UnknownRelease(
        what, f"the newest are {releases.listed(exist)}, the nearest {near}", remedy, job.log
    )


def check_import(job: Job, root: Path) -> str:
    """Import MLX once in a process of its own; the version it reports. Older wheels abort, not raise.

    Raises ``EnvironmentBroken`` when it does not import, or when what was imported, or any library that came
    with it, is not of this environment.
    """
    script = repro_script("attested.py")
    home = root / "home"
    home.mkdir(exist_ok=True)
    told = bytearray()
    python = root / "bin" / "python"
    clean = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    # In its own folder: a source tree of MLX in the current one must not be imported.
    done = job.sandbox.run(
        [python, "-s", script],
        walls=Walls(
            read=(root, script, *interpreter_paths(python)),
            write=(),
            home=home,
            gpu=job.backend is not Backend.CPU,
        ),
        env={"PYTHONDONTWRITEBYTECODE": "1", **clean, **job.run_env},
        cwd=root,
        timeout_s=min(IMPORT_TIMEOUT_S, job.left_s()),
        log=job.log,
        channel=told.extend,
    )
    what = f"{job.subject} does not import"
    remedy = "" if job.build else "choose another release or backend"
    if not done.ok:
        said = f"python {done.describe()}"
        if line := meaningful(done.stderr):
            said += f", saying: {line}"
        if done.returncode == -signal.SIGKILL and not done.timed_out and not done.output_exceeded:
            raise MachineTrouble(what, said, "see whether memory is short", job.log)
        raise _of_wheel(EnvironmentBroken(what, said, remedy, job.log))
    try:
        proof = json.loads(told)
        known = isinstance(proof["module"], str) and isinstance(proof["mlx"], str)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise _of_wheel(EnvironmentBroken(what, "it did not report its version", remedy, job.log))
    if wrong := foreign(proof, root, None):
        raise EnvironmentBroken(what, f"it {wrong}", "unset PYTHONPATH", job.log)
    if job.build and job.sandbox.walled:
        visible = (job.builds, *interpreter_paths(python))
        if stopped := violation(done, home=Path.home(), visible=visible):
            job.remark(f"{job.subject} was imported without what the walls stopped: {stopped}")
    return str(proof["mlx"])


def _of_wheel(problem: EnvironmentBroken) -> EnvironmentBroken:
    problem.of_wheel = True
    return problem


def meaningful(stderr: str) -> str:
    """Pure: the line of a dying process that says why, at most 300 characters."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("what():")]
    noise = (
        "Aborted",
        "Fatal Python error",
        "Extension modules:",
        "Current thread",
        "File ",
        "<no Python frame>",
    )
    plain = [line for line in lines if not line.startswith(noise)]
    return (told or plain or lines or [""])[-1][:300]


def _short_of_room(job: Job, cache: Path) -> DiskFull | None:
    """The error to raise when the wheels must be downloaded and the disk cannot take them."""
    need = ROOM_MIB
    if job.backend.is_cuda:
        others = any(job.root.parent.glob(f"*-{job.backend.value}-*"))
        need = ROOM_CUDA_MIB if others else ROOM_CUDA_FIRST_MIB
    cache.mkdir(parents=True, exist_ok=True)
    for place in (job.builds, cache):
        free = shutil.disk_usage(place).free // MIB
        if free < need:
            why = f"{place} has {free} MiB free and it takes up to {need} MiB"
            return DiskFull(f"no room for {job.subject}", why, f"free some space or {REMEDY_BUILDS}")
    return None


def explain(problem: OSError, builds: Path) -> ToolError:
    """An error of the file system under ``builds`` as one of ours."""
    why = f"{problem.strerror or problem}" + (f": {problem.filename}" if problem.filename else "")
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{builds} is full", why, f"free some space or {REMEDY_BUILDS}")
    return EnvironmentBroken(f"{builds} cannot be used", why, REMEDY_BUILDS)
