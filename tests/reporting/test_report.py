from __future__ import annotations

import copy
import io
import json
import math
from pathlib import Path
from typing import Any

import pandas
import pytest
from a_session import ARMS, DISCARDED, HEADER, Line, commits, golden_texts, per_call, run_line
from a_session import lines as session_lines
from test_text import cells

from bisect_tool.analysis.rank import hodges_lehmann, log_centre
from bisect_tool.analysis.series import metrics
from bisect_tool.reporting import environment, report

GOLDEN = Path(__file__).with_name("golden")


def spoken(values: dict[str, list[float]], name: str = "step", unit: str = "ms") -> list[Line]:
    """A session of a user's own script that prints one metric."""
    arms: list[Line] = [
        {
            "kind": "arm", "arm": arm, "release": arm, "backend": "cpu", "mlx": arm, "python": "3.12.4",
            "wheel_digest": "ab" * 32, "env": {},
        }
        for arm in values
    ]  # fmt: skip
    runs = [
        run_line(arm, number, 0, metrics=[{"metric": name, "value": value, "unit": unit}])
        for arm in reversed(values)
        for number, value in enumerate(values[arm], 1)
    ]  # fmt: skip
    return [*arms, *runs]


def table_rows(markdown: str) -> list[list[list[str]]]:
    """Every table of a page, as rows of cells."""
    tables: list[list[list[str]]] = []
    last = ""
    for line in markdown.splitlines():
        if line.startswith("|"):
            if not last.startswith("|"):
                tables.append([])
            tables[-1].append(cells(line))
        last = line
    return tables


# --- the whole page -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(golden_texts()))
def test_golden(name: str) -> None:
    """`python tests/reporting/a_session.py` writes them again."""
    assert golden_texts()[name] + "\n" == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_same_records_give_the_same_text_and_stay_as_they_are() -> None:
    lines, header = session_lines(), copy.deepcopy(HEADER)
    before = json.dumps([header, *lines])
    for render in (report.markdown, report.as_json):
        assert render(header, lines) == render(header, tuple(lines))
    # What went through the file and came back is the same.
    back = json.loads(before)
    assert report.markdown(back[0], back[1:]) == report.markdown(header, lines)
    assert report.csv(lines) == report.csv(lines) and report.compat(lines) == report.compat(lines)
    assert json.dumps([header, *lines]) == before


def test_tables_are_whole_and_at_most_seven_columns_wide() -> None:
    pages = [report.markdown(HEADER, session_lines()), report.markdown(HEADER, spoken({"a": [1.0, 2.0]}))]
    for page in pages:
        tables = table_rows(page)
        assert tables
        for rows in tables:
            assert len({len(row) for row in rows}) == 1 and len(rows[0]) <= 7


def test_no_trailing_blanks_and_no_empty_sections() -> None:
    page = report.markdown(HEADER, session_lines())
    assert "\n\n\n" not in page
    assert all(line == line.rstrip() for line in page.splitlines())


def test_discarded_rounds_do_not_move_a_number() -> None:
    lines = session_lines()
    usual = report.markdown(HEADER, lines)
    for line in lines:
        if line["kind"] == "run" and line["round"] == DISCARDED:
            for one in line["cases"]:
                one["time_s"] *= 7
    assert report.markdown(HEADER, lines) == usual


def test_arms_come_as_asked_for_whichever_ran_first() -> None:
    page = report.markdown(HEADER, session_lines())
    titles = [line for line in page.splitlines() if line.startswith("**5120")]
    assert [line.split("mlx ")[1][:6] for line in titles] == ["0.31.2", "0.32.4"] * 2


def test_what_could_not_be_measured_is_said() -> None:
    page = report.markdown(HEADER, session_lines())
    assert "- mlx 0.30.2 is missing: mlx 0.30.2 has no wheel" in page
    assert page.count("- not in mlx 0.31.2: nvfp4 4-bit float16: ValueError") == 1
    assert "discarded rounds: 1 (throttled: " in page
    dropped = [*session_lines(), {"kind": "dropped", "arm": "0.31.2", "reason": "killed by SIGABRT"}]
    assert "- mlx 0.31.2 is missing: killed by SIGABRT\n" in report.markdown(HEADER, dropped)


def test_a_missing_arm_is_visible_without_unfolding() -> None:
    visible = report.markdown(HEADER, session_lines()).split("<details>")[0]
    assert "0.30.2" in visible


def test_nothing_was_measured() -> None:
    page = report.markdown(HEADER, [])
    assert page.startswith("Nothing was measured.\n\n<details>")
    assert report.compat([]) == "Nothing was measured."
    assert json.loads(report.as_json(HEADER, []))["tables"] == []
    assert not report.enough([])


def test_enough() -> None:
    lines = session_lines()
    assert report.enough(lines)
    assert not report.enough([line for line in lines if line.get("round", 0) <= 6])
    fewer = [line for line in lines if line.get("arm") != "0.31.2" or line.get("round", 0) <= 4]
    assert not report.enough(fewer), "every arm needs them"


# --- the environment ----------------------------------------------------------------------------------


def test_the_command_can_be_pasted_into_a_shell() -> None:
    header = {**HEADER, "command": ["repro", "--script", "my bench.py", "--", "$HOME", "it's"]}
    assert environment.command(header) == """bisect_tool repro --script 'my bench.py' -- '$HOME' 'it'"'"'s'"""


def test_environment_of_an_unfinished_session_says_so() -> None:
    lines = [line for line in session_lines() if line["kind"] != "end"]
    assert "- stopped: not finished: these are the rounds so far" in environment.block(HEADER, lines)
    assert "- rounds: 7, " in environment.block(HEADER, lines)


def test_settings_of_an_arm_are_shown() -> None:
    lines = session_lines()
    lines[0]["env"] = {"MLX_METAL_GPU_ARCH": "applegpu_g12s"}
    assert "Python 3.12.4, MLX_METAL_GPU_ARCH=applegpu_g12s\n" in environment.block(HEADER, lines)


def of_arm(page: str, arm: str) -> str:
    """What the block says of an arm."""
    (found,) = [line for line in page.splitlines() if line.startswith(f"- mlx {arm}: ")]
    return found


def test_a_commit_is_told_with_all_that_its_build_took() -> None:
    header, lines = commits()
    page = environment.block(header, lines)
    compiler = "Apple clang version 17.0.0 (clang-1700.0.13.5), Xcode 26.1"
    assert of_arm(page, "v0.31.2") == (
        f"- mlx v0.31.2: commit {'1a2b3c4d5' + '0' * 31}, built here as 5f6e7d8c5f6e by {compiler} "
        "with -include cstdint -O3 -DNDEBUG, "
        "with a remedy (old CMake policies: a CMakeLists.txt asks for a CMake older than 3.5; "
        "#include <cstdint>: a file uses it without including it) "
        "(metal), contents fe900534fe90, Python 3.12.4"
    )
    other = of_arm(page, "#3764")
    assert "built here as 9a8b7c6d9a8b (the build of aaaabbbbc, which has the same files) by Apple" in other
    assert other.startswith(f"- mlx #3764: commit {'548dd80e8' + '0' * 31}, ") and "remedy" not in other
    assert "released" not in page


def test_a_commit_and_a_release_side_by_side() -> None:
    header, lines = commits()
    mixed = [
        line if line.get("arm") == "#3764" else theirs
        for line, theirs in zip(lines, session_lines(), strict=True)
    ]
    page = environment.block(header, mixed)
    assert "released wheel 0.31.2 (metal)" in of_arm(page, "0.31.2")
    assert "built here" in of_arm(page, "#3764")


def test_walls_are_told() -> None:
    assert "\n- walls: sandbox-exec\n" in environment.block(HEADER, session_lines())
    for walls in ("none", "bubblewrap 0.8.0"):
        header = {**HEADER, "plan": {**HEADER["plan"], "walls": walls}}
        assert f"\n- walls: {walls}\n" in environment.block(header, session_lines())


def test_sessions_from_before_there_were_walls_and_commits() -> None:
    """Their records say nothing of either, and are printed all the same."""
    header, lines = copy.deepcopy(HEADER), session_lines()
    del header["plan"]["walls"], header["plan"]["options"]
    for line in lines:
        for name in ("sha", "build"):
            line.pop(name, None)
    page = environment.block(header, lines)
    assert "walls" not in page and page.count("released wheel") == 2


def test_a_host_of_which_little_is_known() -> None:
    bare = {**HEADER, "host": {"chip": "?", "cores": 2, "memory_bytes": 0}}
    assert "GPU:" not in environment.block(bare, session_lines())


# --- #3553's own lines --------------------------------------------------------------------------------


def compat_line(name: str, ms: list[float]) -> str:
    """The issue's layout, written out: the name in 28 columns, two spaces between the numbers."""
    numbers = [f"M={M}={t:.3f}ms" for M, t in enumerate(ms, 1)]
    return "  ".join([f"{name + ':':<27}", *numbers, f"(M3/M1={ms[2] / ms[0]:.2f}x)"])


def test_compat_lines() -> None:
    lines = per_call(rounds=1)
    for one in lines[0]["cases"]:
        case = one["case"]
        if case.get("N") == 13824:
            one["time_s"] = [0.270, 0.272, 0.346, 0.425][case["M"] - 1] / 1e3
    first, second, said = report.compat(lines).splitlines()
    assert first == (
        "5120 → 13824 (MLP gate/up):  M=1=0.270ms  M=2=0.272ms  M=3=0.346ms  M=4=0.425ms  (M3/M1=1.28x)"
    )
    assert first == compat_line("5120 → 13824 (MLP gate/up)", [0.270, 0.272, 0.346, 0.425])
    assert second.startswith("5120 → 5120 (attn q/o):      M=1=0.103ms  M=2=")
    assert said == ("# mean of 200 evals after 30 warm-ups, one op an eval; median of 1 processes")


def test_compat_is_the_median_over_processes() -> None:
    lines = per_call(rounds=3)
    for line, seconds in zip(lines, (9e-3, 1e-3, 2e-3), strict=True):
        for one in line["cases"]:
            one["time_s"] = seconds
    assert "M=1=2.000ms  M=2=2.000ms" in report.compat(lines)
    assert "M=1=1.500ms" in report.compat([*lines, {"kind": "discard", "round": 1, "reason": ""}])


def test_compat_tells_arms_apart_and_leaves_controls_out() -> None:
    text = report.compat(per_call(ARMS))
    assert text.count("mlx 0.31.2: ") == text.count("mlx 0.32.4: ") == 2
    assert "4096" not in text


def test_compat_does_not_claim_what_was_not_done() -> None:
    said = "No time was taken in #3553's way; use --compat or --timing percall."
    assert report.compat(session_lines()) == said


def test_compat_does_not_call_a_median_a_mean() -> None:
    lines = per_call(rounds=1)
    for one in lines[0]["cases"]:
        one["centre"] = "median"
    assert "# median of 200 evals after 30 warm-ups" in report.compat(lines)


def test_compat_tells_bits_apart() -> None:
    lines = per_call(rounds=1)
    for one in copy.deepcopy(lines[0]["cases"]):
        one["case"]["bits"] = 8
        lines[0]["cases"].append(one)
    names = [line.split(":")[0] for line in report.compat(lines).splitlines()[:-1]]
    assert len(set(names)) == len(names)


def test_compat_has_no_trailing_blank() -> None:
    lines = per_call(rounds=1)
    lines[0]["cases"] = [one for one in lines[0]["cases"] if one["case"]["M"] != 3]
    assert all(line == line.rstrip() for line in report.compat(lines).splitlines())


# --- a user's own scripts -----------------------------------------------------------------------------


def test_metric_table() -> None:
    page = report.markdown(HEADER, spoken({"old": [2.0] * 6, "new": [1.0, 1.02, 0.98, 1.0, 1.04, 0.96]}))
    (rows,) = table_rows(page)
    assert rows[0] == ["metric", "arm", "value [95 %]", "unit", "/ first arm [95 %]", "rounds"]
    assert rows[2] == ["step", "mlx old", "2.000 [2.000, 2.000]", "ms", "", "6"]
    assert rows[3] == ["step", "mlx new", "1.000 [0.960, 1.040]", "ms", "0.500 [0.480, 0.520]", "6"]
    assert "`error`" not in page.split("<details>")[0]


def test_metrics_in_seconds_are_shown_in_the_first_arms_unit() -> None:
    page = report.markdown(HEADER, spoken({"old": [2e-3] * 2, "new": [5e-4] * 2}, unit="s"))
    (rows,) = table_rows(page)
    assert rows[2][2:5] == ["2.000", "ms", ""] and rows[3][2:5] == ["0.5000", "ms", "0.2500"]


def test_metrics_are_compared_within_a_round() -> None:
    """The machine slows down threefold; that the new arm takes half as long is seen all the same."""
    old = [1.0, 1.2, 1.5, 1.9, 2.4, 3.0]
    (rows,) = table_rows(report.markdown(HEADER, spoken({"old": old, "new": [t / 2 for t in old]})))
    assert rows[3][4] == "0.5000 [0.5000, 0.5000]"


def test_metrics_of_any_sign_and_any_name() -> None:
    page = report.markdown(HEADER, spoken({"a": [-1.0, 0.0, 1.0]}, name="a | b\nc", unit="%|"))
    (rows,) = table_rows(page)
    assert rows[2] == ["a \\| b c", "mlx a", "0.000", "%\\|", "", "3"]


def test_metric_centre_is_geometric_where_it_can_be() -> None:
    (metric,) = metrics(spoken({"a": [1.0, 100.0]}))
    assert report.metric_centre(metric) == log_centre([1.0, 100.0])
    (metric,) = metrics(spoken({"a": [-1.0, 100.0]}))
    assert report.metric_centre(metric) == hodges_lehmann([-1.0, 100.0])


OWN_SCRIPT = copy.deepcopy(HEADER)
OWN_SCRIPT["plan"]["script"]["canonical"] = False


def exits(*codes: int) -> list[Line]:
    outcome = {0: "good", 1: "bad", 125: "skip", 134: "failed"}
    return [
        run_line("a", number, 0, outcome=outcome[code], exit_code=code)
        for number, code in enumerate(codes, 1)
    ]


def test_exit_codes() -> None:
    (rows,) = table_rows(report.markdown(OWN_SCRIPT, exits(0, 0, 1, 125, 134)))
    assert rows[0] == ["arm", "good", "bad", "cannot be tested", "failed", "exit codes"]
    assert rows[2] == ["mlx a", "2", "1", "1", "1", "0, 1, 125, 134"]
    assert report.exit_table(session_lines()) == "", "not for scripts that say more"
    assert report.markdown(HEADER, exits(134, 134)).startswith("Nothing was measured."), "nor for our own"


def test_exit_codes_of_discarded_rounds_do_not_count() -> None:
    lines = [*exits(0, 1), {"kind": "discard", "round": 2, "reason": "load"}]
    assert table_rows(report.exit_table(lines))[0][2][:3] == ["mlx a", "1", "0"]


# --- CSV ----------------------------------------------------------------------------------------------


def test_csv_reads_back_with_every_run() -> None:
    failure = run_line("0.31.2", 9, 0, outcome="failed", reason="killed, twice\nby 9")
    lines = [*session_lines(), failure]
    frame: Any = pandas.read_csv(io.StringIO(report.csv(lines)), dtype={"arm": str})
    runs = [line for line in lines if line["kind"] == "run"]
    assert len(frame) == sum(len(run["cases"]) for run in runs) + 1
    assert set(zip(frame["arm"], frame["round"], strict=True)) == {(r["arm"], r["round"]) for r in runs}
    discarded = frame[frame["discarded"].notna()]
    assert set(discarded["round"]) == {DISCARDED} and discarded["discarded"].iloc[0].startswith("throttled")
    failed = frame[frame["outcome"] == "failed"]
    assert failed["reason"].tolist() == ["killed, twice\nby 9"] and failed["time_s"].isna().all()
    times = [line["time_s"] for run in runs for line in run["cases"]]
    assert frame["time_s"].dropna().tolist() == times, "to the last bit"
    assert frame["marks"].dropna().unique().tolist() == ["nonlinear-chain"]


def test_csv_of_metrics() -> None:
    frame: Any = pandas.read_csv(io.StringIO(report.csv(spoken({"a": [0.1, -2.5]}))))
    assert frame["metric"].tolist() == ["step", "step"] and frame["value"].tolist() == [0.1, -2.5]


def test_csv_keeps_whole_numbers_whole() -> None:
    head, first, *_ = report.csv(session_lines()).splitlines()
    cell = dict(zip(head.split(","), first.split(","), strict=True))
    assert (cell["B"], cell["bits"], cell["group_size"]) == ("1", "4", "64")


# --- JSON ---------------------------------------------------------------------------------------------


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_json_is_strict_and_holds_the_numbers_of_the_tables() -> None:
    lines = session_lines()
    lines[3]["cases"][0]["error"]["relative"] = math.nan
    lines[4]["cases"][0]["floor_s"] = math.inf
    found = json.loads(report.as_json(HEADER, lines), parse_constant=refuse)
    assert found["schema"] == 1 and found["session"] == HEADER
    page = report.markdown(HEADER, session_lines())
    shown = [t for t in found["tables"] if not t["case"].get("control")]
    printed = table_rows(page)
    assert len(shown) == len(printed) == 4
    for as_data, as_text in zip(shown, printed, strict=True):
        for row, cell in zip(as_data["rows"], as_text[2:], strict=True):
            assert str(row["M"]) == cell[0]
            centre = float(cell[1].split(" [")[0])
            assert row["time_s"]["centre"] * 1e6 == pytest.approx(centre, abs=0.051)
            assert row["time_s"]["low"] <= row["time_s"]["centre"] <= row["time_s"]["high"]
            assert row["time_s"]["n"] == 7
            if cell[2]:
                assert row["step"]["centre"] == pytest.approx(float(cell[2].split(" [")[0]), abs=6e-5)
                assert row["over_one"]["centre"] == pytest.approx(float(cell[3]), abs=6e-4)
            assert ", ".join(row["notes"]) == cell[6]
    assert [line["kind"] for line in found["lines"]] == [line["kind"] for line in lines]
    assert "largest step M=2→3, +27.2 %" in shown[0]["summary"] and "**" not in shown[0]["summary"]
    controls = [t for t in found["tables"] if t["case"].get("control")]
    assert [t["summary"] for t in controls] == [None, None]


def test_json_of_metrics() -> None:
    found = json.loads(report.as_json(HEADER, spoken({"a": [1.0] * 6})), parse_constant=refuse)
    value = {"centre": 1.0, "low": 1.0, "high": 1.0, "n": 6}
    assert found["metrics"] == [{"arm": "a", "metric": "step", "unit": "ms", "value": value}]
