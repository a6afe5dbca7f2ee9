"""What the user is told, and whether there is a viewer to tell it in."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari import current_viewer
from napari.utils import progress as progress_bar
from napari.utils.notifications import notification_manager, show_error, show_info

from tomolens.core.errors import Cancelled, TomolensError
from tomolens.core.reconstruction import GENERATIVE
from tomolens.napari_plugin.hanging import hang

if TYPE_CHECKING:
    from napari import Viewer

    from tomolens.core.progress import Progress, Step


def viewer_at_hand() -> Viewer | None:
    """The viewer that the user looks at, hung for reading scans; None in a program without a window."""
    viewer = current_viewer()
    if viewer is not None:
        hang(viewer)
    return viewer


def tell(error: Exception) -> None:
    """Show one message: the text alone for what Tomolens refuses, a report for what it did not foresee."""
    if isinstance(error, TomolensError):
        show_error(str(error))
    else:
        notification_manager.receive_error(type(error), error, error.__traceback__)


def say(message: str) -> None:
    """Show what the user should know of something that worked."""
    show_info(message)


def accepts_invented(name: str) -> bool:
    """Ask whether an image that a GAN made is to be saved; whoever has no window has accepted that by running it."""
    from napari.qt import get_current_stylesheet
    from qtpy.QtWidgets import QMessageBox

    if viewer_at_hand() is None:
        return True
    box = QMessageBox(QMessageBox.Icon.Warning, "Save what a GAN made?", f"{name}\n\n{GENERATIVE}.")
    box.setStyleSheet(get_current_stylesheet())
    box.setInformativeText(
        "What looks like anatomy or disease in it may not be in the patient, and what is there may be missing. "
        "The file says so in its history, but not every program shows that. Save it all the same?"
    )
    save = box.addButton(QMessageBox.StandardButton.Save)
    box.setDefaultButton(box.addButton(QMessageBox.StandardButton.Cancel))
    box.exec()
    saved = box.clickedButton() is save
    box.deleteLater()
    return saved


@contextmanager
def reported() -> Generator[Progress]:
    """Report progress in napari's activity dock; in a viewer show what is refused as a message, and do not raise."""
    bar, viewer = _Bar(), viewer_at_hand()
    try:
        yield bar.report
    except TomolensError as error:
        if viewer is None:
            raise
        if not isinstance(error, Cancelled):
            tell(error)
    finally:
        bar.close()


class _Bar:
    """A napari progress bar a stage, made when the stage begins."""

    def __init__(self) -> None:
        self._bar: progress_bar | None = None
        self._stage = ""

    def report(self, step: Step) -> None:
        if step.stage != self._stage:
            self.close()
            self._bar, self._stage = progress_bar(total=step.total, desc=step.stage), step.stage
        if self._bar is not None:
            self._bar.update(step.done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
