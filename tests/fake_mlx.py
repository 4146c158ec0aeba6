"""Wheels of a fake MLX, made here: installed in a fraction of a second, from a folder, by real uv."""

from __future__ import annotations

import base64
import hashlib
import time
import zipfile
from pathlib import Path

VERSION = "9.9.9"
GOOD = "__version__ = '9.9.9'\ndef run(): print('ran')\n"


def make_wheel(
    folder: Path,
    core: str,
    *,
    extra: bool = True,
    ballast_mib: int = 0,
    version: str = VERSION,
    requires: str = "",
) -> Path:
    """A wheel ``mlx 9.9.9`` of one module; ``ballast_mib`` of zeros weigh nothing until they are unpacked.

    ``requires``: a distribution that it says it depends on.
    """
    path = folder / f"mlx-{version}-py3-none-any.whl"
    about = f"Metadata-Version: 2.1\nName: mlx\nVersion: {version}\n"
    about += f"Requires-Dist: {requires}\n" if requires else ""
    info = f"mlx-{version}.dist-info"
    files = {
        "mlx/core.py": core.replace(VERSION, version).encode(),
        "mlx/ballast.bin": bytes(ballast_mib << 20),
        f"{info}/METADATA": (about + ("Provides-Extra: cpu\n" if extra else "")).encode(),
        f"{info}/entry_points.txt": b"[console_scripts]\nmlx.run = mlx.core:run\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{info}/RECORD,,\n"
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        record += f"{name},sha256={digest},{len(data)}\n"
    files[f"{info}/RECORD"] = record.encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)
