"""Whether a run may count, from the machine's state before and after it. Pure.

The policy, and why. What *changed during* a run has hit one arm and not the other: the run is discarded, and
with it its round. What is the *same all along* hits every arm alike and is cancelled by the pairing: a note
under the table. Two things are discarded although they stay: thermal pressure above nominal, because the
governor lowers clocks step by step while it lasts, and load from others above twice the cores, because then
our process waits for a core more often than it has one. Neither can stop a session for ever: the caller caps
the discards, and a machine that is always hot or busy ends as "host too noisy", which is true.

Load. The kernel's one-minute average forgets slowly: after a build it stays high for minutes, and a short
burst hardly shows. Both readings together tell the mean number of runnable processes in between
(``load_during``). One of them is ours (``Limits.own_load``). An MLX run on the CPU may use all cores by
itself and then reads 1.0 per core: that is why notes begin above 1.0, not below.

GPU throttling. After a run the GPU idles, and the reasons of that moment say nothing about the run: where the
driver counts microseconds per reason since boot, the difference decides; only without counters do the reasons
of the moment. Idle clocks are no throttling: "not yet boosted" is for the warm-up to mend. The power cap is a
note: a big GPU under full load runs at its cap by design, in every arm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from bisect_tool.host.nvidia import CAP_REASON, HEAT_REASONS, GpuClient
from bisect_tool.host.state import HostState

Severity = Literal["discard", "note"]
Code = Literal["load", "battery", "low-power", "thermal", "gpu-clients", "gpu-throttle", "power-changed"]
LOAD_DECAY_S = 60.0  # the one-minute average is an exponential one
HEAT_NOW = (*HEAT_REASONS, "hw_slowdown")  # the last is the sum of the hardware's own reasons


@dataclass(frozen=True)
class Limits:
    """Loads are per core and of others. Shares are of the time between the two readings."""

    own_load: float = 1.0  # runnable processes that are ours
    load_note: float = 1.0
    load_discard: float = 2.0
    throttle_share: float = 0.01
    # Load averages move every 5 s: over less than this, solving for the load in between amplifies noise.
    load_window_s: float = 20.0


@dataclass(frozen=True)
class Complaint:
    """``discard``: the run must not count. ``note``: it counts, and the line goes under the table."""

    code: Code
    text: str
    severity: Severity


def complaints(before: HostState, after: HostState, limits: Limits | None = None) -> list[Complaint]:
    """What was wrong with the machine during a run; empty when nothing was that it tells of."""
    bounds = limits or Limits()
    rules: tuple[Callable[[HostState, HostState, Limits], Iterable[Complaint]], ...] = (
        _load,
        _power,
        _low_power,
        _governor,
        _thermal,
        _cpu_throttle,
        _clients,
        _gpu_throttle,
    )
    return [complaint for rule in rules for complaint in rule(before, after, bounds)]


def must_discard(found: Iterable[Complaint]) -> bool:
    """Whether one of them says that the run must not count."""
    return any(complaint.severity == "discard" for complaint in found)


def load_during(before: HostState, after: HostState, window_s: float) -> float | None:
    """Mean number of runnable processes between two readings of the one-minute average.

    ``after = before·d + mean·(1 - d)`` with ``d = exp(-t/60)``, solved for the mean; the later reading as
    it stands when the two lie less than ``window_s`` apart. None when the load is not told.
    """
    if after.load_1min is None:
        return None
    elapsed = after.taken_at_s - before.taken_at_s
    if before.load_1min is None or elapsed < window_s:
        return after.load_1min
    decay = math.exp(-elapsed / LOAD_DECAY_S)
    return max(0.0, (after.load_1min - before.load_1min * decay) / (1 - decay))


def _load(before: HostState, after: HostState, limits: Limits) -> Iterable[Complaint]:
    total = load_during(before, after, limits.load_window_s)
    if total is None:
        return
    others = max(0.0, total - limits.own_load) / after.cores
    if others > limits.load_note:
        severity: Severity = "discard" if others > limits.load_discard else "note"
        yield Complaint("load", f"load of other processes {others:.1f} per core", severity)


def _power(before: HostState, after: HostState, _limits: Limits) -> Iterable[Complaint]:
    if _differ(before.power_source, after.power_source):
        text = f"power source changed from {before.power_source} to {after.power_source}"
        yield Complaint("power-changed", text, "discard")
    elif after.power_source == "battery":
        yield Complaint("battery", "on battery power", "note")


def _low_power(before: HostState, after: HostState, _limits: Limits) -> Iterable[Complaint]:
    if _differ(before.low_power_mode, after.low_power_mode):
        text = f"low-power mode was switched {'on' if after.low_power_mode else 'off'}"
        yield Complaint("power-changed", text, "discard")
    elif after.low_power_mode:
        yield Complaint("low-power", "low-power mode is on", "note")


def _governor(before: HostState, after: HostState, _limits: Limits) -> Iterable[Complaint]:
    if _differ(before.cpu_governor, after.cpu_governor):
        text = f"processor governor changed from {before.cpu_governor} to {after.cpu_governor}"
        yield Complaint("power-changed", text, "discard")


def _thermal(before: HostState, after: HostState, _limits: Limits) -> Iterable[Complaint]:
    if {before.thermal_pressure, after.thermal_pressure} - {None, "nominal"}:
        levels = dict.fromkeys((before.thermal_pressure or "unknown", after.thermal_pressure or "unknown"))
        yield Complaint("thermal", f"thermal pressure {', then '.join(levels)}", "discard")


def _cpu_throttle(before: HostState, after: HostState, limits: Limits) -> Iterable[Complaint]:
    if before.cpu_throttle_ms is None or after.cpu_throttle_ms is None:
        return
    share = _share((after.cpu_throttle_ms - before.cpu_throttle_ms) / 1e3, before, after)
    if share > limits.throttle_share:
        yield Complaint("thermal", f"processor slowed by heat for {share:.0%} of the time", "discard")


def _clients(before: HostState, after: HostState, _limits: Limits) -> Iterable[Complaint]:
    if before.gpu_clients is None or after.gpu_clients is None:
        return
    old, new = set(before.gpu_clients), set(after.gpu_clients)
    old_pids, new_pids = {client.pid for client in old}, {client.pid for client in new}
    changed = [("came", c) for c in new if c.pid not in old_pids]
    changed += [("left", c) for c in old if c.pid not in new_pids]
    if changed:
        told = ", ".join(f"{_named(c)} {verb}" for verb, c in sorted(changed, key=lambda item: item[1].pid))
        yield Complaint("gpu-clients", f"other users of the GPU: {told}", "discard")
    elif new:
        told = ", ".join(_named(client) for client in sorted(new, key=lambda client: client.pid))
        yield Complaint("gpu-clients", f"other users of the GPU all along: {told}", "note")


def _named(client: GpuClient) -> str:
    memory = "" if client.memory_mb is None else f", {client.memory_mb} MiB"
    return f"{client.name.rsplit('/', 1)[-1]} ({client.pid}{memory})"


def _gpu_throttle(before: HostState, after: HostState, limits: Limits) -> Iterable[Complaint]:
    shares = _throttle_shares(before, after)
    heat = sorted(name for name in HEAT_NOW if shares.get(name, 0.0) > limits.throttle_share)
    if heat:
        yield Complaint("gpu-throttle", f"GPU slowed by {', '.join(heat)}", "discard")
    if shares.get(CAP_REASON, 0.0) > limits.throttle_share:
        yield Complaint("gpu-throttle", "GPU held at its power limit", "note")


def _throttle_shares(before: HostState, after: HostState) -> dict[str, float]:
    """Share of the time per reason, by the counters; without them 1 for each reason of the moment."""
    first, last = before.gpu_throttle_us, after.gpu_throttle_us
    if first is None or last is None or any(last.get(name, 0) < count for name, count in first.items()):
        return dict.fromkeys((*(before.gpu_throttle_reasons or ()), *(after.gpu_throttle_reasons or ())), 1.0)
    return {name: _share((last[name] - count) / 1e6, before, after) for name, count in first.items()}


def _share(slowed_s: float, before: HostState, after: HostState) -> float:
    """Part of the time between two readings; everything when no time has passed."""
    if slowed_s <= 0:
        return 0.0
    elapsed = after.taken_at_s - before.taken_at_s
    return min(1.0, slowed_s / elapsed) if elapsed > 0 else 1.0


def _differ(first: object, second: object) -> bool:
    """Both are told and they are not the same."""
    return first is not None and second is not None and first != second
