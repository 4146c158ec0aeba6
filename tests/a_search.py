"""Ledgers of searches, as `bisect` writes them, with runs that a function gives."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from bisect_tool.analysis import stages as replay
from bisect_tool.analysis.attribution import AllSteps
from bisect_tool.analysis.problem import Done, Prove

Line = dict[str, Any]
DAY = 86_400
HEADER: Line = {
    "kind": "session", "schema": 1, "id": "20260301-120000-abcdef", "started": "2026-03-01T12:00:00+0000",
    "tool": "0.1.0", "format": "markdown", "walls": "bubblewrap", "notes": ["b comes before a: swapped"],
    "command": ["bisect", "v1..v2", "--script", "spin.py", "--backend", "cpu", "--", "7"],
    "repository": "https://github.com/ml-explore/mlx.git",
    "plan": {
        "script": {"name": "spin.py", "args": [], "canonical": False, "sha256": "0" * 64},
        "arms": ["v1", "v2"], "backend": "cpu", "seed": 1,
        "bisect": {"metric": None, "find": "any", "paths": [], "suspects": []},
    },
    "host": {"chip": "a chip", "cores": 2, "memory_bytes": 2**33, "os": "an OS"},
}  # fmt: skip


def position(number: int, **changes: Any) -> Line:
    sha = f"{number:02d}" + "ab" * 19
    return {
        "label": sha[:9], "sha": sha, "subject": f"Change {number} | more (#{100 + number})",
        "committed": 1_700_000_000 + number * DAY, "pull": 100 + number, "tag": "", "same": 0,
        "build_s": 60.0, "prior": 1.0, **changes,
    }  # fmt: skip


def arm(label: str, digest: str = "", built_s: float = 5.0) -> Line:
    return {"kind": "arm", "arm": label, "release": "", "sha": label, "build": {}, "backend": "cpu",
            "mlx": "1", "wheel_digest": digest or f"digest of {label}", "python": "3.12", "env": {},
            "settings": {}, "built_s": built_s}  # fmt: skip


def search_of(
    last: int,
    value: Callable[[int, int], float],
    *,
    untestable: Collection[int] = (),
    mode: str = "log",
    most: int = 400,
    **search: Any,
) -> list[Line]:
    """The lines of a search over ``last`` + 1 builds; ``value(position, round)`` is what a run gives."""
    places = [position(number) for number in range(last + 1)]
    name = {"kind": "metric", "name": "spin", "of": "script", "unit": "s"}
    if mode == "passfail":
        name = {"kind": "metric", "name": "exit", "of": "exit", "unit": ""}
    lines: list[Line] = [
        {"kind": "stage", "number": 0, "name": "commits", "commits": 2 * last, "positions": places},
        arm(places[0]["label"]),
        arm(places[last]["label"]),
        name,
        {"kind": "search", "stage": 0, "confidence": 0.95, "prove": True, "every": mode != "passfail",
         "first": 0, "last": last, "purpose": "range", "mode": mode, "run_s": 1.0, **search},
    ]  # fmt: skip
    number = 0
    for _ in range(most):
        (stage,) = replay.stages(lines)
        todo = stage.next()
        if isinstance(todo, AllSteps):
            return [*lines, {"kind": "end", "reason": "found"}]
        assert todo is not None and not isinstance(todo.action, Done)
        for order in todo.action.rounds:
            labels = [places[at]["label"] for at in order]
            if bad := [at for at in order if at in untestable]:
                reason = "does not compile"
                lines.append({"kind": "untestable", "stage": 0, "position": bad[0], "reason": reason})
                break
            known = {line["arm"] for line in lines if line["kind"] == "arm"}
            lines += [arm(label) for label in labels if label not in known]
            number += 1
            proof = {"proof": True} if isinstance(todo.action, Prove) else {}
            for slot, at in enumerate(order):
                lines.append(run(number, slot, labels, labels[slot], value(at, number), mode, **proof))
    raise AssertionError("no end")


def run(number: int, slot: int, order: list[str], label: str, value: float, mode: str, **about: Any) -> Line:
    told = [{"metric": "spin", "value": value, "unit": "s"}] if mode != "passfail" else []
    outcome = "ok" if mode != "passfail" else "bad" if value else "good"
    return {"kind": "run", "round": number, "slot": slot, "order": order, "stage": 0, **about, "arm": label,
            "outcome": outcome, "wall_s": 1.0, "cases": [], "metrics": told, "sentinels": {}, "drift": None,
            "module": "mlx", "notes": []}  # fmt: skip
