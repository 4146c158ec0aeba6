"""Pull requests that attack whoever builds them: read keys, call home, plant, stay, fill and flood."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_builds import Bench, gone_in_the_end, running_below, walls
from small_upstream import LEFTOVER, SECRET, TOKEN, WAS_HERE, SmallUpstream, make

from bisect_tool.building import attempt as building
from bisect_tool.building.store import Store
from bisect_tool.errors import BuildFailed, MachineTrouble

pytestmark = pytest.mark.builds
STAGES = ("setup.py", "cmake", "import")


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> SmallUpstream:
    """With a victim of its own."""
    return make(tmp_path_factory.mktemp("attacked") / "upstream")


@pytest.fixture(scope="module")
def _hostile_builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile").resolve() / "builds"


@pytest.fixture
def hostile(
    attacked: SmallUpstream, bench: Bench, _hostile_builds: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """Builds of the attacked upstream; whatever happens, nothing of it is left outside."""
    walls()
    bench.share_downloads(monkeypatch)
    made = Bench(attacked, _hostile_builds)
    if not made.builds.exists():
        for name in ("sources", "cache/ccache"):  # which saves what there is of it
            if (bench.builds / name).exists():
                shutil.copytree(bench.builds / name, made.builds / name)
        made.provide("ops-speed")  # what others build upon is there
    monkeypatch.setenv("HOME", str(attacked.victim))
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(attacked.victim / "agent"))
    before = everything(made.builds)
    with attacked.listening() as heard, gone_in_the_end(made.builds):
        yield made
    assert attacked.traces() == []
    planted = [path for path in made.builds.rglob("*") if WAS_HERE in path.name]
    assert [path for path in planted if "home" not in path.parts] == [], "but in homes of their own"
    assert heard == []
    assert [line for line in running_below(made.builds) if LEFTOVER in line] == []
    for log in (made.builds / "logs").iterdir():
        said = log.read_text(errors="replace")
        assert SECRET not in said and TOKEN not in said, log
    assert everything(made.builds) == before, "what other builds read is as it was"


def everything(builds: Path) -> dict[str, bytes]:
    """What other builds read: the compile cache, kept trees, sources, build environments."""
    found = {}
    for name in ("cache/ccache", "trees", "sources", "build-environments"):
        for path in sorted((builds / name).rglob("*")):
            if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
                found[str(path.relative_to(builds))] = path.read_bytes()
    return found


def logs_of(bench: Bench, name: str) -> str:
    key = bench.key(name)
    logs = (f"build-{key[:12]}.log", f"environment-built-{key[:16]}.log")
    return "\n".join((bench.builds / "logs" / log).read_text(errors="replace") for log in logs)


def outcomes(text: str, kind: str) -> dict[str, set[str]]:
    """How each stage's attempts went, as the attack says it."""
    found: dict[str, set[str]] = {}
    for stage, outcome in re.findall(rf"^attack {kind} at (\S+): (\w+)", text, re.MULTILINE):
        found.setdefault(stage, set()).add(outcome)
    return found


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("pull-20", "reading .*/home/victim/.ssh/id_test"),
        ("pull-21", ""),
        ("pull-22", "(reading|writing) .*/home"),
        ("pull-23", "the network"),
        ("pull-24", "leaving processes behind: "),
        ("pull-25", "writing "),
    ],
    ids=["reads keys", "reads a token", "writes outside", "opens a socket", "stays", "plants"],
)
def test_it_goes_on_without(name: str, told: str, hostile: Bench) -> None:
    """It is built all the same: what it tried came to nothing, and is told."""
    (kind,) = hostile.commit(name).attacks
    made = hostile.provide(name)
    assert made.built and not (made.resolved and made.resolved.trusted)
    hostile.expect(name, made.environment)
    seen = outcomes(logs_of(hostile, name), kind)
    assert set(seen) == set(STAGES), "it was tried at every stage"
    if kind not in ("leave-process", "plant"):
        assert all(outcome == {"stopped"} for outcome in seen.values()), seen
    if told:
        remarks = [text for text in hostile.said if "went on without what the walls stopped" in text]
        assert len(remarks) == 1 and re.search(told, remarks[0]), hostile.said


def test_all_at_once(hostile: Bench) -> None:
    made = hostile.provide("pull-16")
    hostile.expect("pull-16", made.environment)
    text = logs_of(hostile, "pull-16")
    for kind in ("read-ssh", "print-token", "write-home", "open-socket"):
        assert outcomes(text, kind) == {stage: {"stopped"} for stage in STAGES}


def test_what_a_wall_ends_is_told_as_that(hostile: Bench) -> None:
    with pytest.raises(BuildFailed) as caught:
        hostile.provide("pull-29")
    problem = caught.value
    assert problem.failure == "walls"
    label = f"#29 ({hostile.commit('pull-29').sha[:9]})"
    wall = f"reading {hostile.upstream.victim}/.ssh/id_test"
    assert problem.line().startswith(f"{label} tries what the walls do not allow: {wall}")
    assert "--sandbox off --trust" in problem.line() and "\n" not in problem.line()


def test_memory(hostile: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds for the build; the machine is not brought down, and it is said whose limit it was."""
    import psutil

    monkeypatch.setattr(building, "MEMORY_SHARE", 0.9e9 / psutil.virtual_memory().total)
    monkeypatch.setattr("bisect_tool.building.builder.TRIES", 1)
    with pytest.raises(MachineTrouble) as caught:
        hostile.provide("pull-26")
    assert "ran out of memory while it built" in caught.value.line()
    assert hostile.key("pull-26") not in Store(hostile.builds).stored()


def test_forks(hostile: Bench) -> None:
    """A hundred processes that keep its output open, for which CMake would wait: they are ended on time."""
    with pytest.raises(BuildFailed) as caught:
        hostile.provide("pull-27", timeout_s=8)
    assert caught.value.failure == "time"


def test_a_flood(hostile: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "OUTPUT_LIMIT", 4_000_000)
    with pytest.raises(BuildFailed) as caught:
        hostile.provide("pull-28")
    assert caught.value.failure == "output"
    assert "says more than a build may: it wrote more than it may" in caught.value.line()
    assert caught.value.log is not None and caught.value.log.stat().st_size < 8_000_000
    assert [text for text in hostile.said if "trying again" in text] == [], "it is the commit's own doing"


def test_an_honest_stranger_leaves_nothing(hostile: Bench) -> None:
    """Neither in the compile cache nor in the kept tree: the fixture compares them."""
    made = hostile.provide("pull-15")
    hostile.expect("pull-15", made.environment)
    assert made.build is not None
    assert len(hostile.compiled) > 5, "in a tree of its own"
    assert [name for name in hostile.trees if made.build.key[:12] in name] == []
