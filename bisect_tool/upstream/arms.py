"""The arms of a comparison as they are typed: labels, pull requests as pairs, ranges as their two ends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bisect_tool.errors import UsageProblem
from bisect_tool.upstream.revision import PATH_MARK, Kind, Revision

_LABELLED = re.compile(r"([A-Za-z][\w.+-]{0,39})=(.*)", re.DOTALL)


@dataclass(frozen=True)
class ArmSpec:
    """One arm. ``revision.text`` is its label, ``typed`` the revision as it was typed, with its settings.
    ``onto``: the revision that a pull request's head is merged onto, or nothing."""

    revision: Revision
    typed: str
    onto: str = ""

    @property
    def label(self) -> str:
        return self.revision.text


def parse(texts: Sequence[str], *, onto: str = "", baseline: str = "") -> tuple[list[ArmSpec], str]:
    """The arms in their order, the baseline first, and the baseline's label. Raises UsageProblem.

    ``[LABEL=]REVISION[,NAME=VALUE]…`` each. A pull request alone is a pair: its parent, or merge base, and
    itself. ``A..B`` is its two ends. ``onto``: that revision, and every pull request merged onto it.
    ``baseline``: the label or revision of an arm, or a further revision.
    """
    alone = len(texts) == 1
    arms: list[ArmSpec] = []
    if onto:
        arms.append(ArmSpec(Revision.parse(onto), onto))
    for text in texts:
        arms += [arm for arm in _arms(text, alone=alone, onto=onto) if not onto or arm.typed != onto]
    arms = _told_apart(arms)
    if not baseline:
        return arms, arms[0].label
    named = [arm for arm in arms if arm.label == baseline] or [arm for arm in arms if arm.typed == baseline]
    chosen = named[0] if named else ArmSpec(Revision.parse(baseline), baseline)
    return [chosen, *(arm for arm in arms if arm != chosen)], chosen.label


def _arms(text: str, *, alone: bool, onto: str) -> list[ArmSpec]:
    match = _LABELLED.fullmatch(text)
    label, rest = (match[1], match[2]) if match else ("", text)
    name, comma, settings = rest.partition(",")
    if ".." in name and not name.startswith(PATH_MARK):
        return _ends(text, name, comma + settings, label)
    revision = Revision.parse(rest)
    pull = revision.kind is Kind.PULL and revision.pull[1] in ("", "head")
    if pull and onto:
        named = replace(revision, text=label or f"{rest} onto {onto}")
        return [ArmSpec(named, rest, onto)]
    spec = ArmSpec(replace(revision, text=label or rest), rest)
    if not pull or not alone:
        return [spec]
    parent = Revision.parse(f"#{revision.pull[0]}^{comma}{settings}")
    return [ArmSpec(parent, parent.text), spec]


def _ends(text: str, name: str, settings: str, label: str) -> list[ArmSpec]:
    ends = name.split("..")
    if label:
        raise UsageProblem(f"{text!r} labels a range", "a range is two arms", "give its ends apart")
    if len(ends) != 2 or not all(ends) or any(end.startswith(".") for end in ends):
        raise UsageProblem(f"{name!r} is no range", remedy="write it as A..B, such as v0.31.2..v0.32.0")
    return [ArmSpec(Revision.parse(end + settings), end + settings) for end in ends]


def _told_apart(arms: list[ArmSpec]) -> list[ArmSpec]:
    named = told_apart([arm.revision for arm in arms])
    return [replace(arm, revision=revision) for arm, revision in zip(arms, named, strict=True)]


def told_apart(revisions: Sequence[Revision]) -> list[Revision]:
    """The same label twice gets a number: ``0.32.4`` and ``0.32.4 (2)``."""
    seen: dict[str, int] = {}
    found = []
    for revision in revisions:
        count = seen[revision.text] = seen.get(revision.text, 0) + 1
        found.append(replace(revision, text=f"{revision.text} ({count})") if count > 1 else revision)
    return found
