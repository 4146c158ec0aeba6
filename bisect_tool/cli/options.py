"""Options and parameter types that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator; `--help` lists them in this order."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


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


builds_option = click.option(
    "--builds",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="BISECT_TOOL_BUILDS",
    help="Where environments and sessions are kept  [default: builds/ of the checkout]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="The same content as data.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress.")
env_option = click.option(
    "--env", "env_options", multiple=True, metavar="NAME[=VALUE]", help="Pass a variable to what runs."
)

clone_options = together(
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
    builds_option,
)
"""Of whatever reads commits and runs something of theirs."""

build_options = together(
    click.option(
        "--backend", type=click.Choice(["metal", "cuda12", "cuda13", "cpu"]), help="[default: found out]"
    ),
    click.option(
        "--python", metavar="VERSION|PATH", help="Python of the environments  [default: the tool's own]"
    ),
    click.option(
        "--define", "-D", "defines", multiple=True, metavar="NAME=VALUE", help="A CMake cache entry."
    ),
    click.option("--build-timeout", type=duration, default="2h", show_default=True, help="Of one build."),
    clone_options,
)
"""Of whatever may have to build a commit; ``cli.provider`` reads them."""


def run_options(*, run_budget: str = "the repro's own", timeout: str = "10m") -> Decorator:
    """Of whatever runs a repro; the arguments are the defaults of one process."""
    return together(
        click.option(
            "--run-budget", type=duration, help=f"One process's measuring time  [default: {run_budget}]"
        ),
        click.option("--timeout", type=duration, default=timeout, show_default=True, help="Of one process."),
        click.option("--seed", type=int, help="Of the orders and the values  [default: random, recorded]"),
        click.option(
            "--resume", is_flag=True, help="Go on with the last unfinished session of this same command."
        ),
        env_option,
        json_option,
        quiet_option,
        build_options,
    )


def round_options(*, budget: str = "3m on a CPU, 6m on a GPU", width: str | None = "0.75%") -> Decorator:
    """When rounds end; ``width`` None is decided elsewhere and shown as 0.75 %."""
    return together(
        click.option("--budget", type=duration, help=f"Of all rounds  [default: {budget}]"),
        click.option(
            "--width",
            type=percent,
            default=width,
            help="Stop at intervals of ± this  [default: 0.75%]",
        ),
        click.option(
            "--rounds", type=click.IntRange(min=1), help="Exactly so many, instead of stopping by width."
        ),
    )
