"""`bisect_tool dispatch-log`: the commits of a history at which dispatch changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bisect_tool.cli.dispatching import gpu_options
from bisect_tool.cli.options import clone_options, json_option, quiet_option

if TYPE_CHECKING:
    from bisect_tool.dispatch.history import Log
    from bisect_tool.reporting.dispatch_table import LogRow


@click.command("dispatch-log")
@click.argument("revisions", required=False, default="", metavar="[A..B|REVISION]")
@gpu_options
@click.option("--kernel-text", is_flag=True, help="Also where the text of the kernels that they run changes.")
@json_option
@quiet_option
@clone_options
def command(revisions: str, kernel_text: bool, as_json: bool, quiet: bool, **options: Any) -> int:
    """Every commit of a range (v0.31.2..v0.32.0), of the history of a revision, or of all of it, at which
    other kernels are launched than at the commit before, newest first.
    """
    from bisect_tool.cli.dispatching import cells, open_upstream, prober
    from bisect_tool.cli.progress import Watch
    from bisect_tool.dispatch import history
    from bisect_tool.reporting import dispatch_table

    asked_for = cells(options)
    with Watch(quiet) as watch, open_upstream(options, watch) as upstream:
        made = prober(options, upstream, watch)
        log = history.log(made, revisions, asked_for, kernel_texts=kernel_text)
    rows = [row_of(change) for change in log.changes]
    if as_json:
        click.echo(json.dumps(_data(log, rows, kernel_text), indent=1))
        return 0
    changes = "1 change" if len(rows) == 1 else f"{len(rows)} changes"
    click.echo(
        f"{changes} in {log.commits} commits, which have {log.versions} versions of the host code; "
        f"{len(log.cells)} cells"
    )
    if rows:
        click.echo("\n" + dispatch_table.log_text(rows, len(log.cells), kernel_texts=kernel_text))
    return 0


def row_of(change: Any) -> LogRow:
    """A ``dispatch.history.Change``, as reporting wants it."""
    from bisect_tool.reporting.dispatch_table import LogRow
    from bisect_tool.upstream.history import day_of

    commit = change.commit
    return LogRow(
        commit.short, commit.pull, change.tag, day_of(commit.committed), commit.subject,
        change.changed, change.texts, change.began, change.unknown,
    )  # fmt: skip


def _data(log: Log, rows: list[LogRow], kernel_text: bool) -> dict[str, Any]:
    from bisect_tool.reporting import dispatch_table

    changes = []
    for change, row in zip(log.changes, rows, strict=True):
        entry: dict[str, Any] = {
            "sha": change.commit.sha,
            "pull": row.pull,
            "release": row.tag,
            "date": row.day,
            "subject": row.subject,
            "kinds": list(change.kinds),
            "changed": dispatch_table.changed_list(change.changed),
            "began": change.began,
            "unknown": change.unknown,
        }
        if kernel_text:
            entry["kernel_texts"] = list(change.texts)
        changes.append(entry)
    return {
        "schema": 1,
        "commits": log.commits,
        "versions": log.versions,
        "cells": [dispatch_table.cell_dict(cell) for cell in log.cells],
        "changes": changes,
    }
