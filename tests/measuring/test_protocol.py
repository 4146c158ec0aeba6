"""What a script's lines mean, however they are cut, and whatever nonsense is among them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisect_tool.measuring import protocol
from bisect_tool.measuring.protocol import Reader, Transcript, outcome_of_exit

CASE: dict[str, Any] = {
    "kind": "case",
    "case": {
        "op": "quantized_matmul", "K": 64, "N": 32, "B": 1, "M": 3, "bits": 4, "group_size": 64,
        "quant": "affine", "dtype": "float16", "cache": "hot", "timing": "chain",
    },
    "time_s": 1e-4, "bytes": 4096, "samples_s": [1e-4], "warm_up": {"seconds": 0.1, "ops": 3},
    "error": {"relative": 1e-3},
}  # fmt: skip
HOST = {"kind": "host", "protocol": 1, "mlx": "0.32.4", "module": "/e/mlx/core.so", "libraries": []}
SENTINEL = {"kind": "sentinel", "when": "before", "arithmetic_s": 1e-3, "bandwidth_s": 1e-3}
UNSUPPORTED = {
    "kind": "unsupported",
    "case": {"quant": "affine", "bits": 5, "dtype": "float16"},
    "reason": "no",
}


def read(*chunks: bytes, only_json: bool = False) -> Transcript:
    reader = Reader(only_json=only_json)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.close()


def said(*lines: object, only_json: bool = True) -> Transcript:
    return read("".join(json.dumps(line) + "\n" for line in lines).encode(), only_json=only_json)


def without(line: dict[str, Any], *path: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(line))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return copy


def test_a_whole_run() -> None:
    after = {**SENTINEL, "when": "after"}
    t = said(HOST, SENTINEL, CASE, UNSUPPORTED, after, {"kind": "end", "drift": {"change": 0.01}})
    assert t.problem == ""
    assert t.host == HOST and t.cases == [CASE] and t.unsupported == [UNSUPPORTED]
    assert t.sentinels == {"before": SENTINEL, "after": after}
    assert t.end == {"kind": "end", "drift": {"change": 0.01}}


@given(st.integers(1, 40), st.booleans())
def test_how_the_bytes_are_cut_does_not_matter(size: int, only_json: bool) -> None:
    text = "".join(
        json.dumps(line) + "\n" for line in (HOST, CASE, {"metric": "naïve µs", "value": 1.5})
    ).encode()
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    assert read(*chunks, only_json=only_json) == read(text, only_json=only_json)
    assert read(text).metrics == [{"metric": "naïve µs", "value": 1.5}]


def test_other_output_of_a_script_is_its_own() -> None:
    text = b'hello\n{\'a\': 1}\n[1, 2]\n{not json}\n\xff\xfe\n{"another": "object"}\n\nno end'
    assert read(text) == Transcript()


def test_on_the_descriptor_every_line_is_an_object() -> None:
    assert "not JSON: 'hello'" in read(b"hello\n", only_json=True).problem


@pytest.mark.parametrize("only_json", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        b'{"metric": "time", "val',
        b'{"metric": "time", "value": 1.25',
        b'{"metric": "a", "value": 1}\n{"kind":',
    ],
)
def test_half_a_line_at_the_end(text: bytes, only_json: bool) -> None:
    assert read(text, only_json=only_json).problem.startswith("printed half a line: '{")


def test_last_line_needs_no_newline_when_it_is_whole() -> None:
    t = read(b'{"metric": "a", "value": 1}')
    assert (t.problem, t.metrics) == ("", [{"metric": "a", "value": 1}])


def test_broken_metric_in_the_middle_is_not_overlooked() -> None:
    t = read(b'{"metric": "a", "value": 1\n{"metric": "b", "value": 2}\n')
    assert "not JSON" in t.problem


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, "null", '"1"', "true", "[1]"]
)
def test_metric_that_is_no_finite_number(value: str) -> None:
    t = read(f'{{"metric": "time", "value": {value}}}\n'.encode())
    assert t.problem.startswith("printed metric 'time' with the value ")
    assert len(t.problem) < 200
    assert t.metrics == [], "nothing is kept that cannot be computed with"


def test_metric_without_value_or_name() -> None:
    assert "with the value None" in said({"metric": "time"}).problem
    assert "metric 5" in said({"metric": 5, "value": 1}).problem


def test_depth_and_length_of_a_line_do_no_harm() -> None:
    assert "not JSON" in read(b'{"metric":' + b"[" * 100_000 + b"\n").problem
    long = b"{" + b"x" * (protocol.MAX_LINE + 10)
    t = read(long, b'{"metric": "a", "value": 1}', b"\n", b'{"metric": "b", "value": 1}\n')
    assert t.problem == "printed a line without an end"
    assert [m["metric"] for m in t.metrics] == ["b"], "the middle of a line is no line"
    assert read(b"." * (protocol.MAX_LINE + 10)).problem == "", "a progress bar is not of the protocol"


def test_first_problem_is_the_one_told() -> None:
    t = said({"metric": "a", "value": None}, {"metric": "b", "value": None}, {"metric": "c", "value": 1})
    assert "'a'" in t.problem and [m["metric"] for m in t.metrics] == ["c"]


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_protocol(version: object) -> None:
    assert "where this tool speaks 1" in said({**HOST, "protocol": version}).problem


@pytest.mark.parametrize("seconds", [0, -1e-3, None, "1", math.nan, math.inf])
def test_case_without_a_time(seconds: object) -> None:
    t = said({**CASE, "time_s": seconds})
    assert t.problem.startswith("printed a case whose time_s is") and t.cases == []


@pytest.mark.parametrize(
    "path",
    [
        ("case",), ("case", "K"), ("case", "N"), ("case", "M"), ("case", "bits"), ("case", "group_size"),
        ("case", "dtype"), ("case", "timing"), ("case", "cache"), ("bytes",), ("samples_s",), ("warm_up",),
        ("warm_up", "ops"), ("error", "relative"),
    ],
)  # fmt: skip
def test_case_that_lacks_what_a_table_needs(path: tuple[str, ...]) -> None:
    """Whatever passes is computed with later, far from where the script could be blamed."""
    t = said(without(CASE, *path))
    assert t.problem.startswith("printed a case whose ") and t.cases == []


def test_wrong_result_is_a_result() -> None:
    assert said({**CASE, "error": {"relative": math.nan}}).problem == ""


def test_results_that_can_be_compared() -> None:
    output = {"inputs": "a1", "bits": "b2", "values": [1.0, math.nan]}
    assert said({**CASE, "output": output}).problem == "", "NaN is a result"
    for wrong in (5, {}, without(output, "bits"), {**output, "inputs": 3}, {**output, "values": [None]}):
        t = said({**CASE, "output": wrong})
        assert t.problem.startswith("printed a case whose output is") and t.cases == []


def test_case_that_cannot_be_a_key() -> None:
    assert "whose case is" in said({**CASE, "case": {**CASE["case"], "shape": [1, 2]}}).problem


@pytest.mark.parametrize(
    "line",
    [
        {**SENTINEL, "when": "during"},
        {**SENTINEL, "when": ["before"]},
        without(SENTINEL, "bandwidth_s"),
        {**SENTINEL, "arithmetic_s": 0},
        {**UNSUPPORTED, "reason": " "},
        without(UNSUPPORTED, "case"),
        {"kind": "end", "drift": 5},
        {"kind": "end", "drift": {}},
        {**HOST, "libraries": "libmlx.so"},
        {**HOST, "device": None},
    ],
)
def test_lines_of_other_kinds_that_are_no_good(line: dict[str, Any]) -> None:
    t = said(line)
    assert t.problem.startswith("printed ")
    assert t == Transcript(problem=t.problem)


@pytest.mark.parametrize("line", [{"kind": "news"}, {"kind": ["case"]}, {}, 5, [], None, "x"])
def test_unknown_lines_are_left_out(line: object) -> None:
    assert said(line) == Transcript()


VALUES = st.sampled_from([None, True, 0, 5, -1.5, math.nan, 10**400, "", "x", *protocol._CHECKS])
NAMES = st.sampled_from(
    ["kind", "metric", "value", "case", "time_s", "when", "drift", "reason", "K", "device"]
)


@given(
    st.dictionaries(
        NAMES, VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(NAMES, VALUES, max_size=3)
    ),
    st.sampled_from([*protocol._CHECKS, "metric"]),
)
def test_no_object_breaks_the_reader(line: dict[str, Any], kind: str) -> None:
    said({**line, "kind": kind})
    said(line)


def test_exit_codes_as_git_bisect_run_reads_them() -> None:
    told = {code: outcome_of_exit(code) for code in (0, 1, 2, 124, 125, 126, 127, 128, 255)}
    assert told == {
        0: "good", 1: "bad", 2: "bad", 124: "bad", 125: "skip", 126: "failed", 127: "failed", 128: "failed",
        255: "failed",
    }  # fmt: skip
