"""The table of findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QHeaderView

from tomolens.napari_plugin.result_table import ResultTable, cell

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from tomolens.core.finding import Finding

_COLUMNS = {
    "": "number, as beside its circle",
    "score": "0 to 1; of a calibrated model the share of such findings that are nodules",
    "Ø mm": "diameter of the sphere of the same size",
    "texture": "as the second stage sees it",
    "malig.": "0 to 1, higher where radiologists would call it malignant; how far it is a probability says the model's "
    "card; no histology",
    "x mm": "to the patient's left (LPS)",
    "y mm": "to the patient's back (LPS)",
    "z mm": "to the patient's head (LPS)",
}
_PLACES = range(list(_COLUMNS).index("x mm"), len(_COLUMNS))
_TEXTURE, _MALIGNANCY = list(_COLUMNS).index("texture"), list(_COLUMNS).index("malig.")


class FindingsTable(ResultTable):
    """One row a finding, surest first."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(_COLUMNS, _PLACES, parent)

    def show_findings(self, findings: tuple[Finding, ...]) -> None:
        """Fill the table anew, without the columns that no finding has a value for; nothing is chosen by that.

        With them there is no room to squeeze the places into: the table scrolls.
        """
        self.setColumnHidden(_TEXTURE, not any(finding.texture for finding in findings))
        self.setColumnHidden(_MALIGNANCY, all(finding.malignancy is None for finding in findings))
        rated = any(finding.kind for finding in findings)
        mode = QHeaderView.ResizeMode.ResizeToContents if rated else QHeaderView.ResizeMode.Stretch
        for column in _PLACES:
            self.horizontalHeader().setSectionResizeMode(column, mode)
        self.show_rows([list(map(cell, _cells(n, finding))) for n, finding in enumerate(findings, start=1)])


def _cells(number: int, finding: Finding) -> tuple[str, ...]:
    x, y, z = (f"{value:.1f}" for value in finding.center_lps_mm)
    malignancy = "" if finding.malignancy is None else f"{finding.malignancy:.2f}"
    return str(number), f"{finding.score:.2f}", f"{finding.diameter_mm:.1f}", finding.texture, malignancy, x, y, z
