"""Whether the ends differ: found soon, not found where there is nothing, and not moved by slow outliers."""

from __future__ import annotations

import math
import random

import pytest

from bisect_tool.analysis.ends import FEWEST, compare, ends, rounds_of, student_fit
from bisect_tool.analysis.problem import Problem, Run


def rounds(number: int, size: float, noise: float = 0.03, seed: int = 0, slow: float = 0.0) -> list[Run]:
    rng = random.Random(seed)
    runs = []
    for r in range(number):
        shift = rng.gauss(0, 5 * noise)  # a round has a speed of its own
        for p in (0, 9):
            late = math.log(1.5) if rng.random() < slow else 0.0
            runs.append(
                Run(p, math.exp(size * (p == 9) + shift * (seed % 2) + rng.gauss(0, noise) + late), r)
            )
    return runs


def test_fit_has_the_sd_of_gaussian_data_and_holds_against_outliers() -> None:
    rng = random.Random(1)
    values = [rng.gauss(10, 2) for _ in range(2000)]
    centre, sd = student_fit(tuple(values))
    assert centre == pytest.approx(10, abs=0.15) and sd == pytest.approx(2, rel=0.05)
    moved, wider = student_fit((*values, *[60.0] * 100))
    assert moved == pytest.approx(10, abs=0.25) and wider < 2.6
    assert student_fit((3.0,)) == (3.0, 0.0) and student_fit((3.0, 3.0, 3.0)) == (3.0, 0.0)


def test_few_rounds_say_nothing() -> None:
    assert ends(Problem(9), rounds(FEWEST - 1, 3.0)).answer == "more"
    assert ends(Problem(9), []).answer == "more"


def test_a_step_is_told_with_its_size_and_noise() -> None:
    found = ends(Problem(9), rounds(12, 0.2))
    assert found.answer == "step"
    assert found.difference.low < 0.2 < found.difference.high
    assert 0.015 < found.noise < 0.06
    assert ends(Problem(9), rounds(12, 0.2, slow=0.1, seed=4)).answer == "step"


def test_nothing_is_told_apart_where_nothing_differs() -> None:
    called = 0
    for seed in range(0, 80, 2):
        runs = rounds(30, 0.0, seed=seed)
        called += any(ends(Problem(9), runs[: 2 * n]).answer == "step" for n in range(FEWEST, 31, 2))
    assert called <= 4


def test_the_same_ends_end_early_and_noisy_ones_at_the_budget() -> None:
    assert ends(Problem(9), rounds(12, 0.0, noise=0.002)).answer == "same"
    assert ends(Problem(9), rounds(40, 0.0, noise=0.2)).answer == "more"
    found = ends(Problem(9, end_runs=40), rounds(40, 0.0, noise=0.2))
    assert found.answer == "same" and found.difference.visible == pytest.approx(
        0.2 * 2.9 * math.sqrt(2 / 36), rel=0.4
    )


def test_passes_and_failures() -> None:
    def flaky(good: int, bad: int, n: int) -> list[Run]:
        return [Run(p, float(r < (good if p == 0 else bad)), r) for r in range(n) for p in (0, 9)]

    problem = Problem(9, kind="passfail")
    assert ends(problem, flaky(0, 5, 5)).answer == "step"
    assert ends(problem, flaky(0, 2, 4)).answer == "more"
    assert ends(problem, flaky(1, 9, 12)).answer == "step"
    alike = ends(problem, flaky(0, 0, 24))
    assert alike.answer == "same" and alike.strength < 0
    difference, _ = compare("passfail", rounds_of(flaky(1, 9, 12), 0, 9))
    assert difference.centre == pytest.approx(8 / 12)
    # Agresti & Caffo: (2/14, 10/14), half-width 1.96 * sqrt(.1224/14 + .2041/14)
    assert (difference.low, difference.high) == pytest.approx((8 / 14 - 0.2994, 8 / 14 + 0.2994), abs=1e-3)


def test_only_whole_rounds_count_and_a_proof_its_own() -> None:
    runs = [
        Run(0, 1.0, 1),
        Run(9, 2.0, 1),
        Run(0, 1.0, 2),
        Run(9, 2.0, 3),
        Run(0, 1.5, 4, True),
        Run(9, 3.0, 4, True),
    ]
    assert [(a.value, b.value) for a, b in rounds_of(runs, 0, 9)] == [(1.0, 2.0), (1.5, 3.0)]
    assert [(a.value, b.value) for a, b in rounds_of(runs, 0, 9, proof=True)] == [(1.5, 3.0)]
