"""What dispatch says beside measurements: real commits and probes, and run lines that claim an Apple GPU."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from a_search import HEADER, run
from click.testing import CliRunner
from small_dispatch import Bench

from bisect_tool.analysis import stages as replay
from bisect_tool.analysis.attribution import AllSteps, Step
from bisect_tool.analysis.comparison import Plan, compare
from bisect_tool.analysis.laws import Tiles
from bisect_tool.analysis.problem import Culprit, Difference
from bisect_tool.analysis.subjects import from_session
from bisect_tool.building.backend import Backend
from bisect_tool.building.builder import Watcher
from bisect_tool.building.interpreter import find_interpreter
from bisect_tool.building.provision import Provider
from bisect_tool.building.sandbox import Mode, Unwalled, choose
from bisect_tool.cli import bisect as command
from bisect_tool.cli import diagnose
from bisect_tool.cli.dispatch_notes import Notes, architecture, cells_of
from bisect_tool.dispatch import cells
from bisect_tool.errors import ToolMissing, UsageProblem
from bisect_tool.measuring import ledger, repro, searching
from bisect_tool.measuring.course import Course
from bisect_tool.measuring.session import Measuring, Settings
from bisect_tool.reporting import compare_report, dispatch_notes, search_report

Line = dict[str, Any]
GPU = "applegpu_g16s"
MAIN = ("limits", "docs", "comment", "split", "kernel")  # a second of compiling each that has another code
SAME = "dispatch and kernel text of the measured cells are the same as before it"


def case(M: int, K: int = 4096, N: int = 1024, **changes: Any) -> Line:
    said = {"op": "quantized_matmul", "K": K, "N": N, "M": M, "B": 1, "bits": 4, "group_size": 64,
            "quant": "affine", "dtype": "float16", "cache": "hot", "timing": "chain"}  # fmt: skip
    return {**said, **changes}


def measured(
    label: str, order: Sequence[str], rows: Sequence[int] = (3, 24), device: str = GPU, number: int = 1
) -> Line:
    """A run line that says it ran on such a GPU; the time is 1 ms a row."""
    timed = [{"case": case(M), "time_s": M * 1e-3, "marks": []} for M in rows]
    line = run(number, order.index(label), list(order), label, 1.0, "log")
    return {**line, "cases": timed, "metrics": [], "device": {"architecture": device}}


def arm(label: str, sha: str, **changes: Any) -> Line:
    return {"kind": "arm", "arm": label, "release": "", "sha": sha, "build": {}, "backend": "metal",
            "mlx": "1", "wheel_digest": f"digest of {label}", "python": "3.12", "env": {},
            "settings": {}, "typed": label, **changes}  # fmt: skip


def stage_line(bench: Bench, names: Sequence[str]) -> Line:
    positions = [
        {"label": sha[:9], "sha": sha, "subject": name, "committed": 1, "pull": None, "tag": "", "same": 0,
         "build_s": 60.0, "prior": 1.0}
        for name in names
        for sha in [bench.small.shas[name]]
    ]  # fmt: skip
    return {"kind": "stage", "number": 0, "name": "commits", "commits": len(names), "positions": positions}


def begun(bench: Bench, names: Sequence[str] = MAIN, **about: Any) -> list[Line]:
    """A search whose ends have run once."""
    stage = stage_line(bench, names)
    ends = [stage["positions"][0]["label"], stage["positions"][-1]["label"]]
    arms = [arm(label, label) for label in ends]
    return [stage, *arms, *(measured(label, ends, **about) for label in ends)]


def notes_of(bench: Bench, remarks: list[str]) -> Notes:
    return Notes(bench.prober, remarks.append)


class Watching:
    """As ``bisect.Watcher``; keeps the remarks."""

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def remark(self, text: str) -> None:
        self.remarks.append(text)

    def phase(self, text: str) -> None: ...
    def progress(self, at: Any) -> None: ...
    def standing(self, at: searching.Standing) -> None: ...


def search_of(
    bench: Bench, lines: list[Line], folder: Path, prior: str, make: Any = None
) -> tuple[searching.Search, Watching]:
    """The search itself, on a real ledger; what would build and run is not there and not asked."""
    watch = Watching()
    asked = searching.Request(
        good="a", bad="b", metric="M=24/M=3", find="any", script=None, script_args=(), env_options=(),
        paths=(), suspects=(), releases_only=False, all_steps=False, confidence=0.95, budget_s=None,
        max_builds=None, timeout_s=60, seed=1, form="markdown", command=["bisect", "a..b"], prior=prior,
    )  # fmt: skip
    provider = cast("Any", SimpleNamespace(sandbox=None))
    path = folder / "a.jsonl"
    path.touch()
    script = cast("Any", SimpleNamespace(canonical=True))
    found = searching.Search(
        asked, Course(asked, provider), watch, script, [], ledger.Ledger(path), HEADER, list(lines),
        Notes(make or bench.prober, watch.remark),
    )  # fmt: skip
    return found, watch


def at_step(parent: int, position: int) -> AllSteps:
    change = Difference(0.2, 0.1, 0.3, 8, 0.01)
    outcome = Culprit(position, parent, 0.99, None, change)
    return AllSteps(outcome, (Step(outcome, parent, position, change, 1.0, 0.9, 1.0),), (), 1.0)


# ---------------------------------------------------------------- from lines


def test_the_gpu_is_what_runs_say_or_what_a_variable_says() -> None:
    lines = [arm("a", "1" * 40), arm("b", "2" * 40, env={"MLX_METAL_GPU_ARCH": "applegpu_g13d"})]
    lines += [measured("a", ["a", "b"]), measured("b", ["a", "b"])]
    assert [architecture(lines), architecture(lines, "a"), architecture(lines, "b")] == [
        GPU, GPU, "applegpu_g13d"
    ]  # fmt: skip
    assert architecture(lines[:2]) == ""
    for other in ("sm_90", "", "all", "Apple Paravirtual device"):
        assert architecture([measured("a", ["a"], device=other)]) == "", other
    assert architecture([{**measured("a", ["a"]), "device": {}}]) == ""


def test_each_measured_cell_is_asked_once_and_controls_are_not() -> None:
    twice = measured("a", ["a"], rows=(24, 3))
    twice["cases"] += [
        {"case": case(3, timing="percall")},
        {"case": {"op": "matmul", "control": True, "M": 1}},
    ]
    assert cells_of([twice, measured("b", ["b"], rows=(5,))], GPU, "a") == cells.cells(
        [GPU], [(4096, 1024)], [3, 24]
    )


# ---------------------------------------------------------------- a search


@pytest.fixture(scope="module")
def prior(dispatch_bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> list[Line]:
    """The lines of a search with --prior dispatch after its first round."""
    search, watch = search_of(dispatch_bench, begun(dispatch_bench), tmp_path_factory.mktemp("p"), "dispatch")
    assert search._go_on() and not watch.remarks
    written = [dict(line) for line in ledger_lines(search.book.path)]
    assert written == [dict(line) for line in search.lines[len(begun(dispatch_bench)) :]]
    return [dict(line) for line in search.lines]


def ledger_lines(path: Path) -> Sequence[Mapping[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_commits_that_change_dispatch_or_kernel_text_come_first(
    dispatch_bench: Bench, prior: list[Line]
) -> None:
    (line,) = [line for line in prior if line["kind"] == "dispatch"]
    shas = dispatch_bench.small.shas
    suspects = [shas[name] for name in ("split", "kernel")]
    assert line["suspects"] == suspects == list(line["changes"])
    assert (line["architecture"], line["cells"], line["stage"], line["prior"]) == (GPU, 2, 0, True)
    assert line["changes"][shas["split"]].startswith("dispatch: qmm → qmm_splitk at M=24")
    assert "the text of these kernels changes: affine_qmv" in line["changes"][shas["kernel"]]
    (stage,) = replay.stages(prior)
    weights = stage.state(stage.searches[-1]).problem.prior
    assert [weight > 1 for weight in weights] == [name in ("split", "kernel") for name in MAIN]


def test_the_prior_is_asked_for_before_the_search_and_once(prior: list[Line]) -> None:
    kinds = [line["kind"] for line in prior]
    assert kinds[-3:] == ["metric", "dispatch", "search"]


def test_the_prior_moves_the_order_and_never_the_confidence(prior: list[Line]) -> None:
    from bisect_tool.analysis.problem import Run
    from bisect_tool.analysis.search import belief

    with_it = replay.stages(prior)[0]
    without = replay.stages([line for line in prior if line["kind"] != "dispatch"])[0]
    runs = tuple(Run(at, 1.0 + 0.001 * r + (at == 4), r) for r in range(8) for at in (0, 4))
    states = [replace(stage.state(stage.searches[-1]), runs=runs) for stage in (with_it, without)]
    assert states[0].problem.prior != states[1].problem.prior
    assert belief(states[0]) == belief(states[1]) is not None


@pytest.mark.parametrize(("at", "says"), [(3, "dispatch: qmm → qmm_splitk at M=24"), (2, SAME)])
def test_the_report_says_beside_a_step_what_dispatch_did(
    prior: list[Line], dispatch_bench: Bench, monkeypatch: pytest.MonkeyPatch, at: int, says: str
) -> None:
    monkeypatch.setattr(replay.Stage, "found", lambda _stage: at_step(at - 1, at))
    text = search_report.markdown(HEADER, [*prior, {"kind": "end", "reason": "found"}])
    label = dispatch_bench.small.shas[MAIN[at]][:9]
    assert f"\n- {label}: {says}" in text
    assert "- tried first: 2 candidates at which dispatch or kernel text" in text


@pytest.mark.parametrize(("at", "says"), [(3, "dispatch: qmm → qmm_splitk at M=24"), (2, SAME)])
def test_without_the_prior_the_found_commit_alone_is_asked(
    dispatch_bench: Bench, tmp_path: Path, at: int, says: str
) -> None:
    search, _ = search_of(dispatch_bench, begun(dispatch_bench), tmp_path, "")
    search._go_on()
    assert [line["kind"] for line in search.lines if line["kind"] == "dispatch"] == []
    (stage,) = replay.stages(search.lines)
    assert search._finished(stage, at_step(at - 1, at)) is False
    kinds = [line["kind"] for line in search.lines]
    assert kinds[-2:] == ["dispatch", "end"]
    (line,) = [line for line in search.lines if line["kind"] == "dispatch"]
    sha = dispatch_bench.small.shas[MAIN[at]]
    assert list(line["changes"]) == [sha] and line["changes"][sha].startswith(says)
    (after,) = replay.stages(search.lines)
    assert after.suspects == frozenset() and after.dispatch_at(at) == line["changes"][sha]
    assert after.dispatch_at(at + 1) is None


def test_what_is_collapsed_into_a_position_shows_at_the_next_one(dispatch_bench: Bench) -> None:
    shas = dispatch_bench.small.shas
    remarks: list[str] = []
    lines = begun(dispatch_bench)
    found = notes_of(dispatch_bench, remarks).of_positions(
        lines, 0, [shas["limits"], shas["docs"], shas["kernel"]], prior=False
    )
    assert found is not None and not remarks
    assert found["changes"][shas["docs"]] == SAME
    text = found["changes"][shas["kernel"]]
    assert f"qmm → qmm_splitk at M=24; with it split-K, grid (at {shas['split'][:9]}); " in text


def test_trouble_is_one_remark_and_the_search_goes_on(dispatch_bench: Bench, tmp_path: Path) -> None:
    def none() -> Any:
        raise ToolMissing("no C++ compiler here", "", "install one")

    search, watch = search_of(dispatch_bench, begun(dispatch_bench), tmp_path, "dispatch", none)
    assert search._go_on()
    assert watch.remarks == ["going on without dispatch: no C++ compiler here; install one"]
    assert search.lines[-1]["kind"] == "search"
    (stage,) = replay.stages(search.lines)
    search._finished(stage, at_step(2, 3))
    assert len(watch.remarks) == 1 and search.lines[-1]["kind"] == "end"
    search, watch = search_of(
        dispatch_bench, begun(dispatch_bench, device="sm_90"), tmp_path, "dispatch", none
    )
    assert search._go_on()
    assert watch.remarks == ["going on without --prior dispatch: no Apple GPU says its architecture"]


def test_releases_are_not_asked(dispatch_bench: Bench, tmp_path: Path) -> None:
    lines = begun(dispatch_bench)
    lines[0]["name"] = "releases"
    search, watch = search_of(dispatch_bench, lines, tmp_path, "dispatch")
    search._go_on()
    assert search.lines[-1]["kind"] == "search" and not watch.remarks
    assert not [line for line in search.lines if line["kind"] == "dispatch"]


def test_a_provider_is_asked_behind_the_walls_it_began_with(dispatch_bench: Bench) -> None:
    """A GPU that does not work behind walls takes them from the runs, not from what is compiled here."""
    walls = choose(Mode.AUTO)
    provider = Provider(
        dispatch_bench.builds,
        Backend.CPU,
        find_interpreter(),
        walls,
        Watcher(),
        repo=str(dispatch_bench.small.repo),
    )
    notes = Notes.of(provider, lambda _text: None)
    provider.sandbox = Unwalled("the GPU does not work behind them")
    shas = [dispatch_bench.small.shas[name] for name in ("comment", "split")]
    try:
        found = notes.of_positions(begun(dispatch_bench), 0, shas, prior=False)
        assert found is not None and "qmm → qmm_splitk" in found["changes"][shas[1]]
        assert notes.prober.sandbox is walls
    finally:
        provider.upstream.close()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"backend": Backend.CPU}, "the backend here is cpu"),
        ({"backend": Backend.CUDA12}, "the backend here is cuda12"),
        ({"script": Path("spin.py")}, "which cells a script of your own measures is not known"),
        ({"releases_only": True}, "--releases-only searches no commits"),
    ],
)
def test_where_dispatch_has_no_answer_the_prior_is_refused_at_once(options: dict[str, Any], why: str) -> None:
    asked = {"script": None, "releases_only": False, **options}
    made = cast("Any", SimpleNamespace(backend=options.get("backend", Backend.METAL), sandbox=None))
    watch = cast("Any", Watching())
    with pytest.raises(UsageProblem, match=why):
        command._dispatch({**asked, "prior": "dispatch"}, made, watch)
    assert command._dispatch({**asked, "prior": None}, made, watch) is None


def test_on_metal_dispatch_is_told_with_the_prior_or_without() -> None:
    made = cast("Any", SimpleNamespace(backend=Backend.METAL, sandbox=None))
    for prior in ("dispatch", None):
        asked = {"script": None, "releases_only": False, "prior": prior}
        assert isinstance(command._dispatch(asked, made, cast("Any", Watching())), Notes)


# ---------------------------------------------------------------- a comparison


def compared(bench: Bench, names: Sequence[str], slower: Mapping[tuple[str, int], float]) -> list[Line]:
    """Ten rounds of commits by name, the first the baseline. ``slower``: by arm and M, times how much."""
    lines = [arm(each, bench.small.shas[each]) for each in names]
    for number in range(1, 11):
        for each in names:
            line = measured(each, names, number=number)
            for cell in line["cases"]:
                wobble = 1 + 1e-4 * ((number * 7 + len(each)) % 10)
                cell["time_s"] *= slower.get((each, cell["case"]["M"]), 1.0) * wobble
            lines.append(line)
    return lines


def test_arms_that_dispatch_differently_are_noted_and_doubted(dispatch_bench: Bench) -> None:
    names = ("limits", "split", "docs")
    lines = compared(dispatch_bench, names, {("split", 3): 1.3, ("docs", 24): 1.2})
    trouble: list[str] = []
    told = notes_of(dispatch_bench, trouble).of_pairs(lines, "limits")
    assert [(line["arm"], line["against"], line["architectures"]) for line in told] == [
        ("split", "limits", [GPU, GPU]), ("docs", "limits", [GPU, GPU])
    ]  # fmt: skip
    assert not trouble
    whole = [*lines, *json.loads(json.dumps(told))]
    plan = Plan("limits", names)
    assert dispatch_notes.remarks(whole, compare(whole, plan)) == [
        "split: warning: the same kernel (qmv) in another time: it is not dispatch nor kernel text "
        "(4096 → 1024, M=3)",
        "split: dispatch differs: qmm → qmm_splitk; warning: and yet no difference in time "
        "(4096 → 1024, M=24)",
        "docs: dispatch and kernel text are those of limits in all 2 cells",
        "docs: warning: the same kernel (qmm) in another time: it is not dispatch nor kernel text "
        "(4096 → 1024, M=24)",
    ]
    assert dispatch_notes.remarks(lines, compare(lines, plan)) == []
    header = {"plan": {"compare": {"baseline": "limits"}, "arms": list(names)}}
    (one,) = json.loads(compare_report.as_json(header, whole))["tables"]
    assert "dispatch differs: qmm → qmm_splitk" in one["rows"][1]["arms"]["split"]["dispatch"]
    assert "dispatch" not in one["rows"][0]["arms"]["docs"]


def test_another_text_of_the_same_kernel_is_noted_where_it_runs(dispatch_bench: Bench) -> None:
    lines = compared(dispatch_bench, ("split", "kernel"), {("kernel", 3): 0.7})
    told = notes_of(dispatch_bench, []).of_pairs(lines, "split")
    found = compare([*lines, *told], Plan("split", ("split", "kernel")))
    assert dispatch_notes.remarks([*lines, *told], found) == [
        "kernel: the same dispatch of qmv, whose text differs (4096 → 1024, M=3)"
    ]


def test_a_setting_gives_an_arm_another_gpu(dispatch_bench: Bench) -> None:
    lines = compared(dispatch_bench, ("limits", "split"), {})
    lines[1]["sha"], lines[1]["settings"] = lines[0]["sha"], {"MLX_METAL_GPU_ARCH": "applegpu_g13d"}
    for line in lines[2:]:
        line["cases"] = [{**line["cases"][0], "case": case(11)}]
    (told,) = notes_of(dispatch_bench, []).of_pairs(lines, "limits")
    assert told["architectures"] == [GPU, "applegpu_g13d"]
    ((before, after, _),) = dispatch_notes.pairs([told])["split"].values()
    assert (before.family, after.family) == ("qmm", "qmv")


def test_releases_other_gpus_and_the_baseline_again_are_not_asked(dispatch_bench: Bench) -> None:
    trouble: list[str] = []
    notes = notes_of(dispatch_bench, trouble)
    lines = compared(dispatch_bench, ("limits", "split"), {})
    released = [{**line, "sha": ""} if line.get("arm") == "split" and line["kind"] == "arm" else line
                for line in lines]  # fmt: skip
    assert notes.of_pairs(released, "limits") == [] == notes.of_pairs(lines, "not there")
    other = [{**line, "device": {"architecture": "sm_90"}} for line in lines]
    again = [{**line, "sha": lines[0]["sha"]} if line["kind"] == "arm" else line for line in lines]
    assert notes.of_pairs(other, "limits") == [] == notes.of_pairs(again, "limits")
    assert not trouble
    gone = [{**line, "sha": "ab" * 20} if line.get("sha") == lines[1]["sha"] else line for line in lines]
    assert notes.of_pairs(gone, "limits") == []
    assert len(trouble) == 1 and trouble[0].startswith("how split dispatches is not known: ")


def test_what_is_told_after_a_measurement_goes_into_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rounds themselves have tests of their own."""
    path = tmp_path / "a.jsonl"
    path.touch()
    monkeypatch.setattr(Measuring, "run", lambda _self: None)
    script = cast("Any", SimpleNamespace(canonical=True))
    work = repro.Work(
        [], script, [], {}, Settings(1.0), {}, after=lambda lines: [{"kind": "x", "n": len(lines)}]
    )
    started: list[Line] = [{"kind": "session", "plan": {"seed": 1}}, {"kind": "arm"}, {"kind": "run"}]
    repro._measure(ledger.Ledger(path), started, [], work, cast("Any", None), Watching())
    assert ledger_lines(path) == [{"kind": "x", "n": 2}]


# ---------------------------------------------------------------- a diagnosis


def curves(bench: Bench, name: str, **about: Any) -> list[Line]:
    """Six rounds of one commit, rows 1 to 24, with the bits of row 0 of one more kernel at M=5."""
    lines = [{**arm(name, bench.small.shas[name]), **about}]
    for number in range(1, 7):
        line = measured(name, [name], rows=range(1, 25), number=number)
        for cell in line["cases"]:
            cell["time_s"] *= 1 + 1e-3 * number
            cell["error"] = {"row_bits_as_m1": cell["case"]["M"] < 5}
        lines.append(line)
    return lines


def test_curves_are_cut_where_dispatch_changes_kernel(dispatch_bench: Bench) -> None:
    lines = curves(dispatch_bench, "split")
    before = from_session(lines, "metal")
    (found,) = notes_of(dispatch_bench, []).with_segments(lines, before)
    assert [(s.low, s.high, s.kernel, s.tiles) for s in found.segments] == [
        (1, 9, "qmv", None), (10, 19, "qmm", Tiles(32)), (20, 24, "qmm_splitk", None)
    ]  # fmt: skip
    sha = dispatch_bench.small.shas["split"][:9]
    assert found.remarks == (
        "segments: qmv at M = 1–9, qmm at M = 10–19, qmm_splitk at M = 20–24; "
        f"from the host code of {sha} for applegpu_g16s",
    )
    assert found.points == before[0].points and found.diagnosis().text.startswith(
        "another kernel from M = 10"
    )


def test_one_kernel_is_no_reason_to_cut(dispatch_bench: Bench) -> None:
    lines = curves(dispatch_bench, "split")
    (found,) = notes_of(dispatch_bench, []).with_segments(
        lines, [replace(each, points=each.points[:6]) for each in from_session(lines, "metal")]
    )
    assert found.segments == () and found.remarks[0].startswith("segments: qmv at M = 1–6; from the host")


def test_of_releases_and_of_what_cannot_be_asked_the_bits_are_kept(dispatch_bench: Bench) -> None:
    trouble: list[str] = []
    notes = notes_of(dispatch_bench, trouble)
    lines = curves(dispatch_bench, "split", sha="")
    kept = from_session(lines, "metal")
    assert notes.with_segments(lines, kept) == kept and kept[0].segments and not trouble
    lines = curves(dispatch_bench, "split", sha=dispatch_bench.small.shas["nothing"])
    assert notes.with_segments(lines, kept) == kept
    assert len(trouble) == 1 and trouble[0].startswith("how split dispatches is not known: ")


def test_diagnose_says_where_segments_come_from(dispatch_bench: Bench, tmp_path: Path) -> None:
    """The command itself, on a session that says it was measured on an Apple GPU."""
    header = {**HEADER, "plan": {**HEADER["plan"], "backend": "metal"}}
    lines = curves(dispatch_bench, "limits")
    with ledger.create(
        tmp_path, {k: v for k, v in header.items() if k not in ("kind", "schema")}, lines
    ) as book:
        path = str(book.path)
    words = [path, "--quiet", "--json", "--repo", str(dispatch_bench.small.repo)]
    words += ["--builds", str(dispatch_bench.builds)]
    result = CliRunner().invoke(diagnose.command, words, standalone_mode=False)
    (curve,) = json.loads(result.stdout)["curves"]
    assert curve["verdict"] == "switch"
    assert curve["remarks"][0].startswith(
        "segments: qmv at M = 1–9, qmm at M = 10–24; from the host code of "
    )
    result = CliRunner().invoke(diagnose.command, [*words, "--segments", "a@1-4,b@5+"], standalone_mode=False)
    (curve,) = json.loads(result.stdout)["curves"]
    assert curve["remarks"] == [] and "M = 5 (b)" in curve["text"]
    result = CliRunner().invoke(diagnose.command, [*words, "--segments", "a@1-4"], standalone_mode=False)
    assert isinstance(result.exception, UsageProblem) and "no segment holds M=5" in str(result.exception)
