"""Libraries that a build of MLX needs (fmt, json, nanobind, …): fetched once, then found without network.

Each lives in ``builds/sources/<name>-<digest of what was asked for>/``: its files in ``tree/``, described by
a ``source.json`` written last. It is made in a hidden folder beside that and renamed: whatever the name
leads to was whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bisect_tool.building import archives, checkouts, origins
from bisect_tool.building.contents import digest_of, leading_out, measure, sha256_of
from bisect_tool.building.locks import held
from bisect_tool.building.making import explain
from bisect_tool.building.origins import FULL_SHA, Errand
from bisect_tool.upstream.mirrors import Mirrors

SCHEMA = 1
TIMEOUT_S = 1800
NO_MIRRORS = Mirrors()


@dataclass(frozen=True)
class Source:
    """What a ``FetchContent_Declare`` says.

    ``address`` is its GIT_REPOSITORY and ``ref`` its GIT_TAG (a tag, branch or commit; '' is the remote's
    HEAD), or, with ``archive``, its URL. ``sha256``: 64 hex digits from URL_HASH, or ''.
    """

    name: str
    address: str
    ref: str = ""
    archive: bool = False
    sha256: str = ""

    @property
    def subject(self) -> str:
        """How messages call it: ``fmt 12.1.0``, ``gguflib 8fa6eb65``, ``json (json.tar.xz)``."""
        if self.archive:
            return f"{self.name} ({self.address.rstrip('/').rpartition('/')[2]})"
        return f"{self.name} {self.ref[:8] if FULL_SHA.fullmatch(self.ref) else self.ref}".strip()

    @property
    def folder_name(self) -> str:
        asked = json.dumps(dataclasses.asdict(self), sort_keys=True)
        name = re.sub(r"[^a-z0-9_+-]", "_", self.name.lower())[:40] or "source"
        return f"{name}-{hashlib.sha256(asked.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


@dataclass(frozen=True)
class Fetched:
    """A source that is here. ``folder`` is what CMake gets as its source folder.

    ``digest``: see ``contents.digest_of``. ``origin``: the address or local path that was read. ``commit``:
    of git, else ''. ``created``: False when it was here already. ``seconds``: wall time of the ``fetch``
    that returned it. ``files``, ``bytes``: of what is in ``folder``.
    """

    source: Source
    folder: Path
    digest: str
    seconds: float
    origin: str
    commit: str = ""
    created: bool = True
    files: int = 0
    bytes: int = 0


def fetch(
    source: Source,
    builds: Path,
    *,
    mirrors: Mirrors = NO_MIRRORS,
    offline: bool = False,
    timeout_s: float = TIMEOUT_S,
    on_wait: Callable[[str], None] | None = None,
) -> Fetched:
    """The files of ``source``, fetched if they are not under ``builds`` yet; whole when this returns.

    ``offline``: mirrors only. ``timeout_s``: seconds for all of it. ``on_wait`` is told once, in words, when
    another process is fetching the same. Raises ``SourceUnavailable``, ``DiskFull``, ``ToolMissing`` (git),
    and ``EnvironmentBroken`` when ``builds`` cannot be used; none of them leaves anything behind.
    """
    started = time.monotonic()
    builds = builds.absolute()
    home = builds / "sources" / source.folder_name
    try:
        found = _load(home, source)
        if found is None:
            with held(
                builds,
                f"source-{home.name}",
                timeout_s=timeout_s,
                on_wait=on_wait,
                doing=f"fetching {source.subject}",
            ):
                found = _load(home, source)  # another process may have fetched it while we waited
                if found is None:
                    found = _make(source, home, mirrors, offline, started + timeout_s)
    except OSError as problem:
        raise explain(problem, builds) from problem
    return dataclasses.replace(found, seconds=time.monotonic() - started)


def _make(source: Source, home: Path, mirrors: Mirrors, offline: bool, deadline: float) -> Fetched:
    """Fetch it; the lock is held."""
    _discard(home)
    temporary = _hidden(home)
    scratch = temporary / "scratch"
    scratch.mkdir(parents=True)
    errand = Errand(source.subject, scratch, mirrors, offline, deadline)
    try:
        whence = _fill(source, temporary / "tree", errand)
        made = _describe(source, temporary / "tree", whence, errand)
        shutil.rmtree(scratch)
        _write(temporary / "source.json", made, whence)
        temporary.rename(home)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return dataclasses.replace(made, folder=home / "tree")


def _fill(source: Source, tree: Path, errand: Errand) -> list[dict[str, str]]:
    """Put the files of ``source`` into ``tree``; what came from where, the source itself first."""
    if not source.name.isprintable():
        raise errand.failed(f"{source.name!a} is no name")
    if not source.archive:
        done = checkouts.check_out(source.address, source.ref, tree, errand)
        return [dataclasses.asdict(each) for each in done]
    origin = origins.of_archive(source.address, errand)
    file = errand.scratch / "archive"
    commit = ""
    if origin.ref:
        if source.sha256:
            raise errand.failed(
                f"it is asked for by its hash, which says nothing of the git repository {origin.local}",
                "name the archive itself with a longer --mirror PREFIX=PATH",
            )
        commit = checkouts.archive(origin, file, errand)
    elif origin.local is not None:
        file = origin.local
    else:
        archives.download(source.address, file, errand)
    if source.sha256 and (got := sha256_of(file)) != source.sha256.lower():
        raise errand.failed(
            f"{origin.text()} has the SHA-256 {got[:12]}… and {source.sha256[:12].lower()}… is asked for"
        )
    archives.unpack(file, tree, errand)
    return [{"path": "", "address": origins.shown(source.address), "commit": commit, "origin": origin.text()}]


def _describe(source: Source, tree: Path, whence: list[dict[str, str]], errand: Errand) -> Fetched:
    for out in leading_out(tree):
        raise errand.failed(f"it holds {out!a}, which leads out of it")
    files, size = measure(tree)
    if not files:
        raise errand.failed("there is nothing in it")
    return Fetched(
        source=source,
        folder=tree,
        digest=digest_of(tree),
        seconds=0.0,
        origin=whence[0]["origin"],
        commit=whence[0]["commit"],
        files=files,
        bytes=size,
    )


def _write(path: Path, made: Fetched, whence: list[dict[str, str]]) -> None:
    facts: dict[str, Any] = dataclasses.asdict(made)
    for passing in ("folder", "seconds", "created"):  # true of a place or of a call, not of what is in it
        del facts[passing]
    facts["source"]["address"] = origins.shown(made.source.address)
    with path.open("w", encoding="utf-8") as file:
        json.dump({"schema": SCHEMA, **facts, "parts": whence}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _load(home: Path, source: Source) -> Fetched | None:
    """The source in ``home``, or None when there is none that can be used."""
    tree = home / "tree"
    try:
        facts = json.loads((home / "source.json").read_text(encoding="utf-8"))
        # Counted, not read again: a file that someone lost, cut short or added to is noticed all the same.
        if facts["schema"] != SCHEMA or measure(tree) != (facts["files"], facts["bytes"]):
            return None
        return Fetched(
            source=source,
            folder=tree,
            digest=facts["digest"],
            seconds=0.0,
            origin=facts["origin"],
            commit=facts["commit"],
            created=False,
            files=facts["files"],
            bytes=facts["bytes"],
        )
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def _hidden(home: Path) -> Path:
    """A new name beside ``home`` for what is not a source yet, or no longer."""
    return home.parent / f".{home.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _discard(home: Path) -> None:
    """Remove a source and what is left of unfinished ones of its name; the lock is held."""
    with contextlib.suppress(FileNotFoundError):
        # Renamed first: killed half way through, the rest must not be taken for a source.
        home.rename(_hidden(home))
    for leftover in home.parent.glob(f".{home.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
        if leftover.is_symlink() or leftover.is_file():
            leftover.unlink(missing_ok=True)
