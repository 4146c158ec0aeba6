"""`bisect_tool repro` as a process: good input, bad input, and everything that may happen in between."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from cli_tool import COUNTING, UNWALLED, Tool, finish
from fake_mlx import GOOD, make_wheel, wait_for
from small_upstream import SmallUpstream

from bisect_tool import process
from bisect_tool.building import backend as backends
from bisect_tool.building.builder import Watcher
from bisect_tool.building.environment import find_interpreter
from bisect_tool.building.provision import Provider
from bisect_tool.building.sandbox import Mode, Unwalled, choose
from bisect_tool.errors import UnknownRelease
from bisect_tool.host.system import current
from bisect_tool.measuring import ledger, repro

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="backend cpu has wheels on Linux")
METRIC = 'import json, sys, mlx.core as mx\nprint(json.dumps({"metric": "t", "value": 1.5, "unit": "s"}))\n'


@pytest.fixture
def real(wheel_builds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Real releases: a folder of its own, with the wheels that were downloaded before."""
    monkeypatch.setenv("UV_CACHE_DIR", str(wheel_builds / "cache" / "uv"))
    return Tool(tmp_path / "builds", tmp_path)


@pytest.fixture
def tool(wheels: Path, tmp_path: Path) -> Tool:
    """Releases 9.9.9 and 9.9.8, made here."""
    for version in ("9.9.9", "9.9.8"):
        make_wheel(wheels, GOOD, version=version)
    return Tool(tmp_path / "builds", tmp_path)


@pytest.fixture(scope="session")
def walls() -> str:
    """The name of this machine's walls."""
    found = choose(Mode.AUTO)
    if not found.walled:
        pytest.skip(f"no walls here: {found.why}")
    return found.name


@pytest.fixture
def counting(tmp_path: Path) -> list[str]:
    """Options that run a script which counts its runs in ``tmp_path/counts``."""
    (tmp_path / "counts").mkdir()
    (tmp_path / "count.py").write_text(COUNTING)
    return ["--script", "count.py", "--backend", "cpu", *UNWALLED, "--", "counts"]


def script(folder: Path, text: str) -> str:
    (folder / "s.py").write_text(text)
    return "s.py"


def runs(session: ledger.Session) -> Counter[tuple[int, str]]:
    return Counter((line["round"], line["arm"]) for line in session.of_kind("run"))


def cells(table: str) -> list[list[str]]:
    """The rows of the markdown tables in a text."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line]


def dead(pid: int) -> None:
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still alive"
        time.sleep(0.01)


# --- real releases ----------------------------------------------------------------------------------


@pytest.mark.real
def test_metric_table_of_a_real_release(real: Tool) -> None:
    code = METRIC + "print(json.dumps({'metric': 'args', 'value': len(sys.argv[1]), 'unit': ''}))"
    ended = real("repro", "0.32.4", "--script", script(real.cwd, code), "--", "--rows")
    assert ended.code == 0, ended.err
    rows = [row[:2] + row[-1:] for row in cells(ended.out)]
    assert ["t", "mlx 0.32.4", "6"] in rows and ["args", "mlx 0.32.4", "6"] in rows
    assert "bisect_tool repro 0.32.4 --script s.py -- --rows\n" in ended.out
    assert "round 1 of 6" in ended.err and "round 1 of 6" not in ended.out
    assert "\x1b" not in ended.out + ended.err


SUM = """
import json, time
import mlx.core as mx
a = mx.random.normal((1024, 1024)).astype(mx.float16)
mx.eval(a)
best = 1e9
for _ in range(30):
    start = time.perf_counter()
    mx.eval(mx.sum(a))
    best = min(best, time.perf_counter() - start)
print(json.dumps({"metric": "sum", "value": best, "unit": "s"}))
"""


@pytest.mark.real
@LINUX
def test_step_of_sum_between_two_releases(real: Tool) -> None:
    """A difference that is really there, between two real wheels."""
    ended = real(
        "repro", "0.32.2", "0.32.3", "--backend", "cpu", "--script", script(real.cwd, SUM), "--rounds", "3",
        "--json",
    )  # fmt: skip
    assert ended.code == 4, ended.err
    centres = {m["arm"]: m["value"]["centre"] for m in json.loads(ended.out)["metrics"]}
    assert set(centres) == {"0.32.2", "0.32.3"}
    assert max(centres.values()) / min(centres.values()) > 7, centres


TINY = ["--shape", "256x64", "--rows", "1-2", "--run-budget", "1s", "--rounds", "1", "--backend", "cpu"]


@pytest.mark.real
@LINUX
@pytest.mark.parametrize("release", ["0.21.1", "0.2.0"])
def test_old_release_is_measured(real: Tool, release: str) -> None:
    ended = real("repro", release, *TINY)
    assert ended.code == 4, ended.err
    assert f"**256 → 64** – mlx {release}; affine 4-bit, group 64, float16; chain, hot" in ended.out
    assert [row[0] for row in cells(ended.out)][2:] == ["1", "2"], ended.out
    (session,) = real.sessions()
    assert {run["mlx"] for run in session.of_kind("run")} == {release}


@pytest.mark.real
@LINUX
def test_old_release_that_lacks_what_is_asked_for(real: Tool) -> None:
    ended = real("repro", "0.21.1", "0.32.4", *TINY, "--bits", "5")
    assert ended.code == 1
    assert "mlx 0.21.1: no case could be measured: " in ended.error() and "bits" in ended.error()
    assert "**256 → 64** – mlx 0.32.4; affine 5-bit" in ended.out, "the other one is measured"


@pytest.mark.real
@LINUX
def test_old_release_that_lacks_some_of_it(real: Tool) -> None:
    ended = real("repro", "0.21.1", *TINY, "--bits", "4,5")
    assert ended.code == 4, ended.err
    assert "- not in mlx 0.21.1: affine 5-bit float16: " in ended.out


@pytest.mark.real
@LINUX
def test_unknown_release_alone(real: Tool) -> None:
    ended = real("repro", "0.30.2", "--backend", "cpu")
    assert (ended.code, ended.out) == (2, "")
    assert "mlx 0.30.2 has no wheel for the cpu backend" in ended.error()
    assert "0.30.3" in ended.error() and "0.30.1" in ended.error()
    assert not real.sessions(), "a session that measures nothing is not begun"


@pytest.mark.real
@LINUX
def test_unknown_release_beside_a_good_one(real: Tool) -> None:
    ended = real(
        "repro", "0.30.2", "0.32.4", "--backend", "cpu", "--script", script(real.cwd, METRIC), "--rounds", "2"
    )  # fmt: skip
    assert ended.code == 2
    assert ["t", "mlx 0.32.4"] in [row[:2] for row in cells(ended.out)]
    assert "mlx 0.30.2 has no wheel" in ended.out, "whoever reads the table learns of it"
    assert "error: mlx 0.30.2: mlx 0.30.2 has no wheel" in ended.error()


# --- bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-x"], "No such option"),
        (["main x"], "'main x' is not a revision"),
        (["#x"], "'#x' is not a pull request"),
        (["9.9.9", "path:"], "'path:' names no folder"),
        (["9.9.9..9.9.8"], "'9.9.9..9.9.8' is a range"),
        (["9.9.9", "--sandbox", "maybe"], "'maybe' is not one of"),
        (["9.9.9", "--jobs", "0"], "--jobs"),
        (["9.9.9", "-D", "nonsense"], "-D 'nonsense' is no CMake cache entry"),
        (["9.9.9", "--mirror", "nonsense"], "nonsense"),
        (
            ["9.9.9", "--script", "s.py", "--sandbox", "off"],
            "s.py is not of this project and there are no walls",
        ),
        (["9.9.9,nonsense"], "'nonsense' in '9.9.9,nonsense' is not a setting"),
        (["9.9.9", "--", "--rows", "1"], "arguments after -- go to a script of your own"),
        (["9.9.9", "--script", "missing.py"], "'missing.py' does not exist"),
        (["9.9.9", "--script", "s.py", "--rows", "1-4"], "--rows is for the canonical repro"),
        (["9.9.9", "--script", "s.py", "--compat"], "--compat is for the canonical repro"),
        (["9.9.9", "--rounds", "0"], "--rounds"),
        (["9.9.9", "--width", "0"], "no percentage between 0 and 100"),
        (["9.9.9", "--budget", "soon"], "'soon' is no duration above 0"),
        (["9.9.9", "--timeout", "-1s"], "is no duration"),
        (["9.9.9", "--backend", "rocm"], "'rocm' is not one of"),
        (["9.9.9", "--env", "MISSING_HERE"], "--env MISSING_HERE: no such variable here"),
        (["9.9.9", "--env", "1=2"], "names no variable"),
        (["9.9.9", "--nonsense"], "No such option"),
        (["9.9.9", "--resume"], "no unfinished session of this command"),
    ],
)
def test_usage_is_one_line_and_2(tool: Tool, words: list[str], says: str) -> None:
    script(tool.cwd, METRIC)
    ended = tool("repro", *words)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.error()
    assert ended.err.count("\n") == 1, ended.err
    assert not tool.builds.exists(), "nothing was done"


def test_python_that_is_not_there(tool: Tool) -> None:
    ended = tool("repro", "9.9.9", "--python", "3.99")
    assert ended.code == 1 and "there is no Python 3.99 on this machine" in ended.error()


def test_backend_without_any_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "available", lambda *_args, **_options: [])
    asked = repro.Request((), None, (), (), None, 0.01, 1, 60, None, "markdown", ["repro"])
    provider = Provider(
        tmp_path, backends.Backend.CUDA13, find_interpreter(), Unwalled("a test"), Watcher(), str(tmp_path)
    )
    with pytest.raises(UnknownRelease, match=r"no release of mlx has a wheel for the cuda13 backend with"):
        repro.measure(asked, provider, Silent(), resume=False)
    assert not list(tmp_path.iterdir())


class Silent:
    def phase(self, text: str) -> None: ...
    def progress(self, at: object) -> None: ...
    def remark(self, text: str) -> None: ...


@pytest.mark.parametrize("given", [["0.32.4"], []])
def test_index_does_not_answer(real: Tool, given: list[str]) -> None:
    env = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    env["UV_CACHE_DIR"] = str(real.cwd / "empty")
    ended = real("repro", *given, "--backend", "cpu", **env)
    assert (ended.code, ended.out) == (1, "")
    assert "check the network, the proxy settings and UV_DEFAULT_INDEX" in ended.error()


@LINUX
def test_what_is_installed_needs_no_index(tool: Tool, counting: list[str]) -> None:
    assert tool("repro", "9.9.9", "--rounds", "1", *counting).code == 4
    offline = {"UV_OFFLINE": "1", "UV_FIND_LINKS": ""}
    assert tool("repro", "9.9.9", "--rounds", "1", *counting, **offline).code == 4


# --- releases and scripts that are no good ----------------------------------------------------------


@LINUX
def test_release_that_aborts_and_a_broken_wheel_beside_a_good_one(
    tool: Tool, wheels: Path, counting: list[str]
) -> None:
    make_wheel(wheels, "import os; os.abort()\n", version="9.9.7")
    broken = make_wheel(wheels, GOOD, version="9.9.6")
    broken.write_bytes(broken.read_bytes()[:300])
    ended = tool("repro", "9.9.7", "9.9.6", "9.9.9", "--rounds", "6", *counting)
    assert ended.code == 1
    assert "| time" in ended.out and "mlx 9.9.9" in ended.out
    assert "Traceback" not in ended.err
    last = ended.err.splitlines()[-2:]
    assert last[0].startswith(
        "error: mlx 9.9.7: mlx 9.9.7 for cpu does not import: python was killed by SIGABRT"
    )
    assert last[1].startswith(
        "error: mlx 9.9.6: mlx 9.9.6 for cpu could not be installed: its wheel is broken"
    )


@LINUX
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import time; time.sleep(60)", "ran past its 3 s"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ('print(\'{"metric": "t", "value": NaN}\')', "printed metric 't' with the value nan"),
        ('print(\'{"metric": "t", "va\', end=\'\')', "printed half a line"),
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "wrote more than it may"),
        ("raise SystemExit(125)", "exited with 125"),
    ],
)
def test_script_that_fails_with_one_release(tool: Tool, code: str, says: str) -> None:
    lines = "\n".join("    " + line for line in code.splitlines())
    text = f"import mlx.core as mx\nif mx.__version__ == '9.9.8':\n{lines}\nelse:\n    import json\n"
    text += '    print(json.dumps({"metric": "t", "value": 1.5}))\n'
    ended = tool(
        "repro", "9.9.8", "9.9.9", "--backend", "cpu", "--script", script(tool.cwd, text), "--rounds", "6",
        "--timeout", "3s" if "sleep" in code else "60s",
    )  # fmt: skip
    assert ended.code == 1
    assert f"error: mlx 9.9.8: {says}" in ended.error() and "(log: " in ended.error()
    (session,) = tool.sessions()
    assert session.ended
    assert [arm for _, arm in runs(session)].count("9.9.9") >= 6
    assert "| t " in ended.out and "mlx 9.9.9" in ended.out


@LINUX
def test_script_that_prints_nothing(tool: Tool) -> None:
    text = "import sys, mlx.core as mx; sys.exit(mx.__version__ == '9.9.8')"
    ended = tool("repro", "9.9.8", "9.9.9", "--backend", "cpu", "--script", script(tool.cwd, text))
    assert ended.code == 0, ended.err
    rows = cells(ended.out)
    assert ["mlx 9.9.8", "0", "6", "0", "0", "1"] in rows and ["mlx 9.9.9", "6", "0", "0", "0", "0"] in rows


# --- killed, interrupted, gone on with --------------------------------------------------------------


@LINUX
def test_killed_hard_in_the_middle_of_a_round(tool: Tool, tmp_path: Path, counting: list[str]) -> None:
    counts = tmp_path / "counts"
    (counts / "hang").write_text("6")  # the second run of round 3, when no round is discarded
    command = ["repro", "9.9.9", "9.9.8", "--rounds", "6", *counting]
    with tool.started(*command) as process:
        wait_for(counts / "pid")
        process.kill()
        process.wait(20)
    leftover = int((counts / "pid").read_text())
    (before,) = tool.sessions()
    assert psutil.pid_exists(leftover) and len(before.of_kind("run")) == 5 and not before.ended
    ended = tool(*command[:1], "--resume", *command[1:])
    assert ended.code == 0, ended.err
    dead(leftover)
    (after,) = tool.sessions()
    assert after.lines[: len(before.lines)] == before.lines, "nothing is rewritten"
    assert set(runs(after).values()) == {1}, "nothing is measured twice"
    orders = {line["round"]: line["order"] for line in after.of_kind("run")}
    discarded = set(after.discarded_rounds())
    for number, order in orders.items():
        if number not in discarded:
            assert [run["arm"] for run in after.of_kind("run") if run["round"] == number] == order
    assert len(orders.keys() - discarded) == 6
    assert len(list(counts.glob("run-*"))) == len(after.of_kind("run")) + 1, "one run was lost"
    assert "--resume" not in ended.out
    again = tool(*command[:1], "--resume", *command[1:])
    assert again.code == 2 and "no unfinished session" in again.error()


@LINUX
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_during_a_run(
    tool: Tool, tmp_path: Path, counting: list[str], how: signal.Signals
) -> None:
    counts = tmp_path / "counts"
    (counts / "hang").write_text("2")
    command = ["repro", "9.9.9", "--rounds", "6", *counting]
    with tool.started(*command) as process:
        wait_for(counts / "pid")
        process.send_signal(how)
        ended = finish(process)
    assert (ended.code, ended.out) == (130, "")
    (session,) = tool.sessions()
    assert ended.error() == (
        f"interrupted: 1 run is kept in session {session.id}; the same command with --resume goes on"
    )
    dead(int((counts / "pid").read_text()))
    assert len(session.of_kind("run")) == 1
    resumed = tool("repro", "--resume", *command[1:])
    assert resumed.code == 0, resumed.err
    assert set(runs(tool.sessions()[0]).values()) == {1}
    assert not list(ledger.folder(tool.builds).glob("*.running"))


@LINUX
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_while_the_environment_is_made(
    tool: Tool, wheels: Path, counting: list[str], how: signal.Signals
) -> None:
    gate = tool.cwd / "gate"
    slow = GOOD + (
        "import os, time\n"
        "open(os.environ['GATE'] + '.reached', 'w').close()\n"
        "while not os.path.exists(os.environ['GATE']): time.sleep(0.02)\n"
    )
    make_wheel(wheels, slow, version="9.9.5")
    command = ["repro", "9.9.5", "--rounds", "1", "--env", f"GATE={gate}", *counting]
    with tool.started(*command) as process:
        wait_for(tool.cwd / "gate.reached")
        process.send_signal(how)
        ended = finish(process)
    environments = tool.builds / "environments"
    if how is signal.SIGINT:
        assert ended.code == 130 and ended.error() == "interrupted"
        assert not list(environments.iterdir())
    assert not tool.sessions()
    gate.touch()
    assert tool(*command).code == 4
    assert [path.name.startswith("9.9.5") for path in environments.iterdir()] == [True]


@LINUX
def test_arm_that_had_no_environment_does_not_join_later(
    tool: Tool, wheels: Path, tmp_path: Path, counting: list[str]
) -> None:
    """Rounds before and after would have other arms, and its failure is on record."""
    counts = tmp_path / "counts"
    (counts / "hang").write_text("2")
    command = ["repro", "9.9.9", "9.9.4", "--rounds", "6", *counting]
    with tool.started(*command) as process:
        wait_for(counts / "pid")
        process.kill()
    make_wheel(wheels, GOOD, version="9.9.4")
    ended = tool("repro", "--resume", *command[1:])
    assert ended.code == 2 and "error: mlx 9.9.4: " in ended.error()
    (session,) = tool.sessions()
    assert {arm for _, arm in runs(session)} == {"9.9.9"}


@LINUX
def test_resume_with_other_wheels_or_without_them_is_refused(
    tool: Tool, wheels: Path, tmp_path: Path, counting: list[str]
) -> None:
    counts = tmp_path / "counts"
    (counts / "hang").write_text("2")
    command = ["repro", "9.9.9", "9.9.8", "--rounds", "6", *counting]
    with tool.started(*command) as process:
        wait_for(counts / "pid")
        process.kill()
    os.kill(int((counts / "pid").read_text()), signal.SIGKILL)  # nobody goes on with this session
    before = tool.sessions()[0]
    shutil.rmtree(tool.builds / "environments")
    shutil.rmtree(tool.builds / "cache")
    make_wheel(wheels, GOOD + "other = 1\n").touch()
    changed = tool("repro", "--resume", *command[1:])
    assert changed.code == 1
    assert "the wheels of mlx 9.9.9 are not those that the session began with" in changed.error()
    shutil.rmtree(tool.builds / "environments")
    shutil.rmtree(tool.builds / "cache")
    (wheels / "mlx-9.9.9-py3-none-any.whl").unlink()
    lacking = tool("repro", "--resume", *command[1:])
    assert lacking.code == 2 and "mlx 9.9.9 has no wheel" in lacking.error()
    assert tool.sessions()[0] == before, "it can still be gone on with"


@LINUX
def test_damaged_ledger_does_not_stand_in_the_way_of_another(
    tool: Tool, tmp_path: Path, counting: list[str]
) -> None:
    counts = tmp_path / "counts"
    (counts / "hang").write_text("2")
    command = ["repro", "9.9.9", "--rounds", "2", *counting]
    with tool.started(*command) as process:
        wait_for(counts / "pid")
        process.kill()
    damaged = ledger.folder(tool.builds) / "99990101-000000-aaaa.jsonl"
    damaged.write_text("nonsense\n")
    ended = tool("repro", "--resume", *command[1:])
    assert ended.code == 4, ended.err
    assert f"passed over: line 1 of {damaged} is not a record" in ended.err
    assert damaged.read_text() == "nonsense\n"


# --- two at once ------------------------------------------------------------------------------------


@LINUX
def test_two_tools_on_one_builds_folder(tool: Tool, counting: list[str]) -> None:
    command = ["repro", "9.9.9", "9.9.8", "--rounds", "2", *counting]
    with tool.started(*command) as one, tool.started(*command) as two:
        ended = [finish(process) for process in (one, two)]
    assert [each.code for each in ended] == [4, 4], [each.err for each in ended]
    assert sum(each.err.count("Made the environment of mlx 9.9.9") for each in ended) == 1
    sessions = tool.sessions()
    assert len(sessions) == 2 and all(session.ended for session in sessions)
    assert all(set(runs(session).values()) == {1} for session in sessions)


@LINUX
def test_session_that_is_being_measured_is_not_resumed(
    tool: Tool, tmp_path: Path, counting: list[str]
) -> None:
    counts = tmp_path / "counts"
    (counts / "hang").write_text("1")
    command = ["repro", "9.9.9", "--rounds", "1", *counting]
    with tool.started(*command):
        wait_for(counts / "pid")
        ended = tool("repro", "--resume", *command[1:])
        assert ended.code == 1 and "is being measured by another bisect_tool" in ended.error()
        assert psutil.pid_exists(int((counts / "pid").read_text())), "its run is left alone"


# --- what a script gets to see ----------------------------------------------------------------------

SPY = """
import json, os, pathlib, sys
import mlx.core
pathlib.Path(sys.argv[1]).write_text(json.dumps(dict(os.environ)))
print(json.dumps({"metric": "t", "value": 1.5}))
"""
SECRETS = ["GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "MLX_HUB_TOKEN", "HF_TOKEN"]


@LINUX
def test_no_secret_reaches_script_or_record(tool: Tool) -> None:
    env = {name: f"s3cret-{name}" for name in SECRETS}
    ended = tool(
        "repro", "9.9.9", "--backend", "cpu", "--rounds", "1", "--env", "HF_TOKEN",
        "--env", "MINE=s3cret-mine", "--env", "MLX_SWITCH=1", *UNWALLED,
        "--script", script(tool.cwd, SPY), "--", "seen.json",
        **env, HOME="/s3cret-home", PYTHONPATH=str(tool.cwd), LD_LIBRARY_PATH="/x",
    )  # fmt: skip
    assert ended.code == 4, ended.err
    seen = json.loads((tool.cwd / "seen.json").read_text())
    assert {name for name in seen if "s3cret" in seen[name]} == {"HF_TOKEN", "MINE"}, "asked for by name"
    assert seen["MLX_SWITCH"] == "1" and not {"PYTHONPATH", "LD_LIBRARY_PATH"} & seen.keys()
    assert Path(seen["HOME"]).is_dir() and str(tool.builds) in seen["HOME"]
    written = "".join(
        path.read_text("utf-8", "replace") for path in ledger.folder(tool.builds).rglob("*") if path.is_file()
    )
    assert "s3cret" not in written + ended.out + ended.err
    assert "--env HF_TOKEN --env MINE --env MLX_SWITCH=1" in ended.out
    (session,) = tool.sessions()
    assert session.of_kind("arm")[0]["env"] == {"MLX_SWITCH": "1"}


@LINUX
def test_settings_of_an_arm_reach_that_arm_alone(tool: Tool) -> None:
    text = SPY.replace("sys.argv[1]", "sys.argv[1] + os.environ.get('MLX_SWITCH', '')")
    ended = tool(
        "repro", "9.9.9", "9.9.9,MLX_SWITCH=7", "--backend", "cpu", "--rounds", "1", *UNWALLED, "--script",
        script(tool.cwd, text), "--", "seen",
    )  # fmt: skip
    assert ended.code == 4, ended.err
    assert "MLX_SWITCH" not in json.loads((tool.cwd / "seen").read_text())
    assert json.loads((tool.cwd / "seen7").read_text())["MLX_SWITCH"] == "7"


# --- walls ------------------------------------------------------------------------------------------

PRYING = """
import json, os, pathlib, sys
import mlx.core
def readable(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""
seen = sum(b"s3cret-token" in readable(path) for path in pathlib.Path("/proc").glob("[0-9]*/environ"))
data = float(pathlib.Path("beside.txt").read_text())
kept = pathlib.Path.home() / "runs"
runs = int(kept.read_text()) + 1 if kept.exists() else 1
kept.write_text(str(runs))
told = {"secrets": seen, "home secrets": os.path.exists("../user/.ssh/id"), "beside": data, "runs": runs}
for name, value in told.items():
    print(json.dumps({"metric": name, "value": int(value)}))
"""


@LINUX
@pytest.mark.parametrize(
    "options", [[], ["--sandbox", "require"], list(UNWALLED)], ids=["auto", "require", "off"]
)
def test_what_a_script_gets_within_walls_and_without(tool: Tool, walls: str, options: list[str]) -> None:
    """Its own folder and a private home that stays; no secret, whether in a variable or in a file."""
    (tool.cwd / "bench").mkdir()
    (tool.cwd / "bench" / "beside.txt").write_text("7")
    (tool.cwd / "bench" / "s.py").write_text(PRYING)
    secret = tool.cwd / "user" / ".ssh" / "id"
    secret.parent.mkdir(parents=True)
    secret.touch()
    ended = tool(
        "repro", "9.9.9", "--backend", "cpu", "--rounds", "2", *options, "--script", "bench/s.py",
        HOME=str(tool.cwd / "user"), GITHUB_TOKEN="s3cret-token",
    )  # fmt: skip
    assert ended.code == 4, ended.err
    (session,) = tool.sessions()
    told = [{m["metric"]: m["value"] for m in run["metrics"]} for run in session.of_kind("run")]
    assert [each["runs"] for each in told] == list(range(1, len(told) + 1)), "the home stays"
    assert {each["beside"] for each in told} == {7}
    off = options == list(UNWALLED)
    assert {each["home secrets"] for each in told} == {int(off)}
    assert all((each["secrets"] > 0) == off for each in told), "not that of a process, either"
    name = "none" if off else walls
    assert session.header["plan"]["walls"] == name
    assert f"- walls: {name}\n" in ended.out and f"- walls: {name}\n" in tool("report").out


WRITING = """
import sys
try:
    open("out.txt", "w")
except OSError as problem:
    print(problem, file=sys.stderr)
    sys.exit(126)
"""


@LINUX
def test_script_that_runs_into_a_wall_says_so(tool: Tool, walls: str) -> None:
    assert walls
    ended = tool("repro", "9.9.9", "--backend", "cpu", "--script", script(tool.cwd, WRITING))
    assert ended.code == 1 and "Read-only file system: 'out.txt'" in ended.error()
    assert not (tool.cwd / "out.txt").exists()


HANGING = """
import json, os, pathlib, time
here = pathlib.Path.home() / "here"
if not here.exists():
    here.touch()
    time.sleep(120)
print(json.dumps({"metric": "t", "value": 1.5, "unit": "s"}))
"""


def running(mark: str) -> list[int]:
    """Processes of this machine, inside walls or not, with a word on their command line."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in each.cmdline() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each.pid)
    return found


@LINUX
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_walled_run_ends_with_the_tool(tool: Tool, walls: str, how: signal.Signals) -> None:
    """Also with one that is killed hard: the walls fall in, and nothing is left for --resume to end."""
    assert walls
    mark = f"mark-of-{tool.cwd}"
    command = ["repro", "9.9.9", "--backend", "cpu", "--rounds", "2", "--script", script(tool.cwd, HANGING)]
    arguments = ["--", mark]
    with tool.started(*command, *arguments) as process:
        deadline = time.monotonic() + 60
        while not list(tool.builds.glob("environments/9.9.9-*/home/here")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        assert len(running(mark)) > 1
        process.send_signal(how)
        ended = finish(process)
    assert ended.code == (130 if how is signal.SIGINT else -9)
    deadline = time.monotonic() + 20
    while running(mark):
        assert time.monotonic() < deadline, "it outlived the tool"
        time.sleep(0.01)
    other = tool("repro", "--resume", *command[1:], *UNWALLED, *arguments)
    assert other.code == 2 and "no unfinished session" in other.error(), "without walls it is another session"
    resumed = tool("repro", "--resume", *command[1:], *arguments)
    assert resumed.code == 4, resumed.err
    (session,) = tool.sessions()
    assert session.ended and set(runs(session).values()) == {1}


@LINUX
def test_script_without_walls_needs_trust(tool: Tool) -> None:
    """Where nothing can hold it back, the user has to say that it was read."""
    command = ["repro", "9.9.9", "--backend", "cpu", "--rounds", "1", "--script", script(tool.cwd, METRIC)]
    bare = {"PATH": str(tool.cwd / "empty")}  # bubblewrap is not on it, nor anything else
    install = current().install("bubblewrap")
    refused = tool(*command, **bare)
    assert (refused.code, refused.out) == (2, "")
    assert refused.error().startswith(
        "error: s.py is not of this project and there are no walls: it would run "
    )
    assert f"(bubblewrap not found; {install})" in refused.error() and "--trust" in refused.error()
    assert not tool.builds.exists(), "nothing was done"
    required = tool(*command, "--sandbox", "require", "--trust", **bare)
    assert (required.code, required.out) == (1, "")
    assert required.error() == (
        f"error: there are no walls for programs on this machine: bubblewrap not found; {install}"
    )
    assert not tool.builds.exists()
    trusted = tool(*command, "--trust", **bare)
    assert trusted.code == 4 and "- walls: none\n" in trusted.out, trusted.err


@LINUX
def test_canonical_repro_needs_no_trust(tool: Tool) -> None:
    """It is of this project. That the fake MLX has nothing to measure comes later."""
    ended = tool("repro", "9.9.9", "--backend", "cpu", "--sandbox", "off")
    assert ended.code == 1 and "no walls" not in ended.err
    assert [run["outcome"] for run in tool.sessions()[0].of_kind("run")] == ["failed", "failed"]


@LINUX
def test_options_of_builds_are_of_the_plan(tool: Tool, counting: list[str]) -> None:
    """A session is gone on with by the same ones only."""
    counts = tool.cwd / "counts"
    (counts / "hang").write_text("2")
    command = ["repro", "9.9.9", "--rounds", "2", "-D", "MLX_X=ON", *counting]
    with tool.started(*command) as process:
        wait_for(counts / "pid")
        process.kill()
    assert tool.sessions()[0].header["plan"]["options"] == {"MLX_X": "ON"}
    other = ["repro", "--resume", "9.9.9", "--rounds", "2", "-D", "MLX_X=OFF", *counting]
    assert tool(*other).code == 2
    assert tool("repro", "--resume", *command[1:]).code == 4


# --- commits ----------------------------------------------------------------------------------------

COST = """
import json
import mlx.core as core
print(json.dumps({"metric": "cost", "value": core.cost(), "unit": "1"}))
"""


@pytest.mark.real
@LINUX
def test_commits_are_built_and_measured(real: Tool, small_upstream: SmallUpstream, walls: str) -> None:
    """Two that differ in nothing that is compiled, and a stranger's that cannot be built."""
    commits = small_upstream.by_name
    one, same = (commits[name].sha for name in ("readme", "array-dtype"))
    mirrors = [word for mirror in small_upstream.mirrors for word in ("--mirror", mirror)]
    command = [
        "repro", one[:9], same[:9], "#18", "--backend", "cpu", "--rounds", "1", "--repo",
        str(small_upstream.repo), *mirrors, "--script", script(real.cwd, COST),
    ]  # fmt: skip
    ended = real(*command)
    assert ended.code == 1, ended.err
    assert ended.error().startswith(f"error: mlx #18: #18 ({commits['pull-18'].sha[:9]}) does not ")
    table = [row[1:3] for row in cells(ended.out) if row[0] == "cost"]
    assert table == [[f"mlx {one[:9]}", "100.0"], [f"mlx {same[:9]}", "100.0"]]
    (session,) = real.sessions()
    arms = {line["arm"]: line for line in session.of_kind("arm")}
    assert [line["sha"] for line in arms.values()] == [one, same]
    assert [line["build"]["sha"] for line in arms.values()] == [one, one], "one build for both"
    assert {line["build"]["walls"] for line in arms.values()} == {walls}
    keys = [line["build"]["key"] for line in arms.values()]
    for run in session.of_kind("run"):
        arm = arms[run["arm"]]
        assert (run["revision"]["sha"], run["revision"]["build"]) == (arm["sha"], arm["build"]["key"])
    assert (
        f"commit {same}, built here as {keys[1][:12]} (the build of {one[:9]}, which has the same"
        in ended.out
    )
    assert f"- mlx {one[:9]}: commit {one}, built here as {keys[0][:12]} by " in ended.out
    assert "- mlx #18 is missing: " in ended.out
    assert ended.err.count("Made the environment of mlx") == 1
    again = real(*command[:3], *command[4:])
    assert again.code == 4 and "building" not in again.err and "Made" not in again.err, again.err


def test_strangers_commit_without_walls_needs_trust(tool: Tool, small_upstream: SmallUpstream) -> None:
    """Also for the canonical repro, which needs none by itself."""
    repo = ["--backend", "cpu", "--repo", str(small_upstream.repo), "--sandbox", "off"]
    ended = tool("repro", "#15", *repo)
    assert (ended.code, ended.out) == (2, "")
    sha = small_upstream.by_name["pull-15"].sha
    assert f"#15 ({sha[:9]}) is not of the project's own branches and there are no walls" in ended.error()
    assert "--trust" in ended.error() and not tool.sessions()
    assert not list(tool.builds.glob("trees/*")) and not list(tool.builds.glob("environments/*"))


@pytest.mark.parametrize(
    ("revision", "says"),
    [
        ("no-such-branch", "no-such-branch"),
        ("#9999", "9999"),
        ("path:.", "."),
        ("main,nonsense", "'nonsense' in 'main,nonsense' is not a setting"),
    ],
)
def test_commit_that_is_not_there(
    tool: Tool, small_upstream: SmallUpstream, revision: str, says: str
) -> None:
    ended = tool("repro", revision, "--backend", "cpu", "--repo", str(small_upstream.repo))
    assert (ended.code, ended.out) == (2, "") and says in ended.error(), ended.err
    assert not tool.sessions()


# --- streams ----------------------------------------------------------------------------------------


@LINUX
def test_results_and_progress_do_not_mix(tool: Tool, counting: list[str]) -> None:
    def fail(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    ended = tool("repro", "9.9.9", "--rounds", "1", "--json", *counting)
    assert json.loads(ended.out, parse_constant=fail)["metrics"][0]["metric"] == "time"
    assert "round 1 of 1: mlx 9.9.9" in ended.err
    quiet = tool("repro", "9.9.9", "--rounds", "1", "--quiet", *counting)
    assert quiet.err == "" or "discarded" in quiet.err


@LINUX
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_cannot_be_written(tool: Tool, counting: list[str]) -> None:
    argv = [sys.executable, "-m", "bisect_tool", "repro", "9.9.9", "--rounds", "1", *counting]
    env = {**os.environ, "BISECT_TOOL_BUILDS": str(tool.builds)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, cwd=tool.cwd, env=env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: No space left on device")
    assert tool.sessions()[0].ended, "what was measured is kept"


# --- the folder -------------------------------------------------------------------------------------


@LINUX
@pytest.mark.usefixtures("wheels")
def test_builds_that_cannot_be_used(tmp_path: Path, counting: list[str]) -> None:
    (tmp_path / "file").touch()
    ended = Tool(tmp_path / "file", tmp_path)("repro", "9.9.9", *counting)
    assert ended.code == 2 and "is a file" in ended.error()
    for place in ("/proc/builds", str(tmp_path / "file" / "builds")):
        ended = Tool(Path(place), tmp_path)("repro", "9.9.9", *counting)
        assert (ended.code, ended.out) == (1, "")
        assert "name another folder with --builds DIR" in ended.error()


@LINUX
def test_read_only_builds_with_the_environment_in_it(
    small_disk: Path, tool: Tool, counting: list[str]
) -> None:
    there = Tool(small_disk / "builds", tool.cwd)
    assert there("repro", "9.9.9", "--rounds", "1", *counting).code == 4
    process.run(["mount", "-o", "remount,ro", str(small_disk)], timeout_s=10)
    ended = there("repro", "9.9.9", "--rounds", "1", *counting)
    assert (ended.code, ended.out) == (1, "") and "Read-only file system" in ended.error()
    assert there("report").code == 0, "reading goes on"


@LINUX
def test_disk_that_is_full_from_the_start(small_disk: Path, tool: Tool, counting: list[str]) -> None:
    with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(bytes(4096))
    ended = Tool(small_disk / "builds", tool.cwd)("repro", "9.9.9", *counting)
    assert (ended.code, ended.out) == (1, "")
    assert "--builds DIR" in ended.error()


FILLING = (
    COUNTING
    + """
if count == 3:
    with open(sys.argv[2], "wb", buffering=0) as file:
        try:
            while True: file.write(bytes(4096))
        except OSError:
            pass
"""
)


@LINUX
def test_disk_that_fills_up_while_measuring(small_disk: Path, tool: Tool, tmp_path: Path) -> None:
    there = Tool(small_disk / "builds", tool.cwd)
    (tmp_path / "counts").mkdir()
    filler = small_disk / "filler"
    command = [
        "repro", "9.9.9", "--backend", "cpu", "--rounds", "6", *UNWALLED, "--script",
        script(tmp_path, FILLING), "--", "counts", str(filler),
    ]  # fmt: skip
    ended = there(*command)
    assert (ended.code, ended.out) == (1, "")
    assert "no room left" in ended.error() and "--resume" in ended.error()
    (session,) = there.sessions()
    # A record may still fit into the last block of the ledger's file.
    assert 2 <= len(session.of_kind("run")) < 6 and not session.ended
    filler.unlink()
    resumed = there("repro", "--resume", *command[1:])
    assert resumed.code == 0, resumed.err
    assert set(runs(there.sessions()[0]).values()) == {1}
