"""Simulated histories, searched by three methods side by side: ours, git_bayesect's core, `git bisect run`.

python benchmarks/search_efficiency.py [--histories 1000] [--quick] [--only WORD] [--seed 1]

Needs the extra `bench` (git_bayesect). A step of d sd of the noise between runs lies at a random commit.
Costs are in runs, with a build at 12 and at 30 runs. The others need each value as good or bad: they measure
the ends as ours does and take the midpoint, and git_bayesect is told those runs. "Threshold given" is
git_bayesect with the true midpoint for nothing, ends neither built nor run; beside it stands what ours costs
after the ends. With the proof, which the others do not have, goes the search for every step.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bisect_tool.analysis.attribution import search_all
from bisect_tool.analysis.ends import ends
from bisect_tool.analysis.problem import (
    CredibleSet,
    Culprit,
    Measured,
    MeasureEnds,
    NoStep,
    Outcome,
    Probe,
    Problem,
    Prove,
    Run,
    TooNoisy,
    UnbuildableGap,
)
from bisect_tool.analysis.search import search

NOISE = 0.03  # sd of a run's logarithm
CONFIDENCE = 0.95
BUILD = 12.0  # runs that a build costs, in the decisions and in the cost promised
MOST_RUNS = 600  # where git_bayesect is stopped


@dataclass(frozen=True)
class Setting:
    """One row: what the histories are made of."""

    name: str
    N: int
    d: float
    blocks: bool = False  # one to three blocks of up to 6 untestable commits
    drift: bool = False
    outliers: bool = False
    second: bool = False  # two steps, 70 % and 30 % of the difference
    misled: bool = False  # a prior that has a thousand times too much weight elsewhere


SETTINGS = (
    Setting("N=512, d=2", 512, 2),
    Setting("N=512, d=4", 512, 4),
    Setting("N=64, d=4", 64, 4),
    Setting("N=64, d=2", 64, 2),
    Setting("N=64, d=1", 64, 1),
    Setting("N=512, d=1", 512, 1),
    Setting("no step", 64, 0),
    Setting("unbuildable blocks, N=64, d=4", 64, 4, blocks=True),
    Setting("unbuildable blocks, N=64, d=2", 64, 2, blocks=True),
    Setting("drift AR(1), N=64, d=4", 64, 4, drift=True),
    Setting("slow outliers, N=64, d=4", 64, 4, outliers=True),
    Setting("steps 70/30, N=64, d=8", 64, 8, second=True),
    Setting("steps 70/30, N=64, d=4", 64, 4, second=True),
    Setting("drift, outliers and 70/30, N=64, d=8", 64, 8, drift=True, outliers=True, second=True),
    Setting("misleading prior, N=64, d=2", 64, 2, misled=True),
)


@dataclass
class History:
    """One simulated history and what was spent on it. Drift goes on while something is built."""

    setting: Setting
    rng: random.Random
    culprit: int = 0
    other: int = 0
    untestable: frozenset[int] = frozenset()
    built: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    runs: int = 0
    proof_runs: int = 0
    level: float = 0.0
    threshold: float = 0.0

    def __post_init__(self) -> None:
        s, rng = self.setting, self.rng
        self.culprit = rng.randint(1, s.N)
        if s.second:
            self.other = rng.choice([k for k in range(1, s.N + 1) if abs(k - self.culprit) > 2])
        if s.blocks:
            lost: set[int] = set()
            for _ in range(rng.randint(1, 3)):
                start = rng.randint(1, s.N - 1)
                lost |= set(range(start, min(start + rng.randint(1, 6), s.N)))
            self.untestable = frozenset(lost)
        self.level = rng.gauss(0, NOISE)
        self.threshold = s.d * NOISE / 2

    def true(self, position: int) -> float:
        """The logarithm of the level of a position."""
        whole = self.setting.d * NOISE
        if not self.setting.second:
            return whole * (position >= self.culprit)
        return whole * (0.7 * (position >= self.culprit) + 0.3 * (position >= self.other))

    def builds(self, position: int) -> bool:
        """Build it if it is not there; False where it is untestable."""
        if position in self.untestable:
            self.failed.add(position)
            return False
        if position not in self.built:
            self.built.add(position)
            self._pass_time(int(BUILD))
        return True

    def value(self, position: int) -> float:
        """One run."""
        self._pass_time(1)
        log = self.true(position) + self.rng.gauss(0, NOISE)
        if self.setting.drift:
            log += self.level
        if self.setting.outliers and self.rng.random() < 0.05:
            log += math.log(1.5)
        return math.exp(log)

    def _pass_time(self, runs: int) -> None:
        rho = 0.97**runs
        self.level = rho * self.level + math.sqrt(1 - rho * rho) * self.rng.gauss(0, NOISE)

    def bad(self, position: int) -> bool:
        """One run, told by the threshold."""
        self.runs += 1
        return math.log(self.value(position)) > self.threshold

    def measure_ends(self) -> list[tuple[int, bool]]:
        """The threshold from the ends, by the same rule as ours and at the same price; the runs by it."""
        problem, runs = Problem(self.setting.N), list[Run]()
        while True:
            found = ends(problem, runs)
            if found.answer != "more":
                break
            for position in (0, self.setting.N)[:: (-1) ** (len(runs) // 2)]:
                self.builds(position)
                self.runs += 1
                runs.append(Run(position, self.value(position), len(runs) // 2))
        self.threshold = (found.good + found.bad) / 2
        return [(run.position, math.log(run.value) > self.threshold) for run in runs]

    @property
    def spent(self) -> int:
        return len(self.built) + len(self.failed)


@dataclass(frozen=True)
class Result:
    """What a method said. ``named``: one commit; ``claim``: the commits it answers with."""

    builds: int
    runs: int
    named: int | None
    claim: frozenset[int]
    proof_runs: int = 0
    nothing: bool = False
    end_runs: int = 0
    steps: tuple[int, ...] = ()
    seconds: float = 0.0
    outcome: str = ""


def ours(history: History, prove: bool = True) -> Result:
    """The tool's own search."""
    s = history.setting
    rounds = end_runs = 0

    def measure(action: MeasureEnds | Probe | Prove) -> Measured:
        nonlocal rounds, end_runs
        runs = []
        for positions in action.rounds:
            rounds += 1
            for position in positions:
                if not history.builds(position):
                    return Measured(untestable=frozenset({position}))
                proof = isinstance(action, Prove)
                if proof:
                    history.proof_runs += 1
                else:
                    history.runs += 1
                    end_runs += isinstance(action, MeasureEnds)
                runs.append(Run(position, history.value(position), rounds, proof))
        return Measured(tuple(runs))

    prior: tuple[float, ...] = ()
    if s.misled:
        elsewhere = history.rng.randint(1, s.N)
        prior = tuple(1000.0 if abs(k - elsewhere) < 3 else 1.0 for k in range(s.N + 1))
    problem = Problem(
        s.N, build_s=(BUILD,) * (s.N + 1), run_s=1.0, confidence=CONFIDENCE, prior=prior, prove=prove
    )
    began = time.perf_counter()
    steps: tuple[int, ...] = ()
    if prove and s.second:
        found, _ = search_all(problem, measure)
        outcome, steps = found.first, tuple(step.position for step in found.steps)
    else:
        outcome, _ = search(problem, measure)
    seconds = time.perf_counter() - began
    named, claim = answer(outcome)
    return Result(
        history.spent,
        history.runs,
        named,
        claim,
        history.proof_runs,
        isinstance(outcome, NoStep | TooNoisy),
        end_runs,
        steps,
        seconds,
        type(outcome).__name__,
    )


def answer(outcome: Outcome) -> tuple[int | None, frozenset[int]]:
    """The commit named, if one is, and all that the answer allows."""
    if isinstance(outcome, Culprit):
        return outcome.position, frozenset({outcome.position})
    if isinstance(outcome, UnbuildableGap):
        return None, frozenset(outcome.candidates)
    return None, frozenset(outcome.candidates if isinstance(outcome, CredibleSet) else ())


def bayesect(history: History, paid: bool = True) -> Result:
    """git_bayesect's Bisector (index 0 is the newest), one run a step, until one commit holds 95 %."""
    import numpy as np
    from git_bayesect import Bisector

    N = history.setting.N
    np.seterr(divide="ignore", invalid="ignore")  # it takes the logarithm of weights of 0, knowingly
    weights = np.ones(N + 1)
    weights[N] = 0  # the good end is no suspect
    core = Bisector(weights)
    for position, bad in history.measure_ends() if paid else ():
        core.record(N - position, bad)
    while True:
        distribution = core.distribution
        best = int(distribution.argmax())
        if distribution[best] >= CONFIDENCE or history.runs >= MOST_RUNS:
            break
        index = core.select()
        position = N - index
        if position in history.failed:
            break  # it asks again for what it was told to skip, and would for ever
        core.record(index, history.bad(position) if history.builds(position) else None)
    named = N - best if distribution[best] >= CONFIDENCE else None
    return Result(history.spent, history.runs, named, frozenset() if named is None else frozenset({named}))


def git_bisect(history: History) -> Result:
    """`git bisect run`: one run per commit; an untestable one is skipped for the nearest that is not."""
    history.measure_ends()
    low, high = 0, history.setting.N
    while True:
        middle = (low + high) // 2
        order = sorted(range(low + 1, high), key=lambda p: abs(p - middle))
        position = next((p for p in order if p not in history.failed and history.builds(p)), None)
        if position is None:
            break
        if history.bad(position):
            high = position
        else:
            low = position
    claim = frozenset(range(low + 1, high + 1))
    return Result(history.spent, history.runs, high if len(claim) == 1 else None, claim)


METHODS: dict[str, Callable[[History], Result]] = {
    "bisect_tool": lambda history: ours(history, prove=False),
    "bisect_tool, with proof": ours,
    "git_bayesect": bayesect,
    "git_bayesect, threshold given": lambda history: bayesect(history, paid=False),
    "git bisect run": git_bisect,
}
COST_PROMISED = ("N=512, d=2", "N=512, d=4", "N=64, d=4")
COLUMNS = (
    "histories | method | builds | runs | cost, build = 12 | build = 30 | build = 12, after the ends "
    "| named | right | claims that hold | both steps"
)


def simulate(
    setting: Setting, method: Callable[[History], Result], number: int, seed: int
) -> Iterator[tuple[History, Result]]:
    for i in range(number):
        history = History(setting, random.Random(f"{seed}/{setting.name}/{i}"))
        yield history, method(history)


def row(setting: Setting, label: str, done: list[tuple[History, Result]]) -> str:
    results = [r for _, r in done]
    n = len(done)
    builds = statistics.fmean(r.builds for r in results)
    runs = statistics.fmean(r.runs + r.proof_runs for r in results)
    named = sum(r.named is not None for r in results)
    if setting.d == 0:
        right = hold = sum(r.nothing for r in results) / n
    else:
        right = sum(r.named == h.culprit for h, r in done) / n
        hold = sum(h.culprit in r.claim for h, r in done) / n
    found = sum({h.culprit, h.other} <= set(r.steps) for h, r in done)
    both = f"{found / n:.1%}" if any(r.steps for r in results) else ""
    costs = [f"{builds:.1f}", f"{runs:.0f}", f"{builds * 12 + runs:.0f}", f"{builds * 30 + runs:.0f}"]
    after = statistics.fmean(12 * (r.builds - 2) + r.runs + r.proof_runs - r.end_runs for r in results)
    costs.append(f"{after:.0f}" if any(r.end_runs for r in results) else "")
    cells = [setting.name, label, *costs, f"{named / n:.1%}", f"{right:.1%}", f"{hold:.1%}", both]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="60 histories a row")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--exact", default="", help="the one row of this name")
    parser.add_argument("--method", default="", help="methods whose name begins with this")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    number = 60 if options.quick else options.histories
    print(f"| {COLUMNS} |\n|" + " --- |" * len(COLUMNS.split("|")))
    for setting in SETTINGS:
        if options.only not in setting.name or (options.exact and options.exact != setting.name):
            continue
        for label, method in METHODS.items():
            if label.endswith("given") and setting.name not in COST_PROMISED:
                continue
            if label.startswith(options.method):
                began = time.perf_counter()
                done = list(simulate(setting, method, number, options.seed))
                print(row(setting, label, done), flush=True)
                outcomes: dict[str, int] = {}
                for _, r in done:
                    outcomes[r.outcome] = outcomes.get(r.outcome, 0) + 1
                print(f"{time.perf_counter() - began:.0f} s", outcomes, file=sys.stderr)
    print(decision_time())
    return 0


def decision_time() -> str:
    """How long each decision takes over 2,000 positions."""
    history, spent = History(Setting("N=2000", 2000, 2), random.Random(1)), list[float]()
    last = time.perf_counter()

    def timed(action: MeasureEnds | Probe | Prove) -> Measured:
        nonlocal last
        spent.append(time.perf_counter() - last)
        runs = tuple(
            Run(p, history.value(p), 100 * len(spent) + i, isinstance(action, Prove))
            for i, positions in enumerate(action.rounds)
            for p in positions
        )
        last = time.perf_counter()
        return Measured(runs)

    search(Problem(2000, build_s=(BUILD,) * 2001), timed)
    median, slowest = (f"{x * 1e3:.1f} ms" for x in (statistics.median(spent), max(spent[1:])))
    return f"\nChoosing the next step for N=2,000: median {median}, slowest {slowest} (promised: under 50 ms)"


if __name__ == "__main__":
    sys.exit(main())
