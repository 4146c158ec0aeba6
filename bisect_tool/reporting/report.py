"""A whole session as markdown, #3553's own lines, CSV or JSON: pure functions of the ledger."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bisect_tool.analysis import series, steps
from bisect_tool.analysis.rank import MIN_ROUNDS, Interval, hodges_lehmann, log_centre
from bisect_tool.reporting import environment, step_table
from bisect_tool.reporting.text import UNITS, mlx, table, time_unit, with_interval

Line = Mapping[str, Any]
FOOT = (
    "Centre and interval: Hodges–Lehmann with the exact signed-rank interval over rounds, 95 % for each cell "
    "on its own; a round is one fresh process; ratios are taken within a round. "
    "`error`: largest relative error against the dequantized weight in float32."
)
NOTHING = "Nothing was measured."
LABELS = {
    (5120, 5120): "attn q/o",
    (5120, 1024): "attn k/v",
    (5120, 13824): "MLP gate/up",
    (13824, 5120): "MLP down",
}


def markdown(header: Line, lines: Sequence[Line]) -> str:
    """Summary, tables, environment. Ready to paste."""
    parts: list[str] = []
    found = [block for block in series.blocks(lines) if block.times]
    shown = [block for block in found if not block.control]
    several = len({block.arm for block in found}) > 1
    if shown:
        parts.append("\n".join(f"- {_arm(block, several)}{step_table.summary(block)}" for block in shown))
    parts += [f"{step_table.title(block)}\n\n{step_table.step_table(block)}" for block in shown]
    metrics = series.metrics(lines)
    if metrics:
        parts.append(metric_table(metrics))
    verdicts = "" if header["plan"]["script"]["canonical"] else exit_table(lines)
    if verdicts and not shown and not metrics:
        parts.append(verdicts)
    if not parts:
        parts.append(NOTHING)
    missing = [
        f"{mlx(line['arm'])} is missing: {re.sub(r' [(]log: .*[)]$', '', line['reason'])}"
        for line in lines
        if line["kind"] in ("failed-arm", "dropped")
    ]
    controls = [step_table.control(block) for block in found if block.control]
    not_there = unsupported(lines)
    remarks = missing + controls + not_there + step_table.legend(shown)
    parts += ["\n".join(f"- {text}" for text in remarks)] if remarks else []
    if shown or metrics:
        parts.append(FOOT if shown else FOOT.split(" `error`")[0])
    parts.append(environment.block(header, lines))
    return "\n\n".join(parts)


def _arm(block: series.Block, several: bool) -> str:
    return f"{mlx(block.arm)}, " if several else ""


def unsupported(lines: Sequence[Line]) -> list[str]:
    """What a release cannot do, once each."""
    said = {}
    for run in series.counted(lines):
        for line in run.get("unsupported", ()):
            case = line["case"]
            reason = line["reason"].splitlines()[0]
            key = (run["arm"], case["quant"], case["bits"], case["dtype"], reason)
            said[key] = (
                f"not in {mlx(run['arm'])}: {case['quant']} {case['bits']}-bit {case['dtype']}: {reason}"
            )
    return list(said.values())


def metric_table(metrics: Sequence[series.Metric]) -> str:
    """One row for each arm and metric of a user's own script; seconds in the unit that suits them."""
    rows = []
    first: dict[str, series.Metric] = {}
    for metric in metrics:
        base = first.setdefault(metric.name, metric)
        centre = metric_centre(metric)
        positive = min(*metric.values.values(), *base.values.values()) > 0
        in_seconds = metric.unit == "s" and positive
        unit = time_unit([metric_centre(base).centre]) if in_seconds else metric.unit
        against = steps.ratio(metric.values, base.values) if metric is not base and positive else None
        scale = UNITS[unit] if in_seconds else 1.0
        cells = [with_interval(centre, scale), unit, with_interval(against)]
        rows.append([metric.name, mlx(metric.arm), *cells, str(centre.n)])
    return table(["metric", "arm", "value [95 %]", "unit", "/ first arm [95 %]", "rounds"], rows)


def metric_centre(metric: series.Metric) -> Interval:
    """On logarithms where all values are above 0, else on the values themselves."""
    values = list(metric.values.values())
    return log_centre(values) if all(v > 0 for v in values) else hodges_lehmann(values)


def exit_table(lines: Sequence[Line]) -> str:
    """For scripts that print no metric: how often each arm ended good or bad."""
    discarded = {line["round"] for line in lines if line["kind"] == "discard"}
    ran = [line for line in lines if line["kind"] == "run" and line["round"] not in discarded]
    silent = [run for run in ran if not run.get("cases") and not run.get("metrics")]
    rows = []
    for arm in series.arms(silent):
        runs = [run for run in silent if run["arm"] == arm]
        outcomes = [run["outcome"] for run in runs]
        codes = ", ".join(map(str, sorted({run["exit_code"] for run in runs})))
        counts = (str(outcomes.count(outcome)) for outcome in ("good", "bad", "skip", "failed"))
        rows.append([mlx(arm), *counts, codes])
    return table(["arm", "good", "bad", "cannot be tested", "failed", "exit codes"], rows) if rows else ""


def compat(lines: Sequence[Line]) -> str:
    """#3553's own lines: one a shape, in ms; each number the median over processes of its mean.

    Only times taken its way, one op an eval, are shown so.
    """
    blocks = [
        block for block in series.blocks(lines) if not block.control and block.case["timing"] == "percall"
    ]
    if not blocks:
        measured = bool(series.counted(lines))
        return "No time was taken in #3553's way; use --compat or --timing percall." if measured else NOTHING
    several = len({block.arm for block in blocks}) > 1
    kinds = {step_table.how(block.case) for block in blocks}
    out = []
    for block in blocks:
        ms = {M: statistics.median(by_round.values()) * 1e3 for M, by_round in sorted(block.times.items())}
        K, N = block.case["K"], block.case["N"]
        label = f" ({LABELS[K, N]})" if (K, N) in LABELS else ""
        name = f"{step_table.shape(block.case)}{label}"
        name += f" {step_table.how(block.case)}" if len(kinds) > 1 else ""
        name = f"{mlx(block.arm)}: {name}:" if several else f"{name}:"
        text = f"{name:<28}" + "".join(f" M={M}={t:.3f}ms " for M, t in ms.items())
        if 1 in ms and 3 in ms:
            text += f" (M3/M1={ms[3] / ms[1]:.2f}x)"
        out.append(text.rstrip())
    cells = [line for block in blocks for by_m in block.lines.values() for line in by_m]
    iterations = sorted({len(line["samples_s"]) for line in cells})
    warm = sorted({line["warm_up"]["ops"] for line in cells})
    rounds = len({run["round"] for run in series.counted(lines)})
    centre = " or ".join(sorted({line.get("centre", "mean") for line in cells}))
    out.append(
        f"# {centre} of {_span(iterations)} evals after {_span(warm)} warm-ups, one op an eval;"
        f" median of {rounds} processes"
    )
    return "\n".join(out)


def _span(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}"


def rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """One flat row for each number of each run, discarded ones and failures included: for CSV."""
    discarded = {line["round"]: line["reason"] for line in lines if line["kind"] == "discard"}
    found = []
    for run in (line for line in lines if line["kind"] == "run"):
        base = {
            "arm": run["arm"], "round": run["round"], "slot": run["slot"], "mlx": run["mlx"],
            "outcome": run["outcome"], "reason": run["reason"], "discarded": discarded.get(run["round"], ""),
        }  # fmt: skip
        numbers = [
            {
                **line["case"],
                "time_s": line["time_s"],
                "floor_s": line.get("floor_s"),
                "gbps": line.get("gbps"),
                "error": line.get("error", {}).get("relative"),
                "marks": " ".join(line.get("marks", ())),
            }
            for line in run["cases"]
        ] + [{"metric": m["metric"], "value": m["value"], "unit": m.get("unit", "")} for m in run["metrics"]]
        found += [{**base, **number} for number in numbers or [{}]]
    return found


def csv(lines: Sequence[Line]) -> str:
    import pandas

    # Objects: a column that some rows have not would turn its whole numbers into floats.
    return str(pandas.DataFrame(rows(lines), dtype=object).to_csv(index=False)).rstrip("\n")


def as_json(header: Line, lines: Sequence[Line]) -> str:
    """The same content as data: session, summaries, cells, metrics and every run."""
    cells = []
    for block in series.blocks(lines):
        table_rows = steps.rows(block.times)
        cells.append(
            {
                "arm": block.arm,
                "case": block.case,
                "summary": None if block.control else step_table.summary(block).replace("**", ""),
                "rows": [
                    {
                        "M": row.M,
                        "time_s": interval(row.time),
                        "step": interval(row.step),
                        "over_one": interval(row.over_one),
                        "notes": step_table.notes(block.lines[row.M]),
                    }
                    for row in table_rows
                ],
            }
        )
    metrics = [
        {"arm": m.arm, "metric": m.name, "unit": m.unit, "value": interval(metric_centre(m))}
        for m in series.metrics(lines)
    ]
    content = {"schema": 1, "session": header, "tables": cells, "metrics": metrics, "lines": list(lines)}
    return json.dumps(finite(content), indent=1)


def interval(found: Interval | None) -> dict[str, Any] | None:
    return (
        None
        if found is None
        else {"centre": found.centre, "low": found.low, "high": found.high, "n": found.n}
    )


def finite(value: Any) -> Any:
    """JSON has no NaN: null instead, so that every reader can read it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return value


def enough(lines: Sequence[Line]) -> bool:
    """Whether every arm that was measured has the rounds that an interval needs."""
    per_arm: dict[str, set[int]] = {}
    for run in series.counted(lines):
        per_arm.setdefault(run["arm"], set()).add(run["round"])
    return bool(per_arm) and min(len(rounds) for rounds in per_arm.values()) >= MIN_ROUNDS
