"""A line for a file's path, with a button that opens a dialog."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QPushButton, QWidget


class FileBox(QWidget):
    """Where the user types, pastes or chooses the path of one file; ``changed`` says that it is another.

    Parameters
    ----------
    title
        Of the dialog.
    suffixes
        Asked for when the dialog opens: the files that it shows first.
    """

    changed = Signal()

    def __init__(self, title: str, suffixes: Callable[[], Sequence[str]], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._title, self._suffixes = title, suffixes
        self.line, self.button = QLineEdit(), QPushButton("...")
        self.button.setToolTip(title)
        self.button.setFixedWidth(self.button.fontMetrics().horizontalAdvance("....") + 16)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.line)
        layout.addWidget(self.button)
        self.line.textChanged.connect(lambda _text: self.changed.emit())
        self.button.clicked.connect(self._choose)

    def path(self) -> Path | None:
        """What is written; None while nothing is."""
        text = self.line.text().strip()
        return Path(text).expanduser() if text else None

    def _choose(self) -> None:
        start = str(self.path() or "")
        kinds = f"{self._title} ({' '.join(f'*{suffix}' for suffix in self._suffixes())});;All files (*)"
        chosen, _ = QFileDialog.getOpenFileName(self, self._title, start, kinds)
        if chosen:
            self.line.setText(chosen)
