"""`bisect_tool bisect`: the commit that made the difference."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bisect_tool.cli.cases import case_options, script_arguments, script_option, split, typed
from bisect_tool.cli.options import duration, percent, run_options

if TYPE_CHECKING:
    from bisect_tool.building.provision import Provider
    from bisect_tool.cli.dispatch_notes import Notes
    from bisect_tool.cli.progress import Watch
    from bisect_tool.measuring.course import Course
    from bisect_tool.measuring.ledger import Session

RUN_BUDGET_S = 4.0  # one process's measuring time: many short runs tell more than few long ones


def confidence(text: str) -> float:
    """Parameter type: ``0.95``, ``95`` or ``95%``; the share. Raises click.BadParameter."""
    share = percent(text)
    if share <= 0.01 and not text.strip().endswith("%"):
        share = round(share * 100, 6)  # a share was typed
    if not 0.5 <= share < 1:
        raise click.BadParameter(f"{text!r} is not between 50 % and 100 %")
    return share


@click.command("bisect")
@click.argument("words", nargs=-1, required=True, metavar="GOOD..BAD [-- SCRIPT_ARGS]...")
@click.option("--good", metavar="auto|REVISION", help="The good end, where only BAD is given.")
@click.option("--find", type=click.Choice(["any", "regression", "fix"]), default="any", show_default=True)
@click.option(
    "--metric",
    metavar="NAME",
    help="M=3/M=1, 5120x13824,M=3, a name that your script prints, or exit  [default: M=3/M=1]",
)
@click.option("--releases-only", is_flag=True, help="Stop at the release; compile nothing.")
@click.option("--paths", multiple=True, metavar="GLOB", help="Only commits that touch such files matter.")
@click.option(
    "--suspect",
    "suspects",
    multiple=True,
    metavar="path:GLOB|text:WORDS|REVISION",
    help="Try these first; they do not count as likelier in the result.",
)
@click.option(
    "--prior",
    type=click.Choice(["dispatch"]),
    help="Try first where the measured cells get other kernels, or kernels of another text (Apple GPUs).",
)
@click.option("--confidence", type=confidence, default="95%", show_default=True)
@click.option("--budget", type=duration, help="Of builds and runs together  [default: none]")
@click.option("--max-builds", type=click.IntRange(min=1), help="Compile no more than so many.")
@click.option(
    "--all-steps/--one-step",
    default=True,
    help="Search on while steps explain less than 80 %.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--exit-code", is_flag=True, help="Exit with 3 when a step is found.")
@case_options("those of the metric")
@script_option
@run_options(run_budget="4s")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> int:
    """Find the commit between GOOD and BAD after which a metric differs, with the probability that it is the
    one. The ends are releases (0.31.2: the wheels are searched first), tags, commits, branches, dates
    (@2026-03-01) or pull requests. What changes nothing that is compiled is not built.
    """
    from bisect_tool.cli.progress import Watch
    from bisect_tool.cli.provider import provider
    from bisect_tool.cli.report import show
    from bisect_tool.errors import EXIT_DONE
    from bisect_tool.measuring import bisect
    from bisect_tool.measuring.course import Course
    from bisect_tool.measuring.searching import Request

    words, script_args = split(ctx, options["words"], options["script"])
    good, bad = _ends(ctx, words, options["good"])
    asked = Request(
        good=good,
        bad=bad,
        metric=options["metric"],
        find=options["find"],
        script=options["script"],
        script_args=_arguments(ctx, options, script_args),
        env_options=options["env_options"],
        paths=options["paths"],
        suspects=options["suspects"],
        releases_only=options["releases_only"],
        all_steps=options["all_steps"],
        confidence=options["confidence"],
        budget_s=options["budget"],
        max_builds=options["max_builds"],
        timeout_s=options["timeout"],
        seed=options["seed"],
        form="json" if options["as_json"] else "markdown",
        command=typed(),
        prior=options["prior"] or "",
    )
    with Watch(options["quiet"]) as watch:
        made = provider(options, watch)
        notes = _dispatch(options, made, watch)
        if options["resume"]:
            session = bisect.resume(asked, made, watch, notes)
        else:
            course = Course(asked, made)
            plan = _plan(course, options)
            if options["dry_run"]:
                click.echo(plan)
                return EXIT_DONE
            if not options["quiet"]:
                watch.remark(plan)
            session = bisect.search(asked, course, watch, notes)
    show(session, asked.form)
    return exit_code(session, change=options["exit_code"])


def _ends(ctx: click.Context, words: tuple[str, ...], good: str | None) -> tuple[str, str]:
    """What is sought between. Raises UsageProblem, click.UsageError."""
    from bisect_tool.measuring import candidates

    if len(words) != 1:
        raise click.UsageError("one range GOOD..BAD, or one BAD with --good", ctx)
    if good is None:
        if ".." not in words[0]:
            raise click.UsageError(f"{words[0]} is one end; write GOOD..BAD, or give --good auto", ctx)
        return candidates.parse_range(words[0])
    if ".." in words[0]:
        raise click.UsageError("a range has its good end; leave --good out", ctx)
    if good == "auto":
        candidates.check_end(words[0])
        return good, words[0]
    return candidates.parse_range(f"{good}..{words[0]}")


def _arguments(ctx: click.Context, options: dict[str, Any], after: tuple[str, ...]) -> tuple[str, ...]:
    """What is run so that the metric can be read off: the script's own arguments, or its cases."""
    from bisect_tool.analysis import metric as metrics
    from bisect_tool.building import backend as backends

    if options["script"]:
        return script_arguments(ctx, options, after)
    try:
        metric = metrics.Metric.of_case(options["metric"] or metrics.DEFAULT)
    except metrics.Unknown as problem:
        raise click.UsageError(f"--metric: {problem}", ctx) from None
    shapes = list(options["shapes"]) or list(metric.shapes())
    if not shapes and not options["preset"]:
        on_cpu = backends.choose(options["backend"]) is backends.Backend.CPU
        shapes = ["640x1728" if on_cpu else "5120x13824"]
    chosen = {**options, "shapes": shapes, "rows": options["rows"] or metric.rows()}
    return script_arguments(ctx, {**chosen, "run_budget": options["run_budget"] or RUN_BUDGET_S}, after)


def _dispatch(options: dict[str, Any], made: Provider, watch: Watch) -> Notes | None:
    """Who tells what dispatch changes; None where no Apple GPU is measured.

    Raises UsageProblem where --prior dispatch can have no answer.
    """
    from bisect_tool.building.backend import Backend
    from bisect_tool.cli.dispatch_notes import Notes
    from bisect_tool.errors import UsageProblem

    why = ""
    if made.backend is not Backend.METAL:
        why = f"the backend here is {made.backend.value}"
    elif options["script"]:
        why = "which cells a script of your own measures is not known"
    elif options["releases_only"]:
        why = "--releases-only searches no commits"
    if options["prior"] and why:
        raise UsageProblem(
            "--prior dispatch is for the cases of the canonical repro on an Apple GPU", why, "leave it out"
        )
    return None if why else Notes.of(made, watch.remark)


def _plan(course: Course, options: dict[str, Any]) -> str:
    """What the search would take; as data where only that was asked for."""
    from bisect_tool.cli.options import duration_text
    from bisect_tool.measuring.course import plan_text

    run_s = None if options["script"] else 2 * (options["run_budget"] or RUN_BUDGET_S)
    plan = course.plan(options["confidence"], run_s)
    if options["dry_run"] and options["as_json"]:
        return json.dumps(plan, indent=1)
    return plan_text(plan, course.provider.backend.value, duration_text)


def exit_code(session: Session, *, change: bool) -> int:
    """0 for a step or for the certainty that there is none, 3 for a step when asked for, 4 for no answer."""
    from bisect_tool.analysis import stages as replay
    from bisect_tool.analysis.problem import Culprit, NoStep, UnbuildableGap
    from bisect_tool.errors import EXIT_CHANGE, EXIT_DONE, EXIT_INCONCLUSIVE

    if any(line["kind"] == "end" and line.get("verdict") for line in session.lines):
        return EXIT_DONE
    found = replay.stages(session.lines)[-1].found()
    if found is None:
        return EXIT_INCONCLUSIVE
    if isinstance(found.first, (Culprit, UnbuildableGap)):
        return EXIT_CHANGE if change else EXIT_DONE
    return EXIT_DONE if isinstance(found.first, NoStep) else EXIT_INCONCLUSIVE
