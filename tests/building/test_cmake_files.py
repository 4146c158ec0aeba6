"""What CMake makes of the files that are written for it: asked of CMake itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisect_tool.building import attempt
from bisect_tool.building.cmake_files import (
    LANGUAGES,
    PROVIDER,
    USES,
    WANTS,
    asked_for,
    extra_config,
    initial_cache,
    sources,
)
from bisect_tool.building.sources import Source

PROJECT = """\
cmake_minimum_required(VERSION 3.24)
project(asks LANGUAGES NONE)
include(FetchContent)
FetchContent_Declare(plain GIT_REPOSITORY https://small.example/plain.git GIT_TAG {tag} GIT_SHALLOW TRUE)
FetchContent_Declare(Packed URL https://small.example/packed.zip
  URL_HASH SHA256={hash} PATCH_COMMAND {patch} EXCLUDE_FROM_ALL)
FetchContent_MakeAvailable(plain Packed)
file(WRITE "${{CMAKE_BINARY_DIR}}/answer" "${{plain_SOURCE_DIR}}|${{packed_SOURCE_DIR}}")
"""
HASH = "ab" * 32
# Quotes and a place that CMake fills in, as in MLX's patch of nanobind.
WRITE = """sh -c "echo $1 'it''s' > $0/patched.txt" <SOURCE_DIR> {}"""
PACKED = f"Packed\thttps://small.example/packed.zip\tSHA256={HASH}\t\t"


def plain(tag: str) -> str:
    return f"plain\t\t\thttps://small.example/plain.git\t{tag}"


@pytest.fixture
def cmake() -> str:
    found = shutil.which("cmake")
    if found is None:
        pytest.skip("there is no cmake")
    said = subprocess.run([found, "--version"], check=True, capture_output=True, text=True).stdout
    if tuple(map(int, said.split()[2].split(".")[:2])) < (3, 24):
        pytest.skip("cmake is older than dependency providers")
    return found


class Configured:
    """A project that asks for two sources, configured again and again in one build folder."""

    def __init__(self, cmake: str, folder: Path) -> None:
        self.cmake = cmake
        self.folder = folder
        self.ninja = folder / "ninja"
        self.ninja.write_text("#!/bin/sh\necho 1.11.1\n")
        self.ninja.chmod(0o755)
        (folder / "provider.cmake").write_text(PROVIDER)

    def source(self, name: str) -> Path:
        folder = self.folder / "sources" / name / "tree"
        folder.mkdir(parents=True)
        (folder / "CMakeLists.txt").write_text("")
        return folder

    def __call__(
        self,
        known: dict[str, Path],
        *,
        tag: str = "1.0",
        patch: str = WRITE.format("once"),
        patches: str = "aa",
    ) -> str:
        (self.folder / "CMakeLists.txt").write_text(PROJECT.format(tag=tag, hash=HASH, patch=patch))
        (self.folder / "sources.cmake").write_text(sources(known, patches))
        include = f"-DCMAKE_PROJECT_TOP_LEVEL_INCLUDES={self.folder / 'provider.cmake'}"
        command = [self.cmake, "-S", str(self.folder), "-B", str(self.folder / "build"), "-G", "Ninja"]
        command += [include, "-DFETCHCONTENT_FULLY_DISCONNECTED=ON", f"-DCMAKE_MAKE_PROGRAM={self.ninja}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.ok = done.returncode == 0
        return done.stdout + done.stderr

    @property
    def answer(self) -> list[Path]:
        return [Path(each) for each in (self.folder / "build" / "answer").read_text().split("|")]


@pytest.fixture
def configured(cmake: str, tmp_path: Path) -> Configured:
    return Configured(cmake, tmp_path)


def test_a_source_that_is_not_there_is_asked_for(configured: Configured) -> None:
    said = configured({})
    assert not configured.ok
    assert asked_for(said, WANTS) == [plain("1.0")]
    said = configured({plain("1.0"): configured.source("plain")})
    assert not configured.ok
    assert asked_for(said, WANTS) == [PACKED]
    assert asked_for(said, USES) == [plain("1.0")]


def test_sources_are_taken_from_where_they_are(configured: Configured) -> None:
    one, packed = configured.source("plain"), configured.source("packed")
    said = configured({plain("1.0"): one, PACKED: packed})
    assert configured.ok, said
    assert asked_for(said, WANTS) == []
    assert asked_for(said, USES) == [plain("1.0"), PACKED]
    taken, patched = configured.answer
    assert taken == one
    # What is patched is a copy: other commits use the source.
    assert patched.is_relative_to(configured.folder / "build")
    assert (patched / "patched.txt").read_text() == "once its\n"
    assert not (packed / "patched.txt").exists()


def test_a_kept_build_folder_takes_the_source_of_this_commit(configured: Configured) -> None:
    one, two, packed = configured.source("one"), configured.source("two"), configured.source("packed")
    known = {plain("1.0"): one, plain("2.0"): two, PACKED: packed}
    for tag, folder in (("2.0", two), ("1.0", one), ("2.0", two)):
        said = configured(known, tag=tag)
        assert configured.answer[0] == folder, said
    configured({plain("1.0"): one, PACKED: packed}, tag="2.0")
    assert not configured.ok, "what the commit before was given must not do"


def test_a_patch_that_may_have_changed_is_applied_to_a_new_copy(configured: Configured) -> None:
    known = {plain("1.0"): configured.source("one"), PACKED: configured.source("packed")}
    copies: dict[tuple[str, str], Path] = {}
    for patch, patches in (("a", "aa"), ("b", "aa"), ("b", "bb"), ("a", "aa")):
        said = configured(known, patch=WRITE.format(patch), patches=patches)
        copy = configured.answer[1]
        assert (copy / "patched.txt").read_text() == f"{patch} its\n", said
        assert copies.setdefault((patch, patches), copy) == copy
    assert len(set(copies.values())) == 3


@pytest.mark.parametrize(
    ("patch", "written"),
    [
        ("touch one COMMAND touch two", {"one", "two"}),
        ("false || touch one", {"one"}),
        ("touch one && touch two", {"one", "two"}),
        ('touch "a b"', {"a b"}),
    ],
)
def test_patches_of_several_words(configured: Configured, patch: str, written: set[str]) -> None:
    said = configured(
        {plain("1.0"): configured.source("one"), PACKED: configured.source("packed")}, patch=patch
    )
    assert configured.ok, said
    assert {path.name for path in configured.answer[1].iterdir()} == {"CMakeLists.txt", *written}


def test_a_patch_that_fails(configured: Configured) -> None:
    configured({plain("1.0"): configured.source("one"), PACKED: configured.source("packed")}, patch="false")
    assert not configured.ok, "without its patch it is another source"


def test_initial_cache(cmake: str, tmp_path: Path) -> None:
    """Every value arrives as it was given."""
    odd = {
        "EMPTY": "",
        "LIST": "a;b",
        "DOLLAR": "$ORIGIN/${x}",
        "QUOTE": 'say "x" [=[y]=] #z',
        "PATH_": "/a b",
    }
    text = initial_cache(
        {**odd, "CMAKE_INSTALL_RPATH": "/own"},
        flags="-O3 -DX=1",
        launcher=("env", "A=b", "/usr/bin/ccache"),
        python=Path("/environment/bin/python"),
        provider=Path("/tree/provider.cmake"),
        apple=False,
        extra={"OBJCXX": ("-include cmath", "-Y")},
    )
    (tmp_path / "initial.cmake").write_text(text)
    names = [*odd, "CMAKE_INSTALL_RPATH", "CMAKE_CXX_FLAGS_PLAIN", "CMAKE_CXX_COMPILER_LAUNCHER"]
    names += ["CMAKE_MAKE_PROGRAM", "Python_EXECUTABLE", "CMAKE_CUDA_FLAGS_PLAIN", "CMAKE_OBJCXX_FLAGS_PLAIN"]
    script = "include(initial.cmake)\n" + "".join(f'message("{name}=${{{name}}}")\n' for name in names)
    (tmp_path / "show.cmake").write_text(script)
    done = subprocess.run([cmake, "-P", "show.cmake"], cwd=tmp_path, capture_output=True, text=True)
    seen = dict(line.split("=", 1) for line in done.stderr.splitlines())
    assert {name: seen[name] for name in odd} == odd
    assert seen["CMAKE_INSTALL_RPATH"] == "/own", "the user's word is the last"
    assert seen["CMAKE_CXX_FLAGS_PLAIN"] == seen["CMAKE_CUDA_FLAGS_PLAIN"] == "-O3 -DX=1"
    assert seen["CMAKE_OBJCXX_FLAGS_PLAIN"] == "-include cmath -Y -O3 -DX=1"
    assert seen["CMAKE_CXX_COMPILER_LAUNCHER"] == "env;A=b;/usr/bin/ccache"
    assert seen["CMAKE_MAKE_PROGRAM"] == "/environment/bin/ninja"
    assert seen["Python_EXECUTABLE"] == "/environment/bin/python"


def test_run_paths_lead_to_what_is_packed_beside() -> None:
    def entries(apple: bool) -> str:
        return initial_cache({}, flags="", launcher=(), python=Path("p"), provider=Path("q"), apple=apple)

    assert "set(CMAKE_INSTALL_RPATH [==[$ORIGIN/lib]==]" in entries(apple=False)
    assert "set(CMAKE_INSTALL_RPATH [==[@loader_path/lib]==]" in entries(apple=True)
    assert "set(CMAKE_BUILD_WITH_INSTALL_RPATH [==[ON]==]" in entries(apple=True)
    for language in LANGUAGES:
        assert f"set(CMAKE_{language}_COMPILER_LAUNCHER [==[]==]" in entries(apple=True)


def test_asked_for() -> None:
    log = f"-- x\n{WANTS}a\t1\n{WANTS}b\t2\nsaid {WANTS}c\n{USES}d\n{WANTS}a\t1\n"
    assert asked_for(log, WANTS) == ["a\t1", "b\t2"]
    assert asked_for(log, USES) == ["d"]
    assert asked_for("", WANTS) == []


WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)
DIGEST = st.sampled_from(["", HASH])


@given(st.one_of(st.builds(Source, WORD, WORD, WORD), st.builds(
    Source, WORD, WORD, st.just(""), st.just(True), DIGEST)))  # fmt: skip
def test_what_was_asked_for_can_be_told_from_what_was_fetched(source: Source) -> None:
    asked = attempt._asked(
        {
            "name": source.name,
            "address": source.address,
            "ref": source.ref,
            "archive": source.archive,
            "sha256": source.sha256,
        }
    )
    assert attempt._source(asked) == source


@given(st.text())
def test_whatever_asks(asked: str) -> None:
    assert isinstance(attempt._source(asked), Source)


def test_extra_config(tmp_path: Path) -> None:
    import configparser

    read = configparser.ConfigParser()
    read.read_string(extra_config(tmp_path))
    assert read["build"]["build_base"] == str(tmp_path)
    assert read["bdist_wheel"]["compression"] == "stored"
