"""The course of a search: which candidates its stages have, and what that will take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from bisect_tool.analysis.forecast import forecast
from bisect_tool.analysis.problem import Problem, State
from bisect_tool.errors import UsageProblem
from bisect_tool.measuring import candidates
from bisect_tool.measuring.candidates import Candidate

if TYPE_CHECKING:
    from bisect_tool.building.provision import Provider

RELEASES, COMMITS = "releases", "commits"


class Asked(Protocol):
    """What of a request matters here."""

    @property
    def good(self) -> str: ...
    @property
    def bad(self) -> str: ...
    @property
    def paths(self) -> tuple[str, ...]: ...
    @property
    def suspects(self) -> tuple[str, ...]: ...
    @property
    def releases_only(self) -> bool: ...


@dataclass
class Course:
    """``notes``: what was made of the ends that were given. ``start``: where the first stage's range begins.
    ``commits``: of the range, before they were collapsed."""

    asked: Asked
    provider: Provider
    notes: list[str] = field(default_factory=list)
    start: int = 0
    commits: int = 0
    name: str = ""

    @cached_property
    def positions(self) -> list[Candidate]:
        """The candidates of the first stage."""
        return self._first()

    def _first(self) -> list[Candidate]:
        """The candidates of the first stage, oldest first: releases where both ends are, else commits.

        Raises UsageProblem, UnknownRelease, UnknownRevision, IndexUnreachable, UpstreamUnreachable.
        """
        good, bad = self.asked.good, self.asked.bad
        if good == "auto":
            return self._before(bad)
        if candidates.are_releases(good, bad):
            ends, found = candidates.releases_between(good, bad, self.provider)
            self._note(ends.note)
            self.name = RELEASES
            if len(found) > 2 or self.asked.releases_only:
                return found
            # Nothing lies between them that the wheels could tell.
        elif self.asked.releases_only:
            raise UsageProblem("--releases-only goes with two releases", remedy="write it as 0.31.2..0.32.0")
        return self.between(good, bad)

    def between(self, good: str, bad: str) -> list[Candidate]:
        """The distinct builds between two commits, tags, or releases by their tags."""
        ends, line = candidates.commit_ends(good, bad, self.provider.upstream)
        self._note(ends.note)
        self.name, self.commits = COMMITS, len(line) - 1
        return candidates.distinct_builds(
            line, self.provider, paths=self.asked.paths, suspects=self.asked.suspects
        )

    def _before(self, bad: str) -> list[Candidate]:
        """Every release up to the bad end, which may be a commit: then the releases are built as well."""
        self.name = RELEASES
        if candidates.are_releases(bad):
            found = candidates.releases_until(bad, self.provider)
        elif self.asked.releases_only:
            raise UsageProblem(f"--releases-only searches wheels, and {bad} is none", remedy="name a release")
        else:
            found = candidates.tags_until(bad, self.provider)
        if len(found) < 2:
            raise UsageProblem(f"there is no release before {bad}", remedy="name the good end")
        self.start = len(found) - 2
        return found

    def line(self, number: int) -> dict[str, Any]:
        """The ledger's line about a stage."""
        return {
            "kind": "stage",
            "number": number,
            "name": self.name,
            "commits": self.commits,
            "positions": [candidate.as_dict() for candidate in self.positions],
        }

    def address(self) -> str:
        """The repository, as it may be printed; MLX's own where nothing else was named."""
        return self.provider.repo

    def _note(self, text: str) -> None:
        if text:
            self.notes.append(text)

    def plan(self, confidence: float, run_s: float | None) -> dict[str, Any]:
        """What the first stage would take. Builds, runs and seconds are expectations.

        ``run_s``: None where nothing is known of a run; then the seconds are those of the builds alone.
        """
        positions = self.positions
        problem = Problem(
            last=len(positions) - 1,
            first=self.start,
            confidence=confidence,
            build_s=[candidate.build_s for candidate in positions],
            run_s=run_s or 1e-9,
        )
        stored = [i for i, candidate in enumerate(positions) if not candidate.build_s]
        coming = forecast(State(problem), stored)
        return {
            "schema": 1,
            "stage": self.name,
            "good": positions[self.start].label if self.asked.good != "auto" else "auto",
            "bad": positions[-1].label,
            "commits": self.commits,
            "candidates": len(positions) - 1,
            "in_store": len(stored),
            "builds": coming.builds if len(stored) < len(positions) else 0,
            "runs": coming.runs,
            "run_s": run_s,
            "seconds": round(coming.seconds),
            "confidence": confidence,
            "notes": list(self.notes),
        }


def plan_text(plan: dict[str, Any], backend: str, duration: Callable[[float], str]) -> str:
    """The plan in a few lines. ``duration`` turns seconds into words."""
    if plan["stage"] == RELEASES:
        what = f"{plan['candidates'] + 1} releases up to {plan['bad']}"
        what += ", stepping back from it to a good one" if plan["good"] == "auto" else f" from {plan['good']}"
    else:
        what = (
            f"{plan['commits']} commits after {plan['good']} up to {plan['bad']}, "
            f"{plan['candidates']} of which "
            f"differ in what the {backend} backend builds, {plan['in_store']} builds are in the store"
        )
    building = f"about {plan['builds']} builds and " if plan["builds"] else ""
    if plan["run_s"] is not None:
        each = f" of {duration(plan['run_s'])}, {duration(plan['seconds'])} in all"
    else:
        each = f" beside {duration(plan['seconds'])} of building" if plan["builds"] else ""
    aim = f"for a confidence of {plan['confidence'] * 100:g} %"
    return "\n".join([*plan["notes"], what, f"expected: {building}{plan['runs']} runs{each}, {aim}"])
