"""Detect lung nodules, as a user meets it in a real viewer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Layer
from qtpy.QtCore import Qt

from tests.napari_plugin.detecting import BrokenDetector, SlowDetector, click_row, found_in, points_in, rows, run
from tests.napari_plugin.scans import scan
from tomolens.core.finding import RESEARCH_USE
from tomolens.core.grid import Grid
from tomolens.core.volume import Volume
from tomolens.napari_plugin import layers
from tomolens.phantoms.markers import marker_centers
from tomolens.testing import FakeDetector

pytestmark = pytest.mark.gui


def test_run_shows_each_finding_with_its_score_and_a_table_surest_first(viewer, widget, volume, qtbot):
    run(widget, qtbot)
    (points,) = points_in(viewer)
    assert list(points.text.values) == ["1: 0.95", "2: 0.80", "3: 0.60"]
    assert [row[:3] for row in rows(widget)] == [["1", "0.95", "9.0"], ["2", "0.80", "9.0"], ["3", "0.60", "9.0"]]
    x, y, z = marker_centers(volume.grid)["L"]
    assert [float(cell) for cell in rows(widget)[0][-3:]] == [round(x, 1), round(y, 1), round(z, 1)]
    assert "3 findings with a score of at least 0.50, 2 below (fake 0.0.0, cpu)" in widget.summary.text()
    assert "Done in" in widget.panel.status.text()


def test_the_result_is_the_pipelines_own_detection_and_stays_in_the_layers_metadata(viewer, widget, volume, qtbot):
    run(widget, qtbot)
    detection = layers.detection_of(points_in(viewer)[0])
    assert detection.volume is volume
    assert detection.candidates == found_in(volume)
    assert detection.run.model == "fake"
    assert detection.run.options["min_score"] == 0.5


def test_research_use_only_is_said_in_the_widget_and_on_the_canvas_beside_results(viewer, widget, qtbot):
    notice = viewer.canvas.overlays["tomolens_notice"]
    assert not notice.visible
    run(widget, qtbot)
    assert notice.visible
    assert notice.text.split() == ["Research", "use", "only"]
    assert any(label.text() == RESEARCH_USE for label in widget.findChildren(type(widget.summary)))
    viewer.layers.remove(points_in(viewer)[0])
    assert not notice.visible
    assert rows(widget) == []


def test_the_threshold_is_live_without_running_again(viewer, widget, qtbot, shelf):
    run(widget, qtbot)
    loads = list(shelf.loaded)
    (points,) = points_in(viewer)
    for min_score, count in ((0.1, 5), (0.9, 1), (0.97, 0), (0.3, 4)):
        widget.threshold.setValue(min_score)
        assert len(rows(widget)) == len(points.data) == count
        assert layers.detection_of(points).min_score == pytest.approx(min_score)
        assert f"{count} finding" in widget.summary.text()
    assert points_in(viewer) == [points]
    assert shelf.loaded == loads


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_a_click_on_a_row_centres_every_view_on_the_finding(viewer, widget, volume, qtbot, order):
    run(widget, qtbot)
    viewer.dims.order = order
    click_row(widget, qtbot, 1)
    center = marker_centers(volume.grid)["P"][::-1]
    assert np.abs(np.array(viewer.dims.point) - center).max() <= max(volume.spacing_mm) / 2
    shown = list(viewer.dims.displayed)
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], center[shown])
    viewer.scene.camera.center = (0, 0, 0)
    click_row(widget, qtbot, 1)  # the same row again brings it back
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], center[shown])


def test_cancel_stops_within_one_window_and_leaves_no_result(viewer, widget, volume, qtbot, shelf):
    slow = shelf.detector = SlowDetector(found_in(volume), windows=1000)
    qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(slow.reached) >= 3, timeout=5000)
    assert widget.panel.busy
    assert not widget.panel.run_button.isEnabled()
    before = len(slow.reached)
    qtbot.mouseClick(widget.panel.cancel_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not widget.panel.busy, timeout=5000)
    assert len(slow.reached) <= before + 1
    assert widget.panel.status.text() == "Cancelled."
    assert points_in(viewer) == []
    shelf.detector = FakeDetector(found_in(volume))
    widget._models.load.cache_clear()
    run(widget, qtbot)
    assert len(points_in(viewer)) == 1


def test_a_refusal_is_one_message_without_a_traceback(viewer, widget, qtbot, shelf, messages):
    shelf.detector = BrokenDetector()
    qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: bool(messages) and not widget.panel.busy, timeout=5000)
    assert messages == ["The network needs about 9.1 GiB of free memory."]
    assert widget.panel.status.text() == "Not finished."
    assert widget.panel.run_button.isEnabled()


def test_a_bug_is_one_message_too(viewer, widget, qtbot, shelf, messages):
    shelf.detector = BrokenDetector(error=RuntimeError("shape mismatch"))
    qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: bool(messages) and not widget.panel.busy, timeout=5000)
    assert len(messages) == 1
    assert "shape mismatch" in messages[0]


def test_closing_the_dock_during_a_run_stops_it_and_waits(viewer, widget, volume, qtbot, shelf):
    slow = shelf.detector = SlowDetector(found_in(volume), windows=1000)
    qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(slow.reached) >= 2, timeout=5000)
    viewer.window.remove_dock_widget(widget)
    assert slow.left.is_set()
    assert points_in(viewer) == []


def test_hiding_the_dock_lets_the_run_go_on(viewer, widget, volume, qtbot, shelf):
    shelf.detector = SlowDetector(found_in(volume), windows=5)
    with qtbot.waitSignal(widget.panel.returned, timeout=10_000):
        qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
        widget.parent().hide()
    assert len(points_in(viewer)) == 1


def test_a_scan_that_is_closed_during_the_run_takes_nothing_down_with_it(viewer, image, widget, volume, qtbot, shelf):
    slow = shelf.detector = SlowDetector(found_in(volume), windows=6)
    with qtbot.waitSignal(widget.panel.returned, timeout=10_000):
        qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: len(slow.reached) >= 2, timeout=5000)
        viewer.layers.remove(image)
    assert layers.detection_of(points_in(viewer)[0]).volume is volume


def item(box, name):
    row = box.findText(name)
    return box._rows.item(row).isEnabled(), box.itemData(row, Qt.ItemDataRole.ToolTipRole)


def test_models_that_refuse_the_scan_are_grey_with_the_reason(viewer, widget):
    assert item(widget.model, "fake") == (True, "Marks the brightest voxel.")
    enabled, reason = item(widget.model, "fake-mr")
    assert not enabled
    assert "it is CT, the model takes MR" in reason
    assert widget.model.currentText() == "fake"


def test_imported_detectors_are_listed_and_models_that_segment_are_not(viewer, widget):
    assert [widget.model.itemText(row) for row in range(widget.model.count())] == ["fake", "fake-mr"]


def test_the_models_follow_the_scan_and_run_says_why_not(viewer, widget, volume, shelf):
    shelf.cards = shelf.cards[:1]
    thick = Volume(volume.voxels, Grid.from_axes(volume.shape, (10.0, 1.0, 1.0)))
    layer = viewer.add_layer(Layer.create(*layers.image(thick)))
    widget.scan.setCurrentIndex(widget.scan.findText(layer.name))
    assert not item(widget.model, "fake")[0]
    assert "its spacing is 10.00 mm, at most 6 mm will do" in item(widget.model, "fake")[1]


def test_a_layer_without_a_place_in_the_patient_is_grey_with_the_reason(viewer, widget):
    viewer.add_image(np.zeros((4, 5, 6)), name="cells")
    enabled, reason = item(widget.scan, "cells")
    assert not enabled
    assert "was not opened by Tomolens" in reason
    assert widget.scan.currentText() == "CT volume"


def test_without_a_scan_run_is_grey_and_says_what_to_open(viewer, shelf):
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Detect lung nodules")
    assert not widget.panel.run_button.isEnabled()
    assert "Open a chest CT" in widget.panel.status.text()
    viewer.add_layer(Layer.create(*layers.image(scan())))
    assert widget.panel.run_button.isEnabled()
    assert widget.panel.status.text() == ""


def test_running_again_replaces_the_findings_of_that_scan_alone(viewer, widget, volume, qtbot):
    run(widget, qtbot)
    other = viewer.add_layer(Layer.create(*layers.image(scan())))
    widget.scan.setCurrentIndex(next(n for n in range(widget.scan.count()) if widget.scan.itemData(n) is other))
    assert rows(widget) == []
    run(widget, qtbot)
    run(widget, qtbot)
    assert len(points_in(viewer)) == 2


def test_each_scan_shows_its_own_findings_and_threshold(viewer, image, widget, volume, qtbot):
    run(widget, qtbot)
    widget.threshold.setValue(0.9)
    other = viewer.add_layer(Layer.create(*layers.image(scan())))
    widget.scan.setCurrentIndex(next(n for n in range(widget.scan.count()) if widget.scan.itemData(n) is other))
    widget.threshold.setValue(0.3)
    widget.scan.setCurrentIndex(next(n for n in range(widget.scan.count()) if widget.scan.itemData(n) is image))
    assert widget.threshold.value() == pytest.approx(0.9)
    assert len(rows(widget)) == 1


def test_a_model_is_loaded_once_for_several_runs(viewer, widget, qtbot, shelf):
    run(widget, qtbot)
    run(widget, qtbot)
    assert shelf.loaded == [("fake", "auto")]
    widget.device.setCurrentText("cpu")
    run(widget, qtbot)
    assert shelf.loaded == [("fake", "auto"), ("fake", "cpu")]


def test_findings_cannot_be_dragged_away_by_a_slip_of_the_mouse(viewer, widget, qtbot):
    run(widget, qtbot)
    assert not points_in(viewer)[0].editable


def test_notes_of_the_run_are_shown(viewer, widget, volume, qtbot, shelf):
    class Noted(FakeDetector):
        def detect(self, volume, progress):
            found, made = super().detect(volume, progress)
            return found, replace(made, notes=("Out of memory on cuda:0; going on with the CPU.",))

    shelf.detector = Noted(found_in(volume))
    run(widget, qtbot)
    assert "going on with the CPU" in widget.summary.text()


def test_a_scan_that_was_changed_in_napari_is_read_as_it_is_and_the_run_says_so(viewer, image, widget, volume, qtbot):
    image.data = image.data // 2
    run(widget, qtbot)
    (points,) = points_in(viewer)
    detection = layers.detection_of(points)
    assert "voxels changed in napari" in detection.run.history
    assert len(rows(widget)) == 3


def test_a_cropped_scan_is_refused_with_one_message(viewer, image, widget, qtbot, messages):
    image.data = image.data[:5]
    qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    assert len(messages) == 1
    assert "cropped or resampled" in messages[0]


def test_a_renamed_layer_is_renamed_in_the_list(viewer, image, widget):
    image.name = "Baseline"
    assert widget.scan.currentText() == "Baseline"
