"""The whole-model repro, run for real on the CPU, and `bisect_tool model` around it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bisect_tool.building.environment import ensure, find_interpreter

SCRIPT = Path(__file__).resolve().parents[2] / "repro" / "model_forward.py"
TINY = ("--hidden", "64", "--intermediate", "128", "--heads", "2", "--kv-heads", "1", "--vocab", "64",
        "--prefill", "3", "--layers", "5", "--depths", "1,2")  # fmt: skip
Line = dict[str, Any]

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="backend cpu has wheels on Linux"),
]


@pytest.fixture(scope="session")
def newest(wheel_builds: Path) -> Path:
    return ensure("0.32.4", "cpu", builds=wheel_builds, interpreter=find_interpreter()).python


@pytest.fixture(scope="session")
def older(wheel_builds: Path) -> Path:
    return ensure("0.25.2", "cpu", builds=wheel_builds, interpreter=find_interpreter()).python


def run(python: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.defpath, "HOME": str(python.parent), "LC_ALL": "C.UTF-8"}
    argv = [str(python), "-s", str(SCRIPT), *args]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, env=env, check=False)


def inside(python: Path, code: str) -> Any:
    prelude = f"import json, sys\nsys.path.insert(0, {str(SCRIPT.parent)!r})\n"
    prelude += "import model_forward as m\nmx = m.mx\n"
    prelude += f"args = m.parse_arguments({list(TINY)!r})\n"
    argv = [str(python), "-s", "-c", prelude + code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_standard_library_mlx_and_the_script_beside_it() -> None:
    names = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    # mlx-lm and what it brings are asked for only where a checkpoint is.
    assert names - set(sys.stdlib_module_names) == {"mlx", "qmv_step", "mlx_lm", "huggingface_hub"}


@pytest.mark.parametrize("release", ["newest", "older"])
def test_protocol_lines(release: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    python: Path = request.getfixturevalue(release)
    path = tmp_path / "out.jsonl"
    done = run(python, *TINY, "--rows", "1-2", "--budget", "0.5", "--json", str(path))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    lines: list[Line] = [json.loads(text) for text in path.read_text().splitlines()]
    assert [lines[0]["kind"], lines[1]["kind"], lines[-1]["kind"]] == ["host", "sentinel", "end"]
    assert lines[0]["script"] == "model_forward.py" and set(lines[0]["files"]) == {SCRIPT.name, "qmv_step.py"}
    cases = [line for line in lines if line["kind"] in ("case", "unsupported")]
    steps = [line for line in cases if line["case"]["op"] == "model_step"]
    bill = [line for line in cases if line["case"]["op"] == "quantized_matmul"]
    assert sorted(line["case"]["M"] for line in steps) == [1, 2]
    shapes = {(line["case"]["K"], line["case"]["N"]) for line in bill}
    assert shapes == {(64, 64), (64, 32), (64, 128), (128, 64)}, "each shape once"
    for line in (line for line in steps if line["kind"] == "case"):
        assert line["time_s"] == pytest.approx(line["rest_s"] + 5 * line["layer_s"])
        assert set(line["depths"]) == {"1", "2"} and all(len(t) >= 5 for t in line["depths"].values())
    counts = {(line["case"]["K"], line["case"]["N"]): (line["per_layer"], line["in_head"])
              for line in bill if line["kind"] == "case"}  # fmt: skip
    # q and o of 64 to 64, and the head, which has that shape here too.
    assert counts.get((64, 64), (2, 1)) == (2, 1) and counts.get((64, 32), (2, 0)) == (2, 0)


def test_a_step_is_the_model_that_it_says(newest: Path) -> None:
    """M rows at once give what one after the other give: cache, rotation and mask are right."""
    code = """
args.rows = [3]
model = m.RandomModel(args)
together = model.step(3, 2)
caches, alone = list(model.caches), []
for row in range(3):
    x = model.rows[:, row : row + 1]
    for i, layer in enumerate(model.layers):
        x, caches[i] = layer(x, caches[i])
    alone.append(model.head(mx.fast.rms_norm(x, model.norm, 1e-6)))
alone = mx.concatenate(alone, axis=1)
off = mx.max(mx.abs(together.astype(mx.float32) - alone.astype(mx.float32))).item()
size = mx.max(mx.abs(together.astype(mx.float32))).item()
one, two = model.step(1, 1), model.step(1, 2)
print(json.dumps([off / size, list(together.shape), mx.max(mx.abs(one - two)).item() > 0]))
"""
    off, shape, deeper = inside(newest, code)
    assert off < 0.02 and shape == [1, 3, 64] and deeper


def test_scaling_and_memory(newest: Path) -> None:
    code = """
whole = m.scaled({2: [0.010, 0.011, 0.5], 6: [0.019, 0.019, 0.019]}, 64)
one = m.scaled({64: [0.1, 0.3, 0.2]}, 64)
args.bits, args.group_size = 4, 64
print(json.dumps([whole, one, m.needed_bytes(args)]))
"""
    whole, one, need = inside(newest, code)
    assert whole == pytest.approx({"time_s": 0.007 + 64 * 0.002, "layer_s": 0.002, "rest_s": 0.007})
    assert one == {"time_s": 0.2, "layer_s": None, "rest_s": None}
    layer = (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128) * 0.5625
    cache = 2 * (3 + 8) * 32 * 2
    assert need == int(2 * (layer + cache) + 2 * 64 * 64 * 0.5625 + 64 * 128 * 6)


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (
            ("--hidden", "100000", "--heads", "100", "--kv-heads", "100", "--group-size", "32"),
            "GiB are needed",
        ),
        (("--heads", "3"), "do not divide into heads"),
        (("--intermediate", "100"), "100 is no multiple of the group size 64"),
        (("--depths", "1"), "--depths takes two numbers"),
        (("--bits", "7"), "--bits 7 does not go with affine"),
        (("--layers", "0"), "--layers takes a number from 1 up"),
        (("--model", "/nowhere"), "needs mlx-lm, which is not here"),
        (("--budget", "0"), "--budget takes seconds above 0"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_built(
    newest: Path, args: tuple[str, ...], why: str
) -> None:
    done = run(newest, *args, "--list")
    assert done.returncode == 2 and why in done.stderr and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_by_hand_it_prints_both_tables(newest: Path) -> None:
    done = run(newest, *TINY, "--rows", "1,3", "--budget", "0.5")
    assert done.returncode == 0, done.stderr
    head, names, *rows = done.stdout.splitlines()
    assert head == "one forward of M tokens after 3; 5 layers, scaled from [1, 2]"
    assert names.split() == ["M", "ms", "M/M=1", "layer", "ms", "rest", "ms", "bill", "ms", "share"]
    assert [row.split()[0] for row in rows] in (["1", "3"], ["1"], ["3"])
