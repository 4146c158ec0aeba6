"""What NVIDIA's Nsight Compute (`ncu --csv --print-units base`) says of the kernels that ran. Pure."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_HEAD = '"ID",'
_COLUMNS = ("ID", "Kernel Name", "Block Size", "Grid Size", "Metric Name", "Metric Value")


@dataclass(frozen=True)
class Kernel:
    """One kernel that ran. ``grid`` counts thread blocks, ``block`` threads. ``counters``: metrics by ncu's
    own name, in base units; those that this GPU does not count are missing."""

    name: str
    grid: str = ""
    block: str = ""
    counters: Mapping[str, float] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """The name without return type, namespaces, template and function arguments: ``qmv_kernel``."""
        plain = self.signature.replace("(anonymous namespace)::", "")
        return plain.partition("<")[0].rpartition("::")[2]

    @property
    def signature(self) -> str:
        """The name with its template arguments: two kernels of one ``short`` name differ in those."""
        return re.sub(r"^void\s+", "", _without_arguments(self.name))


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
    found: dict[str, tuple[Kernel, dict[str, float]]] = {}
    for row in csv.DictReader(table):
        if any(row.get(column) is None for column in _COLUMNS):
            raise ValueError(f"a line of the table lacks one of {', '.join(_COLUMNS)}")
        counters: dict[str, float] = {}
        kernel = Kernel(row["Kernel Name"], row["Grid Size"], row["Block Size"], counters)
        _, counters = found.setdefault(row["ID"], (kernel, counters))
        value = _number(row["Metric Value"])
        if value is not None:
            counters[row["Metric Name"]] = value
    return [kernel for kernel, _ in found.values()]


def _number(text: str) -> float | None:
    """``36,263,936`` as a number; None for what was not counted (``n/a``)."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _without_arguments(name: str) -> str:
    """``kernel<(int)64>(const T1 *)`` up to the bracket that opens the function's own arguments."""
    depth = 0
    for at, sign in enumerate(name):
        if sign in "<>":
            depth += 1 if sign == "<" else -1
        elif sign == "(" and depth == 0 and at > 0 and not name.startswith("(anonymous", at):
            return name[:at]
    return name
