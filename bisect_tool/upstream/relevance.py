"""What reaches a build: which paths of a tree can change the artifact of a backend.

Two commits whose relevant paths hold the same objects are one build. Everything counts but what is named
here, so that a path that nobody thought of makes one build too many, never one too few.

What a wheel carries and no measurement can see does not count: the README as its long description, and the
headers of other backends, which are installed beside the library for those who compile extensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING

from bisect_tool.upstream.values import Commit, Entry

if TYPE_CHECKING:
    from bisect_tool.upstream.clone import Upstream

BACKENDS = ("metal", "cuda12", "cuda13", "cpu")

# Folders and files that no build reads, from the root of the tree.
_ELSEWHERE = frozenset(
    {
        # What CMake is told not to build, and what only upstream's own machines run.
        *(
            "docs",
            "tests",
            "examples",
            "benchmarks",
            ".github",
            ".circleci",
            "python/tests",
            "python/scripts",
        ),
        *(".clang-format", ".cmake-format", ".pre-commit-config.yaml", ".editorconfig"),
        *(".gitignore", ".git-blame-ignore-revs", "CITATION.cff", "CODEOWNERS"),
    }
)
_PROSE = (".md", ".rst")  # in the folders that are looked into
# The folder of a backend, and whom it belongs to. mlx/backend/cpu is in every build: GPU builds run it too.
_OF_BACKENDS = {
    "mlx/backend/metal": frozenset({"metal"}),
    "mlx/backend/cuda": frozenset({"cuda12", "cuda13"}),
    "mlx/backend/gpu": frozenset({"metal", "cuda12", "cuda13"}),
    # Stand-ins for a GPU: a build with one has no use for them, but takes headers from them.
    "mlx/backend/no_gpu": frozenset({"cpu"}),
    # Before v0.26 this was what no_gpu is now.
    "mlx/backend/no_metal": frozenset({"cpu", "cuda12", "cuda13"}),
}
# Folders in which a line is drawn, so that they must be looked into.
_LOOKED_INTO = frozenset({"", "mlx", "mlx/backend", "python"})


@cache
def relevance(path: str, backend: str) -> bool | None:
    """Pure: whether ``path`` (a file, or a folder with all below it) can change what ``backend`` builds.

    True: it and all below count. False: nothing does. None: a folder that must be looked into; a file never
    is one. ``backend``: one of ``BACKENDS``.
    """
    if path in _LOOKED_INTO:
        return None
    parts = path.split("/")
    if parts[0] in _ELSEWHERE or "/".join(parts[:2]) in _ELSEWHERE:
        return False
    folder, _, name = path.rpartition("/")
    if folder in _LOOKED_INTO and name.endswith(_PROSE):
        return False
    owners = _OF_BACKENDS.get(path)
    if owners is not None and backend not in owners:
        return None
    for place, owners in _OF_BACKENDS.items():
        if backend not in owners and path.startswith(place + "/"):
            # Code outside includes headers of the folder's first level (metal/metal.h, cuda/cuda.h), and
            # compiles what stands in for the backend (metal/no_metal.cpp).
            return folder == place and (name.endswith(".h") or name.startswith("no_"))
    return True


def reaches(path: str, backend: str) -> bool:
    """Whether a file counts, all folders above it considered."""
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        counts = relevance("/".join(parts[:depth]), backend)
        if counts is not None:
            return counts
    return True


def source_digest(
    tree_oid: str,
    backend: str,
    entries: Callable[[str], list[Entry]],
    memo: dict[tuple[str, str, str], str] | None = None,
) -> str:
    """SHA-256 (hex) over path, mode and object of what is relevant in a tree: equal exactly when that is.

    ``entries`` reads one tree object. ``memo`` keeps the folders that were looked into; give the same one to
    every call, whatever the backend.
    """
    memo = {} if memo is None else memo
    found = _digest(tree_oid, "", backend, entries, memo)
    return found or hashlib.sha256(b"").hexdigest()


def distinct(commits: Iterable[Commit], backend: str, upstream: Upstream) -> dict[str, list[Commit]]:
    """The commits by what they build: digest to commits, both in the order given."""
    commits = list(commits)
    _read_ahead({commit.tree for commit in commits}, backend, upstream)
    builds: dict[str, list[Commit]] = {}
    memo: dict[tuple[str, str, str], str] = {}
    for commit in commits:
        builds.setdefault(source_digest(commit.tree, backend, upstream.entries, memo), []).append(commit)
    return builds


def _read_ahead(trees: Iterable[str], backend: str, upstream: Upstream) -> None:
    """Read the folders that will be looked into, all of one depth at a time."""
    level = {("", oid) for oid in trees}
    while level:
        upstream.objects.read_trees(oid for _, oid in level)
        level = {
            (below, entry.oid)
            for path, oid in level
            for entry in upstream.entries(oid)
            if entry.kind == "tree"
            and relevance(below := f"{path}/{entry.name}" if path else entry.name, backend) is None
        }


def _digest(
    oid: str,
    path: str,
    backend: str,
    entries: Callable[[str], list[Entry]],
    memo: dict[tuple[str, str, str], str],
) -> str:
    """The digest of what is relevant in the folder ``path``; nothing when nothing is."""
    key = (backend, path, oid)
    known = memo.get(key)
    if known is not None:
        return known
    lines = []
    for entry in entries(oid):
        below = f"{path}/{entry.name}" if path else entry.name
        counts = relevance(below, backend)
        content = entry.oid
        if counts is None and entry.kind == "tree":
            content = _digest(entry.oid, below, backend, entries, memo)
        elif not counts:
            continue
        if content:
            lines.append(f"{entry.mode} {content} {entry.name}\0")
    text = "".join(lines)
    found = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest() if text else ""
    memo[key] = found
    return found
