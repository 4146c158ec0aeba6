"""A history to search: levels by position, noise if asked for, and what was built and run."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bisect_tool.analysis.problem import Measured, MeasureEnds, Probe, Prove, Run


@dataclass
class Oracle:
    """``level(position)`` is a logarithm, or a rate of failure where ``passfail``."""

    level: Callable[[int], float]
    noise: float = 0.0
    untestable: frozenset[int] = frozenset()
    passfail: bool = False
    seed: int = 0
    drift: float = 0.0
    outliers: float = 0.0
    built: set[int] = field(default_factory=set)
    actions: list[MeasureEnds | Probe | Prove] = field(default_factory=list)
    rounds: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.now = self.rng.gauss(0, self.drift)

    def __call__(self, action: MeasureEnds | Probe | Prove) -> Measured:
        self.actions.append(action)
        runs: list[Run] = []
        for positions in action.rounds:
            self.rounds += 1
            for position in positions:
                self.built.add(position)
                if position in self.untestable:
                    return Measured(tuple(runs), frozenset({position}))
                runs.append(Run(position, self.value(position), self.rounds, isinstance(action, Prove)))
        return Measured(tuple(runs))

    def value(self, position: int) -> float:
        if self.passfail:
            return float(self.rng.random() < self.level(position))
        self.now = 0.97 * self.now + math.sqrt(1 - 0.97**2) * self.rng.gauss(0, self.drift)
        slow = math.log(1.5) if self.rng.random() < self.outliers else 0.0
        return math.exp(self.level(position) + self.rng.gauss(0, self.noise) + self.now + slow)


def step(k: int, size: float = 0.3) -> Callable[[int], float]:
    """0 before position k, ``size`` from it on."""
    return lambda position: size * (position >= k)


def answer(k: int, N: int, untestable: Iterable[int]) -> tuple[int, int]:
    """By brute force: the nearest testable positions before the step at k, and at or after it."""
    runs = [p for p in range(N + 1) if p not in set(untestable)]
    return max(p for p in runs if p < k), min(p for p in runs if p >= k)
