"""What a walled program may see and do, and the interface of what puts the walls up."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bisect_tool import process
from bisect_tool.errors import MachineTrouble, UsageProblem
from bisect_tool.process import Finished

_LINKS_FOLLOWED = 40  # as the kernel
# Variables that name folders with libraries in them.
_FOLDERS = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH")


@dataclass(frozen=True)
class Walls:
    """What a program may use besides the system's own folders, which it may read.

    ``read``: files and folders, passed over where there are none. ``write``: folders that exist and are no
    symbolic links. ``home``: a private folder of ours, made where there is none, that becomes HOME. ``gpu``:
    the GPU's devices are there. ``network``: it is open.

    A program may leave symbolic links in whatever it may write: no path here may lead through such a folder
    unless it was looked at since, and what is taken out of one must be a plain file.
    """

    read: tuple[Path, ...]
    write: tuple[Path, ...]
    home: Path
    gpu: bool = False
    network: bool = False


class Sandbox(ABC):
    """``walled``: there are walls. ``why``: the reason when there are none, with what to do about it."""

    name: str
    walled: bool
    why: str = ""

    @abstractmethod
    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        walls: Walls,
        env: Mapping[str, str],
        cwd: Path | None = None,
        **how: Any,
    ) -> Finished:
        """``process.run`` within the walls; ``how`` is what that takes besides.

        ``env`` is all that the program gets, with HOME and TMPDIR set to its private folders. ``cwd``: None
        is its home. Raises ``MachineTrouble`` when the walls cannot be put up, ``UsageProblem`` for walls
        that would be none, ``FileNotFoundError`` / ``PermissionError`` as ``process.run``, and for a program
        that the walls hide.
        """


class Unwalled(Sandbox):
    """A program with all of the user's rights. Its private home keeps caches apart and is no wall."""

    name = "none"
    walled = False

    def __init__(self, why: str) -> None:
        self.why = why

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        walls: Walls,
        env: Mapping[str, str],
        cwd: Path | None = None,
        **how: Any,
    ) -> Finished:
        walls.home.mkdir(parents=True, exist_ok=True)
        return process.run(argv, env={**env, "HOME": str(walls.home)}, cwd=cwd or walls.home, **how)


def startable(argv: Sequence[str | os.PathLike[str]], env: Mapping[str, str], cwd: Path) -> list[str]:
    """The arguments, when there is such a program outside the walls.

    A sandbox in between would report a missing program as one that fails. Raises ``FileNotFoundError`` /
    ``PermissionError``, as ``process.run``.
    """
    args = [os.fspath(part) for part in argv]
    path = cwd / args[0]
    if "/" not in args[0]:
        path = Path(shutil.which(args[0], path=env.get("PATH", os.defpath)) or path)
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), args[0])
    if path.is_dir() or not os.access(path, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), args[0])
    return args


def homes() -> list[Path]:
    """The user's real home folders: by the environment, and by the user database where that differs."""
    import pwd

    named = [os.environ.get("HOME", "")]
    with contextlib.suppress(KeyError):  # a user id without a name, in a container
        named.append(pwd.getpwuid(os.geteuid()).pw_dir)
    return [Path(real) for real in dict.fromkeys(os.path.realpath(name) for name in named if name)]


def shows_home(path: Path) -> bool:
    """Whether showing a folder would show the user's home."""
    real = Path(os.path.realpath(path))
    return real == Path("/") or any(home.is_relative_to(real) for home in homes())


def named_folders(env: Mapping[str, str]) -> list[Path]:
    """The folders of libraries that the environment names, without those that would show the home."""
    texts = [text for name in _FOLDERS for text in env.get(name, "").split(":")]
    folders = [Path(text) for text in dict.fromkeys(texts) if text.startswith("/")]
    return [folder for folder in folders if folder.is_dir() and not shows_home(folder)]


def checked(walls: Walls) -> Walls:
    """The walls with absolute paths, their home made. Raises ``UsageProblem``, ``MachineTrouble``."""
    walls = Walls(
        tuple(path.absolute() for path in walls.read if os.path.exists(path)),  # noqa: PTH110 (never raises)
        tuple(path.absolute() for path in walls.write),
        walls.home.absolute(),
        walls.gpu,
        walls.network,
    )
    for path in (*walls.read, *walls.write, walls.home):
        if shows_home(path):
            why = "the home folder lies in it"
            raise UsageProblem(f"{path} cannot be opened to a walled program", why, "name a folder below it")
    written = (*walls.write, walls.home)
    for path in written:
        # Put there by an earlier program, it would open whatever it leads to.
        others = [Path(os.path.realpath(other)) for other in written if other != path]
        for link, _ in links_on_the_way(path):
            if link == path or any(link.is_relative_to(other) for other in others):
                why = "a walled program may have put it there"
                raise UsageProblem(f"{link} is a symbolic link", why, "remove it, or name the folder itself")
    walls.home.mkdir(parents=True, exist_ok=True)
    for path in written:
        owner = path.stat()  # FileNotFoundError: it must be there
        if os.geteuid() == 0 and owner.st_uid != 0 and not owner.st_mode & 0o002:
            why = "it belongs to another user, and within walls root may write to its own files only"
            raise MachineTrouble(f"{path} cannot be written to", why, f"chown -R root {path}")
    return walls


def links_on_the_way(path: Path) -> Iterator[tuple[Path, str]]:
    """Every symbolic link that leads from an absolute path to the real one, and what it says."""
    rest = list(reversed(path.parts[1:]))
    at = Path("/")
    followed = 0
    while rest:
        part = rest.pop()
        step = at.parent if part == ".." else at / part
        if step.is_symlink() and followed < _LINKS_FOLLOWED:
            followed += 1
            target = os.readlink(step)  # noqa: PTH115 (Path.readlink drops a final slash)
            yield step, target
            if target.startswith("/"):
                at = Path("/")
            rest += [each for each in reversed(Path(target).parts) if each != "/"]
        else:
            at = step


def interpreter_paths(python: Path) -> tuple[Path, ...]:
    """What a Python needs to start, to be given as ``Walls.read``; found without running it.

    Its prefix, the prefixes that its symbolic links and its ``pyvenv.cfg`` lead through, and so the base's
    own. A launcher that is a script of its own (pyenv's shims) is not seen through. Where strangers could
    have changed an environment, its links and ``pyvenv.cfg`` open no folder but those of other Pythons.
    """
    found: dict[Path, None] = {}
    todo = [python.absolute()]
    seen: set[Path] = set()
    while todo:
        at = todo.pop()
        if ".." in at.parts:
            at = Path(os.path.realpath(at.parent)) / at.name
        if at in seen or not (
            at.name.lower().startswith("python") and at.is_file() and os.access(at, os.X_OK)
        ):
            continue
        seen.add(at)
        prefix = at.parent.parent if at.parent.name == "bin" else at.parent
        if shows_home(prefix):  # ~/bin/python: what belongs to Python, not all that is there
            found |= dict.fromkeys([at, prefix / "lib"])
        else:
            found[prefix] = None
        todo += _homes_of(prefix, at.name)
        if at.is_symlink():
            # By the link's real folder: `..` leads out of that one. A link on the way in stays a link.
            target = os.path.realpath(at.parent), at.readlink()
            todo.append(Path(os.path.normpath(Path(*target))))
        todo.append(Path(os.path.realpath(at)))
    return tuple(path for path in _outermost(found) if path.exists())


def _homes_of(prefix: Path, name: str) -> list[Path]:
    """The interpreters that a virtual environment says it was made from."""
    try:
        text = (prefix / "pyvenv.cfg").read_text("utf-8", "replace")
    except OSError:
        return []
    said = dict(re.findall(r"^\s*([\w-]+)\s*=\s*(/.*?)\s*$", text, re.MULTILINE))
    named = [Path(said[key]) for key in ("executable", "base-executable") if key in said]
    named += [Path(said["home"]) / name] if "home" in said else []
    return named + ([Path(said["base-prefix"]) / "bin" / name] if "base-prefix" in said else [])


def _outermost(paths: Iterable[Path]) -> list[Path]:
    kept: list[Path] = []
    for path in sorted(paths, key=lambda path: path.parts):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept
