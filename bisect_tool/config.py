"""The configuration file: what one would otherwise type with every command.

``$BISECT_TOOL_CONFIG`` names it; else it is ``bisect_tool.toml`` in the current folder; else
``bisect_tool/config.toml`` in ``$XDG_CONFIG_HOME`` (``~/.config``). One file is read, the first there is.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bisect_tool.errors import UsageProblem

VARIABLE = "BISECT_TOOL_CONFIG"
LOCAL_NAME = "bisect_tool.toml"
# Key in the file -> values it may have; None: any string.
STRINGS: dict[str, tuple[str, ...] | None] = {
    "repo": None,
    "builds": None,
    "sandbox": ("auto", "require", "off"),
    "backend": ("metal", "cuda12", "cuda13", "cpu"),
    "max-size": None,
}
KNOWN = (*STRINGS, "mirrors")


@dataclass(frozen=True)
class Config:
    """What a configuration file says; None or empty where it says nothing.

    ``path``: the file. ``repo``: an address, or an absolute path. ``mirrors``: address prefix and local path.
    """

    path: Path | None = None
    repo: str | None = None
    builds: Path | None = None
    sandbox: str | None = None
    backend: str | None = None
    max_size: str | None = None
    mirrors: tuple[tuple[str, Path], ...] = ()

    def defaults(self) -> dict[str, Any]:
        """What the options ``repo``, ``builds``, ``sandbox``, ``backend``, ``max_size`` and ``mirror`` are
        when they are not given, in Click's form. A command ignores those that it does not have."""
        given: dict[str, Any] = {
            "repo": self.repo,
            "builds": str(self.builds) if self.builds is not None else None,
            "sandbox": self.sandbox,
            "backend": self.backend,
            "max_size": self.max_size,
            "mirror": tuple(f"{prefix}={path}" for prefix, path in self.mirrors) or None,
        }
        return {name: value for name, value in given.items() if value is not None}

    def default_map(self, commands: Iterable[str], groups: Mapping[str, Iterable[str]]) -> dict[str, Any]:
        """Click's ``default_map`` of the whole program: ``defaults`` for each of ``commands``, and those of
        each group. No command's own map holds the name of another: it may be one of its options."""
        whole: dict[str, Any] = {command: self.defaults() for command in commands}
        return whole | {group: {each: self.defaults() for each in names} for group, names in groups.items()}


def load(path: Path | None = None) -> Config:
    """The configuration: of ``path``, or of the first file there is (see the module).

    Relative paths in it are relative to its folder. Raises ``UsageProblem`` for a named file that is not
    there, one that cannot be read, broken TOML, an unknown key, a value that cannot be.
    """
    if path is not None:
        return _read(path.expanduser().absolute(), "name another file")
    if named := os.environ.get(VARIABLE):
        return _read(Path(named).expanduser().absolute(), f"correct or unset {VARIABLE}")
    with contextlib.suppress(FileNotFoundError):  # the current folder itself may be gone
        here = Path.cwd() / LOCAL_NAME
        if here.exists():
            return _guarded(_read(here))
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    usual = home.expanduser() / "bisect_tool" / "config.toml"
    return _read(usual) if usual.exists() else Config()


def combined_mirrors(typed: Sequence[str], config: Config) -> tuple[str, ...]:
    """``PREFIX=PATH`` of the command line, then those of the file, for ``Mirrors.parse``."""
    ours = config.defaults().get("mirror", ())
    return tuple(dict.fromkeys((*typed, *ours)))


def _guarded(config: Config) -> Config:
    """A file that merely lies in the current folder may have come with a stranger's sources."""
    if config.sandbox == "off":
        raise UsageProblem(
            f"{config.path} turns the sandbox off",
            "a file that lies in the current folder may be a stranger's",
            f"give --sandbox off, or name the file with {VARIABLE}",
        )
    return config


def _read(path: Path, remedy: str = "") -> Config:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise UsageProblem(f"{path} is not TOML", "it is not text in UTF-8", remedy) from problem
    except OSError as problem:
        raise UsageProblem(f"{path} cannot be read", problem.strerror or str(problem), remedy) from problem
    facts = _parse(text, path)
    for key in facts:
        if key not in KNOWN:
            known = f"the settings are {', '.join(KNOWN)}"
            raise UsageProblem(f"{_at(path, text, key)}: there is no setting {key!r}", "", known)
    for key, choices in STRINGS.items():
        _check(facts, key, choices, _at(path, text, key))
    mirrors = facts.get("mirrors", {})
    if not isinstance(mirrors, dict):
        example = 'write [mirrors] and below it "https://github.com/fmtlib/fmt" = "../fmt"'
        raise UsageProblem(f"{_at(path, text, 'mirrors')}: mirrors is not a table", "", example)
    for prefix in mirrors:
        _check(mirrors, prefix, None, _at(path, text, prefix))
        if not _is_address(prefix) or "=" in prefix:
            why = "it is not the beginning of an address"
            raise UsageProblem(f"{_at(path, text, prefix)}: {prefix!r} cannot have a mirror", why)
    repo, builds = facts.get("repo"), facts.get("builds")
    return Config(
        path=path,
        repo=repo if repo is None or _is_address(repo) else str(_absolute(repo, path)),
        builds=_absolute(builds, path) if builds is not None else None,
        sandbox=facts.get("sandbox"),
        backend=facts.get("backend"),
        max_size=facts.get("max-size"),
        mirrors=tuple((prefix, _absolute(local, path)) for prefix, local in mirrors.items()),
    )


def _parse(text: str, path: Path) -> dict[str, Any]:
    from bisect_tool import toml

    try:
        facts: dict[str, Any] = toml.loads(text)
    except ValueError as problem:  # TOMLDecodeError is one
        raise UsageProblem(f"{path} is not TOML", str(problem), "correct the file") from problem
    return facts


def _check(facts: dict[str, Any], key: str, choices: tuple[str, ...] | None, where: str) -> None:
    """A key that is there must be a string that says something, and one of ``choices`` if there are any."""
    value = facts.get(key, "-")
    if not isinstance(value, str) or not value.strip():
        raise UsageProblem(f"{where}: {key} is {value!r}", "it must be a string", f'write {key} = "…"')
    if choices is not None and key in facts and value not in choices:
        raise UsageProblem(f"{where}: {key} is {value!r}", "", f"choose one of {', '.join(choices)}")


def _at(path: Path, text: str, key: str) -> str:
    """``path``, with the line that ``key`` is on when it is easily found."""
    quoted = re.escape(key)
    pattern = re.compile(rf"^[ \t]*\[?[ \t]*[\"']?{quoted}[\"']?[ \t]*[=\].]", re.MULTILINE)
    found = pattern.search(text)
    return f"{path}, line {text.count(chr(10), 0, found.start()) + 1}" if found else str(path)


def _is_address(text: str) -> bool:
    """Whether it is an address, not a path: ``https://…``, ``git@host:…``."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|[\w.-]+@[\w.-]+:", text) is not None


def _absolute(text: str, file: Path) -> Path:
    return Path(os.path.normpath(file.parent / Path(text).expanduser()))
