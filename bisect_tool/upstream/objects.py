"""Reading objects of the clone: files, and the folders of commits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bisect_tool.errors import UpstreamUnreachable
from bisect_tool.upstream import git_calls
from bisect_tool.upstream.values import SHORT, Entry, entries_of


class Objects:
    """The objects of a repository, read through one git process that stays."""

    def __init__(self, git_dir: Path) -> None:
        self.git_dir = git_dir
        self._git = git_calls.Git(git_dir)
        self._repo = git_calls.load().Repo(git_dir, expand_vars=False)
        self._repo.git.update_environment(**git_calls.QUIET, **git_calls.ALONE, GIT_DIR=str(git_dir))
        self._trees: dict[str, list[Entry]] = {}

    def close(self) -> None:
        """End the process. It starts again when it is needed, and sees what has come since."""
        self._repo.close()

    def read(self, sha: str, path: str) -> bytes | None:
        """The content of a file at a commit, or None when there is no such file."""
        found = self.data(f"{sha}:{path}")
        return found[1] if found is not None and found[0] == "blob" else None

    def data(self, name: str) -> tuple[str, bytes] | None:
        """Kind and content of an object, or None when there is none of that name."""
        if "\n" in name:
            return None
        try:
            _, kind, _, content = self._repo.git.get_object_data(name)
        except ValueError:
            return None
        return (kind if isinstance(kind, str) else kind.decode()), content  # GitPython says str, gives bytes

    def has(self, oid: str) -> bool:
        """Whether the clone has an object."""
        try:
            self._repo.git.get_object_header(oid)
        except ValueError:
            return False
        return True

    def read_trees(self, oids: Iterable[str]) -> None:
        """Read many tree objects in one go, so that ``entries`` has them at hand."""
        wanted = {oid for oid in oids if oid not in self._trees}
        if wanted:
            for oid, kind, content in self._git.objects(wanted):
                if kind == "tree":
                    self._trees[oid] = entries_of(content)

    def entries(self, tree_oid: str) -> list[Entry]:
        """The entries of one tree object, in git's order. Raises UpstreamUnreachable when it is not there."""
        if tree_oid not in self._trees:
            self._trees[tree_oid] = self._entries(tree_oid)
        return self._trees[tree_oid]

    def _entries(self, tree_oid: str) -> list[Entry]:
        found = self.data(tree_oid)
        if found is None or found[0] != "tree":
            raise UpstreamUnreachable(
                f"the folder {tree_oid[:SHORT]} of a commit cannot be read",
                f"it is not in {self.git_dir}",
                "remove that clone, it is made again",
            )
        return entries_of(found[1])
