"""The shared options of commands that build, made into a ``Provider``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bisect_tool.paths import builds_folder

if TYPE_CHECKING:
    from bisect_tool.building.provision import Provider
    from bisect_tool.cli.progress import Watch


def provider(options: dict[str, Any], watch: Watch) -> Provider:
    """What ``backend_option``, ``python_option``, ``build_options`` and ``builds_option`` ask for.

    Raises UsageProblem, ToolMissing.
    """
    from bisect_tool import config
    from bisect_tool.building import backend as backends
    from bisect_tool.building import recipe, sandbox
    from bisect_tool.building.builder import Watcher
    from bisect_tool.building.interpreter import find_interpreter
    from bisect_tool.building.provision import Provider
    from bisect_tool.upstream.clone import PUBLIC
    from bisect_tool.upstream.mirrors import Mirrors

    configured = click.get_current_context().find_object(config.Config) or config.Config()
    walls = sandbox.choose(sandbox.Mode(options["sandbox"]))
    if not walls.walled and options["sandbox"] == "auto":
        watch.remark(f"there are no walls around what runs: {walls.why}")
    return Provider(
        builds=builds_folder(options["builds"]),
        backend=backends.choose(options["backend"]),
        interpreter=find_interpreter(options["python"]),
        sandbox=walls,
        watch=Watcher(watch.phase, watch.remark, watch.step),
        repo=options["repo"] or PUBLIC,
        mirrors=Mirrors.parse(config.combined_mirrors(options["mirror"], configured)),
        fetch=options["fetch"],
        offline=options["offline"],
        trust=options["trust"],
        require_walls=options["sandbox"] == "require",
        options=recipe.parse_options(options["defines"]),
        jobs=options["jobs"],
        timeout_s=options["build_timeout"],
    )
