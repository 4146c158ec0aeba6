"""The search against brute force without noise, against its stated confidence with noise, and cut short."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from histories import Oracle, answer, step
from hypothesis import given, settings
from hypothesis import strategies as st

from bisect_tool.analysis import posterior
from bisect_tool.analysis.forecast import forecast
from bisect_tool.analysis.problem import (
    BudgetSpent,
    CredibleSet,
    Culprit,
    Done,
    Kind,
    Measured,
    MeasureEnds,
    NoStep,
    Outcome,
    Probe,
    Problem,
    Prove,
    Run,
    State,
    TooNoisy,
    UnbuildableGap,
)
from bisect_tool.analysis.search import advance, belief, credible_set, observe, search

NOISE = 0.03


def candidates(outcome: Outcome) -> set[int]:
    if isinstance(outcome, Culprit):
        return {outcome.position}
    if isinstance(outcome, UnbuildableGap | CredibleSet):
        return set(outcome.candidates)
    return set()


def histories(number: int, N: int, d: float, **how: float) -> list[tuple[int, Oracle]]:
    rng = random.Random(f"{N} {d} {how}")
    found = []
    for seed in range(number):
        k = rng.randint(1, N)
        found.append((k, Oracle(step(k, d * NOISE), NOISE, seed=seed, **how)))  # type: ignore[arg-type]
    return found


# --- without noise: brute force -----------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_every_step_and_every_untestable_set(data: st.DataObject) -> None:
    N = data.draw(st.integers(1, 40), label="N")
    k = data.draw(st.integers(1, N), label="k")
    untestable = data.draw(st.frozensets(st.integers(1, max(1, N - 1))), label="untestable") - {N}
    kind: Kind = data.draw(st.sampled_from(["log", "raw", "passfail"]), label="kind")
    size = 1.0 if kind == "passfail" else data.draw(st.sampled_from([-0.5, 0.03, 0.3]), label="size")
    oracle = Oracle(step(k, size), untestable=untestable, passfail=kind == "passfail")
    outcome, state = search(Problem(N, kind=kind, build_s=(12.0,) * (N + 1)), oracle)
    before, after = answer(k, N, untestable)
    if after - before == 1:
        assert isinstance(outcome, Culprit)
        assert (outcome.parent, outcome.position) == (before, after)
    else:
        assert isinstance(outcome, UnbuildableGap)
        assert (outcome.before, outcome.after) == (before, after)
        assert outcome.candidates == tuple(range(before + 1, after + 1))
    assert outcome.probability >= 0.95 and outcome.proof is not None
    assert oracle.built & untestable == state.untestable
    assert {run.position for run in state.runs} >= {before, after}


@pytest.mark.parametrize("N", [1, 2, 5, 16, 64, 500])
def test_builds_are_those_of_a_binary_search(N: int) -> None:
    for k in range(1, N + 1, max(1, N // 16)):
        oracle = Oracle(step(k))
        outcome, _ = search(Problem(N, build_s=(12.0,) * (N + 1)), oracle)
        assert isinstance(outcome, Culprit) and outcome.position == k
        assert len(oracle.built) <= 2 + math.ceil(math.log2(N))


def test_stored_builds_are_taken_first() -> None:
    stored = {10, 20, 30, 40, 50}
    oracle = Oracle(step(33))
    search(Problem(64, build_s=[0.0 if p in stored else 500.0 for p in range(65)]), oracle)
    probes = [action.position for action in oracle.actions if isinstance(action, Probe)]
    assert probes[0] == 30 and set(probes[:2]) <= stored
    assert len(oracle.built - stored - {0, 64}) <= 4  # the nine between 30 and 40


def test_collapsed_commits_draw_the_search() -> None:
    commits = [1.0] * 65
    commits[50] = 1000.0
    oracle = Oracle(step(50))
    outcome, _ = search(Problem(64, build_s=(12.0,) * 65, commits=commits), oracle)
    assert isinstance(outcome, Culprit) and len(oracle.built) == 4  # both ends, 49, 50


# --- with noise: the confidence holds -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "how", "least"),
    [
        (4.0, {}, 24),
        (2.0, {}, 22),
        (4.0, {"drift": 3 * NOISE}, 22),
        (4.0, {"outliers": 0.05}, 22),
    ],
)
def test_of_25_the_claimed_share_is_right(d: float, how: dict[str, float], least: int) -> None:
    right = 0
    for k, oracle in histories(25, 32, d, **how):
        outcome, _ = search(Problem(32, build_s=(12.0,) * 33, prove=False), oracle)
        right += k in candidates(outcome)
    assert right >= least


def test_a_misleading_prior_moves_the_order_and_not_the_confidence() -> None:
    right = builds = 0
    for k, oracle in histories(25, 32, 2.0):
        elsewhere = (k + 15) % 32 + 1
        prior = [1e6 if p == elsewhere else 1.0 for p in range(33)]
        outcome, _ = search(Problem(32, build_s=(12.0,) * 33, prior=prior, prove=False), oracle)
        right += candidates(outcome) == {k}
        builds += len(oracle.built)
    assert right >= 22
    assert builds / 25 <= 2 + 5 + 2.5


def test_a_prior_is_no_evidence() -> None:
    _, state = search(Problem(32, prove=False), Oracle(step(9, 2 * NOISE), NOISE))
    weighted = replace(
        state, problem=replace(state.problem, prior=[1e6 if p == 20 else 1.0 for p in range(33)])
    )
    assert belief(weighted) == belief(state)


def test_what_the_prior_rules_out_is_found_all_the_same() -> None:
    oracle = Oracle(step(9))
    outcome, _ = search(Problem(64, build_s=(12.0,) * 65, prior=[float(p == 50) for p in range(65)]), oracle)
    assert isinstance(outcome, Culprit) and outcome.position == 9
    assert len(oracle.built) <= 2 + 6 + 3


def test_a_prior_that_is_right_saves_builds() -> None:
    oracle = Oracle(step(17))
    prior = [100.0 if p == 17 else 1.0 for p in range(65)]
    outcome, _ = search(Problem(64, build_s=(12.0,) * 65, prior=prior), oracle)
    assert isinstance(outcome, Culprit) and outcome.position == 17
    assert len(oracle.built) <= 5  # 7 + 1 without


def test_an_untestable_block_is_never_counted_as_bad() -> None:
    for k in range(8, 17):
        oracle = Oracle(step(k, 4 * NOISE), NOISE, untestable=frozenset(range(10, 15)), seed=k)
        outcome, state = search(Problem(32, build_s=(12.0,) * 33), oracle)
        assert k in candidates(outcome), k
        assert all(run.position not in state.untestable for run in state.runs)


def test_what_runs_once_and_crashes_later_is_void() -> None:
    problem = Problem(8)
    oracle = Oracle(step(6))
    state = State(problem)
    while not isinstance(action := advance(state), Probe):
        assert isinstance(action, MeasureEnds)
        state = observe(state, oracle(action))
    state = observe(state, Measured((Run(action.position, 1.35, 900),)))
    state = observe(state, Measured(untestable=frozenset({action.position})))
    outcome, _ = search(problem, replace(oracle, untestable=state.untestable), state.runs, state.untestable)
    assert isinstance(outcome, Culprit) and outcome.position == 6


def test_no_step_names_nobody() -> None:
    for seed in range(6):
        outcome, state = search(Problem(64), Oracle(lambda _: 0.0, NOISE, seed=seed))
        assert isinstance(outcome, NoStep | TooNoisy)
        assert outcome.ends.low < 0 < outcome.ends.high
        assert sum(run.position == 0 for run in state.runs) <= 60


def test_a_noisy_host_says_what_it_can_see() -> None:
    outcome, _ = search(Problem(64), Oracle(step(9, 0.02), 0.3, seed=3))
    assert isinstance(outcome, TooNoisy)
    assert 0.1 < outcome.ends.visible < 0.3  # about 3 standard errors of 0.3 * sqrt(2 / 60)


# --- order, caps, budgets, resuming -------------------------------------------------------------------


def test_every_probe_run_stands_beside_an_end() -> None:
    oracle = Oracle(step(20, 2 * NOISE), NOISE)
    search(Problem(64, build_s=(12.0,) * 65), oracle)
    probes = [action for action in oracle.actions if isinstance(action, Probe)]
    assert probes
    for probe in probes:
        assert sum(positions.count(probe.position) for positions in probe.rounds) == probe.runs
        for positions in probe.rounds:
            at = [i for i, p in enumerate(positions) if p == probe.position]
            assert all({0, 64} & set(positions[max(0, i - 1) : i + 2]) for i in at)


def test_a_proof_runs_both_orders_afresh() -> None:
    oracle = Oracle(step(20), NOISE)
    outcome, state = search(Problem(64), oracle)
    assert isinstance(outcome, Culprit) and outcome.proof is not None
    proof = [run for run in state.runs if run.proof]
    assert {run.position for run in proof} == {19, 20}
    assert outcome.proof.rounds == len(proof) / 2 >= 6
    orders = [
        positions for action in oracle.actions if isinstance(action, Prove) for positions in action.rounds
    ]
    assert abs(orders.count((19, 20)) - orders.count((20, 19))) <= 1
    assert outcome.proof.low < 0.3 < outcome.proof.high


def test_runs_of_the_search_are_no_proof() -> None:
    outcome, state = search(Problem(1), Oracle(step(1), NOISE))  # the ends ran side by side before
    assert isinstance(outcome, Culprit) and outcome.proof is not None and outcome.parent == 0
    assert outcome.proof.rounds == sum(run.proof for run in state.runs) / 2 >= 6


def test_a_proof_that_disagrees_is_no_culprit() -> None:
    """Position 20 looked bad while it was searched; afresh it is as good as its parent."""
    honest = Oracle(step(21, 3 * NOISE), NOISE)

    def measure(action: MeasureEnds | Probe | Prove) -> Measured:
        shifted = Oracle(step(20, 3 * NOISE), NOISE, seed=5)
        shifted.rng, shifted.rounds = honest.rng, honest.rounds
        done = (honest if isinstance(action, Prove) else shifted)(action)
        honest.rounds += len(action.rounds)
        return done

    outcome, _ = search(Problem(24), measure)
    assert not (isinstance(outcome, Culprit) and outcome.position == 20)


def test_runs_of_one_build_are_capped() -> None:
    # A history of its own kind: half-way between the two levels there is nothing to decide.
    oracle = Oracle(lambda p: 0.0 if p < 4 else 0.15 if p == 4 else 0.3, 0.1, seed=2)
    most = {}
    for cap in (60, 4):
        _, state = search(Problem(8, probe_runs=cap, prove=False), replace(oracle, seed=2))
        most[cap] = max(sum(run.position == p for run in state.runs) for p in range(1, 8))
    assert most[4] <= 4 < most[60]


@pytest.mark.parametrize("why", ["time", "builds"])
def test_a_spent_budget_gives_what_is_known(why: str) -> None:
    oracle = Oracle(step(20, 4 * NOISE), NOISE)
    actions = 0

    def measure(action: MeasureEnds | Probe | Prove) -> Measured:
        nonlocal actions
        actions += 1
        spent = why if len(oracle.built | {getattr(action, "position", 0)}) >= 5 else ""
        return replace(oracle(action), exhausted=spent)

    outcome, _ = search(Problem(64, build_s=(12.0,) * 65), measure)
    assert isinstance(outcome, BudgetSpent) and outcome.why == why and outcome.belief is not None
    assert len(oracle.built) == 5
    assert 20 in outcome.belief.credible and 1 < len(outcome.belief.credible) < 20
    assert sum(outcome.belief.probabilities) + outcome.belief.no_step == pytest.approx(1)


def test_a_budget_spent_before_the_ends_are_known() -> None:
    outcome, _ = search(Problem(64), lambda _: Measured(exhausted="time"))
    assert isinstance(outcome, BudgetSpent) and outcome.belief is None


def test_a_search_resumes_anywhere_with_the_same_answer() -> None:
    problem = Problem(32, build_s=(12.0,) * 33)
    untestable = frozenset({15, 16})
    whole, state = search(problem, Oracle(step(20, 3 * NOISE), NOISE, untestable))
    posterior._LAST.clear()  # what is remembered between decisions changes nothing
    assert advance(state) == Done(whole)
    oracle = Oracle(step(20, 3 * NOISE), NOISE, untestable)
    cut = State(problem)
    while not isinstance(action := advance(cut), Done):
        posterior._LAST.clear()
        cut = observe(cut, oracle(action))
    assert cut == state
    resumed, again = search(problem, oracle, state.runs, state.untestable)
    assert resumed == whole and again == state


def test_a_round_cut_short_loses_nothing() -> None:
    problem = Problem(32)
    _, state = search(problem, Oracle(step(20, 3 * NOISE), NOISE))
    for cut in range(0, len(state.runs), 7):
        oracle = Oracle(step(20, 3 * NOISE), NOISE, seed=1, rounds=1000)
        outcome, after = search(problem, oracle, state.runs[:cut])
        assert after.runs[:cut] == state.runs[:cut]
        assert candidates(outcome) == {20}


# --- small parts --------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9).filter(any), st.sampled_from([0.5, 0.8, 0.95]))
def test_credible_set_is_the_smallest(weights: list[int], confidence: float) -> None:
    p = [w / sum(weights) for w in weights]
    chosen = credible_set(p, confidence)
    held = sum(p[i] for i in chosen)
    assert chosen == sorted(set(chosen)) and held >= confidence - 1e-9
    smaller: Sequence[float] = sorted(p, reverse=True)[: len(chosen) - 1]
    assert sum(smaller) < confidence


def test_belief_needs_ends_that_differ() -> None:
    assert belief(State(Problem(8))) is None
    _, state = search(Problem(8), Oracle(step(3)))
    held = belief(state)
    assert held is not None and held.best == 3 and held.credible == (3,)
    assert len(held.probabilities) == 8


def test_forecast_comes_near_what_it_takes() -> None:
    problem = Problem(64, build_s=(12.0,) * 65)
    state = State(problem)
    plan = forecast(state)
    oracle = Oracle(step(20, 3 * NOISE), NOISE)
    seconds = []
    while not isinstance(action := advance(state), Done):
        seconds.append(forecast(state).seconds)
        state = observe(state, oracle(action))
    assert abs(plan.builds - len(oracle.built)) <= 1
    assert plan.runs / 2 < len(state.runs) < plan.runs * 2
    assert seconds[0] > seconds[-1] and forecast(State(problem), stored=range(65)).builds == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"last": 0},
        {"last": 5, "first": 5},
        {"last": 5, "confidence": 1.0},
        {"last": 5, "build_s": (1.0, 2.0)},
        {"last": 1, "prior": (-1.0, 1.0)},
        {"last": 5, "run_s": 0.0},
    ],
)
def test_problems_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Problem(**wrong)  # type: ignore[arg-type]


def test_values_and_ends_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="no logarithm"):
        advance(State(Problem(4), tuple(Run(p, 0.0, r) for r in range(6) for p in (0, 4))))
    with pytest.raises(ValueError, match="pass is 0"):
        advance(State(Problem(4, kind="passfail"), tuple(Run(p, 0.5, r) for r in range(6) for p in (0, 4))))
    with pytest.raises(ValueError, match="an end"):
        advance(State(Problem(4), untestable=frozenset({4})))
    with pytest.raises(ValueError, match="nothing was measured"):
        search(Problem(4), lambda _: Measured())
