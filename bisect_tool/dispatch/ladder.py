"""How a commit's host code is compiled against the stand-in, and what is tried when it does not.

The ladder, each rung only where it changes something: as it is; with strides as ``size_t``; with the commit's
own headers in place of empty ones; with its own functions of the namespace env besides; with all of these.
"""

from __future__ import annotations

import hashlib
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from bisect_tool.dispatch.source import PACKING, QUANTIZED, Sources
from bisect_tool.paths import PACKAGE

STAND_IN = PACKAGE / "dispatch" / "stand_in"
HEADER, DRIVER = "stand_in.h", "driver.cpp"
PARTS = tuple(f"stand_in_{part}.h" for part in ("log", "arrays", "primitives", "device", "ops"))
HEADERS = (HEADER, *PARTS)
FILES = (*HEADERS, DRIVER)
STANDARD = "-std=c++20"
_GET_VAR = re.compile(r"\bget_var\([^)]*\)\s*\{")  # defined, not only declared
_SHIM = b'#include "stand_in.h"\n'
SCHEMA = 1  # of everything that is kept of a probe


@dataclass(frozen=True)
class Rung:
    """One way to compile. ``name`` completes "compiled …"; '' is the first, as it is."""

    name: str
    strides: str = "int64_t"
    own_headers: bool = False
    settings: str = ""


def rungs(sources: Sources) -> list[Rung]:
    """The ladder for these sources, in order."""
    own, settings = bool(sources.own), sources.settings
    ladder = [Rung(""), Rung("with strides as size_t", strides="size_t")]
    if own:
        ladder.append(Rung("with its own headers", own_headers=True))
    if settings:
        ladder.append(Rung("with its own environment functions", own_headers=own, settings=settings))
    if own or settings:
        ladder.append(Rung("with all of these", "size_t", own, settings))
    return ladder


def key(sources: Sources, rung: Rung) -> str:
    """SHA-256 (hex) of all that goes into a probe, and of the kind of machine that runs it."""
    digest = hashlib.sha256()
    parts = [b"%d" % SCHEMA, platform.system().encode(), platform.machine().encode(), rung.strides.encode()]
    parts += [(STAND_IN / name).read_bytes() for name in FILES]
    for path, content in sorted(tree(sources, rung).items()):
        parts += [path.encode(), content]
    for part in parts:
        digest.update(b"%d\0" % len(part) + part)
    return digest.hexdigest()


def tree(sources: Sources, rung: Rung) -> dict[str, bytes]:
    """The files to compile, by path: the commit's own, and empty headers that lead to the stand-in."""
    files = dict.fromkeys((*sources.stood_for, *sources.own), _SHIM)
    if rung.own_headers:
        files |= sources.own
    if sources.packing is not None:
        # It is arithmetic on its own, with no guard of its own.
        files[PACKING] = b"#pragma once\n" + sources.packing
    if rung.settings:
        files["env.h"] = rung.settings.encode()
    return {**files, QUANTIZED: sources.quantized}


def lay_out(folder: Path, sources: Sources, rung: Rung) -> None:
    """Write what the compiler reads, but the stand-in's header and the system's own, below ``folder``."""
    (folder / DRIVER).write_bytes((STAND_IN / DRIVER).read_bytes())
    for path, content in tree(sources, rung).items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def usual_arguments(rung: Rung) -> list[str]:
    """Those that a precompiled header must have in common with what includes it."""
    return [STANDARD, "-O0", "-w", f"-DSTAND_IN_STRIDE={rung.strides}"]


def arguments(folder: Path, header: Path, sources: Sources, rung: Rung) -> list[str]:
    """The compiler's arguments; what it makes is ``folder / "probe"``. ``header``: the folder of the
    stand-in's header."""
    words = [*usual_arguments(rung), f"-I{folder}", f"-I{header}", f'-DSTAND_IN_SOURCE="{QUANTIZED}"']
    if not sources.has_transpose:
        words.append("-DSTAND_IN_WEIGHT_VIEW")
    if rung.settings:
        words.append('-DSTAND_IN_ENV="env.h"')
        if _GET_VAR.search(rung.settings):
            words.append("-DSTAND_IN_OWN_GET_VAR")
    return [*words, str(folder / DRIVER), "-o", str(folder / "probe")]
