"""Whether this machine can do the work, one finding a line, each with the command that mends it.

Levels: ``problem`` when not even a release can be measured, ``advice`` when builds are impossible or numbers
will be poor, ``ok`` otherwise. Nothing on the machine is changed, and no file is left behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bisect_tool.host.guard import Limits, complaints
from bisect_tool.host.nvidia import GpuFacts, Nvidia
from bisect_tool.host.state import HostState, state
from bisect_tool.host.system import Machine, Tool, current
from bisect_tool.host.toolchain import tools

Level = Literal["ok", "advice", "problem"]

GB = 10**9
DISK_PROBLEM_BYTES = 2 * GB  # one environment with a CUDA wheel
DISK_ADVICE_BYTES = 20 * GB  # sources, a compile cache and some tens of builds

# What is lost without it. Released versions can be measured with none of these.
LOST_WITHOUT = {
    "git": "commits and pull requests need it",
    "ccache": "builds are 10x slower without",
    "compiler": "builds need it",
    "Xcode": "Metal builds need it",
    "Metal toolchain": "Metal builds need it",
    "BLAS": "CPU builds need it",
    "nvcc": "CUDA builds need it",
    "sandbox": "builds run with all your rights without",
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``remedy`` can be pasted or done at once; empty when all is well."""

    name: str
    level: Level
    found: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dataclasses.asdict(self)


def examine(
    builds: Path, backend: str | None = None, machine: Machine | None = None, config: Path | None = None
) -> list[Finding]:
    """Look at everything. ``builds`` need not exist. ``backend``: ``cpu``, ``metal``, ``cuda12``…, None: any.
    ``config``: the configuration file that was read.

    Takes up to a few seconds, most of it for asking programs for their versions.
    """
    here = machine or current()
    nvidia = Nvidia(here)
    gpu = nvidia.facts() if backend is None or backend.startswith("cuda") else None
    return [
        _uv(here),
        *([Finding("configuration", "ok", str(config))] if config is not None else []),
        _writable(builds),
        _disk(builds),
        *_stored(builds),
        *_backend(here, gpu, backend),
        *(_tool(tool) for tool in tools(here, gpu) if _wanted(tool, backend)),
        _tool(here.sandbox()),
        *_conditions(state(machine=here, nvidia=nvidia), here),
    ]


def counts(findings: list[Finding]) -> dict[Level, int]:
    """How many of each level."""
    levels: tuple[Level, ...] = ("ok", "advice", "problem")
    return {level: sum(finding.level == level for finding in findings) for level in levels}


def _wanted(tool: Tool, backend: str | None) -> bool:
    return tool.name != "Metal toolchain" or backend in (None, "metal")


def _tool(tool: Tool) -> Finding:
    if tool.version is not None:
        return Finding(tool.name, "ok", tool.version)
    return Finding(tool.name, "advice", f"{tool.why}; {LOST_WITHOUT[tool.name]}", tool.remedy)


def _uv(machine: Machine) -> Finding:
    """The binary of the uv wheel: that one makes the environments, not whatever is on PATH."""
    remedy = f"{shlex.quote(sys.executable)} -m pip install --force-reinstall 'uv>=0.8,<1'"
    try:
        import uv

        path = uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        return Finding("uv", "problem", "not found; environments are made with it", remedy)
    version = machine.text(path, "--version")
    if version is None:
        return Finding("uv", "problem", f"{path} does not start", remedy)
    return Finding("uv", "ok", version.strip().removeprefix("uv "))


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    for place in (path.absolute(), *path.absolute().parents):
        with contextlib.suppress(OSError):  # an unreadable parent
            place.stat()
            return place
    return Path("/")


def _may_write(folder: Path) -> bool:
    """Asked of the system, not tried: nothing is to be left behind."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _writable(builds: Path) -> Finding:
    place = _existing(builds)
    elsewhere = "export BISECT_TOOL_BUILDS=/some/other/folder"
    if not place.is_dir():
        return Finding("builds folder", "problem", f"{place} is not a folder", elsewhere)
    if not _may_write(place):
        return Finding("builds folder", "problem", f"{place} cannot be written to", elsewhere)
    return Finding("builds folder", "ok", f"{builds}" if place == builds.absolute() else f"{builds} (new)")


def _disk(builds: Path) -> Finding:
    place = _existing(builds)
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        why = f"cannot tell for {place}: {error.strerror}"
        return Finding("disk", "problem", why, "export BISECT_TOOL_BUILDS=/some/other/folder")
    found = f"{free / GB:.1f} GB free for builds"
    remedy = "make room, or export BISECT_TOOL_BUILDS=/a/folder/on/a/larger/disk"
    if free < DISK_PROBLEM_BYTES:
        return Finding("disk", "problem", f"{found}, one environment needs up to 2 GB", remedy)
    if free < DISK_ADVICE_BYTES:
        return Finding("disk", "advice", f"{found}, a search over builds may need 20 GB", remedy)
    return Finding("disk", "ok", found)


def _stored(builds: Path) -> list[Finding]:
    """What is there already: clones of MLX, builds."""
    found = []
    clones = sorted(path.name.removesuffix(".git") for path in builds.glob("upstream/[!.]*.git"))
    if clones:
        found.append(Finding("upstream", "ok", f"cloned: {', '.join(clones)}"))
    wheels = len(list(builds.glob("wheels/[!.]*/build.json")))
    if wheels:
        text = "1 build" if wheels == 1 else f"{wheels} builds"
        found.append(Finding("store", "ok", f"{text}; see `bisect_tool cache list`"))
    return found


def _backend(machine: Machine, gpu: GpuFacts | None, backend: str | None) -> list[Finding]:
    """Whether there is hardware, and a driver, for what is to be measured."""
    asked_cuda = backend is not None and backend.startswith("cuda")
    level: Level = "problem" if asked_cuda else "advice"
    if gpu is not None:
        cuda = f", CUDA {gpu.cuda}" if gpu.cuda else ""
        return [Finding("GPU", "ok", f"{gpu.name}, driver {gpu.driver}{cuda}")]
    if (backend is None or asked_cuda) and machine.has_nvidia_hardware():
        found = "an NVIDIA GPU, but nvidia-smi does not see it"
        return [Finding("GPU", level, found, f"{machine.install('nvidia-driver')} && sudo reboot")]
    if asked_cuda:
        return [Finding("GPU", "problem", "no NVIDIA GPU, so nothing runs on CUDA", "choose the cpu backend")]
    if backend == "metal" and machine.gpu() is None:
        return [Finding("GPU", "problem", "no Apple GPU, so nothing runs on Metal", "choose the cpu backend")]
    return []


def _conditions(now: HostState, machine: Machine) -> list[Finding]:
    """How the machine is at this moment, by the same rules that judge a run."""
    # Without the counters the reasons of this moment decide; and no run of ours is going on.
    moment = dataclasses.replace(now, gpu_throttle_us=None)
    wrong = {c.code: c.text for c in reversed(complaints(moment, moment, Limits(own_load=0.0)))}
    clocks = now.gpu_clocks_mhz or {}
    rows = [
        ("load", "load", _load_text(now), "end what is running, see: top"),
        ("power", "battery", _told(now.power_source, "mains"), "connect the charger"),
        ("low-power mode", "low-power", _told(now.low_power_mode, "off"), machine.low_power_off),
        ("thermal pressure", "thermal", now.thermal_pressure, "let it cool down for some minutes"),
        ("GPU clients", "gpu-clients", _told(now.gpu_clients, "none"), "end them, see: nvidia-smi"),
        (
            "GPU clocks",
            "gpu-throttle",
            f"{clocks.get('sm', '?')} MHz, {now.gpu_temperature_c} °C" if clocks else None,
            "nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER",
        ),
    ]
    findings = [
        Finding(name, "advice", wrong[code], remedy) if code in wrong else Finding(name, "ok", text)
        for name, code, text, remedy in rows
        if text is not None
    ]
    return findings + _governor(now)


def _told(value: object, text: str) -> str | None:
    """``text`` unless the system does not tell."""
    return None if value is None else text


def _load_text(now: HostState) -> str | None:
    return None if now.load_per_core is None else f"{now.load_per_core:.2f} per core"


def _governor(now: HostState) -> list[Finding]:
    """``powersave`` is slow with the old drivers only: with a pstate driver it is the usual, dynamic one."""
    if now.cpu_governor is None:
        return []
    if now.cpu_governor.startswith("powersave") and "pstate" not in now.cpu_governor:
        remedy = "sudo cpupower frequency-set -g performance"
        return [Finding("CPU governor", "advice", now.cpu_governor, remedy)]
    return [Finding("CPU governor", "ok", now.cpu_governor)]
