"""What a search found, as markdown or data: a pure function of the ledger."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bisect_tool.analysis import stages as replay
from bisect_tool.analysis.attribution import ENOUGH, AllSteps, Step
from bisect_tool.analysis.metric import Metric
from bisect_tool.analysis.problem import (
    Belief,
    BudgetSpent,
    CredibleSet,
    Culprit,
    Difference,
    NoStep,
    Outcome,
    TooNoisy,
    UnbuildableGap,
)
from bisect_tool.analysis.rank import Interval, hodges_lehmann, log_centre
from bisect_tool.analysis.stages import Stage
from bisect_tool.reporting import environment
from bisect_tool.reporting.dispatch_table import culprit_line
from bisect_tool.reporting.report import finite
from bisect_tool.reporting.text import UNITS, fenced, table, time_unit, with_interval

Line = Mapping[str, Any]
SHOWN = 12  # candidates of a credible set; the rest is counted


def markdown(header: Line, lines: Sequence[Line]) -> str:
    """Headline, steps, credible sets, what could not be tested, environment. Ready to paste."""
    stages = replay.stages(lines)
    parts = [_headline(lines, stages)]
    for stage in stages:
        found = stage.found()
        if found is None:
            continue
        if found.steps:
            parts.append(_steps(header, lines, stage, found))
        parts += [_candidates(stage, outcome) for outcome in _outcomes(found) if _belief(outcome)]
    remarks = [text for stage in stages for text in _remarks(header, stage)]
    parts.append("\n".join(f"- {text}" for text in remarks))
    if again := reproduce(header, lines):
        parts.append("To measure it again:\n\n" + fenced(again))
    parts.append(environment.block(header, lines))
    return "\n\n".join(part for part in parts if part)


def _outcomes(found: AllSteps) -> list[Outcome]:
    return [found.first, *(part.outcome for part in found.remaining if part.outcome is not None)]


# ---------------------------------------------------------------- in words


def _headline(lines: Sequence[Line], stages: Sequence[Stage]) -> str:
    ended = [line for line in lines if line["kind"] == "end"]
    if ended and ended[-1].get("verdict"):
        return f"**{ended[-1]['reason']}**"
    done = [(stage, found) for stage in stages if (found := stage.found()) is not None]
    if not ended or not done:
        return "The search has not come to its end: this is what there is so far; `--resume` goes on."
    stage, found = done[-1]
    further = len(found.steps) - 1
    more = f"; {further} more {'step' if further == 1 else 'steps'} beside it" if further > 0 else ""
    return f"**{sentence(stage, found.first)}{more}**"


def sentence(stage: Stage, outcome: Outcome) -> str:
    """An outcome in one sentence."""
    search = stage.searches[-1]
    kind, confidence = search["mode"], f"{search['confidence'] * 100:g} %"
    if isinstance(outcome, Culprit):
        what = _named(stage, outcome.position)
        if outcome.proof is None:
            return f"the step is at {what} (P {outcome.probability:.3f})"
        return f"{what} made the difference: {change(outcome.proof, kind)} (P {outcome.probability:.3f})"
    if isinstance(outcome, UnbuildableGap):
        between = f"between {stage.label(outcome.before)} and {stage.label(outcome.after)}"
        moved = f": {change(outcome.proof, kind)}" if outcome.proof else ""
        return f"the step lies {between}, and what lies between them cannot be tested{moved}"
    if isinstance(outcome, CredibleSet):
        return f"no single commit: the step is one of {len(outcome.candidates)}, at {confidence}"
    if isinstance(outcome, NoStep):
        return f"no step: the ends differ by {change(outcome.ends, kind)}"
    if isinstance(outcome, TooNoisy):
        return f"too noisy: the smallest step that this host can see is {_size(outcome.ends.visible, kind)}"
    why = "the builds that were allowed are made" if outcome.why == replay.NO_MORE_BUILDS else outcome.why
    left = f"; {len(outcome.belief.credible)} candidates are left at {confidence}" if outcome.belief else ""
    return f"{why}, and there is no answer yet{left}"


def _belief(outcome: Outcome) -> Belief | None:
    return outcome.belief if isinstance(outcome, (CredibleSet, BudgetSpent)) else None


def _named(stage: Stage, position: int) -> str:
    """``548dd80e8 (#3764)``, or ``mlx 0.32.3``."""
    entry = stage.positions[position]
    if not entry["sha"]:
        return f"mlx {entry['label']}"
    pull = f" (#{entry['pull']})" if entry["pull"] else ""
    return f"{entry['label']}{pull}"


def change(found: Difference, kind: str) -> str:
    """``+27.4 % [26.9, 27.9]``; of failure rates ``+100 points of failures``; else a plain difference."""
    known = math.isfinite(found.low) and math.isfinite(found.high)
    values = [found.centre, found.low, found.high] if known else [found.centre]
    if kind == "raw":
        shown = [f"{value:+.3g}" for value in values]
    elif kind == "passfail":
        shown = [f"{value * 100:+.0f}" for value in values]
        shown[0] += " points of failures"
    else:
        shown = [f"{math.expm1(value) * 100:+.1f}" for value in values]
        shown[0] += " %"
    return shown[0] + (f" [{shown[1].lstrip('+')}, {shown[2].lstrip('+')}]" if known else "")


def _size(visible: float, kind: str) -> str:
    if not math.isfinite(visible):
        return "unknown"
    return f"{math.expm1(visible) * 100:.1f} %" if kind == "log" else f"{visible:.3g}"


# ---------------------------------------------------------------- tables


def _steps(header: Line, lines: Sequence[Line], stage: Stage, found: AllSteps) -> str:
    """One row a step, in order of history."""
    said = next(line for line in lines if line["kind"] == "metric")
    pairs = [[_values(stage, at) for at in (step.parent, step.position)] for step in found.steps]
    unit = _unit([values for pair in pairs for values in pair], said["unit"])
    rows = []
    for step, pair in zip(found.steps, pairs, strict=True):
        entry, single = stage.positions[step.position], isinstance(step.outcome, Culprit)
        between = f"{stage.label(step.parent)}..{stage.label(step.position)}"
        rows.append(
            [
                _named(stage, step.position) if single else between,
                day(entry["committed"]),
                str(entry["subject"]) if single else "(cannot be told apart)",
                f"{step.outcome.probability:.3f}",
                *(_value(values, unit) for values in pair),
                change(step.change, stage.searches[-1]["mode"]),
                f"{step.share * 100:.0f} %",
            ]
        )
    suffix = f" {unit}" if unit else ""
    head = ["commit", "date", "subject", "P", f"before{suffix}", f"after{suffix}", "change [95 %]", "share"]
    if stage.name == "releases":
        keep = [0, 3, 4, 5, 6, 7]
        head, rows = [head[i] for i in keep], [[row[i] for i in keep] for row in rows]
        head[0] = "release"
    first = int(stage.searches[-1]["first"])
    title = f"**Steps of {said['name']}**, {stage.label(first)} to {stage.label(len(stage.positions) - 1)}"
    links = [link for step in found.steps if (link := _compare_url(header, stage, step))]
    told = "\n".join(text for step in found.steps if (text := _dispatch(stage, step)))
    return "\n\n".join([title, table(head, rows), *filter(None, [told]), *links])


def _dispatch(stage: Stage, step: Step) -> str:
    """What changes in dispatch at a step, a line for each position that may be it; '' where nobody asked."""
    told = {at: stage.dispatch_at(at) for at in range(step.parent + 1, step.position + 1)}
    known = {at: text for at, text in told.items() if text is not None}
    lines = [f"- {_named(stage, at)}: {text or culprit_line(None)}" for at, text in known.items()]
    if len(lines) <= SHOWN:
        return "\n".join(lines)
    lines = [
        f"- {_named(stage, at)}: {text}" for at, text in known.items() if text and text != culprit_line(None)
    ]
    return "\n".join([*lines, f"- in the others between them {culprit_line(None)}"])


def _values(stage: Stage, position: int) -> list[float]:
    """What a position gave: in the proof where there was one."""
    runs = [run for run in stage.runs if run.position == position]
    return [run.value for run in runs if run.proof] or [run.value for run in runs]


def _unit(values: Sequence[Sequence[float]], unit: str) -> str:
    everything = [value for each in values for value in each]
    return time_unit(everything) if unit == "s" and everything and min(everything) > 0 else unit


def _value(values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    centre: Interval = log_centre(values) if min(values) > 0 else hodges_lehmann(values)
    return with_interval(Interval(centre.centre, None, None, centre.n), UNITS.get(unit, 1.0))


def _candidates(stage: Stage, outcome: Outcome) -> str:
    """The credible set, likeliest first."""
    seen = _belief(outcome)
    assert seen is not None
    last = len(stage.positions) - 1
    first = last - len(seen.probabilities)
    chance = {first + 1 + i: p for i, p in enumerate(seen.probabilities)}
    rows = []
    for position in sorted(seen.credible, key=lambda p: -chance.get(p, 0.0))[:SHOWN]:
        entry = stage.positions[position]
        why = stage.untestable.get(position, "")
        cells = [_named(stage, position), day(entry["committed"]), str(entry["subject"])]
        rows.append([*cells, f"{chance.get(position, 0.0):.3f}", f"not tested: {why}" if why else ""])
    more = len(seen.credible) - len(rows)
    title = f"**Where the step may be**, together {stage.searches[-1]['confidence'] * 100:g} %"
    text = f"{title}\n\n{table(['commit', 'date', 'subject', 'P', 'remark'], rows)}"
    return text + (f"\n\nand {more} more" if more else "")


def _remarks(header: Line, stage: Stage) -> list[str]:
    notes = [str(text) for text in header.get("notes", ())] if stage.number == 0 else []
    kind = stage.searches[-1]["mode"] if stage.searches else "log"
    first = int(stage.searches[-1]["first"]) if stage.searches else 0
    last, plan = len(stage.positions) - 1, header["plan"]["bisect"]
    if stage.name == "releases":
        what = f"{last - first + 1} releases from {stage.label(first)} to {stage.label(last)}"
    else:
        what = f"{stage.commits} commits after {stage.label(0)}, of which {last} differ in what the "
        what += f"{header['plan']['backend']} backend builds"
        if plan.get("paths"):
            what += f" and touch {', '.join(plan['paths'])} (the others are taken as harmless)"
    measured = len({run.position for run in stage.runs})
    rounds = len({run.round for run in stage.runs})
    counts = f"{measured} builds measured in {rounds} rounds, {len(stage.built)} of them built for it"
    notes.append(f"searched: {what}; {counts}")
    found = stage.found()
    if found is not None:
        if found.steps:
            ends = found.first.ends
            notes.append(f"difference of the ends: {change(ends, kind)} over {ends.rounds} rounds")
            if len(found.steps) > 1:
                notes.append(f"the steps together explain {found.explained * 100:.0f} % of it")
        for part in found.remaining:
            between = f"{stage.label(part.first)}..{stage.label(part.last)}"
            said = sentence(stage, part.outcome) if part.outcome is not None else "not searched"
            if part.outcome is not None or found.explained < ENOUGH:
                notes.append(f"{between}: {said}")
    for position, why in sorted(stage.untestable.items()):
        notes.append(f"could not be tested: {_named(stage, position)}: {why}")
    for first, last in stage.same:
        notes.append(f"the builds of {stage.label(first)} and {stage.label(last)} hold the same files")
    if first_ones := stage.suspects:
        count = "1 candidate" if len(first_ones) == 1 else f"{len(first_ones)} candidates"
        notes.append(
            f"tried first: {count} at which dispatch or kernel text of the measured cells changes "
            "(P does not count it)"
        )
    if (suspects := plan.get("suspects")) and stage.name != "releases":
        notes.append(f"tried first: {', '.join(suspects)} (P does not count it)")
    return notes


def day(seconds: int) -> str:
    """A time in seconds since 1970 as a day, UTC; nothing for 0."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds)) if seconds else ""


# ---------------------------------------------------------------- what to do with it


def _compare_url(header: Line, stage: Stage, step: Step) -> str:
    """GitHub's own page of what changed, where the repository is on GitHub."""
    address = str(header.get("repository", "")).removesuffix(".git")
    if not address.startswith("https://github.com/"):
        return ""
    before, after = (stage.positions[position]["sha"] for position in (step.parent, step.position))
    return f"{address}/compare/{before[:12]}...{after[:12]}" if before and after else ""


def reproduce(header: Line, lines: Sequence[Line]) -> str:
    """The command that measures the largest step again, before against after; nothing without a step."""
    steps = []
    for stage in replay.stages(lines):
        found = stage.found()
        steps += [(stage, step) for step in (found.steps if found is not None else ())]
    if not steps:
        return ""
    stage, step = max(steps, key=lambda pair: (pair[0].number, pair[1].share))
    names = [stage.label(position) for position in (step.parent, step.position)]
    # Verdicts are of speed; how often each ends well is a table of repro.
    exits = any(line["kind"] == "metric" and line["of"] == "exit" for line in lines)
    return shlex.join(["bisect_tool", "repro" if exits else "compare", *names, *_options(header["command"])])


# Options of bisect that repro has too, with a value or without.
_KEPT = (
    *("--backend", "--python", "--env", "--repo", "--mirror", "--sandbox", "-D", "--define", "--builds"),
    *("--script", "--shape", "--bits", "--group-size", "--quant", "--dtype", "--timing", "--cache"),
    "--run-budget",
)
_FLAGS = ("--trust",)


def _options(command: Sequence[str]) -> list[str]:
    kept: list[str] = []
    end = list(command).index("--") if "--" in command else len(command)
    for at, word in enumerate(command[:end]):
        name = word.split("=")[0]
        if word in _FLAGS or (name in _KEPT and "=" in word and word.startswith("--")):
            kept.append(word)
        elif word in _KEPT:
            kept += command[at : at + 2]
        elif word == "--metric" and "--script" not in command:
            kept += ["--rows", Metric.of_case(command[at + 1]).rows()]
    if "--script" not in command and "--metric" not in command:
        kept += ["--rows", "1,3"]
    return [*kept, *command[end:]]


def as_json(header: Line, lines: Sequence[Line]) -> str:
    """The same content as data."""
    stages = []
    for stage in replay.stages(lines):
        found = stage.found()
        outcomes = _outcomes(found) if found is not None else []
        stages.append(
            {
                "stage": stage.name,
                "commits": stage.commits,
                "candidates": len(stage.positions) - 1,
                "outcomes": [
                    {
                        "outcome": type(outcome).__name__,
                        "says": sentence(stage, outcome),
                        "candidates": [stage.label(p) for p in replay.candidates(outcome)],
                        "ends": _difference(outcome.ends),
                    }
                    for outcome in outcomes
                ],
                "steps": [
                    {
                        "before": stage.positions[step.parent],
                        "after": stage.positions[step.position],
                        "probability": step.outcome.probability,
                        "change": _difference(step.change),
                        "share": [step.share, step.share_low, step.share_high],
                        "dispatch": _dispatch(stage, step),
                    }
                    for step in (found.steps if found else ())
                ],
                "untestable": {stage.label(p): why for p, why in stage.untestable.items()},
                "measured": len({run.position for run in stage.runs}),
                "rounds": len({run.round for run in stage.runs}),
                "built": len(stage.built),
                "seconds": round(stage.seconds, 1),
            }
        )
    content = {"schema": 1, "session": header, "stages": stages, "lines": list(lines)}
    return json.dumps(finite(content), indent=1)


def _difference(found: Difference) -> dict[str, Any]:
    return dict(vars(found))
