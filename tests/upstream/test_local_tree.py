"""``path:DIR``: what is on disk becomes a commit, and nothing there is touched or run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from theirs import FIRST, Repository, copied, environment

from bisect_tool.errors import UsageProblem
from bisect_tool.upstream import local_tree
from bisect_tool.upstream.clone import Upstream
from bisect_tool.upstream.revision import Revision
from bisect_tool.upstream.values import Resolved


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    return copied(tmp_path, monkeypatch)


@pytest.fixture
def upstream(theirs: Repository, tmp_path: Path) -> Iterator[Upstream]:
    with Upstream.open(tmp_path / "builds", f"file://{theirs.path}") as opened:
        yield opened


def taken(upstream: Upstream, folder: Path) -> Resolved:
    return upstream.resolve(Revision.parse(f"path:{folder}"))


def files(upstream: Upstream, sha: str) -> dict[str, tuple[str, bytes]]:
    """Mode and content of every file of a commit."""
    found = {}
    for line in upstream.git.says("ls-tree", "-r", "-z", sha).split("\0")[:-1]:
        facts, _, name = line.partition("\t")
        content = upstream.objects.data(facts.split()[2])
        assert content is not None
        found[name] = (facts.split()[0], content[1])
    return found


def test_all_that_is_not_committed(theirs: Repository, upstream: Upstream) -> None:
    theirs.put("mlx/ops.cpp", "changed\n")
    theirs.put("mlx/staged.cpp", "staged, then ")
    theirs.git("add", "mlx/staged.cpp")
    theirs.put("mlx/staged.cpp", "changed again\n")
    theirs.put("mlx/new.cpp", "untracked\n").chmod(0o755)
    theirs.put("ignored/forced.cpp", "tracked although ignored\n")
    theirs.git("add", "-f", "ignored/forced.cpp")
    theirs.put("ignored/x.cpp", "ignored\n")
    theirs.put("mlx/x.o", "ignored\n")
    theirs.put(".git/info/exclude", "private/\n")
    theirs.put("private/notes", "ignored here only\n")
    (theirs.path / "docs/index.rst").unlink()
    (theirs.path / "setup.py").chmod(0o755)
    (theirs.path / "mlx/link").symlink_to("/etc/passwd")
    (theirs.path / "mlx/folder link").symlink_to("backend")
    os.mkfifo(theirs.path / "mlx/pipe")
    before = theirs.git("rev-parse", "HEAD")
    resolved = taken(upstream, theirs.path)
    assert resolved.note == f"{theirs.path} at {before[:9]} with changes in 8 files"
    assert resolved.trusted
    assert resolved.commit.parents == (before,)
    expected = files(upstream, before)
    del expected["docs/index.rst"]
    expected["setup.py"] = ("100755", expected["setup.py"][1])
    expected["mlx/ops.cpp"] = ("100644", b"changed\n")
    expected["mlx/staged.cpp"] = ("100644", b"changed again\n")
    expected["mlx/new.cpp"] = ("100755", b"untracked\n")
    expected["ignored/forced.cpp"] = ("100644", b"tracked although ignored\n")
    expected["mlx/link"] = ("120000", b"/etc/passwd")
    expected["mlx/folder link"] = ("120000", b"backend")
    assert files(upstream, resolved.commit.sha) == expected
    assert upstream.git.tries("fsck", "--no-dangling", "--strict", resolved.commit.sha).ok
    assert theirs.git("rev-parse", "HEAD") == before


def test_the_same_content_is_the_same_commit(theirs: Repository, upstream: Upstream, tmp_path: Path) -> None:
    theirs.put("mlx/ops.cpp", "changed\n")
    first = taken(upstream, theirs.path).commit
    assert taken(upstream, theirs.path).commit == first
    other = tmp_path / "elsewhere"
    shutil.copytree(theirs.path, other)
    theirs.put("mlx/ops.cpp", "changed more\n")
    second = taken(upstream, theirs.path).commit
    assert second.tree != first.tree
    with Upstream.open(tmp_path / "other builds", str(other)) as again:
        assert taken(again, other).commit == first
    theirs.put("mlx/ops.cpp", "changed\n")
    assert taken(upstream, theirs.path).commit == first


def test_what_is_unchanged_is_its_commit(theirs: Repository, upstream: Upstream) -> None:
    resolved = taken(upstream, theirs.path)
    assert resolved.commit.sha == theirs.shas["tip"]
    assert resolved.note == f"{theirs.path} at {theirs.shas['tip'][:9]}, unchanged"


def test_a_commit_that_the_clone_does_not_have(
    theirs: Repository, upstream: Upstream, tmp_path: Path
) -> None:
    mine = theirs.commit("Mine", {"mlx/ops.cpp": "mine\n"})
    theirs.put("mlx/new.cpp", "new\n")
    resolved = taken(upstream, theirs.path)
    assert resolved.note == f"{theirs.path} at {mine[:9]} with changes in 1 file"
    assert resolved.commit.parents == ()
    shutil.rmtree(theirs.path)  # it stands alone
    assert files(upstream, resolved.commit.sha)["mlx/ops.cpp"] == ("100644", b"mine\n")
    with Upstream.open(tmp_path / "builds", f"file://{theirs.path}", offline=True) as again:
        assert again.commit(resolved.commit.sha).tree == resolved.commit.tree


def test_a_folder_without_git(upstream: Upstream, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    for name, text in {**FIRST, "mlx/x.o": "ignored"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    resolved = taken(upstream, folder)
    assert resolved.note == f"{folder}, which is in no repository"
    assert {name: text.decode() for name, (_, text) in files(upstream, resolved.commit.sha).items()} == FIRST
    assert resolved.commit.tree == upstream.commit("v0.1.0").tree


def test_a_folder_within_a_repository(upstream: Upstream, tmp_path: Path) -> None:
    outer = Repository(tmp_path / "outer")
    outer.path.mkdir()
    outer.git("init", "-q", "-b", "main")
    outer.commit("All", {f"third party/mlx/{name}": text for name, text in FIRST.items()} | {"other": "x"})
    folder = outer.path / "third party" / "mlx"
    resolved = taken(upstream, folder)
    assert resolved.commit.tree == upstream.commit("v0.1.0").tree
    assert resolved.note.endswith("with changes in 0 files")
    (folder / "mlx/ops.cpp").write_text("changed\n")
    assert taken(upstream, folder).note.endswith("with changes in 1 file")


def test_names_of_all_kinds(theirs: Repository, upstream: Upstream) -> None:
    names = [
        "mlx/with space",
        "mlx/line\nend",
        'mlx/"quoted"',
        "mlx/tab\t",
        "mlx/ü",
        os.fsdecode(b"mlx/\xff"),
        "mlx/-x",
    ]
    # A folder sorts as if its name ended in a slash.
    names += ["mlx/a/x", "mlx/a.b", "mlx/a-b", "mlx/a0"]
    for name in names:
        theirs.put(name, name.encode("utf-8", "surrogateescape").decode("latin-1"))
    found = files(upstream, taken(upstream, theirs.path).commit.sha)
    assert set(names) <= set(found)
    theirs.git("add", "-A")
    assert taken(upstream, theirs.path).commit.tree == theirs.git("write-tree")


def test_git_says_the_same(theirs: Repository, upstream: Upstream) -> None:
    theirs.put("mlx/deep/er/and/deeper/x.cpp", "x")
    theirs.put("mlx/exec", "x").chmod(0o755)
    (theirs.path / "mlx/link").symlink_to("x")
    theirs.git("rm", "-q", "README.md")
    ours = taken(upstream, theirs.path).commit.tree
    theirs.git("add", "-A")
    assert ours == theirs.git("write-tree")


def test_links_lead_nowhere(theirs: Repository, upstream: Upstream, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "quantized.cpp").write_text("secret\n")
    shutil.rmtree(theirs.path / "mlx/backend/cpu")
    (theirs.path / "mlx/backend/cpu").symlink_to(secret)
    found = files(upstream, taken(upstream, theirs.path).commit.sha)
    assert found["mlx/backend/cpu"] == ("120000", str(secret).encode())
    assert "mlx/backend/cpu/quantized.cpp" not in found


def test_a_repository_within_and_a_submodule(theirs: Repository, upstream: Upstream) -> None:
    inner = Repository(theirs.path / "build" / "_deps" / "fmt")
    inner.path.mkdir(parents=True)
    inner.git("init", "-q")
    inner.commit("Inner", {"a": "b"})
    theirs.git("update-index", "--add", "--cacheinfo", f"160000,{theirs.shas['tip']},sub")
    found = upstream.git.says("ls-tree", "-r", taken(upstream, theirs.path).commit.sha)
    assert f"160000 commit {theirs.shas['tip']}\tsub" in found
    assert "_deps" not in found


def test_a_conflict_is_taken_as_it_is_on_disk(theirs: Repository, upstream: Upstream) -> None:
    theirs.git("checkout", "-q", "-b", "mine", "v0.1.0")
    theirs.commit("Mine", {"mlx/ops.cpp": "mine\n"})
    done = subprocess.run(
        ["git", "merge", "-q", "main"], cwd=theirs.path, env=environment(), capture_output=True, check=False
    )
    assert done.returncode == 1
    content = (theirs.path / "mlx/ops.cpp").read_bytes()
    assert b"<<<<<<<" in content
    found = files(upstream, taken(upstream, theirs.path).commit.sha)
    assert found["mlx/ops.cpp"] == ("100644", content)


def test_files_that_git_is_told_not_to_look_at(theirs: Repository, upstream: Upstream) -> None:
    theirs.git("update-index", "--assume-unchanged", "mlx/ops.cpp")
    theirs.put("mlx/ops.cpp", "changed\n")
    found = files(upstream, taken(upstream, theirs.path).commit.sha)
    assert found["mlx/ops.cpp"] == ("100644", b"changed\n")


def test_a_sparse_checkout(theirs: Repository, upstream: Upstream) -> None:
    theirs.git("update-index", "--refresh")  # it is a copy
    theirs.git("sparse-checkout", "set", "mlx", "python")
    assert not (theirs.path / "docs").exists()
    assert taken(upstream, theirs.path).commit.sha == theirs.shas["tip"]
    theirs.git("sparse-checkout", "disable")
    theirs.commit("Mine", {"docs/index.rst": "mine\n"})
    theirs.git("sparse-checkout", "set", "mlx", "python")
    with pytest.raises(UsageProblem, match=r"is a sparse checkout: docs/index\.rst is not there"):
        taken(upstream, theirs.path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        ("missing", "does not exist"),
        ("file", "is no folder"),
        ("empty", "has no setup.py, no CMakeLists.txt, no mlx; name the folder"),
        ("below", "is no MLX tree"),
        ("other", "has no CMakeLists.txt, no mlx"),
    ],
)
def test_what_is_no_mlx_tree(
    upstream: Upstream, theirs: Repository, tmp_path: Path, make: str, says: str
) -> None:
    folder = tmp_path / "other"
    if make == "below":
        folder = theirs.path / "mlx"
    elif make == "file":
        folder.touch()
    elif make != "missing":
        folder.mkdir()
        if make == "other":
            (folder / "setup.py").touch()
    with pytest.raises(UsageProblem) as caught:
        taken(upstream, folder)
    assert says in caught.value.line()


def test_what_is_too_large_to_be_source(
    theirs: Repository, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_tree, "LARGEST_UNTRACKED_MIB", 1)
    theirs.put("mlx/weights", "x" * (2**20 + 1))
    with pytest.raises(UsageProblem, match="holds mlx/weights, which is untracked and has 1 MiB; move it"):
        taken(upstream, theirs.path)
    theirs.git("add", "mlx/weights")
    assert "mlx/weights" in files(upstream, taken(upstream, theirs.path).commit.sha)


def test_a_branch_without_commits(theirs: Repository, upstream: Upstream) -> None:
    theirs.git("checkout", "-q", "--orphan", "new")
    resolved = taken(upstream, theirs.path)
    assert resolved.commit.tree == theirs.git("rev-parse", "main^{tree}")
    assert resolved.commit.parents == ()


def test_a_path_relative_to_here_and_to_home(
    theirs: Repository, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(theirs.path / "mlx")
    resolved = upstream.resolve(Revision.parse("path:.."))
    assert (resolved.commit.sha, resolved.note[:5]) == (theirs.shas["tip"], ".. at")
    assert upstream.resolve(Revision.parse("path:~/mlx")).commit.sha == theirs.shas["tip"]
