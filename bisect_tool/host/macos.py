"""macOS: a handful of commands by their full path, and one Darwin notification.

There is no Mac where this was written: parsers take text and are tested against recorded output. What the
commands do not say becomes None, never an error.
"""

from __future__ import annotations

import ctypes
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bisect_tool.host.system import (
    Machine,
    Power,
    PowerSource,
    Runner,
    ThermalPressure,
    Tool,
    Which,
    execute,
)
from bisect_tool.process import Finished

LIBRARY = "/usr/lib/libSystem.B.dylib"
THERMAL_NOTIFICATION = "com.apple.system.thermalpressurelevel"
LEVELS: tuple[ThermalPressure, ...] = ("nominal", "moderate", "heavy", "trapping", "sleeping")

XCODE_APP = Path("/Applications/Xcode.app")
SELECT_XCODE = f"sudo xcode-select -s {XCODE_APP}/Contents/Developer"
GET_XCODE = f"open macappstore://apps.apple.com/app/id497799835 && {SELECT_XCODE}"
GET_TOOLS = "xcode-select --install"
GET_METAL = "xcodebuild -downloadComponent MetalToolchain"

BREW_NAMES = {"ninja-build": "ninja"}


def parse_colons(text: str) -> dict[str, str]:
    """``key: value`` lines, as ``sw_vers`` and ``sysctl`` print them."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def parse_sw_vers(text: str) -> str | None:
    """``macOS 15.6 (24G84)``."""
    fields = parse_colons(text)
    if "ProductVersion" not in fields:
        return None
    build = f" ({fields['BuildVersion']})" if fields.get("BuildVersion") else ""
    return f"{fields.get('ProductName', 'macOS')} {fields['ProductVersion']}{build}"


def parse_power_source(text: str) -> PowerSource | None:
    """From ``pmset -g batt``. A UPS counts as a battery: the mains are gone either way."""
    found = re.search(r"^Now drawing from '([^']+)'", text, re.MULTILINE)
    if found is None:
        return None
    return "ac" if found.group(1) == "AC Power" else "battery"


def parse_low_power(text: str) -> bool | None:
    """From the part of ``pmset -g`` that is in use.

    ``lowpowermode 0|1`` on most Macs, ``powermode 0|1|2`` (automatic, low, high) on those that have a high
    power mode as well, neither on some desktops.
    """
    in_use = text.split("Currently in use:", 1)[-1]
    found = re.search(r"^\s*(?:low)?powermode\s+(\d+)", in_use, re.MULTILINE)
    return found.group(1) == "1" if found else None


def parse_gpu(text: str) -> str | None:
    """From ``system_profiler -json SPDisplaysDataType``: ``Apple M4 Pro, 20 cores``."""
    try:
        devices: Any = json.loads(text)["SPDisplaysDataType"]
        device = devices[0]
        name = device.get("sppci_model") or device["_name"]
        cores = device.get("sppci_cores")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return f"{name}, {cores} cores" if cores else str(name)


def thermal_level(value: int | None) -> ThermalPressure | None:
    """The name of a level of thermal pressure (``OSThermalNotification.h``), None when it has none."""
    return LEVELS[value] if value is not None and 0 <= value < len(LEVELS) else None


def notification_state(name: str, library: str = LIBRARY) -> int | None:
    """The 64-bit state of a Darwin notification, readable without root; None when it cannot be read.

    A name that nobody has posted reads 0 too: on a machine without thermald (a virtual one), "nominal"
    means "nobody says otherwise".
    """
    try:
        system = ctypes.CDLL(library)
        register, get, cancel = system.notify_register_check, system.notify_get_state, system.notify_cancel
    except (OSError, AttributeError):
        return None
    register.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)]
    get.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_uint64)]
    cancel.argtypes = [ctypes.c_int]
    register.restype = get.restype = cancel.restype = ctypes.c_uint32
    token, state = ctypes.c_int(-1), ctypes.c_uint64(0)
    if register(name.encode(), ctypes.byref(token)) != 0:
        return None
    status = get(token, ctypes.byref(state))
    cancel(token)
    return state.value if status == 0 else None


def xcode(done: Finished | None, app_installed: bool) -> Tool:
    """Full Xcode, from how ``xcodebuild -version`` ended."""
    if done is not None and done.ok:
        found = re.search(r"^Xcode (\S+)\s+Build version (\S+)", done.stdout, re.MULTILINE)
        return Tool("Xcode", f"{found.group(1)} ({found.group(2)})" if found else done.stdout.strip())
    said = f"{done.stdout}\n{done.stderr}" if done is not None else ""
    if "license" in said:
        return Tool("Xcode", None, "its licence is not accepted", "sudo xcodebuild -license accept")
    if app_installed:
        return Tool("Xcode", None, "installed but not selected", SELECT_XCODE)
    if "command line tools instance" in said:
        return Tool("Xcode", None, "only the command line tools, which have no Metal compiler", GET_XCODE)
    return Tool("Xcode", None, "not found", GET_XCODE)


def metal(done: Finished | None) -> Tool:
    """The Metal toolchain, from how ``xcrun -sdk macosx metal --version`` ended.

    It has to be started: since Xcode 26 ``xcrun --find metal`` answers with a stub even when the toolchain,
    a component of its own by then, is not there.
    """
    name = "Metal toolchain"
    if done is not None and done.ok:
        lines = done.stdout.splitlines() or done.stderr.splitlines()
        return Tool(name, lines[0].strip() if lines else "present")
    said = f"{done.stdout}\n{done.stderr}" if done is not None else ""
    if "missing Metal Toolchain" in said:
        return Tool(name, None, "not installed, a component of its own since Xcode 26", GET_METAL)
    return Tool(name, None, "not found; it comes with full Xcode", f"{GET_XCODE} && {GET_METAL}")


class MacOS(Machine):
    """``notification`` and ``xcode_app`` are put in by tests."""

    def __init__(
        self,
        run: Runner = execute,
        which: Which = shutil.which,
        notification: Callable[[str], int | None] = notification_state,
        xcode_app: Path = XCODE_APP,
    ) -> None:
        super().__init__(run, which)
        self.notification = notification
        self.xcode_app = xcode_app

    def find(self, tool: str) -> str | None:
        """As ``which``, but never one of Apple's stubs: without developer tools they open a dialog."""
        path = self.which(tool)
        if path is not None and path.startswith("/usr/bin/") and not self._developer_folder():
            return None
        return path

    def _developer_folder(self) -> str | None:
        return (self.text("/usr/bin/xcode-select", "-p") or "").strip() or None

    def _sysctl(self, name: str) -> str | None:
        return parse_colons(self.text("/usr/sbin/sysctl", name) or "").get(name) or None

    def os_name(self) -> str:
        return parse_sw_vers(self.text("/usr/bin/sw_vers") or "") or "macOS"

    def chip(self) -> str | None:
        return self._sysctl("machdep.cpu.brand_string")

    def gpu(self) -> str | None:
        return parse_gpu(self.text("/usr/sbin/system_profiler", "-json", "SPDisplaysDataType") or "")

    def model(self) -> str | None:
        return self._sysctl("hw.model")

    def memory_bytes(self) -> int | None:
        size = self._sysctl("hw.memsize")
        return int(size) if size and size.isdigit() else None

    def power(self) -> Power:
        return Power(
            parse_power_source(self.text("/usr/bin/pmset", "-g", "batt") or ""),
            parse_low_power(self.text("/usr/bin/pmset", "-g") or ""),
        )

    def thermal_pressure(self) -> ThermalPressure | None:
        return thermal_level(self.notification(THERMAL_NOTIFICATION))

    def cpu_governor(self) -> str | None:
        return None

    def cpu_throttle_ms(self) -> int | None:
        return None

    def has_nvidia_hardware(self) -> bool:
        return False

    def own_toolchain(self) -> list[Tool]:
        if not self._developer_folder():
            nothing = "no developer tools selected"
            remedy = SELECT_XCODE if self.xcode_app.exists() else GET_XCODE
            return [
                Tool("Xcode", None, nothing, remedy),
                Tool("Metal toolchain", None, nothing, f"{remedy} && {GET_METAL}"),
            ]
        return [
            xcode(self.run(["/usr/bin/xcodebuild", "-version"]), self.xcode_app.exists()),
            metal(self.run(["/usr/bin/xcrun", "-sdk", "macosx", "metal", "--version"])),
        ]

    def sandbox(self) -> Tool:
        tried = self.run(["/usr/bin/sandbox-exec", "-p", "(version 1)(allow default)", "/usr/bin/true"])
        if tried is not None and tried.ok:
            return Tool("sandbox", "sandbox-exec")
        why = tried.last_line() or tried.describe() if tried is not None else "sandbox-exec not found"
        return Tool("sandbox", None, why, "run in Terminal, outside any other sandbox")

    @property
    def low_power_off(self) -> str:
        return "sudo pmset -a lowpowermode 0"

    def install(self, package: str) -> str:
        if package == "g++":
            return GET_TOOLS
        return f"brew install {BREW_NAMES.get(package, package)}"
