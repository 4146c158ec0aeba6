"""uv: how it is called, and what its complaints mean.

The user's own uv settings (every ``UV_*`` variable), proxies and certificates reach it; the rest of the
environment does not.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from bisect_tool import process
from bisect_tool.errors import ToolMissing

if TYPE_CHECKING:
    from bisect_tool.building.interpreter import Interpreter

PASSED = (
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "NETRC",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_CACHE_HOME", "XDG_DATA_HOME",
)  # fmt: skip
# They would send the install elsewhere, or put more into the environment than was asked for.
WITHHELD = frozenset({"UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "UV_VENV_SEED"})


class Complaint(Enum):
    """Why uv failed."""

    DISK_FULL = "disk full"
    NOT_WRITABLE = "not writable"
    UNREACHABLE = "unreachable"
    BROKEN_WHEEL = "broken wheel"
    NO_RELEASE = "no such release"
    OTHER = "other"


# Tried in this order: a full disk while unpacking also says "failed to extract", a dropped connection too.
SIGNS: tuple[tuple[Complaint, str], ...] = (
    (Complaint.DISK_FULL, r"no space left on device|os error 28\b|disk quota exceeded"),
    (Complaint.NOT_WRITABLE, r"read-only file system|permission denied \(os error 13\)|os error 30\b"),
    (
        Complaint.UNREACHABLE,
        r"error sending request|failed to fetch|client error|dns error|network was disabled|timed out"
        r"|connection (reset|refused|closed)|network connectivity is disabled|http status|retries"
        r"|(request|response) body|error decoding",
    ),
    (
        Complaint.BROKEN_WHEEL,
        r"invalid package format|structure of .* was invalid|invalid wheel|failed to (extract|read|unzip)"
        r"|zip (file|archive)|hash mismatch|metadata .*(invalid|missing|inconsistent)|not a valid wheel"
        r"|(corrupt|truncated)",
    ),
    # The last: uv goes on without an extra that a release does not have, which leaves MLX without a backend.
    (
        Complaint.NO_RELEASE,
        r"no solution found|no version of|not found in the package registry|no wheels with",
    ),
    (Complaint.NO_RELEASE, r"does not have an extra named"),
)


def uv_binary() -> str:
    """The uv that came with the ``uv`` wheel. Raises ``ToolMissing``."""
    import uv

    try:
        return uv.find_uv_bin()
    except FileNotFoundError as problem:
        raise ToolMissing("uv is not installed", str(problem), "reinstall bisect_tool") from problem


def uv_environment(cache: Path | None = None) -> dict[str, str]:
    """The environment variables uv gets; ``cache`` is its cache unless the user has set ``UV_CACHE_DIR``."""
    env = {name: os.environ[name] for name in PASSED if name in os.environ}
    env |= {
        name: value for name, value in os.environ.items() if name.startswith("UV_") and name not in WITHHELD
    }
    if cache is not None and not env.get("UV_CACHE_DIR"):
        env["UV_CACHE_DIR"] = str(cache)
    env |= {"NO_COLOR": "1", "UV_NO_WRAP": "1"}  # its words go to a log and are read by `complaint`
    return env


def make_venv(root: Path, interpreter: Interpreter, *, env: Mapping[str, str], log: Path) -> process.Finished:
    """An empty virtual environment that can be moved (``--relocatable``), as ours are after they are made."""
    argv = [uv_binary(), "venv", "--relocatable", "--no-python-downloads", "--no-project"]
    return process.run([*argv, "--python", interpreter.path, root], env=env, log=log, timeout_s=120)


def install(
    root: Path,
    requirements: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    offline: bool,
    timeout_s: float,
    dependencies: bool = True,
) -> process.Finished:
    """Install ``requirements`` from wheels only: building something from source is not for uv to begin."""
    argv = [uv_binary(), "pip", "install", "--python", str(root / "bin" / "python"), "--only-binary", ":all:"]
    # Never symbolic links: a library would be a file of the cache, not of the environment.
    if env.get("UV_LINK_MODE") in (None, "", "symlink"):
        # Shared files: ten environments cost little more disk than one. uv copies where it cannot link.
        argv += ["--link-mode", "clone" if sys.platform == "darwin" else "hardlink"]
    argv += ["--offline"] * offline + ["--no-deps"] * (not dependencies)
    return process.run([*argv, *requirements], env=env, log=log, timeout_s=timeout_s)


def complaint(text: str) -> Complaint:
    """Pure: what uv's standard error says went wrong."""
    lowered = text.lower()
    for kind, sign in SIGNS:
        if re.search(sign, lowered):
            return kind
    return Complaint.OTHER


def lost_extra(text: str) -> bool:
    """Pure: uv went on without an extra that the release does not have: MLX is left without its backend."""
    return "does not have an extra named" in text.lower()


def reason(text: str, limit: int = 300) -> str:
    """Pure: uv's error and its deepest cause in one line of at most ``limit`` characters."""
    errors: list[str] = []
    causes: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        if found := re.match(r"(?:error:|×)\s*(.+)", line):
            errors.append(found[1])
        elif found := re.match(r"(?:cause:|Caused by:|╰─▶)\s*(.+)", line):
            causes.append(found[1])
    if found := re.search(r"hint: (The structure of [^\n]* was invalid:)\s*([^\n]+)", text):
        errors, causes = [" ".join(found.groups())], []  # says more than the conclusion uv drew from it
    parts = [errors[-1].rstrip(":")] if errors else []
    parts += causes[-1:]
    if not parts:
        parts = [line.strip() for line in text.splitlines() if line.strip()][-1:]
    line = ", ".join(" ".join(part.split()).rstrip(".") for part in parts)
    return line if len(line) <= limit else line[: limit - 1] + "…"
