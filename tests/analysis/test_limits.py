"""What counters say: recorded ones of a linear kernel, and made-up ones for each other hypothesis."""

from __future__ import annotations

from pathlib import Path

import pytest

from bisect_tool.analysis import limits, ncu
from bisect_tool.analysis.launches import Cell

DATA = Path(__file__).parent.parent / "data" / "ncu"


def cell(M: int) -> Cell:
    return Cell("here", 5120, 13824, M)


def recorded(M: int) -> limits.Profiled:
    return limits.profiled(cell(M), ncu.kernels((DATA / f"5120x13824-M{M}.csv").read_text()))


def made(
    M: int,
    *,
    name: str = "kernel<1>",
    grid: str = "(100, 1, 1)",
    waves: float = 2.5,
    reads: float = 1.0,
    work: float = 1.0,
    reached: float = 60.0,
    possible: float = 75.0,
    used: float = 100.0,
    **units: float,
) -> limits.Profiled:
    """A cell with one kernel. ``reads``: weights from L2. ``units``: percent."""
    weight = 5120 * 13824 * (0.5 + 4 / 64)
    counters = {limits.UNITS[unit.replace("_", " ")]: value for unit, value in units.items()}
    counters |= {
        limits.WAVES: waves, limits.REGISTERS: 40, limits.REACHED: reached, limits.POSSIBLE: possible,
        limits.L2_READS: reads * weight / 32, limits.DRAM_READS: weight, limits.INSTRUCTIONS: work * 1e6,
        limits.USED: used,
    }  # fmt: skip
    return limits.profiled(cell(M), [ncu.Kernel(name, grid, "(32, 1, 1)", counters)])


def test_recorded_counters_in_their_units() -> None:
    one = recorded(3).main
    assert one.units["L1"] == pytest.approx(0.983, abs=0.01) and one.busiest[0] == "L1"
    assert one.l2_reads == pytest.approx(4.02, abs=0.01)  # of a weight of 39.8 MB
    assert (one.waves, one.registers, one.possible) == (6.55, 40, 0.75)
    assert one.idle == pytest.approx(1 - 6.55 / 7)
    assert one.pipe[0] == "ALU"


def test_a_kernel_that_reads_the_weight_again_for_every_row_and_another_from_m_8() -> None:
    lines = limits.reading([recorded(M) for M in (1, 3, 7, 8)])
    assert lines[0].startswith("another kernel: qmv_kernel at M=1–7, ")
    assert lines[1].startswith("M=1–7: limited by L1: 9")
    assert any("each row reads the weight again, which speaks for a linear law" in line for line in lines)
    assert sum(line.startswith("M=8: ") for line in lines) == 1  # one M has no growth to speak of


def says(*found: limits.Profiled) -> str:
    return "\n".join(limits.reading(list(found)))


def test_read_once_while_arithmetic_grows_is_a_roofline() -> None:
    text = says(made(1, DRAM=90, ALU=40), made(4, work=3.9, DRAM=55, ALU=88))
    assert "what is busiest changes with M: DRAM 90 % at M=1, ALU 88 % at M=4" in text
    assert "1.0 to 1.0 weights are read from L2, ×1.0 for ×4.0 rows, instructions ×3.9" in text
    assert text.count("speaks for a roofline") == 1 and "linear" not in text


def test_the_same_grid_makes_no_wave() -> None:
    assert "the same grid at every M (2.50 waves)" in says(made(1, L2=90), made(3, L2=90))
    text = says(made(1, grid="(1, 1, 1)", waves=1.0), made(3, grid="(3, 1, 1)", waves=3.2))
    assert (
        "waves per multiprocessor 1.00 to 3.20: a last wave that is not full costs 20 % at most (M=3)" in text
    )


def test_no_unit_near_its_limit_means_waiting() -> None:
    text = says(made(1, DRAM=41, L1=38), made(2, DRAM=44, L1=30))
    assert "limited by no unit (DRAM is the busiest, 41–44 %): warps wait" in text
    assert "DRAM is the busiest, 70 %: near its limit, not at it" in says(made(1, DRAM=70))


def test_loads_that_use_little_of_what_they_move_are_said() -> None:
    text = says(made(1, L1=95, used=15), made(2, L1=97, used=16))
    assert "limited by L1: 95–97 % of what it can do; of the bytes that its loads move 15–16 %" in text
    assert "asked for" not in says(made(1, L1=95, used=90))
    assert "asked for" not in says(made(1, DRAM=95, used=15))


def test_occupancy_that_changes_is_said() -> None:
    assert "occupancy changes with M: 30–60 % reached of 75 %" in says(made(1), made(2, reached=30))
    assert "occupancy that is possible changes with M" in says(made(1), made(2, possible=50))
    assert "occupancy does not change with M: 60 % reached of 75 % possible" in says(made(1), made(2))


def test_what_is_not_counted_is_not_said() -> None:
    bare = limits.profiled(cell(1), [ncu.Kernel("kernel")])
    assert limits.reading([bare, limits.profiled(cell(2), [ncu.Kernel("kernel")])]) == []
    assert bare.main.busiest == ("", 0.0) and bare.main.idle is None


def test_series_and_segments() -> None:
    found = [made(3), made(1), made(2, name="kernel<2>")]
    (group,) = limits.series(found)
    assert [one.cell.M for one in group] == [1, 2, 3]
    assert [[one.cell.M for one in part] for part in limits.segments(group)] == [[1], [2], [3]]
    apart = limits.profiled(Cell("here", 64, 64, 1), [ncu.Kernel("kernel")])
    wide, narrow = limits.series([*found, apart])
    assert (wide[0].cell.K, narrow[0].cell.K) == (5120, 64)  # as they were asked for, not by size


def test_the_kernel_that_does_the_work_stands_for_the_cell() -> None:
    kernels = [
        ncu.Kernel("copy<1>", counters={limits.INSTRUCTIONS: 5.0}),
        ncu.Kernel("gemm<1>", counters={limits.INSTRUCTIONS: 50.0}),
    ]
    assert limits.profiled(cell(8), kernels).main.kernel.short == "gemm"
