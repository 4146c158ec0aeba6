"""How one commit is built: read from the commit's own ``pyproject.toml``, plus what we set for every build.

FetchContent sources are not parsed out of CMake files: CMake itself asks for them while it configures (see
``cmake_files``), so conditions on platform, SDK and options are decided by the one that knows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bisect_tool.building.backend import Backend
from bisect_tool.errors import BuildFailed, UsageProblem

# Raised when what we set for every build changes: every key changes with it.
VERSION = 1
NINJA = "ninja>=1.11,<2"  # of ours: the same on every machine, with progress we can read
# What a project without [build-system] gets, PEP 517.
LEGACY = {"requires": ["setuptools>=42", "cmake>=3.24"], "build-backend": "setuptools.build_meta"}
# `Plain` knows no flags of its own, so nanobind asks for no link-time optimisation: 11 s of the 13 s that a
# cached build takes, and libmlx is the same to the byte. Tests, examples and stubs reach no measurement.
EVERY_BUILD = {
    "CMAKE_BUILD_TYPE": "Plain",
    # Up to v0.24.0 MPI is built in where a machine has it, and with Open MPI 4 on it v0.15.0 does not import.
    "CMAKE_DISABLE_FIND_PACKAGE_MPI": "ON",
    "CMAKE_INSTALL_LIBDIR": "lib",
    "MLX_BUILD_BENCHMARKS": "OFF",
    "MLX_BUILD_EXAMPLES": "OFF",
    "MLX_BUILD_PYTHON_STUBS": "OFF",
    "MLX_BUILD_TESTS": "OFF",
    "MLX_USE_CCACHE": "OFF",  # it would take ours out of the launcher
}
FLAGS = "-O3 -DNDEBUG"
MOST_REMEDIES = 12  # what a stranger's log asks for may have no end


@dataclass(frozen=True)
class Remedy:
    """A small change without which a commit does not build here; recorded, and shown in reports."""

    name: str
    why: str

    def as_dict(self) -> dict[str, str]:
        return {"name": self.name, "why": self.why}


@dataclass(frozen=True)
class Recipe:
    """``requirements``: of the build environment. ``options``: CMake cache entries, by name. ``flags``: added
    for C++ in front of ``FLAGS``."""

    backend: Backend
    requirements: tuple[str, ...]
    build_backend: str
    backend_path: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    flags: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all that can change an artifact, as far as the source does not say it itself."""
        said = [VERSION, self.backend.value, self.requirements, self.options, FLAGS]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        return {
            "requirements": list(self.requirements),
            "options": dict(self.options),
            "flags": " ".join((*self.flags, FLAGS)),
            "remedies": [remedy.as_dict() for remedy in self.remedies],
        }


def read(pyproject: bytes | None, backend: Backend, options: Mapping[str, str], subject: str) -> Recipe:
    """The recipe of a commit from the bytes of its ``pyproject.toml`` (None: it has none).

    ``options``: CMake cache entries of the user's own, which win. Raises ``BuildFailed`` when the file cannot
    be read: such a commit cannot be built by anyone.
    """
    system = build_system(pyproject, subject)
    requirements: list[str] = []
    remedies: list[Remedy] = []
    for requirement in system["requires"]:
        mended, remedy = _mend(requirement)
        requirements.append(mended)
        remedies += [remedy] if remedy else []
    if not any(re.match(r"ninja\b", each) for each in requirements):
        requirements.append(NINJA)
    return Recipe(
        backend=backend,
        requirements=tuple(sorted(requirements)),
        build_backend=system.get("build-backend", "setuptools.build_meta:__legacy__"),
        backend_path=tuple(system.get("backend-path", ())),
        options=tuple(sorted({**EVERY_BUILD, **_of_backend(backend), **options}.items())),
        remedies=tuple(remedies),
    )


def build_system(pyproject: bytes | None, subject: str) -> dict[str, Any]:
    """The table [build-system] of a ``pyproject.toml``, with PEP 517's defaults. Raises ``BuildFailed``."""
    from bisect_tool import toml

    if pyproject is None:
        return LEGACY
    try:
        system = toml.loads(pyproject.decode()).get("build-system", LEGACY)
        if not isinstance(system, dict):
            raise ValueError("[build-system] is no table")
        for name in ("requires", "backend-path"):
            said = system.get(name, [] if name == "backend-path" else None)
            if not isinstance(said, list) or not all(isinstance(each, str) for each in said):
                raise ValueError(f"[build-system] {name} is not a list of strings")
        if not isinstance(system.get("build-backend", ""), str):
            raise ValueError("[build-system] build-backend is no string")
        for requirement in system["requires"]:
            _check(requirement)
    except ValueError as problem:
        error = BuildFailed(f"{subject} does not configure", f"its pyproject.toml: {problem}")
        error.failure = "configure"
        raise error from problem
    return system


def _check(requirement: str) -> None:
    """Raise ``ValueError`` for what is no requirement: to uv it could be an option, or a file of ours."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        address = Requirement(requirement).url or "https://"
    except InvalidRequirement as problem:
        raise ValueError(f"{requirement!r} is no requirement") from problem
    if not address.startswith(("https://", "git+https://")):
        raise ValueError(f"{requirement!r} has an address that is not of the network")


def after(recipe: Recipe, log: str) -> Recipe | None:
    """Pure: the recipe to try next when a build failed with this log; None when no remedy is known for it."""
    tried = {remedy.name for remedy in recipe.remedies}
    if len(tried) >= MOST_REMEDIES:
        return None
    if "Compatibility with CMake < 3.5 has been removed" in log and "old CMake policies" not in tried:
        why = "a CMakeLists.txt asks for a CMake older than 3.5, which CMake 4 refuses"
        return replace(
            recipe,
            options=tuple(sorted({**dict(recipe.options), "CMAKE_POLICY_VERSION_MINIMUM": "3.5"}.items())),
            remedies=(*recipe.remedies, Remedy("old CMake policies", why)),
        )
    headers = sorted(set(re.findall(r"did you forget to [‘'`\"]#include <(\w+)>", log)))
    new = [header for header in headers if f"-include {header}" not in recipe.flags]
    if new:
        why = "a file uses it without including it; older compilers included it by chance"
        return replace(
            recipe,
            flags=(*recipe.flags, *(f"-include {header}" for header in new)),
            remedies=(*recipe.remedies, *(Remedy(f"#include <{header}>", why) for header in new)),
        )
    return None


def parse_options(given: tuple[str, ...]) -> dict[str, str]:
    """``-D NAME=VALUE`` options as CMake cache entries. Raises UsageProblem."""
    options = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not re.fullmatch(r"\w+", name) or re.search(r'["\\\n]|\]==\]', value):
            raise UsageProblem(f"-D {text!r} is no CMake cache entry", remedy="write it as -D NAME=VALUE")
        options[name] = value
    return options


def _of_backend(backend: Backend) -> dict[str, str]:
    options = {"MLX_BUILD_CPU": "ON", "MLX_BUILD_METAL": "OFF", "MLX_BUILD_CUDA": "OFF"}
    if backend is Backend.METAL:
        options["MLX_BUILD_METAL"] = "ON"
    if backend.is_cuda:
        options["MLX_BUILD_CUDA"] = "ON"
    return options


def _mend(requirement: str) -> tuple[str, Remedy | None]:
    """v0.8–v0.11 name nanobind's commit behind ``#egg=``, which pip takes for a name: they got its head of
    that day. Up to v0.6 CMake looks for pybind11 where only its extra ``global`` puts it."""
    if pybind := re.fullmatch(r"\s*pybind11\s*((?:[<>=!~].*)?)", requirement):
        why = "its CMakeLists.txt finds pybind11 only with the files that this extra adds"
        return f"pybind11[global]{pybind[1]}", Remedy("pybind11[global]", why)
    found = re.fullmatch(r"\s*(\w+)\s*@\s*(git\+\S+?)#egg=([0-9a-f]{40})\s*", requirement)
    if found is None:
        return requirement, None
    name, address, commit = found.groups()
    why = "its requirement names a commit in a place that pip does not read"
    return f"{name} @ {address}@{commit}", Remedy(f"{name} at {commit[:9]}", why)
