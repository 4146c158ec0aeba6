"""Builds as one file, for another machine: a plain tar of ``<key>/build.json`` and ``<key>/<wheel>``."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bisect_tool.building.store import (
    KEY,
    RECORD,
    REMEDY,
    SHOWN,
    WHEEL,
    Build,
    Store,
    copy,
    explained,
    hidden,
    libraries,
    printable,
    shape,
    sync,
    write_record,
)
from bisect_tool.errors import DiskFull, StoreDamaged, ToolError, UsageProblem

RECORD_BYTES = 4 * 1024 * 1024  # no record is longer


@dataclass(frozen=True)
class Imported:
    """Builds that were taken, and those that were in the store already."""

    taken: tuple[Build, ...]
    present: tuple[Build, ...]


def export(store: Store, keys: Sequence[str], file: Path) -> list[Build]:
    """Write those builds into ``file``, each verified as it is read.

    ``file`` is whole or is not there. Raises ``UsageProblem`` when it is there already, ``StoreDamaged``,
    ``DiskFull``, and ``ToolError`` when it cannot be written.
    """
    if os.path.lexists(file):
        raise UsageProblem(f"{file} is there already", "", "remove it, or name another file")
    done = []
    aside = hidden(file.absolute())
    try:
        with _writing(file), aside.open("xb") as raw:
            with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for key in dict.fromkeys(keys):
                    if problem := store.verify(key):
                        raise StoreDamaged(f"build {key[:SHOWN]} is damaged", problem, REMEDY)
                    build = store.look(key)
                    for path in (build.folder / RECORD, build.wheel):
                        _add(tar, f"{key}/{path.name}", path)
                    done.append(build)
            raw.flush()
            os.fsync(raw.fileno())
            aside.rename(file)
            sync(aside.parent)
    finally:
        aside.unlink(missing_ok=True)
    return done


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    """The same bytes for the same file: no owner, no time."""
    about = tarfile.TarInfo(name)
    with path.open("rb") as source:
        about.size = os.fstat(source.fileno()).st_size
        tar.addfile(about, source)


@contextlib.contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no room left to write {file}",
                problem.strerror or "",
                "free some space, or name another place",
            ) from problem
        raise ToolError(f"cannot write {file}", problem.strerror or "", "name another place") from problem


def import_(store: Store, file: Path) -> Imported:
    """Take the builds in ``file`` that are not in the store yet; none unless all are as they should be.

    Raises ``UsageProblem`` when it cannot be read, ``StoreDamaged`` when it is no export or not what its
    records say, ``DiskFull``, and ``EnvironmentBroken`` when the store cannot be written.
    """
    try:
        raw = file.open("rb")
    except OSError as problem:
        raise UsageProblem(f"cannot read {file}", problem.strerror or "") from problem
    present: list[str] = []
    taken: dict[str, Path] = {}
    damaged: set[str] = set()
    with raw, explained(store.base), contextlib.ExitStack() as stack:
        try:
            tar = stack.enter_context(tarfile.open(fileobj=raw, mode="r:"))
            for key, members in _members(tar).items():
                record = _record(tar, members, key)
                if not store.verify(key):
                    present.append(key)
                    continue
                if os.path.lexists(store.root / key):
                    damaged.add(key)
                taken[key] = stack.enter_context(store.aside(key))
                _unpack(tar, members, record, taken[key])
        except (tarfile.TarError, EOFError, StoreDamaged) as problem:
            why = problem.why if isinstance(problem, StoreDamaged) else f"it is no plain tar ({problem})"
            raise StoreDamaged(f"{file} is refused", printable(why), "have it exported again") from problem
        for key, folder in taken.items():
            store.take(key, folder, replace=key in damaged)
    return Imported(tuple(map(store.look, taken)), tuple(map(store.look, present)))


def _members(tar: tarfile.TarFile) -> dict[str, dict[str, tarfile.TarInfo]]:
    """Key -> name -> member. Raises ``StoreDamaged`` for anything that is not of an export's form."""
    found: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in tar:
        key, _, name = member.name.partition("/")
        if not KEY.fullmatch(key) or not (name == RECORD or WHEEL.fullmatch(name)):
            raise _refused(f"{member.name!r} in it is not of a build")
        # Only plain files: a link leads elsewhere, a sparse file fills the disk.
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise _refused(f"{member.name} in it is no plain file")
        if name in found.setdefault(key, {}):
            raise _refused(f"{member.name} is in it twice")
        found[key][name] = member
    if not found:
        raise _refused("there is no build in it")
    return found


def _record(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], key: str) -> dict[str, Any]:
    if RECORD not in members or members[RECORD].size > RECORD_BYTES:
        raise _refused(f"build {key[:SHOWN]} in it has no record")
    with _open(tar, members[RECORD]) as file:
        try:
            record = json.loads(file.read())
        except (ValueError, RecursionError) as problem:
            raise _refused(f"the record of build {key[:SHOWN]} in it cannot be read") from problem
    if problem_ := shape(record, key):
        raise _refused(f"the record of build {key[:SHOWN]} in it {problem_}")
    assert isinstance(record, dict)
    if members.keys() != {RECORD, record["wheel"]["name"]}:
        raise _refused(f"the wheel of build {key[:SHOWN]} in it is missing, or not the one of its record")
    return record


def _unpack(
    tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], record: dict[str, Any], folder: Path
) -> None:
    """Lay the entry into ``folder``, compared with what its record says."""
    wheel = folder / record["wheel"]["name"]
    with _open(tar, members[wheel.name]) as file:
        size, sha256 = copy(file, wheel)
    if (size, sha256) != (record["wheel"]["size"], record["wheel"]["sha256"]):
        raise _refused(f"{wheel.name} in it is not the file that was exported")
    if libraries(wheel) != record["libraries"]:
        raise _refused(f"the libraries in {wheel.name} are not the ones of its record")
    write_record(folder, record)


def _open(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    assert file is not None, "a plain file"
    return file


def _refused(why: str) -> StoreDamaged:
    return StoreDamaged("this export is refused", why)
