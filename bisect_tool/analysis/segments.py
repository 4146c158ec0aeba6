"""Which kernel computes which rows: as dispatch says, as a person writes, or as the bits of row 0 tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from bisect_tool.analysis.laws import Segment, Tiles

# How these kernels of MLX cut M rows; others take them one by one (mlx/backend/metal/quantized.cpp).
TILES = {"qmv_wide": Tiles(5, whole=False), "qmm": Tiles(32), "qmm_t": Tiles(32), "qmm_n": Tiles(32)}
ONE = re.compile(
    r"(?P<kernel>[\w.-]+?)(?:/(?P<rows>\d+)(?P<balanced>b?))?@(?P<low>\d+)(?:(?P<up>\+)|-(?P<high>\d+))?$"
)


def parse(text: str) -> list[Segment]:
    """``qmv_fast@1, qmv_wide/5b@2-9, qmm_t/32@10+`` as segments; ``/32``: whole tiles of 32 rows, ``/5b``:
    balanced tiles of at most 5. Known kernels need no tile. ValueError for anything else, or an overlap."""
    found: list[Segment] = []
    for word in text.split(","):
        match = ONE.match(word.strip())
        if match is None:
            raise ValueError(f"{word.strip()!r} is no segment such as qmv_wide@2-9 or qmm_t/32@10+")
        rows = match["rows"]
        tiles = Tiles(int(rows), not match["balanced"]) if rows else TILES.get(match["kernel"])
        low = int(match["low"])
        high = None if match["up"] else int(match["high"] or low)
        if rows == "0" or low < 1 or (high is not None and high < low):
            raise ValueError(f"{word.strip()!r} holds no rows")
        if found and (found[-1].high is None or low <= found[-1].high):
            raise ValueError(f"{word.strip()!r} overlaps the segment before it; give them in order of M")
        found.append(Segment(low, high, match["kernel"], tiles))
    return found


def from_dispatch(rows: Iterable[tuple[int, int | None, str, Tiles | None]]) -> list[Segment]:
    """Segments from plain data: (lowest M, highest M or None, kernel, tile rule), as dispatch lists them."""
    return [
        Segment(low, high, kernel, tiles) for low, high, kernel, tiles in sorted(rows, key=lambda r: r[0])
    ]


def from_bits(as_m1: Mapping[int, bool]) -> list[Segment]:
    """Segments from whether row 0 of M rows has the bits that M=1 gives (``error.row_bits_as_m1``).

    Runs of rows that agree; a row that differs ran another kernel. None of them where all agree, which does
    not prove that one kernel ran: two may round alike.
    """
    rows = sorted(as_m1)
    if len(set(as_m1.values())) < 2:
        return []
    starts = [M for i, M in enumerate(rows) if i == 0 or as_m1[M] != as_m1[rows[i - 1]]]
    ends = [rows[rows.index(start) - 1] for start in starts[1:]]
    return [Segment(low, high) for low, high in zip(starts, [*ends, None], strict=True)]
