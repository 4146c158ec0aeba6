"""`bisect_tool build`: revisions to wheels and environments, ahead of measuring them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bisect_tool.cli.options import build_options, duration_text, json_option, quiet_option

if TYPE_CHECKING:
    from bisect_tool.building.provision import Provided, Provider
    from bisect_tool.errors import ToolError
    from bisect_tool.upstream.values import Resolved

# One of each kind: both CUDA backends build the same files.
BACKENDS = {"metal": ("metal",), "cpu": ("cpu",), "cuda": ("cuda12", "cuda13")}


@click.command("build")
@click.argument("revisions", nargs=-1, required=True, metavar="REVISION|A..B...")
@click.option("--dry-run", is_flag=True, help="Say how many builds that is, and which are there already.")
@json_option
@quiet_option
@build_options
def command(revisions: tuple[str, ...], dry_run: bool, as_json: bool, quiet: bool, **options: Any) -> int:
    """Turn each REVISION into an environment: a release (0.32.4), tag, branch or commit (v0.32.0, main~3,
    548dd80), date (@2026-03-01), pull request (#3764, #3764/head), a tree of yours (path:../mlx), or all
    commits of a range (v0.31.2..v0.32.0). What is in the store is not built again.
    """
    from bisect_tool.cli.progress import Watch
    from bisect_tool.cli.provider import provider

    with Watch(quiet) as watch:
        made = provider(options, watch)
        if dry_run:
            plan = _plan(made, revisions)
            click.echo(json.dumps(plan, indent=1) if as_json else _plan_text(plan))
            return 0
        return _build(made, revisions, as_json, watch)


def _build(provider: Provider, texts: tuple[str, ...], as_json: bool, watch: Any) -> int:
    from bisect_tool.errors import BuildFailed, DiskFull, ToolError

    rows: list[dict[str, Any]] = []
    code = 0
    for text, wanted in _wanted(provider, texts):
        try:
            if isinstance(wanted, ToolError):
                raise wanted
            rows.append(_row(text, wanted(), None))
        except DiskFull:
            raise
        except ToolError as problem:
            tail = getattr(problem, "tail", "")
            if tail and not as_json:
                watch.remark(tail)
            watch.remark(f"error: {problem.line()}")
            failed = _row(text, None, problem)
            failed["failure"] = problem.failure if isinstance(problem, BuildFailed) else ""
            rows.append(failed)
            code = code or problem.exit_code
    click.echo(json.dumps({"schema": 1, "builds": rows}, indent=1) if as_json else _table(rows))
    return code


def _wanted(provider: Provider, texts: tuple[str, ...]) -> Any:
    """Each thing to make: its name, and what makes it or the error of looking it up."""
    from functools import partial

    from bisect_tool.errors import ToolError
    from bisect_tool.upstream.revision import Revision

    for text in texts:
        try:
            if ".." in text and not text.startswith("path:"):
                for resolved in _range(provider, text):
                    yield resolved.revision.text, partial(provider.provide_commit, resolved)
            else:
                yield text, partial(provider.provide, Revision.parse(text))
        except ToolError as problem:
            yield text, problem


def _range(provider: Provider, text: str) -> list[Resolved]:
    from bisect_tool.upstream.revision import Kind, Revision
    from bisect_tool.upstream.values import Resolved

    return [
        Resolved(
            Revision(commit.short, commit.short, Kind.COMMIT), commit, provider.upstream.trusted(commit.sha)
        )
        for commit in provider.upstream.range(text)
    ]


def _row(text: str, made: Provided | None, problem: ToolError | None) -> dict[str, Any]:
    if made is None:
        return {"revision": text, "error": problem.line() if problem else ""}
    build = made.build
    return {
        "revision": text,
        "sha": made.resolved.commit.sha if made.resolved else None,
        "subject": made.resolved.commit.subject if made.resolved else None,
        "mlx": made.environment.mlx_version,
        "build": build.key if build else None,
        "built": made.built,
        "seconds": build.record["seconds"] if build else None,
        "wheel_bytes": build.size if build else None,
        "remedies": build.record["recipe"]["remedies"] if build else [],
        "environment": str(made.environment.root),
        "python": str(made.environment.python),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    from tabulate import tabulate

    cells = []
    for row in rows:
        if "error" in row:
            cells.append([row["revision"], "", f"failed: {row.get('failure') or 'see above'}", "", ""])
            continue
        if row["build"] is None:
            state = "released wheel"
        elif row["built"]:
            state = f"built in {duration_text(row['seconds'])}"
        else:
            state = "in the store"
        remedies = ", ".join(remedy["name"] for remedy in row["remedies"])
        cells.append(
            [row["revision"], (row["sha"] or "")[:9], state + (f" with {remedies}" if remedies else ""),
             (row["build"] or "")[:12], _shown(row["environment"])]
        )  # fmt: skip
    head = ["revision", "commit", "state", "build", "environment"]
    return tabulate(cells, headers=head, tablefmt="plain", disable_numparse=True)


def _shown(path: str) -> str:
    """Relative where that is shorter."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def _plan(provider: Provider, texts: tuple[str, ...]) -> dict[str, Any]:
    """What would be built. Compiles nothing, and fetches only what is needed to know the names."""
    from bisect_tool.building.store import Store
    from bisect_tool.upstream.relevance import distinct
    from bisect_tool.upstream.revision import Kind, Revision

    commits, releases = [], []
    for text in texts:
        if ".." in text and not text.startswith("path:"):
            commits += provider.upstream.range(text)
        elif (revision := Revision.parse(text)).kind is Kind.RELEASE:
            releases.append(revision.release)
        else:
            commits.append(provider.upstream.resolve(revision).commit)
    rows = []
    anything = Store(provider.builds).stored()
    for kind, backends in BACKENDS.items() if commits else ():
        groups = distinct(commits, backends[0], provider.upstream)
        row: dict[str, Any] = {"backend": kind, "builds": len(groups)}
        if provider.backend.value in backends:
            firsts = [each[0] for each in groups.values()] if anything else []
            row["in_store"] = sum(provider.builder.stored(commit) is not None for commit in firsts)
        rows.append(row)
    return {
        "schema": 1,
        "commits": len(commits),
        "releases": releases,
        "backends": rows,
        "backend": provider.backend.value,
    }


def _plan_text(plan: dict[str, Any]) -> str:
    from tabulate import tabulate

    lines = []
    if plan["releases"]:
        lines.append(f"{', '.join(plan['releases'])}: released, nothing to build")
    if plan["backends"]:
        commits = "1 commit" if plan["commits"] == 1 else f"{plan['commits']} commits"
        lines.append(f"{commits}; those that differ in nothing that a backend builds share a build:")
        cells = [
            [row["backend"], str(row["builds"]), str(row["in_store"]) if "in_store" in row else ""]
            for row in plan["backends"]
        ]
        head = ["backend", "builds", "in the store"]
        lines.append(tabulate(cells, headers=head, tablefmt="plain", disable_numparse=True))
    return "\n".join(lines)
