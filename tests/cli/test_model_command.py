"""`bisect_tool model` on a real release."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cli_tool import Tool

TINY = ("--hidden", "64", "--intermediate", "128", "--heads", "2", "--kv-heads", "1", "--vocab", "64",
        "--prefill", "4", "--layers", "5", "--depths", "1,4")  # fmt: skip

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="backend cpu has wheels on Linux"),
]


@pytest.fixture
def real(wheel_builds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.setenv("UV_CACHE_DIR", str(wheel_builds / "cache" / "uv"))
    return Tool(tmp_path / "builds", tmp_path)


def test_measured_reported_and_refused(real: Tool) -> None:
    ended = real(
        "model", "0.32.4", "--backend", "cpu", *TINY, "--rows", "1-2", "--rounds", "1", "--run-budget", "0.5"
    )
    assert ended.code == 4, ended.err  # one round gives no interval
    assert "5 layers scaled from 1 and 4; affine 4-bit, group 64, float16; after a prefill of 4" in ended.out
    assert "**the bill of its linears** – mlx 0.32.4" in ended.out
    assert "bisect_tool model 0.32.4 --backend cpu --hidden 64" in ended.out
    (session,) = real.sessions()
    assert session.header["plan"]["script"]["name"] == "model_forward.py"
    assert real("report", session.id).out == ended.out
    data = json.loads(real("report", session.id, "--format", "json").out)
    assert data["models"][0]["depths"] == [1, 4] and data["models"][0]["bill"]
    refused = real("model", "0.32.4", "--backend", "cpu", "--heads", "3")
    assert refused.code == 2 and "do not divide into heads" in refused.error()
    assert "bisect_tool model --help" in refused.error()
    assert len(real.sessions()) == 1, "nothing was begun"
