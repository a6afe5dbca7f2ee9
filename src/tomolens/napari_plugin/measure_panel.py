"""What regions of interest measure on the input, the result and the baseline of a reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from tomolens.napari_plugin import region_layer
from tomolens.napari_plugin.noise_plot import NoisePlot
from tomolens.napari_plugin.result_table import ResultTable, cell
from tomolens.physics.roi import Region, Statistics, contrast_to_noise, noise_power

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image, Shapes
    from napari.utils.events import EventEmitter
    from numpy.typing import NDArray

    from tomolens.physics.roi import NoisePower

_COLUMNS = {
    "": "number of the region, as beside it",
    "image": "in which it is measured",
    "mean": "in the unit of the scan",
    "sd": "standard deviation, in the unit of the scan",
}
_HINT = "Add a region, and drag it where the scan should be even. Rectangles and ellipses of any shapes layer will do."
_TEXT_LINES = 3
"""Room for the longest text, so that nothing below it moves when it changes."""
_DELAY_MS = 60
"""After a move, so that a drag stays smooth."""


class MeasurePanel(QWidget):
    """Mean, standard deviation, contrast to noise and noise power spectrum, live while a region is moved."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Image | None = None
        self._images: Mapping[str, NDArray[Any]] = {}
        self._followed: Shapes | None = None
        self.add_button, self.table = QPushButton("Add region"), ResultTable(_COLUMNS, (1,))
        self.contrast, self.plot, self._timer = QLabel(), NoisePlot(), QTimer(self)
        self._lay_out()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_DELAY_MS)
        self._timer.timeout.connect(self.measure)
        self.add_button.clicked.connect(self._add)
        self.attach()

    def attach(self) -> None:
        """Follow the viewer's shapes."""
        for changed in self._layers_changed():
            changed.connect(self._follow)
        self._follow()

    def detach(self) -> None:
        """Let go of the viewer."""
        for changed in self._layers_changed():
            changed.disconnect(self._follow)
        self._turn_to(None)
        self.show_images(None, {})
        self._timer.stop()

    def _layers_changed(self) -> tuple[EventEmitter, ...]:
        layers = self._viewer.layers
        return layers.events.inserted, layers.events.removed, layers.selection.events.active

    def _lay_out(self) -> None:
        layout, row = QVBoxLayout(self), QHBoxLayout()
        self.contrast.setWordWrap(True)
        self.contrast.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.contrast.setMinimumHeight(_TEXT_LINES * self.contrast.fontMetrics().lineSpacing())
        row.addWidget(self.add_button)
        row.addStretch()
        layout.addLayout(row)
        for part in (self.table, self.contrast, self.plot):
            layout.addWidget(part)

    def show_images(self, layer: Image | None, images: Mapping[str, NDArray[Any]]) -> None:
        """Measure in these arrays, by name, which lie voxel on voxel under a layer; in nothing without one."""
        self._layer, self._images = layer, images
        self.add_button.setEnabled(layer is not None)
        self._later()

    def _add(self) -> None:
        if self._layer is not None:
            region_layer.add_region(self._viewer, self._layer)
            self._follow()

    def _follow(self, event: Any = None) -> None:
        self._turn_to(region_layer.shapes_layer(self._viewer))
        self._later()

    def _turn_to(self, shapes: Shapes | None) -> None:
        """Measure in these shapes from now on."""
        if shapes is not self._followed:
            if self._followed is not None:
                for changed in (self._followed.events.data, self._followed.events.set_data):
                    changed.disconnect(self._later)
            self._followed = shapes
            if shapes is not None:
                for changed in (shapes.events.data, shapes.events.set_data):
                    changed.connect(self._later)

    def _later(self, event: Any = None) -> None:
        self._timer.start()

    def measure(self) -> None:
        """Measure now."""
        regions: dict[int, Region] = {}
        if self._layer is not None and self._followed is not None:
            region_layer.number(self._followed)
            regions = region_layer.regions_in(self._followed, self._layer)
        measured = {
            n: {name: Statistics.of(region.values(voxels)) for name, voxels in self._images.items()}
            for n, region in regions.items()
        }
        self._show_statistics(measured)
        self.plot.show_spectra(self._spectra(next(iter(regions.values()), None)), self._unit())

    def _show_statistics(self, measured: Mapping[int, Mapping[str, Statistics]]) -> None:
        rows = [(n, name, one) for n, images in measured.items() for name, one in images.items()]
        self.table.show_rows(
            [
                [cell(str(n)), cell(name, Qt.AlignmentFlag.AlignLeft), cell(f"{one.mean:.1f}"), cell(f"{one.sd:.1f}")]
                for n, name, one in rows
            ]
        )
        self.contrast.setText(_contrast(measured) if measured or self._layer is None else _HINT)

    def _spectra(self, region: Region | None) -> dict[str, NoisePower]:
        """Of the first region, in each image; empty where it is too small."""
        if region is None or self._layer is None:
            return {}
        spacing = np.delete(np.abs(self._layer.scale), region.axis)
        squares = {name: region.square(voxels) for name, voxels in self._images.items()}
        return {
            name: noise_power(square, (float(spacing[0]), float(spacing[1])))
            for name, square in squares.items()
            if square is not None
        }

    def _unit(self) -> str:
        return "" if self._layer is None else str(self._layer.metadata["volume"].unit)


def _contrast(measured: Mapping[int, Mapping[str, Statistics]]) -> str:
    if len(measured) < 2:
        return "Contrast to noise: add a second region." if measured else ""
    one, other = list(measured)[:2]
    ratios = (f"{name} {contrast_to_noise(measured[one][name], measured[other][name]):.2f}" for name in measured[one])
    return f"Contrast to noise, {one} against {other}: {', '.join(ratios)}"
