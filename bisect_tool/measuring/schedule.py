"""The order of arms in each round: balanced over rounds, shuffled by a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator


def orders(arms: int, seed: int) -> Iterator[list[int]]:
    """An endless supply of orders of ``range(arms)``, the same for the same seed.

    In every block of ``arms`` rounds each arm stands once in each slot (a Latin square of rotations of a
    shuffled order, its rows shuffled too), so that a drift along the round falls on all alike.
    """
    rng = random.Random(seed)
    while True:
        base = rng.sample(range(arms), arms)
        for start in rng.sample(range(arms), arms):
            yield base[start:] + base[:start]


def seed_of_round(seed: int, number: int) -> int:
    """The seed every run of one round gets, so that its arms measure in the same order."""
    return random.Random(f"{seed}/{number}").randrange(2**31)
