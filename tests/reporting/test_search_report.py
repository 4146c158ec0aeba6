"""What a search prints, from its lines alone."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from a_search import HEADER, position, search_of

from bisect_tool.reporting import search_report


def steps(*at: tuple[int, float]) -> Any:
    """The value of a run: 10 ms, times each size from its position on; 1 % of noise."""
    rng = random.Random(5)

    def value(where: int, _round: int) -> float:
        size = 1.0
        for position_, factor in at:
            size *= factor if where >= position_ else 1.0
        return 0.01 * size * (1 + rng.gauss(0, 0.01))

    return value


def test_one_step() -> None:
    lines = search_of(20, steps((13, 1.5)))
    text = search_report.markdown(HEADER, lines)
    label = position(13)["label"]
    assert text.startswith(f"**{label} (#113) made the difference: +")
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {label}")]
    cells = [cell.strip() for cell in row.replace("\\|", "/").split("|")[1:-1]]
    assert cells[1:3] == ["2023-11-27", "Change 13 / more (#113)"]
    assert float(cells[4]) == pytest.approx(10, rel=0.02) and float(cells[5]) == pytest.approx(15, rel=0.02)
    assert cells[6].startswith("+") and "[" in cells[6] and cells[7].endswith(" %")
    assert "before ms" in text and "**Steps of spin**" in text
    before, after = position(12)["sha"], position(13)["sha"]
    assert f"https://github.com/ml-explore/mlx/compare/{before[:12]}...{after[:12]}" in text
    again = f"bisect_tool compare {before[:9]} {after[:9]} --script spin.py --backend cpu -- 7"
    assert again in text and search_report.reproduce(HEADER, lines) == again
    assert "40 commits after" in text and "of which 20 differ" in text
    assert "- b comes before a: swapped" in text and "environment and command" in text


def test_two_steps_and_their_shares() -> None:
    text = search_report.markdown(HEADER, search_of(40, steps((11, 1.2), (30, 1.6))))
    rows = [line for line in text.splitlines() if line.startswith("| ") and "Change" in line]
    assert [row.split()[1] for row in rows] == [position(11)["label"], position(30)["label"]]
    shares = [int(row.split("|")[-2].replace("%", "")) for row in rows]
    assert shares[0] < 40 < 60 < shares[1] and "1 more step beside it" in text
    assert "the steps together explain" in text


def test_no_step_has_no_table() -> None:
    text = search_report.markdown(HEADER, search_of(20, steps()))
    assert text.startswith("**no step: the ends differ by ") and "| commit" not in text
    assert search_report.reproduce(HEADER, search_of(20, steps())) == ""


def test_what_could_not_be_tested_is_named() -> None:
    text = search_report.markdown(HEADER, search_of(12, steps((6, 1.5)), untestable={5, 6}))
    assert text.startswith(f"**the step lies between {position(4)['label']} and {position(7)['label']}")
    assert f"could not be tested: {position(5)['label']} (#105): does not compile" in text
    assert "(cannot be told apart)" in text


def test_pass_and_fail_count_in_points() -> None:
    text = search_report.markdown(HEADER, search_of(12, lambda at, _: float(at >= 4), mode="passfail"))
    assert "made the difference: +100 points of failures" in text
    assert f"bisect_tool repro {position(3)['label']} {position(4)['label']} " in text


def test_a_budget_that_ended_it() -> None:
    lines = search_of(40, steps((30, 1.5)))
    cut = next(i for i, line in enumerate(lines) if line["kind"] == "run" and line["round"] == 14)
    spent = [*lines[:cut], {"kind": "exhausted", "why": "the budget of 60 s is spent"}]
    text = search_report.markdown(HEADER, [*spent, {"kind": "end", "reason": "no more can be told"}])
    assert "the budget of 60 s is spent, and there is no answer yet; " in text
    assert "**Where the step may be**, together 95 %" in text


def test_a_search_that_goes_on() -> None:
    lines = search_of(20, steps((13, 1.5)))
    for cut in (1, 4, 9, len(lines) // 2):
        text = search_report.markdown(HEADER, lines[:cut])
        assert text.startswith("The search has not come to its end") and "not finished" in text


def test_a_verdict_of_its_own() -> None:
    lines = [
        *search_of(6, steps((3, 1.5)))[:-1],
        {"kind": "end", "reason": "no fix: it rises", "verdict": "other"},
    ]
    assert search_report.markdown(HEADER, lines).startswith("**no fix: it rises**")


def test_as_data() -> None:
    said = json.loads(search_report.as_json(HEADER, search_of(20, steps((13, 1.5)))))
    (stage,) = said["stages"]
    (step,) = stage["steps"]
    assert (step["before"]["label"], step["after"]["label"]) == (position(12)["label"], position(13)["label"])
    assert stage["outcomes"][0]["outcome"] == "Culprit" and step["change"]["low"] > 0.3
    assert step["share"][1] < step["share"][0] < step["share"][2]


def test_a_repository_elsewhere_has_no_page() -> None:
    text = search_report.markdown({**HEADER, "repository": "/home/me/mlx"}, search_of(6, steps((3, 1.5))))
    assert "/compare/" not in text


def test_the_rows_that_the_metric_needs_are_measured_again() -> None:
    def again(*words: str) -> str:
        return search_report.reproduce({**HEADER, "command": ["bisect", "v1..v2", *words]}, LINES)

    assert again().endswith("--rows 1,3")
    assert again("--metric", "M=5/M=2", "--bits", "8").endswith("--rows 2,5 --bits 8")


LINES = search_of(6, steps((3, 1.5)))
