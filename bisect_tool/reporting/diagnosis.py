"""A diagnosis as markdown or JSON: verdict, laws with their errors, predicted against measured, limits."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

from bisect_tool.analysis.cost_models import (
    MARGIN,
    Answer,
    Diagnosis,
    Limits,
    implied,
    limits,
)
from bisect_tool.analysis.experiments import EXPERIMENTS
from bisect_tool.analysis.fitting import Fit
from bisect_tool.analysis.laws import Point
from bisect_tool.analysis.subjects import Subject
from bisect_tool.reporting.text import UNITS, mlx, table, time_unit

Pair = tuple[Subject, Diagnosis]
NOISY = 0.04  # relative, of the points: more of the same measurement would tell more
FOOT = (
    "Laws are fitted in relative error. `χ²+2k`: the criterion, above the best law's; a law is named when it "
    f"is adequate and every other is {MARGIN:g} or more behind. `adequate`: its residuals are such as the "
    "noise gives. `of bandwidth`, `of arithmetic`: what part of the time reading the weights once at the "
    "speed of a copy, and the arithmetic at the speed of the kernel's own slope, would take."
)


def markdown(pairs: Sequence[Pair], joint: Pair | None = None) -> str:
    """Verdicts first, then a block for each curve."""
    several = len({subject.arm for subject, _ in pairs}) > 1
    parts = [
        "\n".join(f"- {_where(s, several)}: {verdict(d)}" for s, d in [*pairs, *([joint] if joint else [])])
    ]
    for subject, diagnosis in pairs:
        parts += [_heading(subject), *_blocks(subject, diagnosis)]
    if joint is not None:
        parts += [_heading(joint[0]), *(_laws(joint[0], answer) for answer in joint[1].answers)]
    return "\n\n".join([*parts, FOOT])


def verdict(diagnosis: Diagnosis) -> str:
    """The verdict in one line, with the ridge's interval; of each segment where there are several."""
    if len(diagnosis.answers) == 1:
        return _answer(diagnosis.answers[0])
    each = []
    for answer in diagnosis.answers:
        assert answer.segment is not None
        said = "one point" if len(answer.points) == 1 else _answer(answer)
        each.append(f"{answer.segment.rows}: {said}")
    return f"{diagnosis.text} ({diagnosis.rms * 100:.1f} % rms in all). " + "; ".join(each)


def _answer(answer: Answer) -> str:
    best = answer.best
    if answer.name == "roofline" and best is not None and "shape" in best.intervals:
        low, high = best.intervals["shape"]
        return f"{answer.text} [{low:.1f}, {high:.1f}]"
    return answer.text


def _where(subject: Subject, several: bool) -> str:
    arm = f"{mlx(subject.arm)}, " if several and subject.arm else ""
    return f"{arm}**{subject.name}**"


def _heading(subject: Subject) -> str:
    arm = f"{mlx(subject.arm)}; " if subject.arm else ""
    about = f"{arm}{subject.how}"
    return f"**{subject.name}**" + (f" – {about}" if about else "")


def _blocks(subject: Subject, diagnosis: Diagnosis) -> list[str]:
    blocks = [_laws(subject, answer) for answer in diagnosis.answers if answer.fits]
    blocks.append(_predicted(subject, diagnosis))
    notes = [*subject.remarks]
    for answer in diagnosis.answers:
        of = f"{answer.segment.rows}: " if answer.segment is not None and len(diagnosis.answers) > 1 else ""
        notes.append(f"{of}{answer.why}")
        notes += [f"{of}{text}" for text in figures(subject, answer)]
        notes += [f"{of}{text}" for text in deciding(answer)]
    return [*blocks, "\n".join(f"- {note}" for note in notes)]


def figures(subject: Subject, answer: Answer) -> list[str]:
    """What the best law implies of the device."""
    best = answer.best
    if best is None:
        return []
    found = implied(best, subject.facts)
    said = []
    if found.bandwidth is not None and math.isfinite(found.bandwidth):
        copy = subject.facts.copy if subject.facts is not None else None
        of = f" ({_percent(found.bandwidth / copy)} of a copy's {copy / 1e9:.0f})" if copy else ""
        said.append(f"weights are read at {found.bandwidth / 1e9:.3g} GB/s{of} where it is flat")
    if found.arithmetic is not None:
        said.append(f"each further row runs at {_flops(found.arithmetic)}")
    if best.floor > 0 and not best.sides:
        shares = f"{found.floor_low * 100:.0f} % of the time at M={answer.points[0].M}, "
        said.append(f"floor: {shares}{found.floor_high * 100:.0f} % at M={answer.points[-1].M}")
    return ["; ".join(said)] if said else []


def _flops(rate: float) -> str:
    unit, scale = next((pair for pair in (("T", 1e12), ("G", 1e9), ("M", 1e6)) if rate >= pair[1]), ("", 1.0))
    return f"{rate / scale:.3g} {unit}FLOP/s"


def deciding(answer: Answer) -> list[str]:
    """What would decide an open question, as commands' words."""
    if answer.name == "flat":
        return ["would decide: larger M, until the time begins to grow"]
    said = []
    if answer.name == "inconclusive" and statistics.median(p.noise for p in answer.points) > NOISY:
        said.append("would decide: more rounds, on a machine with less noise")
    if answer.name == "floor-bound":
        said.append("would decide: `--timing chain`, which takes the floor off")
    said += [f"would decide: `--experiment {name}`: {EXPERIMENTS[name].question}" for name in answer.decide]
    return said


# --------------------------------------------------------------------------------------------- tables


def _scale(subject: Subject, points: Sequence[Point]) -> tuple[str, float]:
    if subject.unit != "s":
        return "time", 1.0
    unit = time_unit([p.time for p in points])
    return unit, UNITS[unit]


def _laws(subject: Subject, answer: Answer) -> str:
    unit, scale = _scale(subject, answer.points)
    best = answer.fits[0].aic
    rows = [
        [
            fit.law if fit.outlier is None else f"{fit.law}, without {_point(answer.points[fit.outlier])}",
            formula(fit, unit, scale),
            f"{fit.rms * 100:.1f} %",
            "yes" if fit.adequate else "no",
            f"{fit.aic - best:.1f}" if fit.aic > best else "0",
        ]
        for fit in answer.fits
    ]
    return table(["law", "fitted [95 %]", "error (rms)", "adequate", "χ²+2k"], rows)


def _point(point: Point) -> str:
    return f"M={point.M}" + (f" of {point.series}" if point.series else "")


def formula(fit: Fit, unit: str, scale: float) -> str:
    """``109 + 78.7·max(2.04 [1.78, 2.37], M) µs``."""
    if fit.sides:
        below, above = (formula(side, unit, scale) for side in fit.sides)
        return f"{below} below M = {fit.shape:.0f}, {above} from there"
    floor = f"{_number(fit.floor * scale)} + " if fit.floor > 0 else ""
    slope = _number(fit.slope * scale)
    shape = _number(fit.shape)
    if fit.law == "roofline" and "shape" in fit.intervals:
        shape += " [{}, {}]".format(*(_number(x) for x in fit.intervals["shape"]))
    rows = "M" if fit.tiles is None else "rows of a tile"
    tiles = "" if fit.tiles is None else "tiles·"
    body = {
        "constant": slope,
        "linear": f"{slope}·M",
        "roofline": f"{slope}·{tiles}max({shape}, {rows})",
        "staircase": f"{slope}·ceil(M/{fit.shape:.0f})",
    }[fit.law]
    return f"{floor}{body} {unit}" if unit != "time" else floor + body


def _number(x: float) -> str:
    return f"{x:.3g}"


def _predicted(subject: Subject, diagnosis: Diagnosis) -> str:
    points = [p for answer in diagnosis.answers for p in answer.points]
    unit, scale = _scale(subject, points)
    rows = []
    for answer in diagnosis.answers:
        best = answer.best
        near = _near(subject, answer)
        for i, (point, limit) in enumerate(zip(answer.points, near, strict=True)):
            fitted = best.predicted[i] if best is not None else None
            left = best is not None and best.outlier == i
            rows.append(
                [
                    str(point.M),
                    _four(point.time * scale),
                    "" if fitted is None else _four(fitted * scale),
                    ""
                    if fitted is None
                    else f"{(point.time / fitted - 1) * 100:+.1f} %" + " (left out)" * left,
                    _percent(limit.bandwidth),
                    _percent(limit.arithmetic),
                ]
            )
    head = ["M", f"measured {unit}", "best law", "off by", "of bandwidth", "of arithmetic"]
    keep = [i for i in range(len(head)) if i < 4 or any(row[i] for row in rows)]
    return table([head[i] for i in keep], [[row[i] for i in keep] for row in rows])


def _near(subject: Subject, answer: Answer) -> list[Limits]:
    best = answer.best
    floor = best.floor if best is not None and not subject.floor_removed and not best.sides else 0.0
    return limits(answer.points, best, subject.facts, floor)


def _percent(x: float | None) -> str:
    if x is None or not math.isfinite(x):
        return ""
    return f"{x * 100:.0f} %" if x >= 0.1 else f"{x * 100:.2g} %"


def _four(x: float) -> str:
    places = max(0, 3 - math.floor(math.log10(x))) if x > 0 else 3
    return f"{x:.{min(places, 6)}f}"


# ---------------------------------------------------------------------------------------------- as data


def as_json(pairs: Sequence[Pair], joint: Pair | None = None) -> str:
    """The same content as data."""
    return json.dumps(
        {
            "schema": 1,
            "curves": [curve_data(subject, diagnosis) for subject, diagnosis in pairs],
            "together": None if joint is None else curve_data(*joint),
        },
        indent=1,
    )


def curve_data(subject: Subject, diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "name": subject.name,
        "arm": subject.arm,
        "how": subject.how,
        "unit": subject.unit,
        "case": dict(subject.case),
        "verdict": diagnosis.name,
        "text": verdict(diagnosis),
        "rms": _finite(diagnosis.rms),
        "remarks": list(subject.remarks),
        "answers": [_answer_data(subject, answer) for answer in diagnosis.answers],
    }


def _answer_data(subject: Subject, answer: Answer) -> dict[str, Any]:
    near = _near(subject, answer)
    return {
        "verdict": answer.name,
        "text": answer.text,
        "why": answer.why,
        "decide": list(answer.decide),
        "segment": None
        if answer.segment is None
        else {"low": answer.segment.low, "high": answer.segment.high, "kernel": answer.segment.kernel},
        "noise": statistics.median(p.noise for p in answer.points),
        "points": [
            {"M": p.M, "time": p.time, "noise": p.noise, "series": p.series,
             "of_bandwidth": _finite(x.bandwidth), "of_arithmetic": _finite(x.arithmetic)}
            for p, x in zip(answer.points, near, strict=True)
        ],
        "laws": [_fit_data(fit, answer.points) for fit in answer.fits],
    }  # fmt: skip


def _fit_data(fit: Fit, points: Sequence[Point]) -> dict[str, Any]:
    return {
        "law": fit.law,
        "floor": fit.floor,
        "slope": fit.slope,
        "shape": _finite(fit.shape),
        "intervals": {name: list(found) for name, found in fit.intervals.items()},
        "parameters": fit.k,
        "rms": fit.rms,
        "criterion": fit.aic,
        "adequate": fit.adequate,
        "left_out": None if fit.outlier is None else points[fit.outlier].M,
        "predicted": list(fit.predicted),
        "sides": [side.law for side in fit.sides],
    }


def _finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None
