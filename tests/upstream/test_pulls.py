"""Pull requests: squashed, open, not in the clone, moved since."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from theirs import Repository, copied

from bisect_tool.errors import UnknownRevision, UpstreamUnreachable, UsageProblem
from bisect_tool.upstream import pulls
from bisect_tool.upstream.clone import Upstream
from bisect_tool.upstream.mirrors import Mirrors
from bisect_tool.upstream.revision import Revision
from bisect_tool.upstream.source import PUBLIC


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    return copied(tmp_path, monkeypatch)


def names(theirs: Repository, upstream: Upstream, number: int) -> tuple[str | None, str | None, str | None]:
    """Head, merge and base of a pull request by the names that ``theirs.py`` gives them."""
    by_sha = {sha: name for name, sha in theirs.shas.items()}
    pull = upstream.pull(number)
    assert pull.number == number
    assert pull.tip == (pull.merge or pull.head)
    found = (pull.head, pull.merge, pull.base)
    head, merge, base = (by_sha[commit.sha] if commit else None for commit in found)
    return head, merge, base


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_squashed_and_open(theirs: Repository, tmp_path: Path, form: str) -> None:
    with Upstream.open(tmp_path / "builds", form.format(theirs.path)) as upstream:
        assert names(theirs, upstream, 5) == ("#5", "ops", "merge")
        assert names(theirs, upstream, 7) == ("#7", None, "ops")
        assert names(theirs, upstream, 8) == (None, "tip", "header")  # its branch is gone
        assert names(theirs, upstream, 4) == (None, "merge", "kernel")
        for number in (9, 10_000_000):
            with pytest.raises(UnknownRevision, match=str(number)):
                upstream.pull(number)
        with pytest.raises(UnknownRevision):
            upstream.resolve(Revision.parse("#8/head"))


def test_the_branch_is_fetched_only_where_it_is_needed(theirs: Repository, tmp_path: Path) -> None:
    phases: list[str] = []
    repo = f"file://{theirs.path}"
    with Upstream.open(tmp_path / "builds", repo, on_phase=phases.append) as upstream:
        del phases[:]
        for text in ("#5", "#5^"):
            upstream.resolve(Revision.parse(text))
        assert phases == []
        upstream.resolve(Revision.parse("#5/head"))
        assert "fetching #5" in phases
    with Upstream.open(tmp_path / "builds", repo, offline=True) as upstream:
        assert upstream.resolve(Revision.parse("#5/head")).commit.sha == theirs.shas["#5"]
        with pytest.raises(UpstreamUnreachable, match="#7 is not in the clone: the network may not be used"):
            upstream.resolve(Revision.parse("#7"))


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_what_was_merged_since_the_clone_was_opened(theirs: Repository, tmp_path: Path, form: str) -> None:
    theirs.git("update-ref", "-d", "refs/pull/7/head")
    with Upstream.open(tmp_path / "builds", form.format(theirs.path)) as upstream:
        merged = theirs.commit("Faster (#7)", {"mlx/ops.cpp": "int ops() { return 4; }\n"})
        resolved = upstream.resolve(Revision.parse("#7"))
        assert resolved.commit.sha == merged
        assert (resolved.trusted, resolved.note) == (True, f"#7 is merged as {merged[:9]}")


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_branch_that_moved(theirs: Repository, tmp_path: Path, form: str) -> None:
    repo = form.format(theirs.path)
    with Upstream.open(tmp_path / "builds", repo) as upstream:
        assert upstream.resolve(Revision.parse("#7")).commit.sha == theirs.shas["#7"]
        theirs.git("update-ref", "refs/pull/7/head", theirs.shas["#7 first"])  # a forced push
        upstream.fetch()
        assert upstream.resolve(Revision.parse("#7")).commit.sha == theirs.shas["#7 first"]
        theirs.git("update-ref", "-d", "refs/pull/7/head")
        upstream.fetch()  # what is gone there is kept
        assert upstream.resolve(Revision.parse("#7")).commit.sha == theirs.shas["#7 first"]


def test_of_two_commits_with_one_number_the_first_is_meant(theirs: Repository, tmp_path: Path) -> None:
    theirs.commit("Ops once more (#5)", {})
    theirs.commit('Revert "Ops (#5)"', {})
    with Upstream.open(tmp_path / "builds", str(theirs.path)) as upstream:
        assert upstream.resolve(Revision.parse("#5")).commit.sha == theirs.shas["ops"]


@pytest.mark.parametrize("form", ["work tree", "bare", "fork", "no HEAD"])
def test_merged_is_what_the_default_branch_has(theirs: Repository, tmp_path: Path, form: str) -> None:
    clone = Repository(tmp_path / "MLX Clone")
    if form != "no HEAD":
        theirs.git("branch", "-q", "-m", "main", "trunk")
    theirs.git("clone", "-q", *(["--bare"] if form == "bare" else []), theirs.path, clone.path)
    if form == "no HEAD":
        clone.git("remote", "set-head", "origin", "--delete")
        clone.git("checkout", "-q", "-b", "mine")
    elif form == "fork":
        clone.git("remote", "rename", "origin", "upstream")
        clone.git("update-ref", "refs/remotes/origin/main", theirs.shas["initial"])
        clone.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
        clone.git("checkout", "-q", "--detach", theirs.shas["initial"])
        clone.git("branch", "-q", "-D", "trunk")
    clone.git("branch", "-q", "-f", "main", theirs.shas["initial"])  # of that name, and not the one
    with Upstream.open(tmp_path / "builds", str(clone.path)) as upstream:
        assert upstream.resolve(Revision.parse("#8")).commit.sha == theirs.shas["tip"]
        assert upstream.trusted(theirs.shas["tip"])
        assert upstream.git_dir.name == upstream.git_dir.name.lower()


@pytest.fixture
def clone(theirs: Repository, tmp_path: Path) -> Repository:
    """A user's clone: it has no pull requests."""
    clone = Repository(tmp_path / "clone")
    theirs.git("clone", "-q", theirs.path, clone.path)
    return clone


def test_a_clone_without_it_is_fetched_for_from_the_public_repository(
    theirs: Repository, clone: Repository, tmp_path: Path
) -> None:
    mirrors = Mirrors.parse([f"{PUBLIC}={theirs.path}"])
    with Upstream.open(tmp_path / "builds", str(clone.path), mirrors=mirrors, offline=True) as upstream:
        assert upstream.resolve(Revision.parse("#7")).commit.sha == theirs.shas["#7"]
        assert not upstream.resolve(Revision.parse("#7")).trusted
        assert names(theirs, upstream, 5) == ("#5", "ops", "merge")
        with pytest.raises(UnknownRevision, match=r"there is no pull request #9 in https://github\.com"):
            upstream.pull(9)
    clone.commit("Mine", {})
    with Upstream.open(tmp_path / "builds", str(clone.path), offline=True) as upstream:  # it stays
        assert upstream.resolve(Revision.parse("#7")).commit.sha == theirs.shas["#7"]
    assert clone.git("for-each-ref", "refs/pull") == ""
    clone.git("update-ref", "refs/pull/7/head", theirs.shas["ops"])  # what the source says itself goes first
    with Upstream.open(tmp_path / "builds", str(clone.path), offline=True) as upstream:
        assert upstream.resolve(Revision.parse("#7")).commit.sha == theirs.shas["ops"]


def test_without_network_it_is_said_in_one_line(
    theirs: Repository, clone: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Upstream.open(tmp_path / "builds", str(clone.path)) as upstream:
        # Some other project's repository: the public one is not asked for its pull requests.
        with pytest.raises(UnknownRevision, match="has no refs/pull/7/head; fetch it there first"):
            upstream.pull(7)
        monkeypatch.setattr(pulls, "FIRST_COMMIT", theirs.shas["initial"])
        with pytest.raises(UpstreamUnreachable) as caught:
            upstream.resolve(Revision.parse("#7"))
        line = caught.value.line()
        assert f"pull request #7 is not in {clone.path} and could not be fetched from {PUBLIC}" in line
        assert "\n" not in line and "check the network" in line
        assert upstream.resolve(Revision.parse("#5")).commit.sha == theirs.shas["ops"]
        assert upstream.pull(5).head is None  # merged, and its branch cannot be had
    offline = Upstream.open(tmp_path / "builds", str(clone.path), offline=True)
    with offline, pytest.raises(UpstreamUnreachable, match="the network may not be used to fetch it"):
        offline.resolve(Revision.parse("#7"))


def test_a_pull_request_of_another_history(theirs: Repository, clone: Repository, tmp_path: Path) -> None:
    theirs.git("update-ref", "refs/pull/9/head", theirs.shas["pages"])
    mirrors = Mirrors.parse([f"{PUBLIC}={theirs.path}"])
    upstream = Upstream.open(tmp_path / "builds", str(clone.path), mirrors=mirrors)
    with upstream, pytest.raises(UsageProblem, match="no commit in common"):
        upstream.pull(9)


def test_a_mirror_that_is_gone(theirs: Repository, clone: Repository, tmp_path: Path) -> None:
    mirrors = Mirrors.parse([f"{PUBLIC}={theirs.path}"])
    shutil.rmtree(theirs.path)
    upstream = Upstream.open(tmp_path / "builds", str(clone.path), mirrors=mirrors)
    with upstream, pytest.raises(UsageProblem, match="does not exist"):
        upstream.pull(7)
