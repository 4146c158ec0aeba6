"""A whole model's step against what its quantized linears cost on their own: the bill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bisect_tool.analysis.rank import Interval, hodges_lehmann, log_centre
from bisect_tool.analysis.series import arms, counted
from bisect_tool.analysis.steps import ratio

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One M of one arm. Times in seconds: the whole step, one layer, the rest (None where the depth was
    measured whole), and the linears' sum. ``share``: bill over step, within each round."""

    M: int
    time: Interval
    over_one: Interval | None
    layer: Interval | None
    rest: Interval | None
    bill: Interval | None
    share: Interval | None
    added: Interval | None  # of what this M costs beyond M=1, the share that the bill explains


@dataclass(frozen=True)
class Item:
    """One shape of the bill: how often it stands in the whole model, and its time in seconds by M."""

    K: int
    N: int
    count: int
    times: dict[int, Interval]


@dataclass(frozen=True)
class Model:
    """An arm's table. ``times[M][round]`` is in seconds; ``depths`` are the numbers of layers timed."""

    arm: str
    case: dict[str, Any]  # without M
    depths: tuple[int, ...]
    steps: tuple[Step, ...]
    items: tuple[Item, ...]
    times: dict[int, dict[int, float]]

    @property
    def layers(self) -> int:
        return int(self.case["layers"])

    @property
    def scaled(self) -> bool:
        return self.depths != (self.layers,)


def models(lines: Sequence[Line]) -> list[Model]:
    """Every arm's whole-model table in a session; empty when it holds none."""
    runs = counted(lines)
    found = []
    for arm in arms(lines):
        own = [run for run in runs if run["arm"] == arm]
        steps = [(run["round"], c) for run in own for c in run["cases"] if c["case"]["op"] == "model_step"]
        if steps:
            bill = [(run["round"], c) for run in own for c in run["cases"] if "per_layer" in c]
            found.append(_model(arm, steps, bill))
    return found


def _model(arm: str, steps: list[tuple[int, Line]], bill: list[tuple[int, Line]]) -> Model:
    case = {name: value for name, value in steps[0][1]["case"].items() if name != "M"}
    layers = int(case["layers"])
    rows = sorted({line["case"]["M"] for _, line in steps})
    times = _by_rows(steps, "time_s")
    totals: dict[int, dict[int, float]] = {}
    shapes: dict[tuple[int, int], list[tuple[int, Line]]] = {}
    for number, line in bill:
        M = line["case"]["M"]
        count = line["per_layer"] * layers + line["in_head"]
        of_m = totals.setdefault(M, {})
        of_m[number] = of_m.get(number, 0.0) + count * line["time_s"]
        shapes.setdefault((line["case"]["K"], line["case"]["N"]), []).append((number, line))
    _drop_partial(totals, bill)
    parts = {name: _by_rows(steps, name) for name in ("layer_s", "rest_s")}
    made = []
    for M in rows:
        total = totals.get(M, {})
        made.append(
            Step(
                M,
                log_centre(list(times[M].values())),
                ratio(times[M], times[1]) if 1 in times and M != 1 else None,
                _plain(parts["layer_s"].get(M, {})),
                _plain(parts["rest_s"].get(M, {})),
                log_centre(list(total.values())) if total else None,
                ratio(total, times[M]) if total else None,
                _added(times, totals, M),
            )
        )
    items = []
    for (K, N), of_shape in shapes.items():
        first = of_shape[0][1]
        by_rows = {M: log_centre(list(v.values())) for M, v in sorted(_by_rows(of_shape, "time_s").items())}
        items.append(Item(K, N, first["per_layer"] * layers + first["in_head"], by_rows))
    items.sort(key=lambda item: -item.K * item.N * item.count)
    depths = tuple(sorted(int(depth) for depth in steps[0][1]["depths"]))
    return Model(arm, case, depths, tuple(made), tuple(items), times)


def _by_rows(lines: Sequence[tuple[int, Line]], name: str) -> dict[int, dict[int, float]]:
    found: dict[int, dict[int, float]] = {}
    for number, line in lines:
        if line.get(name) is not None:
            found.setdefault(line["case"]["M"], {})[number] = float(line[name])
    return found


def _drop_partial(totals: dict[int, dict[int, float]], bill: Sequence[tuple[int, Line]]) -> None:
    """A sum that lacks a shape in some round is no bill."""
    whole = len({(line["case"]["K"], line["case"]["N"]) for _, line in bill})
    seen: dict[tuple[int, int], int] = {}
    for number, line in bill:
        key = (line["case"]["M"], number)
        seen[key] = seen.get(key, 0) + 1
    for (M, number), count in seen.items():
        if count < whole:
            del totals[M][number]


def _plain(values: Mapping[int, float]) -> Interval | None:
    """Differences may come out below 0, so not on logarithms."""
    return hodges_lehmann(list(values.values())) if values else None


def _added(
    times: dict[int, dict[int, float]], totals: dict[int, dict[int, float]], M: int
) -> Interval | None:
    """(bill(M) − bill(1)) / (step(M) − step(1)), within each round; None where a step did not grow."""
    if M == 1 or 1 not in times or 1 not in totals:
        return None
    shared = [r for r in times[M] if r in times[1] and r in totals.get(M, {}) and r in totals[1]]
    grown = [(totals[M][r] - totals[1][r], times[M][r] - times[1][r]) for r in shared]
    if not grown or any(step <= 0 for _, step in grown):
        return None
    return hodges_lehmann([bill / step for bill, step in grown])
