"""Every call of git, on our clone and on others' repositories: strangers' repositories are data.

Nothing that a repository names is run: no hooks, no filters, no file system monitor, no fetch behind our
back. Only the fetch from an address reads the user's own configuration, for proxies and credentials.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import cast

from bisect_tool.errors import DiskFull, ToolError, ToolMissing, UpstreamUnreachable

TIMEOUT_S = 120
FETCH_TIMEOUT_S = 3600
SILENCE_S = 120  # a fetch that says nothing for so long has no network
# What a caller's git hook or alias leaves in the environment would lead our git to the caller's repository.
_OF_A_REPOSITORY = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_PREFIX"),
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE"),
    *("GIT_CONFIG", "GIT_REPLACE_REF_BASE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_QUARANTINE_PATH"),
)
QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",  # nothing is written while reading
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_LITERAL_PATHSPECS": "1",
}
ALONE = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_COUNT": "0",
    "GIT_CONFIG_PARAMETERS": "",
}
HARMLESS = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false"),
    *("-c", "safe.directory=*", "-c", "safe.bareRepository=all", "-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false", "-c", "submodule.recurse=false", "-c", "fetch.recurseSubmodules=false"),
    *("-c", "log.showSignature=false", "-c", "advice.objectNameWarning=false"),
)
FETCHING = ("-c", "protocol.ext.allow=never", "-c", "http.lowSpeedLimit=100", "-c", "http.lowSpeedTime=60")


@dataclass(frozen=True)
class Said:
    """How git ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.status == 0

    def reason(self) -> str:
        """git's own last complaint, without credentials, fit to print."""
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        complaints = [line for line in lines if line.startswith(("fatal:", "error:", "ERROR:"))] or lines
        text = re.sub(r"^\w+: ", "", complaints[0]) if complaints else f"git exited with {self.status}"
        return without_credentials(text)


class Git:
    """git on one repository, named by its folder, or on whatever repository ``cwd`` is in."""

    def __init__(
        self,
        git_dir: Path | None = None,
        *,
        cwd: Path | None = None,
        work_tree: Path | None = None,
        index: Path | None = None,
    ) -> None:
        driver = load().Git(cwd or git_dir)
        driver.update_environment(**QUIET, **ALONE)
        given = {"GIT_DIR": git_dir, "GIT_WORK_TREE": work_tree, "GIT_INDEX_FILE": index}
        driver.update_environment(**{name: str(path) for name, path in given.items() if path is not None})
        self._driver = driver

    def tries(self, *arguments: str | os.PathLike[str], stdin: str = "") -> Said:
        """Run it and say how it ended. ``stdin``: what it reads."""
        status, out, err = self._run(arguments, stdin)
        return Said(status, out.decode("utf-8", "surrogateescape"), err)

    def objects(self, oids: Iterable[str]) -> Iterator[tuple[str, str, bytes]]:
        """Sha, kind and content of many objects in one go, without those that are not there."""
        status, out, err = self._run(["cat-file", "--batch"], "".join(f"{oid}\n" for oid in oids))
        if status:
            raise failure("git cat-file failed", Said(status, "", err))
        at = 0
        while at < len(out):
            end = out.index(b"\n", at)
            oid, kind, *size = out[at:end].decode().split()
            at = end + 1
            if size:  # else: missing
                yield oid, kind, out[at : at + int(size[0])]
                at += int(size[0]) + 1

    def _run(self, arguments: Iterable[str | os.PathLike[str]], stdin: str) -> tuple[int, bytes, str]:
        with tempfile.TemporaryFile() if stdin else contextlib.nullcontext() as given:
            if given is not None:
                given.write(stdin.encode("utf-8", "surrogateescape"))
                given.seek(0)
            status, out, err = self._driver.execute(
                [self._driver.GIT_PYTHON_GIT_EXECUTABLE, *HARMLESS, *[os.fspath(each) for each in arguments]],
                istream=given,
                with_extended_output=True,
                with_exceptions=False,
                stdout_as_string=False,
                strip_newline_in_stdout=False,
                kill_after_timeout=TIMEOUT_S,
            )
        return status, cast(bytes, out), err

    def says(self, *arguments: str | os.PathLike[str], stdin: str = "") -> str:
        """Its standard output. Raises UpstreamUnreachable, or DiskFull, when it fails."""
        said = self.tries(*arguments, stdin=stdin)
        if not said.ok:
            raise failure(f"git {arguments[0]} failed", said)
        return said.out


def load() -> ModuleType:
    """GitPython, loaded when it is wanted: it takes a fifth of a second. Raises ToolMissing without git."""
    if shutil.which(os.environ.get("GIT_PYTHON_GIT_EXECUTABLE", "git")) is None:
        raise ToolMissing(
            "git is not on PATH",
            "MLX's history is read with it",
            "install git (macOS: xcode-select --install)",
        )
    for name in _OF_A_REPOSITORY:
        os.environ.pop(name, None)
    import git

    return git


def fetch(
    git_dir: Path,
    arguments: Sequence[str],
    *,
    options: Sequence[str] = (),
    on_line: Callable[[str], None] = lambda _line: None,
) -> Said:
    """``git fetch`` (or another command that talks to an address) with the user's own configuration.

    ``on_line`` gets each line of progress. Ended when it says nothing for ``SILENCE_S`` seconds.
    """
    module = load()
    driver = module.Git(git_dir)
    driver.update_environment(**QUIET, GIT_DIR=str(git_dir))
    # A password prompt would wait for ever where nobody sees it.
    driver.update_environment(GIT_SSH_COMMAND=os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"))
    command = [driver.GIT_PYTHON_GIT_EXECUTABLE, *HARMLESS, *FETCHING, *options, *arguments]
    running = driver.execute(command, as_process=True, universal_newlines=True)
    out: list[str] = []
    err: list[str] = []
    silent = _Watch(lambda: running.proc and running.proc.kill())

    def listen(line: str) -> None:
        silent.reset()
        if re.search(r":\s+\d+% ", line) is None:
            err.append(line)
        on_line(line.strip())

    try:
        from git.cmd import handle_process_output

        handle_process_output(
            running, out.append, listen, decode_streams=False, kill_after_timeout=FETCH_TIMEOUT_S
        )
        status = running.proc.wait() if running.proc is not None else 1
    finally:
        silent.cancel()
        running._terminate()
    if silent.fired:
        err.append(f"fatal: no answer for {SILENCE_S} s")
    return Said(status, "".join(out), "".join(err))


class _Watch:
    """Calls ``act`` once when it has not been reset for ``SILENCE_S`` seconds."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.fired = False
        self._act = act
        self._timer: threading.Timer | None = None
        self.reset()

    def reset(self) -> None:
        self.cancel()
        self._timer = threading.Timer(SILENCE_S, self._fire)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _fire(self) -> None:
        self.fired = True
        self._act()


def failure(what: str, said: Said, remedy: str = "") -> ToolError:
    """git's failure as one of our errors."""
    if "No space left on device" in said.err or "Disk quota exceeded" in said.err:
        return DiskFull(what, said.reason(), "free some space or name another folder with --builds DIR")
    return UpstreamUnreachable(what, said.reason(), remedy)


def explain(problem: OSError, folder: Path) -> ToolError:
    """A failure of the file system under ``folder`` as one of our errors."""
    reason = problem.strerror or str(problem)
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"there is no room in {folder}",
            reason,
            "free some space or name another folder with --builds DIR",
        )
    return UpstreamUnreachable(
        f"the clone of MLX cannot be kept in {folder}", reason, "name another folder with --builds DIR"
    )


def without_credentials(text: str) -> str:
    """``text`` with what stands before a host's ``@`` in an address replaced."""
    return re.sub(r"(?<=://)[^/@\s]*@", "***@", text)
