from __future__ import annotations

import math
from typing import Any

import pytest

from bisect_tool.analysis.correctness import against


def line(
    relative: float, *, values: list[float] | None = None, bits: str = "a", inputs: str = "i", **case: Any
) -> dict[str, Any]:
    return {
        "case": {"dtype": "float16", **case},
        "error": {"relative": relative, "max_abs": 0.1, "row_bits_as_m1": True},
        "output": {"inputs": inputs, "bits": bits, "values": values or [1.0, 2.0]},
    }


@pytest.mark.parametrize(
    ("error", "baseline", "wrong"),
    [
        (1.0e-3, 1.0e-3, ""),
        (2.9e-3, 1.0e-3, ""),
        (3.1e-3, 1.0e-3, "relative error 3.1e-03, 3.1× the baseline's"),
        (4.0e-4, 1.0e-4, ""),  # four times, and less than rounding once to float16
        (6.0e-4, 1.0e-4, "relative error 6.0e-04, 6× the baseline's"),
        (math.nan, 1.0e-3, "NaN"),
        (math.inf, 1.0e-3, "NaN"),
        (math.nan, math.nan, ""),  # the baseline's is no better
        (1.0e-3, math.nan, ""),
        (1.0, 0.0, "relative error 1.0e+00, where the baseline has none"),
    ],
)
def test_wrong(error: float, baseline: float, wrong: str) -> None:
    found = against({1: line(error)}, {1: line(baseline)})
    assert found is not None and found.wrong == wrong


def test_wrong_in_one_round_is_wrong() -> None:
    base = {r: line(1e-3) for r in range(9)}
    found = against({**base, 4: line(0.5)}, base)
    assert found is not None and found.wrong.startswith("relative error 5.0e-01")
    assert (found.error, found.baseline) == (0.5, 1e-3)


def test_bfloat16_rounds_more() -> None:
    found = against({1: line(3e-3, dtype="bfloat16")}, {1: line(5e-4, dtype="bfloat16")})
    assert found is not None and not found.wrong


def test_difference_from_the_baseline() -> None:
    base = {1: line(1e-3), 2: line(1e-3, values=[1.0, 2.0])}
    same = against({1: line(1e-3), 2: line(1e-3)}, base)
    assert same is not None and same.differs == 0.0 and not same.other_inputs
    other = against({1: line(1e-3), 2: line(1e-3, bits="b", values=[1.25, 1.5])}, base)
    assert other is not None and other.differs == 0.5
    broken = against({1: line(1e-3, bits="b", values=[math.nan, 2.0])}, base)
    assert broken is not None and broken.differs is not None and math.isnan(broken.differs)


def test_the_same_bits_are_no_difference_whatever_they_say() -> None:
    found = against({1: line(1e-3, values=[math.nan])}, {1: line(1e-3, values=[math.nan])})
    assert found is not None and found.differs == 0.0


def test_other_inputs_have_no_difference() -> None:
    found = against({1: line(1e-3, bits="b", inputs="j")}, {1: line(1e-3)})
    assert found is not None and found.differs is None and found.other_inputs


def test_rounds_without_the_baseline_and_lines_without_an_error() -> None:
    found = against({1: line(0.5)}, {})
    assert found is not None and not found.wrong and found.baseline is None and found.differs is None
    assert against({1: {"case": {"dtype": "float16"}}}, {}) is None
    old = line(1e-3)
    del old["output"]
    found = against({1: old}, {1: line(1e-3)})
    assert found is not None and found.differs is None and not found.other_inputs


def test_row_bits() -> None:
    other = line(1e-3)
    other["error"]["row_bits_as_m1"] = False
    found = against({1: line(1e-3), 2: other}, {})
    assert found is not None and not found.row_bits
