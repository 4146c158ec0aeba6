"""Where the GPU does not work behind the walls: found out by trying, before anything is measured."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from small_builds import walls

from bisect_tool.building.backend import Backend
from bisect_tool.building.builder import Watcher
from bisect_tool.building.environment import Environment, find_interpreter
from bisect_tool.building.provision import Provider
from bisect_tool.errors import MachineTrouble, Untrusted
from bisect_tool.measuring.repro import let_the_gpu_work
from bisect_tool.measuring.run import Script
from bisect_tool.measuring.session import Arm
from bisect_tool.upstream.revision import Revision

# Works only where it sees the machine's own process numbers, as a driver may.
PICKY = """
import os
def ones(_shape):
    if os.getpid() < 100:
        raise RuntimeError("cudaMallocManaged failed")
    return Matrix()
class Matrix:
    def __matmul__(self, other): return self
def eval(_matrix): pass
"""


class Watch:
    def __init__(self) -> None:
        self.said: list[str] = []

    def phase(self, text: str) -> None:
        self.said.append(text)

    def progress(self, _at: object) -> None: ...

    def remark(self, text: str) -> None:
        self.said.append(text)


def settle(
    tmp_path: Path, core: str, script: Path | None = None, **changes: object
) -> tuple[Provider, Watch]:
    root = tmp_path / "environment"
    (root / "mlx").mkdir(parents=True)
    (root / "mlx" / "core.py").write_text(core)
    made = Environment(root, Path(sys.executable), "9.9.9", "cuda12", {}, "d", False, 0.0)
    arm = Arm(Revision("9.9.9", "9.9.9"), made, {"PATH": os.environ["PATH"]})
    given: dict[str, object] = {"sandbox": walls(), "backend": Backend.CUDA12, **changes}
    provider = Provider(builds=tmp_path, interpreter=find_interpreter(), watch=Watcher(), repo="", **given)  # type: ignore[arg-type]
    watch = Watch()
    let_the_gpu_work(arm, Script.load(script, ()), provider, watch)
    return provider, watch


def test_walls_stay_where_the_gpu_works(tmp_path: Path) -> None:
    provider, watch = settle(tmp_path, PICKY.replace("< 100", "< 0"))
    assert provider.sandbox.walled and watch.said == []


def test_walls_go_where_it_does_not(tmp_path: Path) -> None:
    provider, watch = settle(tmp_path, PICKY)
    assert not provider.sandbox.walled
    assert "does not work behind the walls" in watch.said[0] and "cudaMallocManaged failed" in watch.said[0]


def test_they_stay_when_it_works_nowhere(tmp_path: Path) -> None:
    provider, watch = settle(tmp_path, PICKY.replace("< 100", "> 0"))
    assert provider.sandbox.walled and watch.said == []


def test_on_a_cpu_nothing_is_tried(tmp_path: Path) -> None:
    provider, _ = settle(tmp_path, PICKY, backend=Backend.CPU)
    assert provider.sandbox.walled


def test_not_for_strangers(tmp_path: Path) -> None:
    with pytest.raises(Untrusted, match="#15 would run with all your rights"):
        settle(tmp_path / "commit", PICKY, strangers=["#15"])
    script = tmp_path / "mine.py"
    script.write_text("")
    with pytest.raises(Untrusted, match=r"mine\.py would run"):
        settle(tmp_path / "script", PICKY, script=script)
    provider, _ = settle(tmp_path / "trusted", PICKY, script=script, trust=True)
    assert not provider.sandbox.walled


def test_required_walls_are_not_taken_away(tmp_path: Path) -> None:
    with pytest.raises(MachineTrouble, match="walls are required"):
        settle(tmp_path, PICKY, require_walls=True)
