"""Cells and answers: families, ranges of M, what differs. No compiler, no git."""

from __future__ import annotations

import pytest

from bisect_tool.analysis import launches
from bisect_tool.analysis.launches import Answer, Cell, Launch


def cell(M: int, arch: str = "applegpu_g16s", N: int = 1024) -> Cell:
    return Cell(arch, 5120, N, M)


def answer(
    kernel: str, x: int = 1, *, y: int = 8, group: int = 2, buffers: int = 7, copies: int = 0
) -> Answer:
    name = f"affine_{kernel}_float16_t_gs_64_b_4_batch_0"
    return Answer((Launch(name, (x, y, 1), (32, group, 1), buffers),), copies)


def split(parts: int) -> Answer:
    product = Launch("affine_qmm_t_splitk_float16_t_gs_64_b_4_alN_true", (4, 1, parts), (32, 2, 2), 10, parts)
    return Answer((product, Launch("reduce_sum", (0, 0, 0), (0, 0, 0), 0, parts, True)))


@pytest.mark.parametrize(
    ("kernel", "family"),
    [
        ("affine_qmv_wide_float16_t_gs_64_b_4_nv_2_kl_8_batch_0", "qmv_wide"),
        ("affine_qmm_t_nax_bfloat16_t_gs_64_b_4_bm32_bn64", "qmm_t_nax"),
        ("nvfp4_qmv_fast_float_gs_16_b_4_r_2_batch_0", "qmv_fast"),
        ("qmv_n_float16_groups_64_width_4", "qmv_n"),
        ("qmv_float16_gs_64_b_4_fast", "qmv_fast"),
        ("qmm_t_float32_gs_64_b_4_alN_true", "qmm_t"),
        ("a_name_of_the_future", "a_name_of_the_future"),
    ],
)
def test_families_are_names_without_mode_dtype_and_parameters(kernel: str, family: str) -> None:
    assert launches.family(kernel) == family


def test_segments_end_where_family_threadgroup_or_split_changes() -> None:
    answers = {
        **{cell(M): answer("qmv_fast", M) for M in (1, 2)},
        cell(3): answer("qmv_fast", 3, group=4),
        cell(4): split(2),
        cell(5): split(3),
        cell(6): Answer(exception="no"),
        cell(7): Answer(exception="never"),
    }
    found = launches.segments(answers)
    assert [(each.first, each.last, each.family) for each in found] == [
        (1, 2, "qmv_fast"), (3, 3, "qmv_fast"), (4, 4, "qmm_t_splitk"), (5, 5, "qmm_t_splitk"),
        (6, 6, ""), (7, 7, ""),
    ]  # fmt: skip


def test_segments_keep_shapes_apart_and_do_not_bridge_missing_rows() -> None:
    answers = {cell(M, N=N): answer("qmv", M) for N in (1024, 2048) for M in (4, 1, 2)}
    found = launches.segments(answers)
    assert [(each.cells[0].N, each.first, each.last) for each in found] == [
        (1024, 1, 2), (1024, 4, 4), (2048, 1, 2), (2048, 4, 4)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("after", "kinds"),
    [
        (answer("qmv"), ()),
        (answer("qmv_wide"), ("kernel",)),
        (answer("qmv", 2), ("grid",)),
        (answer("qmv", group=4), ("threadgroup",)),
        (answer("qmv", buffers=8), ("buffers",)),
        (answer("qmv", copies=1), ("copies",)),
        (Answer(exception="no"), ("exception", "kernel")),
        (Answer((Launch("qmv_float16_t_gs_64_b_4", (1, 8, 1), (32, 2, 1), 7),)), ("parameters",)),
        (split(2), ("kernel", "split-K", "reduction", "grid", "threadgroup", "buffers")),
    ],
)
def test_kinds_say_in_what_two_answers_differ(after: Answer, kinds: tuple[str, ...]) -> None:
    assert launches.kinds(answer("qmv"), after) == kinds


def test_the_metal_function_is_not_compared() -> None:
    """It is not known of kernels before the JIT: that would be a change at which nothing changes."""
    one, other = (Launch("qmv_float_gs_64", (1, 1, 1), (32, 1, 1), 3, function=name) for name in ("", "qmv"))
    assert Answer((one,)) == Answer((other,))


def test_changes_are_of_the_cells_that_both_know() -> None:
    before = {cell(M): answer("qmv", M) for M in range(1, 5)}
    after = {cell(M): answer("qmv_wide" if M > 1 else "qmv", M) for M in range(1, 6)}
    changed = launches.changes(before, after)
    assert [each.cell.M for each in changed] == [2, 3, 4]
    assert {each.kinds for each in changed} == {("kernel",)}


def test_neighbouring_changes_of_the_same_sort_stand_together() -> None:
    before = {cell(M): answer("qmv", M) for M in range(1, 7)}
    after = {cell(M): answer("qmv_wide" if M < 4 else "qmm", M) for M in (1, 2, 3, 4, 6)}
    groups = launches.together(launches.changes(before, after))
    assert [[each.cell.M for each in group] for group in groups] == [[1, 2, 3], [4], [6]]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({1: 7, 2: 7, 3: 7}, "7"),
        ({1: 1, 2: 2, 3: 3}, "M"),
        ({4: 1, 5: 1, 6: 2, 11: 3}, "⌈M/5⌉"),
        ({1: 3, 2: 9, 3: 4}, "3…4"),
        ({2: 2}, "2"),
    ],
)
def test_an_axis_is_put_in_words(numbers: dict[int, int], text: str) -> None:
    assert launches.axis(numbers) == text


def test_grids_name_what_goes_with_the_rows() -> None:
    cells = [cell(M) for M in (1, 2, 3)]
    assert launches.grid(cells, [answer("qmv", M, y=128) for M in (1, 2, 3)]) == "M × 128 × 1"
    assert launches.grid(cells[:1], [Answer(exception="no")]) == ""


def test_a_split_is_what_the_reduction_adds_up() -> None:
    assert (split(4).split, split(4).reductions, split(4).threadgroups) == (4, 1, 16)
    assert (answer("qmv").split, answer("qmv").reductions) == (1, 0)
