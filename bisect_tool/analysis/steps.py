"""Time against rows M: the step from each M to the next, the largest of them, and #3553's pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bisect_tool.analysis.rank import Interval, log_centre

MARGIN = 0.02  # a smaller change is not called a step
FLAT = 0.10  # #3553: M=2 within this of M=1 ...
STEP = 0.10  # ... and M=3 at least this above M=2 (the issue reports 1-5 % and 27-30 %)


@dataclass(frozen=True)
class Row:
    """One M: its time in seconds over the rounds, and its ratios within each round."""

    M: int
    time: Interval
    step: Interval | None  # time(M) / time(M-1); None when M-1 was not measured
    over_one: Interval | None  # time(M) / time(1)


@dataclass(frozen=True)
class Pattern:
    """Whether #3553's pattern shows: ``present``, ``absent`` or ``unclear``, and why in one clause."""

    answer: str
    why: str


def rows(times: Mapping[int, Mapping[int, float]]) -> list[Row]:
    """``times[M][round]`` in seconds, one value a round (one process). Ratios are taken within a round.

    Rows come in order of M. Raises ValueError where a time is not a finite number above 0.
    """
    found = []
    for M in sorted(times):
        step, over_one = (
            ratio(times[M], times[other]) if other != M and other in times else None for other in (M - 1, 1)
        )
        found.append(Row(M, log_centre(list(times[M].values())), step, over_one))
    return found


def ratio(above: Mapping[int, float], below: Mapping[int, float]) -> Interval | None:
    """Of two series by round, taken within each round that both have; None when there is none.

    Raises ValueError where a value is not a finite number above 0.
    """
    shared = [above[r] / below[r] for r in above if r in below]
    return log_centre(shared) if shared else None


def largest_step(found: Sequence[Row]) -> Row | None:
    """The row with the largest step whose interval excludes 1 and that is at least MARGIN; or None."""
    real = [
        row
        for row in found
        if row.step is not None and row.step.low is not None
        and row.step.low > 1 and row.step.centre >= 1 + MARGIN
    ]  # fmt: skip
    return max(real, key=lambda row: row.step.centre if row.step else 0.0, default=None)


def largest_possible(found: Sequence[Row]) -> float | None:
    """The largest step that the intervals still allow, as a share (0.012: 1.2 %); None without intervals."""
    highs = [row.step.high for row in found if row.step is not None]
    known = [high for high in highs if high is not None]
    return max(known) - 1 if known and len(known) == len(highs) else None


def pattern_3553(found: Sequence[Row]) -> Pattern | None:
    """#3553: two rows cost what one does, the third a step more. None when M = 1, 2, 3 were not measured."""
    by_m = {row.M: row for row in found}
    if not {1, 2, 3} <= by_m.keys():
        return None
    two, three = by_m[2].step, by_m[3].step
    if two is None or three is None or two.low is None or two.high is None or three.low is None:
        return Pattern("unclear", "too few rounds")
    assert three.high is not None
    if two.low > 1 + FLAT:
        return Pattern("absent", f"M=2 already costs {_change(two)} against M=1")
    if two.high < 1 - FLAT:
        return Pattern("absent", f"M=2 costs {_change(two)} against M=1")
    if three.high < 1 + STEP:
        return Pattern("absent", f"M=3 costs {_change(three)} against M=2")
    if two.low >= 1 - FLAT and two.high <= 1 + FLAT and three.low >= 1 + STEP:
        return Pattern("present", f"M=2 costs {_change(two)} against M=1, M=3 {_change(three)} against M=2")
    return Pattern("unclear", "the intervals straddle its limits (M=2 within 10 %, M=3 at least 10 % more)")


def _change(ratio: Interval) -> str:
    return f"{(ratio.centre - 1) * 100:+.1f} %"
