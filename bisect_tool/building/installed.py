"""The environments under ``builds/environments``, and whether their MLX is still what was installed."""

from __future__ import annotations

import base64
import binascii
import contextlib
import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bisect_tool.building.environment import digest_of
from bisect_tool.building.store import digest, printable

DESCRIPTION = "environment.json"


@dataclass(frozen=True)
class Installed:
    """An environment. ``build``: key of the build in it, empty for a release. ``used``: unix seconds."""

    folder: Path
    build: str
    wheel_digest: str
    used: float

    @property
    def name(self) -> str:
        return self.folder.name


def environments(builds: Path) -> tuple[list[Installed], list[Path]]:
    """The environments, and the folders without a description, which are leftovers."""
    found, leftovers = [], []
    for folder in folders(builds / "environments"):
        if folder.name.startswith("."):
            continue
        path = folder / DESCRIPTION
        try:
            facts = json.loads(path.read_bytes())
            used = max(path.stat().st_mtime, folder.stat().st_mtime)
            found.append(Installed(folder, facts.get("build") or "", facts["wheel_digest"], used))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            leftovers.append(folder)
    return found, leftovers


def folders(path: Path) -> list[Path]:
    """What is in a folder, by name; nothing when it is not there."""
    try:
        return sorted(path.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def verify(environment: Installed) -> str:
    """What of MLX in an environment is not as it was installed; nothing when all is. Every byte is read.

    Compared with the ``RECORD`` of each ``mlx*`` distribution, and those with the digest in the description.
    """
    root = environment.folder
    sites = [site for site in root.glob("lib/python*/site-packages") if any(site.glob("mlx*.dist-info"))]
    if len(sites) != 1:
        return "MLX is not in it"
    (site,) = sites
    try:
        if digest_of(site) != environment.wheel_digest:
            return "the RECORD of MLX is not the one that was installed"
        recorded = _recorded(site)
        for name in sorted(recorded):
            if wrong := _wrong(root, site / name, recorded[name]):
                return f"{printable(name)} {wrong}"
        for name in _files(site, {Path(name).parts[0] for name in recorded}):
            if name not in recorded:
                return f"{printable(name)} was not installed with MLX"
    except OSError as problem:
        return f"{Path(problem.filename or site).name}: {problem.strerror or problem}"
    except (ValueError, csv.Error) as problem:
        return f"the RECORD of MLX cannot be read: {printable(problem)}"
    return ""


def _recorded(site: Path) -> dict[str, set[str]]:
    """Path -> its SHA-256 digests (hex): two distributions may bring the same file."""
    found: dict[str, set[str]] = {}
    for record in site.glob("mlx*.dist-info/RECORD"):
        with record.open(encoding="utf-8", newline="") as file:
            for name, kind, *_ in (row for row in csv.reader(file) if row):
                method, _, value = kind.partition("=")
                kept = found.setdefault(name, set())
                if method == "sha256":
                    with contextlib.suppress(binascii.Error):
                        kept.add(base64.urlsafe_b64decode(value + "==").hex())
    return found


def _wrong(root: Path, path: Path, digests: set[str]) -> str:
    if not Path(os.path.normpath(path)).is_relative_to(root):
        return "lies outside of it"
    if path.is_symlink():
        return "is a link to another file"
    if not path.is_file():
        return "is missing"
    if not digests:  # RECORD itself
        return ""
    with path.open("rb") as file:
        return "" if digest(file) in digests else "was changed"


def _files(site: Path, tops: set[str]) -> Iterator[str]:
    """Every file below the folders that MLX brought, but for what Python compiles by itself."""
    for top in sorted(tops - {".."}):
        for folder, below, names in os.walk(site / top):
            below[:] = sorted(each for each in below if each != "__pycache__")
            yield from (
                os.path.relpath(os.path.join(folder, name), site)  # noqa: PTH118
                for name in sorted(names)
            )
