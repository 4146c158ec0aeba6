"""Archives made here, and a web server on this machine. No network."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bisect_tool.building import archives
from bisect_tool.building.origins import Errand
from bisect_tool.errors import DiskFull, SourceUnavailable
from bisect_tool.upstream.mirrors import Mirrors


@pytest.fixture
def errand(tmp_path: Path) -> Errand:
    (tmp_path / "here" / "scratch").mkdir(parents=True)
    return Errand("lib", tmp_path / "here" / "scratch", Mirrors(), False, time.monotonic() + 60)


def tar(file: Path, *members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                about = tarfile.TarInfo(member[0])
                about.size = len(member[1])
                archive.addfile(about, io.BytesIO(member[1]))
    return file


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    about = tarfile.TarInfo(name)
    about.type, about.linkname = kind, target
    return about


def zipped(file: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in members:
            about = zipfile.ZipInfo(name)
            about.external_attr = mode << 16
            archive.writestr(about, content)
    return file


def unpacked(file: Path, errand: Errand) -> Path:
    tree = errand.scratch.parent / "tree"
    archives.unpack(file, tree, errand)
    return tree


# --- what is unpacked -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar(mode: str, errand: Errand, tmp_path: Path) -> None:
    program = tarfile.TarInfo("lib-1.0/run")
    program.mode = 0o755
    file = tar(
        tmp_path / "x.tar.bz2",  # its name says nothing
        special("lib-1.0", tarfile.DIRTYPE),
        ("lib-1.0/include/lib.h", b"one"),
        program,
        special("lib-1.0/link.h", tarfile.SYMTYPE, "./include/../include/lib.h"),
        special("lib-1.0/deep/same.h", tarfile.LNKTYPE, "lib-1.0/include/lib.h"),
        special("lib-1.0/up", tarfile.SYMTYPE, "deep/.."),
        mode=mode,
    )
    tree = unpacked(file, errand)
    assert sorted(p.name for p in tree.iterdir()) == ["deep", "include", "link.h", "run", "up"]
    assert (tree / "link.h").is_symlink() and (tree / "link.h").read_bytes() == b"one"
    assert (tree / "deep/same.h").read_bytes() == b"one"
    assert stat.S_IMODE((tree / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "include/lib.h").stat().st_mode) == 0o644


def test_zip(errand: Errand, tmp_path: Path) -> None:
    file = zipped(
        tmp_path / "x",
        ("lib/", b"", 0),
        ("lib/a.h", b"a", 0),
        ("lib/run", b"#!", 0o100755),
        ("lib/l", b"a.h", stat.S_IFLNK | 0o777),
    )
    tree = unpacked(file, errand)
    assert (tree / "a.h").read_bytes() == b"a" and os.access(tree / "run", os.X_OK)
    assert not os.access(tree / "a.h", os.X_OK) and (tree / "l").readlink() == Path("a.h")


@pytest.mark.parametrize("second", ["b/y", "y"])
def test_only_a_single_folder_at_the_top_is_left_out(second: str, errand: Errand, tmp_path: Path) -> None:
    tree = unpacked(tar(tmp_path / "x", ("a/x", b""), (second, b"")), errand)
    assert sorted(p.name for p in tree.iterdir()) == sorted({"a", second.split("/")[0]})


def test_a_single_file_at_the_top_stays(errand: Errand, tmp_path: Path) -> None:
    assert [p.name for p in unpacked(tar(tmp_path / "x", ("./x", b"")), errand).iterdir()] == ["x"]


def test_the_last_member_of_a_name_counts(errand: Errand, tmp_path: Path) -> None:
    link, other = special("l", tarfile.SYMTYPE, "x"), special("o", tarfile.SYMTYPE, "x")
    file = tar(tmp_path / "x", ("x", b"1"), ("l", b"1"), link, ("x", b"22"), link, other, ("o", b"1"))
    tree = unpacked(file, errand)
    assert (tree / "x").read_bytes() == b"22" and (tree / "l").is_symlink()
    assert not (tree / "o").is_symlink() and (tree / "o").read_bytes() == b"1"


# --- hostile archives -----------------------------------------------------------------------------------

OUT = "which leads out of it"
HOSTILE: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "an absolute path": (lambda f, o: tar(f, (f"{o}/evil", b"x")), OUT),
    "a path upwards": (lambda f, _: tar(f, ("a/../../evil", b"x")), OUT),
    "a link to an absolute path": (lambda f, _: tar(f, special("l", tarfile.SYMTYPE, "/etc/passwd")), OUT),
    "a link upwards": (lambda f, _: tar(f, special("a/l", tarfile.SYMTYPE, "../../x")), OUT),
    "a link by way of another": (
        lambda f, _: tar(
            f,
            ("d/e/x", b""),
            special("d/e/up", tarfile.SYMTYPE, ".."),
            special("l", tarfile.SYMTYPE, "d/e/up/../../x"),
        ),
        OUT,
    ),
    "a file through a link": (
        lambda f, o: tar(f, special("l", tarfile.SYMTYPE, str(o)), ("l/evil", b"x")),
        "cannot be unpacked",
    ),
    "a link through a link": (
        lambda f, o: tar(f, special("l", tarfile.SYMTYPE, str(o)), special("l/evil", tarfile.SYMTYPE, "x")),
        "cannot be unpacked",
    ),
    "a folder through a link": (
        lambda f, o: tar(f, special("l", tarfile.SYMTYPE, str(o)), special("l/evil", tarfile.DIRTYPE)),
        "cannot be unpacked",
    ),
    "a hard link out": (lambda f, o: tar(f, special("l", tarfile.LNKTYPE, f"{o}/secret")), OUT),
    "a hard link through a link": (
        lambda f, o: tar(f, special("l", tarfile.SYMTYPE, str(o)), special("h", tarfile.LNKTYPE, "l/secret")),
        "is not there",
    ),
    "a hard link to a link": (
        lambda f, o: tar(f, special("l", tarfile.SYMTYPE, f"{o}/secret"), special("h", tarfile.LNKTYPE, "l")),
        "is not there",
    ),
    "a device": (lambda f, _: tar(f, special("null", tarfile.CHRTYPE)), "no file, folder or link"),
    "a pipe": (lambda f, _: tar(f, special("pipe", tarfile.FIFOTYPE)), "no file, folder or link"),
    "a file that is a folder": (lambda f, _: tar(f, ("a/b", b""), ("a", b"")), "cannot be unpacked"),
    "zip: an absolute path": (lambda f, o: zipped(f, (f"{o}/evil", b"x", 0)), OUT),
    "zip: a path upwards": (lambda f, _: zipped(f, ("../evil", b"x", 0)), OUT),
    "zip: a link out": (lambda f, _: zipped(f, ("l", b"/etc/passwd", stat.S_IFLNK)), OUT),
    "zip: a pipe": (lambda f, _: zipped(f, ("p", b"", stat.S_IFIFO)), "no file, folder or link"),
    "zip: a long link": (lambda f, _: zipped(f, ("l", b"x" * 5000, stat.S_IFLNK)), "too many for a link"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused(kind: str, errand: Errand, tmp_path: Path) -> None:
    make, why = HOSTILE[kind]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    with pytest.raises(SourceUnavailable, match=re.escape(why)):
        unpacked(make(tmp_path / "x", outside), errand)
    assert [p.name for p in outside.iterdir()] == ["secret"]
    assert all(errand.scratch in p.parents for p in tmp_path.rglob("evil"))
    assert not (errand.scratch.parent / "tree").exists()
    assert not [p for p in errand.scratch.rglob("*") if p.is_file() and p.read_bytes() == b"secret"]


def test_larger_than_it_may_be(errand: Errand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = zipped(tmp_path / "x", ("a", bytes(600), 0), ("b", bytes(600), 0))
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    with pytest.raises(SourceUnavailable, match="more than 1000 bytes"):
        unpacked(file, errand)


def test_out_of_time_while_unpacking(errand: Errand, tmp_path: Path) -> None:
    late = Errand("lib", errand.scratch, errand.mirrors, False, time.monotonic() - 1)
    with pytest.raises(SourceUnavailable, match="took too long"):
        unpacked(tar(tmp_path / "x", ("a", b"x")), late)


@pytest.mark.parametrize("kind", ["a page", "empty", "gz cut", "xz cut", "tar cut", "zip damaged", "zip cut"])
def test_broken_archives(kind: str, errand: Errand, tmp_path: Path) -> None:
    file, noise = tmp_path / "x", os.urandom(5000)
    if kind == "a page":
        file.write_text("<html>Not found</html>")
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind.startswith("zip"):
        data = bytearray(zipped(file, ("a", noise, 0)).read_bytes())
        data[2000:2010] = bytes(10)
        file.write_bytes(data if kind == "zip damaged" else data[:4000])
    else:
        mode = {"gz cut": "w:gz", "xz cut": "w:xz", "tar cut": "w"}[kind]
        file.write_bytes(tar(file, ("a", noise), mode=mode).read_bytes()[:3000])
    with pytest.raises(
        SourceUnavailable, match=r"archive is broken or of a kind unknown here|cannot be unpacked"
    ):
        unpacked(file, errand)


def test_a_full_disk_is_not_the_fault_of_the_archive(tmp_path: Path, small_disk: Path) -> None:
    (small_disk / "scratch").mkdir()
    errand = Errand("lib", small_disk / "scratch", Mirrors(), False, time.monotonic() + 60)
    with pytest.raises(OSError) as caught:
        unpacked(zipped(tmp_path / "x", ("a", bytes(30_000_000), 0)), errand)
    assert caught.value.errno == errno.ENOSPC


# --- downloads ------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Answers what its ``answers`` say: path -> what to do with the request."""

    daemon_threads = True
    block_on_close = False
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """The client may have had enough."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.answers[self.path](self)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        made.answers = {}
        yield made
        made.shutdown()
        thread.join()


def says(
    body: bytes, code: int = 200, length: int | None = None, **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def load(server: Server, path: str, errand: Errand) -> bytes:
    file = errand.scratch / "archive"
    archives.download(server.address + path, file, errand, schemes=("http",))
    return file.read_bytes()


def test_download(server: Server, errand: Errand) -> None:
    body = os.urandom(3_000_000)
    server.answers = {"/a": says(b"", 302, Location="/b"), "/b": says(body)}
    assert load(server, "/a", errand) == body


def test_only_https_is_asked(server: Server, errand: Errand) -> None:
    server.answers = {"/a": says(b"x")}
    with pytest.raises(SourceUnavailable, match="is not https"):
        archives.download(server.address + "/a", errand.scratch / "archive", errand)
    assert not (errand.scratch / "archive").exists()


@pytest.mark.parametrize("target", ["https://127.0.0.1:1/x", "ftp://127.0.0.1:1/x", "file:///etc/passwd"])
def test_redirects_stay_where_they_may(target: str, server: Server, errand: Errand) -> None:
    server.answers = {"/a": says(b"", 302, Location=target)}
    with pytest.raises(SourceUnavailable, match=f"{target}('? is not allowed|, which is not http;)"):
        load(server, "/a", errand)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (says(b"", 404), "the server answered 404"),
        (says(b"half", length=8), "ended after 4 of 8 bytes"),
        (lambda request: request.wfile.write(b"nonsense\r\n\r\n"), "nonsense"),
        (lambda _: time.sleep(1.5), "timed out"),
    ],
)
def test_downloads_that_fail(
    answer: Callable[[BaseHTTPRequestHandler], None], why: str, server: Server, errand: Errand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(archives, "SILENCE_S", 0.5)
    server.answers = {"/a": answer}
    with pytest.raises(SourceUnavailable) as caught:
        load(server, "/a", errand)
    assert why in caught.value.line() and "or try again online" in caught.value.line()


def test_a_server_that_trickles(server: Server, errand: Errand, monkeypatch: pytest.MonkeyPatch) -> None:
    def trickle(request: BaseHTTPRequestHandler) -> None:
        says(b"x", length=10_000)(request)
        for _ in range(100):
            request.wfile.write(b"x")
            time.sleep(0.05)

    monkeypatch.setattr(archives, "CHUNK_BYTES", 1)
    server.answers = {"/a": trickle}
    hurried = Errand("lib", errand.scratch, errand.mirrors, False, time.monotonic() + 0.5)
    with pytest.raises(SourceUnavailable, match="had not arrived in time"):
        load(server, "/a", hurried)


def test_downloads_that_are_too_large(
    server: Server, errand: Errand, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = {"/a": says(b"x" * 100), "/b": says(b"", length=10**18)}
    with pytest.raises(DiskFull, match=r"no room for lib: .* takes 1000000000000000000"):
        load(server, "/b", errand)
    monkeypatch.setattr(archives, "MAX_BYTES", 50)
    with pytest.raises(SourceUnavailable, match="larger than 50 bytes"):
        load(server, "/a", errand)
