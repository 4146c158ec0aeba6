"""What really ran: row bits on a real CPU wheel, ncu by a program that prints recorded output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bisect_tool.analysis.launches import Cell
from bisect_tool.building.backend import Backend
from bisect_tool.building.environment import Environment, ensure, find_interpreter
from bisect_tool.building.sandbox import Unwalled
from bisect_tool.errors import MachineTrouble, RunFailed, ToolMissing
from bisect_tool.measuring import child_env
from bisect_tool.measuring.observing import Observer

HEAD = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size",'
    '"Device","CC","Section Name","Metric Name","Metric Unit","Metric Value"'
)
LINE = '"{0}","1","python","127.0.0.1","{1}","1","7","(32, 8, 1)","(640, 1, 1)","0","9.0","s","m","u","1"'
COPY, QMV = LINE.format(0, "copy_v"), LINE.format(1, "qmv_kernel<__half, (int)64>")


def cell(M: int, *, transpose: bool = True) -> Cell:
    return Cell("here", 256, 256, M, transpose=transpose)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """One that says it is of CUDA; nothing of it is started but by ncu's stand-in."""
    root = tmp_path / "environment"
    (root / "home").mkdir(parents=True)
    return Environment(root, Path(sys.executable), "0.32.4", "cuda13", {}, "", False, 0.0)


Making = Callable[[str], Observer]


@pytest.fixture
def with_ncu(environment: Environment, tmp_path: Path) -> Making:
    """An observer whose ncu is a shell script."""

    def make(script: str) -> Observer:
        program = tmp_path / "ncu"
        program.write_text(f"#!/bin/sh\n{script}")
        program.chmod(0o755)
        logs = tmp_path / "logs"
        logs.mkdir()
        env = {"PATH": "/usr/bin:/bin"}
        return Observer(environment, Unwalled("a test"), env, logs, lambda _name: str(program))

    return make


def test_the_kernels_of_the_op_are_those_that_ncu_sees_beyond_the_rest(
    with_ncu: Making, tmp_path: Path
) -> None:
    observer = with_ncu(
        f'echo "$@" >> {tmp_path}/asked\n'
        f"printf '%s\\n' '==PROF== Connected to process 1 (/x)' '{HEAD}' '{COPY}'\n"
        f"case \" $* \" in *' --without '*) ;; *) printf '%s\\n' '{QMV}';; esac\n"
    )
    (kernel,) = observer.cuda_kernels(cell(3, transpose=False))
    assert (kernel.name, kernel.grid, kernel.block) == (
        "qmv_kernel<__half, (int)64>",
        "(640, 1, 1)",
        "(32, 8, 1)",
    )
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 2 and all("one_call.py 256 256 3 --bits 4" in line for line in asked)
    assert all(line.startswith("--csv --metrics") and "--no-transpose" in line for line in asked)


def test_counters_that_are_kept_for_root_are_said(with_ncu: Making) -> None:
    observer = with_ncu("echo '==ERROR== ERR_NVGPUCTRPERM - The user does not have permission'; exit 1\n")
    with pytest.raises(MachineTrouble, match="NVreg_RestrictProfilingToAdminUsers=0"):
        observer.cuda_kernels(cell(3))


def test_what_ncu_says_otherwise_is_passed_on(with_ncu: Making) -> None:
    with pytest.raises(RunFailed, match="there is no table"):
        with_ncu("echo hello\n").cuda_kernels(cell(3))


def test_without_ncu_it_says_where_it_comes_from(environment: Environment, tmp_path: Path) -> None:
    observer = Observer(environment, Unwalled("a test"), {}, tmp_path, lambda _name: None)
    with pytest.raises(ToolMissing, match="needs ncu: it is not on PATH; install Nsight Compute"):
        observer.cuda_kernels(cell(3))


@pytest.mark.real
def test_row_bits_of_a_real_wheel(wheel_builds: Path, tmp_path: Path) -> None:
    """On a CPU one kernel does every M. What is not transposed the repro has no case of: it is not known."""
    if sys.platform == "darwin":
        pytest.skip("the CPU wheels are Linux's")
    environment = ensure("0.32.4", Backend.CPU, builds=wheel_builds, interpreter=find_interpreter())
    home = environment.root / "home"
    home.mkdir(exist_ok=True)
    observer = Observer(
        environment, Unwalled("a test"), child_env.child_environment(home), tmp_path, lambda _name: None
    )
    cells = [cell(1), cell(3), cell(3, transpose=False)]
    found = observer.observe(cells)
    assert [(each.cell, each.row_as_m1, each.kernels) for each in found] == [
        (cells[0], True, None), (cells[1], True, None), (cells[2], None, None)
    ]  # fmt: skip
    # What ncu and a capture look at does run: here it is not looked at.
    for extra in ((), ("--without",)):
        assert observer._run([], cell(3, transpose=False), *extra).ok
    with pytest.raises(RunFailed, match="256 → 256, M=3 failed: exited with 1: ValueError"):
        observer._run([], cell(3)._replace(group_size=48))
    with pytest.raises(RunFailed, match="wrote no capture"):
        observer.metal_capture(cell(3))
