"""`bisect_tool compare` as a process: real wheels, pull requests of the small upstream, and bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_tool import COUNTING, UNWALLED, Ended, Tool, finish
from fake_mlx import GOOD, make_wheel, wait_for
from small_builds import Bench

from bisect_tool.measuring import ledger

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="backend cpu has wheels on Linux")
builds = pytest.mark.builds

# What a step costs, moved about by less than 0.1 % in a way that differs from run to run, and a control.
COST = """
import json, os
import mlx.core as mx
noise = int.from_bytes(os.urandom(2), "big") / 2**16 * 1e-3
cost = mx.cost() if hasattr(mx, "cost") else {"9.9.9": 100, "9.9.8": 140}[mx.__version__]
print(json.dumps({"metric": "cost", "value": cost * (1 + noise) * 1e-3, "unit": "s"}))
print(json.dumps({"metric": "still", "value": 1 + noise, "unit": "s"}))
"""
ROUNDS = ("--rounds", "6", "--backend", "cpu")


def cells(text: str) -> list[list[str]]:
    """The rows of the markdown tables in a text."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]


@dataclass(frozen=True)
class Comparing:
    """Starts ``bisect_tool compare``; ``script`` are the options that run ``COST``."""

    tool: Tool
    config: Path | None = None

    def __call__(self, *words: str, script: bool = True, **env: str) -> Ended:
        cost = self.tool.cwd / "cost.py"
        cost.write_text(COST)
        if self.config is not None:
            env["BISECT_TOOL_CONFIG"] = str(self.config)
        by = ("--script", "cost.py", "--control", "still", *ROUNDS) if script else ()
        return self.tool("compare", *words, *by, **env)


@pytest.fixture
def tool(wheels: Path, tmp_path: Path) -> Tool:
    """Releases 9.9.9 and 9.9.8, made here."""
    for version in ("9.9.9", "9.9.8"):
        make_wheel(wheels, GOOD, version=version)
    return Tool(tmp_path / "builds", tmp_path)


@pytest.fixture
def releases(tool: Tool) -> Comparing:
    return Comparing(tool)


@pytest.fixture
def commits(bench: Bench, tmp_path: Path) -> Comparing:
    """Commits and pull requests of the small upstream."""
    config = tmp_path / "config.toml"
    pairs = (mirror.split("=", 1) for mirror in bench.upstream.mirrors)
    lines = [f'repo = "{bench.upstream.repo}"', 'backend = "cpu"', "[mirrors]"]
    config.write_text("\n".join([*lines, *(f'"{prefix}" = "{path}"' for prefix, path in pairs), ""]))
    return Comparing(Tool(bench.builds, tmp_path), config)


def newest(commits: Comparing) -> ledger.Session:
    return commits.tool.sessions()[0]


# --- pull requests -------------------------------------------------------------------------------------


@builds
def test_a_merged_pull_request_alone(commits: Comparing, bench: Bench) -> None:
    done = commits("#119", "--aa", "--exit-code")
    assert done.code == 3, done.err
    assert "- **#119** against **#119^**: 0 FASTER, 1 SLOWER (+40.0 % at cost)" in done.out
    row = next(row for row in cells(done.out) if row[0] == "cost")
    assert row[1].startswith("100.") and row[2].startswith("140.") and row[4] == "SLOWER"
    assert next(row for row in cells(done.out) if row[0] == "control")[4] == "steady"
    # The baseline was built a second time, and is the same.
    assert "- **#119^ (again)** against **#119^**: 0 FASTER, 0 SLOWER, 1 SAME" in done.out
    key = bench.key("docs-typo")
    assert (bench.builds / "wheels" / key).is_dir() and (bench.builds / "again" / "wheels" / key).is_dir()
    arms = {line["arm"]: line for line in newest(commits).of_kind("arm")}
    assert arms["#119"]["sha"] == bench.commit("slow-down").sha
    assert arms["#119^"]["sha"] == bench.commit("docs-typo").sha
    # The same again, from the ledger alone.
    again = commits.tool("report", newest(commits).id)
    assert again.out == done.out


@builds
def test_pull_requests_onto_main_and_one_that_does_not_build(commits: Comparing, bench: Bench) -> None:
    done = commits("fused=#15", "#17", "--onto", "main")
    assert done.code == 1
    assert "- **fused** against **main**: 1 FASTER (-50.0 % at cost), 0 SLOWER" in done.out
    assert "- **#17 onto main** against **main**: does not compile" in done.out
    (row,) = [row for row in cells(done.out) if row[0] == "cost"]
    assert row[3].endswith("FASTER") and row[5] == "– (does not compile)"
    assert "#17 onto main is missing: " in done.out and "does not compile" in done.error()
    assert "mlx fused (#15 merged onto main): commit " in done.out
    fused = next(line for line in newest(commits).of_kind("arm") if line["arm"] == "fused")
    assert fused["sha"] not in {commit.sha for commit in bench.upstream.commits}
    assert f"#15 ({bench.commit('pull-15').sha[:9]}) merged onto main" in done.err


@builds
def test_what_reaches_no_file_of_the_build(commits: Comparing) -> None:
    done = commits("#118")
    assert done.code == 0, done.err
    assert done.out == (
        "#118^ and #118 are the same build: there is no difference to measure; --aa measures the noise of "
        "this host\n"
    )
    three = commits("#118^", "#118", "#119")
    assert three.code == 0 and "- **#118** is the same build as **#118^**\n" in three.out
    assert {line["arm"] for line in newest(commits).of_kind("run")} == {"#118^", "#119"}


@builds
def test_pull_requests_that_cannot_be(commits: Comparing) -> None:
    absent = commits("#9999")
    assert absent.code in (1, 2) and "#9999" in absent.error()
    merged = commits("#119", "--onto", "main")
    assert merged.code == 2 and "#119 is in main already: as " in merged.error()
    # Beside arms that can be, it is named and left out.
    beside = commits("#119^", "#119", "#9999")
    assert beside.code == 2 and "1 SLOWER" in beside.out and "#9999 is missing" in beside.out


@builds
def test_a_tree_with_changes(commits: Comparing, bench: Bench, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", str(bench.upstream.repo), str(tmp_path / "mlx")], check=True)
    quantized = tmp_path / "mlx" / "mlx" / "backend" / "cpu" / "quantized.cpp"
    quantized.write_text(re.sub(r"int rounds = \d+;", "int rounds = 90;", quantized.read_text()))
    done = commits("main", "mine=path:mlx")
    assert done.code == 0, done.err
    assert "**mine** against **main**: 1 FASTER (-10.0 % at cost)" in done.out
    assert re.search(r"mlx mine \(path:mlx\): a tree with changes of its own \(digest \w{12}\)", done.out)


@builds
def test_plan_of_commits(commits: Comparing) -> None:
    lost = commits("v0.3.0", "#9999", "--dry-run")
    assert (
        lost.code == 0 and "cannot be had" in lost.out and "#9999: pull request #9999 is not in " in lost.out
    )
    done = commits("v0.3.0", "#15", "0.32.4", "--aa", "--dry-run")
    assert done.code == 0, done.err
    rows = [re.split(r"  +", line) for line in done.out.splitlines()]
    assert rows[0][:3] == ["arm", "commit", "build"]
    assert rows[1][0] == "v0.3.0" and rows[1][-1] == "baseline"
    assert rows[3][0] == "0.32.4" and "released wheel" in rows[3]
    assert rows[4][0] == "v0.3.0 (again)" and rows[4][2].startswith("to build")
    assert "measuring: until 6 rounds are done" in done.out or "a round: 4 runs" in done.out


# --- releases ------------------------------------------------------------------------------------------

SUM = """
import json, time
import mlx.core as mx
a = mx.random.normal((1024, 1024)).astype(mx.float16)
mx.eval(a)
best = 1e9
for _ in range(15):
    start = time.perf_counter()
    mx.eval(mx.sum(a))
    best = min(best, time.perf_counter() - start)
print(json.dumps({"metric": "sum", "value": best, "unit": "s"}))
"""


@pytest.mark.real
@LINUX
def test_a_difference_between_two_real_releases(
    wheel_builds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(wheel_builds / "cache" / "uv"))
    tool = Tool(tmp_path / "builds", tmp_path)
    (tmp_path / "sum.py").write_text(SUM)
    done = tool("compare", "0.32.2..0.32.3", "--script", "sum.py", *ROUNDS, "--json", "--exit-code")
    assert done.code == 3, done.err
    said = json.loads(done.out)
    (row,) = said["tables"][0]["rows"]
    assert row["arms"]["0.32.3"]["verdict"] == "FASTER" and row["arms"]["0.32.3"]["ratio"]["high"] < 1 / 4


@pytest.mark.real
@LINUX
def test_the_canonical_repro_against_itself(
    wheel_builds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two environments of one release: the same bits, errors, a control, and no verdict of two rounds."""
    monkeypatch.setenv("UV_CACHE_DIR", str(wheel_builds / "cache" / "uv"))
    tool = Tool(tmp_path / "builds", tmp_path)
    words = (
        "--matrix",
        "bits=4,8",
        "--shape",
        "256x64",
        "--rows",
        "2",
        "--run-budget",
        "1s",
        "--rounds",
        "1",
    )
    done = tool("compare", "0.32.4", "--aa", *words, "--backend", "cpu")
    assert done.code == 4, done.err
    tables = [row for row in cells(done.out) if row[0] in ("2", "control")]
    assert [row[0] for row in tables] == ["2", "control"] * 2
    four = tables[0]
    assert four[4].startswith("AMBIGUOUS") and re.fullmatch(r"(\d\.\de-0\d) → \1", four[5]), four
    assert four[6].startswith("same bits")
    assert "affine 4-bit" in done.out and "affine 8-bit" in done.out
    (session,) = tool.sessions()
    assert {line["arm"] for line in session.of_kind("arm")} == {"0.32.4", "0.32.4 (again)"}
    folders = sorted(path.parent.name for path in tool.builds.glob("**/environments/0.32.4*"))
    assert folders == ["environments"] * 2 and (tool.builds / "again" / "environments").is_dir()


@LINUX
def test_two_releases_and_the_noise(releases: Comparing) -> None:
    done = releases("9.9.9", "slow=9.9.8", "--aa")
    assert done.code == 0, done.err
    assert "**slow** against **9.9.9**: 0 FASTER, 1 SLOWER (+40" in done.out
    assert "**9.9.9 (again)** against **9.9.9**: 0 FASTER, 0 SLOWER, 1 SAME" in done.out
    assert "smallest difference that can be seen here with so many rounds: 0.1 %" in done.out
    upstream = releases.tool("report", "--layout", "upstream", "--only-changed")
    assert upstream.code == 0 and "1 SLOWER" in upstream.out
    pruned = releases.tool("cache", "prune", "--max-size", "0")
    assert (
        "removed environment again/9.9.9-cpu" in pruned.out and "removed environment 9.9.9-cpu" in pruned.out
    )
    baseline = releases("9.9.9", "slow=9.9.8", "--baseline", "slow")
    assert "**9.9.9** against **slow**: 1 FASTER (-28.6 % at cost)" in baseline.out


@LINUX
def test_settings_make_another_arm_and_labels_do_not(releases: Comparing) -> None:
    done = releases("9.9.9", "9.9.9,MLX_X=1")
    assert done.code == 0 and "1 SAME" in done.out
    runs = releases.tool.sessions()[0].of_kind("run")
    assert {run["arm"] for run in runs} == {"9.9.9", "9.9.9,MLX_X=1"}
    same = releases("a=9.9.9", "b=9.9.9")
    assert same.code == 0 and same.out.startswith("a and b are the same build: ")


@LINUX
def test_a_control_that_moves(releases: Comparing) -> None:
    done = releases("9.9.9", "9.9.8", "--script", "cost.py", "--control", "cost", *ROUNDS, script=False)
    assert done.code == 4
    assert "**9.9.8** gets no verdict of speed: the control (cost) moved by +40" in done.out
    assert next(row for row in cells(done.out) if row[0] == "still")[4] == "AMBIGUOUS (contaminated)"
    asked = ("9.9.9", "9.9.8", "--script", "cost.py", "--control", "cost", "--no-control", *ROUNDS)
    assert releases(*asked, script=False).code == 0


@LINUX
def test_cases_that_do_not_match_and_an_arm_that_fails(releases: Comparing) -> None:
    (releases.tool.cwd / "s.py").write_text(
        "import json, mlx.core as mx\n"
        'print(json.dumps({"metric": mx.__version__, "value": 1.5, "unit": "s"}))\n'
    )
    apart = releases("9.9.9", "9.9.8", "--script", "s.py", *ROUNDS, script=False)
    assert apart.code == 4
    assert "– (not measured in 9.9.9)" in apart.out and "2 not compared" in apart.out
    (releases.tool.cwd / "s.py").write_text(
        "import json, sys, mlx.core as mx\nif mx.__version__ == '9.9.8': sys.exit(int(sys.argv[1]))\n"
        'print(json.dumps({"metric": "t", "value": 1.5, "unit": "s"}))\n'
    )
    words = ("--script", "s.py", *ROUNDS, "--")
    bad = releases("9.9.9", "9.9.8", *words, "1", script=False)
    assert bad.code == 4 and "9.9.8: 6 of 6 runs printed no number: exited with 1" in bad.out
    failed = releases("9.9.9", "9.9.8", *words, "125", script=False)
    assert failed.code == 1
    assert "error: mlx 9.9.8: exited with 125" in failed.error()
    assert "stopped: every arm but the baseline failed" in failed.out
    baseline = releases("9.9.8", "9.9.9", *words, "125", script=False)
    assert baseline.code == 1 and "stopped: the baseline 9.9.8 failed" in baseline.out


@LINUX
def test_interrupted_and_gone_on_with(releases: Comparing) -> None:
    tool, counts = releases.tool, releases.tool.cwd / "counts"
    counts.mkdir()
    (tool.cwd / "count.py").write_text(COUNTING)
    (counts / "hang").write_text("4")
    words = ["9.9.9", "9.9.8", "--aa", "--script", "count.py", *ROUNDS, *UNWALLED, "--", "counts"]
    with tool.started("compare", *words) as process:
        wait_for(counts / "pid")
        process.send_signal(2)
        ended = finish(process)
    assert ended.code == 130 and "the same command with --resume goes on" in ended.error()
    resumed = tool("compare", "--resume", *words)
    assert resumed.code in (0, 4), resumed.err
    (session,) = tool.sessions()
    measured = [(line["round"], line["arm"]) for line in session.of_kind("run")]
    assert len(measured) == len(set(measured)), "nothing is measured twice"
    assert len({arm for _, arm in measured}) == 3 and "--resume" not in resumed.out


# --- too much for a comment ----------------------------------------------------------------------------


def test_a_table_that_does_not_fit_becomes_a_file(tool: Tool) -> None:
    """Six hundred metrics, by hand; the whole comes from the ledger alone."""
    header = {
        "id": "20261126-000000-beef", "started": "", "tool": "0.1.0", "command": ["compare", "a", "b"],
        "plan": {
            "script": {"name": "s.py", "args": [], "canonical": False, "sha256": "0" * 64},
            "arms": ["a", "b"], "seed": 1, "compare": {"baseline": "a"},
        },
    }  # fmt: skip
    runs = [
        {
            "kind": "run", "round": number, "slot": slot, "arm": arm, "outcome": "ok", "reason": "",
            "exit_code": 0, "mlx": arm, "module": "m", "cases": [],
            "metrics": [{"metric": f"m{i}", "value": 1 + number * 1e-3, "unit": "s"} for i in range(600)],
        }
        for number in range(1, 7)
        for slot, arm in enumerate("ab")
    ]  # fmt: skip
    with ledger.create(tool.builds, header, runs) as book:
        path = book.path
    done = tool("report")
    assert done.code == 0, done.err
    rest = path.with_suffix("") / f"tables-{path.stem}.md"
    assert len(done.out) < 60_000 and f"1 more table: file {rest.name}" in done.out
    assert f"tables that did not fit: {rest}" in done.err
    assert rest.read_text().count("\n| m") == 601, "and its head"
    assert tool("report", "--format", "csv").out.count("\n") == 600 * 12 + 1
    assert json.loads(tool("report", "--format", "json").out)["decided"] is True


# --- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Missing argument"),
        (["9.9.9"], "9.9.9 alone is nothing to compare"),
        (["9.9.9", "--quick", "--rigorous"], "--quick and --rigorous exclude each other"),
        (["9.9.9", "9.9.8", "--matrix", "bits"], "--matrix 'bits' is not NAME=VALUE,VALUE"),
        (["9.9.9", "9.9.8", "--matrix", "preset=small,issue"], "with a NAME of shape, rows, bits"),
        (["9.9.9", "9.9.8", "--matrix", "colour=red"], "with a NAME of shape, rows, bits"),
        (["9.9.9", "9.9.8", "--matrix", "bits=4", "--bits", "8"], "--matrix bits and --bits exclude"),
        (["9.9.9", "9.9.8", "--control", "x"], "--control names a metric of a script"),
        (["9.9.9", "9.9.8", "--baseline", "#x"], "'#x' is not a pull request"),
        (["a=9.9.9..9.9.8"], "labels a range"),
        (["9.9.9", "9.9.8", "--", "1"], "arguments after -- go to a script"),
        (["9.9.9", "9.9.8", "--script", "cost.py", "--rows", "1"], "--rows is for the canonical repro"),
        (["9.9.9", "9.9.8", "--width", "0"], "no percentage"),
        (["9.9.9", "9.9.8", "--resume"], "no unfinished session of this command"),
    ],
)
def test_usage_is_one_line_and_2(tool: Tool, words: list[str], says: str) -> None:
    (tool.cwd / "cost.py").write_text(COST)
    ended = tool("compare", *words)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.error() and ended.err.count("\n") == 1
    assert not tool.builds.exists(), "nothing was done"


@LINUX
def test_plan_of_releases(tool: Tool) -> None:
    done = tool("compare", "9.9.9", "9.9.8", "--dry-run", "--quick", "--backend", "cpu")
    assert done.code == 0, done.err
    assert "a round: 2 runs of about 8 s (what it is given), 0.3 min" in done.out
    assert "until every ratio is known to ±2 %" in done.out
    assert not tool.sessions() and not (tool.builds / "environments").exists()
