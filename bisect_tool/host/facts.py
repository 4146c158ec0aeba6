"""What a machine is: what stands beside every measurement and does not change between runs."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bisect_tool.host.nvidia import GpuFacts, Nvidia
from bisect_tool.host.system import Machine, current
from bisect_tool.host.toolchain import tools


@dataclass(frozen=True)
class HostFacts:
    """The machine. None: the system does not tell. ``cuda`` is the newest version the driver serves."""

    chip: str
    cores: int
    os: str
    python: str
    gpu: str | None = None
    gpu_driver: str | None = None
    gpu_memory_bytes: int | None = None
    cuda: str | None = None
    memory_bytes: int | None = None
    model: str | None = None
    toolchain: dict[str, str] = field(default_factory=dict)  # name -> version, of what is there

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HostFacts:
        """The inverse of ``as_dict``; unknown keys are left out. ``TypeError`` when one is missing."""
        names = {item.name for item in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in names})


def facts(machine: Machine | None = None) -> HostFacts:
    """Facts about this machine. Starts compilers and the like to ask for versions: up to a few seconds."""
    here = machine or current()
    gpu: GpuFacts | None = Nvidia(here).facts()
    return HostFacts(
        chip=here.chip() or "unknown",
        cores=os.cpu_count() or 1,
        os=here.os_name(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        gpu=gpu.name if gpu else here.gpu(),
        gpu_driver=gpu.driver if gpu else None,
        gpu_memory_bytes=gpu.memory_bytes if gpu else None,
        cuda=gpu.cuda if gpu else None,
        memory_bytes=here.memory_bytes(),
        model=here.model(),
        toolchain={tool.name: tool.version for tool in tools(here, gpu) if tool.version is not None},
    )
