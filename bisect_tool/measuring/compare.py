"""What `bisect_tool compare` does: arms to environments, measured in the same rounds; the caller prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bisect_tool.analysis import comparison
from bisect_tool.building.cache import AGAIN
from bisect_tool.errors import ToolError, UsageProblem
from bisect_tool.measuring import child_env, ledger
from bisect_tool.measuring.repro import Watcher, Work, admit, conduct, plan_of, variables
from bisect_tool.measuring.run import Script
from bisect_tool.measuring.session import Arm, Settings, StopRule
from bisect_tool.upstream import arms as arms_
from bisect_tool.upstream.arms import ArmSpec
from bisect_tool.upstream.revision import Kind, Revision

if TYPE_CHECKING:
    from bisect_tool.building.provision import Provided, Provider

SHARED = ("sources", "cache/uv")  # what it need not download a second time


@dataclass(frozen=True)
class Pace:
    """How long to measure, by kind of backend (``cpu``, ``gpu``), seconds. ``budget_s``: of an arm, over all
    rounds. ``run_s``: the measuring time of one process of the canonical repro, None for its own."""

    budget_s: dict[str, float]
    run_s: dict[str, float | None]
    width: float


PACES = {
    "quick": Pace({"cpu": 45.0, "gpu": 90.0}, {"cpu": 4.0, "gpu": 12.0}, 0.02),
    "normal": Pace({"cpu": 120.0, "gpu": 360.0}, {"cpu": None, "gpu": None}, 0.0075),
    "rigorous": Pace({"cpu": 480.0, "gpu": 1440.0}, {"cpu": None, "gpu": None}, 0.005),
}


@dataclass(frozen=True)
class Request:
    """The command, parsed. ``None`` of ``budget_s`` and ``width``: the pace's. ``view``: how to print."""

    arms: tuple[str, ...]
    onto: str
    baseline: str
    aa: bool
    script: Path | None
    script_args: tuple[str, ...]
    control: str
    controlled: bool
    env_options: tuple[str, ...]
    pace: str
    budget_s: float | None
    width: float | None
    rounds: int | None
    timeout_s: float
    seed: int | None
    form: str
    view: dict[str, Any]
    command: list[str]


@dataclass
class Comparing:
    """A comparison under way: who takes part, and how each gets its environment."""

    asked: Request
    provider: Provider
    watch: Watcher
    specs: list[ArmSpec]
    baseline: str
    again: str = ""
    _about: dict[str, dict[str, Any]] = field(default_factory=dict)
    _problems: dict[str, ToolError] = field(default_factory=dict)
    _second: Provider | None = None

    @staticmethod
    def of(asked: Request, provider: Provider, watch: Watcher) -> Comparing:
        """Raises UsageProblem for arms that cannot be, or of which there is only one."""
        specs, baseline = arms_.parse(asked.arms, onto=asked.onto, baseline=asked.baseline)
        again = ""
        if asked.aa:
            first = next(spec for spec in specs if spec.label == baseline)
            again = f"{baseline} (again)"
            twin = dataclasses.replace(first.revision, text=again)
            specs.append(dataclasses.replace(first, revision=twin))
        if len(specs) < 2:
            raise UsageProblem(
                f"{specs[0].label} alone is nothing to compare",
                "",
                "give a second arm, a pull request, a range A..B, or --aa for the noise of this host",
            )
        return Comparing(asked, provider, watch, specs, baseline, again)

    @property
    def kind(self) -> str:
        return "cpu" if self.provider.backend.value == "cpu" else "gpu"

    @property
    def pace(self) -> Pace:
        return PACES[self.asked.pace]

    @property
    def script(self) -> Script:
        args = self.asked.script_args
        run_s = self.pace.run_s[self.kind]
        if self.asked.script is None and run_s is not None and "--budget" not in args:
            args = (*args, "--budget", f"{run_s:g}")
        return Script.load(self.asked.script, args)

    @property
    def settings(self) -> Settings:
        budget_s = self.asked.budget_s or self.pace.budget_s[self.kind] * len(self.specs)
        width = self.asked.width or self.pace.width
        patient = self.asked.budget_s is None
        return Settings(budget_s, width, self.asked.rounds, self.asked.timeout_s, patient)

    @property
    def plan(self) -> comparison.Plan:
        labels = tuple(spec.label for spec in self.specs)
        return comparison.Plan(
            self.baseline, labels, self.again, control=self.asked.control, controlled=self.asked.controlled
        )

    def stop(self) -> StopRule:
        """Until every ratio to the baseline is narrow, and a row could be called at all."""
        plan = self.plan

        def over(live: Sequence[str]) -> str:
            if plan.baseline not in live:
                return f"the baseline {plan.baseline} failed"
            return "" if len(live) > 1 else "every arm but the baseline failed"

        return StopRule(
            lambda lines: comparison.widest(lines, plan),
            lambda lines: comparison.least_rounds(lines, plan),
            over,
        )

    # ---------------------------------------------------------------- environments

    def look_up(self) -> None:
        """A pull request that is all there is to compare must exist. Raises what resolving it raises."""
        if len(self.asked.arms) == 1 and self.specs[-1].revision.kind is Kind.PULL and not self.asked.onto:
            self.watch.phase(f"looking up {self.specs[-1].typed}")
            self.provider.upstream.resolve(self.specs[-1].revision)

    def provide(self, revision: Revision) -> Provided:
        """The environment of the arm of that label."""
        try:
            return self._provide(revision)
        except ToolError as problem:
            self._problems[revision.text] = problem
            raise

    def _provide(self, revision: Revision) -> Provided:
        spec = next(spec for spec in self.specs if spec.label == revision.text)
        provider = self.second if spec.label == self.again else self.provider
        if spec.onto:
            from bisect_tool.upstream import merging

            self.watch.phase(f"merging {revision.name} onto {spec.onto}")
            found = provider.provide_commit(merging.resolve(provider.upstream, revision, spec.onto))
        else:
            found = provider.provide(revision)
        self._about[revision.text] = about(spec, found, self.provider)
        return found

    @property
    def second(self) -> Provider:
        """Makes the baseline a second time: its own build, in a folder of its own."""
        if self._second is None:
            provider = self.provider
            folder = provider.builds / AGAIN
            folder.mkdir(parents=True, exist_ok=True)
            for name in SHARED:
                (provider.builds / name).mkdir(parents=True, exist_ok=True)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                if not (folder / name).exists():
                    (folder / name).symlink_to((provider.builds / name).resolve())
            self._second = dataclasses.replace(provider, builds=folder)
            first = next(spec for spec in self.specs if spec.label == self.again).revision
            if first.kind is not Kind.RELEASE:
                self._second.__dict__["upstream"] = (
                    provider.upstream
                )  # a property that is kept once asked for
        return self._second

    def choose(self, made: list[Arm]) -> tuple[list[Arm], list[ledger.Line]]:
        """The arms to measure, and lines about those that are the same build as one of them.

        Raises SameBuild, or an arm's own error, when nothing is left to be compared.
        """
        ready: list[Arm] = []
        lines: list[ledger.Line] = []
        seen: dict[tuple[str, str, str], Arm] = {}
        for arm in made:
            arm = dataclasses.replace(arm, about=self._about.get(arm.label, {}))
            given = sorted(child_env.recorded(arm.env).items()) + sorted(arm.revision.settings)
            what = (arm.environment.wheel_digest, repr(sorted(arm.environment.packages.items())), repr(given))
            twin = seen.setdefault(what, arm)
            if twin is arm or arm.label == self.again:
                ready.append(arm)
                continue
            lines.append({"kind": "same-build", "arm": arm.label, "as": twin.label, **arm.about})
            self.watch.remark(f"{arm.label} is the same build as {twin.label}; it is measured once")
        labels = [arm.label for arm in ready]
        if self.baseline not in labels or len(ready) < 2:
            raise self._nothing_left(lines)
        return ready, lines

    def _nothing_left(self, lines: list[ledger.Line]) -> ToolError:
        if not self._problems:
            names = " and ".join(dict.fromkeys([self.baseline, *(line["arm"] for line in lines)]))
            return SameBuild(
                f"{names} are the same build",
                "there is no difference to measure",
                "--aa measures the noise of this host",
            )
        return self._problems.get(self.baseline) or next(iter(self._problems.values()))


class SameBuild(UsageProblem):
    """All arms are one build: what they differ in reaches no file of it."""


def about(spec: ArmSpec, found: Provided, provider: Provider) -> dict[str, Any]:
    """What the arm's line says beside its environment: what was typed, the commit, the changes of a tree."""
    said: dict[str, Any] = {"typed": spec.typed}
    if spec.onto:
        said["onto"] = spec.onto
    if found.resolved is not None:
        from bisect_tool.upstream import local_tree

        said |= {"subject": found.resolved.commit.subject, "note": found.resolved.note}
        if spec.revision.kind is Kind.PATH:
            changed = local_tree.changes(provider.upstream, found.resolved.commit)
            said |= {"changes": changed} if changed else {}
    return said


class Dispatch(Protocol):
    """Tells how arms dispatch what was measured."""

    def of_pairs(self, lines: Sequence[ledger.Line], baseline: str) -> list[ledger.Line]:
        """The ledger's lines about each arm beside the baseline."""
        ...


def measure(
    asked: Request, provider: Provider, watch: Watcher, *, resume: bool, dispatch: Dispatch | None = None
) -> ledger.Session:
    """Measure and return the session as the ledger has it. ``dispatch``: None where none is to be told.

    Raises what ``repro.measure`` raises, and SameBuild. An arm without an environment, and one whose runs
    fail, is recorded and the others are compared.
    """
    comparing = Comparing.of(asked, provider, watch)
    comparing.look_up()
    script = comparing.script
    admit(script, provider)
    extra = variables(asked.env_options, provider)
    revisions = [spec.revision for spec in comparing.specs]
    plan = plan_of(revisions, script, extra, provider)
    plan["compare"] = {
        "baseline": comparing.baseline,
        "again": comparing.again,
        "typed": [spec.typed for spec in comparing.specs],
        "onto": asked.onto,
        "margin": comparing.plan.margin,
        "control": asked.control,
        "controlled": asked.controlled,
    }
    work = Work(
        revisions,
        script,
        extra,
        plan,
        comparing.settings,
        {"command": _recorded(asked.command), "format": asked.form, "view": asked.view},
        asked.seed,
        comparing.stop(),
        comparing.provide,
        comparing.choose,
    )
    if dispatch is not None:
        baseline, tell = comparing.baseline, dispatch.of_pairs
        work = dataclasses.replace(work, after=lambda lines: tell(lines, baseline))
    return conduct(work, provider, watch, resume=resume)


def _recorded(command: list[str]) -> list[str]:
    """What was typed, without ``--resume`` and without values of ``--env`` that may be secrets."""
    end = command.index("--") if "--" in command else len(command)
    return [
        *child_env.without_values([word for word in command[:end] if word != "--resume"]),
        *command[end:],
    ]
