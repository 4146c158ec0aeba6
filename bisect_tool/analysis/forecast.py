"""What a search will still take, for the plan and for the line after every step."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from bisect_tool.analysis.problem import State
from bisect_tool.analysis.search import belief

BITS = 0.95  # that a probe gives on average; simulated searches need 0.1 to 0.5 probes more than log2 N
PROBE_RUNS = 6  # runs of a probe and of the ends beside it, at a step of 2 to 4 sd
END_ROUNDS = 8
PROOF_ROUNDS = 7


@dataclass(frozen=True)
class Forecast:
    """Builds, runs and seconds still to come."""

    builds: int
    runs: int
    seconds: float


def forecast(state: State, stored: Collection[int] = ()) -> Forecast:
    """An expectation from the bits still missing. ``stored``: builds that exist though they never ran."""
    p = state.problem
    ran = {run.position for run in state.runs} | set(stored)
    held = belief(state)
    width = p.last - p.first
    if held is None:
        bits, likely = math.log2(width), range(p.first + 1, p.last)
        ends = max(2, END_ROUNDS - sum(run.position == p.first for run in state.runs))
    else:
        bits, ends = -sum(q * math.log2(q) for q in held.probabilities if q > 0), 0
        likely = range(min(held.credible, default=p.last), max(held.credible, default=p.first))
    fresh = [at for at in likely if at not in ran and at not in state.untestable]
    probes = math.ceil(bits / BITS)
    builds = min(probes, len(fresh))
    cost = [p.build_s[at] for at in fresh] if len(p.build_s) else [0.0]
    seconds = builds * (sum(cost) / len(cost) if cost else 0.0)
    for end in (p.first, p.last):
        if end not in ran:
            builds += 1
            seconds += p.build_s[end] if len(p.build_s) else 0.0
    runs = probes * PROBE_RUNS + 2 * ends + (2 * PROOF_ROUNDS if p.prove else 0)
    return Forecast(builds, runs, seconds + runs * p.run_s)
