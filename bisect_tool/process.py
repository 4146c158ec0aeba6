"""The one place that starts, limits and ends other programs.

Every program runs in a process group of its own. The group and whatever descends from the program are
killed on a time-out, on too much output or memory, and when we are interrupted ourselves: nothing that we
started outlives us by our own doing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

TAIL_BYTES = 256 * 1024
LINE_CHARS = 300  # of what a program said, in a message of ours
CHUNK_BYTES = 64 * 1024  # what a pipe holds
MEMORY_POLL_S = 1.0  # between two looks at the memory of a program that has a limit
STOPPED_WITHIN_S = 1.0
GONE_WITHIN_S = 10.0  # a killed process that holds a GPU takes its time
_LOOKED_AT = 16 * 1024
_ROUNDS = 50  # of looking for processes that were started since the last look
# Colours, cursor movements, and control characters that end no line.
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b.|[\x00-\x08\x0e-\x1b\x7f]")


@dataclass(frozen=True)
class Finished:
    """How a program ended. ``stdout`` and ``stderr`` hold at most their last ``TAIL_BYTES`` bytes.

    ``left_running``: names of processes that it left behind, ended since; known of walled programs only.
    """

    argv: tuple[str, ...]
    returncode: int  # negative: ended by that signal
    stdout: str
    stderr: str
    wall_s: float
    timed_out: bool = False
    output_exceeded: bool = False
    memory_exceeded: bool = False
    memory_limit: int | None = None  # bytes
    left_running: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.returncode == 0 and not (self.timed_out or self.output_exceeded or self.memory_exceeded)

    def describe(self) -> str:
        """How it ended, in words: ``exited with 3``, ``was killed by SIGABRT``, ``ran past 60 s``."""
        if self.timed_out:
            return f"ran past its {self.wall_s:.0f} s"
        if self.output_exceeded:
            return "wrote more than it may"
        if self.memory_exceeded:
            return f"took more than its {(self.memory_limit or 0) / 1e9:.1f} GB of memory"
        if self.returncode < 0:
            return f"was killed by {signal_name(-self.returncode)}"
        return f"exited with {self.returncode}"

    def last_line(self) -> str:
        """The last line that says something, of standard error or else of standard output, fit to print."""
        for stream in (self.stderr, self.stdout):
            plain = _UNPRINTABLE.sub("", stream[-_LOOKED_AT:])
            lines = [line.strip() for line in plain.splitlines() if line.strip()]
            if lines:
                return lines[-1] if len(lines[-1]) <= LINE_CHARS else lines[-1][: LINE_CHARS - 1] + "…"
        return ""


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _Stop(Enum):
    """Why a program is waited for no longer."""

    ENDED = "ended"
    TIME = "time"
    OUTPUT = "output"
    MEMORY = "memory"


class _Tail:
    """Keeps the last bytes of a stream, counts all of them, and copies them to a log."""

    def __init__(self, log: IO[bytes] | None) -> None:
        self.data = bytearray()
        self.total = 0
        self.log = log

    def write(self, chunk: bytes) -> None:
        self.total += len(chunk)
        self.data += chunk
        if len(self.data) > 2 * TAIL_BYTES:
            del self.data[:-TAIL_BYTES]
        if self.log is not None:
            self.log.write(chunk)
            self.log.flush()

    def text(self) -> str:
        return bytes(self.data[-TAIL_BYTES:]).decode("utf-8", "replace")


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float,
    output_limit: int = 64 * 1024 * 1024,
    memory_limit: int | None = None,
    log: Path | None = None,
    channel: Callable[[bytes], None] | None = None,
    channel_args: Callable[[int], Sequence[str]] = lambda fd: (str(fd),),
    on_start: Callable[[int], None] | None = None,
    on_stdout: Callable[[bytes], None] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> Finished:
    """Run a program to its end and say how it ended.

    ``timeout_s``: seconds of wall time. ``output_limit``: bytes over all its streams. ``memory_limit``:
    bytes over the program and its descendants, looked at about once a second. ``log``: file that gets
    standard output and error as they come. ``channel``: called with each chunk the program writes to an
    extra file descriptor, whose number ``channel_args`` turns into more arguments. ``on_start`` is called
    with the process id, ``on_stdout`` with each chunk of standard output. ``stdin``: a descriptor of ours
    that takes the place of the empty standard input. Raises ``FileNotFoundError`` / ``PermissionError``
    when the program cannot be started; whatever a callback or the log raises ends the program first.
    """
    args = [os.fspath(part) for part in argv]
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        log_file = stack.enter_context(log.open("ab")) if log is not None else None
        read_fd = write_fd = -1
        if channel is not None:
            read_fd, low_fd = os.pipe()
            stack.callback(_close, read_fd)
            # A shell that stands before the program uses single digits as its own.
            write_fd = fcntl.fcntl(low_fd, fcntl.F_DUPFD_CLOEXEC, 10)
            _close(low_fd)
            args += channel_args(write_fd)
        with _signals_held():  # interrupted in here, we would not know whom to end
            try:
                child = subprocess.Popen(
                    args,
                    env=dict(env) if env is not None else None,
                    cwd=cwd,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    pass_fds=(write_fd,) if channel is not None else (),
                )
            finally:
                if write_fd >= 0:
                    _close(write_fd)
            assert child.stdout is not None and child.stderr is not None
            stack.callback(child.stdout.close)
            stack.callback(child.stderr.close)
            stack.callback(_end_group, child)
        if on_start is not None:
            on_start(child.pid)
        out, err = _Tail(log_file), _Tail(log_file)
        sinks: dict[int, Callable[[bytes], object]] = {
            child.stdout.fileno(): _both(out.write, on_stdout),
            child.stderr.fileno(): err.write,
        }
        if channel is not None:
            sinks[read_fd] = channel
        memory = _Memory(child.pid, memory_limit) if memory_limit is not None else None
        stop = _drain(child, sinks, started + timeout_s, output_limit, memory)
        _end_group(child)
        return Finished(
            argv=tuple(args),
            returncode=child.returncode,
            stdout=out.text(),
            stderr=err.text(),
            wall_s=time.monotonic() - started,
            timed_out=stop is _Stop.TIME,
            output_exceeded=stop is _Stop.OUTPUT,
            memory_exceeded=stop is _Stop.MEMORY,
            memory_limit=memory_limit,
        )


def _both(
    first: Callable[[bytes], object], second: Callable[[bytes], object] | None
) -> Callable[[bytes], object]:
    if second is None:
        return first

    def feed(chunk: bytes) -> None:
        first(chunk)
        second(chunk)

    return feed


def _drain(
    child: subprocess.Popen[bytes],
    sinks: dict[int, Callable[[bytes], object]],
    deadline: float,
    output_limit: int,
    memory: _Memory | None,
) -> _Stop:
    """Feed every stream to its sink until the program ends or may not go on."""
    total, after_end = 0, 0
    with selectors.DefaultSelector() as selector:
        for fd in sinks:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return _Stop.TIME
            if memory is not None and memory.exceeded():
                return _Stop.MEMORY
            # A grandchild may hold a pipe open, and write, after the program itself is gone: what the pipes
            # held then is read, and no more is waited for.
            ready = selector.select(min(left, 0.25))
            after_end += child.poll() is not None
            if after_end and (not ready or after_end > 3):
                return _Stop.ENDED
            for key, _ in ready:
                chunk = os.read(key.fd, CHUNK_BYTES)
                if not chunk:
                    selector.unregister(key.fd)
                    continue
                total += len(chunk)
                if total > output_limit:
                    return _Stop.OUTPUT
                sinks[key.fd](chunk)
    while True:  # it has closed its streams and goes on
        left = max(0.0, deadline - time.monotonic())
        try:
            child.wait(left if memory is None else min(left, MEMORY_POLL_S))
            return _Stop.ENDED
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline:
                return _Stop.TIME
        if memory is not None and memory.exceeded():
            return _Stop.MEMORY


class _Memory:
    """The memory of a program and its descendants, against a limit in bytes.

    Pages that processes share are counted once, for the process that has most of them. A process whose
    parents have ended is not seen, unless a wall keeps it among the descendants.
    """

    def __init__(self, pid: int, limit: int) -> None:
        self.pid = pid
        self.limit = limit
        self.next_look = time.monotonic() + MEMORY_POLL_S

    def exceeded(self) -> bool:
        if time.monotonic() < self.next_look:
            return False
        import psutil

        own, shared = 0, 0
        for each in _tree(self.pid):
            with contextlib.suppress(psutil.Error):
                said = each.memory_info()
                common = getattr(said, "shared", 0)  # Linux tells them apart
                own += said.rss - common
                shared = max(shared, common)
        self.next_look = time.monotonic() + MEMORY_POLL_S
        return own + shared > self.limit


def _tree(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it."""
    import psutil

    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Kill the program with what descends from it, or else what it left in its group. Idempotent."""
    left = _stopped_tree(child.pid) if child.poll() is None else []
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    if left:
        _kill(left)
    child.wait()
    if left:
        _wait_while(left, lambda _each: True, GONE_WITHIN_S)  # the kernel takes its time


def _stopped_tree(pid: int) -> list[psutil.Process]:
    """What descends from a process, all of it stopped: while one is killed no other can start a third."""
    import psutil

    stopped: dict[psutil.Process, None] = {}
    for _ in range(_ROUNDS):
        new = [each for each in _tree(pid) if each not in stopped]
        for each in new:
            stopped[each] = None
            with contextlib.suppress(psutil.Error):
                each.suspend()
        if not new:
            break
        # Until then it may be in the middle of starting one.
        _wait_while(new, lambda each: each.status() != psutil.STATUS_STOPPED, STOPPED_WITHIN_S)
    return [each for each in stopped if each.pid != pid]


def _kill(processes: Sequence[psutil.Process]) -> None:
    import psutil

    for each in processes:
        with contextlib.suppress(psutil.Error):
            each.kill()


def _wait_while(
    processes: Sequence[psutil.Process], true: Callable[[psutil.Process], bool], within_s: float
) -> None:
    """Wait while something is true of a process that is there: a zombie is not, and a parent that never asks
    for its children leaves them as such."""
    import psutil

    def waited_for(each: psutil.Process) -> bool:
        try:
            return each.is_running() and each.status() != psutil.STATUS_ZOMBIE and true(each)
        except psutil.Error:
            return False

    deadline = time.monotonic() + within_s
    while any(waited_for(each) for each in processes) and time.monotonic() < deadline:
        time.sleep(0.001)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP take effect after the block. The child does not inherit this, as it would a
    signal mask."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs handlers in the main thread only
        return
    came: list[int] = []
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    usual = {number: handler for number, handler in usual.items() if callable(handler)}  # not SIG_IGN
    for number in usual:
        signal.signal(number, lambda caught, _frame: came.append(caught))
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)


def kill_group(pid: int) -> None:
    """Kill a process group by the id of its leader; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def interrupt_on_sigterm() -> None:
    """Make SIGTERM and SIGHUP end us the way Ctrl-C does, so that clean-up runs. Main thread only."""

    def interrupt(_signum: int, _frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup: to be outlived, then
                signal.signal(number, interrupt)


def probe(argv: Sequence[str], *, timeout_s: float = 10, env: Mapping[str, str] | None = None) -> str | None:
    """Standard output of a short, harmless command, or None when it is missing, fails or hangs."""
    try:
        done = run(argv, timeout_s=timeout_s, env=env)
    except OSError:
        return None
    return done.stdout if done.ok else None
