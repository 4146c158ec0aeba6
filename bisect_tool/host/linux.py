"""Linux: files under /proc and /sys, no commands but for the sandbox."""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path

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

NVIDIA_PCI_VENDOR = "0x10de"
PCI_DISPLAY_CLASS = "0x03"

# Debian name -> name elsewhere; a name that is not listed is the same everywhere.
OTHER_NAMES = {
    "dnf": {"g++": "gcc-c++", "libopenblas-dev liblapacke-dev": "openblas-devel lapack-devel"},
    "pacman": {"g++": "gcc", "libopenblas-dev liblapacke-dev": "openblas lapacke"},
    "zypper": {"g++": "gcc-c++", "libopenblas-dev liblapacke-dev": "openblas-devel lapacke-devel"},
}
INSTALLERS = {
    "dnf": "sudo dnf install {}",
    "pacman": "sudo pacman -S {}",
    "zypper": "sudo zypper install {}",
    "apt": "sudo apt install {}",
}
FAMILIES = {"fedora": "dnf", "rhel": "dnf", "centos": "dnf", "arch": "pacman", "suse": "zypper"}

# What every wall is made with, and the ways to /proc in the order they are tried. It is read-only: root could
# have the kernel start any program, outside, by writing to /proc/sys/kernel. Where the kernel refuses
# a /proc of their own (a container hides parts of its own), walled programs see the machine's, read-only:
# others' names, but neither their environments nor their memory, which belong to another user namespace.
BUBBLEWRAP = (
    "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
    "--dev", "/dev",
)  # fmt: skip
BUBBLEWRAP_WAYS: tuple[tuple[str, ...], ...] = (
    ("--disable-userns", "--proc", "/proc", "--remount-ro", "/proc"),  # no namespaces within; since 0.8.0
    ("--proc", "/proc", "--remount-ro", "/proc"),
    ("--ro-bind", "/proc", "/proc"),
)


def parse_os_release(text: str) -> dict[str, str]:
    """``/etc/os-release`` as a mapping, without its quotes."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def parse_cpuinfo(text: str) -> str | None:
    """Brand of the first processor; ARM's cpuinfo names none."""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else None


def parse_lscpu(text: str) -> str | None:
    """Brand from ``lscpu``, which knows the names of ARM's cores; big.LITTLE has several."""
    names = re.findall(r"^\s*Model name:\s*(.+)$", text, re.MULTILINE)
    kept = dict.fromkeys(name.strip() for name in names if name.strip() not in ("", "-"))
    return " + ".join(kept) or None


def parse_meminfo(text: str) -> int | None:
    """MemTotal in bytes."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


class Linux(Machine):
    """``root`` stands in for ``/`` in tests."""

    def __init__(self, run: Runner = execute, which: Which = shutil.which, root: Path = Path("/")) -> None:
        super().__init__(run, which)
        self.root = root

    def _read(self, path: str) -> str | None:
        try:
            return (self.root / path).read_text("utf-8", "replace").strip("\0 \n")
        except OSError:
            return None

    def _release(self) -> dict[str, str]:
        return parse_os_release(self._read("etc/os-release") or self._read("usr/lib/os-release") or "")

    def os_name(self) -> str:
        name = self._release().get("PRETTY_NAME", platform.system())
        return f"{name}, {platform.system()} {platform.release()}"

    def chip(self) -> str | None:
        brand = parse_cpuinfo(self._read("proc/cpuinfo") or "")
        return brand or parse_lscpu(self.text("lscpu") or "") or platform.machine() or None

    def gpu(self) -> str | None:
        return None

    def model(self) -> str | None:
        return self._read("sys/class/dmi/id/product_name") or self._read("proc/device-tree/model") or None

    def memory_bytes(self) -> int | None:
        return parse_meminfo(self._read("proc/meminfo") or "")

    def power(self) -> Power:
        profile = self._read("sys/firmware/acpi/platform_profile")
        return Power(self._power_source(), None if profile is None else profile == "low-power")

    def _power_source(self) -> PowerSource | None:
        """A mains adapter that is on decides; else a battery that is being emptied; else unknown."""
        discharging = False
        mains_off = False
        for supply in sorted((self.root / "sys/class/power_supply").glob("*")):
            folder = supply.relative_to(self.root).as_posix()
            if self._read(f"{folder}/scope") == "Device":  # a mouse or a headset
                continue
            kind = self._read(f"{folder}/type")
            if kind in ("Mains", "USB"):
                if self._read(f"{folder}/online") == "1":
                    return "ac"
                mains_off = mains_off or kind == "Mains"
            elif kind == "Battery":
                discharging = discharging or self._read(f"{folder}/status") == "Discharging"
        return "battery" if discharging or mains_off else None

    def thermal_pressure(self) -> ThermalPressure | None:
        return None  # no such scale here; cpu_throttle_ms tells instead

    def cpu_governor(self) -> str | None:
        folder = "sys/devices/system/cpu/cpu0/cpufreq"
        governor = self._read(f"{folder}/scaling_governor")
        driver = self._read(f"{folder}/scaling_driver")
        return f"{governor} ({driver})" if governor and driver else governor

    def cpu_throttle_ms(self) -> int | None:
        """The largest of all cores: cores of one package share theirs (Intel only, Linux 5.8 or newer)."""
        files = (self.root / "sys/devices/system/cpu").glob(
            "cpu[0-9]*/thermal_throttle/*_throttle_total_time_ms"
        )
        texts = [self._read(file.relative_to(self.root).as_posix()) for file in files]
        return max((int(text) for text in texts if text and text.isdigit()), default=None)

    def has_nvidia_hardware(self) -> bool:
        for device in (self.root / "sys/bus/pci/devices").glob("*"):
            folder = device.relative_to(self.root).as_posix()
            if self._read(f"{folder}/vendor") == NVIDIA_PCI_VENDOR and (
                self._read(f"{folder}/class") or ""
            ).startswith(PCI_DISPLAY_CLASS):
                return True
        return False

    def own_toolchain(self) -> list[Tool]:
        from bisect_tool.host.toolchain import blas  # which imports this module's base

        return [blas(self)]

    def sandbox(self) -> Tool:
        return self.bubblewrap()[0]

    def bubblewrap(self) -> tuple[Tool, tuple[str, ...]]:
        """Bubblewrap, and its options here: those of ``BUBBLEWRAP`` and the first way to /proc that works."""
        bwrap = self.find("bwrap")
        if bwrap is None:
            return Tool("sandbox", None, "bubblewrap not found", self.install("bubblewrap")), ()
        tried = None
        for way in BUBBLEWRAP_WAYS:
            options = (*BUBBLEWRAP, *way)
            tried = self.run([bwrap, "--ro-bind", "/", "/", *options, "true"])
            if tried is not None and tried.ok:
                return Tool("sandbox", (self.text(bwrap, "--version") or "bubblewrap").strip()), options
        why = tried.last_line() or tried.describe() if tried is not None else "cannot be started"
        return Tool("sandbox", None, why, self._namespace_remedy()), ()

    def _namespace_remedy(self) -> str:
        """Which of the kernel's switches forbids user namespaces here."""
        if self._read("proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
            return "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        if self._read("proc/sys/kernel/unprivileged_userns_clone") == "0":
            return "sudo sysctl kernel.unprivileged_userns_clone=1"
        return (
            "allow user namespaces: sudo sysctl user.max_user_namespaces=15000 (or the container's settings)"
        )

    @property
    def low_power_off(self) -> str:
        return "echo balanced | sudo tee /sys/firmware/acpi/platform_profile"

    def install(self, package: str) -> str:
        release = self._release()
        ids = f"{release.get('ID', '')} {release.get('ID_LIKE', '')}".split()
        manager = next((FAMILIES[name] for name in ids if name in FAMILIES), "apt")
        return INSTALLERS[manager].format(OTHER_NAMES.get(manager, {}).get(package, package))
