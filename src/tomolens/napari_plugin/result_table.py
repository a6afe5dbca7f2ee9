"""A table of results; choosing a row centres the views on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

if TYPE_CHECKING:
    from napari import Viewer

_MIN_HEIGHT_PX = 130


class ResultTable(QTableWidget):
    """Rows of cells. ``chosen`` gives the row, from 0, that was clicked or reached with a key.

    Parameters
    ----------
    columns
        Title and meaning, which is the title's tool tip.
    stretched
        The columns that share what room is left; the others are as narrow as what is in them.
    """

    chosen = Signal(int)

    def __init__(self, columns: Mapping[str, str], stretched: Sequence[int], parent: QWidget | None = None) -> None:
        super().__init__(0, len(columns), parent)
        for column, (title, meaning) in enumerate(columns.items()):
            self.setHorizontalHeaderItem(column, _header(title, meaning))
        self.verticalHeader().hide()
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        for column in stretched:
            self.horizontalHeader().setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
        self.setMinimumHeight(_MIN_HEIGHT_PX)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.cellClicked.connect(lambda row, _column: self.chosen.emit(row))
        self.currentCellChanged.connect(self._on_moved)

    def show_rows(self, rows: Sequence[Sequence[QTableWidgetItem]]) -> None:
        """Fill the table anew; nothing is chosen by that."""
        blocked = self.blockSignals(True)
        self.setRowCount(len(rows))
        for row, cells in enumerate(rows):
            for column, item in enumerate(cells):
                self.setItem(row, column, item)
        self.setCurrentCell(-1, -1)
        self.blockSignals(blocked)

    def _on_moved(self, row: int, _column: int, before: int, _column_before: int) -> None:
        if row >= 0 and row != before and self.hasFocus():
            self.chosen.emit(row)


def _header(title: str, meaning: str) -> QTableWidgetItem:
    item = QTableWidgetItem(title)
    item.setToolTip(meaning)
    return item


def cell(text: str, side: Qt.AlignmentFlag = Qt.AlignmentFlag.AlignRight) -> QTableWidgetItem:
    """A cell with its text at one side, and whole in its tool tip."""
    item = QTableWidgetItem(text)
    item.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
    item.setToolTip(text)
    return item


def centre_on(viewer: Viewer, world: tuple[float, float, float]) -> None:
    """Bring a point, napari's world (z, y, x), into the middle of the view, in whatever planes are shown."""
    center = np.zeros(viewer.dims.ndim)
    center[-3:] = world
    viewer.dims.set_point(range(viewer.dims.ndim - 3, viewer.dims.ndim), center[-3:])
    viewer.scene.camera.center = tuple(center[list(viewer.dims.displayed)])
