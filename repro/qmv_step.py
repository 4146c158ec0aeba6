#!/usr/bin/env python3
"""Does mx.quantized_matmul(transpose=True) cost a step at M=3 rows? (ml-explore/mlx#3553)

One file, standard library and mlx only; runs on MLX 0.21 to 0.32 and on Metal, CUDA and CPU.

    python qmv_step.py                          the shapes of #3553 (an eighth of each side on a CPU)
    python qmv_step.py --shape 5120x17408 --rows 1-10 --bits 2,4 --cache cold
    python qmv_step.py --compat                 #3553's own way: mean of 200 evals after 30 warm-ups
    python qmv_step.py --json out.jsonl         one JSON object a line (a path, or a file descriptor)

How a time is made (`--timing`, never mixed in one table):
  chain       L dependent ops in one eval; the slope over three L (Theil-Sen), less what the glue that
              carries the dependence adds. The latency that a model sees. The default.
  throughput  R independent ops in one eval, the slope over three R. Independent ops overlap on a GPU.
  percall     one op, one mx.eval: carries the fixed cost of a launch and a synchronisation.
`--cache hot` uses one weight; `cold` a ring of weights of at least 512 MB and 8 times the weight.
Each (shape, M) is warmed up by time, the order of shapes and of M is shuffled by `--seed`, and the first
cell is measured again at the end: the drift.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import math
import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import NoReturn

# Both change how many ops share a command buffer (a CUDA graph), and the defaults differ by chip: pinned
# before mlx reads them, so that hot and cold, and every version compared, batch alike.
PINNED = {"MLX_MAX_OPS_PER_BUFFER": "20", "MLX_MAX_MB_PER_BUFFER": "100000"}
for _name, _value in PINNED.items():
    os.environ.setdefault(_name, _value)

import mlx.core as mx  # noqa: E402

PROTOCOL = 1
PRESETS = {
    "issue": [(5120, 5120), (5120, 1024), (5120, 13824), (13824, 5120)],
    "small": [(640, 640), (640, 128), (640, 1728), (1728, 640)],
    "verify": [(5120, 17408), (4096, 24576), (12288, 4096), (4096, 4096), (4096, 6144)],
}
LABELS = {
    (5120, 5120): "attn q/o",
    (5120, 1024): "attn k/v",
    (5120, 13824): "MLP gate/up",
    (13824, 5120): "MLP down",
}
BITS = {"affine": [2, 3, 4, 5, 6, 8], "mxfp4": [4], "mxfp8": [8], "nvfp4": [4]}
GROUP_SIZE = {"affine": 64, "mxfp4": 32, "mxfp8": 32, "nvfp4": 16}
COLD_BYTES = 512 << 20
# Each (shape, M) is a pipeline of its own to load, and a GPU takes a while to boost; a CPU has neither.
WARM_UP = {"metal": (0.5, 30), "cuda": (0.5, 30), "cpu": (0.05, 2)}  # seconds and ops, at least
MAX_PASSES, MIN_PASSES = 30, 2
LINEAR_TOLERANCE = 0.02
KEPT = 256  # values of a result that are printed, to be compared with another version's
WRONG = 0.1  # relative error of a result; float16 accumulation on a CPU comes to 0.005


# ------------------------------------------------------------------ what moved between MLX versions


def backend() -> str:
    """metal, cuda or cpu: where the default device runs."""
    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if hasattr(mx, "metal") and mx.metal.is_available() else "cuda"


def device_info() -> dict:
    """MLX's own description of the device; {} where this version has none."""
    owner = mx if hasattr(mx, "device_info") else mx.metal
    try:
        return dict(owner.device_info())
    except Exception:  # old versions have none, or raise when there is no GPU
        return {}


def clear_cache() -> None:
    for owner in (mx, mx.metal):
        if hasattr(owner, "clear_cache"):
            owner.clear_cache()
            return


def mode_args(quant: str) -> dict:
    return {} if quant == "affine" else {"mode": quant}


def dtype_name(array: mx.array) -> str:
    return str(array.dtype).rsplit(".", 1)[-1]


def mapped_libraries() -> list[str]:
    """Files of MLX that this process has mapped: the proof of which build is running."""
    names: set[str] = set()
    if sys.platform == "linux":
        for line in Path("/proc/self/maps").read_text().splitlines():
            parts = line.split(None, 5)
            if len(parts) == 6:
                names.add(parts[5])
    elif sys.platform == "darwin":
        import ctypes

        dyld = ctypes.CDLL(None)
        dyld._dyld_get_image_name.restype = ctypes.c_char_p
        for index in range(dyld._dyld_image_count()):
            names.add(dyld._dyld_get_image_name(index).decode())
    return sorted(n for n in names if n.endswith((".so", ".dylib")) and ("/mlx" in n or "libmlx" in n))


# ------------------------------------------------------------------ robust lines


def theil_sen(points: list[tuple[int, float]]) -> tuple[float, float]:
    """Slope and intercept: medians over all pairs of points (Theil 1950, Sen 1968)."""
    slopes = [
        (tb - ta) / (lb - la) for i, (la, ta) in enumerate(points) for lb, tb in points[i + 1 :] if la != lb
    ]
    slope = statistics.median(slopes)
    return slope, statistics.median(t - slope * length for length, t in points)


def bend(points: list[tuple[int, float]]) -> float:
    """How far the middle length lies off the line through the outer two, as a share of its time."""
    lengths = sorted({length for length, _ in points})
    low, mid, high = (statistics.median(t for le, t in points if le == length) for length in lengths)
    line = low + (high - low) * (lengths[1] - lengths[0]) / (lengths[2] - lengths[0])
    return mid / line - 1


# ------------------------------------------------------------------ the ops


class Weight:
    """One quantized weight, or a ring of them that no cache holds (``cold``)."""

    def __init__(self, K, N, B, bits, group_size, quant, dtype, cold: bool):
        self.kwargs = {"group_size": group_size, "bits": bits, **mode_args(quant)}
        shape = (B, N, K) if B > 1 else (N, K)
        w = mx.random.normal(shape)
        # Output column 0 carries the dependence of a chain. Its weights are small, so that feeding it back
        # into x contracts and the values stay of order one at any length.
        w = mx.concatenate([w[..., :1, :] / 512, w[..., 1:, :]], axis=-2).astype(dtype)
        self.first = tuple(mx.quantize(w, **self.kwargs))
        mx.eval(*self.first)
        self.nbytes = sum(part.nbytes for part in self.first)
        self.ring = [self.first]
        if cold:
            for i in range(1, max(8, math.ceil(COLD_BYTES / self.nbytes))):
                other = [part + mx.array(0, part.dtype) for part in self.first]
                other[0] = self.first[0] + mx.array(i, self.first[0].dtype)
                mx.eval(*other)
                self.ring.append(tuple(other))

    def picks(self, count: int, rng: random.Random) -> list[tuple]:
        """``count`` weights; from a ring in random order, each once before any comes again."""
        picked: list[tuple] = []
        while len(picked) < count:
            picked += rng.sample(self.ring, len(self.ring))
        return picked[:count]

    def matmul(self, x, parts):
        return mx.quantized_matmul(x, *parts, transpose=True, **self.kwargs)

    def float32(self):
        """The dequantized weight in float32: what the op should multiply by."""
        parts = [part.astype(mx.float32) if part.dtype != mx.uint8 else part for part in self.first[1:]]
        return mx.dequantize(self.first[0], *parts, **self.kwargs).astype(mx.float32)


class Dense:
    """The control: a plain matmul, which no change to quantized kernels can touch."""

    def __init__(self, K, N, dtype):
        w = mx.random.normal((N, K))
        self.first = (mx.concatenate([w[:1] / 512, w[1:]]).astype(dtype),)
        mx.eval(*self.first)
        self.nbytes = self.first[0].nbytes
        self.ring = [self.first]

    def picks(self, count, _rng):
        return self.ring * count

    def matmul(self, x, parts):
        return x @ parts[0].T


def glue(x, y):
    """The next op's input: x, made to depend on every row of y. One small kernel."""
    return x + y[..., :1]


def op_chain(weight, x, parts_list, glues: int = 1):
    """L ops, each on the output of the one before, with ``glues`` glue kernels after each."""
    y = x
    for parts in parts_list:
        y = weight.matmul(y, parts)
        for _ in range(glues):
            y = glue(x, y)
    return y


def glue_chain(x, length: int):
    y = x
    for _ in range(length):
        y = glue(x, y)
    return y


def timed_eval(*arrays) -> float:
    """Seconds that one eval of an already built graph takes."""
    start = time.perf_counter()
    mx.eval(*arrays)
    return time.perf_counter() - start


# ------------------------------------------------------------------ one cell


class Clock:
    """How long this run may take; each cell gets an equal share of what is left."""

    def __init__(self, budget: float, cells: int):
        self.deadline = time.perf_counter() + budget
        self.cells = cells

    def share(self) -> float:
        left = max(0.0, self.deadline - time.perf_counter()) / max(1, self.cells)
        self.cells -= 1
        return left


def warm_up(call, ops: int) -> dict:
    """Call until ``WARM_UP``'s seconds and ops have gone by, whatever the budget.

    Returns seconds, ops, and seconds an op of the fastest call (an estimate to plan by)."""
    least_seconds, least_ops = WARM_UP[backend()]
    start, count, best = time.perf_counter(), 0, math.inf
    while True:
        seconds = call()
        count += ops
        best = min(best, seconds / ops)
        spent = time.perf_counter() - start
        if spent >= least_seconds and count >= least_ops:
            return {"seconds": spent, "ops": count, "estimate_s": best}


def lengths_for(estimate: float) -> list[int]:
    """Three chain lengths 1:2:3, the longest about 12 ms, so that timer and launch noise are small."""
    base = min(64, max(1, round(0.004 / max(estimate, 1e-9))))
    return [base, 2 * base, 3 * base]


def measure_points(builders: dict, lengths: list[int], share: float, rng: random.Random) -> dict:
    """Interleaved passes over three lengths of every chain in ``builders`` ({name: length -> arrays}).

    Returns {name: [(length, seconds of one eval), …]}, three points a pass."""
    points: dict[str, list[tuple[int, float]]] = {name: [] for name in builders}
    deadline = time.perf_counter() + share
    for done in range(MAX_PASSES):
        if done >= MIN_PASSES and time.perf_counter() >= deadline:
            break
        for length in rng.sample(lengths, 3):
            for name in rng.sample(list(builders), len(builders)):
                points[name].append((length, timed_eval(*builders[name](length))))
    return points


def warm_and_plan(build) -> tuple[dict, list[int]]:
    """Warm up on ``build(length)``; then choose lengths, from a chain long enough to hide its floor."""
    warm = warm_up(lambda: timed_eval(*build(2)), 2)
    length = lengths_for(warm["estimate_s"])[2]
    if length > 3:
        warm["estimate_s"] = min(timed_eval(*build(length)) for _ in range(3)) / length
    return warm, lengths_for(warm["estimate_s"])


def time_chain(weight, x, share, rng) -> dict:
    def chain(glues):
        return lambda length: [op_chain(weight, x, weight.picks(length, rng), glues)]

    builders = {"op": chain(1), "glue": lambda length: [glue_chain(x, length)]}
    # A GPU runs the small glue faster than the host can launch it, so a chain of glue alone times the host
    # (6-10 us against 3 us on an H200, which made the ops look up to 16 % too fast). There the glue is timed
    # where the op hides the launches: three glues a link against one.
    on_gpu = backend() != "cpu"
    if on_gpu:
        builders["op+2glue"] = chain(3)
    warm, lengths = warm_and_plan(builders["op"])
    points = measure_points(builders, lengths, share - warm["seconds"], rng)
    slope, floor = theil_sen(points["op"])
    alone, _ = theil_sen(points["glue"])
    glue_s = (theil_sen(points["op+2glue"])[0] - slope) / 2 if on_gpu else alone
    return {
        "time_s": slope - glue_s,
        "floor_s": floor,
        "glue_s": glue_s,
        "bend": bend(points["op"]),
        # A link has 2 launches, or 4: when the host needs as long for them as the link takes, it is the host
        # that is timed.
        "launch_bound": on_gpu and (slope < 1.25 * 2 * alone or slope + 2 * glue_s < 1.25 * 4 * alone),
        "points": points,
        "samples_s": [s - glue_s for s in pass_slopes(points["op"])],
        "warm_up": warm,
    }


def time_throughput(weight, x, share, rng) -> dict:
    def independent(count):
        return [weight.matmul(x, parts) for parts in weight.picks(count, rng)]

    warm, counts = warm_and_plan(independent)
    points = measure_points({"op": independent}, counts, share - warm["seconds"], rng)
    slope, floor = theil_sen(points["op"])
    return {
        "time_s": slope,
        "floor_s": floor,
        "bend": bend(points["op"]),
        "points": points,
        "samples_s": pass_slopes(points["op"]),
        "warm_up": warm,
    }


def time_percall(weight, x, share, rng, compat: bool) -> dict:
    """One op, one eval. ``compat``: as #3553 does it, mean of 200 after 30, graph building included."""

    def call() -> float:
        parts = weight.picks(1, rng)[0]
        start = time.perf_counter()
        mx.eval(weight.matmul(x, parts))
        return time.perf_counter() - start

    if compat:
        started = time.perf_counter()
        warm_ops = 0
        while warm_ops < 30 and (warm_ops < 3 or time.perf_counter() - started < share / 8):
            call()
            warm_ops += 1
        warm = {"seconds": time.perf_counter() - started, "ops": warm_ops}
    else:
        warm = warm_up(call, 1)
    samples: list[float] = []
    deadline = time.perf_counter() + share - warm["seconds"]
    while len(samples) < 200 and (len(samples) < 5 or time.perf_counter() < deadline):
        samples.append(call())
    nothing = mx.zeros((1,))
    floor = statistics.median(timed_eval(nothing + 1) for _ in range(30))
    centre = statistics.fmean if compat else statistics.median
    return {
        "time_s": centre(samples),
        "centre": "mean" if compat else "median",
        "floor_s": floor,
        "samples_s": samples,
        "warm_up": warm,
    }


def pass_slopes(points: list[tuple[int, float]]) -> list[float]:
    """One slope for each pass over the three lengths: the inner samples, for looking at, not replicates."""
    return [theil_sen(points[i : i + 3])[0] for i in range(0, len(points), 3)]


def time_cell(timing, weight, x, share, rng, compat=False) -> dict:
    # How often timing draws depends on how fast it goes: a generator of its own, so that the order of cells
    # depends on the seed alone.
    rng = random.Random(rng.random())
    gc.collect()
    gc.disable()
    try:
        if timing == "chain":
            return time_chain(weight, x, share, rng)
        if timing == "throughput":
            return time_throughput(weight, x, share, rng)
        return time_percall(weight, x, share, rng, compat)
    finally:
        gc.enable()


def marks_of(result: dict, gbps: float, device_gbps: float) -> list[str]:
    """What a reader must know of this cell before believing its time."""
    marks = []
    if abs(result.get("bend", 0.0)) > LINEAR_TOLERANCE:
        marks.append("nonlinear-chain")
    if result.get("launch_bound"):
        marks.append("launch-bound")
    if not result.get("error", {"relative": 0.0})["relative"] < WRONG:
        marks.append("wrong-result")
    if gbps > 1.1 * device_gbps:
        marks.append("cache-resident")
    return marks


# ------------------------------------------------------------------ is it right, is the machine steady


def digest(*arrays) -> str:
    """Of the values of arrays: equal digests, equal bits."""
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        whole = array if array.dtype in (mx.uint32, mx.uint8) else array.astype(mx.float32)
        mx.eval(whole)
        found.update(memoryview(whole).cast("B"))
    return found.hexdigest()


class Reference:
    """What one shape should give: the same rows through the dequantized weight, in float32 on the CPU.

    On the CPU, because a GPU may round float32 products to TF32, which is the size of the error sought."""

    def __init__(self, weight: Weight, x_all):
        self.x_all, self.weight = x_all, weight
        w32, x32 = weight.float32(), x_all.astype(mx.float32)
        self.y32 = mx.matmul(x32, mx.swapaxes(w32, -1, -2), stream=mx.cpu)
        self.y1 = weight.matmul(x_all[..., :1, :], weight.first)
        mx.eval(self.y32, self.y1)
        self.inputs = digest(*weight.first, x_all)

    def check(self, M: int) -> dict:
        """relative: |y - y32| / |y32| (Frobenius); row_bits_as_m1: row 0 has the bits that M=1 gives."""
        y = self.weight.matmul(self.x_all[..., :M, :], self.weight.first)
        want = self.y32[..., :M, :]
        off = y.astype(mx.float32) - want
        relative = mx.sqrt(mx.sum(off * off)) / mx.sqrt(mx.sum(want * want))
        same = mx.all(y[..., :1, :] == self.y1)
        return {
            "relative": relative.item(),
            "max_abs": mx.max(mx.abs(off)).item(),
            "row_bits_as_m1": bool(same.item()),
            "rows": y.shape[-2],
            "output": self.output(y),
        }

    def output(self, y) -> dict:
        """What another version's result of the same inputs is compared with: bits, and some of its values."""
        flat = mx.reshape(y.astype(mx.float32), (-1,))
        kept = flat[:: math.ceil(flat.size / KEPT) | 1].tolist()  # odd: all columns of a tile have a turn
        return {"inputs": self.inputs, "bits": digest(y), "values": [float(f"{v:.7g}") for v in kept]}


class Sentinels:
    """Two kernels that no quantized code touches, timed before and after: arithmetic, and bandwidth."""

    def __init__(self, on_gpu: bool, dtype):
        side, self.big_bytes, self.warm_s = (4096, 256 << 20, 0.25) if on_gpu else (384, 64 << 20, 0.1)
        self.a = mx.random.normal((side, side)).astype(dtype if on_gpu else mx.float32)
        self.big = mx.random.normal((self.big_bytes // 4,))
        mx.eval(self.a, self.big)

    def measure(self) -> dict:
        """Seconds an op, the fastest of several evals of about 10 ms each; GB/s of reading and writing."""
        builders = {
            "arithmetic": lambda n: [self.a @ self.a for _ in range(n)],
            "bandwidth": lambda n: [self.big + float(i) for i in range(n)],
        }
        found = {}
        for name, build in builders.items():
            start, estimate = time.perf_counter(), math.inf
            while time.perf_counter() - start < self.warm_s:
                estimate = min(estimate, timed_eval(*build(2)) / 2)
            n = max(1, min(40, round(0.01 / estimate)))
            found[name + "_s"] = min(timed_eval(*build(n)) for _ in range(9)) / n
        found["gbps"] = 2 * self.big_bytes / found["bandwidth_s"] / 1e9
        clear_cache()
        return found


# ------------------------------------------------------------------ the run


class Output:
    """Protocol v1 to a path or file descriptor; nothing when neither was given. OSError when it cannot be."""

    def __init__(self, where: str | None):
        target = int(where) if where is not None and where.isdigit() else where
        self.file = None if target is None else open(target, "w")  # noqa: SIM115, PTH123

    def line(self, kind: str, **fields) -> None:
        if self.file is not None:
            self.file.write(json.dumps({"kind": kind, **fields}) + "\n")
            self.file.flush()


def host_line(args, on: str) -> dict:
    return {
        "protocol": PROTOCOL,
        "script": Path(__file__).name,
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "argv": sys.argv[1:],
        "mlx": mx.__version__,
        "module": mx.__file__,
        "libraries": mapped_libraries(),
        "python": sys.version.split()[0],
        "backend": on,
        "device": device_info(),
        "pinned": {name: os.environ[name] for name in PINNED},
        "seed": args.seed,
        "pid": os.getpid(),
    }


def cells_of(args, rng) -> list[tuple]:
    """(K, N, B, bits, group size, quant, dtype name, cache) of every weight to make, shuffled."""
    blocks = [
        (K, N, B, bits, size, quant, dtype, cache)
        for K, N, B in args.shapes
        for bits in args.bits
        for quant in args.quant
        if bits in BITS[quant]
        for size in args.group_size or [GROUP_SIZE[quant]]
        for dtype in args.dtype
        for cache in args.cache
    ]
    return blocks if args.compat else rng.sample(blocks, len(blocks))


def run(args, out: Output) -> list[dict]:
    """Measure everything asked for; returns the case lines. Raises nothing that a case can raise."""
    on = backend()
    rng = random.Random(args.seed)
    mx.random.seed(args.seed)
    started = time.perf_counter()
    out.line("host", **host_line(args, on))
    sentinels = Sentinels(on != "cpu", mx.float16)
    before = sentinels.measure()
    out.line("sentinel", when="before", **before)
    blocks = cells_of(args, rng)
    cells = len(blocks) * len(args.rows) * len(args.timing) + len(args.timing) + 1
    clock = Clock(args.budget, cells)
    results: list[dict] = []
    first_again = None
    for block in blocks:
        try:
            measured, again = measure_block(args, block, clock, before["gbps"], rng, out)
        except Exception as problem:
            # A version that lacks the op, these bits or this mode: said, and the other cells go on.
            out.line("unsupported", case=block_case(block), reason=f"{type(problem).__name__}: {problem}")
            first = f"# not in MLX {mx.__version__}: {' '.join(map(str, block))}: {problem}".splitlines()[0]
            print(first, file=sys.stderr)
            continue
        results += measured
        first_again = first_again or again
    if not args.compat:
        results += measure_control(args, clock, on, before["gbps"], rng, out)
    drift = None
    if first_again is not None and not args.compat:
        first, again = first_again
        drift = {"case": first["case"], "change": again(clock.share())["time_s"] / first["time_s"] - 1}
    after = sentinels.measure()
    out.line("sentinel", when="after", **after)
    out.line("end", drift=drift, wall_s=time.perf_counter() - started)
    return results


def block_case(block) -> dict:
    K, N, B, bits, size, quant, dtype, cache = block
    return {
        "op": "quantized_matmul", "K": K, "N": N, "B": B, "bits": bits, "group_size": size,
        "quant": quant, "dtype": dtype, "cache": cache,
    }  # fmt: skip


def measure_block(args, block, clock, device_gbps, rng, out):
    """All rows and timing modes of one weight. Returns the case lines and how to time the first again."""
    base = block_case(block)
    K, N, B = base["K"], base["N"], base["B"]
    dtype = getattr(mx, base["dtype"])
    weight = Weight(K, N, B, base["bits"], base["group_size"], base["quant"], dtype, base["cache"] == "cold")
    lead = (B,) if B > 1 else ()
    x_all = (mx.random.normal((*lead, max(args.rows), K)) / math.sqrt(K)).astype(dtype)
    reference = Reference(weight, x_all)
    results, first = [], None
    pairs = [(M, timing) for M in args.rows for timing in args.timing]
    for M, timing in pairs if args.compat else rng.sample(pairs, len(pairs)):
        x = x_all[..., :M, :] + mx.array(0, dtype)  # a copy: a batch's slice would be copied at every call
        mx.eval(x)
        error = reference.check(M)
        case = {**base, "M": error.pop("rows"), "dtype": dtype_name(x), "timing": timing}
        output = error.pop("output")
        result = time_cell(timing, weight, x, clock.share(), rng, args.compat)
        if not result["time_s"] > 0:
            reason = "no time above 0 was found: too small an op for this timing and this machine's noise"
            out.line("unsupported", case=case, reason=reason)
            continue
        nbytes = weight.nbytes + x.nbytes + x.nbytes // K * N
        gbps = nbytes / result["time_s"] / 1e9
        line = {"case": case, **result, "error": error, "output": output, "bytes": nbytes, "gbps": gbps}
        line["marks"] = marks_of(line, gbps, device_gbps)
        out.line("case", **line)
        results.append(line)
        if first is None:
            first = (line, lambda share, x=x, timing=timing: time_cell(timing, weight, x, share, rng))
    clear_cache()
    return results, first


def measure_control(args, clock, on, device_gbps, rng, out) -> list[dict]:
    # float32 on a CPU: before 0.25 its matmul knew nothing else, and ended the process.
    side, M, dtype = (4096, 1024, mx.float16) if on != "cpu" else (512, 1, mx.float32)
    weight = Dense(side, side, dtype)
    x = (mx.random.normal((M, side)) / math.sqrt(side)).astype(dtype)
    mx.eval(x)
    lines = []
    for timing in args.timing:
        result = time_cell(timing, weight, x, clock.share(), rng)
        case = {"op": "matmul", "K": side, "N": side, "M": M, "dtype": dtype_name(x), "cache": "hot",
                "timing": timing, "control": True}  # fmt: skip
        nbytes = weight.nbytes + 2 * x.nbytes
        gbps = nbytes / result["time_s"] / 1e9
        lines.append({"case": case, **result, "bytes": nbytes, "gbps": gbps,
                      "marks": marks_of(result, gbps, device_gbps)})  # fmt: skip
        out.line("case", **lines[-1])
    return lines


# ------------------------------------------------------------------ for a person


SHOWN = ("bits", "group_size", "quant", "dtype", "timing", "cache", "B")


def varying(results: list[dict]) -> list[str]:
    """What tells the cases of this run apart beside their shape and M."""
    cases = [line["case"] for line in results if not line["case"].get("control")]
    return [name for name in SHOWN if len({case[name] for case in cases}) > 1]


def tag(case: dict, what: str) -> str:
    wording = {"bits": "{}-bit", "group_size": "group {}", "B": "batch {}"}
    return wording.get(what, "{}").format(case[what])


def print_lines(results: list[dict]) -> None:
    """#3553's own lines: a shape each, times in ms, M=3 against M=1."""
    apart = varying(results)
    shapes: dict[tuple, dict[int, float]] = {}
    for line in results:
        case = line["case"]
        if not case.get("control"):
            key = tuple((k, v) for k, v in case.items() if k != "M")
            shapes.setdefault(key, {})[case["M"]] = line["time_s"] * 1e3
    for key, ms in shapes.items():
        case = dict(key)
        name = f"{case['K']} → {case['N']}"
        if (case["K"], case["N"]) in LABELS:
            name += f" ({LABELS[case['K'], case['N']]})"
        name += "".join(f" {tag(case, what)}" for what in apart)
        text = f"{name + ':':<28}" + "".join(f" M={M}={ms[M]:.3f}ms " for M in sorted(ms))
        if 1 in ms and 3 in ms:
            text += f" (M3/M1={ms[3] / ms[1]:.2f}x)"
        print(text.rstrip())


def print_table(results: list[dict]) -> None:
    """The step table: one line a cell of this one process, so without intervals."""
    print()
    head = f"{'K → N':>15}  {'timing':<16} {'M':>3} {'ms':>9} {'M/M-1':>7} {'M/M=1':>7} {'GB/s':>8}"
    print(f"{head}  error    notes")
    apart = [name for name in varying(results) if name not in ("timing", "cache")]
    groups: dict[tuple, dict[int, dict]] = {}
    for line in results:
        groups.setdefault(shape_key(line), {})[line["case"]["M"]] = line
    for rows in groups.values():
        for M in sorted(rows):
            line, case = rows[M], rows[M]["case"]
            step, whole = (
                f"{line['time_s'] / rows[other]['time_s']:.3f}" if other in rows and other != M else ""
                for other in (M - 1, 1)
            )
            error = f"{line['error']['relative']:.1e}" if "error" in line else "control"
            where = f"{case['K']} → {case['N']}"
            timing = f"{case['timing']}, {case['cache']}"
            tags = [tag(case, what) for what in apart if what in case]
            print(
                f"{where:>15}  {timing:<16} {M:>3} {line['time_s'] * 1e3:9.4f} {step:>7} {whole:>7}"
                f" {line['gbps']:8.3g}  {error:<8} {', '.join([*tags, *line['marks']])}"
            )


def shape_key(line: dict) -> tuple:
    return tuple(v for k, v in line["case"].items() if k != "M")


def numbers(text: str) -> list[int]:
    """``1-4,6,8`` as [1, 2, 3, 4, 6, 8]."""
    found = set()
    for part in text.split(","):
        low, _, high = part.partition("-")
        try:
            span = range(int(low), int(high or low) + 1)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r} is no number or range like 1-4") from None
        if not span or span[0] < 1:
            raise argparse.ArgumentTypeError(f"{part!r} is no range of numbers from 1 up")
        found |= set(span)
    return sorted(found)


def shape(text: str) -> tuple[int, int, int]:
    """``5120x13824`` (K x N) or ``5120x13824x4`` (with a batch of weights)."""
    parts = text.lower().replace("→", "x").split("x")
    if len(parts) not in (2, 3) or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no KxN or KxNxB, such as 5120x13824")
    sizes = [int(p) for p in parts]
    return sizes[0], sizes[1], sizes[2] if len(sizes) == 3 else 1


def choices(*allowed: str):
    def parse(text: str) -> list[str]:
        wrong = [part for part in text.split(",") if part not in allowed]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(allowed)}")
        return list(dict.fromkeys(text.split(",")))

    return parse


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            self.exit(2, f"{self.prog}: error: {message}\n")  # without six lines of usage

    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--preset", choices=sorted(PRESETS), help="default: issue on a GPU, small on a CPU")
    add("--shape", type=shape, action="append", metavar="KxN[xB]", help="instead of a preset; repeatable")
    add("--rows", type=numbers, default=[1, 2, 3, 4], metavar="1-4,6,8", help="values of M (default 1-4)")
    add("--bits", type=numbers, metavar="N,N", help="2,3,4,5,6,8 (default 4; 8 for mxfp8)")
    add("--group-size", type=numbers, help="default 64 (affine), 32 (mxfp4, mxfp8), 16 (nvfp4)")
    add("--quant", type=choices("affine", "mxfp4", "mxfp8", "nvfp4"), default=["affine"])
    add("--dtype", type=choices("float16", "bfloat16", "float32"), default=["float16"])
    add("--timing", type=choices("chain", "throughput", "percall"), default=["chain"])
    add("--cache", type=choices("hot", "cold"), default=["hot"])
    add("--seed", type=int, default=3553)
    add("--budget", type=float, metavar="SECONDS", help="about how long (default 40 on a GPU, 12 on a CPU)")
    add("--compat", action="store_true", help="measure as #3553 does, and print its lines alone")
    add("--json", metavar="PATH|FD", help="protocol v1, one JSON object a line")
    add("--list", action="store_true", help="print the cases and stop")
    args = parser.parse_args(argv)
    on = backend()
    if args.budget is None:
        args.budget = 12.0 if on == "cpu" else 40.0
    if not args.budget > 0:
        parser.error("--budget takes seconds above 0")
    args.bits = args.bits or sorted({4 if 4 in BITS[quant] else 8 for quant in args.quant})
    for quant in args.quant:
        if not set(args.bits) & set(BITS[quant]):  # every mode has some of the bits
            parser.error(f"--bits {args.bits} does not go with {quant}, which has {BITS[quant]}")
    unknown = set(args.bits) - {bits for quant in args.quant for bits in BITS[quant]}
    if unknown:
        parser.error(f"--bits {sorted(unknown)} goes with none of {', '.join(args.quant)}")
    preset = PRESETS[args.preset or ("small" if on == "cpu" else "issue")]
    args.shapes = args.shape or [(K, N, 1) for K, N in preset]
    if args.compat:
        args.timing, args.cache = ["percall"], ["hot"]
    return args


def main() -> int:
    args = parse_arguments()
    if args.list:
        for block in cells_of(args, random.Random(args.seed)):
            case = block_case(block)
            for M in args.rows:
                print(*(f"{k}={v}" for k, v in {**case, "M": M, "timing": "+".join(args.timing)}.items()))
        return 0
    try:
        out = Output(args.json)
    except OSError as problem:
        print(f"{Path(__file__).name}: error: --json {args.json}: {problem.strerror}", file=sys.stderr)
        return 2
    results = run(args, out)
    if args.json is None:
        if all(line["case"].get("control") for line in results):
            return 1
        print_lines(results)
        if not args.compat:
            print_table(results)
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
