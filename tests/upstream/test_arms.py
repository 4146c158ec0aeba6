from __future__ import annotations

import pytest

from bisect_tool.errors import UsageProblem
from bisect_tool.upstream.arms import parse
from bisect_tool.upstream.revision import Kind


def labels(*texts: str, onto: str = "", baseline: str = "") -> list[str]:
    arms, first = parse(texts, onto=onto, baseline=baseline)
    assert arms[0].label == first
    return [arm.label for arm in arms]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["0.31.2", "v0.32.0", "main"], ["0.31.2", "v0.32.0", "main"]),
        (["#3764"], ["#3764^", "#3764"]),
        (["pr/3764"], ["#3764^", "pr/3764"]),
        (["#3764/head"], ["#3764^", "#3764/head"]),
        (["fused=#3764"], ["#3764^", "fused"]),
        (["#3764,MLX_A=1"], ["#3764^,MLX_A=1", "#3764,MLX_A=1"]),
        (["main", "#1861", "#3120"], ["main", "#1861", "#3120"]),
        (["v0.31.2..v0.32.0"], ["v0.31.2", "v0.32.0"]),
        (["v0.31.2..main,A=1"], ["v0.31.2,A=1", "main,A=1"]),
        (["a=0.32.4", "b=0.32.4"], ["a", "b"]),
        (["0.32.4", "0.32.4"], ["0.32.4", "0.32.4 (2)"]),
        (["0.32.4", "0.32.4,MLX_METAL_GPU_ARCH=applegpu_g12s"],
         ["0.32.4", "0.32.4,MLX_METAL_GPU_ARCH=applegpu_g12s"]),
        (["main", "path:../a=b"], ["main", "path:../a=b"]),
        (["main", "mine=path:../a..b"], ["main", "mine"]),
    ],
)  # fmt: skip
def test_arms(texts: list[str], expected: list[str]) -> None:
    assert labels(*texts) == expected


def test_what_a_label_hides() -> None:
    arms, _ = parse(["main", "fused=#3764,MLX_A=1"])
    fused = arms[1]
    assert (fused.label, fused.typed) == ("fused", "#3764,MLX_A=1")
    assert fused.revision.kind is Kind.PULL and fused.revision.pull == (3764, "")
    assert fused.revision.settings == (("MLX_A", "1"),)


def test_onto() -> None:
    arms, first = parse(["#1861", "fused=#3120/head", "main", "v0.31.2"], onto="main")
    assert first == "main"
    assert [(arm.label, arm.onto) for arm in arms] == [
        ("main", ""), ("#1861 onto main", "main"), ("fused", "main"), ("v0.31.2", ""),
    ]  # fmt: skip
    alone, _ = parse(["#1861"], onto="main")
    assert [arm.label for arm in alone] == ["main", "#1861 onto main"], "no pair: it stands on main"
    assert alone[1].revision.pull == (1861, "")


def test_baseline() -> None:
    assert labels("0.31.2", "0.32.4", baseline="0.32.4") == ["0.32.4", "0.31.2"]
    assert labels("0.31.2", "new=0.32.4", baseline="new") == ["new", "0.31.2"]
    assert labels("0.31.2", "new=0.32.4", baseline="0.32.4") == ["new", "0.31.2"], "by what it names, too"
    assert labels("0.31.2", "0.32.4", baseline="main") == ["main", "0.31.2", "0.32.4"]


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["fix=v0.31.2..main"], "labels a range"),
        (["v1...v2"], "is no range"),
        (["..v2"], "is no range"),
        (["main", "fused="], "a revision is empty"),
        (["main", "#x"], "not a pull request"),
        (["main", "0.32.4,x"], "not a setting"),
    ],
)
def test_what_is_no_arm(texts: list[str], says: str) -> None:
    with pytest.raises(UsageProblem, match=says):
        parse(texts)
