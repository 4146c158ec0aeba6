"""The one number that a search reads from a run: a time, a ratio of two, a script's metric, or an exit code.

What the canonical repro measures is named by its case: ``M=3`` is the time at three rows, ``M=3/M=1`` the
ratio of two times of one process, ``5120x13824,M=3`` and ``M=3,bits=8`` choose among shapes and settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Line = Mapping[str, Any]
DEFAULT = "M=3/M=1"  # ml-explore/mlx#3553; machine-wide shifts cancel
EXIT = "exit"

_SHAPE = re.compile(r"(\d+)x(\d+)(?:x(\d+))?")
_NUMBERS = ("K", "N", "B", "M", "bits", "group_size")
_NAMES = ("quant", "dtype", "cache", "timing")


class Unknown(ValueError):
    """A text that names no metric; says what is wrong with it."""


@dataclass(frozen=True)
class Metric:
    """``text`` as given. ``above``, ``below``: fields of the cases whose times are read and divided.

    ``script``: the name of a metric that a script prints. With neither, the exit code: 0.0 good, 1.0 bad.
    """

    text: str
    above: tuple[tuple[str, Any], ...] = ()
    below: tuple[tuple[str, Any], ...] = ()
    script: str = ""

    @staticmethod
    def of_case(text: str) -> Metric:
        """Parse ``CASE`` or ``CASE/CASE``. Raises Unknown."""
        parts = text.split("/")
        if len(parts) > 2:
            raise Unknown(f"{text!r} divides more than once")
        cases = [_case(part) for part in parts]
        if len(cases) == 2 and cases[0] == cases[1]:
            raise Unknown(f"{text!r} divides a time by itself")
        return Metric(text, cases[0], cases[1] if len(cases) == 2 else ())

    @staticmethod
    def of_script(name: str) -> Metric:
        """A name that a script prints, or ``exit``."""
        return Metric(name, script="" if name == EXIT else name)

    @property
    def passfail(self) -> bool:
        return not self.above and not self.script

    @property
    def unit(self) -> str:
        """``s`` for a time, nothing for a ratio or an exit code; a script says its own."""
        return "s" if self.above and not self.below else ""

    def rows(self) -> str:
        """The values of M that it needs, as the repro's ``--rows`` takes them."""
        wanted = {dict(case)["M"] for case in (self.above, self.below) if case}
        return ",".join(map(str, sorted(wanted)))

    def shapes(self) -> tuple[str, ...]:
        """The shapes that it names, as the repro's ``--shape`` takes them."""
        found = []
        for case in (self.above, self.below):
            fields = dict(case)
            if "K" in fields:
                batch = f"x{fields['B']}" if fields.get("B", 1) != 1 else ""
                found.append(f"{fields['K']}x{fields['N']}{batch}")
        return tuple(dict.fromkeys(found))

    def value(self, run: Line) -> float | None:
        """What a run line of the ledger says; None when it says nothing of the kind.

        Times in seconds. A name printed twice counts as printed last. Raises Unknown where several cases fit.
        """
        if self.script:
            values = [said["value"] for said in run["metrics"] if said["metric"] == self.script]
            return float(values[-1]) if values else None
        if self.passfail:
            return {"good": 0.0, "bad": 1.0}.get(run["outcome"])
        times = [self._time(case, run) for case in (self.above, self.below) if case]
        if None in times:
            return None
        above, *below = (t for t in times if t is not None)
        return above / below[0] if below else above

    def _time(self, wanted: tuple[tuple[str, Any], ...], run: Line) -> float | None:
        hits = [
            line
            for line in run["cases"]
            if not line["case"].get("control") and all(line["case"].get(k, 1) == v for k, v in wanted)
        ]
        if len(hits) > 1:
            raise Unknown(
                f"{self.text!r} fits {len(hits)} cases: {', '.join(named(hit['case']) for hit in hits)}"
            )
        return float(hits[0]["time_s"]) if hits else None


def _case(text: str) -> tuple[tuple[str, Any], ...]:
    fields: dict[str, Any] = {}
    for word in text.split(","):
        name, sign, value = word.strip().partition("=")
        if shape := _SHAPE.fullmatch(name):
            fields |= {"K": int(shape[1]), "N": int(shape[2])} | ({"B": int(shape[3])} if shape[3] else {})
        elif sign and name in _NUMBERS and value.isdigit():
            fields[name] = int(value)
        elif sign and name in _NAMES and value:
            fields[name] = value
        else:
            raise Unknown(
                f"{word.strip()!r} is neither a shape like 5120x13824 nor a field like M=3 or bits=4"
            )
    if "M" not in fields:
        raise Unknown(f"{text.strip()!r} names no M")
    if ("K" in fields) != ("N" in fields):
        raise Unknown(f"{text.strip()!r} names half a shape")
    return tuple(sorted(fields.items()))


def named(case: Line) -> str:
    """A case as a metric names it: ``5120x13824,M=3,bits=4``."""
    batch = f"x{case['B']}" if case.get("B", 1) != 1 else ""
    bits = f",bits={case['bits']}" if "bits" in case else ""
    rest = "".join(f",{name}={case[name]}" for name in ("quant", "dtype", "cache", "timing") if name in case)
    return f"{case['K']}x{case['N']}{batch},M={case['M']}{bits}{rest}"


def offered(run: Line) -> list[str]:
    """The metrics that a run has, by the names that they are asked for."""
    spoken = [said["metric"] for said in run["metrics"]]
    cases = [named(line["case"]) for line in run["cases"] if not line["case"].get("control")]
    return list(dict.fromkeys([*spoken, *cases]))
