"""`compare --dry-run`: what would be built and measured, and about how long that takes. Builds nothing."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from bisect_tool.analysis.rank import MIN_ROUNDS
from bisect_tool.errors import LedgerDamaged, ToolError
from bisect_tool.measuring import ledger
from bisect_tool.upstream.revision import Kind

if TYPE_CHECKING:
    from bisect_tool.measuring.compare import Comparing
    from bisect_tool.measuring.run import Script
    from bisect_tool.upstream.arms import ArmSpec
    from bisect_tool.upstream.values import Commit

OWN_RUN_S = {"cpu": 12.0, "gpu": 40.0}  # what the canonical repro measures for, unless it is told
AROUND_S = 4.0  # its import, sentinels and first compilation


def text(comparing: Comparing) -> str:
    """The plan, in a few lines: a table of arms, why one cannot be had, minutes."""
    from tabulate import tabulate

    rows, builds, unknown = [], 0.0, False
    problems: list[str] = []
    for spec in comparing.specs:
        try:
            what, seconds = _state(comparing, spec)
        except ToolError as problem:
            what, seconds = ["", "cannot be had"], 0.0
            problems.append(f"{spec.label}: {problem.line()}")
        unknown |= seconds is None
        builds += seconds or 0.0
        role = "baseline" if spec.label == comparing.baseline else ""
        rows.append([spec.label, *what, role])
    table = tabulate(rows, headers=["arm", "commit", "build", ""], tablefmt="plain", disable_numparse=True)
    return "\n".join([table, *problems, "", *_minutes(comparing, builds, unknown)])


def _state(comparing: Comparing, spec: ArmSpec) -> tuple[list[str], float | None]:
    """What an arm is, whether it must be built, and the seconds that takes; None where nobody can tell.

    Raises what looking it up raises.
    """
    provider = comparing.provider
    if spec.revision.kind is Kind.RELEASE:
        return ["", "released wheel"], 0.0
    commit = _commit(comparing, spec)
    builder = comparing.second.builder if spec.label == comparing.again else provider.builder
    if builder.stored(commit) is not None:
        return [commit.short, "in the store"], 0.0
    usual = _build_seconds(comparing)
    if usual is None:
        return [commit.short, "to build"], None
    return [commit.short, f"to build, about {_shown(usual)}"], usual


def _commit(comparing: Comparing, spec: ArmSpec) -> Commit:
    from bisect_tool.upstream import merging

    upstream = comparing.provider.upstream
    if spec.onto:
        return merging.resolve(upstream, spec.revision, spec.onto).commit
    return upstream.resolve(spec.revision).commit


def _build_seconds(comparing: Comparing) -> float | None:
    """The median of the builds for this backend that are in the store."""
    from bisect_tool.building.store import Store

    provider = comparing.provider
    known = [
        float(build.record["seconds"])
        for build in Store(provider.builds).builds()
        if build.record.get("backend") == provider.backend.value
    ]
    return statistics.median(known) if known else None


def _minutes(comparing: Comparing, build_s: float, unknown: bool) -> list[str]:
    settings, arms = comparing.settings, len(comparing.specs)
    each, source = run_seconds(comparing)
    lines = []
    if each is None:
        lines.append(f"{arms} arms; how long a run of {comparing.script.path.name} takes is not known yet")
        lines.append(f"measuring: until {_until(settings)}, {settings.budget_s / 60:.1f} min of runs at most")
    else:
        a_round = each * arms
        most = max(settings.budget_s, MIN_ROUNDS * a_round if settings.patient else 0.0)
        if settings.rounds is not None:
            most = min(settings.rounds * a_round, settings.budget_s if not settings.patient else float("inf"))
        least = (settings.rounds or MIN_ROUNDS) * a_round
        lines.append(f"a round: {arms} runs of about {each:.0f} s ({source}), {a_round / 60:.1f} min")
        lines.append(
            f"measuring: {min(least, most) / 60:.0f}–{most / 60:.0f} min, until {_until(settings)}; more for "
            "tables of so many rows that six rounds could call none of them"
        )
    if unknown:
        lines.append("builds: how long they take here is not known yet")
    elif build_s:
        lines.append(f"builds: about {_shown(build_s)}")
    return lines


def _shown(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _until(settings: Any) -> str:
    if settings.rounds is not None:
        return f"{settings.rounds} rounds are done"
    return f"every ratio is known to ±{settings.width * 100:g} %"


def run_seconds(comparing: Comparing) -> tuple[float | None, str]:
    """Seconds of a run and where that comes from: the last session with this script and arguments, else the
    time that the canonical repro is given; None for a script that was never run."""
    script = comparing.script
    for path in ledger.sessions(comparing.provider.builds):
        try:
            session = ledger.read(path)
        except LedgerDamaged:
            continue
        walls = [float(line["wall_s"]) for line in session.of_kind("run") if line["outcome"] != "failed"]
        if walls and session.header["plan"]["script"] == script.as_dict():
            return statistics.median(walls), f"as in session {session.id}"
    if not script.canonical:
        return None, ""
    given = _given(script)
    seconds = OWN_RUN_S[comparing.kind] if given is None else given
    return seconds + AROUND_S, "what it is given"


def _given(script: Script) -> float | None:
    args = list(script.args)
    return float(args[args.index("--budget") + 1]) if "--budget" in args else None
