"""`diagnose --run REV --experiment NAME`: measure the series that tells laws apart, and say what came out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from bisect_tool.analysis.experiments import Change

DEFAULT_SHAPE = {"cpu": "640x1728", "gpu": "5120x13824"}
ROWS = "1-8"
ARCH = "MLX_METAL_GPU_ARCH=applegpu_g12s"


def run(options: dict[str, Any]) -> int:
    """Returns the exit code: 0 when a law is supported, 4 when the outcome is open."""
    from bisect_tool.building import backend as backends
    from bisect_tool.errors import EXIT_DONE, EXIT_INCONCLUSIVE, UsageProblem
    from bisect_tool.reporting import experiment

    backend = backends.choose(options["backend"]).value
    options = {**options, "rows": options["rows"] or ROWS}
    if len(options["shapes"]) > 1:
        raise click.UsageError("an experiment takes one --shape")
    if not options["shapes"]:
        options["shapes"] = (DEFAULT_SHAPE["cpu" if backend == "cpu" else "gpu"],)
    name = options["experiment"]
    chosen = ""
    if name == "auto":
        name, chosen = _auto(options, backend)
        click.echo(chosen, err=True)
    if name == "forced-arch" and backend != "metal":
        raise UsageProblem(
            f"forced-arch needs the metal backend, and this is {backend}", "others have one dispatch"
        )
    subjects, under = _measured(options, name, backend)
    base, series, changes = _settings(name, subjects, options)
    from bisect_tool.analysis.outcomes import interpret

    try:
        outcome = interpret(name, base, {k: s.points for k, s in series.items()}, changes)
    except ValueError as problem:
        raise UsageProblem(f"experiment {name}: {problem}", "see the errors above") from None
    series = {base: series[base], **series}  # what is compared with comes first
    pairs = [(subject, subject.diagnosis()) for subject in series.values()]
    if options["as_json"]:
        click.echo(experiment.as_json(name, base, outcome, pairs, chosen))
    else:
        labelled = list(zip(series, pairs, strict=True))
        click.echo(experiment.markdown(name, base, outcome, labelled, chosen) + "\n\n" + under)
    from bisect_tool.cli.diagnose import draw

    draw(pairs, options)
    return EXIT_DONE if outcome.law else EXIT_INCONCLUSIVE


def _auto(options: dict[str, Any], backend: str) -> tuple[str, str]:
    """Measure the plain series, and choose what separates its two best laws most; and why, in one line."""
    from bisect_tool.analysis.experiments import ranked
    from bisect_tool.errors import Inconclusive

    subject = _measured(options, "", backend)[0][0]
    answer = subject.diagnosis().answers[0]
    fits = [fit for fit in answer.fits if fit.law != "constant"]
    if len(fits) < 2:
        raise Inconclusive("auto finds no two laws to separate", answer.why, "measure more rows, or name one")
    order = ranked(fits[0], fits[1], list(answer.points), backend)
    scores = ", ".join(f"{name} {far:.1f}" for name, far in order)
    if not order or order[0][1] < 1:
        what = f"no experiment would tell {fits[0].law} and {fits[1].law} apart here"
        far = f"their predictions differ by {order[0][1]:.1f} times the noise at most" if order else ""
        raise Inconclusive(what, far, "measure more rounds on a machine with less noise, or name one")
    why = f"auto: {fits[0].law} against {fits[1].law}; apart by, in units of noise: {scores}"
    return order[0][0], why


def _measured(options: dict[str, Any], name: str, backend: str) -> tuple[list[Any], str]:
    """The curves, and the block that goes under a table."""
    from bisect_tool.analysis.subjects import from_session
    from bisect_tool.cli.diagnose import case_words, measured
    from bisect_tool.errors import Inconclusive
    from bisect_tool.reporting import environment

    shape = options["shapes"][0]
    revisions: Sequence[str] = (options["revision"],)
    other: dict[str, str] = {}
    if name == "bits":
        other["bits"] = "2,4,8"
    elif name == "group-size":
        other["group_size"] = "32,64,128"
    elif name == "hot-cold":
        other["cache"] = "hot,cold"
    elif name == "dtype":
        other["dtype"] = "float16,float32"
    elif name in ("n-sweep", "k-sweep"):
        other["shape"] = ";".join(_swept(shape, name))
    elif name == "forced-arch":
        revisions = (options["revision"], f"{options['revision']},{ARCH}")
    session = measured(options, tuple(revisions), case_words(options, **other))
    found = from_session(session.lines, backend)
    if not found:
        raise Inconclusive("nothing was measured", "no run counts", "see the errors above")
    return found, environment.block(session.header, session.lines)


def _swept(shape: str, name: str) -> list[str]:
    """The shapes of a sweep. N stays a multiple of 64; K of 512 where it is large, of 64 below: kernels
    differ otherwise."""
    from bisect_tool.analysis.experiments import EXPERIMENTS

    deep, wide = (int(part) for part in shape.lower().split("x")[:2])
    found = [f"{deep}x{wide}"]
    for change in EXPERIMENTS[name].changes:
        if name == "n-sweep":
            found.append(f"{deep}x{max(64, round(wide * change.columns / 64) * 64)}")
        else:
            step = 512 if deep >= 2048 else 64
            found.append(f"{max(step, round(deep * change.work / step) * step)}x{wide}")
    return list(dict.fromkeys(found))


def _settings(
    name: str, subjects: Sequence[Any], options: dict[str, Any]
) -> tuple[str, dict[str, Any], dict[str, Change]]:
    """The label of the unchanged series, every series by label, what each changes: from what was measured."""
    from bisect_tool.analysis.experiments import weight_bytes

    deep, wide = (int(part) for part in options["shapes"][0].lower().split("x")[:2])
    series: dict[str, Any] = {}
    changes: dict[str, Change] = {}
    base = ""
    plain = {"bits": 4, "group_size": 64, "cache": "hot", "dtype": "float16", "K": deep, "N": wide}
    for subject in subjects:
        case = subject.case
        label = _label(name, subject)
        work = case["K"] * case["N"] / (deep * wide)
        size = weight_bytes(case["bits"], case["group_size"], case["quant"])
        unchanged = subject.arm == options["revision"] and all(
            case.get(key) == value for key, value in plain.items() if key not in _fixed(options)
        )
        if unchanged and not base:
            base = label
        series[label] = subject
        changes[label] = Change(
            label,
            bytes=work * size,
            work=work,
            columns=case["N"] / wide,
            rate=0.5 if name == "dtype" and case["dtype"] == "float32" else 1.0,
        )
    base = base or next(iter(series))
    reference = changes[base].bytes
    changes = {
        label: Change(label, change.bytes / reference, change.work, change.columns, change.rate)
        for label, change in changes.items()
    }
    return base, series, changes


def _label(name: str, subject: Any) -> str:
    case = subject.case
    return {
        "bits": f"{case['bits']}-bit",
        "group-size": f"group {case['group_size']}",
        "hot-cold": str(case["cache"]),
        "dtype": str(case["dtype"]),
        "n-sweep": f"N = {case['N']}",
        "k-sweep": f"K = {case['K']}",
        "forced-arch": str(subject.arm),
    }[name]


def _fixed(options: dict[str, Any]) -> set[str]:
    """Settings that the caller named: they are the same in every series."""
    return {name for name in ("bits", "group_size", "cache", "dtype") if options.get(name)}
