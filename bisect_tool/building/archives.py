"""Archives by strangers: downloaded over https only, and unpacked into a folder that they cannot leave."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
import time
import zipfile
from pathlib import Path
from typing import IO

from bisect_tool.building.contents import leading_out
from bisect_tool.building.origins import Errand, shown

SILENCE_S = 30  # a server that sends nothing for so long is given up
CHUNK_BYTES = 1024 * 1024
MAX_BYTES = 4 * 1024**3  # of an archive, and of what is in it
# Trouble of this machine; anything else that a file system says is the fault of the names in the archive.
MACHINE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE}
)


def download(address: str, file: Path, errand: Errand, *, schemes: tuple[str, ...] = ("https",)) -> None:
    """Write what ``address`` serves to ``file``. Redirects may lead to ``schemes`` only.

    Raises ``SourceUnavailable``, ``DiskFull``.
    """
    import http.client
    import urllib.error
    import urllib.request
    from urllib.parse import urlsplit

    from bisect_tool.upstream import releases

    class OnlyThere(urllib.request.HTTPRedirectHandler):
        def redirect_request(
            self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
            headers: http.client.HTTPMessage, newurl: str,
        ) -> urllib.request.Request | None:  # fmt: skip
            if urlsplit(newurl).scheme not in schemes:
                fp.close()
                raise ValueError(f"it leads on to {shown(newurl)}, which is not {' or '.join(schemes)}")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    if urlsplit(address).scheme not in schemes:
        raise errand.failed(f"{shown(address)} is not {' or '.join(schemes)}")
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=releases.trust_for("https")), OnlyThere
    )
    request = urllib.request.Request(address, headers={"User-Agent": "bisect_tool"})
    try:
        with opener.open(request, timeout=min(SILENCE_S, errand.left_s())) as answer:
            size = int(answer.headers.get("Content-Length") or -1)
            free = shutil.disk_usage(file.parent).free
            if size > free:
                raise errand.no_room(f"{file.parent} has {free} bytes free and the archive takes {size}")
            got = 0
            with file.open("wb") as into:
                while chunk := answer.read(CHUNK_BYTES):
                    into.write(chunk)
                    got += len(chunk)
                    if got > MAX_BYTES:
                        raise errand.failed(f"{shown(address)} is larger than {MAX_BYTES} bytes")
                    if time.monotonic() > errand.deadline:
                        raise errand.unreachable(address, f"it had not arrived in time, {got} bytes had")
            if got < size:
                raise errand.unreachable(address, f"the connection ended after {got} of {size} bytes")
    except urllib.error.HTTPError as problem:
        with problem:
            raise errand.unreachable(
                address, f"the server answered {problem.code} {problem.reason}"
            ) from problem
    except (OSError, ValueError, http.client.HTTPException) as problem:
        ours = isinstance(problem, OSError) and not isinstance(problem, urllib.error.URLError)
        if ours and getattr(problem, "errno", None) in MACHINE:
            raise
        reason = getattr(problem, "reason", problem)  # of a URLError
        why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise errand.unreachable(address, why) from problem


def unpack(file: Path, tree: Path, errand: Errand) -> None:
    """Unpack a tar file (plain, gz, bz2, xz) or a zip file into the new folder ``tree``.

    A single folder at the top is left out, as CMake does. Raises ``SourceUnavailable`` for what is no such
    archive, is cut short, or holds anything but files, folders and links that stay inside.
    """
    import lzma
    import zlib

    whole = _Folder(errand.scratch / "unpacked", errand)
    broken = (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        RuntimeError,
        ValueError,
    )
    try:
        if zipfile.is_zipfile(file):
            _unzip(file, whole)
        else:
            _untar(file, whole)
        whole.make_links()
    except broken as problem:
        raise errand.failed(f"its archive is broken or of a kind unknown here: {problem}") from problem
    except OSError as problem:
        if problem.errno in MACHINE:
            raise
        raise errand.failed(f"its archive cannot be unpacked: {problem}") from problem
    top = list(whole.root.iterdir())
    alone = len(top) == 1 and top[0].is_dir() and not top[0].is_symlink()
    (top[0] if alone else whole.root).rename(tree)


def _untar(file: Path, whole: _Folder) -> None:
    with tarfile.open(file) as archive:
        for member in archive:
            if member.isdir():
                whole.folder(member.name)
            elif member.isreg():
                content = archive.extractfile(member)
                assert content is not None
                whole.file(member.name, content, bool(member.mode & 0o100))
            elif member.issym():
                whole.link(member.name, member.linkname)
            elif member.islnk():
                whole.copy(member.name, member.linkname)
            else:
                raise whole.errand.failed(
                    f"its archive holds {member.name!a}, which is no file, folder or link"
                )


def _unzip(file: Path, whole: _Folder) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            mode = member.external_attr >> 16
            if member.is_dir():
                whole.folder(member.filename)
            elif stat.S_ISLNK(mode):
                if member.file_size > 4096:
                    raise ValueError(f"{member.filename} is {member.file_size} bytes, too many for a link")
                whole.link(member.filename, os.fsdecode(archive.read(member)))
            elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                with archive.open(member) as content:
                    whole.file(member.filename, content, bool(mode & 0o100))
            else:
                raise whole.errand.failed(
                    f"its archive holds {member.filename!a}, which is no file, folder or link"
                )


class _Folder:
    """Where an archive is unpacked. Links are made last, so nothing is ever written through one."""

    def __init__(self, root: Path, errand: Errand) -> None:
        self.root = root
        self.errand = errand
        self.left = MAX_BYTES
        self.links: dict[Path, str] = {}
        root.mkdir()

    def folder(self, name: str) -> None:
        self._inside(name).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, content: IO[bytes], executable: bool) -> None:
        path = self._inside(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.links.pop(path, None)  # a later member of the same name takes its place
        with path.open("wb") as into:
            while chunk := content.read(CHUNK_BYTES):
                self.left -= len(chunk)
                if self.left < 0:
                    raise self.errand.failed(f"its archive holds more than {MAX_BYTES} bytes")
                if time.monotonic() > self.errand.deadline:
                    raise self.errand.failed("unpacking its archive took too long")
                into.write(chunk)
        path.chmod(0o755 if executable else 0o644)

    def copy(self, name: str, of: str) -> None:
        """A hard link: to a member that came before it."""
        first = self._inside(of)
        if not first.is_file():
            raise ValueError(f"{name} is a hard link to {of}, which is not there")
        with first.open("rb") as content:
            self.file(name, content, os.access(first, os.X_OK))

    def link(self, name: str, target: str) -> None:
        path = self._inside(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.links[path] = target

    def make_links(self) -> None:
        for path, target in self.links.items():
            path.unlink(missing_ok=True)
            path.symlink_to(target)
        for out in leading_out(self.root):
            raise self.errand.failed(f"its archive holds {out!a}, which leads out of it")

    def _inside(self, name: str) -> Path:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\0" in name:
            raise self.errand.failed(f"its archive holds {name!a}, which leads out of it")
        return self.root.joinpath(*parts)
