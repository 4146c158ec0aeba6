"""`diagnose --run … --experiment …`."""

from __future__ import annotations

from typing import Any


def run(options: dict[str, Any]) -> int:
    raise NotImplementedError(options)
