"""What tests of several rooms share: wheels are downloaded once a session, fake ones come from a folder."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import long_history
import pytest
from long_history import LongHistory
from small_builds import Bench, close_upstreams
from small_dispatch import Bench as DispatchBench
from small_dispatch import make as make_dispatch
from small_upstream import SmallUpstream, make

from bisect_tool import process

# The machine may be busy with other tests: how long one example takes says nothing.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _turn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A test marked ``alone`` waits until no other runs, and none begins while it runs."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    shared = tmp_path_factory.getbasetemp().parent
    with (shared / "door.lock").open("w") as door, (shared / "inside.lock").open("w") as inside:
        fcntl.flock(door, fcntl.LOCK_EX)  # held by one that waits to be alone, so that nobody overtakes it
        fcntl.flock(inside, fcntl.LOCK_EX if request.node.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


@pytest.fixture(scope="session")
def wheel_builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``builds/`` folder that real releases are installed into, or the one that the variable names."""
    named = os.environ.get("BISECT_TOOL_TEST_BUILDS")
    return Path(named).absolute() if named else tmp_path_factory.mktemp("builds")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place uv may install from."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    return folder


@pytest.fixture(scope="session")
def small_upstream(tmp_path_factory: pytest.TempPathFactory) -> SmallUpstream:
    """Repositories shaped like MLX and its sources; see the module.

    Nobody writes to them: a test that builds the hostile commits makes a victim of its own with ``make``.
    """
    return make(tmp_path_factory.mktemp("small-upstream"))


@pytest.fixture(scope="session")
def shared_bench(small_upstream: SmallUpstream, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One folder of builds of the small upstream for all tests that can share it."""
    return Bench(small_upstream, tmp_path_factory.mktemp("small-builds").resolve())


@pytest.fixture(scope="session")
def history(small_upstream: SmallUpstream, tmp_path_factory: pytest.TempPathFactory) -> LongHistory:
    """Sixty commits to search."""
    return long_history.make(small_upstream, tmp_path_factory.mktemp("long-history"))


@pytest.fixture(scope="session")
def history_bench(small_upstream: SmallUpstream, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One folder of builds of that history."""
    return Bench(small_upstream, tmp_path_factory.mktemp("history-builds").resolve())


@pytest.fixture
def bench(shared_bench: Bench) -> Iterator[Bench]:
    yield Bench(shared_bench.upstream, shared_bench.builds)
    close_upstreams()


@pytest.fixture(scope="session")
def dispatch_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DispatchBench]:
    """The small upstream with a quantized matmul; see the module."""
    from bisect_tool.upstream.clone import Upstream

    small = make_dispatch(tmp_path_factory.mktemp("small-dispatch").resolve())
    builds = tmp_path_factory.mktemp("dispatch-builds").resolve()
    with Upstream.open(builds, str(small.repo)) as upstream:
        yield DispatchBench(small, builds, upstream)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root on Linux")
    mounted = process.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], timeout_s=10)
    if not mounted.ok:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.last_line()}")
    yield folder
    process.run(["umount", "--lazy", str(folder)], timeout_s=10)
