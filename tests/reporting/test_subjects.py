"""Curves from a session's rounds: noise, floors, segments by bits, what a copy reaches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from a_session import case_line, run_line
from a_session import lines as session_lines

from bisect_tool.analysis.subjects import from_session, noise

Line = dict[str, Any]


def runs(times: dict[int, float], rounds: int = 6, **line: Any) -> list[Line]:
    """A session of one shape with these times in seconds by M; ``line`` goes into every case line."""
    found = []
    for number in range(1, rounds + 1):
        cases = []
        for M, seconds in times.items():
            one = copy.deepcopy(case_line("0.31.2", number, 5120, 13824, 1))
            one["case"]["M"], one["marks"] = M, []
            one |= {"time_s": seconds * (1 + 0.002 * (number % 3 - 1)), **copy.deepcopy(line)}
            cases.append(one)
        sentinel = {"when": "before", "arithmetic_s": 1.0, "bandwidth_s": 1.0, "gbps": 250.0}
        found.append(run_line("0.31.2", number, 0, cases=cases, sentinels={"before": sentinel}))
    return found


def test_curves_of_a_session() -> None:
    found = from_session(session_lines(), "metal")
    assert {(s.arm, s.name) for s in found} == {
        (arm, f"5120 → {N}") for arm in ("0.31.2", "0.32.4") for N in (13824, 5120)
    }
    one = next(s for s in found if s.arm == "0.31.2" and s.name == "5120 → 13824")
    assert [p.M for p in one.points] == [1, 2, 3, 4] and one.floor_removed and one.floor is None
    assert one.facts is not None and one.facts.weight_bytes == 5120 * 13824 * 0.5625
    assert one.facts.flop == 2 * 5120 * 13824 and one.facts.copy is None
    assert all(p.noise == 0.01 for p in one.points), "no better than the way of timing"
    assert one.diagnosis().name == "roofline", "the figures of #3553"


def test_bits_of_row_0_cut_it_into_segments() -> None:
    two = next(s for s in from_session(session_lines()) if s.arm == "0.32.4" and s.name == "5120 → 13824")
    assert [(s.low, s.high) for s in two.segments] == [(1, 1), (2, None)]
    assert "another kernel ran" in two.remarks[0]
    assert two.diagnosis().answers[0].segment is not None


def test_what_a_copy_reaches_and_the_noise_of_rounds() -> None:
    (one,) = from_session(runs({M: 1e-4 * M for M in range(1, 9)}, rounds=8))
    assert one.facts is not None and one.facts.copy == 250e9
    # 100 µs for 40 MB: 398 GB/s, more than a copy.
    assert one.diagnosis().text.startswith("linear: the weights are read again for every row, at 100 %")


def test_launch_bound_rows_are_left_out() -> None:
    lines = runs({M: 1e-5 * M for M in range(1, 9)})
    for run in lines:
        for case in run["cases"]:
            if case["case"]["M"] <= 2:
                case["marks"] = ["launch-bound"]
    (one,) = from_session(lines)
    assert [p.M for p in one.points] == [3, 4, 5, 6, 7, 8]
    assert "M = 1, 2 left out: launch-bound" in one.remarks[0]


def test_an_empty_call_beside_percall_times_is_the_floor() -> None:
    lines = runs({M: 1e-4 + 2e-6 * M for M in range(1, 9)}, floor_s=9e-5)
    for run in lines:
        for case in run["cases"]:
            case["case"]["timing"] = "percall"
    (one,) = from_session(lines)
    assert not one.floor_removed and one.floor == 9e-5
    assert one.diagnosis().text == "floor-bound: 83 % of this number is launch overhead"


def test_one_round_has_no_noise_of_its_own() -> None:
    (one,) = from_session(runs({M: 1e-4 * M for M in range(1, 9)}, rounds=1))
    assert one.points[0].noise == 0.02 and one.remarks == (
        "one round: its noise is not known, 2% is assumed",
    )


def test_noise() -> None:
    assert noise([1.0]) == 0.02
    assert noise([1.0, 1.1]) == pytest.approx(0.0477, abs=0.001), "of the spread"
    assert noise([1.0] * 8) == 0.01
    wide = noise([1.0, 1.2, 0.9, 1.1, 1.0, 1.3, 0.8, 1.0])
    assert 0.04 < wide < 0.1
