"""What is read from the clone: names, ranges, tags, trust, files and folders."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from theirs import START, Repository, copied, made_once

from bisect_tool.errors import UnknownRevision, UpstreamUnreachable, UsageProblem
from bisect_tool.upstream.clone import Upstream
from bisect_tool.upstream.revision import Revision


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    return copied(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """A clone that no test changes."""
    with Upstream.open(tmp_path_factory.mktemp("read") / "builds", str(made_once().path)) as opened:
        yield opened


# -- names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("main", "tip"),
        ("main~1", "header"),
        ("main~3", "merge"),
        ("main~3^2", "side 2"),
        ("main^", "header"),
        ("HEAD~3", "merge"),
        ("v0.2.0", "ops"),
        ("v0.1.0", "initial"),
        ("v0.1.0^0", "initial"),
        ("v0.2.0rc1", "merge"),
        ("release", "release"),
        ("gh-pages", "pages"),
        ("refs/heads/main", "tip"),
        ("@2024-03-01", "initial"),
        ("@2024-03-02", "docs"),
        ("@2024-03-03T11:59", "docs"),
        ("@2024-03-03T12:00", "kernel"),
        ("@2024-03-03T12:00:00Z", "kernel"),
        ("@2024-03-04", "merge"),  # not the commits of the side branch, which have its date
        ("@2034-03-04", "tip"),
        ("#5", "ops"),
        ("pr/5", "ops"),
        ("#5/head", "#5"),
        ("#5^", "merge"),
        ("#4", "merge"),
        ("#7", "#7"),
        ("#7/head", "#7"),
        ("#7^", "ops"),
        ("#8", "tip"),  # merged, and its branch is nowhere
    ],
)
def test_names(upstream: Upstream, text: str, name: str) -> None:
    resolved = upstream.resolve(Revision.parse(f"{text},A=1"))
    assert resolved.commit.sha == made_once().shas[name]
    assert resolved.revision.settings == (("A", "1"),)
    merged = re.match(r"(?:#|pr/)([58])", text)
    assert resolved.note == (
        f"#{merged[1]} is merged as {made_once().shas['ops' if merged[1] == '5' else 'tip'][:9]}"
        if merged
        else resolved.note
        if text == "#4"
        else ""
    )


def test_shas_of_any_length(upstream: Upstream) -> None:
    sha = made_once().shas["kernel"]
    for digits in (7, 12, 40):
        assert upstream.commit(sha[:digits]).sha == sha
    assert upstream.commit(sha[:10].upper()).sha == sha


def test_what_a_commit_says(upstream: Upstream) -> None:
    commit = upstream.commit("v0.2.0")
    assert commit.subject == "Ops (#5)"
    assert commit.pull == 5
    assert commit.committed == START + 4 * 86_400
    assert commit.parents == (made_once().shas["merge"],)
    assert commit.tree == made_once().git("rev-parse", "v0.2.0^{tree}")
    assert commit.short == made_once().shas["ops"][:9]
    merge = upstream.commit("v0.2.0~1")
    assert (merge.pull, len(merge.parents)) == (4, 2)
    assert upstream.commit("v0.1.0").pull is None


def test_subjects_of_all_kinds(theirs: Repository, tmp_path: Path) -> None:
    for subject in ("a\u2028b (#1) c", "  tabs\tand \x0b\x1c\x85 ", 'Revert "x (#5)" (#11)', "bytes"):
        theirs.commit(subject, {})
    raw = f"tree {theirs.git('rev-parse', 'HEAD^{tree}')}\nparent {theirs.git('rev-parse', 'HEAD')}\n"
    raw += "author A <a> 1 +0000\ncommitter C <c> 1709999999 +0000\n\n"
    sha = theirs.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=raw.encode() + b"\xff\xfe (#12)\n")
    theirs.git("update-ref", "refs/heads/main", sha)
    with Upstream.open(tmp_path / "builds", str(theirs.path)) as upstream:
        assert [commit.pull for commit in upstream.range("v0.2.0..main")] == [6, 8, None, None, 11, None, 12]
        assert upstream.resolve(Revision.parse("#5")).commit.sha == theirs.shas["ops"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("v0.2.1", "v0.2.0"),
        ("mian", "main"),
        ("relaese", "release"),
        ("relaese~3", "release"),
        ("0000000", ""),
        ("nothing-at-all-like-it", ""),
        ("main~99", "main has no such ancestor"),
        ("main:mlx", "main"),
        ("main^{tree}", ""),
        ("^main", ""),
        ("main@{yesterday}", ""),
        ("ab", ""),
    ],
)
def test_unknown_names(upstream: Upstream, name: str, near: str) -> None:
    with pytest.raises(UnknownRevision) as caught:
        upstream.commit(name)
    line = caught.value.line()
    assert f"{name!r} is not a commit, tag or branch of" in line
    assert near in line
    assert ("near it: " in line) == (near in ("v0.2.0", "main", "release"))


def test_a_folder_is_not_a_name(upstream: Upstream, tmp_path: Path) -> None:
    with pytest.raises(UnknownRevision, match=f"write path:{tmp_path}"):
        upstream.commit(str(tmp_path))


@pytest.mark.parametrize("name", ["", "-x", "--all", "a b", "a\nb", "a\0b"])
def test_what_git_must_not_be_asked(upstream: Upstream, name: str) -> None:
    with pytest.raises(UsageProblem):
        upstream.commit(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("@2024-02-30", "is no date"),
        ("@2024-03-01T25:00", "is no date"),
        ("@2023-01-01", "the history begins on 2024-03-01"),
        ("@2024-02-29", "the history begins on 2024-03-01"),
        ("@yesterday", "is not a commit"),
    ],
)
def test_dates_without_a_commit(upstream: Upstream, name: str, says: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        upstream.commit(name)
    assert says in caught.value.line()


def test_a_day_ends_at_midnight(theirs: Repository, tmp_path: Path) -> None:
    theirs.when = START + 19 * 86_400 + 43_199  # 2024-03-20 23:59:59 UTC
    last = theirs.commit("Last", {}, days=1 / 86_400)
    theirs.commit("First of the next day", {})
    with Upstream.open(tmp_path / "builds", str(theirs.path)) as upstream:
        assert upstream.commit("@2024-03-20").sha == last
        assert upstream.commit("@2024-03-20T23:59").sha == theirs.shas["tip"]
        assert upstream.commit("@2024-03-21").subject == "First of the next day"


def test_a_date_after_the_last_fetch_is_looked_up(theirs: Repository, tmp_path: Path) -> None:
    builds, repo = tmp_path / "builds", f"file://{theirs.path}"
    Upstream.open(builds, repo).close()
    new = theirs.commit("New", {})
    with Upstream.open(builds, repo) as upstream:
        seen = upstream.git_dir / "bisect_tool-seen"
        # Had there been another one by then, it would be here.
        assert upstream.commit("@2024-12-31").sha == theirs.shas["tip"]
        os.utime(seen, (START, START))
        assert upstream.commit("@2024-12-31").sha == new
        assert seen.stat().st_mtime > START
    newer = theirs.commit("Newer", {})
    with Upstream.open(builds, repo) as upstream:
        assert upstream.commit("@2024-12-31").sha == new
        assert upstream.commit("@2099-01-01").sha == newer
    shutil.rmtree(theirs.path)
    with Upstream.open(builds, repo) as upstream:
        assert upstream.commit("@2099-01-01").sha == newer


def test_a_release_is_not_resolved(upstream: Upstream) -> None:
    with pytest.raises(UsageProblem, match=r"v0\.2\.0 is its tag"):
        upstream.resolve(Revision.parse("0.2.0"))


def twins(theirs: Repository, kinds: tuple[str, str]) -> str:
    """Two objects whose shas begin with the same four digits, which no other object has; returns those."""
    known = {line[:4] for line in theirs.git("cat-file", "--batch-all-objects", "--batch-check").splitlines()}
    tree = theirs.git("rev-parse", "HEAD^{tree}")
    seen: dict[str, tuple[str, bytes]] = {}
    for number in range(100_000):
        kind = kinds[number % 2]
        text = f"tree {tree}\nauthor A <a> 1 +0000\ncommitter C <c> 1 +0000\n\nTwin {number}\n".encode()
        start = hashlib.sha1(f"{kind} {len(text)}\0".encode() + text).hexdigest()[:4]
        before = seen.setdefault(start, (kind, text))
        if start not in known and before[1] != text and {before[0], kind} == set(kinds):
            for each, content in (before, (kind, text)):
                theirs.git("hash-object", "-t", each, "-w", "--stdin", stdin=content)
            return start
    raise AssertionError


def test_an_ambiguous_sha(theirs: Repository, tmp_path: Path) -> None:
    start = twins(theirs, ("commit", "commit"))
    with Upstream.open(tmp_path / "builds", str(theirs.path)) as upstream:
        for name in (start, f"{start}~1", start):
            with pytest.raises(UnknownRevision) as caught:
                upstream.commit(name)
            line = caught.value.line()
            assert f"'{start}' is ambiguous" in line and "give more digits" in line
            found = re.findall(rf"({start}[0-9a-f]{{8}}) \(Twin \d+\)", line)
            assert len(found) == 2
            upstream.fetch()  # it is said before and after
        assert upstream.commit(found[0]).sha.startswith(found[0])


def test_of_a_commit_and_a_file_the_commit_is_meant(theirs: Repository, tmp_path: Path) -> None:
    start = twins(theirs, ("commit", "blob"))
    with Upstream.open(tmp_path / "builds", str(theirs.path)) as upstream:
        assert upstream.commit(start).subject.startswith("Twin")
        with pytest.raises(UnknownRevision, match=f"{start} has no such ancestor"):
            upstream.commit(f"{start}~9")


# -- history


def test_ranges(upstream: Upstream) -> None:
    def names(text: str) -> list[str]:
        by_sha = {sha: name for name, sha in made_once().shas.items()}
        return [by_sha[commit.sha] for commit in upstream.range(text)]

    assert names("v0.1.0..v0.2.0") == ["docs", "kernel", "merge", "ops"]
    assert names("main~1..main") == ["tip"]
    assert names("main..main") == []
    assert names("#7^..#7") == ["#7 first", "#7"]
    assert names("@2024-03-01..v0.1.1") == ["docs", "release"]
    assert names("v0.1.0..main~3^2") == ["docs", "kernel", "side 1", "side 2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("v0.2.0..v0.1.0", "'v0.2.0..v0.1.0' is empty: v0.2.0 comes after v0.1.0; write v0.1.0..v0.2.0"),
        ("v0.1.1..main", "v0.1.1 is not on the line of main; write {docs}..main"),
        ("main~3^2..main", "main~3^2 is not on the line of main; write {kernel}..main"),
        ("gh-pages..main", "they have no commit in common"),
        ("v0.1.0", "is no range; write it as A..B"),
        ("v0.1.0..", "is no range"),
        ("..v0.1.0", "is no range"),
        ("v0.1.0...v0.2.0", "is no range"),
        ("a..b..c", "is no range"),
        ("0.1.0..v0.2.0", "v0.1.0 is its tag"),
        ("v0.1.0..nothing", "is not a commit"),
    ],
)
def test_what_is_no_range(upstream: Upstream, text: str, says: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        upstream.range(text)
    shown = {name: sha[:9] for name, sha in made_once().shas.items() if "#" not in name}
    assert says.format(**shown) in caught.value.line()


def test_merge_bases(upstream: Upstream) -> None:
    assert upstream.merge_base("v0.1.1", "main").sha == made_once().shas["docs"]
    assert upstream.merge_base(made_once().shas["#7"], "main").sha == made_once().shas["ops"]
    with pytest.raises(UsageProblem, match="no commit in common"):
        upstream.merge_base("gh-pages", "main")


def test_first_tags(upstream: Upstream) -> None:
    first = {name: upstream.first_tag(sha) for name, sha in made_once().shas.items()}
    assert first == {
        "initial": "v0.1.0",
        "docs": "v0.1.1",
        "release": "v0.1.1",
        "kernel": "v0.2.0",  # v0.2.0rc1 is no release
        "side 1": "v0.2.0",
        "side 2": "v0.2.0",
        "merge": "v0.2.0",
        "ops": "v0.2.0",
        **dict.fromkeys(["#5 first", "#5", "#7 first", "#7", "header", "tip", "pages"]),
    }


def test_versions_are_no_text(theirs: Repository, tmp_path: Path) -> None:
    theirs.git("tag", "v0.10.0", theirs.shas["tip"])
    theirs.git("tag", "-a", "-m", "x", "v0.9.0", theirs.shas["header"])
    theirs.git("tag", "v0.0.1", f"{theirs.shas['tip']}:mlx")  # no commits at all
    theirs.git("tag", "-a", "-m", "x", "v0.0.2", f"{theirs.shas['tip']}:setup.py")
    theirs.git("tag", "v1.0.0-beta")
    with Upstream.open(tmp_path / "builds", str(theirs.path)) as upstream:
        assert upstream.first_tag(theirs.shas["tip"]) == "v0.10.0"
        assert upstream.first_tag(theirs.shas["header"]) == "v0.9.0"


def test_who_is_trusted(upstream: Upstream) -> None:
    trusted = {name for name, sha in made_once().shas.items() if upstream.trusted(sha)}
    assert made_once().shas.keys() - trusted == {"#5 first", "#5", "#7 first", "#7"}
    assert not upstream.resolve(Revision.parse("#7")).trusted
    assert not upstream.resolve(Revision.parse(made_once().shas["#7"])).trusted  # by its sha it is no better
    assert upstream.resolve(Revision.parse("#5")).trusted
    assert not upstream.trusted("0" * 40)


def test_what_was_cloned_from_the_project_is_trusted_and_a_contributor_is_not(
    theirs: Repository, tmp_path: Path
) -> None:
    clone = Repository(tmp_path / "clone")
    theirs.git("clone", "-q", theirs.path, clone.path)
    clone.git("checkout", "-q", "-b", "mine", theirs.shas["kernel"])
    clone.git("branch", "-q", "-D", "main")
    clone.git("fetch", "-q", theirs.path, "refs/pull/7/head:refs/remotes/someone/faster")
    with Upstream.open(tmp_path / "builds", str(clone.path)) as upstream:
        assert upstream.trusted(theirs.shas["tip"])
        assert upstream.commit("someone/faster").sha == theirs.shas["#7"]
        assert not upstream.trusted(theirs.shas["#7"])
        assert upstream.commit("HEAD").sha == theirs.shas["kernel"]
        assert upstream.commit("origin/main").sha == theirs.shas["tip"]
        # Merged is what the project's own branch has, whatever is checked out.
        assert upstream.resolve(Revision.parse("#8")).commit.sha == theirs.shas["tip"]


# -- objects


def test_reading_files(upstream: Upstream) -> None:
    assert upstream.read("v0.1.0", "mlx/backend/cuda/cuda.h") == b"cuda 1\n"
    assert upstream.read(made_once().shas["tip"], "mlx/backend/cuda/cuda.h") == b"cuda 2\n"
    for path in ("mlx", "no/such/file", "", "mlx/ops.cpp\nmain:setup.py"):
        assert upstream.read("main", path) is None
    assert upstream.read("nothing", "setup.py") is None
    assert upstream.read("main", "setup.py") == b"from setuptools import setup\n"  # and is not out of step


def test_large_and_odd_content(theirs: Repository, tmp_path: Path) -> None:
    content = os.urandom(3 * 2**20) + b"\n\0"
    (theirs.path / "large").write_bytes(content)
    (theirs.path / "empty").touch()
    (theirs.path / "link").symlink_to("/etc/passwd")
    theirs.commit("Odd", {})
    with Upstream.open(tmp_path / "builds", str(theirs.path)) as upstream:
        assert upstream.read("main", "large") == content
        assert upstream.read("main", "empty") == b""
        assert upstream.read("main", "link") == b"/etc/passwd"
        assert upstream.read("main", "setup.py") is not None


def test_entries(upstream: Upstream) -> None:
    tree = upstream.commit("main").tree
    listing = made_once().git("ls-tree", tree)
    assert "\n".join(f"{e.mode} {e.kind} {e.oid}\t{e.name}" for e in upstream.entries(tree)) == listing
    with pytest.raises(UpstreamUnreachable):
        upstream.entries("0" * 40)
    with pytest.raises(UpstreamUnreachable):
        upstream.entries(made_once().git("rev-parse", "main:setup.py"))
    with Upstream.open(upstream.git_dir.parent.parent, str(made_once().path)) as again:
        again.objects.read_trees([tree, "0" * 40])
        again.git.says("version")
        assert again.entries(tree) == upstream.entries(tree)


def test_entries_of_all_kinds(theirs: Repository, tmp_path: Path) -> None:
    raw = os.fsdecode(b"\xff name \n")
    (theirs.path / "exec").touch(mode=0o755)
    (theirs.path / "link").symlink_to("x")
    (theirs.path / raw).touch()
    theirs.git("update-index", "--add", "--cacheinfo", f"160000,{theirs.shas['tip']},sub")
    (theirs.path / "sub").mkdir()
    theirs.commit("Kinds", {"mlx/ops.cpp": "x"})
    with Upstream.open(tmp_path / "builds", str(theirs.path)) as upstream:
        found = {entry.name: entry for entry in upstream.entries(upstream.commit("main").tree)}
    assert found["exec"][:2] == ("100755", "blob")
    assert found["link"][:2] == ("120000", "blob")
    assert found["sub"][:3] == ("160000", "commit", theirs.shas["tip"])
    assert found["mlx"][:2] == ("040000", "tree")
    assert found[raw][:2] == ("100644", "blob")


def test_damaged_trees() -> None:
    from bisect_tool.upstream.values import entries_of

    whole = b"100644 a\0" + bytes(20)
    assert [entry.name for entry in entries_of(whole * 2)] == ["a", "a"]
    assert entries_of(b"") == []
    for damaged in (whole[:-1], whole + b"x", b"100600 a\0" + bytes(20), b"100644 \0" + bytes(20)):
        with pytest.raises(UpstreamUnreachable, match="damaged"):
            entries_of(damaged)
