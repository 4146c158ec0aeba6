"""Was the machine steady during a run? Judged by the sentinel kernels timed before and after it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

DRIFT = 0.03  # more than this discards the round (docs/method.md)
SENTINELS = {"arithmetic_s": "arithmetic", "bandwidth_s": "bandwidth"}

Readings = Mapping[str, Mapping[str, Any]]  # {"before": {...}, "after": {...}}, seconds an op


def unsteady(readings: Readings, history: Sequence[Readings], limit: float = DRIFT) -> str:
    """Why this run must not count, in one clause; empty when it may.

    Within the run: after against before. Across the session: this run's mean against the median of the
    runs of the same arm so far (``history``, at least three).
    """
    if "before" not in readings or "after" not in readings:
        return ""
    for key, name in SENTINELS.items():
        change = readings["after"][key] / readings["before"][key] - 1
        if change > limit:
            return f"throttled: the {name} sentinel slowed by {change * 100:.1f} % during the run"
        if change < -limit:
            return f"not yet boosted: the {name} sentinel sped up by {-change * 100:.1f} % during the run"
    if len(history) >= 3:
        for key, name in SENTINELS.items():
            usual = statistics.median(_mean(past, key) for past in history)
            off = _mean(readings, key) / usual - 1
            if abs(off) > limit:
                return f"another speed: the {name} sentinel is {off * 100:+.1f} % off this session's median"
    return ""


def _mean(readings: Readings, key: str) -> float:
    return float(readings["before"][key] + readings["after"][key]) / 2
