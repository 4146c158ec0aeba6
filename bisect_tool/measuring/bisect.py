"""What `bisect_tool bisect` does: a new search in a session of its own, or the last unfinished one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bisect_tool import __version__
from bisect_tool.measuring import child_env, ledger
from bisect_tool.measuring.course import Course
from bisect_tool.measuring.repro import (
    admit,
    let_the_gpu_work,
    plan_of,
    unfinished,
    variables,
)
from bisect_tool.measuring.run import Script, check_arguments
from bisect_tool.measuring.searching import Arms, Dispatch, Request, Search, Watcher
from bisect_tool.measuring.session import (
    arm_line,
    new_seed,
    timestamp,
)
from bisect_tool.upstream.revision import Revision

if TYPE_CHECKING:
    from bisect_tool.building.provision import Provider


def _prepared(asked: Request, provider: Provider) -> tuple[Script, list[tuple[str, str]], dict[str, Any]]:
    """Script, variables, and what a session must have in common with the command to be gone on with."""
    script = Script.load(asked.script, asked.script_args)
    admit(script, provider)
    extra = variables(asked.env_options, provider)
    plan = {
        **plan_of([Revision.parse(asked.bad)], script, extra, provider),
        "arms": [asked.good, asked.bad],
        "bisect": {
            "metric": asked.metric,
            "find": asked.find,
            "paths": list(asked.paths),
            "suspects": list(asked.suspects),
            **({"prior": asked.prior} if asked.prior else {}),
        },
    }
    return script, extra, plan


def resume(
    asked: Request, provider: Provider, watch: Watcher, dispatch: Dispatch | None = None
) -> ledger.Session:
    """Go on with the last unfinished session of this command. Raises NoSuchSession, and as ``search``."""
    script, extra, plan = _prepared(asked, provider)
    path = unfinished(provider.builds, plan, asked.seed, watch)
    with ledger.reopen(path) as (book, session):
        going_on = Search(
            asked, Course(asked, provider), watch, script, extra, book, session.header, list(session.lines),
            dispatch,
        )  # fmt: skip
        going_on.resume()
        going_on.run()
    return ledger.read(path)


def search(
    asked: Request, course: Course, watch: Watcher, dispatch: Dispatch | None = None
) -> ledger.Session:
    """Search, and return the session as the ledger has it. ``dispatch``: None where none is to be told.

    Raises UsageProblem for what cannot be asked, Untrusted for a stranger's code that nothing would hold
    back, BuildFailed when an end cannot be measured, Interrupted. Trouble of the machine is raised too, and
    the session is kept.
    """
    provider = course.provider
    script, extra, plan = _prepared(asked, provider)
    stage = course.positions
    arms = Arms(provider, extra, watch).both(stage[course.start], stage[-1])
    let_the_gpu_work(arms[0], script, provider, watch)
    check_arguments(arms[0].environment, script, arms[0].env, provider.sandbox)
    watch.phase("looking at this machine")
    from bisect_tool.host.facts import facts

    header = {
        "id": ledger.new_id(),
        "started": timestamp(),
        "tool": __version__,
        "command": child_env.without_values([word for word in asked.command if word != "--resume"]),
        "format": asked.form,
        "plan": {**plan, "seed": new_seed() if asked.seed is None else asked.seed},
        "settings": {
            "confidence": asked.confidence,
            "budget_s": asked.budget_s,
            "max_builds": asked.max_builds,
            "all_steps": asked.all_steps,
            "releases_only": asked.releases_only,
        },
        "repository": course.address(),
        "host": facts().as_dict(),
        "walls": provider.sandbox.name,
        "notes": list(course.notes),
    }
    first = [course.line(0), *(arm_line(arm) for arm in arms)]
    with ledger.create(provider.builds, header, first) as book:
        begun = Search(asked, course, watch, script, extra, book, header, first, dispatch)
        begun.take(arms)
        begun.run()
        path = book.path
    return ledger.read(path)
