"""What really ran: row bits of M against M=1 everywhere, kernel names by ncu on CUDA, a capture on macOS.

Nothing is timed here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bisect_tool.analysis import ncu
from bisect_tool.analysis.launches import Cell
from bisect_tool.building.environment import Environment
from bisect_tool.building.sandbox import Sandbox, Walls
from bisect_tool.errors import MachineTrouble, RunFailed, ToolMissing
from bisect_tool.measuring.run import Script, memory_limit, run_once, walls_of
from bisect_tool.paths import repro_script
from bisect_tool.process import Finished

TIMEOUT_S = 600
ONE_CALL = "one_call.py"
NCU_ARGUMENTS = ("--csv", "--metrics", "gpu__time_duration.sum", "--target-processes", "all")


@dataclass(frozen=True)
class Observed:
    """One cell. ``row_as_m1``: row 0 has the bits that M=1 gives for it, None where that is not known: other
    bits mean that another kernel ran, the same bits prove nothing. ``kernels``: those that ran, None where
    nothing can tell. ``capture``: the Metal capture, to be opened in Xcode. ``arch``: the GPU's architecture
    as MLX names it, '' where it does not."""

    cell: Cell
    row_as_m1: bool | None
    kernels: tuple[ncu.Kernel, ...] | None = None
    capture: Path | None = None
    arch: str = ""


@dataclass(frozen=True)
class Observer:
    """``env``: of what runs. ``logs``: a folder for what it says. ``find``: a program's path or None."""

    environment: Environment
    sandbox: Sandbox
    env: Mapping[str, str]
    logs: Path
    find: Callable[[str], str | None]

    def observe(
        self, cells: Sequence[Cell], on_phase: Callable[[str], None] = lambda _text: None
    ) -> list[Observed]:
        """All that this machine can tell of each cell; their architecture does not matter.

        Raises RunFailed, ToolMissing where there is a CUDA build but no ncu, MachineTrouble when it may not.
        """
        on_phase("comparing row bits with those of M=1")
        bits, arch = self.row_bits(cells)
        found = []
        for cell in cells:
            kernels = capture = None
            if self.environment.backend.startswith("cuda"):
                on_phase(f"{cell.K} → {cell.N}, M={cell.M} under ncu")
                kernels = tuple(self.cuda_kernels(cell))
            elif self.environment.backend == "metal":
                on_phase(f"capturing {cell.K} → {cell.N}, M={cell.M}")
                capture = self.metal_capture(cell)
            found.append(Observed(cell, bits.get(cell), kernels, capture, arch))
        return found

    def row_bits(self, cells: Sequence[Cell]) -> tuple[dict[Cell, bool], str]:
        """Whether row 0 has the bits of M=1, by the canonical repro, and the GPU's architecture. The repro
        has no case without transpose, and none for what the release cannot do: those are missing. Raises
        RunFailed."""
        found: dict[Cell, bool] = {}
        arch = ""
        blocks: dict[tuple[object, ...], list[Cell]] = {}
        for cell in cells:
            if cell.transpose:
                key = cell.bits, cell.group_size, cell.mode, cell.dtype, cell.K, cell.N
                blocks.setdefault(key, []).append(cell)
        for block in blocks.values():
            first = block[0]
            record = run_once(
                self.environment,
                Script.load(None, _arguments(block)),
                sandbox=self.sandbox,
                seed=3553,
                env=self.env,
                timeout_s=TIMEOUT_S,
                log=self.logs / "row-bits.log",
                running=self.logs / "row-bits.running",
            )
            arch = str(record["device"].get("architecture", ""))
            if record["outcome"] != "ok":
                if record["unsupported"]:
                    continue
                raise RunFailed(
                    f"{first.K} → {first.N} could not be run",
                    record["reason"],
                    log=self.logs / "row-bits.log",
                )
            by_rows = {
                line["case"]["M"]: line["error"]["row_bits_as_m1"]
                for line in record["cases"]
                if "error" in line and not line["case"].get("control")
            }
            found |= {cell: by_rows[cell.M] for cell in block if cell.M in by_rows}
        return found, arch

    def cuda_kernels(self, cell: Cell) -> list[ncu.Kernel]:
        """The kernels of one call by ncu. Raises ToolMissing, MachineTrouble, RunFailed."""
        program = self.find("ncu")
        if program is None:
            raise ToolMissing(
                "seeing which kernels ran on an NVIDIA GPU needs ncu", "it is not on PATH",
                "install Nsight Compute, which comes with the CUDA toolkit",
            )  # fmt: skip
        said = [self._run([program, *NCU_ARGUMENTS], cell, *extra) for extra in (("--without",), ())]
        try:
            without, with_it = (ncu.kernels(done.stdout) for done in said)
        except ValueError as problem:
            if "ERR_NVGPUCTRPERM" in said[0].stdout + said[0].stderr:
                raise MachineTrouble(
                    "ncu may not profile here", "the driver keeps its counters for root (ERR_NVGPUCTRPERM)",
                    "run as root, or load the driver with NVreg_RestrictProfilingToAdminUsers=0",
                ) from problem  # fmt: skip
            raise RunFailed("what ncu says cannot be read", str(problem)) from problem
        return ncu.beyond(without, with_it)

    def metal_capture(self, cell: Cell) -> Path:
        """A capture of one call, in the environment's private home. Raises RunFailed."""
        name = f"{cell.K}x{cell.N}-M{cell.M}-{cell.mode}-{cell.bits}-{cell.dtype}.gputrace"
        place = self.environment.root / "home" / name
        shutil.rmtree(place, ignore_errors=True)  # Metal writes over none
        self._run([], cell, "--capture", str(place), MTL_CAPTURE_ENABLED="1")
        if not place.exists():
            raise RunFailed(f"MLX wrote no capture of {cell.K} → {cell.N}, M={cell.M}", "it does not say why")
        return place

    def _run(self, front: Sequence[str], cell: Cell, *extra: str, **env: str) -> Finished:
        script = repro_script(ONE_CALL)
        words = [str(cell.K), str(cell.N), str(cell.M), "--bits", str(cell.bits)]
        words += ["--group-size", str(cell.group_size), "--quant", cell.mode, "--dtype", cell.dtype]
        words += [] if cell.transpose else ["--no-transpose"]
        usual = walls_of(self.environment, Script.load(None, ()))
        walls = Walls((*usual.read, script), usual.write, usual.home, usual.gpu)
        done = self.sandbox.run(
            [*front, str(self.environment.python), "-s", str(script), *words, *extra],
            walls=walls,
            env={**self.env, **env},
            cwd=self.environment.root,
            timeout_s=TIMEOUT_S,
            memory_limit=memory_limit(),
        )
        if not done.ok and not front:
            raise RunFailed(
                f"{cell.K} → {cell.N}, M={cell.M} failed", f"{done.describe()}: {done.last_line()}"
            )
        return done


def _arguments(block: Sequence[Cell]) -> tuple[str, ...]:
    """The canonical repro's, for cells that differ in M alone: it times too, as little as it can."""
    first = block[0]
    return (
        *("--shape", f"{first.K}x{first.N}", "--rows", ",".join(str(cell.M) for cell in block)),
        *("--bits", str(first.bits), "--group-size", str(first.group_size), "--quant", first.mode),
        *("--dtype", first.dtype, "--timing", "percall", "--budget", "1"),
    )
