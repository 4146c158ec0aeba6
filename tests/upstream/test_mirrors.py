"""Local copies of addresses."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from theirs import Repository, copied, environment

from bisect_tool.errors import UsageProblem
from bisect_tool.upstream.mirrors import Mirrors


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    return copied(tmp_path, monkeypatch)


A, B, C = Path("/srv/a"), Path("/srv/b"), Path("/srv/c")
MIRRORS = Mirrors(
    (
        ("https://github.com/", A),
        ("https://github.com/fmtlib/fmt.git", B),
        ("https://github.com/nlohmann/json", C),
        ("git@github.com:ml-explore", A),
    )
)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://github.com/fmtlib/fmt", (B, "")),
        ("https://github.com/fmtlib/fmt.git", (B, "")),
        ("https://github.com/fmtlib/fmt/", (B, "")),
        ("https://github.com/fmtlib/fmt/archive/refs/tags/1.tar.gz", (B, "archive/refs/tags/1.tar.gz")),
        ("https://github.com/nlohmann/json.git/x", (C, "x")),
        (
            "https://github.com/nlohmann/json/releases/download/v3/json.tar.xz",
            (C, "releases/download/v3/json.tar.xz"),
        ),
        ("https://github.com/nlohmann/jsonish", (A, "nlohmann/jsonish")),
        ("https://github.com/fmtlib/fmt-extra.git", (A, "fmtlib/fmt-extra")),
        ("https://github.com/ml-explore/mlx.git", (A, "ml-explore/mlx")),
        ("https://github.com", (A, "")),
        ("git@github.com:ml-explore/mlx.git", (A, "mlx")),
        ("https://github.community/x", None),
        ("https://gitlab.com/fmtlib/fmt", None),
        ("http://github.com/fmtlib/fmt", None),
        # A stranger's address must not lead out of the local copy.
        ("https://github.com/fmtlib/fmt/../../etc/passwd", None),
        ("https://github.com/..", None),
        ("https://github.com/nlohmann/json//etc/passwd", (C, "etc/passwd")),
    ],
)
def test_longest_beginning_at_a_component(url: str, place: tuple[Path, str] | None) -> None:
    assert MIRRORS.local(url) == place
    reverse = Mirrors(tuple(reversed(MIRRORS.pairs)))
    assert reverse.local(url) == place


def test_no_mirrors() -> None:
    assert Mirrors().local("https://github.com/fmtlib/fmt") is None
    assert Mirrors().git_config() == []


def test_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copy").mkdir()
    parsed = Mirrors.parse(["https://example.com/a=copy", f"git@host:x={tmp_path}"])
    assert parsed.pairs == (("https://example.com/a", tmp_path / "copy"), ("git@host:x", tmp_path))
    assert Mirrors.parse([]) == Mirrors()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("https://example.com/a", "is not PREFIX=PATH"),
        ("https://example.com/a=", "is not PREFIX=PATH"),
        ("=/tmp", "is not PREFIX=PATH"),
        ("example=/tmp", "is not PREFIX=PATH"),
        ("/srv/a=/tmp", "is not PREFIX=PATH"),
        ("https://example.com/a=/no/such/place", "there is no /no/such/place"),
    ],
)
def test_what_is_no_mirror(option: str, says: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        Mirrors.parse([option])
    assert says in caught.value.line()


def test_a_path_that_git_could_not_be_told(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    with pytest.raises(UsageProblem, match="holds a ="):
        Mirrors.parse([f"https://example.com/a={tmp_path / 'a=b'}"])


@pytest.mark.parametrize(
    ("prefix", "address"),
    [
        ("https://nowhere.example/ml/mlx", "https://nowhere.example/ml/mlx"),
        ("https://nowhere.example/ml/mlx", "https://nowhere.example/ml/mlx.git"),
        ("https://nowhere.example/ml/mlx.git", "https://nowhere.example/ml/mlx"),
        ("https://nowhere.example/ml/mlx/", "https://nowhere.example/ml/mlx.git/"),
        ("https://nowhere.example/ml", "https://nowhere.example/ml/mlx"),
    ],
)
def test_git_takes_the_copy(theirs: Repository, prefix: str, address: str) -> None:
    path = theirs.path if prefix.rstrip("/").endswith(("mlx", ".git")) else theirs.path.parent
    options = Mirrors.parse([f"{prefix}={path}"]).git_config()
    done = subprocess.run(
        ["git", *options, "ls-remote", address, "refs/heads/main"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [theirs.shas["tip"], "refs/heads/main"], done.stderr
