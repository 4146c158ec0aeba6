"""One quantized matmul, for a profiler to look at: standard library and MLX alone.

    python one_call.py K N M [--bits 4] [--group-size 64] [--quant affine] [--dtype float16]
                       [--no-transpose] [--without] [--capture FILE.gputrace]

``--without`` does all but the matmul: what a profiler sees in one run and not in the other is the op's.
``--capture`` writes a Metal capture of the matmul, to be opened in Xcode (macOS, with MTL_CAPTURE_ENABLED=1).
"""

from __future__ import annotations

import argparse

import mlx.core as mx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("K", "N", "M"):
        parser.add_argument(name, type=int)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--quant", default="affine")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--no-transpose", action="store_true")
    parser.add_argument("--without", action="store_true")
    parser.add_argument("--capture")
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
    if args.without:
        return
    if args.capture:
        mx.metal.start_capture(args.capture)
    mx.eval(mx.quantized_matmul(x, *parts, transpose=not args.no_transpose, **how))
    if args.capture:
        mx.metal.stop_capture()


if __name__ == "__main__":
    main()
