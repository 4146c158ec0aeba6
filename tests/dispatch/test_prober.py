"""Asking a small upstream's own host code: a real compiler, real walls, the ladder, what is kept."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from small_dispatch import Bench

from bisect_tool.analysis import launches
from bisect_tool.analysis.launches import Answer, Cell
from bisect_tool.building.sandbox import Mode, Sandbox, choose
from bisect_tool.dispatch import asking, cells, compiling
from bisect_tool.dispatch.prober import NO_MODE, NO_TRANSPOSE, Prober
from bisect_tool.errors import ProbeFailed, ToolMissing, Untrusted, UsageProblem

GPUS = ["applegpu_g13d", "applegpu_g14s", "applegpu_g16s", "applegpu_g17s"]
CELLS = cells.cells(GPUS, [(1024, 1024), (4096, 1024)], cells.rows("1-32"))
ONE = cells.cells(["applegpu_g16s"], [(4096, 1024)], cells.rows("1-32"))


@pytest.fixture(scope="module")
def walls() -> Sandbox:
    found = choose(Mode.AUTO)
    if not found.walled:
        pytest.skip(f"no walls here: {found.why}")
    return found


def families(answers: dict[Cell, Answer]) -> list[tuple[int, int, str]]:
    return [(each.first, each.last, each.family) for each in launches.segments(answers)]


def test_the_answers_are_those_of_the_code(dispatch_bench: Bench) -> None:
    """The limits and grids that the source of `split` has, read by eye."""
    asked = dispatch_bench.prober().ask(dispatch_bench.at("split"), CELLS)
    assert asked.rung == ""
    limits = {"applegpu_g13d": (12, 12), "applegpu_g14s": (8, 5), "applegpu_g16s": (10, 10)}
    for cell, answer in asked.answers.items():
        main = answer.main
        assert main is not None and answer.exception == "" and main.group == (32, 2, 1)
        limit = limits.get(cell.arch, (10, 10))[cell.K == 4096]
        if cell.M >= 20 and cell.K == 4096:
            assert main.kernel == "affine_qmm_splitk_float16_t_gs_64_b_4"
            assert (main.grid, answer.split, answer.reductions) == ((32, 1, 2), 2, 1)
        elif limit > cell.M:
            assert (answer.family, main.grid, main.buffers) == ("qmv", (cell.M, 128, 1), 3)
            assert main.function == "affine_qmv"
        elif cell.nax:
            assert (answer.family, main.grid) == ("qmm_nax", (16, 1, 1))
        else:
            assert (answer.family, main.grid) == ("qmm", (32, 1, 1))
    assert len(asked.answers) == len(CELLS) == 256


def test_answers_are_kept_and_asking_again_starts_nothing(
    dispatch_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dispatch_bench.prober().ask(dispatch_bench.at("split"), CELLS)

    def never(*_args: object, **_how: object) -> None:
        raise AssertionError("something was compiled or run")

    monkeypatch.setattr(compiling, "compile_probe", never)
    monkeypatch.setattr(asking, "ask", never)
    monkeypatch.setattr("bisect_tool.dispatch.prober.choose", never)
    for name in ("split", "kernel"):  # the same host code
        again = dispatch_bench.prober().ask(dispatch_bench.at(name), CELLS)
        assert (again.key, again.answers) == (first.key, first.answers)
    monkeypatch.undo()
    # Other cells take the probe that is there.
    monkeypatch.setattr(compiling, "compile_probe", never)
    assert families(dispatch_bench.prober().ask(dispatch_bench.at("split"), ONE).answers)[0] == (1, 9, "qmv")


def test_a_damaged_record_or_answer_is_made_again(dispatch_bench: Bench) -> None:
    prober = dispatch_bench.prober()
    resolved = dispatch_bench.at("limits")
    first = prober.ask(resolved, ONE)
    folder = dispatch_bench.builds / "dispatch" / first.key
    (kept,) = [path for path in (folder / "answers").glob("*.json") if '"' in path.read_text()][:1]
    content = json.loads(kept.read_text())
    for broken in (
        "",
        "[]",
        json.dumps({**content, "lines": ["nonsense"]}),
        json.dumps({**content, "at": [99]}),
    ):
        kept.write_text(broken)
        assert prober.ask(resolved, ONE).answers == first.answers
    (folder / "record.json").write_text("{")
    (folder / "probe").unlink()
    assert prober.ask(resolved, ONE).answers == first.answers


def test_the_first_form_takes_strides_as_size_t(dispatch_bench: Bench) -> None:
    asked = dispatch_bench.prober().ask(dispatch_bench.at("early"), ONE)
    assert asked.rung == "with strides as size_t"
    assert families(asked.answers) == [(1, 3, "qmv_n"), (4, 32, "qmm_t")]


def test_a_header_of_its_own_is_taken_when_an_empty_one_will_not_do(dispatch_bench: Bench) -> None:
    asked = dispatch_bench.prober().ask(dispatch_bench.at("own-header"), ONE)
    assert asked.rung == "with its own headers"
    assert families(asked.answers) == [(1, 19, "qmv"), (20, 32, "qmm_splitk")]


def test_settings_of_its_own_answer_to_the_environment(dispatch_bench: Bench) -> None:
    prober = dispatch_bench.prober()
    asked = prober.ask(dispatch_bench.at("setting"), ONE)
    assert asked.rung == "with its own environment functions"
    assert families(asked.answers)[0] == (1, 8, "qmv")
    sha = dispatch_bench.small.shas["setting"]
    other = prober.ask(dispatch_bench.at(f"{sha},MLX_SMALL_LIMIT=4"), ONE)
    assert families(other.answers)[0] == (1, 3, "qmv")


def test_what_does_not_compile_is_said_and_not_guessed(dispatch_bench: Bench) -> None:
    prober = dispatch_bench.prober()
    for _ in range(2):  # the second from what is kept
        with pytest.raises(ProbeFailed) as caught:
            prober.ask(dispatch_bench.at("broken"), ONE)
        line = caught.value.line()
        assert "does not compile against the stand-in, tried in 2 ways" in line and "a_new_thing" in line
        assert str(dispatch_bench.builds) not in line
        assert len(caught.value.tail.splitlines()) == 2


def test_what_is_not_there_is_said(dispatch_bench: Bench) -> None:
    prober = dispatch_bench.prober()
    with pytest.raises(UsageProblem, match="older than the op"):
        prober.ask(dispatch_bench.at("nothing"), ONE)
    with pytest.raises(
        UsageProblem, match=r"not in mlx/backend/metal/quantized.cpp there but in mlx/.*/quant/"
    ):
        prober.ask(dispatch_bench.at("moved"), ONE)


def test_arguments_that_the_op_had_not_are_said(dispatch_bench: Bench) -> None:
    mixed = [ONE[0], ONE[1]._replace(mode="nvfp4", group_size=16), ONE[2]._replace(transpose=False)]
    early = dispatch_bench.prober().ask(dispatch_bench.at("early"), mixed).answers
    assert [early[cell].exception for cell in mixed] == ["", NO_MODE, NO_TRANSPOSE]
    late = dispatch_bench.prober().ask(dispatch_bench.at("split"), mixed).answers
    assert [late[cell].kernel for cell in mixed] == [
        "affine_qmv_float16_t_gs_64_b_4", "nvfp4_qmv_float16_t_gs_64_b_4", "affine_qvm_float16_t_gs_64_b_4"
    ]  # fmt: skip


def test_a_strangers_code_runs_behind_walls_or_not_at_all(
    dispatch_bench: Bench, walls: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes into the home and reads a key before main; its division by zero at M=3 costs M=3 alone."""
    assert walls.walled
    victim = dispatch_bench.small.victim
    monkeypatch.setenv("HOME", str(victim))
    resolved = dispatch_bench.at("#21")
    assert not resolved.trusted
    with pytest.raises(Untrusted, match="compiling and asking it runs a stranger's code"):
        dispatch_bench.prober(Mode.OFF, trust=False, builds=tmp_path / "none").ask(resolved, ONE)
    assert not list((tmp_path / "none").rglob("probe"))
    asked = dispatch_bench.prober(trust=False).ask(resolved, ONE)
    assert not list(victim.rglob("dispatch-was-here")) and list(victim.rglob("id_test"))
    plain = dispatch_bench.prober().ask(dispatch_bench.at("mended"), ONE)
    for cell in ONE:
        if cell.M == 3:
            assert asked.answers[cell].exception == "the host code ended the process: a division by zero"
        else:
            assert asked.answers[cell] == plain.answers[cell]


def test_without_a_compiler_it_says_what_to_install(dispatch_bench: Bench, tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("git", "sh", "bwrap"):
        if found := shutil.which(name):
            (bare / name).symlink_to(found)
    prober = dispatch_bench.prober(builds=tmp_path / "builds")
    question = prober.question(dispatch_bench.at("limits"))
    before = os.environ["PATH"]
    try:
        os.environ["PATH"] = str(bare)
        with pytest.raises(ToolMissing, match=r"needs a C\+\+20 compiler: no C\+\+ compiler found; .*g\+\+"):
            prober.answer(question, ONE)
    finally:
        os.environ["PATH"] = before
    assert dispatch_bench.prober().ask(dispatch_bench.at("limits"), ONE).answers  # kept ones need none


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"launches": [], "copies": "1"}',
        '{"launches": [{"kernel": 1}], "copies": 0}',
        '{"launches": [{"kernel": "k", "function": "", "grid": [1, 2], "group": [1, 1, 1], "buffers": 1,'
        ' "split": 1, "reduction": false}], "copies": 0}',
        '{"exception": 3}',
    ],
)
def test_what_is_no_answer_is_refused(line: str) -> None:
    with pytest.raises(ProbeFailed, match="cannot be read"):
        asking.parse(line)


def test_what_a_stranger_prints_is_fit_to_print() -> None:
    answer = asking.parse(json.dumps({"exception": "\x1b[31mred\n" + "x" * 1000}))
    assert answer.exception.isprintable() and len(answer.exception) <= 400


def test_only_so_many_sets_of_answers_are_kept(
    dispatch_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bisect_tool.dispatch.prober.KEPT_ANSWERS", 2)
    prober: Prober = dispatch_bench.prober()
    for M in range(1, 5):
        asked = prober.ask(dispatch_bench.at("comment"), ONE[M : M + 1])
    assert len(list((dispatch_bench.builds / "dispatch" / asked.key / "answers").iterdir())) == 2


def test_prune_drops_the_probes_but_not_while_one_is_asked(dispatch_bench: Bench, tmp_path: Path) -> None:
    from bisect_tool.building import cache

    kept = tmp_path / "dispatch"
    kept.mkdir()
    (kept / "record.json").write_text("{}")
    prober = dispatch_bench.prober(builds=tmp_path)
    assert prober.folder == kept
    assert [item.name for item in cache.prune(tmp_path, 0).kept] == ["dispatch"] and kept.is_dir()
    del prober
    assert [item.name for item in cache.prune(tmp_path, 0).removed] == ["dispatch"] and not kept.exists()


def test_beside_builds_it_has_their_walls_and_their_trust(dispatch_bench: Bench, tmp_path: Path) -> None:
    from bisect_tool.building.backend import Backend
    from bisect_tool.building.builder import Watcher
    from bisect_tool.building.interpreter import find_interpreter
    from bisect_tool.building.provision import Provider
    from bisect_tool.building.sandbox import Unwalled

    said: list[str] = []
    watch = Watcher(said.append, said.append, lambda _step, _left: None)
    here = Unwalled("a test")
    provider = Provider(
        tmp_path, Backend.CPU, find_interpreter(), here, watch, str(dispatch_bench.small.repo)
    )
    prober = Prober.of(provider)
    with prober.upstream:
        assert (prober.builds, prober.sandbox, prober.trust) == (tmp_path, here, False)
        with pytest.raises(Untrusted, match="a test"):
            prober.ask(dispatch_bench.at("#22/head"), ONE)
