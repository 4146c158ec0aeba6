"""What the tool itself costs.

The time of an environment from a cached wheel (promised: under 2 s), and the tool's own memory while a repro
runs (promised: under 150 MB, children not counted).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bisect_tool.building.backend import available, detect
from bisect_tool.building.environment import ensure, find_interpreter, remove

ENVIRONMENT_S = 2.0
MEMORY_MB = 150.0
TIMES = 5


def environment_seconds(release: str, builds: Path) -> list[float]:
    """Seconds to make the environment anew, its wheel in uv's cache."""
    interpreter = find_interpreter(None)
    remove(ensure(release, detect(), builds=builds, interpreter=interpreter))
    seconds = []
    for _ in range(TIMES):
        start = time.perf_counter()
        made = ensure(release, detect(), builds=builds, interpreter=interpreter)
        seconds.append(time.perf_counter() - start)
        remove(made)
    return seconds


def peak_megabytes(release: str, builds: Path) -> float:
    """Largest resident memory of the tool's own process during a short session of the canonical repro."""
    words = ["repro", release, "--shape", "256x64", "--rows", "1-4", "--run-budget", "2s", "--rounds", "2"]
    environ = {**os.environ, "BISECT_TOOL_BUILDS": str(builds)}
    argv = [sys.executable, "-m", "bisect_tool", *words]
    tool = subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watched, peak = psutil.Process(tool.pid), 0.0
    while tool.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss / 1e6)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)
    if tool.wait() not in (0, 4):  # 4: two rounds are too few for an interval, which is meant here
        raise SystemExit(f"error: the session ended with {tool.returncode}")
    return peak


def main() -> int:
    release = str(available(detect(), python=find_interpreter(None))[0])
    with tempfile.TemporaryDirectory() as folder:
        seconds = environment_seconds(release, Path(folder))
        memory = peak_megabytes(release, Path(folder))
    print("| what | measured | promised |")
    print("| --- | --- | --- |")
    middle, largest = statistics.median(seconds), max(seconds)
    print(f"| environment of mlx {release}, wheel cached ({TIMES} times) | median {middle:.2f} s, largest "
          f"{largest:.2f} s | under {ENVIRONMENT_S:g} s |")  # fmt: skip
    print(f"| memory of the tool while a repro runs | {memory:.0f} MB | under {MEMORY_MB:g} MB |")
    return 0 if largest < ENVIRONMENT_S and memory < MEMORY_MB else 1


if __name__ == "__main__":
    sys.exit(main())
