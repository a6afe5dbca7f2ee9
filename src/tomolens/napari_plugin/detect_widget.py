"""The *Detect lung nodules* widget: choose a scan and a model, run, look at what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QVBoxLayout, QWidget
from superqt import QLabeledDoubleSlider

from tomolens.core.errors import TomolensError
from tomolens.core.finding import RESEARCH_USE
from tomolens.core.progress import Progress, Step
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.choice_box import Choice, ChoiceBox
from tomolens.napari_plugin.findings_table import FindingsTable, centre_on
from tomolens.napari_plugin.hanging import hang
from tomolens.napari_plugin.messages import tell
from tomolens.napari_plugin.model_shelf import ModelShelf
from tomolens.napari_plugin.run_panel import RunPanel
from tomolens.pipelines.detect_nodules import DetectOptions, detect_nodules

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Points

    from tomolens.core.card import ModelCard
    from tomolens.core.finding import Detection
    from tomolens.core.volume import Volume
    from tomolens.napari_plugin.job import Work

DEVICES = ("auto", "cpu", "cuda")


class DetectNodulesWidget(QWidget):
    """Choose a CT layer and a model, press Run, click through the findings.

    The result is a points layer, which keeps the `Detection` with its run manifest; the threshold acts on it at once.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._models = ModelShelf()
        self.scan, self.model, self.device = ChoiceBox(), ChoiceBox(), QComboBox()
        self.threshold, self.panel = QLabeledDoubleSlider(), RunPanel()
        self.summary, self.table = QLabel(), FindingsTable()
        hang(napari_viewer)
        self._lay_out()
        self._connect()
        self._offer_scans()

    def _lay_out(self) -> None:
        self.device.addItems(DEVICES)
        self.threshold.setOrientation(Qt.Orientation.Horizontal)
        self.threshold.setRange(0, 1)
        self.threshold.setDecimals(2)
        self.summary.setWordWrap(True)
        notice = QLabel(RESEARCH_USE)
        notice.setWordWrap(True)
        form, layout = QFormLayout(), QVBoxLayout(self)
        named = {"Scan": self.scan, "Model": self.model, "Device": self.device, "Score at least": self.threshold}
        for name, widget in named.items():
            form.addRow(name, widget)
        layout.addLayout(form)
        for part in (self.panel, self.summary, self.table, notice):
            layout.addWidget(part)

    def _connect(self) -> None:
        self.scan.currentIndexChanged.connect(self._on_scan_chosen)
        self.model.currentIndexChanged.connect(self._on_model_chosen)
        self.threshold.valueChanged.connect(self._on_threshold)
        self.panel.run_pressed.connect(self._run)
        self.panel.returned.connect(self._show)
        self.table.chosen.connect(self._centre_on)
        events = self._viewer.layers.events
        for changed in (events.inserted, events.removed, events.reordered, events.renamed):
            changed.connect(self._offer_scans)

    # What can be chosen

    def _offer_scans(self, event: Any = None) -> None:
        images = [layer for layer in reversed(self._viewer.layers) if isinstance(layer, Image)]
        self.scan.set_choices(Choice(layer.name, layer, _not_a_scan(layer)) for layer in images)
        self._on_scan_chosen()

    def _on_scan_chosen(self) -> None:
        volume = self._volume()
        self.model.set_choices(self._models.choices(volume))
        self.panel.allow(self._reason_against())
        self._show_result()

    def _on_model_chosen(self) -> None:
        card: ModelCard | None = self.model.value()
        if card is not None and self._findings() is None:
            self.threshold.setValue(card.default_min_score)
        self.panel.allow(self._reason_against())

    def _reason_against(self) -> str:
        if self.scan.count() == 0:
            return "Open a chest CT, e.g. File > Open Sample > Tomolens."
        return self.scan.refused() or self.model.refused() or ("" if self.model.count() else "There is no model.")

    def _volume(self) -> Volume | None:
        """What the chosen layer was opened with."""
        scan: Image | None = self.scan.value()
        return None if scan is None else scan.metadata["volume"]

    # The run

    def _run(self) -> None:
        self._running_in: Image = self.scan.value()
        try:
            self.panel.start(self._work(layers.volume_of(self._running_in)))
        except TomolensError as error:
            tell(error)

    def _work(self, volume: Volume) -> Work:
        """What the thread is to do; all that it needs of the GUI is read here."""
        models, card, device = self._models, self.model.value(), self.device.currentText()
        options = DetectOptions(self.threshold.value())

        def work(progress: Progress) -> Detection:
            progress(Step("load model", 0, 0))
            return detect_nodules(volume, models.load(card.name, device), options, progress=progress)

        return work

    # The result

    def _show(self, detection: Detection) -> None:
        """Show a result that has just been made, from its surest finding."""
        scan = self._running_in if self._running_in in self._viewer.layers else None
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
            centre_on(self._viewer, found, row)

    def event(self, event: QEvent) -> bool:
        """Stop the run when the dock gives the widget up; all else is Qt's."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.panel.abandon()
        return bool(super().event(event))


def _not_a_scan(layer: Image) -> str:
    try:
        layers.opened_volume(layer.data, layer.metadata, layer.name)
    except TomolensError as refused:
        return str(refused)
    return ""


def _summary(detection: Detection) -> str:
    shown, all_of_them, run = len(detection), len(detection.candidates), detection.run
    count = f"{shown} finding{'' if shown == 1 else 's'} with a score of at least {detection.min_score:.2f}"
    below = f", {all_of_them - shown} below" if all_of_them > shown else ""
    return "\n".join((f"{count}{below} ({run.model} {run.model_version}, {run.device}).", *run.notes))
