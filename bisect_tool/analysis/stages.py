"""From a ledger's lines to the searches that they are the record of.

A session of `bisect` holds one or two stages: releases, then commits, each with its own positions. Every
decision is a function of these lines, so a search that was killed goes on from them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bisect_tool.analysis.attribution import AllSteps, RangeAction, advance_all
from bisect_tool.analysis.metric import EXIT, Metric
from bisect_tool.analysis.problem import (
    BudgetSpent,
    CredibleSet,
    Culprit,
    Outcome,
    Problem,
    Run,
    State,
    UnbuildableGap,
)
from bisect_tool.analysis.series import counted

Line = Mapping[str, Any]
NO_MORE_BUILDS = "builds"  # why a search is exhausted that may still run what is built
SUSPECT = 10.0  # how much likelier a suspect is thought than another commit


@dataclass(frozen=True)
class Stage:
    """``number``: its place in the session. ``name``: ``releases`` or ``commits``. ``positions``: what its
    builds are, oldest first, as the ledger has them. ``searches``: the ledger's ``search`` lines, of which
    the last is the search and those before it looked for a good end.

    ``untestable``: position to reason. ``same``: pairs of positions whose builds hold the same files.
    ``runs``: those that count, in whole rounds. ``built``: seconds of each build that was made for it, not
    found in the store. ``seconds``: of its runs and builds. ``dispatch``: the ledger's lines about what
    changes in dispatch at its positions.
    """

    number: int
    name: str
    positions: tuple[Line, ...]
    commits: int
    searches: tuple[Line, ...]
    untestable: Mapping[int, str]
    same: tuple[tuple[int, int], ...]
    runs: tuple[Run, ...]
    built: tuple[float, ...]
    seconds: float
    exhausted: str = ""
    dispatch: tuple[Line, ...] = ()

    def label(self, position: int) -> str:
        return str(self.positions[position]["label"])

    def state(self, search: Line) -> State:
        """What one of its searches has seen."""
        first, last = int(search["first"]), int(search["last"])
        problem = Problem(
            last=last,
            first=first,
            kind=search["mode"],
            confidence=search["confidence"],
            build_s=[float(p["build_s"]) and self._build_s(float(p["build_s"])) for p in self.positions],
            run_s=float(search["run_s"]),
            commits=self._weights(),
            prior=self._priors(),
            prove=bool(search["prove"]),
            **({"margin": search["margin"]} if "margin" in search else {}),
        )
        inside = frozenset(p for p in self.untestable if first < p < last)
        return State(problem, self.runs, inside, self.exhausted)

    @property
    def suspects(self) -> frozenset[str]:
        """The commits that come first because dispatch changes there."""
        return frozenset(sha for line in self.dispatch for sha in line["suspects"])

    def dispatch_at(self, position: int) -> str | None:
        """What changes in dispatch at a position; '' for nothing, None where it was not asked."""
        sha = str(self.positions[position]["sha"])
        for line in self.dispatch:
            if sha in line["changes"]:
                return str(line["changes"][sha])
        return "" if any(line["prior"] for line in self.dispatch) else None

    def _priors(self) -> list[float]:
        suspects = self.suspects
        return [float(p["prior"]) * (SUSPECT if p["sha"] in suspects else 1.0) for p in self.positions]

    def _build_s(self, guessed: float) -> float:
        """What a build takes: as those made so far; the first one starts from nothing."""
        return statistics.median(self.built[1:] or self.built) if self.built else guessed

    def _weights(self) -> list[float]:
        """Nothing can have changed between two builds of the same files."""
        weights = [1.0] * len(self.positions)
        for low, high in self.same:
            weights[low + 1 : high + 1] = [0.0] * (high - low)
        return weights

    def next(self) -> RangeAction | AllSteps | None:
        """What is to be done next, or what all of it found; None before its search has begun."""
        if not self.searches or self.searches[-1]["purpose"] == "look":
            return None
        search = self.searches[-1]
        return advance_all(self.state(search), every=bool(search["every"]))

    def found(self) -> AllSteps | None:
        """What its search found; None while it has not come to its end."""
        there = self.next()
        return there if isinstance(there, AllSteps) else None


def metric_of(lines: Iterable[Line]) -> Metric | None:
    """The metric that the session settled on; None before its first round."""
    for line in lines:
        if line["kind"] == "metric":
            if line["of"] == "case":
                return Metric.of_case(line["name"])
            return Metric.of_script(EXIT if line["of"] == "exit" else line["name"])
    return None


def stages(lines: Iterable[Line]) -> list[Stage]:
    """Every stage of a session, in order. Raises metric.Unknown for runs that several cases fit."""
    lines = list(lines)
    metric = metric_of(lines)
    good = counted(lines)
    return [_stage(line, lines, good, metric) for line in lines if line["kind"] == "stage"]


def _stage(begun: Line, lines: Sequence[Line], good: Sequence[Line], metric: Metric | None) -> Stage:
    number = begun["number"]
    positions = tuple(begun["positions"])
    place = {position["label"]: i for i, position in enumerate(positions)}
    mine = [line for line in lines if line.get("stage") == number]
    ran = [run for run in good if run.get("stage") == number]
    values = [(run, metric.value(run) if metric is not None else None) for run in ran]
    told: dict[int, int] = {}
    for run, value in values:
        told[run["round"]] = told.get(run["round"], 0) + (value is not None)
    complete = [(run, value) for run, value in values if told[run["round"]] == len(run["order"])]
    untestable = {line["position"]: str(line["reason"]) for line in mine if line["kind"] == "untestable"}
    for line in lines:
        if line["kind"] == "dropped" and line["arm"] in place:
            untestable.setdefault(place[line["arm"]], str(line["reason"]))
    arms = [line for line in lines if line["kind"] == "arm" and line["arm"] in place]
    mine_runs = [line for line in lines if line["kind"] == "run" and line.get("stage") == number]
    seconds = sum(float(run["wall_s"]) for run in mine_runs)
    spent = [line["why"] for line in lines if line["kind"] == "exhausted"]
    return Stage(
        number=number,
        name=begun["name"],
        positions=positions,
        commits=begun["commits"],
        searches=tuple(line for line in mine if line["kind"] == "search"),
        untestable=untestable,
        same=_same_files(arms, place),
        runs=tuple(
            Run(place[run["arm"]], float(value), run["round"], bool(run.get("proof")))
            for run, value in complete
            if value is not None
        ),
        built=tuple(float(arm["built_s"]) for arm in arms if "built_s" in arm),
        seconds=seconds + sum(float(arm.get("built_s", 0)) for arm in arms),
        exhausted=spent[-1] if spent else "",
        dispatch=tuple(line for line in mine if line["kind"] == "dispatch"),
    )


def _same_files(arms: Sequence[Line], place: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
    """The outermost pair of positions for each set of wheels whose contents are the same."""
    by_digest: dict[str, list[int]] = {}
    for arm in arms:
        by_digest.setdefault(arm["wheel_digest"], []).append(place[arm["arm"]])
    return tuple((min(p), max(p)) for p in by_digest.values() if len(set(p)) > 1)


def whole(runs: Sequence[Line]) -> bool:
    """Whether these run lines hold a round in which each arm of its order has a run that ended well."""
    ended: dict[int, int] = {}
    for run in runs:
        ended[run["round"]] = ended.get(run["round"], 0) + (run["outcome"] in ("ok", "good", "bad"))
    return any(ended[run["round"]] == len(run["order"]) for run in runs)


def direction(state: State) -> float:
    """Mean of the newer end less that of the older; above 0 the metric rises along the history."""
    problem = state.problem
    means = []
    for end in (problem.last, problem.first):
        values = [run.value for run in state.runs if run.position == end]
        means.append(sum(values) / len(values) if values else 0.0)
    return means[0] - means[1]


def bounds(outcome: Outcome) -> tuple[int, int] | None:
    """The positions between which the step lies: before it, and after. None where none was found."""
    if isinstance(outcome, Culprit):
        return outcome.parent, outcome.position
    if isinstance(outcome, UnbuildableGap):
        return outcome.before, outcome.after
    seen = outcome.belief if isinstance(outcome, (CredibleSet, BudgetSpent)) else None
    if seen is None or not seen.credible:
        return None
    return min(seen.credible) - 1, max(seen.credible)


def candidates(outcome: Outcome) -> tuple[int, ...]:
    """The positions that an outcome leaves: one of a culprit, several of a credible set, else none."""
    if isinstance(outcome, Culprit):
        return (outcome.position,)
    if isinstance(outcome, (UnbuildableGap, CredibleSet)):
        return outcome.candidates
    seen = outcome.belief if isinstance(outcome, BudgetSpent) else None
    return seen.credible if seen is not None else ()
