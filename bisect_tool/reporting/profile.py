"""What profilers saw, as markdown tables and as data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bisect_tool.analysis.launches import Cell
from bisect_tool.analysis.limits import Limits, Profiled, reading, series
from bisect_tool.analysis.perf import Function, Sampled
from bisect_tool.reporting.dispatch_table import cell_dict, settings
from bisect_tool.reporting.text import folded, table

FUNCTIONS = 5  # named of each cell
LEAST = 0.01  # share of a function that is named
NOT_TIMED = "- nothing was timed: a profiler replays or holds up what it looks at; `bisect_tool repro` times"

HOW_TO_READ = """\
- open one with `open FILE` (Xcode), then Replay and Profile; compare the M before a step and the M after it
- kernel: the name of the compute dispatch; another name is another kernel
- bandwidth or arithmetic: the highest of the limiters (buffer read, last-level cache, ALU)
- waves: the dispatch's threadgroups against what the GPU holds at once; occupancy: kernel occupancy
"""


# ---- CUDA


def limits_text(found: Sequence[Profiled], cold: bool) -> str:
    """What the counters say of each series, and the counters."""
    parts = []
    for group in series(found):
        lines = "\n".join(f"- {line}" for line in reading(group))
        parts.append(f"**{_shape(group[0].cell)}**, {settings(group[0].cell)}\n{lines}".rstrip())
    rows = [(one.cell, limits) for one in found for limits in one.kernels]
    launches = [
        [
            _shape(cell), str(cell.M), limits.kernel.short, limits.kernel.grid, limits.kernel.block,
            _plain(limits.waves), "–" if limits.registers is None else str(limits.registers),
            f"{_share(limits.reached)} of {_share(limits.possible)}",
        ]
        for cell, limits in rows
    ]  # fmt: skip
    head = ["K → N", "M", "kernel", "blocks", "threads", "waves per SM", "registers", "occupancy"]
    parts.append(table(head, launches))
    head = ["K → N", "M", "kernel", "DRAM", "L2", "L1", "issue slots", "busiest pipe",
            "weights read from L2", "from DRAM", "instructions"]  # fmt: skip
    parts.append(table(head, [_counters(cell, limits) for cell, limits in rows]))
    caches = "emptied before each call" if cold else "as the calls before left them"
    parts.append(
        "- DRAM, L2, L1, issue slots and pipes: share of what each can do at most; the busiest is in bold\n"
        "- weights read: bytes that come from L2 and from DRAM, in units of the quantized weight\n"
        f"- caches: {caches}\n{NOT_TIMED}"
    )
    names = dict.fromkeys(f"- `{limits.kernel.signature}`" for _, limits in rows)
    parts.append(folded("kernels in full", "\n".join(names)))
    return "\n\n".join(parts)


def _counters(cell: Cell, limits: Limits) -> list[str]:
    busiest, pipe = limits.busiest[0], limits.pipe

    def unit(name: str) -> str:
        text = _share(limits.units.get(name))
        return f"**{text}**" if name == busiest else text

    arithmetic = f"{pipe[0]} {unit(pipe[0])}" if pipe[0] else "–"
    instructions = "–" if limits.instructions is None else f"{limits.instructions / 1e6:.2f} M"
    reads = [_plain(limits.l2_reads), _plain(limits.dram_reads)]
    four = [unit(name) for name in ("DRAM", "L2", "L1", "issue slots")]
    return [_shape(cell), str(cell.M), limits.kernel.short, *four, arithmetic, *reads, instructions]


# ---- CPU


def samples_text(found: Sequence[tuple[Cell, Sampled]]) -> str:
    """Where a CPU's samples fell, and what it counts for each call where it counts."""
    rows = [
        [_shape(cell), str(cell.M), f.name, f.library, f"{f.share * 100:.1f} %", str(sampled.samples)]
        for cell, sampled in found
        for f in _named(sampled.functions)
    ]
    cells = list(dict.fromkeys(settings(cell) for cell, _ in found))
    parts = ["; ".join(cells), table(["K → N", "M", "function", "library", "share", "of samples"], rows)]
    if any(sampled.counters for _, sampled in found):
        counted = [
            [_shape(cell), str(cell.M), str(sampled.calls), *_per_call(sampled)] for cell, sampled in found
        ]
        head = ["K → N", "M", "calls", "instructions a call", "a cycle", "cache misses a call"]
        parts.append(table(head, counted))
    else:
        parts.append("- this machine counts no instructions, cycles or cache misses, as many virtual ones")
    parts.append(NOT_TIMED)
    return "\n\n".join(parts)


def _named(functions: Sequence[Function]) -> list[Function]:
    shown = [f for f in functions if f.share >= LEAST][:FUNCTIONS]
    rest = sum(f.share for f in functions) - sum(f.share for f in shown)
    return [*shown, Function("all others", "", rest)] if rest >= LEAST else shown


def _per_call(sampled: Sampled) -> list[str]:
    counted, calls = sampled.counters, max(sampled.calls, 1)
    work, cycles, misses = (counted.get(name) for name in ("instructions", "cycles", "cache-misses"))
    return [
        "–" if work is None else f"{work / calls / 1e6:.2f} M",
        "–" if not (work and cycles) else f"{work / cycles:.2f}",
        "–" if misses is None else f"{misses / calls:,.0f}",
    ]


# ---- Metal


def captures_text(found: Sequence[tuple[Cell, Path]]) -> str:
    """Where the captures are and what to look at in them."""
    rows = [[_shape(cell), str(cell.M), str(place)] for cell, place in found]
    return "\n\n".join(
        [
            settings(found[0][0]),
            table(["K → N", "M", "Metal capture of one call"], rows),
            HOW_TO_READ + NOT_TIMED,
        ]
    )


# ---- data


def limits_data(found: Sequence[Profiled]) -> list[dict[str, Any]]:
    """As JSON holds it: counters by ncu's names in base units."""
    return [
        {
            "cell": _cell(one.cell),
            "kernels": [
                {
                    "name": limits.kernel.name,
                    "grid": limits.kernel.grid,
                    "block": limits.kernel.block,
                    "counters": dict(limits.kernel.counters),
                    "weights_read_from_l2": limits.l2_reads,
                    "weights_read_from_dram": limits.dram_reads,
                }
                for limits in one.kernels
            ],
        }
        for one in found
    ]


def readings_data(found: Sequence[Profiled]) -> list[dict[str, Any]]:
    return [{"K": group[0].cell.K, "N": group[0].cell.N, "says": reading(group)} for group in series(found)]


def samples_data(found: Sequence[tuple[Cell, Sampled]]) -> list[dict[str, Any]]:
    return [
        {
            "cell": _cell(cell),
            "samples": sampled.samples,
            "functions": [
                {"name": f.name, "library": f.library, "share": round(f.share, 6)} for f in sampled.functions
            ],
            "calls": sampled.calls,
            "counters": dict(sampled.counters),
        }
        for cell, sampled in found
    ]


def captures_data(found: Sequence[tuple[Cell, Path]]) -> list[dict[str, Any]]:
    return [{"cell": _cell(cell), "capture": str(place)} for cell, place in found]


def _cell(cell: Cell) -> dict[str, Any]:
    return {name: value for name, value in cell_dict(cell).items() if name not in ("arch", "nax")}


def _shape(cell: Cell) -> str:
    return f"{cell.K} → {cell.N}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.0f} %"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
