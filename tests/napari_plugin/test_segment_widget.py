"""Segment, as a user meets it in a real viewer."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from napari.layers import Labels, Layer
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor

from tests.cli import scans
from tests.napari_plugin.detecting import click_row, points_in, rows, run
from tests.napari_plugin.scans import ACQUIRED, scan
from tomolens.core.finding import RESEARCH_USE
from tomolens.core.label_picture import hex_colour
from tomolens.core.progress import Step
from tomolens.io.read import read_volume
from tomolens.io.segmentations import write_segmentation
from tomolens.napari_plugin import layers
from tomolens.phantoms.markers import MARKER_HU, marker_centers
from tomolens.pipelines.segment import segment
from tomolens.testing import FAKE_SEGMENTATION_CARD, FakeSegmenter

pytestmark = pytest.mark.gui

SIDES = dict(enumerate("ISPARL", start=1))
"""A label for each ball of the marked scan, from dark to bright."""


def one_for_each_ball():
    return FakeSegmenter(SIDES, {n: MARKER_HU[side] - 50 for n, side in SIDES.items()})


@dataclass
class SlowSegmenter(FakeSegmenter):
    """Takes its time over each window, and remembers how far it got."""

    reached: list[int] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    def segment(self, volume, progress):
        try:
            for done in range(self.windows):
                progress(Step("segment", done, self.windows))
                self.reached.append(done)
                time.sleep(0.05)
            return super().segment(volume, progress)
        finally:
            self.left.set()


@pytest.fixture
def widget(viewer, image, shelf):
    shelf.segmenter = one_for_each_ball()
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Segment")
    return widget


def labels_in(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, Labels)]


def label_at(layer, world):
    return int(layer.data[tuple(np.round(layer.world_to_data(world)).astype(int))])


def test_run_shows_one_labels_layer_named_after_the_model_and_a_table_with_volumes(viewer, widget, image, qtbot):
    run(widget, qtbot)
    (drawn,) = labels_in(viewer)
    assert drawn.name == "fake-thresholds in CT volume"
    assert [row[1:3] for row in rows(widget)] == [[str(n), side] for n, side in SIDES.items()]
    segmentation = layers.segmentation_in(drawn.data, drawn.metadata, drawn.name)
    assert [row[3] for row in rows(widget)] == [f"{s.volume_ml:.1f}" for s in segmentation.structures]
    assert "6 of the model's 6 structures were segmented. (fake-thresholds 0.0.0, cpu)" in widget.summary.text()
    assert segmentation.run.model == "fake-thresholds"
    assert segmentation.volume is image.metadata["volume"]


@pytest.mark.parametrize("name", ACQUIRED)
def test_each_structure_lies_on_the_voxels_that_it_was_segmented_in_however_the_scan_was_acquired(
    viewer, shelf, qtbot, name
):
    shelf.segmenter = one_for_each_ball()
    volume = scan(name)
    image = viewer.add_layer(Layer.create(*layers.image(volume)))
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Segment")
    run(widget, qtbot)
    (drawn,) = labels_in(viewer)
    for label, side in SIDES.items():
        np.testing.assert_array_equal(drawn.data == label, image.data == MARKER_HU[side])
        kji = volume.canonical().grid.to_kji(marker_centers(volume.grid)[side]).round()
        assert label_at(drawn, image.data_to_world(kji)) == label
    corner = np.array(image.data.shape) - 1
    np.testing.assert_allclose(drawn.data_to_world(corner), image.data_to_world(corner))
    np.testing.assert_allclose(drawn.data_to_world((0, 0, 0)), image.data_to_world((0, 0, 0)))
    assert np.shares_memory(drawn.data, layers.segmentation_in(drawn.data, drawn.metadata, "").labels)


def test_labels_follow_a_scan_that_was_moved_and_turned(viewer, widget, image, qtbot):
    image.translate = (5.0, 7.0, -3.0)
    image.rotate = (0, 0, 30)
    run(widget, qtbot)
    (drawn,) = labels_in(viewer)
    for index in ((0, 0, 0), (3, 20, 11)):
        np.testing.assert_allclose(drawn.data_to_world(index), image.data_to_world(index))


def test_colours_and_names_are_those_of_the_legend(viewer, widget, qtbot):
    run(widget, qtbot)
    (drawn,) = labels_in(viewer)
    for row, label in enumerate(SIDES):
        swatch = widget.table.item(row, 0).data(Qt.ItemDataRole.DecorationRole).name()
        assert swatch == QColor.fromRgbF(*(float(part) for part in drawn.get_color(label)[:3])).name()
        assert swatch == hex_colour(label)
    assert drawn.colormap.map(0)[3] == 0
    center = marker_centers(scan().grid)["R"][::-1]
    volume = layers.segmentation_in(drawn.data, drawn.metadata, "").structures[4].volume_ml
    assert f"5; name: R, volume: {volume:.1f} ml" in drawn.get_status(center, world=True)["value"]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_a_click_on_a_row_goes_to_the_middle_of_the_structure(viewer, widget, volume, qtbot, order):
    run(widget, qtbot)
    viewer.dims.order = order
    click_row(widget, qtbot, 4)
    center = marker_centers(volume.grid)["R"][::-1]
    assert np.abs(np.array(viewer.dims.point) - center).max() <= max(volume.spacing_mm)
    (drawn,) = labels_in(viewer)
    assert drawn.selected_label == 5
    assert label_at(drawn, viewer.dims.point) == 5


def test_cancel_stops_within_one_window_and_leaves_no_result(viewer, widget, qtbot, shelf):
    slow = shelf.segmenter = SlowSegmenter(windows=1000)
    qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(slow.reached) >= 3, timeout=5000)
    qtbot.mouseClick(widget.panel.cancel_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not widget.panel.busy, timeout=5000)
    assert widget.panel.status.text() == "Cancelled."
    assert labels_in(viewer) == []
    assert rows(widget) == []


def test_closing_the_dock_during_a_run_stops_it_and_waits(viewer, widget, qtbot, shelf):
    slow = shelf.segmenter = SlowSegmenter(windows=1000)
    qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(slow.reached) >= 2, timeout=5000)
    viewer.window.remove_dock_widget(widget)
    assert slow.left.is_set()
    assert labels_in(viewer) == []


def test_running_again_replaces_the_result_of_that_model_in_that_scan_alone(viewer, widget, qtbot, shelf):
    run(widget, qtbot)
    viewer.add_layer(Layer.create(*layers.image(scan())))
    assert rows(widget) != []
    other = next(n for n in range(widget.scan.count()) if widget.scan.itemText(n) != widget.scan.currentText())
    widget.scan.setCurrentIndex(other)
    assert rows(widget) == []
    run(widget, qtbot)
    run(widget, qtbot)
    assert len(labels_in(viewer)) == 2


def test_each_model_keeps_a_layer_of_its_own_and_the_table_shows_the_chosen_one_s(viewer, image, shelf, qtbot):
    second = FakeSegmenter({1: "bone"}, {1: 300.0}, card=replace(FAKE_SEGMENTATION_CARD, name="bones"))
    shelf.cards = (*shelf.cards, second.card)
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Segment")
    run(widget, qtbot)
    shelf.segmenter = second
    widget.model.setCurrentIndex(widget.model.findText("bones"))
    assert rows(widget) == []
    run(widget, qtbot)
    assert len(labels_in(viewer)) == 2
    assert [row[2] for row in rows(widget)] == ["bone"]
    widget.model.setCurrentIndex(widget.model.findText("fake-thresholds"))
    assert [row[2] for row in rows(widget)] == ["soft", "dense"]


def test_where_nothing_was_segmented_the_widget_says_so(viewer, widget, qtbot, shelf):
    shelf.segmenter = FakeSegmenter({1: "metal"}, {1: 9000.0})
    run(widget, qtbot)
    assert "Nothing was segmented" in widget.summary.text()
    assert rows(widget) == []
    assert len(labels_in(viewer)) == 1


def test_what_was_not_found_and_notes_of_the_run_are_named(viewer, widget, qtbot, shelf):
    class Noted(FakeSegmenter):
        def segment(self, volume, progress):
            drawn, made = super().segment(volume, progress)
            return drawn, replace(made, notes=("Out of memory on cuda:0; going on with the CPU.",))

    shelf.segmenter = Noted({1: "soft", 2: "dense", 3: "metal", 4: "wood"})
    run(widget, qtbot)
    assert "Not found: metal, wood." in widget.summary.text()
    assert "going on with the CPU" in widget.summary.text()


def test_models_that_do_not_fit_are_grey_with_the_reason(viewer, image, shelf):
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Segment")
    tips = {
        widget.model.itemText(row): (
            widget.model._rows.item(row).isEnabled(),
            widget.model.itemData(row, Qt.ItemDataRole.ToolTipRole),
        )
        for row in range(widget.model.count())
    }
    assert tips["fake-thresholds"] == (True, FAKE_SEGMENTATION_CARD.summary)
    assert not tips["fake-thresholds-mr"][0]
    assert "it is CT, the model takes MR" in tips["fake-thresholds-mr"][1]
    assert "fake" not in tips


class Adding(FakeSegmenter):
    """Reads three images together, and thinks most of the last."""

    def segment(self, volumes, progress):
        t1, t2, flair = volumes
        return super().segment(t1.with_voxels(t1.voxels + 2 * t2.voxels + 4 * flair.voxels, "added"), progress)


def test_a_model_that_reads_several_images_asks_for_each_and_lets_none_stand_for_two(viewer, shelf, qtbot):
    card = replace(
        FAKE_SEGMENTATION_CARD,
        name="brain",
        input=replace(FAKE_SEGMENTATION_CARD.input, channels=("T1", "T2", "FLAIR")),
    )
    shelf.cards, shelf.segmenter = (card,), Adding({1: "sum"}, {1: 6.5}, card=card)
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Segment")
    ones = scan().with_voxels(np.ones(scan().shape, np.int16), "ones")
    for name, volume in (("flair", ones), ("t2", ones), ("apart", scan("axial from the head")), ("t1", ones)):
        layer = viewer.add_layer(Layer.create(*layers.image(volume)))
        layer.name = name
    widget.scan.setCurrentIndex(widget.scan.findText("t1"))
    assert list(widget.images) == ["T2", "FLAIR"]
    assert "apart does not lie on the grid of t1" in str(widget.images["T2"].itemData(0, Qt.ItemDataRole.ToolTipRole))
    assert not widget.panel.run_button.isEnabled()
    assert widget.panel.status.text() == "t2 is chosen twice: choose the FLAIR image."
    widget.images["FLAIR"].setCurrentIndex(widget.images["FLAIR"].findText("flair"))
    assert widget.panel.run_button.isEnabled()
    run(widget, qtbot)
    (drawn,) = labels_in(viewer)
    assert drawn.name == "brain in t1"
    assert (drawn.data == 1).all()
    viewer.layers.remove("flair")
    assert not widget.panel.run_button.isEnabled()


def test_without_a_segmentation_model_the_widget_says_how_to_import_one(viewer, image, shelf):
    shelf.cards = shelf.cards[:1]
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Segment")
    assert not widget.panel.run_button.isEnabled()
    assert "tomolens models import" in widget.panel.status.text()


def test_structures_are_not_repainted_by_a_slip_of_the_mouse_and_research_use_is_said(viewer, widget, qtbot):
    notice = viewer.canvas.overlays["tomolens_notice"]
    assert not notice.visible
    run(widget, qtbot)
    (drawn,) = labels_in(viewer)
    assert not drawn.editable
    assert notice.visible
    assert any(label.text() == RESEARCH_USE for label in widget.findChildren(type(widget.summary)))
    viewer.layers.remove(drawn)
    assert not notice.visible
    assert rows(widget) == []


def test_segmenting_leaves_findings_and_their_widget_alone(viewer, widget, qtbot):
    _, detect = viewer.window.add_plugin_dock_widget("tomolens", "Detect lung nodules")
    run(detect, qtbot)
    run(widget, qtbot)
    assert len(points_in(viewer)) == len(labels_in(viewer)) == 1
    assert len(rows(detect)) == 1


def test_a_segmentation_of_the_command_line_opens_on_its_scan(viewer, tmp_path):
    folder = scans.ct(tmp_path / "ct")
    write_segmentation(segment(read_volume(folder), FakeSegmenter()), tmp_path / "labels")
    viewer.open(str(folder), plugin="tomolens")
    (image,) = layers.scans(viewer.layers)
    image.translate = (5.0, 6.0, 7.0)
    viewer.open(str(tmp_path / "labels" / "segmentation.json"), plugin="tomolens")
    (drawn,) = layers.segmentations_in(viewer.layers)
    np.testing.assert_array_equal(drawn.data == 2, image.data >= 450)
    np.testing.assert_allclose(drawn.data_to_world((1, 2, 3)), image.data_to_world((1, 2, 3)))
    assert not drawn.editable
