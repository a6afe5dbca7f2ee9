"""The table of findings; choosing a row centres the views on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from tomolens.napari_plugin import layers

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Points

    from tomolens.core.finding import Finding

_MIN_HEIGHT_PX = 130
_COLUMNS = {
    "": "number, as beside its circle",
    "score": "the model's confidence, 0 to 1",
    "Ø mm": "diameter of the sphere of the same size",
    "texture": "as the second stage sees it",
    "malig.": "probability, 0 to 1, that radiologists would call it malignant if it is a nodule; no histology",
    "x mm": "to the patient's left (LPS)",
    "y mm": "to the patient's back (LPS)",
    "z mm": "to the patient's head (LPS)",
}


class FindingsTable(QTableWidget):
    """One row a finding, surest first. ``chosen`` gives the row, from 0, that was clicked or reached with a key."""

    chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_COLUMNS), parent)
        for column, (title, meaning) in enumerate(_COLUMNS.items()):
            self.setHorizontalHeaderItem(column, _header(title, meaning))
        self.verticalHeader().hide()
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        for narrow in range(5):
            self.horizontalHeader().setSectionResizeMode(narrow, QHeaderView.ResizeMode.ResizeToContents)
        self.setMinimumHeight(_MIN_HEIGHT_PX)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.cellClicked.connect(lambda row, _column: self.chosen.emit(row))
        self.currentCellChanged.connect(self._on_moved)

    def show_findings(self, findings: tuple[Finding, ...]) -> None:
        """Fill the table anew; nothing is chosen by that."""
        blocked = self.blockSignals(True)
        self.setRowCount(len(findings))
        for row, finding in enumerate(findings):
            for column, text in enumerate(_cells(row + 1, finding)):
                self.setItem(row, column, _item(text))
        self.setCurrentCell(-1, -1)
        self.blockSignals(blocked)

    def _on_moved(self, row: int, _column: int, before: int, _column_before: int) -> None:
        if row >= 0 and row != before and self.hasFocus():
            self.chosen.emit(row)


def _cells(number: int, finding: Finding) -> tuple[str, ...]:
    x, y, z = (f"{value:.1f}" for value in finding.center_lps_mm)
    malignancy = "" if finding.malignancy is None else f"{finding.malignancy:.2f}"
    return str(number), f"{finding.score:.2f}", f"{finding.diameter_mm:.1f}", finding.texture, malignancy, x, y, z


def _header(title: str, meaning: str) -> QTableWidgetItem:
    item = QTableWidgetItem(title)
    item.setToolTip(meaning)
    return item


def _item(text: str) -> QTableWidgetItem:
    item = QTableWidgetItem(text)
    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return item


def centre_on(viewer: Viewer, findings: Points, row: int) -> None:
    """Bring a finding into the middle of the view, in whatever planes are shown."""
    center = np.zeros(viewer.dims.ndim)
    center[-3:] = layers.center_of(findings, row)
    viewer.dims.set_point(range(viewer.dims.ndim - 3, viewer.dims.ndim), center[-3:])
    viewer.scene.camera.center = tuple(center[list(viewer.dims.displayed)])
