"""Real programs: small Pythons that hang, flood, die and leave grandchildren behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bisect_tool import process
from bisect_tool.process import Finished, run


def python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *args]


# Starts a grandchild that would outlive it, and writes its id to the file named.
WITH_GRANDCHILD = """
    import subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with open(sys.argv[1], "w") as file:
        file.write(str(child.pid))
"""


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pid: int) -> None:
    wait_until(lambda: not alive(pid), f"process {pid} is still alive")


def test_streams_and_code_are_kept_apart() -> None:
    done = run(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"), timeout_s=20)
    assert (done.stdout, done.stderr, done.returncode, done.ok) == ("out\n", "err\n", 3, False)
    assert done.describe() == "exited with 3"
    assert done.last_line() == "err"


def test_environment_and_folder_are_those_given(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd(), sorted(n for n in os.environ if n != 'LC_CTYPE'))"
    done = run(python(code), env={"ONLY": "1"}, cwd=tmp_path, timeout_s=20)
    assert done.stdout == f"{tmp_path} ['ONLY']\n"


def test_standard_input_is_empty() -> None:
    assert run(python("import sys; print(repr(sys.stdin.read()))"), timeout_s=20).stdout == "''\n"


@pytest.mark.parametrize("stubborn", [False, True])
def test_timeout_ends_the_whole_group(stubborn: bool, tmp_path: Path) -> None:
    code = WITH_GRANDCHILD + "    time.sleep(60)\n"
    if stubborn:  # neither of them can be asked to go
        code = "    import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + code
    started = time.monotonic()
    done = run(python(code, str(tmp_path / "pid")), timeout_s=1.5)
    assert time.monotonic() - started < 5
    assert done.timed_out and not done.ok
    assert done.describe() == "ran past its 2 s"
    gone(int((tmp_path / "pid").read_text()))


def test_timeout_ends_what_left_the_group(tmp_path: Path) -> None:
    code = WITH_GRANDCHILD.replace(
        '"import time; time.sleep(60)"]', '"import time; time.sleep(60)"], start_new_session=True'
    )
    done = run(python(code + "    time.sleep(60)\n", str(tmp_path / "pid")), timeout_s=1.5)
    assert done.timed_out
    assert not alive(int((tmp_path / "pid").read_text()))  # by now, not soon


def test_grandchild_that_holds_the_pipe_is_not_waited_for(tmp_path: Path) -> None:
    started = time.monotonic()
    done = run(python(WITH_GRANDCHILD + "    print('done')\n", str(tmp_path / "pid")), timeout_s=30)
    assert time.monotonic() - started < 5
    assert done.ok and done.stdout == "done\n"
    gone(int((tmp_path / "pid").read_text()))


def test_grandchild_that_keeps_writing_is_not_waited_for() -> None:
    chatter = "import time\nwhile True: print('still here', flush=True); time.sleep(0.02)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {chatter!r}])"
    started = time.monotonic()
    done = run(python(code), timeout_s=10)
    assert done.ok, done.describe()
    assert time.monotonic() - started < 5


def test_all_that_was_written_before_the_end_is_read() -> None:
    code = "import sys; sys.stdout.write('x' * 300_000 + 'end'); sys.stderr.write('y' * 60_000)"
    heard = bytearray()
    done = run(python(code), timeout_s=20, on_stdout=heard.extend)
    assert len(heard) == 300_003 and heard.endswith(b"end")
    assert len(done.stdout) == process.TAIL_BYTES and done.stdout.endswith("xend")
    assert len(done.stderr) == 60_000


def test_output_limit_ends_the_program(tmp_path: Path) -> None:
    flood = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
    log = tmp_path / "log"
    started = time.monotonic()
    done = run(python(flood), timeout_s=60, output_limit=1 << 20, log=log)
    assert time.monotonic() - started < 10
    assert done.output_exceeded and not done.ok and not done.timed_out
    assert done.describe() == "wrote more than it may"
    assert log.stat().st_size <= 1 << 20
    assert len(done.stdout) <= process.TAIL_BYTES


def test_output_limit_counts_every_stream() -> None:
    code = "import os, sys; fd = int(sys.argv[1]); b = bytes(400)\nfor f in (1, 2, fd): os.write(f, b)"
    for limit, exceeded in ((1199, True), (1200, False)):
        done = run(python(code), timeout_s=20, output_limit=limit, channel=lambda _chunk: None)
        assert done.output_exceeded is exceeded


@pytest.mark.parametrize("streams", ["open", "closed"])
def test_memory_limit_ends_the_whole_tree(streams: str, tmp_path: Path) -> None:
    """None of the processes takes more than it may; a grandchild in a session of its own counts as well."""
    code = """
        import os, subprocess, sys, time
        held = b"x" * 60_000_000
        if len(sys.argv) > 2:
            child = subprocess.Popen([sys.executable, *sys.orig_argv[1:-1]], start_new_session=True)
            with open(sys.argv[1], "w") as file:
                file.write(str(child.pid))
        if "closed" in sys.argv[1]:
            for fd in range(3): os.close(fd)
        time.sleep(60)
    """
    pid = tmp_path / streams
    started = time.monotonic()
    done = run(python(code, str(pid), "more"), timeout_s=30, memory_limit=100_000_000)
    assert time.monotonic() - started < 15
    assert done.memory_exceeded and not done.ok and not done.timed_out
    assert done.describe() == "took more than its 0.1 GB of memory"
    gone(int(pid.read_text()))


def test_memory_below_the_limit_is_allowed() -> None:
    code = "import time; held = b'x' * 60_000_000; time.sleep(2.5)"
    done = run(python(code), timeout_s=30, memory_limit=200_000_000)
    assert done.ok and (done.memory_exceeded, done.memory_limit) == (False, 200_000_000)


def test_memory_that_is_shared_counts_once() -> None:
    code = """
        import mmap, os, time
        held = mmap.mmap(-1, 60_000_000)
        held.write(b"x" * 60_000_000)
        for _ in range(3):
            if os.fork() == 0: break
        sum(held[::4096])
        time.sleep(2.5)
    """
    assert run(python(code), timeout_s=30, memory_limit=200_000_000).ok
    assert run(python(code), timeout_s=30, memory_limit=60_000_000).memory_exceeded


def test_a_limit_costs_nothing_in_a_short_program() -> None:
    code = """
        import sys
        from bisect_tool.process import run
        assert run(["true"], timeout_s=20, memory_limit=1 << 30).ok
        print("psutil" in sys.modules)
    """
    assert run(python(code), timeout_s=20).stdout == "False\n"


def test_log_gets_both_streams_and_what_was_there_stays(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    run(python("import sys; print('out'); print('err', file=sys.stderr)"), timeout_s=20, log=log)
    assert log.read_text().startswith("before\n")
    assert sorted(log.read_text().split()) == ["before", "err", "out"]


def test_channel_is_a_descriptor_of_its_own() -> None:
    heard: list[bytes] = []
    code = "import os, sys; assert sys.argv[1] == '--json'; os.write(int(sys.argv[2]), b'hi'); print('out')"
    done = run(python(code), timeout_s=20, channel=heard.append, channel_args=lambda fd: ("--json", str(fd)))
    assert done.ok, done.stderr
    assert (b"".join(heard), done.stdout) == (b"hi", "out\n")


def test_channel_leaves_single_digits_to_shells() -> None:
    code = """
        import sys
        from bisect_tool.process import run
        print(run(["echo"], timeout_s=20, channel=lambda _chunk: None).stdout)
    """
    assert int(run(python(code), timeout_s=20).stdout) >= 10  # a process with next to none open


def test_standard_input_can_be_a_descriptor_of_ours(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("given")
    with (tmp_path / "in").open() as file:
        done = run(python("import sys; print(sys.stdin.read())"), timeout_s=20, stdin=file.fileno())
    assert done.stdout == "given\n"


def test_no_descriptor_is_left_open() -> None:
    before = psutil.Process().num_fds()
    for _ in range(3):
        run(python("pass"), timeout_s=20, channel=lambda _chunk: None)
        with pytest.raises(FileNotFoundError):
            run(["/nonexistent/program"], timeout_s=20, channel=lambda _chunk: None)
    assert psutil.Process().num_fds() == before


def test_on_start_is_told_the_id_of_the_group() -> None:
    told: list[int] = []
    done = run(python("import os; print(os.getpid(), os.getpgid(0))"), timeout_s=20, on_start=told.append)
    assert done.stdout == f"{told[0]} {told[0]}\n"


@pytest.mark.parametrize("where", ["channel", "on_stdout", "on_start"])
def test_what_a_callback_raises_ends_the_program_first(where: str, tmp_path: Path) -> None:
    code = WITH_GRANDCHILD + "    import os; print('x', flush=True)\n    os.write(int(sys.argv[2]), b'x')\n"
    code += "    time.sleep(60)\n"
    pids: list[int] = []

    def refuse(_got: object) -> None:
        if isinstance(_got, int):
            pids.append(_got)
            wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "", "pid")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        run(
            python(code, str(tmp_path / "pid")),
            timeout_s=30,
            channel=refuse if where == "channel" else lambda _chunk: None,
            on_stdout=refuse if where == "on_stdout" else None,
            on_start=refuse if where == "on_start" else pids.append,
        )
    gone(pids[0])
    gone(int((tmp_path / "pid").read_text()))


def test_program_that_is_not_there_or_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run([tmp_path / "missing"], timeout_s=5)
    (tmp_path / "text").write_text("no program")
    with pytest.raises(PermissionError):
        run([tmp_path / "text"], timeout_s=5)
    assert process.probe([str(tmp_path / "missing")]) is None


def test_probe_is_none_when_it_fails_or_hangs() -> None:
    assert process.probe(python("print('yes')")) == "yes\n"
    assert process.probe(python("print('no'); raise SystemExit(1)")) is None
    assert process.probe(python("import time; time.sleep(60)"), timeout_s=0.5) is None


def test_signals_have_names() -> None:
    done = run(python("import os; os.abort()"), timeout_s=20)
    assert done.returncode == -signal.SIGABRT
    assert done.describe() == "was killed by SIGABRT"
    assert process.signal_name(signal.SIGRTMAX - 1 if sys.platform == "linux" else 99).startswith("signal ")


@pytest.mark.parametrize(
    ("stdout", "stderr", "says"),
    [
        ("a\nb\n\n", "", "b"),
        ("a\n", " why \n \n", "why"),
        ("", "", ""),
        ("", "50 %\r100 %\x1b[31m\x07 failed\x1b[0m\n", "100 % failed"),
        ("", "x" * 10_000, "x" * 299 + "…"),
    ],
)
def test_last_line_fits_into_a_message(stdout: str, stderr: str, says: str) -> None:
    assert Finished((), 1, stdout, stderr, 0.1).last_line() == says


def test_bytes_that_are_no_text_do_not_matter() -> None:
    done = run(python(r"import os; os.write(1, b'\xff\xfe ok\n')"), timeout_s=20)
    assert done.stdout == "\ufffd\ufffd ok\n"


def test_log_on_a_full_disk_ends_the_program(small_disk: Path) -> None:
    pids: list[int] = []
    code = "import time\nfor _ in range(400): print('x' * 100_000, flush=True)\ntime.sleep(60)"
    with pytest.raises(OSError, match="No space left"):
        run(python(code), timeout_s=30, log=small_disk / "log", on_start=pids.append)
    gone(pids[0])


# --- we are interrupted ourselves -------------------------------------------------------------------

CALLER = """
    import sys
    from bisect_tool import process
    process.interrupt_on_sigterm()
    def started(pid):
        with open(sys.argv[2], "w") as file:
            file.write(str(pid))
    try:
        process.run([sys.executable, "-c", sys.argv[1], sys.argv[3]], timeout_s=60, on_start=started)
    except KeyboardInterrupt:
        sys.exit(42)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_caller_takes_the_group_along(how: signal.Signals, tmp_path: Path) -> None:
    code = textwrap.dedent(WITH_GRANDCHILD + "    time.sleep(60)\n")
    mine, theirs = tmp_path / "child", tmp_path / "grandchild"
    caller = subprocess.Popen(python(CALLER, code, str(mine), str(theirs)))
    try:
        wait_until(lambda: theirs.exists() and theirs.read_text() != "", "the grandchild did not start")
        caller.send_signal(how)
        assert caller.wait(20) == 42
    finally:
        caller.kill()
        caller.wait()
    gone(int(mine.read_text()))
    gone(int(theirs.read_text()))


def test_interrupted_while_a_program_is_being_started(tmp_path: Path) -> None:
    """A signal that comes before we know the child's id must not leave the child behind."""
    code = """
        import os, signal, subprocess, sys
        from bisect_tool import process
        real = subprocess.Popen
        class Slow(real):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                with open(sys.argv[1], "w") as file:
                    file.write(str(self.pid))
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(100_000): pass  # here the handler runs, unless it is held back
        subprocess.Popen = Slow
        try:
            process.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=30)
        except KeyboardInterrupt:
            sys.exit(42)
    """
    done = subprocess.run(python(code, str(tmp_path / "pid")), timeout=60, check=False)
    assert done.returncode == 42
    gone(int((tmp_path / "pid").read_text()))


def test_nohup_stays_in_force() -> None:
    """Who started us with SIGHUP ignored wants us to outlive the terminal."""
    code = """
        import os, signal
        from bisect_tool import process
        process.interrupt_on_sigterm()
        os.kill(os.getpid(), signal.SIGHUP)
        print("still here")
    """
    argv = ["nohup", *python(code)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "still here\n", done.stderr


def test_kill_group_of_what_is_gone_does_nothing() -> None:
    child = subprocess.Popen(python("pass"), start_new_session=True)
    child.wait()
    process.kill_group(child.pid)
    assert os.getpid() > 0
