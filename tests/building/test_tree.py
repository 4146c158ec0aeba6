"""A tree that is moved from commit to commit holds each one's files, and touches only what differs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from small_upstream import SmallUpstream

from bisect_tool.building.tree import Tree
from bisect_tool.errors import DiskFull, MachineTrouble


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "trees" / "cpu")


def move(tree: Tree, upstream: SmallUpstream, name: str) -> None:
    tree.begin(upstream.repo, upstream.by_name[name].sha)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def of_commit(upstream: SmallUpstream, name: str, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    command = ["git", "--git-dir", str(upstream.repo), "archive", upstream.by_name[name].sha]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return files(folder)


def changed(tree: Tree) -> dict[str, int]:
    """When each file was last written."""
    return {name: (tree.source / name).stat().st_mtime_ns for name in files(tree.source)}


def test_the_files_of_each_commit(tree: Tree, small_upstream: SmallUpstream, tmp_path: Path) -> None:
    for at, name in enumerate(("ops-speed", "first", "no-link", "pull-15", "first")):
        move(tree, small_upstream, name)
        expected = of_commit(small_upstream, name, tmp_path / str(at))
        assert files(tree.source) == expected, name
        tree.finish()


def test_only_what_differs_is_touched(tree: Tree, small_upstream: SmallUpstream) -> None:
    commits = small_upstream.by_name
    assert commits["slow-down"].parents == (commits["docs-typo"].sha,)
    for name, expected in (
        ("docs-typo", None),
        ("docs-typo", ()),
        ("slow-down", commits["slow-down"].paths),
        ("docs-typo", commits["slow-down"].paths),
        ("quantized-tidy", commits["docs-typo"].paths),
    ):
        before = changed(tree)
        move(tree, small_upstream, name)
        tree.finish()
        if expected is not None:
            after = changed(tree)
            assert {path for path in after if after[path] != before.get(path)} == set(expected), name


def test_what_a_build_did_to_the_files_is_undone(tree: Tree, small_upstream: SmallUpstream) -> None:
    move(tree, small_upstream, "slow-down")
    tree.finish()
    before = files(tree.source)
    (tree.source / "setup.py").write_text("changed")
    (tree.source / "README.md").unlink()
    (tree.source / "mlx" / "generated.h").write_text("new")
    (tree.source / "mlx.egg-info").mkdir()
    (tree.source / "mlx.egg-info" / "PKG-INFO").write_text("new")
    (tree.source / ".gitignore").write_text("*.o\n")
    (tree.source / "ignored.o").write_text("new")
    move(tree, small_upstream, "slow-down")
    assert files(tree.source) == before


def test_what_was_compiled_is_kept_and_what_was_packed_is_not(
    tree: Tree, small_upstream: SmallUpstream
) -> None:
    move(tree, small_upstream, "slow-down")
    kept = tree.build / "temp.linux" / "mlx.core" / "ops.o"
    stale = [
        tree.build / "lib.linux" / "mlx" / "old.py",
        tree.build / "bdist.linux" / "x",
        tree.out / "x.whl",
    ]
    for path in (kept, *stale):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    tree.finish()
    assert tree.kept
    move(tree, small_upstream, "python-utils")
    assert kept.exists()
    assert not any(path.exists() for path in stale)
    assert tree.out.is_dir()


def test_what_was_left_unfinished_is_made_anew(tree: Tree, small_upstream: SmallUpstream) -> None:
    move(tree, small_upstream, "slow-down")
    (tree.build / "half.o").touch()
    assert not tree.kept
    move(tree, small_upstream, "slow-down")
    assert list(tree.build.iterdir()) == []
    assert [path.name for path in tree.root.parent.iterdir()] == ["cpu"]


def test_thrown_away(tree: Tree, small_upstream: SmallUpstream) -> None:
    tree.discard()
    move(tree, small_upstream, "slow-down")
    tree.discard()
    assert list(tree.root.parent.iterdir()) == []
    assert not tree.kept


def test_links_that_a_build_left_lead_nowhere(
    tree: Tree, small_upstream: SmallUpstream, tmp_path: Path
) -> None:
    """A folder of the source that is now a link: nothing is written or removed behind it."""
    move(tree, small_upstream, "slow-down")
    tree.finish()
    before = files(tree.source)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "ops.cpp").write_text("of the user")
    (tree.source / "mlx").rename(tmp_path / "away")
    (tree.source / "mlx").symlink_to(victim)
    (tree.source / "setup.py").unlink()
    (tree.source / "setup.py").symlink_to(victim / "ops.cpp")
    move(tree, small_upstream, "slow-down")
    assert files(victim) == {"ops.cpp": b"of the user"}
    assert files(tree.source) == before
    assert not (tree.source / "mlx").is_symlink() and not (tree.source / "setup.py").is_symlink()


def test_git_of_a_stranger_is_not_asked(
    tree: Tree, small_upstream: SmallUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a repository that a build leaves in the source, nor the user's own settings."""
    evil = tmp_path / "evil"
    config = tmp_path / "config"
    config.write_text(f'[core]\n\tfsmonitor = "touch {evil}"\n[filter "x"]\n\tsmudge = "touch {evil}"\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    move(tree, small_upstream, "slow-down")
    before = files(tree.source)
    subprocess.run(["git", "init", "--quiet", str(tree.source)], check=True, env={"PATH": os.environ["PATH"]})
    (tree.source / ".git" / "config").write_text(config.read_text() + "[core]\n\tworktree = /\n")
    (tree.source / ".gitattributes").write_text("* filter=x\n")
    tree.finish()
    move(tree, small_upstream, "python-utils")
    move(tree, small_upstream, "slow-down")
    assert not evil.exists()
    assert files(tree.source) == before


def test_a_full_disk(small_disk: Path, small_upstream: SmallUpstream) -> None:
    tree = Tree(small_disk / "trees" / "cpu")
    with (small_disk / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, os.statvfs(small_disk).f_bavail * 4096 - 40_000)
    with pytest.raises(DiskFull) as caught:
        move(tree, small_upstream, "slow-down")
    assert "unable to write" in caught.value.line() and "--builds DIR" in caught.value.line()
    tree.discard()
    assert list(tree.root.parent.iterdir()) == []


def test_a_commit_that_is_not_there(tree: Tree, small_upstream: SmallUpstream) -> None:
    with pytest.raises(MachineTrouble, match="the files of a commit could not be written"):
        tree.begin(small_upstream.repo, "1" * 40)
