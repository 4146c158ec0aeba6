"""Which part of MLX does the arithmetic, what that is called on the package index, and since when.

Published wheels, as their metadata says: up to 0.26.3 ``mlx`` is one wheel that carries its backend (Metal
on macOS, CPU on Linux). From 0.26.5 on the backend is a package of its own: ``mlx-metal`` (always pulled in
on macOS), ``mlx-cpu`` (extra ``cpu``) and ``mlx-cuda`` (extra ``cuda``, for CUDA 12). From 0.30.1 on CUDA is
``mlx-cuda-12`` and ``mlx-cuda-13`` (extras ``cuda12`` and ``cuda13``). On Linux, ``mlx`` without an extra
has no backend since the split and does not import.
"""

from __future__ import annotations

import platform
import re
import sys
from enum import Enum
from typing import TYPE_CHECKING

from bisect_tool import process
from bisect_tool.errors import UnknownRelease, UsageProblem
from bisect_tool.upstream import releases

if TYPE_CHECKING:
    from packaging.version import Version

SPLIT = "0.26.5"  # the first release whose backend is a package of its own
CUDA_BY_MAJOR = "0.30.1"  # the first with one package per CUDA major version


class Backend(Enum):
    """What computes; the values are what a user types."""

    METAL = "metal"
    CUDA12 = "cuda12"
    CUDA13 = "cuda13"
    CPU = "cpu"

    @property
    def is_cuda(self) -> bool:
        return self in (Backend.CUDA12, Backend.CUDA13)


def choose(name: str | None) -> Backend:
    """The backend a user names, or the best of this machine for None. Raises ``UsageProblem``.

    An old release for Linux carries its CPU backend in the same wheel as one for macOS carries Metal: what is
    no Metal must not be labelled so.
    """
    if name is None:
        return detect()
    chosen = Backend(name)
    if (chosen is Backend.METAL) != (sys.platform == "darwin") and chosen is not Backend.CPU:
        remedy = "leave --backend out, or give one of this system's"
        raise UsageProblem(f"--backend {name} does not exist on {platform.system()}", remedy=remedy)
    return chosen


def detect() -> Backend:
    """The best backend of this machine: Metal, else the driver's CUDA, else the CPU. At most 20 s."""
    if sys.platform == "darwin":
        # A Python running under Rosetta says x86_64, and there is no MLX for that one.
        return Backend.METAL if platform.machine() == "arm64" else Backend.CPU
    return from_driver(cuda_version(process.probe(["nvidia-smi"], timeout_s=20) or ""))


def cuda_version(nvidia_smi: str) -> tuple[int, int] | None:
    """Pure: the CUDA version that the driver supports, read from ``nvidia-smi``'s header."""
    found = re.search(r"CUDA(?: UMD)? Version\s*:\s*(\d+)\.(\d+)", nvidia_smi)
    return (int(found[1]), int(found[2])) if found else None


def from_driver(cuda: tuple[int, int] | None) -> Backend:
    """Pure: the backend for a driver that supports ``cuda``; a driver runs every older CUDA as well."""
    if cuda is None or cuda < (12, 0):
        return Backend.CPU
    return Backend.CUDA13 if cuda >= (13, 0) else Backend.CUDA12


def requirement(backend: Backend, version: Version | str) -> str:
    """What to ask uv for: ``mlx[cpu]==0.32.4``. Raises ``UnknownRelease`` where no such wheels were made."""
    release = _version(version)
    package = backend_package(backend, release)
    if package == "mlx" or backend is Backend.METAL:
        return f"mlx=={release}"
    return f"mlx[{package.removeprefix('mlx-').replace('-', '')}]=={release}"


def backend_package(backend: Backend, version: Version | str) -> str:
    """The package that carries ``backend`` in that release: ``mlx`` itself before the split.

    Raises ``UnknownRelease`` when MLX did not publish that backend yet.
    """
    release = _version(version)
    if release < _version(SPLIT):
        if backend.is_cuda:
            raise _not_yet(backend, release, f"CUDA wheels start after {SPLIT}", "use the backend cpu")
        return "mlx"
    if backend is Backend.CUDA12:
        return "mlx-cuda-12" if release >= _version(CUDA_BY_MAJOR) else "mlx-cuda"
    if backend is Backend.CUDA13:
        if release < _version(CUDA_BY_MAJOR):
            why = f"wheels for CUDA 13 start at {CUDA_BY_MAJOR}"
            raise _not_yet(backend, release, why, "use the backend cuda12, which a newer driver runs as well")
        return "mlx-cuda-13"
    return f"mlx-{backend.value}"


def available(backend: Backend, *, python: releases.Target, index_url: str | None = None) -> list[Version]:
    """The MLX releases that can be installed with ``backend``, newest first.

    A release counts when ``mlx`` and the package of its backend both have a wheel for ``python``. Raises
    ``IndexUnreachable``.
    """
    known: dict[str, set[Version]] = {}

    def has(package: str, version: Version) -> bool:
        if package not in known:
            known[package] = set(releases.available(package, python=python, index_url=index_url))
        return version in known[package]

    def installable(version: Version) -> bool:
        try:
            return has(backend_package(backend, version), version)
        except UnknownRelease:
            return False

    mlx = releases.available("mlx", python=python, index_url=index_url)
    known["mlx"] = set(mlx)
    return [version for version in mlx if installable(version)]


def _version(version: Version | str) -> Version:
    from packaging.version import Version

    return version if isinstance(version, Version) else Version(version)


def _not_yet(backend: Backend, release: Version, why: str, remedy: str) -> UnknownRelease:
    return UnknownRelease(f"mlx {release} was not published for {backend.value}", why, remedy)
