"""Where the step lies, from passes and failures: two unknown rates, one before the step and one from it on.

Beta-Bernoulli with Jeffreys priors, as git_bayesect has it: with counts left and right of each place the
rates are integrated out exactly. Places between two builds that ran share their likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bisect_tool.analysis.problem import Problem, Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NULL_ODDS = math.log(0.4 / 0.6)  # four in ten ranges have no step (FACF, ICST 2023)


@dataclass(frozen=True)
class Counts:
    """``cuts``: builds that ran, in order; ``evidence``: log-likelihood per segment, then of no step.

    ``good``, ``bad``: rates of failure before and after the step, averaged over its places.
    """

    cuts: list[int]
    evidence: Floats
    good: float
    bad: float


def count(problem: Problem, runs: Sequence[Run]) -> Counts:
    """All runs of positions first..last, in any order."""
    import numpy as np
    from scipy.special import betaln

    cuts = sorted({problem.first, problem.last} | {run.position for run in runs})
    place = {cut: i for i, cut in enumerate(cuts)}
    fails, passes = np.zeros(len(cuts)), np.zeros(len(cuts))
    for run in runs:
        (fails if run.value else passes)[place[run.position]] += 1
    left_f, left_p = np.cumsum(fails)[:-1], np.cumsum(passes)[:-1]
    right_f, right_p = fails.sum() - left_f, passes.sum() - left_p
    evidence = np.empty(len(cuts))
    evidence[:-1] = betaln(0.5 + left_f, 0.5 + left_p) + betaln(0.5 + right_f, 0.5 + right_p)
    evidence[:-1] -= 2 * math.log(math.pi)
    evidence[-1] = betaln(0.5 + fails.sum(), 0.5 + passes.sum()) - math.log(math.pi) + NULL_ODDS
    weight = np.exp(evidence[:-1] - evidence[:-1].max())
    weight /= weight.sum()
    good = float((weight * (0.5 + left_f) / (1 + left_f + left_p)).sum())
    bad = float((weight * (0.5 + right_f) / (1 + right_f + right_p)).sum())
    return Counts(cuts, evidence, good, bad)
