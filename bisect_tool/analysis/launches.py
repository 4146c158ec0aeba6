"""What a quantized matmul launches: cells, answers, ranges of M by kernel family, and what differs. Pure.

A cell is one call of the op on one GPU architecture; its answer is what the host code of a commit would
launch for it. Grids count threadgroups, threadgroups count threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Size = tuple[int, int, int]

# A kernel's name is its mode, its family, and its parameters from the dtype on.
_NAME = re.compile(r"(?:affine_|mxfp4_|mxfp8_|nvfp4_)?(.+?)_(?:b?float(?:16|32|64)?|half)(?:_t)?(?:_.*)?")
# What of an answer can differ, the weightiest first.
KINDS = (
    "exception",
    "kernel",
    "split-K",
    "reduction",
    "grid",
    "threadgroup",
    "parameters",
    "buffers",
    "copies",
)


class Cell(NamedTuple):
    """One call: ``x[M, K] @ w[N, K].T``, or with ``w[K, N]`` where it is not ``transpose``.

    ``arch``: as Metal names it, ``applegpu_g16s``. ``mode``: affine, mxfp4, mxfp8, nvfp4. ``nax``: the neural
    accelerator's kernels are built and may be used.
    """

    arch: str
    K: int
    N: int
    M: int
    bits: int = 4
    group_size: int = 64
    mode: str = "affine"
    dtype: str = "float16"
    transpose: bool = True
    nax: bool = False


@dataclass(frozen=True)
class Launch:
    """One kernel. ``function``: of the Metal source that it is made from, '' where the host does not name it;
    not part of what is compared. ``buffers``: how many arguments are bound. ``split``: into how many parts K
    is cut, to be added up by a reduction. ``reduction``: it is that reduction, of which no more is known."""

    kernel: str
    grid: Size
    group: Size
    buffers: int
    split: int = 1
    reduction: bool = False
    function: str = field(default="", compare=False)


@dataclass(frozen=True)
class Answer:
    """What one cell launches, in order. ``copies``: of inputs, before. ``exception``: what the host code
    threw in place of launching."""

    launches: tuple[Launch, ...] = ()
    copies: int = 0
    exception: str = ""

    @property
    def main(self) -> Launch | None:
        """The kernel that does the product: the first one."""
        return next((each for each in self.launches if not each.reduction), None)

    @property
    def family(self) -> str:
        """``qmv_wide``, ``qmm_t``; '' of an exception."""
        return family(self.main.kernel) if self.main else ""

    @property
    def kernel(self) -> str:
        return self.main.kernel if self.main else ""

    @property
    def split(self) -> int:
        return self.main.split if self.main else 1

    @property
    def reductions(self) -> int:
        """How many passes add up the parts of a split K."""
        return sum(each.reduction for each in self.launches)

    @property
    def threadgroups(self) -> int:
        """Of the kernel that does the product."""
        x, y, z = self.main.grid if self.main else (0, 0, 0)
        return x * y * z


@dataclass(frozen=True)
class Segment:
    """Neighbouring M of one architecture, shape and so on, at which the same family is launched in the same
    way. ``cells`` and ``answers`` are in the order of M."""

    cells: tuple[Cell, ...]
    answers: tuple[Answer, ...]

    @property
    def first(self) -> int:
        return self.cells[0].M

    @property
    def last(self) -> int:
        return self.cells[-1].M

    @property
    def family(self) -> str:
        return self.answers[0].family


@dataclass(frozen=True)
class Changed:
    """A cell whose answers differ. ``kinds``: how, of ``KINDS``."""

    cell: Cell
    before: Answer
    after: Answer
    kinds: tuple[str, ...]


def family(kernel: str) -> str:
    """A kernel's name without mode, dtype and parameters: ``affine_qmv_wide_float16_t_gs_64…`` ->
    ``qmv_wide``."""
    found = _NAME.fullmatch(kernel)
    if found is None:
        return kernel
    late = "_fast" if kernel.endswith("_fast") else ""  # stood last, once
    return found[1] + late


def block(cell: Cell) -> Cell:
    """The cell without its M: equal for all cells of one table."""
    return cell._replace(M=0)


def segments(answers: Mapping[Cell, Answer]) -> list[Segment]:
    """The answers by block, in the order given, and each block cut where family, threadgroup, split or
    exception changes, or where M is not the next one."""
    found: list[Segment] = []
    for cells in _blocks(answers):
        run: list[Cell] = []
        for cell in cells:
            if run and not (cell.M == run[-1].M + 1 and _way(answers[cell]) == _way(answers[run[-1]])):
                found.append(_segment(run, answers))
                run = []
            run.append(cell)
        found.append(_segment(run, answers))
    return found


def _segment(run: Sequence[Cell], answers: Mapping[Cell, Answer]) -> Segment:
    return Segment(tuple(run), tuple(answers[cell] for cell in run))


def _way(answer: Answer) -> tuple[object, ...]:
    main = answer.main
    return (
        answer.family,
        main.group if main else None,
        answer.split,
        answer.reductions,
        answer.exception,
    )


def _blocks(cells: Iterable[Cell]) -> list[list[Cell]]:
    blocks: dict[Cell, list[Cell]] = {}
    for cell in cells:
        blocks.setdefault(block(cell), []).append(cell)
    return [sorted(each, key=lambda cell: cell.M) for each in blocks.values()]


def kinds(before: Answer, after: Answer) -> tuple[str, ...]:
    """In what two answers differ, of ``KINDS``; nothing when they are equal. ``parameters``: those that the
    kernel's name carries, or the name itself, of one family."""
    if before == after:
        return ()
    a, b = before.main, after.main
    differs = {
        "exception": before.exception != after.exception,
        "kernel": before.family != after.family,
        "split-K": before.split != after.split,
        "reduction": before.reductions != after.reductions,
        "copies": before.copies != after.copies,
    }
    if a is not None and b is not None:
        differs |= {
            "grid": a.grid != b.grid,
            "threadgroup": a.group != b.group,
            "parameters": a.kernel != b.kernel and before.family == after.family,
            "buffers": a.buffers != b.buffers,
        }
    found = tuple(kind for kind in KINDS if differs.get(kind))
    return found or ("reduction",)  # further launches than the first differ


def changes(before: Mapping[Cell, Answer], after: Mapping[Cell, Answer]) -> list[Changed]:
    """The cells of both whose answers differ, in the order of ``after``."""
    found = []
    for cell, answer in after.items():
        old = before.get(cell)
        if old is not None and old is not answer and old != answer:  # mostly they are one object
            found.append(Changed(cell, old, answer, kinds(old, answer)))
    return found


def together(changed: Sequence[Changed]) -> list[list[Changed]]:
    """The same, neighbouring M that change from the one family to the other in the same ways in one group."""
    groups: list[list[Changed]] = []
    ordered = {each.cell: each for each in changed}
    for cells in _blocks(ordered):
        for cell in cells:
            each = ordered[cell]
            last = groups[-1][-1] if groups else None
            if (
                last is not None
                and block(last.cell) == block(cell)
                and last.cell.M + 1 == cell.M
                and (_way(last.before), _way(last.after), last.kinds)
                == (_way(each.before), _way(each.after), each.kinds)
                and ("parameters" not in each.kinds or _names(last) == _names(each))
            ):
                groups[-1].append(each)
            else:
                groups.append([each])
    return groups


def _names(changed: Changed) -> tuple[str, str]:
    return changed.before.kernel, changed.after.kernel


def axis(values: Mapping[int, int]) -> str:
    """One axis of the grids over M, in words: a number, ``M``, ``⌈M/5⌉``, or ``2…9`` for none of these.

    ``values``: M to threadgroups. A single M gives the number.
    """
    numbers = list(values.values())
    if len(set(numbers)) == 1:
        return str(numbers[0])
    for step in range(1, 129):
        if all(-(-M // step) == number for M, number in values.items()):
            return "M" if step == 1 else f"⌈M/{step}⌉"
    return f"{numbers[0]}…{numbers[-1]}"


def grid(cells: Sequence[Cell], answers: Sequence[Answer]) -> str:
    """The grids of the products over M: ``M × 1728 × 1``; '' where nothing is launched."""
    sizes = {cell.M: answer.main.grid for cell, answer in zip(cells, answers, strict=True) if answer.main}
    if not sizes:
        return ""
    return " × ".join(axis({M: size[at] for M, size in sizes.items()}) for at in range(3))
