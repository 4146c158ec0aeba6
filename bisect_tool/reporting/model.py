"""The whole-model table of #3553, and the bill of its quantized linears."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bisect_tool.analysis.cost_models import Diagnosis, diagnose
from bisect_tool.analysis.laws import Point
from bisect_tool.analysis.model_bill import Model, models
from bisect_tool.analysis.rank import Interval
from bisect_tool.analysis.subjects import Subject, noise
from bisect_tool.reporting import environment
from bisect_tool.reporting.diagnosis import verdict
from bisect_tool.reporting.text import UNITS, mlx, table, time_unit, with_interval

Line = Mapping[str, Any]
FOOT = (
    "Centre and interval: Hodges–Lehmann with the exact signed-rank interval over rounds, 95 % for each "
    "cell; a round is one fresh process. One step is one eval. `bill`: each linear timed on its own, in a "
    "chain, times how often it stands in the model. `share`: bill over step within a round. `of the growth`: "
    "of what M rows cost beyond one, the part that the bill explains."
)


def subject(model: Model) -> Subject:
    """The step against M as a curve to be explained; one eval a step, so a launch is in every time."""
    points = tuple(
        Point(step.M, step.time.centre, noise(list(model.times[step.M].values()))) for step in model.steps
    )
    return Subject("whole model", how(model), points, "s", arm=model.arm, case=model.case)


def explain(model: Model) -> Diagnosis | None:
    """The laws fitted to the step; None for fewer than four M."""
    found = subject(model).points
    return diagnose(found) if len(found) >= 4 else None


def how(model: Model) -> str:
    case = model.case
    name = case.get("model") or f"random weights, hidden {case['K']}, intermediate {case['N']}"
    depth = f"{model.layers} layers"
    if model.scaled:
        depth += " scaled from " + " and ".join(map(str, model.depths))
    cache = case["cache"].replace("prefill", "after a prefill of")
    weights = f"{case['quant']} {case['bits']}-bit, group {case['group_size']}, {case['dtype']}"
    return f"{name}; {depth}; {weights}; {cache}"


def markdown(header: Line, lines: Sequence[Line]) -> str:
    """Verdict, the two tables of each arm, environment."""
    found = models(lines)
    parts: list[str] = []
    several = len(found) > 1
    summaries = []
    for model in found:
        arm = f"{mlx(model.arm)}, " if several else ""
        diagnosis = explain(model)
        if diagnosis is not None:
            summaries.append(f"- {arm}**whole model**: {verdict(diagnosis)}")
        summaries += [f"- {arm}{text}" for text in explained(model)]
    if summaries:
        parts.append("\n".join(summaries))
    for model in found:
        parts += [f"**one forward of M tokens** – {mlx(model.arm)}; {how(model)}", steps_table(model)]
        if model.items:
            parts += [f"**the bill of its linears** – {mlx(model.arm)}", bill_table(model)]
    if not found:
        reasons = {
            u["reason"] for line in lines if line["kind"] == "run" for u in line.get("unsupported", ())
        }
        parts.append("Nothing was measured." + "".join(f" {reason}." for reason in sorted(reasons)))
    else:
        parts.append(FOOT)
    return "\n\n".join([*parts, environment.block(header, lines)])


def explained(model: Model) -> list[str]:
    """One sentence: how much of the step, and of its growth, the linears explain."""
    known = [step for step in model.steps if step.share is not None]
    if not known:
        return []
    shares = [step.share.centre for step in known if step.share is not None]
    text = f"the linears alone are {_span(shares)} of the step"
    added = [step.added.centre for step in known if step.added is not None]
    if added:
        text += f", and {_span(added)} of what further rows add"
    return [text]


def _span(shares: Sequence[float]) -> str:
    low, high = (f"{x * 100:.0f}" for x in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low}–{high} %"


def steps_table(model: Model) -> str:
    unit = time_unit([step.time.centre for step in model.steps])
    scale = UNITS[unit]
    head = ["M", f"{unit} [95 %]", "M / M=1", f"layer {unit}", f"rest {unit}", f"bill {unit}", "share [95 %]",
            "of the growth"]  # fmt: skip
    rows = [
        [
            str(step.M),
            with_interval(step.time, scale),
            "" if step.over_one is None else f"{step.over_one.centre:.3f}",
            _plain(step.layer, scale),
            _plain(step.rest, scale),
            _plain(step.bill, scale),
            _percent(step.share),
            "" if step.added is None else f"{step.added.centre * 100:.0f} %",
        ]
        for step in model.steps
    ]
    keep = [i for i in range(len(head)) if i < 3 or any(row[i] for row in rows)]
    return table([head[i] for i in keep], [[row[i] for i in keep] for row in rows])


def _plain(found: Interval | None, scale: float) -> str:
    return "" if found is None else f"{found.centre * scale:.4g}"


def _percent(found: Interval | None) -> str:
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.centre * 100:.1f} %"
    return f"{found.centre * 100:.1f} % [{found.low * 100:.1f}, {found.high * 100:.1f}]"


def bill_table(model: Model) -> str:
    rows = sorted({M for item in model.items for M in item.times})
    unit = time_unit([t.centre for item in model.items for t in item.times.values()])
    body = []
    for item in model.items:
        cells = [f"{item.times[M].centre * UNITS[unit]:.4g}" if M in item.times else "" for M in rows]
        body.append([f"{item.K} → {item.N}", str(item.count), *cells])
    return table(["linear", "times", *(f"{unit} at M={M}" for M in rows)], body)


def as_json(header: Line, lines: Sequence[Line]) -> str:
    """The same content as data."""
    return json.dumps(
        {
            "schema": 1,
            "session": dict(header),
            "models": [_data(model) for model in models(lines)],
        },
        indent=1,
    )


def _data(model: Model) -> dict[str, Any]:
    diagnosis = explain(model)
    return {
        "arm": model.arm,
        "case": model.case,
        "depths": list(model.depths),
        "scaled": model.scaled,
        "verdict": None if diagnosis is None else {"name": diagnosis.name, "text": diagnosis.text},
        "steps": [
            {
                "M": step.M,
                **{
                    name: _interval(getattr(step, name))
                    for name in ("time", "over_one", "layer", "rest", "bill", "share", "added")
                },
            }
            for step in model.steps
        ],
        "bill": [
            {"K": item.K, "N": item.N, "count": item.count,
             "times": {str(M): _interval(found) for M, found in item.times.items()}}
            for item in model.items
        ],
    }  # fmt: skip


def _interval(found: Interval | None) -> dict[str, Any] | None:
    return (
        None
        if found is None
        else {"centre": found.centre, "low": found.low, "high": found.high, "n": found.n}
    )
