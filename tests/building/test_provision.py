"""From what a person types to an environment that is proven to hold it; whose code may run; tools at once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_mlx import GOOD, make_wheel
from small_builds import Bench, ask, gone_in_the_end, running_below, walls
from small_upstream import START

from bisect_tool.building import cmake_files
from bisect_tool.building.attempt import Attempt
from bisect_tool.building.sandbox import Unwalled
from bisect_tool.building.store import Store
from bisect_tool.errors import (
    BuildFailed,
    DiskFull,
    EnvironmentBroken,
    MachineTrouble,
    UnknownRevision,
    Untrusted,
    UsageProblem,
)
from bisect_tool.process import Finished
from bisect_tool.upstream.revision import Revision

builds = pytest.mark.builds
LATE = "slow-down"
NO_WALLS = Unwalled("bubblewrap not found")


# ---- revisions --------------------------------------------------------------------------------------------


@builds
def test_whatever_names_a_commit(bench: Bench) -> None:
    """Names of one commit are one build, and messages call it as it was typed."""
    provider = bench.provider()
    head = bench.upstream.main[-1]
    first = bench.provide(head.name)
    when = time.strftime("@%Y-%m-%d", time.gmtime(START + 86_400 * 400))
    for text in ("main", "HEAD", head.sha[:8], "main~0", when):
        made = provider.provide(Revision.parse(text))
        assert made.environment.root == first.environment.root and not made.built
        assert bench.said[-1] == f"looking up {text}"
    with pytest.raises(UnknownRevision, match=r"near it: v0\.3\.0"):
        provider.provide(Revision.parse("v0.3.00"))


@builds
def test_a_release_is_not_built(bench: Bench, wheels: Path) -> None:
    make_wheel(wheels, GOOD)
    made = bench.provider().provide(Revision.parse("9.9.9"))
    assert (made.build, made.resolved, made.built) == (None, None, False)
    assert made.environment.mlx_version == "9.9.9"
    assert bench.steps == []


@builds
def test_a_merged_pull_request_is_its_merge(bench: Bench) -> None:
    made = bench.provide("pull-12")
    assert made.resolved is not None and made.resolved.trusted
    assert made.resolved.commit.sha == bench.commit("ops-fuse").sha
    assert bench.said[0].startswith("#12 is merged as ")
    bench.expect("ops-fuse", made.environment)


@builds
def test_an_open_pull_request_is_its_head(bench: Bench) -> None:
    made = bench.provide("pull-15")
    assert made.resolved is not None and not made.resolved.trusted
    bench.expect("pull-15", made.environment)
    label = f"#15 ({bench.commit('pull-15').sha[:9]})"
    assert made.build is not None and made.build.record["revision"] == label


@contextmanager
def work_tree(bench: Bench, folder: Path, name: str) -> Iterator[Path]:
    subprocess.run(["git", "clone", "--quiet", str(bench.upstream.repo), str(folder)], check=True)
    subprocess.run(
        ["git", "-C", str(folder), "checkout", "--quiet", "--detach", bench.commit(name).sha], check=True
    )
    yield folder
    status = subprocess.run(
        ["git", "-C", str(folder), "status", "--porcelain", "--ignored"], check=True, capture_output=True
    )
    assert b"build" not in status.stdout, "nothing was built in it"


@builds
def test_a_tree_with_changes(bench: Bench, tmp_path: Path) -> None:
    """As it is on the disk, new files and all; itself untouched."""
    with work_tree(bench, tmp_path / "mine", LATE) as mine:
        unchanged = bench.provider().provide(Revision.parse(f"path:{mine}"))
        assert unchanged.build is not None and unchanged.build.key == bench.key(LATE)
        quantized = mine / "mlx" / "backend" / "cpu" / "quantized.cpp"
        quantized.write_text(quantized.read_text().replace("int rounds = 140;", "int rounds = 7;"))
        (mine / "python" / "mlx" / "new.py").write_text("answer = 42\n")
        made = bench.provider().provide(Revision.parse(f"path:{mine}"))
        assert made.built and made.resolved is not None and made.resolved.trusted
        assert ask(made.environment).split("|")[1] == "7"
        assert made.build is not None
        with zipfile.ZipFile(made.build.wheel) as archive:
            assert archive.read("mlx/new.py") == b"answer = 42\n"
        assert any("with changes" in text for text in bench.said)
        again = bench.provider().provide(Revision.parse(f"path:{mine}"))
        assert again.build is not None and again.build.key == made.build.key and not again.built


# ---- whose code runs --------------------------------------------------------------------------------------


def test_a_stranger_is_refused_without_walls(bench: Bench) -> None:
    with pytest.raises(Untrusted) as caught:
        bench.provide("pull-15", sandbox=NO_WALLS)
    line = caught.value.line()
    assert line.startswith(f"#15 ({bench.commit('pull-15').sha[:9]}) is not of the project's own branches")
    assert "your files, keys and network (bubblewrap not found)" in line and "--trust" in line
    assert isinstance(caught.value, UsageProblem) and caught.value.exit_code == 2
    assert bench.steps == []


def test_a_stranger_is_refused_even_what_is_in_the_store(bench: Bench) -> None:
    """Importing it runs it, too."""
    provider = bench.provider(sandbox=NO_WALLS)
    with pytest.raises(Untrusted):
        provider.admit(bench.resolved("pull-17", provider))
    provider.admit(bench.resolved(LATE, provider))
    provider.admit(bench.resolved("pull-12", provider))


@builds
def test_whom_one_trusts_is_built_without_walls(bench: Bench) -> None:
    made = bench.provide("pull-15", anew=True, sandbox=NO_WALLS, trust=True)
    bench.expect("pull-15", made.environment)
    assert made.build is not None and made.build.record["walls"] == "none"


# ---- the MLX that is imported -----------------------------------------------------------------------------


@builds
def test_another_mlx_on_the_way_is_not_taken_for_this_one(bench: Bench, tmp_path: Path) -> None:
    """A variable of the run that puts another MLX first is the user's doing, not the commit's."""
    other = tmp_path / "other" / "mlx"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    (other / "core.py").write_text("__version__ = '0.2.1'\n")
    first = {"PYTHONPATH": str(other.parent)}
    # Walls would hide it.
    with pytest.raises(EnvironmentBroken) as caught:
        bench.provide(LATE, anew=True, sandbox=NO_WALLS, run_env=lambda: first)
    assert (
        f"it loaded {other}/core.py, which is not of this environment; unset PYTHONPATH"
        in caught.value.line()
    )
    key = bench.key(LATE)
    assert key not in Store(bench.builds).stored()
    assert not (bench.builds / "environments" / f"built-{key[:16]}").exists()
    bench.expect(LATE, bench.provide(LATE).environment)


@builds
def test_a_library_of_a_build_tree_is_not_taken_for_the_wheels(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As upstream's own early wheels do it: ``mlx.core`` finds ``libmlx`` by a path into the build folder."""
    initial_cache = cmake_files.initial_cache

    def as_upstream(*words: Any, **how: Any) -> str:
        text = initial_cache(*words, **how)
        return "\n".join(line for line in text.splitlines() if "RPATH" not in line) + "\n"

    name = "bump-0.2.0"
    shutil.rmtree(bench.builds / "trees", ignore_errors=True)
    monkeypatch.setattr(cmake_files, "initial_cache", as_upstream)
    with pytest.raises(EnvironmentBroken) as caught:
        bench.provide(name, anew=True, sandbox=NO_WALLS)
    assert f"it loaded {bench.builds}/trees/" in caught.value.line() and "libmlx" in caught.value.line()
    assert bench.key(name) not in Store(bench.builds).stored()


@builds
def test_an_import_that_the_machine_killed_says_nothing_about_the_commit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = bench.provider()
    sandbox = provider.sandbox
    run = sandbox.run

    def killed(argv: list[object], **how: object) -> Finished:
        if any("attested.py" in str(word) for word in argv):
            return Finished(("python",), -9, "", "", 1.0)
        return run(argv, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(type(sandbox), "run", lambda _self, argv, **how: killed(argv, **how))
    monkeypatch.setattr("bisect_tool.building.builder.TRIES", 1)
    with pytest.raises(MachineTrouble, match="does not import: python was killed by SIGKILL"):
        bench.provide(LATE, anew=True)


@builds
def test_no_room_for_the_environment_is_no_fault_of_the_commit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("bisect_tool.building.installer.make_venv", full)
        with pytest.raises(DiskFull):
            bench.provide(LATE, anew=True)
    assert bench.key(LATE) not in Store(bench.builds).stored()


# ---- several tools, and dying ones ------------------------------------------------------------------------

# A tool that stops for ever at the moment that its first argument names, having said so.
CHILD = """
import json, sys, time
sys.path.insert(0, "tests")
from pathlib import Path
from small_builds import Bench
from small_upstream import SmallUpstream

def stop(*_, **__):
    print("now", flush=True)
    if sys.argv[1] != "nowhere":
        time.sleep(600)

builds, repo, mirrors, sha, moment = *sys.argv[2:6], sys.argv[1]
commits = [type("Commit", (), {"name": "it", "sha": sha})]
bench = Bench(SmallUpstream(Path(), Path(repo), json.loads(mirrors), commits, Path(), 0), Path(builds))
from bisect_tool.building import builder, making, store
from bisect_tool.building.builder import Watcher
watch = Watcher(remark=lambda text: print(text, flush=True))
if moment in ("compile", "nowhere"):
    watch.step = lambda step, left: step.done != 3 or stop()
if moment == "pack":
    from bisect_tool.building.output import Steps
    feed = Steps.feed
    def packing(self, chunk):
        if b"creating " in chunk and b".dist-info" in chunk or b"adding " in chunk:
            stop()
        feed(self, chunk)
    Steps.feed = packing
if moment == "install":
    installed = making.installer.install
    making.installer.install = lambda *words, **how: (installed(*words, **how), stop())
if moment == "store":
    store.write_record = stop
if moment == "finish":
    builder.Tree.finish = stop
made = bench.provide("it", watch=watch)
print(json.dumps({"built": made.built, "wheel": str(made.build.wheel)}), flush=True)
"""


@contextmanager
def tool(bench: Bench, name: str, moment: str = "nowhere") -> Iterator[subprocess.Popen[str]]:
    words = [str(bench.builds), str(bench.upstream.repo), json.dumps(bench.upstream.mirrors)]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, moment, *words, bench.commit(name).sha],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def said_by(child: subprocess.Popen[str], text: str) -> list[str]:
    """Its lines up to the one that begins with ``text``."""
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        lines.append(line.rstrip())
        if line.startswith(text):
            return lines
    raise AssertionError(f"it did not say {text!r}: {lines}")


@builds
def test_two_tools_at_one_commit(bench: Bench) -> None:
    """One builds, the other waits and says so."""
    name = "import-error-mended"
    bench.forget(bench.key(name))
    shutil.rmtree(bench.builds / "trees", ignore_errors=True)
    with tool(bench, name) as one:
        said_by(one, "now")
        one.send_signal(signal.SIGSTOP)  # until the other one waits, however slow that starts
        with tool(bench, name) as two:
            label = bench.commit(name).sha[:9]
            assert said_by(two, "waiting") == [f"waiting for another bisect_tool to finish building {label}"]
            one.send_signal(signal.SIGCONT)
            made = [json.loads(said_by(each, "{")[-1]) for each in (one, two)]
    assert [each["built"] for each in made] == [True, False]
    assert made[0]["wheel"] == made[1]["wheel"]
    bench.expect(name, bench.provide(name).environment)


@builds
def test_two_tools_take_turns_in_one_tree(bench: Bench) -> None:
    names = ("import-error-mended", "import-hangs-mended")
    for name in names:
        bench.forget(bench.key(name))
    shutil.rmtree(bench.builds / "trees", ignore_errors=True)
    with tool(bench, names[0]) as one:
        said_by(one, "now")
        one.send_signal(signal.SIGSTOP)
        with tool(bench, names[1]) as two:
            waiting = "waiting for another bisect_tool to finish a build in the same build tree"
            assert said_by(two, "waiting") == [waiting]
            one.send_signal(signal.SIGCONT)
            made = [json.loads(said_by(each, "{")[-1]) for each in (one, two)]
    assert [each["built"] for each in made] == [True, True]
    for name in names:
        again = bench.provide(name)
        assert not again.built
        bench.expect(name, again.environment)


@builds
@pytest.mark.parametrize("moment", ["compile", "pack", "install", "store", "finish"])
def test_killed(moment: str, bench: Bench) -> None:
    """Nothing half-made is taken for whole, no lock is left, and nothing runs on."""
    walls()
    name = "import-aborts-mended"
    key = bench.key(name)
    bench.forget(key)
    if moment == "compile":
        shutil.rmtree(bench.builds / "trees", ignore_errors=True)
    with tool(bench, name, moment) as child:
        said_by(child, "now")
        begun = time.monotonic()
        if moment in ("compile", "pack"):
            assert running_below(bench.builds / "trees"), "it is in the middle of it"
        child.kill()
        child.wait()
        with gone_in_the_end(bench.builds):
            pass
        assert time.monotonic() - begun < 10
    assert (key in Store(bench.builds).stored()) == (moment == "finish")
    whole = [path for path in (bench.builds / "environments").glob("*") if not path.name.startswith(".")]
    assert all((path / "environment.json").exists() for path in whole)
    made = bench.provide(name)
    assert [text for text in bench.said if text.startswith("waiting")] == []
    assert made.built == (moment != "finish")
    bench.expect(name, made.environment)
    assert Store(bench.builds).verify(key) == ""


@builds
def test_a_build_that_leaves_no_wheel_or_two(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a link in place of one."""
    wheel = Attempt._wheel

    def first(task: Attempt, text: str) -> Path:
        kept = wheel(task, text)
        kept.rename(task.tree.root / kept.name)
        (task.tree.out / kept.name).symlink_to(task.tree.root / kept.name)
        return wheel(task, text)

    monkeypatch.setattr(Attempt, "_wheel", first)
    with pytest.raises(BuildFailed) as caught:
        bench.provide(LATE, anew=True)
    assert caught.value.failure == "pack"
    assert "does not pack: it left 0 wheels behind, and one is needed" in caught.value.line()
    assert os.listdir(bench.builds / "trees") == []  # noqa: PTH208
