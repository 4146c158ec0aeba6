"""A history to search: sixty commits on top of the small upstream, two of which make an op slower.

| commit | what it does |
| --- | --- |
| 14 | `spin` 1.2 times slower |
| 25 to 27 | do not compile; 28 mends it; 26 gives `quantized.cpp` another edition |
| 37 | `spin` 1.6 times slower; the merge of pull request 937 |
| 45 | aborts at import; 46 mends it |
| every fifth, else | documentation |
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from small_upstream import BINARY, QUANTIZED, SmallUpstream, git

COMMITS = 60
SMALL, LARGE = 14, 37
NO_COMPILE = range(25, 28)
NO_IMPORT = 45
COSTS = {SMALL: 120, LARGE: 192}
BASE = "ops-speed"
BINDINGS = "python/src/mlx.cpp"
INIT = "PyMODINIT_FUNC PyInit_core() {\n"

# Seconds of processor time, so that other programs on the machine hardly matter. Best of several.
SCRIPT = """
import json, time
import mlx.core as core
best = 1e9
for _ in range(9):
    start = time.process_time()
    core.spin(40000)
    best = min(best, time.process_time() - start)
print(json.dumps({"metric": "spin", "value": best, "unit": "s"}))
"""


# Bad from the commit on that lies within those that do not compile.
EDITION = """
import sys
import mlx.core as core
sys.exit("quantized.cpp=9" in core.marker())
"""


@dataclass(frozen=True)
class LongHistory:
    """``shas[i]`` is commit i; 0 is the commit that the history stands on."""

    upstream: SmallUpstream
    repo: Path
    shas: list[str]

    def short(self, number: int) -> str:
        return self.shas[number][:9]

    @property
    def range(self) -> str:
        return f"{self.short(0)}..{self.short(COMMITS)}"


def make(upstream: SmallUpstream, folder: Path) -> LongHistory:
    """A copy of the upstream's repository whose ``main`` goes on for sixty commits."""
    repo = folder / "mlx"
    shutil.copytree(upstream.repo, repo)
    base = upstream.by_name[BASE].sha

    def text_of(path: str) -> str:
        return git(repo, "show", f"{base}:{path}")

    quantized, binary, bindings = text_of(QUANTIZED), text_of(BINARY), text_of(BINDINGS)
    stream = bytearray()
    for number in range(1, COMMITS + 1):
        subject, changed = _commit(number, quantized, binary, bindings)
        quantized = changed.get(QUANTIZED, quantized)
        binary = changed.get(BINARY, binary)
        bindings = changed.get(BINDINGS, bindings)
        who = f"Small Upstream <small@small.example> {1_735_732_800 + 86_400 * number} +0000"
        message = f"{subject}\n".encode()
        above = base if number == 1 else f":{number - 1}"
        stream += f"commit refs/heads/main\nmark :{number}\nauthor {who}\ncommitter {who}\n".encode()
        stream += b"data %d\n%s\nfrom %s\n" % (len(message), message, above.encode())
        for path, text in changed.items():
            data = text.encode()
            stream += b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(data), data)
        if number == LARGE:
            stream += f"reset refs/pull/937/head\nfrom :{number - 1}\n\n".encode()
    marks = folder / "marks"
    git(repo, "fast-import", "--quiet", "--force", f"--export-marks={marks}", feed=bytes(stream))
    found = dict(line.split() for line in marks.read_text().splitlines())
    return LongHistory(upstream, repo, [base, *(found[f":{n}"] for n in range(1, COMMITS + 1))])


def _commit(number: int, quantized: str, binary: str, bindings: str) -> tuple[str, dict[str, str]]:
    """Subject, and the files that the commit changes."""
    if number in COSTS:
        text = re.sub(r"int rounds = \d+;", f"int rounds = {COSTS[number]};", quantized)
        return ("Careful rounding (#937)" if number == LARGE else "Check the bounds (#914)"), {
            QUANTIZED: text
        }
    if number in NO_COMPILE:
        broken = binary if number > NO_COMPILE[0] else binary.replace("return edition;", "return editions;")
        changed = {BINARY: f"{broken}// {number}\n"}
        if number == NO_COMPILE[1]:
            changed[QUANTIZED] = quantized.replace("int edition = ", "int edition = 9")
        return f"Half of a change, {number}", changed
    if number == NO_COMPILE[-1] + 1:
        return "The other half", {BINARY: binary.replace("return editions;", "return edition;")}
    if number == NO_IMPORT:
        text = bindings.replace("#include <Python.h>\n", "#include <Python.h>\n#include <cstdlib>\n", 1)
        return "Look at the machine", {BINDINGS: text.replace(INIT, INIT + "  std::abort(); // for now\n")}
    if number == NO_IMPORT + 1:
        return "Look later", {BINDINGS: bindings.replace("  std::abort(); // for now\n", "")}
    if number % 5 == 0:
        return f"Documentation {number}", {"docs/src/log.rst": f"{number}\n"}
    text = re.sub(r"(edition = )(\d+)", lambda m: m[1] + str(int(m[2]) + 1), binary, count=1)
    return f"Another edition {number} (#{900 + number})", {BINARY: text}
