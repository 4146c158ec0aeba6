"""One revision made ready to be looked at on this machine, by `profile` and `dispatch --observe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bisect_tool.building.provision import Provider
    from bisect_tool.cli.progress import Watch
    from bisect_tool.measuring.session import Arm


def prepared(
    text: str, options: dict[str, Any], watch: Watch, env_options: Sequence[str] = ()
) -> tuple[Arm, Provider]:
    """The arm of a revision, built where need be, and the provider whose walls its GPU works behind.

    Raises what ``provider``, ``repro.arm_of`` and ``repro.let_the_gpu_work`` raise.
    """
    from bisect_tool.cli.provider import provider
    from bisect_tool.measuring import child_env, repro
    from bisect_tool.measuring.run import Script
    from bisect_tool.upstream.revision import Revision

    made = provider(options, watch)
    arm = repro.arm_of(Revision.parse(text), made, child_env.parse_env_options(env_options), watch)
    repro.let_the_gpu_work(arm, Script.load(None, ()), made, watch)
    return arm, made
