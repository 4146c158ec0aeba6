"""The one place that starts, limits and ends other programs.

Every program runs in a process group of its own, which is killed as a whole on a time-out, on too much
output, and when we are interrupted ourselves: nothing that we started outlives us by our own doing.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TAIL_BYTES = 256 * 1024
LINE_CHARS = 300  # of what a program said, in a message of ours
CHUNK_BYTES = 64 * 1024  # what a pipe holds
_LOOKED_AT = 16 * 1024
# Colours, cursor movements, and control characters that end no line.
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b.|[\x00-\x08\x0e-\x1b\x7f]")


@dataclass(frozen=True)
class Finished:
    """How a program ended. ``stdout`` and ``stderr`` hold at most their last ``TAIL_BYTES`` bytes."""

    argv: tuple[str, ...]
    returncode: int  # negative: ended by that signal
    stdout: str
    stderr: str
    wall_s: float
    timed_out: bool = False
    output_exceeded: bool = False

    @property
    def ok(self) -> bool:
        return self.returncode == 0 and not self.timed_out and not self.output_exceeded

    def describe(self) -> str:
        """How it ended, in words: ``exited with 3``, ``was killed by SIGABRT``, ``ran past 60 s``."""
        if self.timed_out:
            return f"ran past its {self.wall_s:.0f} s"
        if self.output_exceeded:
            return "wrote more than it may"
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
    log: Path | None = None,
    channel: Callable[[bytes], None] | None = None,
    channel_args: Callable[[int], Sequence[str]] = lambda fd: (str(fd),),
    on_start: Callable[[int], None] | None = None,
    on_stdout: Callable[[bytes], None] | None = None,
) -> Finished:
    """Run a program to its end and say how it ended.

    ``timeout_s``: seconds of wall time. ``output_limit``: bytes over all its streams. ``log``: file that
    gets standard output and error as they come. ``channel``: called with each chunk the program writes to
    an extra file descriptor, whose number ``channel_args`` turns into more arguments. ``on_start`` is
    called with the process id, ``on_stdout`` with each chunk of standard output. Raises
    ``FileNotFoundError`` / ``PermissionError`` when the program cannot be started; whatever a callback or
    the log raises ends the program first.
    """
    args = [os.fspath(part) for part in argv]
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        log_file = stack.enter_context(log.open("ab")) if log is not None else None
        read_fd = write_fd = -1
        if channel is not None:
            read_fd, write_fd = os.pipe()
            stack.callback(_close, read_fd)
            args += channel_args(write_fd)
        with _signals_held():  # interrupted in here, we would not know whom to end
            try:
                child = subprocess.Popen(
                    args,
                    env=dict(env) if env is not None else None,
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
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
        timed_out, exceeded = _drain(child, sinks, started + timeout_s, output_limit)
        _end_group(child)
        return Finished(
            argv=tuple(args),
            returncode=child.returncode,
            stdout=out.text(),
            stderr=err.text(),
            wall_s=time.monotonic() - started,
            timed_out=timed_out,
            output_exceeded=exceeded,
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
) -> tuple[bool, bool]:
    """Feed every stream to its sink until the program ends; return (timed out, wrote too much)."""
    total, after_end = 0, 0
    with selectors.DefaultSelector() as selector:
        for fd in sinks:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return True, False
            # A grandchild may hold a pipe open, and write, after the program itself is gone: what the pipes
            # held then is read, and no more is waited for.
            ready = selector.select(min(left, 0.25))
            after_end += child.poll() is not None
            if after_end and (not ready or after_end > 3):
                return False, False
            for key, _ in ready:
                chunk = os.read(key.fd, CHUNK_BYTES)
                if not chunk:
                    selector.unregister(key.fd)
                    continue
                total += len(chunk)
                if total > output_limit:
                    return False, True
                sinks[key.fd](chunk)
    try:
        child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return True, False
    return False, False


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the program's process group and reap the program. Idempotent."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


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
