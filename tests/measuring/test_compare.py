"""What a comparison asks of a session: how long, until when, and of which arms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_builds import Bench

from bisect_tool.building.backend import Backend
from bisect_tool.building.builder import Watcher
from bisect_tool.building.interpreter import find_interpreter
from bisect_tool.building.provision import Provider
from bisect_tool.building.sandbox import Unwalled
from bisect_tool.errors import UsageProblem
from bisect_tool.measuring.compare import Comparing, Request


class Silent:
    def phase(self, text: str) -> None: ...
    def progress(self, at: object) -> None: ...
    def remark(self, text: str) -> None: ...


def comparing(folder: Path, *arms: str, backend: Backend = Backend.CPU, **changes: Any) -> Comparing:
    given: dict[str, Any] = {
        "onto": "", "baseline": "", "aa": False, "script": None, "script_args": ("--rows", "1-2"),
        "control": "", "controlled": True, "env_options": (), "pace": "normal", "budget_s": None,
        "width": None, "rounds": None, "timeout_s": 60.0, "seed": None, "form": "markdown", "view": {},
        "command": ["compare"],
    }  # fmt: skip
    provider = Provider(
        folder, backend, find_interpreter(), Unwalled("a test"), Watcher(), repo=str(folder / "no clone")
    )
    return Comparing.of(Request(arms=arms, **{**given, **changes}), provider, Silent())


def test_how_long(tmp_path: Path) -> None:
    normal = comparing(tmp_path, "0.32.2", "0.32.4")
    assert (normal.settings.budget_s, normal.settings.width, normal.settings.patient) == (240, 0.0075, True)
    assert normal.script.args == ("--rows", "1-2")
    on_gpu = comparing(tmp_path, "0.32.2", "0.32.4", "main", backend=Backend.CUDA13)
    assert on_gpu.settings.budget_s == 3 * 360
    quick = comparing(tmp_path, "0.32.2", "0.32.4", pace="quick")
    assert (quick.settings.budget_s, quick.settings.width) == (90, 0.02)
    assert quick.script.args == ("--rows", "1-2", "--budget", "4")
    asked = ("--budget", "7")
    assert comparing(tmp_path, "a=0.1.0", "0.2.0", pace="quick", script_args=asked).script.args == asked
    rigorous = comparing(tmp_path, "0.32.2", "0.32.4", pace="rigorous")
    assert (rigorous.settings.budget_s, rigorous.settings.width) == (960, 0.005)
    named = comparing(tmp_path, "0.32.2", "0.32.4", pace="quick", budget_s=600.0, width=0.01)
    assert (named.settings.budget_s, named.settings.width, named.settings.patient) == (600, 0.01, False)


def test_the_baseline_again_is_an_arm_at_the_end(tmp_path: Path) -> None:
    found = comparing(tmp_path, "0.32.2", "new=0.32.4", aa=True, baseline="new")
    assert [spec.label for spec in found.specs] == ["new", "0.32.2", "new (again)"]
    assert (found.baseline, found.again) == ("new", "new (again)") and found.plan.again == "new (again)"
    assert found.specs[-1].typed == "0.32.4"
    assert [spec.label for spec in comparing(tmp_path, "0.32.4", aa=True).specs] == [
        "0.32.4", "0.32.4 (again)",
    ]  # fmt: skip
    with pytest.raises(UsageProblem, match=r"0\.32\.4 alone is nothing to compare"):
        comparing(tmp_path, "0.32.4")


def test_the_second_build_has_a_folder_of_its_own_and_shares_downloads(tmp_path: Path) -> None:
    found = comparing(tmp_path, "0.32.4", aa=True)
    second = found.second
    assert second is found.second and second.builds == tmp_path / "again"
    assert (second.builds / "cache" / "uv").resolve() == tmp_path / "cache" / "uv"
    assert (second.builds / "sources").resolve() == tmp_path / "sources"
    assert second.strangers is found.provider.strangers, "who is a stranger is known to both"


def test_whom_a_session_is_over_without(tmp_path: Path) -> None:
    over = comparing(tmp_path, "0.32.2", "0.32.3", "0.32.4").stop().over
    assert over(["0.32.2", "0.32.4"]) == ""
    assert over(["0.32.2"]) == "every arm but the baseline failed"
    assert over(["0.32.3", "0.32.4"]) == "the baseline 0.32.2 failed"


def test_an_open_pull_request_that_is_all_there_is_must_exist(bench: Bench, tmp_path: Path) -> None:
    found = comparing(tmp_path, "#9999")
    found.provider = bench.provider()
    with pytest.raises(Exception, match="#9999"):
        found.look_up()
    known = comparing(tmp_path, "#15")
    known.provider = bench.provider()
    known.look_up()
