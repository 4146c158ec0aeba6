"""Reading commits in bulk: the first-parent line, and which release first has a commit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

from bisect_tool.errors import UsageProblem
from bisect_tool.upstream.git_calls import Git
from bisect_tool.upstream.values import Commit

_FORMAT = "--format=%H%x00%T%x00%P%x00%ct%x00%s"
_RELEASE_TAG = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_DATE = re.compile(r"@(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d)?)Z?)?")


def commits(git: Git, *arguments: str) -> list[Commit]:
    """What ``git log`` lists for these arguments, newest first."""
    found = []
    listing = git.says("log", "--no-show-signature", "--no-color", _FORMAT, *arguments, "--")
    for line in listing.split("\n"):  # not splitlines: a subject may hold what that takes for a line's end
        if line:
            sha, tree, parents, committed, subject = line.split("\0")
            found.append(Commit(sha, tree, subject, int(committed), tuple(parents.split())))
    return found


def moment(name: str) -> int | None:
    """The last second that ``@2026-03-01`` or ``@2026-03-01T12:00`` means, UTC; None when it is no date.

    Raises UsageProblem for a day that does not exist.
    """
    match = _DATE.fullmatch(name)
    if match is None:
        return None
    try:
        day = datetime.fromisoformat(f"{match[1]}T{match[2] or '00:00'}").replace(tzinfo=timezone.utc)
    except ValueError as problem:
        raise UsageProblem(f"{name!r} is no date", str(problem), "write it like @2026-03-01") from problem
    if match[2] is None:
        day += timedelta(days=1, seconds=-1)
    return int(day.timestamp())


def day_of(seconds: int) -> str:
    """A time in seconds since 1970 as a day, UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d")


def first_tags(git: Git) -> dict[str, str]:
    """For every commit that a release holds, the tag of the lowest such one: ``v1.2.3``, no candidates."""
    tips = {}
    form = "--format=%(refname:strip=2) %(objectname) %(*objectname)"
    for line in git.says("for-each-ref", form, "refs/tags/v*").split("\n")[:-1]:
        name, sha, peeled = line.split(" ")
        if match := _RELEASE_TAG.fullmatch(name):
            tips[tuple(map(int, match.groups()))] = (name, peeled or sha)
    ordered = [tips[version] for version in sorted(tips)]
    if not ordered:
        return {}
    parents = {}
    listing = git.says("rev-list", "--parents", "--stdin", stdin="".join(f"{sha}\n" for _, sha in ordered))
    for line in listing.splitlines():
        sha, *before = line.split()
        parents[sha] = before
    first: dict[str, str] = {}
    for name, tip in ordered:
        for sha in _reached(tip, parents, first):
            first[sha] = name
    return first


def _reached(tip: str, parents: dict[str, list[str]], known: dict[str, str]) -> Iterable[str]:
    """``tip`` and what it descends from, stopping at what is known."""
    found, waiting = set(), [tip]
    while waiting:
        sha = waiting.pop()
        if sha in found or sha in known:
            continue
        found.add(sha)
        waiting += parents.get(sha, ())
    return found
