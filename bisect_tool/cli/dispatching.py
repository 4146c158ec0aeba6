"""What `dispatch` and `dispatch-log` have in common: the options of cells, and the way to a prober."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bisect_tool.cli.options import Decorator, together
from bisect_tool.paths import builds_folder

if TYPE_CHECKING:
    from bisect_tool.analysis.launches import Cell
    from bisect_tool.cli.progress import Watch
    from bisect_tool.dispatch.prober import Prober
    from bisect_tool.upstream.clone import Upstream
    from bisect_tool.upstream.values import Resolved


def cell_options(rows: str, shapes: str) -> Decorator:
    """The options that say for which calls of the op the question is. ``rows``: the default of M. ``shapes``:
    what the default of ``--shape`` is called."""
    return together(
        click.option(
            "--shape", "shapes", multiple=True, metavar="KxN", help=f"Repeatable  [default: {shapes}]"
        ),
        click.option("--rows", default=rows, show_default=True, metavar="1-4,8", help="Values of M."),
        click.option("--bits", metavar="N,N", help="2, 3, 4, 5, 6, 8  [default: 4, or what the mode has]"),
        click.option("--group-size", metavar="N,N", help="[default: 64, or what the mode has]"),
        click.option(
            "--quant", default="affine", show_default=True, metavar="NAMES", help="affine, mxfp4, …"
        ),
        click.option("--dtype", default="float16", show_default=True, metavar="NAMES", help="float16, …"),
        click.option("--no-transpose", is_flag=True, help="x @ w in place of x @ w.T"),
    )


gpu_options = together(
    click.option(
        "--arch",
        "archs",
        multiple=True,
        metavar="NAME",
        help="applegpu_g16s, g16s, 'M4 Pro', or all; repeatable  [default: #3553's, applegpu_g16s]",
    ),
    click.option(
        "--nax/--no-nax",
        "nax",
        default=None,
        help="With the neural accelerator's kernels  [default: generation 17 and above]",
    ),
    cell_options("1-40", "those of #3553"),
)
"""``cell_options``, and those that say for which GPUs the question is."""


def cells(options: dict[str, Any]) -> list[Cell]:
    """What ``gpu_options`` ask for. Raises UsageProblem."""
    from bisect_tool.dispatch import architectures
    from bisect_tool.dispatch import cells as making

    archs = [arch for text in options["archs"] or ("applegpu_g16s",) for arch in architectures.parse(text)]
    shapes = [making.shape(text) for text in options["shapes"]] or list(making.SHAPES_3553)
    return making.cells(
        list(dict.fromkeys(archs)),
        shapes,
        making.rows(options["rows"]),
        bits=making.rows(options["bits"]) if options["bits"] else (),
        group_sizes=making.rows(options["group_size"]) if options["group_size"] else (),
        modes=making.names(options["quant"], making.MODES, "mode"),
        dtypes=making.names(options["dtype"], making.DTYPES, "dtype"),
        transpose=not options["no_transpose"],
        nax=options["nax"],
    )


def open_upstream(options: dict[str, Any], watch: Watch) -> Upstream:
    """The clone that the options name. Raises UsageProblem, UpstreamUnreachable."""
    from bisect_tool import config
    from bisect_tool.upstream.clone import PUBLIC, Upstream
    from bisect_tool.upstream.mirrors import Mirrors

    configured = click.get_current_context().find_object(config.Config) or config.Config()
    upstream = Upstream.open(
        builds_folder(options["builds"]),
        options["repo"] or PUBLIC,
        mirrors=Mirrors.parse(config.combined_mirrors(options["mirror"], configured)),
        offline=options["offline"],
        on_phase=watch.phase,
    )
    if options["fetch"]:
        upstream.fetch()
    return upstream


def prober(options: dict[str, Any], upstream: Upstream, watch: Watch) -> Prober:
    from bisect_tool.building.sandbox import Mode
    from bisect_tool.dispatch.prober import Prober

    builds: Path = builds_folder(options["builds"])
    made = Prober(upstream, builds, Mode(options["sandbox"]), options["trust"], watch.phase, watch.remark)
    if options["jobs"]:
        made.jobs = options["jobs"]
    return made


def resolve(upstream: Upstream, text: str) -> Resolved:
    """A revision of any kind; of a release its tag, since only sources can be asked."""
    from bisect_tool.dispatch.history import revision_of

    return upstream.resolve(revision_of(without_architecture(text)))


def without_architecture(text: str) -> str:
    """The revision, when it does not set the architecture: here that is an option. Raises UsageProblem."""
    from bisect_tool.dispatch import architectures
    from bisect_tool.errors import UsageProblem
    from bisect_tool.upstream.revision import Revision

    if architectures.VARIABLE in dict(Revision.parse(text).settings):
        raise UsageProblem(f"{text!r} names the architecture as a setting", "", "give it as --arch")
    return text
