"""Ask the user which series to open, and how to show one that was taken with a tilted gantry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from napari.qt import get_current_stylesheet, get_qapp
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QDialogButtonBox,
    QLabel,
    QMainWindow,
    QMessageBox,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from tomolens.core.series import Series


_SIZE_PX = (1000, 360)


def choose_series(series: Sequence[Series]) -> tuple[Series, ...]:
    """Ask which of several series to open; none where the user cancels."""
    dialog = SeriesDialog(series, _window())
    accepted = dialog.exec()
    chosen = dialog.chosen()
    dialog.deleteLater()
    return chosen if accepted else ()


class SeriesDialog(QDialog):
    """A list of series, any of which can be chosen; those that cannot be one volume are greyed, with the reason."""

    def __init__(self, series: Sequence[Series], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._series = tuple(series)
        self.setWindowTitle("Open which series?")
        self.setStyleSheet(get_current_stylesheet())
        self._list = QTreeWidget()
        self._list.setHeaderLabels(["Series", "What to know"])
        self._list.setRootIsDecorated(False)
        self._list.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self._items = [_item(one) for one in self._series]
        self._list.addTopLevelItems(self._items)
        self._buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel)
        self._lay_out()
        self._list.itemSelectionChanged.connect(self._allow_open)
        self._list.itemDoubleClicked.connect(self.accept)
        self._buttons.accepted.connect(self.accept)
        self._buttons.rejected.connect(self.reject)
        self._allow_open()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.addWidget(QLabel(f"There are {len(self._series)} series here. Choose one or more."))
        layout.addWidget(self._list)
        layout.addWidget(self._buttons)
        for column in range(self._list.columnCount()):
            self._list.resizeColumnToContents(column)
        self.resize(*_SIZE_PX)

    def _allow_open(self) -> None:
        self._buttons.button(QDialogButtonBox.StandardButton.Open).setEnabled(bool(self.chosen()))

    def chosen(self) -> tuple[Series, ...]:
        """The selected series, in the order of the list."""
        return tuple(one for one, item in zip(self._series, self._items, strict=True) if item.isSelected())


def _item(series: Series) -> QTreeWidgetItem:
    problems = " ".join(str(problem) for problem in series.problems)
    item = QTreeWidgetItem([series.label, problems])
    item.setToolTip(1, problems)
    if series.refused:
        item.setFlags(Qt.ItemFlag.NoItemFlags)
    return item


def _window() -> QWidget | None:
    """The window to ask in front of."""
    windows = (w for w in get_qapp().topLevelWidgets() if isinstance(w, QMainWindow) and w.isVisible())
    return get_qapp().activeWindow() or next(windows, None)


def ask_tilt(series: Sequence[Series]) -> Literal["keep", "resample"] | None:
    """Ask how to show sheared slices; None where the user cancels."""
    problems = "\n".join(
        f"{one.label}: {problem}" for one in series for problem in one.problems if problem.kind == "gantry-tilt"
    )
    box = QMessageBox(_window())
    box.setStyleSheet(get_current_stylesheet())
    box.setWindowTitle("Tilted gantry")
    box.setText(problems)
    box.setInformativeText(
        "As acquired, every voxel stays as measured, but coronal and sagittal views look sheared."
        " Straightened, each slice is resampled within its plane, and all views have true proportions."
    )
    keep = box.addButton("As acquired", QMessageBox.ButtonRole.AcceptRole)
    straighten = box.addButton("Straighten", QMessageBox.ButtonRole.AcceptRole)
    box.addButton(QMessageBox.StandardButton.Cancel)
    box.exec()
    answers: dict[object, Literal["keep", "resample"]] = {keep: "keep", straighten: "resample"}
    clicked = box.clickedButton()
    box.deleteLater()
    return next((answer for button, answer in answers.items() if button is clicked), None)
