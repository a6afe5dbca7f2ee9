"""Buttons for the ways of comparing a reconstruction with its input."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QFormLayout, QHBoxLayout, QLabel, QPushButton, QSlider, QVBoxLayout, QWidget

from tomolens.napari_plugin.choice_box import Choice, ChoiceBox
from tomolens.napari_plugin.comparison import Comparison, Mode

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image

KEY = "F7"
"""Flips; beside the window presets, and none of napari's own."""
_LEAST_LETTERS = 12
"""Of a layer's name: a long one must not push its label off the panel."""
_STEPS = 200
_NO_SWIPE = "For two images on one grid; thin slices are swiped against the cubic spline."


class ComparePanel(QWidget):
    """Chooses what the result is compared with, and how."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.comparison = Comparison(viewer, self._write)
        self.other, self.slider, self.hint = ChoiceBox(), QSlider(Qt.Orientation.Horizontal), QLabel()
        self.buttons = {mode: self._button(mode) for mode in Mode}
        self._result: Image | None = None
        self._lay_out()
        self.slider.setRange(0, _STEPS)
        self.slider.setValue(_STEPS // 2)
        self.slider.valueChanged.connect(lambda step: self.comparison.set_share(step / _STEPS))
        self.other.currentIndexChanged.connect(self._choose)
        self._pressed = lambda _viewer: self.comparison.flip()
        self.attach()
        self._write()

    def attach(self) -> None:
        """Follow the viewer, and its key."""
        self.comparison.attach()
        self._viewer.bind_key(KEY, self._pressed, overwrite=True)

    def detach(self) -> None:
        """Show the normal view, and let go of the viewer and of its key, if that is still this panel's."""
        self.comparison.detach()
        bound = next((function for key, function in self._viewer.keymap.items() if str(key) == KEY), None)
        if bound is self._pressed:
            self._viewer.bind_key(KEY, None)

    def compare(self, result: Image | None, others: Sequence[Image]) -> None:
        """Offer a result and what it can be compared with, the first by default."""
        self._result = result
        self.other.set_choices(Choice(layer.name, layer) for layer in others)
        self._choose()

    def _button(self, mode: Mode) -> QPushButton:
        button = QPushButton(f"{mode} ({KEY})" if mode is Mode.FLIP else str(mode))
        button.setCheckable(True)
        button.clicked.connect(partial(self._on_pressed, mode))
        return button

    def _on_pressed(self, mode: Mode, _checked: bool = False) -> None:
        if mode is Mode.FLIP:
            self.comparison.flip()
        else:
            self.comparison.show(mode)
        self._write()

    def _lay_out(self) -> None:
        layout, form, row = QVBoxLayout(self), QFormLayout(), QHBoxLayout()
        form.addRow("Compare with", self.other)
        for button in self.buttons.values():
            row.addWidget(button)
        self.hint.setWordWrap(True)
        self.other.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.other.setMinimumContentsLength(_LEAST_LETTERS)
        layout.addLayout(form)
        layout.addLayout(row)
        layout.addWidget(self.slider)
        layout.addWidget(self.hint)
        layout.addStretch()

    def _choose(self) -> None:
        other: Image | None = self.other.value()
        self.comparison.choose(None if self._result is None or other is None else (other, self._result))
        self._write()

    def _write(self) -> None:
        """Show the mode, and which of the two is seen."""
        pair, mode = self.comparison.pair, self.comparison.mode
        for shown, button in self.buttons.items():
            button.setChecked(shown is mode)
            button.setEnabled(pair is not None)
        self.buttons[Mode.SWIPE].setEnabled(self.comparison.swipes)
        self.buttons[Mode.SWIPE].setToolTip("" if self.comparison.swipes else _NO_SWIPE)
        self.slider.setVisible(mode is Mode.SWIPE)
        self.hint.setText(_hint(pair, mode))


def _hint(pair: tuple[Image, Image] | None, mode: Mode) -> str:
    if pair is None:
        return "Run a reconstruction to compare it with its input."
    before, after = pair
    shown = before if before.visible else after
    return {
        Mode.OFF: f"{KEY} flips between the two on the picture.",
        Mode.FLIP: f"Shown: {shown.name}. {KEY} shows the other.",
        Mode.SIDE: "Both move and zoom together.",
        Mode.SWIPE: "The slider moves the line between the two.",
    }[mode]
