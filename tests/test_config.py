from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from bisect_tool import config
from bisect_tool.building.backend import Backend
from bisect_tool.config import Config, combined_mirrors, load
from bisect_tool.errors import UsageProblem

WHOLE = """
repo = "../mlx"
builds = "~/builds"
sandbox = "require"
backend = "cpu"
max-size = "20G"
[mirrors]
"https://github.com/fmtlib/fmt" = "fmt"
"git@forge.invalid:x" = "/srv/x"
"""


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home and a current folder without any configuration."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv(config.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def put(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return put


Write = Callable[[str, str], Path]


def test_everything(write: Write, tmp_path: Path) -> None:
    path = write("conf/x.toml", WHOLE)
    assert load(path) == Config(
        path=path,
        repo=str(tmp_path / "mlx"),
        builds=tmp_path / "home" / "builds",
        sandbox="require",
        backend="cpu",
        max_size="20G",
        mirrors=(
            ("https://github.com/fmtlib/fmt", tmp_path / "conf" / "fmt"),
            ("git@forge.invalid:x", Path("/srv/x")),
        ),
    )


def test_nothing_at_all(write: Write) -> None:
    assert load() == Config() and load().defaults() == {}
    assert load(write("empty.toml", "")).defaults() == {}


@pytest.mark.parametrize(
    "repo", ["https://forge.invalid/mlx", "git@forge.invalid:mlx", "ssh://h/mlx", "/srv/mlx"]
)
def test_a_repository_by_address_is_left_as_it_is(repo: str, write: Write) -> None:
    assert load(write("x.toml", f'repo = "{repo}"')).repo == repo


def test_the_first_file_there_is(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = write("home/.config/bisect_tool/config.toml", 'backend = "cpu"')
    assert load().path == usual
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert load().path is None
    elsewhere = write("xdg/bisect_tool/config.toml", 'backend = "metal"')
    assert load().path == elsewhere
    local = write("here/bisect_tool.toml", 'backend = "cuda12"')
    assert load().path == local
    named = write("named.toml", 'backend = "cuda13"')
    monkeypatch.setenv(config.VARIABLE, "../named.toml")
    assert load().path == tmp_path / "here" / "../named.toml" and load().backend == "cuda13"
    monkeypatch.setenv(config.VARIABLE, "")
    assert load().path == local
    assert load(named).backend == "cuda13"


def test_a_named_file_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.VARIABLE, str(tmp_path / "gone.toml"))
    with pytest.raises(UsageProblem) as caught:
        load()
    line = caught.value.line()
    assert str(tmp_path / "gone.toml") in line and "No such file" in line and config.VARIABLE in line
    with pytest.raises(UsageProblem, match="cannot be read"):
        load(tmp_path)


def test_a_current_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "here").rmdir()
    assert load() == Config()


def test_a_file_of_the_current_folder_does_not_take_the_walls_down(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = write("here/bisect_tool.toml", 'sandbox = "off"')
    with pytest.raises(UsageProblem, match="turns the sandbox off") as caught:
        load()
    assert config.VARIABLE in caught.value.remedy
    monkeypatch.setenv(config.VARIABLE, str(local))
    assert load().sandbox == "off", "named, it is the user's own"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('\nbulids = "x"', "line 2: there is no setting 'bulids'; the settings are repo, builds, sandbox"),
        ("builds = 3", "line 1: builds is 3: it must be a string"),
        ('repo = ["x"]', "line 1: repo is ['x']"),
        ('repo = " "', "repo is ' ': it must be a string"),
        ("max-size = 20", 'max-size is 20: it must be a string; write max-size = "…"'),
        ('max_size = "20G"', "there is no setting 'max_size'"),
        ('\n\nsandbox = "none"', "line 3: sandbox is 'none'; choose one of auto, require, off"),
        ('backend = "cuda"', "backend is 'cuda'; choose one of metal, cuda12, cuda13, cpu"),
        ('mirrors = ["a=b"]', "line 1: mirrors is not a table; write [mirrors]"),
        ('[mirrors]\n"https://h/x" = 3', "line 2: https://h/x is 3: it must be a string"),
        (
            '[mirrors]\n"fmt" = "x"',
            "line 2: 'fmt' cannot have a mirror: it is not the beginning of an address",
        ),
        ('[mirrors]\n"https://h/?a=b" = "x"', "cannot have a mirror"),
        ("[build]\nx = 1", "line 1: there is no setting 'build'"),
        ("repo = x", "is not TOML: "),
        ('repo = "a"\nbuilds = ?', "is not TOML: Invalid value (at line 2, column 10)"),
    ],
)
def test_what_cannot_be(text: str, said: str, write: Write) -> None:
    path = write("x.toml", text)
    with pytest.raises(UsageProblem) as caught:
        load(path)
    assert said in caught.value.line() and caught.value.line().startswith(str(path))


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageProblem, match="not text in UTF-8"):
        load(path)


def test_the_choices_are_those_of_the_tool() -> None:
    assert config.STRINGS["backend"] == tuple(each.value for each in Backend)
    sandbox = pytest.importorskip("bisect_tool.building.sandbox")
    assert config.STRINGS["sandbox"] == tuple(each.value for each in sandbox.Mode)


# --- with Click ----------------------------------------------------------------------------------------


def program(settings: Config) -> click.Group:
    """A command with these options, alone and in a group, and one with none of them."""

    def options(function: Callable[..., None]) -> Callable[..., None]:
        for name in ("--repo", "--sandbox", "--backend", "--max-size"):
            function = click.option(name)(function)
        function = click.option("--builds", type=click.Path(path_type=Path), envvar="TEST_BUILDS")(function)
        return click.option(
            "--mirror", multiple=True, callback=lambda _ctx, _param, typed: combined_mirrors(typed, settings)
        )(function)

    def show(**given: Any) -> None:
        click.echo(repr({name: given[name] for name in sorted(given)}))

    @click.group()
    @click.pass_context
    def cli(ctx: click.Context) -> None:
        ctx.default_map = settings.default_map(["build", "bare"], {"cache": ["prune"]})

    cli.command("build")(options(show))
    cli.command("bare")(show)
    cache = click.Group("cache")
    cache.command("prune")(options(show))
    cli.add_command(cache)
    return cli


@pytest.mark.parametrize("words", [["build"], ["cache", "prune"]])
def test_the_file_is_the_default_of_every_command(words: list[str], write: Write, tmp_path: Path) -> None:
    settings = load(write("x.toml", WHOLE))

    def run(*more: str, **env: str) -> dict[str, Any]:
        done = CliRunner().invoke(program(settings), [*words, *more], env=env)
        assert done.exit_code == 0, done.output
        from pathlib import PosixPath

        found: dict[str, Any] = eval(done.output, {"PosixPath": PosixPath})
        return found

    files = (f"https://github.com/fmtlib/fmt={tmp_path / 'fmt'}", "git@forge.invalid:x=/srv/x")
    assert run() == {
        "repo": os.path.normpath(tmp_path / "../mlx"),
        "builds": tmp_path / "home/builds",
        "sandbox": "require",
        "backend": "cpu",
        "max_size": "20G",
        "mirror": files,
    }
    typed = run("--backend", "metal", "--mirror", "https://h/y=/y", "--mirror", files[1], TEST_BUILDS="/env")
    assert typed["backend"] == "metal" and typed["builds"] == Path("/env") and typed["sandbox"] == "require"
    assert typed["mirror"] == ("https://h/y=/y", files[1], files[0])
    assert run("--builds", "/typed", TEST_BUILDS="/env")["builds"] == Path("/typed")


def test_a_command_without_these_options_does_not_mind(write: Write) -> None:
    done = CliRunner().invoke(program(load(write("x.toml", WHOLE))), ["bare"])
    assert done.output == "{}\n"
