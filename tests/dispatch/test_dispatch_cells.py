"""Architectures, shapes, rows: what is meant, and what cannot be."""

from __future__ import annotations

import pytest

from bisect_tool.dispatch import architectures, cells
from bisect_tool.errors import UsageProblem


@pytest.mark.parametrize(
    ("text", "arch"),
    [
        ("applegpu_g16s", "applegpu_g16s"),
        ("g13d", "applegpu_g13d"),
        ("M4 Pro", "applegpu_g16s"),
        ("m3  max", "applegpu_g15s"),
        ("M1 Ultra", "applegpu_g13d"),
        ("Apple M5", "applegpu_g17g"),
        ("applegpu_g18p", "applegpu_g18p"),
    ],
)
def test_friendly_names_are_understood(text: str, arch: str) -> None:
    assert architectures.parse(text) == [arch]


@pytest.mark.parametrize(
    "text", ["", "applegpu", "applegpu_g1s", "g16x", "M4 Mega", "M9", "gfx1100", "g16s; rm"]
)
def test_what_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match=r"is no GPU architecture.*applegpu_g16s"):
        architectures.parse(text)


def test_all_are_those_that_were_made_and_each_explains_itself() -> None:
    assert len(architectures.ALL) == len(set(architectures.ALL)) == 13
    assert "applegpu_g16s" in architectures.ALL and "applegpu_g16d" not in architectures.ALL
    assert architectures.explain("applegpu_g16s") == "generation 16 (M4), size s (Pro and Max)"
    assert architectures.legend(["applegpu_g16s"]) == [
        "applegpu_g16s: generation 16 (M4), size s (Pro and Max)"
    ]
    assert architectures.legend(architectures.ALL) == [
        "generations: g13 M1, g14 M2, g15 M3, g16 M4, g17 M5; sizes: g base, s Pro and Max, d Ultra"
    ]
    assert architectures.explain("applegpu_g19p") == "generation 19, size p (phone)"


@pytest.mark.parametrize(
    ("arch", "has"),
    [("applegpu_g16s", False), ("applegpu_g17g", True), ("applegpu_g17p", False), ("applegpu_g18p", True)],
)
def test_the_neural_accelerator_is_by_generation(arch: str, has: bool) -> None:
    assert architectures.has_nax(arch) is has
    (default,) = cells.cells([arch], [(1024, 1024)], [1])
    (forced,) = cells.cells([arch], [(1024, 1024)], [1], nax=not has)
    assert (default.nax, forced.nax) == (has, not has)


def test_cells_are_every_combination_with_what_the_mode_has() -> None:
    found = cells.cells(
        ["applegpu_g16s"], [(1024, 64)], [1, 2], modes=["affine", "nvfp4"], dtypes=["bfloat16"]
    )
    assert [(c.mode, c.bits, c.group_size, c.M) for c in found] == [
        ("affine", 4, 64, 1), ("affine", 4, 64, 2), ("nvfp4", 4, 16, 1), ("nvfp4", 4, 16, 2)
    ]  # fmt: skip


def test_a_shape_that_the_group_does_not_divide_is_what_quantize_would_refuse() -> None:
    with pytest.raises(UsageProblem, match=r"last dimension, 100, to be divisible by the group size, 64"):
        cells.cells(["applegpu_g16s"], [(100, 64)], [1])
    with pytest.raises(UsageProblem, match=r"w of 128x100 .*last dimension, 100"):
        cells.cells(["applegpu_g16s"], [(128, 100)], [1], transpose=False)
    assert cells.cells(["applegpu_g16s"], [(128, 100)], [1])


def test_what_a_mode_has_not_is_refused() -> None:
    with pytest.raises(UsageProblem, match=r"affine has no bits 7; it has 2, 3, 4, 5, 6, 8"):
        cells.cells(["applegpu_g16s"], [(128, 128)], [1], bits=[7])
    with pytest.raises(UsageProblem, match=r"mxfp4 has no group size 64; it has 32"):
        cells.cells(["applegpu_g16s"], [(128, 128)], [1], modes=["mxfp4"], group_sizes=[64])
    with pytest.raises(UsageProblem, match="more than 200000 cells"):
        cells.cells(["applegpu_g16s"] * 2, [(128, n * 64) for n in range(1, 6)], range(1, 50_000))


@pytest.mark.parametrize("text", ["", "0", "4-2", "1-", "a", "1,,2", "1-999999999", "1-300000"])
def test_rows_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageProblem):
        cells.rows(text)


def test_rows_shapes_and_names() -> None:
    assert cells.rows("6,1-3, 2") == [1, 2, 3, 6]
    assert cells.shape("5120x13824") == cells.shape("5120×13824") == (5120, 13824)
    for text in ("5120", "0x5", "5x", "5120x13824x4", "-1x5"):
        with pytest.raises(UsageProblem, match="is no shape"):
            cells.shape(text)
    assert cells.names("affine, mxfp4,affine", cells.MODES, "mode") == ["affine", "mxfp4"]
    with pytest.raises(UsageProblem, match="'fp4' is no mode; choose of affine"):
        cells.names("fp4", cells.MODES, "mode")


def test_what_a_repro_measured_becomes_a_cell() -> None:
    case = {"op": "quantized_matmul", "K": 5120, "N": 1024, "M": 3, "B": 1, "bits": 4, "group_size": 64,
            "quant": "affine", "dtype": "float16", "cache": "hot", "timing": "chain"}  # fmt: skip
    assert cells.of_case(case, "applegpu_g17s") == cells.cells(["applegpu_g17s"], [(5120, 1024)], [3])[0]
    for other in ({"op": "matmul"}, {"B": 4}, {"control": True}):
        assert cells.of_case({**case, **other}, "applegpu_g17s") is None
    named = (("MLX_METAL_GPU_ARCH", "applegpu_g12s"),)
    assert architectures.of_arm(named, "applegpu_g16s") == "applegpu_g12s"
    assert architectures.of_arm((), "applegpu_g16s") == "applegpu_g16s"
