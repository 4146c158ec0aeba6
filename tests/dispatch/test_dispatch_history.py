"""Where in the small upstream's history dispatch changes: against the full answers of every commit."""

from __future__ import annotations

import pytest
from small_dispatch import Bench

from bisect_tool.analysis import launches
from bisect_tool.dispatch import cells, history
from bisect_tool.dispatch.history import Log
from bisect_tool.errors import ProbeFailed, UsageProblem
from bisect_tool.upstream.revision import Revision

GPUS = ["applegpu_g13d", "applegpu_g14s", "applegpu_g16s", "applegpu_g17s"]
CELLS = cells.cells(GPUS, [(1024, 1024), (4096, 1024)], cells.rows("1-32"))
MAIN = ("early", "limits", "docs", "comment", "split", "kernel", "broken", "mended", "space")


@pytest.fixture(scope="module")
def log(dispatch_bench: Bench) -> Log:
    return history.log(dispatch_bench.prober(), "", CELLS, kernel_texts=True)


def test_exactly_the_commits_whose_answers_differ_are_listed(dispatch_bench: Bench, log: Log) -> None:
    shas = dispatch_bench.small.shas
    prober = dispatch_bench.prober()
    expected = []
    last = None
    for name in MAIN:
        try:
            answers = prober.ask(dispatch_bench.at(name), CELLS).answers
        except ProbeFailed:
            continue
        if last is not None and answers != last:
            expected.append((shas[name], {c for c in CELLS if answers[c] != last[c]}))
        last = answers
    found = [(c.commit.sha, {each.cell for each in c.changed}) for c in log.changes if c.changed]
    assert found == expected[::-1]
    assert [sha for sha, _ in expected] == [shas[name] for name in ("limits", "split", "mended")]


def test_the_log_tells_the_whole_story_newest_first(log: Log) -> None:
    told = [(c.commit.pull, c.tag, c.kinds, c.texts, c.began, bool(c.unknown)) for c in log.changes]
    assert told == [
        (8, None, ("kernel", "grid"), (), False, False),
        (7, None, (), (), False, True),
        (6, None, (), ("affine_qmv",), False, False),
        (5, "v0.3.0", ("kernel", "split-K", "reduction", "grid"), (), False, False),
        (2, "v0.2.0", ("kernel", "grid", "buffers"), (), False, False),
        (1, "v0.1.0", (), (), True, False),
    ]
    assert (log.commits, log.versions, log.first) == (10, 6, {})


def test_the_log_says_at_once_what_a_culprit_changed(dispatch_bench: Bench, log: Log) -> None:
    change = log.at(dispatch_bench.small.shas["split"])
    assert change is not None and len(change.changed) == 52
    assert log.at(dispatch_bench.small.shas["docs"]) is None


def test_a_range_begins_with_what_was_before_it(dispatch_bench: Bench) -> None:
    found = history.log(dispatch_bench.prober(), "v0.2.0..v0.3.0", CELLS)
    assert [c.commit.pull for c in found.changes] == [5] and not found.changes[0].began
    assert found.commits == 3 and found.first != found.last
    assert launches.changes(found.first, found.last) == list(found.changes[0].changed)


def test_after_what_cannot_be_asked_nothing_begins(dispatch_bench: Bench) -> None:
    shas = dispatch_bench.small.shas
    found = history.log(dispatch_bench.prober(), f"{shas['broken']}..{shas['space']}", CELLS)
    assert [(c.commit.pull, c.began, c.unknown) for c in found.changes] == [
        (8, False, "what was before it cannot be asked")
    ]
    assert found.first == found.last


def test_the_history_of_a_revision_ends_there(dispatch_bench: Bench) -> None:
    found = history.log(dispatch_bench.prober(), "0.2.0", CELLS)
    assert [c.commit.pull for c in found.changes] == [2, 1]


def test_a_range_without_commits_or_without_the_op_is_said(dispatch_bench: Bench) -> None:
    prober = dispatch_bench.prober()
    with pytest.raises(UsageProblem, match="holds no commits"):
        history.log(prober, "v0.2.0..v0.2.0", CELLS)
    with pytest.raises(UsageProblem, match="the op is not there"):
        history.log(prober, dispatch_bench.small.shas["nothing"], CELLS)


def test_a_pull_request_is_its_parent_against_it(dispatch_bench: Bench) -> None:
    prober = dispatch_bench.prober()
    pair = history.of_pull(prober, Revision.parse("#5"))
    assert pair is not None
    assert [each.commit.sha for each in pair] == [
        dispatch_bench.small.shas[name] for name in ("comment", "split")
    ]
    found = history.difference(prober, *pair, CELLS, kernel_texts=True)
    assert len(found.changed) == 52 and found.texts == ()
    assert {each.after.family for each in found.changed} == {"qmm_splitk"}
    open_one = history.of_pull(prober, Revision.parse("#20"))
    assert open_one is not None and open_one[0].commit.sha == dispatch_bench.small.shas["space"]
    for text in ("#5/head", "#5^", "main"):
        assert history.of_pull(prober, Revision.parse(text)) is None


def test_two_commits_that_launch_the_same_differ_in_nothing(dispatch_bench: Bench) -> None:
    prober = dispatch_bench.prober()
    found = history.difference(
        prober, dispatch_bench.at("limits"), dispatch_bench.at("comment"), CELLS, kernel_texts=True
    )
    assert found.changed == () and found.texts == () and found.before.key != found.after.key
    texts = history.difference(
        prober, dispatch_bench.at("split"), dispatch_bench.at("space"), CELLS, kernel_texts=True
    ).texts
    assert texts == ("affine_qmv",)  # not affine_qmm, which the same commit left alone


def test_a_difference_with_what_cannot_be_asked_is_no_difference(dispatch_bench: Bench) -> None:
    with pytest.raises(ProbeFailed):
        history.difference(
            dispatch_bench.prober(), dispatch_bench.at("split"), dispatch_bench.at("broken"), CELLS
        )


def test_an_arm_with_another_architecture_is_asked_its_own_cells(dispatch_bench: Bench) -> None:
    """As two arms of one commit that a setting tells apart."""
    wanted = cells.cells(["applegpu_g16s"], [(4096, 1024)], cells.rows("1-32"))
    others = [cell._replace(arch="applegpu_g13d") for cell in wanted]
    split = dispatch_bench.at("split")
    found = history.difference(dispatch_bench.prober(), split, split, wanted, cells_after=others)
    assert [(each.cell.arch, each.cell.M) for each in found.changed] == [
        ("applegpu_g16s", 10), ("applegpu_g16s", 11)
    ]  # fmt: skip


def test_a_header_of_its_own_that_changes_alone_is_found(dispatch_bench: Bench) -> None:
    shas = dispatch_bench.small.shas
    found = history.log(dispatch_bench.prober(), f"{shas['space']}..{shas['own-later']}", CELLS)
    assert [c.commit.sha for c in found.changes] == [shas["own-later"], shas["own-header"]]
    assert {each.cell.M for each in found.changes[0].changed} == set(range(15, 20))
