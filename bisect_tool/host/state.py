"""What may change from run to run: read before and after each, compared by ``guard``."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bisect_tool.host.nvidia import GpuClient, Nvidia
from bisect_tool.host.system import Machine, PowerSource, ThermalPressure, current


@dataclass(frozen=True)
class HostState:
    """One reading. None everywhere: this machine does not tell, which is no complaint."""

    taken_at_s: float  # seconds since the epoch
    cores: int
    load_1min: float | None = None  # of the whole machine, not per core
    power_source: PowerSource | None = None
    low_power_mode: bool | None = None
    thermal_pressure: ThermalPressure | None = None  # macOS
    cpu_governor: str | None = None  # Linux
    cpu_throttle_ms: int | None = None  # Linux on Intel: since boot
    gpu_clients: tuple[GpuClient, ...] | None = None  # other processes; None on macOS
    gpu_clocks_mhz: Mapping[str, int] | None = None  # NVIDIA: sm, memory
    gpu_throttle_reasons: tuple[str, ...] | None = None  # NVIDIA: at this moment
    gpu_throttle_us: Mapping[str, int] | None = None  # NVIDIA: since boot, per reason
    gpu_temperature_c: int | None = None

    @property
    def load_per_core(self) -> float | None:
        return None if self.load_1min is None else self.load_1min / self.cores

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HostState:
        """The inverse of ``as_dict``; unknown keys are left out. ``TypeError`` when one is missing."""
        names = {item.name for item in dataclasses.fields(cls)}
        known = {key: value for key, value in data.items() if key in names}
        if known.get("gpu_clients") is not None:
            known["gpu_clients"] = tuple(GpuClient(**client) for client in known["gpu_clients"])
        if known.get("gpu_throttle_reasons") is not None:
            known["gpu_throttle_reasons"] = tuple(known["gpu_throttle_reasons"])
        return cls(**known)


@functools.lru_cache(maxsize=1)
def _nvidia() -> Nvidia:
    """Kept, so that it learns once which fields this driver understands."""
    return Nvidia(current())


def state(
    ours: frozenset[int] = frozenset(), machine: Machine | None = None, nvidia: Nvidia | None = None
) -> HostState:
    """Read this machine's state now. ``ours``: ids of our own processes, left out of the GPU's clients.

    Cheap: files on Linux, two short commands on macOS, and two calls of nvidia-smi side by side with a GPU.
    """
    here = machine or current()
    smi = nvidia or (_nvidia() if machine is None else Nvidia(machine))
    gpu, clients = smi.now(ours)
    power = here.power()
    return HostState(
        taken_at_s=time.time(),
        cores=os.cpu_count() or 1,
        load_1min=_load(),
        power_source=power.source,
        low_power_mode=power.low_power,
        thermal_pressure=here.thermal_pressure(),
        cpu_governor=here.cpu_governor(),
        cpu_throttle_ms=here.cpu_throttle_ms(),
        gpu_clients=clients,
        gpu_clocks_mhz=dict(gpu.clocks_mhz) if gpu else None,
        gpu_throttle_reasons=gpu.reasons if gpu else None,
        gpu_throttle_us=dict(gpu.throttle_us) if gpu and gpu.throttle_us else None,
        gpu_temperature_c=gpu.temperature_c if gpu else None,
    )


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
