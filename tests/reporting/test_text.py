from __future__ import annotations

import re

import pytest

from bisect_tool.analysis.rank import Interval
from bisect_tool.reporting import text


def cells(line: str) -> list[str]:
    """The cells of a table row as GitHub sees them: a bar after a backslash ends none."""
    found, at = [""], 0
    while at < len(line):
        if line[at] == "\\" and at + 1 < len(line):
            found[-1] += line[at : at + 2]
            at += 2
            continue
        if line[at] == "|":
            found.append("")
        else:
            found[-1] += line[at]
        at += 1
    assert found[0].strip() == found[-1].strip() == ""
    return [cell.strip() for cell in found[1:-1]]


def seen(cell: str) -> str:
    """A cell as it is shown: a backslash before a bar or another backslash is not."""
    return re.sub(r"\\([\\|])", r"\1", cell)


@pytest.mark.parametrize(
    ("interval", "scale", "shown"),
    [
        (Interval(0.2712, 0.2701, 0.2724, 8), 1, "0.2712 [0.2701, 0.2724]"),  # ± 0.00115: to 0.0001
        (Interval(270e-6, 269.1e-6, 270.9e-6, 8), 1e6, "270.00 [269.10, 270.90]"),
        (Interval(270e-6, 258e-6, 282e-6, 8), 1e6, "270 [258, 282]"),
        (Interval(1.5, 1.4, 1.6, 8), 1, "1.50 [1.40, 1.60]"),
        (Interval(12345.0, 11000.0, 14000.0, 8), 1, "12345 [11000, 14000]"),
        (Interval(-1.5, -1.62, -1.38, 8), 1, "-1.50 [-1.62, -1.38]"),
        (Interval(0.0, -0.12, 0.12, 8), 1, "0.00 [-0.12, 0.12]"),
        (Interval(1.0, 1.0 - 1e-12, 1.0 + 1e-12, 8), 1, "1.000000 [1.000000, 1.000000]"),
        (Interval(0.27, 0.27, 0.27, 8), 1, "0.2700 [0.2700, 0.2700]"),  # no width: as without an interval
        (Interval(0.27123456, None, None, 3), 1, "0.2712"),
        (Interval(424.8123, None, None, 3), 1, "424.8"),
        (Interval(820123.0, None, None, 3), 1, "820123"),
        (Interval(0.0, None, None, 3), 1, "0.000"),
    ],
)
def test_digits_follow_the_interval(interval: Interval, scale: float, shown: str) -> None:
    assert text.with_interval(interval, scale) == shown


def test_at_most_so_many_decimals_and_nothing_for_none() -> None:
    narrow = Interval(1.27201, 1.272, 1.27202, 8)
    assert text.with_interval(narrow) == "1.272010 [1.272000, 1.272020]"
    assert text.with_interval(narrow, at_most=4) == "1.2720 [1.2720, 1.2720]"
    assert text.with_interval(None) == ""


@pytest.mark.parametrize(
    ("seconds", "unit"),
    [
        ([2.0, 1e-6], "s"),
        ([1.0], "s"),
        ([0.999], "ms"),
        ([1e-3], "ms"),
        ([0.9e-3, 5e-6], "µs"),
        ([2e-9], "µs"),
    ],
)
def test_unit(seconds: list[float], unit: str) -> None:
    assert text.time_unit(seconds) == unit
    assert text.UNITS[unit] == {"s": 1, "ms": 1e3, "µs": 1e6}[unit]


def test_percent() -> None:
    assert text.percent(Interval(1.2741, 1.269, 1.279, 8)) == "+27.4 % [26.9, 27.9]"
    assert text.percent(Interval(0.9, 0.85, 0.96, 8)) == "-10.0 % [-15.0, -4.0]"
    assert text.percent(Interval(1.2741, None, None, 3)) == "+27.4 %"


def test_a_sha_is_no_number() -> None:
    table = text.table(["commit", "n"], [["8e00102", "007"], ["548dd80", "1e5"], ["0.30", "inf"]])
    assert [cells(line) for line in table.splitlines()[2:]] == [
        ["8e00102", "007"],
        ["548dd80", "1e5"],
        ["0.30", "inf"],
    ]


@pytest.mark.parametrize(
    "wild", ["a|b", "||", "two\nlines", "tab\there", " wide ", "5120 → 13824", "x\\y", "a\\|b", "ends in \\"]
)
def test_no_text_breaks_a_table(wild: str) -> None:
    lines = text.table(["a", wild], [[wild, "b"], ["c", wild]]).splitlines()
    assert len(lines) == 4
    assert all(len(cells(line)) == 2 for line in lines)
    assert seen(cells(lines[2])[0]) == " ".join(wild.split())


def test_blocks() -> None:
    assert text.folded("more", "- a") == "<details>\n<summary>more</summary>\n\n- a\n\n</details>"
    assert text.fenced("run") == "```\nrun\n```"


@pytest.mark.parametrize(
    ("label", "printed"),
    [
        ("0.32.4", "mlx 0.32.4"),
        ("#3764", "mlx #3764"),
        ("0.32.4,MLX_ENABLE_NAX=*", "mlx 0.32.4,MLX_ENABLE_NAX=*"),
        ("@2026-03-01", "mlx `@2026-03-01`"),
        ("main~3", "mlx `main~3`"),
    ],
)
def test_a_name_that_markdown_would_take_for_something_else(label: str, printed: str) -> None:
    assert text.mlx(label) == printed
