"""The store of builds: ``builds/wheels/<key>/`` holds the wheel that came out and its ``build.json``.

The key says all that went into a build; what is under it never changes. An entry is made in a hidden folder
beside, written to the disk and renamed, so that whatever a key leads to was whole. An entry that is not what
its record says is as good as absent: it is made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bisect_tool.building.locks import held
from bisect_tool.errors import StoreDamaged, UsageProblem

SCHEMA = 1
RECORD = "build.json"
SHOWN = 12  # digits of a key in print
CHUNK_BYTES = 1024 * 1024
KEY = re.compile(r"[0-9a-f]{64}")
WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl")
LIBRARY = re.compile(r"\.(so(\.\d+)*|dylib|metallib)$")
REMEDY = "`bisect_tool cache prune --damaged` removes it, and it is made again when it is needed"


@dataclass(frozen=True)
class Build:
    """A wheel in the store. ``record``: its ``build.json``. ``used``: last use before, unix seconds."""

    key: str
    folder: Path
    wheel: Path
    record: dict[str, Any]
    used: float

    @property
    def size(self) -> int:
        """Bytes of the wheel."""
        return int(self.record["wheel"]["size"])

    @property
    def label(self) -> str:
        """The revision it was made for, as it was typed, fit to print."""
        return printable(self.record.get("revision") or "")


class Store:
    """The builds under ``builds``. Any number of tools may use it at once."""

    def __init__(self, builds: Path) -> None:
        self.base = builds.absolute()
        self.root = self.base / "wheels"

    def get(self, key: str) -> Build | None:
        """The build of that key, marked as used now; None when there is none that is whole as far as a look
        tells: a record that can be read, a wheel of the recorded size."""
        try:
            found = self.look(key)
        except StoreDamaged:
            return None
        with contextlib.suppress(OSError):  # it can be used all the same
            os.utime(found.folder)
        return found

    def put(self, key: str, wheel: Path, record: Mapping[str, Any]) -> Build:
        """Keep a copy of ``wheel`` under ``key``, described by ``record`` and by what is seen in the wheel:
        ``wheel`` (name, sha256, size), ``libraries`` (path -> sha256), ``made`` unless it says so itself.

        A whole build that is there already stays, and is returned. Raises ``OSError`` when ``wheel`` cannot
        be read, ``StoreDamaged`` when it is no wheel, ``DiskFull``, and ``EnvironmentBroken`` when
        ``builds`` cannot be written; none of them leaves anything behind.
        """
        _check(key)
        with wheel.open("rb") as source, explained(self.base), self.aside(key) as folder:
            size, sha256 = copy(source, folder / wheel.name)
            facts = {
                "schema": SCHEMA,
                "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                **record,
                "key": key,
                "wheel": {"name": wheel.name, "sha256": sha256, "size": size},
                "libraries": libraries(folder / wheel.name),
            }
            problem = shape(facts, key)
            if problem:
                raise StoreDamaged(f"build {key[:SHOWN]} cannot be stored", problem)
            write_record(folder, facts)
            self.take(key, folder)
        return self.look(key)

    def look(self, key: str) -> Build:
        """The same, not marked as used. Raises ``StoreDamaged``, whose ``why`` says what is wrong."""
        folder = self.root / key
        what = f"build {key[:SHOWN]} is damaged"
        try:
            record = json.loads((folder / RECORD).read_bytes())
            if problem := shape(record, key):
                raise StoreDamaged(what, f"{RECORD} {problem}", REMEDY)
            wheel = folder / record["wheel"]["name"]
            there = wheel.lstat()
            used = folder.stat().st_mtime
        except OSError as problem_:
            name = Path(problem_.filename or RECORD).name
            raise StoreDamaged(what, f"{name}: {problem_.strerror}", REMEDY) from problem_
        except (ValueError, RecursionError) as problem_:
            raise StoreDamaged(what, f"{RECORD} cannot be read", REMEDY) from problem_
        if not stat.S_ISREG(there.st_mode) or there.st_size != record["wheel"]["size"]:
            why = f"{wheel.name} has {there.st_size} bytes, not {record['wheel']['size']}"
            raise StoreDamaged(what, why, REMEDY)
        return Build(key, folder, wheel, record, used)

    def verify(self, key: str) -> str:
        """What is wrong with the build of that key, every byte read; nothing when it is as it was made."""
        try:
            build = self.look(key)
            with build.wheel.open("rb") as file:
                if digest(file) != build.record["wheel"]["sha256"]:
                    return f"{build.wheel.name} is not the file that was stored"
            seen = libraries(build.wheel)
        except StoreDamaged as problem:
            return problem.why
        except OSError as problem:
            return f"{Path(problem.filename or key).name}: {problem.strerror or problem}"
        kept = build.record["libraries"]
        for name in sorted(kept.keys() | seen.keys()):
            if kept.get(name) != seen.get(name):
                return f"{printable(name)} in {build.wheel.name} is not what {RECORD} says"
        return ""

    def stored(self) -> list[str]:
        """Every key that something is stored under, damaged or not."""
        try:
            return sorted(each.name for each in self.root.iterdir() if KEY.fullmatch(each.name))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def builds(self) -> list[Build]:
        """The builds that can be used, as far as a look tells, the one used last first."""
        found = []
        for key in self.stored():
            with contextlib.suppress(StoreDamaged):
                found.append(self.look(key))
        return sorted(found, key=lambda build: build.used, reverse=True)

    def find(self, prefix: str) -> str:
        """The key that begins with ``prefix``. Raises ``UsageProblem`` when there is none, or several."""
        known = self.stored()
        hits = [key for key in known if prefix and key.startswith(prefix.lower())]
        if len(hits) == 1:
            return hits[0]
        remedy = "`bisect_tool cache list` shows them"
        if not hits:
            raise UsageProblem(f"no build in {self.root} has a key that begins with {prefix!r}", "", remedy)
        some = ", ".join(key[:SHOWN] for key in hits[:3]) + (", …" if len(hits) > 3 else "")
        raise UsageProblem(
            f"{len(hits)} builds have a key that begins with {prefix!r}", some, "give more of it"
        )

    def remove(self, key: str) -> None:
        """Delete what is under ``key``; nothing happens when it is gone. Raises ``EnvironmentBroken``."""
        _check(key)
        with explained(self.base):
            discard(self.root / key)

    @contextlib.contextmanager
    def aside(self, key: str) -> Iterator[Path]:
        """A hidden folder to make the entry of ``key`` in, gone at the end unless ``take`` took it.

        It is locked while its maker lives: that is how a leftover is told from work in progress.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        folder = hidden(self.root / key)
        folder.mkdir()
        handle = -1
        try:
            handle = os.open(folder, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if handle >= 0:
                os.close(handle)

    def take(self, key: str, folder: Path, *, replace: bool = False) -> bool:
        """Make ``folder`` the entry of ``key``. False when a whole one is there, which stays, unless
        ``replace``. Raises ``OSError``."""
        sync(folder)
        root = self.root / key
        # Two at once must not each find the other's entry damaged, or absent.
        with held(self.base, "store", timeout_s=60):
            if not replace:
                with contextlib.suppress(StoreDamaged):
                    self.look(key)
                    return False
            discard(root)
            folder.rename(root)
            sync(self.root)
        return True


def _check(key: str) -> None:
    if not KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key: 64 digits of 0-9a-f")


def shape(record: object, key: str) -> str:
    """What is wrong with the form of a record; nothing when it can be relied on."""
    if not isinstance(record, dict):
        return "is no record of a build"
    if record.get("schema") != SCHEMA:
        return f"has schema {printable(record.get('schema'))}, this tool reads {SCHEMA}"
    if record.get("key") != key:
        return "is of another build"
    wheel, inside = record.get("wheel"), record.get("libraries")
    if not isinstance(wheel, dict) or not isinstance(inside, dict):
        return "does not describe its wheel"
    name, sha256, size = wheel.get("name"), wheel.get("sha256"), wheel.get("size")
    if not isinstance(name, str) or not WHEEL.fullmatch(name):
        return "names no wheel"
    if not isinstance(sha256, str) or not KEY.fullmatch(sha256) or type(size) is not int:
        return "does not describe its wheel"
    return ""


def libraries(wheel: Path) -> dict[str, str]:
    """Path in the wheel -> SHA-256 (hex), for every library. Raises ``StoreDamaged`` when it is no wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = {}
            for name in sorted(archive.namelist()):
                if LIBRARY.search(name):
                    with archive.open(name) as file:
                        found[name] = digest(file)
            return found
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as problem:
        raise StoreDamaged(f"{wheel.name} is no wheel", str(problem)) from problem


def digest(file: IO[bytes]) -> str:
    """SHA-256 (hex) of the rest of a file."""
    seen = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        seen.update(chunk)
    return seen.hexdigest()


def copy(source: IO[bytes], path: Path) -> tuple[int, str]:
    """Copy the rest of ``source`` into a new file and onto the disk; its bytes and SHA-256 (hex)."""
    seen, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        while chunk := source.read(CHUNK_BYTES):
            seen.update(chunk)
            size += file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return size, seen.hexdigest()


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    with (folder / RECORD).open("x", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Have the names in a folder written to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hidden(path: Path) -> Path:
    """A new name beside ``path`` for what is not whole yet, or no longer."""
    return path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def discard(path: Path) -> None:
    """Remove a folder or a file, if it is there. Raises ``OSError`` when it cannot be renamed.

    Renamed first: killed half way through, the rest must not be taken for the whole.
    """
    gone = hidden(path)
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    if gone.is_dir() and not gone.is_symlink():
        shutil.rmtree(gone, ignore_errors=True)
    else:
        gone.unlink(missing_ok=True)


def printable(value: object) -> str:
    """A value of a record, which may come from elsewhere, without what a terminal would act on."""
    return "".join(each if each.isprintable() else "?" for each in str(value))


@contextlib.contextmanager
def explained(builds: Path) -> Iterator[None]:
    """Errors of the file system become ``DiskFull`` and ``EnvironmentBroken``."""
    try:
        yield
    except OSError as problem:
        from bisect_tool.building.making import explain

        raise explain(problem, builds) from problem
