"""Real wheels, real processes, real disks. Environments are installed by real uv."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import termios
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_mlx import GOOD, make_wheel

from bisect_tool import process
from bisect_tool.building import cache, installed
from bisect_tool.building.environment import Environment, ensure, find_interpreter
from bisect_tool.building.locks import held
from bisect_tool.building.store import RECORD, Build, Store, discard
from bisect_tool.building.transfer import export, import_
from bisect_tool.errors import DiskFull, EnvironmentBroken, StoreDamaged, ToolError, UsageProblem

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
LIBRARY = b"\x7fELF machine code"
CHILD = """
import signal, sys
from pathlib import Path
from bisect_tool.building.store import Store
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
build = Store(Path(sys.argv[1])).put(sys.argv[2], Path(sys.argv[3]), {"revision": "child"})
print(build.label, flush=True)
"""

# Holds a lock as uv does while it installs.
SHARES = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "builds")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return with_library(tmp_path / "made")


def with_library(folder: Path, library: bytes = LIBRARY) -> Path:
    folder.mkdir(exist_ok=True)
    path: Path = make_wheel(folder, GOOD)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("mlx/lib/libmlx.so", library)
        archive.writestr("mlx/core.cpython-311-x86_64-linux-gnu.so", b"extension")
        archive.writestr("mlx/lib/mlx.metallib", b"kernels")
        archive.writestr("mlx/lib/libmlx.so.txt", b"no library")
    return path


def aged(build: Build, days: float) -> Build:
    then = time.time() - days * 86400
    os.utime(build.folder, (then, then))
    return build


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# --- kept and found again -----------------------------------------------------------------------------


def test_put_and_get(store: Store, wheel: Path) -> None:
    record = {"revision": "main~3", "sha": "1" * 40, "backend": "cpu", "abi": "cp311", "remedies": ["x"]}
    made = store.put(A, wheel, record)
    found = store.get(A)
    assert found is not None and (found.key, found.wheel, found.record) == (A, made.wheel, made.record)
    assert found.wheel.read_bytes() == wheel.read_bytes() and found.wheel.name == wheel.name
    assert found.record.items() >= record.items()
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert found.record["wheel"] == {"name": wheel.name, "sha256": sha256, "size": wheel.stat().st_size}
    assert found.record["libraries"] == {
        "mlx/core.cpython-311-x86_64-linux-gnu.so": hashlib.sha256(b"extension").hexdigest(),
        "mlx/lib/libmlx.so": hashlib.sha256(LIBRARY).hexdigest(),
        "mlx/lib/mlx.metallib": hashlib.sha256(b"kernels").hexdigest(),
    }
    assert time.strptime(found.record["made"], "%Y-%m-%dT%H:%M:%SZ")
    assert (found.label, found.size) == ("main~3", wheel.stat().st_size)
    assert store.get(B) is None and store.stored() == [A] and store.verify(A) == ""
    assert names(store.root) == [A] and names(found.folder) == [RECORD, wheel.name]
    store.remove(A)
    store.remove(A)
    assert store.get(A) is None and names(store.root) == []


def test_first_of_two_stays(store: Store, wheel: Path, tmp_path: Path) -> None:
    store.put(A, wheel, {"revision": "first"})
    second = store.put(A, with_library(tmp_path / "other", b"another"), {"revision": "second"})
    assert second.label == "first" and second.wheel.read_bytes() == wheel.read_bytes()
    assert names(store.root) == [A]


def test_get_marks_as_used_and_looking_does_not(store: Store, wheel: Path) -> None:
    for key, days in ((A, 3.0), (B, 2.0), (C, 1.0)):
        aged(store.put(key, wheel, {}), days)
    store.look(A)
    store.verify(A)
    assert [build.key for build in store.builds()] == [C, B, A]
    assert store.get(A) is not None
    assert [build.key for build in store.builds()] == [A, C, B]


def test_get_is_cheap(store: Store, wheel: Path) -> None:
    store.put(A, wheel, {"libraries_of_the_log": "x" * 20000})
    took = []
    for _ in range(50):
        started = time.perf_counter()
        assert store.get(A) is not None
        took.append(time.perf_counter() - started)
    assert min(took) < 0.001


@pytest.mark.parametrize("key", ["a" * 63, "A" * 64, "../" + "a" * 61, ""])
def test_what_is_no_key(key: str, store: Store, wheel: Path) -> None:
    with pytest.raises(ValueError, match="is no key"):
        store.put(key, wheel, {})
    with pytest.raises(ValueError, match="is no key"):
        store.remove(key)


def test_what_is_no_wheel(store: Store, tmp_path: Path) -> None:
    broken = tmp_path / "mlx-1-py3-none-any.whl"
    broken.write_bytes(b"PK no zip")
    with pytest.raises(StoreDamaged, match="is no wheel"):
        store.put(A, broken, {})
    with pytest.raises(FileNotFoundError):
        store.put(A, tmp_path / "absent.whl", {})
    with pytest.raises(TypeError):
        store.put(A, with_library(tmp_path / "made"), {"made_by": object()})
    assert names(store.root) == []


def test_keys_by_their_beginning(store: Store, wheel: Path) -> None:
    other = "ab" + "0" * 62
    for key in (A, other):
        store.put(key, wheel, {})
    assert store.find("AB") == other and store.find("aa") == A and store.find(A) == A
    with pytest.raises(UsageProblem, match=r"2 builds .*'a': aaaaaaaaaaaa, ab0000000000; give more"):
        store.find("a")
    for absent in ("c", "", "../x", A + "a"):
        with pytest.raises(UsageProblem, match=r"no build in .*cache list"):
            store.find(absent)


# --- damage -------------------------------------------------------------------------------------------


def edit(build: Build, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads((build.folder / RECORD).read_text())
    change(record)
    (build.folder / RECORD).write_text(json.dumps(record))


def flipped(build: Build) -> None:
    data = bytearray(build.wheel.read_bytes())
    data[data.index(LIBRARY)] ^= 1
    build.wheel.write_bytes(data)


def linked(build: Build) -> None:
    away = build.folder.parent.parent / "away.whl"
    build.wheel.rename(away)
    build.wheel.symlink_to(away)


def by_a_file(build: Build) -> None:
    discard(build.folder)
    build.folder.write_text("")


def other_library(build: Build) -> None:
    with_library(build.folder, LIBRARY[::-1])
    data = build.wheel.read_bytes()
    facts = {"name": build.wheel.name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(build, lambda record: record.update(wheel=facts))


# What was done -> (what `verify` says, whether a look finds it as well).
DAMAGES: dict[str, tuple[Callable[[Build], object], str, bool]] = {
    "no wheel": (lambda b: b.wheel.unlink(), "No such file", True),
    "cut short": (lambda b: b.wheel.write_bytes(b.wheel.read_bytes()[:-1]), "bytes, not", True),
    "a link": (linked, "bytes, not", True),
    "one bit": (flipped, "is not the file that was stored", False),
    "another library": (other_library, "libmlx.so in .* is not what build.json says", False),
    "no record": (lambda b: (b.folder / RECORD).unlink(), "build.json: No such file", True),
    "half a record": (lambda b: (b.folder / RECORD).write_text('{"schema": 1,'), "cannot be read", True),
    "deep record": (lambda b: (b.folder / RECORD).write_text("[" * 100000), "cannot be read", True),
    "a list": (lambda b: (b.folder / RECORD).write_text("[]"), "no record of a build", True),
    "other schema": (lambda b: edit(b, lambda r: r.update(schema=2)), "schema 2", True),
    "other key": (lambda b: edit(b, lambda r: r.update(key=B)), "of another build", True),
    "no digests": (lambda b: edit(b, lambda r: r.pop("libraries")), "not describe its wheel", True),
    "no size": (lambda b: edit(b, lambda r: r["wheel"].pop("size")), "not describe its wheel", True),
    "outside": (lambda b: edit(b, lambda r: r["wheel"].update(name="../x.whl")), "names no wheel", True),
    "a file": (by_a_file, "Not a directory", True),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_made_good(damage: str, store: Store, wheel: Path) -> None:
    do, says, at_a_look = DAMAGES[damage]
    build = store.put(A, wheel, {})
    do(build)
    assert re.search(says, store.verify(A)), store.verify(A)
    assert (store.get(A) is None) == at_a_look
    assert (store.builds() == []) == at_a_look and store.stored() == [A]
    if not at_a_look:
        assert [item.name for item in cache.prune(store.base, damaged=True).removed] == [A[:12]]
    store.put(A, wheel, {})
    assert store.verify(A) == "" and store.get(A) is not None
    assert names(store.root) == [A]


# --- several processes, and dying ones ----------------------------------------------------------------


@pytest.fixture
def half_way(store: Store, wheel: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """A process that puts A and has read half of its wheel; what it reads the rest from."""
    pipe = tmp_path / "pipe" / wheel.name
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    argv = [sys.executable, "-c", CHILD, str(store.base), A, str(pipe)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with pipe.open("wb", buffering=0) as source:
        source.write(wheel.read_bytes()[:500])
        deadline = time.monotonic() + 60
        while not list(store.root.glob(".*.tmp/*.whl")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        while fcntl.ioctl(source, termios.FIONREAD, bytes(4)) != bytes(4):  # until it has read all of that
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.1)  # and waits for more: a signal just before that would go unnoticed
        yield child, source
    child.kill()
    child.communicate()


HalfWay = tuple["subprocess.Popen[str]", Any]


def test_killed_while_putting(store: Store, wheel: Path, half_way: HalfWay) -> None:
    child, _ = half_way
    assert cache.prune(store.base).removed == (), "its maker lives"
    (folder,) = store.root.iterdir()
    for path in (*folder.iterdir(), folder):
        os.utime(path, (0, 0))
    assert cache.prune(store.base).removed == (), "and has it locked, however long it takes"
    child.kill()
    child.wait()
    (left,) = names(store.root)
    assert left.startswith(f".{A}.") and left.endswith(".tmp")
    assert store.get(A) is None and store.stored() == [] and store.builds() == []
    (item,) = cache.prune(store.base).removed
    assert item.kind == "leftover" and names(store.root) == []
    assert store.put(A, wheel, {}).key == A


def test_interrupted_while_putting(store: Store, half_way: HalfWay) -> None:
    child, _ = half_way
    child.send_signal(signal.SIGINT)
    assert child.wait(30) != 0 and names(store.root) == []


def test_two_put_one_key(store: Store, wheel: Path, tmp_path: Path, half_way: HalfWay) -> None:
    child, source = half_way
    mine = store.put(A, with_library(tmp_path / "mine", b"mine"), {"revision": "mine"})
    before = mine.wheel.stat().st_ino
    source.write(wheel.read_bytes()[500:])
    source.close()
    assert child.communicate(timeout=60)[0] == "mine\n"
    assert store.look(A).wheel.stat().st_ino == before and store.verify(A) == ""
    assert names(store.root) == [A]


def test_never_half_an_entry(store: Store, wheel: Path) -> None:
    expected = wheel.read_bytes()
    over = threading.Event()
    problems: list[BaseException] = []

    def put_and_remove() -> None:
        try:
            while not over.is_set():
                with contextlib.suppress(StoreDamaged):  # removed by another before it was looked at
                    store.put(A, wheel, {})
                store.remove(A)
        except BaseException as problem:
            problems.append(problem)

    workers = [threading.Thread(target=put_and_remove) for _ in range(3)]
    for worker in workers:
        worker.start()
    seen, deadline = 0, time.monotonic() + 30
    while seen < 30 and time.monotonic() < deadline and not problems:
        found = store.get(A)
        with contextlib.suppress(FileNotFoundError):
            if found is not None:
                assert found.wheel.read_bytes() == expected
                seen += 1
    over.set()
    for worker in workers:
        worker.join()
    assert not problems and seen == 30
    assert names(store.root) == []


# --- the disk -----------------------------------------------------------------------------------------


def test_disk_fills_up(small_disk: Path, tmp_path: Path) -> None:
    big = with_library(tmp_path / "made", os.urandom(30 << 20))
    with pytest.raises(DiskFull, match=r"is full: No space left.*free some space"):
        Store(small_disk).put(A, big, {})
    assert names(small_disk / "wheels") == []
    small = Store(small_disk).put(A, with_library(tmp_path / "small"), {})
    assert small.key == A, "the room is free again"


def test_builds_cannot_be_written(small_disk: Path, wheel: Path) -> None:
    store = Store(small_disk)
    store.put(A, wheel, {})
    process.run(["mount", "-o", "remount,ro", str(small_disk)], timeout_s=10)
    assert store.get(A) is not None, "reading is possible all the same"
    for change in (
        lambda: store.put(B, wheel, {}),
        lambda: store.remove(A),
        lambda: cache.prune(small_disk, 0),
    ):
        with pytest.raises(EnvironmentBroken, match=r"Read-only file system.*--builds DIR") as caught:
            change()
        assert "\n" not in str(caught.value)


def test_file_system_that_folds_case(store: Store, wheel: Path) -> None:
    """Nothing that is stored has a name that differs from another only by case."""
    store.put(A, wheel, {"revision": "Main"})
    everything = [str(path.relative_to(store.root)) for path in store.root.rglob("*")]
    assert len({name.lower() for name in everything}) == len(everything)
    assert store.find(A.upper()) == A


# --- environments -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_NO_INDEX", "1")
        patch.setenv("UV_FIND_LINKS", str(folder))
        patch.delenv("UV_CACHE_DIR", raising=False)
        make_wheel(folder, GOOD)
        backend = "metal" if sys.platform == "darwin" else "cpu"
        return ensure("9.9.9", backend, builds=folder / "builds", interpreter=find_interpreter())


def core_changed(site: Path) -> None:
    data = (site / "mlx/core.py").read_text()
    (site / "mlx/core.py").unlink()  # it is a link into uv's cache
    (site / "mlx/core.py").write_text(data.replace("ran", "RAN"))


def core_linked(site: Path) -> None:
    (site / "mlx/core.py").rename(site / "elsewhere.py")
    (site / "mlx/core.py").symlink_to(site / "elsewhere.py")


def no_mlx(site: Path) -> None:
    for path in site.glob("mlx*"):
        shutil.rmtree(path)


def record_changed(site: Path) -> None:
    (record,) = site.glob("mlx*.dist-info/RECORD")
    kept = [line for line in record.read_text().splitlines() if "core.py" not in line]
    record.unlink()
    record.write_text("\n".join(kept))


ENVIRONMENT_DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda _: None, ""),
    "compiled": (lambda site: (site / "mlx/__pycache__/core.cpython-311.pyc").write_bytes(b""), ""),
    "changed": (core_changed, "mlx/core.py was changed"),
    "gone": (lambda site: (site / "mlx/core.py").unlink(), "mlx/core.py is missing"),
    "linked": (core_linked, "mlx/core.py is a link to another file"),
    "added": (lambda site: (site / "mlx/core.so").write_bytes(b""), "mlx/core.so was not installed with MLX"),
    "record": (record_changed, "the RECORD of MLX is not the one that was installed"),
    "launcher": (lambda site: (site / "../../../bin/mlx.run").write_text(""), "bin/mlx.run was changed"),
    "no MLX": (no_mlx, "MLX is not in it"),
}


@pytest.mark.parametrize("damage", ENVIRONMENT_DAMAGES)
def test_environment_that_was_edited(damage: str, whole: Environment, tmp_path: Path) -> None:
    do, says = ENVIRONMENT_DAMAGES[damage]
    root = tmp_path / "builds" / "environments" / whole.root.name
    shutil.copytree(whole.root, root, symlinks=True)
    (site,) = root.glob("lib/python*/site-packages")
    (site / "mlx/__pycache__").mkdir(exist_ok=True)
    do(site)
    (found,), leftovers = installed.environments(tmp_path / "builds")
    assert not leftovers and (found.name, found.build) == (whole.root.name, "")
    said = installed.verify(found)
    assert said.endswith(says) if says else said == ""
    pruned = cache.prune(tmp_path / "builds", damaged=True).removed
    assert [item.kind for item in pruned] == (["environment"] if says else [])
    assert root.exists() == (not says)


# --- making room --------------------------------------------------------------------------------------


def fake_environment(store: Store, name: str, *, build: str = "", days: float = 0, digest: str = "d") -> Path:
    root = store.base / "environments" / name
    root.mkdir(parents=True)
    (root / "libmlx.so").write_bytes(os.urandom(200_000))
    (root / "environment.json").write_text(json.dumps({"schema": 1, "build": build, "wheel_digest": digest}))
    then = time.time() - days * 86400
    for path in (root / "environment.json", root):
        os.utime(path, (then, then))
    return root


@pytest.fixture
def full(store: Store, wheel: Path) -> Store:
    """Something of every kind. A was used last, B longest ago."""
    for key, days in ((A, 1.0), (B, 3.0), (C, 2.0)):
        aged(store.put(key, wheel, {"revision": f"rev-{key[0]}"}), days)
    fake_environment(store, "of-a", build=A, days=5)
    fake_environment(store, "of-b", build=B, days=4)
    fake_environment(store, "of-gone", build="e" * 64)
    fake_environment(store, "0.32.4-cpu-cp311", days=9)
    fake_environment(store, "0.32.3-cpu-cp311", days=8, digest="measured")
    recent = ("cache/uv/archive", "cache/unpacked/x", "cache/ccache/0", "sources/fmt", "sessions")
    for path, days in (("trees/cpu-1", 20), ("trees/cpu-2", 30), *((each, 0) for each in recent)):
        folder = store.base / path
        folder.mkdir(parents=True)
        (folder / "data.jsonl").write_bytes(os.urandom(100_000))
        then = time.time() - days * 86400
        for each in (folder / "data.jsonl", folder):
            os.utime(each, (then, then))
    return store


ORDER = [
    "cache/unpacked", "of-gone", "of-a", "of-b", f"{B[:12]} rev-b", f"{C[:12]} rev-c", f"{A[:12]} rev-a",
    "0.32.4-cpu-cp311", "0.32.3-cpu-cp311", "cpu-2", "cpu-1", "cache/uv",
]  # fmt: skip
NEVER = ["cache/ccache/0/data.jsonl", "sessions/data.jsonl", "sources/fmt/data.jsonl"]


def total(store: Store) -> int:
    return sum(part.bytes for part in cache.usage(store.base))


def test_order_of_pruning(full: Store) -> None:
    before = names(full.root), names(full.base / "environments")
    tried = cache.prune(full.base, 0, dry_run=True)
    assert [item.name for item in tried.removed] == ORDER
    assert (names(full.root), names(full.base / "environments")) == before
    assert tried.before == total(full)
    # Whatever the limit, what goes is the beginning of that order, and no more than it takes.
    left = tried.before
    for number, item in enumerate(tried.removed):
        some = cache.prune(full.base, left, dry_run=True)
        assert [each.name for each in some.removed] == ORDER[:number] and some.after == left
        assert item.freed > 0
        left -= item.freed
    done = cache.prune(full.base, 0)
    assert [item.name for item in done.removed] == ORDER
    assert abs(done.after - total(full)) <= 8192, "folders and locks apart"
    kept = [str(path.relative_to(full.base)) for path in full.base.rglob("*") if path.is_file()]
    assert [name for name in sorted(kept) if not name.startswith("locks/")] == NEVER
    assert cache.prune(full.base, 0).removed == ()


def test_nothing_that_is_in_use(full: Store) -> None:
    with contextlib.ExitStack() as running:
        for lock in (f"build-{B[:16]}", "tree-cpu-2", "of-a"):
            running.enter_context(held(full.base, lock))
        (full.base / "cache/uv/.lock").touch()
        argv = [sys.executable, "-c", SHARES, str(full.base / "cache/uv/.lock")]
        uv = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.callback(uv.communicate)
        assert uv.stdout is not None and uv.stdout.readline() == "held\n"
        done = cache.prune(full.base, 0, in_use={"measured"})
    in_use = {f"{B[:12]} rev-b", "cpu-2", "of-a", "0.32.3-cpu-cp311", "cache/uv"}
    assert {item.name for item in done.kept} == in_use
    assert [item.name for item in done.removed] == [name for name in ORDER if name not in in_use]
    assert names(full.root) == [B]
    assert names(full.base / "environments") == ["0.32.3-cpu-cp311", "of-a"]
    assert {item.name for item in cache.prune(full.base, 0).removed} == in_use, "all let go"


def test_limit_that_cannot_be_met_removes_nothing(full: Store) -> None:
    with pytest.raises(UsageProblem, match=r"as small as 100 kB: 3\d\d kB of it is never pruned.*cache size"):
        cache.prune(full.base, 100_000)
    assert len(names(full.root)) == 3


def test_linked_files_count_once(store: Store) -> None:
    environment = fake_environment(store, "0.32.4-cpu-cp311")
    (store.base / "cache" / "uv").mkdir(parents=True)
    os.link(environment / "libmlx.so", store.base / "cache" / "uv" / "libmlx.so")
    sizes = {part.name: part.bytes for part in cache.usage(store.base)}
    assert sizes["environments"] > 200_000 and sizes["cache/uv"] == 0
    first, second = cache.prune(store.base, 0, dry_run=True).removed
    assert first.freed < 10_000 and second.freed > 200_000, "the last name frees it"
    assert (first.kind, second.kind) == ("environment", "cache")


def test_leftovers_go_and_work_in_progress_stays(store: Store) -> None:
    environments, trees = store.base / "environments", store.base / "trees"
    for path in (
        environments / ".a.123-abc.tmp", environments / "undescribed", environments / ".busy.123-abc.tmp",
        trees / ".old.123-abc.tmp", trees / ".cpu.123-abc.tmp", store.root / f".{A}.999999999-ab.tmp",
        store.root / f".{B}.{os.getpid()}-ab.tmp", store.root / C, store.base / "sources" / ".fresh.1-a.tmp",
        store.base / "sources" / ".late.1-a.tmp", store.base / "build-environments" / ".old.1-a.tmp",
    ):  # fmt: skip
        path.mkdir(parents=True)
    os.utime(store.base / "sources" / ".late.1-a.tmp", (0, 0))
    with held(store.base, "busy"), held(store.base, "tree-cpu"):
        done = cache.prune(store.base)
    assert {item.kind for item in done.removed} == {"leftover"}
    assert names(environments) == [".busy.123-abc.tmp"] and names(trees) == [".cpu.123-abc.tmp"]
    assert names(store.base / "build-environments") == []
    assert names(store.base / "sources") == [".fresh.1-a.tmp"]
    assert names(store.root) == [f".{B}.{os.getpid()}-ab.tmp"], "about to be locked by its maker, us"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9_949, "9.9 kB"), (9_951, "10 kB"),
        (345_400_000, "345 MB"), (999_499_999, "999 MB"), (999_500_000, "1.0 GB"),
        (1_240_000_000, "1.2 GB"), (34_56 * 10**10, "34.6 TB"),
    ],
)  # fmt: skip
def test_sizes_in_words(size: int, text: str) -> None:
    assert cache.size_text(size) == text


# --- to another machine -------------------------------------------------------------------------------


def test_export_and_import(store: Store, wheel: Path, tmp_path: Path) -> None:
    for key in (A, B):
        store.put(key, wheel, {"revision": key[:3], "remedies": ["a missing include"]})
    file = tmp_path / "out.tar"
    assert [build.key for build in export(store, [A, B, A], file)] == [A, B]
    with tarfile.open(file, "r:") as tar:
        assert tar.getnames() == [f"{A}/{RECORD}", f"{A}/{wheel.name}", f"{B}/{RECORD}", f"{B}/{wheel.name}"]
        assert {(member.uname, member.mtime, member.mode) for member in tar} == {("", 0, 0o644)}
    other = Store(tmp_path / "other")
    other.put(A, wheel, {"revision": "mine"})
    done = import_(other, file)
    assert [build.label for build in done.taken] == ["bbb"]
    assert [build.label for build in done.present] == ["mine"]
    assert other.verify(B) == "" and other.look(B).record == store.look(B).record
    flipped(other.look(B))
    assert [build.key for build in import_(other, file).taken] == [B], "what was damaged is made good"
    assert other.verify(B) == "" and names(other.root) == [A, B]


def test_export_that_fails_leaves_nothing(
    store: Store, wheel: Path, tmp_path: Path, small_disk: Path
) -> None:
    store.put(A, wheel, {})
    store.put(B, with_library(tmp_path / "big", os.urandom(30 << 20)), {})
    with pytest.raises(DiskFull, match="no room left to write"):
        export(store, [A, B], small_disk / "out.tar")
    assert names(small_disk) == []
    flipped(store.look(A))
    with pytest.raises(StoreDamaged, match=r"aaaaaaaaaaaa is damaged: .* is not the file that was stored"):
        export(store, [A], tmp_path / "out.tar")
    with pytest.raises(ToolError, match=r"cannot write .*No such file"):
        export(store, [B], tmp_path / "absent" / "out.tar")
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UsageProblem, match="is there already"):
        export(store, [B], tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "precious"
    assert not list(tmp_path.glob("*.tar")) and not list(tmp_path.glob(".*"))


def member(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> Any:
    about = tarfile.TarInfo(name)
    about.type, about.linkname, about.size = kind, link, len(data) if kind == tarfile.REGTYPE else 0
    return about, data


Members = list[tuple[tarfile.TarInfo, bytes]]
NAME = "mlx-9.9.9-py3-none-any.whl"


def described(members: Members, **changed: Any) -> Members:
    record = {**json.loads(members[2][1]), **changed}
    return [*members[:2], member(f"{B}/{RECORD}", json.dumps(record).encode()), members[3]]


def with_wheel(members: Members, **changed: Any) -> Members:
    return described(members, wheel={**json.loads(members[2][1])["wheel"], **changed})


HOSTILE: dict[str, tuple[Callable[[Members], Members], str]] = {
    "outside": (lambda m: [*m, member("../../evil.whl")], "not of a build"),
    "absolute": (lambda m: [member("/etc/evil"), *m], "not of a build"),
    "outside of its key": (lambda m: [*m, member(f"{C}/../x.whl")], "not of a build"),
    "another file": (lambda m: [*m, member(f"{B}/setup.py")], "not of a build"),
    "upper case": (lambda m: [*m, member(f"{'C' * 64}/{RECORD}")], "not of a build"),
    "escapes": (lambda m: [*m, member("\x1b[31m")], "not of a build"),
    "symbolic link": (
        lambda m: [*m[:3], member(f"{B}/{NAME}", b"", tarfile.SYMTYPE, "/etc/passwd")],
        "plain file",
    ),
    "hard link": (
        lambda m: [*m[:3], member(f"{B}/{NAME}", b"", tarfile.LNKTYPE, m[1][0].name)],
        "plain file",
    ),
    "device": (lambda m: [*m[:3], member(f"{B}/{NAME}", b"", tarfile.CHRTYPE)], "plain file"),
    "folder": (lambda m: [member(f"{B}/{NAME}", b"", tarfile.DIRTYPE), *m], "plain file"),
    "twice": (lambda m: [*m, m[3]], "twice"),
    "second wheel": (lambda m: [*m, member(f"{B}/other.whl")], "missing, or not the one"),
    "no wheel": (lambda m: m[:3], "missing, or not the one"),
    "no record": (lambda m: [*m[:2], m[3]], "has no record"),
    "huge record": (lambda m: [*m[:2], member(f"{B}/{RECORD}", bytes(5 << 20)), m[3]], "has no record"),
    "broken record": (lambda m: [*m[:2], member(f"{B}/{RECORD}", b"{"), m[3]], "cannot be read"),
    "other key": (lambda m: described(m, key=A), "of another build"),
    "other digest": (lambda m: with_wheel(m, sha256="0" * 64), "not the file that was exported"),
    "other size": (lambda m: with_wheel(m, size=3), "not the file that was exported"),
    "other libraries": (lambda m: described(m, libraries={}), "libraries in .* are not the ones"),
    "other wheel": (lambda m: [*m[:3], member(f"{B}/{NAME}", b"no zip")], "not the file that was exported"),
    "nothing": (lambda m: m[:0], "no build in it"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_hostile_export(how: str, store: Store, wheel: Path, tmp_path: Path) -> None:
    for key in (A, B):
        store.put(key, wheel, {})
    export(store, [A, B], tmp_path / "good.tar")
    with tarfile.open(tmp_path / "good.tar") as tar:
        members = [(about, (tar.extractfile(about) or io.BytesIO()).read()) for about in tar]
    change, says = HOSTILE[how]
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for about, data in change(members):
            tar.addfile(about, io.BytesIO(data))
    other = Store(tmp_path / "other" / "builds")
    with pytest.raises(StoreDamaged, match=rf"bad.tar is refused: .*{says}") as caught:
        import_(other, tmp_path / "bad.tar")
    assert str(caught.value).isprintable()
    # Not even the first, which is as it should be.
    assert names(other.root) == []
    assert names(tmp_path / "other") in ([], ["builds"])


def test_sparse_member_is_refused(store: Store, tmp_path: Path) -> None:
    sparse = tmp_path / NAME
    with sparse.open("wb") as file:
        file.truncate(1 << 30)
    made = process.run(["tar", "--version"], timeout_s=10)
    if "GNU" not in made.stdout:
        pytest.skip("makes its sparse member with GNU tar")
    argv = ["tar", "-S", "--format=gnu", "--transform", f"s|^|{A}/|", "-cf", "bad.tar", NAME]
    assert process.run(argv, cwd=tmp_path, timeout_s=60).ok
    with pytest.raises(StoreDamaged, match="is no plain file"):
        import_(store, tmp_path / "bad.tar")


@pytest.mark.parametrize("how", ["cut", "compressed", "text", "empty"])
def test_what_is_no_export(how: str, store: Store, wheel: Path, tmp_path: Path) -> None:
    store.put(A, wheel, {})
    file = tmp_path / "bad.tar"
    export(store, [A], file)
    if how == "cut":
        file.write_bytes(file.read_bytes()[: 3 * 512 + 900])
    elif how == "compressed":
        import gzip

        file.write_bytes(gzip.compress(file.read_bytes()))
    else:
        file.write_bytes(b"hello\n" * 1000 if how == "text" else b"")
    other = Store(tmp_path / "other")
    with pytest.raises(StoreDamaged, match=r"bad.tar is refused: "):
        import_(other, file)
    assert names(other.root) == []
    with pytest.raises(UsageProblem, match=r"cannot read .*No such file"):
        import_(other, tmp_path / "absent.tar")


def test_import_onto_a_full_disk(small_disk: Path, store: Store, wheel: Path, tmp_path: Path) -> None:
    store.put(A, wheel, {})
    store.put(B, with_library(tmp_path / "big", os.urandom(30 << 20)), {})
    export(store, [A, B], tmp_path / "out.tar")
    with pytest.raises(DiskFull, match="is full"):
        import_(Store(small_disk), tmp_path / "out.tar")
    assert names(small_disk / "wheels") == []
