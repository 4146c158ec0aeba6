"""The programs that a build of MLX needs, each tried out and with the command that gets it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from bisect_tool.host.nvidia import GpuFacts, nvcc
from bisect_tool.host.system import Machine, Tool

COMPILERS = ("c++", "g++", "clang++")
# As C: as C++ they take a second.
BLAS_CHECK = ("-fsyntax-only", "-include", "cblas.h", "-include", "lapacke.h", "-x", "c", "/dev/null")
# <concepts> stands for the library's side of C++20; reading /dev/null leaves no file behind.
CPP20_CHECK = ("-std=c++20", "-include", "concepts", "-fsyntax-only", "-x", "c++", "/dev/null")


def version_of(text: str) -> str | None:
    """The first dotted number: ``git version 2.39.5 (Apple Git-154)`` -> ``2.39.5``."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found.group(0) if found else None


def simple(machine: Machine, name: str, package: str, programs: tuple[str, ...] = ()) -> Tool:
    """The first of those programs that tells its version; ``programs`` are other names to look for."""
    broken = ""
    for program in programs or (name,):
        path = machine.find(program)
        if path is None:
            continue
        version = version_of(machine.text(path, "--version") or "")
        if version is not None:
            return Tool(name, f"{program} {version}" if programs else version)
        broken = f"{path} does not tell its version"  # Apple's stub before Xcode's licence is accepted
    return Tool(name, None, broken or "not found", machine.install(package))


def compiler(machine: Machine, environ: Mapping[str, str] = os.environ) -> Tool:
    """The compiler that CMake would take, when it does C++20 (MLX since v0.31)."""
    named = environ.get("CXX", "").split()
    for program in named[:1] or COMPILERS:
        path = machine.find(program)
        lines = (machine.text(path, "--version") or "").splitlines() if path is not None else []
        if path is None or not lines:
            continue
        if machine.text(path, *CPP20_CHECK) is None:
            return Tool("compiler", None, f"{lines[0]} does no C++20", machine.install("g++"))
        return Tool("compiler", lines[0].strip())
    why = f"CXX={named[0]} not found" if named else "no C++ compiler found"
    return Tool("compiler", None, why, "unset CXX" if named else machine.install("g++"))


def blas(machine: Machine, environ: Mapping[str, str] = os.environ) -> Tool:
    """The libraries of linear algebra that MLX's CPU side needs where there is no Accelerate: their headers,
    and which implementation the linker finds, since that is what is measured."""
    programs = environ.get("CXX", "").split()[:1] or COMPILERS
    path = next(filter(None, map(machine.find, programs)), None)
    if path is None:
        return Tool("BLAS", None, "no compiler to look for it with", machine.install("g++"))
    remedy = machine.install("libopenblas-dev liblapacke-dev")
    if machine.text(path, *BLAS_CHECK) is None:
        return Tool("BLAS", None, "cblas.h and lapacke.h not found", remedy)
    for library in ("libopenblas.so", "libblas.so"):
        found = Path((machine.text(path, f"-print-file-name={library}") or "").strip())
        if found.is_absolute():
            return Tool("BLAS", found.resolve().name)
    return Tool("BLAS", None, "libblas.so not found", remedy)


def tools(machine: Machine, gpu: GpuFacts | None) -> list[Tool]:
    """All of them, present or not; ``nvcc`` only where there is an NVIDIA GPU to build for.

    CMake and Ninja are not among them: a build gets those that its commit asks for from the package index.
    """
    found = [
        simple(machine, "git", "git"),
        simple(machine, "ccache", "ccache", ("ccache", "sccache")),
        compiler(machine),
        *machine.own_toolchain(),
    ]
    return [*found, nvcc(machine, gpu.cuda)] if gpu is not None else found
