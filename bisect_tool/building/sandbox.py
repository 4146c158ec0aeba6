"""Walls around what strangers wrote: which there are on this machine, and what one of them stopped."""

from __future__ import annotations

import functools
from enum import Enum

from bisect_tool.building.violation import violation
from bisect_tool.building.walls import Sandbox, Unwalled, Walls, interpreter_paths, shows_home
from bisect_tool.errors import ToolMissing
from bisect_tool.host.system import Machine, Tool

__all__ = ["Mode", "Sandbox", "Unwalled", "Walls", "choose", "interpreter_paths", "shows_home", "violation"]


class Mode(Enum):
    """``--sandbox``: walls where there can be any, walls or nothing, none."""

    AUTO = "auto"
    REQUIRE = "require"
    OFF = "off"


def choose(mode: Mode, machine: Machine | None = None) -> Sandbox:
    """The walls of this machine, tried out, or none: then ``why`` says so.

    Raises ``ToolMissing`` when they are required and there are none.
    """
    if mode is Mode.OFF:
        return Unwalled("--sandbox off")
    if machine is None:
        from bisect_tool.host.system import current

        machine = current()
    found, tool = _tried(machine)
    if found is not None:
        return found
    if mode is Mode.REQUIRE:
        raise ToolMissing("there are no walls for programs on this machine", tool.why, tool.remedy)
    return Unwalled(f"{tool.why}; {tool.remedy}" if tool.remedy else tool.why)


@functools.lru_cache(maxsize=4)
def _tried(machine: Machine) -> tuple[Sandbox | None, Tool]:
    """Starts programs, so asked once a process and machine."""
    from bisect_tool.host.linux import Linux

    if isinstance(machine, Linux):
        from bisect_tool.building.walls_linux import Bubblewrap

        tool, options = machine.bubblewrap()
        bwrap = machine.find("bwrap")
        if tool.version is None or bwrap is None:
            return None, tool
        return Bubblewrap(bwrap, tool.version, options), tool
    from bisect_tool.building.walls_macos import SandboxExec, trial

    tool = machine.sandbox()
    if tool.version is None:
        return None, tool
    tried = machine.run(trial())  # as that one, with rules of ours
    if tried is None or not tried.ok:
        why = tried.last_line() or tried.describe() if tried is not None else "cannot be started"
        return None, Tool("sandbox", None, f"sandbox-exec does not take our profile: {why}")
    return SandboxExec(), tool
