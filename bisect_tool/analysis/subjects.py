"""What `diagnose` looks at: one curve of time against M, from a session's rounds or from someone's table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bisect_tool.analysis import cost_models, given, segments, series
from bisect_tool.analysis.cost_models import ASSUMED_NOISE, LEAST_NOISE, Diagnosis, Facts
from bisect_tool.analysis.experiments import weight_bytes
from bisect_tool.analysis.laws import Point, Segment
from bisect_tool.analysis.rank import log_centre

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """One curve. ``name`` is short (``5120 → 13824``), ``how`` says what was measured and in which way.

    ``unit``: ``s`` or ``ratio``. ``floor_removed``: the times are slopes. ``floor``: an empty call, in
    seconds. ``remarks``: what a reader must know of the points before believing the answer.
    """

    name: str
    how: str
    points: tuple[Point, ...]
    unit: str
    arm: str = ""
    facts: Facts | None = None
    segments: tuple[Segment, ...] = ()
    floor_removed: bool = False
    floor: float | None = None
    remarks: tuple[str, ...] = ()
    case: Mapping[str, Any] = field(default_factory=dict)
    backend: str = ""

    def diagnosis(self) -> Diagnosis:
        return cost_models.diagnose(
            self.points,
            self.segments,
            floor_removed=self.floor_removed,
            floor=self.floor,
            facts=self.facts,
            backend=self.backend,
        )


def from_table(one: given.Series, *, copy: float | None = None, quant: str = "affine") -> Subject:
    """A series that someone published. ``copy``: bytes a second that a copy reaches on their device."""
    facts = None
    if one.K and one.N and one.unit == "s":
        size = weight_bytes(one.bits, one.group_size, quant) if one.bits and one.group_size else None
        facts = Facts(2.0 * one.K * one.N, one.K * one.N * size if size else math.nan, copy if size else None)
    words = [
        f"{one.bits}-bit" if one.bits else "",
        one.timing,
        "" if one.unit == "s" else "times up to a scale",
        f"noise assumed, {ASSUMED_NOISE:.0%}" if one.assumed_noise else "",
    ]
    how = ", ".join(word for word in words if word)
    return Subject(
        one.label, how, one.points, one.unit, facts=facts, segments=one.segments,
        floor_removed=one.timing in ("chain", "throughput"),
    )  # fmt: skip


def from_session(lines: Sequence[Line], backend: str = "") -> list[Subject]:
    """Every curve of a session, controls left out. Times are in seconds; noise comes from the rounds."""
    copies: dict[str, list[float]] = {}
    for run in series.counted(lines):
        for sentinel in run.get("sentinels", {}).values():
            if sentinel.get("gbps"):
                copies.setdefault(run["arm"], []).append(float(sentinel["gbps"]) * 1e9)
    found = []
    for block in series.blocks(lines):
        if block.control or block.case.get("op") != "quantized_matmul":
            continue
        rates = copies.get(block.arm)
        found.append(_of_block(block, statistics.median(rates) if rates else None, backend))
    return found


def _of_block(block: series.Block, copy: float | None, backend: str) -> Subject:
    case, points, remarks = block.case, [], []
    as_m1: dict[int, bool] = {}
    hosts: list[int] = []
    for M in sorted(block.times):
        cells = block.lines[M]
        said = [
            line["error"]["row_bits_as_m1"] for line in cells if "row_bits_as_m1" in line.get("error", {})
        ]
        if said:
            as_m1[M] = sum(said) * 2 > len(said)
        if sum("launch-bound" in line.get("marks", ()) for line in cells) * 2 > len(cells):
            hosts.append(M)
            continue
        values = list(block.times[M].values())
        points.append(Point(M, log_centre(values).centre, noise(values)))
    if hosts:
        rows = ", ".join(map(str, hosts))
        remarks.append(f"M = {rows} left out: launch-bound, so the host was timed")
    if min((len(by_round) for by_round in block.times.values()), default=0) < 2:
        remarks.append(f"one round: its noise is not known, {ASSUMED_NOISE:.0%} is assumed")
    percall = case["timing"] == "percall"
    floors = [line["floor_s"] for by_m in block.lines.values() for line in by_m if line.get("floor_s")]
    size = weight_bytes(case["bits"], case["group_size"], case["quant"])
    weights = case["K"] * case["N"] * case.get("B", 1)
    known = segments.from_bits({M: bits for M, bits in as_m1.items() if M not in hosts})
    if known:
        remarks.append("segments: row 0 has other bits than M=1 gives, so another kernel ran")
    batch = f" ×{case['B']}" if case.get("B", 1) != 1 else ""
    return Subject(
        name=f"{case['K']} → {case['N']}{batch}",
        how=f"{case['quant']} {case['bits']}-bit, group {case['group_size']}, {case['dtype']}; "
        f"{case['timing']}, {case['cache']}",
        points=tuple(points),
        unit="s",
        arm=block.arm,
        facts=Facts(2.0 * weights, weights * size, copy),
        segments=tuple(known),
        floor_removed=not percall,
        floor=statistics.median(floors) if percall and floors else None,
        remarks=tuple(remarks),
        case=case,
        backend=backend,
    )


def noise(values: Sequence[float]) -> float:
    """Relative standard error of the centre of these rounds: from its exact interval, from their spread where
    they are too few for one, assumed for a single round; at least what the way of timing is off by."""
    if len(values) < 2:
        return ASSUMED_NOISE
    found = log_centre(values)
    if found.known:
        return max(LEAST_NOISE, found.half_width / 1.96)
    return max(LEAST_NOISE, statistics.stdev([math.log(v) for v in values]) / math.sqrt(len(values)))


def together(subjects: Sequence[Subject]) -> Subject | None:
    """All shapes of one arm and way of measuring as one curve of shared floor, bandwidth and arithmetic rate;
    None where they are fewer than two, have no shape, or ran several kernels."""
    if len(subjects) < 2 or any(s.facts is None or s.segments or s.unit != "s" for s in subjects):
        return None
    if len({(s.arm, s.how) for s in subjects}) > 1 or len({s.name for s in subjects}) < len(subjects):
        return None
    first = subjects[0].facts
    assert first is not None
    points: list[Point] = []
    for s in subjects:
        assert s.facts is not None
        work = s.facts.flop / first.flop
        ratio = s.facts.weight_bytes / first.weight_bytes
        size = work if math.isnan(ratio) else ratio
        points += [replace(p, work=work, bytes=size, series=s.name) for p in s.points]
    return replace(
        subjects[0], name="all shapes together", points=tuple(points), remarks=(), case={}, floor=None
    )
