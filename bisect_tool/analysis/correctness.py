"""Are an arm's results still right? Judged against float32, and against the baseline's results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Line = Mapping[str, Any]
FACTOR = 3.0  # an error so many times the baseline's is no rounding any more
# Rounding once to the dtype: an error below it cannot be wrong, however exact the baseline is.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-20}


@dataclass(frozen=True)
class Correctness:
    """``error``: the largest relative error against float32 over the rounds; ``baseline``: the baseline's.

    ``differs``: the largest absolute difference from the baseline's result, 0.0 for equal bits, None where
    the two did not multiply the same numbers (``other_inputs``) or do not say. ``row_bits``: whether row 0
    has the bits that M=1 gives, in every round. ``wrong``: why the result is wrong, or nothing.
    """

    error: float | None
    baseline: float | None
    differs: float | None
    row_bits: bool
    wrong: str
    other_inputs: bool = False


def against(lines: Mapping[int, Line], baseline: Mapping[int, Line]) -> Correctness | None:
    """Of the case lines of one cell by round. None when the cell carries no error, as controls do not.

    Wrong in one round is wrong: a kernel that races fails now and then.
    """
    errors = {r: _error(line) for r, line in lines.items() if "error" in line}
    if not errors:
        return None
    wrong = next((text for r in errors if (text := _wrong(lines[r], baseline.get(r)))), "")
    base = [_error(line) for line in baseline.values() if "error" in line]
    return Correctness(
        _largest(list(errors.values())),
        _largest(base) if base else None,
        _difference(lines, baseline),
        all(line["error"].get("row_bits_as_m1", True) for line in lines.values() if "error" in line),
        wrong,
        any(_other_inputs(line, baseline.get(r)) for r, line in lines.items()),
    )


def _error(line: Line) -> float:
    return float(line["error"]["relative"])


def _largest(values: list[float]) -> float:
    return next((v for v in values if math.isnan(v)), max(values))


def _wrong(line: Line, base: Line | None) -> str:
    """Why this result is wrong, in one clause; empty when it is not known to be."""
    error = _error(line)
    usual = _error(base) if base is not None and "error" in base else None
    if not math.isfinite(error):
        return "NaN" if usual is None or math.isfinite(usual) else ""  # the baseline's is no better
    if usual is None or not math.isfinite(usual):
        return ""
    limit = max(FACTOR * usual, ROUNDING.get(str(line["case"].get("dtype")), 0.0))
    if error < limit:
        return ""
    times = f", {error / usual:.3g}× the baseline's" if usual > 0 else ", where the baseline has none"
    return f"relative error {error:.1e}{times}"


def _difference(lines: Mapping[int, Line], baseline: Mapping[int, Line]) -> float | None:
    found = [
        _between(line["output"], baseline[r]["output"])
        for r, line in lines.items()
        if "output" in line and "output" in baseline.get(r, {})
    ]
    known = [difference for difference in found if difference is not None]
    return _largest(known) if known else None


def _other_inputs(line: Line, base: Line | None) -> bool:
    """Whether these two say that they multiplied other numbers: quantizing gave another weight, say."""
    if base is None or "output" not in line or "output" not in base:
        return False
    return bool(line["output"]["inputs"] != base["output"]["inputs"])


def _between(output: Line, other: Line) -> float | None:
    """The largest difference of two results of the same inputs, at the places that both kept."""
    if output.get("inputs") != other.get("inputs") or not output.get("inputs"):
        return None
    if output["bits"] == other["bits"]:
        return 0.0
    return _largest([abs(a - b) for a, b in zip(output["values"], other["values"], strict=False)])
