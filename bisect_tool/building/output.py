"""What a build says while it runs and when it fails. Pure: text in, meaning out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from bisect_tool.process import Finished

_STEP = re.compile(r"^\[(\d+)/(\d+)\] (.*)$")
_MEMORY = re.compile(
    r"Killed signal terminated program|internal compiler error: (Killed|Segmentation fault.*out of memory)"
    r"|virtual memory exhausted|[Cc]annot allocate memory|out of memory allocating|std::bad_alloc"
    r"|signal:? 9\b|subcommand failed due to signal: Kill|unable to execute command: Killed"
    r"|died with <Signals\.SIGKILL|^FAILED: \[code=137\]|^Killed$",
    re.MULTILINE,
)
_DISK = re.compile(r"No space left on device|Disk quota exceeded|ENOSPC")
_LINKING = re.compile(
    r"ld returned \d+ exit status|linker command failed|undefined reference|Undefined symbols for arch"
    r"|^(/\S*/)?ld(\.\w+)?: |collect2: error|cannot find -l",
    re.MULTILINE,
)
_UNDEFINED = re.compile(r"undefined reference|Undefined symbols|cannot find -l|multiple definition")
_ERROR = re.compile(
    r"(fatal )?error(\[\w+\])?: |CMake Error|undefined reference|^\w*Error: |ld: ", re.MULTILINE
)
# The tree of the commit, as compilers name it: through the compile cache, and without.
_IN_TREE = re.compile(r"(\.\./\.\./\.\.|/\S*/trees/[\w.-]+)/source/")


class Failure(Enum):
    """How a build ended; the values complete ``548dd80e8 …``. ``of_machine`` ones say nothing of it."""

    CONFIGURE = "does not configure"
    COMPILE = "does not compile"
    LINK = "does not link"
    PACK = "does not pack"
    IMPORT = "packs but does not import"
    WALLS = "tries what the walls do not allow"
    TIME = "did not build in time"
    OUTPUT = "says more than a build may"
    KILLED = "was killed while it built"
    MEMORY = "ran out of memory while it built"
    DISK = "ran out of disk while it built"

    @property
    def of_machine(self) -> bool:
        """Trouble of this machine, which says nothing about the commit."""
        return self in (Failure.KILLED, Failure.MEMORY, Failure.DISK)


@dataclass(frozen=True)
class Step:
    """One of Ninja's. ``name``: the file it is about: ``quantized.cpp``."""

    done: int
    total: int
    name: str

    def text(self, left_s: float | None) -> str:
        """``[57/124] quantized.cpp, 2 min left``."""
        left = ""
        if left_s is not None and left_s >= 1:
            left = f", {left_s / 60:.0f} min left" if left_s >= 90 else f", {left_s:.0f} s left"
        return f"[{self.done}/{self.total}] {self.name}{left}"


# What to look for before anything that is called an error.
_FIRST = {
    Failure.MEMORY: (_MEMORY,),
    Failure.DISK: (_DISK,),
    Failure.LINK: (_UNDEFINED,),
}


class Steps:
    """Fed the output as it comes; tells ``on_step`` of each of Ninja's lines."""

    def __init__(self, on_step: Callable[[Step], None]) -> None:
        self._on_step = on_step
        self._pending = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        self._pending = self._pending[-4096:]
        for line in lines:
            if step := step_of(line.decode("utf-8", "replace")):
                self._on_step(step)


def step_of(line: str) -> Step | None:
    """``[57/124] Building CXX object mlx/CMakeFiles/mlx.dir/ops.cpp.o`` as a Step, else None."""
    found = _STEP.match(line.rstrip())
    if found is None:
        return None
    last = found[3].split()[-1].rsplit("/", 1)[-1] if found[3].strip() else ""
    return Step(int(found[1]), int(found[2]), re.sub(r"\.(o|obj|air)$", "", last))


def judge(done: Finished, log: str) -> Failure:
    """Why a build failed. ``log``: both its streams, as far as they were kept.

    The walls are not judged here: what they stopped is read off by ``sandbox.violation``.
    """
    if done.timed_out:
        return Failure.TIME
    if done.output_exceeded:
        return Failure.OUTPUT
    if _DISK.search(log):
        return Failure.DISK
    if done.memory_exceeded or _MEMORY.search(log):
        return Failure.MEMORY
    if done.returncode < 0:
        return Failure.KILLED
    failed = log.rfind("\nFAILED: ")
    if failed >= 0:
        told = log[failed:]
        linked = re.match(r"\nFAILED: (\[code=\d+\] )?\S*\.(so|dylib|a)\b", told) or _LINKING.search(told)
        return Failure.LINK if linked else Failure.COMPILE
    steps = [step for line in log.splitlines() if (step := step_of(line))]
    # Installing is the last of Ninja's steps, and says no number when it is done.
    if "\n-- Install configuration:" in log or (steps and steps[-1].done == steps[-1].total):
        return Failure.PACK
    return Failure.CONFIGURE


def telling(log: str, failure: Failure) -> str:
    """The line of a log that says most about that failure, at most 300 characters; empty when none does."""
    lines = [line.strip() for line in _from_failure(log, failure)]
    for sign in (*_FIRST.get(failure, ()), _ERROR):
        for number, line in enumerate(lines):
            if not sign.search(line) or line.startswith("[") or "bisect_tool wants" in line:
                continue
            # What it is stands in the lines below.
            below = 3 if line.startswith("CMake Error") else int(line.endswith(":"))
            line = " ".join([line, *[each for each in lines[number + 1 : number + 1 + below] if each]])
            return line[:300]
    plain = [line for line in lines if line]
    return plain[-1][:300] if plain else ""


def excerpt(log: str, failure: Failure, count: int = 12) -> str:
    """The lines of a log that are printed above an error: where it failed, else its end."""
    lines = _from_failure(log, failure)
    if failure in (Failure.COMPILE, Failure.LINK):
        return "\n".join(lines[:1] + lines[2 : count + 1])  # the second is the command, long
    for number, line in enumerate(lines):
        if failure is Failure.CONFIGURE and line.startswith("CMake Error"):
            return "\n".join(lines[number : number + count])
    return "\n".join(lines[-count:])


def _from_failure(log: str, failure: Failure) -> list[str]:
    """The lines that matter: from Ninja's first ``FAILED`` on, what setuptools says of it left out."""
    start = 0
    if failure in (Failure.COMPILE, Failure.LINK):
        start = max(log.find("\nFAILED: ") + 1, 0)
    # setuptools ends with a traceback of its own, which hides what CMake and Ninja said.
    end = log.find("\nTraceback (most recent call last)", start)
    of_program = end > start and "\nsubprocess.CalledProcessError: " in log[end:]
    useful = log[start:end] if of_program else log[start:]
    return _IN_TREE.sub("", useful.rstrip() or log.rstrip()).splitlines()
