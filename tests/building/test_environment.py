"""Real uv throughout. Tests that need no download install small wheels made here, from a folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_mlx import GOOD, make_wheel, wait_for

from bisect_tool import process
from bisect_tool.building import making
from bisect_tool.building.backend import Backend
from bisect_tool.building.environment import (
    Environment,
    Interpreter,
    ensure,
    ensure_wheel,
    find_interpreter,
    remove,
)
from bisect_tool.building.sandbox import Mode, Sandbox, Unwalled, choose
from bisect_tool.errors import (
    DiskFull,
    EnvironmentBroken,
    IndexUnreachable,
    ToolMissing,
    UnknownRelease,
    UsageProblem,
)

FREE = Unwalled("a test")
HERE = Backend.METAL if sys.platform == "darwin" else Backend.CPU
# Says that it was reached, then waits to be let go: holds a maker in the middle of its work.
SLOW = GOOD + (
    "import os, time\n"
    "open(os.environ['GATE'] + '.reached', 'w').close()\n"
    "while not os.path.exists(os.environ['GATE']): time.sleep(0.02)\n"
)
CHILD = """
import json, sys
from pathlib import Path
from bisect_tool.building.environment import ensure, find_interpreter
from bisect_tool.building.sandbox import Unwalled
made = ensure("9.9.9", sys.argv[1], builds=Path(sys.argv[2]), interpreter=find_interpreter(),
              sandbox=Unwalled("it writes to its gate"),
              on_wait=lambda text: print(text, flush=True), run_env={"GATE": sys.argv[3]})
print(json.dumps({"created": made.created, "digest": made.wheel_digest}), flush=True)
"""


@pytest.fixture(scope="session")
def python() -> Interpreter:
    return find_interpreter()


@pytest.fixture(scope="session")
def walls() -> Sandbox:
    found = choose(Mode.AUTO)
    if not found.walled:
        pytest.skip(f"no walls here: {found.why}")
    return found


def nothing_left(builds: Path) -> bool:
    return not list((builds / "environments").iterdir())


def version_seen_by(environment: Environment) -> str:
    code = "import mlx.core as mx; print(mx.__version__)"
    done = process.run([environment.python, "-s", "-c", code], cwd=environment.root, env={}, timeout_s=60)
    return done.stdout.strip()


# --- made, found again, removed ---------------------------------------------------------------------


def test_made_once_then_found(wheels: Path, tmp_path: Path, python: Interpreter) -> None:
    make_wheel(wheels, GOOD)
    builds = tmp_path / "builds"
    first = ensure("9.9.9", HERE, builds=builds, interpreter=python)
    assert first.created and first.root == builds / "environments" / f"9.9.9-{HERE.value}-{python.abi}"
    assert first.packages == {"mlx": "9.9.9"} and first.mlx_version == "9.9.9"
    assert version_seen_by(first) == "9.9.9"
    launcher = [first.root / "bin" / "mlx.run"]
    assert process.run(launcher, timeout_s=60).stdout == "ran\n", "launchers survive the renaming"
    again = ensure("v9.9.9", HERE.value, builds=builds, interpreter=python)
    assert not again.created and again.seconds < 0.1
    assert (again.root, again.packages, again.wheel_digest) == (
        first.root,
        first.packages,
        first.wheel_digest,
    )
    remove(again)
    remove(again)
    assert nothing_left(builds)
    assert ensure("9.9.9", HERE, builds=builds, interpreter=python).created


def test_digest_tells_other_wheels_of_the_same_version(
    wheels: Path, tmp_path: Path, python: Interpreter
) -> None:
    digests = []
    for number, core in enumerate((GOOD, GOOD, GOOD + "different = 1\n")):
        make_wheel(wheels, core)
        digests.append(ensure("9.9.9", HERE, builds=tmp_path / str(number), interpreter=python).wheel_digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("damage", ["no record", "half a record", "no python", "other schema", "a file"])
def test_leftover_is_not_taken_for_an_environment(
    damage: str, wheels: Path, tmp_path: Path, python: Interpreter
) -> None:
    make_wheel(wheels, GOOD)
    builds = tmp_path / "builds"
    made = ensure("9.9.9", HERE, builds=builds, interpreter=python)
    record = made.root / "environment.json"
    if damage == "no record":
        record.unlink()
    elif damage == "half a record":
        record.write_text(record.read_text()[:40])
    elif damage == "no python":
        made.python.unlink()
        made.python.symlink_to(tmp_path / "uninstalled")
    elif damage == "other schema":
        record.write_text(record.read_text().replace('"schema": 1', '"schema": 0'))
    else:
        made.root.rename(tmp_path / "away")
        made.root.write_text("")
    (made.root.parent / f".{made.root.name}.123-abc.tmp" / "lib").mkdir(parents=True)
    again = ensure("9.9.9", HERE, builds=builds, interpreter=python)
    assert again.created and version_seen_by(again) == "9.9.9"
    assert [entry.name for entry in made.root.parent.iterdir()] == [made.root.name]


# --- several processes, and dying ones --------------------------------------------------------------

Starter = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts processes that make 9.9.9 in ``tmp_path/builds`` and stop at ``tmp_path/gate``."""
    started: list[subprocess.Popen[str]] = []

    def launch() -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", CHILD, HERE.value, str(tmp_path / "builds"), str(tmp_path / "gate")]
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        started.append(child)
        return child

    yield launch
    (tmp_path / "gate").touch()  # lets go whatever import is still held
    for child in started:
        child.kill()
        child.communicate()


@pytest.mark.usefixtures("wheels")
def test_two_at_once_one_makes_it(tmp_path: Path, wheels: Path, start: Starter) -> None:
    make_wheel(wheels, SLOW)
    maker = start()
    wait_for(tmp_path / "gate.reached")
    waiter = start()
    assert waiter.stdout is not None
    assert "waiting for another bisect_tool to finish making 9.9.9" in waiter.stdout.readline()
    (tmp_path / "gate").touch()
    made, used = (json.loads(child.communicate(timeout=60)[0]) for child in (maker, waiter))
    assert (made["created"], used["created"]) == (True, False)
    assert made["digest"] == used["digest"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_while_making(
    how: signal.Signals, tmp_path: Path, wheels: Path, python: Interpreter, start: Starter
) -> None:
    make_wheel(wheels, SLOW)
    builds = tmp_path / "builds"
    maker = start()
    wait_for(tmp_path / "gate.reached")
    maker.send_signal(how)
    assert maker.wait(30) != 0
    left = [entry.name for entry in (builds / "environments").iterdir()]
    assert all(name.startswith(".") for name in left)
    if how is signal.SIGINT:
        assert not left
    (tmp_path / "gate").touch()
    made = ensure(
        "9.9.9",
        HERE,
        builds=builds,
        interpreter=python,
        sandbox=FREE,
        run_env={"GATE": str(tmp_path / "gate")},
    )
    assert made.created
    assert [entry.name for entry in made.root.parent.iterdir()] == [made.root.name]


# --- walls around the first import ------------------------------------------------------------------


def test_first_import_is_within_walls(
    wheels: Path, tmp_path: Path, python: Interpreter, walls: Sandbox
) -> None:
    """Those there are, when none are named; what they stop works without them."""
    gate = tmp_path / "gate"
    with socket.create_server(("127.0.0.1", 0)) as server:
        core = f"""
import socket
open({str(gate)!r}, "w").close()
socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 5)
"""
        make_wheel(wheels, GOOD + core)
        for number, given in enumerate((None, walls)):
            builds = tmp_path / f"builds-{number}"
            with pytest.raises(EnvironmentBroken, match=r"does not import: .*ConnectionRefusedError"):
                ensure("9.9.9", HERE, builds=builds, interpreter=python, sandbox=given)
            assert nothing_left(builds) and not gate.exists()
        assert ensure("9.9.9", HERE, builds=tmp_path / "free", interpreter=python, sandbox=FREE).created
    assert gate.exists()


def test_first_import_cannot_change_the_environment(
    wheels: Path, tmp_path: Path, python: Interpreter, walls: Sandbox
) -> None:
    """What is measured is what was installed; its private home alone may be written to."""
    core = """
import pathlib
pathlib.Path.home().joinpath("kept").write_text("kept")
try:
    pathlib.Path(__file__).with_name("changed.py").write_text("")
except OSError:
    pass
"""
    make_wheel(wheels, GOOD + core)
    made = ensure("9.9.9", HERE, builds=tmp_path / "walled", interpreter=python, sandbox=walls)
    assert (made.root / "home" / "kept").read_text() == "kept"
    assert not list(made.root.rglob("changed.py"))
    made = ensure("9.9.9", HERE, builds=tmp_path / "free", interpreter=python, sandbox=FREE)
    assert len(list(made.root.rglob("changed.py"))) == 1


def test_variables_of_ours_do_not_reach_the_first_import(
    wheels: Path, tmp_path: Path, python: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "s3cret")
    make_wheel(wheels, GOOD + "import os\nassert 's3cret' not in os.environ.values(), 'seen'\n")
    assert ensure("9.9.9", HERE, builds=tmp_path / "builds", interpreter=python).created
    run_env = {"OTHER": "s3cret"}
    with pytest.raises(EnvironmentBroken, match="AssertionError: seen"):
        ensure("9.9.9", HERE, builds=tmp_path / "other", interpreter=python, run_env=run_env)


# --- wheels that were built here --------------------------------------------------------------------

KEY = "ab12" * 16


@pytest.mark.usefixtures("wheels")
def test_wheel_that_was_built_here(tmp_path: Path, python: Interpreter) -> None:
    """Nothing is asked of an index, and nothing else is installed, whatever the wheel wants."""
    store = tmp_path / "store"
    store.mkdir()
    wheel = make_wheel(store, GOOD, version="9.9.7.dev1+abc", requires="nonsense-that-is-nowhere")
    builds = tmp_path / "builds"

    def again() -> Environment:
        return ensure_wheel(wheel, KEY, "main (ab)", HERE, builds=builds, interpreter=python, sandbox=FREE)

    made = again()
    assert made.created and made.root == builds / "environments" / f"built-{KEY[:16]}"
    assert made.packages == {"mlx": "9.9.7.dev1+abc"} and made.mlx_version == "9.9.7.dev1+abc"
    assert (made.build, made.release) == (KEY, "9.9.7.dev1+abc")
    assert json.loads((made.root / "environment.json").read_text())["build"] == KEY
    found = again()
    assert not found.created and found.build == KEY and found.wheel_digest == made.wheel_digest
    # What uv unpacked can be had again from the store: it is kept apart from what was downloaded.
    assert (builds / "cache" / "unpacked").is_dir() and not (builds / "cache" / "uv").exists()
    remove(made)
    assert nothing_left(builds) and again().created


def test_release_and_build_of_one_version_are_two_environments(
    wheels: Path, tmp_path: Path, python: Interpreter
) -> None:
    wheel = make_wheel(wheels, GOOD)
    released = ensure("9.9.9", HERE, builds=tmp_path / "builds", interpreter=python)
    built = ensure_wheel(
        wheel, KEY, "v9.9.9", HERE, builds=tmp_path / "builds", interpreter=python, sandbox=FREE
    )
    assert built.root != released.root and (released.build, built.build) == ("", KEY)
    assert built.wheel_digest == released.wheel_digest, "their contents are the same"


@pytest.mark.usefixtures("wheels")
def test_wheel_that_was_built_here_and_does_not_import(tmp_path: Path, python: Interpreter) -> None:
    wheel = make_wheel(tmp_path, "raise ImportError('libmlx.so: undefined symbol: x')\n")
    with pytest.raises(
        EnvironmentBroken, match=r"main \(ab\) does not import: .*undefined symbol: x"
    ) as caught:
        ensure_wheel(
            wheel, KEY, "main (ab)", HERE, builds=tmp_path / "builds", interpreter=python, sandbox=FREE
        )
    assert "choose another release" not in str(caught.value), "there is none to choose"
    assert nothing_left(tmp_path / "builds")


def test_use_of_an_environment_is_remembered(wheels: Path, tmp_path: Path, python: Interpreter) -> None:
    """What was used last is pruned last."""
    make_wheel(wheels, GOOD)
    made = ensure("9.9.9", HERE, builds=tmp_path / "builds", interpreter=python)
    record = made.root / "environment.json"
    os.utime(record, (1e9, 1e9))
    ensure("9.9.9", HERE, builds=tmp_path / "builds", interpreter=python)
    assert abs(record.stat().st_mtime - time.time()) < 60


# --- wheels that are no good ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("core", "says"),
    [
        (
            "import os, sys\nsys.stderr.write('terminate called after throwing\\n  what():  no device\\n')\n"
            "sys.stderr.flush()\nos.abort()\n",
            r"killed by SIGABRT, saying: what\(\): +no device",
        ),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "killed by SIGSEGV"),
        ("raise ImportError('libmlx.so: cannot open')\n", "ImportError: libmlx.so: cannot open"),
        ("__version__ = 1\nprint('hello')\nimport os; os._exit(0)\n", "did not report its version"),
        ("import time\ntime.sleep(60)\n", "ran past its"),
    ],
)
def test_import_that_fails_or_aborts(
    core: str,
    says: str,
    wheels: Path,
    tmp_path: Path,
    python: Interpreter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_wheel(wheels, core)
    monkeypatch.setattr(making, "IMPORT_TIMEOUT_S", 3)
    with pytest.raises(EnvironmentBroken, match=says) as caught:
        ensure("9.9.9", HERE, builds=tmp_path / "builds", interpreter=python)
    assert "\n" not in str(caught.value)
    assert nothing_left(tmp_path / "builds")


def test_mlx_from_elsewhere_is_noticed(wheels: Path, tmp_path: Path, python: Interpreter) -> None:
    make_wheel(wheels, GOOD)
    other = tmp_path / "other" / "mlx"
    other.mkdir(parents=True)
    (other / "core.py").write_text(GOOD)
    run_env = {"PYTHONPATH": str(other.parent)}
    says = rf"loaded {other}/core\.py, which is not of this environment; unset PYTHONPATH"
    with pytest.raises(EnvironmentBroken, match=says):
        ensure("9.9.9", HERE, builds=tmp_path / "builds", interpreter=python, sandbox=FREE, run_env=run_env)
    assert nothing_left(tmp_path / "builds")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux lists what is mapped under the file's own name")
def test_library_from_elsewhere_is_noticed(wheels: Path, tmp_path: Path, python: Interpreter) -> None:
    """A run path into another build's folder, in a wheel whose module is its own."""
    library = tmp_path / "other" / "mlx" / "lib" / "libmlx.so"
    library.parent.mkdir(parents=True)
    mapped = {line.split(None, 5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    shutil.copyfile(next(name for name in mapped if "/libm." in name or "/libm-" in name), library)
    make_wheel(wheels, GOOD + f"import ctypes\nctypes.CDLL({str(library)!r})\n")
    with pytest.raises(EnvironmentBroken, match=rf"loaded {library}, which is not of this environment"):
        ensure("9.9.9", HERE, builds=tmp_path / "builds", interpreter=python, sandbox=FREE)


def test_our_own_surroundings_do_not_reach_it(
    wheels: Path, tmp_path: Path, python: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(wheels, GOOD)
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "core.py").write_text("raise RuntimeError('a source tree')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("UV_SYSTEM_PYTHON", "1")
    monkeypatch.setenv("UV_VENV_SEED", "1")  # would put pip, setuptools and wheel into it
    made = ensure("9.9.9", HERE, builds=tmp_path / "builds", interpreter=python)
    assert made.packages == {"mlx": made.mlx_version} == {"mlx": "9.9.9"}


def test_corrupt_wheel(wheels: Path, tmp_path: Path, python: Interpreter) -> None:
    path = make_wheel(wheels, GOOD)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(EnvironmentBroken, match=r"its wheel is broken: .*zip.*log: ") as caught:
        ensure("9.9.9", HERE, builds=tmp_path / "builds", interpreter=python)
    assert caught.value.log is not None and "zip" in caught.value.log.read_text()
    assert nothing_left(tmp_path / "builds")


@pytest.mark.skipif(HERE is Backend.METAL, reason="Metal comes without an extra")
def test_release_without_the_backend(wheels: Path, tmp_path: Path, python: Interpreter) -> None:
    make_wheel(wheels, GOOD, extra=False)
    with pytest.raises(UnknownRelease, match="does not have an extra named `cpu`"):
        ensure("9.9.9", HERE, builds=tmp_path / "builds", interpreter=python)
    assert nothing_left(tmp_path / "builds")


# --- the index --------------------------------------------------------------------------------------


def test_index_does_not_answer(tmp_path: Path, python: Interpreter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(IndexUnreachable, match=r"refused.*UV_DEFAULT_INDEX"):
        ensure("0.32.4", HERE, builds=tmp_path, interpreter=python)
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("by_variable", [True, False])
def test_offline_with_an_empty_cache(
    by_variable: bool, tmp_path: Path, python: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    if by_variable:
        monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(IndexUnreachable, match="not in uv's cache"):
        ensure("0.32.4", HERE, builds=tmp_path, interpreter=python, offline=not by_variable)


def test_unknown_release_that_cannot_be_explained(wheels: Path, tmp_path: Path, python: Interpreter) -> None:
    make_wheel(wheels, GOOD)
    with pytest.raises(UnknownRelease, match=r"9.9.8 has no wheel for the .*no version of mlx"):
        ensure("9.9.8", HERE, builds=tmp_path / "builds", interpreter=python)


def test_what_is_no_version_and_no_backend(tmp_path: Path, python: Interpreter) -> None:
    with pytest.raises(UsageProblem, match="'main' is not a release"):
        ensure("main", HERE, builds=tmp_path, interpreter=python)
    with pytest.raises(UsageProblem, match="'rocm' is not a backend; choose one of metal, "):
        ensure("0.32.4", "rocm", builds=tmp_path, interpreter=python)


@pytest.mark.parametrize("spec", ["3.99", "/nonexistent/python"])
def test_interpreter_that_is_not_there(spec: str) -> None:
    with pytest.raises(ToolMissing, match="there is no Python"):
        find_interpreter(spec)


# --- the disk ---------------------------------------------------------------------------------------


def test_disk_fills_up_while_installing(
    small_disk: Path, wheels: Path, python: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(wheels, GOOD, ballast_mib=64)
    monkeypatch.setattr(making, "ROOM_MIB", 0)
    with pytest.raises(DiskFull, match=r"No space left.*--builds DIR.*log: "):
        ensure("9.9.9", HERE, builds=small_disk, interpreter=python)
    assert nothing_left(small_disk)


def test_disk_that_is_full_already(small_disk: Path, wheels: Path, python: Interpreter) -> None:
    make_wheel(wheels, GOOD)
    with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(bytes(4096))
    with pytest.raises(DiskFull, match="--builds DIR"):
        ensure("9.9.9", HERE, builds=small_disk, interpreter=python)


def test_little_room_is_enough_for_what_needs_no_download(
    small_disk: Path, wheels: Path, python: Interpreter
) -> None:
    make_wheel(wheels, GOOD)
    assert ensure("9.9.9", HERE, builds=small_disk, interpreter=python).created


def test_builds_cannot_be_written(small_disk: Path, python: Interpreter) -> None:
    process.run(["mount", "-o", "remount,ro", str(small_disk)], timeout_s=10)
    with pytest.raises(EnvironmentBroken, match=r"Read-only file system.*--builds DIR"):
        ensure("9.9.9", HERE, builds=small_disk / "builds", interpreter=python)


def test_builds_below_a_file(tmp_path: Path, python: Interpreter) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentBroken, match=r"Not a directory.*--builds DIR"):
        ensure("9.9.9", HERE, builds=tmp_path / "file" / "builds", interpreter=python)


# --- real wheels ------------------------------------------------------------------------------------


@pytest.mark.real
def test_real_release(wheel_builds: Path, python: Interpreter) -> None:
    made = ensure("0.32.4", HERE, builds=wheel_builds, interpreter=python)
    assert made.packages["mlx"] == made.mlx_version == version_seen_by(made) == "0.32.4"
    assert set(made.packages) == ({"mlx", "mlx-metal"} if HERE is Backend.METAL else {"mlx", "mlx-cpu"})
    remove(made)
    cached = ensure("0.32.4", HERE, builds=wheel_builds, interpreter=python)
    assert cached.created and cached.seconds < 2, "with its wheels in uv's cache"
    assert cached.wheel_digest == made.wheel_digest
    assert not ensure("0.32.4", HERE, builds=wheel_builds, interpreter=python).created


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="hard links are made on Linux, clones on macOS")
def test_files_are_shared_with_the_cache(wheel_builds: Path, python: Interpreter) -> None:
    made = ensure("0.32.4", HERE, builds=wheel_builds, interpreter=python)
    (library,) = made.root.rglob("libmlx.so")
    assert library.stat().st_nlink >= 2


@pytest.mark.real
def test_release_from_before_the_split(wheel_builds: Path, python: Interpreter) -> None:
    made = ensure("0.21.1", HERE, builds=wheel_builds, interpreter=python)
    assert list(made.packages) == ["mlx"] and version_seen_by(made) == "0.21.1"


@pytest.mark.real
def test_unknown_release_names_those_that_exist(wheel_builds: Path, python: Interpreter) -> None:
    with pytest.raises(UnknownRelease) as caught:
        ensure("0.30.2", HERE, builds=wheel_builds, interpreter=python)
    line = str(caught.value)
    assert f"mlx 0.30.2 has no wheel for the {HERE.value} backend with CPython {python.version}" in line
    assert python.platform in line and " in all)" in line
    newest, nearest = line.split("the nearest ")
    assert "0.32.4" in newest
    assert "0.30.3" in nearest and "0.30.1" in nearest


@pytest.mark.real
def test_no_room_for_a_download(
    small_disk: Path, python: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    with pytest.raises(DiskFull, match=r"no room for mlx 0.32.4.* MiB free and it takes up to 300 MiB"):
        ensure("0.32.4", HERE, builds=small_disk, interpreter=python)
