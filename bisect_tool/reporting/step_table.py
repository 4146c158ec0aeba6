"""The step table: time against rows M at one shape, with the step from each M to the next."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bisect_tool.analysis import steps
from bisect_tool.analysis.rank import MIN_ROUNDS
from bisect_tool.analysis.series import Block
from bisect_tool.reporting.text import UNITS, mlx, percent, table, time_unit, with_interval

Line = Mapping[str, Any]
OTHER_BITS = "row 0 differs from M=1"
MEANING = {
    "nonlinear-chain": "the middle chain length lies more than 2 % off the line through the outer two",
    "launch-bound": "the host could not launch as fast as the kernel runs, so the host was timed",
    "cache-resident": "more bytes a second than this machine's memory moves: the weight came from a cache",
    "wrong-result": "relative error of 0.1 or more",
    OTHER_BITS: "other bits than M=1 gives for the same row: another kernel ran",
}


def shape(case: Mapping[str, Any]) -> str:
    batch = f" ×{case['B']}" if case.get("B", 1) != 1 else ""
    return f"{case['K']} → {case['N']}{batch}"


def how(case: Mapping[str, Any]) -> str:
    """``affine 4-bit, group 64, float16; chain, hot``."""
    what = ""
    if "quant" in case:
        what = f"{case['quant']} {case['bits']}-bit, group {case['group_size']}, "
    return f"{what}{case['dtype']}; {case['timing']}, {case['cache']}"


def title(block: Block) -> str:
    return f"**{shape(block.case)}** – {mlx(block.arm)}; {how(block.case)}"


def step_table(block: Block) -> str:
    """The table of one block, in markdown."""
    rows = steps.rows(block.times)
    unit = time_unit([row.time.centre for row in rows])
    cells = []
    for row in rows:
        lines = block.lines[row.M]
        cells.append(
            [
                str(row.M),
                with_interval(row.time, UNITS[unit]),
                with_interval(row.step, at_most=4),
                f"{row.over_one.centre:.3f}" if row.over_one else "",
                f"{statistics.median(line['bytes'] for line in lines) / row.time.centre / 1e9:.3g}",
                error(lines),
                ", ".join(notes(lines)),
            ]
        )
    return table(["M", f"{unit} [95 %]", "M / M−1 [95 %]", "M / M=1", "GB/s", "error", "notes"], cells)


def error(lines: Sequence[Line]) -> str:
    errors = [line["error"]["relative"] for line in lines if "error" in line]
    return f"{max(errors):.1e}" if errors else ""


def notes(lines: Sequence[Line]) -> list[str]:
    """Marks that the runs carry, with how many of them do when not all; and whether other bits came out."""
    counts = Counter(mark for line in lines for mark in line.get("marks", ()))
    counts[OTHER_BITS] = sum(not line.get("error", {}).get("row_bits_as_m1", True) for line in lines)
    return [
        mark if count == len(lines) else f"{mark} ({count}/{len(lines)})"
        for mark, count in sorted(counts.items())
        if count
    ]


def legend(blocks: Sequence[Block]) -> list[str]:
    """What the notes in these tables mean, once each; nothing when there are none."""
    return meanings([line for block in blocks for by_m in block.lines.values() for line in by_m])


def meanings(lines: Sequence[Line]) -> list[str]:
    """The same for the case lines behind any tables."""
    seen = {note.split(" (")[0] for note in notes(lines)}
    return [f"`{note}`: {MEANING[note]}" for note in sorted(seen) if note in MEANING]


def summary(block: Block) -> str:
    """One line: where the largest step is and how large, or how large one could still be."""
    rows = steps.rows(block.times)
    where = f"**{shape(block.case)}**: "
    rounds = min(row.time.n for row in rows)
    if rounds < MIN_ROUNDS:
        return where + f"{rounds} of the {MIN_ROUNDS} rounds that an interval needs; no statement"
    if not any(row.step for row in rows):
        return where + "no two neighbouring M were measured; no statement about a step"
    largest = steps.largest_step(rows)
    possible = steps.largest_possible(rows)
    if largest is not None and largest.step is not None:
        text = f"largest step M={largest.M - 1}→{largest.M}, {percent(largest.step)}"
    elif possible is None:
        return where + f"fewer than {MIN_ROUNDS} rounds have both of two neighbouring M; no statement"
    elif possible <= steps.MARGIN and any(row.step and row.step.low and row.step.low > 1 for row in rows):
        # Seen, and too small to be called a step: nothing to do with what this host can see.
        text = f"no step of {steps.MARGIN * 100:.0f} % or more (at most {possible * 100:.1f} %)"
    else:
        text = f"no step larger than {max(possible, 0.0) * 100:.1f} % (what this host can see)"
    pattern = steps.pattern_3553(rows)
    host = [M for M in (1, 2, 3) if M in block.lines and mostly(block.lines[M], "launch-bound")]
    if pattern is not None and host:
        pattern = steps.Pattern(
            "unclear", f"M={', '.join(map(str, host))} launch-bound, so the host was timed"
        )
    if pattern is not None:
        text += f"; #3553's pattern is {pattern.answer}: {pattern.why}"
    return where + text


def mostly(lines: Sequence[Line], mark: str) -> bool:
    """Whether more than half of the runs carry the mark."""
    return 2 * sum(mark in line.get("marks", ()) for line in lines) > len(lines)


def control(block: Block) -> str:
    """One line about the control op."""
    rows = steps.rows(block.times)
    unit = time_unit([rows[0].time.centre])
    case = block.case
    return (
        f"control: {case['op']} {shape(case)}, M={rows[0].M}, {case['dtype']}, {case['timing']}: "
        f"{with_interval(rows[0].time, UNITS[unit])} {unit} ({mlx(block.arm)})"
    )
