"""Long work off the GUI thread, with progress and a cancel that works: all threading of the plugin is here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QObject, Signal
from superqt.utils import WorkerBase

from tomolens.core.errors import Cancelled
from tomolens.core.progress import Progress, Step

Work = Callable[[Progress], Any]
"""What a job does: it is handed a progress callable, reports to it, and returns its result."""
_REPORT_EVERY_S = 0.05


class Job(QObject):
    """One piece of work in a thread of its own; its signals arrive on the GUI thread.

    Exactly one of ``returned`` (the result), ``failed`` (the exception) and ``cancelled`` ends a job that was started.
    After `abandon` none does.

    Parameters
    ----------
    work
        Called once, in the thread. It touches no widget and no layer.
    """

    stepped = Signal(object)
    returned = Signal(object)
    failed = Signal(object)
    cancelled = Signal()

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._abandoned = False
        self._worker = _Worker(work)
        self._worker.said.stepped.connect(self._on_stepped)
        self._worker.said.ended.connect(self._on_ended)

    def start(self) -> None:
        """Begin; napari's own thread pool runs it and waits for it when the application quits."""
        self._worker.start()

    def cancel(self) -> None:
        """Ask the work to stop; it does at its next report of progress."""
        self._worker.quit()

    def abandon(self, wait_s: float = 60.0) -> None:
        """Stop the work and wait until its thread is done; nothing is heard of it any more."""
        self._abandoned = True
        self.cancel()
        self._worker.wait(wait_s)

    def _on_stepped(self, step: Step) -> None:
        if not self._abandoned:
            self.stepped.emit(step)

    def _on_ended(self, outcome: _Outcome) -> None:
        if self._abandoned:
            return
        if isinstance(outcome.error, Cancelled):
            self.cancelled.emit()
        elif outcome.error is not None:
            self.failed.emit(outcome.error)
        else:
            self.returned.emit(outcome.result)


@dataclass(frozen=True)
class _Outcome:
    result: Any = None
    error: Exception | None = None


class _Said(QObject):
    """What a worker thread says, heard on the thread that made the worker."""

    stepped = Signal(object)
    ended = Signal(object)


class _Worker(WorkerBase[None]):
    """Runs the work; every way it can end is an `_Outcome`, so that no exception passes through Qt."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.said = _Said()
        self._work = work
        self._ended = threading.Event()
        self._next_report = 0.0

    def work(self) -> None:
        try:
            self.said.ended.emit(self._outcome())
        finally:
            del self._work  # a worker may be kept for longer than the volume should be
            self._ended.set()

    def wait(self, seconds: float) -> None:
        """Wait until the thread has done its work; not where it is still to be started, for it will stop at once."""
        if self.is_running:
            self._ended.wait(seconds)

    def _outcome(self) -> _Outcome:
        try:
            self._report(Step("start", 0, 0))
            return _Outcome(result=self._work(self._report))
        except Exception as error:
            return _Outcome(error=error)

    def _report(self, step: Step) -> None:
        if self.abort_requested:
            raise Cancelled("Stopped by the user.")
        now = time.monotonic()
        if now >= self._next_report or step.done in (0, step.total):
            self._next_report = now + _REPORT_EVERY_S
            self.said.stepped.emit(step)


class TimeLeft:
    """Guesses the seconds left in a stage from how long its part so far took."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._began = 0.0

    def after(self, step: Step) -> float | None:
        """Seconds left in the stage after a step; None while there is nothing to guess from."""
        now = self._clock()
        if step.stage != self._stage:
            self._stage, self._began = step.stage, now
        if not 0 < step.fraction < 1:
            return None
        return (now - self._began) * (1 - step.fraction) / step.fraction
