"""A pull request as it would be on another revision: its head merged onto it, in the clone, as a commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bisect_tool.errors import MergeConflict, ToolMissing, UpstreamUnreachable, UsageProblem
from bisect_tool.upstream import git_calls, history
from bisect_tool.upstream.local_tree import WHO, store
from bisect_tool.upstream.revision import Revision
from bisect_tool.upstream.values import Commit, Resolved

if TYPE_CHECKING:
    from bisect_tool.upstream.clone import Upstream

SHOWN_FILES = 4


def resolve(upstream: Upstream, revision: Revision, onto: str) -> Resolved:
    """The head of a pull request, merged onto ``onto``: always the same commit for the same two.

    Raises MergeConflict with the files, UsageProblem for a pull request that ``onto`` holds already,
    UnknownRevision, UpstreamUnreachable, ToolMissing for a git before 2.38.
    """
    number = revision.pull[0]
    pull = upstream.pull(number)
    goal = upstream.resolve(Revision.parse(onto)).commit
    contained = [end for end in (pull.merge, pull.head) if end is not None and _holds(upstream, goal, end)]
    if contained:
        raise UsageProblem(
            f"#{number} is in {onto} already",
            f"as {contained[0].short}",
            "leave --onto out: it is compared with its parent",
        )
    if pull.head is None:
        raise UpstreamUnreachable(f"the branch of #{number} is not here and cannot be fetched")
    commit = merge(upstream, pull.head, goal, f"#{number}", onto)
    note = f"#{number} ({pull.head.short}) merged onto {onto} ({goal.short})"
    return Resolved(revision, commit, upstream.trusted(pull.head.sha), note)


def merge(upstream: Upstream, head: Commit, onto: Commit, head_name: str, onto_name: str) -> Commit:
    """Merge two commits without a work tree; the names are for messages. Raises MergeConflict."""
    said = upstream.git.tries("merge-tree", "--write-tree", "--name-only", "-z", onto.sha, head.sha)
    tree, *rest = said.out.split("\0")
    if said.status == 1 and rest:
        files = rest[: rest.index("")] if "" in rest else rest
        shown = ", ".join(files[:SHOWN_FILES]) + (
            f" and {len(files) - SHOWN_FILES} more" * (len(files) > SHOWN_FILES)
        )
        raise MergeConflict(
            f"{head_name} does not merge onto {onto_name}",
            f"conflict in {shown}",
            "leave --onto out, or rebase a branch of your own and give it as path:DIR",
        )
    if said.status == 129 or "usage: git merge-tree" in said.err:
        raise ToolMissing("--onto needs git 2.38 or newer", "this one cannot merge without a work tree")
    if not said.ok:
        raise git_calls.failure(f"{head_name} could not be merged onto {onto_name}", said)
    when = f"{WHO} {max(head.committed, onto.committed)} +0000"
    lines = [
        f"tree {tree}",
        f"parent {onto.sha}",
        f"parent {head.sha}",
        f"author {when}",
        f"committer {when}",
    ]
    text = "\n".join([*lines, "", f"Merge {head.short} onto {onto.short}", ""])
    upstream.close()  # the process that reads objects starts anew and sees the tree
    sha = store(upstream, "commit", text.encode())
    upstream.close()
    return history.commits(upstream.git, "-1", sha)[0]


def _holds(upstream: Upstream, commit: Commit, other: Commit) -> bool:
    return upstream.git.tries("merge-base", "--is-ancestor", other.sha, commit.sha).ok
