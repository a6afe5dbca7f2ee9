"""A drop-down list whose entries may be greyed, each with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QStandardItemModel
from qtpy.QtWidgets import QComboBox, QWidget

_VALUE, _REASON = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1


@dataclass(frozen=True)
class Choice:
    """One entry: what is shown, what it stands for, and why it cannot be chosen (empty where it can)."""

    text: str
    value: Any
    refused: str = ""
    tip: str = ""


class ChoiceBox(QComboBox):
    """A combo box of `Choice`; the reason for a greyed entry is its tool tip."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows = QStandardItemModel(self)
        self.setModel(self._rows)

    def set_choices(self, choices: Iterable[Choice]) -> None:
        """Replace the entries and keep what was chosen, where it is still there and allowed.

        ``currentIndexChanged`` is emitted once at most.
        """
        kept, blocked = self.value(), self.blockSignals(True)
        self.clear()
        for choice in choices:
            self._add(choice)
        rows = range(self.count())
        allowed = [row for row in rows if not self._reason(row)]
        same = [row for row in allowed if self.itemData(row, _VALUE) is kept]
        self.setCurrentIndex(-1)
        self.blockSignals(blocked)
        self.setCurrentIndex(next(iter((*same, *allowed, *rows)), -1))

    def _add(self, choice: Choice) -> None:
        self.addItem(choice.text)
        row = self.count() - 1
        self.setItemData(row, choice.value, _VALUE)
        self.setItemData(row, choice.refused, _REASON)
        self.setItemData(row, choice.refused or choice.tip, Qt.ItemDataRole.ToolTipRole)
        if choice.refused:
            self._rows.item(row).setEnabled(False)

    def _reason(self, row: int) -> str:
        return str(self.itemData(row, _REASON) or "")

    def value(self) -> Any:
        """What the chosen entry stands for; None without one that may be chosen."""
        return None if self.refused() else self.currentData(_VALUE)

    def refused(self) -> str:
        """Why the entry that is shown cannot be chosen; empty where it can or there is none."""
        return self._reason(self.currentIndex())
