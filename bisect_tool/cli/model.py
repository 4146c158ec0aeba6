"""`bisect_tool model`: one forward of M tokens of a whole model, and what its linears explain of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bisect_tool.cli.options import round_options, run_options

SCRIPT = "model_forward.py"
# Handed on to the repro as they are; it says what it makes of them.
SIZES = (
    "preset",
    "layers",
    "hidden",
    "intermediate",
    "heads",
    "kv_heads",
    "vocab",
    "prefill",
    "depths",
    "rows",
)
WAYS = ("bits", "group_size", "quant", "dtype", "bill_cache")


@click.command("model")
@click.argument("revisions", nargs=-1, metavar="[REVISION]...")
@click.option("--preset", help="qwen-27b or small  [default: qwen-27b on a GPU, small on a CPU]")
@click.option("--layers", metavar="N", help="Of the whole model.")
@click.option("--hidden", metavar="N")
@click.option("--intermediate", metavar="N")
@click.option("--heads", metavar="N")
@click.option("--kv-heads", metavar="N")
@click.option("--vocab", metavar="N")
@click.option("--prefill", metavar="N", help="Tokens in the cache before the step.")
@click.option("--depths", metavar="A,B", help="Layers that are built and timed.")
@click.option("--rows", metavar="1-8", help="Values of M  [default: 1-8]")
@click.option("--bits", metavar="N", help="[default: 4]")
@click.option("--group-size", metavar="N", help="[default: 64]")
@click.option("--quant", metavar="NAME", help="[default: affine]")
@click.option("--dtype", metavar="NAME", help="[default: float16]")
@click.option("--bill-cache", metavar="NAME", help="hot or cold  [default: cold on a GPU]")
@click.option("--model", metavar="PATH|ID", help="A checkpoint, where the environment has mlx-lm.")
@round_options()
@run_options(timeout="20m")
def command(**options: Any) -> int:
    """Time a model's step for M tokens after a prefill, with random weights at two depths scaled to the whole
    one, and beside it each of its linears on its own: how much of the step do they explain? A REVISION is as
    for `bisect_tool repro`.
    """
    from bisect_tool.cli.progress import Watch
    from bisect_tool.cli.provider import provider
    from bisect_tool.cli.report import failures
    from bisect_tool.errors import EXIT_DONE, EXIT_INCONCLUSIVE
    from bisect_tool.measuring import repro
    from bisect_tool.reporting import model
    from bisect_tool.reporting.report import enough

    asked = repro.Request(
        revisions=options["revisions"],
        script=None,
        script_args=_words(options),
        env_options=options["env_options"],
        budget_s=options["budget"],
        width=options["width"],
        rounds=options["rounds"],
        timeout_s=options["timeout"],
        seed=options["seed"],
        form="json" if options["as_json"] else "markdown",
        command=sys.argv[1:],
        canonical=SCRIPT,
    )
    with Watch(options["quiet"]) as watch:
        session = repro.measure(asked, provider(options, watch), watch, resume=options["resume"])
    show = model.as_json if options["as_json"] else model.markdown
    click.echo(show(session.header, session.lines))
    if (code := failures(session)) is not None:
        return code
    return EXIT_DONE if enough(session.lines) else EXIT_INCONCLUSIVE


def _words(options: dict[str, Any]) -> tuple[str, ...]:
    words: list[str] = []
    for name in (*SIZES, *WAYS):
        if options[name] is not None:
            words += ["--" + name.replace("_", "-"), options[name]]
    if options["model"] is not None:
        # A folder is named in full: the script runs elsewhere, and walls show it what is named so.
        folder = Path(options["model"]).expanduser()
        words += ["--model", str(folder.resolve()) if folder.is_dir() else options["model"]]
    if options["run_budget"] is not None:
        words += ["--budget", f"{options['run_budget']:g}"]
    return tuple(words)
