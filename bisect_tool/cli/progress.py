"""What a person watches on standard error: a bar on a terminal, a line a round elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from bisect_tool.cli.options import duration_text

if TYPE_CHECKING:
    from bisect_tool.building.output import Step
    from bisect_tool.measuring.searching import Standing
    from bisect_tool.measuring.session import Progress


class Watch:
    """Shows progress and remarks. Use as a context manager."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._last_round = 0
        self._tenth = -1  # of a build's steps, that a line was last written for

    def __enter__(self) -> Watch:
        if sys.stderr.isatty() and not self._quiet:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = TextColumn("{task.description}"), BarColumn(30), TimeElapsedColumn()
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def phase(self, text: str) -> None:
        """A step without rounds, such as making an environment."""
        if self._bar is not None:
            self._bar.update(self._task, description=text, total=None)
        elif not self._quiet:
            click.echo(text, err=True)

    def progress(self, at: Progress) -> None:
        bound = "" if at.most <= at.least else "at most "
        left = f", {bound}{duration_text(at.left_s)} left" if at.left_s else ""
        text = f"round {at.round} of {bound}{at.most}: mlx {at.arm}{left}"
        if self._bar is not None:
            self._bar.update(self._task, description=text, total=at.most, completed=at.round - 1)
        elif not self._quiet and at.round != self._last_round:
            click.echo(text, err=True)
        self._last_round = at.round

    def standing(self, at: Standing) -> None:
        """Where a search stands, after each of its steps."""
        builds = f"about {at.to_build} to go" if at.to_build else "none to go"
        self.remark(
            f"{at.left} of {at.candidates} left at {at.confidence * 100:g} %; most likely {at.best} "
            f"({at.probability * 100:.0f} %); {at.built} built, {builds}, {duration_text(at.left_s)}"
        )

    def step(self, step: Step, left_s: float | None) -> None:
        """One of Ninja's, while something is built."""
        if self._bar is not None:
            text = step.text(left_s)
            self._bar.update(self._task, description=text, total=step.total, completed=step.done)
            return
        tenth = 10 * step.done // max(step.total, 1)
        if not self._quiet and (tenth != self._tenth or step.done == 1):
            click.echo(step.text(left_s), err=True)
        self._tenth = tenth

    def remark(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            click.echo(text, err=True)
