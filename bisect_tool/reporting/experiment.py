"""The outcome of an experiment as markdown or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bisect_tool.analysis.experiments import EXPERIMENTS
from bisect_tool.analysis.outcomes import Outcome
from bisect_tool.reporting.diagnosis import FOOT, Pair, curve_data, formula, verdict
from bisect_tool.reporting.text import UNITS, table, time_unit


def markdown(
    name: str, base: str, outcome: Outcome, labelled: Sequence[tuple[str, Pair]], chosen: str = ""
) -> str:
    """What came out, each setting's own verdict, times against M by setting, hypotheses about all of them."""
    parts = [
        f"- **experiment {name}**: {outcome.text}\n- it asks: {EXPERIMENTS[name].question}"
        + (f"\n- {chosen}" if chosen else "")
        + "".join(f"\n- {text}" for text in dict.fromkeys(r for _, (s, _) in labelled for r in s.remarks)),
        "\n".join(f"- {label}: {verdict(diagnosis)}" for label, (_, diagnosis) in labelled),
        _times(base, outcome, labelled),
        _laws(labelled),
    ]
    if outcome.supports:
        best = outcome.supports[0].aic
        rows = [
            [
                one.name,
                "" if one.shape != one.shape else f"{one.shape:.3g}",
                "yes" if one.adequate else "no",
                f"{one.aic - best:.1f}" if one.aic > best else "0",
            ]
            for one in outcome.supports
        ]
        parts.append(table(["of all settings together", f"rows at {base}", "adequate", "χ²+2k"], rows))
    return "\n\n".join([*parts, FOOT])


def _times(base: str, outcome: Outcome, labelled: Sequence[tuple[str, Pair]]) -> str:
    by_label = {label: {p.M: p.time for p in subject.points} for label, (subject, _) in labelled}
    unit = time_unit([t for times in by_label.values() for t in times.values()])
    others = [label for label in by_label if label != base]
    rows = []
    for M, ratios in outcome.ratios.items():
        cells = [f"{by_label[label][M] * UNITS[unit]:.4g} ({ratios[label]:.3f})" for label in others]
        rows.append([f"{M:g}", f"{by_label[base][M] * UNITS[unit]:.4g}", *cells])
    return table(["M", f"{base}, {unit}", *(f"{label} (/ {base})" for label in others)], rows)


def _laws(labelled: Sequence[tuple[str, Pair]]) -> str:
    """The best law of each setting, so that ridges can be compared."""
    rows = []
    for label, (subject, diagnosis) in labelled:
        unit = time_unit([p.time for p in subject.points])
        for answer in diagnosis.answers:
            if answer.best is not None:
                where = answer.segment.rows if answer.segment is not None else "all M"
                fitted = formula(answer.best, unit, UNITS[unit])
                rows.append([label, where, answer.best.law, fitted, f"{answer.best.rms * 100:.1f} %"])
    return table(["setting", "rows", "best law", "fitted [95 %]", "error (rms)"], rows)


def as_json(name: str, base: str, outcome: Outcome, pairs: Sequence[Pair], chosen: str = "") -> str:
    """The same content as data."""
    return json.dumps(
        {
            "schema": 1,
            "experiment": name,
            "chosen": chosen or None,
            "base": base,
            "supports": outcome.law or None,
            "text": outcome.text,
            "ratios": {f"{M:g}": ratios for M, ratios in outcome.ratios.items()},
            "hypotheses": [
                {"name": one.name, "rows": one.shape if one.shape == one.shape else None, "parameters": one.k,
                 "criterion": one.aic, "adequate": one.adequate}
                for one in outcome.supports
            ],
            "curves": [curve_data(subject, diagnosis) for subject, diagnosis in pairs],
        },
        indent=1,
    )  # fmt: skip
