"""The laws of time against rows M, as what a straight least-squares fit needs: columns of a matrix.

With W the work of one row (multiply-adds, or 1 for a single series), β the bytes of weights for each unit of
work, and t0 a floor that every call pays whatever it does:

    constant    t0 + b·W·β                        the weights are read once, arithmetic is free
    linear      t0 + c·W·M                        each further row costs what the first does
    roofline    t0 + c·W·max(ρ·β, M)              Williams, Waterman & Patterson (CACM 52(4), 2009): reading
                                                  the weights overlaps the arithmetic; the ridge is at M = ρ·β
    staircase   t0 + c·W·ceil(M/q)                waves or tiles of q rows, each paid whole; a wave of
                                                  threadgroups holds rows times columns, so that at ν times
                                                  the columns it is c·W/ν·ceil(M·ν/q)
    switch      one of the first two below M*, another of them from M* on

Each is linear in its coefficients once its one shape (ρ, q or M*) is fixed. Where dispatch gives the tiles of
a kernel, ``Tiles``, the laws use them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, Any]

LAWS = ("linear", "roofline", "staircase", "switch")
RIDGES = 160  # shapes tried on the way from the smallest M to the largest, evenly on a logarithmic scale


@dataclass(frozen=True)
class Point:
    """One time at M rows (between two whole rows only where a curve is drawn). ``noise`` is its relative
    standard error; ``work`` and ``bytes`` are relative to
    those of the other points (1 for a series at one shape), and so are the ``columns`` of its output;
    ``series`` says which curve it belongs to."""

    M: float
    time: float
    noise: float = 0.02
    work: float = 1.0
    bytes: float = 1.0
    columns: float = 1.0
    series: str = ""


@dataclass(frozen=True)
class Tiles:
    """How a kernel cuts M rows: into ceil(M/rows) tiles, each computed whole (``qmm``), or balanced, of
    ceil(M/tiles) rows each (``qmv_wide``)."""

    rows: int
    whole: bool = True

    def cut(self, M: Array) -> tuple[Array, Array]:
        """The number of tiles, and the rows that each computes."""
        import numpy

        count = numpy.ceil(M / self.rows)
        return count, numpy.full_like(M, self.rows) if self.whole else numpy.ceil(M / count)


@dataclass(frozen=True)
class Segment:
    """Rows ``low`` to ``high`` (None: and up) that one kernel computes."""

    low: int
    high: int | None
    kernel: str = ""
    tiles: Tiles | None = None

    def holds(self, M: float) -> bool:
        return self.low <= M and (self.high is None or self.high >= M)

    @property
    def rows(self) -> str:
        if self.high is None:
            return f"M ≥ {self.low}"
        return f"M = {self.low}–{self.high}" if self.high > self.low else f"M = {self.low}"


@dataclass(frozen=True)
class Columns:
    """A law over given points: ``body[g, i]`` is what its coefficient multiplies at point i for shape g.

    ``fitted_shape``: the shape is a parameter that the data had to choose.
    """

    law: str
    shapes: tuple[float, ...]
    body: Array
    fitted_shape: bool


@dataclass(frozen=True)
class _Rows:
    """Points as arrays: rows, work, bytes a unit of work, columns; tiles of a row count and rows of each."""

    M: Array
    work: Array
    beta: Array
    wide: Array
    count: Array
    each: Array

    @staticmethod
    def of(points: Sequence[Point], tiles: Tiles | None) -> _Rows:
        import numpy

        M = numpy.array([p.M for p in points], dtype=float)
        work = numpy.array([p.work for p in points], dtype=float)
        beta = numpy.array([p.bytes / p.work for p in points], dtype=float)
        wide = numpy.array([p.columns for p in points], dtype=float)
        count, each = tiles.cut(M) if tiles is not None else (numpy.ones_like(M), M)
        return _Rows(M, work, beta, wide, count, each)

    def body(self, law: str, shapes: Array, tiled: bool) -> Array:
        """What the slope multiplies, one line for each shape."""
        import numpy

        if law == "constant":
            return (self.work * self.beta)[None, :]
        if law == "linear":
            return (self.work * self.M)[None, :]
        if law == "roofline":
            reading: Array = numpy.maximum(shapes[:, None] * self.beta, self.each)
            return self.work * self.count * reading
        if law == "staircase" and tiled:
            return (self.work * self.count)[None, :]
        if law == "staircase":
            return self.work / self.wide * numpy.ceil(self.M * self.wide / shapes[:, None])
        raise ValueError(f"{law!r} is no law with one formula")


def columns(law: str, points: Sequence[Point], tiles: Tiles | None = None) -> Columns:
    """The columns of one law without a switch. Raises ValueError for a law that is none."""
    import numpy

    rows = _Rows.of(points, tiles)
    shapes, fitted = numpy.array([math.nan]), False
    if law == "roofline":
        # Between the smallest and the largest number of rows that a tile has, for each of the intensities.
        low, high = (rows.each / rows.beta).min(), (rows.each / rows.beta).max()
        shapes, fitted = numpy.geomspace(low, max(high, low * 1.0001), RIDGES), True
    elif law == "staircase":
        if tiles is not None:
            shapes = numpy.array([float(tiles.rows)])
        else:
            shapes, fitted = numpy.arange(2, max(3, int(rows.M.max()) + 1), dtype=float), True
    body = rows.body(law, shapes, tiles is not None)
    return Columns(law, tuple(shapes.tolist()), body, fitted)


def curve(
    law: str, floor: float, slope: float, shape: float, points: Sequence[Point], tiles: Tiles | None
) -> Array:
    """The times that a fitted law gives at these points, measured or not."""
    import numpy

    rows = _Rows.of(points, tiles)
    times: Array = floor + slope * rows.body(law, numpy.array([shape]), tiles is not None)[0]
    return times
