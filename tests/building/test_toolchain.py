"""What stands for a compiler in the key of a build, and what to say where there is none."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from recorded_machine import CLT_ONLY, NO_TOOLS, Script, mac, said
from small_builds import toolchain

from bisect_tool.building.backend import Backend
from bisect_tool.building.toolchain import CHOSEN, Toolchain, detect
from bisect_tool.errors import ToolMissing
from bisect_tool.host.linux import Linux

GCC = "g++ (Debian 12.2.0-14) 12.2.0\nCopyright (C) 2022\n"
NVCC = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.88\n"
PATHS = {"c++": "/usr/bin/c++", "g++": "/usr/bin/g++", "nvcc": "/usr/local/cuda/bin/nvcc"}


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*CHOSEN, "CXX"):
        monkeypatch.delenv(name, raising=False)


def linux(folder: Path, compiler: str = GCC, nvcc: str = NVCC, target: str = "x86_64-linux-gnu") -> Linux:
    blas = folder / "libopenblas.so"
    blas.touch()
    answers = {
        "/usr/bin/c++": said(),
        "/usr/bin/c++ --version": said(compiler),
        "/usr/bin/c++ -print-file-name=libopenblas.so": said(str(blas)),
        "/usr/bin/c++ -dumpmachine": said(target + "\n"),
        "/usr/local/cuda/bin/nvcc --version": said(nvcc),
    }
    return Linux(Script(answers), PATHS.get, folder)


def test_this_machine() -> None:
    here = toolchain()
    assert detect(Backend.CPU) == here
    assert here.digest == Toolchain(here.parts).digest
    facts = here.as_dict()
    assert re.search(r"\d+\.\d+", facts["compiler"])
    assert re.search("linux|darwin", facts["target"])


def test_parts(tmp_path: Path) -> None:
    there = detect(Backend.CUDA13, linux(tmp_path)).as_dict()
    assert there["compiler"] == "g++ (Debian 12.2.0-14) 12.2.0"
    assert there["nvcc"] == "13.0.88"
    assert there["target"] == "x86_64-linux-gnu"
    assert there["BLAS"].startswith("libopenblas")
    assert "nvcc" not in detect(Backend.CPU, linux(tmp_path)).as_dict()


def test_every_part_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Backend.CUDA13
    digests = [
        detect(cuda, linux(tmp_path)).digest,
        detect(Backend.CPU, linux(tmp_path)).digest,
        detect(cuda, linux(tmp_path, GCC.replace("12.2.0", "12.2.1"))).digest,
        detect(cuda, linux(tmp_path, nvcc=NVCC.replace("V13.0.88", "V13.0.89"))).digest,
        detect(cuda, linux(tmp_path, target="aarch64-linux-gnu")).digest,
    ]
    for name in CHOSEN:
        monkeypatch.setenv(name, "/other")
        digests.append(detect(cuda, linux(tmp_path)).digest)
    assert len(set(digests)) == len(digests)
    for name in CHOSEN:
        monkeypatch.setenv(name, "")
    assert detect(cuda, linux(tmp_path)).digest == digests[0]


def test_no_compiler(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing) as caught:
        detect(Backend.CPU, Linux(Script({}), lambda _tool: None, tmp_path))
    line = caught.value.line()
    assert line.startswith("a cpu build needs a compiler: no C++ compiler found; get it with: ")
    assert "g++" in line.rpartition("get it with")[2] or "gcc" in line.rpartition("get it with")[2]


def test_without_blas_a_build_is_tried(tmp_path: Path) -> None:
    machine = linux(tmp_path)
    with_it = detect(Backend.CPU, machine)
    machine.run.answers["/usr/bin/c++ -fsyntax-only"] = said("", "cblas.h: No such file", 1)  # type: ignore[attr-defined]
    without = detect(Backend.CPU, machine)
    assert without.as_dict()["BLAS"] == "none"
    assert without.digest != with_it.digest


def test_no_cuda_compiler(tmp_path: Path) -> None:
    machine = linux(tmp_path)
    machine.which = {"c++": "/usr/bin/c++"}.get
    with pytest.raises(
        ToolMissing, match=r"a cuda13 build needs nvcc: not found; get it with: .*cuda-toolkit"
    ):
        detect(Backend.CUDA13, machine)


def test_the_other_cuda(tmp_path: Path) -> None:
    """nvcc 13 builds no wheel that works with the libraries of CUDA 12."""
    with pytest.raises(ToolMissing, match=r"a cuda12 build needs CUDA 12: nvcc here is 13\.0\.88; put"):
        detect(Backend.CUDA12, linux(tmp_path))
    old = NVCC.replace("13.0, V13.0.88", "12.9, V12.9.86")
    assert detect(Backend.CUDA12, linux(tmp_path, nvcc=old)).as_dict()["nvcc"] == "12.9.86"


def test_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    there = detect(Backend.METAL, mac()[0]).as_dict()
    assert there["Xcode"] == "26.2 (17C52)"
    assert there["Metal toolchain"].startswith("Apple metal version 32023.850")
    assert "Metal toolchain" not in detect(Backend.CPU, mac()[0]).as_dict()


@pytest.mark.parametrize("changes", [CLT_ONLY, NO_TOOLS], ids=["command line tools only", "nothing"])
def test_a_mac_without_xcode(changes: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ToolMissing) as caught:
        detect(Backend.METAL, mac(changes)[0])  # type: ignore[arg-type]
    assert re.match(
        r"a metal build needs (a compiler|Xcode|Metal toolchain): .+; get it with: .+", caught.value.line()
    )
