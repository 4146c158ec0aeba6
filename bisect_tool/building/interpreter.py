"""The Python that environments are made with."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from bisect_tool import process
from bisect_tool.building.installer import reason, uv_binary, uv_environment
from bisect_tool.errors import ToolMissing

# Out of a virtual environment: to `_base_executable`, which up to 3.10 can lead back into it, else to the
# base's own binary. Free-threaded builds have wheels of their own.
DESCRIBE = """
import json, os, platform, sys, sysconfig
base = os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])
path = getattr(sys, "_base_executable", None) or sys.executable
if sys.prefix != sys.base_prefix and path.startswith(sys.prefix + os.sep) and os.path.exists(base):
    path = base
print(json.dumps({
    "path": path,
    "version": platform.python_version(),
    "abi": "cp%d%d" % sys.version_info[:2] + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""),
    "platform": sysconfig.get_platform(),
    "implementation": sys.implementation.name,
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A CPython outside any virtual environment. ``version`` is full (``3.11.7``), ``abi`` like ``cp311``."""

    path: Path
    version: str
    abi: str
    platform: str  # sysconfig.get_platform() of that interpreter: linux-x86_64, macosx-14.0-arm64


def find_interpreter(spec: str | None = None) -> Interpreter:
    """The interpreter that ``spec`` names: ``3.12``, a path, or None for the base of the one running us.

    Raises ``ToolMissing`` when there is none on this machine, when it does not start, or when it is not
    CPython. Nothing is downloaded.
    """
    return _describe(Path(sys.executable) if spec is None else _find(spec))


def _find(spec: str) -> Path:
    # --system: a virtual environment that happens to be active or near is not what was asked for.
    argv = [uv_binary(), "python", "find", "--system", "--no-python-downloads", spec]
    found = process.run(argv, timeout_s=60, env=uv_environment())
    if not found.ok or not found.stdout.strip():
        remedy = "install it (`uv python install VERSION`) or name another one"
        raise ToolMissing(f"there is no Python {spec} on this machine", reason(found.stderr), remedy)
    return Path(found.stdout.strip().splitlines()[-1])


def _describe(path: Path) -> Interpreter:
    said = process.probe([str(path), "-I", "-c", DESCRIBE], timeout_s=30)
    try:
        facts = json.loads(said or "")
    except ValueError as problem:
        raise ToolMissing(f"{path} does not start as a Python", "", "name another interpreter") from problem
    if facts["implementation"] != "cpython":
        raise ToolMissing(f"{path} is {facts['implementation']}", "MLX has wheels for CPython only")
    base = Path(facts["path"])
    return Interpreter(
        path=base if base.exists() else path,
        version=facts["version"],
        abi=facts["abi"],
        platform=facts["platform"],
    )
