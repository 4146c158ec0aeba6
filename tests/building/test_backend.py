from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from bisect_tool.building import backend as backends
from bisect_tool.building.backend import Backend, choose, requirement
from bisect_tool.building.environment import find_interpreter
from bisect_tool.errors import UnknownRelease, UsageProblem
from bisect_tool.upstream import releases

HEADER = """\
Sun Nov 22 17:18:14 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.82.07              Driver Version: 580.82.07      CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
"""


@pytest.mark.parametrize(
    ("text", "cuda", "backend"),
    [
        (HEADER, (13, 0), Backend.CUDA13),
        (HEADER.replace("13.0 ", "12.10"), (12, 10), Backend.CUDA12),
        (HEADER.replace("13.0", "12.0"), (12, 0), Backend.CUDA12),
        (HEADER.replace("13.0", "11.8"), (11, 8), Backend.CPU),
        (HEADER.replace("CUDA Version", "CUDA UMD Version"), (13, 0), Backend.CUDA13),
        (HEADER.replace("13.0", "N/A "), None, Backend.CPU),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", None, Backend.CPU),
        ("", None, Backend.CPU),
    ],
)
def test_driver_version_decides(text: str, cuda: tuple[int, int] | None, backend: Backend) -> None:
    assert backends.cuda_version(text) == cuda
    assert backends.from_driver(cuda) is backend


@pytest.mark.skipif(sys.platform != "linux", reason="the driver is asked on Linux only")
def test_detect_asks_the_program_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert backends.detect() is Backend.CPU
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nwhile read -r line; do echo \"$line\"; done <<'END'\n{HEADER}END\n")
    program.chmod(0o755)
    assert backends.detect() is Backend.CUDA13
    program.write_text("#!/bin/sh\necho 'CUDA Version: 13.0'\nexit 9\n")
    assert backends.detect() is Backend.CPU


@pytest.mark.skipif(sys.platform != "darwin", reason="macOS")
def test_detect_on_a_mac() -> None:
    assert (backends.detect() is Backend.METAL) == (platform.machine() == "arm64")


@pytest.mark.parametrize(
    ("backend", "version", "wanted"),
    [
        (Backend.METAL, "0.20.0", "mlx==0.20.0"),
        (Backend.METAL, "0.32.4", "mlx==0.32.4"),
        (Backend.CPU, "0.21.1", "mlx==0.21.1"),
        (Backend.CPU, "0.26.3", "mlx==0.26.3"),
        (Backend.CPU, "0.26.5", "mlx[cpu]==0.26.5"),
        (Backend.CPU, "0.32.4", "mlx[cpu]==0.32.4"),
        (Backend.CUDA12, "0.30.0", "mlx[cuda]==0.30.0"),
        (Backend.CUDA12, "0.30.1", "mlx[cuda12]==0.30.1"),
        (Backend.CUDA13, "0.30.1", "mlx[cuda13]==0.30.1"),
    ],
)
def test_requirement(backend: Backend, version: str, wanted: str) -> None:
    assert requirement(backend, version) == requirement(backend, Version(version)) == wanted


@pytest.mark.parametrize(
    ("backend", "version", "says"),
    [(Backend.CUDA13, "0.30.0", "0.30.1.*cuda12"), (Backend.CUDA12, "0.26.3", "use the backend cpu")],
)
def test_backends_that_were_not_published_yet(backend: Backend, version: str, says: str) -> None:
    with pytest.raises(UnknownRelease, match=says):
        requirement(backend, version)


def test_release_counts_only_with_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    published = {
        "mlx": ["0.32.0", "0.31.0", "0.30.0", "0.26.5", "0.26.3"],
        "mlx-cpu": ["0.32.0", "0.31.0", "0.30.0", "0.26.5"],
        "mlx-cuda": ["0.30.0"],
        "mlx-cuda-12": ["0.32.0"],
        "mlx-cuda-13": ["0.32.0"],
    }

    def listing(package: str, **_: object) -> list[Version]:
        return [Version(text) for text in published[package]]

    monkeypatch.setattr(releases, "available", listing)
    python = find_interpreter()

    def has(backend: Backend) -> list[str]:
        return [str(version) for version in backends.available(backend, python=python)]

    assert has(Backend.CPU) == ["0.32.0", "0.31.0", "0.30.0", "0.26.5", "0.26.3"]
    assert has(Backend.CUDA12) == ["0.32.0", "0.30.0"]
    assert has(Backend.CUDA13) == ["0.32.0"]


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="what is published for Linux")
def test_the_real_index_has_gaps_for_cuda() -> None:
    python = find_interpreter()
    cuda = backends.available(Backend.CUDA12, python=python)
    assert Version("0.32.0") in cuda
    assert Version("0.31.0") not in cuda  # mlx 0.31.0 exists, mlx-cuda-12 0.31.0 does not
    assert Version("0.31.0") in backends.available(Backend.CPU, python=python)


def test_find_interpreter_leaves_the_virtual_environment() -> None:
    python = find_interpreter()
    assert (
        python.path.exists() and not python.path.is_relative_to(sys.prefix)
    ) or sys.prefix == sys.base_prefix
    assert python.version == platform.python_version()
    assert re.fullmatch(r"cp3\d+t?", python.abi)
    assert find_interpreter(str(python.path)) == python


def test_metal_is_not_chosen_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert choose("cpu") is Backend.CPU and choose("cuda13") is Backend.CUDA13
    with pytest.raises(UsageProblem, match="--backend metal does not exist"):
        choose("metal")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert choose("metal") is Backend.METAL and choose("cpu") is Backend.CPU
    with pytest.raises(UsageProblem, match="--backend cuda12 does not exist"):
        choose("cuda12")
