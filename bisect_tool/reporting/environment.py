"""The folded block under a table: what was measured, where, how, and the exact command."""

from __future__ import annotations

import shlex
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bisect_tool.analysis.series import counted
from bisect_tool.reporting.text import fenced, folded, mlx

Line = Mapping[str, Any]


def block(header: Line, lines: Sequence[Line]) -> str:
    """Everything a maintainer would ask for, folded."""
    pairs = [*_host(header), *_arms(lines), *_how(header, lines), *_trouble(lines)]
    body = "\n".join(f"- {name}: {text}" for name, text in pairs if text)
    return folded("environment and command", body + "\n\n" + fenced(command(header)))


def short_block(header: Line, arm: Line) -> str:
    """The same of one arm of which nothing was measured: where, what, and the command."""
    body = "\n".join(f"- {name}: {text}" for name, text in [*_host(header), *_arms([arm])] if text)
    return folded("environment and command", body + "\n\n" + fenced(command(header)))


def command(header: Line) -> str:
    return shlex.join(["bisect_tool", *header["command"]])


def _host(header: Line) -> list[tuple[str, str]]:
    host = header.get("host", {})
    gigabytes = (host.get("memory_bytes") or 0) / 2**30
    chip = f"{host.get('chip')}, {host.get('cores')} cores, {gigabytes:.0f} GiB"
    gpu = ", ".join(str(host[name]) for name in ("gpu", "gpu_driver") if host.get(name))
    if gpu and host.get("cuda"):
        gpu += f", CUDA {host['cuda']}"
    model = f" ({host['model']})" if host.get("model") else ""
    tools = ", ".join(f"{name} {text}" for name, text in (host.get("toolchain") or {}).items() if text)
    return [("chip", chip + model), ("GPU", gpu), ("OS", str(host.get("os", ""))), ("toolchain", tools)]


def _arms(lines: Sequence[Line]) -> list[tuple[str, str]]:
    found = []
    for line in lines:
        if line["kind"] == "arm":
            env = ", ".join(f"{name}={value}" for name, value in line["env"].items())
            text = (
                f"{_origin(line)} ({line['backend']}), contents {line['wheel_digest'][:12]}, "
                f"Python {line['python']}" + (f", {env}" if env else "")
            )
            found.append((mlx(line["arm"]) + _typed(line), text))
    architectures = {
        run["device"]["architecture"] for run in counted(lines) if run.get("device", {}).get("architecture")
    }
    return [*found, ("device architecture as MLX reports it", ", ".join(sorted(architectures)))]


def _typed(line: Line) -> str:
    """What stands behind a label, where it does not say so itself."""
    label, typed, onto = line["arm"], line.get("typed", line["arm"]), line.get("onto")
    if label in (typed, f"{typed} onto {onto}"):
        return ""
    return f" ({typed} merged onto {onto})" if onto else f" ({typed})"


def _origin(line: Line) -> str:
    """A release, or a commit with all that its build took."""
    build = line.get("build")
    if not build:
        return f"released wheel {line['mlx']}"
    text = f"commit {line['sha']}, built here as {build['key'][:12]}"
    if line.get("changes"):
        text = f"a tree with changes of its own (digest {line['changes'][:12]}), built as {build['key'][:12]}"
    if build["sha"] != line["sha"]:
        text += f" (the build of {build['sha'][:9]}, which has the same files)"
    recipe = build["recipe"]
    tools = [
        f"{text}" if name == "compiler" else f"{name} {text}" for name, text in build["toolchain"].items()
    ]
    text += f" by {', '.join(tools)} with {recipe['flags']}"
    remedies = "; ".join(f"{remedy['name']}: {remedy['why']}" for remedy in recipe["remedies"])
    return text + (f", with a remedy ({remedies})" if remedies else "")


def _how(header: Line, lines: Sequence[Line]) -> list[tuple[str, str]]:
    runs = counted(lines)
    cells = [line for run in runs for line in run.get("cases", ()) if "samples_s" in line]
    rounds = len({run["round"] for run in runs})
    inner = (
        f", median {statistics.median(len(c['samples_s']) for c in cells):.0f} samples a cell"
        if cells
        else ""
    )
    warm = statistics.median(c["warm_up"]["seconds"] for c in cells) if cells else 0.0
    pinned = {f"{k}={v}" for run in runs for k, v in run.get("pinned", {}).items()}
    drifts = [run["drift"]["change"] for run in runs if run.get("drift")]
    drift = (
        f"first cell again at the end of a run: {statistics.median(drifts) * 100:+.2f} %" if drifts else ""
    )
    ends = [line["reason"] for line in lines if line["kind"] == "end"]
    script = header["plan"]["script"]
    return [
        ("rounds", f"{rounds}, each one fresh process an arm, order balanced and shuffled{inner}"),
        ("seed", str(header["plan"]["seed"])),
        ("warm-up", f"median {warm:.2f} s a cell" if cells else ""),
        ("pinned", ", ".join(sorted(pinned))),
        ("drift", drift),
        ("stopped", ends[-1] if ends else "not finished: these are the rounds so far"),
        ("walls", str(header.get("walls") or header["plan"].get("walls", ""))),
        ("script", f"{script['name']}, sha256 {script['sha256'][:16]}"),
        ("tool", f"bisect_tool {header['tool']}, {header['started']}, session {header['id']}"),
    ]  # fmt: skip


def _trouble(lines: Sequence[Line]) -> list[tuple[str, str]]:
    discards = Counter(line["reason"] for line in lines if line["kind"] == "discard")
    by_round = {line["round"]: line["reason"] for line in lines if line["kind"] == "unsteady"}
    kept = Counter(by_round.values())  # a round may be unsteady in several of its runs
    remarks = Counter(text for run in counted(lines) for text in run.get("notes", ()))
    attested = [run for run in counted(lines) if not run.get("module")]
    return [
        ("discarded rounds", f"{sum(discards.values())}" + _listed(_grouped(discards))),
        (
            "unsteady rounds kept",
            f"{sum(kept.values())}, past the limit on discards" + _listed(_grouped(kept)) if kept else "",
        ),
        ("host remarks", "; ".join(f"{text} ({n} runs)" for text, n in _grouped(remarks).items())),
        ("not attested", f"{len(attested)} runs did not import mlx in their own process" if attested else ""),
    ]


def _listed(reasons: Counter[str]) -> str:
    return " (" + "; ".join(reasons) + ")" if reasons else ""


def _grouped(remarks: Counter[str]) -> Counter[str]:
    """Remarks that differ in a figure alone ("load … 1.2 per core") count as one; the largest is shown."""
    groups: dict[str, tuple[str, int]] = {}
    for text, count in remarks.items():
        key = "".join(ch for ch in text if not ch.isdigit())
        shown, so_far = groups.get(key, ("", 0))
        groups[key] = (max(shown, text), so_far + count)
    return Counter(dict(groups.values()))
