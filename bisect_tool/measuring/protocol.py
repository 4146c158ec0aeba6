"""The repro protocol: what a script's output lines say. Fed bytes, keeps what they mean; no I/O.

Version 1, one JSON object a line: ``host`` once, then ``sentinel``, ``case`` and ``unsupported`` lines, then
``end``. The simple protocol: ``{"metric": name, "value": x, "unit": "s"}`` lines. docs/protocol.md has both.
"""

from __future__ import annotations

import json
import math
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
            self._fault("a line without an end")
            self._pending = b""

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
        except ValueError:
            if self._only_json or '"metric"' in text or not whole:
                self._fault(f"{'half a line' if not whole else 'a line that is not JSON'}: {text[:60]!r}")
            return
        if isinstance(said, dict):
            self._take(said)

    def _take(self, said: dict[str, Any]) -> None:
        t, kind = self.transcript, said.get("kind")
        if kind == "host":
            if said.get("protocol") != VERSION:
                self._fault(f"protocol {said.get('protocol')!r}, where this tool speaks {VERSION}")
            t.host = said
        elif kind == "case":
            if not _positive(said.get("time_s")) or not isinstance(said.get("case"), dict):
                self._fault(f"a case whose time_s is {said.get('time_s')!r}")
            t.cases.append(said)
        elif kind == "sentinel":
            t.sentinels[str(said.get("when"))] = said
        elif kind == "unsupported":
            t.unsupported.append(said)
        elif kind == "end":
            t.end = said
        elif kind == "attest":
            t.attest = said
        elif "metric" in said:
            if not isinstance(said["metric"], str) or not _number(said.get("value")):
                self._fault(f"metric {said['metric']!r} with the value {said.get('value')!r}")
            t.metrics.append(said)

    def _fault(self, what: str) -> None:
        self.transcript.problem = self.transcript.problem or f"printed {what}"


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: object) -> bool:
    return _number(value) and value > 0  # type: ignore[operator]


def outcome_of_exit(code: int) -> str:
    """What an exit code alone decides, as for ``git bisect run``: good, bad, skip or failed."""
    if code == 0:
        return "good"
    if code == 125:
        return "skip"
    return "bad" if 1 <= code <= 124 else "failed"
