from __future__ import annotations

import base64
import json
import platform
import socket
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import Tag, compatible_tags, cpython_tags, sys_tags
from packaging.version import Version

from bisect_tool.errors import IndexUnreachable
from bisect_tool.upstream import releases

PLATFORMS = ["manylinux_2_35_x86_64", "manylinux_2_31_x86_64"]
LINUX = [*cpython_tags((3, 11), ["cp311"], PLATFORMS), *compatible_tags((3, 11), "cp311", PLATFORMS)]


@dataclass(frozen=True)
class Python:
    path: Path
    version: str
    abi: str
    platform: str


THIS = Python(
    path=Path(sys.executable),
    version=platform.python_version(),
    abi=f"cp{sys.version_info.major}{sys.version_info.minor}",
    platform=sysconfig.get_platform(),
)


def wheel(version: str, tag: str = "cp311-cp311-manylinux_2_35_x86_64", **more: object) -> dict[str, object]:
    """One file of a PEP 691 page; ``requires_python`` stands for the key with a dash."""
    entry = {"filename": f"mlx-{version}-{tag}.whl", "url": "x", "hashes": {}, "yanked": False}
    return {**entry, **{key.replace("_", "-"): value for key, value in more.items()}}


def versions(*files: dict[str, object], tags: list[Tag] | None = None, python: str = "3.11.7") -> list[str]:
    found = releases.wheel_versions({"files": files}, tags or LINUX, python)
    return [str(version) for version in found]


def test_newest_first_by_number_and_once_each() -> None:
    twice = wheel("0.32.4", "cp311-cp311-manylinux_2_31_x86_64")
    assert versions(wheel("0.9.1"), wheel("0.32.4"), wheel("0.30.0"), twice) == ["0.32.4", "0.30.0", "0.9.1"]


def test_only_wheels_for_these_tags() -> None:
    assert versions(
        wheel("0.20.0", "cp311-cp311-macosx_14_0_arm64"),
        wheel("0.21.1", "cp312-cp312-manylinux_2_35_x86_64"),
        wheel("0.22.0", "cp311-cp311-manylinux_2_35_aarch64"),
        wheel("0.26.5", "cp311-cp311-manylinux_2_34_x86_64.manylinux_2_35_x86_64"),
        wheel("0.28.0", "py3-none-manylinux_2_35_x86_64"),
    ) == ["0.28.0", "0.26.5"]


@pytest.mark.parametrize("yanked", [True, "broken on M5", ""])
def test_yanked_files_are_left_out(yanked: bool | str) -> None:
    assert versions(wheel("0.30.2", yanked=yanked), wheel("0.30.1")) == ["0.30.1"]


def test_pre_releases_other_files_and_other_pythons_are_left_out() -> None:
    assert versions(
        wheel("0.33.0rc1"),
        wheel("0.33.0.dev20261101"),
        {"filename": "mlx-0.33.0.tar.gz"},
        {"filename": "mlx-nonsense.whl"},
        wheel("0.32.1", requires_python=">=3.12"),
        wheel("0.32.0", requires_python=">=3.10"),
        wheel("0.31.0", requires_python=None),
        wheel("0.30.0", requires_python="what?"),
    ) == ["0.32.0", "0.31.0"]


def nearest(wanted: str, n: int = 3) -> list[str]:
    known = [Version(text) for text in ("0.32.0", "0.31.1", "0.30.6", "0.30.5", "0.30.1", "0.2.0")]
    return [str(version) for version in releases.nearest(wanted, known, n)]


def test_nearest_takes_both_sides() -> None:
    assert nearest("0.31.0") == ["0.32.0", "0.31.1", "0.30.6"]
    assert nearest("0.31.0", 4) == ["0.32.0", "0.31.1", "0.30.6", "0.30.5"]
    assert nearest("0.99") == ["0.32.0", "0.31.1", "0.30.6"]
    assert nearest("0.1") == ["0.30.5", "0.30.1", "0.2.0"]
    assert nearest("0.30.5", 1) == ["0.30.5"]


def test_another_interpreter_is_asked_for_its_tags() -> None:
    unlike = replace(THIS, version="3.99.0")
    assert releases.tags_of(unlike) == list(sys_tags()) == releases.tags_of(THIS)
    with pytest.raises(IndexUnreachable, match="did not answer"):
        releases.tags_of(replace(unlike, path=Path("/nonexistent/python")))


@contextmanager
def index(status: int, content_type: str, body: bytes) -> Iterator[tuple[str, list[BaseHTTPRequestHandler]]]:
    """A package index on this machine that gives every request the same answer."""
    seen: list[BaseHTTPRequestHandler] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}/simple", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_OFFLINE", "UV_NO_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_index_of_uv_is_read_and_its_credentials_stay_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    any_platform = [wheel("1.0", "py3-none-any"), wheel("1.1", "py3-none-any")]
    page = json.dumps({"files": any_platform}).encode()
    with index(200, releases.JSON_TYPE, page) as (address, seen):
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"mine=http://me:pass%40word@{address}/")
        assert [str(v) for v in releases.available("Some.Package", python=THIS)] == ["1.1", "1.0"]
    assert seen[0].path == "/simple/some-package/"
    assert seen[0].headers["Accept"] == releases.JSON_TYPE
    assert base64.b64decode(seen[0].headers["Authorization"].removeprefix("Basic ")) == b"me:pass@word"
    with pytest.raises(IndexUnreachable, match="refused") as caught:
        releases.available("mlx", python=THIS)
    assert "word" not in str(caught.value)


def test_older_name_of_the_index_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert releases.index_in_use() == releases.PYPI
    monkeypatch.setenv("UV_INDEX_URL", "https://a.example/simple")
    assert releases.index_in_use() == "https://a.example/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://b.example/simple")
    assert releases.index_in_use() == "https://b.example/simple"


def test_unknown_package_has_no_releases() -> None:
    with index(404, "text/plain", b"") as (address, _):
        assert releases.available("mlx", python=THIS, index_url=f"http://{address}") == []


@pytest.mark.parametrize(
    ("status", "content_type", "body", "says"),
    [
        (200, "text/html", b"<a href='x'>x</a>", "it answers text/html"),
        (200, releases.JSON_TYPE, b"not json", "not a list of files"),
        (200, releases.JSON_TYPE, b"[]", "not a list of files"),
        (200, releases.JSON_TYPE, b"{}", "not a list of files"),
        (503, "text/plain", b"", "503"),
    ],
)
def test_answers_that_list_nothing(status: int, content_type: str, body: bytes, says: str) -> None:
    with index(status, content_type, body) as (address, _), pytest.raises(IndexUnreachable, match=says):
        releases.available("mlx", python=THIS, index_url=f"http://{address}")


@pytest.mark.parametrize("name", ["UV_OFFLINE", "UV_NO_INDEX"])
def test_uv_told_to_ask_nobody(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "false")
    assert releases.index_in_use() == releases.PYPI
    monkeypatch.setenv(name, "1")
    with pytest.raises(IndexUnreachable, match=name):
        releases.available("mlx", python=THIS)


@pytest.mark.parametrize("url", ["file:///srv/simple", "/srv/simple", "./wheels"])
def test_index_in_a_folder_is_not_listed(url: str) -> None:
    with pytest.raises(IndexUnreachable, match="not a web address"):
        releases.available("mlx", python=THIS, index_url=url)


def test_certificates_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/simple"
        with pytest.raises(IndexUnreachable, match="No such file"):
            releases.available("mlx", python=THIS, index_url=url)


def test_list_of_versions_says_how_many() -> None:
    assert releases.listed([Version("2"), Version("1")]) == "2, 1"
    assert releases.listed([Version("3"), Version("2"), Version("1")], 2) == "3, 2, … (3 in all)"


@pytest.mark.real
def test_the_real_index() -> None:
    found = releases.available("mlx", python=THIS)
    assert found == sorted(found, reverse=True)
    assert Version("0.32.4") in found and Version("0.30.2") not in found
