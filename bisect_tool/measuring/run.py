"""One run: a fresh process of a repro inside an environment, and the record of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bisect_tool import process
from bisect_tool.building.attestation import foreign
from bisect_tool.building.environment import Environment
from bisect_tool.building.sandbox import (
    Sandbox,
    Walls,
    interpreter_paths,
    shows_home,
    violation,
)
from bisect_tool.errors import DiskFull, UsageProblem
from bisect_tool.measuring import ledger, protocol
from bisect_tool.paths import repro_script

CANONICAL = "qmv_step.py"
MEMORY_SHARE = 0.9
OUTPUT_LIMIT = 64 * 1024 * 1024  # bytes over all streams of a run


@dataclass(frozen=True)
class Script:
    """What is run: the canonical repro (protocol v1 on a descriptor of its own), or a user's own script."""

    path: Path
    args: tuple[str, ...]
    canonical: bool
    sha256: str

    @staticmethod
    def load(path: Path | None, args: tuple[str, ...], canonical: str = CANONICAL) -> Script:
        """``None``: a repro of this project, by name. Raises UsageProblem when the file cannot be read."""
        chosen = repro_script(canonical) if path is None else path.resolve()
        try:
            digest = hashlib.sha256(chosen.read_bytes()).hexdigest()
        except OSError as problem:
            raise UsageProblem(f"cannot read the script {chosen}", str(problem.strerror)) from None
        return Script(chosen, args, path is None, digest)

    @property
    def folder(self) -> Path | None:
        """The script's own folder, in which it runs; None when it cannot be opened without opening the
        user's home."""
        return None if shows_home(self.path.parent) else self.path.parent

    @property
    def command(self) -> str:
        """Which of the tool's commands runs it."""
        return "repro" if self.path.name == CANONICAL else "model"

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.path.name,
            "args": list(self.args),
            "canonical": self.canonical,
            "sha256": self.sha256,
        }


def walls_of(environment: Environment, script: Script) -> Walls:
    """What a run may use: its environment, the script with what lies beside it and what its arguments name,
    the GPU; it writes to the environment's private home alone. Trees that builds are made in stay out of
    sight: a library with a run path into one could not be loaded from there."""
    beside = () if script.canonical or script.folder is None else (script.folder,)
    named = (Path(word.rpartition("=")[2]) for word in script.args)
    # What there is not is passed over by the walls themselves, which take any name.
    given = tuple(path for path in named if path.is_absolute() and not shows_home(path))
    own = (script.path, repro_script("attested.py"), repro_script(CANONICAL))
    return Walls(
        read=(environment.root, *own, *beside, *given, *interpreter_paths(environment.python)),
        write=(),
        home=environment.root / "home",
        gpu=environment.backend != "cpu",
    )


def memory_limit() -> int:
    """Bytes that a run may take: nearly all there are, so that the machine survives one that takes more."""
    import psutil

    return int(psutil.virtual_memory().total * MEMORY_SHARE)


def run_once(
    environment: Environment,
    script: Script,
    *,
    sandbox: Sandbox,
    seed: int,
    env: Mapping[str, str],
    timeout_s: float,
    log: Path,
    running: Path,
) -> dict[str, Any]:
    """Run the script once; returns the record's own fields (outcome, reason, cases, metrics, …).

    A run that fails is a record too, with ``outcome`` ``failed`` and its reason; nothing is raised for it.
    ``running`` names the process group while it lives, so that a tool started later can end a leftover.
    """
    reader = protocol.Reader(only_json=True)  # what comes over the descriptor
    spoken = protocol.Reader(only_json=False)  # what a user's script prints
    if script.canonical:
        argv: list[str] = [str(environment.python), "-s", str(script.path), *script.args, "--seed", str(seed)]

        def channel_args(fd: int) -> list[str]:
            return ["--json", str(fd)]
    else:
        argv = [str(environment.python), "-s", str(repro_script("attested.py"))]

        def channel_args(fd: int) -> list[str]:
            return [str(fd), str(script.path), *script.args]

    started = time.time()

    unable = ""

    def on_start(pid: int) -> None:
        running.write_text(json.dumps({"pid": pid, "started": time.time()}))

    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        done = sandbox.run(
            argv,
            walls=walls_of(environment, script),
            env=env,
            cwd=environment.root if script.canonical else script.folder,
            timeout_s=timeout_s,
            output_limit=OUTPUT_LIMIT,
            memory_limit=memory_limit(),
            log=log,
            channel=reader.feed,
            channel_args=channel_args,
            on_start=on_start,
            on_stdout=None if script.canonical else spoken.feed,
        )
    except OSError as problem:
        if problem.errno in ledger.NO_ROOM:
            raise DiskFull(
                f"no room left in {log.parent} for the log of a run",
                "the runs before it are kept",
                "free some space and go on with --resume",
            ) from problem
        # The environment was removed while we measured, say.
        where = f": {problem.filename}" if problem.filename else ""
        unable = f"could not be started: {problem.strerror or problem}{where}"
        done = process.Finished(tuple(argv), 127, "", "", time.time() - started)
    finally:
        with contextlib.suppress(OSError):
            running.unlink(missing_ok=True)
    said = reader.close()
    if not script.canonical:
        attest, said = said.attest, spoken.close()
        said.attest = attest
    outcome, reason = ("failed", unable) if unable else _judge(done, said, script, environment)
    if outcome == "bad" and sandbox.walled:
        walls = walls_of(environment, script)
        if stopped := violation(done, home=Path.home(), visible=walls.read):
            # Its exit code is the walls' doing, no answer.
            outcome, reason = "failed", f"stopped by the walls: {stopped} ({reason})"
    proof = said.attest or said.host or {}
    return {
        "outcome": outcome,
        "reason": reason,
        "exit_code": done.returncode,
        "wall_s": round(done.wall_s, 3),
        "started": started,
        "mlx": proof.get("mlx"),
        "module": proof.get("module"),
        "device": (said.host or {}).get("device", {}),
        "pinned": (said.host or {}).get("pinned", {}),
        "cases": said.cases,
        "metrics": said.metrics,
        "sentinels": said.sentinels,
        "unsupported": said.unsupported,
        "drift": (said.end or {}).get("drift"),
        "log": log.name,
    }


def _judge(
    done: process.Finished, said: protocol.Transcript, script: Script, environment: Environment
) -> tuple[str, str]:
    """Outcome (ok, good, bad, skip, failed) and its reason in one clause."""
    if done.timed_out or done.output_exceeded or done.returncode < 0:
        last = "" if done.output_exceeded else done.last_line()
        return "failed", done.describe() + (f": {last}" if last else "")
    if said.problem:
        return "failed", said.problem
    if script.canonical and said.host is None and done.returncode != 0:
        return "failed", f"{done.describe()}: {done.last_line()}"
    # What our own wrapper saw, and what the script says of itself.
    for proof in (said.attest, said.host):
        wrong = wrong_mlx(proof, environment, required=script.canonical and proof is said.host)
        if wrong:
            return "failed", wrong
    if script.canonical:
        if done.returncode != 0:
            return "failed", f"{done.describe()}: {done.last_line()}"
        if said.end is None:
            return "failed", "ended without its end line"
        if not [line for line in said.cases if not line["case"].get("control")]:
            reasons = {line["reason"] for line in said.unsupported} or {"it printed no case"}
            return "failed", "no case could be measured: " + sorted(reasons)[0].splitlines()[0]
        return "ok", ""
    if said.metrics or said.cases:
        return ("ok", "") if done.returncode == 0 else ("failed", f"{done.describe()}: {done.last_line()}")
    outcome = protocol.outcome_of_exit(done.returncode)
    return outcome, "" if outcome == "good" else f"{done.describe()}: {done.last_line()}".rstrip(": ")


def wrong_mlx(said: Mapping[str, Any] | None, environment: Environment, *, required: bool) -> str:
    """Why the MLX that ran is not the one asked for; empty when it is.

    See ``attestation.foreign``; a script that never imported MLX says nothing, which may be allowed.
    """
    if said is None or said.get("module") is None:
        return "did not say which mlx it ran on" if required else ""
    return foreign(said, environment.root, environment.mlx_version)


def check_arguments(
    environment: Environment, script: Script, env: Mapping[str, str], sandbox: Sandbox
) -> None:
    """Let the canonical repro parse its arguments, before anything is recorded. Raises UsageProblem.

    Only it knows what they mean; a user's script is not asked.
    """
    if not script.canonical:
        return
    argv = [str(environment.python), "-s", str(script.path), *script.args, "--list"]
    walls = walls_of(environment, script)
    done = sandbox.run(argv, walls=walls, env=env, cwd=environment.root, timeout_s=120)
    if done.returncode == 2:
        message = re.sub(r"^\S+: error: ", "", done.last_line())
        raise UsageProblem(message, remedy=f"see `bisect_tool {script.command} --help`")


def end_leftover(running: Path) -> None:
    """Kill a repro that outlived a tool killed hard, so that it cannot disturb what is measured next."""
    import psutil

    try:
        said = json.loads(running.read_text())
        alive = psutil.Process(said["pid"])
        if abs(alive.create_time() - said["started"]) < 60:
            process.kill_group(said["pid"])
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        pass
    running.unlink(missing_ok=True)
