"""The environment variables a repro gets: an allow-list, so that tokens, keys and agents never reach it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bisect_tool.errors import UsageProblem

# Whatever it begins with, a name like these is no switch of MLX.
_SECRET = re.compile(r".*(TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE|_KEY$|AUTH)", re.I)
# PATH and locale; scratch space; which SDK and device; MLX's own switches. Nothing else.
_ALLOWED = re.compile(
    r"PATH|LANG|LANGUAGE|LC_[A-Z]+|TZ|TMPDIR"
    r"|DEVELOPER_DIR|SDKROOT|MACOSX_DEPLOYMENT_TARGET|MTL_[A-Z_]+|METAL_[A-Z_]+"
    r"|CUDA_(VISIBLE_DEVICES|HOME|PATH|DEVICE_ORDER|CACHE_PATH|CACHE_MAXSIZE|MODULE_LOADING)"
    r"|NVIDIA_(VISIBLE_DEVICES|DRIVER_CAPABILITIES|TF32_OVERRIDE)"
    r"|OMP_NUM_THREADS|OPENBLAS_NUM_THREADS|VECLIB_MAXIMUM_THREADS"
    r"|MLX_[A-Z0-9_]+"
)


def child_environment(
    home: Path, extra: Sequence[tuple[str, str]] = (), source: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The allowed variables of ``source`` (default: ours), a private HOME, and ``extra`` on top."""
    given = os.environ if source is None else source
    kept = {n: v for n, v in given.items() if _ALLOWED.fullmatch(n) and not _SECRET.match(n)}
    kept.update(HOME=str(home), PYTHONNOUSERSITE="1", PYTHONUNBUFFERED="1")
    kept.update(extra)
    return kept


def parse_env_options(options: Sequence[str]) -> list[tuple[str, str]]:
    """``--env NAME`` passes a variable on, ``--env NAME=VALUE`` sets one. Raises UsageProblem."""
    pairs = []
    for option in options:
        name, sign, value = option.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageProblem(f"--env {option!r} names no variable", remedy="give NAME or NAME=VALUE")
        if not sign and name not in os.environ:
            raise UsageProblem(
                f"--env {name}: no such variable here", remedy=f"set it, or give --env {name}=VALUE"
            )
        pairs.append((name, value if sign else os.environ[name]))
    return pairs


def recorded(environment: Mapping[str, str]) -> dict[str, str]:
    """What of a run's environment belongs into the record: what can change a result, never a secret."""
    keep = re.compile(r"(MLX|MTL|METAL|CUDA|NVIDIA|OMP|OPENBLAS|VECLIB)_.*")
    places = {"CUDA_HOME", "CUDA_PATH", "CUDA_CACHE_PATH", "NVIDIA_DRIVER_CAPABILITIES"}
    return {
        n: v
        for n, v in sorted(environment.items())
        if keep.fullmatch(n) and n not in places and not _SECRET.match(n)
    }


def without_values(command: Sequence[str]) -> list[str]:
    """A command line whose ``--env NAME=VALUE`` says NAME alone where the value does not belong into the
    record."""
    words: list[str] = []
    for word in command:
        given = "--env=" if word.startswith("--env=") else ""
        if given or words[-1:] == ["--env"]:
            name, _, value = word.removeprefix(given).partition("=")
            words.append(word if recorded({name: value}) else given + name)
        else:
            words.append(word)
    return words
