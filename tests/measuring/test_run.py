"""One run at a time, in a real environment: whatever a script does, a record comes of it.

Within walls and without them; where there can be none, those runs say so and are skipped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from bisect_tool.building.backend import Backend
from bisect_tool.building.environment import Environment, ensure, find_interpreter
from bisect_tool.building.sandbox import Mode, Sandbox, Unwalled, choose
from bisect_tool.errors import DiskFull, UsageProblem
from bisect_tool.measuring import child_env, run
from bisect_tool.measuring.run import Script, check_arguments, run_once, wrong_mlx

pytestmark = pytest.mark.real
HERE = Backend.METAL if sys.platform == "darwin" else Backend.CPU
MEASURE = """
import json, mlx.core as mx
value = mx.sum(mx.ones((10,))).item()
print(json.dumps({"metric": "sum", "value": value, "unit": "1"}))
"""
Runner = Callable[..., "dict[str, Any]"]


@pytest.fixture(scope="module")
def environment(wheel_builds: Path) -> Environment:
    return ensure("0.32.4", HERE, builds=wheel_builds, interpreter=find_interpreter())


@pytest.fixture(scope="module")
def other(wheel_builds: Path) -> Environment:
    return ensure("0.32.3", HERE, builds=wheel_builds, interpreter=find_interpreter())


@pytest.fixture(scope="session")
def walls() -> Sandbox:
    found = choose(Mode.AUTO)
    if not found.walled:
        pytest.skip(f"no walls here: {found.why}")
    return found


def runner(environment: Environment, sandbox: Sandbox, folder: Path) -> Runner:
    """Runs a script's text once, as ``script.py`` of a folder, and returns the record."""

    def go(
        code: str, *args: str, env: dict[str, str] | None = None, place: Path = folder, **options: Any
    ) -> dict[str, Any]:
        file = place / "script.py"
        file.write_text(code)
        given: dict[str, Any] = {"timeout_s": 60, "log": folder / "logs" / "run.log", **options}
        return run_once(
            environment,
            Script.load(file, args),
            sandbox=sandbox,
            seed=1,
            env={**child_env.child_environment(environment.root / "home"), **(env or {})},
            running=folder / "running",
            **given,
        )

    return go


@pytest.fixture(params=["walls", "no walls"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    found = request.getfixturevalue("walls") if request.param == "walls" else Unwalled("a test")
    assert isinstance(found, Sandbox)
    return found


@pytest.fixture
def once(environment: Environment, sandbox: Sandbox, tmp_path: Path) -> Runner:
    """Both ways: what comes of a script does not depend on walls."""
    return runner(environment, sandbox, tmp_path)


@pytest.fixture
def walled(environment: Environment, walls: Sandbox, tmp_path: Path) -> Runner:
    return runner(environment, walls, tmp_path)


@pytest.fixture
def free(environment: Environment, tmp_path: Path) -> Runner:
    """For scripts that reach out of their folder."""
    return runner(environment, Unwalled("a test"), tmp_path)


def test_ok(once: Runner, environment: Environment, tmp_path: Path) -> None:
    record = once(MEASURE + "import sys; print('to the log', file=sys.stderr)")
    assert (record["outcome"], record["reason"], record["exit_code"]) == ("ok", "", 0)
    assert record["metrics"] == [{"metric": "sum", "value": 10.0, "unit": "1"}]
    assert record["mlx"] == "0.32.4"
    assert record["module"].startswith(str(environment.root.resolve()))
    assert "to the log" in (tmp_path / "logs" / "run.log").read_text()
    assert not (tmp_path / "running").exists()
    json.dumps(record, allow_nan=False)


def test_script_runs_as_if_started_by_hand(once: Runner, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("NAME = 'beside'\n")
    code = """
import json, os, sys, beside
names = [os.path.basename(name) for name in (__file__, sys.argv[0])]
told = [__name__, names, sys.argv[1:], os.getcwd(), beside.NAME]
print(json.dumps({"metric": json.dumps(told), "value": 1}))
"""
    record = once(code, "a", "--json", "5", "--")
    told = json.loads(record["metrics"][0]["metric"])
    names = ["script.py", "script.py"]
    assert told == ["__main__", names, ["a", "--json", "5", "--"], str(tmp_path), "beside"]


@pytest.mark.parametrize(
    ("code", "outcome", "reason"),
    [
        ("", "good", ""),
        ("raise SystemExit(1)", "bad", "exited with 1"),
        ("raise SystemExit('too slow')", "bad", "exited with 1: too slow"),
        ("raise SystemExit(124)", "bad", "exited with 124"),
        ("raise SystemExit(125)", "skip", "exited with 125"),
        ("raise SystemExit(126)", "failed", "exited with 126"),
        ("raise SystemExit(255)", "failed", "exited with 255"),
        ("raise ValueError('no')", "bad", "exited with 1: ValueError: no"),
        ("import os; os.abort()", "failed", "was killed by SIGABRT"),
        ("import os; os._exit(0)", "good", ""),
        ("import os; os.closerange(3, 99)", "good", ""),
    ],
)
def test_script_that_prints_nothing(once: Runner, code: str, outcome: str, reason: str) -> None:
    record = once(code)
    assert (record["outcome"], record["reason"]) == (outcome, reason)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"metric": "t", "value": NaN}', "printed metric 't' with the value nan"),
        ('{"metric": "t", "value": Infinity}', "printed metric 't' with the value inf"),
        ('{"metric": "t", "val', "printed half a line: "),
        ('{"kind": "case", "case": {}, "time_s": 1}\n', "printed a case whose K is None"),
    ],
)
def test_script_that_prints_no_number(once: Runner, line: str, reason: str) -> None:
    record = once(f"import sys; sys.stdout.write({line!r})")
    assert record["outcome"] == "failed" and record["reason"].startswith(reason)
    json.dumps(record, allow_nan=False)


def test_metric_and_an_error_at_the_end(once: Runner) -> None:
    record = once(MEASURE + "import sys; sys.exit('but then')")
    assert (record["outcome"], record["reason"]) == ("failed", "exited with 1: but then")


def test_hangs(once: Runner) -> None:
    started = time.monotonic()
    record = once("import time; print('waiting', flush=True); time.sleep(60)", timeout_s=0.7)
    assert time.monotonic() - started < 5
    assert (record["outcome"], record["reason"]) == ("failed", "ran past its 1 s: waiting")


DYING = "import mlx.core, os, sys; sys.stderr.write({words!r}); sys.stderr.flush(); {end}"


def test_killed(once: Runner) -> None:
    record = once(DYING.format(words="last words\n", end="os.kill(os.getpid(), 9)"))
    assert (record["outcome"], record["reason"]) == ("failed", "was killed by SIGKILL: last words")
    assert record["exit_code"] == -signal.SIGKILL


def test_mlx_that_aborts(once: Runner) -> None:
    """An error in MLX's own threads ends the process without an exception."""
    record = once(DYING.format(words="libc++abi: terminating\n  what(): no device\n", end="os.abort()"))
    assert (record["outcome"], record["reason"]) == ("failed", "was killed by SIGABRT: what(): no device")


def test_writes_a_gigabyte(once: Runner, tmp_path: Path) -> None:
    started = time.monotonic()
    record = once("import sys\nfor _ in range(1024): sys.stdout.write('x' * (1 << 20))")
    assert (record["outcome"], record["reason"]) == ("failed", "wrote more than it may")
    assert (tmp_path / "logs" / "run.log").stat().st_size <= run.OUTPUT_LIMIT
    assert time.monotonic() - started < 20
    assert len(json.dumps(record)) < 5000


def test_reason_is_short_whatever_was_said(once: Runner) -> None:
    record = once("import sys; sys.exit('\\x1b[31m' + 'x' * 100_000)")
    assert len(record["reason"]) < 400 and record["reason"].isprintable()


def running(mark: str) -> list[int]:
    """Processes of this machine, inside walls or not, with a word on their command line."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in each.cmdline() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each.pid)
    return found


def test_grandchildren_go_with_the_run(once: Runner, tmp_path: Path) -> None:
    mark = f"grandchild-of-{tmp_path}"
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)",
                          {mark!r}], stdout=subprocess.PIPE)
sys.exit(child.stdout.readline() != b"up\\n")
"""
    assert once(code)["outcome"] == "good"
    deadline = time.monotonic() + 10
    while running(mark):
        assert time.monotonic() < deadline, "the grandchild is still alive"
        time.sleep(0.01)


def test_takes_more_memory_than_it_may(once: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "memory_limit", lambda: 300_000_000)
    started = time.monotonic()
    record = once("import time; a = bytearray(b'x') * (1 << 29); time.sleep(60)")
    assert time.monotonic() - started < 20
    assert (record["outcome"], record["reason"]) == ("failed", "took more than its 0.3 GB of memory")
    assert run.MEMORY_SHARE < 1


# --- which MLX it was -------------------------------------------------------------------------------


def test_another_release_on_the_path(free: Runner, other: Environment) -> None:
    (elsewhere,) = other.root.glob("lib/python*/site-packages")
    record = free(f"import sys; sys.path.insert(0, {str(elsewhere)!r})" + MEASURE)
    assert (record["outcome"], record["reason"]) == ("failed", "ran mlx 0.32.3, not 0.32.4")
    assert record["mlx"] == "0.32.3"


def test_same_version_of_another_place(once: Runner, environment: Environment, tmp_path: Path) -> None:
    (site,) = environment.root.glob("lib/python*/site-packages")
    shutil.copytree(site, tmp_path / "elsewhere")
    record = once(f"import sys; sys.path.insert(0, {str(tmp_path / 'elsewhere')!r})" + MEASURE)
    assert record["outcome"] == "failed"
    assert f"loaded {tmp_path}/elsewhere/mlx/core." in record["reason"]
    assert record["reason"].endswith("which is not of this environment")


def test_wrong_mlx_by_a_variable(free: Runner, other: Environment) -> None:
    (elsewhere,) = other.root.glob("lib/python*/site-packages")
    assert free(MEASURE, env={"PYTHONPATH": str(elsewhere)})["reason"] == "ran mlx 0.32.3, not 0.32.4"


def test_wrong_mlx_outweighs_a_good_exit_code(free: Runner, other: Environment) -> None:
    (elsewhere,) = other.root.glob("lib/python*/site-packages")
    record = free(f"import sys; sys.path.insert(0, {str(elsewhere)!r}); import mlx.core")
    assert (record["outcome"], record["reason"]) == ("failed", "ran mlx 0.32.3, not 0.32.4")


def test_attested_also_when_the_script_raises(once: Runner) -> None:
    record = once("import mlx.core\nraise SystemExit(1)")
    assert (record["outcome"], record["mlx"]) == ("bad", "0.32.4")


def test_script_that_talks_of_another_mlx(once: Runner) -> None:
    line = {"kind": "host", "protocol": 1, "mlx": "0.1", "module": "/elsewhere/core.so", "libraries": []}
    record = once(f"import mlx.core; print({json.dumps(json.dumps(line))})")
    assert (record["outcome"], record["reason"]) == ("failed", "ran mlx 0.1, not 0.32.4")
    assert record["mlx"] == "0.32.4", "what our own wrapper saw is what is recorded"


def test_script_cannot_vouch_for_itself(free: Runner, environment: Environment, other: Environment) -> None:
    (elsewhere,) = other.root.glob("lib/python*/site-packages")
    module = str(next(environment.root.glob("lib/python*/site-packages/mlx/core.*")))
    line = {"kind": "host", "protocol": 1, "mlx": "0.32.4", "module": module}
    code = (
        f"print({json.dumps(json.dumps(line))})\nimport sys; sys.path.insert(0, {str(elsewhere)!r})" + MEASURE
    )
    assert free(code)["reason"] == "ran mlx 0.32.3, not 0.32.4"


def test_script_without_mlx_is_not_attested(once: Runner) -> None:
    record = once('print(\'{"metric": "t", "value": 1}\')')
    assert (record["outcome"], record["mlx"], record["module"]) == ("ok", None, None)


def test_library_of_another_build(environment: Environment) -> None:
    module = str(next(environment.root.glob("lib/python*/site-packages/mlx/core.*")))
    said: dict[str, Any] = {"mlx": "0.32.4", "module": module}
    fine = ["/home/mlx/.pyenv/lib/libpython3.so", "/opt/mlx/lib/libomp.so", module]
    assert wrong_mlx({**said, "libraries": fine}, environment, required=True) == ""
    for name in (
        "/elsewhere/mlx/lib/libmlx.so",
        "/elsewhere/build/libmlx.dylib",
        "/elsewhere/mlx/core.abi3.so",
    ):
        assert "loaded /elsewhere" in wrong_mlx({**said, "libraries": [name]}, environment, required=True)
    assert wrong_mlx(None, environment, required=True) == "did not say which mlx it ran on"
    assert wrong_mlx(None, environment, required=False) == ""


# --- the canonical repro ----------------------------------------------------------------------------


def canonical(environment: Environment, sandbox: Sandbox, folder: Path, *args: str) -> dict[str, Any]:
    return run_once(
        environment,
        Script.load(None, args),
        sandbox=sandbox,
        seed=1,
        env=child_env.child_environment(environment.root / "home"),
        timeout_s=120,
        log=folder / "run.log",
        running=folder / "running",
    )


def test_canonical(environment: Environment, sandbox: Sandbox, tmp_path: Path) -> None:
    few = ("--shape", "256x64", "--rows", "1-2", "--budget", "2")
    record = canonical(environment, sandbox, tmp_path, *few)
    assert (record["outcome"], record["reason"]) == ("ok", "")
    cases = [line["case"] for line in record["cases"] if not line["case"].get("control")]
    assert sorted(case["M"] for case in cases) == [1, 2]
    assert record["mlx"] == "0.32.4" and set(record["sentinels"]) == {"before", "after"}


def test_canonical_with_arguments_it_does_not_know(
    environment: Environment, sandbox: Sandbox, tmp_path: Path
) -> None:
    record = canonical(environment, sandbox, tmp_path, "--rows", "0")
    assert record["outcome"] == "failed"
    assert "exited with 2: qmv_step.py: error: argument --rows: '0' is no range" in record["reason"]


def test_arguments_are_checked_before_anything_is_recorded(
    environment: Environment, sandbox: Sandbox, tmp_path: Path
) -> None:
    env = child_env.child_environment(environment.root / "home")
    check_arguments(environment, Script.load(None, ("--rows", "1-2")), env, sandbox)
    with pytest.raises(UsageProblem, match="argument --rows: '0' is no range"):
        check_arguments(environment, Script.load(None, ("--rows", "0")), env, sandbox)
    own = tmp_path / "own.py"
    own.write_text("raise SystemExit(2)")
    check_arguments(environment, Script.load(own, ("--rows", "0")), env, sandbox)  # it is not asked


# --- walls ------------------------------------------------------------------------------------------
# What is stopped within them works without: it is the walls that stop it.


@pytest.mark.parametrize("place", ["beside", "environment", "elsewhere"])
def test_run_cannot_write(
    walled: Runner, free: Runner, environment: Environment, tmp_path: Path, place: str
) -> None:
    folders = {"beside": tmp_path, "environment": environment.root, "elsewhere": tmp_path / "elsewhere"}
    gate = folders[place] / "gate"
    gate.parent.mkdir(exist_ok=True)
    for walls, outcome in ((True, "failed"), (False, "good")):
        record = (walled if walls else free)(f"open({str(gate)!r}, 'w').close()")
        assert record["outcome"] == outcome
        assert ("Read-only file system: " in record["reason"]) == walls and gate.exists() != walls
    gate.unlink()


def test_run_sees_its_own_folder_and_nothing_beyond(
    walled: Runner, free: Runner, other: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "user" / ".ssh" / "id"
    secret.parent.mkdir(parents=True)
    secret.write_text("a private key")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "beside.txt").write_text("")
    (tmp_path / "near").mkdir()
    paths = [tmp_path / "work" / "beside.txt", tmp_path / "near", secret, other.root]
    code = f"""
import json, os
for path in {[str(path) for path in paths]!r}:
    print(json.dumps({{"metric": path, "value": int(os.path.exists(path))}}))
"""
    for how, seen in ((walled, [True, False, False, False]), (free, [True] * 4)):
        record = how(code, place=tmp_path / "work")
        metrics = {metric["metric"]: metric["value"] for metric in record["metrics"]}
        assert metrics == dict(zip(map(str, paths), seen, strict=True))


def test_run_sees_what_its_arguments_name(
    walled: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    data, model, near = (tmp_path / "user" / name for name in ("data.txt", "model", "near.txt"))
    model.mkdir(parents=True)
    for path in (data, model / "weights", near):
        path.touch()
    (tmp_path / "work").mkdir()
    code = f"""
import json, os
for path in {[str(path) for path in (data, model / "weights", near)]!r}:
    print(json.dumps({{"metric": path, "value": int(os.path.exists(path))}}))
try:
    open({str(data)!r}, "w")
except OSError:
    print(json.dumps({{"metric": "read-only", "value": 1}}))
"""

    def seen(*args: str) -> list[int]:
        return [metric["value"] for metric in walled(code, *args, place=tmp_path / "work")["metrics"]]

    long = "/" + "x" * 5000  # a name that the system has no patience for
    assert seen() == [0, 0, 0, 1]
    assert seen(str(data), f"--model={model}", "--x=1", long, str(tmp_path / "missing")) == [1, 1, 0, 1]
    assert seen(str(tmp_path / "user"), f"--all={tmp_path}", "/") == [0, 0, 0, 1], "none opens the home"


def test_run_cannot_reach_a_listening_socket(walled: Runner, free: Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)"
        stopped = walled(code)
        assert (stopped["outcome"], free(code)["outcome"]) == ("failed", "good")
    assert "ConnectionRefusedError" in stopped["reason"]


def test_private_home_is_writable_and_stays(once: Runner, environment: Environment) -> None:
    home = environment.root / "home"
    (home / "kept").unlink(missing_ok=True)
    code = """
import os, pathlib
home = pathlib.Path.home()
kept = home / "kept"
if kept.exists():
    raise SystemExit(kept.read_text())
kept.write_text(str(home))
"""
    assert once(code)["outcome"] == "good"
    assert (home / "kept").read_text() == str(home)
    assert once(code)["reason"] == f"exited with 1: {home}"
    (home / "kept").unlink()


def test_script_in_the_home_does_not_open_the_home(
    walled: Runner, environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "user"
    user.mkdir()
    (user / "secret").write_text("s3cret")
    monkeypatch.setenv("HOME", str(user))
    (tmp_path / "script.py").touch()
    assert Script.load(tmp_path / "script.py", ()).folder is None, "the home is within it"
    (user / "below").mkdir()
    (user / "below" / "script.py").touch()
    assert Script.load(user / "below" / "script.py", ()).folder == user / "below"
    code = f"import os, sys; sys.exit(os.getcwd() + ' ' + str(os.path.exists({str(user / 'secret')!r})))"
    said = walled(code, place=user)["reason"]
    assert said == f"exited with 1: {environment.root / 'home'} False"
    said = walled(code, place=user / "below")["reason"]
    assert said == f"exited with 1: {user / 'below'} False"


def test_gpu_is_there_for_those_that_use_one(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "script.py").touch()
    script = Script.load(tmp_path / "script.py", ())
    for backend, gpu in (("cpu", False), ("metal", True), ("cuda12", True), ("cuda13", True)):
        made = dataclasses.replace(environment, backend=backend)
        assert run.walls_of(made, script).gpu is gpu
        assert not run.walls_of(made, script).network and run.walls_of(made, script).write == ()


# --- the surroundings -------------------------------------------------------------------------------


def test_full_disk(once: Runner, small_disk: Path) -> None:
    flood = "import sys\nfor _ in range(60): sys.stdout.write('x' * (1 << 20))"
    with pytest.raises(DiskFull, match=r"no room left in .* for the log of a run: .*--resume") as caught:
        once(flood, log=small_disk / "run.log")
    assert "\n" not in str(caught.value)


def test_environment_without_its_python(environment: Environment, sandbox: Sandbox, tmp_path: Path) -> None:
    gone = dataclasses.replace(environment, python=tmp_path / "python")
    record = canonical(gone, sandbox, tmp_path)
    assert record["outcome"] == "failed"
    assert record["reason"] == f"could not be started: No such file or directory: {tmp_path / 'python'}"


def test_script_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"cannot read the script .*: No such file"):
        Script.load(tmp_path / "missing.py", ())
    with pytest.raises(UsageProblem, match="Is a directory"):
        Script.load(tmp_path, ())


def test_script_is_known_by_its_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "a.py", tmp_path / "b.py"
    for file in (one, two):
        file.write_text("pass")
    assert Script.load(one, ()).sha256 == Script.load(two, ()).sha256
    two.write_text("pass ")
    assert Script.load(one, ()).sha256 != Script.load(two, ()).sha256


def test_an_exit_code_that_is_the_walls_doing_is_no_answer(walled: Runner, free: Runner) -> None:
    code = "import mlx.core, socket; socket.create_connection(('192.0.2.1', 9), timeout=0.2)"
    stopped = walled(code)
    assert stopped["outcome"] == "failed" and "stopped by the walls: the network" in stopped["reason"]
    assert free(code)["outcome"] == "bad"
    assert walled("import mlx.core, sys; sys.exit(1)")["outcome"] == "bad"
