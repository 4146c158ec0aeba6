"""The small upstream is what it claims to be, or the tests that use it prove nothing."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import small_upstream as small
from small_upstream import Commit, SmallUpstream

CORE = "import mlx.core as c; print(c.__version__, c.cost(), c.marker(), c.describe(), c.spin(10), sep='|')"


def git(repo: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "--git-dir", str(repo), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def unpack(repo: Path, ref: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "--git-dir", str(repo), "archive", ref], check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder


def attack_in(upstream: SmallUpstream, name: str, folder: Path, before: str = "") -> tuple[str, Path]:
    """What one hostile commit says when nothing stops it, and the tree that it ran in."""
    tree = folder / "trees" / "work"
    tree.mkdir(parents=True)
    for other in ("wheels", "environments"):
        (folder / other).mkdir()
    source = git(upstream.repo, "show", f"{upstream.by_name[name].sha}:python/mlx/_attack.py")
    (tree / "attack.py").write_text(before + source)
    done = subprocess.run(
        [sys.executable, "attack.py", "cmake"],
        cwd=tree,
        env={
            "HOME": str(upstream.victim),
            "GITHUB_TOKEN": small.TOKEN,
            "CCACHE_DIR": str(folder / "ccache"),
            "PATH": os.environ["PATH"],
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stderr, tree


def test_history(small_upstream: SmallUpstream) -> None:
    upstream = small_upstream
    main = upstream.main
    first_parent = git(upstream.repo, "rev-list", "--first-parent", "--reverse", "main").split()
    assert [commit.sha for commit in main] == first_parent
    assert len(main) >= 40
    assert git(upstream.repo, "fsck", "--strict") == ""
    assert git(upstream.repo, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(upstream.repo, "branch", "--format=%(refname:short)").split() == ["main", "next"]
    tags = {commit.tag: commit.sha for commit in main if commit.tag}
    assert list(tags) == ["v0.1.0", "v0.2.0", "v0.2.1", "v0.3.0"]
    for tag, sha in tags.items():
        assert git(upstream.repo, "rev-parse", f"{tag}^{{commit}}") == sha
        assert upstream.by_name[f"bump-{tag[1:]}"].version == tag[1:]


def test_every_record_is_what_git_says(small_upstream: SmallUpstream) -> None:
    assert len(small_upstream.by_name) == len(small_upstream.commits)
    for commit in small_upstream.commits:
        parents, _, subject = git(
            small_upstream.repo, "show", "--no-patch", "--format=%P|%s", commit.sha
        ).partition("|")
        assert tuple(parents.split()) == commit.parents
        assert subject == commit.subject
        if commit.parents:
            changed = git(small_upstream.repo, "diff", "--name-only", commit.parents[0], commit.sha)
            assert tuple(sorted(changed.splitlines())) == commit.paths
        if commit.ref:
            reached = git(small_upstream.repo, "rev-list", commit.ref).split()
            assert commit.sha in reached


def test_what_must_not_reach_a_build_is_outside_of_it(small_upstream: SmallUpstream) -> None:
    outside = ("docs/", "tests/", "python/tests/", ".github/", "benchmarks/", "examples/", ".clang", "README")
    for commit in small_upstream.commits:
        assert (not commit.reaches) == all(path.startswith(outside) for path in commit.paths), commit.name


def test_pull_requests(small_upstream: SmallUpstream) -> None:
    by_name, repo = small_upstream.by_name, small_upstream.repo
    squashed, head = by_name["ops-fuse"], by_name["pull-12"]
    assert squashed.subject.endswith("(#12)")
    assert git(repo, "rev-parse", "refs/pull/12/head") == head.sha
    for path in squashed.paths:
        assert git(repo, "rev-parse", f"{head.sha}:{path}") == git(
            repo, "rev-parse", f"{squashed.sha}:{path}"
        )
    on_main = {commit.sha for commit in small_upstream.main}
    assert git(repo, "merge-base", "main", head.sha) == by_name["tests-ops"].sha
    assert git(repo, "merge-base", "main", "refs/pull/15/head") == by_name["array-dtype"].sha
    for number in (12, 15, 16, 17, 18, *small.ATTACKS, 29):
        assert git(repo, "rev-parse", f"refs/pull/{number}/head") not in on_main


def test_shas_are_the_same_in_another_folder(small_upstream: SmallUpstream, tmp_path: Path) -> None:
    other = small.make(tmp_path / "other")
    for one, two in zip(small_upstream.commits, other.commits, strict=True):
        assert one.name == two.name
        # Only the hostile ones say whom they attack.
        assert (one.sha == two.sha) == (not one.attacks)


def test_a_revert_is_the_tree_before(small_upstream: SmallUpstream) -> None:
    trees = [
        git(small_upstream.repo, "rev-parse", f"{small_upstream.by_name[name].sha}^{{tree}}")
        for name in ("metal-header", "no-configure", "no-configure-mended")
    ]
    assert trees[0] == trees[2] != trees[1]


def test_costs_and_markers(small_upstream: SmallUpstream) -> None:
    costs = {commit.name: commit.cost for commit in small_upstream.main}
    assert costs["quantized-tidy"] == 100
    assert costs["slow-down"] == costs["common-load"] == 140
    assert costs["slow-down-fix"] == costs["ops-speed"] == 100
    by_name = small_upstream.by_name
    assert by_name["first"].marker == by_name["docs-install"].marker
    assert by_name["binary"].marker == by_name["first"].marker.replace("binary.cpp=1", "binary.cpp=2")
    assert by_name["array-strides"].marker != by_name["metal-kernel"].marker


def test_python_of_every_commit_parses(small_upstream: SmallUpstream) -> None:
    checked = set()
    for commit in small_upstream.commits:
        listing = git(small_upstream.repo, "ls-tree", "-r", commit.sha)
        for line in listing.splitlines():
            blob, path = line.split()[2:]
            if path.endswith(".py") and blob not in checked:
                ast.parse(git(small_upstream.repo, "cat-file", "blob", blob))
                checked.add(blob)
    assert len(checked) > 10


def test_sources(small_upstream: SmallUpstream) -> None:
    folder = small_upstream.folder
    mirrors = dict(mirror.split("=", 1) for mirror in small_upstream.mirrors)
    assert mirrors["https://small.example/fmt.git"] == str(folder / "fmt")
    for path in mirrors.values():
        assert git(Path(path), "fsck") == ""
    link = git(folder / "fmt", "rev-parse", "1.0.0:extra")
    assert link == git(folder / "extra", "rev-parse", "main")
    assert mirrors[git(folder / "fmt", "config", "--blob", "1.0.0:.gitmodules", "submodule.extra.url")]
    assert "VERSION 3.1)" in git(folder / "fmt", "show", "0.9.0:CMakeLists.txt")
    lists = git(small_upstream.repo, "show", "main:CMakeLists.txt")
    sha = lists.partition("fmt.git")[2].split()[1]
    assert git(folder / "fmt", "cat-file", "-t", sha) == "commit"
    assert sha not in git(folder / "fmt", "show-ref")
    assert git(folder / "json", "rev-parse", "v3.11.3") == git(folder / "json", "rev-parse", "main")


def test_a_build_by_hand(small_upstream: SmallUpstream, tmp_path: Path) -> None:
    """CMake alone, as setup.py drives it: the module is what the record says."""
    if not shutil.which("cmake"):
        pytest.skip("there is no cmake")
    commit = small_upstream.by_name["slow-down"]
    assert commit.stands_alone and not commit.early
    core = build(small_upstream, commit, tmp_path)
    # Nothing is loaded from the build folder.
    (tmp_path / "build").rename(tmp_path / "moved")
    assert core == load(tmp_path)
    version, cost, marker, described, _ = core.split("|")
    assert (version, int(cost), marker) == ("9.8.7", commit.cost, commit.marker)
    assert described == f'{{"metal": 0, "cost": {cost}}}'


def test_early_builds_hang_on_their_folder(small_upstream: SmallUpstream, tmp_path: Path) -> None:
    if not shutil.which("cmake"):
        pytest.skip("there is no cmake")
    commit = small_upstream.by_name["fmt-1"]
    assert commit.early and not commit.stands_alone
    assert build(small_upstream, commit, tmp_path).split("|")[2] == commit.marker
    (tmp_path / "build").rename(tmp_path / "moved")
    failed = subprocess.run([sys.executable, "-c", CORE], cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode != 0
    assert "libmlx" in failed.stderr


def build(upstream: SmallUpstream, commit: Commit, folder: Path) -> str:
    tree = unpack(upstream.repo, commit.sha, folder / "tree")
    fmt = unpack(upstream.folder / "fmt", "1.0.0", folder / "fmt")
    (fmt / "extra").rmdir()
    unpack(upstream.folder / "extra", "main", fmt / "extra")
    json = unpack(upstream.folder / "json", "v3.11.3", folder / "json")
    arguments = [
        f"-DCMAKE_INSTALL_PREFIX={folder}/mlx",
        f"-DMLX_PYTHON_BINDINGS_OUTPUT_DIRECTORY={folder}/mlx",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-DFETCHCONTENT_SOURCE_DIR_FMT={fmt}",
        f"-DFETCHCONTENT_SOURCE_DIR_JSON={json}",
        *("-DFETCHCONTENT_FULLY_DISCONNECTED=ON", "-DMLX_VERSION=9.8.7", "-DMLX_USE_CCACHE=OFF"),
        *("-DMLX_BUILD_PYTHON_BINDINGS=ON", "-DMLX_BUILD_TESTS=OFF", "-DMLX_BUILD_EXAMPLES=OFF"),
        *("-DBUILD_SHARED_LIBS=ON", "-DMLX_BUILD_METAL=OFF", "-DCMAKE_BUILD_TYPE=Release"),
    ]
    output = folder / "build"
    for command in (
        ["cmake", "-S", str(tree), "-B", str(output), *arguments],
        ["cmake", "--build", str(output), "--target", "install", "-j2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return load(folder)


def load(folder: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", CORE], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


# ---- hostile commits do what they are for where nothing stops them --------------------------------------


@pytest.fixture
def attacked(tmp_path: Path) -> SmallUpstream:
    return small.make(tmp_path / "upstream")


def test_hostile_reads(attacked: SmallUpstream, tmp_path: Path) -> None:
    assert small.SECRET in attack_in(attacked, "pull-20", tmp_path / "20")[0]
    assert small.TOKEN in attack_in(attacked, "pull-21", tmp_path / "21")[0]


def test_hostile_writes(attacked: SmallUpstream, tmp_path: Path) -> None:
    assert attacked.traces() == []
    attack_in(attacked, "pull-22", tmp_path / "22")
    assert {path.parent for path in attacked.traces()} == {attacked.victim, attacked.victim.parent}


def test_hostile_calls_home(attacked: SmallUpstream, tmp_path: Path) -> None:
    with attacked.listening() as heard:
        said, _ = attack_in(attacked, "pull-23", tmp_path / "23")
        deadline = time.monotonic() + 10
        while not heard and time.monotonic() < deadline:
            time.sleep(0.01)
    assert heard == [f"{small.WAS_HERE} cmake\n"], said
    said, _ = attack_in(attacked, "pull-23", tmp_path / "unheard")
    assert "open-socket at cmake: stopped: ConnectionRefusedError" in said


def test_hostile_leaves_a_process_behind(attacked: SmallUpstream, tmp_path: Path) -> None:
    _, tree = attack_in(attacked, "pull-24", tmp_path / "24")
    left = [
        process for process in psutil.process_iter(["cmdline"]) if str(tree) in str(process.info["cmdline"])
    ]
    try:
        assert [process.info["cmdline"][0] for process in left] == [small.LEFTOVER]
        assert {path.parent for path in attacked.traces(tree)} == {attacked.victim, tree}
        assert os.getpgid(left[0].pid) not in (0, os.getpgrp())
    finally:
        for process in left:
            process.kill()


def test_hostile_plants_beside_its_tree(attacked: SmallUpstream, tmp_path: Path) -> None:
    # It plants in the environment of its Python, too: not in the one of these tests.
    prefix = tmp_path / "prefix"
    packages = prefix / "lib" / "python3" / "site-packages"
    packages.mkdir(parents=True)
    attack_in(attacked, "pull-25", tmp_path / "25", f"import sys\nsys.prefix = {str(prefix)!r}\n")
    planted = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob(f"{small.WAS_HERE}*")}
    inside = {"25", "25/ccache", "25/wheels", "25/environments", "25/trees", "25/trees/work"}
    assert planted == {*inside, packages.relative_to(tmp_path).as_posix()}


def test_hostile_floods(attacked: SmallUpstream, tmp_path: Path) -> None:
    source = git(attacked.repo, "show", f"{attacked.by_name['pull-28'].sha}:python/mlx/_attack.py")
    (tmp_path / "attack.py").write_text(source)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "attack.py"), "import"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        printed = 0
        while part := process.stdout.read(1 << 20):
            printed += len(part)
    assert printed > 100_000_000
