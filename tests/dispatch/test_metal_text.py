"""The text behind a kernel: what changes its digest and what does not."""

from __future__ import annotations

import pytest

from bisect_tool.dispatch import metal_text
from bisect_tool.dispatch.source import settings_of

SOURCE = """\
#include <metal_stdlib>
#include "mlx/backend/metal/kernels/utils.h"
#define LANES 32
#define instantiate_qmv(type) \\
  instantiate_kernel("qmv_" #type, qmv, type, 4) \\
  instantiate_kernel("qmm_" #type, qmm, type, 8)

using namespace metal;
MLX_CONST int SIMD = LANES;  // lanes

namespace inner {
template <typename T, int N = (4 > 3 ? 1 : 2)>
inline T twice(thread const T* x) {
  /* doubles */
  return x[0] * T(2);
}
struct Loader {
  int rows;
  void load() { rows = helper(3); }
};
}  // namespace inner

inline int helper(int n) { return n; }
inline int stranger(int n) { return n + 1; }
const char* text = "// no comment";

template <typename T>
[[kernel]] void qmv(device T* x [[buffer(0)]], uint3 tid [[threadgroup_position_in_grid]]) {
  inner::Loader loader;
  x[SIMD] = inner::twice(x);
}
template <typename T>
[[kernel]] void qmm(device T* x) { x[0] = stranger(1); }
"""


def digest(source: str, function: str = "qmv") -> str:
    found = metal_text.closure([metal_text.parse(source)], function)
    assert found is not None
    return found


def test_definitions_are_found_by_name() -> None:
    file = metal_text.parse(SOURCE)
    assert [name for name, _ in file.definitions] == [
        "LANES", "instantiate_qmv", "metal", "SIMD", "twice", "Loader", "helper", "stranger", "text", "qmv",
        "qmm",
    ]  # fmt: skip
    assert file.includes == ("mlx/backend/metal/kernels/utils.h",)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x[0] * T(2)", "x[0] + x[0]"),  # a function that it calls
        ("return n; }", "return n + 0; }"),  # one that a struct of its calls
        ("LANES 32", "LANES 64"),  # a macro that a constant of its is
        ("qmv, type, 4", "qmv, type, 5"),  # what it is instantiated with
        ("device T* x [[buffer(0)]]", "device T* x [[buffer(1)]]"),
    ],
)
def test_what_a_kernel_is_made_from_changes_its_digest(old: str, new: str) -> None:
    assert SOURCE.count(old) == 1
    assert digest(SOURCE.replace(old, new)) != digest(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/* doubles */", ""),
        ("// lanes", "// of a SIMD group"),
        ("{ return n; }", "{\n  return n;\n}"),
        ("n + 1", "n + 2"),  # only another kernel calls it
        ("qmm, type, 8", "qmm, type, 9"),
        ('"// no comment"', '"//"'),
    ],
)
def test_comments_spaces_and_strangers_do_not(old: str, new: str) -> None:
    assert SOURCE.count(old) == 1
    assert digest(SOURCE.replace(old, new)) == digest(SOURCE)


def test_a_function_that_nothing_defines_has_none() -> None:
    assert metal_text.closure([metal_text.parse(SOURCE)], "qvm") is None


def test_a_function_that_calls_itself_ends() -> None:
    assert digest("int qmv(int n) { return n ? qmm(n - 1) : 0; }\nint qmm(int n) { return qmv(n); }\n")


@pytest.mark.parametrize(
    "text", ["", "}}}", "{{{", "template <", '"', "namespace {", "#define", "[[", "(" * 500]
)
def test_any_text_is_cut_somehow(text: str) -> None:
    metal_text.parse(text)


def test_kernels_of_the_first_years_are_found_by_their_family() -> None:
    assert "qmv" in metal_text.candidates("qmv_n")
    assert "affine_qmm_t" in metal_text.candidates("qmm_t")


def test_settings_are_cut_out_whole() -> None:
    own = "namespace env {\ninline int b() { if (1) { } return 1; }\n}\n"
    header = f"namespace mlx::core {{\nint a();\n{own}int c();\n}}\n"
    found = settings_of(header)
    assert "int b()" in found and "int a" not in found and "int c" not in found
    assert found.count("{") == found.count("}")
    assert settings_of("int a();") == settings_of("namespace env { never closed") == ""


OPERATORS = """\
static_assert(sizeof(Odd) == 4, "");
template <typename T> constant bool is_odd = false;
template <typename float_> constant bool is_odd<thing<float_>> = true;
struct Pair { float a; float b; };
struct Odd { float c; };
inline Pair operator+(Pair a, Pair b) { return a; }
inline Odd operator+(Odd a, Odd b) { return helper(b); }
inline int helper(Odd b) { return 0; }
[[kernel]] void qmv(device float* a) { static_assert(true); Pair b; float_ t; a[0] = (b + b).a; }
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("{ return a; }", "{ return b; }", False),  # of a type that the kernel names
        ("return helper(b)", "return helper(a)", True),  # of another type
        ("{ return 0; }", "{ return 1; }", True),
        ("(Odd) == 4", "(Odd) == 8", True),  # an assertion defines nothing
        ("= true;", "= !false;", True),  # nor does a specialisation define its argument
    ],
)
def test_operators_go_with_their_types(old: str, new: str, same: bool) -> None:
    assert OPERATORS.count(old) == 1
    assert (digest(OPERATORS.replace(old, new)) == digest(OPERATORS)) is same
