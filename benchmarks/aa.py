"""Does `compare` stay silent where there is nothing? The same release against itself, for real, many times.

Each comparison is the command itself, with small shapes: two environments of one release, fresh processes in
balanced rounds. No verdict may be other than SAME or AMBIGUOUS. Prints as well what share of a comparison's
time the tool took for itself, outside the repro's processes (promised: under 5 %).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

SILENT = {"SAME", "AMBIGUOUS"}
OWN_SHARE = 0.05


def compared(release: str, builds: Path, words: list[str]) -> tuple[dict[str, Any], float]:
    """One comparison of a release with itself: what it said as data, and its seconds."""
    argv = [sys.executable, "-m", "bisect_tool", "compare", release, "--aa", "--json", "--quiet", *words]
    start = time.perf_counter()
    done = subprocess.run(
        argv, env={**os.environ, "BISECT_TOOL_BUILDS": str(builds)}, stdout=subprocess.PIPE, text=True
    )
    if done.returncode not in (0, 4):  # 4: nothing could be decided, which is an answer
        raise SystemExit(f"error: the comparison ended with {done.returncode}")
    return json.loads(done.stdout), time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--release", default="0.32.4")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--builds", type=Path, required=True, help="where environments and sessions are kept")
    parser.add_argument("words", nargs="*", help="further options of `compare`, after --")
    args = parser.parse_args()
    words = args.words or ["--shape", "256x64", "--rows", "1-2", "--run-budget", "1s"]
    words += ["--rounds", str(args.rounds)]
    kinds: Counter[str] = Counter()
    silent, own, discards = 0, [], 0
    for number in range(1, args.times + 1):
        said, seconds = compared(args.release, args.builds, words)
        runs = [line for line in said["lines"] if line["kind"] == "run"]
        rows = [row["arms"] for table in said["tables"] for row in table["rows"]]
        verdicts = [arm["verdict"] for row in rows for arm in row.values()]
        reasons = [arm["reason"] for row in rows for arm in row.values()]
        kinds.update(verdicts)
        silent += set(verdicts) <= SILENT
        discards += sum(line["kind"] in ("discard", "unsteady") for line in said["lines"])
        ran = sum(run["wall_s"] for run in runs)
        own.append(1 - ran / seconds)
        print(f"{number}: {', '.join(f'{v}: {r}' for v, r in zip(verdicts, reasons, strict=True))}; "
              f"{seconds:.0f} s, {own[-1] * 100:.1f} % of it the tool's own", flush=True)  # fmt: skip
    rows_in_all = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    print(f"\n{silent} of {args.times} comparisons without any other verdict than SAME or AMBIGUOUS "
          f"({rows_in_all}); {discards} rounds were unsteady")  # fmt: skip
    middle = statistics.median(own)
    print(f"the tool's own time: median {middle * 100:.1f} % of a comparison (promised: under "
          f"{OWN_SHARE * 100:g} %)")  # fmt: skip
    return 0 if silent == args.times and middle < OWN_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
