"""Facts and state: parsers on recorded text, both systems on recorded machines, and this machine itself."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import pytest
from recorded_machine import CLT_ONLY, NO_METAL, NO_TOOLS, Script, mac, names, recorded, said

from bisect_tool.host import (
    GpuClient,
    HostFacts,
    HostState,
    facts,
    linux,
    macos,
    nvidia,
    state,
    toolchain,
)
from bisect_tool.host.system import Power, current

SMI = "/usr/bin/nvidia-smi -i 0"


# --- macOS -----------------------------------------------------------------------------------------------


def test_a_mac_tells_its_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    machine, _ = mac()
    found = facts(machine)
    assert found.chip == "Apple M4 Pro"
    assert found.gpu == "Apple M4 Pro, 20 cores"
    assert found.os == "macOS 15.6 (24G84)"
    assert found.model == "Mac16,8"
    assert found.memory_bytes == 48 * 1024**3
    assert (found.gpu_driver, found.cuda) == (None, None)
    assert found.toolchain == {
        "git": "2.50.1",
        "ccache": "ccache 4.12",
        "compiler": "Apple clang version 17.0.0 (clang-1700.0.13.5)",
        "Xcode": "26.2 (17C52)",
        "Metal toolchain": "Apple metal version 32023.850 (metalfe-32023.850)",
    }


def test_a_mac_that_answers_nothing_is_no_error() -> None:
    machine = macos.MacOS(lambda _argv: None, lambda _tool: None, lambda _name: None)
    assert facts(machine).chip == "unknown"
    assert facts(machine).toolchain == {}
    now = state(machine=machine)
    assert (now.power_source, now.low_power_mode, now.thermal_pressure) == (None, None, None)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("pmset_batt_ac.txt", "ac"),
        ("pmset_batt_battery.txt", "battery"),
        ("pmset_batt_desktop.txt", "ac"),
        ("pmset_batt_ups.txt", "battery"),
        ("sw_vers.txt", None),
    ],
)
def test_power_source(file: str, source: str | None) -> None:
    assert macos.parse_power_source(recorded(f"macos/{file}")) == source


@pytest.mark.parametrize(
    ("file", "low"),
    [
        ("pmset_g.txt", False),
        ("pmset_g_low.txt", True),
        ("pmset_g_high.txt", False),
        ("pmset_g_m1_low.txt", True),
        ("pmset_g_desktop.txt", None),
    ],
)
def test_low_power_mode(file: str, low: bool | None) -> None:
    assert macos.parse_low_power(recorded(f"macos/{file}")) is low


def test_a_macs_state() -> None:
    machine, script = mac(
        {"/usr/bin/pmset -g batt": said(recorded("macos/pmset_batt_battery.txt"))}, thermal=1
    )
    now = state(machine=machine)
    assert (now.power_source, now.low_power_mode, now.thermal_pressure) == ("battery", False, "moderate")
    assert now.gpu_clients is None  # not "none": macOS does not tell
    assert sorted(script.asked) == ["/usr/bin/pmset -g", "/usr/bin/pmset -g batt"]  # and no slower command


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (0, "nominal"),
        (1, "moderate"),
        (2, "heavy"),
        (3, "trapping"),
        (4, "sleeping"),
        (5, None),
        (None, None),
    ],
)
def test_thermal_levels(level: int | None, name: str | None) -> None:
    assert macos.thermal_level(level) == name


STUB = """
#include <stdint.h>
#include <string.h>
static int cancelled = 0;
uint32_t notify_register_check(const char *name, int *token) {
  if (strcmp(name, "com.apple.system.thermalpressurelevel") != 0) return 1;
  *token = 77;
  return 0;
}
uint32_t notify_get_state(int token, uint64_t *state) {
  if (token != 77) return 2;
  *state = cancelled ? 999 : 0x100000002ULL;
  return 0;
}
uint32_t notify_cancel(int token) { cancelled = token == 77; return 0; }
"""


def test_the_notification_is_read_through_a_library_of_its_shape(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make a stand-in for libSystem")
    source, library = tmp_path / "notify.c", tmp_path / "libnotify.so"
    source.write_text(STUB)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    assert macos.notification_state("com.apple.other", str(library)) is None
    # More than 32 bits, so that a wrong type of the second argument shows.
    assert macos.notification_state(macos.THERMAL_NOTIFICATION, str(library)) == 0x100000002
    assert (
        macos.notification_state(macos.THERMAL_NOTIFICATION, str(library)) == 999
    )  # the token was given back


def test_without_the_library_there_is_no_thermal_pressure(tmp_path: Path) -> None:
    assert macos.notification_state(macos.THERMAL_NOTIFICATION, str(tmp_path / "none.dylib")) is None
    if platform.system() == "Linux":  # a library without those functions
        assert macos.notification_state(macos.THERMAL_NOTIFICATION, "libc.so.6") is None


def test_command_line_tools_alone_are_not_xcode() -> None:
    machine, _ = mac(CLT_ONLY)
    found = {tool.name: tool for tool in machine.own_toolchain()}
    assert names(machine.own_toolchain()) == {"Xcode": None, "Metal toolchain": None}
    assert "only the command line tools" in found["Xcode"].why
    assert "macappstore://" in found["Xcode"].remedy


def test_xcode_that_is_there_but_not_selected(tmp_path: Path) -> None:
    machine, _ = mac(CLT_ONLY, xcode_app=tmp_path)
    assert machine.own_toolchain()[0].remedy == macos.SELECT_XCODE


def test_xcode_without_its_licence() -> None:
    stderr = recorded("macos/xcodebuild_license.stderr.txt")
    machine, _ = mac({"/usr/bin/xcodebuild -version": said("", stderr, 69)})
    assert machine.own_toolchain()[0].remedy == "sudo xcodebuild -license accept"


def test_metal_toolchain_missing_since_xcode_26() -> None:
    machine, script = mac(NO_METAL)
    xcode, metal = machine.own_toolchain()
    assert xcode.version == "26.2 (17C52)"
    assert (metal.version, metal.remedy) == (None, "xcodebuild -downloadComponent MetalToolchain")
    assert not any("--find" in line for line in script.asked)  # it finds a stub


def test_no_stub_is_started_without_developer_tools() -> None:
    """/usr/bin/git and its like would open a dialog on the user's screen."""
    machine, script = mac(NO_TOOLS)
    found = names(toolchain.tools(machine, None))
    assert found["git"] is found["compiler"] is found["Xcode"] is found["Metal toolchain"] is None
    assert found["ccache"] == "ccache 4.12"
    assert not [
        line for line in script.asked if line.startswith(("/usr/bin/git", "/usr/bin/c++", "/usr/bin/xcrun"))
    ]


# --- Linux -----------------------------------------------------------------------------------------------


def linux_at(root: Path, files: dict[str, str], script: Script | None = None) -> linux.Linux:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return linux.Linux(script or Script({}), lambda tool: f"/usr/bin/{tool}", root)


def supply(name: str, **values: str) -> dict[str, str]:
    return {f"sys/class/power_supply/{name}/{key}": f"{value}\n" for key, value in values.items()}


BATTERY = supply("BAT0", type="Battery", status="Discharging", present="1")
FULL = supply("BAT0", type="Battery", status="Full", present="1")


@pytest.mark.parametrize(
    ("files", "source"),
    [
        ({}, None),
        (supply("AC", type="Mains", online="1") | FULL, "ac"),
        (supply("AC", type="Mains", online="0") | BATTERY, "battery"),
        (BATTERY, "battery"),
        (supply("ucsi1", type="USB", online="1") | FULL, "ac"),
        (supply("ucsi1", type="USB", online="0") | supply("AC", type="Mains", online="1"), "ac"),
        (supply("hidpp", type="Battery", scope="Device", status="Discharging"), None),
    ],
)
def test_linux_power_source(tmp_path: Path, files: dict[str, str], source: str | None) -> None:
    assert linux_at(tmp_path, files).power() == Power(source, None)  # type: ignore[arg-type]


def test_linux_facts_and_state_from_files(tmp_path: Path) -> None:
    machine = linux_at(
        tmp_path,
        {
            "etc/os-release": recorded("linux/os_release_debian12.txt"),
            "proc/cpuinfo": recorded("linux/cpuinfo_xeon.txt"),
            "proc/meminfo": recorded("linux/meminfo.txt"),
            "sys/class/dmi/id/product_name": "ThinkStation P620\n",
            "sys/firmware/acpi/platform_profile": "low-power\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "intel_pstate\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_total_time_ms": "12\n",
            "sys/devices/system/cpu/cpu11/thermal_throttle/package_throttle_total_time_ms": "340\n",
            "sys/devices/system/cpu/cpufreq/boost": "1\n",
        },
    )
    found, now = facts(machine), state(machine=machine)
    assert found.os.startswith("Debian GNU/Linux 12 (bookworm), Linux ")
    assert found.chip == "Intel(R) Xeon(R) Processor"
    assert found.model == "ThinkStation P620"
    assert found.memory_bytes == 24684096 * 1024
    assert now.low_power_mode is True
    assert now.cpu_governor == "powersave (intel_pstate)"
    assert now.cpu_throttle_ms == 340


def test_arm_names_come_from_lscpu(tmp_path: Path) -> None:
    script = Script({"lscpu": said(recorded("linux/lscpu_arm.txt"))})
    machine = linux_at(tmp_path, {"proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd85\n"}, script)
    assert machine.chip() == "Cortex-X925 + Cortex-A725"


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ("ID=ubuntu\nID_LIKE=debian\n", "sudo apt install libopenblas-dev liblapacke-dev"),
        ("ID=fedora\n", "sudo dnf install openblas-devel lapack-devel"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "sudo dnf install openblas-devel lapack-devel"),
        ("ID=arch\n", "sudo pacman -S openblas lapacke"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "sudo zypper install openblas-devel lapacke-devel"),
        ("", "sudo apt install libopenblas-dev liblapacke-dev"),
    ],
)
def test_each_distribution_has_its_own_remedy(tmp_path: Path, release: str, command: str) -> None:
    machine = linux_at(tmp_path, {"etc/os-release": release})
    assert machine.install("libopenblas-dev liblapacke-dev") == command
    assert (
        toolchain.blas(linux_at(tmp_path, {}, Script({"/usr/bin/c++": said("", "no", 1)})), {}).remedy
        == command
    )
    assert machine.install("git").endswith(" git"), "a name that is the same everywhere"


def test_nvidia_hardware_is_a_display_not_a_network_card(tmp_path: Path) -> None:
    device = "sys/bus/pci/devices/0000:01:00.0"
    card = {f"{device}/vendor": "0x10de\n", f"{device}/class": "0x030200\n"}
    assert linux_at(tmp_path / "a", card).has_nvidia_hardware()
    assert not linux_at(tmp_path / "b", card | {f"{device}/class": "0x020000\n"}).has_nvidia_hardware()
    assert not linux_at(tmp_path / "c", card | {f"{device}/vendor": "0x8086\n"}).has_nvidia_hardware()


@pytest.mark.parametrize(
    ("files", "remedy"),
    [
        (
            {"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
            "apparmor_restrict_unprivileged_userns=0",
        ),
        ({"proc/sys/kernel/unprivileged_userns_clone": "0\n"}, "unprivileged_userns_clone=1"),
        ({}, "user namespaces"),
    ],
)
def test_a_sandbox_that_is_refused(tmp_path: Path, files: dict[str, str], remedy: str) -> None:
    refused = said("", recorded("linux/bwrap_refused.stderr.txt"), 1)
    tool = linux_at(tmp_path, files, Script({"/usr/bin/bwrap": refused})).sandbox()
    assert (tool.version, tool.why) == (None, "bwrap: setting up uid map: Permission denied")
    assert remedy in tool.remedy


def test_a_sandbox_that_works(tmp_path: Path) -> None:
    script = Script(
        {"/usr/bin/bwrap --ro-bind": said(), "/usr/bin/bwrap --version": said("bubblewrap 0.8.0\n")}
    )
    tool, options = linux_at(tmp_path, {}, script).bubblewrap()
    assert (tool.version, options) == ("bubblewrap 0.8.0", (*linux.BUBBLEWRAP, *linux.BUBBLEWRAP_WAYS[0]))


@pytest.mark.parametrize("works", range(len(linux.BUBBLEWRAP_WAYS)))
def test_a_sandbox_takes_the_first_way_to_proc_that_works(tmp_path: Path, works: int) -> None:
    starts = [
        " ".join(["/usr/bin/bwrap --ro-bind / /", *linux.BUBBLEWRAP, *way, "true"])
        for way in linux.BUBBLEWRAP_WAYS
    ]
    answers = {start: said("", "bwrap: Can't mount proc", 1) for start in starts[:works]}
    answers |= {start: said() for start in starts[works:]}
    script = Script({**answers, "/usr/bin/bwrap --version": said("bubblewrap 0.4.0\n")})
    tool, options = linux_at(tmp_path, {}, script).bubblewrap()
    assert tool.version == "bubblewrap 0.4.0"
    assert options == (*linux.BUBBLEWRAP, *linux.BUBBLEWRAP_WAYS[works])
    assert [line for line in script.asked if line in starts] == starts[: works + 1]


# --- the programs a build needs --------------------------------------------------------------------------


def test_cmake_and_ninja_are_none_of_them(tmp_path: Path) -> None:
    """A build gets those that its commit asks for from the package index."""
    script = Script({})
    found = names(toolchain.tools(linux_at(tmp_path, {}, script), None))
    assert found.keys() == {"git", "ccache", "compiler", "BLAS"}
    assert not [line for line in script.asked if "cmake" in line or "ninja" in line]


def blas_answers(openblas: str, plain: str, headers: bool = True, compiler: str = "c++") -> Script:
    """A compiler that finds these libraries: it repeats the name of one that it does not find."""
    path = f"/usr/bin/{compiler}"
    check = {f"{path} {' '.join(toolchain.BLAS_CHECK)}": said("", "", 0 if headers else 1)}
    libraries = {"libopenblas.so": openblas, "libblas.so": plain}
    asked = {f"{path} -print-file-name={name}": said(f"{at or name}\n") for name, at in libraries.items()}
    return Script({**check, **asked})


def test_blas_by_what_the_linker_finds(tmp_path: Path) -> None:
    """The file behind the links that a distribution's alternatives are: that is what is measured."""
    library = tmp_path / "lib" / "openblas-pthread" / "libopenblas-r0.3.21.so"
    library.parent.mkdir(parents=True)
    library.touch()
    link = tmp_path / "lib" / "libopenblas.so"
    link.symlink_to(library)
    script = blas_answers(str(link), "/usr/lib/libblas.so.3")
    assert toolchain.blas(linux_at(tmp_path, {}, script), {}).version == "libopenblas-r0.3.21.so"
    script = blas_answers("", "/usr/lib/libblas.so.3")
    assert toolchain.blas(linux_at(tmp_path, {}, script), {}).version == "libblas.so.3"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (blas_answers("", ""), "libblas.so not found"),
        (blas_answers("/usr/lib/libopenblas.so", "", headers=False), "cblas.h and lapacke.h not found"),
    ],
)
def test_no_blas_to_build_with(tmp_path: Path, script: Script, why: str) -> None:
    tool = toolchain.blas(linux_at(tmp_path, {}, script), {})
    assert (tool.version, tool.why) == (None, why)
    assert tool.remedy == "sudo apt install libopenblas-dev liblapacke-dev"


def test_blas_is_looked_for_with_the_compiler_that_builds(tmp_path: Path) -> None:
    machine = linux_at(tmp_path, {}, blas_answers("/lib/libopenblas.so", "", compiler="my++"))
    assert toolchain.blas(machine, {"CXX": "my++ -stdlib=x"}).version == "libopenblas.so"
    assert toolchain.blas(machine, {}).version is None
    script = blas_answers("/lib/libopenblas.so", "", compiler="g++")
    only = linux.Linux(script, {"g++": "/usr/bin/g++"}.get, tmp_path)
    assert toolchain.blas(only, {"CXX": " "}).version == "libopenblas.so", "as CMake, when c++ is not there"
    bare = linux.Linux(Script({}), lambda _tool: None, tmp_path)
    tool = toolchain.blas(bare, {})
    assert (tool.version, tool.why) == (None, "no compiler to look for it with")
    assert tool.remedy == "sudo apt install g++"


def test_blas_of_this_machine() -> None:
    here = current()
    if not isinstance(here, linux.Linux) or shutil.which("c++") is None:
        pytest.skip("Linux with a compiler")
    tool = toolchain.blas(here)
    assert (tool.version is None) == bool(tool.remedy)
    if Path("/usr/include/lapacke.h").exists():
        assert tool.version is not None and tool.version.startswith(("libopenblas", "libblas"))


def test_compiler_without_cpp20(tmp_path: Path) -> None:
    script = Script({"/usr/bin/c++ --version": said("g++ (GCC) 8.5.0\n"), "/usr/bin/c++": said("", "no", 1)})
    tool = toolchain.compiler(linux_at(tmp_path, {}, script), {})
    assert (tool.version, tool.why) == (None, "g++ (GCC) 8.5.0 does no C++20")


def test_cxx_decides_which_compiler(tmp_path: Path) -> None:
    machine = linux_at(
        tmp_path, {}, Script({"/usr/bin/c++": said("g++ 12.2.0\n"), "/usr/bin/my++": said("my 1.0\n")})
    )
    assert toolchain.compiler(machine, {"CXX": "my++ -stdlib=x"}).version == "my 1.0"
    assert toolchain.compiler(machine, {"CXX": "gone++"}).why == "CXX=gone++ not found"


def test_nvcc_version(tmp_path: Path) -> None:
    machine = linux_at(
        tmp_path, {}, Script({"/usr/bin/nvcc --version": said(recorded("linux/nvcc_version.txt"))})
    )
    assert nvidia.nvcc(machine, "13.0").version == "13.0.88"
    absent = nvidia.nvcc(linux.Linux(Script({}), lambda _tool: None, tmp_path), "13.0")
    assert (absent.version, "cuda-toolkit-13-0" in absent.remedy) == (None, True)


# --- NVIDIA ----------------------------------------------------------------------------------------------


def test_nvidia_facts() -> None:
    found = nvidia.parse_facts(recorded("nvidia/facts_h200.txt"))
    assert found == nvidia.GpuFacts("NVIDIA H200", "580.159.04", 143771 * 1024 * 1024)
    assert nvidia.parse_facts(recorded("nvidia/facts_gb10.txt")) == nvidia.GpuFacts(
        "NVIDIA GB10", "580.142", None
    )
    for text in ("", "No devices were found\n", "NVIDIA-SMI has failed, because it couldn't, talk, to it\n"):
        assert nvidia.parse_facts(text) is None


def test_cuda_version_under_both_names() -> None:
    assert nvidia.parse_cuda_version(recorded("nvidia/version.txt")) == "13.0"
    assert nvidia.parse_cuda_version(recorded("nvidia/banner_umd.txt")) == "13.3"


def test_nvidia_state() -> None:
    idle = nvidia.parse_state(recorded("nvidia/state_idle.txt"), nvidia.FIELD_SETS[0])
    assert idle is not None
    assert (idle.clocks_mhz, idle.temperature_c, idle.reasons) == ({"sm": 345, "memory": 3201}, 34, ())
    hot = nvidia.parse_state(recorded("nvidia/state_hot.txt"), nvidia.FIELD_SETS[0])
    assert hot is not None
    assert hot.reasons == ("sw_thermal_slowdown",)
    assert hot.throttle_us is not None
    assert hot.throttle_us["sw_thermal_slowdown"] == 4_200_000
    untold = nvidia.parse_state(recorded("nvidia/state_untold.txt"), nvidia.FIELD_SETS[0])
    assert untold == nvidia.GpuState({}, 41, (), None)
    assert nvidia.parse_state(recorded("nvidia/unknown_counter.txt"), nvidia.FIELD_SETS[0]) is None


def test_clients_are_others_only() -> None:
    text = recorded("nvidia/clients_foreign.txt")
    assert nvidia.parse_clients(text, frozenset({52114})) == (
        GpuClient(44378, "tritonserver", 1836),
        GpuClient(52200, "/opt/My App, v2/server", None),
    )
    assert nvidia.parse_clients(recorded("nvidia/clients_none.txt")) == ()


@pytest.mark.parametrize(
    ("visible", "asked"),
    [(None, "0"), ("1,0", "1"), ("", None), ("-1", None), ("GPU-5a1c-22", "GPU-5a1c-22"), ("MIG-77", "0")],
)
def test_the_gpu_that_cuda_would_take(visible: str | None, asked: str | None) -> None:
    assert nvidia.selected({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) == asked


def test_older_drivers_are_asked_for_what_they_know(tmp_path: Path) -> None:
    queries = [f"{SMI} --query-gpu={','.join(fields)}" for fields in nvidia.FIELD_SETS]
    script = Script(
        {
            queries[0]: said(recorded("nvidia/unknown_counter.txt"), "", 2),
            queries[1]: said(recorded("nvidia/unknown_event.txt"), "", 2),
            queries[2]: said(recorded("nvidia/state_capped_no_counters.txt")),
        }
    )
    smi = nvidia.Nvidia(linux_at(tmp_path, {}, script), {})
    first = smi.state()
    assert first is not None
    assert (first.reasons, first.throttle_us) == (("sw_power_cap",), None)
    script.asked.clear()
    assert smi.state() == first
    assert len(script.asked) == 1  # learned


def test_a_machine_with_an_nvidia_gpu(tmp_path: Path) -> None:
    script = Script(
        {
            f"{SMI} --query-gpu=name,driver_version,memory.total": said(recorded("nvidia/facts_h200.txt")),
            "/usr/bin/nvidia-smi --version": said(recorded("nvidia/version.txt")),
            f"{SMI} --query-gpu={','.join(nvidia.FIELD_SETS[0])}": said(recorded("nvidia/state_hot.txt")),
            f"{SMI} --query-compute-apps=pid,process_name,used_memory": said(
                recorded("nvidia/clients_foreign.txt")
            ),
        }
    )
    machine = linux_at(tmp_path, {}, script)
    now = state(frozenset({44378, 52200}), machine, nvidia.Nvidia(machine, {}))
    assert now.gpu_clients == (GpuClient(52114, "/usr/bin/python3", 6294),)
    assert now.gpu_clocks_mhz == {"sm": 1410, "memory": 3201}
    assert now.gpu_temperature_c == 88
    found = nvidia.Nvidia(machine, {}).facts()
    assert found is not None
    assert (found.name, found.driver, found.cuda) == ("NVIDIA H200", "580.159.04", "13.0")
    assert HostState.from_dict(json.loads(json.dumps(now.as_dict()))) == now


# --- this machine ----------------------------------------------------------------------------------------


def test_facts_of_this_machine_survive_json() -> None:
    found = facts()
    assert found.cores == os.cpu_count()
    assert found.memory_bytes is not None
    assert found.memory_bytes > 2**28
    assert platform.python_version() in found.python
    assert found.chip not in ("", "unknown")
    data = json.loads(json.dumps(found.as_dict()))
    assert HostFacts.from_dict(data | {"added_later": 1}) == found


def test_state_of_this_machine_is_cheap_and_survives_json() -> None:
    first = state()
    assert first.load_1min is not None
    assert first.load_per_core == pytest.approx(first.load_1min / (os.cpu_count() or 1))
    assert abs(first.taken_at_s - time.time()) < 5
    assert HostState.from_dict(json.loads(json.dumps(first.as_dict())) | {"added_later": 1}) == first
    took = []
    for _ in range(5):
        started = time.perf_counter()
        state()
        took.append(time.perf_counter() - started)
    assert statistics.median(took) < (0.5 if shutil.which("nvidia-smi") else 0.05)


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA driver here")
def test_this_machines_nvidia_gpu_is_read() -> None:
    found, now = facts(), state()
    assert found.gpu_driver is not None
    assert found.cuda is not None
    assert now.gpu_clients is not None
    assert now.gpu_throttle_reasons is not None
    assert now.gpu_clocks_mhz
