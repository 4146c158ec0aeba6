"""`bisect_tool runs`: the sessions in the ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bisect_tool.cli.options import builds_option, json_option
from bisect_tool.paths import builds_folder


@click.command("runs")
@builds_option
@json_option
def command(builds: Path | None, as_json: bool) -> None:
    """List the sessions in the ledger, newest first."""
    from bisect_tool.errors import LedgerDamaged
    from bisect_tool.measuring import ledger

    rows: list[dict[str, Any]] = []
    for path in ledger.sessions(builds_folder(builds)):
        try:
            rows.append(_row(ledger.read(path)))
        except LedgerDamaged as problem:
            click.echo(f"warning: {problem.line()}", err=True)
    if as_json:
        click.echo(json.dumps({"schema": 1, "sessions": rows}, indent=1))
        return
    if not rows:
        click.echo("no sessions yet; `bisect_tool repro` makes one")
        return
    from tabulate import tabulate

    cells = [
        [r["id"], r["state"], str(r["rounds"]), str(r["discarded"]), r["arms"], r["script"]] for r in rows
    ]
    head = ["session", "state", "rounds", "discarded", "arms", "script"]
    click.echo(tabulate(cells, headers=head, tablefmt="plain", disable_numparse=True))


def _row(session: Any) -> dict[str, Any]:
    from bisect_tool.analysis.series import counted

    return {
        "id": session.id,
        "state": "ended" if session.ended else "unfinished",
        "rounds": len({run["round"] for run in counted(session.lines)}),
        "discarded": len(session.discarded_rounds()),
        "arms": " ".join(session.header["plan"]["arms"]),
        "script": session.header["plan"]["script"]["name"],
        "started": session.header["started"],
        "command": session.header["command"],
        "path": str(session.path),
    }
