"""Time against M with the laws drawn through it: a picture file, a chart that GitHub draws, one in text."""

from __future__ import annotations

import io
from collections.abc import Sequence

from bisect_tool.analysis.cost_models import Answer, Diagnosis
from bisect_tool.analysis.fitting import Fit
from bisect_tool.analysis.laws import Point
from bisect_tool.analysis.subjects import Subject
from bisect_tool.reporting.text import UNITS, time_unit

Pair = tuple[Subject, Diagnosis]
# Okabe & Ito's palette, told apart by most colour-blind readers.
COLOURS = {
    "linear": "#56B4E9",
    "roofline": "#D55E00",
    "staircase": "#009E73",
    "switch": "#CC79A7",
    "constant": "#999999",
}
LINES = {"linear": "--", "roofline": "-", "staircase": "-.", "switch": ":", "constant": ":"}
STEPS = 40  # points a row of M, so that stairs look like stairs


def _unit(subject: Subject) -> tuple[str, float]:
    if subject.unit != "s":
        return "time (relative)", 1.0
    unit = time_unit([p.time for p in subject.points])
    return unit, UNITS[unit]


def _drawn(answer: Answer) -> list[Fit]:
    """The best law, and the next that is another."""
    best = answer.best
    if best is None:
        return []
    other = next((fit for fit in answer.fits[1:] if fit.law not in (best.law, "constant")), None)
    return [best] if other is None else [best, other]


def _trace(fit: Fit, low: float, high: float) -> tuple[list[float], list[float]]:
    """A law between two M. Rows are whole numbers; in between the laws say what their formula says."""
    xs: list[float] = []
    ys: list[float] = []
    if fit.law in ("staircase", "switch") or fit.tiles is not None:
        # Levels at whole rows, half a row to either side.
        for M in range(int(low), int(high) + 1):
            y = fit.at([Point(M, 1.0)])[0]
            xs += [M - 0.5, M + 0.5]
            ys += [y, y]
        return xs, ys
    xs = [low + step / STEPS for step in range(int((high - low) * STEPS) + 1)]
    return xs, fit.at([Point(x, 1.0) for x in xs])


def picture(pairs: Sequence[Pair], form: str) -> bytes:
    """One panel for each curve, as ``png`` or ``svg``."""
    import math

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    across = min(2, len(pairs))
    down = math.ceil(len(pairs) / across)
    with matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "bisect_tool"}):
        figure, grid = pyplot.subplots(down, across, figsize=(6.4 * across, 4.8 * down), squeeze=False)
        try:
            for axes, pair in zip(grid.flat, pairs, strict=False):
                _panel(axes, *pair)
            for axes in list(grid.flat)[len(pairs) :]:
                axes.set_visible(False)
            figure.tight_layout()
            out = io.BytesIO()
            figure.savefig(out, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
        finally:
            pyplot.close(figure)
    return out.getvalue()


def _panel(axes: object, subject: Subject, diagnosis: Diagnosis) -> None:
    from typing import Any, cast

    from matplotlib.ticker import MaxNLocator

    ax = cast(Any, axes)
    unit, scale = _unit(subject)
    seen: set[str] = set()
    for answer in diagnosis.answers:
        rows = [p.M for p in answer.points]
        for place, fit in enumerate(_drawn(answer)):
            xs, ys = _trace(fit, min(rows), max(rows))
            label = f"{fit.law}, {fit.rms * 100:.1f} % rms"
            if fit.outlier is not None:
                label += f", M={answer.points[fit.outlier].M:g} left out"
            ax.plot(
                xs, [y * scale for y in ys], LINES[fit.law], color=COLOURS[fit.law],
                linewidth=2.0 if place == 0 else 1.1, alpha=1.0 if place == 0 else 0.8,
                label=label if label not in seen else None, zorder=2,
            )  # fmt: skip
            seen.add(label)
        if answer.segment is not None and answer is not diagnosis.answers[0]:
            ax.axvline(answer.segment.low - 0.5, color="#444444", linewidth=0.8, linestyle=(0, (1, 2)))
            kernel = answer.segment.kernel or "another kernel"
            ax.annotate(
                kernel, (answer.segment.low - 0.5, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -4),
                textcoords="offset points", va="top", fontsize=8, color="#444444",
            )  # fmt: skip
    _limits(ax, subject, diagnosis, scale)
    points = [p for answer in diagnosis.answers for p in answer.points]
    ax.errorbar(
        [p.M for p in points],
        [p.time * scale for p in points],
        yerr=[1.96 * p.noise * p.time * scale for p in points],
        fmt="o", color="black", markersize=4, capsize=2.5, linewidth=1, label="measured, 95 %", zorder=3,
    )  # fmt: skip
    top = max(p.time * (1 + 1.96 * p.noise) for p in points) * scale
    ax.set_ylim(0, top * 1.12)
    ax.set_xlim(min(p.M for p in points) - 0.6, max(p.M for p in points) + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("rows M")
    ax.set_ylabel(unit)
    arm = f"mlx {subject.arm}, " if subject.arm else ""
    ax.set_title(f"{arm}{subject.name}\n{_short(diagnosis.text)}", fontsize=9, loc="left")
    ax.grid(True, color="#e6e6e6", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    # Below the axes: inside it would lie on points wherever a curve goes.
    ax.legend(
        fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.13), borderaxespad=0
    )


def _short(text: str) -> str:
    return text if len(text) <= 88 else text[:87] + "…"


def _limits(ax: object, subject: Subject, diagnosis: Diagnosis, scale: float) -> None:
    """The limits as lines: reading the weights once at the speed of a copy, and the kernel's own slope."""
    from typing import Any, cast

    axes = cast(Any, ax)
    facts = subject.facts
    top = max(p.time for p in subject.points)
    # One that lies on the axis would hide it.
    if facts is not None and facts.copy and facts.weight_bytes / facts.copy > 0.01 * top:
        axes.axhline(
            facts.weight_bytes / facts.copy * scale, color="#0072B2", linewidth=0.9, linestyle=(0, (4, 3)),
            label=f"bandwidth limit (copy, {facts.copy / 1e9:.0f} GB/s)", zorder=1,
        )  # fmt: skip
    best = diagnosis.answers[0].best
    if best is not None and best.law == "roofline" and best.tiles is None:
        rows = [diagnosis.answers[0].points[0].M, diagnosis.answers[0].points[-1].M]
        axes.plot(
            [0, rows[1]], [0, best.slope * rows[1] * scale], color="#E69F00", linewidth=0.9,
            linestyle=(0, (4, 3)), label="arithmetic limit (the kernel's slope, no floor)", zorder=1,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------- text


def mermaid(subject: Subject, diagnosis: Diagnosis) -> str:
    """A fenced chart that GitHub draws: measured as bars, the best law as a line."""
    unit, scale = _unit(subject)
    points, fitted = _both(diagnosis)
    top = max([p.time for p in points] + fitted) * scale * 1.1
    title = f"{subject.name}: {diagnosis.text}".replace('"', "'")
    rows = ", ".join(f'"{p.M}"' for p in points)
    lines = [
        "```mermaid",
        "xychart-beta",
        f'  title "{title}"',
        f'  x-axis "rows M" [{rows}]',
        f'  y-axis "{unit}" 0 --> {top:.4g}',
        f"  bar [{', '.join(f'{p.time * scale:.4g}' for p in points)}]",
    ]
    if fitted:
        lines.append(f"  line [{', '.join(f'{t * scale:.4g}' for t in fitted)}]")
    return "\n".join([*lines, "```"])


def _both(diagnosis: Diagnosis) -> tuple[list[Point], list[float]]:
    """All points, and the best laws at them; a point that has no law stands for itself."""
    points: list[Point] = []
    fitted: list[float] = []
    for answer in diagnosis.answers:
        points += answer.points
        fitted += [p.time for p in answer.points] if answer.best is None else answer.best.predicted
    return points, fitted


def terminal(subject: Subject, diagnosis: Diagnosis, width: int = 64, height: int = 14) -> str:
    """A chart in text: ``●`` measured, ``·`` the best law, ``◉`` both in one place."""
    unit, scale = _unit(subject)
    points, _ = _both(diagnosis)
    low, high = min(p.M for p in points), max(p.M for p in points)
    top = max(p.time for p in points) * 1.05
    canvas = [[" "] * width for _ in range(height)]

    def cell(M: float, time: float) -> tuple[int, int] | None:
        x = round((M - low) / max(high - low, 1) * (width - 1))
        y = height - 1 - round(time / top * (height - 1))
        return (y, x) if 0 <= y < height and 0 <= x < width else None

    for answer in diagnosis.answers:
        if answer.best is not None:
            for M, time in zip(*_trace(answer.best, answer.points[0].M, answer.points[-1].M), strict=True):
                if place := cell(M, time):
                    canvas[place[0]][place[1]] = "·"
    for point in points:
        if place := cell(point.M, point.time):
            under = canvas[place[0]][place[1]]
            canvas[place[0]][place[1]] = "◉" if under == "·" else "●"
    lines = [f"{subject.name}, {unit} against rows M  (● measured, · {diagnosis.name}, ◉ both)"]
    for y, row in enumerate(canvas):
        value = (height - 1 - y) / (height - 1) * top * scale
        label = f"{value:8.4g}" if y % 3 == (height - 1) % 3 else " " * 8
        lines.append(f"{label} │{''.join(row)}".rstrip())
    axis = [" "] * (width + 4)
    free = 0
    for M in sorted({p.M for p in points}):
        x = round((M - low) / max(high - low, 1) * (width - 1))
        text = f"{M:g}"
        if x >= free:
            axis[x : x + len(text)] = text
            free = x + len(text) + 1
    return "\n".join([*lines, " " * 9 + "└" + "─" * width, " " * 10 + "".join(axis).rstrip()])
