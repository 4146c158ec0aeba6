"""What is put before the compiler, and what it saves."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from small_builds import Bench

from bisect_tool.building.compile_cache import CompileCache


def there(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/bin/{name}" if name in programs else None)


def test_ccache_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there(monkeypatch, "ccache", "sccache")
    found = CompileCache.find(tmp_path, writable=True, scratch=tmp_path / "home")
    assert found.launcher == ("env", f"CCACHE_BASEDIR={tmp_path}", "CCACHE_NOHASHDIR=1", "/opt/bin/ccache")
    folder = tmp_path / "cache" / "ccache"
    assert found.variables["CCACHE_DIR"] == str(folder)
    assert found.variables["CCACHE_TEMPDIR"] == str(tmp_path / "home")
    assert found.write == (folder,) and folder.is_dir()
    assert found.read == (Path("/opt/bin/ccache"),)
    assert found.flags == ()
    assert "CCACHE_READONLY" not in found.variables


def test_a_stranger_may_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there(monkeypatch, "ccache")
    found = CompileCache.find(tmp_path, writable=False, scratch=tmp_path)
    assert found.write == ()
    assert tmp_path / "cache" / "ccache" in found.read
    assert (found.variables["CCACHE_READONLY"], found.variables["CCACHE_NOSTATS"]) == ("1", "1")


def test_sccache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there(monkeypatch, "sccache")
    found = CompileCache.find(tmp_path, writable=True, scratch=tmp_path)
    assert found.launcher == ("/opt/bin/sccache",)
    assert found.write == (tmp_path / "cache" / "sccache",)
    # It has no way to be read alone.
    stranger = CompileCache.find(tmp_path, writable=False, scratch=tmp_path)
    assert (stranger.launcher, stranger.write, stranger.read) == ((), (), ())


def test_without_one_the_compiler_leaves_our_folder_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there(monkeypatch)
    builds = tmp_path / "my builds"
    found = CompileCache.find(builds, writable=True, scratch=tmp_path)
    assert (found.launcher, found.read, found.write) == ((), (), ())
    assert shlex.split(" ".join(found.flags)) == [f"-ffile-prefix-map={builds}=builds"]


def test_what_that_compiler_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in every folder, names of files and all."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no compiler")
    there(monkeypatch)
    written = []
    for name in ("a", "a longer name"):
        builds = tmp_path / name
        tree = builds / "trees" / "cpu"
        (tree / "build").mkdir(parents=True)
        (tree / "x.cpp").write_text("const char* file() { return __FILE__; }\n")
        flags = " ".join(CompileCache.find(builds, writable=True, scratch=tmp_path).flags)
        command = f"{compiler} -g {flags} -c {shlex.quote(str(tree / 'x.cpp'))} -o x.o"
        subprocess.run(command, shell=True, check=True, cwd=tree / "build")
        written.append((tree / "build" / "x.o").read_bytes())
    assert written[0] == written[1]


# ---- the real one -----------------------------------------------------------------------------------------


def counted(builds: Path) -> tuple[int, int]:
    """Hits and misses so far."""
    done = subprocess.run(
        ["ccache", "--print-stats"],
        env={"CCACHE_DIR": str(builds / "cache" / "ccache"), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        check=True,
        capture_output=True,
        text=True,
    )
    said = {name: int(count) for name, count in (line.split("\t") for line in done.stdout.splitlines())}
    return said["direct_cache_hit"] + said["preprocessed_cache_hit"], said["cache_miss"]


@pytest.mark.builds
def test_hits_across_folders(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one folder of builds compiled, another with its cache does not compile again."""
    if not shutil.which("ccache"):
        pytest.skip("there is no ccache")
    one = bench.provide("common-load", anew=True)
    other = bench.beside(tmp_path / "with another name", monkeypatch)
    shutil.copytree(bench.builds / "cache" / "ccache", other.builds / "cache" / "ccache")
    hits, misses = counted(other.builds)
    two = other.provide("common-load")
    assert len(other.compiled) > 5
    after = counted(other.builds)
    assert after[0] - hits >= len(other.compiled)
    assert after[1] == misses
    assert one.build is not None and two.build is not None
    assert one.build.record["libraries"] == two.build.record["libraries"]
    other.expect("common-load", two.environment)
