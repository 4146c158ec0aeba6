"""A small session written by hand: two arms of #3553's machine, a third that could not be made.

Seven rounds count, one was discarded, one was kept although unsteady. Times are the published ones of #3553
(M4 Pro before, M3 Max's ratios after), moved about by less than 0.4 %.
`python tests/reporting/a_session.py` writes the golden files again: read what changed before it is kept.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

Line = dict[str, Any]

ARMS = ("0.31.2", "0.32.4")
DISCARDED, UNSTEADY = 3, 6
SHAPES = ((5120, 13824), (5120, 5120))
# Seconds by arm, shape and M.
TIMES = {
    ("0.31.2", 13824): (270e-6, 272e-6, 346e-6, 425e-6),
    ("0.32.4", 13824): (270e-6, 273e-6, 284e-6, 301e-6),
    ("0.31.2", 5120): (103e-6, 103.4e-6, 103.2e-6, 131e-6),
    ("0.32.4", 5120): (103e-6, 103.1e-6, 103.3e-6, 103.2e-6),
}
HEADER: Line = {
    "kind": "session",
    "schema": 1,
    "id": "20261122-101500-beef",
    "started": "2026-11-22T10:15:00+0000",
    "tool": "0.1.0",
    "command": ["repro", "0.31.2", "0.32.4", "0.30.2", "--shape", "5120x13824", "--shape", "5120x5120"],
    "format": "markdown",
    "plan": {
        "script": {
            "name": "qmv_step.py",
            "args": ["--shape", "5120x13824", "--shape", "5120x5120"],
            "canonical": True,
            "sha256": "df42fda5de270941c8f414e474b4139607bc50528acae6dfe86d3bb0393dceff",
        },
        "arms": ["0.31.2", "0.32.4", "0.30.2"],
        "backend": "metal",
        "python": "3.12.4",
        "env": {},
        "walls": "sandbox-exec",
        "options": {},
        "seed": 1948775056,
    },
    "settings": {"budget_s": 360.0, "width": 0.0075, "rounds": None, "timeout_s": 600.0},
    "host": {
        "chip": "Apple M4 Pro",
        "cores": 14,
        "os": "macOS 26.1 (25B78)",
        "python": "CPython 3.12.4",
        "gpu": "Apple M4 Pro, 20 cores",
        "gpu_driver": None,
        "gpu_memory_bytes": None,
        "cuda": None,
        "memory_bytes": 51539607552,
        "model": "Mac16,11",
        "toolchain": {"xcode": "26.1", "metal": None},
    },
}


def wobble(*place: object) -> float:
    """Up to 0.4 % either way, different for each round and cell, and the same every time."""
    return 1 + random.Random(repr(place)).uniform(-0.004, 0.004)


def weight_bytes(K: int, N: int) -> int:
    return K * N // 2 + K * N // 64 * 4


def case_line(arm: str, number: int, K: int, N: int, M: int, timing: str = "chain") -> Line:
    seconds = round(TIMES[arm, N][M - 1] * wobble(number, arm, N, M), 9)
    nbytes = weight_bytes(K, N) + 2 * M * (K + N)
    # The first row of 0.32.4 comes from another kernel from M=2 on; one chain in one round was crooked.
    way = {"centre": "mean"} if timing == "percall" else {}
    crooked = (arm, N, M, number) == ("0.31.2", 5120, 4, 5)
    return {
        "kind": "case",
        "case": {
            "op": "quantized_matmul", "K": K, "N": N, "B": 1, "bits": 4, "group_size": 64,
            "quant": "affine", "dtype": "float16", "cache": "hot", "M": M, "timing": timing,
        },
        "time_s": seconds,
        **way,
        "floor_s": 1.5e-4,
        "samples_s": [seconds] * (200 if timing == "percall" else 30),
        "warm_up": {"seconds": 0.51, "ops": 30, "estimate_s": seconds},
        "error": {
            "relative": 4.1e-4 + M * 1e-6,
            "max_abs": 0.002,
            "row_bits_as_m1": not (arm == "0.32.4" and M > 1),
        },
        "bytes": nbytes,
        "gbps": nbytes / seconds / 1e9,
        "marks": ["nonlinear-chain"] if crooked else [],
    }  # fmt: skip


def control_line(arm: str, number: int, timing: str = "chain") -> Line:
    return {
        "kind": "case",
        "case": {
            "op": "matmul", "K": 4096, "N": 4096, "M": 1024, "dtype": "float16", "cache": "hot",
            "timing": timing, "control": True,
        },
        "time_s": 5.1e-3 * round(wobble(arm, number), 4),
        "floor_s": 1.5e-4,
        "samples_s": [5.1e-3] * 30,
        "warm_up": {"seconds": 0.5, "ops": 98, "estimate_s": 5.1e-3},
        "bytes": 50331648,
        "gbps": 9.87,
        "marks": [],
    }  # fmt: skip


def session_run(arm: str, number: int, slot: int) -> Line:
    """A run of the session: every cell in a shuffled order, and what 0.31.2 cannot do."""
    cases = [case_line(arm, number, K, N, M) for K, N in reversed(SHAPES) for M in (3, 1, 4, 2)]
    unsupported = {
        "kind": "unsupported",
        "case": {"quant": "nvfp4", "bits": 4, "dtype": "float16", "K": 5120, "N": 5120},
        "reason": "ValueError: [quantize] Unsupported mode 'nvfp4' | see the documentation\nmore",
    }
    return run_line(
        arm,
        number,
        slot,
        cases=[*cases, control_line(arm, number)],
        unsupported=[unsupported] if arm == "0.31.2" else [],
        drift={"case": cases[0]["case"], "change": round(0.25 * (wobble(number) - 1), 5)},
        notes=[f"load {number / 10:.1f} per core"] if number in (2, 4) else [],
    )


def run_line(arm: str, number: int, slot: int, **other: Any) -> Line:
    """A run that measured nothing but what ``other`` says."""
    return {
        "kind": "run", "round": number, "slot": slot, "order": list(ARMS if slot else ARMS[::-1]), "arm": arm,
        "outcome": "ok", "reason": "", "exit_code": 0, "wall_s": 12.25, "started": 1795369314.5,
        "mlx": arm, "module": f"/builds/environments/{arm}-metal-cp312/mlx/core.so",
        "device": {"architecture": "applegpu_g16s"},
        "pinned": {"MLX_MAX_OPS_PER_BUFFER": "20", "MLX_MAX_MB_PER_BUFFER": "100000"},
        "cases": [], "metrics": [], "sentinels": {}, "unsupported": [],
        "drift": None, "notes": [], "log": "log", **other,
    }  # fmt: skip


def lines() -> list[Line]:
    """What the ledger holds after its header. Arms take turns in going first; the first round starts with the
    second arm."""
    found: list[Line] = [
        {
            "kind": "arm", "arm": arm, "release": arm, "backend": "metal", "mlx": arm, "python": "3.12.4",
            "packages": {"mlx": arm}, "wheel_digest": digest * 8, "env": {}, "settings": {}, "sha": "",
            "build": {},
        }
        for arm, digest in zip(ARMS, ("fe900534", "8e001020"), strict=True)
    ]  # fmt: skip
    why = "mlx 0.30.2 has no wheel for the metal backend with CPython 3.12.4 (the nearest 0.30.1, 0.30.3)"
    found.append({"kind": "failed-arm", "arm": "0.30.2", "reason": why, "exit_code": 1})
    for number in range(1, 9):
        for slot, arm in enumerate(ARMS[::-1] if number % 2 else ARMS):
            found.append(session_run(arm, number, slot))
            if number == DISCARDED:
                reason = "throttled: the arithmetic sentinel slowed by 6.0 % during the run"
                found.append({"kind": "discard", "round": number, "reason": reason})
                break
            if number == UNSTEADY and slot == 1:
                reason = "another speed: the bandwidth sentinel is +4.9 % off this session's median"
                found.append({"kind": "unsteady", "round": number, "reason": reason})
    found.append({"kind": "end", "reason": "every interval is within ±0.75 %"})
    return found


SHAS = {"v0.31.2": "1a2b3c4d5" + "0" * 31, "#3764": "548dd80e8" + "0" * 31}
REMEDIES = [
    {"name": "old CMake policies", "why": "a CMakeLists.txt asks for a CMake older than 3.5"},
    {"name": "#include <cstdint>", "why": "a file uses it without including it"},
]


def commits() -> tuple[Line, list[Line]]:
    """The same session, of commits that were built. The first needed remedies; the second has the files of an
    earlier one, whose build it got."""
    named = dict(zip(ARMS, SHAS, strict=True))
    text = json.dumps([HEADER, *lines()])
    for arm, name in named.items():
        text = text.replace(f'"{arm}"', f'"{name}"')
    header, *found = json.loads(text)
    for line in found:
        if line["kind"] != "arm":
            continue
        first = line["arm"] == "v0.31.2"
        line |= {"release": "", "sha": SHAS[line["arm"]], "mlx": "0.31.2" if first else "0.32.0"}
        line["build"] = {
            "key": ("5f6e7d8c" if first else "9a8b7c6d") * 8,
            "sha": line["sha"] if first else "aaaabbbbc" + "0" * 31,
            "subject": "Faster quantized matvec",
            "recipe": {
                "requirements": ["cmake>=3.25", "setuptools>=80"],
                "options": {"CMAKE_BUILD_TYPE": "Plain", "MLX_BUILD_METAL": "ON"},
                "flags": "-include cstdint -O3 -DNDEBUG" if first else "-O3 -DNDEBUG",
                "remedies": REMEDIES if first else [],
            },
            "toolchain": {"compiler": "Apple clang version 17.0.0 (clang-1700.0.13.5)", "Xcode": "26.1"},
            "walls": "sandbox-exec",
        }
    return header, found


def per_call(arms: tuple[str, ...] = ("0.31.2",), rounds: int = 3) -> list[Line]:
    """A session measured as #3553 does: one op an eval, 200 times."""
    found = []
    for number in range(1, rounds + 1):
        for slot, arm in enumerate(arms):
            cases = [case_line(arm, number, K, N, M, "percall") for K, N in SHAPES for M in (1, 2, 3, 4)]
            found.append(run_line(arm, number, slot, cases=[*cases, control_line(arm, number, "percall")]))
    return found


def golden_texts() -> dict[str, str]:
    """What each file under golden/ must hold."""
    from bisect_tool.reporting import report

    several = [line for line in lines() if line["kind"] != "end"]
    early = [line for line in several if line.get("round", 0) <= 2]
    return {
        "session.md": report.markdown(HEADER, lines()),
        "after_two_rounds.md": report.markdown(HEADER, early),
        "commits.md": report.markdown(*commits()),
        "compat.txt": report.compat(per_call()),
    }


if __name__ == "__main__":
    for name, text in golden_texts().items():
        (Path(__file__).with_name("golden") / name).write_text(text + "\n", encoding="utf-8")
