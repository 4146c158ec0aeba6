"""Recipes are read from what a commit says; remedies from what its log says."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from bisect_tool.building.attempt import _extra_flags
from bisect_tool.building.backend import Backend
from bisect_tool.building.compile_cache import CompileCache
from bisect_tool.building.recipe import (
    EVERY_BUILD,
    LEGACY,
    MOST_REMEDIES,
    NINJA,
    Recipe,
    after,
    parse_options,
    read,
)
from bisect_tool.errors import BuildFailed, UsageProblem

LATE = b"""\
[build-system]
requires = ["setuptools>=80", "nanobind==2.10.2", "cmake>=3.25"]
build-backend = "setuptools.build_meta"
"""
# v0.8 to v0.11.
EGG = "4148debcf91f5ccab0c3b8d67b5c3cabd61f407f"
EARLY = f"""\
[build-system]
requires = [
  "setuptools>=42",
  "cmake>=3.24",
  "nanobind @ git+https://github.com/wjakob/nanobind.git#egg={EGG}",
]
build-backend = "setuptools.build_meta"
""".encode()
OLD_POLICIES = """\
CMake Error at build/_deps/fmt-src/CMakeLists.txt:1 (cmake_minimum_required):
  Compatibility with CMake < 3.5 has been removed from CMake.

  Or, add -DCMAKE_POLICY_VERSION_MINIMUM=3.5 to try configuring anyway.
"""
NO_INCLUDE = """\
mlx/io/load.h:57:22: error: ‘numeric_limits’ is not a member of ‘std’
mlx/io/load.h:1:1: note: ‘std::numeric_limits’ is defined in header ‘<limits>’; did you forget to ‘#include <limits>’?
mlx/x.h:2:1: note: ‘std::int8_t’ is defined in header ‘<cstdint>’; did you forget to ‘#include <cstdint>’?
"""  # noqa: E501


def recipe(pyproject: bytes | None = LATE, backend: Backend = Backend.CPU, **options: str) -> Recipe:
    return read(pyproject, backend, options, "548dd80e8")


def test_what_the_commit_says() -> None:
    made = recipe()
    assert made.requirements == ("cmake>=3.25", "nanobind==2.10.2", NINJA, "setuptools>=80")
    assert (made.build_backend, made.backend_path, made.remedies) == ("setuptools.build_meta", (), ())
    options = dict(made.options)
    assert options["MLX_BUILD_CPU"] == "ON"
    assert options["MLX_BUILD_METAL"] == options["MLX_BUILD_CUDA"] == "OFF"
    assert options.items() >= EVERY_BUILD.items()


def test_options_of_the_backends() -> None:
    on = {
        backend: {
            name for name, value in recipe(backend=backend).options if value == "ON" and name[:4] == "MLX_"
        }
        for backend in Backend
    }
    assert on[Backend.CPU] == {"MLX_BUILD_CPU"}
    assert on[Backend.METAL] == {"MLX_BUILD_CPU", "MLX_BUILD_METAL"}
    assert on[Backend.CUDA12] == on[Backend.CUDA13] == {"MLX_BUILD_CPU", "MLX_BUILD_CUDA"}


def test_what_the_user_says_wins() -> None:
    options = dict(recipe(CMAKE_BUILD_TYPE="Debug", MLX_BUILD_CPU="OFF", OWN="1").options)
    assert (options["CMAKE_BUILD_TYPE"], options["MLX_BUILD_CPU"], options["OWN"]) == ("Debug", "OFF", "1")


def test_a_ninja_that_the_commit_names_is_taken() -> None:
    assert recipe(b'[build-system]\nrequires = ["ninja==1.11.1"]').requirements == ("ninja==1.11.1",)
    assert NINJA in recipe(b'[build-system]\nrequires = ["ninjax"]').requirements


def test_defaults_of_pep_517() -> None:
    without = recipe(None)
    assert without.requirements == (*sorted([*LEGACY["requires"], NINJA]),)
    assert recipe(b"[project]\nname = 'mlx'\n").build_backend == "setuptools.build_meta"
    assert recipe(b"[build-system]\nrequires = []").build_backend == "setuptools.build_meta:__legacy__"
    own = recipe(b'[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["tools"]')
    assert (own.build_backend, own.backend_path) == ("own", ("tools",))


def test_a_commit_behind_egg_is_the_one_that_is_taken() -> None:
    made = recipe(EARLY)
    assert f"nanobind @ git+https://github.com/wjakob/nanobind.git@{EGG}" in made.requirements
    assert [remedy.name for remedy in made.remedies] == [f"nanobind at {EGG[:9]}"]
    assert made.as_dict()["remedies"] == [
        {
            "name": f"nanobind at {EGG[:9]}",
            "why": "its requirement names a commit in a place that pip does not read",
        }
    ]
    json.dumps(made.as_dict())


@pytest.mark.parametrize(
    "wanted", ["pybind11>=2.10", "pybind11", " pybind11 ~= 2.10 ", "pybind11[global]>=2"]
)
def test_pybind11_where_cmake_finds_it(wanted: str) -> None:
    """Up to v0.6 its CMake files must lie beside the environment's programs."""
    made = recipe(f"[build-system]\nrequires = [{json.dumps(wanted)}]".encode())
    (requirement,) = (Requirement(each) for each in made.requirements if each.startswith("pybind"))
    assert requirement.extras == {"global"}
    assert requirement.specifier == Requirement(wanted).specifier
    assert [remedy.name for remedy in made.remedies] == ["pybind11[global]"] * ("[" not in wanted)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"\xff", "decode"),
        (b"[build-system", "]"),
        (b"build-system = 3", "no table"),
        (b"build-system = [1]", "no table"),
        (b"[build-system]", "requires is not a list"),
        (b"[build-system]\nrequires = 'cmake'", "requires is not a list"),
        (b"[build-system]\nrequires = [3]", "requires is not a list"),
        (b"[build-system]\nrequires = []\nbackend-path = 'x'", "backend-path is not a list"),
        (b"[build-system]\nrequires = []\nbuild-backend = 1", "build-backend is no string"),
    ],
)
def test_what_cannot_be_read(text: bytes, why: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        recipe(text)
    assert caught.value.failure == "configure"
    line = caught.value.line()
    assert line.startswith("548dd80e8 does not configure: its pyproject.toml: ")
    assert why in line and "\n" not in line


@pytest.mark.parametrize(
    "requirement",
    [
        "--index-url=https://stranger.example",
        "--no-binary=:all:",
        "-r/etc/passwd",
        "-e .",
        ".",
        "/root/project",
        "../project",
        "",
        "a b",
        "a @ file:///root/secret.whl",
        "a @ /root/secret.whl",
        "a @ git+ssh://git@stranger.example/a",
        "a @ git+file:///root/a",
    ],
)
def test_a_requirement_is_no_option_and_no_file(requirement: str) -> None:
    with pytest.raises(BuildFailed, match=r"is no requirement|is not of the network"):
        recipe(f"[build-system]\nrequires = [{json.dumps(requirement)}]".encode())


@given(st.text())
def test_whatever_a_stranger_requires(requirement: str) -> None:
    """It is refused, or nothing that uv would take for an option or a path."""
    text = "[build-system]\nrequires = [" + json.dumps(requirement) + "]"
    try:
        made = recipe(text.encode("utf-8", "surrogatepass"))
    except BuildFailed:
        return
    assert all(each.strip()[0].isalnum() and "/" not in each.partition("@")[0] for each in made.requirements)


# ---- remedies ---------------------------------------------------------------------------------------------


def test_old_policies() -> None:
    mended = after(recipe(), OLD_POLICIES)
    assert mended is not None
    assert dict(mended.options)["CMAKE_POLICY_VERSION_MINIMUM"] == "3.5"
    assert [remedy.name for remedy in mended.remedies] == ["old CMake policies"]
    assert after(mended, OLD_POLICIES) is None, "once is all it can do"


def test_missing_includes() -> None:
    mended = after(recipe(), NO_INCLUDE)
    assert mended is not None
    assert mended.flags == ("-include cstdint", "-include limits")
    assert [remedy.name for remedy in mended.remedies] == ["#include <cstdint>", "#include <limits>"]
    assert mended.as_dict()["flags"] == "-include cstdint -include limits -O3 -DNDEBUG"
    assert after(mended, NO_INCLUDE) is None
    both = after(mended, OLD_POLICIES + NO_INCLUDE)
    assert both is not None
    assert len(both.remedies) == 3


def test_remedies_come_to_an_end() -> None:
    """Whatever a stranger's log asks for."""
    made: Recipe | None = recipe()
    for number in range(100):
        if made is None:
            break
        made = after(made, f"did you forget to '#include <of_a_stranger_{number}>'")
    assert number == MOST_REMEDIES + 1


def test_no_remedy() -> None:
    assert after(recipe(), "error: ‘ArrayView’ was not declared in this scope") is None
    assert after(recipe(), "did you forget to ‘#include <../../etc/passwd>’?") is None


# ---- what stands for a recipe -----------------------------------------------------------------------------


def test_digest() -> None:
    one = recipe()
    assert one.digest == recipe().digest
    others = [recipe(EARLY), recipe(A="1"), recipe(A="2"), *(recipe(backend=each) for each in Backend)]
    digests = {each.digest for each in others}
    assert len(digests) == len(others)
    assert one.digest in digests, "it is the one of the CPU"
    mended = dataclasses.replace(one, remedies=(), flags=("-include x",))
    assert mended.digest == one.digest, "what a log asks for follows from the rest"


# ---- -D ---------------------------------------------------------------------------------------------------


def test_options() -> None:
    assert parse_options(()) == {}
    assert parse_options(("A=1", "B=", "C=x=y;z", "A=2")) == {"A": "2", "B": "", "C": "x=y;z"}


@pytest.mark.parametrize(
    "text", ["", "A", "=1", "A B=1", "-DA=1", 'A="x"', "A=x\ny", "A=\\", "A=]==]x", "A:BOOL=1"]
)
def test_no_options(text: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_options((text,))
    assert caught.value.line().endswith("write it as -D NAME=VALUE")
    assert "\n" not in caught.value.line()


def test_headers_of_cpp_are_not_for_c() -> None:
    mended = dataclasses.replace(recipe(), flags=("-include cstdint",))
    cache = CompileCache((), {}, flags=("-ffile-prefix-map=/a=b",))
    assert _extra_flags("C", cache, mended) == ("-ffile-prefix-map=/a=b",)
    for language in ("CXX", "CUDA", "OBJCXX"):
        assert _extra_flags(language, cache, mended) == ("-ffile-prefix-map=/a=b", "-include cstdint")
