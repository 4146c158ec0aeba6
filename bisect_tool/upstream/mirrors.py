"""Local copies of addresses, for machines that do not reach the public network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bisect_tool.errors import UsageProblem

# https://host/…, or the form that ssh has: git@host:…
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.+|[\w.-]+@[\w.-]+:.+")


@dataclass(frozen=True)
class Mirrors:
    """Which local path stands for which beginning of an address: ``--mirror PREFIX=PATH``."""

    pairs: tuple[tuple[str, Path], ...] = ()

    @staticmethod
    def parse(options: Sequence[str]) -> Mirrors:
        """Parse ``PREFIX=PATH`` each. The path must exist. Raises UsageProblem."""
        pairs = []
        for option in options:
            prefix, mark, place = option.partition("=")
            if not mark or not place or not _ADDRESS.fullmatch(prefix):
                raise UsageProblem(
                    f"--mirror {option!r} is not PREFIX=PATH",
                    remedy="write it like --mirror https://github.com/fmtlib/fmt=/srv/git/fmt",
                )
            path = Path(place).expanduser().absolute()
            if not path.exists():
                raise UsageProblem(f"--mirror {option!r} leads nowhere", f"there is no {path}")
            if "=" in place:
                raise UsageProblem(f"--mirror {option!r} cannot be used", "its path holds a =", "rename it")
            pairs.append((prefix, path))
        return Mirrors(tuple(pairs))

    def local(self, url: str) -> tuple[Path, str] | None:
        """The local path that stands for the longest beginning of ``url``, and the rest of ``url``.

        A beginning ends where a component of the path ends; ``.git`` at the end of either is left out, and so
        it is of the rest. None when nothing matches, or when the rest would lead out of the path.
        """
        address = _plain(url)
        best: tuple[int, Path, str] | None = None
        for prefix, path in self.pairs:
            start = _plain(prefix)
            rest = None
            if address == start:
                rest = ""
            else:
                for end in ("/", ".git/"):
                    if address.startswith(start + end):
                        rest = address[len(start + end) :]
            if rest is not None and (best is None or len(start) > best[0]):
                best = (len(start), path, rest)
        if best is None or ".." in best[2].split("/") or "\0" in best[2]:
            return None
        return best[1], best[2].strip("/")

    def git_config(self) -> list[str]:
        """The same for git commands, as options before the command: ``-c url.<path>.insteadOf=<prefix>``.

        git compares characters, not components: ``…/mlx`` also stands for the start of ``…/mlx-data``.
        """
        options = []
        for prefix, path in self.pairs:
            start = _plain(prefix)
            # The longest one wins: with its .git the address is that path too, not that path and .git.
            for given, stands in (
                (start, f"{path}"),
                (f"{start}/", f"{path}/"),
                (f"{start}.git", f"{path}"),
                (f"{start}.git/", f"{path}/"),
            ):
                options += ["-c", f"url.{stands}.insteadOf={given}"]
        return options


def is_address(text: str) -> bool:
    """Whether ``text`` is an address, not a local path."""
    return _ADDRESS.fullmatch(text) is not None


def _plain(url: str) -> str:
    return url.rstrip("/").removesuffix(".git").rstrip("/")
