"""What Linux's `perf` says: where samples fell, and what was counted. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Function:
    """``share``: of all samples, 0 to 1. ``library``: the file it is in, without its folder."""

    name: str
    library: str
    share: float


@dataclass(frozen=True)
class Sampled:
    """Calls of one cell on a CPU. ``functions``: where ``samples`` fell. ``counters``: of ``calls`` calls, by
    event; empty where the machine counts nothing, as in many virtual ones."""

    functions: tuple[Function, ...]
    samples: int
    counters: Mapping[str, float]
    calls: int


def functions(text: str) -> tuple[list[Function], int]:
    """Of ``perf report --stdio -t '|' -F overhead,sample,dso,symbol``, the largest share first, and how many
    samples there are. A function without a symbol goes by its address's library alone."""
    found: dict[tuple[str, str], tuple[float, int]] = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|", 3)]
        if len(parts) != 4 or not re.fullmatch(r"[\d.]+%", parts[0]):
            continue
        name = re.sub(r"^\[[.k]\]\s*", "", parts[3])
        if re.fullmatch(r"0x[0-9a-f]+", name):
            name = "(no symbol)"
        share, samples = found.get((name, parts[2]), (0.0, 0))
        found[name, parts[2]] = (share + float(parts[0][:-1]) / 100, samples + int(parts[1]))
    ordered = sorted(found.items(), key=lambda item: -item[1][0])
    return [Function(name, library, share) for (name, library), (share, _) in ordered], sum(
        samples for _, samples in found.values()
    )


def counters(text: str) -> Mapping[str, float]:
    """Of ``perf stat -x '|'``: counts by the event's name without its modifier; what this machine does not
    count is missing."""
    found = {}
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) > 2 and re.fullmatch(r"[\d.]+", parts[0]):
            found[parts[2].partition(":")[0]] = float(parts[0])
    return found
