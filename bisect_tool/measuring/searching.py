"""A search being carried out: what the analysis asks for is built and run, and written to the ledger.

The ledger is the only state: `stage`, `search`, `metric`, `untestable`, `exhausted` and `dispatch` lines
beside those that every session has. Whatever is decided is decided from them, so a search that was killed
goes on.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bisect_tool.analysis import metric as metrics
from bisect_tool.analysis import stages as replay
from bisect_tool.analysis.attribution import AllSteps
from bisect_tool.analysis.forecast import forecast
from bisect_tool.analysis.metric import Metric
from bisect_tool.analysis.problem import Done, MeasureEnds, Probe, Problem, Prove, State
from bisect_tool.analysis.search import advance, belief
from bisect_tool.analysis.stages import Stage
from bisect_tool.errors import BuildFailed, EnvironmentBroken, Interrupted, RunFailed, ToolError, UsageProblem
from bisect_tool.measuring import ledger, repro
from bisect_tool.measuring.candidates import Candidate
from bisect_tool.measuring.course import COMMITS, Course
from bisect_tool.measuring.repro import (
    arm_of,
    let_the_gpu_work,
    same_wheels,
)
from bisect_tool.measuring.run import Script
from bisect_tool.measuring.session import (
    Arm,
    Listeners,
    Measuring,
    Progress,
    Settings,
    arm_line,
)
from bisect_tool.upstream.revision import Kind, Revision
from bisect_tool.upstream.values import Resolved

if TYPE_CHECKING:
    from bisect_tool.building.provision import Provider

MARGIN = 0.02  # of the values, where they have no logarithm


@dataclass(frozen=True)
class Request:
    """The command, parsed. ``good``: ``auto`` steps back through the releases. ``metric``: None for the
    default. ``command`` is what was typed, for the record. ``prior``: ``dispatch``, or nothing."""

    good: str
    bad: str
    metric: str | None
    find: str
    script: Path | None
    script_args: tuple[str, ...]
    env_options: tuple[str, ...]
    paths: tuple[str, ...]
    suspects: tuple[str, ...]
    releases_only: bool
    all_steps: bool
    confidence: float
    budget_s: float | None
    max_builds: int | None
    timeout_s: float
    seed: int | None
    form: str
    command: list[str]
    prior: str = ""


@dataclass(frozen=True)
class Standing:
    """Where a search stands: ``left`` of ``candidates`` in the credible set, the likeliest of them, builds
    made so far (``built``), and what is expected to come: builds, and seconds in all."""

    left: int
    candidates: int
    confidence: float
    best: str
    probability: float
    built: int
    to_build: int
    left_s: float


class Watcher(repro.Watcher, Protocol):
    """Who watches a search: told where it stands after each step as well."""

    def standing(self, at: Standing) -> None: ...


class Dispatch(Protocol):
    """Tells what changes in dispatch at the positions of a stage."""

    def of_positions(
        self, lines: Sequence[ledger.Line], stage: int, shas: Sequence[str], *, prior: bool
    ) -> ledger.Line | None:
        """The ledger's line about those after the first, or None."""
        ...


@dataclass
class Arms:
    """Makes arms of candidates."""

    provider: Provider
    extra: list[tuple[str, str]]
    watch: Watcher

    def arm(self, candidate: Candidate) -> Arm:
        """Raises what ``Provider.provide`` raises."""
        if not candidate.sha:
            return arm_of(Revision.parse(candidate.label), self.provider, self.extra, self.watch)
        upstream = self.provider.upstream
        revision = Revision(candidate.label, candidate.label, Kind.COMMIT)
        resolved = Resolved(revision, upstream.commit(candidate.sha), upstream.trusted(candidate.sha))
        return arm_of(
            revision, self.provider, self.extra, self.watch, lambda _: self.provider.provide_commit(resolved)
        )

    def both(self, old: Candidate, new: Candidate) -> list[Arm]:
        """The arms of the ends. Raises BuildFailed or EnvironmentBroken naming each that cannot be had."""
        arms: list[Arm] = []
        failed: list[tuple[str, BuildFailed | EnvironmentBroken]] = []
        for candidate in (old, new):
            try:
                arms.append(self.arm(candidate))
            except (BuildFailed, EnvironmentBroken) as problem:
                failed.append((candidate.label, problem))
        if not failed:
            return arms
        label, first = failed[0]
        if len(failed) == 2:
            why = "; ".join(f"{name}: {error.what}" for name, error in failed)
            raise BuildFailed("neither end can be measured", why, "choose other ends", first.log)
        why = f"{first.what}: {first.why}" if first.why else first.what
        raise BuildFailed(f"the end {label} cannot be measured", why, "choose a commit beside it", first.log)


@dataclass
class Search:
    """One session being searched. ``lines`` mirrors the ledger, the header left out."""

    asked: Request
    course: Course
    watch: Watcher
    script: Script
    extra: list[tuple[str, str]]
    book: ledger.Ledger
    header: ledger.Line
    lines: list[ledger.Line]
    dispatch: Dispatch | None = None

    def __post_init__(self) -> None:
        self.provider = self.course.provider
        self._said: tuple[int, str, int] | None = None  # of the last standing, not to repeat it
        listeners = Listeners(self.watch.progress, self.watch.remark)
        settings = Settings(math.inf, timeout_s=self.asked.timeout_s)
        seed = self.header["plan"]["seed"]
        self.measuring = Measuring(
            self.book, self.lines, [], self.script, settings, seed, self.provider.sandbox, listeners
        )

    # ---------------------------------------------------------------- arms

    def take(self, arms: Sequence[Arm]) -> None:
        self.measuring.arms += arms
        self.measuring.sandbox = self.provider.sandbox

    def resume(self) -> None:
        """Make the ends of the stage ready again, and finish a round that was cut off."""
        stage = self._stage()
        for position in self._ends_of(stage):
            self._arm(stage, position)
        let_the_gpu_work(self.measuring.arms[0], self.script, self.provider, self.watch)
        self.measuring.sandbox = self.provider.sandbox
        runs = [line for line in self.lines if line["kind"] == "run"]
        if runs and runs[-1].get("stage") == stage.number:
            order = runs[-1]["order"]
            mine = [run for run in runs if run["round"] == runs[-1]["round"]]
            place = {stage.label(i): i for i in range(len(stage.positions))}
            if len(mine) < len(order) and all(self._arm(stage, place[label]) for label in order):
                about = {name: mine[0][name] for name in ("stage", "proof") if name in mine[0]}
                self.measuring.count(order, Progress(1, 1, 1, order[-1], 0.0), **about)

    def _arm(self, stage: Stage, position: int) -> Arm | None:
        """The arm of a position, built where need be; None when it is, or turns out, untestable."""
        label = stage.label(position)
        for arm in self.measuring.arms:
            if arm.label == label:
                return arm if position not in stage.untestable else None
        if position in stage.untestable:
            return None
        arms = Arms(self.provider, self.extra, self.watch)
        try:
            arm = arms.arm(Candidate.from_dict(stage.positions[position]))
        except (BuildFailed, EnvironmentBroken) as problem:
            if isinstance(problem, EnvironmentBroken) and not problem.of_wheel:
                raise
            self.watch.remark(f"{label} cannot be tested: {problem.line()}")
            reason = f"{problem.what}: {problem.why}" if problem.why else problem.what
            failure = problem.failure if isinstance(problem, BuildFailed) else "import"
            self._append(
                {"kind": "untestable", "stage": stage.number, "position": position, "reason": reason,
                 "failure": failure}
            )  # fmt: skip
            return None
        known = [line for line in self.lines if line["kind"] == "arm" and line["arm"] == label]
        if known:
            same_wheels(arm, known[0])
        else:
            self._append(arm_line(arm))
        self.measuring.arms.append(arm)
        return arm

    # ---------------------------------------------------------------- the course of a session

    def run(self) -> None:
        """Search until there is an answer. KeyboardInterrupt becomes Interrupted, state kept."""
        try:
            while self._go_on():
                pass
        except KeyboardInterrupt:
            kept = len([line for line in self.lines if line["kind"] == "run"])
            runs = "1 run is" if kept == 1 else f"{kept} runs are"
            raise Interrupted(
                "interrupted",
                f"{runs} kept in session {self.header['id']}",
                "the same command with --resume goes on",
            ) from None
        except ToolError:
            self.watch.remark(f"session {self.header['id']} is kept; the same command with --resume goes on")
            raise

    def _go_on(self) -> bool:
        """The next piece of work; False when the session has come to its end."""
        stage = self._stage()
        if not stage.searches:
            return self._begin(stage)
        search = stage.searches[-1]
        if search["purpose"] == "look":
            return self._look(stage, search)
        todo = stage.next()
        if isinstance(todo, AllSteps):
            return self._finished(stage, todo)
        assert todo is not None and not isinstance(todo.action, Done)
        started = not isinstance(todo.action, MeasureEnds)
        if started and (wrong := self._wrong_way(stage.state(search))):
            return self._end(wrong, verdict="other direction")
        if not self._exhaust(stage, todo.action):
            self._act(stage, todo.problem, todo.action)
            self._say(todo.problem)
        return True

    def _begin(self, stage: Stage) -> bool:
        """The first round of a stage, at its ends; it tells what can be read, and how long a run takes."""
        first, last = self._ends_of(stage)
        arms = [line for line in self.lines if line["kind"] == "arm"]
        digests = {line["arm"]: line["wheel_digest"] for line in arms}
        if digests[stage.label(first)] == digests[stage.label(last)]:
            return self._end("the builds of both ends hold the same files", verdict="same files")
        order = [stage.label(first), stage.label(last)]
        ran = [line for line in self.lines if line["kind"] == "run" and line.get("stage") == stage.number]
        if not replay.whole(ran):
            if not self.measuring.count(order, Progress(1, 1, 1, order[0], 0.0), stage=stage.number):
                raise self._end_is_gone(order)
            ran = [line for line in self.lines if line["kind"] == "run" and line.get("stage") == stage.number]
        metric = replay.metric_of(self.lines)
        if metric is None:
            metric = self._settle(ran)
        values = [self._value(metric, run) for run in ran[-2:]]
        positive = all(value > 0 for value in values)
        margin = {}
        if not positive and not metric.passfail:
            margin["margin"] = MARGIN * statistics.fmean(abs(value) for value in values)
        if self.asked.prior and stage.name == COMMITS and not stage.dispatch:
            self._tell_dispatch(stage, 0, len(stage.positions) - 1, prior=True)
        self._append(
            self._search_line(
                stage,
                first=first,
                last=last,
                purpose="look" if self.asked.good == "auto" and stage.number == 0 else "range",
                mode="passfail" if metric.passfail else "log" if positive else "raw",
                **(
                    {}
                    if positive or metric.passfail
                    else {"margin": MARGIN * statistics.fmean(map(abs, values))}
                ),
                run_s=round(statistics.median(run["wall_s"] for run in ran), 2),
            )
        )
        return True

    def _search_line(self, stage: Stage, **fields: Any) -> ledger.Line:
        final = stage.name == COMMITS or self.asked.releases_only
        return {
            "kind": "search",
            "stage": stage.number,
            "confidence": self.asked.confidence,
            "prove": final,
            # Good and bad have no shares: what is bad after the first step cannot become worse.
            "every": final and self.asked.all_steps and fields["mode"] != "passfail",
            **fields,
        }

    def _settle(self, ran: Sequence[ledger.Line]) -> Metric:
        """Which metric is searched. Raises UsageProblem naming those that there are."""
        asked, run = self.asked.metric, ran[-1]
        there = metrics.offered(run)
        if self.script.canonical:
            chosen, of = Metric.of_case(asked or metrics.DEFAULT), "case"
        elif asked is not None:
            chosen, of = Metric.of_script(asked), "exit" if asked == metrics.EXIT else "script"
        elif len(there) > 1:
            raise UsageProblem(
                f"{self.script.path.name} prints {len(there)} metrics",
                ", ".join(there),
                "choose with --metric",
            )
        else:
            chosen = Metric.of_script(there[0] if there else metrics.EXIT)
            of = "script" if there else "exit"
        for each in ran[-2:]:
            self._value(chosen, each)
        unit = chosen.unit
        if chosen.script:
            unit = next(str(m.get("unit", "")) for m in run["metrics"] if m["metric"] == chosen.script)
        self._append({"kind": "metric", "name": chosen.text, "of": of, "unit": unit})
        return chosen

    def _value(self, metric: Metric, run: ledger.Line) -> float:
        """What a run at an end says. Raises UsageProblem when it says nothing of the kind."""
        try:
            value = metric.value(run)
        except metrics.Unknown as problem:
            raise UsageProblem(str(problem), remedy="name one of them with --metric") from None
        if value is None:
            there = metrics.offered(run)
            what = f"mlx {run['arm']} does not give the metric {metric.text!r}"
            raise UsageProblem(what, f"it gives {', '.join(there)}" if there else "it gives none")
        return value

    def _finished(self, stage: Stage, found: AllSteps) -> bool:
        """What follows an answer: the commits between two releases, or the end."""
        between = replay.bounds(found.first)
        if stage.name == COMMITS or self.asked.releases_only or between is None:
            if stage.name == COMMITS and not stage.dispatch:
                for step in found.steps:
                    self._tell_dispatch(stage, step.parent, step.position)
            return self._end("found" if found.steps else "no more can be told")
        old, new = (stage.label(position) for position in between)
        self.watch.remark(f"the step lies between {old} and {new}; now the commits between them")
        self.course.positions = self.course.between(old, new)
        self._append(self.course.line(stage.number + 1))
        self._ready_ends()
        return True

    def _ready_ends(self) -> None:
        stage = self._stage()
        old, new = (Candidate.from_dict(stage.positions[i]) for i in self._ends_of(stage))
        arms = Arms(self.provider, self.extra, self.watch).both(old, new)
        self._append(*(arm_line(arm) for arm in arms))
        self.take(arms)

    # ---------------------------------------------------------------- stepping back to a good end

    def _look(self, stage: Stage, search: replay.Line) -> bool:
        """One more step towards a good end that differs from the bad one."""
        action = advance(stage.state(search))
        if isinstance(action, MeasureEnds):
            if not self._exhaust(stage, action):
                self._act(stage, stage.state(search).problem, action)
            return True
        if isinstance(action, Done):
            return self._look_further(stage, search)
        self.watch.remark(f"mlx {stage.label(int(search['first']))} differs: the good end")
        self._append({**search, "purpose": "range"})
        return True

    def _look_further(self, stage: Stage, search: replay.Line) -> bool:
        """A good end twice as far back; the end of the session when there is none."""
        first, last = int(search["first"]), int(search["last"])
        if stage.exhausted:
            return self._end(f"{stage.exhausted} before a good end was found", verdict="no good end")
        if first == 0:
            oldest = stage.label(0)
            return self._end(f"no release back to {oldest} differs", verdict="no good end")
        further = max(0, last - 2 * (last - first))
        if self._arm(stage, further) is None:
            further = next((p for p in range(further - 1, -1, -1) if self._arm(stage, p)), -1)
        if further < 0:
            return self._end("no older release can be tested", verdict="no good end")
        self._append({**search, "first": further})
        return True

    # ---------------------------------------------------------------- doing what the search asks for

    def _act(self, stage: Stage, problem: Problem, action: MeasureEnds | Probe | Prove) -> None:
        wanted = {position for order in action.rounds for position in order}
        if not all(self._arm(stage, position) for position in sorted(wanted)):
            return
        about: dict[str, Any] = {"stage": stage.number}
        if isinstance(action, Prove):
            about["proof"] = True
        metric = replay.metric_of(self.lines)
        assert metric is not None
        total = len(action.rounds)
        for done, order in enumerate(action.rounds):
            left = (total - done) * len(order) * problem.run_s
            labels = [stage.label(position) for position in order]
            ends = {problem.first, problem.last}
            if not self.measuring.count(labels, Progress(done + 1, total, total, labels[0], left), **about):
                if {stage.label(position) for position in ends} - {
                    arm.label for arm in self.measuring.live()
                }:
                    raise self._end_is_gone([stage.label(position) for position in sorted(ends)])
                return
            ran = [line for line in self.lines if line["kind"] == "run"][-len(order) :]
            for run, position in zip(ran, order, strict=True):
                if not self._readable(stage, problem, metric, run, position):
                    return
            if self._budget_spent():
                return

    def _readable(self, stage: Stage, problem: Problem, metric: Metric, run: Any, position: int) -> bool:
        value = metric.value(run)
        if value is not None and (problem.kind != "log" or value > 0):
            return True
        said = "does not give the metric" if value is None else f"gives {value:g}, which has no logarithm"
        if position in (problem.first, problem.last):
            raise RunFailed(f"mlx {run['arm']} {said}", metric.text, "see its log under builds/sessions")
        self._append(
            {"kind": "untestable", "stage": stage.number, "position": position, "reason": said,
             "failure": "metric"}
        )  # fmt: skip
        return False

    def _exhaust(self, stage: Stage, action: MeasureEnds | Probe | Prove) -> bool:
        """Record that a budget is spent, where it is; True when it was recorded now."""
        if stage.exhausted and stage.exhausted != replay.NO_MORE_BUILDS:
            return False
        why = self._budget_spent()
        if not why and not stage.exhausted and self.asked.max_builds is not None:
            made = sum(len(each.built) for each in replay.stages(self.lines))
            wanted = {position for order in action.rounds for position in order}
            if made >= self.asked.max_builds and any(self._must_build(stage, p) for p in wanted):
                why = replay.NO_MORE_BUILDS
        if why:
            self._append({"kind": "exhausted", "why": why})
        return bool(why)

    def _must_build(self, stage: Stage, position: int) -> bool:
        sha = stage.positions[position]["sha"]
        if not sha or any(arm.sha == sha for arm in self.measuring.arms):
            return False
        return self.provider.builder.stored(self.provider.upstream.commit(sha)) is None

    def _budget_spent(self) -> str:
        budget = self.asked.budget_s
        spent = sum(each.seconds for each in replay.stages(self.lines))
        return f"the budget of {budget:.0f} s is spent" if budget is not None and spent >= budget else ""

    def _wrong_way(self, state: State) -> str:
        """Why there is nothing to find in the direction that was asked for; empty when there is."""
        if self.asked.find == "any":
            return ""
        change = replay.direction(state)
        if (change > 0) == (self.asked.find == "regression"):
            return ""
        way, other = ("rises", "regression") if change > 0 else ("falls", "fix")
        return f"no {self.asked.find}: the metric {way} from the older end to the newer (--find {other})"

    # ---------------------------------------------------------------- small things

    def _stage(self) -> Stage:
        return replay.stages(self.lines)[-1]

    def _ends_of(self, stage: Stage) -> tuple[int, int]:
        """The positions between which the stage's first search runs."""
        if stage.searches:
            return int(stage.searches[-1]["first"]), int(stage.searches[-1]["last"])
        last = len(stage.positions) - 1
        return (last - 1 if self.asked.good == "auto" and stage.number == 0 else 0), last

    def _end_is_gone(self, labels: Sequence[str]) -> ToolError:
        gone = [line for line in self.lines if line["kind"] == "dropped" and line["arm"] in labels]
        what = f"the end {gone[-1]['arm']} cannot be measured" if gone else "an end cannot be measured"
        return RunFailed(what, gone[-1]["reason"] if gone else "", "choose a commit beside it")

    def _say(self, problem: Problem) -> None:
        """Where the search of a range stands."""
        stage = self._stage()
        state = replace(stage.state(stage.searches[-1]), problem=problem)
        seen = belief(state)
        if seen is None:
            return
        stored = [i for i, position in enumerate(stage.positions) if not float(position["build_s"])]
        coming = forecast(state, stored)
        now = Standing(
            left=len(seen.credible),
            candidates=problem.last - problem.first,
            confidence=problem.confidence,
            best=stage.label(seen.best),
            probability=seen.best_probability,
            built=len(stage.built),
            to_build=coming.builds,
            left_s=coming.seconds,
        )
        if (now.left, now.best, now.built) != self._said:
            self.watch.standing(now)
        self._said = (now.left, now.best, now.built)

    def _tell_dispatch(self, stage: Stage, first: int, last: int, *, prior: bool = False) -> None:
        """Record what changes in dispatch between two positions, where that can be told."""
        if self.dispatch is None:
            return
        shas = [str(position["sha"]) for position in stage.positions[first : last + 1]]
        said = self.dispatch.of_positions(self.lines, stage.number, shas, prior=prior)
        if said is not None:
            self._append(said)

    def _end(self, reason: str, verdict: str = "") -> bool:
        self._append({"kind": "end", "reason": reason, **({"verdict": verdict} if verdict else {})})
        return False

    def _append(self, *lines: ledger.Line) -> None:
        self.book.append(*lines)
        self.lines += lines
