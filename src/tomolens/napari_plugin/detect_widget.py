"""The *Detect lung nodules* widget: choose a scan and a model, run, look at what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Layer
from qtpy.QtCore import Qt
from superqt import QLabeledDoubleSlider

from tomolens.core.errors import TomolensError
from tomolens.core.progress import Progress, Step
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.findings_table import FindingsTable
from tomolens.napari_plugin.messages import tell
from tomolens.napari_plugin.result_table import centre_on
from tomolens.napari_plugin.scan_widget import ScanWidget
from tomolens.pipelines.detect_nodules import DetectOptions, detect_nodules

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Points

    from tomolens.core.card import ModelCard
    from tomolens.core.finding import Detection
    from tomolens.core.volume import Volume
    from tomolens.napari_plugin.job import Work


class DetectNodulesWidget(ScanWidget):
    """Choose a CT layer and a model, press Run, click through the findings.

    The result is a points layer, which keeps the `Detection` with its run manifest; the threshold acts on it at once.
    """

    no_scan = "Open a chest CT, e.g. File > Open Sample > Tomolens."

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer, "detection")
        self.threshold, self.table = QLabeledDoubleSlider(), FindingsTable()
        self.threshold.setOrientation(Qt.Orientation.Horizontal)
        self.threshold.setRange(0, 1)
        self.threshold.setDecimals(2)
        self.threshold.valueChanged.connect(self._on_threshold)
        self.table.chosen.connect(self._centre_on)
        self._begin({"Score at least": self.threshold}, [self.table])

    def _on_model_chosen(self) -> None:
        card: ModelCard | None = self.model.value()
        if card is not None and self._findings() is None:
            self.threshold.setValue(card.default_min_score)
        super()._on_model_chosen()

    def _work(self, volume: Volume) -> Work:
        models, card, device = self._models, self.model.value(), self.device.currentText()
        options = DetectOptions(self.threshold.value())

        def work(progress: Progress) -> Detection:
            progress(Step("load model", 0, 0))
            return detect_nodules(volume, models.load(card.name, device), options, progress=progress)

        return work

    def _show(self, detection: Detection) -> None:
        """Show a result that has just been made, from its surest finding."""
        scan = self._scan_of_run()
        before = None if scan is None else layers.findings_of(self._viewer.layers, scan.metadata["volume"])
        if before is not None:
            self._viewer.layers.remove(before)
        self._viewer.add_layer(Layer.create(*layers.findings(detection, scan)))
        self._show_result()
        if len(detection):
            self.table.selectRow(0)
            self._centre_on(0)

    def _findings(self) -> Points | None:
        """The findings layer of the chosen scan."""
        volume = self._volume()
        return None if volume is None else layers.findings_of(self._viewer.layers, volume)

    def _show_result(self) -> None:
        """Fill the table with what was found in the chosen scan."""
        found = self._findings()
        detection: Detection | None = None if found is None else found.metadata["detection"]
        if detection is not None:
            self._set_threshold_silently(detection.min_score)
        self.table.show_findings(() if detection is None else detection.findings)
        self.summary.setText("" if detection is None else _summary(detection))

    def _set_threshold_silently(self, min_score: float) -> None:
        blocked = self.threshold.blockSignals(True)
        self.threshold.setValue(min_score)
        self.threshold.blockSignals(blocked)

    def _on_threshold(self, min_score: float) -> None:
        found = self._findings()
        if found is None:
            return
        try:
            detection = layers.set_threshold(found, min_score)
        except TomolensError as error:
            tell(error)
            return
        self.table.show_findings(detection.findings)
        self.summary.setText(_summary(detection))

    def _centre_on(self, row: int) -> None:
        found = self._findings()
        if found is not None:
            centre_on(self._viewer, layers.center_of(found, row))


def _summary(detection: Detection) -> str:
    shown, all_of_them, run = len(detection), len(detection.candidates), detection.run
    count = f"{shown} finding{'' if shown == 1 else 's'} with a score of at least {detection.min_score:.2f}"
    below = f", {all_of_them - shown} below" if all_of_them > shown else ""
    return "\n".join((f"{count}{below} ({run.model} {run.model_version}, {run.device}).", *run.notes))
