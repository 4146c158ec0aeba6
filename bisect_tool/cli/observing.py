"""`bisect_tool dispatch --observe`: what really ran on this machine, beside what the probe says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bisect_tool.errors import ToolError, UsageProblem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bisect_tool.analysis.launches import Cell
    from bisect_tool.cli.progress import Watch
    from bisect_tool.measuring.observing import Observed

WORDS = {True: "as M=1", False: "other bits", None: "not known"}


def observe(
    revisions: Sequence[str], cells: Sequence[Cell], options: dict[str, Any], *, as_json: bool, quiet: bool
) -> int:
    """Run the cells of one revision here. Their architecture is this machine's own, whatever they name."""
    from bisect_tool.cli.preparing import prepared
    from bisect_tool.cli.progress import Watch
    from bisect_tool.host.system import current
    from bisect_tool.measuring.observing import Observer
    from bisect_tool.measuring.profilers import Profilers

    if len(revisions) != 1:
        raise UsageProblem("--observe takes one revision", "it is run on this machine", "name one")
    cells = list(dict.fromkeys(cell._replace(arch="here", nax=False) for cell in cells))
    with Watch(quiet) as watch:
        arm, made = prepared(revisions[0], options, watch)
        logs = made.builds / "logs" / "observed"
        logs.mkdir(parents=True, exist_ok=True)
        profilers = Profilers(arm.environment, made.sandbox, arm.env, current().find)
        found = Observer(profilers, logs).observe(cells, watch.phase)
        said = probe_says(arm.label, found, options, watch)
    if as_json:
        click.echo(json.dumps(_data(arm.label, arm.environment.backend, found, said), indent=1))
    else:
        click.echo(_text(arm.label, arm.environment.backend, found, said))
    return 0


def probe_says(
    text: str, found: Sequence[Observed], options: dict[str, Any], watch: Watch
) -> dict[Cell, str]:
    """What the probe says that the GPU here launches, by family; nothing where it is none of Apple's."""
    from bisect_tool.cli.dispatching import open_upstream, prober, resolve
    from bisect_tool.dispatch import architectures

    try:
        asked_for = {}
        for each in found:
            (arch,) = architectures.parse(each.arch)
            asked_for[each.cell] = each.cell._replace(arch=arch, nax=architectures.has_nax(arch))
    except UsageProblem:
        return {}
    with open_upstream(options, watch) as upstream:
        try:
            asked = prober(options, upstream, watch).ask(resolve(upstream, text), list(asked_for.values()))
        except ToolError as problem:
            watch.remark(f"the probe says nothing: {problem.line()}")
            return {}
    return {cell: asked.answers[other].family for cell, other in asked_for.items()}


def _text(label: str, backend: str, found: Sequence[Observed], said: Mapping[Cell, str]) -> str:
    from bisect_tool.reporting.dispatch_table import settings
    from bisect_tool.reporting.text import mlx, table

    cells = [
        [
            settings(each.cell),
            f"{each.cell.K} → {each.cell.N}",
            str(each.cell.M),
            WORDS[each.row_as_m1],
            _ran(each),
        ]
        for each in found
    ]
    text = f"{mlx(label)} ({backend})\n\n"
    head = ["op", "K → N", "M", "row 0", "what ran"]
    if said:
        head.append("the probe says")
        cells = [[*row, said[each.cell]] for row, each in zip(cells, found, strict=True)]
    text += table(head, cells)
    text += (
        "\n\n- other bits than M=1 gives for the same row: another kernel ran; the same bits prove nothing"
    )
    if backend == "cpu":
        text += "\n- there is no GPU here that would run kernels"
    return text


def _ran(each: Observed) -> str:
    if each.kernels is not None:
        return "; ".join(f"{kernel.name} grid {kernel.grid} block {kernel.block}" for kernel in each.kernels)
    return f"captured in {each.capture}" if each.capture is not None else ""


def _data(label: str, backend: str, found: Sequence[Observed], said: Mapping[Cell, str]) -> dict[str, Any]:
    from bisect_tool.reporting.dispatch_table import cell_dict

    return {
        "schema": 1,
        "revision": label,
        "backend": backend,
        "observed": [
            {
                "cell": {
                    name: value for name, value in cell_dict(each.cell).items() if name not in ("arch", "nax")
                },
                "row_bits_as_m1": each.row_as_m1,
                "kernels": None
                if each.kernels is None
                else [{"name": k.name, "grid": k.grid, "block": k.block} for k in each.kernels],
                "probe": said.get(each.cell),
                "capture": str(each.capture) if each.capture is not None else None,
            }
            for each in found
        ],
    }
