"""Real git throughout, and no network: every address has a mirror, or nothing listens behind it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_mlx import wait_for

from bisect_tool import process
from bisect_tool.building import checkouts, contents, origins
from bisect_tool.building.sources import Fetched, Source, fetch
from bisect_tool.errors import DiskFull, EnvironmentBroken, SourceUnavailable, ToolMissing
from bisect_tool.upstream.mirrors import Mirrors

ADDRESS = "https://forge.invalid/people/lib.git"
NOBODY = "https://127.0.0.1:1/people/lib.git"  # nothing listens there
CHILD = """
import sys
from pathlib import Path
from bisect_tool.building.sources import Source, fetch
from bisect_tool.upstream.mirrors import Mirrors
builds, address, repo = sys.argv[1:]
got = fetch(Source("lib", address, "1.0"), Path(builds), mirrors=Mirrors.parse([f"{address}={repo}"]),
            on_wait=lambda text: print(text, flush=True))
print(got.created, got.digest, flush=True)
"""
# The real git, which says that it was reached and waits to be let go when it is to fetch.
SLOW_GIT = """#!/bin/sh
case " $* " in *" fetch "*)
    echo $$ > "$GATE.pid"
    touch "$GATE.reached"
    while [ ! -e "$GATE" ]; do sleep 0.02; done;;
esac
exec {git} "$@"
"""


class Repository:
    """A git repository to fetch from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
        person = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "protocol.file.allow=always")
        done = process.run(["git", *person, *arguments], cwd=self.path, env=env, timeout_s=60)
        assert done.ok, done.stderr
        return done.stdout.strip()

    def commit(self, files: dict[str, str | bytes | Path], tag: str = "") -> str:
        """Write files (a Path is a symbolic link's target) and commit them; the commit."""
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                path.symlink_to(content)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=x")
        if tag:
            self.git("tag", "--annotate", "--message=x", tag)
        return self.git("rev-parse", "HEAD")

    def submodule(self, path: str, url: str, commit: str, more: str = "") -> None:
        """Add what `git submodule add` would, without reading ``url``."""
        with (self.path / ".gitmodules").open("a") as file:
            file.write(f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n{more}')
        self.git("add", ".gitmodules")
        self.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
        self.git("commit", "--quiet", "--message=submodule")


@pytest.fixture(autouse=True)
def plain_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in checkouts.PASSED:
        if name != "PATH":
            monkeypatch.delenv(name, raising=False)


@pytest.fixture
def lib(tmp_path: Path) -> Repository:
    """Tag 1.0, then main one commit on."""
    made = Repository(tmp_path / "repos" / "lib")
    (made.path / "tool.sh").write_text("#!/bin/sh\n")
    (made.path / "tool.sh").chmod(0o755)
    made.commit({"include/lib.h": "one\n", "link.h": Path("include/lib.h")}, tag="1.0")
    made.commit({"include/lib.h": "two\n"})
    return made


@pytest.fixture
def builds(tmp_path: Path) -> Path:
    return tmp_path / "builds"


@pytest.fixture
def slow_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The gate; a file beside it tells that a fetch has begun."""
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(SLOW_GIT.format(git=shutil.which("git")))
    program.chmod(0o755)
    gate = tmp_path / "gate"
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(checkouts, "PASSED", (*checkouts.PASSED, "GATE"))
    monkeypatch.setenv("GATE", str(gate))
    yield gate
    gate.touch()


def at(repository: Repository | Path, address: str = ADDRESS) -> Mirrors:
    path = repository.path if isinstance(repository, Repository) else repository
    return Mirrors(((address, path),))


def get(ref: str, builds: Path, mirrors: Mirrors, address: str = ADDRESS) -> Fetched:
    return fetch(Source("lib", address, ref), builds, mirrors=mirrors)


def failure(source: Source, builds: Path, mirrors: Mirrors | None = None, offline: bool = False) -> str:
    """The line that a fetch fails with; it must leave nothing behind."""
    with pytest.raises(SourceUnavailable) as caught:
        fetch(source, builds, mirrors=mirrors or Mirrors(), offline=offline)
    assert nothing_in(builds)
    assert "\n" not in caught.value.line()
    return caught.value.line()


def nothing_in(builds: Path) -> bool:
    return not list((builds / "sources").iterdir())


# --- what is fetched ------------------------------------------------------------------------------------


def test_a_tag_as_git_has_it(lib: Repository, builds: Path) -> None:
    made = get("1.0", builds, at(lib))
    assert made.created and made.origin == str(lib.path)
    assert made.commit == lib.git("rev-parse", "1.0^{commit}")
    assert (made.folder / "include/lib.h").read_text() == "one\n"
    assert (made.folder / "link.h").readlink() == Path("include/lib.h")
    assert os.access(made.folder / "tool.sh", os.X_OK) and not os.access(
        made.folder / "include/lib.h", os.X_OK
    )
    assert sorted(p.name for p in made.folder.iterdir()) == ["include", "link.h", "tool.sh"]
    assert sorted(p.name for p in made.folder.parent.iterdir()) == ["source.json", "tree"]
    assert made.folder.parent.parent == builds / "sources"
    assert [p.name for p in (builds / "sources").iterdir()] == [made.folder.parent.name]


def test_branches_commits_short_commits_and_the_head(lib: Repository, builds: Path) -> None:
    first, second = lib.git("rev-parse", "1.0^{commit}"), lib.git("rev-parse", "main")
    lib.git("branch", "side/way", first)
    wanted = {
        "main": second, "origin/main": second, "side/way": first, "refs/heads/side/way": first, "": second,
        first: first, first.upper(): first, first[:7]: first, lib.git("rev-parse", "1.0"): first,
    }  # fmt: skip
    assert {ref: get(ref, builds, at(lib)).commit for ref in wanted} == wanted


def test_a_tag_goes_before_a_branch_of_its_name(lib: Repository, builds: Path) -> None:
    lib.git("tag", "both", "1.0^{commit}")
    lib.git("branch", "both", "main")
    assert (get("both", builds, at(lib)).folder / "include/lib.h").read_text() == "one\n"


def test_a_commit_of_a_server_that_gives_only_branches_and_tags(
    lib: Repository, builds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkouts, "SETTINGS", checkouts.SETTINGS.replace("version = 2", "version = 0"))
    inner = lib.commit({"include/lib.h": "three\n"})
    lib.commit({"include/lib.h": "four\n"})
    assert (get(inner, builds, at(lib)).folder / "include/lib.h").read_text() == "three\n"


def test_found_again_without_mirror_and_network(lib: Repository, builds: Path) -> None:
    made = get("1.0", builds, at(lib))
    shutil.rmtree(lib.path)
    again = fetch(Source("lib", ADDRESS, "1.0"), builds, offline=True)
    assert not again.created and again.seconds < 0.5
    assert (again.folder, again.digest, again.commit, again.origin, again.files) == (
        made.folder,
        made.digest,
        made.commit,
        made.origin,
        3,
    )
    assert made.seconds > 0 and again.source == Source("lib", ADDRESS, "1.0")


@pytest.mark.parametrize(
    "damage", ["a file is gone", "a file is cut", "half a record", "no record", "a file"]
)
def test_what_is_not_whole_is_fetched_again(damage: str, lib: Repository, builds: Path) -> None:
    made = get("1.0", builds, at(lib))
    home = made.folder.parent
    record = home / "source.json"
    if damage == "a file is gone":
        (made.folder / "include/lib.h").unlink()
    elif damage == "a file is cut":
        (made.folder / "include/lib.h").write_text("")
    elif damage == "half a record":
        record.write_text(record.read_text()[:50])
    elif damage == "no record":
        record.unlink()
    else:
        shutil.rmtree(home)
        home.write_text("")
    again = get("1.0", builds, at(lib))
    assert again.created and again.digest == made.digest
    assert (made.folder / "include/lib.h").read_text() == "one\n"
    assert [p.name for p in home.parent.iterdir()] == [home.name]


def test_digest_tells_content_and_not_who_fetched_it(lib: Repository, tmp_path: Path) -> None:
    digests = [get("1.0", tmp_path / "a", at(lib)).digest]
    usual = os.umask(0o077)
    try:
        digests.append(get(lib.git("rev-parse", "1.0^{commit}"), tmp_path / "b", at(lib)).digest)
    finally:
        os.umask(usual)
    packed = tmp_path / "lib-1.0.tar.gz"
    lib.git("archive", "--prefix=lib-1.0/", f"--output={packed}", "1.0")
    source = Source("other", "https://forge.invalid/lib-1.0.tar.gz", archive=True)
    digests.append(fetch(source, tmp_path / "c", mirrors=at(packed, source.address)).digest)
    assert len(set(digests)) == 1
    assert get("main", tmp_path / "a", at(lib)).digest != digests[0]


@pytest.mark.parametrize("change", ["content", "name", "mode", "link", "kind"])
def test_digest_tells_every_change(change: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    file, link = tmp_path / "d" / "f", tmp_path / "l"
    file.write_text("x")
    link.symlink_to("d/f")
    before = contents.digest_of(tmp_path)
    (tmp_path / "empty").mkdir()
    os.utime(file, (1, 1))
    assert contents.digest_of(tmp_path) == before
    if change == "content":
        file.write_text("y")
    elif change == "name":
        file.rename(file.with_name("g"))
    elif change == "mode":
        file.chmod(0o755)
    else:
        link.unlink()
        link.symlink_to("d/g") if change == "link" else link.write_text("d/f")
    assert contents.digest_of(tmp_path) != before


# --- submodules -----------------------------------------------------------------------------------------


def nested(tmp_path: Path) -> Mirrors:
    """lib has a submodule by address, and that has one beside itself; a third is not wanted."""
    inmost = Repository(tmp_path / "repos" / "inmost")
    inner = Repository(tmp_path / "elsewhere")
    inner.commit({"inner.h": "inner\n"})
    inner.submodule("deep/est", "../inmost", inmost.commit({"inmost.h": "inmost\n"}))
    lib = Repository(tmp_path / "repos" / "lib")
    lib.commit({"lib.h": "lib\n"})
    lib.submodule("ext/inner", "https://other.invalid/x/inner.git", inner.git("rev-parse", "HEAD"))
    lib.submodule("never", "https://gone.invalid/x", inner.git("rev-parse", "HEAD"), "\tupdate = none\n")
    lib.git("tag", "1.0")
    return Mirrors(
        (
            ("https://forge.invalid/people", tmp_path / "repos"),
            ("https://other.invalid/x/inner", inner.path),
            ("https://other.invalid/x/inmost", inmost.path),
        )
    )


def test_submodules_come_along_each_by_its_mirror(tmp_path: Path, builds: Path) -> None:
    made = get("1.0", builds, nested(tmp_path))
    assert (made.folder / "ext/inner/inner.h").read_text() == "inner\n"
    assert (made.folder / "ext/inner/deep/est/inmost.h").read_text() == "inmost\n"
    assert not list(made.folder.rglob(".git"))
    parts = json.loads((made.folder.parent / "source.json").read_text())["parts"]
    assert [(part["path"], part["address"], part["origin"]) for part in parts] == [
        ("", ADDRESS, str(tmp_path / "repos/lib")),
        ("ext/inner", "https://other.invalid/x/inner.git", str(tmp_path / "elsewhere")),
        ("ext/inner/deep/est", "https://other.invalid/x/inmost", str(tmp_path / "repos/inmost")),
    ]
    assert made.commit == parts[0]["commit"]


def test_a_submodule_without_its_mirror(tmp_path: Path, builds: Path) -> None:
    pairs = nested(tmp_path).pairs
    line = failure(Source("lib", ADDRESS, "1.0"), builds, Mirrors(pairs[:2]), offline=True)
    assert "https://other.invalid/x/inmost with --mirror PREFIX=PATH" in line
    shutil.rmtree(pairs[1][1])
    line = failure(Source("lib", ADDRESS, "1.0"), builds, Mirrors(pairs))
    assert f"{pairs[1][1]} is no git repository" in line


@pytest.mark.parametrize("url", ["/etc", "file:///etc", "git@other.invalid:x/y", "../../../../x", "-x"])
def test_a_submodule_of_an_address_that_is_refused(url: str, lib: Repository, builds: Path) -> None:
    lib.submodule("ext", url, lib.git("rev-parse", "HEAD"))
    failure(Source("lib", ADDRESS, "main"), builds, at(lib))


def test_a_submodule_without_address(lib: Repository, builds: Path) -> None:
    lib.git("update-index", "--add", "--cacheinfo", f"160000,{lib.git('rev-parse', 'HEAD')},ext/x")
    lib.git("commit", "--quiet", "--message=x")
    assert "no address for the submodule ext/x" in failure(Source("lib", ADDRESS, "main"), builds, at(lib))


def test_submodules_without_end(lib: Repository, builds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        lib.submodule(f"sub{number}", ADDRESS, lib.git("rev-parse", "1.0^{commit}"))
    assert get("main", builds, at(lib)).files == 3 * 5 + 1
    monkeypatch.setattr(checkouts, "MOST", 4)
    assert "more than 4 submodules" in failure(Source("lib", ADDRESS, "main"), builds / "other", at(lib))


def test_a_submodule_behind_a_link(tmp_path: Path) -> None:
    # As a file system that knows no capitals would have it: Ext is a link, ext/sub a submodule.
    (tmp_path / "scratch").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "ext").symlink_to(tmp_path)
    errand = origins.Errand("lib", tmp_path / "scratch", Mirrors(), True, 0.0)
    with pytest.raises(SourceUnavailable, match="behind a symbolic link"):
        checkouts._Clones(errand)._place(tmp_path / "tree", "ext/sub")


@pytest.mark.parametrize(
    ("parent", "url", "whole"),
    [
        ("https://h/a/b.git", "https://k/c", "https://k/c"),
        ("https://h/a/b.git", "../c.git", "https://h/a/c.git"),
        ("https://h/a/b/", "../../x/c", "https://h/x/c"),
        ("https://h/a/b", "./c", "https://h/a/b/c"),
        ("https://h/a/b", "../../../c", ""),
    ],
)
def test_address_of_a_submodule(parent: str, url: str, whole: str) -> None:
    assert checkouts._beside(parent, url) == whole


# --- mirrors and addresses ------------------------------------------------------------------------------


def test_mirrors_of_a_whole_host(lib: Repository, tmp_path: Path, builds: Path) -> None:
    bare = tmp_path / "bare" / "people" / "lib.git"
    lib.git("clone", "--quiet", "--bare", str(lib.path), str(bare))
    for number, address in enumerate(
        (ADDRESS, ADDRESS.removesuffix(".git"), ADDRESS.removesuffix(".git") + "/")
    ):
        made = get("1.0", builds / str(number), at(tmp_path / "bare", "https://forge.invalid"), address)
        assert made.origin == str(bare)


def test_an_address_that_is_not_https_needs_a_mirror(lib: Repository, builds: Path) -> None:
    for address in (
        f"file://{lib.path}", str(lib.path), "../lib", "git@forge.invalid:people/lib", "ssh://forge.invalid/lib",
        "git://forge.invalid/lib", "http://forge.invalid/lib", "ext::sh -c id", "https:", "https://[x/y",
    ):  # fmt: skip
        for archive in (False, True):
            failure(Source("lib", address, "1.0", archive=archive), builds)
    line = failure(Source("lib", str(lib.path), "1.0"), builds)
    assert f"{lib.path} is not an https address" in line and "--mirror PREFIX=PATH" in line
    ssh = "git@forge.invalid:people/lib"
    assert get("1.0", builds, at(lib, ssh), ssh).created


@pytest.mark.parametrize(
    "address", ["", "https://forge.invalid/../x", "--upload-pack=x", "https://a b/", "https://a/\nb"]
)
def test_what_is_no_address(address: str, tmp_path: Path, builds: Path) -> None:
    anywhere = at(tmp_path, "https://forge.invalid")
    for archive in (False, True):
        assert f"{address!a} is no address" in failure(
            Source("lib", address, archive=archive), builds, anywhere
        )


@pytest.mark.parametrize("ref", ["--upload-pack=touch x", "a\nb"])
def test_what_is_no_ref(ref: str, lib: Repository, builds: Path) -> None:
    assert f"{ref!a} is no tag, branch or commit" in failure(Source("lib", ADDRESS, ref), builds, at(lib))


def test_names_stay_inside_the_folder(lib: Repository, builds: Path) -> None:
    made = fetch(Source("../../Evil name", ADDRESS, "1.0"), builds, mirrors=at(lib))
    assert made.folder.parent.parent == builds / "sources"


def test_credentials_are_not_shown(builds: Path) -> None:
    source = Source("lib", "https://me:secret@127.0.0.1:1/lib", "1.0")
    assert "secret" not in failure(source, builds) and "secret" not in failure(source, builds, offline=True)


# --- what is not there ----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [Source("lib", NOBODY, "1.0"), Source("lib", NOBODY, "a" * 40),
                                    Source("lib", NOBODY, archive=True)])  # fmt: skip
def test_no_network(source: Source, builds: Path) -> None:
    line = failure(source, builds)
    assert "refused" in line.lower() or "port 1" in line
    assert f"name a local copy of {NOBODY} with --mirror PREFIX=PATH, or try again online" in line
    line = failure(source, builds, offline=True)
    assert "the network may not be asked; name a local copy of" in line


def test_a_tag_that_is_not_there(lib: Repository, builds: Path) -> None:
    line = failure(Source("lib", ADDRESS, "1.1"), builds, at(lib))
    assert line.startswith("lib 1.1 could not be fetched: ")
    assert f"{lib.path} has no tag or branch 1.1, the nearest are 1.0; bring the mirror up to date" in line


@pytest.mark.parametrize("ref", ["b" * 40, "bbbbbbb", "refs/heads/gone"])
def test_a_commit_that_is_not_there(ref: str, lib: Repository, builds: Path) -> None:
    assert f"has no commit {ref}" in failure(Source("lib", ADDRESS, ref), builds, at(lib))


def test_what_is_no_commit(lib: Repository, builds: Path) -> None:
    lib.git("tag", "tree", "main^{tree}")
    assert "has no commit tree" in failure(Source("lib", ADDRESS, "tree"), builds, at(lib))


def test_an_empty_repository(tmp_path: Path, builds: Path) -> None:
    empty = Repository(tmp_path / "empty")
    failure(Source("lib", ADDRESS), builds, at(empty))
    empty.commit({})
    assert "there is nothing in it" in failure(Source("lib", ADDRESS), builds, at(empty))


def test_a_mirror_that_is_broken(lib: Repository, builds: Path) -> None:
    blob = lib.git("rev-parse", "1.0:include/lib.h")
    (lib.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    assert f"see whether {lib.path} is whole" in failure(Source("lib", ADDRESS, "1.0"), builds, at(lib))


def test_no_git(lib: Repository, builds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="git is not installed"):
        get("1.0", builds, at(lib))
    assert nothing_in(builds)


# --- strangers' repositories are data -------------------------------------------------------------------


def test_nothing_of_the_users_settings_runs_or_changes_files(
    lib: Repository, builds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    hook = tmp_path / "template" / "hooks" / "post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text(
        f'[filter "evil"]\n\tsmudge = touch {ran}\n[core]\n\tautocrlf = true\n\thooksPath = {hook.parent}\n'
        f"[init]\n\ttemplateDir = {tmp_path / 'template'}\n"
    )
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(hook.parent))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    lib.commit({".gitattributes": "*.h filter=evil\n*.txt eol=crlf\n", "a.txt": "a\n"}, tag="2.0")
    made = get("2.0", builds, at(lib))
    assert (made.folder / "include/lib.h").read_bytes() == b"two\n"
    assert (made.folder / "a.txt").read_bytes() == b"a\r\n", "what the repository itself asks for is done"
    assert not ran.exists()


def test_the_users_proxy_is_used(builds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / ".gitconfig").write_text(
        '[http]\n\tproxy = http://127.0.0.1:1\n\n[http "https://other.invalid"]\n\tproxy = x\n'
    )
    # A name that no one resolves: without the proxy git would say so.
    assert "port 1" in failure(Source("lib", ADDRESS, "1.0"), builds)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../..", "../include/../../x"])
def test_a_link_out_of_a_repository(target: str, lib: Repository, builds: Path) -> None:
    lib.commit({"deep/link": Path(target), "include/lib.h": "x"}, tag="2.0")
    assert "'deep/link', which leads out of it" in failure(Source("lib", ADDRESS, "2.0"), builds, at(lib))


# --- archives -------------------------------------------------------------------------------------------

RELEASE = "https://forge.invalid/people/lib/releases/download/1.0/lib.tar.xz"


@pytest.mark.parametrize(
    "address",
    [
        RELEASE,
        "https://forge.invalid/people/lib/archive/refs/tags/1.0.tar.gz",
        "https://forge.invalid/people/lib/archive/1.0.zip",
    ],
)
def test_an_archive_from_a_git_mirror(address: str, lib: Repository, builds: Path) -> None:
    wanted = get("1.0", builds, at(lib))
    for number, mirrors in enumerate(
        (at(lib, "https://forge.invalid/people/lib"), at(lib.path.parent, "https://forge.invalid/people"))
    ):
        made = fetch(Source("lib", address, archive=True), builds / str(number), mirrors=mirrors)
        assert (made.digest, made.commit, made.origin) == (wanted.digest, wanted.commit, str(lib.path))


def test_an_archive_from_a_folder(lib: Repository, tmp_path: Path, builds: Path) -> None:
    place = tmp_path / "files/people/lib/releases/download/1.0"
    place.mkdir(parents=True)
    with tarfile.open(place / "lib.tar.xz", "w:xz") as packed:
        packed.add(lib.path / "include", "lib/include")
    made = fetch(
        Source("json", RELEASE, archive=True), builds, mirrors=at(tmp_path / "files", "https://forge.invalid")
    )
    assert [p.name for p in made.folder.iterdir()] == ["include"] and made.origin == str(place / "lib.tar.xz")
    assert made.commit == ""


def test_the_hash_of_an_archive(tmp_path: Path, lib: Repository, builds: Path) -> None:
    packed = tmp_path / "lib.tar"
    lib.git("archive", f"--output={packed}", "1.0")
    good = contents.sha256_of(packed)
    asked = Source("lib", RELEASE, archive=True, sha256=good.upper())
    assert fetch(asked, builds, mirrors=at(packed, RELEASE)).created
    bad = Source("lib", RELEASE, archive=True, sha256="0" * 64)
    line = failure(bad, builds / "other", at(packed, RELEASE))
    assert f"has the SHA-256 {good[:12]}… and 000000000000… is asked for" in line
    line = failure(asked, builds / "other", at(lib, "https://forge.invalid/people/lib"))
    assert "asked for by its hash" in line and "longer --mirror" in line


def test_an_archive_that_its_mirror_does_not_have(lib: Repository, tmp_path: Path, builds: Path) -> None:
    source = Source("lib", RELEASE, archive=True)
    assert f"there is no {tmp_path}" in failure(source, builds, at(tmp_path, "https://forge.invalid"))
    lib.git("tag", "--delete", "1.0")
    here = at(lib, "https://forge.invalid/people/lib")
    assert "has no tag or branch 1.0" in failure(source, builds, here)
    unnamed = Source("lib", "https://forge.invalid/people/lib/lib.tar.xz", archive=True)
    assert "does not say which tag" in failure(unnamed, builds, here)


@pytest.mark.parametrize(
    ("address", "ref"),
    [
        ("https://h/a/b/releases/download/v3.11.3/json.tar.xz", "v3.11.3"),
        ("https://h/a/b/releases/download/rel%2F1/x.zip", "rel/1"),
        ("https://h/a/b/archive/refs/tags/v1.0.tar.gz", "refs/tags/v1.0"),
        ("https://h/a/b/archive/refs/heads/a/b.zip", "refs/heads/a/b"),
        ("https://h/a/b/archive/1.2.3.tgz", "1.2.3"),
        ("https://h/a/b/files/x.zip", ""),
    ],
)
def test_ref_of_an_archive(address: str, ref: str) -> None:
    assert origins.archive_ref(address) == ref


# --- several at once, killed, no room, no time ----------------------------------------------------------


def start(builds: Path, lib: Repository) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", "from bisect_tool.building import checkouts\n"
            "checkouts.PASSED += ('GATE',)\n" + CHILD, str(builds), ADDRESS, str(lib.path)]  # fmt: skip
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_two_at_once_fetch_once(lib: Repository, builds: Path, slow_git: Path) -> None:
    first = start(builds, lib)
    wait_for(slow_git.with_name("gate.reached"))
    second = start(builds, lib)
    assert second.stdout is not None
    assert second.stdout.readline() == "waiting for another bisect_tool to finish fetching lib 1.0\n"
    slow_git.touch()
    said = [child.communicate(timeout=60)[0].split() for child in (first, second)]
    assert [words[0] for words in said] == ["True", "False"]
    assert said[0][1] == said[1][1]


def test_killed_it_leaves_nothing_under_its_name(lib: Repository, builds: Path, slow_git: Path) -> None:
    child = start(builds, lib)
    wait_for(slow_git.with_name("gate.reached"))
    child.send_signal(signal.SIGKILL)
    child.communicate()
    process.kill_group(int(slow_git.with_name("gate.pid").read_text()))  # it would go on for a while
    left = [p.name for p in (builds / "sources").iterdir()]
    assert len(left) == 1 and left[0].startswith(".lib-") and left[0].endswith(".tmp")
    slow_git.touch()
    made = get("1.0", builds, at(lib))
    assert made.created and [p.name for p in (builds / "sources").iterdir()] == [made.folder.parent.name]


def test_interrupted_it_leaves_nothing(lib: Repository, builds: Path, slow_git: Path) -> None:
    child = start(builds, lib)
    wait_for(slow_git.with_name("gate.reached"))
    child.send_signal(signal.SIGINT)
    assert child.wait(30) != 0
    child.communicate()
    assert nothing_in(builds)


def test_out_of_time(lib: Repository, builds: Path, slow_git: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"git ran past its 1 s"):
        fetch(Source("lib", ADDRESS, "1.0"), builds, mirrors=at(lib), timeout_s=0.3)
    assert slow_git.with_name("gate.reached").exists() and nothing_in(builds)


@pytest.mark.parametrize("archive", [False, True])
def test_full_disk(archive: bool, lib: Repository, small_disk: Path) -> None:
    lib.commit({"big": random.Random(1).randbytes(8_000_000)}, tag="2.0")
    (small_disk / "in the way").write_bytes(bytes(18_000_000))
    builds = small_disk / "builds"
    if archive:
        packed = lib.path.parent / "lib.tar"
        lib.git("archive", f"--output={packed}", "2.0")
        source, mirrors = Source("lib", RELEASE, archive=True), at(packed, RELEASE)
    else:
        source, mirrors = Source("lib", ADDRESS, "2.0"), at(lib)
    with pytest.raises(DiskFull) as caught:
        fetch(source, builds, mirrors=mirrors)
    assert "free some space or name another folder with --builds DIR" in caught.value.line()
    assert nothing_in(builds)


def test_builds_that_cannot_be_used(lib: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentBroken, match="cannot be used"):
        get("1.0", tmp_path / "file", at(lib))


def test_what_is_no_file_or_link_leads_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert list(contents.leading_out(tmp_path)) == ["pipe"]
