"""What limits a kernel, from the counters of `ncu`, and which law of time against rows they speak for.

A unit at 80 % and more of what it can do is the limit; where none is above 60 %, warps wait for one another
or for memory to answer (the two thresholds of Nsight Compute's own rules, "GPU Speed of Light"). Counters say
what a kernel does, not how long it takes: no time comes from here. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from bisect_tool.analysis.experiments import weight_bytes
from bisect_tool.analysis.launches import Cell
from bisect_tool.analysis.ncu import Kernel

SECTOR = 32  # bytes
FULL, LOW = 0.80, 0.60
SAME = 1.15  # a ratio up to here counts as no growth

# Share of what each could do at most, in percent.
UNITS = {
    "DRAM": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "L2": "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "L1": "l1tex__throughput.avg.pct_of_peak_sustained_active",
    "issue slots": "sm__inst_issued.avg.pct_of_peak_sustained_active",
    "ALU": "sm__pipe_alu_cycles_active.avg.pct_of_peak_sustained_active",
    "FMA": "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active",
    "tensor cores": "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
}
PIPES = ("ALU", "FMA", "tensor cores")
WAVES = "launch__waves_per_multiprocessor"
REGISTERS = "launch__registers_per_thread"
REACHED = "sm__warps_active.avg.pct_of_peak_sustained_active"
POSSIBLE = "sm__maximum_warps_per_active_cycle_pct"
L2_READS = "lts__t_sectors_op_read.sum"
DRAM_READS = "dram__bytes_read.sum"
INSTRUCTIONS = "smsp__inst_executed.sum"
USED = "smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.pct"
METRICS = (*UNITS.values(), WAVES, REGISTERS, REACHED, POSSIBLE, L2_READS, DRAM_READS, INSTRUCTIONS, USED)


@dataclass(frozen=True)
class Limits:
    """One kernel's, shares from 0 to 1, None where this GPU does not count it. ``waves``: blocks, in units of
    what all multiprocessors hold at once. ``l2_reads`` and ``dram_reads``: bytes, in units of the quantized
    weight. ``used``: of the bytes that global loads move, the part that is asked for."""

    kernel: Kernel
    units: Mapping[str, float]
    waves: float | None
    registers: int | None
    reached: float | None
    possible: float | None
    l2_reads: float | None
    dram_reads: float | None
    instructions: float | None
    used: float | None

    @property
    def idle(self) -> float | None:
        """The share of all waves that blocks of equal length would leave empty at the end of the last one."""
        return 1 - self.waves / math.ceil(self.waves) if self.waves else None

    @property
    def busiest(self) -> tuple[str, float]:
        """The unit nearest to its limit; '' when none was counted."""
        return max(self.units.items(), key=lambda item: item[1], default=("", 0.0))

    @property
    def pipe(self) -> tuple[str, float]:
        """The arithmetic pipe nearest to its limit."""
        pipes = {name: self.units[name] for name in PIPES if name in self.units}
        return max(pipes.items(), key=lambda item: item[1], default=("", 0.0))


@dataclass(frozen=True)
class Profiled:
    """One cell: the limits of the kernels of one call, in order."""

    cell: Cell
    kernels: tuple[Limits, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(limits.kernel.signature for limits in self.kernels)

    @property
    def main(self) -> Limits:
        """The kernel that executes the most instructions: the others copy or add up."""
        return max(self.kernels, key=lambda limits: limits.instructions or 0.0)


def limits_of(cell: Cell, kernel: Kernel) -> Limits:
    """The counters of one kernel as limits."""
    counted = kernel.counters
    weight = cell.K * cell.N * weight_bytes(cell.bits, cell.group_size, cell.mode)

    def share(name: str) -> float | None:
        return counted[name] / 100 if name in counted else None

    def weights(name: str, each: float) -> float | None:
        return counted[name] * each / weight if name in counted else None

    return Limits(
        kernel,
        {unit: counted[name] / 100 for unit, name in UNITS.items() if name in counted},
        counted.get(WAVES),
        int(counted[REGISTERS]) if REGISTERS in counted else None,
        share(REACHED),
        share(POSSIBLE),
        weights(L2_READS, SECTOR),
        weights(DRAM_READS, 1.0),
        counted.get(INSTRUCTIONS),
        share(USED),
    )


def profiled(cell: Cell, kernels: Sequence[Kernel]) -> Profiled:
    return Profiled(cell, tuple(limits_of(cell, kernel) for kernel in kernels))


def series(cells: Sequence[Profiled]) -> list[list[Profiled]]:
    """The cells that differ in M alone, each in the order of M; the series as they first appear."""
    found: dict[Cell, list[Profiled]] = {}
    for one in cells:
        found.setdefault(one.cell._replace(M=0), []).append(one)
    return [sorted(group, key=lambda one: one.cell.M) for group in found.values()]


def segments(found: Sequence[Profiled]) -> list[list[Profiled]]:
    """Neighbouring M with the same kernels."""
    return [list(group) for _, group in groupby(found, key=lambda one: one.names)]


def reading(found: Sequence[Profiled]) -> list[str]:
    """What the counters of one series say, a line for each segment's kernel, limit, traffic and launch."""
    lines = []
    parts = segments(found)
    if len(parts) > 1:
        named = ", ".join(f"{part[0].main.kernel.short} at {_rows(part)}" for part in parts)
        lines.append(f"another kernel: {named}")
    for part in parts:
        where = f"{_rows(part)}: " if len(parts) > 1 else ""
        lines += [
            where + text for text in (_limit(part), _traffic(part), _waves(part), _occupancy(part)) if text
        ]
    return lines


def _rows(part: Sequence[Profiled]) -> str:
    first, last = part[0].cell.M, part[-1].cell.M
    return f"M={first}" if first == last else f"M={first}–{last}"


def _limit(part: Sequence[Profiled]) -> str:
    names = {one.main.busiest[0] for one in part}
    shares = [one.main.busiest[1] for one in part]
    if "" in names:
        return ""
    if len(names) > 1:
        busiest = [(one.cell.M, *one.main.busiest) for one in part]
        each = ", ".join(f"{name} {_span([share])} at M={M}" for M, name, share in busiest)
        return f"what is busiest changes with M: {each}"
    (name,) = names
    span = _span(shares)
    if min(shares) >= FULL:
        return f"limited by {name}: {span} of what it can do" + _why(name, part)
    if max(shares) < LOW:
        return f"limited by no unit ({name} is the busiest, {span}): warps wait"
    near = ": near its limit, not at it" if max(shares) < FULL else ""
    return f"{name} is the busiest, {span}{near}" + _why(name, part)


def _why(name: str, part: Sequence[Profiled]) -> str:
    used = [one.main.used for one in part if one.main.used is not None]
    if name not in ("L1", "L2") or not used or max(used) > 0.5:
        return ""
    return f"; of the bytes that its loads move {_span(used)} are asked for"


def _traffic(part: Sequence[Profiled]) -> str:
    """Whether each row reads the weight again: what tells a linear law from a roofline."""
    reads = [one.main.l2_reads for one in part]
    if len(part) < 2 or any(value is None for value in reads):
        return ""
    first, last = part[0], part[-1]
    rows = last.cell.M / first.cell.M
    grown = (reads[-1] or 0.0) / reads[0] if reads[0] else math.inf
    work = (
        last.main.instructions / first.main.instructions
        if first.main.instructions and last.main.instructions
        else None
    )
    text = f"{reads[0]:.1f} to {reads[-1]:.1f} weights are read from L2, ×{grown:.1f} for ×{rows:.1f} rows"
    text += f", instructions ×{work:.1f}" if work is not None else ""
    if grown >= 0.8 * rows:
        return text + ": each row reads the weight again, which speaks for a linear law"
    if grown <= SAME and work is not None and work >= 0.8 * rows:
        return text + ": the weight is read once and arithmetic grows with M, which speaks for a roofline"
    if grown <= SAME and work is not None and work <= SAME:
        return text + ": neither grows, so that time need not either"
    return text


def _waves(part: Sequence[Profiled]) -> str:
    waves = [one.main.waves for one in part]
    if len(part) < 2 or any(value is None for value in waves):
        return ""
    if len({one.main.kernel.grid for one in part}) == 1:
        return f"the same grid at every M ({waves[0]:.2f} waves): waves of blocks make no step here"
    idle = [one.main.idle or 0.0 for one in part]
    worst = max(range(len(part)), key=idle.__getitem__)
    text = f"waves per multiprocessor {waves[0]:.2f} to {waves[-1]:.2f}: a last wave that is not full costs"
    text += f" {_span([idle[worst]])} at most (M={part[worst].cell.M})"
    return text if worst == len(part) - 1 else text + f" and {_span(idle[-1:])} at M={part[-1].cell.M}"


def _occupancy(part: Sequence[Profiled]) -> str:
    reached = [one.main.reached for one in part if one.main.reached is not None]
    possible = {one.main.possible for one in part}
    if len(reached) < len(part) or None in possible or len(part) < 2:
        return ""
    limit = possible.pop() or 0.0
    if possible:
        return "the occupancy that is possible changes with M (registers or shared memory)"
    change = "does not change with M" if max(reached) <= SAME * min(reached) else "changes with M"
    return f"occupancy {change}: {_span(reached)} reached of {_span([limit])} possible"


def _span(shares: Sequence[float]) -> str:
    low, high = f"{min(shares) * 100:.0f}", f"{max(shares) * 100:.0f}"
    return f"{low} %" if low == high else f"{low}–{high} %"
