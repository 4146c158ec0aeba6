"""What the room hands out: commits, pull requests, entries of trees."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from bisect_tool.errors import UpstreamUnreachable
from bisect_tool.upstream.revision import Revision

SHORT = 9  # digits of a sha that is shown

_SQUASHED = re.compile(r"\(#(\d+)\)$")
# The modes that git knows; 100664 is of its first years.
_MODE = rb"40000|160000|120000|100644|100755|100664"
_LINES = re.compile(rb"(%b) ([^\0]+)\0(.{20})" % _MODE, re.DOTALL)
_WHOLE = re.compile(rb"(?:(?:%b) [^\0]+\0.{20})*" % _MODE, re.DOTALL)
_MODES = {
    b"40000": ("040000", "tree"),
    b"160000": ("160000", "commit"),
    b"120000": ("120000", "blob"),
    b"100644": ("100644", "blob"),
    b"100755": ("100755", "blob"),
    b"100664": ("100664", "blob"),
}
_MERGED = re.compile(r"Merge pull request #(\d+) from ")


@dataclass(frozen=True)
class Commit:
    """A commit. ``committed``: seconds since 1970, UTC. ``pull``: the pull request that it merged."""

    sha: str
    tree: str
    subject: str
    committed: int
    parents: tuple[str, ...] = ()

    @property
    def pull(self) -> int | None:
        match = _SQUASHED.search(self.subject) or _MERGED.match(self.subject)
        return int(match[1]) if match else None

    @property
    def short(self) -> str:
        return self.sha[:SHORT]


@dataclass(frozen=True)
class Pull:
    """A pull request: parent against merge commit when merged, merge base against head when open.

    ``merge``: the commit of the default branch that carries its number. ``head``: None when it is merged and
    the branch itself could not be had.
    """

    number: int
    head: Commit | None
    merge: Commit | None
    base: Commit

    @property
    def tip(self) -> Commit:
        """The merge commit, else the head."""
        tip = self.merge or self.head
        assert tip is not None
        return tip


@dataclass(frozen=True)
class Resolved:
    """What a revision names. ``trusted``: no stranger's code. ``note``: what to say about it, or nothing."""

    revision: Revision
    commit: Commit
    trusted: bool
    note: str = ""


class Entry(NamedTuple):
    """One line of a tree object. ``mode``: as git writes it, ``100644``; ``kind``: blob, tree or commit."""

    mode: str
    kind: str
    oid: str
    name: str


def entries_of(tree: bytes) -> list[Entry]:
    """The entries of a raw tree object, in its order; names that are no UTF-8 keep their bytes.

    Raises UpstreamUnreachable for what is no tree object.
    """
    if _WHOLE.fullmatch(tree) is None:
        raise UpstreamUnreachable("a folder of a commit cannot be read", "it is damaged")
    return [
        Entry(*_MODES[mode], oid.hex(), name.decode("utf-8", "surrogateescape"))
        for mode, name, oid in _LINES.findall(tree)
    ]
