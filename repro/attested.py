"""Runs a script of a user's own inside an environment, and afterwards says which MLX it ran on.

    python attested.py FD [SCRIPT [ARGS …]]

The script runs as ``__main__``, unchanged; without one, MLX is imported and that is all. When it ends, one
JSON line goes to the file descriptor FD: the version of the mlx that was imported, its module file, and every
library of MLX that the process mapped.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import sys
from pathlib import Path


def attest(fd: int) -> None:
    core = sys.modules.get("mlx.core")
    files = set()
    if sys.platform == "linux":
        files = {line.split(None, 5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    elif sys.platform == "darwin":
        import ctypes

        dyld = ctypes.CDLL(None)
        dyld._dyld_get_image_name.restype = ctypes.c_char_p
        files = {dyld._dyld_get_image_name(i).decode() for i in range(dyld._dyld_image_count())}
    line = {
        "kind": "attest",
        "mlx": getattr(core, "__version__", None),
        "module": getattr(core, "__file__", None),
        "libraries": sorted(
            f for f in files if f.endswith((".so", ".dylib")) and ("/mlx" in f or "libmlx" in f)
        ),
    }
    with contextlib.suppress(OSError):  # a script that closed it is not attested; its exit code stands
        os.write(fd, (json.dumps(line) + "\n").encode())


def main() -> None:
    fd, script = int(sys.argv[1]), sys.argv[2] if sys.argv[2:] else None
    sys.argv = sys.argv[2:] or [sys.argv[0]]
    if script is None:
        sys.path[:1] = []
        import mlx.core  # noqa: F401

        attest(fd)
        return
    sys.path[0] = str(Path(script).resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        attest(fd)


if __name__ == "__main__":
    main()
