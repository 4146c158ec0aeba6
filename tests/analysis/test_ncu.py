"""Reading `ncu --csv`, from output in its documented form."""

from __future__ import annotations

import pytest

from bisect_tool.analysis.ncu import Kernel, beyond, kernels

HEAD = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size",'
    '"Device","CC","Section Name","Metric Name","Metric Unit","Metric Value"'
)


def line(number: int, name: str, grid: str, metric: str = "gpu__time_duration.sum") -> str:
    return (
        f'"{number}","4711","python3.11","127.0.0.1","{name}","1","7","(32, 8, 1)","{grid}","0","9.0",'
        f'"Command line profiler metrics","{metric}","nsecond","43,810"'
    )


RECORDED = "\n".join(
    [
        "==PROF== Connected to process 4711 (/usr/bin/python3.11)",
        '==PROF== Profiling "qmv_kernel" - 0: 0%....50%....100% - 1 passes',
        "==PROF== Disconnected from process 4711",
        HEAD,
        line(0, "void copy_v<float, __half>(T1 *, int)", "(1024, 1, 1)"),
        line(1, "void qmv_kernel<__half, (int)64, (int)4>(const T1 *, T1 *)", "(640, 1, 1)"),
        line(
            1, "void qmv_kernel<__half, (int)64, (int)4>(const T1 *, T1 *)", "(640, 1, 1)", "sm__cycles.sum"
        ),
        "",
    ]
)
COPY = Kernel("void copy_v<float, __half>(T1 *, int)", "(1024, 1, 1)", "(32, 8, 1)")
QMV = Kernel("void qmv_kernel<__half, (int)64, (int)4>(const T1 *, T1 *)", "(640, 1, 1)", "(32, 8, 1)")


def test_each_kernel_once_however_many_metrics() -> None:
    assert kernels(RECORDED) == [COPY, QMV]


def test_what_the_op_adds_is_what_the_other_run_has_not() -> None:
    assert beyond([COPY, COPY], [COPY, COPY, QMV, COPY]) == [QMV, COPY]


def test_a_run_without_kernels_has_none() -> None:
    assert kernels("==PROF== Connected to process 1 (/x)\n==WARNING== No kernels were profiled.\n") == []


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
