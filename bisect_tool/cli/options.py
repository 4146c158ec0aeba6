"""Options and parameter types that several commands share."""

from __future__ import annotations

import re
from pathlib import Path

import click

builds_option = click.option(
    "--builds",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="BISECT_TOOL_BUILDS",
    help="Where environments and sessions are kept  [default: builds/ of the checkout]",
)


def duration(text: str) -> float:
    """Parameter type: ``90``, ``90s``, ``3m``, ``1.5h``; seconds. Raises click.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", text.strip())
    seconds = float(match[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise click.BadParameter(f"{text!r} is no duration above 0, such as 90s, 3m or 1h")
    return seconds


def percent(text: str) -> float:
    """Parameter type: ``0.75`` or ``0.75%``; the share, 0.0075. Raises click.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%?", text.strip())
    if match is None or not 0 < float(match[1]) < 100:
        raise click.BadParameter(f"{text!r} is no percentage between 0 and 100")
    return float(match[1]) / 100


def duration_text(seconds: float) -> str:
    """``45 s``, ``2 min 30 s``, ``1 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h {whole % 3600 // 60} min"
