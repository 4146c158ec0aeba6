"""Options and parameter types that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

builds_option = click.option(
    "--builds",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="BISECT_TOOL_BUILDS",
    help="Where environments and sessions are kept  [default: builds/ of the checkout]",
)

backend_option = click.option(
    "--backend", type=click.Choice(["metal", "cuda12", "cuda13", "cpu"]), help="[default: found out]"
)
python_option = click.option(
    "--python", metavar="VERSION|PATH", help="Python of the environments  [default: the tool's own]"
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


def build_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of whatever may have to build a commit; ``cli.provider`` reads them."""
    options = [
        click.option(
            "--define", "-D", "defines", multiple=True, metavar="NAME=VALUE", help="A CMake cache entry."
        ),
        click.option("--build-timeout", type=duration, default="2h", show_default=True, help="Of one build."),
    ]
    for option in reversed(options):
        command = option(command)
    return clone_options(command)


def clone_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of whatever reads commits and runs something of theirs."""
    options = [
        click.option("--repo", metavar="URL|PATH", help="MLX's repository  [default: ml-explore/mlx]"),
        click.option("--fetch", is_flag=True, help="Bring the clone up to date first."),
        click.option("--offline", is_flag=True, help="Use only what is here."),
        click.option(
            "--mirror", multiple=True, metavar="PREFIX=PATH", help="A local copy of what has such addresses."
        ),
        click.option(
            "--sandbox",
            type=click.Choice(["auto", "require", "off"]),
            default="auto",
            show_default=True,
            help="Walls around builds and runs.",
        ),
        click.option("--trust", is_flag=True, help="Let strangers' code run even without walls."),
        click.option("--jobs", "-j", type=click.IntRange(min=1), help="[default: by cores and memory]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command
