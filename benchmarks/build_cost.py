"""What a build costs, as ratios in one run: clean, with a warm cache, the next commit, from the store.

    python benchmarks/build_cost.py                                     the tests' small upstream (a minute)
    BISECT_TOOL_MLX_REPO=PATH python benchmarks/build_cost.py [PARENT COMMIT]     MLX itself (20 minutes)

With a clone of MLX: BISECT_TOOL_CONFIG may name the mirrors of its sources. PARENT and COMMIT default to two
commits of main that differ in one file. Every figure is the wall time of the whole command.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from bisect_tool import config

ROOT = Path(__file__).resolve().parent.parent
# #4332 changed mlx/ops.cpp alone.
MLX_PAIR = ("846d17622~1", "846d17622")


@dataclass
class Bench:
    """One upstream and one builds folder."""

    repo: str
    mirrors: list[str]
    builds: Path

    def build(self, name: str) -> tuple[float, dict[str, object]]:
        """Seconds of `bisect_tool build`, and its row."""
        words = ["--backend", "cpu", "--repo", self.repo, "--builds", str(self.builds), "--json", "-q"]
        for mirror in self.mirrors:
            words += ["--mirror", mirror]
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "bisect_tool", "build", name, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return seconds, json.loads(done.stdout)["builds"][0]

    def forget(self, *folders: str) -> None:
        for folder in folders:
            shutil.rmtree(self.builds / folder, ignore_errors=True)

    def libraries(self, name: str) -> dict[str, str]:
        key = self.build(name)[1]["build"]
        record = json.loads((self.builds / "wheels" / str(key) / "build.json").read_text())
        return dict(record["libraries"])


def naive(bench: Bench, first: str, second: str, folder: Path) -> float:
    """Seconds of `pip install .` for the second commit, in a folder where the first one was installed so.

    Git repositories are cloned from the mirrors, as a person's are from the network; archives are given.
    """
    source = folder / "naive"
    subprocess.run(["git", "clone", "-q", "--shared", bench.repo, source], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    given = [
        f"-DFETCHCONTENT_SOURCE_DIR_{facts['source']['name'].upper()}={path.parent / 'tree'}"
        for path in bench.builds.glob("sources/*/source.json")
        if (facts := json.loads(path.read_text()))["source"]["archive"]
    ]
    pairs = [tuple(mirror.split("=", 1)) for mirror in bench.mirrors]
    pairs += [(prefix, str(path)) for prefix, path in config.load().mirrors]
    settings = [("protocol.file.allow", "always")]
    for prefix, path in pairs:
        bare = prefix.removesuffix(".git")
        settings += [(f"url.{path}.insteadOf", address) for address in (bare, f"{bare}.git")]
    env = {**os.environ, "CMAKE_ARGS": " ".join(["-DMLX_BUILD_METAL=OFF", *given])}
    env["GIT_CONFIG_COUNT"] = str(len(settings))
    for at, (name, value) in enumerate(settings):
        env |= {f"GIT_CONFIG_KEY_{at}": name, f"GIT_CONFIG_VALUE_{at}": value}
    env["CCACHE_DIR"] = str(folder / "ccache")
    seconds = 0.0
    for name in (first, second):
        subprocess.run(["git", "-C", source, "checkout", "-q", name], check=True)
        started = time.monotonic()
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "."],
            cwd=source,
            env=env,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seconds = time.monotonic() - started
    return seconds


def measure(title: str, bench: Bench, parent: str, commit: str, scratch: Path) -> None:
    """Print one table. The build environment and the sources are there before anything is timed."""
    bench.build(parent)
    bench.forget("trees", "wheels", "environments", "cache/ccache")
    rows: list[tuple[str, float]] = []
    clean, _ = bench.build(parent)
    rows.append(("clean, empty compile cache", clean))
    rows.append(("next commit in the kept tree", bench.build(commit)[0]))
    rows.append(("in the store, environment there", bench.build(parent)[0]))
    bench.forget("environments")
    rows.append(("in the store, environment made", bench.build(parent)[0]))
    bench.forget("trees", "wheels", "environments")
    rows.append(("clean, warm compile cache", bench.build(parent)[0]))
    rows.append(("`pip install .`, next commit in a kept folder", naive(bench, parent, commit, scratch)))
    other = Bench(bench.repo, bench.mirrors, scratch / "other" / "builds")
    shutil.copytree(bench.builds / "cache", other.builds / "cache", symlinks=True)
    same = bench.libraries(parent) == other.libraries(parent)
    cells = [[name, f"{seconds:.1f}", f"1/{clean / seconds:.1f}"] for name, seconds in rows]
    print(f"\n{title}, {os.cpu_count()} cores")
    print(tabulate(cells, headers=["what", "seconds", "of clean"], tablefmt="github", disable_numparse=True))
    print(f"libraries of one commit built in two folders: {'identical' if same else 'DIFFERENT'}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if repo := os.environ.get("BISECT_TOOL_MLX_REPO"):
            parent, commit = sys.argv[1:3] if len(sys.argv) > 2 else MLX_PAIR
            measure("MLX", Bench(repo, [], scratch / "builds"), parent, commit, scratch)
            return
        sys.path.insert(0, str(ROOT / "tests"))
        from small_upstream import make

        made = make(scratch / "upstream")
        pair = (made.by_name["docs-typo"].sha, made.by_name["slow-down"].sha)
        bench = Bench(str(made.repo), made.mirrors, scratch / "builds")
        measure("the small upstream", bench, *pair, scratch)


if __name__ == "__main__":
    main()
