"""Build environments, made by real uv: from wheels, and from small repositories that are packed first."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_builds import Bench
from small_upstream import Importer

from bisect_tool.building.build_environment import PASSED, BuildEnvironment, Maker, build_variables
from bisect_tool.building.environment import find_interpreter
from bisect_tool.building.locks import held
from bisect_tool.building.sandbox import Mode, choose
from bisect_tool.errors import BuildFailed, DiskFull, EnvironmentBroken, IndexUnreachable, SourceUnavailable
from bisect_tool.upstream.mirrors import Mirrors

pytestmark = pytest.mark.builds

HOST = "https://small.example"
# What commits of the small upstream ask for, so that it is here anyway.
SETUPTOOLS = "setuptools>=80"
PROJECT = '[build-system]\nrequires = [{wanted}]\nbuild-backend = "setuptools.build_meta"\n'
SETUP = """\
import os, pathlib
for path in ("/usr/stranger", pathlib.Path.cwd().parents[2] / "stranger"):
    try:
        pathlib.Path(path).write_text("was here")
    except OSError as error:
        print("stopped:", error)
print("token:", os.environ.get("GITHUB_TOKEN"))
from setuptools import setup
setup(name="{name}", version="1.0", py_modules=["{name}"])
"""


@pytest.fixture
def repository(tmp_path: Path) -> Callable[..., str]:
    """Makes a repository of a package, and returns the requirement that asks for it."""

    def made(name: str, *requires: str, **files: str) -> str:
        importer = Importer()
        wanted = ", ".join(f'"{each}"' for each in (SETUPTOOLS, *requires))
        texts = {
            "pyproject.toml": PROJECT.format(wanted=wanted),
            "setup.py": SETUP.format(name=name),
            f"{name}.py": "answer = 42\n",
            **files,
        }
        importer.commit("one", "refs/heads/main", name, 1_700_000_000, [], texts, {})
        sha = importer.write(tmp_path / "repositories" / name)["one"]
        return f"{name} @ git+{HOST}/{name}.git@{sha}"

    return made


@pytest.fixture
def maker(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Maker]:
    bench.share_downloads(monkeypatch)

    def made(**changes: Any) -> Maker:
        names = sorted(path.name for path in (tmp_path / "repositories").glob("*"))
        settings: dict[str, Any] = {
            "builds": tmp_path / "builds",
            "interpreter": find_interpreter(None),
            "sandbox": choose(Mode.AUTO),
            "mirrors": Mirrors.parse([f"{HOST}/{name}={tmp_path}/repositories/{name}" for name in names]),
            "subject": "548dd80e8",
        }
        return Maker(**settings | changes)

    return made


def left(builds: Path) -> list[str]:
    return sorted(path.name for path in (builds / "build-environments").glob("*"))


def imported(made: BuildEnvironment, name: str) -> str:
    words = [str(made.python), "-c", f"import {name}; print({name}.__file__)"]
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd="/").stdout.strip()


def test_one_per_set_of_requirements(maker: Callable[..., Maker], tmp_path: Path) -> None:
    phases: list[str] = []
    one = maker(on_phase=phases.append).ensure((SETUPTOOLS, "typing_extensions"))
    assert one.packages.keys() == {"setuptools", "typing_extensions"}
    assert imported(one, "setuptools").startswith(str(one.root))
    assert phases == ["making a build environment: setuptools>=80, typing_extensions"]
    offline = maker(on_phase=phases.append, offline=True)
    assert offline.ensure(("typing_extensions", SETUPTOOLS)) == one, "in whatever order"
    other = offline.ensure((SETUPTOOLS,))
    assert other.root != one.root and other.packages.keys() == {"setuptools"}
    assert len(phases) == 2
    assert len(left(tmp_path / "builds")) == 2


@pytest.mark.parametrize("damage", ["no record", "half a record", "other schema", "no python"])
def test_a_leftover_is_made_anew(damage: str, maker: Callable[..., Maker], tmp_path: Path) -> None:
    made = maker().ensure((SETUPTOOLS,))
    record = made.root / "build-environment.json"
    (made.root / "stale").touch()
    if damage == "no record":
        record.unlink()
    elif damage == "half a record":
        record.write_text(record.read_text()[:20])
    elif damage == "other schema":
        record.write_text(record.read_text().replace('"schema": 1', '"schema": 0'))
    else:
        made.python.unlink()
    (made.root.parent / f".{made.root.name}.123-abc.tmp").mkdir()
    again = maker(offline=True).ensure((SETUPTOOLS,))
    assert again == made and not (again.root / "stale").exists()
    assert left(tmp_path / "builds") == [made.root.name]


def test_another_tool_makes_it(maker: Callable[..., Maker], tmp_path: Path) -> None:
    made = maker().ensure((SETUPTOOLS,))
    (made.root / "build-environment.json").rename(tmp_path / "aside")
    said: list[str] = []

    def while_we_wait(text: str) -> None:
        said.append(text)
        (tmp_path / "aside").rename(made.root / "build-environment.json")
        lock.__exit__(None, None, None)

    lock = held(tmp_path / "builds", made.root.name)
    lock.__enter__()
    assert maker(on_wait=while_we_wait, offline=True).ensure((SETUPTOOLS,)) == made
    assert said == ["waiting for another bisect_tool to finish making a build environment"]


def test_a_git_requirement_is_packed_behind_walls(
    maker: Callable[..., Maker],
    repository: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = repository("packed")
    monkeypatch.setenv("GITHUB_TOKEN", "secret-of-the-user")
    with_it = maker()
    made = with_it.ensure((SETUPTOOLS, wanted))
    assert made.packages["packed"] == "1.0"
    assert imported(made, "packed").startswith(str(made.root))
    assert not (made.root / "wheels").exists()
    log = (tmp_path / "builds" / "logs" / f"{made.root.name}.log").read_text()
    assert "token: None" in log and "secret-of-the-user" not in log
    if with_it.sandbox.walled:
        assert "stopped: " in log
        assert not Path("/usr/stranger").exists()
        assert not list((tmp_path / "builds").rglob("stranger"))


def test_two_git_requirements(maker: Callable[..., Maker], repository: Callable[..., str]) -> None:
    wanted = [repository("packed"), repository("other")]
    assert maker().ensure((SETUPTOOLS, *wanted)).packages.keys() == {"setuptools", "packed", "other"}


def test_a_git_requirement_that_does_not_pack(
    maker: Callable[..., Maker], repository: Callable[..., str], tmp_path: Path
) -> None:
    wanted = repository("broken", **{"setup.py": "raise RuntimeError('not today')\n"})
    with pytest.raises(BuildFailed) as caught:
        maker().ensure((SETUPTOOLS, wanted))
    line = caught.value.line()
    assert line.startswith("548dd80e8 does not configure: broken ")
    assert "does not pack: RuntimeError: not today" in line and caught.value.failure == "configure"
    assert caught.value.log is not None and caught.value.log.exists()
    assert not [name for name in left(tmp_path / "builds") if name.startswith(".")]


def test_a_wheel_that_is_a_link_is_not_taken(
    maker: Callable[..., Maker], repository: Callable[..., str]
) -> None:
    backend = (
        "import os\ndef build_wheel(folder, *_):\n    name = 'linked-1.0-py3-none-any.whl'\n"
        "    os.symlink('/etc/hostname', os.path.join(folder, name))\n    return name\n"
    )
    project = '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
    wanted = repository("linked", **{"own.py": backend, "pyproject.toml": project})
    with pytest.raises(BuildFailed, match=r"linked .* does not pack"):
        maker().ensure((SETUPTOOLS, wanted))


def test_requirements_do_not_go_on_for_ever(
    maker: Callable[..., Maker], repository: Callable[..., str]
) -> None:
    wanted = repository("one", repository("two", repository("three")))
    with pytest.raises(BuildFailed, match=r"three @ .* asks for too much else"):
        maker().ensure((SETUPTOOLS, wanted))


def test_a_git_requirement_is_no_way_to_an_option(
    maker: Callable[..., Maker], repository: Callable[..., str]
) -> None:
    wanted = repository("sly", "--no-binary=:all:")
    with pytest.raises(BuildFailed, match="'--no-binary=:all:' is no requirement"):
        maker().ensure((SETUPTOOLS, wanted))


def test_a_git_requirement_that_cannot_be_had(maker: Callable[..., Maker], tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable):
        maker(offline=True).ensure((SETUPTOOLS, f"absent @ git+{HOST}/absent.git@{'1' * 40}"))
    assert not [name for name in left(tmp_path / "builds") if name.startswith(".")]


def test_a_release_that_nobody_has(maker: Callable[..., Maker]) -> None:
    with pytest.raises(BuildFailed) as caught:
        maker().ensure(("setuptools==99999",))
    line = caught.value.line()
    assert line.startswith("the build environment of 548dd80e8 could not be made: ")
    assert "setuptools==99999" in line and "--python VERSION" in line
    assert caught.value.failure == "configure"


def test_offline(maker: Callable[..., Maker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(IndexUnreachable):
        maker(offline=True).ensure((SETUPTOOLS,))


def test_an_index_that_does_not_answer(
    maker: Callable[..., Maker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(IndexUnreachable, match="UV_DEFAULT_INDEX"):
        maker().ensure((SETUPTOOLS,))
    assert left(tmp_path / "builds") == []


def test_a_full_disk(small_disk: Path, maker: Callable[..., Maker]) -> None:
    with (small_disk / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, os.statvfs(small_disk).f_bavail * 4096 - 1_000_000)
    with pytest.raises(DiskFull):
        maker(builds=small_disk / "builds").ensure((SETUPTOOLS,))
    assert left(small_disk / "builds") == []


def test_a_folder_that_cannot_be_written(maker: Callable[..., Maker], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentBroken, match=f"{tmp_path}/file cannot be used"):
        maker(builds=tmp_path / "file").ensure((SETUPTOOLS,))


def test_what_a_build_knows_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_TOKEN", "CXXFLAGS", "PYTHONPATH", "CMAKE_ARGS", "SSH_AUTH_SOCK", "DEBUG", *PASSED):
        monkeypatch.setenv(name, f"of {name}")
    monkeypatch.setenv("PATH", "/my/bin")
    given = build_variables(BuildEnvironment(tmp_path, {}), tmp_path / "home")
    assert given.keys() == {
        *PASSED,
        *("PATH", "HOME", "VIRTUAL_ENV", "PYTHONNOUSERSITE", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"),
    }
    assert given["PATH"] == f"{tmp_path}/bin:/my/bin"
    assert given["HOME"] == str(tmp_path / "home")
    assert given["CXX"] == "of CXX"
