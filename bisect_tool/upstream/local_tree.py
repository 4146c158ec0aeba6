"""``path:DIR``: the sources in a folder, with all that is not committed, as a commit in our clone.

Tracked files as they are on disk, and untracked ones that are not ignored. Their repository is only listed:
files are read and hashed here, so that neither filters nor hooks of theirs run and nothing of theirs, not
even the time stamp of a pack that we borrow from, is changed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bisect_tool.errors import UsageProblem
from bisect_tool.upstream import git_calls, history
from bisect_tool.upstream.git_calls import Git
from bisect_tool.upstream.values import SHORT, Commit

if TYPE_CHECKING:
    from bisect_tool.upstream.clone import Upstream

LARGEST_UNTRACKED_MIB = 64  # more is no source; it was forgotten in .gitignore
WHO = "bisect_tool <bisect_tool@localhost>"
SUBJECT = "Working tree"


@dataclass(frozen=True)
class Item:
    """A path of a tree: mode as git writes it, and the object."""

    mode: str
    oid: str


@dataclass
class _Theirs:
    """What their repository says: HEAD, its files, the index, what is neither tracked nor ignored."""

    head: str = ""
    committed: int = 0
    files: dict[str, Item] = field(default_factory=dict)
    index: dict[str, Item] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)  # by a sparse checkout
    untracked: list[str] = field(default_factory=list)


def snapshot(upstream: Upstream, place: str) -> tuple[Commit, str]:
    """The sources in ``place`` as a commit of the clone, always the same for the same content, and a note.

    Raises UsageProblem for a folder that holds no MLX, UpstreamUnreachable, DiskFull.
    """
    folder = Path(place).expanduser().absolute()
    _check(folder, place)
    theirs = _list(upstream, folder)
    try:
        items = dict(_read(upstream, folder, theirs, place))
        tree = _store_tree(upstream, items)
        changed = sum(
            items.get(name) != theirs.files.get(name) for name in items.keys() | theirs.files.keys()
        )
        if theirs.head and not changed and upstream.objects.has(theirs.head):
            return upstream.commit(theirs.head), f"{place} at {theirs.head[:SHORT]}, unchanged"
        sha = _store_commit(upstream, tree, theirs)
    except OSError as problem:
        raise git_calls.explain(problem, upstream.git_dir) from problem
    upstream.close()  # the process that reads objects starts anew and sees them
    note = f"{place}, which is in no repository"
    if theirs.head:
        files = "1 file" if changed == 1 else f"{changed} files"
        note = f"{place} at {theirs.head[:SHORT]} with changes in {files}"
    return history.commits(upstream.git, "-1", sha)[0], note


def changes(upstream: Upstream, commit: Commit) -> str:
    """What stands for the changes of a snapshot against the commit that is checked out there: a digest of
    which files became which, or of the whole tree where that commit is not here; nothing for a commit that
    is no snapshot."""
    if commit.subject != SUBJECT:
        return ""
    if not commit.parents:
        return hashlib.sha256(commit.tree.encode()).hexdigest()
    listed = upstream.git.says("diff-tree", "-r", "-z", "--no-renames", commit.parents[0], commit.sha)
    return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()


def _check(folder: Path, place: str) -> None:
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise UsageProblem(f"'path:{place}' cannot be built", f"{folder} {what}")
    missing = [name for name in ("setup.py", "CMakeLists.txt", "mlx") if not (folder / name).exists()]
    if missing:
        raise UsageProblem(
            f"'path:{place}' is no MLX tree",
            f"{folder} has no {', no '.join(missing)}",
            "name the folder that holds MLX's setup.py",
        )


def _list(upstream: Upstream, folder: Path) -> _Theirs:
    """Ask their repository; a folder that is in none has untracked files only."""
    here = Git(cwd=folder)
    theirs = _Theirs()
    found = here.tries("rev-parse", "--absolute-git-dir", "--show-prefix")
    if not found.ok:
        with tempfile.TemporaryDirectory() as empty:  # an index that is not there: nothing is tracked
            alone = Git(upstream.git_dir, cwd=folder, work_tree=folder, index=Path(empty) / "index")
            theirs.untracked = _names(alone.says("ls-files", "-z", "--others", "--exclude-standard"))
        return theirs
    prefix = found.out.split("\n")[1]
    head = here.tries("log", "-1", "--format=%H %ct", "HEAD", "--")
    if head.ok:
        sha, committed = head.out.split()
        theirs.head, theirs.committed = sha, int(committed)
        listed = here.tries("ls-tree", "-r", "-z", "--full-tree", f"HEAD:{prefix}")
        for line in _names(listed.out) if listed.ok else ():
            facts, _, name = line.partition("\t")
            mode, _, oid = facts.split()
            theirs.files[name] = Item(mode, oid)
    for line in _names(here.says("ls-files", "-z", "-t", "--stage")):
        facts, _, name = line.partition("\t")
        tag, mode, oid, _ = facts.split()
        theirs.index[name] = Item(mode, oid)
        if tag == "S":
            theirs.left_out.add(name)
    theirs.untracked = _names(here.says("ls-files", "-z", "--others", "--exclude-standard"))
    return theirs


def _names(listing: str) -> list[str]:
    return [name for name in listing.split("\0") if name]


def _read(upstream: Upstream, folder: Path, theirs: _Theirs, place: str) -> Iterable[tuple[str, Item]]:
    """Every path of the tree with its object, which is stored."""
    links: dict[str, bool] = {}
    for name in [*theirs.index, *theirs.untracked]:
        path = folder / name
        item = theirs.index.get(name)
        if item is not None and item.mode == "160000":
            yield name, item
            continue
        try:
            found = None if _through_link(folder, name, links) else path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            found = None
        # A folder here is a repository within, which is no source of this one.
        if found is None or not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            if item is not None and name in theirs.left_out:
                if not upstream.objects.has(item.oid):
                    raise UsageProblem(
                        f"'path:{place}' is a sparse checkout",
                        f"{name} is not there",
                        f"git -C {folder} sparse-checkout disable",
                    )
                yield name, item
            continue
        if item is None and found.st_size > LARGEST_UNTRACKED_MIB * 2**20:
            raise UsageProblem(
                f"'path:{place}' holds {name}, which is untracked and has {found.st_size // 2**20} MiB",
                "",
                "move it, or add it to .gitignore",
            )
        try:
            if stat.S_ISLNK(found.st_mode):
                yield name, Item("120000", store(upstream, "blob", os.fsencode(path.readlink())))
            else:
                mode = "100755" if found.st_mode & stat.S_IXUSR else "100644"
                yield name, Item(mode, store(upstream, "blob", path.read_bytes()))
        except PermissionError as problem:
            raise UsageProblem(f"'path:{place}' cannot be read", f"{path}: {problem.strerror}") from problem


def _through_link(folder: Path, name: str, links: dict[str, bool]) -> bool:
    """Whether a folder on the way to ``name`` is a link: what is behind it is not of this tree."""
    parent = name.rpartition("/")[0]
    if not parent:
        return False
    if parent not in links:
        links[parent] = (folder / parent).is_symlink() or _through_link(folder, parent, links)
    return links[parent]


def _store_tree(upstream: Upstream, items: Mapping[str, Item]) -> str:
    """Write the tree objects of ``items``; returns the outermost one."""
    below: dict[str, dict[str, Item]] = {}
    here: dict[str, Item] = {}
    for path, item in items.items():
        name, mark, rest = path.partition("/")
        if mark:
            below.setdefault(name, {})[rest] = item
        else:
            here[name] = item
    for name, content in below.items():
        here[name] = Item("40000", _store_tree(upstream, content))
    lines = []
    for name, item in here.items():
        raw = os.fsencode(name)
        # git sorts a folder as if its name ended in a slash.
        order = raw + b"/" if item.mode == "40000" else raw
        lines.append((order, item.mode.encode() + b" " + raw + b"\0" + bytes.fromhex(item.oid)))
    return store(upstream, "tree", b"".join(line for _, line in sorted(lines)))


def _store_commit(upstream: Upstream, tree: str, theirs: _Theirs) -> str:
    """Write a commit that is the same for the same content: no time of ours, no name of a user's."""
    when = f"{WHO} {theirs.committed} +0000"
    lines = [f"tree {tree}"]
    if theirs.head and upstream.objects.has(theirs.head):
        lines.append(f"parent {theirs.head}")
    text = "\n".join([*lines, f"author {when}", f"committer {when}", "", SUBJECT, ""])
    return store(upstream, "commit", text.encode())


def store(upstream: Upstream, kind: str, content: bytes) -> str:
    """Put an object into the clone unless it has it, borrowed or not; returns its sha."""
    whole = f"{kind} {len(content)}".encode() + b"\0" + content
    oid = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
    if upstream.objects.has(oid):
        return oid
    folder = upstream.git_dir / "objects" / oid[:2]
    folder.mkdir(exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix="tmp_obj_")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(zlib.compress(whole, 1))
            os.fchmod(file.fileno(), 0o444)
        Path(name).replace(folder / oid[2:])
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return oid
