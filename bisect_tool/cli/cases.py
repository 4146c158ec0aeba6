"""What is measured: options that choose cases of the canonical repro, or a script of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bisect_tool.cli.options import Decorator, together

# Handed on to the canonical repro as they are; it says what it makes of them.
CASE_OPTIONS = ("preset", "rows", "bits", "group_size", "quant", "dtype", "timing", "cache")

script_option = click.option(
    "--script",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A script of your own in place of the canonical repro; its arguments follow --.",
)


def case_options(rows: str = "1-4") -> Decorator:
    """``--shape`` and the other options that choose cases. ``rows``: what the default of M is called."""
    return together(
        click.option(
            "--shape", "shapes", multiple=True, metavar="KxN[xB]", help="Repeatable; instead of a preset."
        ),
        click.option("--preset", help="issue, small or verify  [default: issue on a GPU, small on a CPU]"),
        click.option("--rows", metavar="1-4,6,8", help=f"Values of M  [default: {rows}]"),
        click.option("--bits", metavar="N,N", help="2, 3, 4, 5, 6, 8  [default: 4]"),
        click.option("--group-size", metavar="N,N", help="[default: 64, or what the mode has]"),
        click.option("--quant", metavar="NAMES", help="affine, mxfp4, mxfp8, nvfp4  [default: affine]"),
        click.option("--dtype", metavar="NAMES", help="float16, bfloat16, float32  [default: float16]"),
        click.option("--timing", metavar="NAMES", help="chain, throughput, percall  [default: chain]"),
        click.option("--cache", metavar="NAMES", help="hot, cold  [default: hot]"),
    )


def typed() -> list[str]:
    """The command line after the program's name: it is recorded, and printed under every table."""
    return sys.argv[1:]


def split(
    ctx: click.Context, words: tuple[str, ...], script: Path | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What stands before and after ``--``. Click drops the dashes themselves, so they are counted back."""
    line = typed()
    if "--" not in line:
        return words, ()
    after = tuple(line[line.index("--") + 1 :])
    if script is None and after:
        raise click.UsageError("arguments after -- go to a script of your own; give it with --script", ctx)
    return words[: len(words) - len(after)], after


def script_arguments(
    ctx: click.Context, options: dict[str, Any], after: tuple[str, ...], further: Sequence[str] = ()
) -> tuple[str, ...]:
    """The arguments of the script that is run: what stood after ``--``, or the canonical repro's cases and
    what ``further`` says to it."""
    words: list[str] = []
    for shape in options["shapes"]:
        words += ["--shape", shape]
    for name in CASE_OPTIONS:
        if options[name] is not None:
            words += ["--" + name.replace("_", "-"), options[name]]
    if options["run_budget"] is not None:
        words += ["--budget", f"{options['run_budget']:g}"]
    words += further
    if options["script"] and words:
        raise click.UsageError(
            f"{words[0]} is for the canonical repro; give your script's arguments after --", ctx
        )
    return after if options["script"] else tuple(words)
