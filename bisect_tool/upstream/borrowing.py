"""Making the clone, and bringing its references up to the source's.

The clone is bare and holds no hooks. Objects of a local source stay where they are: the clone names their
folder in ``objects/info/alternates``, and only the references are copied, so that a clone costs a fraction of
a second. From an address everything is fetched: a build needs every file.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from bisect_tool.errors import DiskFull, UpstreamUnreachable, UsageProblem
from bisect_tool.upstream import git_calls
from bisect_tool.upstream.git_calls import Git
from bisect_tool.upstream.mirrors import Mirrors
from bisect_tool.upstream.source import PUBLIC, References, Source, references

DEFAULT = "refs/bisect_tool/default"  # points to the branch that pull requests are merged into
SEEN = "bisect_tool-seen"  # the source's references when the clone was last brought up to them
ROOM_MIB = 400  # to clone MLX: 90 MiB in August 2026, twice while it arrives
_PULL_HEAD = re.compile(r"refs/pull/\d+/head")
# Nothing of a commit's own decides how it is checked out: no filters, no line ends, no encodings.
_ATTRIBUTES = "* -filter -text -ident -working-tree-encoding\n"
_CONFIG = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\thooksPath = /dev/null
\tattributesFile = /dev/null
\tautocrlf = false
\tlogAllRefUpdates = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
[fetch]
\tunpackLimit = 1
\trecurseSubmodules = false
[submodule]
\trecurse = false
"""


def lay_out(git_dir: Path) -> None:
    """An empty clone. Written here, so that nothing of a template or of a newer format gets into it."""
    for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info"):
        (git_dir / name).mkdir(parents=True)
    (git_dir / "HEAD").write_text("ref: refs/heads/main\n")
    (git_dir / "config").write_text(_CONFIG)
    (git_dir / "info" / "attributes").write_text(_ATTRIBUTES)


def clear_leftovers(git_dir: Path) -> None:
    """Remove what tools that were killed left of this clone; its lock is held."""
    for unfinished in git_dir.parent.glob(f".{git_dir.name}.*.tmp"):
        shutil.rmtree(unfinished, ignore_errors=True)
    for pattern in ("*.lock", "refs/**/*.lock", "tmp_*", "objects/tmp_*", "objects/*/tmp_*"):
        for leftover in git_dir.glob(pattern):
            with contextlib.suppress(OSError):
                leftover.unlink()


def hidden(git_dir: Path) -> Path:
    """A new name beside the clone for what is not one yet, or no longer."""
    return git_dir.parent / f".{git_dir.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def borrow(git_dir: Path, source: Source) -> None:
    """Take over the references of a local source; its objects are found where they are.

    The clone's lock is held. Pull requests that the source lacks stay: they were fetched from the public
    address.
    """
    theirs = references(source)
    if not theirs.default:
        raise UsageProblem(f"{source.shown!r} has no commits", "", "give --repo a clone of MLX")
    folders = "".join(f"{quoted(folder)}\n" for folder in source.objects)
    write(git_dir / "objects" / "info" / "alternates", folders)
    ours = Git(git_dir)
    have = _listed(ours, "refs/heads", "refs/tags", "refs/remotes", "refs/pull")
    kept = {name: sha for name, sha in have.items() if _PULL_HEAD.fullmatch(name)}
    _replace(git_dir, _present(ours, {**kept, **theirs.shas}))
    point(git_dir, theirs.head, theirs.default)
    write(git_dir / SEEN, fingerprint(source, theirs))


def up_to_date(git_dir: Path, source: Source) -> bool:
    """Whether the clone of a local source has what the source has."""
    try:
        seen = (git_dir / SEEN).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return False
    return seen == fingerprint(source, references(source))


def fingerprint(source: Source, theirs: References) -> str:
    """What would have to change for the clone of a local source to need bringing up to date."""
    lines = [f"{sha} {name}" for name, sha in sorted(theirs.shas.items())]
    lines += [f"head {theirs.head}", f"default {theirs.default}"]
    lines += [f"objects {folder}" for folder in source.objects]
    return "\n".join(lines) + "\n"


def fetch(
    git_dir: Path, source: Source, mirrors: Mirrors, *, pulls: Iterable[int], on_phase: Callable[[str], None]
) -> None:
    """Fetch branches, tags, HEAD and those pull requests from an address. The clone's lock is held.

    Raises UpstreamUnreachable or DiskFull.
    """
    what = f"{source.shown} could not be fetched"
    remedy = "check the network and --repo, or map the address to a local copy with --mirror"
    asked = ["HEAD", *(f"refs/pull/{number}/head" for number in pulls)]
    said = git_calls.fetch(
        git_dir, ["ls-remote", "--symref", source.address, *asked], options=mirrors.git_config()
    )
    if not said.ok:
        raise git_calls.failure(what, said, remedy)
    words = [line.split() for line in said.out.splitlines() if line.strip()]
    head = next((line[1] for line in words if line[0] == "ref:"), "")
    known = [line[1] for line in words if _PULL_HEAD.fullmatch(line[-1])]
    specs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", *(f"+{name}:{name}" for name in known)]
    said = git_calls.fetch(
        git_dir,
        [
            *("fetch", "--force", "--no-tags", "--update-head-ok", "--no-write-fetch-head", "--progress"),
            *("--prune", source.address, *specs[:2]),
        ],
        options=mirrors.git_config(),
        on_line=progress(f"fetching {source.shown}", on_phase),
    )
    if (git_dir / "shallow").exists() or "shallow" in said.err:
        raise UpstreamUnreachable(what, "it is a shallow clone", "give --repo a full clone")
    if not said.ok:
        raise git_calls.failure(what, said, remedy)
    for spec in specs[2:]:
        fetch_one(git_dir, source.address, spec, mirrors, on_phase=on_phase)
    ours = Git(git_dir)
    have = _listed(ours, "refs/heads")
    wanted = (head, "refs/heads/main", "refs/heads/master", *have)
    default = next((name for name in wanted if name in have), "")
    if not default:
        raise UsageProblem(f"{source.shown} has no commits", "", "give --repo another address")
    ours.says("pack-refs", "--all")
    point(git_dir, default, default)
    write(git_dir / SEEN, "")
    (git_dir / SEEN).touch()  # when: a date before this need not be looked up again


def fetch_one(
    git_dir: Path, address: str, spec: str, mirrors: Mirrors, *, on_phase: Callable[[str], None]
) -> git_calls.Said:
    """Fetch one reference from an address, and say how that went."""
    return git_calls.fetch(
        git_dir,
        ["fetch", "--force", "--no-tags", "--no-write-fetch-head", "--progress", address, spec],
        options=mirrors.git_config(),
        on_line=progress(f"fetching {spec.split(':')[0].lstrip('+')}", on_phase),
    )


def check_room(folder: Path, source: Source) -> None:
    """Raise DiskFull when MLX's history has no room under ``folder``; the sizes of others are unknown."""
    free = shutil.disk_usage(folder).free // 2**20
    if source.git_dir is None and source.address.removesuffix(".git") == PUBLIC and free < ROOM_MIB:
        raise DiskFull(
            f"there is no room for the history of MLX in {folder}",
            f"it takes {ROOM_MIB} MiB and {free} MiB are free",
            "free some space or name another folder with --builds DIR",
        )


def progress(doing: str, on_phase: Callable[[str], None]) -> Callable[[str], None]:
    """A listener for git's progress that tells ``on_phase`` of each percent: ``receiving objects, 43 %``."""
    last = ""

    def listen(line: str) -> None:
        nonlocal last
        match = re.match(r"(?:remote: )?([A-Z][a-z]+ (?:objects|deltas)):\s+(\d+)% ", line)
        if match is not None and match[0] != last:
            last = match[0]
            on_phase(f"{doing}: {match[1].lower()}, {match[2]} %")

    return listen


def point(git_dir: Path, head: str, default: str) -> None:
    """Set the clone's HEAD, to a branch or a sha, and which branch is the default one."""
    write(git_dir / "HEAD", f"ref: {head}\n" if head.startswith("refs/") else f"{head}\n")
    Git(git_dir).says("symbolic-ref", DEFAULT, default)


def write(path: Path, text: str) -> None:
    """Replace a file as a whole, if what it says differs."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text(encoding="utf-8", errors="surrogateescape") == text:
            return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix="tmp_")
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
    Path(name).replace(path)


def quoted(folder: Path) -> str:
    """An absolute path as a line of ``alternates``."""
    text = str(folder)
    if "\n" not in text:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _listed(ours: Git, *patterns: str) -> dict[str, str]:
    listing = ours.says("for-each-ref", "--format=%(refname) %(objectname)", *patterns)
    return dict(line.split(" ") for line in listing.split("\n") if line)


def _present(ours: Git, wanted: dict[str, str]) -> dict[str, str]:
    """Those whose object is there: a source may name what it has lost."""
    shas = sorted(set(wanted.values()))
    said = ours.says("cat-file", "--batch-check=%(objectname)", stdin="".join(f"{sha}\n" for sha in shas))
    there = set(said.split())
    lost = {line.split()[0] for line in said.splitlines() if line.endswith(" missing")}
    return {name: sha for name, sha in wanted.items() if sha in there - lost}


def _replace(git_dir: Path, refs: dict[str, str]) -> None:
    """Make ``refs`` all the branches, tags and pull requests of the clone.

    Written as git's own packed file: thousands of references one by one, each a file, would take seconds.
    """
    names = sorted(refs, key=lambda name: name.encode("utf-8", "surrogateescape"))
    lines = ["# pack-refs with: sorted ", *(f"{refs[name]} {name}" for name in names), ""]
    write(git_dir / "packed-refs", "\n".join(lines))
    for kind in ("heads", "tags", "remotes", "pull"):  # a file of its own would count instead
        for path in (git_dir / "refs" / kind).rglob("*"):
            if path.is_file():
                path.unlink(missing_ok=True)
