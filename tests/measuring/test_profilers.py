"""Profilers: perf on a real CPU wheel, ncu and perf by programs that print what the real ones did."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bisect_tool.analysis import limits
from bisect_tool.analysis.launches import Cell
from bisect_tool.building.backend import Backend
from bisect_tool.building.environment import Environment, ensure, find_interpreter
from bisect_tool.building.sandbox import Mode as Walling
from bisect_tool.building.sandbox import Unwalled, choose
from bisect_tool.errors import MachineTrouble, RunFailed, ToolMissing
from bisect_tool.measuring import child_env
from bisect_tool.measuring.profilers import Profilers

RECORDED = Path(__file__).parent.parent / "data" / "ncu" / "5120x13824-M3.csv"
KERNEL = "void qmv_kernel<8, 16, 64, 1, 0, half_t, integer_subbyte<4, 0>, half_t>(const T6 *, "


def cell(M: int, *, transpose: bool = True) -> Cell:
    return Cell("here", 256, 256, M, transpose=transpose)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """One that says it is of CUDA; nothing of it is started but by ncu's stand-in."""
    root = tmp_path / "environment"
    (root / "home").mkdir(parents=True)
    return Environment(root, Path(sys.executable), "0.32.4", "cuda13", {}, "", False, 0.0)


Making = Callable[[str], Profilers]


@pytest.fixture
def with_program(environment: Environment, tmp_path: Path) -> Making:
    """Profilers whose program is a shell script."""

    def make(script: str) -> Profilers:
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\n{script}")
        program.chmod(0o755)
        env = {"PATH": "/usr/bin:/bin"}
        return Profilers(environment, Unwalled("a test"), env, lambda _name: str(program))

    return make


@pytest.fixture
def real(wheel_builds: Path) -> Environment:
    if sys.platform == "darwin":
        pytest.skip("the CPU wheels are Linux's")
    environment = ensure("0.32.4", Backend.CPU, builds=wheel_builds, interpreter=find_interpreter())
    (environment.root / "home").mkdir(exist_ok=True)
    return environment


def on_cpu(environment: Environment, find: Callable[[str], str | None], walled: bool = False) -> Profilers:
    walls = choose(Walling.AUTO) if walled else Unwalled("a test")
    env = child_env.child_environment(environment.root / "home")
    return Profilers(environment, walls, env, find)


# ---- ncu


def test_the_kernels_of_the_calls_with_their_counters(with_program: Making, tmp_path: Path) -> None:
    made = with_program(f'echo "$@" >> {tmp_path}/asked\ncat {RECORDED}\n')
    (kernel,) = made.cuda_kernels(cell(3, transpose=False), limits.METRICS)
    assert kernel.name.startswith(KERNEL) and kernel.short == "qmv_kernel"
    assert (kernel.grid, kernel.block) == ("(1728, 3, 1)", "(32, 8, 1)")
    assert kernel.counters[limits.INSTRUCTIONS] == 36_370_944
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert "--profile-from-start off" in asked and "--cache-control none" in asked
    assert f"--metrics {','.join(limits.METRICS)} " in asked and "gpu__time_duration" not in asked
    assert "one_call.py 256 256 3 --bits 4" in asked and asked.endswith("--no-transpose --gate cuda")
    made.cuda_kernels(cell(3), cold=True)
    assert "--cache-control all --metrics launch__grid_size" in (tmp_path / "asked").read_text()


def test_counters_that_are_kept_for_root_are_said(with_program: Making) -> None:
    made = with_program("echo '==ERROR== ERR_NVGPUCTRPERM - The user does not have permission'; exit 1\n")
    with pytest.raises(MachineTrouble, match="NVreg_RestrictProfilingToAdminUsers=0"):
        made.cuda_kernels(cell(3))


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo hello\n", "there is no table"),
        ("echo ValueError: no such bits >&2; exit 1\n", "exited with 1: ValueError: no such bits"),
        ("echo '==WARNING== No kernels were profiled.'\n", "ncu saw no kernel of 256 → 256, M=3"),
    ],
)
def test_what_ncu_says_otherwise_is_passed_on(with_program: Making, script: str, says: str) -> None:
    with pytest.raises(RunFailed, match=says):
        with_program(script).cuda_kernels(cell(3))


def test_without_a_profiler_it_says_where_it_comes_from(environment: Environment) -> None:
    made = Profilers(environment, Unwalled("a test"), {}, lambda _name: None)
    with pytest.raises(ToolMissing, match="needs ncu: it is not on PATH; install Nsight Compute"):
        made.cuda_kernels(cell(3))
    with pytest.raises(ToolMissing, match="needs perf: it is not on PATH; install linux-perf"):
        made.cpu_samples(cell(3))


# ---- perf

# Answers on the pipes as perf does, runs what it is to look at, and prints what perf printed once.
PERF = """
action=$1
[ "$action" = report ] && { cat REPORT; exit; }
while [ "$1" != -- ]; do
    case "$1" in
        -o) shift; out=$1 ;;
        --control=fifo:*) pipes=${1#--control=fifo:} ;;
    esac
    shift
done
shift
: > "$out"
(while read -r word; do echo "$action $word" >> HEARD; echo ack; done < "${pipes%,*}" > "${pipes#*,}") &
[ "$action" = stat ] && cat COUNTED > "$out"
"$@"
code=$?
wait
exit $code
"""
REPORT = """# Total Lost Samples: 0
#
# Overhead|     Samples|Shared Object|Symbol
  99.10%| 991        |libmlx.so    |[.] mlx::core::(anonymous namespace)::_qmm_t<_MLX_Float16, 4, 64>
   0.60%| 6          |libc.so.6    |[.] 0x00000000000a1234
   0.30%| 3          |libc.so.6    |[.] 0x00000000000a1238
"""
COUNTED = """# started on Thu Nov 26 11:49:12 2026

123456||instructions:u|150|100.00||
61728||cycles:u|150|100.00||
<not supported>||cache-misses:u|0|100.00||
"""


@pytest.mark.real
def test_samples_and_counters_of_the_calls_alone(real: Environment, tmp_path: Path) -> None:
    for name, text in (("report", REPORT), ("counted", COUNTED)):
        (tmp_path / name).write_text(text)
    program = tmp_path / "perf"
    script = PERF.replace("REPORT", str(tmp_path / "report")).replace("COUNTED", str(tmp_path / "counted"))
    program.write_text("#!/bin/sh" + script.replace("HEARD", str(tmp_path / "heard")))
    program.chmod(0o755)
    sampled = on_cpu(real, lambda _name: str(program)).cpu_samples(cell(3))
    heard = (tmp_path / "heard").read_text().split("\n")
    assert heard == ["record enable", "record disable", "stat enable", "stat disable", ""]
    assert [(f.name.rpartition("::")[2], f.library, f.share) for f in sampled.functions] == [
        ("_qmm_t<_MLX_Float16, 4, 64>", "libmlx.so", 0.991),
        ("(no symbol)", "libc.so.6", pytest.approx(0.009)),
    ]
    assert sampled.samples == 1000 and sampled.calls > 1
    assert sampled.counters == {"instructions": 123456, "cycles": 61728}
    assert not list((real.root / "home").glob("perf*"))


@pytest.mark.real
@pytest.mark.parametrize(
    ("says", "error", "match"),
    [
        ("Error: perf_event_paranoid is 4", MachineTrouble, "kernel.perf_event_paranoid=2"),
        ("perf not found for kernel 6.18", RunFailed, "exited with 255: perf not found for kernel 6.18"),
    ],
)
def test_what_perf_may_not_do_is_said(
    real: Environment, tmp_path: Path, says: str, error: type[Exception], match: str
) -> None:
    program = tmp_path / "perf"
    program.write_text(f"#!/bin/sh\necho '{says}' >&2; exit 255\n")
    program.chmod(0o755)
    with pytest.raises(error, match=match):
        on_cpu(real, lambda _name: str(program)).cpu_samples(cell(3))
    assert not list((real.root / "home").glob("perf*"))


@pytest.mark.real
def test_real_perf_behind_the_walls_names_the_kernel(real: Environment) -> None:
    if shutil.which("perf") is None:
        pytest.skip("perf is not installed")
    try:
        sampled = on_cpu(real, shutil.which, walled=True).cpu_samples(cell(3))
    except MachineTrouble as problem:
        pytest.skip(str(problem))
    assert "qmm" in sampled.functions[0].name and sampled.functions[0].library == "libmlx.so"
    assert sampled.functions[0].share > 0.9 and sampled.samples > 100


# ---- the call itself


@pytest.mark.real
def test_the_call_runs_and_says_how_often(real: Environment) -> None:
    made = on_cpu(real, lambda _name: None)
    assert made.run([], cell(3, transpose=False), "--calls", "4").stdout == "4\n"
    assert int(made.run([], cell(3), "--seconds", "0.5").stdout) > 4
    with pytest.raises(RunFailed, match="256 → 256, M=3 failed: exited with 1: ValueError"):
        made.run([], cell(3)._replace(group_size=48))
    with pytest.raises(RunFailed, match="256 → 256, M=3"):
        made.metal_capture(cell(3))
