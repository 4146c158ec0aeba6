"""What each law predicts of an experiment, which experiment separates two, and what an outcome says."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from bisect_tool.analysis.cost_models import decide
from bisect_tool.analysis.experiments import EXPERIMENTS, Change, predicted, ranked, supports, weight_bytes
from bisect_tool.analysis.fitting import Fit
from bisect_tool.analysis.laws import Point
from bisect_tool.analysis.outcomes import interpret

ROWS = range(1, 13)


def series(time: Callable[[int], float], noise: float = 0.01, seed: int = 1) -> list[Point]:
    rng = random.Random(seed)
    return [Point(M, time(M) * math.exp(rng.gauss(0, noise / 2)), noise) for M in ROWS]


def fitted(law: str, time: Callable[[int], float]) -> Fit:
    answer = decide([Point(M, time(M)) for M in ROWS])
    return next(fit for fit in answer.fits if fit.law == law)


ROOF = fitted("roofline", lambda M: max(4, M))
WAVES = fitted("staircase", lambda M: math.ceil(M / 4))
LINE = fitted("linear", lambda M: float(M))
POINTS = [Point(M, 1.0) for M in ROWS]


def test_bytes_of_a_weight() -> None:
    assert weight_bytes(4, 64) == 0.5625 and weight_bytes(4, 32, "mxfp4") == 0.53125
    two, eight = EXPERIMENTS["bits"].changes
    assert (two.bytes, eight.bytes) == pytest.approx((0.3125 / 0.5625, 1.0625 / 0.5625))


def test_predictions() -> None:
    eight = EXPERIMENTS["bits"].changes[1]
    moved = predicted(ROOF, POINTS, eight)
    assert moved[0] == pytest.approx(4 * eight.bytes, rel=0.02), "more bytes below the ridge"
    assert moved[11] == pytest.approx(12, rel=0.02), "the same arithmetic above it"
    assert predicted(WAVES, POINTS, eight) == pytest.approx(list(WAVES.predicted)), "waves know no bytes"
    wide = Change("N × 2", bytes=2, work=2, columns=2)
    assert predicted(ROOF, POINTS, wide) == pytest.approx([2 * max(4, M) for M in ROWS], rel=0.02)
    assert predicted(LINE, POINTS, Change("cold", bandwidth=0.5)) == pytest.approx([2 * M for M in ROWS])


def test_another_dispatch_undoes_a_switch() -> None:
    answer = decide([Point(M, float(M) if M < 7 else 3.0) for M in ROWS])
    assert answer.name == "switch" and answer.best is not None
    forced = predicted(answer.best, POINTS, EXPERIMENTS["forced-arch"].changes[0])
    assert forced == pytest.approx([float(M) for M in ROWS], rel=0.02)


def test_what_separates_most() -> None:
    order = ranked(ROOF, WAVES, POINTS)
    assert order == sorted(order, key=lambda pair: -pair[1])
    scores = dict(order)
    assert set(scores) == set(EXPERIMENTS) and scores["bits"] > scores["group-size"], "scales are few bytes"
    assert "forced-arch" not in dict(ranked(ROOF, WAVES, POINTS, "cpu"))
    assert all(score == 0 for _, score in ranked(ROOF, ROOF, POINTS))


CHANGES = {
    "4-bit": Change("4-bit"),
    "2-bit": EXPERIMENTS["bits"].changes[0],
    "8-bit": EXPERIMENTS["bits"].changes[1],
}


def of_bits(time: Callable[[int, float], float]) -> dict[str, list[Point]]:
    """A series for each number of bits, from (M, bytes of a weight over those of 4 bits)."""
    return {
        label: series(lambda M, b=change.bytes: time(M, b), seed=seed)  # type: ignore[misc]
        for seed, (label, change) in enumerate(CHANGES.items())
    }


@pytest.mark.parametrize(
    ("time", "law", "name"),
    [
        (lambda M, b: max(4 * b, M), "roofline", "roofline, ridge moving with bytes per multiply-add"),
        (lambda M, b: (1 + b / 9) * max(4, M), "roofline", "roofline, ridge staying where it is"),
        (lambda M, b: (1 + b / 9) * math.ceil(M / 4), "staircase", "waves of rows times columns"),
        (lambda M, b: b * M, "linear", "linear"),
    ],
)
def test_the_bits_experiment(time: Callable[[int, float], float], law: str, name: str) -> None:
    found = interpret("bits", "4-bit", of_bits(time), CHANGES)
    assert (found.law, found.text) == (law, f"supports {name}"), found.supports
    assert found.ratios[1].keys() == {"2-bit", "8-bit"}
    best = found.supports[0]
    if law != "linear":
        assert best.shape == pytest.approx(4, rel=0.05), "of the unchanged series"


def test_an_outcome_that_fits_nothing_is_inconclusive() -> None:
    wild = of_bits(lambda M, b: 1 + (M * 7 % 5) * b)
    found = interpret("bits", "4-bit", wild, CHANGES)
    assert found.law == "" and found.text.startswith("inconclusive: not even")


def test_waves_have_teeth_along_n() -> None:
    changes = {"1": Change("1"), **{c.label: c for c in EXPERIMENTS["n-sweep"].changes}}
    waves = {
        label: series(lambda M, n=c.columns: math.ceil(M * n / 4), seed=i)  # type: ignore[misc]
        for i, (label, c) in enumerate(changes.items())
    }
    assert interpret("n-sweep", "1", waves, changes).law == "staircase"
    even = {
        label: series(lambda M, n=c.columns: n * max(4, M), seed=i)  # type: ignore[misc]
        for i, (label, c) in enumerate(changes.items())
    }
    found = interpret("n-sweep", "1", even, changes)
    assert (found.law, found.text) == ("roofline", "supports roofline"), "one, as nothing moves its ridge"
    assert [s.name for s in supports(even, changes)].count("roofline") == 1


def test_two_that_explain_an_outcome_alike_are_open() -> None:
    changes = {"group 64": Change("group 64"), "group 128": EXPERIMENTS["group-size"].changes[1]}
    runs = {
        label: series(lambda M, b=c.bytes: max(4 * b, M), noise=0.03, seed=i)  # type: ignore[misc]
        for i, (label, c) in enumerate(changes.items())
    }
    found = interpret("group-size", "group 64", runs, changes)
    assert found.law == "" and "explain all settings about alike" in found.text
    assert {s.name.split(",")[0] for s in found.supports[:2]} == {"roofline"}


def test_hot_against_cold() -> None:
    hot = series(lambda M: max(4, M))
    changes = {"hot": Change("hot"), "cold": EXPERIMENTS["hot-cold"].changes[0]}

    def outcome(time: Callable[[int], float]) -> tuple[str, str]:
        found = interpret("hot-cold", "hot", {"hot": hot, "cold": series(time, seed=2)}, changes)
        return found.law, found.text

    law, text = outcome(lambda M: max(5, M))
    assert law == "roofline" and "rows up to M = 4 slow down" in text
    assert outcome(lambda M: max(4, M))[1].startswith("no row slows down")
    assert outcome(lambda M: 1.5 * max(4, M))[1].startswith("every row slows down")
    assert outcome(lambda M: max(4, M) * (1.5 if M in (3, 9) else 1))[1] == (
        "inconclusive: rows M = 3, 9 slow down"
    )


def test_what_drowns_in_the_noise_is_open() -> None:
    hot, cold = series(lambda M: float(M), noise=0.2), series(lambda M: float(M), noise=0.2, seed=2)
    changes = {"hot": Change("hot"), "cold": EXPERIMENTS["hot-cold"].changes[0]}
    for name in ("hot-cold", "forced-arch"):
        found = interpret(name, "hot", {"hot": hot, "cold": cold}, changes)
        assert found.law == "" and "a change below 85 % would drown in the noise" in found.text


def test_forced_dispatch() -> None:
    changes = {"a": Change("a"), "a,ARCH=b": EXPERIMENTS["forced-arch"].changes[0]}
    plain, same = series(lambda M: float(M)), series(lambda M: float(M), seed=2)
    other = series(lambda M: float(M) if M < 8 else 3.0, seed=3)
    assert interpret("forced-arch", "a", {"a": plain, "a,ARCH=b": same}, changes).law == ""
    found = interpret("forced-arch", "a", {"a": plain, "a,ARCH=b": other}, changes)
    assert found.law == "switch" and "M = 8, 9, 10, 11, 12" in found.text


def test_what_does_not_grow_with_k() -> None:
    changes = {"K": Change("K"), **{c.label: c for c in EXPERIMENTS["k-sweep"].changes}}

    def outcome(floor: float) -> tuple[str, str]:
        runs = {
            label: series(lambda M, k=c.work: floor + k * M, noise=0.001, seed=i)  # type: ignore[misc]
            for i, (label, c) in enumerate(changes.items())
        }
        found = interpret("k-sweep", "K", runs, changes)
        return found.law, found.text

    assert outcome(0)[0] == ""
    law, text = outcome(9)
    assert law == "floor-bound" and "90 % of the time at M = 1 does not grow with K, 43 % at M = 12" in text


def test_times_that_do_not_grow_evenly_with_k_are_open() -> None:
    changes = {"K": Change("K"), **{c.label: c for c in EXPERIMENTS["k-sweep"].changes}}
    wild = {
        label: [Point(M, t * M, 0.02) for M in ROWS]
        for label, t in zip(changes, (1.8, 1.0, 1.1), strict=True)
    }
    found = interpret("k-sweep", "K", wild, changes)
    assert found.law == "" and found.text.startswith("inconclusive: the times do not grow evenly")


def test_one_setting_is_no_experiment() -> None:
    with pytest.raises(ValueError, match="two settings"):
        interpret("bits", "4-bit", {"4-bit": POINTS}, CHANGES)
