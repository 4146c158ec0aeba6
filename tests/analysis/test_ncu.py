"""Reading `ncu --csv`: output recorded on an NVIDIA H200 with mlx 0.32.4."""

from __future__ import annotations

from pathlib import Path

import pytest

from bisect_tool.analysis.ncu import Kernel, kernels

RECORDED = Path(__file__).parent.parent / "data" / "ncu" / "5120x13824-M3.csv"
SIGNATURE = "qmv_kernel<8, 16, 64, 1, 0, half_t, integer_subbyte<4, 0>, half_t>"


def test_each_kernel_once_with_all_its_metrics() -> None:
    (kernel,) = kernels(RECORDED.read_text())
    assert (kernel.short, kernel.signature) == ("qmv_kernel", SIGNATURE)
    assert (kernel.grid, kernel.block) == ("(1728, 3, 1)", "(32, 8, 1)")
    assert kernel.counters["smsp__inst_executed.sum"] == 36_370_944
    assert kernel.counters["launch__waves_per_multiprocessor"] == 6.55


def test_two_launches_of_a_kernel_are_two() -> None:
    text = RECORDED.read_text()
    again = "\n".join('"1"' + line[3:] for line in text.splitlines() if line.startswith('"0"'))
    found = kernels(f"{text}\n{again}\n")
    assert [kernel.signature for kernel in found] == [SIGNATURE] * 2 and found[0] == found[1]


def test_what_this_gpu_does_not_count_is_missing() -> None:
    text = RECORDED.read_text().replace('"36,370,944"', '"n/a"')
    assert "smsp__inst_executed.sum" not in kernels(text)[0].counters


def test_a_run_without_kernels_has_none() -> None:
    assert kernels("==PROF== Connected to process 1 (/x)\n==WARNING== No kernels were profiled.\n") == []


@pytest.mark.parametrize(
    ("name", "short", "signature"),
    [
        ("void copy_v<float, __half>(T1 *, int)", "copy_v", "copy_v<float, __half>"),
        ("rbitsc(const unsigned int *, dim3)", "rbitsc", "rbitsc"),
        (
            "void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<(int)4>>(T1::Params)",
            "device_kernel",
            "cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<(int)4>>",
        ),
        ("void (anonymous namespace)::f<1>(int)", "f", "(anonymous namespace)::f<1>"),
    ],
)
def test_names_without_what_surrounds_them(name: str, short: str, signature: str) -> None:
    kernel = Kernel(name)
    assert (kernel.short, kernel.signature) == (short, signature)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission\n", "ERR_NVGPUCTRPERM"),
        ("", "there is no table"),
        ('"ID","Kernel Name"\n"0","qmv"\n', "lacks one of"),
    ],
)
def test_what_is_no_table_is_said(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kernels(text)
