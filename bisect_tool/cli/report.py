"""`bisect_tool report`: a session again, from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bisect_tool.cli.options import builds_option, together
from bisect_tool.paths import builds_folder

if TYPE_CHECKING:
    from bisect_tool.measuring.ledger import Session

FORMATS = ("markdown", "json", "csv", "compat")


VIEWS = ("layout", "split", "geomean", "only_changed")


view_options = together(
    click.option(
        "--layout",
        type=click.Choice(["default", "upstream"]),
        help="upstream: | M | N | K | Pre (ms) | Post (ms) | Speed Up |",
    ),
    click.option("--split", is_flag=True, default=None, help="One table for each arm."),
    click.option("--geomean", is_flag=True, default=None, help="A row with the geometric mean."),
    click.option("--only-changed", is_flag=True, default=None, help="Leave rows without a change out."),
)
"""How a comparison is printed; ``None`` where it was not said."""


def view_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """What ``view_options`` were given."""
    return {name: options[name] for name in VIEWS if options.get(name) is not None}


@click.command("report")
@click.argument("session", required=False)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default=None, help="[default: as it was asked for]"
)
@view_options
@builds_option
def command(session: str | None, form: str | None, builds: Path | None, **options: Any) -> None:
    """Print SESSION again: an id of `bisect_tool runs`, the beginning of one, or a ledger's path; the newest
    when left out. --layout, --split, --geomean and --only-changed are for comparisons."""
    from bisect_tool.measuring import ledger

    found = ledger.read(ledger.find(builds_folder(builds), session))
    show(found, form, view_of(options))


def show(session: Session, form: str | None, view: Mapping[str, Any] | None = None) -> None:
    """Print a session of any kind. What is too long for a comment goes into a file beside its logs."""
    header, lines = session.header, session.lines
    if "bisect" in header["plan"] and form not in ("csv", "compat"):
        from bisect_tool.reporting import search_report

        as_data = (form or header.get("format")) == "json"
        click.echo((search_report.as_json if as_data else search_report.markdown)(header, lines))
        return
    if "compare" not in header["plan"] or form in ("csv", "compat"):
        click.echo(render(header, lines, form))
        return
    from bisect_tool.reporting import compare_report
    from bisect_tool.reporting.compare_table import View

    if (form or header.get("format")) == "json":
        click.echo(compare_report.as_json(header, lines))
        return
    printed = compare_report.markdown(header, lines, View.of(header, view))
    click.echo(printed.text)
    if printed.rest:
        path = session.path.with_suffix("") / f"tables-{session.id}.md"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(printed.rest + "\n", encoding="utf-8")
        except OSError as problem:  # a ledger of someone else's, say; the rest was printed
            click.echo(f"warning: {path} could not be written: {problem.strerror}", err=True)
        else:
            click.echo(f"tables that did not fit: {path}", err=True)


def failures(session: Session) -> int | None:
    """Say of each arm why it failed; the exit code of the first, None where all went well."""
    failed = [line for line in session.lines if line["kind"] in ("failed-arm", "dropped")]
    for line in failed:
        click.echo(f"error: mlx {line['arm']}: {line['reason']}", err=True)
    return int(failed[0].get("exit_code", 1)) if failed else None


def render(header: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], form: str | None) -> str:
    from bisect_tool.reporting import report

    chosen = form or header.get("format", "markdown")
    if header["plan"]["script"]["name"] == "model_forward.py" and chosen in ("json", "markdown"):
        from bisect_tool.reporting import model

        return model.as_json(header, lines) if chosen == "json" else model.markdown(header, lines)
    if chosen == "json":
        return report.as_json(header, lines)
    if chosen == "csv":
        return report.csv(lines)
    return report.compat(lines) if chosen == "compat" else report.markdown(header, lines)
