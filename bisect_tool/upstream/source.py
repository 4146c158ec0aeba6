"""Where the clone takes its commits from: an address, or a repository on this machine."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from bisect_tool.errors import UsageProblem
from bisect_tool.upstream.git_calls import Git, without_credentials
from bisect_tool.upstream.mirrors import Mirrors, is_address

PROJECT = ("upstream", "origin")  # what a clone calls the repository that it is of
_MAIN = ("main", "master")
PUBLIC = "https://github.com/ml-explore/mlx"
# Of a local repository: what its owner keeps, what came from elsewhere, and pull requests.
_BORROWED = ("refs/heads", "refs/tags", "refs/remotes", "refs/pull/*/head")


@dataclass(frozen=True)
class Source:
    """``address``: as given. ``git_dir``: of a local repository, whose objects are borrowed; None for an
    address that is fetched from. ``objects``: its object folders, absolute."""

    address: str
    git_dir: Path | None = None
    objects: tuple[Path, ...] = ()
    bare: bool = False

    @property
    def shown(self) -> str:
        return without_credentials(self.address)

    @property
    def slug(self) -> str:
        """Its name under ``builds/upstream``: readable, one for each source, in lower case."""
        place = str(self.git_dir) if self.git_dir else self.address.rstrip("/").removesuffix(".git")
        digest = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        parts = [
            part for part in re.split(r"[/:]", self.address.rstrip("/")) if part not in ("", ".git", "repo")
        ]
        words = re.sub(r"[^a-z0-9]+", "-", "-".join(parts[-2:]).removesuffix(".git").lower()).strip("-")
        return f"{words[-40:].strip('-') or 'repository'}-{digest}"


def find(repo: str, mirrors: Mirrors) -> Source:
    """The source that ``repo`` names: an address, one that ``mirrors`` maps to a local copy, or a path.

    Raises UsageProblem for a path that is no repository, a shallow clone and one without all its files.
    """
    if not is_address(repo):
        return _local(Path(repo).expanduser().absolute(), repo)
    mapped = mirrors.local(repo)
    if mapped is None:
        return Source(repo)
    folder, rest = mapped
    tried = folder / rest if rest else folder
    if not tried.exists() and rest:
        tried = folder / f"{rest}.git"
    return _local(tried, str(tried))


def _local(folder: Path, given: str) -> Source:
    remedy = "give --repo the address of MLX's repository or the path of a clone"
    if not given or not folder.exists():
        raise UsageProblem(f"there is no repository at {given!r}", f"{folder} does not exist", remedy)
    if not folder.is_dir():
        raise UsageProblem(f"{given!r} is no git repository", "it is a file", remedy)
    here = Git(cwd=folder)
    # One question a line: what git does not know of, an old one repeats.
    said = here.tries(
        *("rev-parse", "--is-bare-repository", "--is-inside-work-tree", "--is-shallow-repository"),
        *("--absolute-git-dir", "--git-path", "objects", "--show-prefix"),
    )
    answers = said.out.split("\n")
    if not said.ok or len(answers) < 5:
        raise UsageProblem(f"{given!r} is no git repository", said.reason() if said.err else "", remedy)
    bare, inside, shallow = (answer == "true" for answer in answers[:3])
    git_dir = Path(answers[3]).resolve()
    if (inside and answers[5:6] != [""]) or (not inside and git_dir != folder.resolve()):
        raise UsageProblem(
            f"{given!r} is no git repository",
            f"it is a folder within {git_dir.parent if inside else git_dir}",
            remedy,
        )
    if shallow:
        raise UsageProblem(
            f"{given!r} is a shallow clone", "its history is cut off", f"git -C {folder} fetch --unshallow"
        )
    repository = Git(git_dir)
    partial = repository.tries("config", "--get-regexp", r"^(remote\..*\.promisor|extensions\.partialclone)$")
    if partial.out.strip():
        raise UsageProblem(
            f"{given!r} is a partial clone",
            "files of older commits are not in it",
            "give --repo a full clone",
        )
    return Source(given, git_dir, _with_alternates((folder / answers[4]).resolve()), bare)


def _with_alternates(objects: Path) -> tuple[Path, ...]:
    """An object folder and all that it borrows from in turn: git follows relative ones only one step."""
    found: list[Path] = []
    waiting = [objects]
    while waiting:
        folder = waiting.pop(0)
        if folder in found:
            continue
        found.append(folder)
        listed = folder / "info" / "alternates"
        if listed.is_file():
            lines = listed.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            waiting += [(folder / line).resolve() for line in lines if line and line[0] not in '#"']
    return tuple(found)


@dataclass(frozen=True)
class References:
    """The branches, tags and pull requests of a source. ``head``: what its HEAD is, a branch or a sha;
    ``default``: the branch that pull requests are merged into."""

    shas: dict[str, str]
    head: str
    default: str


def references(source: Source) -> References:
    """What a local repository has, read without writing to it."""
    assert source.git_dir is not None
    here = Git(source.git_dir)
    listing = here.says("for-each-ref", "--format=%(objectname) %(refname) %(symref)", *_BORROWED)
    shas, links = {}, {}
    for line in filter(None, listing.split("\n")):
        sha, name, *link = line.split(" ")
        if link and link[0]:
            links[name] = link[0]
        else:
            shas[name] = sha
    head = here.tries("symbolic-ref", "--quiet", "HEAD").out.strip()
    if not head:
        head = here.tries("rev-parse", "--verify", "--quiet", "HEAD").out.strip()
    # With a fork as origin, the project itself is called upstream.
    remotes = [f"refs/remotes/{name}" for name in PROJECT]
    wanted = [links.get(f"{remote}/HEAD", "") for remote in remotes]
    wanted += [f"{remote}/{name}" for remote in remotes for name in _MAIN]
    wanted += [head] if source.bare else []
    wanted += [f"refs/heads/{name}" for name in _MAIN]
    default = next((name for name in [*wanted, head, *shas] if name in shas), "")
    return References(shas, head, default)
