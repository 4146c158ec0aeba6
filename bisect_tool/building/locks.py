"""File locks under ``builds/locks``, so that any number of tools can share one folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from bisect_tool.errors import EnvironmentBroken


@contextlib.contextmanager
def held(
    builds: Path,
    name: str,
    *,
    timeout_s: float = 24 * 3600,
    on_wait: Callable[[str], None] | None = None,
    doing: str = "",
) -> Iterator[None]:
    """Held by whoever makes, changes or removes ``name``; the kernel frees it when that one dies.

    ``on_wait`` is told once, in words, when another process has it; ``doing`` says what that one is at:
    ``making 0.32.4-cpu-cp311``. Raises ``EnvironmentBroken`` when it does not let go within ``timeout_s``.
    """
    from filelock import FileLock, Timeout

    path = builds / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_wait is not None:
            on_wait(f"waiting for another bisect_tool to finish {doing or name}")
        try:
            lock.acquire(timeout=timeout_s, poll_interval=0.05)
        except Timeout as problem:
            raise EnvironmentBroken(
                f"{name} is in use",
                f"another process still holds {path} after {timeout_s:.0f} s",
                "try again when it is done",
            ) from problem
    try:
        yield
    finally:
        lock.release()
