from __future__ import annotations

from typing import Any

import pytest
from a_session import lines as session_lines
from test_text import cells

from bisect_tool.analysis.series import Block, blocks
from bisect_tool.reporting import step_table

CASE = {"op": "quantized_matmul", "K": 64, "N": 128, "B": 1, "bits": 4, "group_size": 64, "quant": "affine",
        "dtype": "float16", "cache": "hot", "timing": "chain"}  # fmt: skip


def block(times: dict[int, list[float]], **line: Any) -> Block:
    """A block of these times, round by round; ``line`` goes into every case line."""
    made = Block("a", dict(CASE))
    for M, values in times.items():
        made.times[M] = dict(enumerate(values, 1))
        made.lines[M] = [{"time_s": t, "bytes": 10**6, **line} for t in values]
    return made


def rows(of: Block) -> list[list[str]]:
    return [cells(line) for line in step_table.step_table(of).splitlines()]


@pytest.fixture(scope="module")
def before() -> Block:
    return next(b for b in blocks(session_lines()) if b.arm == "0.31.2" and b.case["N"] == 13824)


def test_the_table_of_3553(before: Block) -> None:
    head, _, one, _two, three, _four = rows(before)
    assert head == ["M", "µs [95 %]", "M / M−1 [95 %]", "M / M=1", "GB/s", "error", "notes"]
    assert one[0] == "1" and one[2:4] == ["", ""], "no step from nothing to M=1"
    assert three[1].startswith("345.95 [") and three[2].startswith("1.27") and three[3] == "1.281"
    nbytes = 5120 * 13824 * 9 // 16 + 2 * 3 * (5120 + 13824)
    assert three[4] == f"{nbytes / 345.95e-6 / 1e9:.3g}"
    assert three[5] == "4.1e-04", "of all rounds the largest"


def test_at_most_seven_columns_and_all_rows_alike(before: Block) -> None:
    assert {len(row) for row in rows(before)} == {7}


def test_unit_is_that_of_the_largest_time() -> None:
    of = block({1: [0.5e-3] * 6, 2: [2e-3] * 6})
    assert [row[:2] for row in rows(of) if "---" not in row[0]] == [
        ["M", "ms [95 %]"],
        ["1", "0.5000 [0.5000, 0.5000]"],
        ["2", "2.000 [2.000, 2.000]"],
    ]


def test_no_interval_below_six_rounds() -> None:
    of = block({1: [0.27e-3] * 3, 2: [0.3e-3] * 3})
    assert rows(of)[3][:3] == ["2", "300.0", "1.111"]
    assert step_table.summary(of) == "**64 → 128**: 3 of the 6 rounds that an interval needs; no statement"


def test_notes_say_how_many_runs_carry_them() -> None:
    plain: dict[str, Any] = {"marks": [], "error": {"relative": 1e-3, "row_bits_as_m1": True}}
    bent = {"marks": ["nonlinear-chain"], "error": {"relative": 2e-3, "row_bits_as_m1": False}}
    assert step_table.notes([plain, plain]) == []
    assert step_table.notes([bent, plain, plain]) == [
        "nonlinear-chain (1/3)",
        "row 0 differs from M=1 (1/3)",
    ]
    assert step_table.notes([bent, bent]) == ["nonlinear-chain", "row 0 differs from M=1"]
    assert step_table.notes([{}]) == [], "a control has neither"
    assert step_table.error([plain, bent]) == "2.0e-03" and step_table.error([{}]) == ""


def test_how_and_shape() -> None:
    assert step_table.how(CASE) == "affine 4-bit, group 64, float16; chain, hot"
    assert (
        step_table.how({"dtype": "float32", "timing": "percall", "cache": "hot"}) == "float32; percall, hot"
    )
    assert step_table.shape(CASE) == "64 → 128"
    assert step_table.shape({**CASE, "B": 4}) == "64 → 128 ×4"
    assert step_table.title(block({1: [1.0]})) == (
        "**64 → 128** – mlx a; affine 4-bit, group 64, float16; chain, hot"
    )


def test_summary_of_3553(before: Block) -> None:
    assert step_table.summary(before) == (
        "**5120 → 13824**: largest step M=2→3, +27.2 % [26.5, 27.8]; #3553's pattern is present: "
        "M=2 costs +0.7 % against M=1, M=3 +27.2 % against M=2"
    )


def test_summary_without_a_step() -> None:
    wobble = [1.0, 1.003, 0.998, 1.001, 0.997, 1.002]
    flat = block({4: [1e-3] * 6, 5: [1e-3 * w for w in wobble]})
    said = step_table.summary(flat)
    assert said == "**64 → 128**: no step larger than 0.3 % (what this host can see)"
    falling = block({4: [1e-3] * 6, 5: [0.8e-3 * w for w in wobble]})
    assert "no step larger than 0.0 %" in step_table.summary(falling)
    noisy = block({4: [1e-3] * 6, 5: [1e-3 * w**10 for w in wobble]})
    assert step_table.summary(noisy) == "**64 → 128**: no step larger than 3.0 % (what this host can see)"


def test_summary_without_neighbours() -> None:
    of = block({1: [1e-3] * 6, 8: [2e-3] * 6})
    said = "**64 → 128**: no two neighbouring M were measured; no statement about a step"
    assert step_table.summary(of) == said


def test_summary_says_nothing_of_a_step_without_an_interval() -> None:
    """Each M has its six rounds, but only three of them are shared: the step has no interval."""
    of = block({1: [1e-3] * 6})
    of.times[2] = dict.fromkeys(range(4, 10), 0.0015)
    of.lines[2] = of.lines[1]
    said = "fewer than 6 rounds have both of two neighbouring M; no statement"
    assert step_table.summary(of) == f"**64 → 128**: {said}"


def test_summary_does_not_blame_the_host_for_a_step_it_does_see() -> None:
    of = block({1: [1e-3] * 8, 2: [1.015e-3 + i * 1e-8 for i in range(8)]})
    assert step_table.summary(of) == "**64 → 128**: no step of 2 % or more (at most 1.5 %)"


def test_summary_does_not_rule_out_a_step_that_an_interval_allows() -> None:
    """M=2 is seen to cost 1.5 % more; M=3 is so noisy that it may cost 5 % more."""
    wobble = [0.96, 1.05, 0.97, 1.04, 1.0, 1.03]
    of = block({1: [1e-3] * 6, 2: [1.015e-3] * 6, 3: [1.015e-3 * w for w in wobble]})
    assert "no step of 2 % or more" not in step_table.summary(of)


def test_the_pattern_is_not_read_off_a_host_that_was_timed() -> None:
    of = block({1: [1e-3] * 7, 2: [1e-3] * 7, 3: [1.3e-3] * 7, 4: [1.3e-3] * 7})
    for M, marked in ((1, 3), (2, 4), (4, 7)):
        of.lines[M] = [
            {**line, "marks": ["launch-bound"] * (i < marked)} for i, line in enumerate(of.lines[M])
        ]
    said = step_table.summary(of)
    assert said.endswith("#3553's pattern is unclear: M=2 launch-bound, so the host was timed"), "M=1: 3 of 7"
    of.lines[2] = of.lines[3]
    assert "#3553's pattern is present" in step_table.summary(of)


def test_control_line() -> None:
    found = [b for b in blocks(session_lines()) if b.control]
    assert [b.arm for b in found] == ["0.31.2", "0.32.4"]
    assert step_table.control(found[1]) == (
        "control: matmul 4096 → 4096, M=1024, float16, chain: 5.100 [5.087, 5.112] ms (mlx 0.32.4)"
    )
