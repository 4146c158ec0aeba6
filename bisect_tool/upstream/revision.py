"""The revision syntax: what a user types to name something that can be measured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from bisect_tool.errors import UsageProblem

_RELEASE = re.compile(r"\d+(\.\d+)+((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?")
_PULL = re.compile(r"(?:#|pr/)([1-9]\d{0,8})(/head|\^)?")
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_UNUSABLE = re.compile(r"[\s\x00-\x1f\x7f]")
PATH_MARK = "path:"


class Kind(Enum):
    """What a revision names: a released wheel, something git knows, a pull request, a folder of sources."""

    RELEASE = "release"
    COMMIT = "commit"
    PULL = "pull"
    PATH = "path"


@dataclass(frozen=True)
class Revision:
    """Something that can be measured, with the environment settings that its runs get.

    ``text`` is what was typed; it is also the label in tables. ``name`` is that without the settings, and
    without ``path:``.
    """

    text: str
    name: str
    kind: Kind = Kind.RELEASE
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def release(self) -> str:
        """The version of a release, else nothing."""
        return self.name if self.kind is Kind.RELEASE else ""

    @property
    def pull(self) -> tuple[int, str]:
        """The number of a pull request, and what of it is meant: ``head``, ``^`` (its parent), or nothing
        (the merge commit, else the head)."""
        match = _PULL.fullmatch(self.name)
        if self.kind is not Kind.PULL or match is None:
            raise ValueError(f"{self.text} is no pull request")
        return int(match[1]), (match[2] or "").lstrip("/")

    @staticmethod
    def parse(text: str) -> Revision:
        """Parse ``0.32.4``, ``v0.32.0``, ``main~3``, ``548dd80``, ``@2026-03-01``, ``#3764``, ``pr/3764``,
        ``#3764/head``, ``#3764^`` or ``path:DIR``, each with ``,NAME=VALUE`` after it. Raises UsageProblem.

        Whether a commit, tag or branch of that name exists is for git to say.
        """
        name, *rest = text.split(",")
        kind, name = _kind(name, text)
        settings = []
        for part in rest:
            match = _SETTING.fullmatch(part)
            if match is None:
                raise UsageProblem(
                    f"{part!r} in {text!r} is not a setting",
                    "what follows the comma is passed to the environment",
                    f"write it as {text.split(',')[0]},NAME=VALUE",
                )
            settings.append((match[1], match[2]))
        return Revision(text=text, name=name, kind=kind, settings=tuple(settings))


def _kind(name: str, text: str) -> tuple[Kind, str]:
    """What ``name`` is by its form, and the name to keep."""
    if name.startswith(PATH_MARK):
        if not (folder := name[len(PATH_MARK) :]) or "\0" in folder:
            raise UsageProblem(f"{text!r} names no folder", remedy="write it as path:DIR")
        return Kind.PATH, folder
    if not name:
        raise UsageProblem(
            "a revision is empty" if not text else f"{text!r} names no revision",
            remedy="give one such as 0.32.4, v0.32.0, main, 548dd80, '#3764' or path:DIR",
        )
    if name.startswith("-") or _UNUSABLE.search(name):
        raise UsageProblem(f"{name!r} is not a revision", remedy="no name begins with - or holds spaces")
    if _RELEASE.fullmatch(name):
        return Kind.RELEASE, name
    if _PULL.fullmatch(name):
        return Kind.PULL, name
    if name.startswith("#"):
        raise UsageProblem(
            f"{name!r} is not a pull request", remedy="write '#3764', pr/3764, '#3764/head' or '#3764^'"
        )
    if ".." in name:
        raise UsageProblem(f"{name!r} is a range", "one revision is wanted here", "give its two ends apart")
    return Kind.COMMIT, name
