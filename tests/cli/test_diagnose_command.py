"""`bisect_tool diagnose`: of tables, of sessions, and measured now on a real release."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cli_tool import Tool
from click.testing import CliRunner, Result

from bisect_tool.cli import diagnose
from bisect_tool.errors import UsageProblem
from bisect_tool.measuring import ledger

DATA = Path(__file__).parents[1] / "data" / "published_series.json"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="backend cpu has wheels on Linux")
MODEL = "M,ms\n1,68.0\n2,69.3\n3,93.8\n4,121.9\n5,150.2\n6,179.3\n"


@pytest.fixture
def real(wheel_builds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.setenv("UV_CACHE_DIR", str(wheel_builds / "cache" / "uv"))
    return Tool(tmp_path / "builds", tmp_path)


def said(*words: str, stdin: str = "") -> Result:
    """In this process: only what a table gives is looked at."""
    return CliRunner().invoke(diagnose.command, list(words), input=stdin, standalone_mode=False)


def test_a_pasted_table_as_a_process(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(MODEL)
    tool = Tool(tmp_path / "builds", tmp_path)
    ended = tool("diagnose", "t.csv", "--picture", "p.png", "--mermaid", "--chart")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("- **time**: bandwidth to arithmetic at M ≈ 2.1 [")
    assert "```mermaid" in ended.out and "◉" in ended.out and "\x1b" not in ended.out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG") and "Drew p.png" in ended.err
    ended = tool("diagnose", "--table", "none.csv")
    assert (
        ended.code == 2
        and ended.error() == "error: cannot read the table none.csv: No such file or directory"
    )


def test_from_standard_input() -> None:
    result = said("--table", "-", "--json", stdin=MODEL)
    data = json.loads(result.stdout)
    assert data["curves"][0]["verdict"] == "roofline" and result.return_value == 0


def test_every_published_series_at_once() -> None:
    result = said("--table", str(DATA), "--json")
    names = {c["name"]: c["verdict"] for c in json.loads(result.stdout)["curves"]}
    assert names["3553-model"] == names["3553-up"] == names["3553-down"] == "roofline"
    assert names["3863-main"] == "switch"
    hidden = {name: v for name, v in names.items() if name in ("3553-kv", "3553-qo") or "m3max" in name}
    assert set(hidden.values()) <= {"inconclusive", "floor-bound"}, hidden


def test_what_is_known_of_a_table() -> None:
    words = [
        "--table",
        "-",
        "--shape",
        "5120x13824",
        "--bits",
        "4",
        "--group-size",
        "64",
        "--bandwidth",
        "273",
    ]
    out = said(*words, stdin="M,ms\n1,0.270\n2,0.272\n3,0.346\n4,0.425\n").stdout
    assert "of a copy's 273) where it is flat" in out and "of bandwidth" in out
    flat = "M,ms\n" + "".join(f"{M},{1 if M < 8 else 3}\n" for M in (1, 2, 4, 6, 8, 9, 10, 12))
    out = said("--table", "-", "--segments", "qmv@1-7,qmm@8+", stdin=flat).stdout
    assert "another kernel from M = 8 (qmm)" in out


def test_noise_decides_what_is_adequate() -> None:
    assert "bandwidth to arithmetic" in said("--table", "-", stdin=MODEL).stdout
    result = said("--table", "-", "--noise", "0.1%", stdin=MODEL)
    assert "no law comes near enough" in result.stdout and result.return_value == 4


@pytest.mark.parametrize(
    ("words", "stdin", "why"),
    [
        (["--table", "-"], "M,ms\n1,1\n2,2\n3,3\n", "3 points"),
        (["--table", "-"], "", "empty"),
        (["--table", "-", "--unit", "h"], MODEL, "'h' is none of"),
        (["--table", "-", "--segments", "qmv"], MODEL, "no segment such as"),
        (["--table", "-", "--segments", "qmv@1-4"], MODEL, "no segment holds M=5"),
        (["--table", "-", "--shape", "5120"], MODEL, "takes one number above 0"),
        (["--table", "-", "--shape", "1x2", "--shape", "3x4"], MODEL, "2 shapes for 1 series"),
        (["--table", "-", "--run", "0.32.4"], MODEL, "give one of"),
        (["--table", "-", "--rows", "1-4"], MODEL, "--rows goes with --run"),
        (["--table", "-", "--picture", "p.gif"], MODEL, "ends in .png or .svg"),
        (["--experiment", "bits"], "", "say what with --run"),
        (["--resume"], "", "--resume goes with --run"),
        (["--run", "0.32.4", "--resume", "--experiment", "auto"], "", "name the experiment"),
        (["--table", "-", "--noise", "0"], MODEL, "no percentage"),
        (["--table", "-", "--bandwidth", "0"], MODEL, "0"),
    ],
)
def test_bad_input(words: list[str], stdin: str, why: str) -> None:
    result = said(*words, stdin=stdin)
    assert result.exception is not None and why in str(getattr(result.exception, "message", result.exception))
    assert result.stdout == ""


def test_a_session_of_a_script_has_no_curve(tmp_path: Path) -> None:
    header = {"id": "20260101-000000-abc", "plan": {"script": {"name": "s.py"}, "backend": "cpu", "seed": 1}}
    with ledger.create(tmp_path, header, []) as book:
        path = str(book.path)
    result = said(path)
    assert isinstance(result.exception, UsageProblem) and "no time of quantized_matmul" in str(
        result.exception
    )


def test_forced_arch_is_for_metal() -> None:
    result = said("--run", "0.32.4", "--experiment", "forced-arch", "--backend", "cpu")
    assert isinstance(result.exception, UsageProblem)
    assert "forced-arch needs the metal backend" in str(result.exception)


@pytest.mark.real
@LINUX
def test_measured_now_and_again_from_the_ledger(real: Tool) -> None:
    words = ["--backend", "cpu", "--shape", "128x32", "--rows", "1-4", "--rounds", "1", "--run-budget", "1s"]
    ended = real("diagnose", "--run", "0.32.4", *words)
    # A busy machine may leave it open; the curve and where it came from are there in any case.
    assert ended.code in (0, 4), ended.err
    assert "**128 → 32** – mlx 0.32.4; affine 4-bit, group 64, float16; chain, hot" in ended.out
    assert "of bandwidth" in ended.out and "bisect_tool diagnose --run 0.32.4 --backend cpu" in ended.out
    (session,) = real.sessions()
    again = real("diagnose", session.id)
    assert again.out == ended.out


@pytest.mark.real
@LINUX
def test_an_experiment(real: Tool) -> None:
    words = [
        "--backend",
        "cpu",
        "--shape",
        "128x32",
        "--rows",
        "1-4",
        "--rounds",
        "1",
        "--run-budget",
        "0.5s",
    ]
    ended = real("diagnose", "--run", "0.32.4", "--experiment", "bits", *words, "--json")
    assert ended.code in (0, 4), ended.err
    data = json.loads(ended.out)
    assert (data["experiment"], data["base"]) == ("bits", "4-bit")
    assert {label for ratios in data["ratios"].values() for label in ratios} == {"2-bit", "8-bit"}
    assert {c["case"]["bits"] for c in data["curves"]} == {2, 4, 8}
    (session,) = real.sessions()
    assert session.header["plan"]["script"]["args"][:4] == ["--shape", "128x32", "--rows", "1-4"]
