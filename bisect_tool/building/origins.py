"""Where the bytes of an outside source come from: a local copy that a mirror names, or the network.

The addresses stand in a commit's own CMakeLists.txt, so a stranger may have written them: one that is not
https leads nowhere unless the user's mirrors say where.
"""

from __future__ import annotations

import re
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from bisect_tool.errors import DiskFull, SourceUnavailable
from bisect_tool.upstream.mirrors import Mirrors
from bisect_tool.upstream.releases import without_credentials

FULL_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True)
class Errand:
    """One fetch. ``subject`` names the source in messages, ``scratch`` is a folder of its own that is removed
    afterwards, ``deadline`` is a ``time.monotonic()``.
    """

    subject: str
    scratch: Path
    mirrors: Mirrors
    offline: bool
    deadline: float

    def left_s(self) -> float:
        return max(1.0, self.deadline - time.monotonic())

    def failed(self, why: str, remedy: str = "") -> SourceUnavailable:
        return SourceUnavailable(f"{self.subject} could not be fetched", without_credentials(why), remedy)

    def unreachable(self, address: str, why: str) -> SourceUnavailable:
        """The network did not give ``address``, or may not be asked for it."""
        remedy = f"name a local copy of {shown(address)} with --mirror PREFIX=PATH, or try again online"
        return self.failed(why, remedy)

    def no_room(self, why: str) -> DiskFull:
        what = f"no room for {self.subject}"
        return DiskFull(what, why, "free some space or name another folder with --builds DIR")


@dataclass(frozen=True)
class Origin:
    """``local``: the git repository or the file to read instead of ``address``; None: the network.

    ``ref``: of an archive that is made from a git repository, the tag, branch or commit it holds.
    """

    address: str
    local: Path | None = None
    ref: str = ""

    def text(self) -> str:
        """What is read, fit to print and to record."""
        return str(self.local) if self.local is not None else shown(self.address)


def of_git(address: str, errand: Errand) -> Origin:
    """Where the git repository ``address`` is read. Raises ``SourceUnavailable``."""
    _check(address, errand)
    found = errand.mirrors.local(address)
    if found is None:
        return _remote(address, errand)
    mirror, rest = found[0], found[1].strip("/")
    for candidate in dict.fromkeys(
        (mirror / rest, mirror / f"{rest}.git", mirror / rest.removesuffix(".git"))
    ):
        if is_repository(candidate):
            return Origin(address, candidate)
    raise errand.failed(
        f"{mirror / rest} is no git repository, and the mirrors say that {shown(address)} is there",
        "correct --mirror PREFIX=PATH or leave it out",
    )


def of_archive(address: str, errand: Errand) -> Origin:
    """Where the archive ``address`` is read: a file, or a git repository that has its tag, or the network.

    Raises ``SourceUnavailable``.
    """
    _check(address, errand)
    found = errand.mirrors.local(address)
    if found is None:
        return _remote(address, errand)
    mirror, rest = found[0], found[1].strip("/")
    if (mirror / rest).is_file():
        return Origin(address, mirror / rest)
    # The repository may be the mirror itself or lie below it: mirrors of a whole host are folders of them.
    parts = rest.split("/")
    for count in range(len(parts)):
        folder = mirror.joinpath(*parts[:count])
        for candidate in (folder, folder.with_name(f"{folder.name}.git")):
            if is_repository(candidate):
                return Origin(address, candidate, _ref_of(address, candidate, errand))
    raise errand.failed(
        f"there is no {mirror / rest}, and the mirrors say that {shown(address)} is there",
        "correct --mirror PREFIX=PATH or leave it out",
    )


def archive_ref(address: str) -> str:
    """Pure: the ref that a forge's archive address holds, or ''.

    ``…/releases/download/<tag>/x.tar.xz``, ``…/archive/refs/tags/<tag>.tar.gz``, ``…/archive/<ref>.zip``.
    """
    path = urllib.parse.unquote(urllib.parse.urlsplit(address).path)
    if found := re.search(r"/releases/download/(.+)/[^/]+$", path):
        return found[1]
    if found := re.search(r"/archive/(.+?)\.(?:zip|tar|tgz|tar\.\w+)$", path):
        return found[1]
    return ""


def is_repository(path: Path) -> bool:
    """Whether git would take ``path`` for a repository: a work tree, or a bare one."""
    if (path / ".git").exists():
        return True
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()


def shown(address: str) -> str:
    return without_credentials(address)


def _remote(address: str, errand: Errand) -> Origin:
    parts = urllib.parse.urlsplit(address)
    if parts.scheme != "https" or not parts.hostname:
        raise errand.failed(
            f"{shown(address)} is not an https address", "name a local copy of it with --mirror PREFIX=PATH"
        )
    if errand.offline:
        raise errand.unreachable(address, "it is not here yet and the network may not be asked")
    return Origin(address)


def _ref_of(address: str, repository: Path, errand: Errand) -> str:
    ref = archive_ref(address)
    if not ref:
        raise errand.failed(
            f"{repository} is a git repository, and {shown(address)} does not say which tag it holds",
            "name the archive itself with a longer --mirror PREFIX=PATH",
        )
    return ref


def _check(address: str, errand: Errand) -> None:
    """Refuse what would leave a mirror's folder, or reach git as an option."""
    try:
        path = urllib.parse.urlsplit(address).path
    except ValueError:
        path = ".."
    if (
        not address
        or not address.isprintable()
        or " " in address
        or ".." in path.split("/")
        or address[0] == "-"
    ):
        raise errand.failed(f"{address!a} is no address")
