"""The real MLX, where ``BISECT_TOOL_MLX_REPO`` names a clone with pull requests: minutes the first time.

``BISECT_TOOL_TEST_BUILDS`` names a folder that is kept, so that the second time takes seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bisect_tool.analysis import launches
from bisect_tool.analysis.launches import Answer, Cell
from bisect_tool.dispatch import cells, history
from bisect_tool.dispatch.prober import Prober
from bisect_tool.dispatch.source import QUANTIZED
from bisect_tool.errors import ProbeFailed
from bisect_tool.upstream.clone import Upstream
from bisect_tool.upstream.revision import Kind, Revision
from bisect_tool.upstream.values import Resolved

REPO = os.environ.get("BISECT_TOOL_MLX_REPO", "")
pytestmark = [
    pytest.mark.skipif(not REPO, reason="BISECT_TOOL_MLX_REPO names no clone of MLX"),
    pytest.mark.timeout(900),
]
END = "846d17622"  # 2026-08-22
PULLS = (1861, 3120, 3764, 3753, 3791, 3863, 3987, 4171, 4204, 4237, 3961, 4015, 3998)
M4_PRO = cells.cells(["applegpu_g16s"], [(5120, 13824)], cells.rows("1-40"))
# The "old limit" rows of #3987's thread: K, N, and the first M that goes to the matmul kernels.
OLD_LIMITS = (
    (2048, 2048, 18), (2048, 4096, 12), (3072, 4096, 12), (4096, 4096, 12), (3072, 8192, 10),
    (4096, 8192, 10), (2048, 16384, 10), (4096, 14336, 10), (5120, 17408, 10),
)  # fmt: skip
GENERATIONS = ("13g", "13s", "13d", "14s", "14d", "15s", "15d", "16s", "17g", "17s")
GPUS = [f"applegpu_g{name}" for name in GENERATIONS]
SHAPES = [
    (4096, 4096), (5120, 5120), (5120, 13824), (13824, 5120), (2048, 2048), (5120, 1024), (4096, 14336),
    (8192, 8192),
]  # fmt: skip


@pytest.fixture(scope="module")
def prober(wheel_builds: Path) -> Iterator[Prober]:
    with Upstream.open(wheel_builds, REPO) as upstream:
        yield Prober(upstream, wheel_builds)


def ranges(answers: dict[Cell, Answer]) -> list[tuple[int, int, str]]:
    return [(each.first, each.last, each.family) for each in launches.segments(answers)]


def ask(prober: Prober, text: str, wanted: list[Cell]) -> dict[Cell, Answer]:
    return prober.ask(prober.upstream.resolve(Revision.parse(text)), wanted).answers


def test_every_commit_of_the_file_compiles_and_answers(prober: Prober) -> None:
    listing = prober.upstream.git.says("log", "--first-parent", "--format=%H", END, "--", QUANTIZED).split()
    assert len(listing) == 61
    questions = []
    for sha in listing:
        commit = prober.upstream.commit(sha)
        resolved = Resolved(Revision(commit.short, commit.short, Kind.COMMIT), commit, True)
        questions.append(prober.question(resolved))
    for asked in prober.ask_all(questions, M4_PRO):
        assert not isinstance(asked, ProbeFailed), asked
        assert all(answer.main is not None for answer in asked.answers.values()), asked.label


@pytest.mark.parametrize("number", PULLS)
def test_the_heads_of_the_pull_requests_compile_and_answer(prober: Prober, number: int) -> None:
    answers = ask(prober, f"#{number}/head", M4_PRO)
    assert all(answer.main is not None for answer in answers.values())


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        ("v0.20.0", [(1, 5, "qmv_fast"), (6, 40, "qmm_t")]),
        ("v0.24.1", [(1, 5, "qmv_fast"), (6, 40, "qmm_t")]),
        ("v0.24.2", [(1, 9, "qmv_fast"), (10, 40, "qmm_t")]),
        ("v0.31.2", [(1, 9, "qmv_fast"), (10, 40, "qmm_t")]),
        ("v0.32.0", [(1, 1, "qmv_fast"), (2, 9, "qmv_wide"), (10, 40, "qmm_t")]),
        ("v0.32.1", [(1, 1, "qmv_fast"), (2, 12, "qmv_wide"), (13, 40, "qmm_t")]),
    ],
)
def test_what_ran_in_the_releases_on_an_m4_pro(
    prober: Prober, revision: str, expected: list[tuple[int, int, str]]
) -> None:
    assert ranges(ask(prober, revision, M4_PRO)) == expected


@pytest.mark.parametrize(("K", "N", "limit"), OLD_LIMITS)
def test_the_old_limits_of_3987(prober: Prober, K: int, N: int, limit: int) -> None:
    wanted = cells.cells(
        ["applegpu_g15s"], [(K, N)], cells.rows("1-40"), group_sizes=[128], dtypes=["bfloat16"]
    )
    answers = ask(prober, "#3791^", wanted)
    assert min(c.M for c, answer in answers.items() if not answer.family.startswith("qmv")) == limit


def test_the_log_of_all_lists_exactly_what_differs(prober: Prober) -> None:
    """Against the full answers of all commits that touch what is compiled; and again within two seconds."""
    wanted = cells.cells(GPUS, SHAPES, cells.rows("1-40"))
    assert len(wanted) == 3200
    log = history.log(prober, END, wanted)
    line = prober.upstream.git.says(
        "log", "--first-parent", "--reverse", "--format=%H", END, "--", QUANTIZED,
        "mlx/backend/common/quantized.h", "mlx/utils.h",
    ).split()  # fmt: skip
    expected, last = [], None
    for sha in line:
        if prober.upstream.read(sha, QUANTIZED) is None:
            continue
        answers = ask(prober, sha, wanted)
        if last is not None and answers != last:
            expected.append((sha, sum(answers[cell] != last[cell] for cell in wanted)))
        last = answers
    assert [(c.commit.sha, len(c.changed)) for c in log.changes if not c.began] == expected[::-1]
    started = time.perf_counter()
    assert history.log(prober, END, wanted) == log
    print(f"again: {time.perf_counter() - started:.2f} s")
