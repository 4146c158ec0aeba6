"""The filter against its model written out as one Gaussian; counts against integrals; information."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import integrate, stats

from bisect_tool.analysis import posterior
from bisect_tool.analysis.ends import Ends
from bisect_tool.analysis.information import binomial_bits, chance_testable, entropy, gauss_bits
from bisect_tool.analysis.passfail import NULL_ODDS, count
from bisect_tool.analysis.posterior import BREAK, CENTRED, RHO, fold, reach
from bisect_tool.analysis.problem import Difference, Problem, Run

ENDS = Ends("step", Difference(3.0, -math.inf, math.inf, 4, 1.0), good=0.0, bad=3.0, noise=1.0)


def some_runs(k: int, outlier: float = 0.0) -> list[Run]:
    rng = random.Random(4)
    order = [0, 8, 8, 0, 4, 0, 4, 4, 8, 6, 0, 6, 8, 5, 5, 0]
    values = [3.0 * (p >= k) + rng.gauss(0, 1) for p in order]
    values[6] += outlier
    return [Run(p, v, i // 2) for i, (p, v) in enumerate(zip(order, values, strict=True))]


def test_filter_is_the_gaussian_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posterior, "OUTLIERS", 1e-200)
    runs = some_runs(5)
    f = fold(Problem(8, kind="raw"), runs, ENDS)
    assert f.cuts == [0, 4, 5, 6, 8]
    passed, clock, before = [], 0, -1
    for run in runs:
        probe = run.position not in (0, 8)
        clock += BREAK if probe and before not in (-1, run.position) else 1
        before = run.position if probe else before
        passed.append(clock)
    y = np.array([run.value for run in runs])
    gaps = np.abs(np.subtract.outer(passed, passed))
    for row, k in enumerate([4, 5, 6, 8, 99]):
        bad = np.array([run.position >= k for run in runs])
        same = np.equal.outer(bad, bad)
        for g in range(0, len(f.sigma), 4):
            sigma, tau = f.sigma[g], f.tau[g]
            cov = np.eye(len(y)) * sigma**2 + same * (sigma**2 + tau**2) + tau**2 * RHO**gaps
            direct = stats.multivariate_normal(3.0 * bad, cov).logpdf(y)
            assert f.loglik[row, g] == pytest.approx(direct, abs=1e-6)
    null = np.logaddexp.reduce(f.loglik[-1]) + NULL_ODDS + CENTRED
    assert f.evidence[-1] == pytest.approx(null)
    assert np.argmax(f.evidence) == 1  # the segment of 5 alone


def test_one_run_that_may_be_an_outlier() -> None:
    """Mean and variance of the good level after it are those of the mixture."""
    y = 4.8
    f = fold(Problem(8, kind="raw"), [Run(0, y, 0)], ENDS)
    g = next(i for i in range(len(f.sigma)) if f.sigma[i] == 1.0 and f.tau[i] == 0.0)
    width = posterior.OUTLIER_WIDTH
    outlier = posterior.OUTLIERS / math.pi * width / (width**2 + y**2)

    def density(x: float) -> float:
        return float(stats.norm.pdf(x) * (0.95 * stats.norm.pdf(y, x) + outlier))

    total, first, second = (
        integrate.quad(lambda x, n=n: density(x) * x**n, -9, 14, points=[0, 3])[0] for n in range(3)
    )
    mean = first / total
    assert 0.5 < mean < 2.7  # in doubt
    assert f.mean[0, g, 0] == pytest.approx(mean, abs=1e-6)
    assert f.cov[0, g, 0, 0] == pytest.approx(second / total - mean**2, abs=1e-6)


def test_an_outlier_moves_little() -> None:
    quiet = fold(Problem(8, kind="raw"), some_runs(5), ENDS).evidence
    loud = fold(Problem(8, kind="raw"), some_runs(5, outlier=25.0), ENDS).evidence
    assert np.argmax(loud) == np.argmax(quiet) == 1
    apart = [evidence[1] - evidence[0] for evidence in (quiet, loud)]
    assert 0 < apart[1] < apart[0] + 1  # the run at 4 lost its say, and no more


def test_going_on_from_an_earlier_filter_is_the_same() -> None:
    runs, problem = some_runs(5), Problem(8, kind="raw")
    early = fold(problem, runs[:6], ENDS)
    kept = early.mean.copy()
    assert np.allclose(fold(problem, runs, ENDS, early).evidence, fold(problem, runs, ENDS).evidence)
    assert np.array_equal(early.mean, kept)


def test_reach_knows_the_step_and_gains_with_runs() -> None:
    known = reach(fold(Problem(8, kind="raw"), some_runs(5), ENDS))
    assert known.step == pytest.approx(3.0, abs=1.0) and known.noise == pytest.approx(1.0, abs=0.5)
    assert known.distance(2, 1) < known.distance(4, 2) < known.distance(4, 4)


def test_counts_are_the_integrals() -> None:
    rng = random.Random(2)
    runs = [Run(p, float(rng.random() < (0.1 if p < 5 else 0.7)), i) for i, p in enumerate([0, 8, 4, 6] * 4)]
    seen = count(Problem(8, kind="passfail"), runs)
    jeffreys = stats.beta(0.5, 0.5).pdf

    def one_rate(values: list[float]) -> float:
        f, n = sum(values), len(values)
        found, _ = integrate.quad(lambda x: jeffreys(x) * x**f * (1 - x) ** (n - f), 0, 1)
        return float(found)

    assert seen.cuts == [0, 4, 6, 8]
    for row, k in enumerate([4, 6, 8]):
        left = [run.value for run in runs if run.position < k]
        right = [run.value for run in runs if run.position >= k]
        assert seen.evidence[row] == pytest.approx(math.log(one_rate(left) * one_rate(right)), abs=1e-4)
    whole = math.log(one_rate([run.value for run in runs])) + NULL_ODDS
    assert seen.evidence[-1] == pytest.approx(whole, abs=1e-4)


def test_gauss_bits_are_mutual_information() -> None:
    q = np.array([0.0, 0.1, 0.5, 0.9, 1.0])
    for d in (0.0, 1.0, 2.9, 11.0):
        for at, bits in zip(q, gauss_bits(q, d), strict=True):

            def left(z: float, at: float = at, d: float = d) -> float:
                a, b = (1 - at) * stats.norm.pdf(z), at * stats.norm.pdf(z, d)
                return float((a + b) * entropy(np.array(b / (a + b)))) if a + b > 1e-200 else 0.0

            expected = float(entropy(np.array(at))) - integrate.quad(left, -9, d + 9, limit=200)[0]
            assert bits == pytest.approx(expected, abs=4e-3)


def test_binomial_bits() -> None:
    q = np.array([0.0, 0.5, 1.0])
    assert binomial_bits(q, 1, 0.0, 1.0) == pytest.approx([0, 1, 0], abs=1e-6)
    assert binomial_bits(q, 4, 0.3, 0.3) == pytest.approx([0, 0, 0], abs=1e-9)
    assert binomial_bits(q, 1, 0.1, 0.9)[1] == pytest.approx(1 - float(entropy(np.array(0.1))))
    assert binomial_bits(q, 6, 0.1, 0.5)[1] > binomial_bits(q, 3, 0.1, 0.5)[1]


def test_neighbours_of_an_untestable_build_are_shunned_until_one_runs() -> None:
    chance = chance_testable(np.arange(1, 20), untestable=[10], tested=[0, 12, 20])
    assert list(chance[9:11]) == sorted(chance[9:11])  # from 10 on it rises
    assert chance[8] < 0.5 < chance[0] and chance[8] == chance[10]
    assert all(chance[11:] == 1.0)  # 12 ran: the block ended before it
