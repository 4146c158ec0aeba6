"""Compiling a probe with the host's compiler, behind walls."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bisect_tool import process
from bisect_tool.building.sandbox import Sandbox, Walls
from bisect_tool.dispatch import ladder
from bisect_tool.dispatch.source import Sources
from bisect_tool.errors import MachineTrouble, ToolMissing
from bisect_tool.process import Finished

TIMEOUT_S = 120
MEMORY = 4 * 10**9  # bytes: it takes 0.3
_ERROR = re.compile(r"\b(?:fatal )?error: (.*)")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\uffff\n]")


def find() -> str:
    """The path of the C++ compiler: what ``CXX`` names, or else c++, g++ or clang++. Raises ToolMissing."""
    from bisect_tool.host import toolchain
    from bisect_tool.host.system import current

    here = current()
    named = os.environ.get("CXX", "").split()
    for name in named[:1] or toolchain.COMPILERS:
        if path := here.find(name):
            return path
    raise _missing()


def home_of(work: Path) -> Path:
    """The private home of what is compiled in a folder, beside it."""
    return work.with_name(f"{work.name.removesuffix('.tmp')}-home.tmp")


def is_clang(compiler: str) -> bool:
    return "clang" in (process.probe([compiler, "--version"]) or "").lower()


def _missing() -> ToolMissing:
    from bisect_tool.host import toolchain
    from bisect_tool.host.system import current

    tool = toolchain.compiler(current())
    return ToolMissing(
        "asking a commit which kernel it launches needs a C++20 compiler", tool.why, tool.remedy
    )


def precompile(work: Path, header: Path, compiler: str, sandbox: Sandbox) -> None:
    """Compile the stand-in's header ahead, which spares a third of every probe. Nothing is lost where that
    fails, or where the compiler takes none (Clang has other ways).

    ``work``: empty, ours. ``header``: the folder of the header.
    """
    made = work / f"{ladder.HEADER}.gch"
    words = ["-x", "c++-header", str(header / ladder.HEADER), "-o", str(made)]
    done = _compile([compiler, *ladder.usual_arguments(ladder.Rung("")), *words], work, header, sandbox)
    if done.ok and made.is_file() and not made.is_symlink():
        made.replace(header / made.name)


def _compile(argv: list[str], work: Path, header: Path, sandbox: Sandbox) -> Finished:
    """Run the compiler where it may write to ``work`` alone. Raises ToolMissing."""
    try:
        return sandbox.run(
            argv,
            walls=Walls(read=(header,), write=(work,), home=home_of(work)),
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            cwd=work,
            timeout_s=TIMEOUT_S,
            memory_limit=MEMORY,
        )
    except FileNotFoundError as problem:
        raise ToolMissing(
            f"{argv[0]} cannot be used behind walls", "it lies in a folder that they hide", "set CXX"
        ) from problem


def compile_probe(
    folder: Path, header: Path, sources: Sources, rung: ladder.Rung, compiler: str, sandbox: Sandbox
) -> str:
    """Make ``folder / "probe"``; '' or, when it does not compile, the first error of the compiler.

    ``folder``: empty, ours. ``header``: the folder of the stand-in's header. Raises MachineTrouble when the
    compiler was ended by the machine, ToolMissing.
    """
    try:
        ladder.lay_out(folder, sources, rung)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return "it includes a file as a folder"
    argv = [compiler, *ladder.arguments(folder, header, sources, rung)]
    done = _compile(argv, folder, header, sandbox)
    if done.ok:
        made = folder / "probe"
        if made.is_file() and not made.is_symlink():
            return ""
        return "the compiler made nothing"
    if done.timed_out or done.memory_exceeded or done.returncode < 0:
        raise MachineTrouble("a probe could not be compiled", f"{compiler} {done.describe()}", "try again")
    return first_error(done, folder)


def first_error(done: Finished, folder: Path) -> str:
    """The compiler's first complaint, with where it stands, fit to print."""
    text = _UNPRINTABLE.sub("", done.stderr.replace(f"{folder}/", ""))
    for line in text.splitlines():
        if _ERROR.search(line):
            return line.strip()[:300]
    return (done.last_line() or done.describe())[:300]


def check_language() -> None:
    """To be asked after a failure: raises ToolMissing when this compiler does no C++20 at all."""
    from bisect_tool.host import toolchain
    from bisect_tool.host.system import current

    if toolchain.compiler(current()).version is None:
        raise _missing()
