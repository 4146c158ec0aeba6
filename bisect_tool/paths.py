"""Where things are: the cache folder ``builds/``, and the scripts of ``repro/``."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def checkout() -> Path | None:
    """The root of the source checkout this package runs from, or None when it is installed."""
    root = PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "repro").is_dir() else None


def builds_folder(override: Path | None = None) -> Path:
    """The cache folder: ``override``, else the checkout's ``builds/``, else the user's cache folder."""
    if override is not None:
        return override.expanduser().resolve()
    root = checkout()
    if root is not None:
        return root / "builds"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).expanduser() / "bisect_tool"


def repro_script(name: str) -> Path:
    """A script of ``repro/``: the checkout's own, or the copy that an installed wheel carries."""
    root = checkout()
    return (root or PACKAGE) / "repro" / name
