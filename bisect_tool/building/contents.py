"""What a folder holds, in numbers: the same for the same files, wherever and whenever they came here."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def digest_of(tree: Path) -> str:
    """SHA-256 (hex) over path, kind and content of every file.

    Kinds are file, executable and symbolic link; empty folders do not count, as git does not know them.
    """
    whole = hashlib.sha256()
    for path, mode, _ in sorted(_files(tree)):
        if stat.S_ISLNK(mode):
            kind, content = "link", hashlib.sha256(os.fsencode((tree / path).readlink())).hexdigest()
        else:
            kind, content = "executable" if mode & 0o100 else "file", sha256_of(tree / path)
        whole.update(os.fsencode(path) + f"\0{kind}\0{content}\n".encode())
    return whole.hexdigest()


def measure(tree: Path) -> tuple[int, int]:
    """Number of files, and their bytes."""
    sizes = [size for _, _, size in _files(tree)]
    return len(sizes), sum(sizes)


def leading_out(tree: Path) -> Iterator[str]:
    """The symbolic links in ``tree`` that lead out of it, and whatever is no file, folder or link."""
    root = Path(os.path.realpath(tree))
    for name, mode, _ in _files(tree):
        path = tree / name
        if stat.S_ISLNK(mode):
            # An absolute one would lead astray once the tree is renamed, even if it leads into it now.
            if path.readlink().is_absolute() or not Path(os.path.realpath(path)).is_relative_to(root):
                yield name
        elif not stat.S_ISREG(mode):
            yield name


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            content.update(chunk)
    return content.hexdigest()


def _files(tree: Path) -> Iterator[tuple[str, int, int]]:
    """Path, mode and size of everything in ``tree`` that is no folder."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(tree / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode):
                    waiting.append(path)
                else:
                    yield path, facts.st_mode, facts.st_size
