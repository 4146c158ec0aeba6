"""The canonical repro, run as its users run it: a process of its own in an environment of one release."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import types
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest

from bisect_tool.building.environment import ensure, find_interpreter

SCRIPT = Path(__file__).resolve().parents[2] / "repro" / "qmv_step.py"
SMALL = ("--shape", "256x64", "--rows", "1-3", "--budget", "1")
Line = dict[str, Any]


@pytest.fixture(scope="session")
def newest(wheel_builds: Path) -> Path:
    return ensure("0.32.4", "cpu", builds=wheel_builds, interpreter=find_interpreter()).python


@pytest.fixture(scope="session")
def oldest(wheel_builds: Path) -> Path:
    return ensure("0.21.1", "cpu", builds=wheel_builds, interpreter=find_interpreter()).python


@pytest.fixture(params=["0.32.4", "0.21.1"])
def python(request: pytest.FixtureRequest) -> Path:
    """The two ends of what the script runs on."""
    return Path(request.getfixturevalue("newest" if request.param == "0.32.4" else "oldest"))


def run(python: Path, *args: str, fds: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
    argv = [str(python), "-s", str(SCRIPT), *args]
    env = {"PATH": os.defpath, "HOME": str(python.parent), "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=120, env=env, pass_fds=fds, check=False
    )


def told(python: Path, path: Path, *args: str) -> list[Line]:
    """The protocol lines of a run, which must end well and say nothing on standard output."""
    done = run(python, *args, "--json", str(path))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return [json.loads(text) for text in path.read_text().splitlines()]


def inside(python: Path, code: str) -> Any:
    """What ``code`` prints as JSON, with the script imported as ``q`` where mlx is."""
    prelude = f"import json, random, statistics, sys, time\nsys.path.insert(0, {str(SCRIPT.parent)!r})\n"
    argv = [str(python), "-s", "-c", prelude + "import qmv_step as q\nmx = q.mx\n" + code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def measured(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line["kind"] == "case" and not line["case"].get("control")]


# --- the file itself ----------------------------------------------------------------------------------


def test_standard_library_and_mlx_only() -> None:
    names = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module or "")
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"mlx"}
    assert "mlx.core" in names


def test_what_it_pins_is_set_before_mlx_is_imported() -> None:
    body = ast.parse(SCRIPT.read_text(encoding="utf-8")).body
    pinned = next(i for i, node in enumerate(body) if isinstance(node, ast.For))
    imported = next(
        i for i, node in enumerate(body) if isinstance(node, ast.Import) and node.names[0].name == "mlx.core"
    )
    assert pinned < imported


# --- pure helpers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pure() -> types.ModuleType:
    """The script with an empty stand-in for mlx: for the helpers that are arithmetic or parsing alone.

    Nothing that times or multiplies is ever tested like this.
    """
    stub = types.ModuleType("mlx")
    stub.core = types.ModuleType("mlx.core")  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("qmv_step_without_mlx", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLX_MAX_OPS_PER_BUFFER", "MLX_MAX_MB_PER_BUFFER"):
            patch.setenv(name, "20")  # put back afterwards, as the script sets them
        patch.setitem(sys.modules, "mlx", stub)
        patch.setitem(sys.modules, "mlx.core", stub.core)
        spec.loader.exec_module(module)
    return module


def test_theil_sen(pure: types.ModuleType) -> None:
    line = [(length, 0.1 + 0.03 * length) for length in (4, 8, 12) * 5]
    assert pure.theil_sen(line) == pytest.approx((0.03, 0.1))
    rng = random.Random(1)
    noisy = [(length, t * rng.gauss(1, 0.01)) for length, t in line]
    noisy[3] = (noisy[3][0], 9.0)  # one pass that something interrupted
    slope, _ = pure.theil_sen(noisy)
    assert slope == pytest.approx(0.03, rel=0.03)
    points = [(1, 3.0), (2, 4.0), (3, 9.0), (2, 5.0)]
    pairs = [(a, b) for i, a in enumerate(points) for b in points[i + 1 :] if a[0] != b[0]]
    slope = statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs)
    intercept = statistics.median(t - slope * length for length, t in points)
    assert pure.theil_sen(points) == pytest.approx((slope, intercept))


def test_bend(pure: types.ModuleType) -> None:
    assert pure.bend([(1, 2.0), (2, 3.0), (3, 4.0)]) == pytest.approx(0)
    assert pure.bend([(1, 2.0), (2, 3.3), (3, 4.0)]) == pytest.approx(0.1)
    assert pure.bend([(1, 2.0), (2, 2.7), (3, 4.0)]) == pytest.approx(-0.1)
    assert pure.bend([(3, 4.0), (1, 2.0), (2, 3.0), (2, 3.0), (2, 90.0)]) == pytest.approx(0)


def test_pass_slopes(pure: types.ModuleType) -> None:
    points = [(2, 2.0), (1, 1.0), (3, 3.0), (1, 2.0), (2, 4.0), (3, 6.0)]
    assert pure.pass_slopes(points) == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize("estimate", [0.0, 1e-9, 1e-6, 57e-6, 1e-3, 4e-3, 0.82, 60.0])
def test_lengths(pure: types.ModuleType, estimate: float) -> None:
    base, twice, thrice = pure.lengths_for(estimate)
    assert (twice, thrice) == (2 * base, 3 * base) and 1 <= base <= 64
    if 1e-4 < estimate < 2e-3:
        assert 0.008 < thrice * estimate < 0.016


def test_numbers(pure: types.ModuleType) -> None:
    assert pure.numbers("1-4,6,8") == [1, 2, 3, 4, 6, 8]
    assert pure.numbers("3,1,2,2-3") == [1, 2, 3]
    assert pure.numbers("7") == [7]
    for wrong in ("", "0", "4-2", "a", "1-b", "-1", "1,,2", "1.5"):
        with pytest.raises(ArgumentTypeError, match="is no "):
            pure.numbers(wrong)


def test_shape(pure: types.ModuleType) -> None:
    assert pure.shape("5120x13824") == (5120, 13824, 1)
    assert pure.shape("5120X1024x4") == (5120, 1024, 4)
    assert pure.shape("5120→1024") == (5120, 1024, 1)
    for wrong in ("", "5120", "0x5", "5x-1", "1x2x3x4", "axb", "5120 x 1024"):
        with pytest.raises(ArgumentTypeError, match="is no KxN"):
            pure.shape(wrong)


def test_marks(pure: types.ModuleType) -> None:
    fine = {"bend": 0.019, "error": {"relative": 0.005}}
    assert pure.marks_of(fine, 100.0, 100.0) == []
    assert pure.marks_of({**fine, "bend": -0.021}, 100.0, 100.0) == ["nonlinear-chain"]
    assert pure.marks_of({**fine, "launch_bound": True}, 100.0, 100.0) == ["launch-bound"]
    for wrong in (0.2, math.nan, math.inf):
        assert pure.marks_of({"error": {"relative": wrong}}, 1.0, 100.0) == ["wrong-result"]
    assert pure.marks_of(fine, 111.0, 100.0) == ["cache-resident"]
    assert pure.marks_of({}, 1.0, 100.0) == [], "a control has no error"


# --- by hand ------------------------------------------------------------------------------------------


@pytest.mark.real
def test_by_hand(python: Path) -> None:
    done = run(python, *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    first, blank, head, *rows = done.stdout.splitlines()
    numbers = "  ".join(rf"M={M}=(\d+\.\d{{3}})ms" for M in (1, 2, 3))
    pattern = rf"256 → 64: {{20}}{numbers}  \(M3/M1=(\d+\.\d\d)x\)"
    match = re.fullmatch(pattern, first)
    assert match is not None and blank == ""
    ms = [float(text) for text in match.groups()[:3]]
    assert float(match[4]) == pytest.approx(ms[2] / ms[0], rel=0.1)
    assert head.split() == ["K", "→", "N", "timing", "M", "ms", "M/M-1", "M/M=1", "GB/s", "error", "notes"]
    assert [row.split()[5] for row in rows] == ["1", "2", "3", "1"] and "control" in rows[3]
    assert [float(row.split()[6]) for row in rows[:3]] == pytest.approx(ms, abs=6e-4), "the same, rounded"
    step, whole = rows[2].split()[7:9]
    assert float(step) == pytest.approx(ms[2] / ms[1], rel=0.02)
    assert float(whole) == pytest.approx(ms[2] / ms[0], rel=0.02)


@pytest.mark.real
def test_compat_is_the_issue_and_nothing_else(python: Path) -> None:
    done = run(python, *SMALL, "--shape", "128x64", "--compat")
    assert done.returncode == 0
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["256 → 64", "128 → 64"]
    assert all(re.search(r"  \(M3/M1=\d\.\d\dx\)$", line) for line in done.stdout.splitlines())


@pytest.mark.real
def test_compat_measures_as_the_issue_does(newest: Path, tmp_path: Path) -> None:
    args = ("--shape", "64x64", "--shape", "64x32", "--rows", "1-3", "--budget", "4", "--compat")
    lines = told(newest, tmp_path / "out", *args)
    order = [(line["case"]["N"], line["case"]["M"]) for line in lines if line["kind"] == "case"]
    assert order == [(N, M) for N in (64, 32) for M in (1, 2, 3)], "in order, and no control"
    for line in measured(lines):
        assert line["case"]["timing"] == "percall" and line["case"]["cache"] == "hot"
        assert (line["warm_up"]["ops"], len(line["samples_s"])) == (30, 200)
        assert line["time_s"] == pytest.approx(statistics.fmean(line["samples_s"]))
        assert line["centre"] == "mean"


@pytest.mark.real
def test_by_hand_lines_can_be_told_apart(newest: Path) -> None:
    done = run(newest, "--shape", "64x64", "--rows", "1", "--budget", "1", "--bits", "4,8")
    lines = [re.sub(r"=\d.*", "", line) for line in done.stdout.split("\n\n")[0].splitlines()]
    assert len(lines) == 2 and len(set(lines)) == 2


# --- protocol v1 --------------------------------------------------------------------------------------


@pytest.mark.real
def test_protocol(python: Path, tmp_path: Path) -> None:
    lines = told(python, tmp_path / "out.jsonl", *SMALL, "--seed", "7")
    kinds = [line["kind"] for line in lines]
    assert kinds == ["host", "sentinel", *["case"] * 4, "sentinel", "end"]
    host, before, *cases, after, end = lines
    assert host["protocol"] == 1 and host["backend"] == "cpu" and host["seed"] == 7
    assert host["script_sha256"] == hashlib.sha256(SCRIPT.read_bytes()).hexdigest()
    assert host["mlx"] == ("0.32.4" if "0.32.4" in str(python) else "0.21.1")
    root = str(python.parent.parent)
    assert host["module"].startswith(root)
    assert host["libraries"] and all(name.startswith(root) for name in host["libraries"])
    assert host["pinned"] == {"MLX_MAX_OPS_PER_BUFFER": "20", "MLX_MAX_MB_PER_BUFFER": "100000"}
    assert (before["when"], after["when"]) == ("before", "after")
    for sentinel in (before, after):
        assert min(sentinel["arithmetic_s"], sentinel["bandwidth_s"], sentinel["gbps"]) > 0
    for line in cases:
        assert line["time_s"] > 0 and math.isfinite(line["floor_s"])
        assert line["samples_s"] and all(math.isfinite(s) for s in line["samples_s"])
        assert line["warm_up"]["seconds"] >= 0.05 and line["warm_up"]["ops"] >= 2
    *ours, control = cases
    assert sorted(line["case"]["M"] for line in ours) == [1, 2, 3]
    assert control["case"]["control"] and control["case"]["op"] == "matmul" and "error" not in control
    for line in ours:
        M = line["case"].pop("M")
        assert line["case"] == {
            "op": "quantized_matmul", "K": 256, "N": 64, "B": 1, "bits": 4, "group_size": 64,
            "quant": "affine", "dtype": "float16", "cache": "hot", "timing": "chain",
        }  # fmt: skip
        nbytes = 256 * 64 // 2 + 2 * 256 * 64 // 64 * 2 + 2 * M * (256 + 64)
        assert line["bytes"] == nbytes
        assert line["gbps"] == pytest.approx(nbytes / line["time_s"] / 1e9)
    assert end["drift"]["case"].items() >= ours[0]["case"].items(), "the first cell again"
    assert math.isfinite(end["drift"]["change"]) and 0 < end["wall_s"] < 30


@pytest.mark.real
def test_protocol_over_a_descriptor(newest: Path, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+") as file:
        done = run(newest, *SMALL, "--json", str(file.fileno()), fds=(file.fileno(),))
        assert (done.returncode, done.stdout) == (0, "")
        file.seek(0)
        kinds = [json.loads(text)["kind"] for text in file]
    assert kinds[0] == "host" and kinds[-1] == "end" and kinds.count("case") == 4


@pytest.fixture(scope="module")
def seeded(newest: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[Line]]:
    """The cells of a run with seed 1, of another, and of one with seed 2. They end at different times."""
    args = ("--shape", "64x64", "--shape", "64x32", "--shape", "64x96", "--rows", "1-4")
    path = tmp_path_factory.mktemp("seeds") / "out"
    return [
        measured(told(newest, path, *args, "--seed", seed, "--budget", budget))
        for seed, budget in (("1", "1"), ("1", "4"), ("2", "1"))
    ]


@pytest.mark.real
def test_seeds(seeded: list[list[Line]]) -> None:
    orders = [[(line["case"]["N"], line["case"]["M"]) for line in lines] for lines in seeded]
    assert sorted(orders[0]) == sorted(orders[2]) == [(N, M) for N in (32, 64, 96) for M in (1, 2, 3, 4)]
    shapes = [list(dict.fromkeys(N for N, _ in order)) for order in orders]
    assert shapes[0] == shapes[1], "the order of shapes"
    assert orders[0][:4] == orders[1][:4] and orders[0] != orders[2]
    errors = [{N_M: line["error"]["relative"] for N_M, line in zip(order, lines, strict=True)}
              for order, lines in zip(orders, seeded, strict=True)]  # fmt: skip
    assert errors[0] == errors[1], "the seed makes the values"
    assert set(errors[0].values()).isdisjoint(errors[2].values())


@pytest.mark.real
def test_results_can_be_compared(seeded: list[list[Line]]) -> None:
    """By another process with the same seed: the same inputs, the same bits, the same values kept."""
    one, other, apart = [
        {(line["case"]["N"], line["case"]["M"]): line["output"] for line in lines} for lines in seeded
    ]
    assert one == other
    for (N, M), output in one.items():
        assert output["inputs"] == one[N, 1]["inputs"] != apart[N, M]["inputs"]
        assert output["bits"] != apart[N, M]["bits"]
        step = 1 if N * M <= 256 else 3  # odd, and few enough are left
        assert len(output["values"]) == math.ceil(N * M / step) <= 256
        assert all(map(math.isfinite, output["values"]))
    assert len({output["bits"] for output in one.values()}) == len(one)


@pytest.mark.real
def test_a_seed_fixes_the_order_of_every_cell(seeded: list[list[Line]]) -> None:
    one, other, _ = [[(line["case"]["N"], line["case"]["M"]) for line in lines] for lines in seeded]
    assert one == other


@pytest.mark.real
@pytest.mark.alone
def test_every_timing_mode_and_cache_state(newest: Path, tmp_path: Path) -> None:
    args = ("--shape", "512x512", "--rows", "1-2", "--budget", "3",
            "--timing", "chain,throughput,percall", "--cache", "hot,cold")  # fmt: skip
    lines = told(newest, tmp_path / "out", *args)
    cells = {
        (line["case"]["cache"], line["case"]["timing"], line["case"]["M"]): line for line in measured(lines)
    }
    assert len(cells) == 12
    assert all(("bend" in line) == (timing != "percall") for (_, timing, _), line in cells.items())
    for (_, timing, _), line in cells.items():
        if timing == "percall":
            assert line["centre"] == "median" and line["time_s"] == statistics.median(line["samples_s"])
    # However an op is timed, it comes out alike. Another process may take the machine in one try of three; a
    # mode that is wrong is wrong in all.
    off = set(cells)
    for attempt in range(3):
        if attempt:
            lines = told(newest, tmp_path / f"out{attempt}", *args)
            cells = {(c["case"]["cache"], c["case"]["timing"], c["case"]["M"]): c for c in measured(lines)}
        a_row = {key: line["time_s"] / line["case"]["M"] for key, line in cells.items()}
        centre = statistics.median(a_row.values())
        off &= {key for key, t in a_row.items() if abs(t / centre - 1) > 0.25}
        if not off:
            break
    assert not off, a_row
    controls = [line for line in lines if line.get("case", {}).get("control")]
    assert [line["case"]["timing"] for line in controls] == ["chain", "throughput", "percall"]


@pytest.mark.real
def test_a_cold_ring_is_large_and_no_weight_comes_twice_running(newest: Path) -> None:
    code = """
q.COLD_BYTES = 4 << 20
weight = q.Weight(512, 512, 1, 4, 64, "affine", mx.float16, True)
picks = weight.picks(3 * len(weight.ring), random.Random(1))
ids = [id(parts) for parts in picks]
n = len(weight.ring)
print(json.dumps({"n": n, "bytes": n * weight.nbytes,
    "rounds": [len(set(ids[i:i + n])) for i in (0, n, 2 * n)],
    "values": len({int(parts[0][0, 0].item()) for parts in weight.ring}),
    "hot": len(q.Weight(512, 512, 1, 4, 64, "affine", mx.float16, False).ring)}))
"""
    found = inside(newest, code)
    assert found["bytes"] >= 4 << 20 and found["n"] >= 8 and found["hot"] == 1
    assert found["rounds"] == [found["n"]] * 3 and found["values"] == found["n"]


@pytest.mark.real
def test_modes_and_bits(newest: Path, tmp_path: Path) -> None:
    args = ("--shape", "128x64", "--rows", "1,3", "--budget", "2",
            "--quant", "affine,mxfp4,mxfp8,nvfp4", "--bits", "2,3,4,5,6,8")  # fmt: skip
    lines = told(newest, tmp_path / "out", *args)
    assert not [line for line in lines if line["kind"] == "unsupported"]
    found = {(c["case"]["quant"], c["case"]["bits"], c["case"]["group_size"]) for c in measured(lines)}
    affine = {("affine", bits, 64) for bits in (2, 3, 4, 5, 6, 8)}
    assert found == affine | {("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)}
    for line in measured(lines):
        assert line["error"]["relative"] < 0.01 and line["error"]["row_bits_as_m1"] is True


@pytest.mark.real
def test_dtypes_batches_and_group_sizes(python: Path, tmp_path: Path) -> None:
    args = ("--shape", "256x64x3", "--rows", "1-3", "--budget", "2", "--group-size", "32")
    lines = told(python, tmp_path / "out", *args, "--dtype", "float16,bfloat16,float32")
    limits = {"float32": 1e-5, "float16": 0.01, "bfloat16": 0.08}
    cells = {(line["case"]["dtype"], line["case"]["M"]): line for line in measured(lines)}
    assert set(cells) == {(dtype, M) for dtype in limits for M in (1, 2, 3)}
    for (dtype, M), line in cells.items():
        assert (line["case"]["B"], line["case"]["group_size"]) == (3, 32)
        assert 0 <= line["error"]["relative"] < limits[dtype]
        assert line["error"]["row_bits_as_m1"] is True and line["marks"] != ["wrong-result"]
        size = 4 if dtype == "float32" else 2
        assert line["bytes"] == 3 * (256 * 64 // 2 + 2 * 256 * 64 // 32 * size + size * M * (256 + 64))


@pytest.mark.real
def test_what_a_release_lacks_is_said_and_the_rest_goes_on(oldest: Path, tmp_path: Path) -> None:
    args = ("--shape", "256x64", "--rows", "1", "--budget", "1", "--quant", "affine,mxfp4", "--bits", "4,5")
    lines = told(oldest, tmp_path / "out", *args)
    lacking = [line for line in lines if line["kind"] == "unsupported"]
    assert sorted((line["case"]["quant"], line["case"]["bits"]) for line in lacking) == [
        ("affine", 5),
        ("mxfp4", 4),
    ]
    assert all(re.match(r"\w+Error: ", line["reason"]) for line in lacking)
    assert [(line["case"]["quant"], line["case"]["bits"]) for line in measured(lines)] == [("affine", 4)]
    assert lines[-1]["kind"] == "end"


@pytest.mark.real
def test_by_hand_with_nothing_measured_is_no_success(oldest: Path) -> None:
    done = run(oldest, "--shape", "256x64", "--rows", "1", "--budget", "1", "--quant", "mxfp4")
    assert done.returncode == 1 and "# not in MLX 0.21.1" in done.stderr


# --- wrong arguments ----------------------------------------------------------------------------------

WRONG = [
    (("--rows", "0"), "--rows: '0'"),
    (("--rows", "4-2"), "--rows: '4-2'"),
    (("--rows", "x"), "--rows: 'x'"),
    (("--shape", "5120"), "--shape: '5120' is no KxN"),
    (("--bits", "7"), "--bits [7] does not go with affine"),
    (("--bits", "8", "--quant", "mxfp4"), "--bits [8] does not go with mxfp4, which has [4]"),
    (("--quant", "int4"), "'int4' is none of affine, mxfp4, mxfp8, nvfp4"),
    (("--dtype", "float64"), "'float64' is none of float16"),
    (("--timing", "chain,wall"), "'wall' is none of chain"),
    (("--cache", "warm"), "'warm' is none of hot, cold"),
    (("--preset", "huge"), "invalid choice: 'huge'"),
    (("--budget", "0"), "--budget takes seconds above 0"),
    (("--budget", "nan"), "--budget takes seconds above 0"),
    (("--seed", "x"), "--seed: invalid int value: 'x'"),
    (("--row", "1"), "unrecognized arguments: --row 1"),
]


@pytest.mark.real
@pytest.mark.parametrize(("args", "says"), WRONG, ids=lambda value: " ".join(value) if value else "")
def test_wrong_arguments(newest: Path, args: tuple[str, ...], says: str) -> None:
    done = run(newest, *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("qmv_step.py: error: ") and says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.real
def test_wrong_arguments_give_one_line(newest: Path) -> None:
    assert len(run(newest, "--rows", "0").stderr.splitlines()) == 1


@pytest.mark.real
@pytest.mark.parametrize("where", ["/nonexistent/out", "77", "/"])
def test_json_to_a_place_that_cannot_be_written(newest: Path, where: str) -> None:
    done = run(newest, *SMALL, "--json", where)
    assert done.returncode == 2 and "Traceback" not in done.stderr


@pytest.mark.real
def test_bits_are_not_dropped_in_silence(newest: Path) -> None:
    done = run(newest, *SMALL, "--bits", "4,7")
    assert done.returncode == 2 or "7" in done.stderr


@pytest.mark.real
def test_group_size_0_is_refused(newest: Path) -> None:
    assert run(newest, *SMALL, "--group-size", "0").returncode == 2


# --- is the number right ------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.alone
def test_chain_agrees_with_single_calls(newest: Path) -> None:
    """Timed here one by one, with nothing of the script's own timing; at 3 ms an op the floor is nothing."""
    code = """
weight = q.Weight(640, 128, 1, 4, 64, "affine", mx.float16, False)
x = (mx.random.normal((1, 640)) / 640 ** 0.5).astype(mx.float16)
w, scales, biases = weight.first
mx.eval(x)
def singly(n):
    found = []
    for _ in range(n):
        y = mx.quantized_matmul(x, w, scales, biases, transpose=True, group_size=64, bits=4)
        start = time.perf_counter(); mx.eval(y); found.append(time.perf_counter() - start)
    return found
pairs = []
for attempt in range(3):
    alone = singly(100)
    chain = q.time_cell("chain", weight, x, 1.0, random.Random(attempt))["time_s"]
    pairs.append((chain, statistics.median(alone + singly(100))))
print(json.dumps(pairs))
"""
    pairs = inside(newest, code)
    # Three tries, as another process may take the machine in one of them; a wrong slope is wrong in all.
    assert min(abs(chain / single - 1) for chain, single in pairs) < 0.15, pairs
    assert statistics.median(chain / single for chain, single in pairs) == pytest.approx(1, abs=0.15), pairs


@pytest.mark.real
def test_glue_is_subtracted_and_every_op_of_a_chain_runs(newest: Path) -> None:
    """On a clock that only evaluation moves, times are known: 1 ms an op, 0.2 ms a glue, 50 µs an eval."""
    code = """
class Clock:
    now = 0.0
    def perf_counter(self): return self.now
q.time = clock = Clock()
eval_now = mx.eval
class Op:
    ring = [()]; nbytes = 1; due = 0.0
    def picks(self, n, rng): return [()] * n
    def matmul(self, x, parts):
        Op.due += 1e-3
        return x * 1.0
one_glue = q.glue
def glue(x, y):
    Op.due += 0.2e-3
    return one_glue(x, y)
q.glue = glue
def slow(*arrays):
    eval_now(*arrays)
    clock.now += 50e-6 + Op.due
    Op.due = 0.0
mx.eval = slow
x = mx.ones((1, 8))
found = {}
for timing in ("chain", "throughput", "percall"):
    Op.due = 0.0
    cell = q.time_cell(timing, Op(), x, 0.5, random.Random(1))
    found[timing] = [cell["time_s"], cell["floor_s"]]
print(json.dumps(found))
"""
    found = inside(newest, code)
    assert found["chain"] == pytest.approx([1e-3, 50e-6], rel=1e-6)
    assert found["throughput"] == pytest.approx([1e-3, 50e-6], rel=1e-6)
    assert found["percall"] == pytest.approx([1.05e-3, 50e-6], rel=1e-6)


@pytest.mark.real
def test_garbage_is_not_collected_while_timing(newest: Path) -> None:
    code = """
import gc
weight = q.Weight(64, 64, 1, 4, 64, "affine", mx.float16, False)
x = mx.random.normal((1, 64)).astype(mx.float16)
mx.eval(x)
real, states = mx.eval, {}
for timing in ("chain", "throughput", "percall"):
    seen = []
    mx.eval = lambda *arrays: (seen.append(gc.isenabled()), real(*arrays))[1]
    q.time_cell(timing, weight, x, 0.05, random.Random(1), compat=timing == "percall")
    states[timing] = [len(seen) > 10, any(seen), gc.isenabled()]
def fails(*arrays): raise RuntimeError("no such kernel")
mx.eval = fails
try: q.time_cell("chain", weight, x, 0.05, random.Random(1))
except RuntimeError: states["raised"] = [True, False, gc.isenabled()]
print(json.dumps(states))
"""
    states = inside(newest, code)
    assert set(states) == {"chain", "throughput", "percall", "raised"}
    for many, any_enabled, enabled_after in states.values():
        assert many and not any_enabled and enabled_after


SABOTAGE = """
real = q.Weight.matmul
def other(self, x, parts):
    y = real(self, x, parts)
    {how}
q.Weight.matmul = other
sys.argv = ["qmv_step.py", "--shape", "256x64", "--rows", "1,2", "--budget", "1", "--json", {path!r}]
q.main()
print(json.dumps([json.loads(text) for text in open({path!r})]))
"""


@pytest.mark.real
@pytest.mark.parametrize(
    ("how", "rows", "wrong", "same_bits"),
    [
        ("return y", {1, 2}, False, True),
        ("return y[..., :1, :]", {1}, True, True),  # M is that of what came out
        ("return y * 1.5 if x.shape[-2] > 1 else y", {1, 2}, True, False),
        ("return y * (1 / y - 1 / y)", {1, 2}, True, None),  # NaN where y is 0, else 0
        ("return y if x.shape[-2] == 1 else (y.astype(mx.float32) * 1.002).astype(y.dtype)",
         {1, 2}, False, False),
    ],
)  # fmt: skip
def test_a_kernel_that_goes_wrong_is_noticed(
    newest: Path, tmp_path: Path, how: str, rows: set[int], wrong: bool, same_bits: bool | None
) -> None:
    lines = inside(newest, SABOTAGE.format(how=how, path=str(tmp_path / "out")))
    cases = measured(lines)
    assert len(cases) == 2 and {line["case"]["M"] for line in cases} == rows
    assert any("wrong-result" in line["marks"] for line in cases) == wrong
    if same_bits is not None:
        assert all(line["error"]["row_bits_as_m1"] for line in cases) == same_bits
