"""`bisect_tool repro`: measure releases with the canonical repro, or with a script of the user's own."""

from __future__ import annotations

from typing import Any

import click

from bisect_tool.cli.cases import case_options, script_arguments, script_option, split, typed
from bisect_tool.cli.options import round_options, run_options


@click.command("repro", context_settings={"ignore_unknown_options": False})
@click.argument("revisions", nargs=-1, metavar="[REVISION]... [-- SCRIPT_ARGS]...")
@case_options()
@click.option("--compat", is_flag=True, help="#3553's own lines, measured its way.")
@script_option
@round_options()
@run_options()
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> int:
    """Measure each REVISION as fresh processes in balanced, shuffled rounds, and print a table that can be
    pasted. A REVISION is a release (0.32.4; the newest when none is given), a commit of any name (v0.32.0,
    main, 548dd80, @2026-03-01, #3764, path:../mlx), which is built first, or either with settings
    (0.32.4,MLX_METAL_GPU_ARCH=applegpu_g12s).
    """
    from bisect_tool.cli.progress import Watch
    from bisect_tool.cli.provider import provider
    from bisect_tool.cli.report import failures, render
    from bisect_tool.errors import EXIT_DONE, EXIT_INCONCLUSIVE
    from bisect_tool.measuring import repro
    from bisect_tool.reporting.report import enough

    revisions, after = split(ctx, options["revisions"], options["script"])
    script_args = script_arguments(ctx, options, after, ["--compat"] if options["compat"] else [])
    asked = repro.Request(
        revisions=revisions,
        script=options["script"],
        script_args=script_args,
        env_options=options["env_options"],
        budget_s=options["budget"],
        width=options["width"],
        rounds=options["rounds"],
        timeout_s=options["timeout"],
        seed=options["seed"],
        form="json" if options["as_json"] else "compat" if options["compat"] else "markdown",
        command=typed(),
    )
    with Watch(options["quiet"]) as watch:
        session = repro.measure(asked, provider(options, watch), watch, resume=options["resume"])
    click.echo(render(session.header, session.lines, asked.form))
    if (code := failures(session)) is not None:
        return code
    return EXIT_DONE if enough(session.lines) else EXIT_INCONCLUSIVE
