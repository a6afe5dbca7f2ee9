"""The *Reconstruct* widget: choose a job, a scan or k-space and a model, run, compare the result with its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel, QTabWidget
from superqt import QLabeledDoubleSlider

from tomolens.core.progress import Progress, Step
from tomolens.core.reconstruction import Job, ReconstructOptions
from tomolens.napari_plugin import reconstruction_layers
from tomolens.napari_plugin.checks_table import OUT_COLOUR, ChecksTable
from tomolens.napari_plugin.compare_panel import ComparePanel
from tomolens.napari_plugin.file_box import FileBox
from tomolens.napari_plugin.kept_reconstruction import Kept, run
from tomolens.napari_plugin.measure_panel import MeasurePanel
from tomolens.napari_plugin.messages import tell
from tomolens.napari_plugin.model_shelf import ModelShelf
from tomolens.napari_plugin.reconstruction_layers import REFERENCES, Part
from tomolens.napari_plugin.scan_widget import ScanWidget

if TYPE_CHECKING:
    from pathlib import Path

    from napari import Viewer
    from napari.layers import Image
    from numpy.typing import NDArray

    from tomolens.core.card import ModelCard
    from tomolens.core.kspace import KSpace
    from tomolens.core.volume import Volume
    from tomolens.napari_plugin.job import Work

JOBS = {"CT denoising": Job.DENOISING, "MRI from k-space": Job.MRI, "Thin slices": Job.SUPER_RESOLUTION}
FACTORS = {"as many as needed": None, "2": 2, "3": 3, "4": 4, "5": 5}
_REST_MS = 300
"""The slider stands still this long before the whole volume is made."""


class ReconstructWidget(ScanWidget):
    """Choose a job, its source and a model, press Run, compare the result with its input.

    The result is an image layer like the scan's, which keeps its volume, so that every other widget takes it as a scan.
    The strength acts on it at once: the model is not run again.
    """

    no_model = "No model for this job is installed."
    no_file = "Choose a file of k-space: ISMRMRD, fastMRI, BART or npz."

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer, Job.DENOISING)
        self._shelves = {Job.DENOISING: self._models}
        self.job, self.factor, self.file = QComboBox(), QComboBox(), FileBox("Open k-space", lambda: _kspace_suffixes())
        self.strength, self._timer = QLabeledDoubleSlider(), QTimer(self)
        self._previewed: tuple[Image, float] | None = None
        self.baseline, self.accept = QCheckBox(), QCheckBox("Accept a GAN's invented texture")
        self.warnings, self.tabs = QLabel(), QTabWidget()
        self.checks, self.compare, self.measure = (
            ChecksTable(),
            ComparePanel(napari_viewer),
            MeasurePanel(napari_viewer),
        )
        self._set_up()
        wishes = {"Strength": self.strength, "Slices from one": self.factor, "": self.baseline, " ": self.accept}
        self._begin(wishes, [self.warnings, self.tabs], {"Job": self.job, "k-space": self.file})
        self._on_job_chosen()

    def _set_up(self) -> None:
        for name, job in JOBS.items():
            self.job.addItem(name, job)
        for name, factor in FACTORS.items():
            self.factor.addItem(name, factor)
        self.strength.setOrientation(Qt.Orientation.Horizontal)
        self.strength.setRange(0, 1)
        self.strength.setDecimals(2)
        self.strength.setValue(1)
        self.baseline.setToolTip("A method without training, as a second result to compare with.")
        self.strength.setToolTip("0 is the input, 1 all that the model makes of it; acts at once on a result.")
        self.warnings.setWordWrap(True)
        self.warnings.setStyleSheet(f"color: {OUT_COLOUR}; font-weight: bold")
        for name, page in {"Checks": self.checks, "Compare": self.compare, "Measure": self.measure}.items():
            self.tabs.addTab(page, name)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REST_MS)

    def _connect(self) -> None:
        super()._connect()
        self.job.currentIndexChanged.connect(self._on_job_chosen)
        self.file.changed.connect(self._on_scan_chosen)
        self.accept.toggled.connect(lambda _on: self.panel.allow(self._reason_against()))
        self.strength.valueChanged.connect(self._preview)
        self._timer.timeout.connect(self._show_result)

    def _attach(self) -> None:
        super()._attach()
        self.compare.attach()
        self.measure.attach()

    def _detach(self) -> None:
        self._settle()
        super()._detach()
        self.compare.detach()
        self.measure.detach()

    # What can be chosen

    def choose_kspace(self, path: Path) -> None:
        """Choose the job for k-space, and a file of it."""
        self.job.setCurrentIndex(self.job.findData(Job.MRI))
        self.file.line.setText(str(path))

    def _job(self) -> Job:
        return Job(self.job.currentData())

    def _on_job_chosen(self) -> None:
        job = self._job()
        self._models = self._shelves.setdefault(job, self._shelves.get(job) or ModelShelf(job))
        shown = {self.file: Job.MRI, self.strength: Job.DENOISING, self.factor: Job.SUPER_RESOLUTION}
        for widget, its_job in shown.items():
            self._form.setRowVisible(widget, job is its_job)
        self._form.setRowVisible(self.scan, job is not Job.MRI)
        self._on_scan_chosen()
        self._on_model_chosen()

    def _on_model_chosen(self) -> None:
        card: ModelCard | None = self.model.value()
        self._form.setRowVisible(self.accept, card is not None and card.generative)
        own = card is not None and card.name == self._models.baseline
        self.baseline.setText(f"Also run {self._models.baseline}")
        self.baseline.setEnabled(not own)
        super()._on_model_chosen()
        self._show_result()

    def _reason_against(self) -> str:
        if self._job() is not Job.MRI or self.model.count() == 0:
            return super()._reason_against() or self._reason_against_generative()
        path = self.file.path()
        if path is None:
            return self.no_file
        missing = "" if path.exists() else f"There is no file {path}."
        return missing or self.model.refused() or self._reason_against_generative()

    def _reason_against_generative(self) -> str:
        card: ModelCard | None = self.model.value()
        if card is None or not card.generative or self.accept.isChecked():
            return ""
        return f"{card.name} is a GAN: what it adds may be invented. Accept that above to run it."

    def _volume(self) -> Volume | None:
        return None if self._job() is Job.MRI else super()._volume()

    # The run

    def _run(self) -> None:
        path = self.file.path()
        if self._job() is not Job.MRI:
            super()._run()
        elif path is not None:
            self._running_in = None
            self.panel.start(self._reconstructing(lambda _progress: _read_kspace(path), path, path.name))

    def _work(self, volume: Volume) -> Work:
        scan: Image = self._running_in
        return self._reconstructing(lambda _progress: volume, scan.metadata["volume"], scan.name)

    def _reconstructing(self, read: Callable[[Progress], Volume | KSpace], origin: Volume | Path, name: str) -> Work:
        models, card, device = self._models, self.model.value(), self.device.currentText()
        options, beside = self._options(), self.baseline.isEnabled() and self.baseline.isChecked()

        def work(progress: Progress) -> Kept:
            progress(Step("read", 0, 0))
            source = read(progress)
            progress(Step("load model", 0, 0))
            model = models.load(card.name, device)
            baseline = models.load_baseline() if beside else None
            return run(source, model, options, baseline, origin, name, progress)

        return work

    def _options(self) -> ReconstructOptions:
        job = self._job()
        return ReconstructOptions(
            strength=self.strength.value() if job is Job.DENOISING else 1.0,
            factor=self.factor.currentData() if job is Job.SUPER_RESOLUTION else None,
            generative=self.model.value().generative and self.accept.isChecked(),
        )

    # The result

    def _show(self, kept: Kept) -> None:
        """Show a result that has just been made, in place of the same model's last one of this source."""
        scan = None if self._running_in is None else self._scan_of_run()
        for layer in reconstruction_layers.parts_of(self._viewer.layers, kept.origin, kept.card.name).values():
            self._viewer.layers.remove(layer)
        made = [Layer.create(*data) for data in reconstruction_layers.made_layers(kept, scan)]
        for layer in made:
            layer.colorbar.visible = reconstruction_layers.is_map(layer)
            layer.metadata["layer"] = layer.unique_id
            self._viewer.add_layer(layer)
        scans = [layer for layer in [scan, *made] if layer is not None and not reconstruction_layers.is_map(layer)]
        self._viewer.layers.link_layers(scans, reconstruction_layers.LINKED)
        self._viewer.layers.selection.active = scans[-1]
        self._show_result()

    def _parts(self) -> dict[Part, Image]:
        """The layers of what the chosen model made of the chosen source; empty without a result."""
        card: ModelCard | None = self.model.value()
        origin = self.file.path() if self._job() is Job.MRI else self._volume()
        if card is None or origin is None:
            return {}
        parts = reconstruction_layers.parts_of(self._viewer.layers, origin, card.name)
        return parts if Part.RESULT in parts else {}

    def _show_result(self) -> None:
        """Show what is known of the chosen result, at the strength that was last asked for."""
        self._settle()
        parts = self._parts()
        kept: Kept | None = parts[Part.RESULT].metadata["kept"] if parts else None
        if kept is not None:
            blocked = self.strength.blockSignals(True)
            self.strength.setValue(kept.options.strength)
            self.strength.blockSignals(blocked)
        self.checks.show_checks(() if kept is None else kept.reconstruction.checks)
        self.warnings.setText("" if kept is None else "\n".join(kept.reconstruction.warnings))
        self.warnings.setVisible(bool(self.warnings.text()))
        self.summary.setText("" if kept is None else _summary(kept))
        self.compare.compare(parts.get(Part.RESULT), self._others(parts))
        self.measure.show_images(parts.get(Part.RESULT), {} if kept is None else _measured(kept))

    def _others(self, parts: dict[Part, Image]) -> list[Image]:
        """What the result is compared with: its scan, the reference, the baseline."""
        scan: Image | None = self.scan.value() if self._job() is not Job.MRI else None
        beside = [parts[part] for part in (Part.REFERENCE, Part.BASELINE) if part in parts]
        return [*([scan] if parts and scan is not None else []), *beside]

    def _preview(self, strength: float) -> None:
        parts = self._parts()
        if parts and self._job() is Job.DENOISING:
            result = parts[Part.RESULT]
            reconstruction_layers.preview(result, result.metadata["kept"], strength)
            self._previewed = result, strength
        self._timer.start()

    def _settle(self) -> None:
        """Give the result that is previewed its strength, whatever is chosen by now; on an error the one it had."""
        self._timer.stop()
        previewed, self._previewed = self._previewed, None
        if previewed is None or previewed[0] not in self._viewer.layers:
            return
        result, strength = previewed
        kept: Kept = result.metadata["kept"]
        parts = reconstruction_layers.parts_of(self._viewer.layers, kept.origin, kept.card.name)
        try:
            kept = kept.at(strength)
        except Exception as error:  # whatever it is, no half-made picture may stay
            tell(error)
        reconstruction_layers.show_again(parts.values(), kept)


def open_kspace(viewer: Viewer, path: Path) -> None:
    """Open *Reconstruct* in a viewer, or bring it to the front, with a file of k-space chosen."""
    dock, widget = viewer.window.add_plugin_dock_widget("tomolens", "Reconstruct")
    dock.show()
    dock.raise_()
    widget.choose_kspace(path)


def _measured(kept: Kept) -> dict[str, NDArray[Any]]:
    """Arrays to measure in, by name, as their layers show them."""
    made = kept.reconstruction
    volumes = {REFERENCES[made.job]: made.reference, kept.card.name: made.volume}
    if made.baseline is not None:
        volumes[reconstruction_layers.baseline_name(made)] = made.baseline
    return {name: volume.canonical().voxels for name, volume in volumes.items()}


def _summary(kept: Kept) -> str:
    run = kept.reconstruction.run
    seconds = f", {run.seconds['total']:.1f} s" if "total" in run.seconds else ""
    slices, rows, columns = kept.reconstruction.volume.shape
    first = f"{columns} x {rows} x {slices} voxels ({run.model} {run.model_version}, {run.device}{seconds})."
    unchecked = () if kept.reconstruction.checks else ("Nothing to check: this method has no training range.",)
    return "\n".join((first, *run.notes, *unchecked))


def _kspace_suffixes() -> tuple[str, ...]:
    from tomolens.io.kspace import KSPACE_SUFFIXES

    return tuple(KSPACE_SUFFIXES)


def _read_kspace(path: Path) -> KSpace:
    from tomolens.io.kspace import read_kspace

    return read_kspace(path)
