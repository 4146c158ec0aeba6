"""The policy: what discards a run, what is only noted, and what is no complaint at all."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisect_tool.host import Complaint, GpuClient, HostState, Limits, complaints, must_discard
from bisect_tool.host.guard import load_during

START = HostState(
    taken_at_s=1000.0,
    cores=4,
    load_1min=0.5,
    power_source="ac",
    low_power_mode=False,
    thermal_pressure="nominal",
    cpu_governor="performance",
    cpu_throttle_ms=100,
    gpu_clients=(),
    gpu_clocks_mhz={"sm": 345},
    gpu_throttle_reasons=(),
    gpu_throttle_us={"sw_power_cap": 5_000, "sw_thermal_slowdown": 7_000, "hw_power_brake_slowdown": 0},
    gpu_temperature_c=34,
)
OLLAMA = GpuClient(11, "/usr/bin/ollama", 900)
XORG = GpuClient(12, "Xorg", None)


def judge(before: dict[str, Any], after: dict[str, Any], after_s: float = 60.0) -> list[tuple[str, str]]:
    """Code and severity of every complaint about a run of a minute."""
    first = dataclasses.replace(START, **before)
    last = dataclasses.replace(START, taken_at_s=START.taken_at_s + after_s, **after)
    return [(complaint.code, complaint.severity) for complaint in complaints(first, last)]


def both(**values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return values, values


def test_a_quiet_machine_has_no_complaints() -> None:
    assert judge({}, {}) == []


def test_a_machine_that_tells_nothing_has_no_complaints() -> None:
    assert complaints(HostState(0.0, 8), HostState(9.0, 8)) == []
    told = dataclasses.replace(START, taken_at_s=9.0)
    assert complaints(HostState(0.0, 4), told) == []
    assert complaints(told, HostState(18.0, 4)) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # the same all along: a note
        (*both(power_source="battery"), [("battery", "note")]),
        (*both(low_power_mode=True), [("low-power", "note")]),
        (*both(gpu_clients=(OLLAMA, XORG)), [("gpu-clients", "note")]),
        (*both(gpu_temperature_c=91), []),
        # changed in between: the run must not count
        ({"power_source": "ac"}, {"power_source": "battery"}, [("power-changed", "discard")]),
        ({"power_source": "battery"}, {"power_source": "ac"}, [("power-changed", "discard")]),
        ({"low_power_mode": False}, {"low_power_mode": True}, [("power-changed", "discard")]),
        ({"low_power_mode": True}, {"low_power_mode": False}, [("power-changed", "discard")]),
        ({}, {"cpu_governor": "powersave"}, [("power-changed", "discard")]),
        ({}, {"gpu_clients": (OLLAMA,)}, [("gpu-clients", "discard")]),
        ({"gpu_clients": (OLLAMA,)}, {}, [("gpu-clients", "discard")]),
        ({"gpu_clients": (OLLAMA,)}, {"gpu_clients": (XORG,)}, [("gpu-clients", "discard")]),
        # the same process with more memory did not come or go
        (
            {"gpu_clients": (OLLAMA,)},
            {"gpu_clients": (dataclasses.replace(OLLAMA, memory_mb=901),)},
            [("gpu-clients", "note")],
        ),
        # thermal pressure, at either end or all along
        ({}, {"thermal_pressure": "moderate"}, [("thermal", "discard")]),
        ({"thermal_pressure": "heavy"}, {}, [("thermal", "discard")]),
        (*both(thermal_pressure="moderate"), [("thermal", "discard")]),
        # a Linux processor: 600 ms of 60 s is the limit of 1 %
        ({}, {"cpu_throttle_ms": 700}, []),
        ({}, {"cpu_throttle_ms": 750}, [("thermal", "discard")]),
        ({"cpu_throttle_ms": 10_000}, {"cpu_throttle_ms": 3}, []),  # rebooted, or another core counted
        # what one side does not tell is no change
        ({"power_source": None}, {"power_source": "ac"}, []),
        ({"gpu_clients": None}, {"gpu_clients": (OLLAMA,)}, []),
    ],
)
def test_policy(before: dict[str, Any], after: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert judge(before, after) == expected


def counted(cap: int = 5_000, heat: int = 7_000, brake: int = 0) -> dict[str, Any]:
    counters = {"sw_power_cap": cap, "sw_thermal_slowdown": heat, "hw_power_brake_slowdown": brake}
    return {"gpu_throttle_us": counters}


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (counted(heat=7_000 + 900_000), [("gpu-throttle", "discard")]),  # 1.5 % of a minute
        (counted(brake=900_000), [("gpu-throttle", "discard")]),
        (counted(heat=7_000 + 300_000), []),  # 0.5 %
        (counted(cap=30_000_000), [("gpu-throttle", "note")]),
        (counted(cap=30_000_000, brake=900_000), [("gpu-throttle", "discard"), ("gpu-throttle", "note")]),
        # the reasons of the moment do not matter where there are counters
        (counted() | {"gpu_throttle_reasons": ("sw_thermal_slowdown",)}, []),
    ],
)
def test_throttling_by_the_counters(after: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert judge({}, after) == expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("hw_thermal_slowdown", [("gpu-throttle", "discard")]),
        ("hw_power_brake_slowdown", [("gpu-throttle", "discard")]),
        ("hw_slowdown", [("gpu-throttle", "discard")]),
        ("sw_power_cap", [("gpu-throttle", "note")]),
        ("gpu_idle", []),
    ],
)
def test_throttling_without_counters(reason: str, expected: list[tuple[str, str]]) -> None:
    none = {"gpu_throttle_us": None}
    assert judge(none, none | {"gpu_throttle_reasons": (reason,)}) == expected


def test_counters_that_went_back_are_not_trusted() -> None:
    """A driver loaded again counts from zero: then the reasons of the moment decide."""
    after = counted(cap=0, heat=0)
    assert judge({}, after) == []
    assert judge({}, after | {"gpu_throttle_reasons": ("sw_thermal_slowdown",)}) == [
        ("gpu-throttle", "discard")
    ]


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (1.0, []),  # our own process
        (5.0, []),  # one of ours, and others at 1.0 per core
        (5.2, [("load", "note")]),
        (9.0, [("load", "note")]),
        (9.2, [("load", "discard")]),
    ],
)
def test_load_of_others_per_core(load: float, expected: list[tuple[str, str]]) -> None:
    steady = {"load_1min": load}
    assert judge(steady, steady) == expected


def test_a_multithreaded_run_of_ours_is_no_complaint() -> None:
    assert judge(*both(load_1min=4.0)) == []


def test_a_build_that_ended_before_the_run_is_no_complaint() -> None:
    """The average still reads 3 per core after a minute; nothing but our own process ran in it."""
    decayed = 30.0 * math.exp(-1) + 1.0 * (1 - math.exp(-1))
    assert decayed > 11
    assert judge({"load_1min": 30.0}, {"load_1min": decayed}) == []


def test_a_burst_that_the_average_hides_is_seen() -> None:
    risen = 0.5 * math.exp(-0.5) + 12.0 * (1 - math.exp(-0.5))
    assert risen / 4 < 2
    assert judge({"load_1min": 0.5}, {"load_1min": risen}, after_s=30) == [("load", "discard")]


def test_short_runs_are_judged_by_the_average_itself() -> None:
    assert judge({"load_1min": 0.5}, {"load_1min": 1.2}, after_s=5) == []
    assert judge({"load_1min": 9.0}, {"load_1min": 9.3}, after_s=5) == [("load", "discard")]


@given(
    st.floats(0, 100),
    st.lists(st.floats(0, 50), min_size=4, max_size=200),
)
def test_load_during_undoes_the_average(start: float, samples: list[float]) -> None:
    """Against the kernel's rule, every 5 s: a constant count comes back, others stay within their range."""
    decay = math.exp(-5 / 60)
    steady = varied = start
    for count in samples:
        steady = steady * decay + samples[0] * (1 - decay)
        varied = varied * decay + count * (1 - decay)
    first = HostState(0.0, 1, start)
    seconds = 5.0 * len(samples)
    assert load_during(first, HostState(seconds, 1, steady), 20) == pytest.approx(samples[0], abs=1e-6)
    mean = load_during(first, HostState(seconds, 1, varied), 20)
    assert mean is not None
    assert min(samples) - 1e-6 <= mean <= max(samples) + 1e-6


def test_limits_are_the_callers() -> None:
    hot = dataclasses.replace(START, load_1min=9.2)
    later = dataclasses.replace(hot, taken_at_s=hot.taken_at_s + 60)
    assert must_discard(complaints(hot, later))
    assert not must_discard(complaints(hot, later, Limits(load_discard=5.0)))
    assert complaints(hot, later, Limits(load_note=9.0, load_discard=9.0)) == []


def test_every_complaint_is_one_line_that_names_what_it_saw() -> None:
    first = dataclasses.replace(START, gpu_clients=(XORG,), thermal_pressure="moderate")
    last = dataclasses.replace(
        START,
        taken_at_s=1060.0,
        load_1min=20.0,
        power_source="battery",
        gpu_clients=(OLLAMA,),
        thermal_pressure="heavy",
        cpu_governor="powersave",
        **counted(heat=60_000_000),
    )
    found = complaints(first, last)
    text = {complaint.text for complaint in found}
    assert text == {
        f"load of other processes {((20 - 0.5 / math.e) / (1 - 1 / math.e) - 1) / 4:.1f} per core",
        "power source changed from ac to battery",
        "processor governor changed from performance to powersave",
        "thermal pressure moderate, then heavy",
        "other users of the GPU: ollama (11, 900 MiB) came, Xorg (12) left",
        "GPU slowed by sw_thermal_slowdown",
    }
    assert all("\n" not in complaint.text for complaint in found)
    assert found[0] == Complaint("load", found[0].text, "discard")
