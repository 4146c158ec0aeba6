"""Tables of dispatch: what shares a row, what a log says of a commit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bisect_tool.analysis import launches
from bisect_tool.analysis.launches import Answer, Cell, Launch
from bisect_tool.reporting import dispatch_table
from bisect_tool.reporting.dispatch_table import LogRow


def cell(M: int, arch: str = "applegpu_g16s", **more: Any) -> Cell:
    return Cell(arch, 5120, 1024, M)._replace(**more)


def qmv(M: int, family: str = "qmv_fast") -> Answer:
    return Answer((Launch(f"affine_{family}_float16_t_gs_64_b_4_batch_0", (M, 128, 1), (32, 2, 1), 7),))


SPLIT = Answer(
    (
        Launch("affine_qmm_t_splitk_float16_t_gs_64_b_4_alN_true", (32, 1, 16), (32, 2, 2), 10, 16),
        Launch("reduce_sum", (0, 0, 0), (0, 0, 0), 0, 16, True),
    )
)


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows, without the heads."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|-")]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines if "K → N" not in line]


def test_ranges_of_rows_with_grid_threadgroup_and_split() -> None:
    answers = {cell(1): qmv(1), cell(2): qmv(2), cell(3): SPLIT, cell(4): Answer(exception="too | many")}
    text = dispatch_table.answers_text(answers)
    assert text.startswith("affine 4-bit, group 64, float16\n\n|")
    assert rows(text.replace("\\|", "/")) == [
        ["g16s", "5120 → 1024", "1–2", "qmv_fast", "M × 128 × 1", "32 × 2 × 1", ""],
        [
            "g16s",
            "5120 → 1024",
            "3",
            "qmm_t_splitk",
            "32 × 1 × 16",
            "32 × 2 × 2",
            "16 parts, 1 pass to add up",
        ],
        ["g16s", "5120 → 1024", "4", "exception: too / many", "", "", ""],
    ]


def test_gpus_that_launch_the_same_share_their_rows() -> None:
    archs = ("applegpu_g13s", "applegpu_g14s", "applegpu_g16s")
    answers = {
        cell(M, arch): qmv(M, "qmv_wide" if arch[-3:] == "16s" else "qmv") for arch in archs for M in (1, 2)
    }
    assert [row[0] for row in rows(dispatch_table.answers_text(answers))] == ["g13s, g14s", "g16s"]


def test_settings_have_tables_of_their_own() -> None:
    answers = {
        cell(1, mode="nvfp4", group_size=16): qmv(1),
        cell(1, transpose=False): qmv(1),
        cell(1, nax=True): SPLIT,
    }
    text = dispatch_table.answers_text(answers)
    assert "nvfp4 4-bit, group 16, float16\n" in text
    assert "affine 4-bit, group 64, float16, not transposed\n" in text
    assert rows(text)[2][0] == "g16s NAX"


def test_a_difference_says_from_what_to_what() -> None:
    archs = ("applegpu_g15s", "applegpu_g16s")
    before = {cell(M, arch): qmv(M) for arch in archs for M in range(1, 5)}
    after = {c: (qmv(c.M, "qmv_wide") if c.M > 1 else a) for c, a in before.items()}
    changed = launches.changes(before, after)
    text = dispatch_table.difference_text(changed, len(after))
    assert text.startswith("6 of 8 cells differ\n")
    how = "grid M × 128 × 1, threadgroup 32 × 2 × 1"
    assert rows(text) == [
        ["g15s, g16s", "5120 → 1024", "2–4", f"qmv_fast, {how}", f"qmv_wide, {how}", "kernel"]
    ]


def test_where_only_a_name_differs_it_is_shown() -> None:
    """As of a tile size that the grid does not tell: neighbouring M of other names stay apart."""
    before = {cell(M): qmv(1) for M in (1, 2, 3)}
    named = {1: "bm16", 2: "bm16", 3: "bm32"}
    after = {
        c: Answer((Launch(f"affine_qmv_fast_float16_t_gs_64_{named[c.M]}", (1, 128, 1), (32, 2, 1), 7),))
        for c in before
    }
    found = rows(dispatch_table.difference_text(launches.changes(before, after), 3))
    assert [(row[2], row[4].split(",")[0], row[5]) for row in found] == [
        ("1–2", "affine_qmv_fast_float16_t_gs_64_bm16", "parameters"),
        ("3", "affine_qmv_fast_float16_t_gs_64_bm32", "parameters"),
    ]


def test_no_difference_is_an_answer() -> None:
    assert dispatch_table.difference_text([], 1) == "dispatch is the same in all 1 cell"
    assert dispatch_table.texts_line([]) == "the text of the kernels that both run is the same"
    assert dispatch_table.texts_line(["qmv", "qmm"]).endswith("differs: qmv, qmm")


def test_a_log_says_what_moved_where() -> None:
    before = {cell(M): qmv(M) for M in range(1, 6)} | {cell(9): SPLIT}
    wide = {c: (qmv(c.M, "qmv_wide") if 1 < c.M < 6 else a) for c, a in before.items()}
    log = [
        LogRow(
            "abc", 7, "v0.2.0", "2026-06-26", "Wide (#7)", tuple(launches.changes(before, wide)), ("qmv",)
        ),
        LogRow("def", None, None, "2026-06-25", "Unclear", unknown="does not compile"),
        LogRow("012", 5, "v0.1.0", "2026-06-24", "Text (#5)", texts=("qmm",)),
        LogRow("345", 1, "v0.1.0", "2026-06-23", "Begin (#1)", began=True),
    ]
    found = rows(dispatch_table.log_text(log, 6, kernel_texts=True))[1:]
    assert found == [
        ["abc", "#7", "v0.2.0", "2026-06-26", "qmv_fast → qmv_wide at M=2–5", "4/6", "qmv", "Wide (#7)"],
        ["def", "", "not yet", "2026-06-25", "not known: does not compile", "", "", "Unclear"],
        ["012", "#5", "v0.1.0", "2026-06-24", "the same", "", "qmm", "Text (#5)"],
        ["345", "#1", "v0.1.0", "2026-06-23", "the op begins", "", "", "Begin (#1)"],
    ]
    assert len(rows(dispatch_table.log_text(log, 6, kernel_texts=False))[1]) == 7


def test_other_changes_are_named_with_their_rows() -> None:
    before = {cell(M): qmv(M) for M in range(1, 6)}
    other = Answer((Launch("affine_qmv_fast_float16_t_gs_64_b_4_batch_0", (9, 9, 9), (32, 2, 1), 7),))
    after = {c: other if c.M in (1, 2, 4) else a for c, a in before.items()}
    assert dispatch_table.what_changed(launches.changes(before, after)) == "grid at M=1–2, 4"
    moved = {**after, cell(5): qmv(5, "qmv_wide")}
    assert dispatch_table.what_changed(launches.changes(before, moved)) == (
        "qmv_fast → qmv_wide at M=5; grid at M=1–2, 4"
    )


def test_data_carries_all_that_is_compared() -> None:
    (entry,) = dispatch_table.answers_list({cell(3): SPLIT})
    assert entry["cell"] == {
        "arch": "applegpu_g16s", "K": 5120, "N": 1024, "M": 3, "bits": 4, "group_size": 64, "mode": "affine",
        "dtype": "float16", "transpose": True, "nax": False,
    }  # fmt: skip
    assert entry["family"] == "qmm_t_splitk" and entry["launches"][0]["split_k"] == 16
    assert entry["launches"][1]["reduction"] is True
    (change,) = dispatch_table.changed_list(launches.changes({cell(3): qmv(3)}, {cell(3): SPLIT}))
    assert change["kinds"][0] == "kernel" and change["before"]["family"] == "qmv_fast"


def test_a_search_says_what_changed_at_its_culprit_or_that_nothing_did() -> None:
    before = {cell(M): qmv(M) for M in (1, 2)}
    changed = tuple(launches.changes(before, {cell(1): qmv(1), cell(2): qmv(2, "qmv_wide")}))
    row = LogRow("abc", 7, None, "2026-06-26", "Wide (#7)", changed)
    assert dispatch_table.culprit_line(row) == "dispatch: qmv_fast → qmv_wide at M=2"
    text = LogRow("abc", 7, None, "2026-06-26", "Text (#7)", texts=("qmv", "qmm"))
    assert dispatch_table.culprit_line(text).endswith(
        "same as before it; the text of these kernels changes: qmv, qmm"
    )
    assert dispatch_table.culprit_line(None).startswith(
        "dispatch and kernel text of the measured cells are the same"
    )
    unknown = LogRow("abc", 7, None, "2026-06-26", "Odd", unknown="does not compile")
    assert dispatch_table.culprit_line(unknown) == "dispatch: not known: does not compile"


@pytest.mark.parametrize(
    ("after", "verdict", "texts", "note"),
    [
        (qmv(3), "SAME", False, ""),
        (qmv(3), "AMBIGUOUS", False, ""),
        (qmv(3), "FASTER", False, "warning: the same kernel (qmv_fast) in another time"),
        (qmv(3), "FASTER", True, "the same dispatch of qmv_fast, whose text differs"),
        (qmv(3, "qmv_wide"), "SLOWER", False, "dispatch differs: qmv_fast → qmv_wide"),
        (qmv(3, "qmv_wide"), "SAME", False, "qmv_fast → qmv_wide; warning: and yet no difference in time"),
        (qmv(4), "FASTER", False, "dispatch differs: qmv_fast launched in another way"),
    ],
)
def test_a_comparison_notes_what_times_and_kernels_say_of_each_other(
    after: Answer, verdict: str, texts: bool, note: str
) -> None:
    found = dispatch_table.arm_note(qmv(3), after, verdict, texts_differ=texts)
    assert note in found and bool(found) is bool(note)
    if verdict == "SLOWER":
        assert "warning" not in found


@pytest.mark.parametrize("answer", [qmv(3), SPLIT, Answer((), 2, "no kernel"), Answer()])
def test_an_answer_that_was_written_down_is_read_again(answer: Answer) -> None:
    said = json.loads(json.dumps(dispatch_table.answer_dict(answer)))
    assert dispatch_table.answer_of(said) == answer
    assert launches.kinds(answer, dispatch_table.answer_of(said)) == ()
