"""ccache, in the way that hits across folders.

MLX's own use of it does not: setup.py sets CCACHE_BASEDIR to its build folder, and in another folder nothing
hits. Ours is put back by the launcher, where setup.py cannot reach it.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_SIZE = "20G"


@dataclass(frozen=True)
class CompileCache:
    """``launcher``: put before the compiler. ``variables``: of the build. ``read``, ``write``: what the walls
    must leave open. ``flags``: for the compiler, in place of what the cache would have done."""

    launcher: tuple[str, ...]
    variables: Mapping[str, str]
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    flags: tuple[str, ...] = ()

    @staticmethod
    def find(builds: Path, *, writable: bool, scratch: Path) -> CompileCache:
        """ccache, else sccache, else none. Not ``writable``: what is there may be used and stays as it is.

        ``scratch``: a folder for temporary files that the build may write to.
        """
        if program := shutil.which("ccache"):
            folder = builds / "cache" / "ccache"
            folder.mkdir(parents=True, exist_ok=True)
            # NOHASHDIR: no debugging information is written that would name the folder.
            launcher = ("env", f"CCACHE_BASEDIR={builds}", "CCACHE_NOHASHDIR=1", program)
            variables = {
                "CCACHE_DIR": str(folder),
                "CCACHE_MAXSIZE": MAX_SIZE,
                "CCACHE_TEMPDIR": str(scratch),
            }
            if writable:
                return CompileCache(launcher, variables, (Path(program),), (folder,))
            variables |= {"CCACHE_READONLY": "1", "CCACHE_NOSTATS": "1"}
            return CompileCache(launcher, variables, (Path(program), folder))
        if (program := shutil.which("sccache")) and writable:
            folder = builds / "cache" / "sccache"
            folder.mkdir(parents=True, exist_ok=True)
            return CompileCache((program,), {"SCCACHE_DIR": str(folder)}, (Path(program),), (folder,))
        # ccache makes paths relative; without it the compiler is told to leave ours out of what it writes.
        return CompileCache((), {}, flags=(shlex.quote(f"-ffile-prefix-map={builds}=builds"),))
