"""What builds say, as real programs said it."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisect_tool.building import attempt
from bisect_tool.building.builder import Watcher
from bisect_tool.building.output import Failure, Step, Steps, excerpt, judge, step_of, telling
from bisect_tool.process import Finished

# What setuptools says below the words of the program that failed.
TRACEBACK = """\
Traceback (most recent call last):
  File "<string>", line 10, in <module>
  File "setup.py", line 100, in build_extension
    subprocess.run(
  File "/usr/lib/python3.11/subprocess.py", line 571, in run
    raise CalledProcessError(retcode, process.args,
subprocess.CalledProcessError: Command '['cmake', '--build', '.']' returned non-zero exit status 1.
"""
CONFIGURED = "running bdist_wheel\n-- Configuring done (0.8s)\n-- Generating done (0.0s)\n"

GCC = """\
[3/14] Building CXX object CMakeFiles/mlx.dir/mlx/io.cpp.o
FAILED: [code=1] CMakeFiles/mlx.dir/mlx/backend/cpu/binary.cpp.o 
env CCACHE_BASEDIR=/b ccache c++ -DA=1 -o x.o -c /b/trees/cpu/source/mlx/backend/cpu/binary.cpp
../../../source/mlx/backend/cpu/binary.cpp: In function ‘int mlx::core::binary_edition()’:
../../../source/mlx/backend/cpu/binary.cpp:8:10: error: ‘ArrayView’ was not declared in this scope
    8 |   return ArrayView{}.edition + edition;
      |          ^~~~~~~~~
[4/14] Building CXX object CMakeFiles/mlx.dir/mlx/utils.cpp.o
ninja: build stopped: subcommand failed.
"""  # noqa: W291
CLANG_OLD_NINJA = """\
[1/2] Building CXX object mlx.dir/ops.cpp.o
FAILED: mlx.dir/ops.cpp.o 
/usr/bin/clang++ -c /Users/me/builds/trees/cpu-cp311-0a/source/mlx/ops.cpp
In file included from /Users/me/builds/trees/cpu-cp311-0a/source/mlx/ops.cpp:4:
/Users/me/builds/trees/cpu-cp311-0a/source/mlx/array.h:12:10: fatal error: 'fmt/core.h' file not found
#include <fmt/core.h>
         ^~~~~~~~~~~~
1 error generated.
ninja: build stopped: subcommand failed.
"""  # noqa: W291
NVCC = """\
[9/90] Building CUDA object mlx/CMakeFiles/mlx.dir/backend/cuda/qmm.cu.o
FAILED: [code=2] mlx/CMakeFiles/mlx.dir/backend/cuda/qmm.cu.o 
/usr/local/cuda/bin/nvcc -forward-unknown-to-host-compiler -c qmm.cu
/b/trees/cuda13-cp311-0a/source/mlx/backend/cuda/qmm.cu(41): error: identifier "wgmma" is undefined
      wgmma(a, b);
      ^

1 error detected in the compilation of "/b/trees/cuda13-cp311-0a/source/mlx/backend/cuda/qmm.cu".
ninja: build stopped: subcommand failed.
"""  # noqa: W291
METAL = """\
[2/50] Building arange.air
FAILED: [code=1] mlx/backend/metal/kernels/arange.air 
xcrun -sdk macosx metal -x metal -c arange.metal -o arange.air
error: error: cannot execute tool 'metal' due to missing Metal Toolchain; use: xcodebuild -downloadComponent MetalToolchain
ninja: build stopped: subcommand failed.
"""  # noqa: W291, E501
LD = """\
[12/14] Building CXX object python/src/CMakeFiles/core.dir/mlx.cpp.o
FAILED: [code=1] libmlx.so 
: && /usr/bin/c++ -fPIC -O3 -shared -o libmlx.so array.cpp.o && :
/usr/bin/ld: CMakeFiles/mlx.dir/mlx/ops.cpp.o: in function `mlx::core::ops_edition()':
ops.cpp:(.text+0x5): undefined reference to `mlx::core::missing_kernel()'
collect2: error: ld returned 1 exit status
ninja: build stopped: subcommand failed.
"""  # noqa: W291
LLD = """\
FAILED: core.cpython-311-x86_64-linux-gnu.so 
: && clang++ -fuse-ld=lld -shared -o core.cpython-311-x86_64-linux-gnu.so && :
ld.lld: error: undefined symbol: mlx::core::missing_kernel()
>>> referenced by ops.cpp
clang++: error: linker command failed with exit code 1 (use -v to see invocation)
"""  # noqa: W291
LD64 = """\
FAILED: [code=1] libmlx.dylib 
: && /usr/bin/clang++ -dynamiclib -o libmlx.dylib ops.cpp.o && :
Undefined symbols for architecture arm64:
  "mlx::core::missing_kernel()", referenced from:
      mlx::core::ops_edition() in ops.cpp.o
ld: symbol(s) not found for architecture arm64
clang++: error: linker command failed with exit code 1 (use -v to see invocation)
"""  # noqa: W291
LIBRARY = """\
FAILED: [code=1] tool 
: && /usr/bin/c++ -o tool tool.o -lopenblas && :
/usr/bin/ld: cannot find -lopenblas: No such file or directory
collect2: error: ld returned 1 exit status
"""  # noqa: W291
CMAKE = """\
-- Build type: Plain
CMake Error at CMakeLists.txt:62 (message):
  MLX needs a frobnicator to be built


-- Configuring incomplete, errors occurred!
"""
INSTALLED = "[13/14] Install the project...\n-- Install configuration: \"Plain\"\nadding 'mlx/core.so'\n"


def ended(returncode: int = 1, **how: Any) -> Finished:
    return Finished(("python",), returncode, "", "", 7.0, **how)


@pytest.mark.parametrize(
    ("said", "failure", "told"),
    [
        (GCC, Failure.COMPILE, "mlx/backend/cpu/binary.cpp:8:10: error: ‘ArrayView’ was not declared"),
        (CLANG_OLD_NINJA, Failure.COMPILE, "mlx/array.h:12:10: fatal error: 'fmt/core.h' file not found"),
        (NVCC, Failure.COMPILE, 'mlx/backend/cuda/qmm.cu(41): error: identifier "wgmma" is undefined'),
        (METAL, Failure.COMPILE, "error: error: cannot execute tool 'metal' due to missing Metal Toolchain"),
        (LD, Failure.LINK, "ops.cpp:(.text+0x5): undefined reference to `mlx::core::missing_kernel()'"),
        (LLD, Failure.LINK, "ld.lld: error: undefined symbol: mlx::core::missing_kernel()"),
        (LD64, Failure.LINK, 'Undefined symbols for architecture arm64: "mlx::core::missing_kernel()"'),
        (LIBRARY, Failure.LINK, "/usr/bin/ld: cannot find -lopenblas"),
    ],
    ids=["gcc", "clang", "nvcc", "metal", "ld", "lld", "ld64", "library"],
)
def test_compilers_and_linkers(said: str, failure: Failure, told: str) -> None:
    log = CONFIGURED + said + TRACEBACK
    assert judge(ended(), log) is failure
    assert telling(log, failure).startswith(told)
    lines = excerpt(log, failure).splitlines()
    assert lines[0].startswith("FAILED: ")
    assert not any("-o " in line for line in lines), "the command is left out"
    assert "Traceback" not in "".join(lines)
    assert "/source/" not in telling(log, failure) + excerpt(log, failure)


def test_cmake() -> None:
    log = CONFIGURED + CMAKE + TRACEBACK
    assert judge(ended(), log) is Failure.CONFIGURE
    told = "CMake Error at CMakeLists.txt:62 (message): MLX needs a frobnicator to be built"
    assert telling(log, Failure.CONFIGURE).startswith(told)
    assert excerpt(log, Failure.CONFIGURE).splitlines()[:2] == CMAKE.splitlines()[1:3]


def test_setup_py() -> None:
    raised = (
        "running bdist_wheel\n" + TRACEBACK.rpartition("subprocess.")[0] + "RuntimeError: of a stranger\n"
    )
    assert judge(ended(), raised) is Failure.CONFIGURE
    assert telling(raised, Failure.CONFIGURE) == "RuntimeError: of a stranger"
    late = CONFIGURED + INSTALLED + raised
    assert judge(ended(), late) is Failure.PACK
    assert telling(late, Failure.PACK) == "RuntimeError: of a stranger"
    assert "RuntimeError: of a stranger" in excerpt(late, Failure.PACK)


def test_an_install_that_fails_is_told_apart_from_what_setuptools_says() -> None:
    said = INSTALLED + "CMake Error at cmake_install.cmake:52 (file):\n  file INSTALL cannot find mlx.h\n"
    log = CONFIGURED + said + TRACEBACK
    assert judge(ended(), log) is Failure.PACK
    assert "file INSTALL cannot find mlx.h" in telling(log, Failure.PACK)


def test_all_steps_done_is_packing() -> None:
    assert judge(ended(), "[1/2] a.cpp\n[2/2] b.cpp\nerror: no README\n") is Failure.PACK
    assert judge(ended(), "[1/2] a.cpp\nerror: no README\n") is Failure.CONFIGURE


@pytest.mark.parametrize(
    "said",
    [
        "FAILED: [code=1] a.o \nc++: fatal error: Killed signal terminated program cc1plus\n",
        "FAILED: [code=137] a.o \nsh -c c++\n",
        "FAILED: a.o \nc++ -c a.cpp\nKilled\n",
        "FAILED: a.o \nclang++: error: unable to execute command: Killed: 9\n",
        "FAILED: a.o \nnvcc error   : 'cicc' died due to signal 9 (Kill signal)\n",
        "FAILED: libmlx.so \ncollect2: fatal error: ld terminated with signal 9 [Killed]\n",
        "FAILED: a.o \ncc1plus: out of memory allocating 65536 bytes after a total of 1 bytes\n",
        "FAILED: a.o \nvirtual memory exhausted: Cannot allocate memory\n",
        "FAILED: libmlx.so \nterminate called after throwing an instance of 'std::bad_alloc'\n",
        "FAILED: a.air \nLLVM ERROR: out of memory\nsubcommand failed due to signal: Killed: 9\n",
        "subprocess.CalledProcessError: Command '['cmake']' died with <Signals.SIGKILL: 9>.\n",
    ],
)
def test_trouble_with_memory(said: str) -> None:
    failure = judge(ended(), CONFIGURED + said)
    assert failure is Failure.MEMORY
    assert failure.of_machine


@pytest.mark.parametrize(
    "said",
    [
        "FAILED: a.o \nfatal error: error writing to /tmp/x.s: No space left on device\n",
        "FAILED: libmlx.so \n/usr/bin/ld: final link failed: No space left on device\n",
        "OSError: [Errno 122] Disk quota exceeded: 'x'\n",
    ],
)
def test_trouble_with_the_disk(said: str) -> None:
    failure = judge(ended(), CONFIGURED + said)
    assert failure is Failure.DISK
    assert failure.of_machine
    assert "space left" in telling(CONFIGURED + said, failure) or "quota" in telling(said, failure)


def test_how_it_ended_goes_before_what_was_said() -> None:
    assert judge(ended(-9, timed_out=True), GCC) is Failure.TIME
    assert judge(ended(-9, output_exceeded=True), GCC) is Failure.OUTPUT
    assert judge(ended(-9, memory_exceeded=True), "[1/9] a.cpp\n") is Failure.MEMORY
    assert judge(ended(-9), "[1/9] a.cpp\n") is Failure.KILLED
    said_by_machine = {failure for failure in Failure if failure.of_machine}
    assert said_by_machine == {Failure.MEMORY, Failure.KILLED, Failure.DISK}


def test_numbers_in_a_log_are_no_signals() -> None:
    log = CONFIGURED + GCC.replace("‘ArrayView’", "signal 90 [code=1370] Killed by")
    assert judge(ended(), log) is Failure.COMPILE


def test_what_says_nothing() -> None:
    assert telling("", Failure.CONFIGURE) == ""
    assert telling("\n \n", Failure.COMPILE) == ""
    assert telling("a\nb\n\n", Failure.CONFIGURE) == "b"
    assert len(telling("error: " + "x" * 9999, Failure.CONFIGURE)) == 300


@given(st.text(), st.sampled_from(Failure))
def test_no_log_is_too_odd(log: str, failure: Failure) -> None:
    assert isinstance(judge(ended(), log), Failure)
    assert len(telling(log, failure)) <= 300
    assert "\n" not in telling(log, failure).strip()
    assert len(excerpt(log, failure).split("\n")) <= 12


# ---- steps ------------------------------------------------------------------------------------------------

NINJA = b"""\
-- Generating done
[1/4] Building CXX object mlx/CMakeFiles/mlx.dir/ops.cpp.o
[2/4] Linking CXX shared library libmlx.so
[3/4] Building quantized.air
noise [9/9] no step
[4/4] Install the project...
"""
NAMES = ["ops.cpp", "libmlx.so", "quantized", "project..."]


@given(st.lists(st.integers(0, len(NINJA))))
def test_steps_come_in_pieces(cuts: list[int]) -> None:
    seen: list[Step] = []
    steps = Steps(seen.append)
    at = sorted({0, *cuts, len(NINJA)})
    for start, end in pairwise(at):
        steps.feed(NINJA[start:end])
    assert seen == [Step(number, 4, name) for number, name in enumerate(NAMES, 1)]


def test_steps() -> None:
    assert step_of("[57/124] Building CXX object mlx/quantized.cpp.o\r") == Step(57, 124, "quantized.cpp")
    assert step_of("[1/2] Building CUDA object mlx/dir/qmm.cu.obj") == Step(1, 2, "qmm.cu")
    assert step_of("[1/2] ") is None
    assert step_of(" [1/2] x") is None
    assert step_of("[1] x") is None


def test_steps_do_not_keep_a_line_without_end() -> None:
    seen: list[Step] = []
    steps = Steps(seen.append)
    for _ in range(100):
        steps.feed(b"x" * 65536)
    assert len(steps._pending) <= 4096
    steps.feed(b"\n[1/1] a.cpp.o\n")
    assert seen == [Step(1, 1, "a.cpp")]


def test_text_of_a_step() -> None:
    step = Step(57, 124, "quantized.cpp")
    assert step.text(None) == step.text(0.4) == "[57/124] quantized.cpp"
    assert step.text(45.2) == "[57/124] quantized.cpp, 45 s left"
    assert step.text(119) == "[57/124] quantized.cpp, 2 min left"


def test_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the steps so far; anew when Ninja counts anew."""
    now = [100.0]
    left: list[float | None] = []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = attempt._Progress(Watcher(step=lambda _step, seconds: left.append(seconds)))
    for done in (1, 2, 3, 4, 5):
        progress.step(Step(done, 11, "x"))
        now[0] += 10
    assert left == [None, None, None, 70.0, 60.0]
    left.clear()
    for done in (1, 2, 3, 4):
        progress.step(Step(done, 4, "x"))
        now[0] += 1
    assert left == [None, None, None, 0.0]
