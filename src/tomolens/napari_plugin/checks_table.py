"""The table of checks of a reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor

from tomolens.napari_plugin.result_table import ResultTable, cell

if TYPE_CHECKING:
    from qtpy.QtWidgets import QTableWidgetItem, QWidget

    from tomolens.core.reconstruction import Check

IN_COLOUR, OUT_COLOUR = "#7ddc8b", "#ff8a5c"
_COLUMNS = {
    "check": "what was measured of the input or the result",
    "value": "what it is here",
    "range": "where the model was trained or measured",
    "": "whether it is in that range",
}


class ChecksTable(ResultTable):
    """One row a check, those out of range first."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(_COLUMNS, (0,), parent)

    def show_checks(self, checks: tuple[Check, ...]) -> None:
        """Fill the table anew."""
        self.show_rows([_row(check) for check in sorted(checks, key=lambda check: check.inside)])


def _row(check: Check) -> list[QTableWidgetItem]:
    verdict = cell(check.verdict, Qt.AlignmentFlag.AlignLeft)
    verdict.setForeground(QColor(IN_COLOUR if check.inside else OUT_COLOUR))
    name = cell(check.name, Qt.AlignmentFlag.AlignLeft)
    cells = [name, cell(check.number), cell(check.bounds), verdict]
    for item in cells:
        item.setToolTip(str(check))
    return cells
