"""Orders of arms: every arm in every slot equally often, shuffled, and the same for the same seed."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from bisect_tool.measuring.schedule import orders, seed_of_round


@given(arms=st.integers(1, 7), seed=st.integers(0, 2**31 - 1), blocks=st.integers(1, 5))
def test_balanced_in_every_block(arms: int, seed: int, blocks: int) -> None:
    made = list(islice(orders(arms, seed), arms * blocks))
    assert all(sorted(order) == list(range(arms)) for order in made)
    for start in range(0, len(made), arms):
        slots = Counter((slot, arm) for order in made[start : start + arms] for slot, arm in enumerate(order))
        assert slots == Counter({(slot, arm): 1 for slot in range(arms) for arm in range(arms)})


@given(arms=st.integers(1, 6), seed=st.integers(0, 2**31 - 1))
def test_same_seed_same_orders(arms: int, seed: int) -> None:
    assert list(islice(orders(arms, seed), 20)) == list(islice(orders(arms, seed), 20))


def test_shuffled() -> None:
    firsts = Counter(tuple(next(orders(3, seed))) for seed in range(600))
    assert len(firsts) == 6 and min(firsts.values()) > 50, "every order begins some session"
    rows = [order[0] for order in islice(orders(4, 1), 40)]
    assert rows[:4] != rows[4:8] or rows[4:8] != rows[8:12], "one block is not like the next"


def test_seed_of_a_round_is_its_own() -> None:
    seeds = {seed_of_round(seed, number) for seed in range(20) for number in range(1, 21)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seed_of_round(7, 3) == seed_of_round(7, 3)
