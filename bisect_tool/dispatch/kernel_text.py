"""Which text the kernels that cells run are made from, at a commit: read from git, compared by digest."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Mapping, Sequence

from bisect_tool.analysis.launches import Answer, family
from bisect_tool.dispatch import metal_text
from bisect_tool.upstream.clone import Upstream

FOLDER = "mlx/backend/metal/kernels"
# The files that quantized kernels are instantiated in, in the order in which a function is looked for.
TOPS = tuple(
    f"{FOLDER}/{name}.metal" for name in ("quantized", "quantized_nax", "fp_quantized", "fp_quantized_nax")
)


def functions(answers: Iterable[Answer]) -> list[str]:
    """The Metal functions that answers launch: as the host names them, or else by the kernel's family. Those
    that add up the parts of a split K are not among them."""
    found: dict[str, None] = {}
    for answer in answers:
        for launch in answer.launches:
            if not launch.reduction:
                found[launch.function or family(launch.kernel)] = None
    return list(found)


def differing(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """The functions of both whose digests differ."""
    return tuple(name for name in after if name in before and before[name] != after[name])


class Reader:
    """Reads and cuts each version of a file once."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._files: dict[str, metal_text.File] = {}
        self._digests: dict[tuple[str, ...], str | None] = {}

    def digests(self, sha: str, names: Sequence[str]) -> dict[str, str]:
        """Function to the digest of its text at a commit. What no file defines is not among them."""
        closures = [self._closure(sha, top) for top in TOPS]
        found: dict[str, str] = {}
        for name in names:
            for keys, candidate in ((c, n) for n in metal_text.candidates(name) for c in closures if c):
                digest = self._digest(keys, candidate)
                if digest is not None:
                    found[name] = digest
                    break
        return found

    def _digest(self, keys: tuple[str, ...], function: str) -> str | None:
        known = (*keys, function)
        if known not in self._digests:
            self._digests[known] = metal_text.closure((self._files[key] for key in keys), function)
        return self._digests[known]

    def _closure(self, sha: str, top: str) -> tuple[str, ...]:
        """The versions of a file and of all that it includes; nothing when there is no such file."""
        keys: dict[str, None] = {}
        todo, seen = [top], {top}
        while todo:
            path = todo.pop()
            content = self._upstream.read(sha, path)
            if content is None:
                continue
            key = hashlib.sha1(content).hexdigest()
            if key not in self._files:
                self._files[key] = metal_text.parse(content.decode("utf-8", "replace"))
            keys[key] = None
            for written in self._files[key].includes:
                for candidate in (
                    written,
                    posixpath.normpath(posixpath.join(posixpath.dirname(path), written)),
                ):
                    if candidate.startswith("mlx/") and candidate not in seen:
                        seen.add(candidate)
                        todo.append(candidate)
        return tuple(keys)
