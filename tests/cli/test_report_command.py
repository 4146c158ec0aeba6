"""`report`, `runs` and `--help` as processes, over one small real session and a few broken ones."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_tool import Ended, Tool
from fake_mlx import GOOD, make_wheel

from bisect_tool.cli.main import COMMANDS
from bisect_tool.measuring import ledger

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="backend cpu has wheels on Linux")
SCRIPT = """
import json, mlx.core as mx
# What 9.9.8 prints fails; the record of it must not spoil the others.
value = float("nan") if mx.__version__ == "9.9.8" else 1.5
print(json.dumps({"metric": "time", "value": value, "unit": "s"}))
"""


@pytest.fixture(scope="session")
def measured(wheel_builds: Path, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """A session of the canonical repro on a tiny shape, one round."""
    folder = tmp_path_factory.mktemp("measured")
    tool = Tool(folder / "builds", folder)
    ended = tool(
        "repro", "0.32.4", "--shape", "256x64", "--rows", "1-2", "--run-budget", "1s", "--rounds", "1",
        "--timing", "chain,percall", UV_CACHE_DIR=str(wheel_builds / "cache" / "uv"),
    )  # fmt: skip
    assert ended.code == 4, ended.err
    (folder / "printed").write_text(ended.out)
    return tool


@pytest.fixture
def failing(wheels: Path, tmp_path: Path) -> Tool:
    """A session in which one arm prints no numbers."""
    for version in ("9.9.9", "9.9.8"):
        make_wheel(wheels, GOOD, version=version)
    (tmp_path / "s.py").write_text(SCRIPT)
    tool = Tool(tmp_path / "builds", tmp_path)
    ended = tool("repro", "9.9.9", "9.9.8", "--backend", "cpu", "--rounds", "1", "--script", "s.py")
    assert ended.code == 1, ended.err
    return tool


def strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


# --- the same again ---------------------------------------------------------------------------------


@pytest.mark.real
def test_report_is_what_was_printed(measured: Tool) -> None:
    ended = measured("report")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (measured.cwd / "printed").read_text()
    assert "**256 → 64** – mlx 0.32.4" in ended.out


@pytest.mark.real
def test_report_by_id_beginning_and_path(measured: Tool, tmp_path: Path) -> None:
    (session,) = measured.sessions()
    expected = measured("report").out
    for name in (session.id, session.id[:-2], str(session.path)):
        assert measured("report", name).out == expected
    # A ledger that somebody sent.
    sent = shutil.copy(session.path, tmp_path / "sent")
    assert Tool(tmp_path / "none", tmp_path)("report", str(sent)).out == expected


@pytest.mark.real
def test_report_measures_and_writes_nothing(measured: Tool) -> None:
    def state() -> dict[str, float]:
        return {str(path): path.lstat().st_mtime for path in measured.builds.rglob("*")}

    before = state()
    for form in ("markdown", "json", "csv", "compat"):
        measured("report", "--format", form)
    measured("runs")
    assert state() == before


@pytest.mark.real
def test_formats(measured: Tool) -> None:
    data = strictly(measured("report", "--format", "json").out)
    tables = [table for table in data["tables"] if not table["case"].get("control")]
    assert {table["case"]["timing"] for table in tables} == {"chain", "percall"}
    assert all([row["M"] for row in table["rows"]] == [1, 2] for table in tables)
    rows = list(csv.DictReader(io.StringIO(measured("report", "--format", "csv").out)))
    counted = [row for row in rows if row["op"] == "quantized_matmul" and not row["discarded"]]
    assert [(row["arm"], row["K"], row["N"]) for row in counted] == [("0.32.4", "256", "64")] * 4
    assert all(float(row["time_s"]) > 0 for row in counted)
    compat = measured("report", "--format", "compat").out.splitlines()
    assert compat[0].startswith("256 → 64:") and "M=1=" in compat[0] and "M=2=" in compat[0]


@pytest.mark.real
def test_runs(measured: Tool) -> None:
    (session,) = measured.sessions()
    ended = measured("runs")
    head, line = ended.out.splitlines()
    assert head.split() == ["session", "state", "rounds", "discarded", "arms", "script"]
    cells = line.split()
    assert cells[:3] == [session.id, "ended", "1"] and cells[4:] == ["0.32.4", "qmv_step.py"]
    (row,) = strictly(measured("runs", "--json").out)["sessions"]
    assert (row["id"], row["path"], row["command"][0]) == (session.id, str(session.path), "repro")


@LINUX
def test_failures_are_told_and_json_stays_strict(failing: Tool) -> None:
    data = strictly(failing("report", "--format", "json").out)
    assert [metric["arm"] for metric in data["metrics"]] == ["9.9.9"]
    assert "printed metric 'time' with the value nan" in failing("report").out
    rows = list(csv.DictReader(io.StringIO(failing("report", "--format", "csv").out)))
    assert {row["arm"]: row["outcome"] for row in rows} == {"9.9.9": "ok", "9.9.8": "failed"}
    compat = failing("report", "--format", "compat")
    assert compat.code == 0 and compat.out.startswith("No time was taken in #3553's way")
    strictly(failing("runs", "--json").out)
    (session,) = failing.sessions()
    for line in session.path.read_text().splitlines():
        strictly(line)


@LINUX
def test_session_that_was_cut_off_is_reported_as_far_as_it_is(failing: Tool) -> None:
    (session,) = failing.sessions()
    lines = session.path.read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        session.path.write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        ended = failing("report")
        assert (ended.code, ended.err) == (0, ""), ended.err
    assert "not finished" in failing("report").out
    assert "unfinished" in failing("runs").out


# --- bad input --------------------------------------------------------------------------------------


def begin(tool: Tool, name: str, **header: object) -> Path:
    plan = {"arms": ["9.9.9"], "script": {"name": "s.py"}}
    whole = {"id": name, "plan": plan, "command": ["repro"], "started": "now", "tool": "0", **header}
    with ledger.create(tool.builds, whole) as book:
        return book.path


@pytest.fixture
def empty(tmp_path: Path) -> Tool:
    return Tool(tmp_path / "builds", tmp_path)


def test_nothing_yet(empty: Tool) -> None:
    ended = empty("report")
    assert (ended.code, ended.out) == (2, "")
    assert "no session under" in ended.error() and "`bisect_tool repro` makes one" in ended.error()
    assert empty("runs") == Ended(0, "no sessions yet; `bisect_tool repro` makes one\n", "")
    assert strictly(empty("runs", "--json").out)["sessions"] == []
    assert not empty.builds.exists()


def test_unknown_and_ambiguous_session(empty: Tool) -> None:
    begin(empty, "20260101-000000-aaaa")
    begin(empty, "20260101-000000-bbbb")
    for name, says in (
        ("nope", "no session called 'nope'"),
        ("2026", "2 sessions called '2026'"),
        ("x" * 300, "no session called"),
        (str(empty.builds), "no session called"),
    ):
        ended = empty("report", name)
        assert (ended.code, ended.out) == (2, "")
        assert says in ended.error() and "`bisect_tool runs` lists them" in ended.error()


def test_damaged_ledger(empty: Tool) -> None:
    good, bad = begin(empty, "20260101-000000-aaaa"), begin(empty, "20260102-000000-bbbb")
    bad.write_text(bad.read_text() + "nonsense\n{}\n")
    ended = empty("report")
    assert (ended.code, ended.out) == (1, "")
    assert f"line 2 of {bad} is not a record" in ended.error()
    listed = empty("runs")
    assert listed.code == 0 and good.stem in listed.out
    assert listed.err.startswith(f"warning: line 2 of {bad}") and listed.err.count("\n") == 1
    strictly(empty("runs", "--json").out)


def test_file_that_is_no_ledger(empty: Tool) -> None:
    (empty.cwd / "image").write_bytes(os.urandom(5000))
    ended = empty("report", "image")
    assert (ended.code, ended.out) == (1, "")
    assert ended.error()


@pytest.mark.parametrize(
    "words", [["report", "a", "b"], ["report", "--format", "html"], ["runs", "x"], ["no"]]
)
def test_usage(empty: Tool, words: list[str]) -> None:
    ended = empty(*words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.error().endswith("--help`") and ended.err.count("\n") == 1


# --- streams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(empty: Tool, command: str) -> None:
    for option in ("--help", "-h"):
        ended = empty(*command.split(), option)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith(f"Usage: bisect_tool {command}".rstrip())
        assert "\x1b" not in ended.out
    assert not empty.builds.exists()


def test_no_arguments_print_the_help(empty: Tool) -> None:
    ended = empty()
    assert "Usage: bisect_tool" in ended.out + ended.err and "Commands:" in ended.out + ended.err


def test_reader_that_has_enough(empty: Tool) -> None:
    begin(empty, "20260101-000000-aaaa")
    with empty.started("runs") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) in (0, 1)


def on_a_terminal(tool: Tool, *words: str, **env: str) -> str:
    """Everything that comes out when both streams are a terminal."""
    master, slave = pty.openpty()
    given = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-m", "bisect_tool", *words],
        cwd=tool.cwd,
        env={**given, "BISECT_TOOL_BUILDS": str(tool.builds), "TERM": "xterm-256color", **env},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    told = b""
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # Linux, when the other side is closed
                break
            if not chunk:
                break
            told += chunk
    finally:
        os.close(master)
        process.kill()
        process.wait()
    return told.decode("utf-8", "replace")


COLOUR = "\x1b[3"  # as in ESC [ 3 1 m


@LINUX
def test_terminal_shows_a_bar_and_no_color_is_respected(failing: Tool) -> None:
    again = ["repro", "9.9.9", "--backend", "cpu", "--rounds", "1", "--script", "s.py"]
    shown = on_a_terminal(failing, *again)
    assert "round 1 of 1" in shown and "\x1b[" in shown
    plain = on_a_terminal(failing, *again, NO_COLOR="1")
    assert "round 1 of 1" in plain and COLOUR not in plain
    assert "\x1b" not in on_a_terminal(failing, "report"), "results are plain text everywhere"
    assert "\x1b" not in failing("repro", *again[1:]).err
