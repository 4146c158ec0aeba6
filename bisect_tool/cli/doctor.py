"""``doctor``: can this machine do the work, and what would mend it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bisect_tool.measuring.doctor import Finding

COLOURS = {"ok": "green", "advice": "yellow", "problem": "red"}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print findings and facts about the machine as JSON.")
@click.option(
    "--builds",
    type=click.Path(path_type=Path),
    envvar="BISECT_TOOL_BUILDS",
    help="Folder for builds and environments.",
)
@click.option("--backend", help="Only what this backend needs: cpu, metal, cuda12, cuda13.")
@click.pass_context
def command(ctx: click.Context, as_json: bool, builds: Path | None, backend: str | None) -> None:
    """Look at this machine: what is missing, and the command that mends it.

    Exits with 1 when not even a released version can be measured here. Changes nothing.
    """
    from bisect_tool.measuring.doctor import counts, examine
    from bisect_tool.paths import builds_folder

    configured = getattr(ctx.obj, "path", None)
    findings = examine(builds_folder(builds), backend, config=configured)
    if as_json:
        click.echo(_json(findings))
    else:
        for line in _lines(findings, _colour()):
            click.echo(line)
    if counts(findings)["problem"]:
        ctx.exit(1)


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _json(findings: list[Finding]) -> str:
    import json

    from bisect_tool.host import facts

    data = {
        "schema": 1,
        "findings": [finding.as_dict() for finding in findings],
        "facts": facts().as_dict(),
    }
    return json.dumps(data, indent=2, ensure_ascii=False)


def _lines(findings: list[Finding], colour: bool) -> list[str]:
    """One aligned line for each, and the sum of them."""
    from bisect_tool.measuring.doctor import counts

    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        level = f"{finding.level:8}"
        text = f"{finding.found}: {finding.remedy}" if finding.remedy else finding.found
        styled = click.style(level, fg=COLOURS[finding.level]) if colour else level
        lines.append(f"{styled} {finding.name:{width}}  {text}")
    total = counts(findings)
    problems = "problem" if total["problem"] == 1 else "problems"
    return [*lines, f"{total['ok']} ok, {total['advice']} advice, {total['problem']} {problems}"]
