"""Pull requests: merged ones are squashed onto the default branch with ``(#N)``, open ones are a branch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bisect_tool.errors import UnknownRevision, UpstreamUnreachable
from bisect_tool.upstream import git_calls, history
from bisect_tool.upstream.git_calls import Git
from bisect_tool.upstream.revision import Revision
from bisect_tool.upstream.source import PUBLIC
from bisect_tool.upstream.values import Commit, Pull, Resolved

if TYPE_CHECKING:
    from bisect_tool.upstream.clone import Upstream

# MLX's first commit: the public repository is asked for the pull requests of its own clones only.
FIRST_COMMIT = "e411fcae68e8fe157f2cb505a2b5dda1a2b1b297"


def known(git: Git) -> list[int]:
    """The pull requests whose branches the clone has."""
    listing = git.says("for-each-ref", "--format=%(refname)", "refs/pull/*/head")
    return [int(match[1]) for match in re.finditer(r"^refs/pull/(\d+)/head$", listing, re.MULTILINE)]


def find(upstream: Upstream, number: int) -> Pull:
    """A pull request with its branch, fetched when it is not here.

    Raises UnknownRevision, UpstreamUnreachable.
    """
    merge, head = _here(upstream, number)
    if head is None:
        try:
            head = _fetched(upstream, number)
        except (UnknownRevision, UpstreamUnreachable):
            if merge is None:
                raise
    return _pull(upstream, number, head, merge)


def resolve(upstream: Upstream, revision: Revision) -> Resolved:
    """What ``#N``, ``#N/head`` and ``#N^`` mean. The branch is not fetched where the merge commit will do."""
    number, part = revision.pull
    merge, head = _here(upstream, number)
    if (merge is None or part == "head") and head is None:
        head = _fetched(upstream, number)
    pull = _pull(upstream, number, head, merge)
    note = f"#{number} is merged as {merge.short}" if merge is not None else ""
    if part == "head":
        assert pull.head is not None
        commit = pull.head
    elif part == "^":
        commit = pull.base
    else:
        commit = pull.tip
    return Resolved(revision, commit, upstream.trusted(commit.sha), note)


def _here(upstream: Upstream, number: int) -> tuple[Commit | None, Commit | None]:
    """Merge commit and branch as the clone has them; looked up anew when it has neither."""
    merge, head = merged_as(upstream, number), branch(upstream, number)
    if merge is None and head is None and upstream.stale():
        upstream.fetch()
        merge, head = merged_as(upstream, number), branch(upstream, number)
    return merge, head


def merged_as(upstream: Upstream, number: int) -> Commit | None:
    """The commit of the default branch that carries the number; the first one where several do."""
    return next((commit for commit in reversed(upstream.line()) if commit.pull == number), None)


def branch(upstream: Upstream, number: int) -> Commit | None:
    """The branch as the clone has it."""
    said = upstream.git.tries("rev-parse", "--verify", "--quiet", f"refs/pull/{number}/head^{{commit}}")
    return history.commits(upstream.git, "-1", said.out.strip())[0] if said.ok else None


def _pull(upstream: Upstream, number: int, head: Commit | None, merge: Commit | None) -> Pull:
    if merge is not None:
        return Pull(number, head, merge, upstream.commit(merge.parents[0]) if merge.parents else merge)
    assert head is not None
    return Pull(number, head, None, upstream.merge_base(head.sha, upstream.line()[0].sha))


def _nearest(upstream: Upstream, number: int, shown: int = 5) -> str:
    """The pull requests whose branches are here, those nearest to ``number``, as the end of a remedy."""
    here = sorted(known(upstream.git), key=lambda other: abs(other - number))
    near = ", ".join(f"#{other}" for other in sorted(here[:shown]))
    more = f", … ({len(here)} in all)" if len(here) > shown else ""
    return f", or choose one that the clone has: {near}{more}" if here else ""


def _fetched(upstream: Upstream, number: int) -> Commit:
    """The branch of a pull request that is not in the clone. Raises UnknownRevision, UpstreamUnreachable."""
    local = upstream.source.git_dir is not None
    address = PUBLIC if local else upstream.source.address
    shown = git_calls.without_credentials(address)
    what = f"pull request #{number} is not in {upstream.source.shown if local else 'the clone'}"
    if local and upstream.mirrors.local(PUBLIC) is None and upstream.line()[-1].sha != FIRST_COMMIT:
        raise UnknownRevision(what, f"it has no refs/pull/{number}/head", "fetch it there first")
    if upstream.offline and upstream.mirrors.local(address) is None:
        raise UpstreamUnreachable(
            what,
            f"the network may not be used to fetch it from {shown}",
            f"leave --offline out{_nearest(upstream, number)}",
        )
    said = upstream.fetch_pull(number, address)
    if "couldn't find remote ref" in said.err:
        raise UnknownRevision(f"there is no pull request #{number} in {shown}")
    if not said.ok:
        raise git_calls.failure(
            f"{what} and could not be fetched from {shown}",
            said,
            "check the network, or map the address to a local copy with --mirror",
        )
    found = branch(upstream, number)
    assert found is not None
    return found
