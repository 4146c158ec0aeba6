"""Walls by attack: each program here tries, from inside, what walls are there to stop.

With the real bubblewrap; where it is missing or may not be used, those tests say so and are skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from recorded_machine import Script, mac, said

from bisect_tool.building import walls_linux, walls_macos
from bisect_tool.building.sandbox import Mode, Sandbox, Unwalled, Walls, choose, interpreter_paths, violation
from bisect_tool.building.walls import links_on_the_way
from bisect_tool.building.walls_linux import Bubblewrap
from bisect_tool.errors import MachineTrouble, ToolMissing, UsageProblem
from bisect_tool.host.linux import BUBBLEWRAP, BUBBLEWRAP_WAYS, Linux
from bisect_tool.host.macos import MacOS
from bisect_tool.process import Finished

PYTHON = Path(sys.executable)
SAFE = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


@dataclass
class Box:
    """A program's place: what it may write, its home, and what lies next to them."""

    sandbox: Sandbox
    walls: Walls
    root: Path
    tree: Path  # may be written
    user: Path  # the user's real home

    def python(self, code: str, *args: str, env: dict[str, str] | None = None, **how: Any) -> Finished:
        argv: list[str | Path] = [PYTHON, "-c", textwrap.dedent(code), *args]
        how.setdefault("timeout_s", 30)
        return self.sandbox.run(argv, walls=how.pop("walls", self.walls), env=env or SAFE, **how)

    def stops(self, code: str, *args: str, **how: Any) -> str:
        """Run code that must fail; what was stopped, in words."""
        done = self.python(code, *args, **how)
        assert done.returncode == 1, done
        return violation(done, home=self.user, visible=(*self.walls.read, *self.walls.write, self.walls.home))


@pytest.fixture(scope="session")
def bubblewrap() -> Bubblewrap:
    if sys.platform != "linux":
        pytest.skip("bubblewrap is for Linux")
    found = choose(Mode.AUTO)
    if not isinstance(found, Bubblewrap):
        pytest.skip(f"no walls here: {found.why}")
    return found


@pytest.fixture
def box(bubblewrap: Bubblewrap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    user, tree = tmp_path / "user", tmp_path / "tree"
    (user / ".ssh").mkdir(parents=True)
    (user / ".ssh" / "id").write_text("a private key")
    tree.mkdir()
    monkeypatch.setenv("HOME", str(user))
    walls = Walls(interpreter_paths(PYTHON), (tree,), tmp_path / "home")
    return Box(bubblewrap, walls, tmp_path, tree, user)


def hidden_program(box: Box) -> Path:
    """A program that is there, outside the walls."""
    path = box.root / "beside" / "program"
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def running(mark: str) -> list[int]:
    """Processes of this machine, inside walls or not, with a word on their command line."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in each.cmdline() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each.pid)
    return found


# --- what it gets -------------------------------------------------------------------------------------


def test_environment_home_and_folders(box: Box) -> None:
    given = {**SAFE, "MLX_SETTING": "1", "TMPDIR": "/elsewhere", "TMP": "/elsewhere", "HOME": "/elsewhere"}
    code = """
        import os, tempfile
        print(sorted(n for n in os.environ if n not in ("LC_CTYPE", "PWD")))
        print(os.environ["HOME"], os.environ["TMPDIR"], tempfile.gettempdir(), os.getcwd())
        open("/tmp/t", "w"), open("/var/tmp/t", "w"), open("/dev/shm/t", "w")
        open(os.path.expanduser("~/h"), "w")
        print(repr(__import__("sys").stdin.read()))
    """
    done = box.python(code, env=given)
    assert done.ok, done.stderr
    home = box.root / "home"
    assert done.stdout.splitlines() == [
        "['HOME', 'MLX_SETTING', 'PATH', 'TMPDIR']",
        f"{home} /tmp /tmp {home}",
        "''",
    ]
    assert (home / "h").exists()
    assert not Path("/tmp/t").exists() and not Path("/var/tmp/t").exists() and not Path("/dev/shm/t").exists()


def test_the_folder_it_starts_in(box: Box) -> None:
    done = box.python("import os; print(os.getcwd()); open('made', 'w')", cwd=box.tree)
    assert done.stdout == f"{box.tree}\n" and (box.tree / "made").exists()


def test_it_ends_as_it_would_without(box: Box) -> None:
    assert box.python("raise SystemExit(3)").returncode == 3
    assert box.python("raise SystemExit(200)").returncode == 200
    aborted = box.python("import os, sys; print('x', file=sys.stderr); os.abort()")
    assert (aborted.returncode, aborted.stderr) == (-signal.SIGABRT, "x\n")
    assert aborted.describe() == "was killed by SIGABRT"
    assert box.python("import os; os.kill(os.getpid(), 9)").returncode == -9
    assert box.python("raise SystemExit(134)").returncode == -6  # as documented
    done = box.python("pass", "one", "two words")
    assert done.argv == (str(PYTHON), "-c", "pass", "one", "two words") and done.ok


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_any_shell_will_do(shell: str, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell} here")
    monkeypatch.setattr(walls_linux, "SHELL", found)
    done = box.python("import subprocess; subprocess.Popen(['sleep', '60']); raise SystemExit(4)")
    assert (done.returncode, done.left_running, done.stderr) == (4, ("sleep",), "")
    dead = box.python("import os; os.abort()")
    assert (dead.returncode, dead.stderr, dead.left_running) == (-6, "", ())
    with pytest.raises(FileNotFoundError, match="within the walls"):
        box.sandbox.run([hidden_program(box)], walls=box.walls, env=SAFE, timeout_s=20)


def test_streams_channel_and_limits(box: Box, tmp_path: Path) -> None:
    heard = bytearray()
    code = "import os, sys; os.write(int(sys.argv[1]), b'hi'); print('out'); print('err', file=sys.stderr)"
    done = box.python(code, channel=heard.extend, log=tmp_path / "log")
    assert (bytes(heard), done.stdout, done.stderr) == (b"hi", "out\n", "err\n")
    assert sorted((tmp_path / "log").read_text().split()) == ["err", "out"]
    flood = box.python("while True: print('x' * 65536)", output_limit=1 << 20)
    assert flood.output_exceeded and flood.describe() == "wrote more than it may"


def test_memory_is_limited_inside(box: Box) -> None:
    code = "import time; held = b'x' * 300_000_000; time.sleep(60)"
    done = box.python(code, memory_limit=150_000_000, timeout_s=40)
    assert done.memory_exceeded and done.describe() == "took more than its 0.1 GB of memory"


def test_files_in_tmp_count_as_memory(box: Box) -> None:
    code = "import shutil; print(shutil.disk_usage('/tmp').total, shutil.disk_usage('/var/tmp').total)"
    limited = box.python(code, memory_limit=64 << 20).stdout
    if walls_linux._version(box.sandbox.name) < (0, 7):
        pytest.skip("bubblewrap before 0.7 has no --size")
    assert limited == f"{64 << 20} {64 << 20}\n"
    assert int(box.python(code).stdout.split()[0]) > 64 << 20


def test_only_its_own_descriptors(box: Box) -> None:
    leak = os.open(box.user / ".ssh" / "id", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        code = """
            import os, sys
            print([(fd, os.readlink(f"/proc/self/fd/{fd}").split(":")[0]) for fd in range(256)
                   if os.path.exists(f"/proc/self/fd/{fd}") and str(fd) != sys.argv[1]])
        """
        done = box.python(code, channel=lambda _chunk: None)
    finally:
        os.close(leak)
    assert done.stdout == "[(0, '/dev/null'), (1, 'pipe'), (2, 'pipe')]\n"


# --- programs that cannot be started ------------------------------------------------------------------


def test_program_that_is_missing_hidden_or_none(box: Box) -> None:
    def start(program: str | Path, env: dict[str, str] = SAFE) -> Finished:
        return box.sandbox.run([program], walls=box.walls, env=env, timeout_s=20, cwd=box.tree)

    (box.tree / "text").write_text("no program")
    (box.user / "bin").mkdir()
    (box.user / "bin" / "mine").symlink_to("/bin/true")
    (box.user / "bin" / "true").symlink_to("/bin/false")
    path = {"PATH": f"{box.user / 'bin'}:/bin"}
    for missing in ("no-such-program", box.tree / "missing", "./missing"):
        with pytest.raises(FileNotFoundError, match="No such file"):
            start(missing)
    with pytest.raises(PermissionError):
        start("./text")
    with pytest.raises(FileNotFoundError, match="not to be seen within the walls"):
        start("mine", env=path)
    assert start("true", env=path).returncode == 0  # the one that can be seen
    with pytest.raises(FileNotFoundError, match="not to be seen within the walls"):
        start(hidden_program(box))
    (box.tree / "alias").symlink_to(hidden_program(box))
    with pytest.raises(FileNotFoundError, match="not to be seen within the walls"):
        start("./alias")


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert len(list(links_on_the_way(tmp_path / "one" / "x"))) < 100


def test_a_name_is_a_program_not_a_builtin_of_the_guard(box: Box) -> None:
    (box.tree / "echo").write_text("#!/bin/sh\nprintf mine\n")
    (box.tree / "echo").chmod(0o755)
    env = {"PATH": f"{box.tree}:/bin"}
    assert box.sandbox.run(["echo"], walls=box.walls, env=env, timeout_s=20).stdout == "mine"


def test_walls_that_cannot_be_put_up_are_no_failure_of_the_program(box: Box) -> None:
    assert isinstance(box.sandbox, Bubblewrap)
    broken = Bubblewrap(
        box.sandbox.bwrap, "bubblewrap 0.8.0", [*box.sandbox.options, "--ro-bind", "/nil", "/x"]
    )
    with pytest.raises(MachineTrouble, match=r"could not be put up: bwrap: Can't find source path /nil"):
        broken.run(["true"], walls=box.walls, env=SAFE, timeout_s=20)
    with pytest.raises(MachineTrouble, match="Can't chdir"):
        box.python("pass", cwd=box.user)


# --- reading ------------------------------------------------------------------------------------------


def test_the_home_folder_cannot_be_read(box: Box) -> None:
    key = box.user / ".ssh" / "id"
    assert box.stops("import sys; open(sys.argv[1])", str(key)) == f"reading {key}"
    assert box.stops("import os, sys; os.listdir(sys.argv[1])", str(box.user)) == f"reading {box.user}"
    # By the user database, whatever HOME says.
    code = "import os, pwd; print(os.path.exists(pwd.getpwuid(os.getuid()).pw_dir + '/.profile'))"
    assert box.python(code).stdout == "False\n"


def test_no_secret_of_the_environment(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_secret")
    assert box.stops("import os; os.environ['GITHUB_TOKEN']") == "reading the variable GITHUB_TOKEN"
    hunt = """
        import glob
        for name in glob.glob("/proc/[0-9]*/environ"):
            try: print(name, b"ghp_secret" in open(name, "rb").read())
            except OSError: pass
    """
    said = box.python(hunt).stdout
    assert "False" in said and "True" not in said


def test_only_what_is_needed_of_the_system(box: Box) -> None:
    code = "import os; print(sorted(os.listdir('/'))); print(sorted(os.listdir('/etc')))"
    root, etc = box.python(code).stdout.splitlines()
    for name in ("boot", "mnt", "media", "srv"):
        assert repr(name) not in root
    for name in ("shadow", "sudoers", "ssh", "gitconfig", "pip.conf", "machine-id", "resolv.conf"):
        assert repr(name) not in etc
    assert "'ld.so.cache'" in etc
    assert "private" not in box.python("import os; print(os.listdir('/etc/ssl'))").stdout


def test_neighbours_in_tmp_are_not_there(box: Box) -> None:
    """pytest's folders lie below /tmp, where the walls have a folder of their own."""
    said = box.python("import os, sys; print(sorted(os.listdir(sys.argv[1])))", str(box.root)).stdout
    assert said == "['home', 'tree']\n"


def test_a_folder_to_be_read_is_found_by_every_name(box: Box) -> None:
    """By the real one and by the symbolic links that lead there, absolute, relative and through a parent."""
    real = box.root / "far" / "real"
    real.mkdir(parents=True)
    (real / "file").write_text("seen")
    (box.root / "far" / "hidden").write_text("x")
    (box.root / "absolute").symlink_to(real)
    (box.root / "near").symlink_to("far")
    (box.root / "chain").symlink_to("absolute/../real")
    (box.root / "double").symlink_to(box.root / "near" / "real")
    names = tuple(box.root / name for name in ("absolute", "near/real", "chain", "double"))
    for name in names:
        code = "import os, sys; print(open(sys.argv[1] + '/file').read(), os.path.realpath(sys.argv[1]))"
        walls = replace(box.walls, read=(*box.walls.read, name))
        assert box.python(code, str(name), walls=walls).stdout == f"seen {real}\n", name
    walls = replace(box.walls, read=(*box.walls.read, *names, box.root / "missing"))
    code = "import os, sys; print(os.path.exists(sys.argv[1] + '/far/hidden'))"
    assert box.python(code, str(box.root), walls=walls).stdout == "False\n"


def test_folders_within_folders(box: Box) -> None:
    """The innermost says what may be done."""
    (box.tree / "kept").mkdir()
    source = box.root / "source"
    (source / "build").mkdir(parents=True)
    read = (*box.walls.read, box.tree / "kept", source)
    walls = replace(box.walls, read=read, write=(box.tree, source / "build"))
    code = """
        import sys
        for name in sys.argv[1:]:
            try: open(name + "/made", "w"); print("yes")
            except OSError as problem: print(problem.errno)
    """
    places = [box.tree, box.tree / "kept", source, source / "build"]
    assert box.python(code, *map(str, places), walls=walls).stdout.split() == ["yes", "30", "30", "yes"]


def test_files_can_be_linked_within_what_may_be_written(box: Box) -> None:
    (box.tree / "a").mkdir()
    (box.tree / "b").mkdir()
    walls = replace(box.walls, write=(box.tree, box.tree / "a", box.tree / "b"))
    code = "import os; open('a/x', 'w'); os.link('a/x', 'b/x'); os.rename('a/x', 'b/y')"
    assert box.python(code, walls=walls, cwd=box.tree).ok


def test_folders_of_libraries_that_the_environment_names(box: Box) -> None:
    folders = [box.root / "cuda" / name for name in ("lib", "home")]
    for folder in folders:
        folder.mkdir(parents=True)
    env = {**SAFE, "LD_LIBRARY_PATH": f"{folders[0]}::{box.user}", "CUDA_HOME": str(folders[1])}
    code = (
        "import os, sys; print([os.path.isdir(name) for name in sys.argv[1:]], os.environ['LD_LIBRARY_PATH'])"
    )
    said = box.python(code, *map(str, [*folders, box.user]), env=env).stdout
    assert said == f"[True, True, False] {env['LD_LIBRARY_PATH']}\n"


def test_a_strangers_library_is_not_loaded_outside(box: Box) -> None:
    """Bubblewrap starts outside: it would load a library of that name from a folder they may write to."""
    needed = subprocess.run(["ldd", box.sandbox.bwrap], capture_output=True, text=True, check=False).stdout  # type: ignore[attr-defined]
    for line in needed.splitlines():
        name = line.split()[0]
        if name.startswith("libc") and "libc.so" not in name:
            (box.tree / name).write_text("not a library")
    assert any(box.tree.iterdir()), needed
    env = {**SAFE, "LD_LIBRARY_PATH": str(box.tree)}
    done = box.python("import os; print(os.environ['LD_LIBRARY_PATH'])", env=env)
    assert done.stdout == f"{box.tree}\n"


def test_a_home_within_the_systems_folders(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    opt = box.root / "opt"
    (opt / "ada" / ".ssh").mkdir(parents=True)
    (opt / "ada" / "python").mkdir()
    (opt / "tool").mkdir()
    monkeypatch.setattr(walls_linux, "SYSTEM", (*walls_linux.SYSTEM, str(opt)))
    monkeypatch.setenv("HOME", str(opt / "ada"))
    code = "import os, sys; print(*(sorted(os.listdir(name)) for name in sys.argv[1:]))"
    walls = replace(box.walls, read=(*box.walls.read, opt / "ada" / "python"))
    assert box.python(code, str(opt), str(opt / "ada"), walls=walls).stdout == "['ada', 'tool'] ['python']\n"


# --- writing ------------------------------------------------------------------------------------------


def test_nothing_outside_can_be_written(box: Box) -> None:
    places = [
        f"{folder}/bisect-tool-test" for folder in ("/usr/bin", "/usr", "/etc", "", "/opt", "/dev", "/sys")
    ]
    code = """
        import os, sys, traceback
        for place in sys.argv[1:]:
            for attempt in (os.mkdir, lambda place: open(place, "w")):
                try: attempt(place); print("made", place)
                except OSError: print(traceback.format_exc().splitlines()[-1])
    """
    lines = box.python(code, *places, str(box.root / "beside")).stdout.splitlines()
    shown = [place for place in places if Path(place).parent.exists()]
    for place in shown:
        assert f"OSError: [Errno 30] Read-only file system: '{place}'" in lines
        assert violation(f"OSError: [Errno 30] Read-only file system: '{place}'") == f"writing {place}"
    # Its own /tmp has a folder of that name to hold the two it was given.
    assert {line for line in lines if line.startswith("made")} <= {f"made {box.root / 'beside'}"}
    assert not [place for place in places if Path(place).exists()] and not (box.root / "beside").exists()


def test_what_may_be_read_cannot_be_changed(box: Box) -> None:
    file = box.root / "inputs" / "file"
    file.parent.mkdir()
    file.write_text("as it was")
    walls = replace(box.walls, read=(*box.walls.read, file.parent))
    code = """
        import os, sys
        x = sys.argv[1]
        for attempt in (lambda: open(x, "a"), lambda: os.unlink(x), lambda: os.chmod(x, 0),
                        lambda: os.rename(x, x + "2"), lambda: os.utime(x), lambda: os.truncate(x, 0)):
            try: attempt(); print("changed")
            except OSError as problem: print(problem)
    """
    done = box.python(code, str(file), walls=walls)
    assert len(done.stdout.splitlines()) == 6 and "changed" not in done.stdout
    assert violation(done).startswith(f"writing {file}")
    assert file.read_text() == "as it was" and file.stat().st_mode & 0o777


def test_links_out_of_a_writable_folder_lead_nowhere(box: Box) -> None:
    outside = box.root / "outside"
    outside.mkdir()
    (outside / "file").write_text("as it was")
    code = """
        import os, sys
        os.symlink(sys.argv[1], "way-out")
        for attempt in (lambda: open("way-out/file").read(), lambda: open("way-out/new", "w"),
                        lambda: os.link("/etc/passwd", "passwd"), lambda: open("/proc/1/root/etc/x", "w"),
                        lambda: os.listdir("/proc/1/cwd" + sys.argv[1])):
            try: print("out:", attempt())
            except OSError as problem: print(type(problem).__name__)
    """
    done = box.python(code, str(outside), cwd=box.tree)
    assert done.ok and "out:" not in done.stdout, done.stdout
    assert [path.name for path in outside.iterdir()] == ["file"] and (
        outside / "file"
    ).read_text() == "as it was"


def test_a_link_left_behind_does_not_open_the_next_walls(box: Box) -> None:
    """A program makes what will be its home, or its output folder, a link to what it would like to have."""
    done = box.python("import os, sys; os.symlink(sys.argv[1], 'out')", str(box.user / ".ssh"), cwd=box.tree)
    assert done.ok
    for walls in (
        replace(box.walls, write=(box.tree, box.tree / "out")),
        replace(box.walls, write=(box.tree / "out",)),
        replace(box.walls, home=box.tree / "out"),
        replace(box.walls, home=box.tree / "out" / "home"),
    ):
        with pytest.raises(UsageProblem, match="is a symbolic link"):
            box.python("pass", walls=walls)
    assert [path.name for path in (box.user / ".ssh").iterdir()] == ["id"]


def test_walls_that_would_be_none(box: Box) -> None:
    for path in (box.user, box.root, Path("/")):
        for walls in (
            replace(box.walls, read=(path,)),
            replace(box.walls, write=(path,)),
            replace(box.walls, home=path),
        ):
            with pytest.raises(UsageProblem, match="the home folder lies in it"):
                box.python("pass", walls=walls)
    below = replace(box.walls, write=(box.tree,), home=box.user / "cache" / "home")
    assert box.python(
        "import os, sys; print(os.listdir(sys.argv[1]))", str(box.user), walls=below
    ).stdout == ("['cache']\n")
    with pytest.raises(FileNotFoundError):
        box.python("pass", walls=replace(box.walls, write=(box.root / "missing",)))


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_root_may_not_write_to_others_files(box: Box) -> None:
    os.chown(box.tree, 12345, 12345)
    with pytest.raises(MachineTrouble, match="belongs to another user"):
        box.python("pass")


def test_the_kernel_cannot_be_told_anything(box: Box) -> None:
    """Within a namespace root is root: what is the machine's own must not be writable."""
    code = """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        attempts = {
            "mount": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
            "remount": lambda: libc.mount(b"none", b"/usr", None, 32 | 4096, None),
            "unmount": lambda: libc.umount2(b"/usr", 2),
            "namespace": lambda: libc.unshare(0x10000000),
            "hostname": lambda: libc.sethostname(b"x", 1),
            "chroot": lambda: libc.chroot(b"/tmp"),
        }
        for name, attempt in attempts.items():
            if attempt() == 0: print(name)
        for name in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
                     "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state"):
            try: open(name, "w"); print(name)
            except OSError: pass
        try: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0)); print("mknod")
        except OSError: pass
        status = dict(line.split(None, 1) for line in open("/proc/self/status") if len(line.split()) > 1)
        print(*(status[name].strip() for name in ("CapEff:", "CapBnd:", "NoNewPrivs:")))
    """
    nothing = "0" * 16
    assert box.python(code).stdout == f"{nothing} {nothing} 1\n"


# --- the network --------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a server on this machine that says hello to whoever comes."""
    listening = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connection.sendall(b"hello")
                connection.close()

    thread = threading.Thread(target=greet)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


CONNECT = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).recv(9))"


def test_a_server_on_this_machine_is_not_reached(box: Box, server: int) -> None:
    assert box.stops(CONNECT, "127.0.0.1", str(server)) == "the network"
    opened = box.python(CONNECT, "127.0.0.1", str(server), walls=replace(box.walls, network=True))
    assert opened.stdout == "b'hello'\n"  # so it was the wall
    said = box.python(
        "import os; print(os.path.exists('/etc/resolv.conf'))", walls=replace(box.walls, network=True)
    )
    assert said.stdout == f"{Path('/etc/resolv.conf').exists()}\n"


def test_neither_names_nor_addresses_are_reached(box: Box) -> None:
    assert box.stops("import socket; socket.getaddrinfo('example.org', 443)") == "the network"
    assert box.stops(CONNECT, "192.0.2.1", "80") == "the network"
    urllib = "import urllib.request; urllib.request.urlopen('https://example.org/', timeout=5)"
    assert box.stops(urllib) == "the network"


def test_sockets_of_the_machine_are_not_reached(box: Box) -> None:
    """A socket in a folder that is hidden, and one that is in no folder at all."""
    named, abstract = str(box.root / "agent"), f"\0bisect-tool-{os.getpid()}"
    code = """
        import socket, sys
        for name in (sys.argv[1], "\\0" + sys.argv[2]):
            try: socket.socket(socket.AF_UNIX).connect(name); print("connected", name)
            except OSError as problem: print(type(problem).__name__)
    """
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(named)
        other.bind(abstract)
        one.listen()
        other.listen()
        done = box.python(code, named, abstract[1:])
    assert done.stdout.split() == ["FileNotFoundError", "ConnectionRefusedError"]


# --- other processes ----------------------------------------------------------------------------------


def test_no_other_process_is_seen_or_reached(box: Box) -> None:
    code = """
        import ctypes, os, signal, sys
        print(sorted(name for name in os.listdir("/proc") if name.isdigit()))
        ours = int(sys.argv[1])
        for attempt in (lambda: os.kill(ours, signal.SIGKILL), lambda: os.kill(ours, 0)):
            try: print("reached", attempt())
            except OSError as problem: print(type(problem).__name__)
        libc = ctypes.CDLL(None, use_errno=True)
        print(libc.ptrace(16, ours, 0, 0))
        os.kill(os.getppid(), signal.SIGKILL)  # the guard, which the kernel protects
        print("still here")
    """
    done = box.python(code, "99999999" if os.getpid() < 9 else str(os.getpid()))
    assert done.ok, done.stderr
    assert done.stdout.splitlines() == [
        "['1', '2']",
        "ProcessLookupError",
        "ProcessLookupError",
        "-1",
        "still here",
    ]


# Leaves three behind: one that is its child, one in a session of its own whose parent is gone, one that
# ignores what it is asked.
LEAVES = """
    import os, subprocess, sys, time
    mark = sys.argv[1]
    subprocess.Popen(["sh", "-c", "sleep 61; :", mark])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("nohup", ["nohup", sys.executable, "-c", "import time; time.sleep(62)", mark])
        os._exit(0)
    stubborn = "import signal, time; [signal.signal(n, 1) for n in (1, 2, 15)]; time.sleep(63)"
    subprocess.Popen([sys.executable, "-c", stubborn, mark], start_new_session=True)
    time.sleep(float(sys.argv[2]))
"""


def test_what_is_left_running_is_ended_and_named(box: Box) -> None:
    mark = f"left-{os.getpid()}-a"
    done = box.python(LEAVES, mark, "0.3")
    assert running(mark) == []
    python = PYTHON.resolve().name
    assert done.ok and set(done.left_running) <= {"sh", "sleep", "python", "python3", python, "nohup"}
    assert len(done.left_running) == 4 and {"sh", "sleep"} <= set(done.left_running)
    assert violation(done).startswith("leaving processes behind: ")


def test_what_ends_by_itself_is_not_held_against_it(box: Box) -> None:
    done = box.python("import subprocess; subprocess.Popen(['sleep', '0.04'])")
    assert done.left_running == ()


def test_what_has_ended_already_is_not_named(box: Box) -> None:
    """A zombie is kept by a parent that does not ask for it."""
    leaver = "import os, time; os.fork() or os._exit(0); time.sleep(60)"
    code = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {leaver!r}]); time.sleep(0.3)"
    )
    assert len(box.python(code).left_running) == 1


def test_names_are_fit_to_print(box: Box) -> None:
    code = """
        import ctypes, os, time
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(15, b"a\\x1b[31m\\nleft b", 0, 0, 0)
            time.sleep(60)
        time.sleep(0.1)
    """
    (name,) = box.python(code).left_running
    assert name.isprintable() and name.startswith("a")


def test_time_out_ends_all_of_it(box: Box) -> None:
    mark = f"left-{os.getpid()}-b"
    seen: list[int] = []

    def look(_chunk: bytes) -> None:
        seen.extend(running(mark))

    code = textwrap.dedent(LEAVES).replace(
        "time.sleep(float", "time.sleep(0.3); print('x', flush=True); time.sleep(float"
    )
    done = box.python(code, mark, "60", timeout_s=2, on_stdout=look)
    assert done.timed_out and done.wall_s < 10
    assert len(seen) >= 3 and running(mark) == []


def test_what_a_callback_raises_ends_all_of_it(box: Box) -> None:
    mark = f"left-{os.getpid()}-c"

    def refuse(_chunk: bytes) -> None:
        raise RuntimeError("no more")

    code = textwrap.dedent(LEAVES).replace("time.sleep(float", "print('x', flush=True); time.sleep(float")
    before = psutil.Process().num_fds()
    with pytest.raises(RuntimeError, match="no more"):
        box.python(code, mark, "60", on_stdout=refuse)
    assert running(mark) == []
    assert psutil.Process().num_fds() == before


CALLER = """
    import sys
    from pathlib import Path
    from bisect_tool import process
    from bisect_tool.building.sandbox import Mode, Walls, choose, interpreter_paths
    process.interrupt_on_sigterm()
    python, root = Path(sys.executable), Path(sys.argv[1])
    walls = Walls(interpreter_paths(python), (), root / "home")
    code = sys.argv[2]
    try:
        choose(Mode.REQUIRE).run([python, "-c", code, sys.argv[3], "60"], walls=walls,
                                 env={"PATH": "/usr/bin:/bin"}, timeout_s=60)
    except KeyboardInterrupt:
        sys.exit(42)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_does_not_outlive_us(how: signal.Signals, box: Box) -> None:
    mark = f"left-{os.getpid()}-{how.name}"
    argv = [sys.executable, "-c", textwrap.dedent(CALLER), str(box.root), textwrap.dedent(LEAVES), mark]
    caller = subprocess.Popen(argv)
    try:
        # The caller itself, the guard, the program, and three that it left.
        wait_until(lambda: len(running(mark)) >= 6, "it did not start")
        caller.send_signal(how)
        code = caller.wait(20)
    finally:
        caller.kill()
        caller.wait()
    if how is signal.SIGKILL:
        wait_until(lambda: not running(mark), "something outlived a tool that was killed")
    else:
        assert code == 42 and running(mark) == []


def test_an_early_interruption_leaves_nothing(box: Box) -> None:
    """Bubblewrap ties its children to itself only once they are there: ended before, they would stay."""
    mark = f"left-{os.getpid()}-e"
    for delay in range(15):
        done = box.python("import time; time.sleep(60)", mark, timeout_s=delay / 1000)
        assert done.timed_out
        assert running(mark) == []


# --- a shared /proc -----------------------------------------------------------------------------------


def test_where_there_is_no_proc_of_its_own(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names can be seen, but nobody's environment, files or memory; and nothing can be reached or stays."""
    assert isinstance(box.sandbox, Bubblewrap)
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_secret")
    shared = replace(
        box, sandbox=Bubblewrap(box.sandbox.bwrap, "bubblewrap 0.8.0", BUBBLEWRAP + BUBBLEWRAP_WAYS[-1])
    )
    code = """
        import os, signal, sys
        other = sys.argv[1]
        for name in ("environ", "maps", "mem", "fd/0", "root/etc/shadow", "cwd/x"):
            try: open(f"/proc/{other}/{name}").read(1); print("read", name)
            except OSError: pass
        for name in ("comm", "oom_score_adj"):
            try: open(f"/proc/{other}/{name}", "w"); print("wrote", name)
            except OSError: pass
        try: os.kill(int(other), signal.SIGKILL); print("reached")
        except OSError: pass
        print(os.path.exists(f"/proc/{other}"), open("/proc/self/comm").read().strip()[:6])
        raise SystemExit(5)
    """
    victim = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        done = shared.python(code, str(victim.pid))
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()
    assert (done.stdout, done.returncode, done.left_running) == ("True python\n", 5, ())
    mark = f"left-{os.getpid()}-d"
    assert shared.python(LEAVES, mark, "0.1").ok
    assert running(mark) == []


# --- GPUs ---------------------------------------------------------------------------------------------


def test_devices_of_a_gpu_and_of_nothing_else(tmp_path: Path) -> None:
    gpu = {"nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-caps", "dri", "kfd", "dxg", "nvmap", "nvhost-gpu"}
    for name in (*gpu, "nvme0", "nvme0n1", "nvram", "sda", "mem", "kmsg"):
        (tmp_path / name).touch()
    assert {path.name for path in walls_linux.gpu_devices(tmp_path)} == gpu


def test_devices_are_there_when_asked_for(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Path("/dev/kmsg") if os.access("/dev/kmsg", os.W_OK) else Path("/dev/full")
    monkeypatch.setattr(walls_linux, "GPU_DEVICES", (device.name,))
    code = "import os, sys; print(os.path.exists(sys.argv[1]))"
    with_gpu = box.python(code, str(device), walls=replace(box.walls, gpu=True))
    assert with_gpu.stdout == "True\n"
    assert box.python(code, "/dev/kmsg").stdout == "False\n"


def test_proc_with_a_gpu(box: Box) -> None:
    """CUDA writes to what is its own there; everything else can be written to as little as without a GPU."""
    assert isinstance(box.sandbox, Bubblewrap)
    if not box.sandbox.own_proc:
        pytest.skip("no /proc of its own here")
    code = """
        import os
        def opens(path):
            try: open(path, "r+").close(); return True
            except OSError: return False
        print(opens("/proc/self/comm"), opens(f"/proc/self/task/{os.getpid()}/comm"))
        for top in os.listdir("/proc"):
            if not top.isdigit() and not os.path.islink(f"/proc/{top}"):
                for folder, _, names in os.walk(f"/proc/{top}"):
                    for name in names:
                        if opens(f"{folder}/{name}"): print(folder, name)
                if os.path.isfile(f"/proc/{top}") and opens(f"/proc/{top}"): print(top)
        try: open("/proc/sys/kernel/core_pattern", "w"); print("core_pattern")
        except OSError: pass
    """
    assert box.python(code, walls=replace(box.walls, gpu=True)).stdout == "True True\n"
    assert box.python(code).stdout == "False False\n"


# --- which walls --------------------------------------------------------------------------------------


def linux(script: Script, found: bool = True) -> Linux:
    return Linux(script, lambda name: f"/usr/bin/{name}" if found else None, Path("/nonexistent"))


REFUSED = said("", "bwrap: setting up uid map: Permission denied\n", 1)


def test_walls_are_tried_out_once() -> None:
    script = Script({"/usr/bin/bwrap": said("bubblewrap 0.9.1\n")})
    machine = linux(script)
    box = choose(Mode.AUTO, machine)
    assert (box.name, box.walled, box.why) == ("bubblewrap 0.9.1", True, "")
    asked = len(script.asked)
    assert choose(Mode.REQUIRE, machine) is box
    assert len(script.asked) == asked


@pytest.mark.parametrize("works", [0, 1, 2])
def test_the_first_way_that_works_is_taken(works: int) -> None:
    start = "/usr/bin/bwrap --ro-bind / /"
    answers = {
        f"{start} {' '.join(BUBBLEWRAP + way)}": said() if number >= works else REFUSED
        for number, way in enumerate(BUBBLEWRAP_WAYS)
    }
    script = Script({**answers, "/usr/bin/bwrap --version": said("bubblewrap 0.8.0\n")})
    box = choose(Mode.AUTO, linux(script))
    assert isinstance(box, Bubblewrap)
    assert box.options == BUBBLEWRAP + BUBBLEWRAP_WAYS[works]
    assert box.own_proc is (works < 2)


def test_no_walls() -> None:
    refused = linux(Script({"/usr/bin/bwrap": REFUSED}))
    box = choose(Mode.AUTO, refused)
    assert not box.walled and box.name == "none"
    assert box.why.startswith("bwrap: setting up uid map: Permission denied; allow user namespaces: ")
    with pytest.raises(ToolMissing, match="no walls for programs on this machine: bwrap: setting up uid map"):
        choose(Mode.REQUIRE, refused)
    missing = linux(Script({}), found=False)
    with pytest.raises(ToolMissing, match="bubblewrap not found; sudo apt install bubblewrap"):
        choose(Mode.REQUIRE, missing)
    assert choose(Mode.AUTO, missing).why == "bubblewrap not found; sudo apt install bubblewrap"
    assert choose(Mode.OFF, missing).why == "--sandbox off"


def test_walls_of_a_mac() -> None:
    machine, script = mac()
    box = choose(Mode.REQUIRE, machine)
    assert (box.name, box.walled) == ("sandbox-exec", True)
    assert "(deny network*)" in script.asked[-1]
    odd = said("", "sandbox-exec: unbound variable: lsopen\n", 65)
    machine, _ = mac({"/usr/bin/sandbox-exec -p (version 1)\n(allow": odd})
    assert choose(Mode.AUTO, machine).why == (
        "sandbox-exec does not take our profile: sandbox-exec: unbound variable: lsopen"
    )
    assert isinstance(machine, MacOS)


def test_without_walls_the_home_is_private_all_the_same(tmp_path: Path) -> None:
    walls = Walls((), (), tmp_path / "home")
    code = "import os; print(os.environ['HOME'], os.getcwd())"
    done = Unwalled("because").run([PYTHON, "-c", code], walls=walls, env=SAFE, timeout_s=20)
    assert done.stdout == f"{tmp_path}/home {tmp_path}/home\n"


# --- what a Python needs ------------------------------------------------------------------------------


def base_python() -> Path:
    return Path(os.path.realpath(sys.executable))


def test_a_virtual_environment_starts_inside(box: Box) -> None:
    """Through a chain of links, as uv and pyenv make them."""
    prefix = base_python().parent.parent
    (box.root / "pythons").mkdir()
    (box.root / "pythons" / "newest").symlink_to(prefix)
    venv = box.root / "venv"
    subprocess.run(
        [box.root / "pythons" / "newest" / "bin" / base_python().name, "-m", "venv", "--without-pip", venv],
        check=True,
    )
    (box.root / "alias").symlink_to(venv)
    python = box.root / "alias" / "bin" / "python"
    needed = interpreter_paths(python)
    assert prefix in needed or any(prefix.is_relative_to(path) for path in needed)
    walls = replace(box.walls, read=needed)
    code = "import sys, ssl, ctypes; print(sys.prefix, sys.base_prefix)"
    done = box.sandbox.run([python, "-c", code], walls=walls, env=SAFE, timeout_s=30)
    assert done.stdout == f"{box.root / 'alias'} {box.root / 'pythons' / 'newest'}\n", done.stderr


def test_interpreters_in_odd_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "user"
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    (home / "bin" / "python").touch(0o755)
    monkeypatch.setenv("HOME", str(home))
    assert interpreter_paths(home / "bin" / "python") == (home / "bin" / "python", home / "lib")
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(home / "bin" / "python")
    (venv / "pyvenv.cfg").write_text(
        f"home = {home / 'bin'}\nversion = 3.12.1\nbase-prefix = {tmp_path / 'base'}\n"
    )
    (tmp_path / "base" / "bin").mkdir(parents=True)
    (tmp_path / "base" / "bin" / "python").touch(0o755)
    assert interpreter_paths(venv / "bin" / "python") == (
        tmp_path / "base",
        home / "bin" / "python",
        home / "lib",
        venv,
    )
    (tmp_path / "newest").symlink_to("base")
    (tmp_path / "tools" / "bin").mkdir(parents=True)
    (tmp_path / "tools" / "bin" / "python").symlink_to("../../newest/bin/python")
    (tmp_path / "far" / "bin").mkdir(parents=True)
    (tmp_path / "far" / "bin" / "python3").touch(0o755)
    shutil.rmtree(tmp_path / "base" / "bin")
    (tmp_path / "base" / "bin").symlink_to(tmp_path / "far" / "bin")
    (tmp_path / "far" / "bin" / "python").symlink_to("python3")
    expected = {tmp_path / name for name in ("tools", "newest", "far")}
    assert expected <= set(interpreter_paths(tmp_path / "tools" / "bin" / "python"))
    (tmp_path / "base" / "python").symlink_to("python")
    assert interpreter_paths(tmp_path / "base" / "python") == ()


def test_an_environment_that_was_tampered_with_opens_nothing(tmp_path: Path) -> None:
    keys, venv = tmp_path / "keys", tmp_path / "venv" / "bin"
    keys.mkdir()
    venv.mkdir(parents=True)
    (keys / "id").touch(0o600)
    (keys / "agent").touch(0o755)
    for target in ("id", "agent"):
        (venv / "python").unlink(missing_ok=True)
        (venv / "python").symlink_to(keys / target)
        (venv.parent / "pyvenv.cfg").write_text(f"home = {keys}\nexecutable = {keys / target}\n")
        assert keys not in interpreter_paths(venv / "python")


# --- which wall it was --------------------------------------------------------------------------------

HOME = "/home/ada"


@pytest.mark.parametrize(
    ("text", "stopped"),
    [
        # git
        (
            "Cloning into 'fmt-src'...\nfatal: unable to access 'https://github.com/fmtlib/fmt.git/': "
            "Could not resolve host: github.com\n",
            "the network",
        ),
        ("ssh: Could not resolve hostname github.com: Temporary failure in name resolution\n", "the network"),
        ("error: unable to create file /usr/share/x: Read-only file system\n", "writing /usr/share/x"),
        # cmake
        (
            "CMake Error at FetchContent.cmake:1: Failed to download\n  status_code: 6\n"
            '  status_string: "Could not resolve hostname"\n',
            "the network",
        ),
        (
            'file INSTALL cannot make directory "/usr/local/lib": Read-only file system.',
            "writing /usr/local/lib",
        ),
        (
            "CMake Error: Cannot open file for write: /usr/include/x.h.tmp\n"
            "CMake Error: : System Error: Read-only file system\n",
            "writing /usr/include/x.h.tmp",
        ),
        # curl, wget
        ("curl: (6) Could not resolve host: example.org\n", "the network"),
        (
            "curl: (7) Failed to connect to 192.0.2.1 port 80 after 0 ms: Couldn't connect to server\n",
            "the network",
        ),
        ("wget: unable to resolve host address ‘x.org’\nTemporary failure in name resolution", "the network"),
        # pip, uv
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError('<pip._vendor.urllib3."
            "connection.HTTPSConnection>: Failed to establish a new connection: [Errno -3] x')'",
            "the network",
        ),
        (
            "error: Request failed after 3 retries\n  Caused by: error sending request for url "
            "(https://pypi.org/simple/x/)\n  Caused by: client error (Connect)\n  Caused by: dns error",
            "the network",
        ),
        (
            "error: failed to create directory `/opt/venv/bin`: Read-only file system (os error 30)\n",
            "writing /opt/venv/bin",
        ),
        (
            "error: Failed to initialize cache at `/srv/cache`\n"
            "  Caused by: Read-only file system (os error 30)\n",
            "writing /srv/cache",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 30] Read-only file system: "
            "'/usr/lib/python3/x y'\n",
            "writing /usr/lib/python3/x y",
        ),
        # Python
        ("OSError: [Errno 101] Network is unreachable", "the network"),
        ("socket.gaierror: [Errno 8] nodename nor servname provided, or not known", "the network"),
        ("ConnectionRefusedError: [Errno 111] Connection refused", "the network"),
        (
            "FileNotFoundError: [Errno 2] No such file or directory: '/home/ada/.ssh/id_ed25519'",
            "reading /home/ada/.ssh/id_ed25519",
        ),
        (
            "PermissionError: [Errno 1] Operation not permitted: '/home/ada/.netrc'",
            "reading /home/ada/.netrc",
        ),
        (
            "    raise KeyError(key) from None\nKeyError: 'GITHUB_TOKEN'\n",
            "reading the variable GITHUB_TOKEN",
        ),
        ("sh: 1: AWS_SECRET_ACCESS_KEY: parameter not set", "reading the variable AWS_SECRET_ACCESS_KEY"),
        # shells and their tools
        (
            "cat: /home/ada/.config/gh/hosts.yml: No such file or directory",
            "reading /home/ada/.config/gh/hosts.yml",
        ),
        ("sh: 1: cannot create /etc/cron.d/x: Read-only file system", "writing /etc/cron.d/x"),
        ("touch: cannot touch '/etc/x': Read-only file system", "writing /etc/x"),
        ("bash: line 1: /etc/x: Read-only file system", "writing /etc/x"),
        ("ls: cannot access '/home/ada': No such file or directory", "reading /home/ada"),
        # compilers
        (
            "/usr/bin/ld: cannot open output file /usr/lib/x.so: Read-only file system",
            "writing /usr/lib/x.so",
        ),
        (
            '/b/a.cpp:1:10: fatal error: /home/ada/.ssh/id: No such file or directory\n    1 | #include "x"',
            "reading /home/ada/.ssh/id",
        ),
        ("ninja: error: opening build log: Read-only file system", "writing outside its own folders"),
        (
            "OSError: [Errno 1] Operation not permitted: '/usr/local/x'",  # as macOS says it
            "writing /usr/local/x",
        ),
        # several
        (
            "cat: /home/ada/.netrc: No such file or directory\n"
            "OSError: [Errno 30] Read-only file system: '/etc/x'\n"
            "socket.gaierror: [Errno -2] Name or service not known",
            "the network, reading /home/ada/.netrc, writing /etc/x",
        ),
    ],
)
def test_which_wall_it_was(text: str, stopped: str) -> None:
    assert violation(text, home=HOME, visible=["/home/ada/builds"]) == stopped
    assert violation(Finished((), 1, "", text, 1.0), home=HOME) == stopped


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/home/ada/builds/t/mlx/ops.cpp:3:10: fatal error: missing.h: No such file or directory\n"
        "    3 | #include <missing.h>\ncompilation terminated.\n",
        "/home/ada/src/ops.cpp:3:10: fatal error: missing.h: No such file or directory",
        "In file included from /home/ada/src/a.h:1:\n/home/ada/src/ops.cpp:3:1: error: 'x' was not declared",
        "/usr/bin/ld: /home/ada/src/a.o: undefined reference to `connect'\ncollect2: error: ld returned 1",
        "/usr/bin/ld: cannot find -lmlx: No such file or directory",
        "FileNotFoundError: [Errno 2] No such file or directory: '/home/ada/builds/t/x.py'",
        "FileNotFoundError: [Errno 2] No such file or directory: '/home/adam/x'",
        "CMake Error at CMakeLists.txt:9 (find_package):\n  Could not find a package configuration file",
        'CMake Error: The source directory "/w/x" does not exist.',
        "-- Looking for connect - not found\n-- Looking for gethostbyname - found",
        "ModuleNotFoundError: No module named 'nanobind'",
        "KeyError: 'mlx'\nKeyError: 'TOKENIZER'",
        "error: no member named 'read_only' in 'File'; terminate called after throwing an instance",
        "PermissionError: [Errno 13] Permission denied: '/usr/lib/x'",
        "ptrace: Operation not permitted.",
        "chmod: changing permissions of '/home/ada/builds/x': Operation not permitted",
        "static_assert failed: network topology is not supported [networking.cpp:6]",
    ],
)
def test_an_ordinary_failure_is_no_wall(text: str) -> None:
    assert violation(text, home=HOME, visible=["/home/ada/builds"]) == ""


def test_no_home_is_known() -> None:
    assert violation("cat: /home/ada/.netrc: No such file or directory") == ""


# --- macOS, as text -----------------------------------------------------------------------------------


def rules(text: str, head: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"({head} ")]


def test_the_profile(tmp_path: Path) -> None:
    real = tmp_path / 'with "quotes" \\ and space'
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    walls = Walls((tmp_path / "link",), (tmp_path / "tree",), tmp_path / "user" / "private")
    text = walls_macos.profile(walls, [tmp_path / "user"], [tmp_path / "lib"])
    lines = text.splitlines()
    assert lines[:3] == ["(version 1)", "(allow default)", "(deny network*)"]
    assert text.count("(") == text.count(")")
    quoted = '"' + str(real).replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert rules(text, "deny file-read*") == [f'(deny file-read* (subpath "{tmp_path}/user"))']
    (read,) = rules(text, "allow file-read*")
    for name in (
        f'"{tmp_path}/lib"',
        f'"{tmp_path}/link"',
        f'"{tmp_path}/tree"',
        f'"{tmp_path}/user/private"',
        quoted,
    ):
        assert f"(subpath {name})" in read
    written = " ".join(rules(text, "allow file-write*"))
    assert f'(subpath "{tmp_path}/tree")' in written and f'(subpath "{tmp_path}/user/private")' in written
    assert "link" not in written and quoted not in written
    assert '(literal "/dev/null")' in written
    # The last rule that fits counts.
    order = [lines.index(line) for line in ("(deny file-write*)", *rules(text, "allow file-write*"))]
    assert order == sorted(order)
    assert lines.index(rules(text, "deny file-read*")[0]) < lines.index(read)
    assert f'(literal "{tmp_path}/user")' in rules(text, "allow file-read-metadata")[0]
    opened = walls_macos.profile(replace(walls, network=True), [])
    assert "network" not in opened and "deny file-read" not in opened


def test_names_in_the_profile_are_the_real_ones(tmp_path: Path) -> None:
    """/tmp is /private/tmp there, and the kernel compares by that."""
    (tmp_path / "private" / "tmp" / "tree").mkdir(parents=True)
    (tmp_path / "tmp").symlink_to(tmp_path / "private" / "tmp")
    text = walls_macos.profile(Walls((), (tmp_path / "tmp" / "tree",), tmp_path / "home"), [])
    assert f'(subpath "{tmp_path}/private/tmp/tree")' in rules(text, "allow file-write*")[-1]


def test_sandbox_exec_is_called_as_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that only looks like it, and says what it was called with."""
    stand_in = tmp_path / "sandbox-exec"
    stand_in.write_text('#!/bin/sh\n[ "$1" = -p ] || exit 64\nshift 2\nexec "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(walls_macos, "SANDBOX_EXEC", str(stand_in))
    walls = Walls((), (), tmp_path / "home")
    code = "import os; print(os.environ['TMPDIR'], os.environ['DYLD_X'], os.path.isdir(os.environ['TMPDIR']))"
    env = {**SAFE, "DYLD_X": "a b"}
    done = walls_macos.SandboxExec().run([PYTHON, "-c", code], walls=walls, env=env, timeout_s=20)
    folder, given, there = (
        done.stdout.strip().split(" ", 1)[0],
        *done.stdout.strip().split(" ", 1)[1].rsplit(" ", 1),
    )
    assert Path(folder).parent == tmp_path / "home" and (given, there) == ("a b", "True")
    assert not Path(folder).exists() and done.argv == (str(PYTHON), "-c", code)
    stand_in.write_text('#!/bin/sh\necho "sandbox-exec: syntax error" >&2; exit 65\n')
    with pytest.raises(MachineTrouble, match="could not be put up: sandbox-exec: syntax error"):
        walls_macos.SandboxExec().run(["true"], walls=walls, env=SAFE, timeout_s=20)
