"""The table of segmented structures, which is also the legend of their colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor

from tomolens.core.label_picture import hex_colour
from tomolens.napari_plugin.result_table import ResultTable, cell

if TYPE_CHECKING:
    from qtpy.QtWidgets import QTableWidgetItem, QWidget

    from tomolens.core.segmentation import Structure

_COLUMNS = {
    "": "its colour in the view",
    "label": "its number in the layer",
    "structure": "as the model's channel table names it",
    "ml": "its volume: voxels times the volume of one",
}
_NAME = 2


class StructuresTable(ResultTable):
    """One row a structure that was found, in the order of the labels."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(_COLUMNS, [_NAME], parent)

    def show_structures(self, structures: tuple[Structure, ...]) -> None:
        """Fill the table anew; nothing is chosen by that."""
        self.show_rows([_cells(structure) for structure in structures])


def _cells(structure: Structure) -> list[QTableWidgetItem]:
    swatch = cell("")
    swatch.setData(Qt.ItemDataRole.DecorationRole, QColor(hex_colour(structure.label)))
    name = cell(structure.name, Qt.AlignmentFlag.AlignLeft)
    return [swatch, cell(str(structure.label)), name, cell(f"{structure.volume_ml:.1f}")]
