from __future__ import annotations

import itertools
import math
import random

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bisect_tool.analysis.rank import MIN_ROUNDS, Interval, hodges_lehmann
from bisect_tool.analysis.verdicts import (
    TOO_MANY,
    Effect,
    Kind,
    Verdict,
    beside,
    effect,
    holm,
    judge,
    least_rounds,
    moved,
    rounds_needed,
    seen,
    signed_rank_p,
    steady,
)

values = st.lists(st.integers(-40, 40).map(lambda i: i / 8), min_size=1, max_size=9)


def an_effect(centre: float, half: float, n: int = 20, p: float | None = None) -> Effect:
    """Symmetric in logarithms; p well below or above 5 % as the interval says, unless given."""
    low, high = (math.exp(math.log(centre) + sign * half) for sign in (-1, 1))
    return Effect(Interval(centre, low, high, n), (1e-5 if low > 1 or high < 1 else 0.5) if p is None else p)


def paired(change: float, sd: float, n: int, seed: int = 1) -> Effect:
    rng = random.Random(seed)
    base = {r: 1e-3 * math.exp(rng.gauss(0, sd)) for r in range(n)}
    found = effect({r: t * (1 + change) * math.exp(rng.gauss(0, sd)) for r, t in base.items()}, base)
    assert found is not None
    return found


# --- p, exactly ----------------------------------------------------------------------------------------


@given(values)
def test_p_counts_sign_patterns(sample: list[float]) -> None:
    """Against the definition: of all ways to sign these sizes, how many lie as far out."""
    sizes = [abs(v) for v in sample if v]
    ranks = [sum(s < size for s in sizes) + (sum(s == size for s in sizes) + 1) / 2 for size in sizes]
    total = sum(ranks)
    seen_sum = sum(rank for rank, v in zip(ranks, [v for v in sample if v], strict=True) if v > 0)
    smaller = min(seen_sum, total - seen_sum)
    patterns = list(itertools.product((0, 1), repeat=len(ranks)))
    below = sum(sum(r for r, up in zip(ranks, p, strict=True) if up) <= smaller for p in patterns)
    assert signed_rank_p(sample) == pytest.approx(min(1.0, 2 * below / len(patterns)))


@pytest.mark.parametrize("n", [6, 9, 20, 40])
def test_p_against_scipy(n: int) -> None:
    rng = random.Random(n)
    sample = [rng.gauss(0.4, 1) for _ in range(n)]
    assert signed_rank_p(sample) == pytest.approx(scipy.stats.wilcoxon(sample, method="exact").pvalue)


def test_p_of_nothing() -> None:
    assert signed_rank_p([]) == signed_rank_p([0.0, 0.0]) == 1.0


@given(st.lists(st.floats(-1, 1).filter(bool), min_size=6, max_size=14, unique_by=abs))
def test_p_and_interval_are_one_test(sample: list[float]) -> None:
    """Below 5 % exactly where the interval leaves 0 out, as both invert the same statistic.

    A Walsh average of 0 would be a tie that only one of them knows of.
    """
    found = hodges_lehmann(sample)
    assert found.low is not None and found.high is not None
    if all(a + b != 0 for a, b in itertools.combinations(sample, 2)):
        assert (signed_rank_p(sample) <= 0.05) == (found.low > 0 or found.high < 0)


# --- Holm ----------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # Holm (1979): 0.01 × 4, then 0.02 × 3, then 0.03 × 2, then 0.04, never smaller than the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_nothing_and_bonferroni(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(p <= a <= min(1.0, len(ps) * p) or a == 1.0 for p, a in zip(ps, adjusted, strict=True))
    assert sorted(ps) == [p for _, p in sorted(zip(adjusted, ps, strict=True))]


@pytest.mark.parametrize(("rows", "rounds"), [(1, 6), (2, 7), (4, 8), (9, 9), (36, 11)])
def test_least_rounds(rows: int, rounds: int) -> None:
    """One round fewer, all of one sign, and Holm's first step fails."""
    assert least_rounds(rows) == rounds
    assert rows * 2 / 2**rounds <= 0.05
    assert rounds == MIN_ROUNDS or rows * 2 / 2 ** (rounds - 1) > 0.05


# --- verdicts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("centre", "half", "kind"),
    [
        (1.05, 0.01, Kind.SLOWER),
        (0.9, 0.01, Kind.FASTER),
        (1.021, 0.005, Kind.SLOWER),
        (1.019, 0.005, Kind.AMBIGUOUS),  # apart from 1, and below the margin
        (1.0, 0.015, Kind.SAME),
        (0.99, 0.005, Kind.SAME),  # apart from 1, and within the margin all the same
        (1.0, 0.03, Kind.AMBIGUOUS),
        (1.05, 0.06, Kind.AMBIGUOUS),
    ],
)
def test_verdict_of_one_row(centre: float, half: float, kind: Kind) -> None:
    (found,) = judge([an_effect(centre, half)])
    assert found.kind is kind and found.reason
    assert found.change == (kind in (Kind.FASTER, Kind.SLOWER))
    assert (found.kind is Kind.AMBIGUOUS) == found.short.endswith("more rounds")


def test_holm_keeps_a_row_back() -> None:
    """p = 0.02 is enough for one row, and not among five."""
    alone = an_effect(1.05, 0.04, p=0.02)
    assert judge([alone])[0].kind is Kind.SLOWER
    found = judge([alone, *[an_effect(1.0, 0.001)] * 4])
    assert found[0].kind is Kind.AMBIGUOUS and "over 5 rows" in found[0].reason
    assert {verdict.kind for verdict in found[1:]} == {Kind.SAME}


def test_rows_without_a_common_round_are_no_part_of_the_family() -> None:
    alone = an_effect(1.05, 0.04, p=0.02)
    found = judge([None, alone, None])
    assert [verdict.kind for verdict in found] == [Kind.MISSING, Kind.SLOWER, Kind.MISSING]
    assert effect({1: 1.0}, {2: 1.0}) is None


def test_too_few_rounds() -> None:
    (found,) = judge([paired(0.5, 0.01, 4)])
    assert found.kind is Kind.AMBIGUOUS and found.more == 2 and "4 of the 6 rounds" in found.reason
    assert judge([paired(0.5, 0.01, 4)] * 4)[0].more == 4, "eight rounds are the least for four rows"


def test_real_numbers() -> None:
    assert judge([paired(0.05, 0.005, 12)])[0].kind is Kind.SLOWER
    assert judge([paired(-0.05, 0.005, 12)])[0].kind is Kind.FASTER
    assert judge([paired(0.0, 0.005, 12)])[0].kind is Kind.SAME
    with pytest.raises(ValueError, match="above 0"):
        effect({1: 0.0}, {1: 1.0})


# --- how many more -------------------------------------------------------------------------------------


def test_rounds_needed_shrinks_with_the_root() -> None:
    # ±4 % at 20 rounds must become ±1 % beside a centre of 1 %: 16 times the rounds, which is too many ...
    near = an_effect(1.01, 0.04)
    assert rounds_needed(near) is None and judge([near])[0].short == f"more than {TOO_MANY} more rounds"
    # ... and 3 % need ±3 %: about 1.8 times.
    assert rounds_needed(an_effect(1.03, 0.04)) == math.ceil(20 * (0.04 / math.log(1.03)) ** 2) - 20
    # Among nine rows it takes more, never fewer.
    assert (rounds_needed(an_effect(1.03, 0.04), 9) or 0) > (rounds_needed(an_effect(1.03, 0.04)) or 0)
    assert rounds_needed(an_effect(1.02, 0.01)) is not None
    assert rounds_needed(an_effect(1.0199999, 0.03)) is None, "at the margin no number of rounds will do"


@given(st.floats(0.9, 1.1), st.floats(0.001, 0.1), st.integers(6, 60), st.integers(1, 36))
def test_more_rounds_are_at_least_one(centre: float, half: float, n: int, rows: int) -> None:
    needed = rounds_needed(an_effect(centre, half, n), rows)
    assert needed is None or 1 <= needed <= TOO_MANY


# --- controls ------------------------------------------------------------------------------------------


def test_a_control_that_moves_takes_every_verdict() -> None:
    control = an_effect(1.015, 0.004)
    assert moved(control) and not steady(control)
    for said in (Kind.FASTER, Kind.SAME, Kind.AMBIGUOUS):
        found = beside(Verdict(said, "x"), an_effect(0.5, 0.01), control)
        assert found.kind is Kind.AMBIGUOUS and "contaminated: the control moved by +1.5 %" in found.reason


@pytest.mark.parametrize(
    ("control", "kind"),
    [
        (an_effect(1.0, 0.005), Kind.SLOWER),  # steady
        (an_effect(1.008, 0.004), Kind.SLOWER),  # apart from 1, by less than 1 %: overlaps nothing
        (an_effect(1.01, 0.012), Kind.SLOWER),  # unclear, and could not have moved so far
        (an_effect(1.02, 0.025), Kind.AMBIGUOUS),  # unclear, and might have
        (None, Kind.SLOWER),
    ],
)
def test_a_change_beside_a_control(control: Effect | None, kind: Kind) -> None:
    row = an_effect(1.05, 0.01)
    (said,) = judge([row])
    assert beside(said, row, control).kind is kind


def test_a_steady_control_takes_nothing_away() -> None:
    row, control = an_effect(1.03, 0.025), an_effect(1.0, 0.008)
    assert row.ratio.low is not None and control.ratio.high is not None
    assert row.ratio.low < control.ratio.high and steady(control)
    assert beside(judge([row])[0], row, control).kind is Kind.SLOWER


def test_same_needs_no_steady_control() -> None:
    row = an_effect(1.0, 0.01)
    assert beside(judge([row])[0], row, an_effect(1.0, 0.05)).kind is Kind.SAME


def test_what_can_be_seen() -> None:
    assert seen(an_effect(1.0, 0.01)) == pytest.approx(0.01, abs=1e-3)
    assert seen(paired(0.0, 0.01, 4)) is None
    assert not moved(paired(0.5, 0.01, 4)) and not steady(paired(0.0, 0.0001, 4))
