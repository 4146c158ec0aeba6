"""Every error a user can meet, each with its exit code.

An error prints as one line: what happened, why, and what to do next, with the log's path where there is
one. Exit codes: 0 done, 1 the tool failed, 2 usage, 3 the verdict is a change (only when asked for),
4 inconclusive, 130 interrupted with its state kept.
"""

from __future__ import annotations

from pathlib import Path

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CHANGE = 3
EXIT_INCONCLUSIVE = 4
EXIT_INTERRUPTED = 130


class ToolError(Exception):
    """Base of all of them. ``what``, ``why`` and ``remedy`` are plain clauses without a final stop."""

    exit_code = EXIT_FAILED

    def __init__(self, what: str, why: str = "", remedy: str = "", log: Path | None = None) -> None:
        self.what = what
        self.why = why
        self.remedy = remedy
        self.log = log
        super().__init__(self.line())

    def line(self) -> str:
        """The one line to print, without the leading ``error:``."""
        text = " ".join(self.what.split())
        if self.why:
            text += ": " + " ".join(self.why.split())
        if self.remedy:
            text += "; " + " ".join(self.remedy.split())
        if self.log is not None:
            text += f" (log: {self.log})"
        return text


class UsageProblem(ToolError):
    """The command line asks for something that cannot be."""

    exit_code = EXIT_USAGE


class UnknownRelease(UsageProblem):
    """No wheel of that version for this platform, Python and backend."""


class UnknownRevision(UsageProblem):
    """No commit, tag, branch or pull request of that name, or several."""


class MergeConflict(UsageProblem):
    """A pull request that does not merge onto the revision named."""


class NoSuchSession(UsageProblem):
    """``report`` or ``--resume`` names a session that is not in the ledger."""


class IndexUnreachable(ToolError):
    """The package index did not answer."""


class UpstreamUnreachable(ToolError):
    """The repository of MLX did not answer, or cannot be used."""


class SourceUnavailable(ToolError):
    """A library that a build needs (fmt, json, …) could not be fetched."""


class Untrusted(UsageProblem):
    """A stranger's code would run without walls."""


class BuildFailed(ToolError):
    """A commit that does not configure, compile, link, pack or import: a property of the commit.

    ``failure``: which of these, in one word. ``tail``: the last lines of its log.
    """

    failure: str = ""
    tail: str = ""


class ProbeFailed(ToolError):
    """The host code of a commit cannot be asked: it does not compile against the stand-in, or does not
    answer. ``tail``: the compiler's words."""

    tail: str = ""


class MachineTrouble(ToolError):
    """A build ended by this machine (memory, killed, time): says nothing about the commit."""


class StoreDamaged(ToolError):
    """A stored build is not what its record says."""


class EnvironmentBroken(ToolError):
    """An environment could not be made, or what is in it does not import.

    ``of_wheel``: it is the wheel's own fault.
    """

    of_wheel: bool = False


class DiskFull(ToolError):
    """The file system that holds ``builds/`` has no room left."""


class LedgerDamaged(ToolError):
    """A ledger that cannot be read, apart from a last line cut short, which is repaired."""


class RunFailed(ToolError):
    """A repro process failed: non-zero exit, no ``end`` line, time-out, killed, wrong MLX."""


class ToolMissing(ToolError):
    """A program this command needs is not on the machine."""


class Inconclusive(ToolError):
    """The work was done and answers neither yes nor no."""

    exit_code = EXIT_INCONCLUSIVE


class Interrupted(ToolError):
    """Ctrl-C or SIGTERM: what was measured is kept."""

    exit_code = EXIT_INTERRUPTED
