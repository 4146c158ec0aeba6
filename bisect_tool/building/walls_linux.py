"""Walls on Linux: bubblewrap, with an allow-list of the system's folders.

Every namespace is the program's own: it sees no other process, no network but its own loopback, and a file
system on which everything is read-only but what it was given and a private ``/tmp``. A small shell is the
first process in there. It tells a program that failed from walls that failed, names what is left running
when the program has ended, and by its own end has the kernel kill all of that.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bisect_tool import process
from bisect_tool.building.walls import (
    Sandbox,
    Walls,
    checked,
    homes,
    links_on_the_way,
    named_folders,
    startable,
)
from bisect_tool.errors import MachineTrouble
from bisect_tool.process import Finished

# Read-only where they exist: programs, libraries, and what a package manager elsewhere has in their place.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib*", "/opt", "/nix/store", "/gnu/store", "/run/current-system",
          "/run/opengl-driver", "/sys")  # fmt: skip
# Of /etc what programs cannot start or compile without; nothing that may hold a password.
ETC = (
    "alternatives", "ca-certificates", "crypto-policies", "debian_version", "gai.conf", "group", "host.conf",
    "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "locale.alias", "lsb-release",
    "mime.types", "nsswitch.conf", "os-release", "passwd", "pki/ca-trust/extracted", "pki/tls/certs",
    "pki/tls/openssl.cnf", "protocols", "redhat-release", "services", "ssl/cert.pem", "ssl/certs",
    "ssl/openssl.cnf", "terminfo", "timezone",
)  # fmt: skip
ETC_NETWORK = ("resolv.conf",)
# NVIDIA, its Tegra boards, AMD, and Windows' own GPU under WSL. Not nv*: that begins disks as well.
GPU_DEVICES = ("nvidia*", "nvhost*", "nvmap", "nvgpu*", "nvsciipc", "dri", "kfd", "dxg")

SHELL = "/bin/sh"
TMP = Path("/tmp")
TEMPORARY = (TMP, Path("/var/tmp"))
# Read by bubblewrap itself, which runs outside: they are set inside, where they were meant.
_LOADER = re.compile(r"LD_.*|GLIBC_TUNABLES|GCONV_PATH|LOCPATH")
_REPORT_BYTES = 64 * 1024
_SIGNALS = range(1, 32)
_NAMES = 20

# Its own messages go nowhere, its report to descriptor 0; the program gets the real standard error and an
# empty standard input. What is about to end by itself (a helper that reads the end of a pipe) may.
_START = """
exec 3>&2 2>/dev/null
ulimit -c 0
command -v "$1" >/dev/null || { echo hidden >&0; exit 126; }
echo started >&0 || exit 126
(exec "$@" </dev/null 2>&3 3>&-)
code=$?
"""
_NAME_LEFTOVERS = """
for wait in 0.02 0.05 0.1 0.1 ''; do
    left=
    for folder in /proc/[0-9]*; do
        [ "$folder" = "/proc/$$" ] && continue
        name= state=
        while read -r key value rest; do
            case $key in
                Name:) name="$value $rest" ;;
                State:) state=$value; break ;;
            esac
        done <"$folder/status"
        case $state in
            '' | Z | X) ;;
            *) left="${left}left $name
" ;;
        esac
    done
    [ -z "$left" ] && break
    [ -n "$wait" ] && sleep "$wait"
done
printf %s "$left" >&0
"""


class Bubblewrap(Sandbox):
    """``options``: what every start begins with; see ``host.linux.BUBBLEWRAP``."""

    walled = True

    def __init__(self, bwrap: str, version: str, options: Sequence[str]) -> None:
        self.bwrap = bwrap
        self.name = version
        self.options = tuple(options)

    @property
    def own_proc(self) -> bool:
        """Whether a walled program sees its own processes only."""
        return "--proc" in self.options

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        walls: Walls,
        env: Mapping[str, str],
        cwd: Path | None = None,
        **how: Any,
    ) -> Finished:
        """As ``Sandbox.run``. A program that ends by a signal and one that exits with 128 and the signal's
        number cannot be told apart: both count as ended by the signal."""
        walls = checked(walls)
        folder = (cwd or walls.home).absolute()
        command = startable(argv, env, folder)
        inside = {**env, "HOME": str(walls.home), "TMPDIR": str(TMP)}
        for name in ("TMP", "TEMP"):
            inside.pop(name, None)
        options = self.options
        if walls.gpu:
            load_nvidia_modules()
            options = for_gpu(options)
        front = [self.bwrap, *options, *self._layout(walls, inside, how.get("memory_limit"))]
        for name in sorted(filter(_LOADER.fullmatch, inside)):
            front += ["--setenv", name, inside.pop(name)]
        front += ["--chdir", str(folder), "--as-pid-1", "--", SHELL, "-c", self._guard(), "walls"]
        read_fd, write_fd = os.pipe()
        try:
            done = process.run([*front, *command], env=inside, stdin=write_fd, **how)
        finally:
            os.close(write_fd)
            said = _read(read_fd)
        return self._judged(done, said, len(front), command[0])

    def _judged(self, done: Finished, said: list[str], front: int, command: str) -> Finished:
        code = done.returncode
        stopped = done.timed_out or done.output_exceeded or done.memory_exceeded
        if "started" not in said and code > 0 and not stopped:
            if "hidden" in said:
                raise FileNotFoundError(errno.ENOENT, "not to be seen within the walls", command)
            why = done.last_line() or done.describe()
            raise MachineTrouble("the walls could not be put up", why, "see `bisect_tool doctor`")
        left = [line.removeprefix("left ").strip() for line in said if line.startswith("left ")]
        return dataclasses.replace(
            done,
            argv=done.argv[front:],
            returncode=128 - code if code - 128 in _SIGNALS else code,
            left_running=tuple(left[:_NAMES]),
        )

    def _guard(self) -> str:
        # In a shared /proc its own processes cannot be told from the machine's. They end all the same.
        return _START + (_NAME_LEFTOVERS if self.own_proc else "") + 'exit "$code"'

    def _layout(self, walls: Walls, env: Mapping[str, str], memory_limit: int | None) -> list[str]:
        """Network and file system, in bubblewrap's options."""
        options = ["--share-net"] if walls.network else []
        for path in dict.fromkeys([*(os.path.realpath(path) for path in TEMPORARY), "/dev/shm"]):
            if memory_limit is not None and _version(self.name) >= (0, 7):
                options += ["--size", str(memory_limit)]  # it is memory too
            options += ["--tmpfs", path]
        if walls.gpu:
            for device in gpu_devices():
                options += ["--dev-bind", str(device), str(device)]
        return [*options, *_view(walls, env).options(), "--remount-ro", "/dev", "--remount-ro", "/"]


def _view(walls: Walls, env: Mapping[str, str]) -> _View:
    view = _View()
    for pattern in SYSTEM:
        for path in Path("/").glob(pattern.lstrip("/")):
            view.show(path, "--ro-bind")
    for name in (*ETC, *(ETC_NETWORK if walls.network else ())):
        view.show(Path("/etc") / name, "--ro-bind")
    for path in (*named_folders(env), *walls.read):
        view.show(path, "--ro-bind")
    for path in (*walls.write, walls.home):
        view.show(path, "--bind")
    for path in TEMPORARY:
        view.links.update(links_on_the_way(path))
    return view


class _View:
    """Which real paths are shown how, and the symbolic links that lead to them."""

    def __init__(self) -> None:
        self.shown: dict[Path, str] = {}
        self.links: dict[Path, str] = {}

    def show(self, path: Path, how: str) -> None:
        """By its own name and its real one. What there is not is passed over. The last word counts."""
        self.links.update(links_on_the_way(path))
        real = Path(os.path.realpath(path))
        if real.exists():
            self.shown[real] = how

    def options(self) -> list[str]:
        """Outer folders first. One mount where one will do: files cannot be linked from mount to mount."""
        made: dict[Path, str] = {}
        options: list[str] = []
        for home in homes():  # /opt/someone: a home within the system's folders
            if self._hides(home):
                self.shown.setdefault(home, "--tmpfs")
        for path in sorted(self.shown, key=lambda path: path.parts):
            how = self.shown[path]
            if how != _around(path, made):
                options += [how, str(path)] if how == "--tmpfs" else [how, str(path), str(path)]
                made[path] = how
        for link, target in sorted(self.links.items()):
            if _around(link, made) in ("", "--tmpfs"):  # elsewhere it is there already
                options += ["--symlink", target, str(link)]
        return options

    def _hides(self, home: Path) -> bool:
        """Whether a home has to be covered. Those of services may be /usr/sbin, /usr/games and the like."""
        own = home.parent not in (Path("/"), Path("/usr"))
        return own and _around(home, self.shown) == "--ro-bind" and home.is_dir()


def _around(path: Path, shown: Mapping[Path, str]) -> str:
    """How the innermost of the folders that hold a path is shown."""
    return next((shown[each] for each in (path, *path.parents) if each in shown), "")


def gpu_devices(folder: Path = Path("/dev")) -> list[Path]:
    return sorted(path for pattern in GPU_DEVICES for path in folder.glob(pattern))


def for_gpu(options: Sequence[str], proc: Path = Path("/proc")) -> tuple[str, ...]:
    """The options with which CUDA runs: it writes below /proc/self, and fails where all of /proc is read-only
    (cudaMallocManaged: "OS call failed"). What in /proc is not of a process stays read-only."""
    if tuple(options[-2:]) != ("--remount-ro", "/proc"):
        return tuple(options)
    kept = list(options[:-2])
    for path in sorted(proc.iterdir()):
        mode = path.lstat().st_mode if not path.name.isdigit() else stat.S_IFLNK
        if stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and mode & 0o222):
            kept += ["--ro-bind", str(path), str(path)]
    return tuple(kept)


@functools.lru_cache(maxsize=1)
def load_nvidia_modules() -> None:
    """Have NVIDIA's driver make its devices, as the first CUDA program would: within walls none can."""
    if Path("/proc/driver/nvidia/version").exists() and not (
        Path("/dev/nvidia-uvm").exists() and Path("/dev/nvidia0").exists()
    ):
        process.probe(["nvidia-modprobe", "-c", "0", "-u"])


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", name)[:3])


def _read(fd: int) -> list[str]:
    """What is in a pipe by now, in lines fit to print."""
    os.set_blocking(fd, False)
    try:
        data = os.read(fd, _REPORT_BYTES)
    except BlockingIOError:
        data = b""
    finally:
        os.close(fd)
    text = data.decode("utf-8", "replace")
    return ["".join(c for c in line if c.isprintable())[:80] for line in text.splitlines()]
