"""What of a commit is compiled to ask it: its own ``quantized.cpp`` and headers, read from git."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from bisect_tool.errors import UsageProblem
from bisect_tool.upstream.clone import Upstream
from bisect_tool.upstream.values import Commit

QUANTIZED = "mlx/backend/metal/quantized.cpp"
PACKING = "mlx/backend/common/quantized.h"  # arithmetic alone: always the commit's own
SETTINGS = "mlx/utils.h"  # holds the namespace env
OP = "QuantizedMatmul::eval_gpu"
# The headers that the stand-in stands for. Any other is a rung of the ladder.
STOOD_FOR = frozenset(
    f"mlx/{path}"
    for path in (
        "allocator.h", "array.h", "device.h", "dtype.h", "fast_primitives.h", "ops.h", "primitives.h",
        "stream.h", "utils.h",
        "backend/common/broadcasting.h", "backend/common/compiled.h", "backend/common/utils.h",
        "backend/gpu/copy.h", "backend/gpu/slicing.h",
        "backend/metal/binary.h", "backend/metal/copy.h", "backend/metal/device.h", "backend/metal/kernels.h",
        "backend/metal/kernels/defines.h", "backend/metal/metal.h", "backend/metal/reduce.h",
        "backend/metal/unary.h", "backend/metal/utils.h",
    )
)  # fmt: skip
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*["<]([\w./+-]+)[">]', re.MULTILINE)
_OURS = re.compile(r"(?:mlx|Metal|Foundation|QuartzCore|fmt|nlohmann)/")
_ENV = re.compile(r"^[ \t]*namespace (?:mlx::core::)?env \{", re.MULTILINE)


@dataclass(frozen=True)
class Sources:
    """``quantized``: the file itself. ``packing``: its ``common/quantized.h``, where it includes one.
    ``own``: headers of the commit that the stand-in does not stand for, by path. ``stood_for``: headers that
    are stood for, by path. ``settings``: the commit's functions of the namespace env, '' when it has none."""

    quantized: bytes
    packing: bytes | None = None
    own: dict[str, bytes] = field(default_factory=dict)
    stood_for: tuple[str, ...] = ()
    settings: str = ""

    @property
    def has_transpose(self) -> bool:
        """Whether the op has the argument; before, the weight came as a transposed view."""
        return b"transpose_" in self.quantized

    @property
    def has_mode(self) -> bool:
        """Whether the op has the argument; before, all was affine."""
        return b"mode_" in self.quantized


def sources(upstream: Upstream, commit: Commit, label: str) -> Sources:
    """What is to be compiled of ``commit``. Raises UsageProblem where there is no such op or file."""
    quantized = upstream.read(commit.sha, QUANTIZED)
    if quantized is None or OP.encode() not in quantized:
        raise _absent(upstream, commit, label)
    packing: bytes | None = None
    own: dict[str, bytes] = {}
    stood_for: dict[str, None] = {}
    todo = _included(quantized)
    while todo:
        path = todo.pop(0)
        if path in own or path in stood_for or (path == PACKING and packing is not None):
            continue
        content = upstream.read(commit.sha, path) if path not in STOOD_FOR else None
        if path == PACKING and content is not None:
            packing = content
        elif content is not None:
            own[path] = content
        else:
            stood_for[path] = None
        if content is not None:
            todo += _included(content)
    settings = settings_of((upstream.read(commit.sha, SETTINGS) or b"").decode("utf-8", "replace"))
    return Sources(quantized, packing, own, tuple(stood_for), settings)


def _included(source: bytes) -> list[str]:
    """What a file includes of MLX and of Metal: not the standard library's headers."""
    paths = [found.decode() for found in _INCLUDE.findall(source)]
    return [path for path in paths if _OURS.match(path) and ".." not in path.split("/")]


def settings_of(header: str) -> str:
    """The namespace env of a header, made to stand alone; '' when it has none."""
    start = _ENV.search(header)
    if start is None:
        return ""
    depth = 0
    for at in range(start.end() - 1, len(header)):
        depth += {"{": 1, "}": -1}.get(header[at], 0)
        if depth == 0:
            body = header[start.end() : at]
            return f"namespace mlx::core::env {{{body}}} // namespace mlx::core::env\n"
    return ""


def _absent(upstream: Upstream, commit: Commit, label: str) -> UsageProblem:
    """Why a commit cannot be asked: it is older than the op, or the op is elsewhere."""
    said = upstream.git.tries("grep", "-l", "-F", "-e", OP, commit.sha, "--", "mlx")
    places = [line.partition(":")[2] for line in said.out.splitlines()]
    if places:
        return UsageProblem(
            f"{label} cannot be asked which kernel it launches",
            f"{OP} is not in {QUANTIZED} there but in {', '.join(places[:3])}",
            "this version of bisect_tool does not know that place",
        )
    return UsageProblem(
        f"{label} cannot be asked which kernel it launches",
        f"it has no {OP}: it is older than the op, or has no Metal backend",
        "name a later revision",
    )
