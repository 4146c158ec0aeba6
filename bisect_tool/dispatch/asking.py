"""Queries to a probe and its answers: lines of text on both sides. What a probe says may be a stranger's."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bisect_tool.analysis.launches import Answer, Cell, Launch
from bisect_tool.building.sandbox import Sandbox, Walls
from bisect_tool.errors import ProbeFailed

TIMEOUT_S = 300
MEMORY = 2 * 10**9
OUTPUT = 512 * 10**6  # bytes, for 200,000 cells
_TEXT = 400  # characters of a kernel's name or a message
_MOST = 2**63
# It reads its queries from standard input, which walls do not pass on.
_READING = 'exec "$0" <"$1"'


def query(cells: Sequence[Cell]) -> str:
    """The lines to ask."""
    return "".join(
        f"{c.arch} {c.nax:d} {c.K} {c.N} {c.M} {c.bits} {c.group_size} {c.mode} {c.dtype} {c.transpose:d}\n"
        for c in cells
    )


@functools.lru_cache(maxsize=64)
def digest(cells: tuple[Cell, ...], settings: tuple[tuple[str, str], ...]) -> str:
    """SHA-256 (hex) of what is asked, and with which environment settings."""
    text = query(cells) + json.dumps(sorted(settings))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def ask(
    probe: Path, cells: Sequence[Cell], settings: Sequence[tuple[str, str]], sandbox: Sandbox
) -> list[str]:
    """Run the probe; its answers, one line each. Raises ProbeFailed."""
    said: list[bytes] = []
    with tempfile.TemporaryDirectory(prefix=".ask-", suffix=".tmp", dir=probe.parent.parent) as folder:
        questions, home = Path(folder) / "queries", Path(folder) / "home"
        questions.write_text(query(cells), encoding="ascii")
        done = sandbox.run(
            ["/bin/sh", "-c", _READING, str(probe), str(questions)],
            walls=Walls(read=(probe, questions), write=(), home=home),
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", **dict(settings)},
            timeout_s=TIMEOUT_S,
            memory_limit=MEMORY,
            output_limit=OUTPUT,
            on_stdout=said.append,
        )
    lines = b"".join(said).decode("utf-8", "replace").split("\n")[:-1]
    if not done.ok or len(lines) != len(cells):
        why = done.describe() if not done.ok else f"{len(lines)} answers to {len(cells)} questions"
        raise ProbeFailed("the host code does not answer", f"{why} {done.last_line()}".strip())
    return lines


@functools.lru_cache(maxsize=2**16)
def parse(line: str) -> Answer:
    """One line of a probe. Raises ProbeFailed for what is none. Most lines of two commits are the same."""
    try:
        return _answer(json.loads(line))
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        raise ProbeFailed("the host code's answer cannot be read", str(problem)[:200]) from problem


def _answer(said: dict[str, Any]) -> Answer:
    if "exception" in said:
        return Answer(exception=_text(said["exception"]) or "an exception without a message")
    return Answer(tuple(_launch(each) for each in said["launches"]), _number(said["copies"]))


def _launch(said: dict[str, Any]) -> Launch:
    return Launch(
        kernel=_text(said["kernel"]),
        grid=_size(said["grid"]),
        group=_size(said["group"]),
        buffers=_number(said["buffers"]),
        split=_number(said["split"]),
        reduction=said["reduction"] is True,
        function=_text(said["function"]),
    )


def _size(said: list[Any]) -> tuple[int, int, int]:
    x, y, z = said
    return _number(x), _number(y), _number(z)


def _number(said: Any) -> int:
    if not isinstance(said, int) or not -_MOST <= said <= 2 * _MOST:
        raise ValueError(f"{said!r} is no count")
    return int(said)


def _text(said: Any) -> str:
    if not isinstance(said, str):
        raise ValueError(f"{said!r} is no text")
    return "".join(c if c.isprintable() else " " for c in said)[:_TEXT]
