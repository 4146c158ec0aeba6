#!/usr/bin/env python3
"""What does one forward of M tokens cost, after a prefill, and how much of it is quantized linears?

The whole-model table of ml-explore/mlx#3553, and its claim that the step is entirely in the linear
projections. Standard library, mlx, and `qmv_step.py` beside it; MLX 0.25 to 0.32, Metal, CUDA and CPU.

    python model_forward.py                       preset qwen-27b (small on a CPU), M = 1-8
    python model_forward.py --hidden 4096 --intermediate 14336 --heads 32 --kv-heads 8 --layers 32
    python model_forward.py --model PATH|ID       a real checkpoint, where mlx-lm is installed
    python model_forward.py --json out.jsonl      one JSON object a line (a path, or a file descriptor)

By default the model has random quantized weights and few layers: a decoder layer is norm, q, k, v, rotation,
attention over the prefilled cache, o, norm, gate, up, down. It is timed at two depths, in turn; the slope
over layers is what a layer costs, the rest is the head, the launch and the wait, and the whole depth is
`rest + layers · slope`. One step is one `mx.eval`, as a decoding loop has it. Then every linear is timed on
its own (`qmv_step.py`'s chain): the bill.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import math
import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import NoReturn

import qmv_step as q  # sets what it pins before it imports mlx

import mlx.core as mx  # isort: skip


# Dense decoders. Layers, widths and vocabulary of Qwen3.5-27B's configuration, #3553's attention widths:
# three of four layers of the checkpoint have linear attention instead.
PRESETS = {
    "qwen-27b": {"layers": 64, "hidden": 5120, "intermediate": 17408, "heads": 40, "kv_heads": 8,
                 "vocab": 248320, "prefill": 512, "depths": [2, 6]},
    "small": {"layers": 8, "hidden": 128, "intermediate": 384, "heads": 2, "kv_heads": 1,
              "vocab": 512, "prefill": 32, "depths": [1, 3]},
}  # fmt: skip
SIZES = ("layers", "hidden", "intermediate", "heads", "kv_heads", "vocab", "prefill")
MIN_SAMPLES, MAX_SAMPLES = 5, 60
WARM_STEPS = {"metal": 10, "cuda": 10, "cpu": 1}


# ------------------------------------------------------------------ the model


def linears(args) -> list[tuple[str, int, int, int]]:
    """(name, K, N, how many in a layer) of every linear; the head counts once a model, as 0 a layer."""
    wide, narrow = args.hidden, args.hidden // args.heads * args.kv_heads
    return [
        ("q", wide, wide, 1),
        ("k, v", wide, narrow, 2),
        ("o", wide, wide, 1),
        ("gate, up", wide, args.intermediate, 2),
        ("down", args.intermediate, wide, 1),
        ("head", wide, args.vocab, 0),
    ]


class Linear:
    """A quantized weight without bias."""

    def __init__(self, K, N, args):
        self.kwargs = {"group_size": args.group_size, "bits": args.bits, **q.mode_args(args.quant)}
        weight = (mx.random.normal((N, K)) / math.sqrt(K)).astype(args.mx_dtype)
        self.parts = tuple(mx.quantize(weight, **self.kwargs))
        mx.eval(*self.parts)

    def __call__(self, x):
        return mx.quantized_matmul(x, *self.parts, transpose=True, **self.kwargs)


class Layer:
    def __init__(self, args):
        self.args = args
        wide, narrow = args.hidden, args.hidden // args.heads * args.kv_heads
        self.q, self.o = Linear(wide, wide, args), Linear(wide, wide, args)
        self.k, self.v = Linear(wide, narrow, args), Linear(wide, narrow, args)
        self.gate, self.up = (Linear(wide, args.intermediate, args) for _ in range(2))
        self.down = Linear(args.intermediate, wide, args)
        self.norms = [mx.ones((wide,), dtype=args.mx_dtype) for _ in range(2)]
        mx.eval(self.norms)

    def __call__(self, x, cache):
        """``cache``: keys and values of the rows before, or None. Returns the output and the longer cache."""
        args, rows = self.args, x.shape[1]
        size = args.hidden // args.heads
        before = 0 if cache is None else cache[0].shape[2]
        y = mx.fast.rms_norm(x, self.norms[0], 1e-6)

        def heads(z, count):
            return z.reshape(1, rows, count, size).transpose(0, 2, 1, 3)

        queries, keys, values = heads(self.q(y), args.heads), heads(self.k(y), args.kv_heads), self.v(y)
        values = heads(values, args.kv_heads)
        turn = {"traditional": False, "base": 1e6, "scale": 1.0, "offset": before}
        queries, keys = mx.fast.rope(queries, size, **turn), mx.fast.rope(keys, size, **turn)
        if cache is not None:
            keys = mx.concatenate([cache[0], keys], axis=2)
            values = mx.concatenate([cache[1], values], axis=2)
        # Row i sees everything before the rows, and the rows up to itself.
        seen = mx.arange(before + rows)[None] <= mx.arange(before, before + rows)[:, None]
        mask = mx.where(seen, 0.0, -1e4).astype(x.dtype) if rows > 1 else None
        attended = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=size**-0.5, mask=mask)
        x = x + self.o(attended.transpose(0, 2, 1, 3).reshape(1, rows, args.hidden))
        y = mx.fast.rms_norm(x, self.norms[1], 1e-6)
        gate = self.gate(y)
        return x + self.down(gate * mx.sigmoid(gate) * self.up(y)), (keys, values)


class RandomModel:
    """Random weights, prefilled; ``step(M, depth)`` builds a forward of M rows through so many layers."""

    def __init__(self, args):
        self.args, self.depths = args, args.depths
        self.layers = [Layer(args) for _ in range(max(args.depths))]
        self.head = Linear(args.hidden, args.vocab, args)
        self.norm = mx.ones((args.hidden,), dtype=args.mx_dtype)
        self.rows = mx.random.normal((1, max(args.rows), args.hidden)).astype(args.mx_dtype)
        mx.eval(self.norm, self.rows)
        self.caches = []
        x = mx.random.normal((1, args.prefill, args.hidden)).astype(args.mx_dtype)
        for layer in self.layers:
            x, cache = layer(x, None)
            mx.eval(x, *cache)
            self.caches.append(cache)

    def step(self, M, depth):
        x = self.rows[:, :M]
        for layer, cache in zip(self.layers[:depth], self.caches[:depth]):  # noqa: B905  of one length
            x, _ = layer(x, cache)
        return self.head(mx.fast.rms_norm(x, self.norm, 1e-6))


class Checkpoint:
    """A real model of mlx-lm, at its own depth."""

    def __init__(self, args):
        from mlx_lm.models.cache import make_prompt_cache
        from mlx_lm.utils import load_model

        found = load_model(checkpoint_folder(args.model))
        self.model = found[0] if isinstance(found, tuple) else found
        self.depths = [len(self.model.layers)]
        self.tokens = mx.random.randint(0, 1000, (1, args.prefill + max(args.rows)))
        self.prefill, self.make_cache = args.prefill, make_prompt_cache
        mx.eval(self.model.parameters(), self.tokens)
        self.cache = None

    def ready(self, M):
        """A cache that holds the prefill alone: trimmed where its kind can be, else made again."""
        from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

        if self.cache is not None and can_trim_prompt_cache(self.cache):
            trim_prompt_cache(self.cache, M)
            return
        self.cache = self.make_cache(self.model)
        mx.eval(self.model(self.tokens[:, : self.prefill], cache=self.cache))

    def step(self, M, _depth):
        return self.model(self.tokens[:, self.prefill : self.prefill + M], cache=self.cache)


def checkpoint_folder(name):
    """The folder of a checkpoint: a path, or an id that the hub's own cache holds."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, local_files_only=True))


# ------------------------------------------------------------------ how much memory


def weight_bytes(args, K, N):
    per_weight = args.bits / 8 + (4 if args.quant == "affine" else 1) / args.group_size
    return per_weight * K * N


def needed_bytes(args) -> int:
    """Weights of the deepest model timed, its cache, the head, the largest weight before it is quantized, and
    the ring of weights of the bill."""
    size = {"float32": 4}.get(args.dtype, 2)
    shapes = linears(args)
    layer = sum(weight_bytes(args, K, N) * count for _, K, N, count in shapes)
    head = weight_bytes(args, args.hidden, args.vocab)
    narrow = args.hidden // args.heads * args.kv_heads
    cache = 2 * (args.prefill + max(args.rows)) * narrow * size
    largest = max(K * N for _, K, N, _ in shapes) * (4 + size)
    ring = max(q.COLD_BYTES, 8 * head) if args.bill_cache == "cold" else head
    return int(max(args.depths) * (layer + cache) + head + largest + ring)


def free_bytes() -> int:
    """What can be had now: of a CUDA device what is free, of Metal what it recommends to use at most, of a
    machine what it calls available; where that is not told, all there is."""
    info = q.device_info()
    names = ("free_memory", "max_recommended_working_set_size", "memory_size", "total_memory")
    found = next((info[name] for name in names if info.get(name)), None)
    if found and q.backend() != "cpu":
        return int(found)
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# ------------------------------------------------------------------ timing


def time_steps(model, M, share, rng) -> dict:
    """Steps at each depth in turn, shuffled, until the share is spent. Seconds by depth, in a list each."""
    samples: dict[int, list[float]] = {depth: [] for depth in model.depths}

    def once(depth) -> float:
        if isinstance(model, Checkpoint):
            model.ready(M)
        start = time.perf_counter()
        mx.eval(model.step(M, depth))
        return time.perf_counter() - start

    started = time.perf_counter()
    for depth in model.depths:
        for _ in range(WARM_STEPS[q.backend()]):
            once(depth)
    warm = {"seconds": time.perf_counter() - started, "ops": WARM_STEPS[q.backend()] * len(model.depths)}
    gc.collect()
    gc.disable()
    try:
        done = 0
        deadline = time.perf_counter() + share - warm["seconds"]
        while done < MAX_SAMPLES and (done < MIN_SAMPLES or time.perf_counter() < deadline):
            for depth in rng.sample(model.depths, len(model.depths)):
                samples[depth].append(once(depth))
            done += 1
    finally:
        gc.enable()
    return {"samples": samples, "warm_up": warm}


def scaled(samples: dict, layers: int) -> dict:
    """The time of the whole depth: from the medians at two depths, or as measured at the only one."""
    middle = {depth: statistics.median(times) for depth, times in samples.items()}
    if len(middle) == 1:
        ((_, seconds),) = middle.items()
        return {"time_s": seconds, "layer_s": None, "rest_s": None}
    low, high = min(middle), max(middle)
    layer = (middle[high] - middle[low]) / (high - low)
    rest = middle[low] - low * layer
    return {"time_s": rest + layers * layer, "layer_s": layer, "rest_s": rest}


# ------------------------------------------------------------------ the run


def own_files() -> dict:
    """This file and the one it uses, with their digests."""
    paths = [Path(__file__), Path(q.__file__)]
    both = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return {"script": Path(__file__).name, "script_sha256": both[Path(__file__).name], "files": both}


def run(args, out) -> list[dict]:
    """Steps, then the bill. Returns the case lines; raises nothing that the model can raise."""
    on = q.backend()
    rng = random.Random(args.seed)
    mx.random.seed(args.seed)
    started = time.perf_counter()
    out.line("host", **{**q.host_line(args, on), **own_files()})
    sentinels = q.Sentinels(on != "cpu", mx.float16)
    before = sentinels.measure()
    out.line("sentinel", when="before", **before)
    bill = [] if args.model else bill_shapes(args)
    # Half of the time for the steps, half for the bill.
    clock = q.Clock(args.budget / 2 if bill else args.budget, len(args.rows) + 1)
    results, drift = [], None
    try:
        model = Checkpoint(args) if args.model else RandomModel(args)
    except Exception as problem:
        case = {"quant": args.quant, "bits": args.bits, "dtype": args.dtype, "op": "model_step"}
        out.line("unsupported", case=case, reason=f"{type(problem).__name__}: {problem}")
        print(f"# cannot be run in MLX {mx.__version__}: {problem}".splitlines()[0], file=sys.stderr)
        return []
    layers = args.layers if not args.model else model.depths[0]
    base = {
        "op": "model_step", "K": args.hidden, "N": args.intermediate, "layers": layers, "bits": args.bits,
        "group_size": args.group_size, "quant": args.quant, "dtype": args.dtype, "timing": "step",
        "cache": f"prefill {args.prefill}",
    }  # fmt: skip
    if args.model:
        base["model"] = Path(args.model).name
    layer_bytes = sum(weight_bytes(args, K, N) * count for _, K, N, count in linears(args))
    nbytes = int(layers * layer_bytes + weight_bytes(args, args.hidden, args.vocab))
    first = None
    for M in rng.sample(args.rows, len(args.rows)):
        found = time_steps(model, M, clock.share(), rng)
        result = scaled(found["samples"], layers)
        line = {
            "case": {**base, "M": M}, **result, "warm_up": found["warm_up"], "bytes": nbytes,
            "depths": {str(depth): times for depth, times in found["samples"].items()},
            "samples_s": found["samples"][max(found["samples"])],
            "gbps": nbytes / result["time_s"] / 1e9 if result["time_s"] > 0 else 0.0, "marks": [],
        }  # fmt: skip
        if not result["time_s"] > 0 or (result["layer_s"] is not None and not result["layer_s"] > 0):
            reason = "deeper models were not slower: too small a model for this machine's noise"
            out.line("unsupported", case={**base, "M": M}, reason=reason)
            continue
        out.line("case", **line)
        results.append(line)
        first = first or (M, line)
    if first is not None:
        M, line = first
        again = scaled(time_steps(model, M, clock.share(), rng)["samples"], layers)
        drift = {"case": line["case"], "change": again["time_s"] / line["time_s"] - 1}
    del model
    q.clear_cache()
    clock = q.Clock(args.budget - (time.perf_counter() - started), len(bill) * len(args.rows) or 1)
    for K, N, count, heads in rng.sample(bill, len(bill)):
        results += bill_lines(args, K, N, count, heads, clock, before["gbps"], rng, out)
    after = sentinels.measure()
    out.line("sentinel", when="after", **after)
    out.line("end", drift=drift, wall_s=time.perf_counter() - started)
    return results


def bill_shapes(args) -> list[tuple[int, int, int, int]]:
    """(K, N, how many in a layer, how many in the head) of the shapes there are, each once."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for name, K, N, count in linears(args):
        entry = shapes.setdefault((K, N), [0, 0])
        entry[0] += count
        entry[1] += name == "head"
    return [(K, N, counts[0], counts[1]) for (K, N), counts in shapes.items()]


def bill_lines(args, K, N, count, heads, clock, device_gbps, rng, out) -> list[dict]:
    """One linear of the model on its own, at every M."""
    weight = q.Weight(
        K, N, 1, args.bits, args.group_size, args.quant, args.mx_dtype, args.bill_cache == "cold"
    )
    lines = []
    for M in rng.sample(args.rows, len(args.rows)):
        x = (mx.random.normal((M, K)) / math.sqrt(K)).astype(args.mx_dtype)
        mx.eval(x)
        case = {
            "op": "quantized_matmul", "K": K, "N": N, "B": 1, "M": M, "bits": args.bits,
            "group_size": args.group_size, "quant": args.quant, "dtype": q.dtype_name(x),
            "cache": args.bill_cache, "timing": "chain",
        }  # fmt: skip
        result = q.time_cell("chain", weight, x, clock.share(), rng)
        if not result["time_s"] > 0:
            out.line("unsupported", case=case, reason="no time above 0 was found: too small an op")
            continue
        nbytes = weight.nbytes + x.nbytes + x.nbytes // K * N
        gbps = nbytes / result["time_s"] / 1e9
        line = {"case": case, **result, "bytes": nbytes, "gbps": gbps, "per_layer": count, "in_head": heads}
        line["marks"] = q.marks_of(line, gbps, device_gbps)
        out.line("case", **line)
        lines.append(line)
    q.clear_cache()
    return lines


# ------------------------------------------------------------------ for a person


def print_tables(args, results) -> None:
    steps = {line["case"]["M"]: line for line in results if line["case"]["op"] == "model_step"}
    bill = [line for line in results if line["case"]["op"] != "model_step"]
    if not steps:
        return
    layers = next(iter(steps.values()))["case"]["layers"]
    depths = sorted(int(depth) for depth in next(iter(steps.values()))["depths"])
    how = (
        f"{layers} layers, measured whole" if depths == [layers] else f"{layers} layers, scaled from {depths}"
    )
    print(f"one forward of M tokens after {args.prefill}; {how}")
    print(f"{'M':>3} {'ms':>10} {'M/M=1':>7} {'layer ms':>9} {'rest ms':>8} {'bill ms':>9} {'share':>6}")
    for M in sorted(steps):
        line = steps[M]
        ratio = f"{line['time_s'] / steps[1]['time_s']:.2f}" if 1 in steps else ""
        parts = [
            f"{line[name] * 1e3:.3f}" if line[name] is not None else "" for name in ("layer_s", "rest_s")
        ]
        of_m = [one for one in bill if one["case"]["M"] == M]
        total = sum(one["time_s"] * (one["per_layer"] * layers + one["in_head"]) for one in of_m)
        paid = f"{total * 1e3:9.3f} {total / line['time_s']:>6.0%}" if of_m else ""
        print(f"{M:>3} {line['time_s'] * 1e3:10.3f} {ratio:>7} {parts[0]:>9} {parts[1]:>8} {paid}".rstrip())


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            self.exit(2, f"{self.prog}: error: {message}\n")

    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--preset", choices=sorted(PRESETS), help="default: qwen-27b on a GPU, small on a CPU")
    for name in SIZES:
        add("--" + name.replace("_", "-"), type=int, metavar="N", help="instead of the preset's")
    add("--depths", type=q.numbers, metavar="A,B", help="layers that are built and timed (two numbers)")
    add(
        "--rows", type=q.numbers, default=list(range(1, 9)), metavar="1-4,6", help="values of M (default 1-8)"
    )
    add("--bits", type=int, default=4)
    add("--group-size", type=int, default=64)
    add("--quant", choices=sorted(q.BITS), default="affine")
    add("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    add(
        "--bill-cache",
        choices=("hot", "cold"),
        help="default: cold on a GPU, hot on a CPU",
    )
    add("--model", metavar="PATH|ID", help="a checkpoint for mlx-lm, which must be installed")
    add("--seed", type=int, default=3553)
    add("--budget", type=float, metavar="SECONDS", help="about how long (default 60 on a GPU, 20 on a CPU)")
    add("--json", metavar="PATH|FD", help="protocol v1, one JSON object a line")
    add("--list", action="store_true", help="print what would be timed and stop")
    args = parser.parse_args(argv)
    on = q.backend()
    preset = PRESETS[args.preset or ("small" if on == "cpu" else "qwen-27b")]
    for name in (*SIZES, "depths"):
        if getattr(args, name) is None:
            setattr(args, name, preset[name])
        elif name != "depths" and getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} takes a number from 1 up")
    args.bill_cache = args.bill_cache or ("hot" if on == "cpu" else "cold")
    args.mx_dtype = getattr(mx, args.dtype)
    if args.budget is None:
        args.budget = 20.0 if on == "cpu" else 60.0
    if not args.budget > 0:
        parser.error("--budget takes seconds above 0")
    check_sizes(args, parser)
    return args


def check_sizes(args, parser) -> None:
    """What cannot be built is said before anything is: sizes that do not divide, memory, a checkpoint."""
    if args.bits not in q.BITS[args.quant]:
        parser.error(f"--bits {args.bits} does not go with {args.quant}, which has {q.BITS[args.quant]}")
    if args.model:
        try:
            import mlx_lm  # noqa: F401
        except ImportError:
            parser.error("--model needs mlx-lm, which is not here; leave it out for random weights")
        try:
            checkpoint_folder(args.model)
        except Exception:
            parser.error(f"--model {args.model}: no such folder, and no checkpoint of that name is here")
        return
    if args.hidden % args.heads or args.heads % args.kv_heads or (args.hidden // args.heads) % 2:
        sizes = f"hidden {args.hidden}, heads {args.heads} and kv-heads {args.kv_heads}"
        parser.error(f"{sizes} do not divide into heads of an even size")
    odd = [K for _, K, _, _ in linears(args) if K % args.group_size]
    if odd:
        parser.error(f"{odd[0]} is no multiple of the group size {args.group_size}")
    if len(args.depths) != 2:
        parser.error("--depths takes two numbers of layers, such as 2,6")
    need, have = needed_bytes(args), free_bytes()
    if need > have:
        parser.error(f"{need / 2**30:.1f} GiB are needed for this model and {have / 2**30:.1f} are free")


def main() -> int:
    args = parse_arguments()
    if args.list:
        print(f"one forward of M tokens after {args.prefill}, M = {args.rows}, depths {args.depths}")
        for name, K, N, count in linears(args):
            print(f"{name}: K={K} N={N}, {f'{count} a layer' if count else 'once'}")
        return 0
    try:
        out = q.Output(args.json)
    except OSError as problem:
        print(f"{Path(__file__).name}: error: --json {args.json}: {problem.strerror}", file=sys.stderr)
        return 2
    results = run(args, out)
    if args.json is None:
        print_tables(args, results)
    return 0 if results else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
