"""`bisect_tool cache` as a process, over a real store."""

from __future__ import annotations

import json
import os
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import click
import pytest
from cli_tool import Tool
from fake_mlx import GOOD, make_wheel

from bisect_tool import process
from bisect_tool.building.locks import held
from bisect_tool.building.store import Store
from bisect_tool.cli.cache import byte_size
from bisect_tool.measuring import ledger

A, B = ("0123456789ab" + "c" * 52, "0123ffffffff" + "d" * 52)


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path / "builds", tmp_path)


@pytest.fixture
def stored(tool: Tool) -> Tool:
    """A was made for main~3 and used last, B for a name that would clear the terminal."""
    wheel: Path = make_wheel(tool.cwd, GOOD)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("mlx/lib/libmlx.so", os.urandom(1_200_000))
    store = Store(tool.builds)
    facts = {
        "backend": "cpu",
        "abi": "cp311",
        "sha": "1" * 40,
        "made": "2026-03-01T12:30:00Z",
        "seconds": 270.5,
    }
    then = time.mktime((2026, 4, 1, 9, 5, 0, 0, 0, -1))
    for key, label, used in ((A, "main~3", then), (B, "\x1b[2J" + "x" * 60, then - 86400)):
        os.utime(store.put(key, wheel, {"revision": label, **facts}).folder, (used, used))
    return tool


def damage(tool: Tool, key: str) -> None:
    wheel = Store(tool.builds).look(key).wheel
    data = bytearray(wheel.read_bytes())
    data[600_000] ^= 1
    wheel.write_bytes(data)


def environment(tool: Tool, name: str, **facts: Any) -> Path:
    root = tool.builds / "environments" / name
    root.mkdir(parents=True)
    (root / "environment.json").write_text(json.dumps({"schema": 1, "wheel_digest": "d", **facts}))
    return root


def nothing_written(tool: Tool) -> bool:
    return not tool.builds.exists()


def test_nothing_stored_yet(tool: Tool) -> None:
    for words, says in (
        (["list"], "no builds yet; `bisect_tool build` makes one\n"),
        (["size"], f"{tool.builds} is empty\n"),
        (["verify"], "nothing stored yet\n"),
        (["prune", "--max-size", "1G"], "nothing to remove; 0 B left\n"),
    ):
        ended = tool("cache", *words)
        assert (ended.code, ended.out, ended.err) == (0, says, "")
    assert json.loads(tool("cache", "list", "--json").out) == {"schema": 1, "builds": []}
    assert nothing_written(tool)


def test_list(stored: Tool) -> None:
    ended = stored("cache", "list", TZ="UTC")
    assert (ended.code, ended.err) == (0, "")
    head, first, second = ended.out.splitlines()
    assert head.split() == ["key", "revision", "backend", "Python", "size", "made", "last", "used"]
    assert first.split()[:8] == [A[:12], "main~3", "cpu", "cp311", "1.2", "MB", "2026-03-01", "12:30"]
    assert first.split()[8] == "2026-04-01"
    assert second.startswith(B[:12]) and ended.out.replace("\n", "").isprintable()
    assert len(second) == len(first) < 130 and "…" in second
    data = json.loads(stored("cache", "list", "--json").out)
    assert data["schema"] == 1 and [build["key"] for build in data["builds"]] == [A, B]
    build = data["builds"][0]
    assert build["revision"] == "main~3" and build["seconds"] == 270.5 and Path(build["path"]).is_file()
    assert build["used"].startswith("2026-0") and list(build["libraries"]) == ["mlx/lib/libmlx.so"]


def test_list_of_a_damaged_build(stored: Tool) -> None:
    Store(stored.builds).look(A).wheel.write_bytes(b"")
    ended = stored("cache", "list")
    assert ended.code == 0 and A[:12] not in ended.out and B[:12] in ended.out
    assert ended.err.startswith(
        "warning: build 0123456789ab is damaged: mlx-9.9.9-py3-none-any.whl has 0 bytes"
    )
    assert "cache prune --damaged" in ended.err


def test_size(stored: Tool) -> None:
    environment(stored, "0.32.4-cpu-cp311")
    (stored.builds / "sessions").mkdir()
    (stored.builds / "sessions" / "one.jsonl").write_bytes(os.urandom(50_000))
    ended = stored("cache", "size")
    assert (ended.code, ended.err) == (0, "")
    lines = [line.rsplit(None, 3) for line in ended.out.splitlines()]
    assert lines[0][0].startswith(str(stored.builds))
    assert [line[0].split()[0] for line in lines[1:-1]] == ["wheels", "environments", "sessions", "locks"]
    assert lines[1][1:] == ["2", "2.4", "MB"] and lines[-1][-2:] == ["2.5", "MB"]
    data = json.loads(stored("cache", "size", "--json").out)
    parts = {part["name"]: part for part in data["parts"]}
    assert data["schema"] == 1 and data["bytes"] == sum(part["bytes"] for part in data["parts"])
    assert parts["wheels"]["items"] == 2 and parts["sessions"] == {
        "name": "sessions",
        "bytes": 53248,
        "items": 1,
    }


def test_prune_to_a_size(stored: Tool) -> None:
    kept = environment(stored, "measured", wheel_digest="now")
    environment(stored, "of-b", build=B)
    dry = stored("cache", "prune", "--max-size", "1.5M", "--dry-run")
    assert dry.code == 0 and dry.out.splitlines()[0].startswith("would remove environment of-b, ")
    assert "would free" in dry.out and dry.out.rstrip().endswith("would be left")
    header = {"id": "20260301-120000-abcdef"}
    with ledger.create(stored.builds, header, [{"kind": "arm", "arm": "x", "wheel_digest": "now"}]):
        ended = stored("cache", "prune", "--max-size", "1.5M")
        assert (ended.code, ended.err) == (0, "")
        first, second, last = ended.out.splitlines()
        assert first.startswith("removed environment of-b, 4.1 kB")
        assert second.startswith(f"removed build {B[:12]} ?[2J") and second.endswith("1.2 MB")
        assert last.startswith("freed 1.2 MB (1 environment, 1 build); 1.2 MB left")
        with held(stored.builds, f"build-{A[:16]}"):
            ended = stored("cache", "prune", "--max-size", "0")
        assert ended.code == 0 and ended.out.startswith("nothing to remove; 1.2 MB left")
        assert ended.err.splitlines()[:2] == [
            f"kept build {A[:12]} main~3, which is in use", "kept environment measured, which is in use",
        ]  # fmt: skip
        assert "more than 0 B" in ended.err
    ended = stored("cache", "prune", "--max-size", "0")
    assert "freed 1.2 MB (1 build, 1 environment)" in ended.out and not kept.exists()
    (session,) = stored.sessions()
    assert session.id == header["id"]
    assert stored("cache", "prune").out.startswith("nothing to remove; ")


def test_prune_to_less_than_can_be(stored: Tool) -> None:
    (stored.builds / "sources").mkdir()
    (stored.builds / "sources" / "fmt").write_bytes(os.urandom(200_000))
    ended = stored("cache", "prune", "--max-size", "100k")
    assert ended.code == 2 and "is never pruned (sources, compile caches, sessions, …)" in ended.error()
    assert len(Store(stored.builds).stored()) == 2


def test_verify(stored: Tool) -> None:
    ended = stored("cache", "verify")
    assert (ended.code, ended.out, ended.err) == (0, "2 builds, 0 environments: as they were made\n", "")
    damage(stored, B)
    environment(stored, "empty")
    ended = stored("cache", "verify")
    assert ended.code == 1
    assert ended.out.splitlines() == [
        f"build {B[:12]}: mlx-9.9.9-py3-none-any.whl is not the file that was stored",
        "environment empty: MLX is not in it",
    ]
    assert ended.error().startswith(
        "error: 2 of 3 stored builds and environments are damaged; `bisect_tool cache pr"
    )
    ended = stored("cache", "verify", "--json")
    data = json.loads(ended.out)
    assert ended.code == 1 and data["checked"] == {"builds": 2, "environments": 1} and data["schema"] == 1
    assert [(each["kind"], each["name"]) for each in data["damaged"]] == [
        ("build", B),
        ("environment", "empty"),
    ]
    ended = stored("cache", "prune", "--damaged")
    assert ended.code == 0 and "freed 1.2 MB (1 build, 1 environment)" in ended.out
    assert stored("cache", "verify").code == 0 and Store(stored.builds).stored() == [A]


def test_export_and_import(stored: Tool, tmp_path: Path) -> None:
    ended = stored("cache", "export", "out.tar", "01234", B[:6].upper())
    assert (ended.code, ended.out, ended.err) == (0, "exported 2 builds to out.tar, 2.4 MB\n", "")
    assert stored("cache", "export", "all.tar", "--all").code == 0
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert len(tar.getnames()) == 4
    other = Tool(tmp_path / "other", tmp_path)
    ended = other("cache", "import", "out.tar")
    assert ended.code == 0 and ended.out.startswith(f"imported {A[:12]} main~3\nimported {B[:12]} ?[2J")
    ended = other("cache", "import", "out.tar")
    assert ended.code == 0 and ended.out.startswith(f"already there: {A[:12]} main~3\n")
    data = bytearray((tmp_path / "out.tar").read_bytes())
    data[700_000] ^= 1
    (tmp_path / "out.tar").write_bytes(data)
    third = Tool(tmp_path / "third", tmp_path)
    ended = third("cache", "import", "out.tar")
    assert ended.code == 1 and "out.tar is refused: mlx-9.9.9" in ended.error()
    assert third("cache", "list").out.startswith("no builds yet")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["0123"],
            "2 builds have a key that begins with '0123': 0123456789ab, 0123ffffffff; give more of it",
        ),
        (["ffff"], "has a key that begins with 'ffff'; `bisect_tool cache list` shows them"),
        ([], "say which builds"),
        (["--all", "01234"], "say which builds"),
    ],
)
def test_export_of_what_cannot_be(words: list[str], says: str, stored: Tool, tmp_path: Path) -> None:
    ended = stored("cache", "export", "out.tar", *words)
    assert ended.code == 2 and says in ended.error()
    assert not (tmp_path / "out.tar").exists()


def test_builds_that_cannot_be_written(stored: Tool, small_disk: Path, tmp_path: Path) -> None:
    assert stored("cache", "export", "out.tar", "--all").code == 0
    tool = Tool(small_disk, tmp_path)
    assert tool("cache", "import", "out.tar").code == 0
    process.run(["mount", "-o", "remount,ro", str(small_disk)], timeout_s=10)
    assert tool("cache", "list").code == tool("cache", "verify").code == tool("cache", "size").code == 0
    for words in (["prune", "--max-size", "0"], ["export", str(small_disk / "x.tar"), "--all"]):
        ended = tool("cache", *words)
        assert ended.code == 1 and "Read-only file system" in ended.error()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20G", 20 * 10**9), ("1.5 GB", 1_500_000_000), ("2gib", 2 << 30), ("100k", 100_000), ("512", 512),
        ("0", 0), ("7 B", 7), ("1T", 10**12),
    ],
)  # fmt: skip
def test_sizes_that_can_be_typed(text: str, size: int) -> None:
    assert byte_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "20X", "1e3", "20 G G", "nan"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size such as 20G"):
        byte_size(text)
