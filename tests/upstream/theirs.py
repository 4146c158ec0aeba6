"""A repository shaped like MLX's that tests of the room upstream read: made by git in half a second.

Main, a commit a day at noon UTC from 2024-03-01 on, oldest first::

    initial   v0.1.0
    docs      "Docs (#2)"
    kernel    "Kernel (#3)"
    merge     "Merge pull request #4 from someone/side": a merge of the two commits of a side branch
    ops       "Ops (#5)", v0.2.0; squashed from refs/pull/5/head, two commits on top of ``merge``
    header    "Header (#6)"
    tip       "Tip (#8)"

Besides: ``release``, one commit on top of ``docs``, v0.1.1; ``gh-pages``, of another history;
refs/pull/7/head, open, two commits on top of ``ops``.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

START = 1_709_294_400  # 2024-03-01 12:00 UTC
DAY = 86_400
FIRST = {
    "setup.py": "from setuptools import setup\n",
    "CMakeLists.txt": "project(mlx)\n",
    "pyproject.toml": "[build-system]\n",
    "README.md": "MLX\n",
    ".gitignore": "ignored/\n*.o\n",
    "docs/index.rst": "Docs\n",
    "mlx/ops.cpp": "int ops() { return 0; }\n",
    "mlx/backend/cpu/quantized.cpp": "cpu\n",
    "mlx/backend/metal/kernel.metal": "metal 1\n",
    "mlx/backend/cuda/cuda.h": "cuda 1\n",
    "python/mlx/nn.py": "nn\n",
    "python/tests/test_nn.py": "test\n",
}


def environment(when: int = START) -> dict[str, str]:
    """What git sees: no configuration but the repository's, and a fixed time."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "C",
        "GIT_COMMITTER_EMAIL": "c@example.com",
        "GIT_AUTHOR_DATE": f"{when} +0000",
        "GIT_COMMITTER_DATE": f"{when} +0000",
    }


@dataclass
class Repository:
    """A repository with a work tree. ``shas``: the commits by the names above."""

    path: Path
    shas: dict[str, str] = field(default_factory=dict)
    when: int = START

    def git(self, *arguments: str | Path, stdin: bytes = b"") -> str:
        done = subprocess.run(
            ["git", *map(str, arguments)],
            cwd=self.path,
            env=environment(self.when),
            input=stdin,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def write(self, **files: str) -> None:
        for name, text in files.items():
            self.put(name, text)

    def put(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def commit(self, message: str, files: dict[str, str], *, name: str = "", days: float = 1) -> str:
        """A commit on what is checked out, ``days`` after the last one."""
        for path, text in files.items():
            self.put(path, text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        self.when += int(days * DAY)
        sha = self.git("rev-parse", "HEAD")
        self.shas[name or message] = sha
        return sha


def make(path: Path) -> Repository:
    path.mkdir(parents=True)
    theirs = Repository(path)
    theirs.git("init", "-q", "-b", "main", "--template=")
    theirs.commit("Initial commit", FIRST, name="initial")
    theirs.git("tag", "-a", "-m", "first", "v0.1.0")
    theirs.commit("Docs (#2)", {"docs/index.rst": "More\n"}, name="docs")
    theirs.git("checkout", "-q", "-b", "release")
    theirs.commit("Mend the release", {"mlx/ops.cpp": "int ops() { return 9; }\n"}, name="release", days=0)
    theirs.git("tag", "v0.1.1")
    theirs.git("checkout", "-q", "main")
    theirs.commit("Kernel (#3)", {"mlx/backend/metal/kernel.metal": "metal 2\n"}, name="kernel")
    theirs.git("checkout", "-q", "-b", "side")
    theirs.commit("Side, first", {"mlx/side.cpp": "1\n"}, name="side 1", days=0)
    theirs.commit("Side, second", {"mlx/side.cpp": "2\n"}, name="side 2", days=0)
    theirs.git("checkout", "-q", "main")
    theirs.git("merge", "-q", "--no-ff", "-m", "Merge pull request #4 from someone/side", "side")
    theirs.git("branch", "-q", "-D", "side")
    theirs.shas["merge"] = theirs.git("rev-parse", "HEAD")
    theirs.when += DAY
    theirs.git("tag", "v0.2.0rc1")
    theirs.git("checkout", "-q", "--detach")
    theirs.commit("Ops, first", {"mlx/ops.cpp": "int ops() { return 1; }\n"}, name="#5 first", days=0)
    theirs.commit("Ops, second", {"mlx/ops.cpp": "int ops() { return 2; }\n"}, name="#5", days=0)
    theirs.git("update-ref", "refs/pull/5/head", "HEAD")
    theirs.git("checkout", "-q", "main")
    theirs.commit("Ops (#5)", {"mlx/ops.cpp": "int ops() { return 2; }\n"}, name="ops")
    theirs.git("tag", "v0.2.0")
    theirs.git("checkout", "-q", "--detach")
    theirs.commit("Faster, first", {"mlx/ops.cpp": "int ops() { return 3; }\n"}, name="#7 first", days=0)
    theirs.commit("Faster, second", {"mlx/ops.cpp": "int ops() { return 4; }\n"}, name="#7", days=0)
    theirs.git("update-ref", "refs/pull/7/head", "HEAD")
    theirs.git("checkout", "-q", "main")
    theirs.commit("Header (#6)", {"mlx/backend/cuda/cuda.h": "cuda 2\n"}, name="header")
    theirs.commit("Tip (#8)", {"python/mlx/nn.py": "nn 2\n"}, name="tip")
    theirs.git("checkout", "-q", "--orphan", "gh-pages")
    theirs.commit("Pages", {"index.html": "pages\n"}, name="pages", days=0)
    theirs.git("checkout", "-q", "main")
    theirs.git("gc", "-q")  # copied in no time
    (path / ".git" / "hooks").mkdir()
    return theirs


@cache
def made_once() -> Repository:
    """The repository that copies are made of; nobody writes to it."""
    folder = tempfile.mkdtemp(prefix="theirs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make(Path(folder) / "mlx")


def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """The repository at ``tmp_path / "mlx"``, for a test to change.

    The test sees no user's configuration of git, and no network: a fetch from an address goes nowhere.
    """
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    once = made_once()
    shutil.copytree(once.path, tmp_path / "mlx", symlinks=True)
    return Repository(tmp_path / "mlx", dict(once.shas), once.when)
