"""`bisect_tool cache`: what is stored, its size, whether it is whole, and to and from other machines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bisect_tool.cli.options import builds_option, json_option
from bisect_tool.paths import builds_folder

if TYPE_CHECKING:
    from bisect_tool.building.cache import Item
    from bisect_tool.building.store import Build

LABEL_CHARS = 40
PLURALS = {
    "build": "builds",
    "environment": "environments",
    "kept tree": "kept trees",
    "leftover": "leftovers",
    "cache": "caches",
}


@click.group("cache")
def command() -> None:
    """Stored builds and all else that is kept: list, measure, prune, verify, exchange."""


def byte_size(text: str) -> int:
    """Parameter type: ``20G``, ``500 MB``, ``1.5GiB``, ``0``; bytes. Raises click.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(I?)B?|B?)", text.strip().upper())
    if match is None:
        raise click.BadParameter(f"{text!r} is no size such as 20G or 500M")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** (" KMGT".index(match[2] or " ")))


@command.command("list")
@builds_option
@json_option
def list_(builds: Path | None, as_json: bool) -> None:
    """List the stored builds, the one used last first."""
    from bisect_tool.building.cache import size_text
    from bisect_tool.building.store import SHOWN, Store, printable
    from bisect_tool.errors import StoreDamaged

    store = Store(builds_folder(builds))
    stored = store.builds()
    for key in sorted(set(store.stored()) - {build.key for build in stored}):
        try:
            store.look(key)
        except StoreDamaged as problem:
            click.echo(f"warning: {problem.line()}", err=True)
    if as_json:
        rows = [{**build.record, "used": _iso(build.used), "path": str(build.wheel)} for build in stored]
        click.echo(json.dumps({"schema": 1, "builds": rows}, indent=1))
        return
    if not stored:
        click.echo("no builds yet; `bisect_tool build` makes one")
        return
    from tabulate import tabulate

    cells = [
        [
            build.key[:SHOWN],
            _short(build.label),
            _short(printable(build.record.get("backend") or "")),
            _short(printable(build.record.get("abi") or "")),
            size_text(build.size),
            _made(build),
            _local(build.used),
        ]
        for build in stored
    ]
    head = ["key", "revision", "backend", "Python", "size", "made", "last used"]
    align = ("left", "left", "left", "left", "right", "left", "left")
    click.echo(tabulate(cells, headers=head, tablefmt="plain", disable_numparse=True, colalign=align))


@command.command("size")
@builds_option
@json_option
def size(builds: Path | None, as_json: bool) -> None:
    """Say what takes how much of the disk.

    A file with several names counts once: uv links environments into its cache.
    """
    from bisect_tool.building.cache import size_text, usage

    folder = builds_folder(builds)
    parts = usage(folder)
    total = sum(part.bytes for part in parts)
    if as_json:
        rows = [{"name": part.name, "bytes": part.bytes, "items": part.items} for part in parts]
        data = {"schema": 1, "folder": str(folder), "bytes": total, "parts": rows}
        click.echo(json.dumps(data, indent=1))
        return
    if not parts:
        click.echo(f"{folder} is empty")
        return
    from tabulate import tabulate

    cells = [[part.name, str(part.items), size_text(part.bytes)] for part in parts]
    cells.append(["all", "", size_text(total)])
    click.echo(
        tabulate(
            cells,
            headers=[str(folder), "items", "size"],
            tablefmt="plain",
            disable_numparse=True,
            colalign=("left", "right", "right"),
        )
    )


@command.command("prune")
@builds_option
@click.option("--max-size", type=byte_size, metavar="SIZE", help="What may remain, such as 20G; 0: nothing.")
@click.option("--damaged", is_flag=True, help="Also what `verify` finds damaged.")
@click.option("--dry-run", is_flag=True, help="Remove nothing, say what would go.")
def prune_(builds: Path | None, max_size: int | None, damaged: bool, dry_run: bool) -> None:
    """Remove leftovers, and what was used least recently.

    Without options only what tools that were killed left behind. All that goes can be made again. Until
    --max-size is met it goes in this order: environments of builds, builds, environments of releases, kept
    build trees, downloads. Never sessions, nor what a running bisect_tool uses.
    """
    from bisect_tool.building.cache import prune, size_text

    def told(item: Item) -> None:
        click.echo(
            f"{'would remove' if dry_run else 'removed'} {item.kind} {item.name}, {size_text(item.freed)}"
        )

    folder = builds_folder(builds)
    done = prune(folder, max_size, damaged=damaged, in_use=_in_use(folder), dry_run=dry_run, on_removed=told)
    for item in done.kept:
        click.echo(f"kept {item.kind} {item.name}, which is in use", err=True)
    if done.removed:
        verb = "would free" if dry_run else "freed"
        freed = f"{verb} {size_text(done.before - done.after)} ({_counted(done.removed)})"
    else:
        freed = "nothing to remove"
    left = "would be left" if dry_run and done.removed else "left"
    click.echo(f"{freed}; {size_text(done.after)} {left}")
    if max_size is not None and done.after > max_size:
        click.echo(f"more than {size_text(max_size)}: the rest is in use or never pruned", err=True)


@command.command("verify")
@builds_option
@json_option
def verify(builds: Path | None, as_json: bool) -> None:
    """Compare builds and environments with their records.

    Every byte is read. Exit code 1 when something differs.
    """
    from bisect_tool.building import installed
    from bisect_tool.building.store import SHOWN, Store
    from bisect_tool.errors import StoreDamaged

    folder = builds_folder(builds)
    store = Store(folder)
    keys = store.stored()
    environments, _ = installed.environments(folder)
    damaged: list[dict[str, str]] = []

    def note(kind: str, name: str, shown: str, path: Path, wrong: str) -> None:
        if not wrong or not path.exists():  # pruned while it was read
            return
        damaged.append({"kind": kind, "name": name, "problem": wrong})
        if not as_json:
            click.echo(f"{kind} {shown}: {wrong}")

    for key in keys:
        note("build", key, key[:SHOWN], store.root / key, store.verify(key))
    for each in environments:
        note("environment", each.name, each.name, each.folder, installed.verify(each))
    if as_json:
        checked = {"builds": len(keys), "environments": len(environments)}
        click.echo(json.dumps({"schema": 1, "checked": checked, "damaged": damaged}, indent=1))
    if damaged:
        raise StoreDamaged(
            f"{len(damaged)} of {len(keys) + len(environments)} stored builds and environments are damaged",
            "",
            "`bisect_tool cache prune --damaged` removes them, and they are made again when they are needed",
        )
    if not as_json:
        what = f"{_many(len(keys), 'build')}, {_many(len(environments), 'environment')}"
        click.echo(f"{what}: as they were made" if keys or environments else "nothing stored yet")


@command.command("export")
@builds_option
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("keys", nargs=-1, metavar="KEY…")
@click.option("--all", "all_", is_flag=True, help="Every build.")
def export_(builds: Path | None, file: Path, keys: tuple[str, ...], all_: bool) -> None:
    """Write builds into a tar, for another machine.

    KEY: the first digits of a build's key, as `cache list` shows it.
    """
    from bisect_tool.building.cache import size_text
    from bisect_tool.building.store import Store
    from bisect_tool.building.transfer import export
    from bisect_tool.errors import UsageProblem

    store = Store(builds_folder(builds))
    if bool(keys) == all_:
        raise UsageProblem("say which builds", "", "name their keys, or give --all; `bisect_tool cache list`")
    wanted = [build.key for build in store.builds()] if all_ else [store.find(key) for key in keys]
    if not wanted:
        raise UsageProblem("there is no build to export", "", "`bisect_tool build` makes one")
    done = export(store, wanted, file)
    click.echo(f"exported {_many(len(done), 'build')} to {file}, {size_text(file.stat().st_size)}")


@command.command("import")
@builds_option
@click.argument("file", type=click.Path(path_type=Path))
def import__(builds: Path | None, file: Path) -> None:
    """Take builds from what `cache export` wrote.

    They are compared with their records before one is taken. They are programs that will be run: take
    them only from someone whose builds you would run.
    """
    from bisect_tool.building.store import SHOWN, Store
    from bisect_tool.building.transfer import import_

    done = import_(Store(builds_folder(builds)), file)
    for builds_, what in ((done.taken, "imported"), (done.present, "already there:")):
        for build in builds_:
            click.echo(f"{what} {build.key[:SHOWN]} {_short(build.label)}".rstrip())


def _in_use(builds: Path) -> set[str]:
    """Digests of what the sessions that are being measured now run on."""
    from filelock import FileLock, Timeout

    from bisect_tool.errors import ToolError
    from bisect_tool.measuring import ledger

    found: set[str] = set()
    for path in ledger.sessions(builds):
        lock = path.with_suffix(".lock")
        if not lock.exists():
            continue
        try:
            with FileLock(lock).acquire(timeout=0):
                continue
        except OSError as problem:
            if not isinstance(problem, Timeout):  # a ledger that cannot be written is being written by nobody
                continue
        try:
            found |= {str(line.get("wheel_digest")) for line in ledger.read(path).of_kind("arm")}
        except ToolError as problem:
            click.echo(f"warning: {problem.line()}", err=True)
    return found


def _many(number: int, what: str) -> str:
    return f"{number} {what if number == 1 else PLURALS[what]}"


def _counted(items: tuple[Item, ...]) -> str:
    kinds = [item.kind for item in items]
    return ", ".join(_many(kinds.count(kind), kind) for kind in dict.fromkeys(kinds))


def _short(text: str) -> str:
    return text if len(text) <= LABEL_CHARS else text[: LABEL_CHARS - 1] + "…"


def _iso(seconds: float) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _local(seconds: float) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _made(build: Build) -> str:
    """The record's own time, in this machine's; as it stands when it is none."""
    from datetime import datetime

    from bisect_tool.building.store import printable

    made: Any = build.record.get("made")
    try:
        return _local(datetime.fromisoformat(re.sub(r"Z$", "+00:00", made)).timestamp())
    except (TypeError, ValueError, OverflowError):
        return _short(printable(made or ""))
