"""`bisect_tool compare`: revisions side by side, in the same rounds, with a verdict for every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bisect_tool.cli.cases import CASE_OPTIONS, case_options, script_arguments, script_option, split, typed
from bisect_tool.cli.options import round_options, run_options
from bisect_tool.cli.report import failures, show, view_of, view_options

if TYPE_CHECKING:
    from bisect_tool.measuring.ledger import Session

CROSSED = ("shape", *(name for name in CASE_OPTIONS if name != "preset"))


@click.command("compare")
@click.argument("arms", nargs=-1, required=True, metavar="[LABEL=]REVISION|A..B... [-- SCRIPT_ARGS]...")
@click.option(
    "--onto", metavar="REVISION", default="", help="Merge pull requests onto this, and compare with it."
)
@click.option("--baseline", metavar="ARM", default="", help="A label or revision  [default: the first arm]")
@click.option("--aa", is_flag=True, help="The baseline a second time, made again: the noise of this host.")
@case_options()
@click.option(
    "--matrix",
    "matrices",
    multiple=True,
    metavar="NAME=V,V",
    help="Cross these cases; repeatable: bits=2,4,8",
)
@script_option
@click.option("--control", metavar="METRIC", default="", help="Of a script: what no change can touch.")
@click.option("--no-control", is_flag=True, help="A control that moves takes no verdict away.")
@click.option("--quick", is_flag=True, help="About 3 times shorter, intervals of ±2 %.")
@click.option("--rigorous", is_flag=True, help="Up to 4 times longer, intervals of ±0.5 %.")
@round_options(budget="2m an arm on a CPU, 6m on a GPU", width=None)
@click.option("--dry-run", is_flag=True, help="Say what would be built and measured, and how long it takes.")
@view_options
@click.option("--exit-code", is_flag=True, help="3 when any cell is FASTER, SLOWER or WRONG.")
@run_options()
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> int:
    """Measure each arm in the same balanced, shuffled rounds of fresh processes, and say of every cell:
    FASTER, SLOWER, SAME, AMBIGUOUS or WRONG. An arm is a revision as `repro` takes it, with a label if need
    be (fused=#3764). A pull request alone is compared with what it was merged into, or branched from; A..B is
    A against B. The first arm is the baseline.
    """
    from bisect_tool.building.backend import Backend
    from bisect_tool.cli.dispatch_notes import Notes
    from bisect_tool.cli.progress import Watch
    from bisect_tool.cli.provider import provider
    from bisect_tool.measuring import compare

    if options["quick"] and options["rigorous"]:
        raise click.UsageError("--quick and --rigorous exclude each other", ctx)
    arms, after = split(ctx, options["arms"], options["script"])
    _cross(ctx, options)
    if options["control"] and not options["script"]:
        raise click.UsageError("--control names a metric of a script; the canonical repro has its own", ctx)
    asked = compare.Request(
        arms=arms,
        onto=options["onto"],
        baseline=options["baseline"],
        aa=options["aa"],
        script=options["script"],
        script_args=script_arguments(ctx, options, after),
        control=options["control"],
        controlled=not options["no_control"],
        env_options=options["env_options"],
        pace="quick" if options["quick"] else "rigorous" if options["rigorous"] else "normal",
        budget_s=options["budget"],
        width=options["width"],
        rounds=options["rounds"],
        timeout_s=options["timeout"],
        seed=options["seed"],
        form="json" if options["as_json"] else "markdown",
        view=view_of(options),
        command=typed(),
    )
    with Watch(options["quiet"]) as watch:
        made = provider(options, watch)
        if options["dry_run"]:
            from bisect_tool.measuring import compare_plan

            comparing = compare.Comparing.of(asked, made, watch)
            comparing.look_up()
            click.echo(compare_plan.text(comparing))
            return 0
        try:
            told = not options["script"] and made.backend is Backend.METAL
            notes = Notes.of(made, watch.remark) if told else None
            session = compare.measure(asked, made, watch, resume=options["resume"], dispatch=notes)
        except compare.SameBuild as same:
            click.echo(same.line())
            return 0
    show(session, asked.form)
    return _exit_code(session, options["exit_code"])


def _cross(ctx: click.Context, options: dict[str, Any]) -> None:
    """``--matrix bits=2,4,8`` as the option of that name."""
    for text in options["matrices"]:
        name, sign, values = text.partition("=")
        option = name.strip().replace("-", "_")
        if not sign or not values or option not in CROSSED:
            raise click.UsageError(
                f"--matrix {text!r} is not NAME=VALUE,VALUE with a NAME of {', '.join(CROSSED)}", ctx
            )
        if option == "shape":
            options["shapes"] = (*options["shapes"], *values.split(","))
        elif options[option] is not None:
            raise click.UsageError(f"--matrix {name} and --{name} exclude each other", ctx)
        else:
            options[option] = values


def _exit_code(session: Session, asked: bool) -> int:
    """0 decided; 3 a change, if that was asked for; 4 nothing decided; an arm's own code when one failed."""
    from bisect_tool.analysis.comparison import Plan, compare
    from bisect_tool.errors import EXIT_CHANGE, EXIT_DONE, EXIT_INCONCLUSIVE

    if (code := failures(session)) is not None:
        return code
    found = compare(session.lines, Plan.of(session.header))
    if asked and found.changed:
        return EXIT_CHANGE
    return EXIT_DONE if found.decided else EXIT_INCONCLUSIVE
