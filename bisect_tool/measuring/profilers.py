"""Profilers around one call of the op: `ncu` on CUDA, a Metal capture on macOS, `perf` on a Linux CPU.

Nothing is timed here: a profiler replays, samples or holds up what it looks at.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bisect_tool.analysis import ncu, perf
from bisect_tool.analysis.launches import Cell
from bisect_tool.building.environment import Environment
from bisect_tool.building.sandbox import Sandbox, Walls
from bisect_tool.errors import MachineTrouble, RunFailed, ToolMissing
from bisect_tool.measuring.run import Script, memory_limit, walls_of
from bisect_tool.paths import repro_script
from bisect_tool.process import Finished

TIMEOUT_S = 600
ONE_CALL = "one_call.py"
# Clocks are left as they are, and so are caches unless they are to be cold: as when it is measured.
NCU = ("--csv", "--print-units", "base", "--clock-control", "none", "--profile-from-start", "off",
       "--target-processes", "all")  # fmt: skip
NAMES_ALONE = ("launch__grid_size",)  # ncu wants a metric
SAMPLES_HZ, SAMPLED_S = 499, 2.0
EVENTS = ("instructions:u", "cycles:u", "cache-misses:u")


@dataclass(frozen=True)
class Profilers:
    """``env``: of what runs. ``find``: a program's path or None."""

    environment: Environment
    sandbox: Sandbox
    env: Mapping[str, str]
    find: Callable[[str], str | None]

    def cuda_kernels(
        self, cell: Cell, metrics: Sequence[str] = NAMES_ALONE, *, cold: bool = False
    ) -> list[ncu.Kernel]:
        """The kernels of one call, in order, with these metrics. ``cold``: the caches are emptied before
        each. Raises ToolMissing, MachineTrouble where it may not, RunFailed."""
        remedy = "install Nsight Compute, which comes with the CUDA toolkit"
        program = self._program("ncu", "seeing which kernels ran on an NVIDIA GPU", remedy)
        caches = ("--cache-control", "all" if cold else "none", "--metrics", ",".join(metrics))
        done = self.run([program, *NCU, *caches], cell, "--gate", "cuda")
        try:
            found = ncu.kernels(done.stdout)
        except ValueError as problem:
            said = done.stdout + done.stderr
            if "ERR_NVGPUCTRPERM" in said:
                raise MachineTrouble(
                    "ncu may not profile here", "the driver keeps its counters for root (ERR_NVGPUCTRPERM)",
                    "run as root, or load the driver with NVreg_RestrictProfilingToAdminUsers=0",
                ) from problem  # fmt: skip
            why = "" if done.ok else f"{done.describe()}: {done.last_line()}; "
            raise RunFailed(f"what ncu says of {_named(cell)} cannot be read", f"{why}{problem}") from problem
        if not found:
            raise RunFailed(f"ncu saw no kernel of {_named(cell)}", "the call did not reach the GPU")
        return found

    def metal_capture(self, cell: Cell) -> Path:
        """A capture of one call, in the environment's private home. Raises RunFailed."""
        name = f"{cell.K}x{cell.N}-M{cell.M}-{cell.mode}-{cell.bits}-{cell.dtype}.gputrace"
        place = self.environment.root / "home" / name
        shutil.rmtree(place, ignore_errors=True)  # Metal writes over none
        self.run([], cell, "--gate", f"metal:{place}", MTL_CAPTURE_ENABLED="1")
        if not place.exists():
            raise RunFailed(f"MLX wrote no capture of {_named(cell)}", "it does not say why")
        return place

    def cpu_samples(self, cell: Cell) -> perf.Sampled:
        """Where a CPU spends calls of some seconds, and what it counts over as many again.

        Raises ToolMissing, MachineTrouble where it may not, RunFailed."""
        remedy = "install linux-perf (Debian) or linux-tools-generic (Ubuntu)"
        program = self._program("perf", "seeing where a CPU spends its time", remedy)
        home = self.environment.root / "home"
        data, counts = home / "perf.data", home / "perf.stat"
        try:
            with _pipes(home) as pipes:
                front = [program, "record", "-q", "-e", "cpu-clock:u", "-F", str(SAMPLES_HZ), "-o", str(data)]
                self._perf(front, cell, pipes)
                front = [program, "stat", "-x", "|", "-o", str(counts), "-e", ",".join(EVENTS)]
                done = self._perf(front, cell, pipes)
            # What was recorded is a stranger's word as well: it is read behind the walls.
            fields = ("--stdio", "--no-children", "-t", "|", "-F", "overhead,sample,dso,symbol")
            report = self._walled([program, "report", "-i", str(data), *fields])
            if not report.ok:
                raise RunFailed("perf cannot read what it recorded", report.last_line())
            functions, samples = perf.functions(report.stdout)
            said = counts.read_text(errors="replace") if counts.is_file() else ""
            calls = re.search(r"^(\d+)$", done.stdout, re.MULTILINE)
            return perf.Sampled(tuple(functions), samples, perf.counters(said), int(calls[1]) if calls else 0)
        finally:
            for path in (data, counts, home / "perf.data.old"):
                path.unlink(missing_ok=True)

    def _program(self, name: str, doing: str, remedy: str) -> str:
        found = self.find(name)
        if found is None:
            raise ToolMissing(f"{doing} needs {name}", "it is not on PATH", remedy)
        return found

    def _perf(self, front: Sequence[str], cell: Cell, pipes: tuple[Path, Path]) -> Finished:
        control = ",".join(map(str, pipes))
        gate = ["--delay=-1", f"--control=fifo:{control}", "--"]
        seconds = ["--seconds", f"{SAMPLED_S:g}", "--gate", f"perf:{control}"]
        done = self.run([*front, *gate], cell, *seconds)
        if not done.ok:
            if re.search(r"perf_event_paranoid|No permission|Permission denied", done.stderr):
                raise MachineTrouble(
                    "perf may not look at programs here", "the kernel does not let it",
                    "sudo sysctl kernel.perf_event_paranoid=2",
                )  # fmt: skip
            raise RunFailed(f"perf of {_named(cell)} failed", f"{done.describe()}: {done.last_line()}")
        return done

    def run(self, front: Sequence[str], cell: Cell, *extra: str, **env: str) -> Finished:
        """One process that calls the op, ``front`` being the profiler that starts it. Raises RunFailed when
        there is none and it fails."""
        script = repro_script(ONE_CALL)
        words = [str(cell.K), str(cell.N), str(cell.M), "--bits", str(cell.bits)]
        words += ["--group-size", str(cell.group_size), "--quant", cell.mode, "--dtype", cell.dtype]
        words += [] if cell.transpose else ["--no-transpose"]
        done = self._walled([*front, str(self.environment.python), "-s", str(script), *words, *extra], **env)
        if not done.ok and not front:
            raise RunFailed(f"{_named(cell)} failed", f"{done.describe()}: {done.last_line()}")
        return done

    def _walled(self, argv: Sequence[str], **env: str) -> Finished:
        usual = walls_of(self.environment, Script.load(None, ()))
        walls = Walls((*usual.read, repro_script(ONE_CALL)), usual.write, usual.home, usual.gpu)
        return self.sandbox.run(
            argv,
            walls=walls,
            env={**self.env, **env},
            cwd=self.environment.root,
            timeout_s=TIMEOUT_S,
            memory_limit=memory_limit(),
        )


@contextlib.contextmanager
def _pipes(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Two FIFOs: what is said to perf, and its answers."""
    pair = folder / "perf.control", folder / "perf.ack"
    try:
        for path in pair:
            path.unlink(missing_ok=True)
            os.mkfifo(path)
        yield pair
    finally:
        for path in pair:
            path.unlink(missing_ok=True)


def _named(cell: Cell) -> str:
    return f"{cell.K} → {cell.N}, M={cell.M}"
