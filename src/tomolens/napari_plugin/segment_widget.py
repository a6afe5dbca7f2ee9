"""The *Segment* widget: choose a scan and a model, run, look at what was segmented."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Layer
from qtpy.QtWidgets import QFormLayout, QWidget

from tomolens.core.label_picture import told
from tomolens.core.progress import Progress, Step
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.choice_box import Choice, ChoiceBox
from tomolens.napari_plugin.result_table import centre_on
from tomolens.napari_plugin.scan_widget import ScanWidget
from tomolens.napari_plugin.structures_table import StructuresTable
from tomolens.pipelines.segment import segment

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image, Labels

    from tomolens.core.card import ModelCard
    from tomolens.core.segmentation import Segmentation
    from tomolens.core.volume import Volume
    from tomolens.napari_plugin.job import Work

_NAMED = 8
"""So many structures that were not found are named."""


class SegmentWidget(ScanWidget):
    """Choose a scan layer and a model, press Run, click through the structures.

    The result is a labels layer on the scan's own voxels, which keeps the `Segmentation` with its run manifest. Where a
    model reads several images together, the scan is the first of them, and a box for each of the others appears.
    """

    no_model = "No segmentation model is installed. Import one: tomolens models import NAME; then open this again."

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer, "segmentation")
        self.images: dict[str, ChoiceBox] = {}
        self._others = QWidget()
        self._rows = QFormLayout(self._others)
        self._rows.setContentsMargins(0, 0, 0, 0)
        self.table = StructuresTable()
        self.table.chosen.connect(self._centre_on)
        self._begin({"": self._others}, [self.table])

    def _on_scan_chosen(self) -> None:
        super()._on_scan_chosen()
        self._on_model_chosen()

    def _on_model_chosen(self) -> None:
        self._offer_images()
        super()._on_model_chosen()
        self._show_result()

    def _offer_images(self) -> None:
        """A box for each image that the model reads beside the scan, with the scans on the same grid."""
        scan: Image | None = self.scan.value()
        card: ModelCard | None = self.model.value()
        channels = () if card is None else card.input.channels[1:]
        if tuple(self.images) != channels:
            self._make_boxes(channels)
        if scan is not None and card is not None:
            others = [other for other in layers.scans(self._viewer.layers) if other is not scan]
            for box in self.images.values():
                box.set_choices([Choice(other.name, other, _misfit(other, scan, card)) for other in others])

    def _make_boxes(self, channels: tuple[str, ...]) -> None:
        while self._rows.rowCount():
            self._rows.removeRow(0)
        self.images = {channel: ChoiceBox() for channel in channels}
        for channel, box in self.images.items():
            box.currentIndexChanged.connect(super()._on_model_chosen)
            self._rows.addRow(channel, box)
        self._others.setVisible(bool(channels))

    def _reason_against(self) -> str:
        return super()._reason_against() or self._reason_against_images()

    def _reason_against_images(self) -> str:
        chosen: list[Image] = []
        for channel, box in self.images.items():
            if box.value() is None:
                return (
                    box.refused()
                    or f"Open the {channel} image of this patient too: {self.model.currentText()} reads it."
                )
            if box.value() in chosen:
                return f"{box.currentText()} is chosen twice: choose the {channel} image."
            chosen.append(box.value())
        return ""

    def _work(self, volume: Volume) -> Work:
        models, card, device = self._models, self.model.value(), self.device.currentText()
        volumes = [volume, *(layers.volume_of(box.value()) for box in self.images.values())]

        def work(progress: Progress) -> Segmentation:
            progress(Step("load model", 0, 0))
            return segment(volumes, models.load(card.name, device), progress=progress)

        return work

    def _show(self, segmentation: Segmentation) -> None:
        """Show a result that has just been made, in place of the same model's last one in this scan."""
        scan = self._scan_of_run()
        before = None if scan is None else self._made_by(segmentation.run.model, scan.metadata["volume"])
        if before is not None:
            self._viewer.layers.remove(before)
        self._viewer.add_layer(Layer.create(*layers.labels(segmentation, scan)))
        self._show_result()

    def _labels(self) -> Labels | None:
        """The layer that the chosen model made of the chosen scan."""
        volume = self._volume()
        card: ModelCard | None = self.model.value()
        return None if volume is None or card is None else self._made_by(card.name, volume)

    def _made_by(self, model: str, volume: Volume) -> Labels | None:
        return layers.segmentation_of(self._viewer.layers, volume, model)

    def _show_result(self) -> None:
        """Fill the table with what the chosen model segmented in the chosen scan."""
        drawn = self._labels()
        segmentation: Segmentation | None = None if drawn is None else drawn.metadata["segmentation"]
        self.table.show_structures(() if segmentation is None else segmentation.found)
        self.summary.setText("" if segmentation is None else _summary(segmentation))

    def _centre_on(self, row: int) -> None:
        drawn = self._labels()
        if drawn is not None:
            label = drawn.metadata["segmentation"].found[row].label
            drawn.selected_label = label
            centre_on(self._viewer, layers.middle_of(drawn, label))


def _misfit(image: Image, scan: Image, card: ModelCard) -> str:
    """Why a layer cannot be read together with the scan; empty where it can."""
    volume: Volume = image.metadata["volume"]
    if not volume.grid.same_place(scan.metadata["volume"].grid):
        return f"{image.name} does not lie on the grid of {scan.name}, voxel on voxel."
    reasons = card.input.refusals(volume)
    return f"{image.name} is not for this model: {'; '.join(reasons)}." if reasons else ""


def _summary(segmentation: Segmentation) -> str:
    run, found = segmentation.run, {structure.label for structure in segmentation.found}
    absent = [name for label, name in segmentation.names.items() if label not in found]
    named = ", ".join([*absent[:_NAMED], *(["..."] if len(absent) > _NAMED else [])])
    lines = [f"{told(segmentation)} ({run.model} {run.model_version}, {run.device})", *run.notes]
    return "\n".join([*lines, f"Not found: {named}."] if found and absent else lines)
