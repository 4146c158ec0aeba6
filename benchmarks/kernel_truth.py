"""The repro's times against the GPU's own kernel timer, on CUDA.

`ncu` (Nsight Compute) times every kernel by `gpu__time_duration`, clocks and caches left as they are; the
same ops are then timed by `chain` and by `percall`. Promised for kernels of 30 µs and more: median absolute
error of `chain` at most 5 %, none above 10 %. Run it with an environment's Python on a machine with ncu:

    python benchmarks/kernel_truth.py [--rows 1,2,3,4,7,8] [--processes 3]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPRO = Path(__file__).resolve().parent.parent / "repro" / "qmv_step.py"
LINKS = 12  # ops a cell under ncu
MARKER = "arange"  # a kernel that nothing else here launches: it separates the cells
FROM_S = 30e-6
MEDIAN, LARGEST = 0.05, 0.10

Cell = tuple[int, int, int]  # K, N, M


def launch_under_ncu(rows: list[int]) -> None:
    """The child: every cell's chain of ops once, a marker before each. Cells in a fixed order."""
    sys.path.insert(0, str(REPRO.parent))
    import random

    import mlx.core as mx
    import qmv_step

    rng = random.Random(0)
    for K, N in qmv_step.PRESETS["issue"]:
        weight = qmv_step.Weight(K, N, 1, 4, 64, "affine", mx.float16, False)
        for M in rows:
            x = (mx.random.normal((M, K)) / K**0.5).astype(mx.float16)
            mx.eval(x)
            mx.eval(mx.arange(8.0))
            mx.eval(qmv_step.op_chain(weight, x, weight.picks(LINKS, rng)))
    mx.eval(mx.arange(8.0))


def kernel_times(log: Path, cells: list[Cell]) -> dict[Cell, float]:
    """Seconds an op: the sum over its kernels of each one's median; the glue (`binary`) is not the op."""
    lines = [line for line in log.read_text().splitlines() if line.startswith('"')]
    groups: list[dict[str, list[float]]] = []
    for row in csv.DictReader(lines):
        name, seconds = row["Kernel Name"], float(row["Metric Value"].replace(",", "")) * 1e-9
        if MARKER in name:
            groups.append({})
        elif groups:
            groups[-1].setdefault(name, []).append(seconds)
    if len(groups) != len(cells) + 1:
        raise SystemExit(f"error: ncu saw {len(groups)} markers, {len(cells) + 1} were launched")
    return {
        cell: sum(
            statistics.median(times) * (len(times) // LINKS)
            for name, times in group.items()
            if len(times) >= LINKS and "binary" not in name
        )
        for cell, group in zip(cells, groups, strict=False)
    }


def repro_times(rows: list[int], seed: int) -> dict[str, dict[Cell, float]]:
    """One process of the repro: {timing: {cell: seconds}}."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        words = ["--preset", "issue", "--rows", ",".join(map(str, rows)), "--timing", "chain,percall"]
        argv = [sys.executable, str(REPRO), *words, "--seed", str(seed), "--json", str(out), "--budget", "40"]
        subprocess.run(argv, check=True)
        found: dict[str, dict[Cell, float]] = {"chain": {}, "percall": {}}
        for text in out.read_text().splitlines():
            line = json.loads(text)
            if line["kind"] == "case" and not line["case"].get("control"):
                case = line["case"]
                found[case["timing"]][case["K"], case["N"], case["M"]] = line["time_s"]
        return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="1,2,3,4,7,8")
    parser.add_argument("--processes", type=int, default=3, help="of the repro; their median is shown")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    rows = [int(part) for part in args.rows.split(",")]
    if args.child:
        launch_under_ncu(rows)
        return 0
    sys.path.insert(0, str(REPRO.parent))
    import qmv_step

    cells = [(K, N, M) for K, N in qmv_step.PRESETS["issue"] for M in rows]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "ncu.csv"
        flags = ["--clock-control", "none", "--cache-control", "none", "--print-units", "base", "--csv"]
        metric = ["--metrics", "gpu__time_duration.sum", "--log-file", str(log)]
        child = [sys.executable, __file__, "--child", "--rows", args.rows]
        subprocess.run(["ncu", *flags, *metric, *child], check=True, env={**os.environ})
        truth = kernel_times(log, cells)
    runs = [repro_times(rows, seed) for seed in range(args.processes)]
    return show(cells, truth, runs)


def show(cells: list[Cell], truth: dict[Cell, float], runs: list[dict[str, dict[Cell, float]]]) -> int:
    """Print the table; 0 when the promise holds."""
    print("| K → N | M | kernel µs (ncu) | chain µs | error | percall µs | error |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    counted = []
    for cell in cells:
        K, N, M = cell
        kernel = truth[cell]
        chain, percall = (statistics.median(run[name][cell] for run in runs) for name in ("chain", "percall"))
        off = chain / kernel - 1
        if kernel >= FROM_S:
            counted.append(abs(off))
        print(
            f"| {K} → {N} | {M} | {kernel * 1e6:.1f} | {chain * 1e6:.1f} | {off:+.1%} "
            f"| {percall * 1e6:.1f} | {percall / kernel - 1:+.0%} |"
        )
    middle, largest = statistics.median(counted), max(counted)
    print(
        f"\nkernels of {FROM_S * 1e6:.0f} µs and more ({len(counted)}): median absolute error {middle:.1%} "
        f"(promised: {MEDIAN:.0%}), largest {largest:.1%} (promised: {LARGEST:.0%})"
    )
    return 0 if middle <= MEDIAN and largest <= LARGEST else 1


if __name__ == "__main__":
    sys.exit(main())
