"""`bisect_tool dispatch` and `dispatch-log`, the commands themselves, on the small upstream."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from cli_tool import Tool
from small_dispatch import Bench

CELLS = ("--arch", "g16s", "--shape", "4096x1024", "--rows", "1-32")


class Dispatch:
    """The command on the small upstream, with its probes."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.tool = Tool(bench.builds, folder)
        self.repo = ("--repo", str(bench.small.repo), "--quiet")

    def __call__(self, *words: str, code: int = 0, **env: str) -> str:
        ended = self.tool(*words, *self.repo, **env)
        assert ended.code == code, ended.err
        return ended.out if code == 0 else ended.error()


@pytest.fixture
def dispatch(dispatch_bench: Bench, tmp_path: Path) -> Dispatch:
    return Dispatch(dispatch_bench, tmp_path)


def test_a_revision_gives_its_table(dispatch: Dispatch) -> None:
    out = dispatch("dispatch", "0.3.0", *CELLS)
    assert "**v0.3.0 (" in out and "affine 4-bit, group 64, float16" in out
    assert "| g16s  | 4096 → 1024 | 1–9   | qmv        | M × 128 × 1 | 32 × 2 × 1" in out
    assert "2 parts, 1 pass to add up" in out
    assert "- applegpu_g16s: generation 16 (M4), size s (Pro and Max)" in out


def test_a_pull_request_gives_what_it_changes(dispatch: Dispatch) -> None:
    out = dispatch("dispatch", "#5", *CELLS, "--kernel-text")
    assert "**#5^ (" in out and "**#5 (" in out and "13 of 32 cells differ" in out
    assert "qmm, grid 32 × 1 × 1, threadgroup 32 × 2 × 1" in out
    assert "kernel, split-K, reduction, grid" in out
    assert "the text of the kernels that both run is the same" in out
    own = dispatch("dispatch", "#20", *CELLS, "--trust")
    assert "(" in own and "was compiled with its own headers" in own


def test_two_revisions_give_a_difference_and_data_says_the_same(dispatch: Dispatch) -> None:
    words = ("dispatch", "v0.2.0", "v0.3.0", *CELLS)
    assert "13 of 32 cells differ" in dispatch(*words)
    data = json.loads(dispatch(*words, "--json"))
    assert [each["revision"] for each in data["revisions"]] == ["v0.2.0", "v0.3.0"]
    assert len(data["changed"]) == 13 and data["changed"][0]["cell"]["M"] == 20
    assert len(data["revisions"][0]["answers"]) == 32
    same = dispatch("dispatch", "v0.3.0", "v0.3.0", *CELLS)
    assert "dispatch is the same in all 32 cells" in same


def test_the_log_is_one_table(dispatch: Dispatch, dispatch_bench: Bench) -> None:
    out = dispatch("dispatch-log", *CELLS, "--kernel-text")
    assert out.startswith("6 changes in 10 commits, which have 6 versions of the host code; 32 cells\n")
    assert out.index("#8") < out.index("#7") < out.index("#5") < out.index("#1)")
    assert "qmm → qmm_splitk at M=20–32; with it split-K, grid" in out and "affine_qmv" in out
    data = json.loads(dispatch("dispatch-log", "v0.2.0..v0.3.0", *CELLS, "--json"))
    assert [(each["sha"], each["pull"]) for each in data["changes"]] == [
        (dispatch_bench.small.shas["split"], 5)
    ]
    assert (data["commits"], len(data["cells"])) == (3, 32)
    assert dispatch("dispatch-log", "v0.2.0..v0.2.0~0", *CELLS, code=2).startswith("error:")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("v0.3.0", "--arch", "gfx1100"), "'gfx1100' is no GPU architecture"),
        (("v0.3.0", "--shape", "100x64"), "divisible by the group size, 64"),
        (("v0.3.0", "--rows", "0-3"), "'0-3' is no range of rows"),
        (("v0.3.0", "--quant", "fp4"), "'fp4' is no mode"),
        (("v9.9.9",), "'v9.9.9' is not a commit, tag or branch"),
        (("v0.1.0~1",), "it is older than the op"),
        (("moved",), "is not in mlx/backend/metal/quantized.cpp there but in mlx/backend/metal/quant"),
        (("v0.3.0,MLX_METAL_GPU_ARCH=x",), "give it as --arch"),
        (("v0.3.0", "v0.2.0", "--observe"), "--observe takes one revision"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(dispatch: Dispatch, words: tuple[str, ...], says: str) -> None:
    assert says in dispatch("dispatch", *words, code=2)


def test_what_does_not_compile_ends_with_1(dispatch: Dispatch, dispatch_bench: Bench) -> None:
    line = dispatch("dispatch", dispatch_bench.small.shas["broken"], *CELLS, code=1)
    assert "does not compile against the stand-in" in line and "nothing is known of it" in line


def test_without_a_compiler(dispatch: Dispatch, tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("git", "sh", "bwrap"):
        if found := shutil.which(name):
            (bare / name).symlink_to(found)
    env = {"PATH": str(bare), "BISECT_TOOL_BUILDS": str(tmp_path / "builds"), "CXX": ""}
    line = dispatch("dispatch", "v0.3.0", *CELLS, code=1, **env)
    assert "needs a C++20 compiler: no C++ compiler found" in line
    assert os.environ["PATH"] != str(bare)


def test_a_strangers_code_without_walls(dispatch: Dispatch, tmp_path: Path) -> None:
    env = {"BISECT_TOOL_BUILDS": str(tmp_path / "builds")}
    line = dispatch("dispatch", "#22/head", *CELLS, "--sandbox", "off", code=2, **env)
    assert "compiling and asking it runs a stranger's code" in line and "--trust" in line
