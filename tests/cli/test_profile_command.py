"""`bisect_tool profile`, the command itself, on a real CPU wheel."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from cli_tool import Tool


@pytest.fixture
def tool(wheel_builds: Path, tmp_path: Path) -> Tool:
    if sys.platform == "darwin":
        pytest.skip("the CPU wheels are Linux's")
    return Tool(wheel_builds, tmp_path)


CPU = ("profile", "0.32.4", "--backend", "cpu", "--shape", "128x256", "--rows", "1,3")


@pytest.mark.real
def test_where_a_cpu_spends_its_time(tool: Tool) -> None:
    if shutil.which("perf") is None:
        pytest.skip("perf is not installed")
    ended = tool(*CPU)
    if "perf_event_paranoid" in ended.err:
        pytest.skip(ended.error())
    assert ended.code == 0, ended.err
    assert ended.out.startswith("mlx 0.32.4 (cpu)\n\naffine 4-bit, group 64, float16\n")
    rows = [line for line in ended.out.splitlines() if line.startswith("| 128 → 256")]
    assert [row.split("|")[2].strip() for row in rows if "qmm" in row] == ["1", "3"]
    assert "- mlx 0.32.4: released wheel 0.32.4 (cpu), contents" in ended.out
    assert "bisect_tool profile 0.32.4 --backend cpu" in ended.out
    data = json.loads(tool(*CPU, "--json", "--quiet").out)
    assert data["schema"] == 1 and [each["cell"]["M"] for each in data["profiled"]] == [1, 3]


@pytest.mark.real
def test_without_perf_it_says_what_to_install(tool: Tool, tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("git", "sh", "bwrap"):
        if found := shutil.which(name):
            (bare / name).symlink_to(found)
    ended = tool(*CPU, PATH=str(bare))
    assert ended.code == 1
    assert (
        "seeing where a CPU spends its time needs perf: it is not on PATH; install linux-perf"
        in ended.error()
    )


@pytest.mark.real
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--cache", "cold"), "--cache cold needs ncu: the backend is cpu"),
        (("--rows", "3-1"), "'3-1' is no range of rows"),
        (("--env", "1X=2"), "--env '1X=2' names no variable"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tool: Tool, words: tuple[str, ...], says: str) -> None:
    ended = tool(*CPU, *words)
    assert ended.code == 2 and says in ended.error()
