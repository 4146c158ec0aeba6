"""What really ran: row bits of M against M=1 everywhere, kernel names by ncu on CUDA, a capture on macOS.

Nothing is timed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bisect_tool.analysis import ncu
from bisect_tool.analysis.launches import Cell
from bisect_tool.errors import RunFailed
from bisect_tool.measuring.profilers import TIMEOUT_S, Profilers
from bisect_tool.measuring.run import Script, run_once


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
    """``logs``: a folder for what runs say."""

    profilers: Profilers
    logs: Path

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
            if self.profilers.environment.backend.startswith("cuda"):
                on_phase(f"{cell.K} → {cell.N}, M={cell.M} under ncu")
                kernels = tuple(self.profilers.cuda_kernels(cell))
            elif self.profilers.environment.backend == "metal":
                on_phase(f"capturing {cell.K} → {cell.N}, M={cell.M}")
                capture = self.profilers.metal_capture(cell)
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
                self.profilers.environment,
                Script.load(None, _arguments(block)),
                sandbox=self.profilers.sandbox,
                seed=3553,
                env=self.profilers.env,
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


def _arguments(block: Sequence[Cell]) -> tuple[str, ...]:
    """The canonical repro's, for cells that differ in M alone: it times too, as little as it can."""
    first = block[0]
    return (
        *("--shape", f"{first.K}x{first.N}", "--rows", ",".join(str(cell.M) for cell in block)),
        *("--bits", str(first.bits), "--group-size", str(first.group_size), "--quant", first.mode),
        *("--dtype", first.dtype, "--timing", "percall", "--budget", "1"),
    )
