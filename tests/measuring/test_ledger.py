"""The ledger survives what may happen to a file: cut, damaged, locked, and on a disk that is full."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bisect_tool import process
from bisect_tool.errors import DiskFull, LedgerDamaged, NoSuchSession, ToolError
from bisect_tool.measuring import ledger

HEADER: dict[str, Any] = {"id": "20260101-000000-abcd", "plan": {"arms": ["0.32.4"]}}
RUN = {"kind": "run", "round": 1, "text": "ü"}


def begun(builds: Path, *lines: ledger.Line, name: str = HEADER["id"]) -> Path:
    with ledger.create(builds, {**HEADER, "id": name}) as book:
        for line in lines:
            book.append(line)
        return book.path


def test_written_and_read_again(tmp_path: Path) -> None:
    path = begun(tmp_path, RUN, {"kind": "discard", "round": 1, "reason": "hot"})
    session = ledger.read(path)
    assert session.header == {"kind": "session", "schema": 1, **HEADER}
    assert session.lines == (RUN, {"kind": "discard", "round": 1, "reason": "hot"})
    assert session.id == HEADER["id"] and not session.ended
    assert session.discarded_rounds() == {1: "hot"}
    with ledger.reopen(path) as (book, before):
        assert before == session
        book.append({"kind": "end", "reason": "done"})
    assert ledger.read(path).ended


def test_a_line_is_on_the_disk_when_append_returns(tmp_path: Path) -> None:
    with ledger.create(tmp_path, HEADER) as book:
        book.append(RUN)
        assert ledger.read(book.path).lines == (RUN,)
        book.append(RUN, {"kind": "discard", "round": 1, "reason": ""})
        assert len(ledger.read(book.path).lines) == 3


def test_no_other_file_is_taken_for_a_session(tmp_path: Path) -> None:
    path = begun(tmp_path, RUN)
    assert ledger.sessions(tmp_path) == [path]
    assert not list(path.parent.glob("*.new"))


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_last_line_cut_short_is_dropped_when_reopened(tmp_path: Path, cut: int) -> None:
    path = begun(tmp_path, RUN, {**RUN, "round": 2})
    path.write_bytes(path.read_bytes()[:-cut])
    assert ledger.read(path).lines == (RUN,)
    with ledger.reopen(path) as (book, session):
        assert session.lines == (RUN,)
        book.append({**RUN, "round": 3})
    assert [line["round"] for line in ledger.read(path).lines] == [1, 3]


def test_killed_at_every_byte(tmp_path: Path) -> None:
    path = begun(tmp_path, RUN, {**RUN, "round": 2})
    data = path.read_bytes()
    first = data.index(b"\n") + 1  # `create` writes it under another name
    for end in range(first, len(data) + 1):
        path.write_bytes(data[:end])
        with ledger.reopen(path) as (book, session):
            book.append({"kind": "end", "reason": ""})
        assert list(ledger.read(path).lines) == [*session.lines, {"kind": "end", "reason": ""}]
        assert len(session.lines) == data[first:end].count(b"\n")


@pytest.mark.parametrize("damage", [b"{half", b"5", b"", b"{}", b"\xff\xfe\x00", b"[]"])
def test_damage_in_the_middle_names_the_line(tmp_path: Path, damage: bytes) -> None:
    path = begun(tmp_path, RUN, RUN, RUN)
    lines = path.read_bytes().split(b"\n")
    lines[2] = damage
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(LedgerDamaged, match=rf"line 3 of {path} is not a record: .*; remove that line"):
        ledger.read(path)
    before = path.read_bytes()
    with pytest.raises(LedgerDamaged), ledger.reopen(path):
        pass
    assert path.read_bytes() == before, "it is left as it is"


@pytest.mark.parametrize("data", [b"", b"half", b'{"kind":"run"}\n'])
def test_file_that_is_no_ledger(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(data)
    with pytest.raises(LedgerDamaged, match="does not begin with a session's header; it is no ledger"):
        ledger.read(tmp_path / "x.jsonl")


def test_ledger_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"kind":"session","schema":99,"id":"x"}\n')
    with pytest.raises(LedgerDamaged, match="has schema 99: this tool reads 1; use the"):
        ledger.read(tmp_path / "x.jsonl")


# --- the disk ---------------------------------------------------------------------------------------


def fill(folder: Path, leaving: int) -> Path:
    """A file that takes all the room but ``leaving`` bytes."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - leaving)
    return filler


@pytest.mark.parametrize("size", [6000, 100_000])  # below and above what a buffered file would hold back
def test_full_disk_leaves_no_half_line(small_disk: Path, size: int) -> None:
    path = begun(small_disk, RUN)
    with ledger.reopen(path) as (book, _session):
        filler = fill(small_disk, leaving=0)
        before = path.read_bytes()
        with pytest.raises(DiskFull, match=r"no room left to record a run.*--resume") as caught:
            book.append({"kind": "run", "round": 2, "points": "x" * size})
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before
        filler.unlink()
        book.append({**RUN, "round": 2})
    assert [line["round"] for line in ledger.read(path).lines] == [1, 2]


def test_session_that_cannot_begin_leaves_nothing(small_disk: Path) -> None:
    begun(small_disk, name="20250101-000000-aaaa")
    fill(small_disk, leaving=4096)
    with pytest.raises(DiskFull), ledger.create(small_disk, {**HEADER, "points": "x" * 100_000}):
        pytest.fail("began")
    assert [path.stem for path in ledger.sessions(small_disk)] == ["20250101-000000-aaaa"]
    assert not list(ledger.folder(small_disk).glob("*.new"))


def test_read_only_disk(small_disk: Path) -> None:
    path = begun(small_disk, RUN)
    process.run(["mount", "-o", "remount,ro", str(small_disk)], timeout_s=10)
    with pytest.raises(ToolError, match=r"cannot write .*Read-only file system; choose another place"):
        begun(small_disk, name="20260101-000001-aaaa")
    with pytest.raises(ToolError, match="Read-only file system"), ledger.reopen(path):
        pytest.fail("reopened")
    assert ledger.read(path).lines == (RUN,)


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ToolError, match="Not a directory"):
        begun(tmp_path / "file")


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_interrupted_while_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException
) -> None:
    path = begun(tmp_path, RUN)

    def fail(_fd: int) -> None:
        raise problem

    with ledger.reopen(path) as (book, _session):
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises((KeyboardInterrupt, ToolError)):
            book.append(RUN)
    assert ledger.read(path).lines == (RUN,)


# --- two tools --------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from bisect_tool.measuring import ledger
with ledger.reopen(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_tool_a_session(tmp_path: Path) -> None:
    path = begun(tmp_path, RUN)
    argv = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        busy = pytest.raises(ToolError, match="being measured by another bisect_tool; wait for it")
        with busy, ledger.reopen(path):
            pytest.fail("two at once")
        assert ledger.read(path).lines == (RUN,), "reading needs no lock"
        begun(tmp_path, RUN, name="20260101-000000-beef")
        holder.send_signal(signal.SIGKILL)
        holder.wait(20)
    with ledger.reopen(path) as (_book, session):
        assert session.lines == (RUN,), "the kernel frees the lock of a tool that was killed"


def test_ids_sort_by_time_and_differ() -> None:
    first = {ledger.new_id() for _ in range(50)}
    assert len(first) == 50
    time.sleep(1.1)
    assert ledger.new_id() > max(first)


# --- found by name ----------------------------------------------------------------------------------


def test_found_by_id_beginning_path_and_age(tmp_path: Path) -> None:
    old, mid, new = (begun(tmp_path, name=name) for name in ("20260101-a", "20260102-b", "20260102-c"))
    assert ledger.sessions(tmp_path) == [new, mid, old]
    assert ledger.find(tmp_path, None) == new
    assert ledger.find(tmp_path, "20260101-a") == old == ledger.find(tmp_path, "20260101")
    assert ledger.find(tmp_path / "elsewhere", str(mid)) == mid
    with pytest.raises(NoSuchSession, match=r"2 sessions called '20260102' .*`bisect_tool runs` lists them"):
        ledger.find(tmp_path, "20260102")


@pytest.mark.parametrize("name", ["nope", "*", "x" * 5000, "../..", "/"])
def test_not_found(tmp_path: Path, name: str) -> None:
    begun(tmp_path)
    with pytest.raises(NoSuchSession, match="no session called"):
        ledger.find(tmp_path, name)


def test_an_exact_id_wins_over_a_longer_one(tmp_path: Path) -> None:
    short = begun(tmp_path, name="a")
    begun(tmp_path, name="ab")
    assert ledger.find(tmp_path, "a") == short


def test_nothing_yet(tmp_path: Path) -> None:
    with pytest.raises(NoSuchSession, match=r"no session under .* yet; `bisect_tool repro` makes one"):
        ledger.find(tmp_path, None)
    with pytest.raises(NoSuchSession, match=r"cannot read .*No such file"):
        ledger.read(tmp_path / "gone.jsonl")


def test_lines_are_compact_json(tmp_path: Path) -> None:
    path = begun(tmp_path, RUN)
    for line in path.read_text().splitlines():
        assert json.dumps(json.loads(line), separators=(",", ":")) == line
