"""Detect lung nodules with the viewer on the screen: what is drawn, how it feels, what closing does."""

from __future__ import annotations

import time

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt, QTimer

from tests.napari_plugin.detecting import SlowDetector, click_row, found_in, points_in, run
from tomolens.phantoms.markers import marker_centers

pytestmark = pytest.mark.gui


@pytest.fixture
def viewer(shown_viewer):
    return shown_viewer


def test_the_circle_is_on_the_ball_on_the_screen(viewer, image, widget, volume, qtbot):
    image.interpolation2d = "nearest"
    image.contrast_limits = (0, 850)
    widget.threshold.setValue(0.9)
    run(widget, qtbot)
    click_row(widget, qtbot, 0)
    viewer.scene.camera.zoom = 12
    for name in viewer.canvas.overlays:
        viewer.canvas.overlays[name].visible = False
    points_in(viewer)[0].text.visible = False
    picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(float)
    middle = (np.array(picture.shape[:2]) - 1) / 2
    ball = np.argwhere(np.abs(picture - 255 * 700 / 850).max(axis=-1) < 3)
    ring = np.argwhere((picture[..., 0] > 180) & (picture[..., 2] < 90))
    assert np.abs(ball.mean(axis=0) - middle).max() < 12  # one voxel
    assert np.abs(ring.mean(axis=0) - middle).max() < 3
    assert np.linalg.norm(ring - middle, axis=1).max() == pytest.approx(9.0 / 2 * 12, rel=0.1)


def test_arrow_keys_walk_through_the_findings(viewer, widget, volume, qtbot):
    run(widget, qtbot)
    viewer.window._qt_window.activateWindow()
    widget.table.setFocus()
    qtbot.waitUntil(widget.table.hasFocus, timeout=5000)
    qtbot.keyClick(widget.table, Qt.Key.Key_Down)
    center = marker_centers(volume.grid)["P"][::-1]
    assert np.abs(np.array(viewer.dims.point) - center).max() <= max(volume.spacing_mm) / 2


def test_the_gui_stays_responsive_and_shows_stage_and_time_left(viewer, widget, volume, qtbot, shelf):
    shelf.detector = SlowDetector(found_in(volume), windows=12)
    ticks, texts = [], set()

    def tick():
        if widget.panel.busy:
            ticks.append(time.monotonic())
            texts.add(widget.panel.status.text())

    timer = QTimer()
    timer.timeout.connect(tick)
    timer.start(20)
    run(widget, qtbot)
    timer.stop()
    assert len(ticks) > 20
    assert max(np.diff(ticks)) < 0.5  # generous: the machine may be busy
    assert any("find nodules" in text and "s left" in text for text in texts), texts


def test_closing_the_viewer_during_a_run_stops_it(viewer, widget, volume, qtbot, shelf):
    slow = shelf.detector = SlowDetector(found_in(volume), windows=1000)
    qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(slow.reached) >= 2, timeout=5000)
    del widget
    viewer.close()
    qtbot.waitUntil(slow.left.is_set, timeout=5000)
    assert len(slow.reached) < 1000


def test_the_widget_fits_a_laptop_and_nothing_is_cut(viewer, widget, qtbot):
    run(widget, qtbot)
    viewer.window._qt_window.resize(1280, 720)
    qtbot.wait(50)
    assert widget.panel.run_button.mapTo(widget, QPoint(0, 0)).x() >= 0
    assert not widget.table.horizontalScrollBar().isVisible()
    for box in (widget.scan, widget.model, widget.device):
        assert box.height() >= box.fontMetrics().height()
