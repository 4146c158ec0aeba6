"""`bisect_tool --help` against `python -c "import click"`: wall time, pairs in turn. At most 3 times."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

PROMISE = 3.0
RUNS = 15


def wall(argv: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    tool = [str(Path(sys.executable).with_name("bisect_tool")), "--help"]
    base = [sys.executable, "-c", "import click"]
    wall(tool), wall(base)  # byte-compiled and in the page cache
    pairs = [(wall(tool), wall(base)) for _ in range(RUNS)]
    ratio = statistics.median(a / b for a, b in pairs)
    print("| command | median ms |")
    print("| --- | --- |")
    print(f"| bisect_tool --help | {statistics.median(a for a, _ in pairs) * 1e3:.0f} |")
    print(f'| python -c "import click" | {statistics.median(b for _, b in pairs) * 1e3:.0f} |')
    print(f"\nmedian ratio of {RUNS} pairs: {ratio:.2f} (promised: at most {PROMISE})")
    return 0 if ratio <= PROMISE else 1


if __name__ == "__main__":
    sys.exit(main())
