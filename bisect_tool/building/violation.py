"""Which wall a program ran into, by what it left in its log. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bisect_tool.process import Finished

# As git, cmake, curl, pip, uv, Python and Rust say it, on Linux and on macOS.
_NETWORK = re.compile(
    r"temporary failure in name resolution|name or service not known|no address associated with hostname"
    r"|nodename nor servname provided|could(?:n't| not) resolve (?:host|proxy)|dns error|getaddrinfo failed"
    r"|network is unreachable|no route to host|failed to establish a new connection|connection refused"
    r"|couldn't connect to server|could not connect to server|error sending request for url"
    r"|status_code: (?:6|7)\b",
    re.IGNORECASE,
)
_READ_ONLY = re.compile(r"read-only file system|\berofs\b", re.IGNORECASE)
_REFUSED = re.compile(r"operation not permitted|\beperm\b", re.IGNORECASE)
_ABSENT = re.compile(
    r"no such file or directory|does not exist|cannot find|can't open|not found|\benoent\b", re.I
)
# In quotes it may hold spaces; out of them it ends at a space or at punctuation.
_PATH = re.compile(r"""(['"`‘])(/[^'"`’\n]+)['"`’]|(?<![\w./=:-])(/[^\s'"`,;:()<>]+)""")
# A variable that an environment without secrets does not have: Python, and a shell with `set -u`.
_NAME = r"[A-Z][A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|API_?KEY|ACCESS_KEY(?:_ID)?|AUTH_SOCK)"
_VARIABLE = re.compile(
    rf"KeyError: '({_NAME})'|\b({_NAME}): (?:unbound variable|parameter not set|parameter null)", re.MULTILINE
)
# `file.cpp:3:10: fatal error: x.h: No such file`: what is missing stands behind the place it is asked for.
_PLACE = re.compile(r"^\S+?:\d+(?::\d+)?:\s*")
_HITS = 3


def violation(
    said: Finished | str, *, home: Path | str | None = None, visible: Iterable[Path | str] = ()
) -> str:
    """What a wall stopped, in words: ``the network``, ``writing /etc/x``, ``reading /root/.ssh``; or ''.

    To be asked of a walled program that failed. ``home``: the user's real home folder, hidden by the walls;
    ``visible``: the folders within it that were open, where a missing file is just that.
    """
    text = said if isinstance(said, str) else f"{said.stdout}\n{said.stderr}"
    hits: dict[str, None] = {}
    if _NETWORK.search(text):
        hits["the network"] = None
    lines = text.splitlines()
    open_folders = [str(each) for each in visible]
    for number, line in enumerate(lines):
        if _READ_ONLY.search(line):
            # uv and CMake name the path a line earlier.
            path = _last_path(line) or _last_path(lines[number - 1] if number else "")
            hits[f"writing {path}" if path else "writing outside its own folders"] = None
        elif (refused := _REFUSED.search(line)) or _ABSENT.search(line):
            path = _last_path(_PLACE.sub("", line.strip()))
            if not path or _within(path, open_folders):
                continue
            if home is not None and _within(path, [str(home)]):
                hits[f"reading {path}"] = None
            elif refused:  # macOS has this word for both
                hits[f"writing {path}"] = None
    for found in _VARIABLE.finditer(text):
        hits[f"reading the variable {found[1] or found[2]}"] = None
    if isinstance(said, Finished) and said.left_running:
        hits[f"leaving processes behind: {', '.join(said.left_running)}"] = None
    return ", ".join(list(hits)[:_HITS])


def _last_path(line: str) -> str:
    """The absolute path that a line complains of: the last one it names."""
    found = [quoted or plain for _, quoted, plain in _PATH.findall(line)]
    return found[-1].rstrip(".:)]") if found else ""


def _within(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
