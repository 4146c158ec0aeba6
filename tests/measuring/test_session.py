"""The engine, with real processes of tiny scripts: when it stops, whom it drops, how it goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from bisect_tool.building.environment import Environment
from bisect_tool.building.sandbox import Mode, Sandbox, Unwalled, choose
from bisect_tool.host.state import HostState
from bisect_tool.measuring import ledger, schedule, session
from bisect_tool.measuring.run import Script, end_leftover
from bisect_tool.measuring.session import Arm, Listeners, Measuring, Settings, StopRule, arm_line
from bisect_tool.upstream.revision import Revision

# Every arm knows its name, and counts how often it ran.
PRELUDE = """
import json, os, sys, time
from pathlib import Path
arm = os.environ["ARM"]
count = len(list(Path(os.environ["COUNTS"]).glob(arm + ".*")))
Path(os.environ["COUNTS"], f"{arm}.{count}").touch()
def metric(value, name="t"):
    print(json.dumps({"metric": name, "value": value, "unit": "s"}))
"""
STEADY = "metric(1.0 + 0.001 * (count % 2))"


@dataclass
class Bench:
    """A session's surroundings; ``measure`` may be called again to go on."""

    folder: Path
    remarks: list[str] = field(default_factory=list)
    rounds_told: list[tuple[int, int, str]] = field(default_factory=list)
    path: Path | None = None
    pythons: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    sandbox: Sandbox = field(default_factory=lambda: Unwalled("a test"))  # the scripts count in the folder

    def measure(
        self, code: str, arms: str = "AB", seed: int = 5, stop: StopRule | None = None, **settings: object
    ) -> list[ledger.Line]:
        script_file = self.folder / "script.py"
        script_file.write_text(PRELUDE + code)
        given = {"budget_s": 60.0, **settings}
        with self._book() as (book, lines):
            listeners = Listeners(
                progress=lambda at: self.rounds_told.append((at.round, at.most, at.arm)),
                remark=self.remarks.append,
            )
            Measuring(
                book,
                lines,
                [self.arm(name) for name in arms],
                Script.load(script_file, ()),
                Settings(**given),  # type: ignore[arg-type]
                seed,
                self.sandbox,
                listeners,
                stop or StopRule(),
            ).run()
        assert self.path is not None
        return list(ledger.read(self.path).lines)

    def arm(self, name: str) -> Arm:
        root = self.folder / f"env-{name}"
        root.mkdir(exist_ok=True)
        python = self.pythons.get(name, Path(sys.executable))
        made = Environment(root, python, "9.9.9", "cpu", {}, "d", False, 0.0)
        env = {"PATH": os.environ["PATH"], "ARM": name, "COUNTS": str(self.folder)}
        return Arm(Revision(self.labels.get(name, name), "9.9.9"), made, env)

    @contextmanager
    def _book(self) -> Iterator[tuple[ledger.Ledger, list[ledger.Line]]]:
        if self.path is None:
            with ledger.create(self.folder, {"id": "s"}) as book:
                self.path = book.path
                yield book, []
        else:
            with ledger.reopen(self.path) as (book, before):
                yield book, list(before.lines)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    # What else runs on this machine is not what is tested here.
    monkeypatch.setattr(session, "state", lambda: HostState(taken_at_s=time.time(), cores=2, load_1min=0.5))
    return Bench(tmp_path)


def of_kind(lines: list[ledger.Line], kind: str) -> list[ledger.Line]:
    return [line for line in lines if line["kind"] == kind]


def ran(lines: list[ledger.Line]) -> list[tuple[int, str]]:
    return [(line["round"], line["arm"]) for line in of_kind(lines, "run")]


def why_ended(lines: list[ledger.Line]) -> str:
    assert [line["kind"] for line in lines].count("end") == 1 and lines[-1]["kind"] == "end"
    return str(lines[-1]["reason"])


# --- when it stops ----------------------------------------------------------------------------------


def test_stops_by_width_after_six_rounds(bench: Bench) -> None:
    lines = bench.measure(STEADY)
    assert why_ended(lines) == "every interval is within ±0.75 %"
    assert Counter(ran(lines)) == Counter({(n, arm): 1 for n in range(1, 7) for arm in "AB"})
    assert not bench.remarks


def test_goes_on_while_an_interval_is_wide(bench: Bench) -> None:
    noisy = "metric(1.0 + (0.1 if count < 4 else 0.0) * (-1) ** count)"
    lines = bench.measure(noisy, arms="A")
    assert why_ended(lines) == "every interval is within ±0.75 %"
    assert len(ran(lines)) > 6


def test_a_command_has_its_own_rule(bench: Bench) -> None:
    """Rounds that its answer needs come before the width, and before a budget that nobody named."""
    rule = StopRule(width=lambda _lines: 0.001, least=lambda lines: 8 if of_kind(list(lines), "run") else 6)
    lines = bench.measure("metric(float(1 + count % 3))", budget_s=0.01, patient=True, stop=rule)
    assert why_ended(lines) == "every interval is within ±0.75 %" and len(ran(lines)) == 16
    assert bench.rounds_told[-1][:2] == (8, 8)


def test_a_command_says_whom_it_needs(bench: Bench) -> None:
    rule = StopRule(over=lambda live: "" if "B" in live else "B is gone")
    lines = bench.measure("if arm == 'B' and count: sys.exit(125)\n" + STEADY, stop=rule)
    assert why_ended(lines) == "B is gone" and 3 <= len(ran(lines)) <= 4


def test_stops_by_rounds_exactly(bench: Bench) -> None:
    lines = bench.measure("metric(float(1 + count % 3))", rounds=3)
    assert why_ended(lines) == "3 rounds, as asked for" and len(ran(lines)) == 6
    assert bench.rounds_told[-1][:2] == (3, 3)


def test_stops_by_budget(bench: Bench) -> None:
    lines = bench.measure("time.sleep(0.3); metric(float(1 + count % 3))", arms="A", budget_s=1.2)
    assert why_ended(lines) == "the budget of 1 s is spent"
    assert 1 <= len(ran(lines)) <= 4
    assert sum(run["wall_s"] for run in of_kind(lines, "run")) <= 1.4


def test_a_budget_that_nobody_named_waits_for_an_interval(bench: Bench) -> None:
    lines = bench.measure("metric(float(1 + count % 3))", arms="A", budget_s=0.001, patient=True)
    assert len(ran(lines)) == 6 and "budget" in why_ended(lines)
    assert all(most >= 6 for _, most, _ in bench.rounds_told)


def test_one_round_is_made_whatever_the_budget(bench: Bench) -> None:
    assert len(ran(bench.measure(STEADY, budget_s=0.001))) == 2


def test_scripts_that_speak_by_exit_code(bench: Bench) -> None:
    lines = bench.measure("sys.exit(arm == 'B')")
    assert why_ended(lines) == "6 rounds"
    outcomes = Counter((run["arm"], run["outcome"]) for run in of_kind(lines, "run"))
    assert outcomes == {("A", "good"): 6, ("B", "bad"): 6}


# --- order ------------------------------------------------------------------------------------------


def test_order_is_balanced_and_recorded(bench: Bench) -> None:
    lines = bench.measure(STEADY, arms="ABC", rounds=6)
    for number, runs in itertools.groupby(of_kind(lines, "run"), key=lambda run: run["round"]):
        listed = list(runs)
        order = next(itertools.islice(schedule.orders(3, 5), number - 1, None))
        assert [run["arm"] for run in listed] == ["ABC"[i] for i in order] == listed[0]["order"]
        assert [run["slot"] for run in listed] == [0, 1, 2]
    slots = Counter((run["arm"], run["slot"]) for run in of_kind(lines, "run"))
    assert set(slots.values()) == {2}


# --- arms that fail ---------------------------------------------------------------------------------


def test_arm_that_always_fails_is_dropped_and_the_other_goes_on(bench: Bench) -> None:
    lines = bench.measure("sys.exit(print('why', file=sys.stderr) or 126) if arm == 'B' else metric(1.0)")
    assert [arm for _, arm in ran(lines)].count("B") == 2
    assert [arm for _, arm in ran(lines)].count("A") == 6
    (dropped,) = of_kind(lines, "dropped")
    assert dropped["arm"] == "B" and "exited with 126: why (log: " in dropped["reason"]
    log = Path(dropped["reason"].split("(log: ")[1].rstrip(")"))
    assert log.read_text() == "why\n"
    assert bench.remarks == [
        "B: exited with 126: why; trying once more",
        f"B takes no further part: {dropped['reason']}",
    ]


def test_arm_that_fails_once_stays(bench: Bench) -> None:
    lines = bench.measure("sys.exit(126) if arm == 'B' and count == 2 else metric(1.0)")
    assert not of_kind(lines, "dropped")
    assert [run["round"] for run in of_kind(lines, "run") if run["outcome"] == "failed"] == [3]
    assert [arm for _, arm in ran(lines)].count("A") == 7, "a round in which B failed does not count"


def test_two_failures_apart_are_no_reason(bench: Bench) -> None:
    lines = bench.measure("sys.exit(126) if arm == 'B' and count in (1, 3) else metric(1.0)")
    assert not of_kind(lines, "dropped") and why_ended(lines).startswith("every interval")


@pytest.mark.parametrize(
    ("code", "reason"),
    [("sys.exit(125)", "exited with 125"), ("time.sleep(60)", "ran past its 1 s")],
)
def test_what_cannot_be_tested_or_hangs_is_not_tried_again(bench: Bench, code: str, reason: str) -> None:
    lines = bench.measure(f"{code} if arm == 'B' else metric(1.0)", timeout_s=1.0)
    assert [arm for _, arm in ran(lines)].count("B") == 1
    (dropped,) = of_kind(lines, "dropped")
    assert dropped["reason"].startswith(reason)


def test_every_arm_fails(bench: Bench) -> None:
    lines = bench.measure("os.abort()")
    assert why_ended(lines) == "every arm failed" and len(ran(lines)) == 4
    assert {run["reason"] for run in of_kind(lines, "run")} == {"was killed by SIGABRT"}


def test_environment_that_vanishes(bench: Bench) -> None:
    python = bench.arm("A").environment.root / "python"
    python.symlink_to(sys.executable)
    bench.pythons["A"] = python
    lines = bench.measure(f"if arm == 'A' and count == 2: os.unlink({str(python)!r})\nmetric(1.0)")
    (dropped,) = of_kind(lines, "dropped")
    assert dropped["arm"] == "A" and dropped["reason"].startswith("could not be started: No such file")
    assert why_ended(lines).startswith("every interval")


def test_label_that_is_no_file_name(bench: Bench) -> None:
    label = "0.32.4,MLX_X=../../" + "x" * 400 + "\n"
    bench.labels["A"] = label
    lines = bench.measure(STEADY, arms="A", rounds=1)
    assert [run["arm"] for run in of_kind(lines, "run")] == [label]
    assert len(list((bench.folder / "sessions" / "s").glob("*.log"))) == 1


# --- discards ---------------------------------------------------------------------------------------


def readings(monkeypatch: pytest.MonkeyPatch, power: Iterator[str]) -> None:
    """States of which each is read before or after a run."""
    monkeypatch.setattr(
        session, "state", lambda: HostState(taken_at_s=time.time(), cores=2, power_source=next(power))  # type: ignore[arg-type]
    )  # fmt: skip


def test_disturbed_run_discards_its_round(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    steady = itertools.repeat("ac")
    readings(monkeypatch, itertools.chain(["ac"] * 5, ["battery"], steady))  # the third run: round 2, slot 0
    lines = bench.measure(STEADY)
    (discard,) = of_kind(lines, "discard")
    assert discard["round"] == 2 and "power source changed" in discard["reason"]
    assert bench.remarks == [f"round 2 discarded: {discard['reason']}"]
    assert Counter(number for number, _ in ran(lines)) == {1: 2, 2: 1, 3: 2, 4: 2, 5: 2, 6: 2, 7: 2}
    at = lines.index(discard)
    assert (lines[at - 1]["kind"], lines[at - 1]["round"]) == ("run", 2), "it is kept, with its reason"


def test_discards_are_capped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    readings(monkeypatch, itertools.cycle(["ac", "battery"]))
    lines = bench.measure(STEADY)
    assert why_ended(lines) == "every interval is within ±0.75 %"
    discarded = {line["round"] for line in of_kind(lines, "discard")}
    # Two at once, and another with every third round that counts.
    assert len(discarded) == 3
    assert len({number for number, _ in ran(lines)} - discarded) == 6
    assert len(of_kind(lines, "unsteady")) == 12


def test_sentinels_discard_as_well(bench: Bench) -> None:
    code = """
slow = 1.2 if arm == "A" and count == 1 else 1.0
for when, by in (("before", 1.0), ("after", slow)):
    print(json.dumps({"kind": "sentinel", "when": when, "arithmetic_s": by, "bandwidth_s": 1.0}))
metric(1.0)
"""
    lines = bench.measure(code)
    assert [line["reason"] for line in of_kind(lines, "discard")] == [
        "throttled: the arithmetic sentinel slowed by 20.0 % during the run"
    ]


def test_a_run_and_its_discard_are_written_in_one_piece(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, a run would count that must not."""
    readings(monkeypatch, itertools.chain(["ac", "battery"], itertools.repeat("ac")))
    pieces: list[list[str]] = []
    append = ledger.Ledger.append

    def watched(book: ledger.Ledger, *lines: ledger.Line) -> None:
        pieces.append([line["kind"] for line in lines])
        append(book, *lines)

    monkeypatch.setattr(ledger.Ledger, "append", watched)
    bench.measure(STEADY, arms="A", rounds=1)
    assert pieces == [["session"], ["run", "discard"], ["run"], ["end"]]


# --- cut off and gone on with -----------------------------------------------------------------------


def uncut(tmp_path: Path) -> list[ledger.Line]:
    folder = tmp_path / "uncut"
    folder.mkdir()
    return Bench(folder).measure(STEADY, arms="ABC", rounds=4)


@pytest.mark.parametrize("kept", [0, 1, 2, 3, 5, 11, 12])
def test_round_cut_off_is_finished_in_the_same_order(bench: Bench, tmp_path: Path, kept: int) -> None:
    whole = uncut(tmp_path)
    bench.path = ledger.folder(tmp_path) / "s.jsonl"
    header = {"kind": "session", "schema": 1, "id": "s"}
    bench.path.parent.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in [header, *of_kind(whole, "run")[:kept]])
    bench.path.write_text(text + '{"kind":"run","rou')  # killed while it wrote
    lines = bench.measure(STEADY, arms="ABC", rounds=4)
    assert ran(lines) == ran(whole), "nothing is measured twice, nothing is left out"
    assert [line["order"] for line in of_kind(lines, "run")] == [
        line["order"] for line in of_kind(whole, "run")
    ]
    assert len(list(tmp_path.glob("[ABC].*"))) == 12 - kept
    assert why_ended(lines) == "4 rounds, as asked for"


def test_discards_and_drops_are_remembered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    readings(monkeypatch, itertools.chain(["ac", "battery", "battery"], itertools.repeat("ac")))
    code = "sys.exit(125) if arm == 'B' else metric(1.0)"
    first = bench.measure(code, rounds=2)
    assert bench.path is not None
    bench.path.write_text("".join(bench.path.read_text().splitlines(keepends=True)[:-1]))  # without its end
    bench.remarks.clear()
    lines = bench.measure(code, rounds=4)
    assert lines[: len(first) - 1] == first[:-1]
    assert [arm for _, arm in ran(lines)].count("B") == 1 and not bench.remarks
    assert len({n for n, arm in ran(lines) if arm == "A"} - {1}) == 4


def test_budget_spent_before_counts(bench: Bench) -> None:
    code = "time.sleep(0.2); metric(float(1 + count % 3))"
    first = bench.measure(code, arms="A", rounds=2)
    assert bench.path is not None
    bench.path.write_text("".join(bench.path.read_text().splitlines(keepends=True)[:-1]))
    lines = bench.measure(code, arms="A", budget_s=0.3)
    assert ran(lines) == ran(first) and "budget" in why_ended(lines)


def test_repro_that_outlived_the_tool_is_ended_first(tmp_path: Path) -> None:
    running = tmp_path / "s.running"
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(argv, start_new_session=True) as leftover:
        running.write_text(json.dumps({"pid": leftover.pid, "started": time.time()}))
        end_leftover(running)
        assert leftover.wait(10) < 0 and not running.exists()
    with subprocess.Popen(argv, start_new_session=True) as stranger:  # the same id, another process
        running.write_text(json.dumps({"pid": stranger.pid, "started": time.time() - 3600}))
        end_leftover(running)
        assert psutil.pid_exists(stranger.pid) and stranger.poll() is None and not running.exists()
        stranger.kill()
    for nonsense in ("", "{", "[]", '{"pid": "x", "started": 0}', '{"pid": -5, "started": 0}'):
        running.write_text(nonsense)
        end_leftover(running)
        assert not running.exists()


def test_ended_session_leaves_no_mark_of_running(bench: Bench) -> None:
    bench.measure(STEADY, rounds=1)
    assert not list((bench.folder / "sessions").glob("*.running"))


def test_arm_line_tells_what_was_measured_and_no_secret(bench: Bench) -> None:
    arm = bench.arm("A")
    arm = Arm(arm.revision, arm.environment, {**arm.env, "HF_TOKEN": "s3cret", "MLX_X": "1"})
    line = arm_line(arm)
    assert line["env"] == {"MLX_X": "1"} and "s3cret" not in json.dumps(line)
    assert (line["release"], line["sha"], line["build"]) == ("9.9.9", "", {})


def built(bench: Bench, text: str) -> Arm:
    """An arm of a commit, with the record of its build."""
    arm = bench.arm("A")
    record = {
        "key": "ab" * 32, "sha": "1" * 40, "subject": "Faster", "recipe": {"flags": "-O3", "remedies": []},
        "toolchain": {"compiler": "g++ 12"}, "walls": "none", "log": "build-x.log", "seconds": 12.5,
        "libraries": {"mlx/lib/libmlx.so": "cd" * 32},
    }  # fmt: skip
    made = dataclasses.replace(arm.environment, build="ab" * 32)
    return Arm(Revision.parse(text), made, arm.env, sha="2" * 40, build=record)


def test_arm_line_of_a_commit_tells_its_build(bench: Bench) -> None:
    line = arm_line(built(bench, "main~3,MLX_X=1"))
    assert (line["release"], line["sha"], line["settings"]) == ("", "2" * 40, {"MLX_X": "1"})
    # The commit that was built has the same files, and another name.
    assert set(line["build"]) == {"key", "sha", "subject", "recipe", "toolchain", "walls"}
    assert (line["build"]["key"], line["build"]["sha"]) == ("ab" * 32, "1" * 40)


def test_run_of_a_commit_names_commit_and_build(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = built(bench, "main~3")
    monkeypatch.setattr(bench, "arm", lambda _name: arm)
    revisions = [run["revision"] for run in of_kind(bench.measure(STEADY, arms="A", rounds=2), "run")]
    named = {"release": "", "sha": "2" * 40, "build": "ab" * 32, "wheel_digest": "d"}
    assert revisions == [named, named]


def test_runs_are_within_the_walls_that_the_session_has(bench: Bench) -> None:
    bench.sandbox = choose(Mode.AUTO)
    if not bench.sandbox.walled:
        pytest.skip(f"no walls here: {bench.sandbox.why}")
    lines = bench.measure(STEADY, rounds=1)
    assert len(ran(lines)) == 4, "no answer, so each was tried again"
    for run in of_kind(lines, "run"):
        assert run["outcome"] == "failed" and "Read-only file system: " in run["reason"], "it counts its runs"
    assert not list(bench.folder.glob("[AB].*"))


def test_runs_of_two_tools_wait_for_each_other(bench: Bench) -> None:
    """And what a killed tool left running is ended before the next run, whichever session it was of."""
    sessions = bench.folder / "sessions"
    sessions.mkdir(exist_ok=True)
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(argv, start_new_session=True) as leftover:
        (sessions / "other.running").write_text(json.dumps({"pid": leftover.pid, "started": time.time()}))
        held = threading.Event()

        def hold() -> None:  # in another thread, as another tool's
            with FileLock(sessions / "measuring.lock"):
                held.set()
                time.sleep(0.7)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        began = time.monotonic()
        lines = bench.measure(STEADY, rounds=1)
        assert time.monotonic() - began > 0.6 and ran(lines)
        assert bench.remarks[0] == "waiting for a run of another bisect_tool to end"
        assert leftover.wait(10) < 0 and not list(sessions.glob("*.running"))
        holder.join()
