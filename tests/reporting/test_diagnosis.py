"""Diagnoses in print: markdown, JSON, and the three kinds of picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from a_session import lines as session_lines
from test_text import cells

from bisect_tool.analysis import given
from bisect_tool.analysis.laws import Point
from bisect_tool.analysis.subjects import Subject, from_session, from_table, together
from bisect_tool.reporting import curve, diagnosis
from bisect_tool.reporting.diagnosis import Pair

DATA = Path(__file__).parents[1] / "data" / "published_series.json"


def pair(name: str) -> Pair:
    subject = next(from_table(s) for s in given.read(DATA.read_text(encoding="utf-8")) if s.label == name)
    return subject, subject.diagnosis()


@pytest.fixture(scope="module")
def model() -> Pair:
    return pair("3553-model")


@pytest.fixture(scope="module")
def segmented() -> Pair:
    return pair("3863-main")


def tables(text: str) -> list[list[list[str]]]:
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    return [[cells(line) for line in block if "---" not in line] for block in blocks]


def test_verdict_first_then_laws_then_predicted(model: Pair) -> None:
    text = diagnosis.markdown([model])
    assert text.splitlines()[0] == "- **3553-model**: bandwidth to arithmetic at M ≈ 2.1 [1.9, 2.3]"
    laws, rows = tables(text)
    assert laws[0] == ["law", "fitted [95 %]", "error (rms)", "adequate", "χ²+2k"]
    assert [row[0] for row in laws[1:]] == ["roofline", "linear, without M=1", "staircase, without M=3",
                                            "constant, without M=6"]  # fmt: skip
    assert laws[1][1].startswith("8.04 + 28.5·max(2.13 [1.88, 2.28], M) ms") and laws[1][3:] == ["yes", "0"]
    assert rows[0] == ["M", "measured ms", "best law", "off by", "of arithmetic"]
    assert [row[0] for row in rows[1:]] == list("123456") and rows[1][1] == "68.00"
    assert "floor: 12 % of the time at M=1, 4 % at M=6" in text
    assert "noise assumed, 2%" in text


def test_segments_each_with_their_own(segmented: Pair) -> None:
    text = diagnosis.markdown([segmented])
    first = text.splitlines()[0]
    assert "another kernel from M = 2 (qmv_wide) and M = 10 (qmm_t)" in first
    assert "M = 1: one point; M = 2–9: bandwidth to arithmetic at M ≈ 3.2 rows of a tile [" in first
    assert "M ≥ 10: whole tiles of 32 rows, each paid in full" in first
    assert len(tables(text)) == 3 and len(tables(text)[2]) == 15
    assert "tiles·max(3.2" in text


def test_open_questions_say_what_would_decide() -> None:
    text = diagnosis.markdown([pair("3553-kv")])
    assert "- would decide: `--timing chain`, which takes the floor off" in text
    assert "- would decide: `--experiment k-sweep`: what part" in text
    assert "would decide: `--experiment" in diagnosis.markdown([pair("3553-qo")])


def test_arms_are_named_where_there_are_several() -> None:
    subjects = from_session(session_lines())
    text = diagnosis.markdown([(s, s.diagnosis()) for s in subjects])
    assert text.startswith("- mlx 0.31.2, **5120 → 13824**: bandwidth to arithmetic at M ≈")
    assert "weights are read at" in text and "TFLOP/s" in text


def test_limits_by_copy_and_slope() -> None:
    points = tuple(Point(M, 25e-6 * max(4, M), 0.02) for M in range(1, 9))
    series = given.Series("1000 → 2000", points, "s", K=1000, N=2000, bits=4, group_size=64)
    subject = from_table(series, copy=45e9)
    text = diagnosis.markdown([(subject, subject.diagnosis())])
    head, one, *_, last = tables(text)[1]
    assert head[4:] == ["of bandwidth", "of arithmetic"]
    assert one[4:] == ["25 %", "25 %"], "1.125 MB at 45 GB/s is 25 µs of 100"
    assert last[4:] == ["12 %", "100 %"]
    assert "weights are read at 11.2 GB/s (25 % of a copy's 45) where it is flat" in text
    assert "each further row runs at 160 GFLOP/s" in text


def test_as_json_has_the_same(model: Pair, segmented: Pair) -> None:
    data = json.loads(diagnosis.as_json([model, segmented]))
    one, two = data["curves"]
    assert (one["verdict"], one["answers"][0]["laws"][0]["law"]) == ("roofline", "roofline")
    assert one["answers"][0]["laws"][0]["shape"] == pytest.approx(2.13, abs=0.01)
    assert [a["segment"]["kernel"] for a in two["answers"]] == ["qmv_fast", "qmv_wide", "qmm_t"]
    assert one["answers"][0]["points"][5]["time"] == pytest.approx(0.1793)
    assert "NaN" not in json.dumps(data)


def test_shapes_together_come_last() -> None:
    subjects: list[Subject] = []
    for K, N in ((512, 512), (512, 1024)):
        points = tuple(Point(M, 1e-5 + K * N * 1e-11 * max(3, M), 0.02) for M in range(1, 9))
        subjects.append(from_table(given.Series(f"{K} → {N}", points, "s", K=K, N=N)))
    whole = together(subjects)
    assert whole is not None
    text = diagnosis.markdown([(s, s.diagnosis()) for s in subjects], (whole, whole.diagnosis()))
    assert "- **all shapes together**: bandwidth to arithmetic at M ≈ 3.0" in text
    assert len(tables(text)) == 5


# --- pictures ----------------------------------------------------------------------------------------


def test_a_png(model: Pair, segmented: Pair) -> None:
    data = curve.picture([model, segmented], "png")
    assert data.startswith(b"\x89PNG") and len(data) > 20_000
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert width > 1.8 * height, "two panels side by side"


def test_an_svg_is_the_same_every_time(model: Pair) -> None:
    data = curve.picture([model], "svg")
    assert data == curve.picture([model], "svg")
    ET.fromstring(data.decode())
    assert b"Date" not in data and b"date>" not in data


def test_mermaid(model: Pair, segmented: Pair) -> None:
    lines = curve.mermaid(*model).splitlines()
    assert lines[:2] == ["```mermaid", "xychart-beta"] and lines[-1] == "```"
    assert lines[3] == '  x-axis "rows M" ["1", "2", "3", "4", "5", "6"]'
    assert lines[5] == "  bar [68, 69.3, 93.8, 121.9, 150.2, 179.3]"
    fitted = [float(x) for x in lines[6].removeprefix("  line [").removesuffix("]").split(", ")]
    assert fitted == pytest.approx([68.6, 68.6, 93.5, 122, 150.5, 179], rel=0.02)
    bars, line = curve.mermaid(*segmented).splitlines()[5:7]
    assert bars.count(",") == line.count(",") == 13, "a point without a law stands for itself"


def test_in_text(model: Pair) -> None:
    text = curve.terminal(*model)
    lines = text.splitlines()
    assert lines[0].startswith("3553-model, ms against rows M")
    assert sum(line.count("●") + line.count("◉") for line in lines[1:]) == 6
    assert lines[-1].split() == list("123456")
    assert max(map(len, lines[1:])) <= 80
    assert lines[1].rstrip().endswith(("·", "◉", "●")) or lines[2].rstrip().endswith(("·", "◉", "●"))
