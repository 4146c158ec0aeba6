"""What is found, at which level and with which remedy; and that looking changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from recorded_machine import CLT_ONLY, MAC_PATHS, NO_METAL, NO_TOOLS, Script, mac, recorded, said

from bisect_tool.cli.doctor import command
from bisect_tool.cli.main import cli
from bisect_tool.host import linux, nvidia
from bisect_tool.host.system import Machine
from bisect_tool.measuring import doctor
from bisect_tool.measuring.doctor import Finding, examine

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load of nothing and a disk with room, whatever this machine is doing; and a uv that answers."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.2, 0.2, 0.2))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(10**12, 0, 10**12))
    for name in ("CXX", "CUDA_VISIBLE_DEVICES", "BISECT_TOOL_BUILDS"):
        monkeypatch.delenv(name, raising=False)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def on(machine: Machine, builds: Path, backend: str | None = None) -> dict[str, Finding]:
    """As ``examine`` on a recorded machine, whose runner knows the real uv too."""
    import uv

    assert isinstance(machine.run, Script)
    machine.run.answers[f"{uv.find_uv_bin()} --version"] = said("uv 0.8.4 (e176e1714 2025-07-30)\n")
    return by_name(examine(builds, backend, machine))


def wrong(findings: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.level for name, finding in findings.items() if finding.level != "ok"}


# --- a Mac -----------------------------------------------------------------------------------------------


def test_a_mac_with_everything(tmp_path: Path) -> None:
    found = on(mac()[0], tmp_path)
    assert wrong(found) == {}
    assert found["uv"].found == "0.8.4 (e176e1714 2025-07-30)"
    assert found["power"].found == "mains"
    assert found["thermal pressure"].found == "nominal"
    assert found["sandbox"].found == "sandbox-exec"
    assert "nvcc" not in found
    assert not {"cmake", "ninja"} & found.keys()  # a build gets its own
    assert "BLAS" not in found  # that is Accelerate, which is always there
    assert "GPU clients" not in found  # macOS does not tell: no word is better than "none"
    assert not any(finding.remedy for finding in found.values())


def test_a_mac_with_command_line_tools_only(tmp_path: Path) -> None:
    found = on(mac(CLT_ONLY)[0], tmp_path)
    assert wrong(found) == {"Xcode": "advice", "Metal toolchain": "advice"}
    assert "xcode-select -s" in found["Xcode"].remedy


def test_a_mac_without_the_metal_toolchain(tmp_path: Path) -> None:
    found = on(mac(NO_METAL)[0], tmp_path, "metal")
    assert wrong(found) == {"Metal toolchain": "advice"}
    assert found["Metal toolchain"].remedy == "xcodebuild -downloadComponent MetalToolchain"
    assert wrong(on(mac(NO_METAL)[0], tmp_path, "cpu")) == {}


def test_a_bare_mac_can_still_measure_releases(tmp_path: Path) -> None:
    found = on(mac(NO_TOOLS, paths={"git": MAC_PATHS["git"], "c++": MAC_PATHS["c++"]})[0], tmp_path)
    expected = ["git", "ccache", "compiler", "Xcode", "Metal toolchain"]
    assert wrong(found) == dict.fromkeys(expected, "advice")
    assert found["ccache"].remedy == "brew install ccache"
    assert found["compiler"].remedy == "xcode-select --install"


def test_a_mac_in_a_bad_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0 * (os.cpu_count() or 1), 0, 0))
    state = {
        "/usr/bin/pmset -g": said(recorded("macos/pmset_g_low.txt")),
        "/usr/bin/pmset -g batt": said(recorded("macos/pmset_batt_battery.txt")),
    }
    found = on(mac(state, thermal=2)[0], tmp_path)
    assert set(wrong(found)) == {"load", "power", "low-power mode", "thermal pressure"}
    assert found["low-power mode"].remedy == "sudo pmset -a lowpowermode 0"
    assert found["thermal pressure"].found == "thermal pressure heavy"


# --- Linux with an NVIDIA GPU ----------------------------------------------------------------------------

C_PLUS_PLUS = {"c++": "/usr/bin/c++"}.get
SMI = "/usr/bin/nvidia-smi -i 0"
H200 = {
    f"{SMI} --query-gpu=name,driver_version,memory.total": said(recorded("nvidia/facts_h200.txt")),
    "/usr/bin/nvidia-smi --version": said(recorded("nvidia/version.txt")),
    f"{SMI} --query-gpu={','.join(nvidia.FIELD_SETS[0])}": said(recorded("nvidia/state_idle.txt")),
    f"{SMI} --query-compute-apps=pid,process_name,used_memory": said(recorded("nvidia/clients_none.txt")),
}


def gpu_box(root: Path, changes: dict[str, Any] | None = None, plugged: bool = True) -> linux.Linux:
    if plugged:
        device = root / "sys/bus/pci/devices/0000:01:00.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text("0x030200\n")
    script = Script({**H200, **(changes or {})})
    return linux.Linux(script, {"nvidia-smi": "/usr/bin/nvidia-smi"}.get, root)


def test_an_h200_without_a_toolkit(tmp_path: Path) -> None:
    found = on(gpu_box(tmp_path / "root"), tmp_path)
    assert found["GPU"].found == "NVIDIA H200, driver 580.159.04, CUDA 13.0"
    assert found["nvcc"].level == "advice"
    assert "cuda-toolkit-13-0" in found["nvcc"].remedy
    assert found["GPU clients"].found == "none"
    assert found["GPU clocks"].found == "345 MHz, 34 °C"
    assert "nvcc" not in on(gpu_box(tmp_path / "other"), tmp_path, "cpu")


def test_an_h200_that_others_use_and_that_is_hot(tmp_path: Path) -> None:
    box = gpu_box(
        tmp_path / "root",
        {
            f"{SMI} --query-gpu={','.join(nvidia.FIELD_SETS[0])}": said(recorded("nvidia/state_hot.txt")),
            f"{SMI} --query-compute-apps=pid,process_name,used_memory": said(
                recorded("nvidia/clients_foreign.txt")
            ),
        },
    )
    found = on(box, tmp_path, "cuda13")
    assert found["GPU clients"].level == "advice"
    assert "tritonserver (44378, 1836 MiB)" in found["GPU clients"].found
    assert found["GPU clocks"].found == "GPU slowed by sw_thermal_slowdown"


@pytest.mark.parametrize(
    ("plugged", "backend", "level"),
    [
        (True, None, "advice"),
        (True, "cuda12", "problem"),
        (True, "cpu", None),
        (False, "cuda12", "problem"),
        (False, "metal", "problem"),
        (False, None, None),
    ],
)
def test_no_driver_or_no_gpu(tmp_path: Path, plugged: bool, backend: str | None, level: str | None) -> None:
    dead = dict.fromkeys(H200, said("NVIDIA-SMI has failed\n", "", 9))
    found = on(gpu_box(tmp_path / "root", dead, plugged), tmp_path, backend)
    assert (found["GPU"].level if "GPU" in found else None) == level
    assert "GPU" not in found or found["GPU"].remedy


def test_governors(tmp_path: Path) -> None:
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_governor").write_text("powersave\n")
    (folder / "scaling_driver").write_text("acpi-cpufreq\n")
    machine = linux.Linux(Script({}), lambda _tool: None, tmp_path)
    assert on(machine, tmp_path)["CPU governor"].level == "advice"
    (folder / "scaling_driver").write_text("amd-pstate-epp\n")
    assert on(machine, tmp_path)["CPU governor"].level == "ok"


def test_blas_on_linux(tmp_path: Path) -> None:
    bare = linux.Linux(Script({"/usr/bin/c++": said("", "cblas.h: No such file", 1)}), C_PLUS_PLUS, tmp_path)
    finding = on(bare, tmp_path)["BLAS"]
    assert (finding.level, finding.found) == ("advice", "cblas.h and lapacke.h not found; CPU builds need it")
    assert finding.remedy == "sudo apt install libopenblas-dev liblapacke-dev"
    there = Script({"/usr/bin/c++": said("/usr/lib/libopenblas.so\n")})
    finding = on(linux.Linux(there, C_PLUS_PLUS, tmp_path), tmp_path)["BLAS"]
    assert (finding.level, finding.found) == ("ok", "libopenblas.so")


def test_walls_on_linux(tmp_path: Path) -> None:
    missing = on(linux.Linux(Script({}), lambda _tool: None, tmp_path), tmp_path)["sandbox"]
    assert missing.level == "advice" and missing.remedy == "sudo apt install bubblewrap"
    assert missing.found == "bubblewrap not found; builds run with all your rights without"
    bwrap = {"/usr/bin/bwrap": said(), "/usr/bin/bwrap --version": said("bubblewrap 0.8.0\n")}
    machine = linux.Linux(Script(bwrap), {"bwrap": "/usr/bin/bwrap"}.get, tmp_path)
    assert on(machine, tmp_path)["sandbox"] == Finding("sandbox", "ok", "bubblewrap 0.8.0")


# --- what a release needs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "level"), [(1.9e9, "problem"), (2.1e9, "advice"), (19e9, "advice"), (21e9, "ok")]
)
def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, level: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(10**12, 0, int(free)))
    finding = on(mac()[0], tmp_path)["disk"]
    assert finding.level == level
    assert f"{free / 1e9:.1f} GB" in finding.found
    assert (level == "ok") == (finding.remedy == "")


def test_no_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import uv

    def nothing() -> str:
        raise FileNotFoundError("no uv")

    monkeypatch.setattr(uv, "find_uv_bin", nothing)
    finding = by_name(examine(tmp_path, None, mac()[0]))["uv"]
    assert (finding.level, "-m pip install" in finding.remedy) == ("problem", True)


def test_a_uv_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import uv

    monkeypatch.setattr(uv, "find_uv_bin", lambda: "/broken/uv")
    assert by_name(examine(tmp_path, None, mac()[0]))["uv"].found == "/broken/uv does not start"


def test_a_file_where_the_builds_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(0o755)  # "may write and enter" is true of it
    for builds in (tmp_path / "file", tmp_path / "file" / "builds"):
        finding = on(mac()[0], builds)["builds folder"]
        assert (finding.level, "BISECT_TOOL_BUILDS" in finding.remedy) == ("problem", True)
        assert finding.found.endswith("file is not a folder")


def test_a_builds_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    me = os.geteuid()
    # Not in tmp_path: pytest closes its own folders to others, and "others" is who this has to be tried as.
    with tempfile.TemporaryDirectory() as name:
        shut = Path(name)
        shut.chmod(0o555)
        if me == 0:
            os.seteuid(65534)  # root may write everywhere
        try:
            here, below = doctor._writable(shut), doctor._writable(shut / "new" / "deeper")
        finally:
            os.seteuid(me)
        shut.chmod(0o755)
    assert here.level == below.level == "problem"
    assert str(shut) in here.found
    assert doctor._writable(tmp_path / "other").level == "ok"


# --- what is there already -------------------------------------------------------------------------------


def test_what_is_kept_and_the_configuration_that_was_read(tmp_path: Path) -> None:
    builds, machine = tmp_path / "builds", mac()[0]
    assert not {"upstream", "store", "configuration"} & on(machine, builds).keys()
    for name in ("mlx-1a2b.git", "fork-3c4d.git", ".half-made.git"):
        (builds / "upstream" / name).mkdir(parents=True)
    for name in ("aa", "bb", ".cc.tmp"):
        (builds / "wheels" / name).mkdir(parents=True)
        (builds / "wheels" / name / "build.json").touch()
    (builds / "wheels" / "dd").mkdir()
    found = by_name(examine(builds, None, machine, tmp_path / "bisect_tool.toml"))
    assert found["upstream"] == Finding("upstream", "ok", "cloned: fork-3c4d, mlx-1a2b")
    assert found["store"].found == "2 builds; see `bisect_tool cache list`"
    assert found["configuration"] == Finding("configuration", "ok", str(tmp_path / "bisect_tool.toml"))
    shutil.rmtree(builds / "wheels" / "bb")
    assert on(machine, builds)["store"].found.startswith("1 build;")


# --- this machine, through the command -------------------------------------------------------------------


def call(*args: str, **kwargs: Any) -> Result:
    return CliRunner().invoke(command, args, catch_exceptions=False, **kwargs)


def test_plain_output_of_this_machine(tmp_path: Path) -> None:
    result = call("--builds", str(tmp_path))
    *lines, summary = result.stdout.splitlines()
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    levels = [line.split()[0] for line in lines]
    assert summary == f"{levels.count('ok')} ok, {levels.count('advice')} advice, 0 problems"
    uv_line = next(line for line in lines if line[9:].startswith("uv "))
    folder_line = next(line for line in lines if line[9:].startswith("builds folder"))
    assert uv_line.index("0.") == folder_line.index(str(tmp_path))  # aligned


def test_json_output_of_this_machine(tmp_path: Path) -> None:
    data = json.loads(call("--json", "--builds", str(tmp_path)).stdout)
    assert data["schema"] == 1
    assert set(data) == {"schema", "findings", "facts"}
    assert all(set(finding) == {"name", "level", "found", "remedy"} for finding in data["findings"])
    assert data["facts"]["cores"] == os.cpu_count()
    assert all(bool(finding["remedy"]) == (finding["level"] != "ok") for finding in data["findings"])


def test_an_empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a release needs is looked up on PATH: still no problem, and every remedy is there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    result = call("--json", "--builds", str(tmp_path))
    found = {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 0
    names = ["git", "ccache", "compiler", *(["BLAS", "sandbox"] if sys.platform == "linux" else [])]
    for name in names:
        assert found[name]["level"] == "advice"
        assert found[name]["found"].startswith(
            (
                "not found; ",
                "no C++ compiler found; ",
                "no compiler to look for it with; ",
                "bubblewrap not found; ",
            )
        )
        assert "install" in found[name]["remedy"]
    assert found["uv"]["level"] == "ok"


def test_a_problem_ends_with_1_and_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("--builds", str(tmp_path / "file"))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].endswith(", 1 problem")
    line = next(line for line in result.stdout.splitlines() if "builds folder" in line)
    assert line.startswith("problem  builds folder")
    assert call("--json", "--builds", str(tmp_path / "file")).exit_code == 1


def test_the_folder_comes_from_the_environment_and_from_the_configuration(tmp_path: Path) -> None:
    builds = tmp_path / "from-environment"
    assert f"{builds} (new)" in call(env={"BISECT_TOOL_BUILDS": str(builds)}).stdout
    config = tmp_path / "other.toml"
    config.write_text('builds = "from-file"\n')
    env = {"BISECT_TOOL_CONFIG": str(config)}
    result = CliRunner().invoke(cli, ["doctor", "--json"], env=env, catch_exceptions=False)
    found = {finding["name"]: finding["found"] for finding in json.loads(result.stdout)["findings"]}
    assert found["builds folder"] == f"{tmp_path / 'from-file'} (new)"
    assert found["configuration"] == str(config)
    result = CliRunner().invoke(cli, ["doctor", "--builds", str(builds)], env=env, catch_exceptions=False)
    assert f"{builds} (new)" in result.stdout, "what is typed wins"


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from bisect_tool.cli import doctor as cli

    finding = Finding("git", "advice", "not found", "apt install git")
    assert cli._lines([finding], True)[0] == "\x1b[33madvice  \x1b[0m git  not found: apt install git"
    assert cli._lines([finding], False)[0] == "advice   git  not found: apt install git"
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert cli._colour()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not cli._colour()


def listing(folder: Path) -> dict[str, float]:
    return {str(path): path.lstat().st_mtime for path in [folder, *folder.rglob("*")]}


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "builds").mkdir()
    before = listing(tmp_path)
    assert call("--builds", "builds").exit_code == 0
    assert call("--builds", "builds/not/there", "--json").exit_code == 0
    assert listing(tmp_path) == before


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from bisect_tool.cli.doctor import command\n"
        "try:\n    command(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'psutil', 'rich', 'uv', 'pandas', 'numpy', 'git', 'bisect_tool.measuring.doctor'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
