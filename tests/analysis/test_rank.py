from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Sequence

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from bisect_tool.analysis.rank import MIN_ROUNDS, Interval, hodges_lehmann, log_centre, signed_rank_cut

# Wilcoxon's critical values T: reject when the smaller rank sum is <= T. Two-sided 0.05 and 0.01 for n = 5 to
# 25, as in the tables of every textbook (Hollander, Wolfe & Chicken, table A.4); -1 where there is none.
T_05 = [-1, 0, 2, 3, 5, 8, 10, 13, 17, 21, 25, 29, 34, 40, 46, 52, 58, 65, 73, 81, 89]
T_01 = [-1, -1, -1, 0, 1, 3, 5, 7, 9, 12, 15, 19, 23, 27, 32, 37, 42, 48, 54, 61, 68]
# Whole multiples of 1/8: exact in floating point, so that moving and doubling them loses nothing.
eighths = st.integers(-80_000, 80_000).map(lambda i: i / 8)
samples = st.lists(eighths, min_size=1, max_size=14)


def walsh_averages(values: Sequence[float]) -> list[float]:
    pairs = itertools.combinations_with_replacement(values, 2)
    return sorted((a + b) / 2 for a, b in pairs)


# --- how many Walsh averages are cut off --------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "table"), [(0.05, T_05), (0.01, T_01)])
def test_cuts_against_the_published_tables(alpha: float, table: list[int]) -> None:
    assert [signed_rank_cut(n, alpha) for n in range(5, 26)] == [t + 1 for t in table]


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.0625, 0.1, 0.32])
@pytest.mark.parametrize("n", range(1, 11))
def test_cuts_against_all_sign_patterns(n: int, alpha: float) -> None:
    sums = [
        sum(rank for rank, positive in enumerate(signs, 1) if positive)
        for signs in itertools.product((False, True), repeat=n)
    ]

    def share_below(cut: int) -> float:
        return sum(w < cut for w in sums) / len(sums)

    cut = signed_rank_cut(n, alpha)
    assert share_below(cut) <= alpha / 2 < share_below(cut + 1)


def test_no_exact_interval_below_the_minimum() -> None:
    assert signed_rank_cut(MIN_ROUNDS - 1, 0.05) == 0 < signed_rank_cut(MIN_ROUNDS, 0.05)
    assert all(hodges_lehmann([1.0] * n).low is None for n in range(1, MIN_ROUNDS))
    assert hodges_lehmann([float(i) for i in range(7)], alpha=0.01).high is None, "none of that level at n=7"
    assert hodges_lehmann([float(i) for i in range(8)], alpha=0.01).known


# --- centre and interval ------------------------------------------------------------------------------


@given(samples)
def test_centre_against_brute_force(values: list[float]) -> None:
    found = hodges_lehmann(values)
    assert found.centre == statistics.median(walsh_averages(values))
    assert found.n == len(values)
    if found.low is not None and found.high is not None:
        assert min(values) <= found.low <= found.centre <= found.high <= max(values)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
@pytest.mark.parametrize("n", [6, 7, 10, 15, 20])
def test_interval_holds_the_shifts_that_scipy_does_not_reject(n: int, alpha: float) -> None:
    rng = random.Random(n)
    values = [rng.gauss(1.0, 0.3) for _ in range(n)]
    found = hodges_lehmann(values, alpha)
    assert found.low is not None and found.high is not None
    averages = walsh_averages(values)
    edges = [averages[0] - 1, *averages, averages[-1] + 1]
    for a, b in itertools.pairwise(edges):
        shift = (a + b) / 2  # W+ is the same all along here, and there are no ties
        moved = [v - shift for v in values]
        rejected = scipy.stats.wilcoxon(moved, method="exact").pvalue <= alpha
        assert (found.low < shift < found.high) == (not rejected)


@pytest.mark.parametrize("n", [6, 10, 20])
def test_coverage_on_normal_samples(n: int) -> None:
    rng = random.Random(3553)
    hits = 0
    for _ in range(2000):
        found = hodges_lehmann([rng.gauss(5.0, 1.0) for _ in range(n)])
        assert found.low is not None and found.high is not None
        hits += found.low <= 5.0 <= found.high
    assert 0.94 <= hits / 2000 <= 0.99


def test_one_wild_value_moves_the_centre_little() -> None:
    """The reason for all this: a mean would move by 12 %."""
    times = [0.270, 0.271, 0.270, 0.272, 0.269, 0.271, 0.270, 0.600]
    assert hodges_lehmann(times).centre == pytest.approx(0.2705, rel=0.005)


# --- invariances --------------------------------------------------------------------------------------


def moved(found: Interval, scale: float, shift: float) -> tuple[float | None, ...]:
    three = (found.low, found.centre, found.high)
    return tuple(None if x is None else x * scale + shift for x in three)


@given(samples, eighths)
def test_shift(values: list[float], by: float) -> None:
    there = hodges_lehmann([v + by for v in values])
    assert moved(there, 1, 0) == moved(hodges_lehmann(values), 1, by)


@given(samples, st.sampled_from([0.25, 2.0, 1024.0]))
def test_scale_and_sign(values: list[float], by: float) -> None:
    plain = hodges_lehmann(values)
    assert moved(hodges_lehmann([v * by for v in values]), 1, 0) == moved(plain, by, 0)
    mirrored = hodges_lehmann([-v for v in values])
    low, centre, high = moved(plain, -1, 0)
    assert (mirrored.low, mirrored.centre, mirrored.high) == (high, centre, low)


@given(st.data(), samples)
def test_permutation(data: st.DataObject, values: list[float]) -> None:
    assert hodges_lehmann(data.draw(st.permutations(values))) == hodges_lehmann(values)


@settings(deadline=None)
@given(
    st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=12),
    st.floats(1e-3, 1e3),
)
def test_log_centre_follows_a_change_of_unit_and_inverts(values: list[float], by: float) -> None:
    plain, scaled = log_centre(values), log_centre([v * by for v in values])
    inverse = log_centre([1 / v for v in values])
    assert scaled.centre == pytest.approx(plain.centre * by)
    assert inverse.centre == pytest.approx(1 / plain.centre)
    assert plain.known == scaled.known == inverse.known == (len(values) >= MIN_ROUNDS)
    if plain.known:
        assert moved(scaled, 1, 0) == pytest.approx(moved(plain, by, 0))
        assert (inverse.high, inverse.low) == pytest.approx([1 / (x or 0) for x in (plain.low, plain.high)])


def test_log_centre_is_the_geometric_one() -> None:
    assert log_centre([1.0, 4.0]).centre == pytest.approx(statistics.median([1.0, 2.0, 4.0]))
    assert log_centre([1.0, 100.0]).centre == pytest.approx(10.0)


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [[], [math.nan], [1.0, math.nan, 2.0], [math.inf], [1.0, -math.inf]])
def test_nothing_and_what_is_not_finite(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one value, all of them finite"):
        hodges_lehmann(bad)
    with pytest.raises(ValueError, match=r"finite|above 0"):
        log_centre(bad)


@pytest.mark.parametrize("bad", [[0.0], [1.0, -2.0], [math.nan, 1.0]])
def test_logarithms_need_values_above_0(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="needs values above 0"):
        log_centre(bad)


# --- Interval -----------------------------------------------------------------------------------------


def test_half_width() -> None:
    assert Interval(2.0, 1.9, 2.3, 6).half_width == pytest.approx(0.1)
    assert Interval(-2.0, -2.3, -1.9, 6).half_width == pytest.approx(0.1)
    assert Interval(2.0, 2.0, 2.0, 6).half_width == 0
    assert Interval(0.0, -1.0, 1.0, 6).half_width == math.inf
    assert Interval(2.0, None, None, 5).half_width == math.inf
    assert Interval(2.0, 1.9, 2.3, 6).known and not Interval(2.0, None, None, 5).known
