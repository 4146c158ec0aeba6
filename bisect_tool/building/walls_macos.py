"""Walls on macOS: a profile for ``sandbox-exec``.

Written without a Mac: the profile has been tested as text only. Everything is allowed but the network,
writing outside the given folders, and reading the home folder: an allow-list of what Xcode, its Metal
compiler and the GPU's driver need could not be found out from afar. Processes that leave their group are not
found again here, and other programs' names can be seen.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bisect_tool import process
from bisect_tool.building.walls import (
    Sandbox,
    Walls,
    checked,
    homes,
    links_on_the_way,
    named_folders,
    startable,
)
from bisect_tool.errors import MachineTrouble
from bisect_tool.process import Finished

SANDBOX_EXEC = "/usr/bin/sandbox-exec"
DEVICES = ("/dev/null", "/dev/zero", "/dev/tty", "/dev/dtracehelper", "/dev/stdout", "/dev/stderr")
# They have launchd or another program do things, which then are done outside.
MESSENGERS = ("/bin/launchctl", "/usr/bin/open", "/usr/bin/osascript", "/usr/bin/at", "/usr/bin/crontab",
              "/usr/bin/security")  # fmt: skip
_REFUSED = (64, 65, 71)  # sandbox-exec's own exit codes: usage, a profile it cannot read, the system


class SandboxExec(Sandbox):
    name = "sandbox-exec"
    walled = True

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        walls: Walls,
        env: Mapping[str, str],
        cwd: Path | None = None,
        **how: Any,
    ) -> Finished:
        walls = checked(walls)
        folder = (cwd or walls.home).absolute()
        command = startable(argv, env, folder)
        with tempfile.TemporaryDirectory(prefix="tmp-", dir=walls.home, ignore_cleanup_errors=True) as tmp:
            inside = {**env, "HOME": str(walls.home), "TMPDIR": tmp}
            for name in ("TMP", "TEMP"):
                inside.pop(name, None)
            text = profile(walls, homes(), named_folders(inside))
            front = [SANDBOX_EXEC, "-p", text]
            # A program of the system's own loses these on its way.
            loader = {name: value for name, value in inside.items() if name.startswith("DYLD_")}
            if loader:
                front += ["/usr/bin/env", *(f"{name}={value}" for name, value in sorted(loader.items()))]
            done = process.run([*front, *command], env=inside, cwd=folder, **how)
        if done.returncode in _REFUSED and done.stderr.startswith("sandbox-exec:"):
            why = done.last_line()
            raise MachineTrouble("the walls could not be put up", why, "see `bisect_tool doctor`")
        return dataclasses.replace(done, argv=done.argv[len(front) :])


def trial() -> list[str]:
    """The command that shows whether this system takes a profile of ours."""
    walls = Walls((), (), Path("/private/tmp"))
    return [SANDBOX_EXEC, "-p", profile(walls, homes()), "/usr/bin/true"]


def profile(walls: Walls, hidden: Iterable[Path], more: Iterable[Path] = ()) -> str:
    """The profile's text: of several rules that fit, the last one counts.

    ``hidden``: home folders, by their real names. ``more``: folders to be read besides ``walls.read``.
    Paths are given by their real names too: ``/tmp`` and ``/var`` are links into ``/private``.
    """
    written = sorted({os.path.realpath(path) for path in (*walls.write, walls.home)})
    seen = _names([*more, *walls.read, *walls.write, walls.home])
    rules = ["(version 1)", "(allow default)"]
    if not walls.network:
        rules.append("(deny network*)")
    rules += [
        "(deny appleevent-send)",
        "(deny lsopen)",
        _rule("deny process-exec", "literal", MESSENGERS),
        "(deny signal)",
        "(allow signal (target same-sandbox))",
        "(deny file-write*)",
        _rule("allow file-write*", "literal", DEVICES),
        '(allow file-write* (subpath "/dev/fd"))',
        _rule("allow file-write*", "subpath", written),
        _rule("deny file-read*", "subpath", sorted(str(path) for path in hidden)),
        _rule("allow file-read*", "subpath", seen),
        # The folders on the way may be passed through and looked up, not listed.
        _rule("allow file-read-metadata", "literal", _parents(seen)),
    ]
    return "\n".join(rule for rule in rules if rule) + "\n"


def _rule(head: str, kind: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    return f"({head} " + " ".join(f"({kind} {quoted(name)})" for name in names) + ")"


def quoted(text: str) -> str:
    """A string in the profile's language."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _names(paths: Iterable[Path]) -> list[str]:
    """The real names, and those of the links that lead there: a link is read under its own."""
    names: dict[str, None] = {}
    for path in paths:
        names |= dict.fromkeys(str(link) for link, _ in links_on_the_way(path))
        names[os.path.realpath(path)] = None
    return sorted(names)


def _parents(names: Iterable[str]) -> list[str]:
    return sorted({str(parent) for name in names for parent in Path(name).parents})
