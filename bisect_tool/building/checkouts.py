"""Git as a fetcher of strangers' repositories, which are data: none of their hooks, filters or settings runs.

Git runs with a home of its own, which holds the only settings it sees, so that a checkout is the same
whoever makes it. Of the user's settings only proxies and certificates are taken over: a stranger chose the
address, so no credentials go there.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bisect_tool import process
from bisect_tool.building import origins
from bisect_tool.building.origins import FULL_SHA, Errand, Origin
from bisect_tool.errors import ToolError, ToolMissing

PASSED = (
    "PATH", "TMPDIR", "DEVELOPER_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH",
    "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "https_proxy", "all_proxy", "no_proxy", "http_proxy",
)  # fmt: skip
# safe.directory: a mirror may belong to another user; that the user named it is enough to read it.
SETTINGS = """\
[core]
	hooksPath = /dev/null
	autocrlf = false
[safe]
	directory = *
[protocol]
	version = 2
[gc]
	auto = 0
[maintenance]
	auto = false
[http]
	lowSpeedLimit = 1000
	lowSpeedTime = 60
"""
TAKEN_OVER = r"^http\.(.*\.)?(proxy|proxyauthmethod|proxysslcainfo|sslcainfo|sslcapath)$"
MOST = 64  # repositories of one source: submodules may have submodules
GITLINK = "160000"


@dataclass(frozen=True)
class Checkout:
    """What a folder was filled with. ``path``: '' or, of a submodule, where it lies in the whole."""

    path: str
    address: str
    commit: str
    origin: str


def check_out(address: str, ref: str, tree: Path, errand: Errand) -> list[Checkout]:
    """Fill the new folder ``tree`` with ``ref`` of a repository and all its submodules, without ``.git``.

    ``ref``: tag (which goes before a branch of that name), branch, commit, or '' for the remote's HEAD.
    Returns what came from where, the repository itself first. Raises ``SourceUnavailable``, ``DiskFull``,
    ``ToolMissing``.
    """
    return _Clones(errand).check_out(address, ref, tree, ())


def archive(origin: Origin, file: Path, errand: Errand) -> str:
    """Write ``origin.ref`` of a local repository as a tar file, as a forge would, and return its commit.

    Raises ``SourceUnavailable``, ``DiskFull``, ``ToolMissing``.
    """
    clones = _Clones(errand)
    git_dir, commit = clones.fetch(origin, origin.ref)
    clones.git("--git-dir", git_dir, "archive", "--format=tar", f"--output={file}", commit)
    return commit


class _Clones:
    """The repositories that one fetch makes in its scratch folder."""

    def __init__(self, errand: Errand) -> None:
        self.errand = errand
        self.made = 0
        self.home = errand.scratch / "home"
        self.home.mkdir()
        (self.home / ".gitconfig").write_text(SETTINGS, encoding="utf-8")
        self.env = {name: os.environ[name] for name in PASSED if name in os.environ}
        self.env |= {
            "HOME": str(self.home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
        }
        self.network = False

    def check_out(self, address: str, ref: str, tree: Path, path: tuple[str, ...]) -> list[Checkout]:
        if self.made >= MOST:
            raise self.errand.failed(f"it has more than {MOST} submodules")
        origin = origins.of_git(address, self.errand)
        git_dir, commit = self.fetch(origin, ref)
        tree.mkdir(exist_ok=True)
        self.git("--git-dir", git_dir, "--work-tree", tree, "checkout", "--quiet", "--force", commit, "--")
        done = [Checkout("/".join(path), origins.shown(address), commit, origin.text())]
        for inner, url, sha in self._submodules(git_dir, tree):
            done += self.check_out(_beside(address, url), sha, self._place(tree, inner), (*path, inner))
        return done

    def fetch(self, origin: Origin, ref: str) -> tuple[Path, str]:
        """A new bare repository that has ``ref`` of ``origin``, and the commit that is."""
        if ref.startswith("-") or not ref.isprintable():
            raise self.errand.failed(f"{ref!a} is no tag, branch or commit")
        if origin.local is None and not self.network:
            self._take_over_network_settings()
        self.env["GIT_ALLOW_PROTOCOL"] = "https" if origin.local is None else "file"
        git_dir = self.errand.scratch / f"git-{self.made}"
        self.made += 1
        self.git("init", "--quiet", "--bare", "--template=", git_dir)
        wanted = ref.lower() if FULL_SHA.fullmatch(ref.lower()) else self._full_name(origin, ref)
        source = str(origin.local or origin.address)
        get = ("--git-dir", git_dir, "fetch", "--quiet", "--no-tags", "--no-recurse-submodules")
        unadvertised = False
        if wanted:
            done = self._run(*get, "--depth=1", "--", source, wanted)
            unadvertised = "unadvertised" in done.stderr
            if not done.ok and not unadvertised:
                raise self._complaint(done, origin, ref)
        if not wanted or unadvertised:
            # A short sha, or a server that gives nothing but its branches and tags: get all of them.
            done = self._run(*get, "--", source, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            if not done.ok:
                raise self._complaint(done, origin, ref)
        name = wanted if FULL_SHA.fullmatch(wanted) else "FETCH_HEAD" if wanted else ref
        found = self._run("--git-dir", git_dir, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        if not found.ok:
            raise self.errand.failed(f"{origin.text()} has no commit {ref}")
        return git_dir, found.stdout.strip()

    def git(self, *arguments: str | Path) -> str:
        """All that a git command prints; raises what its failure means."""
        chunks: list[bytes] = []
        done = self._run(*arguments, chunks=chunks)
        if not done.ok:
            raise self._complaint(done)
        return b"".join(chunks).decode("utf-8", "surrogateescape")

    def _full_name(self, origin: Origin, ref: str) -> str:
        """The full name of a tag or branch, 'HEAD' for '', or '' when ``ref`` can only be a short sha."""
        if not ref or ref.startswith("refs/"):
            return ref or "HEAD"
        source = str(origin.local or origin.address)
        chunks: list[bytes] = []
        done = self._run("ls-remote", "--quiet", "--heads", "--tags", "--", source, chunks=chunks)
        if not done.ok:
            raise self._complaint(done, origin, ref)
        lines = b"".join(chunks).decode("utf-8", "replace").splitlines()
        names = {line.partition("\t")[2] for line in lines}
        # A tag goes before a branch, as in a fresh clone, which is what CMake makes.
        for name in (f"refs/tags/{ref}", f"refs/heads/{ref}", f"refs/heads/{ref.removeprefix('origin/')}"):
            if name in names:
                return name
        if re.fullmatch(r"[0-9a-fA-F]{4,39}", ref):
            return ""
        short = {name.split("/", 2)[2] for name in names if name.count("/") > 1 and not name.endswith("^{}")}
        near = ", ".join(difflib.get_close_matches(ref, sorted(short), n=3, cutoff=0.5))
        raise self.errand.failed(
            f"{origin.text()} has no tag or branch {ref}" + (f", the nearest are {near}" if near else ""),
            "bring the mirror up to date" if origin.local is not None else "",
        )

    def _submodules(self, git_dir: Path, tree: Path) -> list[tuple[str, str, str]]:
        """Path, address and commit of each submodule of a checkout."""
        # From the index, which the checkout has made: git has seen that these paths stay inside.
        listed = self.git("--git-dir", git_dir, "ls-files", "--stage", "-z").split("\0")
        links = [entry.partition("\t") for entry in listed if entry.startswith(GITLINK)]
        if not links:
            return []
        modules: dict[str, dict[str, str]] = {}
        file = tree / ".gitmodules"
        if file.is_file() and not file.is_symlink():
            said = self.git("config", "--file", file, "--no-includes", "--null", "--list")
            for entry in said.split("\0"):
                key, _, value = entry.partition("\n")
                section, _, name = key.rpartition(".")
                if section.startswith("submodule."):
                    modules.setdefault(section, {})[name] = value
        by_path = {module.get("path", ""): module for module in modules.values()}
        found = []
        for about, _, path in links:
            module = by_path.get(path, {})
            if module.get("update") == "none":
                continue
            if not module.get("url"):
                raise self.errand.failed(f"its .gitmodules has no address for the submodule {path}")
            found.append((path, module["url"], about.split()[1]))
        return found

    def _place(self, tree: Path, inner: str) -> Path:
        """The folder for a submodule, which must not be reached through a link of the repository's making."""
        place = tree / inner
        place.mkdir(parents=True, exist_ok=True)
        if place.resolve() != tree.resolve() / inner:
            raise self.errand.failed(f"its submodule {inner} lies behind a symbolic link")
        return place

    def _take_over_network_settings(self) -> None:
        """The user's own proxies and certificates."""
        argv = ["git", "config", "--includes", "--null", "--get-regexp", TAKEN_OVER]
        said = [process.probe([*argv[:2], scope, *argv[2:]]) or "" for scope in ("--system", "--global")]
        for entry in "".join(said).split("\0"):
            key, _, value = entry.partition("\n")
            if key:
                self.git("config", "--file", self.home / ".gitconfig", key, value)
        self.network = True

    def _run(self, *arguments: str | Path, chunks: list[bytes] | None = None) -> process.Finished:
        argv = ["git", *(os.fspath(argument) for argument in arguments)]
        on_stdout = chunks.append if chunks is not None else None
        try:
            return process.run(
                argv,
                env=self.env,
                cwd=self.errand.scratch,
                timeout_s=self.errand.left_s(),
                on_stdout=on_stdout,
            )
        except FileNotFoundError as problem:
            raise ToolMissing("git is not installed", "", "install it") from problem

    def _complaint(self, done: process.Finished, origin: Origin | None = None, ref: str = "") -> ToolError:
        """What a failed git command means."""
        why = done.last_line() or f"git {done.describe()}"
        told = [line for line in done.stderr.splitlines() if line.startswith(("fatal:", "error:"))]
        if done.timed_out:
            why = f"git {done.describe()}"
        elif told:
            why = re.sub(r"^(fatal|error): ", "", told[0])
        if re.search("no space left on device|disk quota exceeded", done.stderr, re.IGNORECASE):
            return self.errand.no_room(why)
        if origin is None:
            return self.errand.failed(why)
        if re.search("not our ref|couldn't find remote ref", done.stderr):
            remedy = "bring the mirror up to date" if origin.local is not None else ""
            return self.errand.failed(f"{origin.text()} has no commit {ref or 'at its HEAD'}", remedy)
        if origin.local is not None:
            return self.errand.failed(why, f"see whether {origin.local} is whole")
        if "could not read Username" in done.stderr:
            why = f"there is no {origin.text()}, or it is not public"
        return self.errand.unreachable(origin.address, why)


def _beside(address: str, url: str) -> str:
    """Pure: the address of a submodule, which may be relative to that of its parent."""
    if not url.startswith(("./", "../")):
        return url
    base = address.rstrip("/")
    host = len(base) - len(urlsplit(base).path)
    while True:
        if url.startswith("../"):
            base, url = base.rpartition("/")[0], url[3:]
            if len(base) < host:
                return ""  # above the host: no address
        elif url.startswith("./"):
            url = url[2:]
        else:
            return f"{base}/{url}"
