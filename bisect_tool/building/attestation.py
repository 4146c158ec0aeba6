"""Whether the MLX that a process ran is the one of its environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# By the file's own name: a Python below a folder called "mlx" maps libraries that are none of MLX's.
_OF_MLX = re.compile(r"/libmlx[^/]*$|/mlx/core\.[^/]*$")


def foreign(said: Mapping[str, Any], root: Path, version: str | None) -> str:
    """Why what a process said it ran is not the MLX of the environment in ``root``; empty when it is.

    ``said``: ``mlx`` (version), ``module`` and ``libraries`` (files). The module and every library of MLX
    must be files inside the environment: a run path into another build would measure that build. ``version``:
    None, or what the environment is known to report.
    """
    if version is not None and said.get("mlx") != version:
        return f"ran mlx {said.get('mlx')}, not {version}"
    inside = os.path.realpath(root) + os.sep
    libraries = [name for name in said.get("libraries", []) if _OF_MLX.search(name)]
    for name in [said["module"], *libraries]:
        if not os.path.realpath(name).startswith(inside):
            return f"loaded {name}, which is not of this environment"
    return ""
