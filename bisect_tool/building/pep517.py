"""A wheel from a source tree, by the tree's own build backend (PEP 517), run in a build environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

# Runs inside the build environment, in the source tree. The backend's module may lie in the tree itself.
_HOOK = """
import importlib, os, sys
backend, folder, path = sys.argv[1], sys.argv[2], sys.argv[3:]
sys.path[:0] = [os.path.abspath(each) for each in path]
module, _, names = backend.partition(":")
hooks = importlib.import_module(module)
for name in filter(None, names.split(".")):
    hooks = getattr(hooks, name)
sys.argv[1:] = []
print("packed", hooks.build_wheel(folder), flush=True)
"""


def command(python: Path, backend: str, backend_path: Sequence[str], folder: Path) -> list[str]:
    """The command that packs the current folder into ``folder``, which exists."""
    return [str(python), "-c", _HOOK, backend, str(folder), *backend_path]
