"""Machines that answer from recorded text instead of starting anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bisect_tool.host.macos import MacOS
from bisect_tool.host.system import Tool
from bisect_tool.process import Finished

RECORDED = Path(__file__).parent / "host" / "recorded"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text("utf-8")


def said(stdout: str = "", stderr: str = "", returncode: int = 0) -> Finished:
    return Finished((), returncode, stdout, stderr, wall_s=0.01)


class Script:
    """A runner: the longest known beginning of a command line decides. ``asked`` keeps every line."""

    def __init__(self, answers: Mapping[str, Finished]) -> None:
        self.answers = dict(answers)
        self.asked: list[str] = []

    def __call__(self, argv: Sequence[str]) -> Finished | None:
        line = " ".join(argv)
        self.asked.append(line)
        known = [start for start in self.answers if line == start or line.startswith(start + " ")]
        return self.answers[max(known, key=len)] if known else None


MAC_ANSWERS: Mapping[str, Finished] = {
    "/usr/bin/sw_vers": said(recorded("macos/sw_vers.txt")),
    "/usr/sbin/sysctl hw.model": said(recorded("macos/sysctl_hw.model.txt")),
    "/usr/sbin/sysctl hw.memsize": said(recorded("macos/sysctl_hw.memsize.txt")),
    "/usr/sbin/sysctl machdep.cpu.brand_string": said(recorded("macos/sysctl_machdep.cpu.brand_string.txt")),
    "/usr/sbin/system_profiler -json SPDisplaysDataType": said(recorded("macos/system_profiler.json")),
    "/usr/bin/pmset -g": said(recorded("macos/pmset_g.txt")),
    "/usr/bin/pmset -g batt": said(recorded("macos/pmset_batt_ac.txt")),
    "/usr/bin/xcode-select -p": said(recorded("macos/xcode_select_xcode.txt")),
    "/usr/bin/xcodebuild -version": said(recorded("macos/xcodebuild_version.txt")),
    "/usr/bin/xcrun -sdk macosx metal --version": said(recorded("macos/metal_version.txt")),
    "/usr/bin/sandbox-exec": said(),
    "/usr/bin/git --version": said(recorded("macos/git_version.txt")),
    "/opt/homebrew/bin/ccache --version": said(recorded("macos/ccache_version.txt")),
    "/usr/bin/c++ --version": said(recorded("macos/clang_version.txt")),
    "/usr/bin/c++": said(),
}
MAC_PATHS = {
    "git": "/usr/bin/git",
    "c++": "/usr/bin/c++",
    "ccache": "/opt/homebrew/bin/ccache",
}
CLT_ONLY: Mapping[str, Finished] = {
    "/usr/bin/xcode-select -p": said(recorded("macos/xcode_select_clt.txt")),
    "/usr/bin/xcodebuild -version": said("", recorded("macos/xcodebuild_clt.stderr.txt"), 1),
    "/usr/bin/xcrun -sdk macosx metal --version": said("", recorded("macos/metal_no_xcode.stderr.txt"), 72),
}
NO_TOOLS: Mapping[str, Finished] = {
    "/usr/bin/xcode-select -p": said("", recorded("macos/xcode_select_none.stderr.txt"), 2),
}
NO_METAL: Mapping[str, Finished] = {
    "/usr/bin/xcrun -sdk macosx metal --version": said("", recorded("macos/metal_missing.stderr.txt"), 1),
}


def mac(
    changes: Mapping[str, Finished] | None = None,
    thermal: int | None = 0,
    xcode_app: Path = RECORDED / "no-such-Xcode.app",
    paths: Mapping[str, str] = MAC_PATHS,
) -> tuple[MacOS, Script]:
    """A MacBook Pro with everything on it, apart from the changes; and what it was asked."""
    script = Script({**MAC_ANSWERS, **(changes or {})})
    return MacOS(script, paths.get, lambda _name: thermal, xcode_app), script


def names(tools: Sequence[Tool]) -> dict[str, str | None]:
    return {tool.name: tool.version for tool in tools}
