"""NVIDIA GPUs, through ``nvidia-smi``.

One GPU is looked at: the first of CUDA_VISIBLE_DEVICES, else number 0. (CUDA may number GPUs of different
kinds in another order than nvidia-smi; ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` makes them agree.)
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bisect_tool.host.system import Machine, Tool

# Reasons for a lower clock that tell of heat or of a failing supply, and the one that tells of a full budget.
HEAT_REASONS = (
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
)
CAP_REASON = "sw_power_cap"
COUNTED = (CAP_REASON, *HEAT_REASONS)
REASONS = (*COUNTED, "hw_slowdown")

BASE_FIELDS = ("clocks.current.sm", "clocks.current.memory", "temperature.gpu")
EVENT_FIELDS = tuple(f"clocks_event_reasons.{reason}" for reason in REASONS)
COUNTER_FIELDS = tuple(f"clocks_event_reasons_counters.{reason}" for reason in COUNTED)
OLD_EVENT_FIELDS = tuple(f"clocks_throttle_reasons.{reason}" for reason in REASONS)
# One unknown field fails the whole query: newest drivers first, then without counters, then the old names.
FIELD_SETS = (
    BASE_FIELDS + EVENT_FIELDS + COUNTER_FIELDS,
    BASE_FIELDS + EVENT_FIELDS,
    BASE_FIELDS + OLD_EVENT_FIELDS,
)
FORMAT = "--format=csv,noheader,nounits"


@dataclass(frozen=True)
class GpuFacts:
    name: str
    driver: str
    memory_bytes: int | None
    cuda: str | None = None  # the newest CUDA that the driver serves


@dataclass(frozen=True)
class GpuClient:
    """A process that holds a context on the GPU. ``memory_mb`` is in MiB, None when not told."""

    pid: int
    name: str
    memory_mb: int | None


@dataclass(frozen=True)
class GpuState:
    """``clocks_mhz``: ``sm`` and ``memory``. ``throttle_us``: microseconds since boot per reason."""

    clocks_mhz: Mapping[str, int]
    temperature_c: int | None
    reasons: tuple[str, ...]
    throttle_us: Mapping[str, int] | None


def selected(environ: Mapping[str, str]) -> str | None:
    """What to hand to ``nvidia-smi -i``; None when every GPU is hidden."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return "0"
    first = visible.split(",")[0].strip()
    if re.fullmatch(r"\d+|GPU-[0-9A-Fa-f-]+", first):
        return first
    return "0" if first.startswith("MIG-") else None


def _number(text: str) -> int | None:
    """A whole number; None for ``[N/A]``, ``[Not Supported]``, ``[Unknown Error]`` and their like."""
    found = re.fullmatch(r"\s*(\d+)(?:\.\d+)?\s*\w*\s*", text)
    return int(found.group(1)) if found else None


def parse_facts(text: str) -> GpuFacts | None:
    """``--query-gpu=name,driver_version,memory.total``."""
    lines = text.strip().splitlines()
    parts = [part.strip() for part in lines[0].rsplit(",", 2)] if lines else []
    if len(parts) != 3 or not re.match(r"\d+\.", parts[1]):
        return None
    mib = _number(parts[2])
    return GpuFacts(parts[0], parts[1], mib * 1024 * 1024 if mib is not None else None)


def parse_cuda_version(text: str) -> str | None:
    """From ``nvidia-smi --version`` or the banner; newer drivers call it the UMD's version."""
    found = re.search(r"CUDA(?: UMD)? Version\s*:\s*(\d+\.\d+)", text)
    return found.group(1) if found else None


def parse_state(text: str, fields: Sequence[str]) -> GpuState | None:
    """The answer to a query of those fields, in their order."""
    lines = text.strip().splitlines()
    values = [value.strip() for value in lines[0].split(",")] if lines else []
    if len(values) != len(fields):
        return None
    row = dict(zip(fields, values, strict=True))
    clocks = {"sm": _number(row["clocks.current.sm"]), "memory": _number(row["clocks.current.memory"])}
    counters = {
        field.rsplit(".", 1)[1]: _number(value)
        for field, value in row.items()
        if field.startswith("clocks_event_reasons_counters.")
    }
    told = {reason: count for reason, count in counters.items() if count is not None}
    return GpuState(
        clocks_mhz={name: mhz for name, mhz in clocks.items() if mhz is not None},
        temperature_c=_number(row["temperature.gpu"]),
        reasons=tuple(field.rsplit(".", 1)[1] for field, value in row.items() if value == "Active"),
        throttle_us=told or None,
    )


def parse_clients(text: str, ours: frozenset[int] = frozenset()) -> tuple[GpuClient, ...]:
    """``--query-compute-apps=pid,process_name,used_memory``; a name may hold commas."""
    clients: dict[int, GpuClient] = {}
    for line in text.splitlines():
        found = re.fullmatch(r"\s*(\d+)\s*,(.*),([^,]*)", line)
        if found is None or int(found.group(1)) in ours:
            continue
        pid = int(found.group(1))
        clients[pid] = GpuClient(pid, found.group(2).strip(), _number(found.group(3)))
    return tuple(clients[pid] for pid in sorted(clients))


class Nvidia:
    """Asks ``nvidia-smi``; every answer is None where it is missing or fails."""

    def __init__(self, machine: Machine, environ: Mapping[str, str] = os.environ) -> None:
        self.machine = machine
        self.environ = environ
        self._known_set: int | None = None  # which of FIELD_SETS this driver understands

    def _smi(self, *args: str) -> str | None:
        """Standard output of ``nvidia-smi -i GPU args``, None also when no GPU is to be seen."""
        gpu, smi = selected(self.environ), self.machine.find("nvidia-smi")
        return self.machine.text(smi, "-i", gpu, *args) if smi is not None and gpu is not None else None

    def facts(self) -> GpuFacts | None:
        found = parse_facts(self._smi("--query-gpu=name,driver_version,memory.total", FORMAT) or "")
        smi = self.machine.find("nvidia-smi")
        if found is None or smi is None:
            return None
        cuda = parse_cuda_version(self.machine.text(smi, "--version") or "")
        cuda = cuda or parse_cuda_version(self.machine.text(smi) or "")
        return GpuFacts(found.name, found.driver, found.memory_bytes, cuda)

    def state(self) -> GpuState | None:
        sets = range(len(FIELD_SETS)) if self._known_set is None else (self._known_set,)
        for number in sets:
            answer = self._smi(f"--query-gpu={','.join(FIELD_SETS[number])}", FORMAT)
            if answer is None:
                continue
            state = parse_state(answer, FIELD_SETS[number])
            if state is not None:
                self._known_set = number
                return state
        return None

    def clients(self, ours: frozenset[int] = frozenset()) -> tuple[GpuClient, ...] | None:
        answer = self._smi("--query-compute-apps=pid,process_name,used_memory", FORMAT)
        return parse_clients(answer, ours) if answer is not None else None

    def now(self, ours: frozenset[int]) -> tuple[GpuState | None, tuple[GpuClient, ...] | None]:
        """State and clients, asked at the same time: each call takes a tenth of a second or more."""
        if self.machine.find("nvidia-smi") is None:
            return None, None
        with ThreadPoolExecutor(1) as pool:
            clients = pool.submit(self.clients, ours)
            return self.state(), clients.result()


def nvcc(machine: Machine, cuda: str | None) -> Tool:
    """The CUDA compiler. ``cuda``: the newest version that the driver serves, for the remedy."""
    path = machine.find("nvcc")
    text = machine.text(path, "--version") if path is not None else None
    found = re.search(r"release \S+ V(\S+)", text or "")
    if found:
        return Tool("nvcc", found.group(1))
    package = f"cuda-toolkit-{cuda.replace('.', '-')}" if cuda else "cuda-toolkit"
    remedy = f"{machine.install(package)} (from NVIDIA's repository), then put /usr/local/cuda/bin on PATH"
    return Tool("nvcc", None, "not found" if path is None else f"{path} does not tell its version", remedy)
