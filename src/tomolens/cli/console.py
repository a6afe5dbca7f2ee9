"""What a person sees while work is going on: bars with the time left on a terminal, plain lines anywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from types import TracebackType

    from tomolens.core.progress import Step

_HOUR = 3600.0


class Narrator:
    """Tells on stderr what is going on, so that stdout holds the result alone.

    Parameters
    ----------
    console
        Where to; stderr where None. Bars are drawn only if it is a terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
            speed_estimate_period=_HOUR,
        )
        self._series = self._bars.add_task("series", visible=False)
        self._stage, self._stage_bar = "", self._bars.add_task("", visible=False)
        self._total = self._done = 0
        self._remarks: set[str] = set()

    def __enter__(self) -> Narrator:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def begin(self, total: int) -> None:
        """Start to count series."""
        self._total, self._done = total, 0

    def expect(self, pending: int) -> None:
        """Start the bar of the series that will take time; the time left is estimated from these alone."""
        self._bars.reset(self._series, total=pending, visible=pending > 1)
        self._bars.advance(self._series, 0)

    def step(self, step: Step) -> None:
        """Show how far the present stage is; a remark is printed, once."""
        if step.remark:
            if step.stage not in self._remarks:
                self.say(step.stage, "yellow")
            self._remarks.add(step.stage)
            return
        if step.stage != self._stage:
            self._bars.remove_task(self._stage_bar)
            self._stage, self._stage_bar = step.stage, self._bars.add_task(step.stage, total=step.total or None)
        self._bars.update(self._stage_bar, completed=step.done, total=step.total or None)

    def say(self, line: str, style: str = "") -> None:
        """Print a line that stays."""
        self._console.print(line, style=style or None, markup=False, soft_wrap=True)

    def count(self, line: str, style: str = "") -> None:
        """Print what became of one series and count it."""
        self._done += 1
        width = len(str(self._total))
        self.say(f"[{self._done:>{width}}/{self._total}] {line}", style)
        self._bars.advance(self._series)
