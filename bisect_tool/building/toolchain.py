"""What compiles: everything of this machine that can change what comes out of a build."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass

from bisect_tool.building.backend import Backend
from bisect_tool.errors import ToolMissing
from bisect_tool.host.system import Machine, Tool, current

NONE = "none"  # of a part that not every commit needs
# What a user may set to have another compiler or SDK taken than the programs above tell of.
CHOSEN = ("CC", "CUDAHOSTCXX", "MACOSX_DEPLOYMENT_TARGET", "SDKROOT")


@dataclass(frozen=True)
class Toolchain:
    """Versions, as the programs themselves tell them. ``parts`` by name: compiler, BLAS, Xcode, nvcc, …"""

    parts: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """SHA-256 (hex): part of the key of every build."""
        return hashlib.sha256(json.dumps(self.parts).encode()).hexdigest()

    def as_dict(self) -> dict[str, str]:
        return dict(self.parts)


def detect(backend: Backend, machine: Machine | None = None) -> Toolchain:
    """The toolchain of this machine. Raises ``ToolMissing`` naming what is not there and how to get it.

    Without BLAS a build is tried, and fails with ``missing_blas`` where it is needed.

    Takes up to a second: it asks every program.
    """
    from bisect_tool.host.nvidia import Nvidia, nvcc
    from bisect_tool.host.toolchain import compiler

    here = machine or current()
    wanted: list[Tool] = [compiler(here), *here.own_toolchain()]
    if backend is Backend.CPU and sys.platform == "darwin":
        wanted = [tool for tool in wanted if tool.name != "Metal toolchain"]
    if backend.is_cuda:
        gpu = Nvidia(here).facts()
        wanted.append(nvcc(here, gpu.cuda if gpu else None))
    for tool in wanted:
        if tool.version is None and tool.name != "BLAS":
            raise ToolMissing(
                f"a {backend.value} build needs {_article(tool.name)}",
                tool.why,
                f"get it with: {tool.remedy}",
            )
    parts = [(tool.name, tool.version or NONE) for tool in wanted]
    if backend.is_cuda and not dict(parts)["nvcc"].startswith(backend.value.removeprefix("cuda") + "."):
        raise ToolMissing(
            f"a {backend.value} build needs CUDA {backend.value.removeprefix('cuda')}",
            f"nvcc here is {dict(parts)['nvcc']}",
            "put the bin folder of that CUDA toolkit first on PATH",
        )
    triple = here.text(here.find("c++") or "c++", "-dumpmachine")
    parts.append(("target", (triple or "").strip()))
    parts += [(name, os.environ[name]) for name in CHOSEN if os.environ.get(name)]
    return Toolchain(tuple(parts))


def _article(name: str) -> str:
    return f"a {name}" if name == "compiler" else name


def missing_blas(toolchain: Toolchain, log: str, subject: str) -> ToolMissing | None:
    """The error of a build that failed for want of BLAS or LAPACK, which is not the commit's fault."""
    if toolchain.as_dict().get("BLAS") != NONE or not re.search(
        r"\b(BLAS|LAPACK)\b|cblas\.h|lapacke\.h", log
    ):
        return None
    tool = next(each for each in current().own_toolchain() if each.name == "BLAS")
    return ToolMissing(f"{subject} needs BLAS and LAPACK", tool.why, f"get them with: {tool.remedy}")
