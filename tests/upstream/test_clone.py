"""The clone: made from a path or an address, brought up to date, and what is read from it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from theirs import Repository, copied, environment

from bisect_tool.errors import DiskFull, ToolMissing, UnknownRevision, UpstreamUnreachable, UsageProblem
from bisect_tool.upstream.clone import Upstream
from bisect_tool.upstream.git_calls import Said
from bisect_tool.upstream.mirrors import Mirrors
from bisect_tool.upstream.revision import Revision
from bisect_tool.upstream.source import PUBLIC


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    return copied(tmp_path, monkeypatch)


def state_of(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Every file below a folder: its time stamp, mode and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (facts.st_mtime_ns, facts.st_mode, content)
    return found


def leftovers(builds: Path) -> list[str]:
    return sorted(path.name for path in (builds / "upstream").iterdir() if path.name.startswith("."))


# -- where it comes from


@pytest.mark.parametrize("form", ["work tree", ".git", "bare", "linked", "file", "relative", "borrower"])
def test_every_form_of_source_reads_the_same(
    theirs: Repository, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = str(theirs.path)
    if form == ".git":
        repo += "/.git"
    elif form == "file":
        repo = f"file://{repo}"
    elif form == "bare":
        theirs.git("clone", "-q", "--mirror", theirs.path, tmp_path / "bare")
        repo = str(tmp_path / "bare")
    elif form == "linked":
        theirs.git("worktree", "add", "-q", "--detach", tmp_path / "linked", "v0.2.0")
        repo = str(tmp_path / "linked")
    elif form == "relative":
        monkeypatch.chdir(tmp_path)
        repo = "mlx"
    elif form == "borrower":  # it borrows itself, by a relative path
        theirs.git("clone", "-q", "--shared", "--mirror", theirs.path, tmp_path / "bare")
        (tmp_path / "bare/objects/info/alternates").write_text("../../mlx/.git/objects\n")
        repo = str(tmp_path / "bare")
    with Upstream.open(tmp_path / "builds", repo) as upstream:
        assert upstream.commit("main").sha == theirs.shas["tip"]
        assert upstream.commit("v0.1.0").sha == theirs.shas["initial"]
        assert [commit.subject for commit in upstream.range("v0.1.0..main")] == [
            "Docs (#2)",
            "Kernel (#3)",
            "Merge pull request #4 from someone/side",
            "Ops (#5)",
            "Header (#6)",
            "Tip (#8)",
        ]
        assert upstream.read("v0.2.0", "mlx/ops.cpp") == b"int ops() { return 2; }\n"
        assert upstream.commit("HEAD").sha == theirs.shas["ops" if form == "linked" else "tip"]
        assert upstream.resolve(Revision.parse("#7")).commit.sha == theirs.shas["#7"]


def test_a_local_source_is_borrowed_from_and_never_written_to(theirs: Repository, tmp_path: Path) -> None:
    theirs.git("gc", "-q")  # a pack, whose time stamp git likes to refresh
    theirs.put("mlx/ops.cpp", "changed\n")
    before = state_of(theirs.path)
    for _ in range(2):
        with Upstream.open(tmp_path / "builds", str(theirs.path)) as upstream:
            upstream.fetch()
            for name in ("main", "@2024-03-02", "#5", "#5/head", "#7", f"path:{theirs.path}"):
                upstream.resolve(Revision.parse(name))
            upstream.range("v0.1.0..main")
            upstream.first_tag(theirs.shas["docs"])
    assert state_of(theirs.path) == before
    packs = list((upstream.git_dir / "objects").rglob("*.pack"))
    assert packs == []
    loose = [path for path in (upstream.git_dir / "objects").glob("??/*") if path.is_file()]
    assert len(loose) == 4  # a commit, and a file with its two folders


def test_an_address_is_fetched_whole(theirs: Repository, tmp_path: Path) -> None:
    phases: list[str] = []
    with Upstream.open(tmp_path / "builds", f"file://{theirs.path}", on_phase=phases.append) as upstream:
        assert not (upstream.git_dir / "objects/info/alternates").exists()
    assert phases[0] == f"cloning file://{theirs.path}"
    assert any(re.fullmatch(r"fetching file://.*: receiving objects, \d+ %", phase) for phase in phases)
    shutil.rmtree(theirs.path)
    with Upstream.open(tmp_path / "builds", f"file://{theirs.path}") as upstream:
        listing = upstream.git.says("rev-list", "--objects", "--all")
        assert len(listing.splitlines()) > 40
        assert upstream.read("main", "mlx/ops.cpp") is not None


def test_a_local_source_is_always_seen_as_it_is(theirs: Repository, tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    Upstream.open(builds, str(theirs.path)).close()
    new = theirs.commit("New (#9)", {"mlx/new.cpp": "new\n"})
    theirs.git("branch", "-q", "-D", "release")
    theirs.git("branch", "-q", "release/1")  # a folder where a file was
    theirs.git("update-ref", "refs/pull/9/head", "HEAD")
    with Upstream.open(builds, str(theirs.path)) as upstream:
        assert upstream.commit("main").sha == new
        assert upstream.commit("release/1").sha == new
        assert upstream.pull(9).merge == upstream.commit("main")
        newer = theirs.commit("Newer", {})
        assert upstream.commit("main").sha == new  # a name that is known is not looked up again
        theirs.git("tag", "v0.3.0")
        assert upstream.commit("v0.3.0").sha == newer  # an unknown one is
        with pytest.raises(UnknownRevision):
            upstream.commit("refs/heads/release")
        assert upstream.commit("main").sha == newer
        assert upstream.line()[0].sha == newer
        newest = theirs.commit("Newest", {})
        upstream.fetch()
        assert (upstream.commit("main").sha, upstream.trusted(newest)) == (newest, True)


def test_an_address_is_fetched_again_only_for_what_is_unknown(theirs: Repository, tmp_path: Path) -> None:
    builds, repo = tmp_path / "builds", f"file://{theirs.path}"
    Upstream.open(builds, repo).close()
    new = theirs.commit("New (#9)", {"mlx/new.cpp": "new\n"})
    theirs.git("tag", "v0.3.0")
    theirs.git("branch", "-q", "-D", "release")
    phases: list[str] = []
    with Upstream.open(builds, repo, on_phase=phases.append) as upstream:
        assert upstream.commit("main").sha == theirs.shas["tip"]
        assert upstream.read("main", "mlx/new.cpp") is None
        assert (upstream.first_tag(theirs.shas["tip"]), upstream.trusted(new)) == (None, False)
        assert phases == []
        assert upstream.commit("v0.3.0").sha == new
        assert upstream.commit("main").sha == new
        assert upstream.read("main", "mlx/new.cpp") == b"new\n"
        assert (upstream.first_tag(theirs.shas["tip"]), upstream.trusted(new)) == ("v0.3.0", True)
        with pytest.raises(UnknownRevision):
            upstream.commit("release")
        fetched = len(phases)
        with pytest.raises(UnknownRevision):
            upstream.commit("no-such-name")
        assert len(phases) == fetched  # once a process is enough
        newer = theirs.commit("Newer", {})
        upstream.fetch()
        assert upstream.commit("main").sha == newer


def test_a_mirror_of_the_address_is_borrowed_from(theirs: Repository, tmp_path: Path) -> None:
    for option in (f"https://github.com/ml-explore={tmp_path}", f"{PUBLIC}.git={theirs.path}"):
        with Upstream.open(tmp_path / "builds", mirrors=Mirrors.parse([option]), offline=True) as upstream:
            assert upstream.commit("main").sha == theirs.shas["tip"]
            assert (upstream.git_dir / "objects/info/alternates").exists()
    theirs.path.rename(tmp_path / "mlx.git")
    mirrors = Mirrors.parse([f"https://github.com/ml-explore={tmp_path}"])
    with Upstream.open(tmp_path / "builds", mirrors=mirrors) as upstream:
        assert upstream.commit("main").sha == theirs.shas["tip"]


def test_what_a_source_has_lost_is_left_out(theirs: Repository, tmp_path: Path) -> None:
    theirs.put(".git/refs/heads/broken", f"{'1' * 40}\n")
    theirs.put(".git/refs/heads/nonsense", "nonsense\n")
    with Upstream.open(tmp_path / "builds", str(theirs.path)) as upstream:
        assert upstream.commit("main").sha == theirs.shas["tip"]
        assert upstream.trusted(theirs.shas["tip"])
        with pytest.raises(UnknownRevision):
            upstream.commit("broken")


def test_sources_do_not_share_a_clone(theirs: Repository, tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    other = tmp_path / "other" / "mlx"
    shutil.copytree(theirs.path, other)
    folders = {
        Upstream.open(builds, repo).git_dir
        for repo in (str(theirs.path), str(other), f"file://{theirs.path}", f"file://{other}")
    }
    assert len(folders) == 4
    assert Upstream.open(builds, f"file://{theirs.path}/").git_dir in folders
    assert all(folder.name == folder.name.lower() for folder in folders)


# -- what cannot be a source


@pytest.mark.parametrize(
    ("make", "says"),
    [
        ("missing", "does not exist; give --repo"),
        ("empty", "not a git repository"),
        ("file", "it is a file"),
        ("within", "it is a folder within"),
        ("within bare", "it is a folder within"),
        ("no commits", "has no commits"),
        ("shallow", "is a shallow clone: its history is cut off; git -C"),
        ("partial", "is a partial clone"),
    ],
)
def test_what_is_no_source(theirs: Repository, tmp_path: Path, make: str, says: str) -> None:
    repo = tmp_path / "other"
    if make == "empty":
        repo.mkdir()
    elif make == "file":
        repo.touch()
    elif make == "within":
        repo = theirs.path / "mlx"
    elif make == "within bare":
        repo = theirs.path / ".git" / "objects"
    elif make == "no commits":
        theirs.git("init", "-q", repo)
    elif make == "shallow":
        theirs.git("clone", "-q", "--depth", "2", f"file://{theirs.path}", repo)
    elif make == "partial":
        theirs.git("config", "uploadpack.allowFilter", "true")
        theirs.git("clone", "-q", "--filter=blob:none", f"file://{theirs.path}", repo)
    with pytest.raises(UsageProblem) as caught:
        Upstream.open(tmp_path / "builds", str(repo))
    assert says in caught.value.line()
    assert "\n" not in caught.value.line()
    if (tmp_path / "builds" / "upstream").exists():
        assert list((tmp_path / "builds" / "upstream").iterdir()) == []


def test_an_address_of_a_shallow_clone(theirs: Repository, tmp_path: Path) -> None:
    theirs.git("clone", "-q", "--depth", "2", f"file://{theirs.path}", tmp_path / "shallow")
    with pytest.raises(UpstreamUnreachable, match="it is a shallow clone; give --repo a full clone"):
        Upstream.open(tmp_path / "builds", f"file://{tmp_path / 'shallow'}")
    assert list((tmp_path / "builds" / "upstream").iterdir()) == []


@pytest.mark.parametrize(
    "repo", ["https://me:secret@127.0.0.1:1/mlx.git", "file:///no/such/place", "git@127.0.0.1:x"]
)
def test_an_address_that_does_not_answer(tmp_path: Path, repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_SSH_COMMAND", "false")
    with pytest.raises(UpstreamUnreachable) as caught:
        Upstream.open(tmp_path / "builds", repo)
    line = caught.value.line()
    assert "could not be fetched" in line and "check the network and --repo" in line and "\n" not in line
    assert "secret" not in line
    assert list((tmp_path / "builds" / "upstream").iterdir()) == []


def test_what_git_says_is_passed_on_without_credentials() -> None:
    said = Said(
        128, "", "remote: hello\nfatal: unable to access 'https://me:secret@host/x/': refused\nmore\n"
    )
    assert said.reason() == "unable to access 'https://***@host/x/': refused"


def test_what_would_run_a_program_is_no_address(tmp_path: Path) -> None:
    for repo in (
        f"ext::sh -c touch% {tmp_path}/ran",
        f"ext://sh -c touch% {tmp_path}/ran",
        f"--upload-pack={tmp_path}",
    ):
        with pytest.raises((UsageProblem, UpstreamUnreachable)):
            Upstream.open(tmp_path / "builds", repo)
    assert not (tmp_path / "ran").exists()


def test_offline(theirs: Repository, tmp_path: Path) -> None:
    repo = f"file://{theirs.path}"
    with pytest.raises(UpstreamUnreachable, match=r"no clone of .* yet: the network may not be used"):
        Upstream.open(tmp_path / "builds", repo, offline=True)
    Upstream.open(tmp_path / "builds", repo).close()
    theirs.commit("New", {})
    theirs.git("tag", "v0.3.0")
    with Upstream.open(tmp_path / "builds", repo, offline=True) as upstream:
        assert upstream.commit("main").sha == theirs.shas["tip"]
        with pytest.raises(UnknownRevision, match="the network may not be used"):
            upstream.commit("v0.3.0")
        with pytest.raises(UpstreamUnreachable, match="the network may not be used"):
            upstream.fetch()
        with pytest.raises(UpstreamUnreachable, match="pull request #9 is not in the clone"):
            upstream.pull(9)


def test_without_git(theirs: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="git is not on PATH"):
        Upstream.open(tmp_path / "builds", str(theirs.path))


def test_builds_that_cannot_be_written(theirs: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UpstreamUnreachable, match="name another folder with --builds DIR"):
        Upstream.open(tmp_path / "file" / "builds", str(theirs.path))


def test_a_full_disk(theirs: Repository, small_disk: Path) -> None:
    theirs.git("config", "core.compression", "0")
    (theirs.path / "noise").write_bytes(os.urandom(30 * 2**20))
    theirs.commit("Noise", {})
    with pytest.raises(DiskFull, match="free some space or name another folder"):
        Upstream.open(small_disk, f"file://{theirs.path}")
    assert list((small_disk / "upstream").iterdir()) == []
    (small_disk / "locks").mkdir(exist_ok=True)
    with pytest.raises(OSError, match="No space left"), (small_disk / "filler").open("wb") as filler:
        while True:
            filler.write(bytes(2**16))
    with pytest.raises(DiskFull, match="free some space or name another folder"):
        Upstream.open(small_disk, str(theirs.path))
    with pytest.raises(DiskFull, match="it takes 400 MiB and"):
        Upstream.open(small_disk, PUBLIC)  # said before anything is fetched


# -- many at once, and ends of all kinds

OPEN = """
import os, signal, sys
from pathlib import Path
from bisect_tool.upstream.clone import Upstream
builds, repo, die = sys.argv[1:]
def phase(text):
    if die and die in text:
        os.kill(os.getpid(), signal.SIGKILL)
with Upstream.open(Path(builds), repo, on_phase=phase) as upstream:
    print(upstream.commit("main").sha)
    if die == "fetch":
        upstream.fetch()
"""


def opening(builds: Path, repo: str, die: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, str(builds), repo, die],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_many_tools_at_once(theirs: Repository, tmp_path: Path, form: str) -> None:
    tools = [opening(tmp_path / "builds", form.format(theirs.path)) for _ in range(4)]
    for tool in tools:
        out, err = tool.communicate(timeout=60)
        assert (tool.returncode, out.strip()) == (0, theirs.shas["tip"]), err
    assert leftovers(tmp_path / "builds") == []
    assert len(list((tmp_path / "builds/upstream").iterdir())) == 1


@pytest.mark.parametrize("when", ["cloning", "receiving objects"])
def test_a_clone_killed_half_way(theirs: Repository, tmp_path: Path, when: str) -> None:
    builds, repo = tmp_path / "builds", f"file://{theirs.path}"
    killed = opening(builds, repo, when)
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    assert leftovers(builds) != []
    assert [path for path in (builds / "upstream").iterdir() if not path.name.startswith(".")] == []
    with Upstream.open(builds, repo) as upstream:
        assert upstream.commit("main").sha == theirs.shas["tip"]
    assert leftovers(builds) == []


def test_a_fetch_killed_half_way(theirs: Repository, tmp_path: Path) -> None:
    builds, repo = tmp_path / "builds", f"file://{theirs.path}"
    with Upstream.open(builds, repo) as upstream:
        git_dir = upstream.git_dir
    new = theirs.commit("New", {"mlx/new.cpp": "new\n"})
    killed = opening(builds, repo, "fetch")
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    # What git itself leaves when it is killed with the tool.
    for name in ("packed-refs.lock", "HEAD.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_x"):
        (git_dir / name).touch()
    with Upstream.open(builds, repo) as upstream:
        upstream.fetch()
        assert upstream.commit("main").sha == new
    assert list(git_dir.rglob("*.lock")) + list(git_dir.rglob("tmp_*")) == []


def test_what_is_no_whole_clone_is_made_anew(theirs: Repository, tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    with Upstream.open(builds, str(theirs.path)) as upstream:
        git_dir = upstream.git_dir
    (git_dir / "bisect_tool-seen").unlink()
    (git_dir / "HEAD").write_text("rubbish")
    with Upstream.open(builds, str(theirs.path)) as upstream:
        assert upstream.commit("HEAD").sha == theirs.shas["tip"]
    assert leftovers(builds) == []


def test_a_waiting_tool_says_so(theirs: Repository, tmp_path: Path) -> None:
    from filelock import FileLock

    builds, phases = tmp_path / "builds", list[str]()
    with Upstream.open(builds, f"file://{theirs.path}") as upstream:
        lock = FileLock(builds / "locks" / f"upstream-{upstream.git_dir.stem}.lock")
        lock.acquire()

        def phase(text: str) -> None:
            phases.append(text)
            lock.release()

        upstream.on_phase = phase
        upstream.fetch()
    assert phases[0] == "waiting for another bisect_tool to finish fetching MLX's history"


def test_whose_repository_the_tool_was_called_from_does_not_matter(
    theirs: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Repository(tmp_path / "other")
    other.path.mkdir()
    other.git("init", "-q", "-b", "main")
    other.commit("Other", {"a": "b"})
    for name, value in {
        "GIT_DIR": f"{other.path}/.git",
        "GIT_WORK_TREE": str(other.path),
        "GIT_INDEX_FILE": f"{other.path}/.git/index",
        "GIT_OBJECT_DIRECTORY": f"{other.path}/.git/objects",
        "GIT_NAMESPACE": "x",
    }.items():
        monkeypatch.setenv(name, value)
    for repo in (str(theirs.path), f"file://{theirs.path}"):
        with Upstream.open(tmp_path / "builds", repo) as upstream:
            assert upstream.commit("main").sha == theirs.shas["tip"]
        monkeypatch.setenv("GIT_DIR", f"{other.path}/.git")


def test_nothing_that_a_repository_names_is_run(theirs: Repository, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    evil = tmp_path / "evil"
    evil.write_text(f'#!/bin/sh\necho "$0 $@" >> {ran}\ncat\n')
    evil.chmod(0o755)
    theirs.commit("Filters", {".gitattributes": "* filter=evil diff=evil text eol=crlf\n"})
    hooks = theirs.path / ".git" / "hooks"
    for hook in (
        "post-checkout",
        "reference-transaction",
        "pre-auto-gc",
        "post-index-change",
        "fsmonitor-watchman",
    ):
        shutil.copy(evil, hooks / hook)
    for key in (
        *(
            "core.fsmonitor",
            "filter.evil.smudge",
            "filter.evil.clean",
            "filter.evil.process",
            "diff.evil.textconv",
        ),
        *(
            "core.alternateRefsCommand",
            "uploadpack.packObjectsHook",
            "core.sshCommand",
            "core.pager",
            "core.editor",
        ),
        *("credential.helper", "gpg.program", "core.gitProxy"),
    ):
        theirs.git("config", key, str(evil))
    theirs.put("mlx/ops.cpp", "changed\n")
    ran.unlink(missing_ok=True)
    for repo in (str(theirs.path), f"file://{theirs.path}"):
        with Upstream.open(tmp_path / "builds", repo) as upstream:
            upstream.fetch()
            commit = upstream.resolve(Revision.parse(f"path:{theirs.path}")).commit
            tree = tmp_path / f"tree {len(repo)}"
            subprocess.run(
                ["git", "--git-dir", upstream.git_dir, "worktree", "add", "-q", "--detach", tree, commit.sha],
                env=environment()
                | {  # as one who has installed such a filter for all repositories
                    "GIT_CONFIG_COUNT": "2",
                    "GIT_CONFIG_KEY_0": "filter.evil.smudge",
                    "GIT_CONFIG_VALUE_0": str(evil),
                    "GIT_CONFIG_KEY_1": "filter.evil.required",
                    "GIT_CONFIG_VALUE_1": "true",
                },
                check=True,
            )
            assert (tree / "mlx/ops.cpp").read_bytes() == b"changed\n"
    assert not ran.exists(), ran.read_text()
