"""From names to commits: shas, tags, branches, dates, ranges, and what to say of a name that is unknown."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from bisect_tool.errors import UnknownRevision, UpstreamUnreachable, UsageProblem
from bisect_tool.upstream import borrowing, history
from bisect_tool.upstream.revision import Revision
from bisect_tool.upstream.values import Commit

if TYPE_CHECKING:
    from bisect_tool.upstream.clone import Upstream

_FULL = re.compile(r"[0-9a-f]{40}")
_ABBREVIATED = re.compile(r"[0-9a-fA-F]{4,39}")


def commit(upstream: Upstream, name: str) -> Commit:
    """The commit of a sha (of any length that is unique), tag, branch, ``main~3`` or date.

    Fetches once when the name is unknown. Raises UnknownRevision with the nearest names.
    """
    if not name or name.startswith("-") or re.search(r"[\s\0]", name):
        raise UsageProblem(f"{name!r} is not a revision", "", "give a commit, tag or branch")
    until = history.moment(name)
    if until is not None:
        return _until(upstream, name, until)
    sha = _sha(upstream, name)
    if sha is None and upstream.stale():
        _ambiguous(upstream, name)
        upstream.fetch()
        sha = _sha(upstream, name)
    if sha is None:
        _ambiguous(upstream, name)
        raise _unknown(upstream, name)
    return history.commits(upstream.git, "-1", sha)[0]


def between(upstream: Upstream, text: str) -> list[Commit]:
    """The first-parent commits of ``a..b``, without ``a``, oldest first.

    Raises UsageProblem when ``a`` is not on the first-parent line of ``b``, saying what to write.
    """
    first, mark, last = text.partition("..")
    if not mark or not first or not last or last.startswith(".") or ".." in last:
        raise UsageProblem(f"{text!r} is no range", remedy="write it as A..B, such as v0.31.2..v0.32.0")
    start, end = (upstream.resolve(Revision.parse(name)).commit for name in (first, last))
    found = history.commits(upstream.git, "--first-parent", f"{start.sha}..{end.sha}")
    if found and start.sha in found[-1].parents[:1]:
        return found[::-1]
    if start.sha == end.sha:
        return []
    if _is_ancestor(upstream, end.sha, start.sha):
        raise UsageProblem(f"{text!r} is empty", f"{first} comes after {last}", f"write {last}..{first}")
    line = {commit.sha for commit in history.commits(upstream.git, "--first-parent", end.sha)}
    before = history.commits(upstream.git, "--first-parent", start.sha)
    fork = next((commit for commit in before if commit.sha in line), None)
    raise UsageProblem(
        f"{text!r} is no range of the first-parent line",
        f"{first} is not on the line of {last}",
        f"write {fork.short}..{last}: they part there" if fork else "they have no commit in common",
    )


def merge_base(upstream: Upstream, a: str, b: str) -> Commit:
    """The last commit that two commits (names or shas) have in common. Raises UsageProblem."""
    ends = [commit(upstream, name).sha for name in (a, b)]
    said = upstream.git.tries("merge-base", *ends)
    if not said.ok:
        raise UsageProblem(f"{a} and {b} have no commit in common", remedy="name commits of one history")
    return commit(upstream, said.out.split()[0])


def _sha(upstream: Upstream, name: str) -> str | None:
    said = upstream.git.tries("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    sha = said.out.strip()
    return sha if said.ok and _FULL.fullmatch(sha) else None


def _until(upstream: Upstream, name: str, until: int) -> Commit:
    if until > (upstream.git_dir / borrowing.SEEN).stat().st_mtime and upstream.stale():
        with contextlib.suppress(UpstreamUnreachable):  # what is here may do: nothing newer is known
            upstream.fetch()
    for commit in upstream.line():
        if commit.committed <= until:
            return commit
    begins = history.day_of(upstream.line()[-1].committed)
    raise UnknownRevision(
        f"there is no commit of {name[1:]}", f"the history begins on {begins}", "give a later day"
    )


def _ambiguous(upstream: Upstream, name: str) -> None:
    """Raise UnknownRevision with the candidates when ``name`` begins the shas of several commits."""
    start = re.split(r"[~^]", name)[0]
    if not _ABBREVIATED.fullmatch(start):
        return
    listed = upstream.git.tries("rev-parse", f"--disambiguate={start}").out.split()
    wanted = "".join(f"{sha}\n" for sha in listed)
    kinds = upstream.git.says("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=wanted)
    shas = [line.split()[0] for line in kinds.splitlines() if line.endswith(" commit")]
    if len(shas) > 1:
        found = history.commits(upstream.git, "--no-walk", *shas[:5])
        raise UnknownRevision(
            f"{start!r} is ambiguous",
            "it begins " + ", ".join(f"{commit.sha[:12]} ({commit.subject})" for commit in found),
            "give more digits",
        )


def _unknown(upstream: Upstream, name: str) -> UnknownRevision:
    import difflib

    start = re.split(r"[~^]", name)[0]
    what = f"{name!r} is not a commit, tag or branch of {upstream.source.shown}"
    if start != name and _sha(upstream, start) is not None:
        return UnknownRevision(what, f"{start} has no such ancestor")
    if Path(name).is_dir():
        return UnknownRevision(what, "", f"for that folder write path:{name}")
    listing = upstream.git.says(
        "for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags", "refs/remotes"
    )
    names = {re.sub(r"^refs/(heads|tags|remotes)/", "", ref): None for ref in listing.split("\n") if ref}
    near = difflib.get_close_matches(start, names, n=4, cutoff=0.5)
    hint = "the network may not be used" if upstream.offline and upstream.source.git_dir is None else ""
    return UnknownRevision(what, hint, f"near it: {', '.join(near)}" if near else "")


def _is_ancestor(upstream: Upstream, sha: str, other: str) -> bool:
    return upstream.git.tries("merge-base", "--is-ancestor", sha, other).ok
