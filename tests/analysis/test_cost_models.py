"""Laws, fits and verdicts: on the published series, and on simulated ones whose law is known."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bisect_tool.analysis import fitting, given
from bisect_tool.analysis.cost_models import Diagnosis, Facts, decide, diagnose, implied, limits
from bisect_tool.analysis.laws import Point, Segment, Tiles
from bisect_tool.analysis.segments import from_bits, from_dispatch, parse
from bisect_tool.analysis.subjects import from_table, together

DATA = Path(__file__).parents[1] / "data" / "published_series.json"
PUBLISHED: dict[str, dict[str, Any]] = {
    one["id"]: one for one in json.loads(DATA.read_text(encoding="utf-8"))["series"]
}


def points(name: str) -> list[Point]:
    one = PUBLISHED[name]
    return [Point(M, y) for M, y in zip(one["M"], one["y"], strict=True)]


def published(name: str) -> Diagnosis:
    """Through the door that `diagnose --table` uses."""
    (series,) = given.read(json.dumps(PUBLISHED[name]))
    return from_table(series).diagnosis()


def made(
    law: str, rows: range, t0: float = 0.0, c: float = 1.0, at: float = 0, level: float = 0
) -> list[Point]:
    """A series of this law without noise."""
    bodies: dict[str, Callable[[int], float]] = {
        "linear": lambda M: M,
        "roofline": lambda M: max(at, M),
        "staircase": lambda M: math.ceil(M / at),
        "switch": lambda M: M if at > M else level,
    }
    return [Point(M, t0 + c * bodies[law](M), 0.02) for M in rows]


def noisy(series: list[Point], noise: float, seed: int = 0) -> list[Point]:
    rng = random.Random(seed)
    return [replace(p, time=p.time * math.exp(rng.gauss(0, noise))) for p in series]


# --- what was published ---------------------------------------------------------------------------


def test_the_model_table_of_3553_is_a_roofline() -> None:
    found = published("3553-model")
    best = found.answers[0].best
    assert found.name == "roofline" and best is not None and best.adequate
    assert 2.0 <= best.shape <= 2.3
    low, high = best.intervals["shape"]
    assert low < best.shape < high and high - low < 0.6
    assert best.rms < 0.015
    by_law = {fit.law: fit for fit in found.answers[0].fits}
    assert by_law["linear"].aic > best.aic + 6 and by_law["staircase"].rms > 0.05


@pytest.mark.parametrize("name", ["3553-up", "3553-down"])
def test_its_wide_shapes_are_rooflines(name: str) -> None:
    found = published(name)
    assert found.name == "roofline" and "bandwidth to arithmetic at M ≈" in found.text


@pytest.mark.parametrize(
    "name", ["3553-kv", "3553-qo", "3553-m3max-up", "3553-m3max-down", "3553-m3max-kv", "3553-m3max-qo"]
)
def test_what_the_floor_hides_is_no_law(name: str) -> None:
    assert published(name).name in ("inconclusive", "floor-bound")
    # Nor when nobody knows which kernel ran.
    assert diagnose(points(name)).name in ("inconclusive", "floor-bound")


def test_3863_within_its_dispatch_segments() -> None:
    segments = parse("qmv_wide@1-9, qmm_t@10+")
    found = diagnose(points("3863-main"), segments)
    assert found.name == "switch" and found.rms < 0.01 and "M = 10 (qmm_t)" in found.text
    below, above = found.answers
    assert below.name == "roofline" and above.name == "staircase"
    assert below.best is not None and below.best.shape == pytest.approx(3.2, abs=0.2)
    assert published("3863-main").rms < 0.03, "as its own entry has the segments"
    blind = diagnose(points("3863-main"))
    assert blind.name == "inconclusive" and blind.rms > 0.1


def test_shapes_together_share_floor_bandwidth_and_rate() -> None:
    subjects = []
    for K, N in ((5120, 5120), (5120, 13824), (5120, 1024)):
        times = [1e-4 + K * N * 1.2e-12 * max(2.4, M) for M in range(1, 7)]
        text = json.dumps({"id": f"{K}x{N}", "M": list(range(1, 7)), "y": times, "unit": "s", "K": K, "N": N})
        subjects.append(from_table(given.read(text)[0]))
    whole = together(subjects)
    assert whole is not None
    answer = whole.diagnosis().answers[0]
    best = answer.best
    assert answer.name == "roofline" and best is not None and len(best.predicted) == 18
    assert best.floor == pytest.approx(1e-4, rel=0.02) and best.shape == pytest.approx(2.4, rel=0.02), (
        "in rows"
    )
    assert best.slope == pytest.approx(5120 * 5120 * 1.2e-12, rel=0.02), "of a row of the first shape"
    assert together(subjects[:1]) is None


def test_the_two_wide_ops_of_3553_do_not_share_a_rate() -> None:
    whole = together([from_table(given.read(json.dumps(PUBLISHED[n]))[0]) for n in ("3553-up", "3553-down")])
    assert whole is not None and whole.diagnosis().name == "inconclusive"


# --- what was simulated ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("law", "shape"),
    [
        ("linear", {"t0": 0.5}),
        ("roofline", {"at": 3.0, "t0": 1.0}),
        ("staircase", {"at": 4}),
        ("switch", {"at": 8, "level": 2.5}),
    ],
)
def test_clean_series_give_their_parameters_back(law: str, shape: dict[str, float]) -> None:
    answer = decide(made(law, range(1, 13), **shape))
    best = answer.best
    assert answer.name == law and best is not None and best.adequate and best.rms < 0.006
    if law != "linear":
        assert best.shape == pytest.approx(shape["at"], rel=0.02)
    if law != "switch":
        assert best.slope == pytest.approx(1, rel=0.02)
        assert best.floor == pytest.approx(shape.get("t0", 0.0), abs=0.08)


def test_wrong_laws_are_rare() -> None:
    """A sample of what `benchmarks/diagnosis.py` counts in full."""
    cases: list[tuple[str, dict[str, float]]] = [
        ("linear", {"t0": 0.5}),
        ("roofline", {"at": 3.3, "t0": 1.0}),
        ("staircase", {"at": 4}),
        ("switch", {"at": 8, "level": 3.0}),
    ]
    right = wrong = 0
    for law, shape in cases:
        clean = made(law, range(1, 13), **shape)
        for seed in range(8):
            answer = decide(noisy(clean, 0.02, seed), intervals=False)
            right += answer.name == law
            wrong += answer.confident and answer.name != law
    assert wrong <= 1 and right >= 24, (right, wrong)


def test_one_bad_point_is_left_out_and_named() -> None:
    series = noisy(made("roofline", range(1, 11), at=3.0), 0.01)
    series[5] = Point(6, series[5].time * 1.4, 0.02)
    answer = decide(series)
    assert answer.name == "roofline" and answer.best is not None and answer.best.outlier == 5
    assert answer.best.shape == pytest.approx(3.0, rel=0.05)
    assert "M=6 lies off every law" in answer.why
    assert answer.text.endswith("; without M=6, which lies off it")
    series[8] = Point(9, series[8].time * 0.6, 0.02)
    assert decide(series).name == "inconclusive", "two are no accident"


def test_a_last_point_that_lies_off_may_be_another_kernel() -> None:
    # An H200's, where another kernel runs from M=8.
    times = {1: 43.81, 2: 81.93, 3: 119.4, 4: 157.92, 7: 271.2, 8: 60.39}
    answer = decide([Point(M, t, 0.01) for M, t in times.items()])
    assert answer.text.endswith("; without M=8, which lies off it (another kernel, or a bad point)")
    found = diagnose([Point(M, t, 0.01) for M, t in times.items()], parse("qmv@1-7,other@8+"))
    assert (found.text, found.answers[0].name) == ("another kernel from M = 8 (other)", "linear")


def test_a_fit_of_no_law_is_inconclusive() -> None:
    wild = [Point(M, t) for M, t in zip(range(1, 9), (1, 3, 1.2, 4, 0.9, 3.1, 1.1, 4.2), strict=True)]
    answer = decide(wild)
    assert answer.name == "inconclusive" and "no law comes near enough" in answer.why
    assert answer.best is not None and not answer.best.adequate


def test_flat_is_not_called_a_law() -> None:
    answer = decide([Point(M, 1.0) for M in range(1, 9)])
    assert answer.name == "flat" and not answer.confident


def test_a_law_that_a_simpler_one_imitates_is_not_named() -> None:
    # The ridge lies just above M=1: 4 % at one row, within what is told apart.
    found = fitting.fits(made("roofline", range(1, 13), at=1.04))
    assert found[0].law == "linear"


def test_inconclusive_names_the_other_law_and_what_would_decide() -> None:
    answer = decide(made("roofline", range(1, 7), at=1.09, t0=0.2))
    assert answer.name == "inconclusive" and "about alike" in answer.why and answer.decide
    assert set(answer.decide) <= {
        "bits",
        "n-sweep",
        "k-sweep",
        "hot-cold",
        "group-size",
        "forced-arch",
        "dtype",
    }


def test_scale_does_not_matter() -> None:
    for scale in (1e-6, 1.0, 1e3):
        series = [Point(p.M, p.time * scale) for p in points("3553-model")]
        assert diagnose(series).answers[0].best.shape == pytest.approx(2.13, abs=0.02)  # type: ignore[union-attr]


def test_floors() -> None:
    series = made("linear", range(1, 9), t0=20.0)
    assert decide(series).name == "floor-bound"
    assert decide(series, floor_removed=True).name == "linear", "a slope carries no launch"
    measured = decide(made("linear", range(1, 9)), floor=4.0)
    assert measured.name == "floor-bound" and "% of this number is launch overhead" in measured.text
    assert decide(made("linear", range(1, 9)), floor=0.5).name == "linear"


def test_few_points() -> None:
    answer = decide(made("linear", range(1, 4)))
    assert (
        answer.name == "inconclusive"
        and answer.text == "inconclusive: 3 of the 4 different M that a law needs"
    )
    with pytest.raises(ValueError, match="above 0"):
        decide([Point(M, 0.0) for M in range(1, 6)])


# --- intervals and figures -------------------------------------------------------------------------


def test_intervals_cover() -> None:
    """95 % profile intervals of the ridge hold the truth in about 95 of 100 series."""
    held = 0
    clean = made("roofline", range(1, 11), at=3.5, t0=0.5)
    for seed in range(40):
        series = noisy(clean, 0.02, seed)
        found = fitting.fits(series, intervals=False)
        fit = next(f for f in found if f.law == "roofline")
        low, high = fitting.with_intervals(fit, series).intervals["shape"]
        held += low <= 3.5 <= high
    assert held >= 34


def test_pair_is_least_squares_with_both_parts_above_0() -> None:
    import numpy

    M = numpy.arange(1.0, 7.0)
    w = numpy.ones(6)
    t0, c = fitting.pair(2 + 3 * M, w, M[None, :], True)
    assert (t0[0], c[0]) == pytest.approx((2, 3))
    t0, c = fitting.pair(3 * M - 1, w, M[None, :], True)
    assert t0[0] == 0 and c[0] == pytest.approx(float((M * (3 * M - 1)).sum() / (M * M).sum()))
    t0, c = fitting.pair(10 - M, w, M[None, :], True)
    assert c[0] == 0 and t0[0] == pytest.approx(6.5)


def test_implied_figures_and_limits() -> None:
    # 1 MB of weights read at 10 GB/s: 100 µs below the ridge at M=4; 25 µs a row above.
    series = [Point(M, 25e-6 * max(4, M), 0.02) for M in range(1, 13)]
    facts = Facts(flop=2e6, weight_bytes=1e6, copy=20e9)
    best = decide(series).best
    assert best is not None and best.law == "roofline"
    found = implied(best, facts)
    assert found.bandwidth == pytest.approx(10e9, rel=0.02) and found.arithmetic == pytest.approx(
        8e10, rel=0.02
    )
    near = limits(series, best, facts)
    assert near[0].bandwidth == pytest.approx(0.5) and near[0].arithmetic == pytest.approx(0.25, rel=0.02)
    assert near[11].arithmetic == pytest.approx(1, rel=0.02)


def test_linear_says_whether_weights_can_be_read_again() -> None:
    series = made("linear", range(1, 9), c=1e-4)
    at = {copy: decide(series, facts=Facts(1e6, 1e6, copy)).text for copy in (12e9, 100e9)}
    assert "read again for every row, at 83 %" in at[12e9]
    assert "at 10 % of the speed at which a copy reads: arithmetic, or a cache" in at[100e9]


# --- segments --------------------------------------------------------------------------------------


def test_segments_are_read() -> None:
    assert parse("qmv_fast@1, qmv_wide/5b@2-9,qmm_t/32@10+") == [
        Segment(1, 1, "qmv_fast"),
        Segment(2, 9, "qmv_wide", Tiles(5, whole=False)),
        Segment(10, None, "qmm_t", Tiles(32)),
    ]
    rows = [(10, None, "qmm_t", Tiles(32)), (1, 9, "qmv", None)]
    assert [s.kernel for s in from_dispatch(rows)] == ["qmv", "qmm_t"]


@pytest.mark.parametrize("text", ["", "qmv", "qmv@0", "qmv@5-2", "qmv/0@1", "a@1-5,b@5+", "a@1+,b@9"])
def test_segments_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_segments_from_bits() -> None:
    assert from_bits({1: True, 2: True, 7: True, 8: False, 12: False}) == [Segment(1, 7), Segment(8, None)]
    assert from_bits({1: True, 2: True}) == []
    assert len(from_bits({1: True, 2: False, 3: True})) == 3


def test_a_kernel_that_takes_over_is_told_by_its_bits() -> None:
    series = made("switch", range(1, 13), at=8, level=1.6)
    found = diagnose(series, from_bits({M: M < 8 for M in range(1, 13)}), floor_removed=True)
    assert found.text == "another kernel from M = 8" and [a.name for a in found.answers] == ["linear", "flat"]
    with pytest.raises(ValueError, match="M=12 is in no segment"):
        diagnose(series, [Segment(1, 11)])


def test_tiles() -> None:
    import numpy

    M = numpy.array([1.0, 4.0, 6.0, 9.0, 11.0])
    count, each = Tiles(5, whole=False).cut(M)
    assert count.tolist() == [1, 1, 2, 2, 3] and each.tolist() == [1, 4, 3, 5, 4]
    assert Tiles(32).cut(M)[1].tolist() == [32] * 5
