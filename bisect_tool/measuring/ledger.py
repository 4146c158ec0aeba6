"""The ledger: one file of JSON lines a session, appended and synced before the next run starts.

The first line is the session's header; then ``arm``, ``run``, ``discard`` and ``end`` lines in the order in
which they happened. Nothing is ever rewritten, so a session killed at any moment loses at most the run in
progress; a last line cut short is dropped when the session is opened for appending.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bisect_tool.errors import DiskFull, LedgerDamaged, NoSuchSession, ToolError

SCHEMA = 1
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
SUFFIX = ".jsonl"
Line = dict[str, Any]


@dataclass(frozen=True)
class Session:
    """A session as it was read: its header, and every later line in order."""

    path: Path
    header: Line
    lines: tuple[Line, ...]

    @property
    def id(self) -> str:
        return str(self.header["id"])

    @property
    def ended(self) -> bool:
        return any(line["kind"] == "end" for line in self.lines)

    def of_kind(self, kind: str) -> list[Line]:
        return [line for line in self.lines if line["kind"] == kind]

    def discarded_rounds(self) -> dict[int, str]:
        """Round -> why it does not count."""
        return {line["round"]: line["reason"] for line in self.of_kind("discard")}


def folder(builds: Path) -> Path:
    return builds / "sessions"


def new_id() -> str:
    """Sorts by time, and no two tools started in the same second share it."""
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)


class Ledger:
    """A session's file, open for appending by one tool at a time. Use ``create`` or ``reopen``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, *lines: Line) -> None:
        """Write lines, at once, and wait until they are on the disk.

        Raises DiskFull. Whatever it raises, no half line is left.
        """
        data = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
        # Unbuffered: a buffer would write what it still holds before it truncates, and again when closed.
        with _disk_errors(self.path), self.path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(end)
                raise


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno in NO_ROOM:
            raise DiskFull(
                f"no room left to record a run in {path.parent}",
                "the runs before it are kept",
                "free some space and go on with --resume",
            ) from problem
        raise ToolError(
            f"cannot write {path}", str(problem.strerror), "choose another place with --builds"
        ) from problem


@contextmanager
def create(builds: Path, header: Line, lines: Sequence[Line] = ()) -> Iterator[Ledger]:
    """Start a session with its first lines. The header gets ``kind``, ``schema`` and must have an ``id``."""
    path = folder(builds) / f"{header['id']}{SUFFIX}"
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        # Under another name first: killed in between, no ledger without its header and arms is left.
        fresh = Ledger(path.with_suffix(".new"))
        try:
            fresh.append({"kind": "session", "schema": SCHEMA, **header}, *lines)
            fresh.path.rename(path)
        finally:
            fresh.path.unlink(missing_ok=True)
        yield Ledger(path)


@contextmanager
def reopen(path: Path) -> Iterator[tuple[Ledger, Session]]:
    """Open a session to go on with it; drops a last line that was cut short."""
    with _locked(path):
        session = read(path)
        with _disk_errors(path), path.open("r+b") as file:
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
        yield Ledger(path), session


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_suffix(".lock"))
    with _disk_errors(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ToolError(
                f"session {path.stem} is being measured by another bisect_tool",
                remedy="wait for it to end, or start a session of your own without --resume",
            ) from None
    try:
        yield
    finally:
        lock.release()


def read(path: Path) -> Session:
    """Read a session. A last line without its end is left out. Raises NoSuchSession, LedgerDamaged."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise NoSuchSession(
            f"cannot read {path}", str(problem.strerror), "`bisect_tool runs` lists sessions"
        ) from None
    *raw, _cut = data.split(b"\n")
    lines: list[Line] = []
    for number, text in enumerate(raw, 1):
        try:
            line = json.loads(text)
            if not isinstance(line, dict) or "kind" not in line:
                raise ValueError
        except ValueError:
            raise LedgerDamaged(
                f"line {number} of {path} is not a record", "the file was changed by hand or by the disk",
                "remove that line to read the rest",
            ) from None  # fmt: skip
        lines.append(line)
    if not lines or lines[0]["kind"] != "session":
        raise LedgerDamaged(
            f"{path} does not begin with a session's header", remedy="it is no ledger; remove it"
        )
    if lines[0].get("schema") != SCHEMA:
        raise LedgerDamaged(
            f"{path} has schema {lines[0].get('schema')!r}",
            f"this tool reads {SCHEMA}",
            "use the version that wrote it",
        )
    return Session(path, lines[0], tuple(lines[1:]))


def sessions(builds: Path) -> list[Path]:
    """Ledgers under ``builds``, newest first."""
    return sorted(folder(builds).glob(f"*{SUFFIX}"), reverse=True)


def find(builds: Path, name: str | None) -> Path:
    """A ledger by session id, unique beginning of one, or path; the newest for None. Raises NoSuchSession."""
    known = sessions(builds)
    if name is None:
        if not known:
            raise NoSuchSession(
                f"no session under {folder(builds)} yet", remedy="`bisect_tool repro` makes one"
            )
        return known[0]
    with suppress(OSError):  # a name too long for a file, say
        if Path(name).is_file():
            return Path(name)
    hits = [path for path in known if path.stem == name] or [
        path for path in known if path.stem.startswith(name)
    ]
    if len(hits) != 1:
        what = "no session" if not hits else f"{len(hits)} sessions"
        raise NoSuchSession(
            f"{what} called {name!r} under {folder(builds)}", remedy="`bisect_tool runs` lists them"
        )
    return hits[0]
