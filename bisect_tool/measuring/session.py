"""A session: rounds of fresh processes, one of each arm a round, until the answer is narrow enough.

Everything it decides is read back from the ledger, so a session that was killed goes on where it stopped
and measures nothing twice.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from bisect_tool.analysis.rank import MIN_ROUNDS
from bisect_tool.analysis.series import counted, widest
from bisect_tool.building.environment import Environment
from bisect_tool.building.sandbox import Sandbox
from bisect_tool.host import guard
from bisect_tool.host.state import state
from bisect_tool.measuring import child_env, ledger, schedule
from bisect_tool.measuring.run import Script, end_leftover, run_once
from bisect_tool.measuring.steadiness import unsteady
from bisect_tool.upstream.revision import Revision

BUILD_FACTS = ("key", "sha", "subject", "recipe", "toolchain", "walls")  # of a build's record
TRIES = 2  # an arm whose run fails this often in a row takes no further part


@dataclass(frozen=True)
class Arm:
    """A revision that takes part, with the environment it runs in."""

    revision: Revision
    environment: Environment
    env: Mapping[str, str]  # what its processes get
    sha: str = ""  # of a commit, in full
    build: Mapping[str, Any] = field(default_factory=dict)  # the record of its build, for a commit
    about: Mapping[str, Any] = field(default_factory=dict)  # what a command adds to the arm's line

    @property
    def label(self) -> str:
        return self.revision.text


@dataclass(frozen=True)
class Settings:
    """When to stop. ``width`` is a half-width as a share of the value; times are seconds."""

    budget_s: float
    width: float = 0.0075
    rounds: int | None = None  # exactly so many, instead of stopping by width
    timeout_s: float = 600.0
    patient: bool = False  # nobody named a budget: it does not end a session before an interval exists

    def as_dict(self) -> dict[str, Any]:
        return {
            "budget_s": self.budget_s,
            "width": self.width,
            "rounds": self.rounds,
            "timeout_s": self.timeout_s,
            "patient": self.patient,
        }


@dataclass(frozen=True)
class StopRule:
    """What a command waits for. Each is asked before every round, of the session's lines.

    ``width``: half-width, as a share, of the widest interval that matters; see ``analysis.series.widest``.
    ``least``: rounds without which the answer cannot be had. ``over``: why it is no use to go on with the
    arms that still take part, by label; empty to go on.
    """

    width: Callable[[Sequence[ledger.Line]], float | None] = widest
    least: Callable[[Sequence[ledger.Line]], int] = lambda _lines: MIN_ROUNDS
    over: Callable[[Sequence[str]], str] = lambda live: "" if live else "every arm failed"


@dataclass(frozen=True)
class Progress:
    """What listeners are told before each run."""

    round: int  # from 1: rounds that count so far, and this one
    least: int  # rounds there will be at least,
    most: int  # and at most, as the budget allows
    arm: str
    left_s: float  # seconds to go at most; 0 before that can be told


@dataclass
class Listeners:
    """Callbacks; each does nothing unless set."""

    progress: Callable[[Progress], None] = lambda _p: None
    remark: Callable[[str], None] = lambda _text: None


@dataclass
class Measuring:
    """One session being measured. ``lines`` mirrors the ledger."""

    book: ledger.Ledger
    lines: list[ledger.Line]
    arms: list[Arm]
    script: Script
    settings: Settings
    seed: int
    sandbox: Sandbox
    listeners: Listeners = field(default_factory=Listeners)
    stop: StopRule = field(default_factory=StopRule)

    def run(self) -> str:
        """Measure until a stop; returns why it stopped. KeyboardInterrupt passes through, state kept."""
        while True:
            reason = self.stop_reason()
            if reason:
                self._append({"kind": "end", "reason": reason})
                return reason
            self._round()

    # ---------------------------------------------------------------- what the ledger says

    def _runs(self) -> list[ledger.Line]:
        return [line for line in self.lines if line["kind"] == "run"]

    def _discarded(self) -> set[int]:
        return {line["round"] for line in self.lines if line["kind"] == "discard"}

    def live(self) -> list[Arm]:
        """Arms that still take part."""
        dropped = {line["arm"] for line in self.lines if line["kind"] == "dropped"}
        return [arm for arm in self.arms if arm.label not in dropped]

    def spent_s(self) -> float:
        return sum(float(run["wall_s"]) for run in self._runs())

    def good_rounds(self) -> int:
        """Rounds in which every arm of their order that still takes part has a run that counts."""
        live = {arm.label for arm in self.live()}
        ran: dict[int, set[str]] = {}
        orders: dict[int, set[str]] = {}
        for run in counted(self.lines):
            ran.setdefault(run["round"], set()).add(run["arm"])
            orders[run["round"]] = live & set(run["order"])
        return sum(orders[number] <= arms for number, arms in ran.items()) if live else 0

    def _round_s(self) -> float:
        """Seconds that a round has taken, on average; 0 before the first."""
        numbers = {run["round"] for run in self._runs()}
        return self.spent_s() / len(numbers) if numbers else 0.0

    def stop_reason(self) -> str:
        """Why to stop now; empty to go on. Never on significance: on width, count or budget alone."""
        rounds, least = self.good_rounds(), self.stop.least(self.lines)
        over = self.stop.over([arm.label for arm in self.live()])
        if over:
            return over
        if self.settings.rounds is not None and rounds >= self.settings.rounds:
            return f"{rounds} {'round' if rounds == 1 else 'rounds'}, as asked for"
        if self.settings.rounds is None and rounds >= least:
            width = self.stop.width(self.lines)
            if width is None:
                return f"{rounds} rounds"
            if width <= self.settings.width:
                return f"every interval is within ±{self.settings.width * 100:g} %"
        waits = self.settings.patient and self.settings.rounds is None and rounds < least
        if not waits and self.spent_s() + self._round_s() > self.settings.budget_s and self._runs():
            return f"the budget of {self.settings.budget_s:.0f} s is spent"
        return ""

    # ---------------------------------------------------------------- one round

    def _round(self) -> None:
        """The next round, or the rest of one that was cut off."""
        runs = self._runs()
        number = runs[-1]["round"] if runs else 1
        done = {run["arm"] for run in runs if run["round"] == number}
        live = {arm.label for arm in self.live()}
        if runs and (live <= done or number in self._discarded()):
            number, done = number + 1, set()
        order = next(islice(schedule.orders(len(self.arms), self.seed), number - 1, None))
        names = [self.arms[i].label for i in order]
        for slot, index in enumerate(order):
            arm = self.arms[index]
            if arm.label in done or arm.label not in live:
                continue
            self.listeners.progress(self._progress(arm.label))
            if not self._one(arm, number, slot, names):
                return

    def count(self, order: Sequence[str], at: Progress, **about: Any) -> bool:
        """One round of just these arms, in this order, again and again until it counts; goes on with the last
        round where that was cut off in this very order. ``about`` stands in each record.

        False: an arm among them takes no further part. KeyboardInterrupt passes through, state kept.
        """
        by_label = {arm.label: arm for arm in self.arms}
        while set(order) <= {arm.label for arm in self.live()}:
            number, begun = self._open_round(order)
            for slot in range(begun, len(order)):
                self.listeners.progress(replace(at, arm=order[slot]))
                kept = self._one(by_label[order[slot]], number, slot, list(order), about)
                if not kept or self._runs()[-1]["outcome"] in ("failed", "skip"):
                    break
            else:
                return True
        return False

    def _open_round(self, order: Sequence[str]) -> tuple[int, int]:
        """The number of a round of this order, and how many of its runs are there already."""
        runs = self._runs()
        if not runs:
            return 1, 0
        number = runs[-1]["round"]
        mine = [run for run in runs if run["round"] == number]
        sound = number not in self._discarded() and not any(r["outcome"] in ("failed", "skip") for r in mine)
        if sound and runs[-1]["order"] == list(order) and len(mine) < len(order):
            return number, len(mine)
        return number + 1, 0

    def _one(
        self, arm: Arm, number: int, slot: int, order: list[str], about: Mapping[str, Any] | None = None
    ) -> bool:
        """One run and its record; False when it made the round be discarded."""
        name = re.sub(r"[^\w.,=-]", "_", arm.label)[:80]
        log = self.book.path.with_suffix("") / f"{number:03d}-{slot}-{name}.log"
        with self._alone():
            before = state()
            record = run_once(
                arm.environment,
                self.script,
                sandbox=self.sandbox,
                seed=schedule.seed_of_round(self.seed, number),
                env=arm.env,
                timeout_s=self.settings.timeout_s,
                log=log,
                running=self.book.path.with_suffix(".running"),
            )
            after = state()
        found = guard.complaints(before, after)
        history = [r["sentinels"] for r in counted(self.lines) if r["arm"] == arm.label and r["sentinels"]]
        run: ledger.Line = {
            "kind": "run",
            "round": number,
            "slot": slot,
            "order": order,
            **(about or {}),
            "arm": arm.label,
            "revision": {
                "release": "" if arm.sha else arm.environment.release,
                "sha": arm.sha,
                "build": arm.environment.build,
                "wheel_digest": arm.environment.wheel_digest,
            },
            **record,
            "guard": {"before": before.as_dict(), "after": after.as_dict()},
            "notes": [complaint.text for complaint in found if complaint.severity == "note"],
        }
        reasons = [complaint.text for complaint in found if complaint.severity == "discard"]
        if record["outcome"] in ("failed", "skip"):
            verdict, remark = self._failed(arm, record, log)
        else:
            reasons.append(unsteady(record["sentinels"], history))
            verdict, remark = self._discard(number, [reason for reason in reasons if reason])
        # In one piece: killed in between, a run would count that must not.
        self._append(run, *verdict)
        if remark:
            self.listeners.remark(remark)
        return number not in self._discarded()

    def _failed(self, arm: Arm, record: Mapping[str, Any], log: Path) -> tuple[list[ledger.Line], str]:
        """What a failed run means for its arm: lines for the ledger, and a remark."""
        before = [run["outcome"] for run in self._runs() if run["arm"] == arm.label][1 - TRIES :]
        again = len(before) < TRIES - 1 or any(outcome not in ("failed", "skip") for outcome in before)
        hopeless = record["outcome"] == "skip" or str(record["reason"]).startswith("ran past")
        if again and not hopeless:
            return [], f"{arm.label}: {record['reason']}; trying once more"
        reason = f"{record['reason']} (log: {log})"
        line = {"kind": "dropped", "arm": arm.label, "reason": reason}
        return [line], f"{arm.label} takes no further part: {reason}"

    def _discard(self, number: int, reasons: list[str]) -> tuple[list[ledger.Line], str]:
        """Discard the round, unless too many were: an unsteady machine must not keep us for ever."""
        if not reasons:
            return [], ""
        why = "; ".join(reasons)
        if len(self._discarded()) >= self.discards_allowed():
            return [{"kind": "unsteady", "round": number, "reason": why}], ""
        return [{"kind": "discard", "round": number, "reason": why}], f"round {number} discarded: {why}"

    def discards_allowed(self) -> int:
        """Two, and one more for every three rounds that count: about a quarter of all in the long run."""
        return 2 + self.good_rounds() // 3

    def _progress(self, label: str) -> Progress:
        done, each = self.good_rounds(), self._round_s()
        needed = self.stop.least(self.lines)
        least = self.settings.rounds or max(needed, done + 1)
        by_budget = done + max(1, int((self.settings.budget_s - self.spent_s()) // each)) if each else least
        most = min(least, by_budget) if self.settings.rounds else by_budget
        if self.settings.patient and not self.settings.rounds:
            most = max(most, needed)
        return Progress(done + 1, min(least, most), most, label, left_s=(most - done) * each)

    def _append(self, *lines: ledger.Line) -> None:
        self.book.append(*lines)
        self.lines += lines

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One run at a time among the tools that share ``builds/``: two at once would measure each other.

        Whoever holds the lock knows that no tool has a run; what is still marked as running has outlived a
        tool that was killed hard, and is ended.
        """
        from filelock import FileLock, Timeout

        sessions = self.book.path.parent
        lock = FileLock(sessions / "measuring.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.listeners.remark("waiting for a run of another bisect_tool to end")
            lock.acquire()
        try:
            for leftover in sessions.glob("*.running"):
                end_leftover(leftover)
            yield
        finally:
            lock.release()


def arm_line(arm: Arm) -> ledger.Line:
    """The ledger's line about an arm that takes part."""
    made = arm.environment
    return {
        "kind": "arm",
        "arm": arm.label,
        "release": "" if arm.sha else made.release,
        "sha": arm.sha,
        "build": {name: arm.build[name] for name in BUILD_FACTS if name in arm.build},
        "backend": made.backend,
        "mlx": made.mlx_version,
        "packages": made.packages,
        "wheel_digest": made.wheel_digest,
        "python": made.python_version,
        "env": child_env.recorded(arm.env),
        "settings": dict(arm.revision.settings),
        **arm.about,
    }


def new_seed() -> int:
    return random.SystemRandom().randrange(2**31)


def timestamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
