"""What lies under ``builds/``: how large it is, and what of it can be dropped to make room.

Everything that is dropped can be made again; sessions are results and are never touched. Sizes are what the
disk gives up: a file that has several names (uv links environments into its cache) counts once, and goes
when its last name goes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bisect_tool.building import installed
from bisect_tool.building.locks import held
from bisect_tool.building.store import KEY, RECORD, SHOWN, Store, discard, explained, printable
from bisect_tool.errors import EnvironmentBroken, StoreDamaged, UsageProblem

LATE_S = 24 * 3600  # a hidden folder of no known lock that old belongs to nobody
BLOCK_BYTES = 512  # what st_blocks counts in
ORDER = (
    "wheels",
    "environments",
    "trees",
    "build-environments",
    "sources",
    "upstream",
    "dispatch",
    "cache",
    "sessions",
)
AGAIN = "again"  # builds that were made a second time, laid out as builds/ is
UNPACKED = ("cache", "unpacked")  # uv's cache of builds: all of it is in the store as well
DOWNLOADED = ("cache", "uv")
PROBES = ("dispatch",)  # a second of compiling each
Files = dict[tuple[int, int], int]  # (device, inode) -> bytes


@dataclass(frozen=True)
class Usage:
    """A part of ``builds``: its folder, bytes on the disk, and how many things are in it."""

    name: str
    bytes: int
    items: int


@dataclass(frozen=True)
class Item:
    """Something that is removed as a whole. ``freed``: bytes the disk gets back. ``used``: unix seconds."""

    kind: str  # build, environment, kept tree, leftover, cache
    name: str
    folder: Path
    used: float
    lock: str = ""  # of building/locks.py, held by who uses it
    flock: Path | None = None  # a file or folder whose kernel lock says the same
    digest: str = ""  # of what is installed in it
    freed: int = 0


@dataclass(frozen=True)
class Pruned:
    """What was removed, what was not because a running tool has it, and bytes before and after."""

    removed: tuple[Item, ...]
    kept: tuple[Item, ...]
    before: int
    after: int


def usage(builds: Path) -> list[Usage]:
    """The size of every part of ``builds``."""
    seen: Files = {}
    parts = [path for path in installed.folders(builds) if path.is_dir()]
    parts += [path for path in installed.folders(builds / "cache") if path.is_dir()]
    found = []
    for path in sorted(parts, key=lambda path: _rank(builds, path)):
        if path == builds / "cache":
            continue
        fresh = {which: size for which, size in _files(path).items() if which not in seen}
        seen.update(fresh)
        items = [each for each in installed.folders(path) if not each.name.startswith(".")]
        if path == builds / "sessions":
            items = [each for each in items if each.suffix == ".jsonl"]
        found.append(Usage(str(path.relative_to(builds)), sum(fresh.values()), len(items)))
    loose = {which: size for which, size in _files(builds).items() if which not in seen}
    if size := sum(loose.values()):
        found.append(Usage("other files", size, len(loose)))
    return found


def size_text(size: int) -> str:
    """Bytes in words: ``512 B``, ``3.4 MB``, ``345 MB``, ``1.2 GB``."""
    number, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 999.5:
            break
        number, unit = number / 1000, larger
    decimals = 0 if unit == "B" or (number >= 9.95 and unit in ("kB", "MB")) else 1
    return f"{number:.{decimals}f} {unit}"


def _rank(builds: Path, path: Path) -> tuple[int, str]:
    name = str(path.relative_to(builds))
    top = Path(name).parts[0]
    return (ORDER.index(top) if top in ORDER else len(ORDER), name)


def prune(
    builds: Path,
    max_bytes: int | None = None,
    *,
    damaged: bool = False,
    in_use: Collection[str] = (),
    dry_run: bool = False,
    on_removed: Callable[[Item], None] = lambda _: None,
) -> Pruned:
    """Remove leftovers of killed tools, then what is damaged (``damaged``: every byte is read), then what was
    used least recently until everything under ``builds`` takes at most ``max_bytes``.

    The last in this order: probes of dispatch, unpacked wheels and environments of builds (a second to make
    again), builds, environments of releases, kept build trees, downloads. Nothing that a running tool has
    locked, and no environment whose ``wheel_digest`` is ``in_use``. Raises ``UsageProblem``, and removes
    nothing, when what is never removed is more than ``max_bytes`` by itself (but for 0: all that can go), and
    ``EnvironmentBroken`` when ``builds`` cannot be written.
    """
    builds = builds.absolute()
    must, may = _items(builds, damaged)
    if (builds / AGAIN).is_dir():
        second = _items(builds / AGAIN, damaged)
        must += [_named(item, AGAIN) for item in second[0]]
        may = [*(_named(item, AGAIN) for item in second[1]), *may]
    contents = {item.folder: _files(item.folder) for item in [*must, *may]}
    rest = _files(builds, skip=contents)
    if max_bytes is not None and 0 < max_bytes < sum(rest.values()):
        raise UsageProblem(
            f"{builds} cannot be made as small as {size_text(max_bytes)}",
            f"{size_text(sum(rest.values()))} of it is never pruned (sources, compile caches, sessions, …)",
            "`bisect_tool cache size` shows what takes how much; remove that by hand, or name a larger size",
        )
    names = Counter(rest.keys())
    sizes = dict(rest)
    for files in contents.values():
        names.update(files.keys())
        sizes.update(files)
    before = left = sum(sizes.values())
    removed, kept = [], []
    for number, item in enumerate([*must, *may]):
        if number >= len(must) and (max_bytes is None or left <= max_bytes):
            break
        files = contents[item.folder]
        with explained(builds), _ours(builds, item, in_use) as ours:
            if not ours:
                kept.append(item)
                continue
            if not dry_run:
                discard(item.folder)
        names.subtract(files.keys())
        freed = sum(size for which, size in files.items() if not names[which])
        left -= freed
        removed.append(replace(item, freed=freed))
        on_removed(removed[-1])
    return Pruned(tuple(removed), tuple(kept), before, left)


def _items(builds: Path, damaged: bool) -> tuple[list[Item], list[Item]]:
    """What must go, and what may, in its order."""
    store = Store(builds)
    must = _leftovers(builds)
    if damaged:
        must += _damaged(store)
    return must, [item for item in _droppable(store) if item.folder not in {each.folder for each in must}]


def _named(item: Item, where: str) -> Item:
    return replace(item, name=f"{where}/{item.name}")


def _leftovers(builds: Path) -> list[Item]:
    """What tools that were killed have left behind."""
    found = []
    for folder in installed.folders(builds / "wheels"):
        if _is_hidden(folder) and not _being_made(folder):
            found.append(_leftover(folder, flock=folder))
        elif KEY.fullmatch(folder.name) and not os.path.lexists(folder / RECORD):
            found.append(_leftover(folder, lock=f"build-{folder.name[:16]}"))
    _, undescribed = installed.environments(builds)
    found += [_leftover(folder, lock=folder.name) for folder in undescribed]
    for part, prefix in (("environments", ""), ("build-environments", ""), ("trees", "tree-")):
        for folder in filter(_is_hidden, installed.folders(builds / part)):
            name = folder.name[1:].rsplit(".", 2)[0]
            found.append(_leftover(folder, lock=prefix + name))
    for part in ("sources", "upstream", "cache", "dispatch"):
        for folder in filter(_is_hidden, installed.folders(builds / part)):
            if time.time() - _used(folder) > LATE_S:
                found.append(_leftover(folder))
    return found


def _leftover(folder: Path, *, lock: str = "", flock: Path | None = None) -> Item:
    name = str(Path(folder.parent.name) / folder.name)
    return Item("leftover", printable(name), folder, _used(folder), lock, flock)


def _damaged(store: Store) -> list[Item]:
    found = [_build(store, key) for key in store.stored() if store.verify(key)]
    whole, _ = installed.environments(store.base)
    return found + [_environment(each) for each in whole if installed.verify(each)]


def _droppable(store: Store) -> list[Item]:
    """All that may go to make room, in the order in which it goes."""
    builds = store.base
    keys = set(store.stored())
    environments, _ = installed.environments(builds)
    of_gone = [each for each in environments if each.build and each.build not in keys]
    of_builds = [each for each in environments if each.build in keys]
    of_releases = [each for each in environments if not each.build]
    trees = [path for path in installed.folders(builds / "trees") if path.is_dir() and not _is_hidden(path)]
    return [
        *_caches(builds, PROBES),
        *_caches(builds, UNPACKED),
        *_by_use(_environment(each) for each in of_gone),
        *_by_use(_environment(each) for each in of_builds),
        *_by_use(_build(store, key) for key in keys),
        *_by_use(_environment(each) for each in of_releases),
        *_by_use(Item("kept tree", path.name, path, _used(path), f"tree-{path.name}") for path in trees),
        *_caches(builds, DOWNLOADED),
    ]


def _by_use(items: Iterator[Item]) -> list[Item]:
    return sorted(items, key=lambda item: (item.used, item.name))


def _build(store: Store, key: str) -> Item:
    folder = store.root / key
    label, used = "", 0.0  # a damaged one is of no use: it goes first
    with contextlib.suppress(StoreDamaged):
        found = store.look(key)
        label, used = found.label, found.used
    return Item("build", f"{key[:SHOWN]} {label}".rstrip(), folder, used, lock=f"build-{key[:16]}")


def _environment(each: installed.Installed) -> Item:
    name = printable(each.name)
    return Item("environment", name, each.folder, each.used, lock=each.name, digest=each.wheel_digest)


def _caches(builds: Path, where: tuple[str, ...]) -> list[Item]:
    folder = builds.joinpath(*where)
    if not folder.is_dir() or folder.is_symlink():
        return []
    return [Item("cache", "/".join(where), folder, _used(folder), flock=folder / ".lock")]


@contextlib.contextmanager
def _ours(builds: Path, item: Item, in_use: Collection[str]) -> Iterator[bool]:
    """True while nobody else has it, and nobody else can get it."""
    if builds / AGAIN in item.folder.parents:
        builds = builds / AGAIN
    with contextlib.ExitStack() as stack:
        if item.digest and item.digest in in_use:
            yield False
            return
        try:
            if item.lock:
                stack.enter_context(held(builds, item.lock, timeout_s=0))
        except EnvironmentBroken:
            yield False
            return
        handle = _flocked(item.flock) if item.flock is not None else None
        if handle is not None and handle >= 0:
            stack.callback(os.close, handle)
        yield handle is None or handle >= 0


def _flocked(path: Path) -> int | None:
    """A descriptor that holds the kernel's lock of ``path``; -1 when another has it, None without it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return -1
    return handle


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")


def _being_made(folder: Path) -> bool:
    """Its maker lives, and made it within the hour: it may be about to lock it."""
    pid = folder.name.rsplit(".", 2)[-2].partition("-")[0]
    if not pid.isdecimal() or time.time() - _used(folder) > 3600:
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _used(path: Path) -> float:
    """Last change of a folder or of something directly in it, unix seconds; 0 when it is gone."""
    latest = 0.0
    with contextlib.suppress(OSError):
        latest = path.lstat().st_mtime
        with os.scandir(path) as entries:
            for entry in entries:
                latest = max(latest, entry.stat(follow_symlinks=False).st_mtime)
    return latest


def _files(path: Path, skip: Collection[Path] = ()) -> Files:
    """Every file below ``path``; links are not followed, but for ``path`` itself."""
    found: Files = {}
    ahead = [path]
    while ahead:
        folder = ahead.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:  # gone meanwhile
            for entry in entries:
                if skip and Path(entry.path) in skip:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    ahead.append(Path(entry.path))
                else:
                    about = entry.stat(follow_symlinks=False)
                    found[about.st_dev, about.st_ino] = about.st_blocks * BLOCK_BYTES
    return found
