from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from a_comparison import ARMS, golden_texts, header, lines
from a_session import Line
from test_report import spoken, table_rows

from bisect_tool.analysis.verdicts import Kind, Verdict
from bisect_tool.reporting import compare_report
from bisect_tool.reporting.compare_table import COLUMNS, View, verdict

GOLDEN = Path(__file__).with_name("golden")


@pytest.mark.parametrize("name", sorted(golden_texts()))
def test_golden(name: str) -> None:
    """`python tests/reporting/a_comparison.py` writes them again."""
    assert golden_texts()[name] + "\n" == (GOLDEN / name).read_text(encoding="utf-8")


def printed(
    arms: tuple[str, ...] = ARMS, found: list[Line] | None = None, **view: Any
) -> compare_report.Printed:
    return compare_report.markdown(header(arms, **view), lines() if found is None else found)


def renamed(count: int) -> tuple[tuple[str, ...], list[Line]]:
    """The same session with more arms: copies of the second."""
    arms = ("0.31.2", *(f"arm-{i}" for i in range(count)))
    found: list[Line] = []
    for line in lines(("0.31.2", "0.32.4")):
        if line.get("arm") == "0.32.4":
            found += [{**line, "arm": arm} for arm in arms[1:]]
        elif line.get("arm") in (None, "0.31.2"):
            found.append(line)
    return arms, found


# --- layout --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
def test_no_table_is_wider_than_seven(count: int) -> None:
    arms, found = renamed(count)
    text = printed(arms, found).text
    tables = table_rows(text)
    assert tables and all(len(row) <= COLUMNS for table in tables for row in table)
    assert {len(row) for row in tables[0]} == {len(tables[0][0])}, "all rows of a table are as wide"
    assert all(f"arm-{i}" in text for i in range(count))
    assert len(tables) == (2 if count <= 4 else 2 * count), "apart where they do not fit side by side"


def test_split() -> None:
    tables = table_rows(printed(split=True).text)
    assert len(tables) == 4
    assert [table[0][2].split()[0] for table in tables] == ["0.32.4", "0.32.4", "fused", "fused"]


def test_the_baseline_again_has_tables_of_its_own() -> None:
    arms, found = renamed(2)
    head = header(arms)
    head["plan"]["compare"]["again"] = "arm-1"
    text = compare_report.markdown(head, found).text
    tables = table_rows(text)
    assert [table[0][2].split()[0] for table in tables] == ["arm-0", "arm-0", "arm-1", "arm-1"]
    # It differs, as arm-0 does: then nothing is believed.
    assert "gets no verdict of speed: the baseline against itself differs by -" in text
    assert "smallest difference that can be seen here with so many rounds: " in text
    assert "AMBIGUOUS (contaminated)" in text


def test_only_changed() -> None:
    text = printed(("0.31.2", "0.32.4"), only_changed=True).text
    names = [[row[0] for row in table[2:]] for table in table_rows(text)]
    assert names == [["3", "4", "control"], ["4", "control"]]
    assert "5 of 8 rows show no change and are left out" in text
    # A row of several arms stays for any of them.
    several = table_rows(printed(only_changed=True).text)
    assert [row[0] for row in several[0][2:]] == ["2", "3", "4", "control"]


def test_nothing_changed() -> None:
    same = [{**line, "arm": "0.31.2"} for line in lines(("0.31.2",)) if line["kind"] == "run"]
    twice = [copy for line in same for copy in (line, {**line, "arm": "b"})]
    text = printed(("0.31.2", "b"), twice, only_changed=True).text
    assert "no row shows a change" in text and "|" not in text.split("<details>")[0]


def test_the_maintainers_layout() -> None:
    text = printed(layout="upstream").text
    tables = table_rows(text)
    assert len(tables) == 2 and tables[0][0] == ["M", "N", "K", "Pre (ms)", "Post (ms)", "Speed Up"]
    assert ["4", "13824", "5120", "0.4249", "0.3011", "1.41x"] in tables[0]
    assert "0.31.2 → fused; affine 4-bit" in text and "`error`" not in text


def test_a_view_can_be_changed_when_it_is_printed_again() -> None:
    head = header(("0.31.2", "0.32.4"), layout="upstream", split=True)
    assert View.of(head) == View("upstream", split=True)
    assert View.of(head, {"layout": "default", "geomean": True, "split": None}) == View(
        "default", split=True, geomean=True
    )


# --- size ----------------------------------------------------------------------------------------------


def crossed(times: int) -> list[Line]:
    """So many tables more: the same cells under other bits."""
    found = lines(("0.31.2", "0.32.4"))
    for line in found:
        if line["kind"] == "run":
            shapes = [case for case in line["cases"] if not case["case"].get("control")]
            for i in range(times):
                line["cases"] += [{**c, "case": {**c["case"], "bits": 5 + i}} for c in shapes]
    return found


def test_many_tables_go_under_a_fold() -> None:
    text = printed(("0.31.2", "0.32.4"), crossed(4)).text
    tables = table_rows(text)
    assert len(tables) == 10
    # The smaller shape comes last, and of it the most bits.
    assert text.index("<summary>4 more tables</summary>") < text.rindex("affine 8-bit, group")
    assert text.count("<details>") == text.count("</details>") == 2


def test_what_does_not_fit_is_kept_apart() -> None:
    result = printed(("0.31.2", "0.32.4"), crossed(60))
    assert len(result.text) <= compare_report.LIMIT
    shown, rest = table_rows(result.text), table_rows(result.rest)
    assert len(shown) + len(rest) == 2 * 61 and len(rest) > 20
    assert f"{len(rest)} more tables: file tables-20261126-101500-beef.md" in result.text
    assert "environment and command" in result.text and result.text.startswith("- **0.32.4**")


# --- what it says --------------------------------------------------------------------------------------


def test_bars_and_mentions_are_escaped() -> None:
    found = [
        {**line, "arm": "@2026-03-01"} if line.get("arm") == "0.32.4" else line
        for line in lines(("0.31.2", "0.32.4"))
    ]
    text = printed(("0.31.2", "@2026-03-01"), found).text
    assert "**`@2026-03-01`** against **0.31.2**" in text and "`@2026-03-01` µs" in text
    spelled = spoken({"a|b": [1.0] * 8, "c": [2.0] * 8}, name="x|y", unit="s")
    head = header(("a|b", "c"))
    head["plan"]["compare"]["baseline"] = "a|b"
    (table,) = table_rows(compare_report.markdown(head, spelled).text)
    assert table[2][0] == r"x\|y" and all(len(row) == 5 for row in table)


def test_metrics_keep_their_units_and_their_sense() -> None:
    noise = [1 + i * 1e-4 for i in range(10)]
    found = spoken({"a": [40 * v for v in noise], "b": [50 * v for v in noise]}, name="bw", unit="GB/s")
    head = header(("a", "b"))
    head["plan"]["compare"]["baseline"] = "a"
    text = compare_report.markdown(head, found).text
    (table,) = table_rows(text)
    assert table[2][1].endswith("GB/s") and table[2][3].startswith("1.25") and table[2][4] == "FASTER"
    assert "1 FASTER (+25.0 % at bw)" in text
    assert "no control was measured; a script names one of its metrics with --control" in text


def test_a_host_that_was_never_steady() -> None:
    found = [*lines(), *({"kind": "unsteady", "round": n, "reason": "load"} for n in range(1, 7))]
    text = printed(found=found).text
    assert "**this machine was never steady**: 6 of 10 rounds count although" in text
    assert "never steady" not in printed(found=found[:-3]).text


def test_without_controls() -> None:
    head = header(ARMS)
    head["plan"]["compare"]["controlled"] = False
    assert "controls do not count here, as asked for" in compare_report.markdown(head, lines()).text


def test_a_missing_arm_says_why_without_a_path() -> None:
    text = printed((*ARMS, "broken")).text
    assert "broken is missing: broken (3ca86b41f) does not compile: `editions` was not declared\n" in text
    assert "/x/y.log" not in text


def test_nothing_measured() -> None:
    text = printed(found=[]).text
    assert text.startswith("- **0.32.4** against **0.31.2**: nothing was measured")


@pytest.mark.parametrize(
    ("said", "cell"),
    [
        (Verdict(Kind.FASTER, "x"), "FASTER"),
        (Verdict(Kind.AMBIGUOUS, "x", "about 4 more rounds", 4), "AMBIGUOUS (about 4 more rounds)"),
        (Verdict(Kind.WRONG, "NaN", "NaN"), "WRONG (NaN)"),
        (Verdict(Kind.SAME, "x", "steady"), "steady"),
    ],
)
def test_verdict_cells(said: Verdict, cell: str) -> None:
    assert verdict(said, "does not compile") == cell
    missing = Verdict(Kind.MISSING, "not measured in b", "not measured in b")
    assert verdict(missing) == "– (not measured in b)"
    assert verdict(missing, "does not compile") == "– (does not compile)"


# --- data ----------------------------------------------------------------------------------------------


def test_json_has_every_verdict_with_its_reason() -> None:
    said = json.loads(compare_report.as_json(header(), lines()))
    assert (said["baseline"], said["changed"], said["decided"]) == ("0.31.2", True, True)
    assert said["failed"] == {"broken": "does not compile"} and said["same"] == {"twin": "0.31.2"}
    rows = {(t["case"]["N"], r["M"]): r for t in said["tables"] for r in t["rows"]}
    four = rows[13824, 4]["arms"]["0.32.4"]
    assert four["verdict"] == "FASTER" and four["ratio"]["n"] == 10 and four["p"] < 0.01
    assert four["reason"].startswith("-29.1 %, p = ") and four["differs"] == pytest.approx(4 / 1024)
    wrong = rows[13824, 2]["arms"]["fused"]
    assert (wrong["verdict"], wrong["reason"], wrong["error"]) == ("WRONG", "NaN", None)
    assert rows[5120, 1]["arms"]["broken"]["verdict"] == "MISSING"
    assert said["tables"][0]["control"]["arms"]["fused"]["verdict"] == "SAME"
    assert said["summary"][0].startswith("0.32.4 against 0.31.2: 3 FASTER")
