"""A source tree and the CMake/Ninja build tree beside it, kept and moved from commit to commit.

``builds/trees/<id>/`` holds ``source`` (the files of the commit), ``build`` (CMake's and setuptools'),
``out`` (the wheel), ``home``, and files of ours beside them. Only what differs is touched when the tree is
moved, so Ninja compiles only that. Git is told where its index and objects are and never looks into
``source`` for them: what a build leaves there is a stranger's.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from bisect_tool import process
from bisect_tool.building.output import Failure, judge
from bisect_tool.errors import DiskFull, MachineTrouble

_UNFINISHED = "unfinished"
LITTLE = 1_000_000  # bytes: a disk with less is full


@dataclass(frozen=True)
class Tree:
    """One kept tree. Hold the lock ``tree-<id>`` while you use it."""

    root: Path

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def build(self) -> Path:
        return self.root / "build"

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def kept(self) -> bool:
        """Whether there is one of an earlier build, to be moved."""
        return self.build.exists() and not (self.root / _UNFINISHED).exists()

    @property
    def full(self) -> bool:
        """Whether the disk that it lies on has no room left."""
        return shutil.disk_usage(self.root).free < LITTLE

    def begin(self, git_dir: Path, sha: str) -> None:
        """Move the tree to a commit and mark it as being worked in. A tree that was left so is made anew.

        Raises ``DiskFull`` and ``MachineTrouble``: a commit that is there can always be checked out.
        """
        if (self.root / _UNFINISHED).exists():
            self.discard()
        for folder in (self.source, self.build, self.out, self.home):
            folder.mkdir(parents=True, exist_ok=True)
        (self.root / _UNFINISHED).touch()
        for words in (
            ["read-tree", "--reset", "-u", sha],
            ["checkout-index", "--force", "--all"],  # what a build changed of the commit's own files
            ["clean", "-ffdxq"],
        ):
            self._git(git_dir, *words)
        # setuptools packs what it finds: nothing of the commit before may be among it.
        for stale in (*self.build.glob("lib*"), *self.build.glob("bdist*"), self.out):
            shutil.rmtree(stale, ignore_errors=True)
        self.out.mkdir(exist_ok=True)

    def finish(self) -> None:
        """The build went well: the tree can be moved to another commit."""
        (self.root / _UNFINISHED).unlink()

    def discard(self) -> None:
        """Throw all of it away: what a failed build left behind is never built upon."""
        if self.root.exists():
            aside = self.root.parent / f".{self.root.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
            self.root.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def _git(self, git_dir: Path, *words: str) -> None:
        env = {
            **{name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ},
            "GIT_DIR": str(git_dir),
            "GIT_WORK_TREE": str(self.source),
            "GIT_INDEX_FILE": str(self.root / "index"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_LFS_SKIP_SMUDGE": "1",
            "LC_ALL": "C",
        }
        safe = ["-c", "core.bare=false", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]
        safe += ["-c", "safe.directory=*", "-c", "core.autocrlf=false"]
        done = process.run(["git", *safe, *words], env=env, cwd=self.source, timeout_s=600)
        if not done.ok:
            what, why = f"the files of a commit could not be written to {self.source}", done.last_line()
            # Of a file that it could not write git does not say why.
            if judge(done, done.stderr) is Failure.DISK or self.full:
                raise DiskFull(what, why, "free some space or name another folder with --builds DIR")
            raise MachineTrouble(what, why or done.describe(), "try again")
