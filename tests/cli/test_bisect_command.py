"""`bisect_tool bisect` as a user runs it: real commits, builds and processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_tool import Ended, Tool
from long_history import COMMITS, EDITION, LARGE, NO_COMPILE, NO_IMPORT, SCRIPT, SMALL, LongHistory
from small_builds import Bench

from bisect_tool.measuring import ledger

pytestmark = pytest.mark.builds


class Searches:
    """The tool, on the long history; all searches share what was built."""

    def __init__(self, history: LongHistory, tool: Tool, folder: Path) -> None:
        self.history, self.tool = history, tool
        self.spin, self.edition = folder / "spin.py", folder / "edition.py"
        self.spin.write_text(SCRIPT)
        self.edition.write_text(EDITION)

    def words(self, range_: str, *words: str, script: Path | None = None) -> list[str]:
        mirrors = [word for mirror in self.history.upstream.mirrors for word in ("--mirror", mirror)]
        chosen = ["--script", str(script or self.spin)]
        return [
            "bisect",
            range_,
            "--repo",
            str(self.history.repo),
            *mirrors,
            "--backend",
            "cpu",
            *chosen,
            *words,
        ]

    def __call__(self, range_: str, *words: str, script: Path | None = None) -> Ended:
        with self.tool.started(*self.words(range_, *words, script=script)) as process:
            out, err = process.communicate(timeout=240)
        return Ended(process.returncode, out, err)

    def between(self, first: int, last: int) -> str:
        return f"{self.history.short(first)}..{self.history.short(last)}"


@pytest.fixture(scope="session")
def searches(
    history: LongHistory, history_bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Searches]:
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        history_bench.share_downloads(patch)
        yield Searches(history, Tool(history_bench.builds, folder), folder)


def until(met: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def lines_of(tool: Tool) -> list[dict[str, Any]]:
    paths = ledger.sessions(tool.builds)
    return list(ledger.read(paths[0]).lines) if paths else []


@pytest.mark.timeout(600)
def test_both_steps_of_a_history_that_is_killed_three_times(searches: Searches) -> None:
    """Killed hard in a build, in a measurement and in a proof, it goes on and measures nothing twice."""
    tool, history = searches.tool, searches.history

    def building() -> bool:
        held = list((tool.builds / "locks").glob("tree-*.lock"))
        trees = list((tool.builds / "trees").glob("*/build/temp*/*/.ninja_log"))
        return len([line for line in lines_of(tool) if line["kind"] == "arm"]) >= 3 and bool(held and trees)

    def measuring() -> bool:
        return len([line for line in lines_of(tool) if line["kind"] == "run"]) >= 9

    def proving() -> bool:
        return any(line["kind"] == "run" and line.get("proof") for line in lines_of(tool))

    before = 0
    for at, moment in enumerate((building, measuring, proving)):
        words = searches.words(history.range, "--json", *(["--resume"] if at else []))
        with tool.started(*words) as process:
            until(moment, process)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        runs = [line for line in lines_of(tool) if line["kind"] == "run"]
        assert len(runs) >= before
        before = len(runs)
    done = searches(history.range, "--json", "--resume")
    assert done.code == 0, done.err
    assert len(ledger.sessions(tool.builds)) == 1  # it was one search all along
    said = json.loads(done.out)
    (stage,) = said["stages"]
    steps = stage["steps"]
    assert [step["after"]["sha"] for step in steps] == [history.shas[SMALL], history.shas[LARGE]]
    small, large = (step["share"][0] for step in steps)
    assert 0.15 < small < 0.40 and 0.60 < large < 0.85
    assert all(step["probability"] >= 0.95 for step in steps)
    assert (stage["commits"], stage["candidates"]) == (COMMITS, 50)
    # Never twice: each slot of each round once, each environment once, and no build that was in the store.
    runs = [line for line in said["lines"] if line["kind"] == "run"]
    assert len({(run["round"], run["slot"]) for run in runs}) == len(runs)
    arms = [line["arm"] for line in said["lines"] if line["kind"] == "arm"]
    assert len(set(arms)) == len(arms) <= 16
    printed = tool("report", "--format", "markdown")
    assert f"**{history.short(LARGE)} (#937) made the difference: +" in printed.out
    assert "1 more step beside it" in printed.out and "Careful rounding (#937)" in printed.out
    assert f"bisect_tool compare {history.short(LARGE - 1)} {history.short(LARGE)}" in printed.out


def test_what_does_not_compile_is_a_suspect(searches: Searches) -> None:
    """The edition changes at a commit that does not compile: no one of them can be named."""
    range_ = searches.between(23, 30)
    done = searches(range_, "--json", script=searches.edition)
    assert done.code == 0, done.err
    (stage,) = json.loads(done.out)["stages"]
    (outcome,) = stage["outcomes"]
    history = searches.history
    assert outcome["outcome"] == "UnbuildableGap"
    assert set(outcome["candidates"]) == {history.short(n) for n in (*NO_COMPILE, NO_COMPILE[-1] + 1)}
    assert set(stage["untestable"]) == {history.short(n) for n in NO_COMPILE}
    assert all("does not compile" in why for why in stage["untestable"].values())
    printed = searches.tool("report", "--format", "markdown").out
    assert "cannot be tested: +100 points of failures" in printed
    assert all(f"could not be tested: {history.short(n)}" in printed for n in NO_COMPILE)


def test_builds_of_the_same_files_are_one(searches: Searches) -> None:
    """Commit 46 takes back what 45 did, but for a comment: no difference can be sought."""
    done = searches(searches.between(NO_IMPORT - 1, NO_IMPORT + 1))
    assert done.code == 0 and "the builds of both ends hold the same files" in done.out, done.err


def test_an_end_that_does_not_import(searches: Searches) -> None:
    done = searches(searches.between(NO_IMPORT - 1, NO_IMPORT))
    assert done.code == 1
    assert f"the end {searches.history.short(NO_IMPORT)} cannot be measured" in done.error()


def test_ends_that_both_fail(searches: Searches) -> None:
    done = searches(searches.between(NO_COMPILE[0], NO_COMPILE[-1]))
    assert done.code == 1 and "neither end can be measured" in done.error()


def test_a_fix_is_not_a_regression(searches: Searches) -> None:
    """The good end comes after the bad one: said, and searched as a fix."""
    done = searches(searches.between(LARGE, SMALL - 1), "--find", "fix", "--one-step")
    assert done.code == 0, done.err
    assert "comes before" in done.err and "no fix: the metric rises" in done.out


def test_a_budget_of_builds(searches: Searches, history: LongHistory) -> None:
    done = searches(history.range, "--max-builds", "1", "--budget", "1s", "--exit-code")
    assert done.code == 4 and "the budget of 1 s is spent" in done.out


BAD = [
    (lambda s: [s.history.short(3)], "is one end; write GOOD..BAD, or give --good auto"),
    (lambda s: [s.between(3, 3)], "are the same"),
    (lambda s: [s.between(4, 5)], "there is nothing to search: none of the 1 commits changes what the cpu"),
    (lambda _: ["v0.2.7..main"], "near it: v0.2"),
    (lambda s: ["path:x.." + s.history.short(3)], "is a folder"),
    (lambda s: [s.between(3, 9), "--paths", "no/such"], "there is nothing to search"),
    (lambda s: [s.between(3, 9), "--budget", "0"], "'0' is no duration above 0"),
    (lambda s: [s.between(3, 9), "--confidence", "100"], "is no percentage between 0 and 100"),
    (lambda s: [s.between(3, 9), "--confidence", "0.3"], "'0.3' is not between 50 % and 100 %"),
    (lambda s: [s.between(3, 9), "--releases-only"], "--releases-only goes with two releases"),
    (lambda s: [s.between(3, 9), "--resume"], "no unfinished session of this command"),
    (lambda s: [s.between(3, 9), "--metric", "spun"], "does not give the metric 'spun': it gives spin"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "says"), BAD, ids=[says for _, says in BAD])
def test_what_cannot_be_asked(searches: Searches, words: Callable[[Searches], list[str]], says: str) -> None:
    done = searches(*words(searches))
    assert done.code == 2 and says in done.error()


def test_the_plan(searches: Searches, history: LongHistory) -> None:
    done = searches(history.range, "--dry-run", "--suspect", "text:rounding", "--paths", "mlx/backend/cpu")
    assert done.code == 0 and done.err == ""
    assert done.out.startswith(f"60 commits after {history.short(0)} up to ")
    data = json.loads(searches(history.range, "--dry-run", "--json", "--confidence", "0.9").out)
    assert data["confidence"] == 0.9
    assert (data["commits"], data["candidates"]) == (COMMITS, 50) and 5 <= data["builds"] <= 9


def test_ends_on_two_lines_meet_at_their_merge_base(searches: Searches, history: LongHistory) -> None:
    done = searches(f"#15/head..{history.short(20)}", "--dry-run")
    assert "is no ancestor of" in done.out and "where their histories part" in done.out


@pytest.mark.real
def test_a_step_between_releases(wheel_builds: Path, tmp_path: Path) -> None:
    """`mx.sum` of float16 became faster in 0.32.3: found among the wheels with six environments at most."""
    script = tmp_path / "sum.py"
    script.write_text(
        "import json, time\nimport mlx.core as mx\nx = mx.random.normal((256, 256)).astype(mx.float16)\n"
        "mx.eval(x)\nbest = 1e9\nfor _ in range(20):\n    start = time.process_time()\n"
        "    mx.eval(mx.sum(x))\n    best = min(best, time.process_time() - start)\n"
        'print(json.dumps({"metric": "sum", "value": best, "unit": "s"}))\n'
    )
    tool = Tool(wheel_builds, tmp_path)
    words = (
        "bisect",
        "0.29.4..0.32.4",
        "--releases-only",
        "--backend",
        "cpu",
        "--script",
        str(script),
        "--json",
    )
    done = tool(*words)
    assert done.code == 0, done.err
    said = json.loads(done.out)
    (stage,) = said["stages"]
    (step,) = stage["steps"]
    assert (step["before"]["label"], step["after"]["label"]) == ("0.32.2", "0.32.3")
    assert step["change"]["centre"] < -1 and stage["measured"] <= 6
