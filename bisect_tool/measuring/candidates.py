"""What a search has to choose from: the releases, or the distinct builds, between two ends, oldest first."""

from __future__ import annotations

import fnmatch
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from bisect_tool.analysis.stages import SUSPECT
from bisect_tool.errors import UsageProblem
from bisect_tool.upstream.revision import Kind, Revision

if TYPE_CHECKING:
    from bisect_tool.building.provision import Provider
    from bisect_tool.upstream.clone import Upstream
    from bisect_tool.upstream.values import Commit

# Seconds of a build before any was made here: a clean one on two cores.
UNKNOWN_BUILD_S = {"cpu": 300.0, "metal": 600.0, "cuda12": 1800.0, "cuda13": 1800.0}


@dataclass(frozen=True)
class Candidate:
    """One position of a search: a release, or the first of some commits that build the same.

    ``label``: what its runs are called, and its revision. ``committed``: seconds since 1970, 0 for a release.
    ``same``: how many commits after it share its build. ``build_s``: predicted seconds of its build, 0 where
    none is needed. ``prior``: how likely it is thought to be the culprit, on any scale.
    """

    label: str
    sha: str = ""
    subject: str = ""
    committed: int = 0
    pull: int | None = None
    tag: str = ""
    same: int = 0
    build_s: float = 0.0
    prior: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(said: Mapping[str, Any]) -> Candidate:
        return Candidate(
            **{field.name: said[field.name] for field in fields(Candidate) if field.name in said}
        )


@dataclass(frozen=True)
class Ends:
    """The ends of a search as they come in history. ``note``: what was made of those that were given.

    ``swapped``: the good end comes after the bad one, so a fix is sought.
    """

    old: str
    new: str
    note: str = ""
    swapped: bool = False


def parse_range(text: str) -> tuple[str, str]:
    """``GOOD..BAD``. Raises UsageProblem."""
    good, mark, bad = text.partition("..")
    if not mark or not good or not bad or bad.startswith(".") or ".." in bad:
        raise UsageProblem(f"{text!r} is no range", remedy="write it as GOOD..BAD, such as 0.31.2..0.32.0")
    check_end(good)
    check_end(bad)
    return good, bad


def check_end(name: str) -> None:
    """Raise UsageProblem for what has no place in a history."""
    revision = Revision.parse(name)
    if revision.kind is Kind.PATH:
        raise UsageProblem(f"{name!r} is a folder", "it has no place in the history", "name a commit")
    if revision.settings:
        raise UsageProblem(
            f"{name!r} carries settings", "all builds of a search get the same", "use --env NAME=VALUE"
        )


def are_releases(*names: str) -> bool:
    return all(Revision.parse(name).kind is Kind.RELEASE for name in names)


# ---------------------------------------------------------------- releases


def releases_between(good: str, bad: str, provider: Provider) -> tuple[Ends, list[Candidate]]:
    """The releases from one end to the other that have wheels here, oldest first.

    Raises UsageProblem for equal ends, UnknownRelease for one that has no wheel, IndexUnreachable.
    """
    from packaging.version import Version

    first, last = Version(good), Version(bad)
    if first == last:
        raise _equal(good, bad)
    ends = Ends(good, bad) if first < last else _swapped(good, bad)
    low, high = sorted((first, last))
    there = [version for version in reversed(available(provider)) if low <= version <= high]
    for name, version in ((good, first), (bad, last)):
        if version not in there:
            _no_such_release(name, provider)
    return ends, [Candidate(str(version)) for version in there]


def available(provider: Provider) -> Sequence[Any]:
    """The releases that have wheels here, newest first, candidates left out."""
    from bisect_tool.building import backend as backends

    found = backends.available(provider.backend, python=provider.interpreter)
    return [version for version in found if not version.is_prerelease]


def _no_such_release(name: str, provider: Provider) -> None:
    from bisect_tool.errors import UnknownRelease
    from bisect_tool.upstream.releases import listed, nearest

    near = listed(nearest(name, available(provider)))
    raise UnknownRelease(
        f"mlx {name} has no wheel for the {provider.backend.value} backend with CPython "
        f"{provider.interpreter.version} here",
        f"near it: {near}",
        f"choose one of them, or build its tag: v{name}",
    )


def releases_until(bad: str, provider: Provider) -> list[Candidate]:
    """The releases with wheels here up to ``bad``, oldest first. Raises as ``releases_between``."""
    from packaging.version import Version

    last = Version(bad)
    found = [version for version in reversed(available(provider)) if version <= last]
    if last not in found:
        _no_such_release(bad, provider)
    return [Candidate(str(version)) for version in found]


def tags_until(bad: str, provider: Provider) -> list[Candidate]:
    """The tags of releases on the first-parent line of a commit, and the commit, oldest first: all built."""
    upstream = provider.upstream
    from bisect_tool.upstream import history

    tip = upstream.resolve(Revision.parse(bad)).commit
    form = "--format=%(refname:strip=2)"
    names = upstream.git.says("for-each-ref", form, "refs/tags/v*").splitlines()
    tags = {upstream.commit(name).sha: name for name in names if are_releases(name[1:])}
    line = history.commits(upstream.git, "--first-parent", tip.sha)
    chosen = [commit for commit in reversed(line) if commit.sha in tags or commit is line[0]]
    costs = _costs(chosen, provider)
    return [
        Candidate(tags.get(commit.sha, commit.short), commit.sha, commit.subject, commit.committed,
                  commit.pull, build_s=cost)
        for commit, cost in zip(chosen, costs, strict=True)
    ]  # fmt: skip


# ---------------------------------------------------------------- commits


def commit_ends(good: str, bad: str, upstream: Upstream) -> tuple[Ends, list[Commit]]:
    """The ends as commits, and the first-parent commits from the older to the newer, both included.

    Where the good end is no ancestor of the bad one, their merge base takes its place. Raises UsageProblem
    for equal ends and for what has no commit in common, and what ``Upstream.resolve`` raises.
    """
    first, last = (upstream.resolve(Revision.parse(of_release(name))).commit for name in (good, bad))
    if first.sha == last.sha:
        raise _equal(good, bad)
    base = upstream.merge_base(first.sha, last.sha)
    if base.sha == last.sha:
        ends = _swapped(good, bad)
        first, last = last, first
    elif base.sha == first.sha:
        ends = Ends(good, bad)
    else:
        note = f"{good} is no ancestor of {bad}: searching from {base.short}, where their histories part"
        ends = Ends(base.short, bad, note)
        first = base
    line = upstream.range(f"{first.sha}..{last.sha}")
    return ends, [first, *line]


def of_release(name: str) -> str:
    """The tag of a release; any other name as it is."""
    return f"v{name}" if are_releases(name) else name


def distinct_builds(
    commits: Sequence[Commit],
    provider: Provider,
    *,
    paths: Sequence[str] = (),
    suspects: Sequence[str] = (),
) -> list[Candidate]:
    """The commits by what they build, oldest first; the first commit given is the old end.

    A commit joins the one before it when nothing differs that the backend compiles, and, with ``paths``, when
    it touches none of them. ``suspects``: ``path:GLOB``, ``text:WORDS`` or a commit; likelier than others.
    Raises UsageProblem where only one build is left, and for a suspect that is none.
    """
    from bisect_tool.upstream.relevance import distinct

    upstream = provider.upstream
    digest = {
        commit.sha: value
        for value, group in distinct(commits, provider.backend.value, upstream).items()
        for commit in group
    }
    listed_paths = [word for word in suspects if word.startswith("path:")]
    touched = touched_paths(upstream, commits) if paths or listed_paths else {}
    groups: list[list[Commit]] = [[commits[0]]]
    for commit in commits[1:]:
        same = digest[commit.sha] == digest[groups[-1][-1].sha]
        elsewhere = bool(paths) and not _touches(touched[commit.sha], paths)
        if same or elsewhere:
            groups[-1].append(commit)
        else:
            groups.append([commit])
    if len(groups) < 2:
        where = f" and touches {', '.join(paths)}" if paths else ""
        raise UsageProblem(
            "there is nothing to search",
            f"none of the {len(commits) - 1} commits changes what the {provider.backend.value} backend "
            f"compiles{where}",
        )
    costs = _costs([group[0] for group in groups], provider)
    wanted = _suspected(suspects, upstream)
    return [
        Candidate(
            label=group[0].short,
            sha=group[0].sha,
            subject=group[0].subject,
            committed=group[0].committed,
            pull=group[0].pull,
            tag=upstream.first_tag(group[0].sha) or "",
            same=len(group) - 1,
            build_s=cost,
            prior=SUSPECT
            if any(is_one(group[0], touched.get(group[0].sha, ())) for is_one in wanted)
            else 1.0,
        )
        for group, cost in zip(groups, costs, strict=True)
    ]


def _costs(firsts: Sequence[Commit], provider: Provider) -> list[float]:
    from bisect_tool.building.store import Store

    known = [
        float(build.record["seconds"])
        for build in Store(provider.builds).builds()
        if build.record["backend"] == provider.backend.value
    ]
    cost = statistics.median(known) if known else UNKNOWN_BUILD_S[provider.backend.value]
    # With nothing stored there is no need to look at the toolchain, which takes a second.
    return [0.0 if known and provider.builder.stored(commit) is not None else cost for commit in firsts]


def _suspected(suspects: Sequence[str], upstream: Upstream) -> list[Any]:
    """For each word a predicate of a commit and the paths it touches."""
    found: list[Any] = []
    for word in suspects:
        kind, _, rest = word.partition(":")
        if kind == "path" and rest:
            found.append(lambda _commit, paths, rest=rest: _touches(paths, [rest]))
        elif kind == "text" and rest:
            found.append(lambda commit, _paths, rest=rest: rest.lower() in commit.subject.lower())
        else:
            sha = upstream.resolve(Revision.parse(word)).commit.sha
            found.append(lambda commit, _paths, sha=sha: commit.sha == sha)
    return found


def touched_paths(upstream: Upstream, commits: Sequence[Commit]) -> dict[str, tuple[str, ...]]:
    """The files that each commit changes against its first parent; of the first commit given, none."""
    found: dict[str, tuple[str, ...]] = {commit.sha: () for commit in commits}
    if len(commits) < 2:
        return found
    said = upstream.git.says(
        *("log", "--first-parent", "-m", "--no-renames", "--name-only", "-z", "--format=%x01%H"),
        f"{commits[0].sha}..{commits[-1].sha}",
    )
    for part in said.split("\x01")[1:]:
        sha, *names = part.split("\0")
        found[sha.strip()] = tuple(name.lstrip("\n") for name in names if name.strip("\n"))
    return found


def _touches(files: Sequence[str], patterns: Sequence[str]) -> bool:
    """A pattern is a glob, a file, or a folder."""
    return any(
        fnmatch.fnmatchcase(file, pattern) or file.startswith(pattern.rstrip("/") + "/")
        for file in files
        for pattern in patterns
    )


def _equal(good: str, bad: str) -> UsageProblem:
    return UsageProblem(f"{good} and {bad} are the same", "there is nothing between them", "name two ends")


def _swapped(good: str, bad: str) -> Ends:
    note = f"{bad} comes before {good}: searching {bad}..{good} for the commit that mended it"
    return Ends(bad, good, note, swapped=True)
