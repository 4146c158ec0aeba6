"""The repro protocol: what a script's output lines say. Fed bytes, keeps what they mean; no I/O.

Version 1, one JSON object a line: ``host`` once, then ``sentinel``, ``case`` and ``unsupported`` lines, then
``end``. The simple protocol: ``{"metric": name, "value": x, "unit": "s"}`` lines. docs/protocol.md has both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

VERSION = 1
MAX_LINE = 4 * 1024 * 1024  # bytes; a longer line is not of the protocol


@dataclass
class Transcript:
    """What one run said. ``problem`` is the first thing that was wrong with it, or empty."""

    host: dict[str, Any] | None = None
    cases: list[dict[str, Any]] = field(default_factory=list)
    sentinels: dict[str, dict[str, Any]] = field(default_factory=dict)
    unsupported: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    attest: dict[str, Any] | None = None
    end: dict[str, Any] | None = None
    problem: str = ""


class Reader:
    """Feed it chunks of bytes; ``close`` gives the transcript. ``only_json``: any other line is a fault."""

    def __init__(self, *, only_json: bool) -> None:
        self._only_json = only_json
        self._pending = b""
        self.transcript = Transcript()

    def feed(self, chunk: bytes) -> None:
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        for line in lines:
            self._line(line)
        if len(self._pending) > MAX_LINE:
            if self._only_json or self._pending.lstrip().startswith(b"{"):
                self._fault("a line without an end")
            self._pending = b"-"  # whatever follows belongs to that line

    def close(self) -> Transcript:
        if self._pending.strip():
            if self._only_json or self._pending.lstrip().startswith(b"{"):
                self._line(self._pending, whole=False)
            self._pending = b""
        return self.transcript

    def _line(self, raw: bytes, whole: bool = True) -> None:
        text = raw.decode("utf-8", "replace").strip()
        if not text or (not self._only_json and not text.startswith("{")):
            return
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            if self._only_json or '"metric"' in text or not whole:
                self._fault(f"{'half a line' if not whole else 'a line that is not JSON'}: {text[:60]!r}")
            return
        if isinstance(said, dict):
            self._take(said)

    def _take(self, said: dict[str, Any]) -> None:
        t, kind = self.transcript, said.get("kind")
        check = _CHECKS.get(kind) if isinstance(kind, str) else None
        if check is None and "metric" in said:
            kind, check = "metric", _metric
        wrong = check(said) if check is not None else ""
        if wrong:
            self._fault(wrong)
            return  # it is in the log; what is kept here can be computed with
        if kind == "host":
            t.host = said
        elif kind == "case":
            t.cases.append(said)
        elif kind == "sentinel":
            t.sentinels[said["when"]] = said
        elif kind == "unsupported":
            t.unsupported.append(said)
        elif kind == "end":
            t.end = said
        elif kind == "attest":
            t.attest = said
        elif kind == "metric":
            t.metrics.append(said)

    def _fault(self, what: str) -> None:
        self.transcript.problem = self.transcript.problem or f"printed {what}"


def _number(value: object) -> bool:
    """A finite number; an integer too large for a float is none."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _positive(value: object) -> bool:
    return _number(value) and value > 0  # type: ignore[operator]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


# What a line lacks, as ``a case whose time_s is nan``; empty when it can be used.


def _metric(said: dict[str, Any]) -> str:
    if isinstance(said["metric"], str) and _number(said.get("value")):
        return ""
    return f"metric {_shown(said['metric'])} with the value {_shown(said.get('value'))}"


def _host(said: dict[str, Any]) -> str:
    if said.get("protocol") != VERSION:
        return f"protocol {_shown(said.get('protocol'))}, where this tool speaks {VERSION}"
    kinds = {"device": dict, "pinned": dict, "libraries": list, "mlx": str, "module": str}
    wrong = [name for name, kind in kinds.items() if name in said and not isinstance(said[name], kind)]
    return f"a host whose {wrong[0]} is {_shown(said[wrong[0]])}" if wrong else ""


def _case(said: dict[str, Any]) -> str:
    case = said.get("case")
    if not _positive(said.get("time_s")):
        return f"a case whose time_s is {_shown(said.get('time_s'))}"
    if not isinstance(case, dict) or any(isinstance(value, (dict, list)) for value in case.values()):
        return f"a case whose case is {_shown(case)}"
    quantized = ("bits", "group_size") if "quant" in case else ()
    for name in ("K", "N", "M", *quantized):
        if not isinstance(case.get(name), int) or not _positive(case[name]):
            return f"a case whose {name} is {_shown(case.get(name))}"
    for name in ("dtype", "timing", "cache"):
        if not isinstance(case.get(name), str):
            return f"a case whose {name} is {_shown(case.get(name))}"
    if not _positive(said.get("bytes")):
        return f"a case whose bytes is {_shown(said.get('bytes'))}"
    warm = said.get("warm_up")
    if not isinstance(said.get("samples_s"), list) or not said["samples_s"]:
        return f"a case whose samples_s is {_shown(said.get('samples_s'))}"
    if not isinstance(warm, dict) or not (_number(warm.get("seconds")) and _number(warm.get("ops"))):
        return f"a case whose warm_up is {_shown(warm)}"
    error = said.get("error", {"relative": 0.0})  # which may be NaN: then the result is, and is marked so
    if not isinstance(error, dict) or not isinstance(error.get("relative"), (int, float)):
        return f"a case whose error is {_shown(error)}"
    output = said.get("output")
    if output is not None and not _comparable(output):
        return f"a case whose output is {_shown(output)}"
    return ""


def _comparable(output: object) -> bool:
    """Whether two of these can be compared; their values may be NaN."""
    return (
        isinstance(output, dict)
        and isinstance(output.get("inputs"), str)
        and isinstance(output.get("bits"), str)
        and isinstance(output.get("values"), list)
        and all(isinstance(value, (int, float)) for value in output["values"])
    )


def _sentinel(said: dict[str, Any]) -> str:
    if said.get("when") not in ("before", "after"):
        return f"a sentinel of {_shown(said.get('when'))}"
    wrong = [name for name in ("arithmetic_s", "bandwidth_s") if not _positive(said.get(name))]
    return f"a sentinel whose {wrong[0]} is {_shown(said.get(wrong[0]))}" if wrong else ""


def _unsupported(said: dict[str, Any]) -> str:
    case, reason = said.get("case"), said.get("reason")
    if not isinstance(case, dict) or not {"quant", "bits", "dtype"} <= case.keys():
        return f"an unsupported case {_shown(case)}"
    return "" if isinstance(reason, str) and reason.strip() else "an unsupported case without a reason"


def _end(said: dict[str, Any]) -> str:
    drift = said.get("drift")
    if drift is None or (isinstance(drift, dict) and isinstance(drift.get("change"), (int, float))):
        return ""
    return f"an end whose drift is {_shown(drift)}"


_CHECKS: dict[str, Callable[[dict[str, Any]], str]] = {
    "host": _host,
    "case": _case,
    "sentinel": _sentinel,
    "unsupported": _unsupported,
    "end": _end,
    "attest": lambda _said: "",
}


def outcome_of_exit(code: int) -> str:
    """What an exit code alone decides, as for ``git bisect run``: good, bad, skip or failed."""
    if code == 0:
        return "good"
    if code == 125:
        return "skip"
    return "bad" if 1 <= code <= 124 else "failed"
