"""What the widgets that read a scan with a model have in common: choose both, run, look at the result."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QVBoxLayout, QWidget

from tomolens.core.errors import TomolensError
from tomolens.core.finding import RESEARCH_USE
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.choice_box import Choice, ChoiceBox
from tomolens.napari_plugin.hanging import hang
from tomolens.napari_plugin.messages import tell
from tomolens.napari_plugin.model_shelf import ModelShelf
from tomolens.napari_plugin.reconstruction_layers import is_map
from tomolens.napari_plugin.run_panel import RunPanel

if TYPE_CHECKING:
    from napari import Viewer
    from napari.utils.events import EventEmitter

    from tomolens.core.volume import Volume
    from tomolens.napari_plugin.job import Work

DEVICES = ("auto", "cpu", "cuda")


class ScanWidget(QWidget):
    """Choose a scan layer and a model, press Run, see what was made of it.

    A subclass says what to do with the scan (`_work`) and how to show it (`_show`, `_show_result`); when its own parts
    are made it calls `_begin`.

    Parameters
    ----------
    napari_viewer
        napari hands it over by this name.
    task
        Of the models to choose from, e.g. ``detection``.
    """

    no_scan = "Open a scan, e.g. File > Open Sample > Tomolens."
    no_model = "There is no model."

    def __init__(self, napari_viewer: Viewer, task: str) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._models = ModelShelf(task)
        self.scan, self.model, self.device, self.panel = ChoiceBox(), ChoiceBox(), QComboBox(), RunPanel()
        self.summary, self._form = QLabel(), QFormLayout()
        hang(napari_viewer)

    def _begin(
        self, wishes: Mapping[str, QWidget], shown: Sequence[QWidget], first: Mapping[str, QWidget] | None = None
    ) -> None:
        """Lay everything out, with a line for each wish and the result below, and follow the viewer's layers."""
        self.device.addItems([*DEVICES, *["openvino"] * (find_spec("openvino") is not None)])
        self.summary.setWordWrap(True)
        notice = QLabel(RESEARCH_USE)
        notice.setWordWrap(True)
        layout = QVBoxLayout(self)
        for name, widget in {**(first or {}), "Scan": self.scan, "Model": self.model, "Device": self.device}.items():
            self._form.addRow(name, widget)
        for name, widget in wishes.items():
            self._form.addRow(name, widget)
        layout.addLayout(self._form)
        for part in (self.panel, self.summary, *shown, notice):
            layout.addWidget(part)
        self._connect()
        self._offer_scans()

    def _connect(self) -> None:
        self.scan.currentIndexChanged.connect(self._on_scan_chosen)
        self.model.currentIndexChanged.connect(self._on_model_chosen)
        self.panel.run_pressed.connect(self._run)
        self.panel.returned.connect(self._show)
        self._attach()

    def _attach(self) -> None:
        """Follow the viewer's layers."""
        for changed in self._layers_changed():
            changed.connect(self._offer_scans)

    def _detach(self) -> None:
        """Stop the run and let go of the viewer: for when the dock is closed, which may leave the widget alive."""
        self.panel.abandon()
        for changed in self._layers_changed():
            changed.disconnect(self._offer_scans)

    def _layers_changed(self) -> tuple[EventEmitter, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.reordered, events.renamed

    # What can be chosen

    def _offer_scans(self, event: Any = None) -> None:
        images = [layer for layer in reversed(self._viewer.layers) if isinstance(layer, Image) and not is_map(layer)]
        self.scan.set_choices(Choice(layer.name, layer, _not_a_scan(layer)) for layer in images)
        self._on_scan_chosen()

    def _on_scan_chosen(self) -> None:
        self.model.set_choices(self._models.choices(self._volume()))
        self.panel.allow(self._reason_against())
        self._show_result()

    def _on_model_chosen(self) -> None:
        self.panel.allow(self._reason_against())

    def _reason_against(self) -> str:
        if self.model.count() == 0:
            return self.no_model
        return self.no_scan if self.scan.count() == 0 else self.scan.refused() or self.model.refused()

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

    def _scan_of_run(self) -> Image | None:
        """The layer that the run was started on, where it is still open."""
        return self._running_in if self._running_in in self._viewer.layers else None

    @abstractmethod
    def _work(self, volume: Volume) -> Work:
        """What the thread is to do; all that it needs of the GUI is read here."""

    @abstractmethod
    def _show(self, result: Any) -> None:
        """Show a result that has just been made."""

    @abstractmethod
    def _show_result(self) -> None:
        """Fill the table with what was made of the chosen scan."""

    def event(self, event: QEvent) -> bool:
        """Follow the viewer from when a dock takes the widget in until it gives it up; all else is Qt's."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is None:
                self._detach()
            else:
                self._attach()
                self._offer_scans()
        return bool(super().event(event))


def _not_a_scan(layer: Image) -> str:
    try:
        layers.opened_volume(layer.data, layer.metadata, layer.name)
    except TomolensError as refused:
        return str(refused)
    return ""
