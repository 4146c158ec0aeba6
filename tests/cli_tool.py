"""The command itself, as a process: what a user would see, and the session that it left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bisect_tool.measuring import ledger

# Counts its runs in the folder that its first argument names; `hang` there names the run that hangs. Within
# walls it could write to none: it needs UNWALLED.
COUNTING = """
import json, os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
count = len(list(folder.glob("run-*"))) + 1
(folder / f"run-{count}").touch()
import mlx.core as mx
hang = folder / "hang"
if hang.exists() and hang.read_text() == str(count):
    (folder / "pid.new").write_text(str(os.getpid()))
    (folder / "pid.new").rename(folder / "pid")
    time.sleep(120)
print(json.dumps({"metric": "time", "value": 1 + 0.001 * (count % 2), "unit": "s"}))
"""

UNWALLED = ("--sandbox", "off", "--trust")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    def error(self) -> str:
        """The one line that says what went wrong."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith(("error:", "interrupted"))]
        assert len(lines) == 1, self.err
        assert self.err.rstrip().endswith(lines[0]), f"not the last: {self.err}"
        return lines[0]


@dataclass(frozen=True)
class Tool:
    """Starts ``bisect_tool`` with ``builds`` as its folder."""

    builds: Path
    cwd: Path

    def __call__(self, *words: str, **env: str) -> Ended:
        with self.started(*words, **env) as process:
            out, err = process.communicate(timeout=120)
        return Ended(process.returncode, out, err)

    @contextmanager
    def started(self, *words: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        given = {name: value for name, value in os.environ.items() if not name.startswith("BISECT_TOOL_")}
        # No configuration of whoever runs the tests.
        given["XDG_CONFIG_HOME"] = str(self.cwd / "no-configuration")
        process = subprocess.Popen(
            [sys.executable, "-m", "bisect_tool", *words],
            cwd=self.cwd,
            env={**given, "BISECT_TOOL_BUILDS": str(self.builds), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)  # it ends what it started
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=20)
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def sessions(self) -> list[ledger.Session]:
        """Newest first."""
        return [ledger.read(path) for path in ledger.sessions(self.builds)]


def finish(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=60)
    return Ended(process.returncode, out, err)
