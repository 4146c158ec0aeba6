"""What NVIDIA's Nsight Compute (`ncu --csv`) says of the kernels that ran. Pure."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_HEAD = '"ID",'
_COLUMNS = ("ID", "Kernel Name", "Block Size", "Grid Size")


@dataclass(frozen=True)
class Kernel:
    """One kernel that ran. ``grid`` counts thread blocks, ``block`` threads; '' where ncu does not say."""

    name: str
    grid: str = ""
    block: str = ""


def kernels(text: str) -> list[Kernel]:
    """The kernels in the order in which they ran, from standard output with all that stands around the table.

    One kernel has a line for each metric. Raises ValueError when there is no table with these columns.
    """
    lines = text.splitlines()
    start = next((at for at, line in enumerate(lines) if line.startswith(_HEAD)), None)
    if start is None:
        if re.search(r"==WARNING== No kernels were profiled", text):
            return []
        complaint = next((line for line in lines if line.startswith("==ERROR==")), "there is no table")
        raise ValueError(complaint.removeprefix("==ERROR==").strip())
    table = [line for line in lines[start:] if line.startswith('"')]
    found: dict[str, Kernel] = {}
    for row in csv.DictReader(table):
        if any(row.get(column) is None for column in _COLUMNS):
            raise ValueError(f"a line of the table lacks one of {', '.join(_COLUMNS)}")
        found.setdefault(row["ID"], Kernel(row["Kernel Name"], row["Grid Size"], row["Block Size"]))
    return list(found.values())


def beyond(without: Sequence[Kernel], with_it: Sequence[Kernel]) -> list[Kernel]:
    """The kernels that an op adds: those of a run with it that a run without it has not, in their order."""
    left = Counter(without)
    found = []
    for kernel in with_it:
        if left[kernel]:
            left[kernel] -= 1
        else:
            found.append(kernel)
    return found
