"""`bisect_tool build` as a process, on the small upstream: what it prints, and what it says to bad input."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_tool import Ended, Tool
from fake_mlx import GOOD, make_wheel
from small_builds import Bench, walls

from bisect_tool.building.store import Store

builds = pytest.mark.builds
LATE = "slow-down"


@dataclass(frozen=True)
class Build:
    """Starts ``bisect_tool build`` with a configuration file that names the small upstream."""

    tool: Tool
    config: Path

    def __call__(self, *words: str, **env: str) -> Ended:
        return self.tool("build", *words, BISECT_TOOL_CONFIG=str(self.config), **env)


@pytest.fixture
def build(bench: Bench, tmp_path: Path) -> Build:
    config = tmp_path / "config.toml"
    pairs = (mirror.split("=", 1) for mirror in bench.upstream.mirrors)
    lines = [f'repo = "{bench.upstream.repo}"', 'backend = "cpu"', "[mirrors]"]
    config.write_text("\n".join([*lines, *(f'"{prefix}" = "{path}"' for prefix, path in pairs), ""]))
    return Build(Tool(bench.builds, tmp_path), config)


@pytest.fixture
def elsewhere(build: Build, tmp_path: Path) -> Build:
    """With a folder of builds of its own, empty."""
    return Build(Tool(tmp_path / "builds", tmp_path), build.config)


def row(ended: Ended, text: str) -> list[str]:
    """The cells of the table's row of a revision."""
    (line,) = [line for line in ended.out.splitlines() if line.startswith(text + " ")]
    return re.split(r"  +", line)


# ---- building ---------------------------------------------------------------------------------------------


@builds
def test_a_table_of_what_was_built(build: Build, bench: Bench) -> None:
    for name in ("bump-0.3.0", "bump-0.1.0"):
        bench.forget(bench.key(name))
    done = build("v0.3.0", "v0.1.0", "v0.3.0")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split() == ["revision", "commit", "state", "build", "environment"]
    key = bench.key("bump-0.3.0")
    cells = re.split(r"  +", lines[1])
    assert cells[:2] == ["v0.3.0", bench.commit("bump-0.3.0").sha[:9]]
    assert re.fullmatch(r"built in \d+ s", cells[2])
    assert cells[3] == key[:12] and Path(cells[4]).name == f"built-{key[:16]}"
    assert re.fullmatch(r"built in \d+ s with old CMake policies", re.split(r"  +", lines[2])[2])
    assert re.split(r"  +", lines[3])[2] == "in the store"
    # What one watches, line by line where there is no terminal.
    assert re.search(r"^looking up v0\.3\.0$", done.err, re.MULTILINE)
    assert re.search(r"^\[\d+/\d+\] \w+\.cpp(, \d+ s left)?$", done.err, re.MULTILINE)
    assert re.search(r"^importing v0\.1\.0 \(\w{9}\)$", done.err, re.MULTILINE)
    assert "old CMake policies: a CMakeLists.txt asks for a CMake older than 3.5" in done.err


@builds
def test_data(build: Build, bench: Bench) -> None:
    done = build("v0.3.0", "--json", "--quiet")
    assert (done.code, done.err) == (0, "")
    said = json.loads(done.out)
    (made,) = said["builds"]
    commit = bench.commit("bump-0.3.0")
    assert said["schema"] == 1
    assert (made["revision"], made["sha"], made["subject"]) == ("v0.3.0", commit.sha, commit.subject)
    assert (made["mlx"], made["build"]) == ("0.3.0", bench.key("bump-0.3.0"))
    assert made["wheel_bytes"] > 1000 and made["seconds"] > 0 and made["remedies"] == []
    core = "import mlx.core as c; print(c.cost())"
    ran = subprocess.run(
        [made["python"], "-c", core], capture_output=True, text=True, cwd=made["environment"]
    )
    assert ran.stdout == f"{commit.cost}\n"
    again = json.loads(build("v0.3.0", "--json", "-q", "--offline").out)["builds"][0]
    assert again == made | {"built": False}


@builds
def test_a_range_goes_on_after_one_that_fails(build: Build, bench: Bench) -> None:
    first, last = bench.commit("common-load"), bench.commit("no-link-mended")
    bench.forget(bench.key("no-link-mended"))
    names = ("no-link", "no-link-mended", "common-load")
    done = build(f"{bench.commit('metal-fences').sha[:10]}..{first.sha[:10]}")
    assert done.code == 1
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == [
        bench.commit(name).sha[:9] for name in names
    ]
    assert "failed: link" in row(done, bench.commit("no-link").sha[:9])[1:]
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(r"does not link: .*undefined.*missing_kernel.*\(log: \S+\)$", errors[0], re.IGNORECASE)
    assert "missing_kernel" in done.err.partition("error: ")[0], "its last lines stand above"
    log = Path(errors[0].rpartition("log: ")[2].rstrip(")"))
    assert log.is_file()
    data = json.loads(build(bench.commit("no-link").sha, last.sha, "--json", "-q").out)["builds"]
    assert [(each.get("failure"), "error" in each) for each in data] == [("link", True), (None, False)]


@builds
def test_a_tree_of_ones_own(build: Build, bench: Bench, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", str(bench.upstream.repo), str(tmp_path / "mlx")], check=True)
    quantized = tmp_path / "mlx" / "mlx" / "backend" / "cpu" / "quantized.cpp"
    quantized.write_text(re.sub(r"int rounds = \d+;", "int rounds = 11;", quantized.read_text()))
    done = build("path:mlx", "--json")
    assert done.code == 0, done.err
    assert "path:mlx" in json.loads(done.out)["builds"][0]["revision"]
    python = json.loads(done.out)["builds"][0]["python"]
    core = [python, "-c", "import mlx.core as c; print(c.cost())"]
    assert subprocess.run(core, capture_output=True, text=True, cwd="/").stdout == "11\n"
    assert "with changes in 1 file" in done.err


@builds
def test_a_release(build: Build, wheels: Path, tmp_path: Path) -> None:
    make_wheel(wheels, GOOD)
    done = build("9.9.9", BISECT_TOOL_BUILDS=str(tmp_path / "builds"))
    assert done.code == 0, done.err
    assert "released wheel" in row(done, "9.9.9")
    data = json.loads(build("9.9.9", "--json", "-q", BISECT_TOOL_BUILDS=str(tmp_path / "builds")).out)
    assert data["builds"][0]["sha"] is data["builds"][0]["build"] is None
    assert data["builds"][0]["mlx"] == "9.9.9"


@builds
def test_own_options(build: Build, bench: Bench) -> None:
    done = build(
        bench.commit(LATE).sha, "-D", "OWN=1", "-D", "CMAKE_SHARED_LINKER_FLAGS=-Wl,-x", "--json", "-q"
    )
    assert done.code == 0, done.err
    key = json.loads(done.out)["builds"][0]["build"]
    assert key != bench.key(LATE)
    options = Store(bench.builds).look(key).record["recipe"]["options"]
    assert (options["OWN"], options["CMAKE_SHARED_LINKER_FLAGS"]) == ("1", "-Wl,-x")


@builds
def test_a_stranger(build: Build, bench: Bench) -> None:
    """Within walls it is built; without them it takes a word."""
    refused = build("#15", "--sandbox", "off")
    assert refused.code == 2
    line = next(line for line in refused.err.splitlines() if line.startswith("error: "))
    assert "runs a stranger's code with all your rights: your files, keys and network" in line
    assert "--trust" in line
    trusted = build("#15", "--sandbox", "off", "--trust", "-q")
    assert trusted.code == 0, trusted.err
    walls()
    bench.forget(bench.key("pull-15"))
    within = build("#15", "--sandbox", "require", "-q")
    assert within.code == 0 and row(within, "#15")[2].startswith("built in ")


# ---- a plan -----------------------------------------------------------------------------------------------


def test_a_plan(build: Build, bench: Bench) -> None:
    before = sorted(path.name for path in (bench.builds / "environments").glob("*"))
    done = build("v0.2.0..v0.3.0", "v0.3.0", "0.32.4", "--dry-run")
    assert done.code == 0, done.err
    main = [commit.name for commit in bench.upstream.main]
    between = bench.upstream.main[main.index("bump-0.2.0") + 1 : main.index("bump-0.3.0") + 1]
    lines = done.out.splitlines()
    assert lines[0] == "0.32.4: released, nothing to build"
    assert lines[1].startswith(f"{len(between) + 1} commits; those that differ in nothing that a backend")
    told = {line.split()[0]: line.split()[1] for line in lines[3:]}
    cpu = {bench.key(commit.name) for commit in between}
    assert told["cpu"] == str(len(cpu)) and told.keys() == {"cpu", "metal", "cuda"}
    assert sorted(path.name for path in (bench.builds / "environments").glob("*")) == before


@builds
def test_a_plan_as_data(build: Build, bench: Bench) -> None:
    bench.provide(LATE)
    plan = json.loads(build(bench.commit(LATE).sha, "main~0", "--dry-run", "--json").out)
    assert (plan["schema"], plan["commits"], plan["releases"], plan["backend"]) == (1, 2, [], "cpu")
    rows = {each["backend"]: each for each in plan["backends"]}
    assert rows["cpu"]["builds"] == 2 and rows["cpu"]["in_store"] >= 1
    assert "in_store" not in rows["metal"]


def test_a_plan_starts_nothing(elsewhere: Build) -> None:
    done = elsewhere("main~3..main", "--dry-run")
    assert done.code == 0, done.err
    made = {path.name for path in elsewhere.tool.builds.iterdir()}
    assert made <= {"upstream", "locks"}


# ---- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["v0.3.00"], r"'v0\.3\.00' is not a commit, tag or branch of \S+; near it: v0\.3\.0"),
        (["mian"], r"'mian' is not a commit, .*near it: main"),
        (["#999", "--offline"], r"pull request #999 is not in \S+.*refs/pull/999/head"),
        (["path:."], r"'path:\.' is no MLX tree: .* has no setup\.py, no CMakeLists\.txt, no mlx; "),
        (["path:"], r"'path:' names no folder"),
        (["."], r"for that folder write path:\."),
        (["main..v0.1.0"], r"'main\.\.v0\.1\.0' is empty: .*write v0\.1\.0\.\.main"),
        (["main..nowhere"], r"'nowhere' is not a commit"),
        (["main", "-D", "nonsense"], r"-D 'nonsense' is no CMake cache entry; write it as -D NAME=VALUE"),
        (["main", "--mirror", "https://a=/no/where"], r"leads nowhere: there is no /no/where"),
        (["main", "--mirror", "x"], r"--mirror 'x' is not PREFIX=PATH"),
        (["main", "--repo", "/no/where"], r"there is no repository at '/no/where'"),
        (["main", "-j", "0"], r"Invalid value for '--jobs'"),
        (["main", "--build-timeout", "soon"], r"'soon' is no duration"),
        (["main", "--backend", "tpu"], r"Invalid value for '--backend'"),
        ([], r"Missing argument 'REVISION\|A\.\.B\.\.\.'"),
    ],
)
def test_bad_input(words: list[str], said: str, build: Build) -> None:
    done = build(*words, "--quiet")
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert re.search(said, line), line


def test_an_ambiguous_sha(build: Build, bench: Bench, tmp_path: Path) -> None:
    """Both are named."""
    head = bench.upstream.main[-1].sha
    clone = ["git", "--git-dir", str(tmp_path / "clone")]
    subprocess.run(["git", "clone", "-q", "--bare", str(bench.upstream.repo), clone[2]], check=True)
    show = subprocess.run([*clone, "cat-file", "commit", head], check=True, capture_output=True).stdout
    for number in range(10**7):
        twin = show + b"%d\n" % number
        sha = hashlib.sha1(b"commit %d\0" % len(twin) + twin).hexdigest()
        if sha[:4] == head[:4]:
            break
    subprocess.run([*clone, "hash-object", "-w", "-t", "commit", "--stdin"], input=twin, check=True)
    subprocess.run([*clone, "update-ref", "refs/heads/twin", sha], check=True)
    done = build(head[:4], "-q", "--repo", clone[2])
    assert done.code == 2
    line = next(line for line in done.err.splitlines() if line.startswith("error: "))
    assert head[:9] in line and sha[:9] in line
    assert build(head[:12], "-q", "--repo", clone[2], "--dry-run").code == 0


def test_a_shallow_clone(build: Build, bench: Bench, tmp_path: Path) -> None:
    address = f"file://{bench.upstream.repo}"
    subprocess.run(["git", "clone", "-q", "--depth", "2", address, str(tmp_path / "shallow")], check=True)
    done = build("main", "--repo", str(tmp_path / "shallow"), "-q")
    assert done.code != 0 and "git" in done.err and "fetch --unshallow" in done.err


def test_no_compiler(build: Build, bench: Bench, tmp_path: Path) -> None:
    """All that is on PATH but compilers."""
    for folder in ("/usr/local/bin", "/usr/bin", "/bin"):
        for path in Path(folder).iterdir() if Path(folder).is_dir() else ():
            place = tmp_path / "bin" / path.name
            place.parent.mkdir(exist_ok=True)
            if not re.search(r"\+\+|^(g?cc|clang)", path.name) and not place.exists():
                place.symlink_to(path)
    if sys.platform == "darwin":
        pytest.skip("xcrun finds one without PATH")
    done = build(bench.commit("ops-fuse").sha, "-q", PATH=str(tmp_path / "bin"), CXX="")
    assert done.code == 1
    line = next(line for line in done.err.splitlines() if line.startswith("error: "))
    assert re.match(
        r"error: a cpu build needs a compiler: no C\+\+ compiler found; get it with: .*g\+\+", line
    )


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that cannot be written."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting takes root on Linux")
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_file_system_that_cannot_be_written(build: Build, read_only: Path) -> None:
    done = build("main", "-q", BISECT_TOOL_BUILDS=str(read_only / "builds"))
    assert done.code == 1
    line = next(line for line in done.err.splitlines() if line.startswith("error: "))
    assert "Read-only file system" in line and "--builds DIR" in line


def test_a_full_disk(build: Build, small_disk: Path) -> None:
    done = build("main", "-q", BISECT_TOOL_BUILDS=str(small_disk / "builds"))
    assert done.code == 1
    assert re.match(r"no room to build main \(\w{9}\): .* GB free and a build takes up to", done.error()[7:])
    assert done.out == ""


def test_offline_without_what_it_takes(elsewhere: Build, tmp_path: Path) -> None:
    done = elsewhere("main", "-q", "--offline", UV_CACHE_DIR=str(tmp_path / "empty"))
    assert done.code == 1
    line = next(line for line in done.err.splitlines() if line.startswith("error: "))
    assert "the build environment of main" in line and "could not be made" in line


def test_walls_that_are_required(build: Build, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("git", "c++", "env", "sh", "uname"):
        if found := shutil.which(name):
            (tmp_path / "bin" / name).symlink_to(found)
    if sys.platform != "linux":
        pytest.skip("sandbox-exec is not looked for on PATH")
    done = build("main", "-q", "--sandbox", "require", PATH=str(tmp_path / "bin"))
    assert done.code == 1
    assert "there are no walls for programs on this machine: bubblewrap not found" in done.error()
