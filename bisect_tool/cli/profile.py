"""`bisect_tool profile`: what limits the kernels of one revision, as a profiler sees it. Nothing is timed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bisect_tool.cli.cases import typed
from bisect_tool.cli.dispatching import cell_options
from bisect_tool.cli.options import build_options, env_option, json_option, quiet_option

if TYPE_CHECKING:
    from bisect_tool.analysis.launches import Cell
    from bisect_tool.cli.progress import Watch
    from bisect_tool.measuring.profilers import Profilers
    from bisect_tool.measuring.session import Arm

CPU_SCALE = 8  # a CPU takes seconds for a call of #3553's shapes


@click.command("profile")
@click.argument("revision")
@cell_options("1-4", "those of #3553; an eighth of them on a CPU")
@click.option(
    "--cache",
    type=click.Choice(["hot", "cold"]),
    default="hot",
    show_default=True,
    help="On CUDA: caches as the calls before left them, or emptied before each call.",
)
@env_option
@json_option
@quiet_option
@build_options
def command(revision: str, as_json: bool, **options: Any) -> int:
    """What limits REVISION's kernels here: on CUDA the counters of ncu that tell bandwidth, arithmetic, waves
    and occupancy apart, on macOS a Metal capture of each call for Xcode, on a Linux CPU the functions that
    perf finds. Nothing is timed meanwhile; `bisect_tool repro` times.
    """
    from bisect_tool.cli.preparing import prepared
    from bisect_tool.cli.progress import Watch
    from bisect_tool.errors import EXIT_DONE, UsageProblem
    from bisect_tool.host.facts import facts
    from bisect_tool.host.system import current
    from bisect_tool.measuring.profilers import Profilers
    from bisect_tool.reporting import environment
    from bisect_tool.reporting.text import mlx

    with Watch(options["quiet"]) as watch:
        cells = _cells(options)
        arm, made = prepared(revision, options, watch, options["env_options"])
        if options["cache"] == "cold" and not arm.environment.backend.startswith("cuda"):
            raise UsageProblem("--cache cold needs ncu", f"the backend is {arm.environment.backend}")
        if arm.environment.backend == "cpu" and not options["shapes"]:
            cells = [cell._replace(K=cell.K // CPU_SCALE, N=cell.N // CPU_SCALE) for cell in cells]
        profilers = Profilers(arm.environment, made.sandbox, arm.env, current().find)
        text, data = _profiled(profilers, cells, options["cache"] == "cold", watch)
        watch.phase("looking at this machine")
        host = facts().as_dict()
    if as_json:
        head = {"schema": 1, "revision": arm.label, "backend": arm.environment.backend, "host": host}
        click.echo(json.dumps({**head, **data}, indent=1))
    else:
        under = environment.short_block({"host": host, "command": typed()}, _line(arm))
        click.echo(f"{mlx(arm.label)} ({arm.environment.backend})\n\n{text}\n\n{under}")
    return EXIT_DONE


def _cells(options: dict[str, Any]) -> list[Cell]:
    """In the order of shapes, then rows; their architecture is this machine's own."""
    from bisect_tool.cli import dispatching

    made = dispatching.cells({**options, "archs": (), "nax": False})
    return [cell._replace(arch="here") for cell in made]


def _line(arm: Arm) -> Any:
    from bisect_tool.measuring.session import arm_line

    return arm_line(arm)


def _profiled(
    profilers: Profilers, cells: Sequence[Cell], cold: bool, watch: Watch
) -> tuple[str, dict[str, Any]]:
    """The text and the data of what this machine's profiler sees of each cell."""
    from bisect_tool.analysis import limits
    from bisect_tool.reporting import profile

    def each(doing: str) -> Any:
        for cell in cells:
            watch.phase(f"{cell.K} → {cell.N}, M={cell.M} {doing}")
            yield cell

    backend = profilers.environment.backend
    if backend.startswith("cuda"):
        found = [
            limits.profiled(cell, profilers.cuda_kernels(cell, limits.METRICS, cold=cold))
            for cell in each("under ncu")
        ]
        data = {"cache": "cold" if cold else "hot", "readings": profile.readings_data(found)}
        return profile.limits_text(found, cold), {**data, "profiled": profile.limits_data(found)}
    if backend == "metal":
        captured = [(cell, profilers.metal_capture(cell)) for cell in each("captured")]
        return profile.captures_text(captured), {"profiled": profile.captures_data(captured)}
    sampled = [(cell, profilers.cpu_samples(cell)) for cell in each("under perf")]
    return profile.samples_text(sampled), {"profiled": profile.samples_data(sampled)}
