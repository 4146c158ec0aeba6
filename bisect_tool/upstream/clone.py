"""The clone of MLX's repository under ``builds/upstream``, and what is read from it.

One clone for each source. A local source is looked at whenever the clone is opened, which is cheap; an
address is fetched from the first time, when a name is unknown, and when it is asked for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from bisect_tool.errors import UpstreamUnreachable, UsageProblem
from bisect_tool.upstream import borrowing, git_calls, history, local_tree, naming, pulls
from bisect_tool.upstream.mirrors import Mirrors
from bisect_tool.upstream.objects import Objects
from bisect_tool.upstream.revision import Kind, Revision
from bisect_tool.upstream.source import PROJECT, PUBLIC, Source, find
from bisect_tool.upstream.values import Commit, Entry, Pull, Resolved

__all__ = ["PUBLIC", "Commit", "Entry", "Pull", "Resolved", "Upstream"]

# What a commit must be reachable from to be the project's, or one's own, work.
_TRUSTED = ("--branches", "--tags", *(f"--remotes={name}" for name in PROJECT))


class Upstream:
    """MLX's history, read from a bare clone of our own. Use it as a context manager, or ``close`` it."""

    def __init__(
        self,
        git_dir: Path,
        source: Source,
        *,
        builds: Path,
        mirrors: Mirrors,
        offline: bool,
        on_phase: Callable[[str], None],
    ) -> None:
        """An open clone; ``open`` makes it."""
        self.git_dir = git_dir
        self.source = source
        self.mirrors = mirrors
        self.offline = offline
        self.on_phase = on_phase
        self.git = git_calls.Git(git_dir)
        self._builds = builds
        self._fetched = False
        self.objects = Objects(git_dir)
        self._forget()

    @classmethod
    def open(
        cls,
        builds: Path,
        repo: str = PUBLIC,
        *,
        mirrors: Mirrors | None = None,
        offline: bool = False,
        on_phase: Callable[[str], None] = lambda _text: None,
    ) -> Upstream:
        """The clone of ``repo`` under ``builds``, made if it is not there.

        ``repo``: an address, or the path of a repository, which is borrowed from and never written to.
        ``offline``: nothing may be fetched. ``on_phase`` is told what takes time. Safe with any number of
        tools at once. Raises UsageProblem for what is no repository, UpstreamUnreachable, DiskFull,
        ToolMissing.
        """
        mirrors = mirrors or Mirrors()
        source = find(repo, mirrors)
        builds = builds.absolute()
        git_dir = builds / "upstream" / f"{source.slug}.git"
        try:
            if not _whole(git_dir):
                with _held(builds, git_dir, on_phase):
                    if not _whole(git_dir):
                        _make(git_dir, source, mirrors, offline, on_phase)
            elif source.git_dir is not None and not borrowing.up_to_date(git_dir, source):
                with _held(builds, git_dir, on_phase):
                    borrowing.clear_leftovers(git_dir)
                    borrowing.borrow(git_dir, source)
        except OSError as problem:
            raise git_calls.explain(problem, git_dir.parent) from problem
        return cls(git_dir, source, builds=builds, mirrors=mirrors, offline=offline, on_phase=on_phase)

    def __enter__(self) -> Upstream:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the git process that reads objects. It starts again when it is needed."""
        self.objects.close()

    # -- bringing it up to date

    def fetch(self) -> None:
        """Take over what the source has now. Raises UpstreamUnreachable, DiskFull."""
        try:
            with _held(self._builds, self.git_dir, self.on_phase):
                borrowing.clear_leftovers(self.git_dir)
                if self.source.git_dir is not None:
                    borrowing.borrow(self.git_dir, self.source)
                else:
                    self._online(f"{self.source.shown} may not be fetched")
                    self.on_phase(f"fetching {self.source.shown}")
                    numbers = pulls.known(self.git)
                    borrowing.fetch(
                        self.git_dir, self.source, self.mirrors, pulls=numbers, on_phase=self.on_phase
                    )
        except OSError as problem:
            raise git_calls.explain(problem, self.git_dir) from problem
        self._fetched = True
        self._forget()

    def fetch_pull(self, number: int, address: str) -> git_calls.Said:
        """Fetch the branch of a pull request from ``address`` (which a mirror may stand for)."""
        mapped = self.mirrors.local(address)
        place = str(find(address, self.mirrors).git_dir) if mapped else address
        spec = f"+refs/pull/{number}/head:refs/pull/{number}/head"
        try:
            with _held(self._builds, self.git_dir, self.on_phase):
                borrowing.clear_leftovers(self.git_dir)
                self.on_phase(f"fetching #{number}")
                said = borrowing.fetch_one(self.git_dir, place, spec, self.mirrors, on_phase=self.on_phase)
        except OSError as problem:
            raise git_calls.explain(problem, self.git_dir) from problem
        self._forget()
        return said

    def stale(self) -> bool:
        """Whether fetching could bring something new: this process has not done so, and may."""
        return not self._fetched and (self.source.git_dir is not None or not self.offline)

    def _online(self, what: str) -> None:
        if self.offline:
            raise UpstreamUnreachable(what, "the network may not be used", "leave --offline out")

    def _forget(self) -> None:
        self._line: list[Commit] | None = None
        self._tags: dict[str, str] | None = None
        self._trusted: frozenset[str] | None = None
        self.objects.close()  # the reading process may not see objects that came after it started

    # -- names

    def resolve(self, revision: Revision) -> Resolved:
        """The commit of a revision of any kind but a release. Raises UnknownRevision, UsageProblem,
        UpstreamUnreachable."""
        if revision.kind is Kind.RELEASE:
            raise UsageProblem(
                f"{revision.name!r} is a release", "releases are not built", f"v{revision.name} is its tag"
            )
        if revision.kind is Kind.PULL:
            return pulls.resolve(self, revision)
        if revision.kind is Kind.PATH:
            commit, note = local_tree.snapshot(self, revision.name)
            return Resolved(revision, commit, True, note)
        commit = self.commit(revision.name)
        return Resolved(revision, commit, self.trusted(commit.sha))

    def commit(self, name: str) -> Commit:
        """The commit of a sha (of any length that is unique), tag, branch, ``main~3`` or date.

        Fetches once when the name is unknown. Raises UnknownRevision with the nearest names.
        """
        return naming.commit(self, name)

    def range(self, text: str) -> list[Commit]:
        """The first-parent commits of ``a..b``, without ``a``, oldest first.

        Raises UsageProblem when ``a`` is not on the first-parent line of ``b``, saying what to write.
        """
        return naming.between(self, text)

    def merge_base(self, a: str, b: str) -> Commit:
        """The last commit that two commits (names or shas) have in common. Raises UsageProblem."""
        return naming.merge_base(self, a, b)

    def pull(self, number: int) -> Pull:
        """A pull request. Raises UnknownRevision, UpstreamUnreachable."""
        return pulls.find(self, number)

    def line(self) -> list[Commit]:
        """The first-parent line of the default branch, newest first."""
        if self._line is None:
            self._line = history.commits(self.git, "--first-parent", borrowing.DEFAULT)
        return self._line

    def first_tag(self, sha: str) -> str | None:
        """The tag of the lowest version (``v1.2.3``, no candidate) that contains the commit."""
        if self._tags is None:
            self._tags = history.first_tags(self.git)
        return self._tags.get(sha)

    def trusted(self, sha: str) -> bool:
        """Whether a commit is reachable from a branch or tag of the source. What only a pull request holds is
        a stranger's code; of a folder, ``Resolved.trusted`` tells."""
        if self._trusted is None:
            self._trusted = frozenset(self.git.says("rev-list", *_TRUSTED).split())
        return sha in self._trusted

    # -- objects

    def read(self, sha: str, path: str) -> bytes | None:
        """The content of a file at a commit, or None when there is no such file."""
        return self.objects.read(sha, path)

    def entries(self, tree_oid: str) -> list[Entry]:
        """The entries of one tree object, in git's order. Raises UpstreamUnreachable when it is not there."""
        return self.objects.entries(tree_oid)


def _whole(git_dir: Path) -> bool:
    return (git_dir / borrowing.SEEN).is_file() and (git_dir / "objects").is_dir()


def _make(
    git_dir: Path, source: Source, mirrors: Mirrors, offline: bool, on_phase: Callable[[str], None]
) -> None:
    """Make the clone aside and rename it; the lock is held."""
    if source.git_dir is None and offline:
        raise UpstreamUnreachable(
            f"there is no clone of {source.shown} yet",
            "the network may not be used",
            "leave --offline out once, or give --repo the path of a clone",
        )
    git_dir.parent.mkdir(parents=True, exist_ok=True)
    borrowing.clear_leftovers(git_dir)
    borrowing.check_room(git_dir.parent, source)
    temporary = borrowing.hidden(git_dir)
    try:
        borrowing.lay_out(temporary)
        if source.git_dir is not None:
            borrowing.borrow(temporary, source)
        else:
            on_phase(f"cloning {source.shown}")
            borrowing.fetch(temporary, source, mirrors, pulls=(), on_phase=on_phase)
        with contextlib.suppress(FileNotFoundError):
            git_dir.rename(borrowing.hidden(git_dir))  # what is there is no whole clone
        temporary.rename(git_dir)
    finally:
        borrowing.clear_leftovers(git_dir)


@contextlib.contextmanager
def _held(builds: Path, git_dir: Path, on_phase: Callable[[str], None]) -> Iterator[None]:
    """One tool at a time changes the clone; readers need no lock."""
    from filelock import FileLock, Timeout

    path = builds / "locks" / f"upstream-{git_dir.stem}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    started = time.monotonic()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_phase("waiting for another bisect_tool to finish fetching MLX's history")
        try:
            lock.acquire(timeout=git_calls.FETCH_TIMEOUT_S, poll_interval=0.05)
        except Timeout as problem:
            raise UpstreamUnreachable(
                f"{git_dir.name} is in use",
                f"another process still holds {path} after {time.monotonic() - started:.0f} s",
                "try again when it is done",
            ) from problem
    try:
        yield
    finally:
        lock.release()
