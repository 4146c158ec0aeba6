"""A pull request on another revision: merged in the clone, or said plainly why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from theirs import Repository, copied

from bisect_tool.errors import MergeConflict, UsageProblem
from bisect_tool.upstream import merging
from bisect_tool.upstream.clone import Upstream
from bisect_tool.upstream.revision import Revision


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    return copied(tmp_path, monkeypatch)


def test_merged_onto_main(theirs: Repository, tmp_path: Path) -> None:
    shas = set()
    for folder in ("one", "two"):
        with Upstream.open(tmp_path / folder, str(theirs.path)) as upstream:
            found = merging.resolve(upstream, Revision.parse("#7"), "main")
            commit = found.commit
            assert commit.parents == (theirs.shas["tip"], theirs.shas["#7"])
            assert upstream.read(commit.sha, "mlx/ops.cpp") == b"int ops() { return 4; }\n"
            assert upstream.read(commit.sha, "mlx/backend/cuda/cuda.h") == b"cuda 2\n"
            assert not found.trusted, "what is merged is a stranger's still"
            assert "#7 (" in found.note and "merged onto main" in found.note
            shas.add(commit.sha)
    assert len(shas) == 1, "the same two make the same commit, whenever and wherever"
    listed = theirs.git("cat-file", "--batch-all-objects", "--batch-check")
    assert shas.isdisjoint(listed.split()), "their repository is not written to"


def test_conflict(theirs: Repository, tmp_path: Path) -> None:
    says = r"#7 does not merge onto v0.1.1: conflict in mlx/ops.cpp;"
    with (
        Upstream.open(tmp_path / "builds", str(theirs.path)) as upstream,
        pytest.raises(MergeConflict, match=says),
    ):
        merging.resolve(upstream, Revision.parse("#7"), "v0.1.1")


@pytest.mark.parametrize(("number", "onto"), [(5, "main"), (8, "main"), (7, "#7/head")])
def test_what_is_there_already(theirs: Repository, tmp_path: Path, number: int, onto: str) -> None:
    with (
        Upstream.open(tmp_path / "builds", str(theirs.path)) as upstream,
        pytest.raises(UsageProblem, match=f"#{number} is in {onto} already"),
    ):
        merging.resolve(upstream, Revision.parse(f"#{number}"), onto)


def test_changes_of_a_tree(theirs: Repository, tmp_path: Path) -> None:
    from bisect_tool.upstream import local_tree

    with Upstream.open(tmp_path / "builds", str(theirs.path)) as upstream:

        def stamp() -> str:
            commit = upstream.resolve(Revision.parse(f"path:{theirs.path}")).commit
            return local_tree.changes(upstream, commit)

        assert stamp() == "", "nothing is changed"
        theirs.put("mlx/ops.cpp", "int ops() { return 7; }\n")
        first = stamp()
        assert len(first) == 64 and stamp() == first
        theirs.put("mlx/ops.cpp", "int ops() { return 8; }\n")
        assert stamp() not in ("", first)
