"""The whole-model table and its bill, from records."""

from __future__ import annotations

import json
from typing import Any

import pytest
from a_session import HEADER, run_line
from test_text import cells

from bisect_tool.analysis.model_bill import Model, models
from bisect_tool.reporting import model

Line = dict[str, Any]
LAYERS = 64


def step(M: int, seconds: float, number: int) -> Line:
    """Of 64 layers, from 2 and 6: ``rest`` is 4 ms."""
    time = seconds * (1 + 0.001 * (number % 3 - 1))
    return {
        "kind": "case",
        "case": {
            "op": "model_step", "K": 5120, "N": 17408, "layers": LAYERS, "M": M, "bits": 4, "group_size": 64,
            "quant": "affine", "dtype": "float16", "timing": "step", "cache": "prefill 512",
        },
        "time_s": time, "layer_s": (time - 4e-3) / LAYERS, "rest_s": 4e-3, "bytes": 10**10, "marks": [],
        "depths": {"2": [0.01], "6": [0.02]}, "samples_s": [0.02], "warm_up": {"seconds": 0.1, "ops": 4},
    }  # fmt: skip


def linear(N: int, M: int, seconds: float, per_layer: int, in_head: int = 0) -> Line:
    return {
        "kind": "case",
        "case": {
            "op": "quantized_matmul", "K": 5120, "N": N, "B": 1, "M": M, "bits": 4, "group_size": 64,
            "quant": "affine", "dtype": "float16", "timing": "chain", "cache": "cold",
        },
        "time_s": seconds, "per_layer": per_layer, "in_head": in_head, "bytes": 10**7, "marks": [],
        "samples_s": [seconds], "warm_up": {"seconds": 0.1, "ops": 4}, "error": {"relative": 1e-4},
    }  # fmt: skip


STEPS = {1: 68e-3, 2: 69.3e-3, 3: 93.8e-3, 4: 121.9e-3, 5: 150.2e-3, 6: 179.3e-3}


def session(rounds: int = 6, lost: tuple[int, int] | None = None) -> list[Line]:
    """Two shapes, 4 and 1 a layer, and a head of the second; together 90 % of the step at M=1.

    ``lost``: (round, M) whose second shape was not measured.
    """
    found = []
    for number in range(1, rounds + 1):
        cases = []
        for M, seconds in STEPS.items():
            cases.append(step(M, seconds, number))
            part = 0.9 * seconds / (LAYERS * 5 + 1)
            cases.append(linear(5120, M, part, 4))
            if (number, M) != lost:
                cases.append(linear(17408, M, part, 1, 1))
        found.append(run_line("0.32.4", number, 0, cases=cases))
    return found


def only(lines: list[Line]) -> Model:
    (found,) = models(lines)
    return found


def test_the_bill_and_what_it_explains() -> None:
    found = only(session())
    assert (found.layers, found.depths, found.scaled) == (64, (2, 6), True)
    one, *_, six = found.steps
    assert one.bill is not None and one.bill.centre == pytest.approx(0.9 * 68e-3)
    assert one.share is not None and one.share.centre == pytest.approx(0.9, rel=0.002) and one.share.known
    assert one.over_one is None and one.added is None
    assert six.over_one is not None and six.over_one.centre == pytest.approx(179.3 / 68)
    assert six.added is not None and six.added.centre == pytest.approx(0.9, rel=0.005)
    assert six.layer is not None and six.layer.centre == pytest.approx((179.3e-3 - 4e-3) / 64, rel=0.001)
    assert [(item.N, item.count) for item in found.items] == [(5120, 256), (17408, 65)][:: 1 if
        256 * 5120 > 65 * 17408 else -1]  # fmt: skip


def test_a_sum_that_lacks_a_shape_is_no_bill() -> None:
    found = only(session(lost=(3, 2)))
    two = found.steps[1]
    assert two.share is not None and two.share.n == 5, "the round without it does not count"
    assert two.bill is not None and two.bill.centre == pytest.approx(0.9 * 69.3e-3)


def test_in_print() -> None:
    text = model.markdown(HEADER, session())
    assert text.splitlines()[0].startswith("- **whole model**: bandwidth to arithmetic at M ≈ 2.1")
    assert text.splitlines()[1] == (
        "- the linears alone are 90 % of the step, and 90 % of what further rows add"
    )
    assert "64 layers scaled from 2 and 6; affine 4-bit, group 64, float16; after a prefill of 512" in text
    rows = [cells(line) for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert rows[0] == ["M", "ms [95 %]", "M / M=1", "layer ms", "rest ms", "bill ms", "share [95 %]",
                       "of the growth"]  # fmt: skip
    assert rows[3][2] == "1.379" and rows[3][4] == "4" and rows[3][-1] == "90 %"
    assert rows[7][:2] == ["linear", "times"] and rows[7][2] == "µs at M=1"
    assert "environment and command" in text


def test_as_data() -> None:
    data = json.loads(model.as_json(HEADER, session()))
    (one,) = data["models"]
    assert one["verdict"]["name"] == "roofline" and one["scaled"] is True
    assert one["steps"][0]["share"]["centre"] == pytest.approx(0.9, rel=0.002)
    assert one["steps"][0]["over_one"] is None


def test_a_checkpoint_has_no_bill_and_is_not_scaled() -> None:
    lines = session()
    for run in lines:
        run["cases"] = [c for c in run["cases"] if c["case"]["op"] == "model_step"]
        for case in run["cases"]:
            case |= {"depths": {"64": [case["time_s"]]}, "layer_s": None, "rest_s": None}
            case["case"]["model"] = "a-27b-4bit"
    assert not only(lines).scaled
    text = model.markdown(HEADER, lines)
    assert "a-27b-4bit; 64 layers; affine" in text and "bill" not in text.split("Centre")[0]


def test_nothing_measured_says_why() -> None:
    lines = [run_line("0.32.4", 1, 0, unsupported=[{"case": {}, "reason": "ValueError: no such mode"}])]
    assert model.markdown(HEADER, lines).startswith("Nothing was measured. ValueError: no such mode.")
