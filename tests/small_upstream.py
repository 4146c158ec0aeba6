"""A small upstream, shaped like MLX, that tests of builds use: real git, CMake, C++, setuptools; no network.

``make`` writes it in a fraction of a second. Its shas are the same everywhere and always, but for the hostile
pull requests, which name the folder and the port that they attack. A clean build of a commit takes seconds.
``COMMITS`` below is the table of what there is; files of the first commit are in ``small_upstream_files``.

Two eras, as in MLX. Early (up to ``bump-0.2.0``): the version is a global ``-D`` (every commit compiles all
unless PYPI_RELEASE=1), ``mlx.core`` loads ``libmlx`` by an absolute run path into its build folder, and the
fmt of that time needs a CMake before 4. Late (from ``ccache-basedir``): none of these.

``mlx.core`` has ``cost()`` (the work of one step), ``spin(n)`` (burns n steps), ``describe()`` and
``marker()``, which lists the edition of every compiled file: two builds of the same sources have one marker.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

FILES = Path(__file__).parent / "small_upstream_files"
HOST = "https://small.example"
SECRET = "small-upstream-secret-of-the-ssh-key"
TOKEN = "small-upstream-secret-token"
WAS_HERE = "small-upstream-was-here"
LEFTOVER = "small-upstream-leftover"  # argv[0] of the process that the hostile commits leave behind
ALL = ("cpu", "metal", "cuda")
START = 1_704_110_400  # 2024-01-01 12:00 UTC; each commit of main is a day after the one before

Files = dict[str, str]
Edit = Callable[[Files], None]


@dataclass(frozen=True)
class Plan:
    """A commit as the table says it. ``reaches``: the backends whose build it can change."""

    name: str
    subject: str
    touches: str
    edits: tuple[Edit, ...]
    reaches: tuple[str, ...] = ALL
    failure: str = ""
    tag: str = ""
    parent: str = ""
    ref: str = "refs/heads/main"
    side: str = ""
    attacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Commit:
    """A commit that was made.

    ``touches``: docs, tests, ci, format, benchmarks, examples, python, metal, cuda, gpu, cpu, common, header,
    build (setup.py, CMake), version, merge or hostile. ``failure``: the class in which its build ends
    (setup, configure, compile, link, import-abort, import-error, import-hang) or ''. ``needs``: a remedy
    without which it does not configure with today's CMake. ``early``: the version is a global ``-D``.
    ``stands_alone``: the wheel does not load ``libmlx`` from its build folder. ``cost`` and ``marker``: what
    ``mlx.core`` of a CPU build answers. ``version``: of the package, with PYPI_RELEASE=1.
    """

    name: str
    sha: str
    subject: str
    ref: str
    parents: tuple[str, ...]
    tag: str
    touches: str
    paths: tuple[str, ...]
    reaches: tuple[str, ...]
    failure: str
    needs: str
    early: bool
    stands_alone: bool
    version: str
    cost: int
    marker: str
    attacks: tuple[str, ...]


@dataclass(frozen=True)
class SmallUpstream:
    """``repo`` is bare. ``victim``: the home folder that hostile commits attack, ``port``: where they call.

    Tests set HOME to ``victim`` and GITHUB_TOKEN to ``TOKEN`` and look for what came of it.
    """

    folder: Path
    repo: Path
    mirrors: list[str]
    commits: list[Commit]
    victim: Path
    port: int

    @property
    def by_name(self) -> dict[str, Commit]:
        return {commit.name: commit for commit in self.commits}

    @property
    def main(self) -> list[Commit]:
        """First-parent commits of main, oldest first."""
        return [commit for commit in self.commits if commit.ref == "refs/heads/main"]

    def traces(self, *folders: Path) -> list[Path]:
        """Files that hostile commits left in the victim's home, beside it, or in the folders given."""
        found = [path for folder in (self.victim, *folders) for path in folder.rglob(f"{WAS_HERE}*")]
        found += [path for folder in (self.victim, *folders) for path in folder.rglob("heartbeat-*")]
        return sorted({*found, *self.victim.parent.glob(f"{WAS_HERE}*")})

    @contextlib.contextmanager
    def listening(self) -> Iterator[list[str]]:
        """Listens on ``port``; what was sent there is added to the list."""
        heard: list[str] = []
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", self.port))
            server.listen()
            server.settimeout(0.1)
            over = threading.Event()

            def listen() -> None:
                while not over.is_set():
                    with contextlib.suppress(OSError):
                        connection = server.accept()[0]
                        with connection:
                            connection.settimeout(5)
                            heard.append(connection.makefile().read())

            thread = threading.Thread(target=listen)
            thread.start()
            try:
                yield heard
            finally:
                over.set()
                thread.join()


# ---- edits ------------------------------------------------------------------------------------------------


def put(path: str, text: str) -> Edit:
    def apply(files: Files) -> None:
        files[path] = text

    return apply


def add(path: str, text: str) -> Edit:
    def apply(files: Files) -> None:
        files[path] = files.get(path, "") + text

    return apply


def swap(path: str, old: str, new: str) -> Edit:
    def apply(files: Files) -> None:
        assert files[path].count(old) == 1, (path, old)
        files[path] = files[path].replace(old, new)

    return apply


def bump(path: str) -> Edit:
    """The next edition of a file: its marker changes."""

    def apply(files: Files) -> None:
        files[path], count = re.subn(
            r"((?:edition|EDITION) = )(\d+)",
            lambda found: found[1] + str(int(found[2]) + 1),
            files[path],
            count=1,
        )
        assert count == 1, path

    return apply


def cost(rounds: int) -> Edit:
    def apply(files: Files) -> None:
        text = files[QUANTIZED]
        files[QUANTIZED] = re.sub(r"int rounds = \d+;", f"int rounds = {rounds};", text)

    return apply


def early_version(version: str) -> list[Edit]:
    def apply(files: Files) -> None:
        files["setup.py"] = re.sub(r'get_version\("[\d.]+"\)', f'get_version("{version}")', files["setup.py"])
        text = files["CMakeLists.txt"]
        files["CMakeLists.txt"] = re.sub(r"set\(MLX_VERSION [\d.]+\)", f"set(MLX_VERSION {version})", text)

    return [apply]


def version_header(version: str) -> Edit:
    def apply(files: Files) -> None:
        for part, number in zip(("MAJOR", "MINOR", "PATCH"), version.split("."), strict=True):
            text = files["mlx/version.h"]
            files["mlx/version.h"] = re.sub(rf"(VERSION_{part}) \d+", rf"\1 {number}", text)

    return apply


def hostile(kinds: tuple[str, ...], victim: Path, port: int, *, fatal: bool) -> list[Edit]:
    text = (FILES / "attack.py.in").read_text()
    filled = {"KINDS": kinds, "FATAL": fatal, "VICTIM": str(victim), "PORT": port}
    for name, value in filled.items():
        text = text.replace(f"@{name}@", repr(value))
    at_setup = 'import runpy\n\nrunpy.run_path("python/mlx/_attack.py")["attack"]("setup.py")\n'
    at_configure = (
        "  execute_process(\n"
        '    COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/python/mlx/_attack.py" cmake\n'
        f"{'    COMMAND_ERROR_IS_FATAL ANY' if fatal else ''})\n"
    )
    at_import = (
        '  PyObject* attack = PyImport_ImportModule("mlx._attack");\n'
        "  if (attack == nullptr ||\n"
        '      PyObject_CallMethod(attack, "attack", "s", "import") == nullptr) {\n'
        "    return nullptr;\n  }\n"
    )
    bindings = "  add_subdirectory(${CMAKE_CURRENT_LIST_DIR}/python/src)\n"
    return [
        put("python/mlx/_attack.py", text),
        swap("setup.py", "import datetime\n", f"{at_setup}import datetime\n"),
        swap("CMakeLists.txt", bindings, at_configure + bindings),
        at_start_of_import(at_import),
    ]


def at_start_of_import(code: str) -> Edit:
    line = "PyMODINIT_FUNC PyInit_core() {\n"
    return swap(BINDINGS, line, line + code)


# ---- the table --------------------------------------------------------------------------------------------

QUANTIZED = "mlx/backend/cpu/quantized.cpp"
BINARY = "mlx/backend/cpu/binary.cpp"
BINDINGS = "python/src/mlx.cpp"
ABORT = "  std::abort();\n"
ERROR = '  PyErr_SetString(PyExc_ImportError, "mlx.core is not for this machine");\n  return nullptr;\n'
HANG = '  PyRun_SimpleString("import time\\nwhile True: time.sleep(1)\\n");\n'
NO_FROBNICATOR = 'message(FATAL_ERROR "MLX needs a frobnicator to be built")\n'
MISSING = "int missing_kernel();\n\n"
NONE: tuple[str, ...] = ()
GPU = ("metal", "cuda")
# CCACHE_BASEDIR is set by the commit after those that bring the version header and the run path.
CCACHE_BASEDIR = """\
        # Avoid cache miss when building from temporary dirs.
        os.environ["CCACHE_BASEDIR"] = os.path.realpath(build_temp)
        os.environ["CCACHE_NOHASHDIR"] = "true"

"""


def late(name: str) -> str:
    return (FILES / "late" / name).read_text()


def table(fmt_sha: str, first: Files) -> list[Plan]:
    """Main in its order, then the rest. A plan without a parent follows the one before it."""
    old_head = first["CMakeLists.txt"].partition("\n# ---")[0] + "\n"
    global_version = (
        'if(NOT MLX_VERSION)\n  set(MLX_VERSION 0.2.0)\nendif()\nadd_compile_definitions("MLX_VERSION'
        '=${MLX_VERSION}")\n\n'
    )
    shared = 'option(BUILD_SHARED_LIBS "Build mlx as a shared library" OFF)\n'
    run_path = (
        "if(BUILD_SHARED_LIBS)\n  target_link_options(core PRIVATE -Wl,-rpath,@loader_path/lib)\nendif()\n"
    )
    fuse = (bump("mlx/ops.cpp"), bump("mlx/utils.cpp"))

    main = [
        Plan("first", "Import the library", "build", tuple(put(*file) for file in first.items())),
        Plan(
            "docs-install",
            "Say how to install (#101)",
            "docs",
            (add("docs/src/install.rst", "\n``pip install mlx``\n"),),
            NONE,
        ),
        Plan("binary", "Binary ops in one pass (#102)", "cpu", (bump(BINARY),)),
        Plan(
            "ci-cache",
            "Cache in CI (#103)",
            "ci",
            (add(".github/workflows/build.yml", "# cached\n"),),
            NONE,
        ),
        Plan("layers", "Faster layers (#104)", "python", (bump("python/mlx/nn/layers.py"),)),
        Plan(
            "metal-kernel",
            "Metal kernel with fewer registers (#105)",
            "metal",
            (bump("mlx/backend/metal/kernels/quantized.metal"),),
            ("metal",),
        ),
        Plan("array-strides", "Strides in the array (#106)", "header", (bump("mlx/array.h"),)),
        Plan("bump-0.1.0", "Version 0.1.0", "version", (*early_version("0.1.0"),), tag="v0.1.0"),
        Plan(
            "tests-ops",
            "Test the ops (#107)",
            "tests",
            (
                add("tests/ops_tests.cpp", "// more\n"),
                add("python/tests/test_ops.py", "    assert mx.marker()\n"),
            ),
            NONE,
        ),
        Plan(
            "cuda-start", "Start of CUDA (#108)", "cuda", (bump("mlx/backend/cuda/quantized.cu"),), ("cuda",)
        ),
        Plan("ops-fuse", "Fuse the ops (#12)", "common", fuse),
        Plan(
            "no-compile",
            "Use the view of an array (#109)",
            "cpu",
            (bump(BINARY), swap(BINARY, "  return edition;", "  return ArrayView{}.edition + edition;")),
            failure="compile",
        ),
        Plan(
            "no-compile-mended",
            "Mend the build (#110)",
            "cpu",
            (swap(BINARY, "  return ArrayView{}.edition + edition;", "  return edition;"),),
        ),
        Plan(
            "benchmark",
            "Benchmark of spin (#111)",
            "benchmarks",
            (add("benchmarks/python/spin.py", "mx.spin(2000)\n"),),
            NONE,
        ),
        Plan("bump-0.2.0", "Version 0.2.0", "version", (*early_version("0.2.0"),), tag="v0.2.0"),
        Plan(
            "fmt-1", "fmt 1.0.0 (#112)", "build", (swap("CMakeLists.txt", "GIT_TAG 0.9.0", "GIT_TAG 1.0.0"),)
        ),
        Plan(
            "version-header",
            "The version in one file only (#113)",
            "build",
            (
                swap("CMakeLists.txt", old_head, late("CMakeLists.head")),
                swap("CMakeLists.txt", global_version, ""),
                swap("CMakeLists.txt", shared, late("CMakeLists.ccache")),
                put("mlx/version.h", late("mlx/version.h")),
                put("mlx/version.cpp", late("mlx/version.cpp")),
                add("mlx/CMakeLists.txt", late("mlx/CMakeLists.version")),
                put("setup.py", late("setup.py.in").replace(CCACHE_BASEDIR, "")),
                swap(BINDINGS, "#define STRINGIFY(x) #x\n#define TOSTRING(x) STRINGIFY(x)\n\n", ""),
                swap(BINDINGS, "TOSTRING(_VERSION_)", "mx::version()"),
                swap(
                    BINDINGS, '#include "mlx/array.h"\n', '#include "mlx/array.h"\n#include "mlx/version.h"\n'
                ),
                swap(
                    "python/src/CMakeLists.txt",
                    "target_compile_definitions(core PRIVATE _VERSION_=${MLX_VERSION})\n",
                    "",
                ),
            ),
        ),
        Plan(
            "origin-rpath",
            "Find the library beside the bindings (#114)",
            "build",
            (swap("python/src/CMakeLists.txt", run_path, late("python/src/CMakeLists.rpath")),),
        ),
        Plan(
            "ccache-basedir",
            "Hit the compile cache from temporary folders (#115)",
            "build",
            (
                put("setup.py", late("setup.py.in")),
                swap("pyproject.toml", "setuptools>=42", "setuptools>=80"),
                swap("pyproject.toml", '"cmake>=3.25",\n', '"cmake>=3.25",\n  "typing_extensions",\n'),
            ),
        ),
        Plan("bump-0.2.1", "Version 0.2.1", "version", (version_header("0.2.1"),), tag="v0.2.1"),
        Plan(
            "example",
            "Greet in the example (#116)",
            "examples",
            (add("examples/python/hello.py", 'print("hello")\n'),),
            NONE,
        ),
        Plan("quantized-tidy", "Tidy the quantized ops (#117)", "cpu", (bump(QUANTIZED),)),
        Plan(
            "docs-typo",
            "Typos (#118)",
            "docs",
            (add("docs/src/index.rst", "\nFast.\n"), add("docs/src/install.rst", "\nDone.\n")),
            NONE,
        ),
        Plan("slow-down", "Exact rounding of quantized ops (#119)", "cpu", (bump(QUANTIZED), cost(140))),
        Plan("python-utils", "Utilities (#120)", "python", (bump("python/mlx/utils.py"),)),
        Plan(
            "metal-header",
            "Metal asks the system (#121)",
            "header",
            (bump("mlx/backend/metal/metal.h"),),
        ),
        Plan(
            "no-configure",
            "Frobnicate (#122)",
            "build",
            (swap("CMakeLists.txt", "add_library(mlx)\n", f"add_library(mlx)\n{NO_FROBNICATOR}"),),
            failure="configure",
        ),
        # The same tree as metal-header: one build.
        Plan(
            "no-configure-mended",
            'Revert "Frobnicate" (#123)',
            "build",
            (swap("CMakeLists.txt", NO_FROBNICATOR, ""),),
        ),
        Plan("metal-fences", "Merge branch 'fences'", "merge", (), ("metal",), side="fence-2"),
        Plan(
            "no-link",
            "Call the new kernel (#124)",
            "common",
            (
                bump("mlx/ops.cpp"),
                swap("mlx/ops.cpp", "int ops_edition() {\n", f"{MISSING}int ops_edition() {{\n"),
                swap("mlx/ops.cpp", "  return edition;", "  return edition + missing_kernel();"),
            ),
            failure="link",
        ),
        Plan(
            "no-link-mended",
            "Do not call it yet (#125)",
            "common",
            (
                swap("mlx/ops.cpp", MISSING, ""),
                swap("mlx/ops.cpp", "  return edition + missing_kernel();", "  return edition;"),
            ),
        ),
        Plan(
            "common-load", "Load in the background (#126)", "common", (bump("mlx/backend/common/load.cpp"),)
        ),
        Plan("slow-down-fix", "Rounding without branches (#127)", "cpu", (bump(QUANTIZED), cost(100))),
        Plan(
            "no-metal",
            "Say why there is no Metal (#128)",
            "common",
            (bump("mlx/backend/metal/no_metal.cpp"),),
            ("cpu", "cuda"),
        ),
        Plan(
            "import-aborts",
            "Check the machine at start (#129)",
            "common",
            (
                bump(BINDINGS),
                swap(BINDINGS, "#include <Python.h>\n", "#include <Python.h>\n#include <cstdlib>\n"),
                at_start_of_import(ABORT),
            ),
            failure="import-abort",
        ),
        Plan(
            "import-aborts-mended",
            "Check it later (#130)",
            "common",
            (bump(BINDINGS), swap(BINDINGS, ABORT, "")),
        ),
        Plan("format", "Format (#131)", "format", (add(".clang-format", "ColumnLimit: 80\n"),), NONE),
        Plan(
            "import-error",
            "Refuse old machines (#132)",
            "common",
            (bump(BINDINGS), at_start_of_import(ERROR)),
            failure="import-error",
        ),
        Plan(
            "import-error-mended",
            "Accept old machines (#133)",
            "common",
            (bump(BINDINGS), swap(BINDINGS, ERROR, "")),
        ),
        Plan(
            "import-hangs",
            "Wait for the device (#134)",
            "common",
            (bump(BINDINGS), at_start_of_import(HANG)),
            failure="import-hang",
        ),
        Plan(
            "import-hangs-mended",
            "Do not wait for it (#135)",
            "common",
            (bump(BINDINGS), swap(BINDINGS, HANG, "")),
        ),
        Plan("bump-0.3.0", "Version 0.3.0", "version", (version_header("0.3.0"),), tag="v0.3.0"),
        Plan(
            "fmt-by-sha",
            "fmt at a commit (#136)",
            "build",
            (swap("CMakeLists.txt", "GIT_TAG 1.0.0", f"GIT_TAG {fmt_sha}"),),
        ),
        Plan("gpu-eval", "Common parts of GPUs (#137)", "gpu", (bump("mlx/backend/gpu/eval.cpp"),), GPU),
        Plan(
            "docs-speed",
            "How to measure (#138)",
            "docs",
            (put("docs/src/speed.rst", "Speed\n=====\n"),),
            NONE,
        ),
        Plan("array-dtype", "Types in the array (#139)", "header", (bump("mlx/array.h"),)),
        Plan("cuda-qmm", "CUDA qmm (#140)", "cuda", (bump("mlx/backend/cuda/quantized.cu"),), ("cuda",)),
        Plan("readme", "Badges (#141)", "docs", (add("README.md", "\n[badge]\n"),), NONE),
        Plan("ops-speed", "Ops without copies (#142)", "common", (bump("mlx/ops.cpp"),)),
    ]
    fences = [
        Plan(
            f"fence-{number}",
            f"Fence {number}",
            "metal",
            (bump("mlx/backend/metal/metal.cpp"),),
            ("metal",),
            parent="python-utils" if number == 1 else "fence-1",
            ref="refs/heads/fences",
        )
        for number in (1, 2)
    ]
    rest = [
        Plan(
            "next-gpu",
            "GPU of the next version",
            "gpu",
            (bump("mlx/backend/gpu/eval.cpp"),),
            GPU,
            parent="docs-speed",
        ),
        Plan("next", "Version 0.4.0", "version", (version_header("0.4.0"), bump(QUANTIZED), cost(80))),
        Plan("pull-12-first", "Fuse", "common", fuse[:1], parent="tests-ops"),
        Plan("pull-12", "And the utilities", "common", fuse[1:]),
        Plan("pull-15-first", "Lookup table", "cpu", (bump(QUANTIZED),), parent="array-dtype"),
        Plan("pull-15", "Half the rounds", "cpu", (bump(QUANTIZED), cost(50))),
        Plan(
            "pull-17",
            "Does not compile",
            "cpu",
            (swap(BINARY, "  return edition;", "  return editions;"),),
            failure="compile",
            parent="ops-speed",
        ),
        Plan(
            "pull-18",
            "setup.py raises",
            "build",
            (add("setup.py", 'raise RuntimeError("setup.py of a stranger")\n'),),
            failure="setup",
            parent="ops-speed",
        ),
    ]
    refs = {"next": "refs/heads/next", "next-gpu": "refs/heads/next"}
    number_of = re.compile(r"pull-(\d+)")
    for at, plan in enumerate(rest):
        found = number_of.match(plan.name)
        ref = f"refs/pull/{found[1]}/head" if found else refs[plan.name]
        rest[at] = replace(plan, ref=ref)
    # The side branch is made before the merge takes it.
    merge = next(at for at, plan in enumerate(main) if plan.side)
    main[merge] = replace(main[merge], parent=main[merge - 1].name)
    return [*main[:merge], *fences, *main[merge:], *rest]


ATTACKS = {
    20: "read-ssh",
    21: "print-token",
    22: "write-home",
    23: "open-socket",
    24: "leave-process",
    25: "plant",
    26: "fill-memory",
    27: "fork-many",
    28: "flood",
}
QUICK_ATTACKS = ("read-ssh", "print-token", "write-home", "open-socket", "leave-process", "plant")


def hostile_table(victim: Path, port: int) -> list[Plan]:
    """Pull requests 20 to 28: one attempt each, at setup.py, at configure and at import; then they go on as
    if nothing had been. 16: all quick ones. 29: as 20, but what stops it ends the build."""
    pulls: dict[int, tuple[str, ...]] = {number: (kind,) for number, kind in ATTACKS.items()}
    pulls |= {16: QUICK_ATTACKS, 29: ("read-ssh",)}
    return [
        Plan(
            f"pull-{number}",
            f"Innocent change {number}",
            "hostile",
            tuple(hostile(kinds, victim, port, fatal=number == 29)),
            parent="ops-speed",
            ref=f"refs/pull/{number}/head",
            attacks=kinds,
        )
        for number, kinds in sorted(pulls.items())
    ]


# ---- making it --------------------------------------------------------------------------------------------


def read_tree(folder: Path) -> Files:
    """Files of a folder by their path; ``.in`` keeps this project's own tools away and is taken off."""
    return {
        path.relative_to(folder).as_posix().removesuffix(".in"): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def git(repo: Path, *arguments: str, feed: bytes | None = None) -> str:
    command = ["git", "-c", "init.defaultBranch=main", "--git-dir", str(repo), *arguments]
    return subprocess.run(command, input=feed, check=True, capture_output=True).stdout.decode()


class Importer:
    """A stream for ``git fast-import``: real objects, no work tree, one process."""

    def __init__(self) -> None:
        self.stream = bytearray()
        self.marks: dict[str, int] = {}

    def data(self, text: str) -> bytes:
        encoded = text.encode()
        return b"data %d\n%s\n" % (len(encoded), encoded)

    def commit(
        self,
        name: str,
        ref: str,
        message: str,
        when: int,
        parents: list[str],
        files: Files,
        before: Files,
        links: dict[str, str] | None = None,
    ) -> None:
        mark = self.marks[name] = len(self.marks) + 1
        who = f"Small Upstream <small@small.example> {when} +0000"
        if not parents:
            self.stream += f"reset {ref}\n".encode()
        self.stream += f"commit {ref}\nmark :{mark}\nauthor {who}\ncommitter {who}\n".encode()
        self.stream += self.data(f"{message}\n")
        for word, parent in zip(("from", "merge"), parents, strict=False):
            self.stream += f"{word} :{self.marks[parent]}\n".encode()
        for path in sorted(before.keys() - files.keys()):
            self.stream += f"D {path}\n".encode()
        for path, text in sorted(files.items()):
            if before.get(path) != text:
                self.stream += f"M 100644 inline {path}\n".encode() + self.data(text)
        for path, sha in (links or {}).items():
            self.stream += f"M 160000 {sha} {path}\n".encode()

    def tag(self, tag: str, name: str, when: int, *, annotated: bool = False) -> None:
        if annotated:
            who = f"Small Upstream <small@small.example> {when} +0000"
            text = f"tag {tag}\nfrom :{self.marks[name]}\ntagger {who}\n".encode()
            self.stream += text + self.data(f"{tag}\n")
        else:
            self.stream += f"reset refs/tags/{tag}\nfrom :{self.marks[name]}\n\n".encode()

    def write(self, repo: Path) -> dict[str, str]:
        """Makes a bare repository; shas by name."""
        git(repo, "init", "--quiet", "--bare", "--template=", str(repo))
        marks = repo / "marks"
        git(repo, "fast-import", "--quiet", f"--export-marks={marks}", feed=bytes(self.stream))
        by_mark = dict(line.split() for line in marks.read_text().splitlines())
        marks.unlink()
        return {name: by_mark[f":{mark}"] for name, mark in self.marks.items()}


def make_sources(folder: Path) -> str:
    """The libraries that CMake fetches. Returns the commit of fmt that no tag names."""
    sources = FILES / "sources"
    shas: dict[str, str] = {}
    for name, tag in (("extra", "v1"), ("json", "v3.11.3"), ("metal-cpp", "v15"), ("cutlass", "v4.0.0")):
        importer = Importer()
        importer.commit(name, "refs/heads/main", name, START, [], read_tree(sources / name), {})
        importer.tag(tag, name, START)
        shas |= importer.write(folder / name)
    importer = Importer()
    old, new = read_tree(sources / "fmt-0.9.0"), read_tree(sources / "fmt-1.0.0")
    links = {"extra": shas["extra"]}
    importer.commit("old", "refs/heads/main", "fmt 0.9.0", START, [], old, {})
    importer.commit("new", "refs/heads/main", "fmt 1.0.0", START + 1, ["old"], new, old, links)
    newer = new | {"README.md": "fmt after 1.0.0\n"}
    importer.commit("newer", "refs/heads/main", "Say what this is", START + 2, ["new"], newer, new)
    importer.commit(
        "newest", "refs/heads/main", "Say more", START + 3, ["newer"], newer | {"NEWS": ""}, newer
    )
    importer.tag("0.9.0", "old", START)
    importer.tag("1.0.0", "new", START)
    return importer.write(folder / "fmt")["newer"]


MARKED = (
    "mlx/array.h",
    "mlx/array.cpp",
    "mlx/io.cpp",
    "mlx/ops.cpp",
    "mlx/utils.cpp",
    "mlx/backend/common/load.cpp",
    BINARY,
    QUANTIZED,
    "mlx/backend/metal/metal.h",
    "mlx/backend/metal/no_metal.cpp",
    "mlx/backend/no_gpu/eval.cpp",
    BINDINGS,
)


def number(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found, pattern
    return found[1]


def version_of(files: Files) -> str:
    if "mlx/version.h" not in files:
        return number(r'get_version\("([\d.]+)"\)', files["setup.py"])
    parts = ("MAJOR", "MINOR", "PATCH")
    return ".".join(number(rf"VERSION_{part} (\d+)", files["mlx/version.h"]) for part in parts)


@lru_cache(maxsize=1)
def first_files() -> tuple[tuple[str, str], ...]:
    return tuple(read_tree(FILES / "mlx").items())


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def make(folder: Path) -> SmallUpstream:
    """Makes the repositories ``mlx``, ``fmt``, ``extra``, ``json``, ``metal-cpp``, ``cutlass`` (all bare) and
    the home folder ``victim`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    victim = folder / "home" / "victim"
    (victim / ".ssh").mkdir(parents=True)
    (victim / ".ssh" / "id_test").write_text(f"{SECRET}\n")
    port = free_port()
    fmt_sha = make_sources(folder)

    importer = Importer()
    plans = [*table(fmt_sha, dict(first_files())), *hostile_table(victim, port)]
    states: dict[str, Files] = {}
    parents: dict[str, list[str]] = {}
    paths: dict[str, tuple[str, ...]] = {}
    when = START
    before = ""
    for plan in plans:
        above = [name for name in (plan.parent or before, plan.side) if name]
        base = states[above[0]] if above else {}
        files = dict(base)
        if plan.side:
            fork = states["python-utils"]
            files |= {path: text for path, text in states[plan.side].items() if fork.get(path) != text}
        for edit in plan.edits:
            edit(files)
        when += 86_400
        importer.commit(plan.name, plan.ref, plan.subject, when, above, files, base)
        if plan.tag:
            importer.tag(plan.tag, plan.name, when, annotated=plan.tag == "v0.2.0")
        states[plan.name], parents[plan.name], before = files, above, plan.name
        paths[plan.name] = tuple(sorted(path for path in files if base.get(path) != files[path]))
    # The merged branch was deleted.
    importer.stream += b"reset refs/heads/fences\nfrom " + b"0" * 40 + b"\n\n"
    shas = importer.write(folder / "mlx")

    commits = []
    for plan in plans:
        files = states[plan.name]
        names = (path.rpartition("/")[2] for path in MARKED)
        editions = (number(r"int edition = (\d+)", files[path]) for path in MARKED)
        commits.append(
            Commit(
                name=plan.name,
                sha=shas[plan.name],
                subject=plan.subject,
                ref=plan.ref if plan.ref != "refs/heads/fences" else "",
                parents=tuple(shas[name] for name in parents[plan.name]),
                tag=plan.tag,
                touches=plan.touches,
                paths=paths[plan.name],
                reaches=plan.reaches,
                failure=plan.failure,
                needs="cmake<4" if "GIT_TAG 0.9.0" in files["CMakeLists.txt"] else "",
                early="mlx/version.h" not in files,
                stands_alone="BUILD_WITH_INSTALL_RPATH" in files["python/src/CMakeLists.txt"],
                version=version_of(files),
                cost=int(number(r"int rounds = (\d+)", files[QUANTIZED])),
                marker=" ".join(f"{name}={edition}" for name, edition in zip(names, editions, strict=True)),
                attacks=plan.attacks,
            )
        )
    addresses = ["fmt.git", "extra.git", "cutlass.git", "json", "metal-cpp", "mlx.git"]
    mirrors = [f"{HOST}/{address}={folder / address.removesuffix('.git')}" for address in addresses]
    return SmallUpstream(folder, folder / "mlx", mirrors, commits, victim, port)
