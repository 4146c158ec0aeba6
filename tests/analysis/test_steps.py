"""Rounds made from the series published under #3553, with the noise of a quiet machine."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from bisect_tool.analysis.rank import Interval, log_centre
from bisect_tool.analysis.steps import MARGIN, Row, largest_possible, largest_step, pattern_3553, rows

Times = dict[int, dict[int, float]]
# Milliseconds by M. M4 Pro: the description; M3 Max: with qmv_wide (katlun-lgtm, 2026-07-09).
M4_PRO_UP = {1: 0.270, 2: 0.272, 3: 0.346, 4: 0.425}
M4_PRO_DOWN = {1: 0.277, 2: 0.292, 3: 0.379, 4: 0.477}
M4_PRO_SQUARE = {1: 0.218, 2: 0.200, 3: 0.195, 4: 0.233}  # its first shape: M=1 not boosted yet
M3_MAX_WIDE = {1: 0.294, 2: 0.329, 3: 0.354, 6: 0.454}
CPU = {1: 2.87, 2: 5.73, 3: 8.62, 4: 11.47}
FLAT = {1: 0.2, 2: 0.2, 3: 0.2, 4: 0.2}


def measured(published: Mapping[int, float], n: int = 8, noise: float = 0.003, seed: int = 1) -> Times:
    """``n`` rounds; each has a speed of its own that its ratios must not see."""
    rng = random.Random(seed)
    times: Times = {M: {} for M in published}
    for number in range(1, n + 1):
        speed = rng.gauss(1, 5 * noise)
        for M, ms in published.items():
            times[M][number] = ms / 1e3 * speed * rng.gauss(1, noise)
    return times


def answer(times: Times) -> str:
    found = pattern_3553(rows(times))
    assert found is not None
    return found.answer


def test_rows_hold_times_and_ratios_within_rounds() -> None:
    times = measured(M4_PRO_UP)
    one, two, three, four = rows(times)
    assert [row.M for row in (one, two, three, four)] == [1, 2, 3, 4]
    assert one.step is None and one.over_one is None
    assert two.step == two.over_one
    assert three.time == log_centre(list(times[3].values()))
    assert three.step == log_centre([times[3][r] / times[2][r] for r in times[3]])
    assert four.over_one == log_centre([times[4][r] / times[1][r] for r in times[4]])
    assert three.step is not None and three.step.half_width < 0.005 < three.time.half_width


def test_rows_come_in_order_of_m() -> None:
    assert [row.M for row in rows({10: {1: 1.0}, 2: {1: 1.0}, 1: {1: 1.0}})] == [1, 2, 10]


# --- what was published -------------------------------------------------------------------------------


def test_the_step_of_3553() -> None:
    found = rows(measured(M4_PRO_UP))
    largest = largest_step(found)
    assert largest is not None and largest.M == 3 and largest.step is not None
    assert largest.step.centre == pytest.approx(0.346 / 0.272, rel=0.005)
    assert largest.step.low is not None and largest.step.high is not None
    assert largest.step.low <= 0.346 / 0.272 <= largest.step.high
    pattern = pattern_3553(found)
    assert pattern is not None and pattern.answer == "present"
    assert pattern.why.startswith("M=2 costs +0.") and "M=3 +27." in pattern.why


@pytest.mark.parametrize(
    ("published", "expected", "step_at"),
    [
        (M4_PRO_DOWN, "present", 3),
        (M4_PRO_SQUARE, "absent", 4),  # the issue: "does not appear for square shapes"
        (M3_MAX_WIDE, "absent", 2),  # qmv_wide moved the step to M=2 and halved it
        (CPU, "absent", 2),
    ],
)
def test_other_series(published: dict[int, float], expected: str, step_at: int) -> None:
    times = measured(published)
    assert answer(times) == expected
    largest = largest_step(rows(times))
    assert largest is not None and step_at == largest.M


def test_a_gap_in_m_has_no_step() -> None:
    *_, six = rows(measured(M3_MAX_WIDE))
    assert six.step is None
    assert six.over_one is not None
    assert six.over_one.centre == pytest.approx(0.454 / 0.294, rel=0.01)


def test_linear_says_why_it_is_absent() -> None:
    pattern = pattern_3553(rows(measured(CPU)))
    assert pattern is not None and pattern.why.startswith("M=2 already costs +99.")


def test_flat_has_no_step_and_says_how_large_one_may_be() -> None:
    found = rows(measured(FLAT))
    assert largest_step(found) is None
    possible = largest_possible(found)
    assert possible is not None and 0 < possible < 0.01
    noisier = largest_possible(rows(measured(FLAT, noise=0.02)))
    assert noisier is not None and possible < noisier < 0.1
    assert answer(measured(FLAT)) == "absent"


# --- limits -------------------------------------------------------------------------------------------


def test_a_real_step_below_the_margin_is_not_called_one() -> None:
    small = {1: 0.2, 2: 0.2, 3: 0.2 * (1 + MARGIN / 2), 4: 0.202}
    found = rows(measured(small, noise=0.0005))
    assert found[2].step is not None and found[2].step.low is not None and found[2].step.low > 1
    assert largest_step(found) is None
    possible = largest_possible(found)
    assert possible is not None and MARGIN / 2 < possible < MARGIN


def test_a_large_step_that_is_all_noise_is_not_called_one() -> None:
    times = measured(FLAT, n=6, noise=0.001)
    times[3] = {r: 0.0002 * (1.3 if r < 6 else 0.99) for r in times[3]}
    assert largest_step(rows(times)) is None


def test_limits_at_m2_and_m3() -> None:
    assert answer(measured({1: 1.0, 2: 1.05, 3: 1.05 * 1.2})) == "present"
    assert answer(measured({1: 1.0, 2: 1.12, 3: 1.12 * 1.2})) == "absent"
    assert answer(measured({1: 1.0, 2: 1.05, 3: 1.05 * 1.08})) == "absent"
    assert answer(measured({1: 1.0, 2: 1.1, 3: 1.3})) == "unclear"
    assert answer(measured({1: 1.0, 2: 1.0, 3: 1.1})) == "unclear"
    assert answer(measured({1: 1.0, 2: 0.95, 3: 1.2})) == "present"


def test_m2_far_below_m1_is_not_the_pattern() -> None:
    """Two rows must cost what one does: a slow first cell is no step at M=3."""
    pattern = pattern_3553(rows(measured({1: 0.3, 2: 0.2, 3: 0.3})))
    assert pattern is not None and pattern.answer == "absent" and pattern.why.startswith("M=2 costs -33.")
    assert answer(measured({1: 1.0, 2: 0.9, 3: 1.2})) == "unclear"


# --- what is missing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 5])
def test_too_few_rounds(n: int) -> None:
    found = rows(measured(M4_PRO_UP, n=n))
    assert all(row.time.low is None and row.time.n == n for row in found)
    assert largest_step(found) is None
    assert largest_possible(found) is None
    pattern = pattern_3553(found)
    assert pattern is not None and (pattern.answer, pattern.why) == ("unclear", "too few rounds")


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_no_pattern_without_m_1_2_and_3(missing: int) -> None:
    times = measured(M4_PRO_UP)
    del times[missing]
    assert pattern_3553(rows(times)) is None


def test_one_m_alone() -> None:
    found = rows(measured({4: 0.425}))
    assert found[0].step is None and found[0].over_one is None and found[0].time.known
    assert largest_step(found) is None and largest_possible(found) is None and pattern_3553(found) is None
    assert rows({}) == [] and largest_possible([]) is None


def test_rounds_that_one_m_has_alone_count_for_its_time_only() -> None:
    times = measured(M4_PRO_UP, n=9)
    for number in (1, 2, 3):
        del times[3][number]
    _, two, three, four = rows(times)
    assert (two.time.n, three.time.n) == (9, 6)
    assert three.step is not None and (three.step.n, three.step.known) == (6, True)
    assert four.step is not None and four.step.n == 6


def test_no_round_in_common() -> None:
    times = measured(M4_PRO_UP, n=12)
    times[3] = {r: t for r, t in times[3].items() if r <= 6}
    times[2] = {r: t for r, t in times[2].items() if r > 6}
    found = rows(times)
    assert found[2].step is None and found[2].over_one is not None
    pattern = pattern_3553(found)
    assert pattern is not None and (pattern.answer, pattern.why) == ("unclear", "too few rounds")


def test_largest_possible_needs_every_interval() -> None:
    """One step without an interval could be as large as you like."""
    known, unknown = Interval(1.0, 0.99, 1.01, 6), Interval(1.0, None, None, 3)
    some = [Row(2, known, known, known), Row(3, known, unknown, known)]
    assert largest_possible(some) is None
    assert largest_possible(some[:1]) == pytest.approx(0.01)


def test_all_steps_down() -> None:
    found = rows(measured({1: 1.0, 2: 0.8, 3: 0.6}))
    assert largest_step(found) is None
    possible = largest_possible(found)
    assert possible is not None and -0.25 < possible < -0.15


@pytest.mark.parametrize("bad", [0.0, -1e-3, float("nan"), float("inf")])
def test_times_that_are_none(bad: float) -> None:
    with pytest.raises(ValueError, match=r"above 0|finite"):
        rows({1: {1: 0.2, 2: bad}})
