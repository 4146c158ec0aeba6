"""`bisect_tool report`: a session again, from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from bisect_tool.cli.options import builds_option
from bisect_tool.paths import builds_folder

FORMATS = ("markdown", "json", "csv", "compat")


@click.command("report")
@click.argument("session", required=False)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default=None, help="[default: as it was asked for]"
)
@builds_option
def command(session: str | None, form: str | None, builds: Path | None) -> None:
    """Print SESSION again: an id of `bisect_tool runs`, the beginning of one, or a ledger's path; the newest
    when left out."""
    from bisect_tool.measuring import ledger

    found = ledger.read(ledger.find(builds_folder(builds), session))
    click.echo(render(found.header, found.lines, form))


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
