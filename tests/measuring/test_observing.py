"""What really ran: row bits on a real CPU wheel."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bisect_tool.analysis.launches import Cell
from bisect_tool.building.backend import Backend
from bisect_tool.building.environment import ensure, find_interpreter
from bisect_tool.building.sandbox import Unwalled
from bisect_tool.measuring import child_env
from bisect_tool.measuring.observing import Observer
from bisect_tool.measuring.profilers import Profilers


def cell(M: int, *, transpose: bool = True) -> Cell:
    return Cell("here", 256, 256, M, transpose=transpose)


@pytest.mark.real
def test_row_bits_of_a_real_wheel(wheel_builds: Path, tmp_path: Path) -> None:
    """On a CPU one kernel does every M. What is not transposed the repro has no case of: it is not known."""
    if sys.platform == "darwin":
        pytest.skip("the CPU wheels are Linux's")
    environment = ensure("0.32.4", Backend.CPU, builds=wheel_builds, interpreter=find_interpreter())
    home = environment.root / "home"
    home.mkdir(exist_ok=True)
    env = child_env.child_environment(home)
    profilers = Profilers(environment, Unwalled("a test"), env, lambda _name: None)
    observer = Observer(profilers, tmp_path)
    cells = [cell(1), cell(3), cell(3, transpose=False)]
    found = observer.observe(cells)
    assert [(each.cell, each.row_as_m1, each.kernels) for each in found] == [
        (cells[0], True, None), (cells[1], True, None), (cells[2], None, None)
    ]  # fmt: skip
