"""One quantized matmul again and again, for a profiler to look at: standard library and MLX alone.

    python one_call.py K N M [--bits 4] [--group-size 64] [--quant affine] [--dtype float16]
                       [--no-transpose] [--calls 1 | --seconds 2] [--gate cuda|metal:FILE|perf:CONTROL,ACK]

The weight is made and the op warmed up first; then the gate opens, the calls are made one by one, and the
gate closes: a profiler that heeds it sees the calls and nothing else. Prints how many there were.

cuda   cuProfilerStart and cuProfilerStop (`ncu --profile-from-start off`)
metal  a Metal capture, to be opened in Xcode (macOS, with MTL_CAPTURE_ENABLED=1)
perf   "enable" and "disable" to a FIFO, each answered in the other one (`perf --control fifo:CONTROL,ACK`)
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import time
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx

WARM_UP = 3
NO_CONTEXT = 201  # CUDA_ERROR_INVALID_CONTEXT


@contextlib.contextmanager
def gate(text: str) -> Iterator[None]:
    """What is said to a profiler before and after; nothing for ''."""
    kind, _, where = text.partition(":")
    if kind == "cuda":
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuProfilerStart() == NO_CONTEXT:  # MLX launches from a thread of its own
            context = ctypes.c_void_p()
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
            driver.cuCtxSetCurrent(context)
            if code := driver.cuProfilerStart():
                raise SystemExit(f"error: cuProfilerStart failed with {code}")
        yield
        driver.cuProfilerStop()
    elif kind == "metal":
        mx.metal.start_capture(where)
        yield
        mx.metal.stop_capture()
    elif kind == "perf":
        control, answers = where.split(",")
        with Path(control).open("w") as ask, Path(answers).open() as hear:
            for word in ("enable", "disable"):
                print(word, file=ask, flush=True)
                hear.readline()
                if word == "enable":
                    yield
    else:
        yield


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("K", "N", "M"):
        parser.add_argument(name, type=int)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--quant", default="affine")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--no-transpose", action="store_true")
    parser.add_argument("--calls", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="calls until then, at least --calls")
    parser.add_argument("--gate", default="")
    args = parser.parse_args()
    mx.random.seed(3553)
    dtype = getattr(mx, args.dtype)
    shape = (args.K, args.N) if args.no_transpose else (args.N, args.K)
    how = {"bits": args.bits, "group_size": args.group_size}
    if args.quant != "affine":
        how["mode"] = args.quant
    x = mx.random.normal((args.M, args.K)).astype(dtype)
    parts = mx.quantize(mx.random.normal(shape).astype(dtype), **how)
    mx.eval(x, parts)

    def call() -> None:
        mx.eval(mx.quantized_matmul(x, *parts, transpose=not args.no_transpose, **how))

    for _ in range(WARM_UP):
        call()
    with gate(args.gate):
        until = time.perf_counter() + (args.seconds or 0.0)
        done = 0
        while done < args.calls or time.perf_counter() < until:
            call()
            done += 1
    print(done)


if __name__ == "__main__":
    main()
