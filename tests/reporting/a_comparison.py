"""A comparison written by hand: the machine and times of ``a_session``, ten rounds, and what can go wrong.

``0.32.4`` against ``0.31.2``: faster from M=3 on at one shape. ``fused``: NaN in one cell. ``broken`` does
not compile, ``twin`` is the same build as the baseline.
`python tests/reporting/a_comparison.py` writes the golden files again: read what changed before it is kept.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

from a_session import HEADER, SHAPES, Line, case_line, control_line, run_line

ARMS = ("0.31.2", "0.32.4", "fused")
ROUNDS = 10


def header(arms: tuple[str, ...] = ("0.31.2", "0.32.4", "fused", "broken", "twin"), **view: Any) -> Line:
    found = copy.deepcopy(HEADER)
    found["id"] = "20261126-101500-beef"
    found["command"] = ["compare", "0.31.2", "0.32.4", "fused=#3764", "broken=#17", "twin=v0.31.2"]
    found["view"] = view
    found["plan"]["arms"] = list(arms)
    found["plan"]["compare"] = {
        "baseline": "0.31.2", "again": "", "margin": 0.02, "control": "", "controlled": True,
    }  # fmt: skip
    return found


def cell(arm: str, number: int, K: int, N: int, M: int) -> Line:
    like = "0.32.4" if arm == "fused" else arm
    line = case_line(like, number, K, N, M)
    if arm == "fused":
        line["time_s"] *= 1.001
        line["error"] = dict(line["error"])
        if (N, M) == (13824, 2):
            line["error"]["relative"] = math.nan
    bits = "base" if arm == "0.31.2" else f"{arm} {number}" if M > 1 else "base"
    values = [1.0, 2.0] if bits == "base" else [1.0, 2.0 + M / 1024]
    return {**line, "output": {"inputs": f"{N} {number}", "bits": bits, "values": values}}


def lines(arms: tuple[str, ...] = ARMS, rounds: int = ROUNDS) -> list[Line]:
    found: list[Line] = [
        {
            "kind": "arm", "arm": arm, "release": arm, "backend": "metal", "mlx": arm, "python": "3.12.4",
            "packages": {"mlx": arm}, "wheel_digest": digest * 8, "env": {}, "settings": {}, "sha": "",
            "build": {}, "typed": "#3764" if arm == "fused" else arm,
        }
        for arm, digest in zip(arms, ("fe900534", "8e001020", "77aa0011"), strict=False)
    ]  # fmt: skip
    found.append(
        {
            "kind": "failed-arm",
            "arm": "broken",
            "exit_code": 1,
            "failure": "compile",
            "reason": "broken (3ca86b41f) does not compile: `editions` was not declared (log: /x/y.log)",
        }
    )
    found.append({"kind": "same-build", "arm": "twin", "as": "0.31.2", "typed": "v0.31.2"})
    for number in range(1, rounds + 1):
        for slot, arm in enumerate(arms if number % 2 else arms[::-1]):
            cases = [cell(arm, number, K, N, M) for K, N in SHAPES for M in (3, 1, 4, 2)]
            control = control_line("0.32.4" if arm == "fused" else arm, number)
            found.append(run_line(arm, number, slot, cases=[*cases, control]))
    found.append({"kind": "end", "reason": "every interval is within ±0.75 %"})
    return found


def golden_texts() -> dict[str, str]:
    """What each file under golden/ must hold."""
    from bisect_tool.reporting import compare_report

    two = header(("0.31.2", "0.32.4"), geomean=True)
    upstream = header(("0.31.2", "0.32.4"), layout="upstream")
    pair = [line for line in lines() if line.get("arm") in (None, "0.31.2", "0.32.4")]
    return {
        "compare.md": compare_report.markdown(two, pair).text,
        "compare_several.md": compare_report.markdown(header(), lines()).text,
        "compare_upstream.md": compare_report.markdown(upstream, pair).text,
    }


if __name__ == "__main__":
    for name, text in golden_texts().items():
        (Path(__file__).with_name("golden") / name).write_text(text + "\n", encoding="utf-8")
