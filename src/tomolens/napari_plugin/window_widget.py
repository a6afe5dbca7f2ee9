"""The *Window and planes* widget: presets, planes and the window's numbers as buttons and fields."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from tomolens.napari_plugin import windowing
from tomolens.napari_plugin.hanging import hang
from tomolens.napari_plugin.orientation import PLANES, show_plane

if TYPE_CHECKING:
    from napari import Viewer

_HINT = "Right-drag: ↔ width, ↕ level"


class WindowWidget(QWidget):
    """Window presets for CT, the axial, coronal and sagittal plane, and the window that is set."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        hang(napari_viewer)
        self._presets = [self._preset_button(preset) for preset in windowing.PRESETS]
        self._planes = [self._plane_button(name) for name in PLANES]
        self._caption = QLabel()
        self._lay_out()
        self._followed: object = None
        layers = napari_viewer.layers
        for changed in (layers.events.inserted, layers.events.removed, layers.selection.events.active):
            changed.connect(self._follow)
        self._follow()

    def _preset_button(self, preset: windowing.Preset) -> QPushButton:
        button = QPushButton(preset.name)
        button.setToolTip(f"W {preset.width_hu:g}  L {preset.center_hu:g} HU (key {preset.key})")
        button.clicked.connect(partial(self._apply, preset))
        return button

    def _plane_button(self, name: str) -> QPushButton:
        button = QPushButton(name)
        button.clicked.connect(partial(self._show_plane, name))
        return button

    def _lay_out(self) -> None:
        layout, presets, planes = QVBoxLayout(self), QGridLayout(), QGridLayout()
        for n, button in enumerate(self._presets):
            presets.addWidget(button, n // 3, n % 3)
        for n, button in enumerate(self._planes):
            planes.addWidget(button, 0, n)
        hint = QLabel(_HINT)
        hint.setToolTip("Drag on the picture with the right mouse button: to the right widens, up brightens.")
        layout.addLayout(presets)
        layout.addWidget(self._caption)
        layout.addWidget(hint)
        layout.addLayout(planes)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)

    def _apply(self, preset: windowing.Preset, _checked: bool = False) -> None:
        windowing.apply_preset(self._viewer, preset)

    def _show_plane(self, name: str, _checked: bool = False) -> None:
        show_plane(self._viewer, name)

    def _follow(self) -> None:
        """Turn to the scan that windowing acts on now."""
        layer = windowing.windowed_layer(self._viewer)
        if self._followed is not None:
            self._followed.events.contrast_limits.disconnect(self._write)  # type: ignore[attr-defined]
        self._followed = layer
        if layer is not None:
            layer.events.contrast_limits.connect(self._write)
        self._write()

    def _write(self) -> None:
        layer = windowing.windowed_layer(self._viewer)
        in_hu = windowing.takes_presets(layer)
        self._caption.setText(windowing.caption(layer) + (" HU" if in_hu else "") if layer else "No scan is shown.")
        for button in self._presets:
            button.setEnabled(in_hu)
