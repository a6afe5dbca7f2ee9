"""Run, Cancel, a progress bar with the stage and the time left: for any long work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from tomolens.napari_plugin.job import Job, TimeLeft, Work
from tomolens.napari_plugin.messages import tell

if TYPE_CHECKING:
    from tomolens.core.progress import Step


class _Current:
    """The job that is under way, if any; all that outlives the panel."""

    def __init__(self) -> None:
        self.job: Job | None = None

    def abandon(self) -> None:
        if self.job is not None:
            self.job.abandon()


class RunPanel(QWidget):
    """Runs one job at a time and shows how far it is.

    ``run_pressed`` asks its owner for work, which the owner hands to `start`; ``returned`` gives the result, on the GUI
    thread. A job that fails shows one message.
    """

    run_pressed = Signal()
    returned = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        current = self._current = _Current()
        self.destroyed.connect(lambda *_: current.abandon())  # the panel itself is gone by then
        self._allowed = True
        self._began = 0.0
        self.run_button, self.cancel_button = QPushButton("Run"), QPushButton("Cancel")
        self.bar, self.status = QProgressBar(), QLabel()
        self.bar.setTextVisible(False)
        self.status.setWordWrap(True)
        self._lay_out()
        self.run_button.clicked.connect(self.run_pressed)
        self.cancel_button.clicked.connect(self.cancel)
        self._show_idle("")

    def _lay_out(self) -> None:
        layout, buttons = QVBoxLayout(self), QHBoxLayout()
        layout.setContentsMargins(0, 0, 0, 0)
        buttons.addWidget(self.run_button)
        buttons.addWidget(self.cancel_button)
        layout.addLayout(buttons)
        layout.addWidget(self.bar)
        layout.addWidget(self.status)

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self._current.job is not None

    def allow(self, reason_against: str) -> None:
        """Let the user press Run, or grey it and say why not."""
        news = bool(reason_against) or not self._allowed
        self._allowed = not reason_against
        if not self.busy:
            self._show_idle(reason_against if news else self.status.text())

    def start(self, work: Work) -> None:
        """Begin a job; its end is told by ``returned`` or in the panel."""
        job = self._current.job = Job(work)
        job.stepped.connect(self._on_stepped)
        job.returned.connect(self._on_returned)
        job.failed.connect(self._on_failed)
        job.cancelled.connect(self._on_cancelled)
        self._time_left, self._began = TimeLeft(), time.monotonic()
        self.run_button.setEnabled(False)
        self.cancel_button.setEnabled(True)
        job.start()

    def cancel(self) -> None:
        """Ask the job to stop at its next report of progress."""
        if self._current.job is not None:
            self._current.job.cancel()
            self.cancel_button.setEnabled(False)
            self.status.setText("Stopping ...")

    def abandon(self) -> None:
        """Stop the job and wait for its thread: for when the panel goes away."""
        if self.busy:
            self._current.abandon()
            self._end("")

    def _on_stepped(self, step: Step) -> None:
        self.bar.setRange(0, step.total)  # 0 to 0 is a bar that only says "busy"
        self.bar.setValue(step.done)
        if self.cancel_button.isEnabled():
            self.status.setText(_described(step, self._time_left.after(step)))

    def _on_returned(self, result: Any) -> None:
        self._end(f"Done in {time.monotonic() - self._began:.1f} s.")
        self.returned.emit(result)

    def _on_failed(self, error: Exception) -> None:
        self._end("Not finished.")
        tell(error)

    def _on_cancelled(self) -> None:
        self._end("Cancelled.")

    def _end(self, text: str) -> None:
        self._current.job = None
        self._show_idle(text)

    def _show_idle(self, text: str) -> None:
        self.run_button.setEnabled(self._allowed)
        self.cancel_button.setEnabled(False)
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        self.status.setText(text)


def _described(step: Step, seconds_left: float | None) -> str:
    count = f" {step.done} of {step.total}" if step.total > 1 else ""
    left = "" if seconds_left is None else f", about {max(seconds_left, 1):.0f} s left"
    return f"{step.stage}{count}{left}"
