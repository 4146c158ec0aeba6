"""`bisect_tool diagnose`: why time against M has the shape it has."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bisect_tool.cli.options import percent, round_options, run_options
from bisect_tool.paths import builds_folder

if TYPE_CHECKING:
    from bisect_tool.analysis.subjects import Subject
    from bisect_tool.dispatch.prober import Prober
    from bisect_tool.reporting.diagnosis import Pair

NAMES = ("bits", "n-sweep", "k-sweep", "hot-cold", "group-size", "forced-arch", "dtype", "auto")


@click.command("diagnose")
@click.argument("source", required=False, metavar="[SESSION|FILE]")
@click.option("--table", metavar="FILE|-", help="A table in JSON, CSV or markdown; - reads what is pasted.")
@click.option("--unit", metavar="ms|us|s|ratio", help="Of numbers in a table that come without one.")
@click.option("--noise", type=percent, metavar="PERCENT", help="Of a table's numbers  [default: 2%]")
@click.option("--shape", "shapes", multiple=True, metavar="KxN", help="Of a table's series; or to measure.")
@click.option(
    "--bandwidth", type=click.FloatRange(min=0, min_open=True), metavar="GB/s", help="Of a copy there."
)
@click.option("--segments", metavar="KERNEL@M-M,…", help="Which kernel ran where: qmv_wide@2-9,qmm_t/32@10+")
@click.option("--arm", metavar="REVISION", help="One arm of a session alone.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw a .png or .svg.")
@click.option("--mermaid", is_flag=True, help="A chart that GitHub draws, under the tables.")
@click.option("--chart", is_flag=True, help="A chart in text  [on a terminal: always]")
@click.option("--run", "revision", metavar="REVISION", help="Measure now, then explain.")
@click.option("--experiment", type=click.Choice(NAMES), help="With --run: the series that tells laws apart.")
@click.option("--preset", help="With --run: issue, small or verify.")
@click.option("--rows", metavar="1-12", help="With --run: values of M  [default: 1-12]")
@click.option("--bits", metavar="N", help="With --run, and of a table's series.")
@click.option("--group-size", metavar="N", help="With --run, and of a table's series.")
@click.option("--quant", metavar="NAME", help="With --run.")
@click.option("--dtype", metavar="NAME", help="With --run.")
@click.option("--timing", metavar="NAME", help="With --run: chain, throughput, percall  [default: chain]")
@click.option("--cache", metavar="NAME", help="With --run: hot, cold  [default: hot]")
@round_options()
@run_options()
def command(**options: Any) -> int:
    """Explain time against M: bandwidth, arithmetic, waves, another kernel, a floor, or "inconclusive" and
    what would decide. Of a SESSION of `bisect_tool runs` (the newest when left out), a FILE or --table of
    someone else's numbers, or measured now with --run.
    """
    from bisect_tool.reporting import diagnosis

    _check(options)
    if options["experiment"]:
        return _experiment(options)
    under = ""
    if options["table"] or _is_table(options["source"]):
        subjects = _of_table(options)
    else:
        subjects, under = _of_session(options)
    from bisect_tool.analysis import subjects as kinds

    pairs = [(subject, subject.diagnosis()) for subject in subjects]
    whole = kinds.together(subjects)
    joint = (whole, whole.diagnosis()) if whole is not None else None
    if options["as_json"]:
        click.echo(diagnosis.as_json(pairs, joint))
    else:
        text = diagnosis.markdown(pairs, joint)
        click.echo(f"{text}\n\n{under}" if under else text)
    draw(pairs, options)
    return _exit(pairs)


def _exit(pairs: Sequence[Pair]) -> int:
    """0 when something was found out about any curve, else 4."""
    from bisect_tool.errors import EXIT_DONE, EXIT_INCONCLUSIVE

    open_ = all(d.name in ("inconclusive", "flat") for _, d in pairs)
    return EXIT_INCONCLUSIVE if open_ else EXIT_DONE


def _check(options: dict[str, Any]) -> None:
    given = [name for name in ("source", "table", "revision") if options[name]]
    if len(given) > 1:
        raise click.UsageError("give one of a SESSION or FILE, --table and --run")
    if options["experiment"] and not options["revision"]:
        raise click.UsageError("--experiment measures: say what with --run REVISION")
    if options["resume"] and options["experiment"] == "auto":
        raise click.UsageError("--resume goes on with one session, and auto has two: name the experiment")
    for name in (
        () if options["revision"] else ("resume", "preset", "rows", "quant", "dtype", "timing", "cache")
    ):
        if options[name]:
            raise click.UsageError(f"--{name} goes with --run")
    if options["picture"] and options["picture"].suffix.lower() not in (".png", ".svg"):
        raise click.UsageError(f"--picture takes a name that ends in .png or .svg, not {options['picture']}")


def _is_table(source: str | None) -> bool:
    return source is not None and Path(source).is_file() and Path(source).suffix != ".jsonl"


# ------------------------------------------------------------------------------------------- what to explain


def _of_table(options: dict[str, Any]) -> list[Subject]:
    import dataclasses

    from bisect_tool.analysis import given, segments, subjects
    from bisect_tool.errors import UsageProblem

    where = options["table"] or options["source"]
    try:
        text = sys.stdin.read() if where == "-" else Path(where).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is no text"
        raise UsageProblem(f"cannot read the table {where}", reason) from None
    about: dict[str, Any] = {}
    try:
        found = given.read(text, unit=options["unit"], noise=options["noise"])
        if options["segments"]:
            about["segments"] = tuple(segments.parse(options["segments"]))
    except ValueError as problem:
        raise UsageProblem(str(problem), remedy="docs/method.md has the tables that can be read") from None
    for name in ("bits", "group_size"):
        if options[name]:
            about[name] = _whole(options[name], "--" + name.replace("_", "-"))
    if options["shapes"]:
        if len(options["shapes"]) != len(found):
            raise click.UsageError(f"{len(options['shapes'])} shapes for {len(found)} series of the table")
        shapes = [_shape(text) for text in options["shapes"]]
        found = [dataclasses.replace(s, K=K, N=N) for s, (K, N) in zip(found, shapes, strict=True)]
    found = [dataclasses.replace(series, **about) for series in found]
    for series in found:
        known = series.segments
        lost = [p.M for p in series.points if known and not any(one.holds(p.M) for one in known)]
        if lost:
            raise UsageProblem(f"{series.label}: no segment holds M={lost[0]}", remedy="see --segments")
    copy = options["bandwidth"] * 1e9 if options["bandwidth"] else None
    return [subjects.from_table(series, copy=copy) for series in found]


def _whole(text: str, option: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise click.UsageError(f"{option} takes one number above 0 here, not {text}")
    return int(text)


def _shape(text: str) -> tuple[int, int]:
    deep, _, wide = text.lower().partition("x")
    return _whole(deep, "--shape KxN:"), _whole(wide, "--shape KxN:")


def _of_session(options: dict[str, Any]) -> tuple[list[Subject], str]:
    """The curves, and the block that goes under a table."""
    from bisect_tool.analysis.subjects import from_session
    from bisect_tool.errors import UsageProblem
    from bisect_tool.measuring import ledger
    from bisect_tool.reporting import environment

    if options["revision"]:
        session = measured(options, (options["revision"],), case_words(options))
    else:
        session = ledger.read(ledger.find(builds_folder(options["builds"]), options["source"]))
    found = from_session(session.lines, session.header["plan"].get("backend", ""))
    if options["arm"]:
        found = [subject for subject in found if subject.arm == options["arm"]]
    if not found:
        what = f"session {session.id} has no time of quantized_matmul against M"
        raise UsageProblem(
            what + (f" of {options['arm']}" if options["arm"] else ""), "it may be of a script"
        )
    found = _segmented(options, session.lines, found)
    return found, environment.block(session.header, session.lines)


def _segmented(options: dict[str, Any], lines: Sequence[Any], found: list[Subject]) -> list[Subject]:
    """The curves within the segments that a person names, or else those of dispatch where it can be asked."""
    import contextlib
    import dataclasses

    from bisect_tool.analysis import segments
    from bisect_tool.cli import dispatching
    from bisect_tool.cli.dispatch_notes import Notes, others
    from bisect_tool.cli.progress import Watch
    from bisect_tool.errors import UsageProblem

    if not options["segments"]:
        with Watch(options["quiet"]) as watch, contextlib.ExitStack() as opened:

            def prober() -> Prober:
                upstream = opened.enter_context(dispatching.open_upstream(options, watch))
                return dispatching.prober(options, upstream, watch)

            return Notes(prober, watch.remark).with_segments(lines, found)
    try:
        known = tuple(segments.parse(options["segments"]))
    except ValueError as problem:
        raise UsageProblem(str(problem), remedy="see --segments") from None
    for subject in found:
        if lost := [p.M for p in subject.points if not any(one.holds(p.M) for one in known)]:
            raise UsageProblem(f"{subject.name}: no segment holds M={lost[0]}", remedy="see --segments")
    return [dataclasses.replace(each, segments=known, remarks=others(each)) for each in found]


def case_words(options: dict[str, Any], **other: str) -> list[str]:
    """The canonical repro's arguments; ``other`` takes the place of an option."""
    words: list[str] = []
    for shape in options["shapes"] if "shape" not in other else ():
        words += ["--shape", shape]
    chosen = {"rows": "1-12", **{k: v for k, v in options.items() if v}, **other}
    for name in ("shape", "preset", "rows", "bits", "group_size", "quant", "dtype", "timing", "cache"):
        if isinstance(chosen.get(name), str):
            for one in chosen[name].split(";"):
                words += ["--" + name.replace("_", "-"), one]
    return [*words, "--budget", f"{options['run_budget']:g}"] if options["run_budget"] else words


def measured(options: dict[str, Any], revisions: tuple[str, ...], words: list[str]) -> Any:
    from bisect_tool.cli.progress import Watch
    from bisect_tool.cli.provider import provider
    from bisect_tool.cli.report import failures
    from bisect_tool.measuring import repro

    asked = repro.Request(
        revisions=revisions,
        script=None,
        script_args=tuple(words),
        env_options=options["env_options"],
        budget_s=options["budget"],
        width=options["width"],
        rounds=options["rounds"],
        timeout_s=options["timeout"],
        seed=options["seed"],
        form="markdown",
        command=sys.argv[1:],
    )
    with Watch(options["quiet"]) as watch:
        session = repro.measure(asked, provider(options, watch), watch, resume=options["resume"])
    failures(session)
    return session


def _experiment(options: dict[str, Any]) -> int:
    from bisect_tool.cli import diagnose_experiment

    return diagnose_experiment.run(options)


# --------------------------------------------------------------------------------------------- pictures


def draw(pairs: Sequence[Pair], options: dict[str, Any]) -> None:
    from bisect_tool.errors import ToolError
    from bisect_tool.reporting import curve

    shown = [(subject, diagnosis) for subject, diagnosis in pairs if len(subject.points) > 1]
    if options["mermaid"] and not options["as_json"]:
        for pair in shown:
            click.echo("\n" + curve.mermaid(*pair))
    if (options["chart"] or sys.stdout.isatty()) and not options["as_json"]:
        for pair in shown:
            click.echo("\n" + curve.terminal(*pair))
    if options["picture"] and shown:
        data = curve.picture(shown, options["picture"].suffix.lower().lstrip("."))
        try:
            options["picture"].write_bytes(data)
        except OSError as problem:
            what = f"cannot write the picture {options['picture']}"
            raise ToolError(what, str(problem.strerror), "name another file") from None
        click.echo(f"Drew {options['picture']}", err=True)
