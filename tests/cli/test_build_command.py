"""`bisect_tool build` and `repro` of commits, as a user starts them, on the small upstream."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from cli_tool import Ended, Tool, finish
from small_builds import Bench, running_below, walls
from small_upstream import TOKEN, make

from bisect_tool.building.store import Store

pytestmark = pytest.mark.builds
SOMEONE = ("-c", "user.name=x", "-c", "user.email=x@y")
SPIN = """
import json, time
import mlx.core as mx
start = time.perf_counter()
mx.spin(20000)
print(json.dumps({"metric": "spin", "value": time.perf_counter() - start, "unit": "s"}))
"""


@pytest.fixture
def options(bench: Bench) -> list[str]:
    words = ["--repo", str(bench.upstream.repo), "--backend", "cpu"]
    for mirror in bench.upstream.mirrors:
        words += ["--mirror", mirror]
    return words


@pytest.fixture
def tool(bench: Bench, tmp_path: Path) -> Tool:
    return Tool(bench.builds, tmp_path)


@pytest.fixture
def fresh(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """With a folder of builds of its own."""
    bench.beside(tmp_path / "builds", monkeypatch)
    return Tool(tmp_path / "builds", tmp_path)


def rows(done: Ended) -> list[dict[str, object]]:
    assert done.code == 0, done.err
    return list(json.loads(done.out)["builds"])


# --- what it makes ----------------------------------------------------------------------------------


def test_builds_names_of_every_kind(tool: Tool, bench: Bench, options: list[str]) -> None:
    slow = bench.commit("slow-down")
    names = ["v0.3.0", slow.sha[:7], "main~2", "#12", "#15", "#15/head", "next"]
    found = rows(tool("build", *names, *options, "--json"))
    assert [row["revision"] for row in found] == names
    assert found[0]["sha"] == bench.commit("bump-0.3.0").sha and found[0]["mlx"] == "0.3.0"
    assert found[1]["sha"] == slow.sha and found[1]["subject"] == slow.subject
    assert found[2]["sha"] == bench.upstream.main[-3].sha
    assert found[3]["sha"] == bench.commit("ops-fuse").sha, "merged: what landed"
    assert found[4]["sha"] == found[5]["sha"] == bench.commit("pull-15").sha
    assert found[4]["build"] == found[5]["build"] and not found[5]["built"]
    for row in found:
        done = subprocess.run(
            [str(row["python"]), "-c", "import mlx.core as c; print(c.cost())"],
            capture_output=True, text=True, cwd="/", timeout=60, check=True,
        )  # fmt: skip
        wanted = next(c for c in bench.upstream.commits if c.sha == row["sha"])
        assert int(done.stdout) == wanted.cost


def test_a_tree_of_ones_own_with_its_changes(
    tool: Tool, bench: Bench, options: list[str], tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    subprocess.run(["git", "clone", "-q", bench.upstream.repo, mine], check=True)
    file = mine / "mlx/backend/cpu/quantized.cpp"
    file.write_text(re.sub(r"rounds = \d+", "rounds = 77", file.read_text()))
    before = {path: path.stat().st_mtime_ns for path in mine.rglob("*")}
    row = rows(tool("build", "path:mine", *options, "--json"))[0]
    done = subprocess.run(
        [str(row["python"]), "-c", "import mlx.core as c; print(c.cost())"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "77"
    assert {path: path.stat().st_mtime_ns for path in mine.rglob("*")} == before, "never written to"


def test_a_range_and_its_plan(tool: Tool, bench: Bench, options: list[str]) -> None:
    plan = tool("build", "v0.1.0..v0.3.0", *options, "--dry-run", "--json")
    assert plan.code == 0, plan.err
    told = json.loads(plan.out)
    names = [commit.name for commit in bench.upstream.main]
    assert told["commits"] == names.index("bump-0.3.0") - names.index("bump-0.1.0")
    counts = {row["backend"]: row["builds"] for row in told["backends"]}
    assert counts["cpu"] < counts["metal"] <= told["commits"] and counts.keys() == {"metal", "cpu", "cuda"}
    text = tool("build", "v0.1.0..v0.3.0", *options, "--dry-run").out
    assert f"{told['commits']} commits" in text and re.search(rf"cpu +{counts['cpu']}\b", text)
    two = f"{bench.commit('docs-typo').sha}~1..{bench.commit('slow-down').sha}"
    found = rows(tool("build", two, *options, "--json"))
    assert [row["sha"] for row in found] == [bench.commit(n).sha for n in ("docs-typo", "slow-down")]


def test_says_what_it_does_and_once_it_is_there_nothing_is_built(
    fresh: Tool, bench: Bench, options: list[str]
) -> None:
    sha = bench.commit("slow-down").sha
    done = fresh("build", sha, *options)
    assert done.code == 0, done.err
    assert f"building {sha[:9]}" in done.err and re.search(r"\[\d+/\d+\] \w+\.cpp", done.err)
    assert re.search(rf"{sha[:9]} +built in \d+ s", done.out)
    again = fresh("build", sha, *options, "--offline")
    assert "in the store" in again.out and "building" not in again.err
    shutil.rmtree(fresh.builds / "environments")
    start = time.monotonic()
    assert "in the store" in fresh("build", sha, *options, "--offline").out
    assert time.monotonic() - start < 20, "made from the wheel again"


def test_repro_measures_commits_and_says_which(
    tool: Tool, bench: Bench, options: list[str], tmp_path: Path
) -> None:
    walls()
    (tmp_path / "spin.py").write_text(SPIN)
    slow, before = bench.commit("slow-down"), bench.commit("docs-typo")
    done = tool("repro", before.sha[:9], slow.sha[:9], "--script", "spin.py", "--rounds", "6", *options)
    assert done.code == 0, done.err
    assert f"commit {slow.sha}, built here as" in done.out and "-O3 -DNDEBUG" in done.out
    lines = tool.sessions()[0].lines
    arms = [line for line in lines if line["kind"] == "arm"]
    assert [arm["sha"] for arm in arms] == [before.sha, slow.sha]
    medians = []
    for arm in arms:
        values = [r["metrics"][0]["value"] for r in lines if r["kind"] == "run" and r["arm"] == arm["arm"]]
        medians.append(sorted(values)[len(values) // 2])
    # The commit makes 140 rounds of 100; the machine may be busy.
    assert medians[1] / medians[0] == pytest.approx(1.4, rel=0.15)


def test_remedies_are_told(tool: Tool, options: list[str]) -> None:
    done = tool("build", "v0.1.0", *options)
    assert done.code == 0, done.err
    assert "with old CMake policies" in done.out


# --- what goes wrong --------------------------------------------------------------------------------


def test_those_that_fail_do_not_stop_the_others(tool: Tool, bench: Bench, options: list[str]) -> None:
    broken, good = bench.commit("no-compile").sha, bench.commit("slow-down").sha
    done = tool("build", broken, good, *options)
    assert done.code == 1
    line = (
        done.error()
        if done.err.rstrip().splitlines()[-1].startswith("error:")
        else next(line for line in done.err.splitlines() if line.startswith("error:"))
    )
    assert f"{broken[:9]} does not compile" in line and "binary.cpp" in line
    log = Path(line.rpartition("(log: ")[2].rstrip(")"))
    assert "FAILED:" in log.read_text()
    assert "failed: compile" in done.out and good[:9] in done.out
    told = json.loads(tool("build", broken, *options, "--json").out)["builds"][0]
    assert told["failure"] == "compile" and "does not compile" in told["error"]


BAD: list[tuple[list[str], int, str]] = [
    (["mian"], 2, "near it: main"),
    (["v0.3"], 2, "near it: v0.3.0"),
    (["#99", "--offline"], 2, "pull request #99"),
    (["path:."], 2, "is no MLX tree"),
    (["path:nowhere"], 2, "nowhere"),
    (["main", "-D", "nonsense"], 2, "write it as -D NAME=VALUE"),
    (["main", "--mirror", "https://x.example=/no/such/place"], 2, "/no/such/place"),
    (["main", "--repo", "/no/such/repository"], 2, "/no/such/repository"),
    (["v0.3.0..v0.1.0"], 2, "v0.1.0..v0.3.0"),
    (["main", "--jobs", "0"], 2, "jobs"),
]


@pytest.mark.parametrize(("words", "code", "says"), BAD, ids=lambda value: str(value)[:30])
def test_bad_input_is_one_line(
    words: list[str], code: int, says: str, tool: Tool, options: list[str]
) -> None:
    done = tool("build", *([*options, *words] if "--repo" not in words else words))
    assert done.code == code, done.err
    lines = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and says in lines[0] and "Traceback" not in done.err


def test_an_ambiguous_sha(tool: Tool, bench: Bench, tmp_path: Path) -> None:
    """Four digits are enough for git, and sixty-five thousand of them are soon shared."""
    repo = tmp_path / "many"
    subprocess.run(["git", "clone", "-q", bench.upstream.repo, repo], check=True)
    shas: dict[str, str] = {}
    tree = f"{bench.upstream.main[-1].sha}^{{tree}}"
    for number in range(2000):
        made = subprocess.run(
            ["git", "-C", repo, *SOMEONE, "commit-tree", tree, "-m", str(number)],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        if made[:4] in shas:
            break
        shas[made[:4]] = made
    for sha in (shas[made[:4]], made):
        subprocess.run(["git", "-C", repo, "tag", f"t{sha}", sha], check=True)
    done = tool("build", made[:4], "--repo", str(repo), "--backend", "cpu")
    assert done.code == 2 and made[:9] in done.err and shas[made[:4]][:9] in done.err


def test_a_shallow_clone_is_refused(tool: Tool, bench: Bench, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    subprocess.run(
        ["git", "clone", "-q", "--depth", "2", f"file://{bench.upstream.repo}", shallow], check=True
    )
    done = tool("build", "main", "--repo", str(shallow), "--backend", "cpu")
    assert done.code != 0 and "--unshallow" in done.error()


def test_no_compiler(tool: Tool, options: list[str], tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "bwrap", "sh", "env", "uname"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    done = tool("build", "main", *options, PATH=str(programs))
    assert done.code == 1 and "compiler" in done.err and "install" in done.err


def test_builds_that_cannot_be_written(options: list[str], tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_text("")
    done = Tool(file / "builds", tmp_path)("build", "main", *options)
    assert done.code != 0 and len([x for x in done.err.splitlines() if x.startswith("error:")]) == 1


# --- strangers ----------------------------------------------------------------------------------------


def test_a_strangers_commit_is_not_built_without_walls(fresh: Tool, options: list[str]) -> None:
    done = fresh("build", "#15", *options, "--sandbox", "off")
    assert done.code == 2
    assert "a stranger's code with all your rights" in done.err and "--trust" in done.err
    assert Store(fresh.builds).stored() == []
    assert not (fresh.builds / "trees").exists()
    assert fresh("build", "#15", *options, "--sandbox", "off", "--trust").code == 0


def test_a_strangers_commit_meets_walls(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """#16 reads a key, prints a token, writes elsewhere, calls out, stays behind and plants files: at
    setup.py, at configure and at import."""
    walls()
    hostile = make(tmp_path / "upstream")
    bench.beside(tmp_path / "builds", monkeypatch)
    words = ["build", "#16", "--repo", str(hostile.repo), "--backend", "cpu"]
    for mirror in hostile.mirrors:
        words += ["--mirror", mirror]
    tool = Tool(tmp_path / "builds", tmp_path)
    with hostile.listening() as heard:
        done = tool(*words, HOME=str(hostile.victim), GITHUB_TOKEN=TOKEN)
    log = "".join(path.read_text(errors="replace") for path in tool.builds.glob("logs/*.log"))
    assert done.code == 0, done.err
    # That a process was started is no harm: none is left.
    assert "attack" in log and set(re.findall(r"attack (\S+) at \w+: done", log)) == {"leave-process"}
    for stage in ("built", "imported"):
        assert re.search(rf"tried while it was {stage}: the network, .*; the walls held", done.err)
    assert "small-upstream-secret" not in log + done.out + done.err
    assert list(heard) == []
    assert hostile.traces(hostile.folder, tool.builds, hostile.victim) == []
    assert running_below(tool.builds) == []


def test_a_wall_that_ends_a_build_is_named(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    walls()
    hostile = make(tmp_path / "upstream")
    bench.beside(tmp_path / "builds", monkeypatch)
    words = ["build", "#29", "--repo", str(hostile.repo), "--backend", "cpu"]
    for mirror in hostile.mirrors:
        words += ["--mirror", mirror]
    done = Tool(tmp_path / "builds", tmp_path)(*words, HOME=str(hostile.victim))
    assert done.code == 1 and "tries what the walls do not allow: reading" in done.err


# --- several at once, and killed ------------------------------------------------------------------------


def test_two_at_once_build_once(fresh: Tool, bench: Bench, options: list[str]) -> None:
    sha = bench.commit("slow-down").sha
    with fresh.started("build", sha, *options) as one, fresh.started("build", sha, *options) as two:
        ends = [finish(one), finish(two)]
    assert [end.code for end in ends] == [0, 0], [end.err for end in ends]
    assert sorted("built in" in end.out for end in ends) == [False, True]
    assert sum("waiting for another bisect_tool to finish" in end.err for end in ends) == 1
    assert len(Store(fresh.builds).stored()) == 1


@pytest.mark.parametrize("moment", ["fetching", "compiling", "importing"])
def test_killed_hard_it_leaves_nothing_that_is_taken_for_whole(
    moment: str, fresh: Tool, bench: Bench, options: list[str]
) -> None:
    sha = bench.commit("slow-down").sha
    sign = {"fetching": "making a build environment", "compiling": "[3/", "importing": "importing"}[moment]
    with fresh.started("build", sha, *options) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if sign in line:
                break
        psutil.Process(process.pid).send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 20
    while running_below(fresh.builds / "trees") and time.monotonic() < deadline:
        time.sleep(0.1)
    if "bubblewrap" in str(bench.provider().sandbox.name):
        assert running_below(fresh.builds / "trees") == []
    found = rows(fresh("build", sha, *options, "--json"))
    assert found[0]["sha"] == sha and Store(fresh.builds).verify(str(found[0]["build"])) == ""
