"""The one interface to an operating system. ``linux`` and ``macos`` are its two sides.

Everything a machine runs goes through its ``run`` and everything it looks up on PATH through ``which``, so
that a test can put recorded output in their place. Methods answer None for what this system does not tell;
none of them raises for a command that is missing, fails or hangs.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from bisect_tool import process

PowerSource = Literal["ac", "battery"]
ThermalPressure = Literal["nominal", "moderate", "heavy", "trapping", "sleeping"]
Runner = Callable[[Sequence[str]], "process.Finished | None"]
Which = Callable[[str], "str | None"]

COMMAND_TIMEOUT_S = 20.0  # the first xcrun after an update builds its database: seconds


def execute(argv: Sequence[str]) -> process.Finished | None:
    """Run a short, harmless command with untranslated messages; None when it cannot be started."""
    try:
        return process.run(argv, env={**os.environ, "LC_ALL": "C"}, timeout_s=COMMAND_TIMEOUT_S)
    except OSError:
        return None


@dataclass(frozen=True)
class Tool:
    """A program on this machine. ``version`` None: it cannot be used, for the reason ``why``."""

    name: str
    version: str | None
    why: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Power:
    source: PowerSource | None = None
    low_power: bool | None = None


class Machine(ABC):
    """What an operating system tells about the machine it runs on."""

    def __init__(self, run: Runner = execute, which: Which = shutil.which) -> None:
        self.run = run
        self.which = which

    def text(self, *argv: str) -> str | None:
        """Standard output of a command that did what it should, else None."""
        done = self.run(argv)
        return done.stdout if done is not None and done.ok else None

    def find(self, tool: str) -> str | None:
        """The path of a program that may be started without side effects, else None."""
        return self.which(tool)

    @abstractmethod
    def os_name(self) -> str:
        """As people write it: ``macOS 15.6 (24G84)``, ``Debian GNU/Linux 12 (bookworm), Linux 6.1.0``."""

    @abstractmethod
    def chip(self) -> str | None:
        """The processor's brand name."""

    @abstractmethod
    def gpu(self) -> str | None:
        """The built-in GPU where the system names one; NVIDIA's are read by ``nvidia``."""

    @abstractmethod
    def model(self) -> str | None:
        """The maker's name of this model of machine."""

    @abstractmethod
    def memory_bytes(self) -> int | None: ...

    @abstractmethod
    def power(self) -> Power: ...

    @abstractmethod
    def thermal_pressure(self) -> ThermalPressure | None: ...

    @abstractmethod
    def cpu_governor(self) -> str | None:
        """Frequency governor of the first core with its driver: ``powersave (intel_pstate)``."""

    @abstractmethod
    def cpu_throttle_ms(self) -> int | None:
        """Milliseconds since boot that the processor was slowed by heat; only grows."""

    @abstractmethod
    def has_nvidia_hardware(self) -> bool:
        """Whether an NVIDIA GPU is plugged in, with or without a driver."""

    @abstractmethod
    def own_toolchain(self) -> list[Tool]:
        """What a build needs on this system alone: Xcode and the Metal toolchain on macOS."""

    @abstractmethod
    def sandbox(self) -> Tool:
        """The sandbox for builds, tried out, not only looked up."""

    @property
    @abstractmethod
    def low_power_off(self) -> str:
        """The command that ends low-power mode, to be pasted."""

    @abstractmethod
    def install(self, package: str) -> str:
        """The command that installs a package, to be pasted; packages go by their Debian names."""


@functools.lru_cache(maxsize=1)
def current() -> Machine:
    """This machine. Anything but macOS is asked the Linux way, and answers None where it does not fit."""
    if platform.system() == "Darwin":
        from bisect_tool.host.macos import MacOS

        return MacOS()
    from bisect_tool.host.linux import Linux

    return Linux()
