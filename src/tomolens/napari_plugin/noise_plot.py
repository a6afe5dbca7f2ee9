"""The curves of noise power spectra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from qtpy.QtCore import QSize

from tomolens.napari_plugin.region_layer import COLOURS

if TYPE_CHECKING:
    from tomolens.physics.roi import NoisePower

_BACKGROUND, _INK = "#262930", "#f0f1f2"
"""napari's own, dark."""
_LEAST_PX = (240, 170)
_TOO_SMALL = "Noise power spectrum:\nof a region of at least 12 by 12 pixels"


class NoisePlot(FigureCanvasQTAgg):
    """One curve an image: noise power over spatial frequency, in the first region."""

    def __init__(self) -> None:
        super().__init__(Figure(facecolor=_BACKGROUND, dpi=90))  # type: ignore[no-untyped-call]
        self.axes = self.figure.add_axes((0.17, 0.27, 0.79, 0.62), facecolor=_BACKGROUND)
        self.setMinimumSize(*_LEAST_PX)
        self.show_spectra({}, "")

    def sizeHint(self) -> QSize:
        """As small as can be read: matplotlib would ask for 640 pixels."""
        return QSize(*_LEAST_PX)

    def show_spectra(self, spectra: Mapping[str, NoisePower], unit: str) -> None:
        """Draw anew; without spectra, say what is needed."""
        if not spectra and not self.axes.lines and self.axes.texts:
            return
        self.axes.clear()
        for colour, (name, spectrum) in zip(COLOURS, spectra.items(), strict=False):
            self.axes.plot(spectrum.per_mm[1:], spectrum.power[1:], color=colour, label=name, linewidth=1.3)
        if spectra:
            self._write_axes(unit)
        else:
            self.axes.set_axis_off()
            self.axes.text(0.5, 0.5, _TOO_SMALL, color=_INK, ha="center", va="center", fontsize=8)
        self.draw_idle()  # type: ignore[no-untyped-call]

    def _write_axes(self, unit: str) -> None:
        self.axes.set_xlabel("cycles per mm", color=_INK, fontsize=8)
        self.axes.set_title(f"noise power in region 1, {unit}² mm²", color=_INK, fontsize=8)
        self.axes.tick_params(colors=_INK, labelsize=7)
        self.axes.set_ylim(bottom=0)
        self.axes.set_xlim(left=0)
        for line in self.axes.spines.values():
            line.set_color(_INK)
        self.axes.legend(fontsize=7, labelcolor=_INK, frameon=False)
