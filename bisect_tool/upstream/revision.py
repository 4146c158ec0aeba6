"""The revision syntax: what a user types to name something that can be measured."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bisect_tool.errors import UsageProblem

_RELEASE = re.compile(r"\d+(\.\d+)+((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?")
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")


@dataclass(frozen=True)
class Revision:
    """A released version, with the environment settings that its runs get.

    ``text`` is what was typed; it is also the label in tables.
    """

    text: str
    release: str
    settings: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def parse(text: str) -> Revision:
        """Parse ``0.32.4`` or ``0.32.4,NAME=VALUE,…``. Raises UsageProblem."""
        name, *rest = text.split(",")
        if not _RELEASE.fullmatch(name):
            raise UsageProblem(
                f"{name!r} is not a release",
                "this version measures released wheels only",
                "give versions such as 0.32.4",
            )
        settings = []
        for part in rest:
            match = _SETTING.fullmatch(part)
            if match is None:
                raise UsageProblem(
                    f"{part!r} in {text!r} is not a setting",
                    "what follows the comma is passed to the environment",
                    f"write it as {name},NAME=VALUE",
                )
            settings.append((match[1], match[2]))
        return Revision(text=text, release=name, settings=tuple(settings))
