"""`bisect_tool dispatch`: which kernels revisions would launch, from their own source."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bisect_tool.cli.dispatching import gpu_options
from bisect_tool.cli.options import build_options, json_option, quiet_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bisect_tool.analysis.launches import Cell
    from bisect_tool.dispatch.history import Difference
    from bisect_tool.dispatch.prober import Asked


@click.command("dispatch")
@click.argument("revisions", nargs=-1, required=True, metavar="REVISION...")
@gpu_options
@click.option("--kernel-text", is_flag=True, help="Of two: also whether the text of the kernels differs.")
@click.option("--observe", is_flag=True, help="Run a revision on this machine, and show what really ran.")
@json_option
@quiet_option
@build_options
def command(
    revisions: tuple[str, ...], kernel_text: bool, observe: bool, as_json: bool, quiet: bool, **options: Any
) -> int:
    """Which kernels each REVISION would launch on a GPU that need not be here: its own host code is compiled
    alone and asked. Two revisions, or a pull request such as '#3764', give what differs.
    """
    from bisect_tool.cli.dispatching import cells, open_upstream, prober, resolve, without_architecture
    from bisect_tool.cli.progress import Watch
    from bisect_tool.dispatch import history
    from bisect_tool.upstream.revision import Revision

    asked_for = cells(options)
    if observe:
        from bisect_tool.cli.observing import observe as observed

        return observed(revisions, asked_for, options, as_json=as_json, quiet=quiet)
    with Watch(quiet) as watch, open_upstream(options, watch) as upstream:
        made = prober(options, upstream, watch)
        pair = None
        if len(revisions) == 1:
            pair = history.of_pull(made, Revision.parse(without_architecture(revisions[0])))
        elif len(revisions) == 2:
            pair = resolve(upstream, revisions[0]), resolve(upstream, revisions[1])
        if pair is not None:
            difference = history.difference(made, *pair, asked_for, kernel_texts=kernel_text)
            answered = [difference.before, difference.after]
        else:
            difference = None
            answered = [made.ask(resolve(upstream, text), asked_for) for text in revisions]
    if as_json:
        click.echo(json.dumps(_data(answered, difference, kernel_text), indent=1))
    else:
        click.echo(_text(answered, difference, asked_for, kernel_text))
    return 0


def _text(
    answered: Sequence[Asked], difference: Difference | None, cells: Sequence[Cell], kernel_text: bool
) -> str:
    from bisect_tool.reporting import dispatch_table

    if difference is None:
        parts = [f"**{each.label}**; {dispatch_table.answers_text(each.answers)}" for each in answered]
    else:
        names = " → ".join(f"**{each.label}**" for each in answered)
        parts = [f"{names}: {dispatch_table.difference_text(difference.changed, len(cells))}"]
        if kernel_text:
            parts.append(dispatch_table.texts_line(difference.texts))
    return "\n\n".join([*parts, *_footer(answered, cells)])


def _footer(answered: Sequence[Asked], cells: Sequence[Cell]) -> list[str]:
    """Which GPUs are meant, and how what was asked had to be compiled."""
    from bisect_tool.dispatch import architectures

    lines = [f"- {line}" for line in architectures.legend(list(dict.fromkeys(cell.arch for cell in cells)))]
    if any(cell.nax for cell in cells):
        lines.append("- NAX: the build and the system have the neural accelerator's kernels (macOS 26.2)")
    lines += [f"- {each.label} was compiled {each.rung}" for each in answered if each.rung]
    return ["\n".join(lines)]


def _data(answered: Sequence[Asked], difference: Difference | None, kernel_text: bool) -> dict[str, Any]:
    from bisect_tool.reporting import dispatch_table

    data: dict[str, Any] = {
        "schema": 1,
        "revisions": [
            {
                "revision": each.resolved.revision.text,
                "sha": each.resolved.commit.sha,
                "subject": each.resolved.commit.subject,
                "compiled": each.rung,
                "probe": each.key,
                "answers": dispatch_table.answers_list(each.answers),
            }
            for each in answered
        ],
    }
    if difference is not None:
        data["changed"] = dispatch_table.changed_list(difference.changed)
        if kernel_text:
            data["kernel_texts"] = list(difference.texts)
    return data
