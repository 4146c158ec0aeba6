"""Are the verdicts of `compare` what they claim to be? Simulated hosts, judged by the tool's own functions.

A host: each process is off by a random effect of its own (in each row anew), the host gets 3 % slower over
the session, and 5 % of the runs are outliers, slower by 10 % on average. A comparison: two arms in balanced,
shuffled rounds, a table of several rows, and a control that stays. No guard discards anything here.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from bisect_tool.analysis.verdicts import ALPHA, Effect, Kind, beside, effect, holm, judge, least_rounds
from bisect_tool.measuring.schedule import orders

ROUNDS = 20
RAMP = 0.03
OUTLIERS, OUTLIER_SIZE = 0.05, 0.10
WIDTH = 0.0075  # the stop rule's


@dataclass(frozen=True)
class Host:
    """``sd``: of the process effect. ``shared``: all rows of a process have one effect."""

    sd: float
    shared: bool = False


def simulate(host: Host, rows: int, change: float, rng: random.Random) -> list[list[dict[int, float]]]:
    """``times[arm][row][round]``: two arms, the second slower by ``change``; the last row is the control."""
    times: list[list[dict[int, float]]] = [[{} for _ in range(rows + 1)] for _ in range(2)]
    step = 0
    for number, order in enumerate(islice(orders(2, rng.randrange(2**31)), ROUNDS), 1):
        for arm in order:
            ramp = RAMP * step / (2 * ROUNDS - 1)
            step += 1
            outlier = rng.expovariate(1 / OUTLIER_SIZE) if rng.random() < OUTLIERS else 0.0
            common = rng.gauss(0, host.sd)
            for row in range(rows + 1):
                process = common if host.shared else rng.gauss(0, host.sd)
                slower = (1 + ramp) * (1 + outlier) * (1 + change if arm and row < rows else 1.0)
                times[arm][row][number] = math.exp(process) * slower
    return times


def fixed(times: Sequence[Sequence[dict[int, float]]]) -> list[Effect]:
    """All rounds."""
    return [found for base, arm in zip(*times, strict=True) if (found := effect(arm, base)) is not None]


def by_width(times: Sequence[Sequence[dict[int, float]]]) -> list[Effect]:
    """As the tool stops: at the width, not before a row could be called, with all rounds at the latest."""
    for rounds in range(least_rounds(len(times[0]) - 1), ROUNDS + 1):
        so_far = [[{r: v for r, v in row.items() if r <= rounds} for row in arm] for arm in times]
        found = fixed(so_far)
        if max(each.half_width for each in found[:-1]) <= WIDTH:
            return found
    return fixed(times)


@dataclass
class Tally:
    comparisons: int = 0
    rows: int = 0
    kinds: dict[Kind, int] | None = None
    tables_called: int = 0
    tables_significant: int = 0
    covered: int = 0
    rounds: int = 0

    def share(self, *kinds: Kind) -> float:
        assert self.kinds is not None
        return sum(self.kinds.get(kind, 0) for kind in kinds) / self.rows


def tally(
    host: Host,
    rows: int,
    change: float,
    stop: Callable[[Sequence[Sequence[dict[int, float]]]], list[Effect]],
    comparisons: int,
    seed: int,
) -> Tally:
    found = Tally(kinds={})
    assert found.kinds is not None
    rng = random.Random(seed)
    for _ in range(comparisons):
        *effects, control = stop(simulate(host, rows, change, rng))
        judged = zip(judge(effects), effects, strict=True)
        kinds = [beside(verdict, each, control).kind for verdict, each in judged]
        for kind in kinds:
            found.kinds[kind] = found.kinds.get(kind, 0) + 1
        found.comparisons += 1
        found.rows += rows
        found.tables_called += any(kind in (Kind.FASTER, Kind.SLOWER) for kind in kinds)
        found.tables_significant += min(holm([each.p for each in effects])) < ALPHA
        found.rounds += effects[0].ratio.n
        for each in effects:
            low, high = each.ratio.low, each.ratio.high
            found.covered += low is not None and high is not None and low <= 1 + change <= high
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparisons", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=3553)
    args = parser.parse_args()
    print(f"{args.comparisons} comparisons each, {ROUNDS} rounds at most, seed {args.seed}\n")
    print("| host | rows | rounds | false FASTER/SLOWER a table (promised: at most 5 %) | the same without "
          "the 2 % margin | SAME | coverage of the 95 % interval (promised: 93–98 %) |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- |")
    kept = True
    for host, rows, stop, name in [
        (Host(0.01), 4, fixed, "all"),
        (Host(0.01), 9, fixed, "all"),
        (Host(0.01, shared=True), 9, fixed, "all"),
        (Host(0.01), 4, by_width, "by width"),
        (Host(0.02), 9, by_width, "by width"),
        (Host(0.005), 4, fixed, "all"),
        (Host(0.005), 4, by_width, "by width"),
    ]:
        got = tally(host, rows, 0.0, stop, args.comparisons, args.seed)
        false, bare = got.tables_called / got.comparisons, got.tables_significant / got.comparisons
        coverage, same = got.covered / got.rows, got.share(Kind.SAME)
        promised_same = " (promised: 80 %)" if host.sd == 0.005 and stop is fixed else ""
        kept &= false <= 0.05 and 0.93 <= coverage <= 0.98
        kept &= not promised_same or same >= 0.8
        what = f"equal arms, sd {host.sd * 100:g} %" + (", one effect a process" if host.shared else "")
        print(f"| {what} | {rows} | {name}, mean {got.rounds / got.comparisons:.1f} | {false * 100:.2f} % | "
              f"{bare * 100:.1f} % | {same * 100:.1f} %{promised_same} | {coverage * 100:.1f} % |",
              flush=True)  # fmt: skip
    print("\n| host | rows | rounds | called SLOWER (promised: at least 80 % of rows) | FASTER | SAME | "
          "AMBIGUOUS | coverage |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for host, rows, stop, name in [
        (Host(0.01), 1, fixed, "all"),
        (Host(0.01), 4, fixed, "all"),
        (Host(0.01), 9, fixed, "all"),
        (Host(0.01), 4, by_width, "by width"),
    ]:
        got = tally(host, rows, 0.03, stop, args.comparisons, args.seed)
        power, coverage = got.share(Kind.SLOWER), got.covered / got.rows
        kept &= power >= 0.8 and 0.93 <= coverage <= 0.98
        shares = [got.share(kind) * 100 for kind in (Kind.FASTER, Kind.SAME, Kind.AMBIGUOUS)]
        print(f"| 3 % slower, sd {host.sd * 100:g} % | {rows} | {name}, mean "
              f"{got.rounds / got.comparisons:.1f} | {power * 100:.1f} % | {shares[0]:.2f} % | "
              f"{shares[1]:.1f} % | {shares[2]:.1f} % | {coverage * 100:.1f} % |", flush=True)  # fmt: skip
    print("\nevery promise is kept" if kept else "\nA PROMISE IS BROKEN")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
