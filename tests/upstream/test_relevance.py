"""What reaches a build, and the digest over it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from theirs import made_once

from bisect_tool.upstream.clone import Upstream
from bisect_tool.upstream.relevance import BACKENDS, distinct, relevance, source_digest
from bisect_tool.upstream.values import Entry, entries_of

CUDA = {"cuda12", "cuda13"}
GPU = {"metal", *CUDA}
ALL = set(BACKENDS)


@pytest.mark.parametrize(
    ("path", "backends"),
    [
        ("setup.py", ALL),
        ("pyproject.toml", ALL),
        ("CMakeLists.txt", ALL),
        ("MANIFEST.in", ALL),
        ("LICENSE", ALL),
        ("mlx.pc.in", ALL),
        ("cmake/extension.cmake", ALL),
        ("cmake/metal.14.0.diff", ALL),
        ("mlx/ops.cpp", ALL),
        ("mlx/version.h", ALL),
        ("mlx/CMakeLists.txt", ALL),
        ("mlx/io/gguf.cpp", ALL),
        ("mlx/3rdparty/pocketfft.h", ALL),
        ("mlx/distributed/nccl/nccl.cpp", ALL),
        ("mlx/backend/common/reduce.cpp", ALL),
        ("mlx/backend/cpu/quantized.cpp", ALL),
        ("mlx/backend/accelerate/matmul.cpp", ALL),
        ("mlx/backend/no_cpu/primitives.cpp", ALL),
        ("mlx/backend/another/x.cpp", ALL),
        ("python/src/ops.cpp", ALL),
        ("python/src/metal.cpp", ALL),
        ("python/mlx/nn/layers/base.py", ALL),
        ("python/mlx/_stub_patterns.txt", ALL),
        ("something/new.txt", ALL),
        ("vendor/docs/x.cpp", ALL),
        ("mlx/tests/x.cpp", ALL),
        ("mlx/backend/metal/quantized.cpp", {"metal"}),
        ("mlx/backend/metal/kernels/quantized.h", {"metal"}),
        ("mlx/backend/metal/kernels/steel/gemm/mma.h", {"metal"}),
        ("mlx/backend/metal/CMakeLists.txt", {"metal"}),
        ("mlx/backend/metal/metal.h", ALL),
        ("mlx/backend/metal/metal_impl.h", ALL),
        ("mlx/backend/metal/copy.h", ALL),
        ("mlx/backend/metal/no_metal.cpp", ALL),
        ("mlx/backend/cuda/quantized/qmm.cu", CUDA),
        ("mlx/backend/cuda/device/utils.cuh", CUDA),
        ("mlx/backend/cuda/cuda.cpp", CUDA),
        ("mlx/backend/cuda/device/config.h", CUDA),
        ("mlx/backend/cuda/cuda.h", ALL),
        ("mlx/backend/cuda/no_cuda.cpp", ALL),
        ("mlx/backend/gpu/primitives.cpp", GPU),
        ("mlx/backend/gpu/available.h", ALL),
        ("mlx/backend/no_gpu/primitives.cpp", {"cpu"}),
        ("mlx/backend/no_gpu/linux_memory.h", ALL),
        ("mlx/backend/no_metal/metal.cpp", {"cpu", *CUDA}),
        ("README.md", set()),
        ("AGENTS.md", set()),
        ("CITATION.cff", set()),
        ("docs/src/index.rst", set()),
        ("docs/CMakeLists.txt", set()),
        ("tests/ops_tests.cpp", set()),
        ("tests/CMakeLists.txt", set()),
        ("examples/cpp/tutorial.cpp", set()),
        ("benchmarks/python/x.py", set()),
        (".github/workflows/release.yml", set()),
        (".circleci/config.yml", set()),
        (".pre-commit-config.yaml", set()),
        (".clang-format", set()),
        (".gitignore", set()),
        ("python/tests/test_ops.py", set()),
        ("python/scripts/repair_cuda.sh", set()),
        ("python/README.md", set()),
    ],
)
def test_paths(path: str, backends: set[str]) -> None:
    assert {backend for backend in BACKENDS if counts(path, backend)} == backends


def counts(path: str, backend: str) -> bool:
    """Brute force: whether a file counts, walking down from the root as ``source_digest`` does."""
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        found = relevance("/".join(parts[:depth]), backend)
        if found is not None:
            return found
    return False


# Names at which lines are drawn, and others.
NAMES = st.sampled_from(
    [
        *(
            "mlx",
            "backend",
            "metal",
            "cuda",
            "cpu",
            "gpu",
            "no_gpu",
            "python",
            "src",
            "tests",
            "docs",
            ".github",
        ),
        *("metal.h", "no_metal.cpp", "README.md", "setup.py", "x", "x.h", "ü", "a b"),
    ]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join) | st.builds(
    "{}/{}".format, st.sampled_from(["mlx/backend/metal", "mlx/backend/cuda", "mlx/backend", "python"]), NAMES
)
CONTENTS = st.sampled_from(
    [("100644", "a"), ("100644", "b"), ("100755", "a"), ("120000", "a"), ("160000", "a")]
)
Files = dict[str, tuple[str, str]]


class Objects:
    """Tree objects in memory, written as git writes them."""

    def __init__(self) -> None:
        self.trees: dict[str, bytes] = {}
        self.read: list[str] = []

    def tree(self, files: Files) -> str:
        below: dict[str, Files] = {}
        lines = {}
        for path, (mode, content) in files.items():
            name, mark, rest = path.partition("/")
            if mark:
                below.setdefault(name, {})[rest] = (mode, content)
            else:
                lines[name] = (mode, hashlib.sha1(content.encode()).hexdigest())
        for name, inner in below.items():
            lines[name] = ("40000", self.tree(inner))
        raw = b"".join(
            f"{mode} {name}\0".encode() + bytes.fromhex(oid)
            for name, (mode, oid) in sorted(
                lines.items(), key=lambda one: one[0] + "/" * (one[1][0] == "40000")
            )
        )
        oid = hashlib.sha1(b"tree %d\0" % len(raw) + raw).hexdigest()
        self.trees[oid] = raw
        return oid

    def entries(self, oid: str) -> list[Entry]:
        self.read.append(oid)
        return entries_of(self.trees[oid])


def without_conflicts(files: Files) -> Files:
    """No path that is a folder of another one."""
    return {path: each for path, each in files.items() if not any(p.startswith(f"{path}/") for p in files)}


@given(
    st.dictionaries(PATHS, CONTENTS, max_size=8),
    st.dictionaries(PATHS, CONTENTS | st.none(), max_size=3),
    st.sampled_from(BACKENDS),
)
def test_digests_are_equal_exactly_when_what_counts_is(
    files: Files, changes: dict[str, tuple[str, str] | None], backend: str
) -> None:
    before = without_conflicts(files)
    after = without_conflicts(
        {path: each for path, each in {**before, **changes}.items() if each is not None}
    )
    objects, memo = Objects(), dict[tuple[str, str, str], str]()
    one, other = (
        source_digest(objects.tree(each), backend, objects.entries, memo) for each in (before, after)
    )
    listed = [{path: each for path, each in fs.items() if counts(path, backend)} for fs in (before, after)]
    assert (one == other) == (listed[0] == listed[1])
    assert one == source_digest(objects.tree(before), backend, objects.entries)  # whatever is remembered
    assert len(one) == 64


@given(PATHS, st.sampled_from(BACKENDS))
def test_a_file_counts_as_its_folder_does(path: str, backend: str) -> None:
    """``relevance`` of a path below one that was decided does not say otherwise where it says no."""
    folder = path.rpartition("/")[0]
    decided = relevance(folder, backend) if folder else None
    if decided is True:
        assert relevance(path, backend) is not False
    if relevance(path, backend) is None:
        assert decided is None


def test_only_what_must_be_looked_into_is_read() -> None:
    objects = Objects()
    paths = ["docs/a/b", "mlx/io/deep/x", "mlx/backend/metal/kernels/x", "mlx/backend/cpu/x", "python/src/x"]
    one: Files = dict.fromkeys(paths, ("100644", "a"))
    oid = objects.tree(one)
    memo: dict[tuple[str, str, str], str] = {}
    source_digest(oid, "cpu", objects.entries, memo)
    looked = {"", "mlx", "mlx/backend", "mlx/backend/metal", "python"}
    assert len(objects.read) == len(looked)
    source_digest(objects.tree({**one, "docs/a/b": ("100644", "b")}), "cpu", objects.entries, memo)
    assert len(objects.read) == len(looked) + 1  # the root only


def test_an_empty_tree_and_one_without_anything_relevant() -> None:
    objects = Objects()
    empty = source_digest(objects.tree({}), "cpu", objects.entries)
    docs = source_digest(objects.tree({"docs/a": ("100644", "a")}), "cpu", objects.entries)
    assert empty == docs
    assert source_digest(objects.tree({"setup.py": ("100644", "a")}), "cpu", objects.entries) != empty


def test_the_same_name_elsewhere_is_another_build() -> None:
    objects = Objects()
    trees = [
        objects.tree({path: ("100644", "a")}) for path in ("mlx/a/x", "mlx/x", "x", "mlx/a.x", "mlx/b/x")
    ]
    digests = {source_digest(tree, "cpu", objects.entries) for tree in trees}
    assert len(digests) == len(trees)


def test_what_is_remembered_is_of_one_place_and_one_backend() -> None:
    objects, memo = Objects(), dict[tuple[str, str, str], str]()
    twins: Files = {
        f"{folder}/{name}": ("100644", name)
        for folder in ("mlx/backend/metal", "mlx/backend/cuda", "mlx/backend", "mlx", "python")
        for name in ("x.h", "y.cpp")
    }
    digests = {}
    for backend in BACKENDS:
        digests[backend] = source_digest(objects.tree(twins), backend, objects.entries, memo)
        assert digests[backend] == source_digest(objects.tree(twins), backend, objects.entries)
    assert len(set(digests.values())) == 3  # the two CUDA ones read the same
    # One folder at two places: what is remembered of the first must not stand for the second.
    one: Files = {"mlx/backend/metal/x.cpp": ("100644", "x")}
    both: Files = {**one, "python/x.cpp": ("100644", "x")}
    first, second = (
        source_digest(objects.tree(files), "cpu", objects.entries, memo) for files in (one, both)
    )
    assert first != second


def test_distinct_builds_of_commits(tmp_path: Path) -> None:
    by_sha = {sha: name for name, sha in made_once().shas.items()}
    with Upstream.open(tmp_path / "builds", str(made_once().path)) as upstream:
        commits = [upstream.commit("v0.1.0"), *upstream.range("v0.1.0..main")]
        found = {
            backend: [
                [by_sha[commit.sha] for commit in group]
                for group in distinct(commits, backend, upstream).values()
            ]
            for backend in BACKENDS
        }
        again = distinct(reversed(commits), "cpu", upstream)
        assert set(again) == set(distinct(iter(commits), "cpu", upstream))
        assert set(again) == {source_digest(commit.tree, "cpu", upstream.entries) for commit in commits}
    assert found["cpu"] == [["initial", "docs", "kernel"], ["merge"], ["ops"], ["header"], ["tip"]]
    assert found["metal"] == [["initial", "docs"], ["kernel"], ["merge"], ["ops"], ["header"], ["tip"]]
    assert found["cuda12"] == found["cuda13"] == found["cpu"]
