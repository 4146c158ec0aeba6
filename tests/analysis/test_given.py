"""Tables as people paste them, and what is wrong with some."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bisect_tool.analysis.given import Series, Unreadable, read

DATA = Path(__file__).parents[1] / "data" / "published_series.json"
MODEL = [68.0, 69.3, 93.8, 121.9, 150.2, 179.3]


def one(text: str, unit: str | None = None) -> Series:
    (found,) = read(text, unit=unit)
    return found


def times(series: Series) -> list[float]:
    return [p.time for p in series.points]


MARKDOWN = """Whole-model forward, after 512 tokens:

> | M | time (ms) | ratio to M=1 |
> |---|----------:|:------------:|
> | 1 | 68.0 | 1.00x |
> | 2 | 69.3 | 1.02x |
> | **3** | **93.8** | **1.38x** |
> | 4 | 121.9 | 1.79x |
> | 5 | 150.2 | 2.21x |
> | 6 | 179.3 | 2.64x |
"""


def test_a_table_pasted_from_an_issue() -> None:
    found = one(MARKDOWN)
    assert times(found) == pytest.approx([t / 1e3 for t in MODEL])
    assert (found.unit, found.label, [p.M for p in found.points]) == ("s", "time (ms)", [1, 2, 3, 4, 5, 6])
    assert found.assumed_noise and {p.noise for p in found.points} == {0.02}


@pytest.mark.parametrize(
    "text",
    [
        "M,ms\n1,68.0\n2,69.3\n3,93.8\n4,121.9\n5,150.2\n6,179.3\n",
        "M;time;other\n1;68.0 ms;1x\n2;69.3 ms;1x\n3;93.8 ms;1x\n4;121.9 ms;1x\n5;150.2 ms;1x\n6;179.3 ms;1x",
        json.dumps({"M": [1, 2, 3, 4, 5, 6], "y": MODEL, "unit": "ms"}),
        json.dumps({"M": [1, 2, 3, 4, 5, 6], "ms": MODEL}),
        json.dumps([{"id": "a", "M": [6, 5, 4, 3, 2, 1], "ms": MODEL[::-1]}]),
        "a model: M=1=68.0ms  M=2=69.3ms  M=3=93.8ms  M=4=121.9ms  M=5=150.2ms  M=6=179.3ms (M3/M1=1.38x)",
        "| shape | M=1 | M=2 | M=3 | M=4 | M=5 | M=6 |\n|---|---|---|---|---|---|---|\n"
        "| model | 68.0 ms | 69.3 ms | 93.8 ms | 121.9 ms | 150.2 ms | 179.3 ms |",
    ],
)
def test_ways_to_write_it(text: str) -> None:
    found = one(text)
    assert times(found) == pytest.approx([t / 1e3 for t in MODEL]) and found.unit == "s"


def test_a_unit_for_numbers_without_one() -> None:
    bare = json.dumps({str(M): t for M, t in zip(range(1, 7), MODEL, strict=True)})
    assert one(bare).unit == "ratio", "a scale that nobody knows"
    assert times(one(bare, "ms")) == pytest.approx([t / 1e3 for t in MODEL])
    with pytest.raises(Unreadable, match="'h' is none of s, ms, us, ns, ratio"):
        one(bare, "h")


def test_ratios_alone_are_a_series_up_to_scale() -> None:
    found = one("| M | M / M=1 |\n|---|---|\n| 1 | 1.00x |\n| 2 | 1.02x |\n| 3 | 1.38x |\n| 4 | 1.79x |")
    assert found.unit == "ratio" and times(found) == [1.0, 1.02, 1.38, 1.79]


def test_intervals_give_the_noise() -> None:
    rows = "".join(f"| {M} | {M * 10:.1f} [{M * 9.8:.2f}, {M * 10.2:.2f}] | 1.0 |\n" for M in range(1, 5))
    found = one("| M | µs [95 %] | GB/s |\n|---|---|---|\n" + rows)
    assert {round(p.noise, 4) for p in found.points} == {0.0102} and not found.assumed_noise
    assert times(found) == pytest.approx([1e-5, 2e-5, 3e-5, 4e-5])


def test_several_columns_and_shapes() -> None:
    head = "| M | 5120 → 13824 (µs) | 13824x5120 (µs) |\n|---|---|---|\n"
    found = read(head + "".join(f"| {M} | {M} | {2 * M} |\n" for M in range(1, 5)))
    assert [(s.K, s.N) for s in found] == [(5120, 13824), (13824, 5120)]
    assert times(found[1])[3] == pytest.approx(8e-6)


def test_our_own_csv_of_runs() -> None:
    head = "arm,round,discarded,op,K,N,bits,group_size,quant,dtype,timing,cache,M,time_s\n"
    rows = []
    for M in range(1, 5):
        for number in range(1, 6):
            for timing in ("chain", "percall"):
                seconds = M * 1e-5 * (1 + number / 1000) + (1e-4 if timing == "percall" else 0)
                rows.append(
                    f"a,{number},,quantized_matmul,512,256,4,64,affine,float16,{timing},hot,{M},{seconds}"
                )
        rows.append(f"a,9,throttled,quantized_matmul,512,256,4,64,affine,float16,chain,hot,{M},99")
        rows.append(f"a,1,,matmul,512,256,,,,float16,chain,hot,{M},98")
    found = read(head + "\n".join(rows))
    assert [(s.timing, s.K, s.N, s.bits) for s in found] == [("chain", 512, 256, 4), ("percall", 512, 256, 4)]
    assert times(found[0])[3] == pytest.approx(4e-5 * 1.003), "the median of the rounds that count"
    assert found[0].points[0].noise == 0.01, "no better than the way of timing"


def test_the_published_file() -> None:
    found = {s.label: s for s in read(DATA.read_text(encoding="utf-8"))}
    assert len(found) == 14
    assert [s.kernel for s in found["3863-main"].segments] == ["qmv_fast", "qmv_wide", "qmm_t"]
    assert found["2031-mistral-pre"].segments == (), "a note about kernels in free text"
    assert (found["3553-up"].group_size, found["3553-up"].bits) == (64, 4)


OK = "1,1\n2,2\n3,3\n4,4\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("M,ms\n1,1\n2,2\n3,3\n", "3 points; a law needs at least four"),
        ("M,ms\n" + OK + "4,5\n", "M=4 is there twice"),
        ("M,ms\n" + OK + "5,0\n", "the time at M=5 is 0, not above 0"),
        ("M,ms\n" + OK + "5,-3\n", "not above 0"),
        ("M,ms\n" + OK + "5.5,5\n", "M is 5.5, which is no whole number"),
        ("M,ms\n" + OK + "many,5\n", "M is 'many', which is no number"),
        ("M,ms\n" + OK + "0,5\n", "M=0, which is no number of rows"),
        ("M,ms\n" + OK + "5,fast\n", "'fast' in the column 'ms' is no number"),
        ("M,time\n1,1 ms\n2,2 µs\n3,3 ms\n4,4 ms\n", "mixes units: ms and µs"),
        ("M,time\n1,1 ms\n2,2\n3,3 ms\n4,4 ms\n", "mixes units: ms and none"),
        ("M,time (µs)\n1,1 ms\n2,2 ms\n3,3 ms\n4,4 ms\n", "says µs, its cells ms"),
        (OK, "no header"),
        ("| M | ms |\n|---|---|\n", "a header and no rows"),
        ("n,ms\n" + OK, "no column is named M"),
        ("M,note\n1,a\n2,b\n3,c\n4,d\n", "no column beside M holds times"),
        ("M,ms\n1,1\n2,2,2\n", "a row has 3 cells where the header has 2"),
        ("{broken", "begins like JSON"),
        ('{"M": [1, 2], "y": [1]}', "no lists of one length"),
        ('{"M": [1, 2, 3, 4], "y": [1, 2, 3, "4"]}', "a time that is no number"),
        ('{"M": [1, 2, 3, 4], "y": [1, 2, 3, 4], "unit": "h"}', "'h' is none of"),
        ('{"M": [1, 2, 3, 4], "y": [1, 2, 3, 4], "ms": [1, 2, 3, 4]}', "several columns of times"),
        ('{"times": [1]}', "has no M"),
        ("[3]", "no object with M"),
        ("M=1=1ms M=2=2us M=3=3ms M=4=4ms", "mixes the units ms and us"),
        ("M,time_s\n1,1\n1,2\n2,2\n", "no column says which run"),
        ("nothing of the kind", "no rows"),
    ],
)
def test_what_cannot_be_used(text: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why.replace("(", r"\(")):
        read(text)


def test_noise_that_is_named_counts() -> None:
    (found,) = read("M,ms\n" + OK, noise=0.005)
    assert {p.noise for p in found.points} == {0.005} and not found.assumed_noise
