"""Where in a history dispatch changes, and how two commits differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bisect_tool.analysis import launches
from bisect_tool.analysis.launches import Answer, Cell, Changed
from bisect_tool.dispatch import kernel_text
from bisect_tool.dispatch.prober import Asked, Prober, Question
from bisect_tool.dispatch.source import PACKING, QUANTIZED, SETTINGS, STOOD_FOR
from bisect_tool.errors import ProbeFailed, UsageProblem
from bisect_tool.upstream import history
from bisect_tool.upstream.revision import Kind, Revision
from bisect_tool.upstream.values import Commit, Resolved


@dataclass(frozen=True)
class Change:
    """A commit at which something changes. ``changed``: the cells whose answers differ from those before it.
    ``texts``: functions of the Metal sources that they run and whose text differs. ``tag``: the first release
    with it. ``began``: the op was not there before. ``unknown``: why it cannot be asked; what changed there
    shows at the next commit that can."""

    commit: Commit
    tag: str | None
    changed: tuple[Changed, ...] = ()
    texts: tuple[str, ...] = ()
    began: bool = False
    unknown: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        found = {kind for each in self.changed for kind in each.kinds}
        return tuple(kind for kind in launches.KINDS if kind in found)


@dataclass(frozen=True)
class Log:
    """``changes``: newest first. ``commits``: how many the range has; ``versions``: how many different host
    codes were asked. ``first``, ``last``: the answers at the ends, {} where the op was not there."""

    changes: tuple[Change, ...]
    cells: tuple[Cell, ...]
    commits: int
    versions: int
    first: Mapping[Cell, Answer]
    last: Mapping[Cell, Answer]

    @property
    def suspects(self) -> frozenset[str]:
        """The commits that can have changed how long the cells take by what they launch: dispatch or, where
        that was looked at, kernel text changes there, or nothing is known."""
        return frozenset(each.commit.sha for each in self.changes)

    def at(self, sha: str) -> Change | None:
        """What changes at a commit; None when nothing does."""
        return next((each for each in self.changes if each.commit.sha == sha), None)


@dataclass(frozen=True)
class Difference:
    """Two commits: what each launches, and the cells that differ. ``texts``: functions of the Metal sources
    that the cells of both run and whose text differs."""

    before: Asked
    after: Asked
    changed: tuple[Changed, ...]
    texts: tuple[str, ...] = ()


def difference(
    prober: Prober,
    before: Resolved,
    after: Resolved,
    cells: Sequence[Cell],
    *,
    cells_after: Sequence[Cell] | None = None,
    kernel_texts: bool = False,
) -> Difference:
    """How two commits differ in what they launch. Raises what ``Prober.ask`` raises.

    ``cells_after``: what the second is asked in place of ``cells``, one for one, where a setting gives it
    another architecture; differences name the cell of the first.
    """
    others = cells if cells_after is None else cells_after
    questions = [prober.question(before), prober.question(after)]
    if list(others) == list(cells):
        asked = prober.ask_all(questions, cells)
    else:
        asked = [*prober.ask_all(questions[:1], cells), *prober.ask_all(questions[1:], others)]
    for each in asked:
        if isinstance(each, ProbeFailed):
            raise each
    first, last = (each for each in asked if isinstance(each, Asked))
    paired = {cell: last.answers[other] for cell, other in zip(cells, others, strict=True)}
    changed = tuple(launches.changes(first.answers, paired))
    texts: tuple[str, ...] = ()
    if kernel_texts:
        reader = kernel_text.Reader(prober.upstream)
        functions = [kernel_text.functions(each.answers.values()) for each in (first, last)]
        texts = kernel_text.differing(
            reader.digests(before.commit.sha, functions[0]), reader.digests(after.commit.sha, functions[1])
        )
    return Difference(first, last, changed, texts)


def of_pull(prober: Prober, revision: Revision) -> tuple[Resolved, Resolved] | None:
    """The two commits whose difference is a pull request; None for a revision of another kind.

    ``#N`` alone means the pull request; ``#N/head`` and ``#N^`` are commits.
    """
    if revision.kind is not Kind.PULL or revision.pull[1]:
        return None
    after = prober.upstream.resolve(revision)
    number, _ = revision.pull
    settings = "".join(f",{name}={value}" for name, value in revision.settings)
    return prober.upstream.resolve(Revision.parse(f"#{number}^{settings}")), after


def log(prober: Prober, text: str, cells: Sequence[Cell], *, kernel_texts: bool = False) -> Log:
    """Every commit of a range at which the answers for ``cells`` differ from those of the commit before.

    ``text``: ``A..B``, a revision (its whole history), or '' (all of the default branch). ``kernel_texts``:
    also where the text of the Metal functions that they run changes. Raises UsageProblem, Untrusted,
    ToolMissing, MachineTrouble.
    """
    base, commits = _range(prober, text)
    if not commits:
        raise UsageProblem(f"{text!r} holds no commits")
    return log_of(prober, base, commits, cells, kernel_texts=kernel_texts)


def log_of(
    prober: Prober,
    base: Commit | None,
    commits: Sequence[Commit],
    cells: Sequence[Cell],
    *,
    kernel_texts: bool = False,
) -> Log:
    """The same of commits in their order, oldest first, each the first parent of the next. ``base``: the one
    before the first; None for none."""
    whole = ([base] if base is not None else []) + list(commits)
    questions = _questions(prober, whole)
    versions: dict[tuple[str, ...], Question] = {}
    for question in questions.values():
        versions.setdefault(question.keys, question)
    told = dict(zip(versions, prober.ask_all(list(versions.values()), cells), strict=True))
    answered = {sha: told[question.keys] for sha, question in questions.items()}

    changes: list[Change] = []
    last: Asked | None = None
    began = failing = False
    first: Mapping[Cell, Answer] = {}
    for commit in whole:
        asked = answered.get(commit.sha)
        if asked is None:
            continue
        tag = prober.upstream.first_tag(commit.sha)
        if isinstance(asked, ProbeFailed):
            if not failing and commit is not base:
                changes.append(Change(commit, tag, unknown=asked.why))
            failing = True
            continue
        after_unknown, failing = failing, False
        if last is None:
            first = asked.answers
            began = commit is not base and not after_unknown
            if began:
                changes.append(Change(commit, tag, began=True))
            elif after_unknown:
                changes.append(Change(commit, tag, unknown="what was before it cannot be asked"))
        elif changed := launches.changes(last.answers, asked.answers):
            changes.append(Change(commit, tag, changed=tuple(changed)))
        last = asked
    if last is None:
        raise UsageProblem(
            "nothing in that range can be asked which kernel it launches",
            "the op is not there",
            "name a later range",
        )
    if kernel_texts:
        changes = _with_texts(prober, whole, base, answered, changes)
    return Log(
        tuple(reversed(changes)),
        tuple(cells),
        len(commits),
        len(versions),
        {} if began else first,
        last.answers,
    )


def _range(prober: Prober, text: str) -> tuple[Commit | None, list[Commit]]:
    """The commit before, and the commits, oldest first."""
    upstream = prober.upstream
    if ".." in text and not text.startswith("path:"):
        commits = upstream.range(text)
        return (upstream.commit(commits[0].parents[0]) if commits else None), commits
    tip = upstream.resolve(revision_of(text)).commit if text else upstream.line()[0]
    return None, history.commits(upstream.git, "--first-parent", tip.sha)[::-1]


def revision_of(text: str) -> Revision:
    """A revision whose source can be asked: of a release, its tag."""
    revision = Revision.parse(text)
    return Revision.parse(f"v{text}") if revision.kind is Kind.RELEASE else revision


def _questions(prober: Prober, whole: Sequence[Commit]) -> dict[str, Question]:
    """The first commit, and those that touch what is compiled, by sha and in order."""
    upstream = prober.upstream
    paths = {QUANTIZED, PACKING, SETTINGS}
    while True:
        touching = _touching(prober, whole, paths)
        found: dict[str, Question] = {}
        for commit in whole:
            if commit.sha in touching or commit is whole[0]:
                resolved = Resolved(
                    Revision(commit.short, commit.short, Kind.COMMIT), commit, upstream.trusted(commit.sha)
                )
                try:
                    found[commit.sha] = prober.question(resolved)
                except UsageProblem:  # older than the op
                    continue
        own = {path for each in found.values() for path in (*each.sources.own, *each.sources.stood_for)}
        if own - paths <= STOOD_FOR:
            return found
        paths |= own - STOOD_FOR


def _touching(prober: Prober, whole: Sequence[Commit], paths: set[str]) -> set[str]:
    """Those of the commits that change one of the paths against their first parent."""
    ends = [whole[-1].sha] + ([f"^{whole[0].sha}"] if len(whole) > 1 else [])
    listing = prober.upstream.git.says(
        "log", "--first-parent", "-m", "--format=%H", *ends, "--", *sorted(paths)
    )
    return set(listing.split())


def _with_texts(
    prober: Prober,
    whole: Sequence[Commit],
    base: Commit | None,
    answered: Mapping[str, Asked | ProbeFailed],
    changes: Sequence[Change],
) -> list[Change]:
    """The changes, with those of kernel text, oldest first. At each commit the functions are those that its
    cells run; only functions that both it and the commit before it run are compared."""
    reader = kernel_text.Reader(prober.upstream)
    known = {change.commit.sha: change for change in changes}
    touching = _touching(prober, whole, {kernel_text.FOLDER})
    found: list[Change] = []
    current: list[str] = []
    before: Mapping[str, str] = {}
    for commit in whole:
        asked = answered.get(commit.sha)
        if isinstance(asked, Asked):
            current = kernel_text.functions(asked.answers.values())
        change = known.get(commit.sha)
        texts: tuple[str, ...] = ()
        if current and (commit.sha in touching or isinstance(asked, Asked) or not before):
            now = reader.digests(commit.sha, current)
            if before and commit is not base:
                texts = kernel_text.differing(before, now)
            before = now
        if change is None and texts:
            change = Change(commit, prober.upstream.first_tag(commit.sha))
        if change is not None:
            found.append(
                Change(change.commit, change.tag, change.changed, texts, change.began, change.unknown)
            )
    return found
