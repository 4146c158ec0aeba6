"""What `dispatch` and `dispatch-log` cost: from nothing and again, wall and processor seconds.

    BISECT_TOOL_MLX_REPO=PATH python benchmarks/dispatch_cost.py

The log is that of the whole history for 10 GPUs × 8 shapes × M = 1–40. Every figure is of the whole command;
processor seconds are of it and of all that it started, so that a busy machine does not change them.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
GENERATIONS = ("13g", "13s", "13d", "14s", "14d", "15s", "15d", "16s", "17g", "17s")
SHAPES = ("4096x4096", "5120x5120", "5120x13824", "13824x5120", "2048x2048", "5120x1024", "4096x14336",
          "8192x8192")  # fmt: skip
ONE = ("dispatch", "v0.32.0", "--shape", "5120x13824")
LOG = (
    "dispatch-log",
    *(word for name in GENERATIONS for word in ("--arch", f"g{name}")),
    *(word for shape in SHAPES for word in ("--shape", shape)),
)


def timed(words: tuple[str, ...], repo: str, builds: Path) -> tuple[float, float]:
    """Wall and processor seconds of a command."""
    # As where Python keeps its bytecode, whatever the caller's environment says.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(builds / "bytecode")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "bisect_tool", *words, "--repo", repo, "--builds", str(builds), "-q"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.monotonic() - started
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    repo = os.environ.get("BISECT_TOOL_MLX_REPO")
    if not repo:
        raise SystemExit("BISECT_TOOL_MLX_REPO names no clone of MLX")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        builds = Path(folder)
        timed(("dispatch-log", "v0.32.0~1..v0.32.0"), repo, builds)  # the clone itself
        for what, words in (("one commit, one shape", ONE), ("whole history, 3,200 cells", LOG)):
            shutil.rmtree(builds / "dispatch")
            (builds / "dispatch").mkdir()
            for when in ("from nothing", "again"):
                wall, processor = timed(words, repo, builds)
                rows.append([what, when, f"{wall:.2f}", f"{processor:.2f}"])
    head = ["command", "when", "wall s", "processor s"]
    print(tabulate(rows, headers=head, tablefmt="github", disable_numparse=True))
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
