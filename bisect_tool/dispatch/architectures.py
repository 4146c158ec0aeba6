"""GPU architectures as Metal names them, and the chips that people know. Pure.

``applegpu_g16s`` is generation 16, size ``s``: MLX reads the two digits before the last letter, and that
letter (``mlx/backend/metal/device.cpp``). Chips were matched to names by what their owners report in public
threads: M1 Ultra g13d, M3 Max g15s, M4 Pro g16s, M5 Max g17s; the others follow the pattern.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bisect_tool.errors import UsageProblem

GENERATIONS = {13: "M1", 14: "M2", 15: "M3", 16: "M4", 17: "M5"}
SIZES = {"p": "phone", "g": "base", "s": "Pro and Max", "d": "Ultra"}
_SUFFIX = {"": "g", "pro": "s", "max": "s", "ultra": "d"}
# Chips that were made, so far as one knows: there is no M4 Ultra.
ALL = tuple(
    f"applegpu_g{generation}{size}"
    for generation in GENERATIONS
    for size in ("gs" if generation >= 16 else "gsd")
)
_METAL = re.compile(r"(?:applegpu_)?g(\d\d)([a-z])")
_CHIP = re.compile(r"(?:apple\s*)?m(\d+)\s*(pro|max|ultra)?")
_APART = 3
VARIABLE = "MLX_METAL_GPU_ARCH"  # since v0.31.0
NAX_FROM = {"p": 18}  # the first generation with a neural accelerator that MLX uses; 17 of all other sizes


def parse(text: str) -> list[str]:
    """The architectures that one name means: ``applegpu_g16s``, ``g16s``, ``M4 Pro``, or ``all``.

    Raises UsageProblem for what is none.
    """
    name = " ".join(text.lower().split())
    if name == "all":
        return list(ALL)
    if metal := _METAL.fullmatch(name):
        if metal[2] in SIZES:
            return [f"applegpu_g{metal[1]}{metal[2]}"]
        why = f"its last letter is none of {', '.join(SIZES)}"
    elif (chip := _CHIP.fullmatch(name)) is not None:
        generation = int(chip[1]) + 12
        if generation in GENERATIONS:
            return [f"applegpu_g{generation}{_SUFFIX[chip[2] or '']}"]
        why = f"chips known here are {', '.join(GENERATIONS.values())}"
    else:
        why = ""
    raise UsageProblem(
        f"{text!r} is no GPU architecture", why, "write it as applegpu_g16s, g16s, 'M4 Pro', or all"
    )


def of_arm(settings: Sequence[tuple[str, str]], device: str) -> str:
    """The architecture that an arm's dispatch sees: what its settings say, else the device's own name."""
    return dict(settings).get(VARIABLE) or device


def generation(arch: str) -> int:
    """The two digits that MLX reads: 16 of ``applegpu_g16s``."""
    return int(arch[-3:-1])


def explain(arch: str) -> str:
    """``generation 16 (M4), size s (Pro and Max)``."""
    chip = GENERATIONS.get(generation(arch))
    return f"generation {generation(arch)}{f' ({chip})' if chip else ''}, size {arch[-1]} ({SIZES[arch[-1]]})"


def legend(archs: Sequence[str]) -> list[str]:
    """What the names mean, a line each, or one line for many."""
    if len(archs) <= _APART:
        return [f"{arch}: {explain(arch)}" for arch in archs]
    numbers = sorted({generation(arch) for arch in archs})
    chips = [f"g{number} {GENERATIONS[number]}" for number in numbers if number in GENERATIONS]
    letters = [f"{size} {what}" for size, what in SIZES.items() if any(arch[-1] == size for arch in archs)]
    return [f"generations: {', '.join(chips)}; sizes: {', '.join(letters)}"]


def has_nax(arch: str) -> bool:
    """Whether MLX uses the neural accelerator there, given a build and a system (macOS 26.2) that have it."""
    return generation(arch) >= NAX_FROM.get(arch[-1], 17)
