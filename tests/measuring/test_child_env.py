"""Nothing of ours that is not on the list reaches a repro, and no secret reaches the record."""

from __future__ import annotations

from pathlib import Path

import pytest

from bisect_tool.errors import UsageProblem
from bisect_tool.measuring.child_env import child_environment, parse_env_options, recorded, without_values

HOME = Path("/private/home")
OURS = {"HOME": "/private/home", "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1"}
SECRET = [
    "GITHUB_TOKEN", "GH_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "OPENAI_API_KEY",
    "SSH_AUTH_SOCK", "SSH_AGENT_PID", "GPG_AGENT_INFO", "DBUS_SESSION_BUS_ADDRESS", "KUBECONFIG", "NETRC",
    "HTTPS_PROXY", "https_proxy", "UV_INDEX_URL", "PIP_INDEX_URL", "DOCKER_HOST", "USER", "LOGNAME", "MAIL",
    "MLX_API_TOKEN", "MLX_HUB_KEY", "MLX_PASSWORD", "METAL_SECRET", "MTL_AUTH",
]  # fmt: skip
HARMFUL = [
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH",
    "DYLD_INSERT_LIBRARIES", "VIRTUAL_ENV", "CONDA_PREFIX",
]  # fmt: skip
PASSED = [
    "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "DEVELOPER_DIR", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
    "MLX_METAL_GPU_ARCH", "MLX_MAX_OPS_PER_BUFFER", "MTL_CAPTURE_ENABLED", "METAL_DEVICE_WRAPPER_TYPE",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET + HARMFUL)
def test_withheld(name: str) -> None:
    assert child_environment(HOME, source={name: "x", name.lower() + "_": "y"}) == OURS


@pytest.mark.parametrize("name", PASSED)
def test_passed(name: str) -> None:
    assert child_environment(HOME, source={name: "x"}) == {**OURS, name: "x"}


@pytest.mark.parametrize("name", ["PATH2", "XPATH", "MLX_lower", "CUDA_EVIL", "PATH\n"])
def test_names_match_whole(name: str) -> None:
    assert child_environment(HOME, source={name: "x"}) == OURS


def test_home_is_private_unless_asked_for() -> None:
    source = {"HOME": "/root", "PYTHONNOUSERSITE": ""}
    assert child_environment(HOME, source=source) == OURS
    assert child_environment(HOME, [("HOME", "/root")], source=source)["HOME"] == "/root"


def test_ours_is_the_source_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "s3cret")
    monkeypatch.setenv("MLX_A", "1")
    made = child_environment(HOME)
    assert made["MLX_A"] == "1" and "s3cret" not in made.values()


def test_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    monkeypatch.delenv("MISSING", raising=False)
    assert parse_env_options(["HF_TOKEN", "A=", "B=x=y", "_c1= z "]) == [
        ("HF_TOKEN", "s3cret"), ("A", ""), ("B", "x=y"), ("_c1", " z "),
    ]  # fmt: skip
    with pytest.raises(UsageProblem, match="--env MISSING: no such variable here; set it, or give"):
        parse_env_options(["MISSING"])


@pytest.mark.parametrize("option", ["", "=x", "1A=x", "A B=x", "A-B", "A\n=x", "Ä=x"])
def test_options_that_name_nothing(option: str) -> None:
    with pytest.raises(UsageProblem, match="names no variable; give NAME or NAME=VALUE"):
        parse_env_options([option])


def test_recorded_is_what_can_change_a_result() -> None:
    told = dict.fromkeys(SECRET + HARMFUL + ["HOME", "PATH", "CUDA_HOME", "TMPDIR"], "x")
    switches = {"MLX_METAL_GPU_ARCH": "a", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0"}
    assert recorded({**told, **switches}) == switches


def test_command_line_without_values_that_may_be_secrets() -> None:
    typed = [
        "repro",
        "0.32.4",
        "--env",
        "HF_TOKEN=s3cret",
        "--env=A=s3cret",
        "--env",
        "MLX_X=1",
        "--env",
        "B",
    ]
    assert without_values(typed) == [
        "repro", "0.32.4", "--env", "HF_TOKEN", "--env=A", "--env", "MLX_X=1", "--env", "B",
    ]  # fmt: skip
