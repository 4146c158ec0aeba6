"""From what is asked for to cells: every architecture, shape, row count, … checked as the op does."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bisect_tool.analysis.launches import Cell
from bisect_tool.dispatch import architectures
from bisect_tool.errors import UsageProblem

SHAPES_3553 = ((5120, 5120), (5120, 1024), (5120, 13824), (13824, 5120))  # K, N
DTYPES = ("float16", "bfloat16", "float32")
# What each mode takes: bits and group sizes, the default first.
MODES = {
    "affine": ((4, 2, 3, 5, 6, 8), (64, 32, 128)),
    "mxfp4": ((4,), (32,)),
    "mxfp8": ((8,), (32,)),
    "nvfp4": ((4,), (16,)),
}
MOST_CELLS = 200_000
MOST = 2**24  # of M, K and N


def cells(
    archs: Sequence[str],
    shapes: Sequence[tuple[int, int]],
    rows: Sequence[int],
    *,
    bits: Sequence[int] = (),
    group_sizes: Sequence[int] = (),
    modes: Sequence[str] = ("affine",),
    dtypes: Sequence[str] = ("float16",),
    transpose: bool = True,
    nax: bool | None = None,
) -> list[Cell]:
    """Every combination, M last. ``shapes``: K and N. Empty ``bits`` and ``group_sizes``: what the mode has.

    ``nax``: None is by the architecture. Raises UsageProblem for what the op would refuse.
    """
    count = len(archs) * len(modes) * len(shapes) * len(dtypes) * len(rows)
    if count * max(1, len(bits)) * max(1, len(group_sizes)) > MOST_CELLS:
        raise UsageProblem(f"more than {MOST_CELLS} cells are asked for", "", "ask for fewer at a time")
    found: dict[Cell, None] = {}
    for arch in archs:
        for mode in modes:
            all_bits, all_groups = MODES[mode]
            for each_bits in bits or all_bits[:1]:
                for group_size in group_sizes or all_groups[:1]:
                    _taken(mode, each_bits, group_size)
                    for K, N in shapes:
                        _divides(K if transpose else N, group_size, (N, K) if transpose else (K, N))
                        for dtype in dtypes:
                            for M in rows:
                                cell = Cell(
                                    arch, K, N, M, each_bits, group_size, mode, dtype, transpose,
                                    architectures.has_nax(arch) if nax is None else nax,
                                )  # fmt: skip
                                found[cell] = None
    return list(found)


def of_case(case: Mapping[str, Any], arch: str) -> Cell | None:
    """The cell of a case that a repro measured; None of what is no plain quantized matmul (a control, a batch
    of weights). ``arch``: see ``architectures.of_arm``."""
    if case.get("op") != "quantized_matmul" or case.get("control") or case.get("B", 1) != 1:
        return None
    return Cell(
        arch, case["K"], case["N"], case["M"], case["bits"], case["group_size"], case["quant"], case["dtype"],
        True, architectures.has_nax(arch),
    )  # fmt: skip


def _taken(mode: str, bits: int, group_size: int) -> None:
    all_bits, groups = MODES[mode]
    for what, value, allowed in (("bits", bits, all_bits), ("group size", group_size, groups)):
        if value not in allowed:
            raise UsageProblem(
                f"{mode} has no {what} {value}", "", f"it has {', '.join(map(str, sorted(allowed)))}"
            )


def _divides(last: int, group_size: int, shape: tuple[int, int]) -> None:
    if last % group_size:
        raise UsageProblem(
            f"w of {shape[0]}x{shape[1]} cannot be quantized",
            f"mx.quantize needs its last dimension, {last}, to be divisible by the group size, {group_size}",
            "choose another shape or --group-size",
        )


def names(text: str, known: Collection[str], what: str) -> list[str]:
    """``affine,mxfp4``, of those that are known. Raises UsageProblem."""
    found = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in found:
        if name not in known:
            raise UsageProblem(f"{name!r} is no {what}", "", f"choose of {', '.join(known)}")
    return found


def rows(text: str) -> list[int]:
    """``1-4,6,8`` in order, without doubles. Raises UsageProblem."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,8})(?:\s*-\s*(\d{1,8}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 0 < first <= last <= MOST:
            raise UsageProblem(f"{part!r} is no range of rows", "", "write them as 1-40 or 1-4,6,8")
        if last - first > MOST_CELLS:
            raise UsageProblem(f"{part!r} are more rows than {MOST_CELLS}")
        found.update(range(first, last + 1))
    return sorted(found)


def shape(text: str) -> tuple[int, int]:
    """``5120x13824``: K and N. Raises UsageProblem."""
    match = re.fullmatch(r"\s*(\d{1,8})\s*[x×]\s*(\d{1,8})\s*", text)
    K, N = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (0 < K <= MOST and 0 < N <= MOST):
        raise UsageProblem(f"{text!r} is no shape", "", "write it as KxN, such as 5120x13824")
    return K, N
