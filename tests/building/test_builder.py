"""Commits of the small upstream, built by real compilers: what comes out, what is done again, what fails."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from small_builds import Bench, ask, gone_in_the_end, walls
from small_upstream import SmallUpstream

from bisect_tool.building import attempt as building
from bisect_tool.building import making
from bisect_tool.building.backend import Backend
from bisect_tool.building.builder import Builder
from bisect_tool.building.compile_cache import CompileCache
from bisect_tool.building.locks import held
from bisect_tool.building.sandbox import Mode, Unwalled, choose
from bisect_tool.building.store import Store
from bisect_tool.building.toolchain import Toolchain
from bisect_tool.building.tree import Tree
from bisect_tool.errors import BuildFailed, DiskFull, MachineTrouble, SourceUnavailable, ToolError
from bisect_tool.upstream.mirrors import Mirrors

builds = pytest.mark.builds
LATE, NEXT = "slow-down", "python-utils"


@pytest.fixture
def alone(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A folder of builds of its own."""
    return bench.beside(tmp_path / "alone", monkeypatch)


# ---- what one build is ------------------------------------------------------------------------------------


@pytest.fixture
def builder(bench: Bench) -> Builder:
    return bench.provider().builder


def keys_of(builder: Builder, upstream: SmallUpstream) -> dict[str, str]:
    return {
        commit.name: builder.key(builder.upstream.commit(commit.sha))
        for commit in upstream.commits
        if not commit.attacks
    }


@pytest.mark.parametrize("backend", Backend)
def test_one_key_is_one_build(backend: Backend, bench: Bench) -> None:
    """A commit has its parent's key when it touches docs, tests, CI, format or other backends alone."""
    upstream = bench.upstream
    keys = keys_of(dataclasses.replace(bench.provider().builder, backend=backend, _memo={}), upstream)
    family = backend.value.rstrip("0123456789")
    by_sha = {commit.sha: commit for commit in upstream.commits}
    for commit in upstream.commits:
        if commit.parents and not commit.attacks:
            same = keys[commit.name] == keys[by_sha[commit.parents[0]].name]
            # What stands in for Metal is not built where there is Metal, but in doubt a file counts.
            doubtful = (family, commit.name) == ("metal", "no-metal")
            assert same == (family not in commit.reaches and not doubtful), commit.name
    assert keys["no-configure-mended"] == keys["metal-header"] != keys["no-configure"]


def test_main_comes_to_so_many_builds(builder: Builder, bench: Bench) -> None:
    main = {commit.name for commit in bench.upstream.main}
    keys = [key for name, key in keys_of(builder, bench.upstream).items() if name in main]
    # One for the first commit; one reverts another.
    reached = sum("cpu" in commit.reaches for commit in bench.upstream.main)
    assert len(set(keys)) == reached - 1 < len(keys)


def test_whatever_can_change_an_artifact_is_in_the_key(builder: Builder, bench: Bench) -> None:
    commit = bench.resolved(LATE).commit
    parts = builder.toolchain.parts
    others = {
        "as it is": builder,
        "option": dataclasses.replace(builder, options={"MLX_OWN": "1"}),
        "its value": dataclasses.replace(builder, options={"MLX_OWN": "2"}),
        "compiler": dataclasses.replace(builder, toolchain=Toolchain((("compiler", "g++ 99"), *parts[1:]))),
        "ABI": dataclasses.replace(
            builder, interpreter=dataclasses.replace(builder.interpreter, abi="cp399")
        ),
        **{
            each.value: dataclasses.replace(builder, backend=each, _memo={})
            for each in Backend
            if each is not builder.backend
        },
    }
    keys = {name: each.key(commit) for name, each in others.items()}
    assert len(set(keys.values())) == len(keys), keys
    unlike: dict[str, Any] = {"jobs": 1, "timeout_s": 1.0, "builds": Path("/other"), "sandbox": Unwalled("")}
    for name, value in unlike.items():
        assert dataclasses.replace(builder, **{name: value}).key(commit) == keys["as it is"], name


def test_the_key_is_the_same_in_another_process(builder: Builder, bench: Bench) -> None:
    script = """
import sys
sys.path.insert(0, "tests")
from small_builds import Bench
from small_upstream import SmallUpstream
from pathlib import Path
import json
commits = [type("Commit", (), {"name": "x", "sha": sys.argv[3]})]
bench = Bench(SmallUpstream(Path(), Path(sys.argv[2]), [], commits, Path(), 0), Path(sys.argv[1]))
print(bench.key("x"))
"""
    words = [str(bench.builds), str(bench.upstream.repo), bench.commit(LATE).sha]
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == builder.key(bench.resolved(LATE).commit), done.stderr


# ---- building ---------------------------------------------------------------------------------------------


@builds
def test_a_build_and_its_record(bench: Bench) -> None:
    made = bench.provide(LATE, anew=True)
    assert made.built and made.build is not None
    bench.expect(LATE, made.environment)
    assert [step.total for step in bench.steps] == [bench.steps[-1].total] * len(bench.steps)
    record = made.build.record
    commit = bench.commit(LATE)
    assert (record["sha"], record["subject"], record["backend"]) == (commit.sha, commit.subject, "cpu")
    assert record["revision"] == commit.sha[:9]
    assert record["recipe"]["remedies"] == []
    assert record["recipe"]["options"]["MLX_BUILD_CPU"] == "ON"
    assert record["sources"].keys() == {"fmt", "json"}
    assert record["sources"]["fmt"]["ref"] == "1.0.0"
    assert len(record["sources"]["fmt"]["digest"]) == 64
    assert record["build_environment"].keys() >= {"setuptools", "cmake", "ninja"}
    assert record["toolchain"] == bench.provider().builder.toolchain.as_dict()
    assert record["walls"] == choose(Mode.AUTO).name
    assert record["jobs"] >= 1 and record["seconds"] > 0
    assert set(record["libraries"]) == set(libraries_of(made.build.wheel))
    assert (bench.builds / "logs" / record["log"]).read_text().count("Building CXX") > 0
    assert "overlooked" not in record
    assert Store(bench.builds).verify(made.build.key) == ""


@builds
def test_what_is_in_the_store_is_not_built_again(bench: Bench) -> None:
    made = bench.provide(LATE)
    log = bench.log_of(LATE)
    before = log.stat().st_mtime_ns
    again = bench.provide(LATE)
    assert not again.built and bench.steps == []
    assert made.build is not None and again.build is not None
    assert (again.build.key, again.build.wheel) == (made.build.key, made.build.wheel)
    assert again.environment.root == made.environment.root and not again.environment.created
    assert log.stat().st_mtime_ns == before
    # The environment is made from the wheel when it was dropped.
    shutil.rmtree(made.environment.root)
    anew = bench.provide(LATE, offline=True)
    assert anew.environment.created and not anew.built and bench.steps == []
    bench.expect(LATE, anew.environment)


@builds
def test_commits_of_one_key_are_one_build(bench: Bench) -> None:
    builds = {}
    for name in ("metal-header", "no-configure-mended", "metal-fences"):
        made = bench.provide(name)
        assert made.build is not None
        builds[name] = made.build.key
        bench.expect(name, made.environment)
        if name != "metal-header":
            assert not made.built and bench.steps == []
    assert len(set(builds.values())) == 1


@builds
def test_there_and_back_again_in_one_tree(bench: Bench) -> None:
    """Early and late, with different sources, setuptools and run paths: each commit gets its own."""
    for name, fmt in (("array-strides", "0.9.0"), (NEXT, "1.0.0"), ("bump-0.2.0", "0.9.0")):
        made = bench.provide(name, anew=True)
        assert made.built and made.build is not None
        bench.expect(name, made.environment)
        record = made.build.record
        assert record["sources"]["fmt"]["ref"] == fmt, name
        early = fmt == "0.9.0"
        assert [each["name"] for each in record["recipe"]["remedies"]] == ["old CMake policies"] * early
        assert any("old CMake policies" in line for line in bench.said) == early
        assert len([tree for tree in bench.trees if "-cp" in tree]) == 1, "one tree is kept"


@builds
def test_only_what_changed_is_compiled(bench: Bench) -> None:
    """From one commit to the next in the kept tree, by Ninja's own count."""
    bench.provide("quantized-tidy", anew=True)
    bench.provide("slow-down", anew=True)
    assert bench.compiled == {"quantized.cpp"}
    assert bench.steps[-1].total <= 5, "and it is linked and installed"
    bench.provide("python-utils", anew=True)
    assert bench.compiled == set(), "python alone"
    bench.provide("slow-down", anew=True)
    assert bench.compiled == set(), "back again"
    bench.provide("quantized-tidy", anew=True)
    assert bench.compiled == {"quantized.cpp"}


@builds
def test_the_python_of_a_commit_is_its_own(bench: Bench) -> None:
    """Setuptools packs what lies in its folder: nothing of the commit before may be there."""
    one = bench.provide("python-utils", anew=True)
    two = bench.provide("slow-down", anew=True)
    assert one.build is not None and two.build is not None
    for made, name in ((one, "python-utils"), (two, "slow-down")):
        assert made.build is not None
        show = ["git", "--git-dir", str(bench.upstream.repo), "show"]
        text = subprocess.run(
            [*show, f"{bench.commit(name).sha}:python/mlx/utils.py"], check=True, capture_output=True
        ).stdout
        with zipfile.ZipFile(made.build.wheel) as archive:
            assert archive.read("mlx/utils.py") == text


@builds
@pytest.mark.parametrize("name", ["bump-0.3.0", "fmt-1"], ids=["late", "early"])
def test_the_wheel_stands_alone(name: str, bench: Bench) -> None:
    """Upstream's own early wheels load ``libmlx`` by an absolute path into the build folder."""
    made = bench.provide(name)
    assert made.build is not None
    shutil.rmtree(bench.builds / "trees")
    bench.expect(name, made.environment)
    with zipfile.ZipFile(made.build.wheel) as archive:
        for library in made.build.record["libraries"]:
            content = archive.read(library)
            assert str(bench.builds).encode() not in content, f"{library} names the folder of builds"


def libraries_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if re.search(r"\.(so|dylib)$", name)]


@builds
@pytest.mark.parametrize("cached", [True, False], ids=["compile cache", "none"])
def test_two_folders_make_the_same_libraries(
    cached: bool, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled twice: neither has what the other compiled. A blank in the name of a folder does no harm."""
    one = bench.provide(LATE).build
    if not cached:
        which = shutil.which
        monkeypatch.setattr(shutil, "which", lambda name: None if name.endswith("ccache") else which(name))
    elif not shutil.which("ccache"):
        pytest.skip("there is no ccache")
    other = bench.beside(tmp_path / "a longer name", monkeypatch)
    two = other.provide(LATE).build
    assert other.steps
    assert one is not None and two is not None
    assert one.key == two.key
    assert one.record["libraries"] == two.record["libraries"]
    assert len(one.record["libraries"]) == 2


# ---- commits that fail ------------------------------------------------------------------------------------

FAILING = {
    "no-compile": ("compile", r"does not compile: mlx/backend/cpu/binary\.cpp:\d+:\d+: error: .*ArrayView"),
    "no-configure": ("configure", r"does not configure: CMake Error.*MLX needs a frobnicator"),
    "no-link": ("link", r"does not link: .*missing_kernel"),
    "import-aborts": ("import", r"packs but does not import: python was killed by SIGABRT"),
    "import-error": ("import", r"packs but does not import: .*mlx\.core is not for this machine"),
    "import-hangs": ("import", r"packs but does not import: python ran past its 3 s"),
}


@builds
@pytest.mark.parametrize("name", FAILING)
def test_a_commit_that_fails(name: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "IMPORT_TIMEOUT_S", 3 if name == "import-hangs" else 60)
    with gone_in_the_end(bench.builds / "trees"), pytest.raises(BuildFailed) as caught:
        bench.provide(name)
    problem = caught.value
    failure, line = FAILING[name]
    assert problem.failure == failure
    assert re.search(line, problem.line()), problem.line()
    assert problem.line().startswith(bench.commit(name).sha[:9]) and "\n" not in problem.line()
    assert problem.log is not None and problem.log.stat().st_size > 0
    assert str(problem.log) in problem.line()
    assert (problem.tail != "") == (failure != "import")
    key = bench.key(name)
    assert Store(bench.builds).stored().count(key) == 0
    assert not (bench.builds / "environments" / f"built-{key[:16]}").exists()
    assert bench.trees == [], "what failed is built upon by nobody"
    for lock in (f"build-{key[:16]}", f"built-{key[:16]}"):
        with held(bench.builds, lock, timeout_s=1, on_wait=lambda text: pytest.fail(text)):
            pass
    assert len([text for text in bench.said if "trying again" in text]) == 0


@builds
def test_after_one_that_fails_the_next_is_built(bench: Bench) -> None:
    with pytest.raises(BuildFailed):
        bench.provide("no-link")
    made = bench.provide("no-link-mended", anew=True)
    bench.expect("no-link-mended", made.environment)


@builds
def test_a_project_that_cannot_be_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = bench.provider()
    monkeypatch.setattr(provider.upstream, "read", lambda _sha, _path: b"[build-system")
    with pytest.raises(BuildFailed) as caught:
        provider.provide_commit(bench.resolved(LATE, provider))
    assert caught.value.failure == "configure"


# ---- trouble of the machine -------------------------------------------------------------------------------

KILLED = """#!/bin/sh
case "$*" in
*-c*/array.cpp*)
    if [ "{always}" ] || mkdir "{folder}/died" 2>/dev/null; then {death}; fi;;
esac
exec c++ "$@"
"""
SAID = "echo 'c++: fatal error: Killed signal terminated program cc1plus' >&2; exit 1"


def compiler_that_dies(
    bench: Bench, folder: Path, death: str, always: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a new tree, and without the compile cache, which starts a compiler again by itself."""
    shutil.rmtree(bench.builds / "trees", ignore_errors=True)
    monkeypatch.setattr(CompileCache, "find", lambda *_, **__: CompileCache((), {}))
    wrapper = folder / "c++-that-dies"
    wrapper.write_text(KILLED.format(folder=folder, death=death, always="yes" if always else ""))
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", str(wrapper))


@builds
def test_a_compiler_that_is_killed_is_started_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler_that_dies(bench, tmp_path, SAID, False, monkeypatch)
    # The wrapper lies where walls would hide it.
    made = bench.provide(LATE, sandbox=Unwalled("of this test"), jobs=4, options={"X": "once"})
    assert (tmp_path / "died").exists()
    bench.expect(LATE, made.environment)
    again = [text for text in bench.said if "trying again" in text]
    assert len(again) == 1
    assert "ran out of memory while it built" in again[0] and again[0].endswith("trying again with -j2")
    assert made.build is not None and made.build.record["jobs"] == 2


@builds
def test_a_compiler_that_is_always_killed_says_nothing_about_the_commit(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler_that_dies(bench, tmp_path, "kill -KILL $$", True, monkeypatch)
    with pytest.raises(MachineTrouble) as caught:
        bench.provide(LATE, sandbox=Unwalled("of this test"), jobs=4, options={"X": "always"})
    assert not isinstance(caught.value, BuildFailed)
    assert "ran out of memory while it built" in caught.value.line() and "-j" in caught.value.line()
    again = [text.rpartition(" ")[2] for text in bench.said if "trying again" in text]
    assert again == ["-j2", "-j1"]
    assert bench.trees == []


@builds
def test_a_build_that_takes_too_long(bench: Bench) -> None:
    with gone_in_the_end(bench.builds / "trees"), pytest.raises(BuildFailed) as caught:
        bench.provide("array-dtype", anew=True, timeout_s=1.0)
    assert caught.value.failure == "time"
    assert re.search(r"did not build in time: it ran past its \d+ s \(log: ", caught.value.line())
    assert bench.trees == []


@builds
def test_a_build_that_takes_too_much_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "MEMORY_SHARE", 0.0005)
    monkeypatch.setattr("bisect_tool.building.builder.TRIES", 1)
    with gone_in_the_end(bench.builds / "trees"), pytest.raises(MachineTrouble) as caught:
        bench.provide("array-dtype", anew=True)
    assert "ran out of memory while it built: it took more than its 0.0 GB" in caught.value.line()


def test_a_full_disk_before_it_is_full(small_disk: Path, bench: Bench) -> None:
    builder = dataclasses.replace(bench.provider().builder, builds=small_disk / "builds")
    with pytest.raises(DiskFull) as caught:
        build(builder, bench)
    line = caught.value.line()
    assert line.startswith(f"no room to build this: {small_disk}/builds has 0.0 GB free")
    assert re.search(r"a build takes up to \d\.\d GB; free .*cache prune.*--builds DIR$", line)
    assert bench.steps == []
    assert not (small_disk / "builds" / "trees").exists()


def build(builder: Builder, bench: Bench) -> None:
    commit = builder.upstream.commit(bench.commit(LATE).sha)
    builder.build(commit, label="this", trusted=True, accept=lambda _wheel, _log: None)


@builds
def test_a_disk_that_fills_up_while_it_builds(
    small_disk: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trees lie on the full disk, all else beside it."""
    monkeypatch.setattr("bisect_tool.building.builder.ROOM", dict.fromkeys(Backend, 0.0))
    key = bench.key("slow-down-fix")
    bench.forget(key)
    trees = bench.builds / "trees"
    shutil.rmtree(trees, ignore_errors=True)
    trees.mkdir()
    subprocess.run(["mount", "--bind", str(small_disk), str(trees)], check=True)
    try:
        free = shutil.disk_usage(small_disk).free
        with (small_disk / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - 400_000)
        with pytest.raises(DiskFull) as caught:
            bench.provide("slow-down-fix")
        assert (
            "ran out of disk while it built" in caught.value.line() or "No space left" in caught.value.line()
        )
        assert [name for name in bench.trees if "cp" in name] == []
        assert key not in Store(bench.builds).stored()
    finally:
        subprocess.run(["umount", "--lazy", str(trees)], check=True)
    bench.expect("slow-down-fix", bench.provide("slow-down-fix").environment)


@builds
def test_on_a_full_disk_no_commit_is_blamed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a program makes of it."""
    monkeypatch.setattr(Tree, "full", property(lambda _self: True))
    with pytest.raises(DiskFull, match="ran out of disk while it built"):
        bench.provide("no-configure")


@builds
def test_a_disk_that_fills_up_while_it_is_stored(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from bisect_tool.building import store

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.whl")

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_record", full)
        with pytest.raises(DiskFull):
            bench.provide("slow-down-fix", anew=True)
    assert bench.key("slow-down-fix") not in Store(bench.builds).stored()
    assert [path.name for path in (bench.builds / "wheels").glob(".*")] == []
    bench.expect("slow-down-fix", bench.provide("slow-down-fix").environment)


@builds
def test_a_source_that_cannot_be_had(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the commit's fault; and what was fetched once needs no mirror and no network."""
    bench.share_downloads(monkeypatch)
    other = Bench(bench.upstream, tmp_path / "builds")
    nowhere = [mirror for mirror in bench.upstream.mirrors if "json" not in mirror]
    bench.provide(LATE)  # what it needs of the package index is there
    with pytest.raises(SourceUnavailable) as caught:
        other.provide(LATE, offline=True, mirrors=Mirrors.parse(nowhere))
    assert "json" in caught.value.line()
    assert other.trees == []
    made = bench.provide(LATE, anew=True, offline=True, mirrors=Mirrors())
    assert made.built
    bench.expect(LATE, made.environment)


@builds
def test_interrupted(bench: Bench) -> None:
    """Ctrl-C while it compiles."""

    def interrupt(_step: object, _left: object) -> None:
        raise KeyboardInterrupt

    provider = bench.provider(jobs=1)
    provider.builder.watch.step = interrupt
    bench.forget(bench.key("gpu-eval"))
    with gone_in_the_end(bench.builds / "trees"), pytest.raises(KeyboardInterrupt):
        provider.provide_commit(bench.resolved("gpu-eval", provider))
    assert bench.trees == []
    assert bench.key("gpu-eval") not in Store(bench.builds).stored()


@builds
def test_nothing_of_our_environment_reaches_a_build(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither flags that would change what is measured, nor secrets."""
    shutil.rmtree(bench.builds / "trees", ignore_errors=True)  # flags count when a tree is new
    monkeypatch.setenv("CXXFLAGS", "--no-such-flag")
    monkeypatch.setenv("CMAKE_ARGS", "-DMLX_BUILD_CPU=OFF")
    monkeypatch.setenv("DEBUG", "1")
    monkeypatch.setenv("GITHUB_TOKEN", "secret-of-the-user")
    monkeypatch.setenv("PYTHONPATH", "/no/such/folder")
    made = bench.provide(LATE, anew=True)
    monkeypatch.undo()
    again = bench.provide(LATE, anew=True)
    assert made.build is not None and again.build is not None
    assert made.build.record["libraries"] == again.build.record["libraries"]
    assert "secret-of-the-user" not in bench.log_of(LATE).read_text()


@builds
def test_own_options_reach_cmake(bench: Bench) -> None:
    made = bench.provide(LATE, options={"CMAKE_SHARED_LINKER_FLAGS": "-Wl,-x"})
    assert made.build is not None
    assert made.build.record["recipe"]["options"]["CMAKE_SHARED_LINKER_FLAGS"] == "-Wl,-x"
    plain = bench.provide(LATE)
    assert plain.build is not None
    assert plain.build.key != made.build.key
    assert plain.build.record["libraries"] != made.build.record["libraries"]
    bench.expect(LATE, made.environment)


@builds
def test_without_walls_it_is_the_same(bench: Bench) -> None:
    walls()
    within = bench.provide(NEXT)
    key = bench.key(NEXT)
    libraries = within.build.record["libraries"] if within.build else {}
    without = bench.provide(NEXT, anew=True, sandbox=choose(Mode.OFF))
    assert without.build is not None and without.build.key == key
    assert without.build.record["libraries"] == libraries
    assert without.build.record["walls"] == "none"
    assert ask(without.environment) == ask(bench.provide(NEXT).environment)


def test_errors_are_ours(bench: Bench, tmp_path: Path) -> None:
    """A folder of builds that cannot be written."""
    (tmp_path / "builds").write_text("a file")
    builder = dataclasses.replace(bench.provider().builder, builds=tmp_path / "builds")
    with pytest.raises(ToolError, match=f"{tmp_path}/builds cannot be used"):
        build(builder, bench)


@builds
def test_options_of_one_build_do_not_reach_the_next(bench: Bench) -> None:
    """The tree is kept, and CMake's cache with it."""
    plain = bench.provide("python-utils", anew=True)
    odd = bench.provide("python-utils", anew=True, options={"CMAKE_SHARED_LINKER_FLAGS": "-Wl,-x"})
    again = bench.provide("python-utils", anew=True)
    libraries = [made.build.record["libraries"] for made in (plain, odd, again) if made.build]
    assert libraries[0] == libraries[2] != libraries[1]


@builds
def test_a_commit_is_not_blamed_for_what_a_kept_tree_says(bench: Bench) -> None:
    """The compiler that its cache names was moved."""
    bench.provide("slow-down", anew=True)
    (cache,) = (bench.builds / "trees").glob("*/build/temp*/*/CMakeCache.txt")
    text = cache.read_text()
    cache.write_text(re.sub(r"(CMAKE_CXX_COMPILER:\w+)=.*", r"\1=/no/such/compiler", text))
    for file in cache.parent.glob("CMakeFiles/*/CMakeCXXCompiler.cmake"):
        file.write_text(re.sub(r'(CMAKE_CXX_COMPILER) "[^"]*"', r'\1 "/no/such/compiler"', file.read_text()))
    made = bench.provide("python-utils", anew=True)
    bench.expect("python-utils", made.environment)
    assert bench.compiled != set(), "made anew"
