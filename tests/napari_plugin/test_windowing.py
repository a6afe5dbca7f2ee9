"""Presets, keys and dragging change the window and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Layer
from napari.layers._layer_actions import _convert_to_labels, _project, _split_stack
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from tests.napari_plugin.scans import scan
from tomolens.core.volume import Unit, Volume
from tomolens.napari_plugin import layers, windowing
from tomolens.napari_plugin.hanging import hang
from tomolens.napari_plugin.window_widget import WindowWidget

pytestmark = pytest.mark.gui


KNOWN = {"Lung": (-600, 1500), "Mediastinum": (50, 350), "Bone": (400, 1800), "Brain": (40, 80), "Liver": (30, 150)}


@pytest.fixture
def image(viewer):
    hang(viewer)
    return viewer.add_layer(Layer.create(*layers.image(scan())))


def test_what_napari_makes_of_a_scan_is_no_scan(viewer, image, messages):
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Reconstruct")
    image.projection_mode = "none"  # the only one that labels have too: napari would warn
    for make in (_convert_to_labels, _project, _split_stack):
        if image not in viewer.layers:
            viewer.layers.append(image)
        viewer.layers.selection.active = image
        make(viewer.layers)
        assert layers.scans(viewer.layers) == [image] * (image in viewer.layers)
    assert not [message for message in messages if "units" not in message]
    refused = [widget.scan._reason(row) for row in range(widget.scan.count()) if widget.scan.itemData(row) is not image]
    assert refused
    assert all("was cropped or resampled" in reason for reason in refused)
    assert viewer.canvas.overlays["tomolens_window"].text == ""


def mr():
    volume = scan()
    return Volume(volume.voxels.astype(np.float32), volume.grid, Unit.ARBITRARY, "MR")


def drag(viewer, qtbot, *stops, button=Qt.MouseButton.RightButton):
    """Press at the first stop, move over the others, release: as Qt reports it."""
    canvas, nothing = viewer.window._qt_viewer.canvas.native, Qt.MouseButton.NoButton

    def send(kind, stop, changed, held):
        place = QPointF(*stop)
        event = QMouseEvent(kind, place, canvas.mapToGlobal(place), changed, held, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(canvas, event)
        qtbot.wait(20)  # napari looks at the mouse every 5 ms

    send(QEvent.Type.MouseButtonPress, stops[0], button, button)
    for stop in stops[1:]:
        send(QEvent.Type.MouseMove, stop, nothing, button)
    send(QEvent.Type.MouseButtonRelease, stops[-1], button, nothing)


def test_a_ct_opens_in_the_lung_window_and_says_so_on_the_canvas(viewer, image):
    assert windowing.window_of(image) == KNOWN["Lung"]
    caption = viewer.canvas.overlays["tomolens_window"]
    assert caption.visible
    assert caption.text == "W 1500  L -600"


def test_each_preset_has_a_key_and_a_button(viewer, image, qtbot):
    widget = WindowWidget(viewer)
    qtbot.addWidget(widget)
    assert [preset.name for preset in windowing.PRESETS] == list(KNOWN)
    for preset, button in zip(windowing.PRESETS, widget._presets, strict=True):
        center, width = KNOWN[button.text()]
        press(viewer, preset.key)
        assert windowing.window_of(image) == (center, width)
        windowing.set_window(image, 0, 100)
        button.click()
        assert windowing.window_of(image) == (center, width)
        assert f"W {width}  L {center}" in widget._caption.text()
        assert f"(key {preset.key})" in button.toolTip()


def press(viewer, key):
    viewer.window._qt_viewer.canvas._scene_canvas.events.key_press(key=vispy_key(key), modifiers=(), text="")


def vispy_key(name):
    from vispy.util import keys

    return getattr(keys, name)


def test_dragging_to_the_right_with_the_right_button_widens_and_up_brightens(viewer, image, qtbot):
    drag(viewer, qtbot, (200, 200), (230, 200), (260, 200))
    center, width = windowing.window_of(image)
    assert center == -600
    assert width == pytest.approx(1500 * 1.2)
    drag(viewer, qtbot, (200, 200), (200, 180), (200, 140))
    assert windowing.window_of(image)[0] == pytest.approx(-600 - 0.2 * width)
    assert windowing.window_of(image)[1] == pytest.approx(width)
    assert viewer.canvas.overlays["tomolens_window"].text == "W 1800  L -960"


def test_dragging_far_to_the_left_never_turns_the_window_inside_out(viewer, image, qtbot):
    drag(viewer, qtbot, (600, 200), (300, 200), (5, 200))
    assert windowing.window_of(image)[1] > 0


def test_the_camera_holds_still_while_windowing_and_is_free_again_afterwards(viewer, image, qtbot):
    camera = viewer.scene.camera
    zoom, center = camera.zoom, camera.center
    drag(viewer, qtbot, (200, 200), (240, 240), (260, 150))
    assert camera.zoom == zoom
    assert camera.center == center
    assert camera.mouse_pan
    drag(viewer, qtbot, (200, 200), (220, 200), (260, 200), button=Qt.MouseButton.LeftButton)
    viewer.window._qt_viewer.canvas.on_draw()  # tells the model what the camera did
    assert camera.center != center
    assert windowing.window_of(image)[1] == pytest.approx(1500 * 1.2)


def test_right_dragging_without_a_scan_is_left_to_napari(viewer, qtbot):
    hang(viewer)
    cells = viewer.add_image(np.random.default_rng(0).random((5, 60, 60)))
    limits, zoom = tuple(cells.contrast_limits), viewer.scene.camera.zoom
    drag(viewer, qtbot, (200, 200), (200, 220), (200, 260))
    viewer.window._qt_viewer.canvas.on_draw()  # tells the model what the camera did
    assert tuple(cells.contrast_limits) == limits
    assert viewer.scene.camera.zoom != zoom


def test_windowing_acts_on_the_selected_scan_else_on_the_topmost_visible_one(viewer, image):
    top = viewer.add_layer(Layer.create(*layers.image(mr())))
    viewer.add_points(np.zeros((1, 3)))
    assert windowing.windowed_layer(viewer) is top
    viewer.layers.selection.active = image
    assert windowing.windowed_layer(viewer) is image
    viewer.layers.selection.clear()
    top.visible = False
    assert windowing.windowed_layer(viewer) is image


def test_presets_are_in_hu_and_leave_an_mr_alone(viewer, qtbot):
    hang(viewer)
    image = viewer.add_layer(Layer.create(*layers.image(mr())))
    before = windowing.window_of(image)
    widget = WindowWidget(viewer)
    qtbot.addWidget(widget)
    assert not any(button.isEnabled() for button in widget._presets)
    press(viewer, "F2")
    assert windowing.window_of(image) == before


def test_the_window_caption_follows_the_layer_that_is_shown(viewer, image, qtbot):
    widget = WindowWidget(viewer)
    qtbot.addWidget(widget)
    image.contrast_limits = (-100, 100)
    assert "W 200  L 0" in widget._caption.text()
    viewer.layers.clear()
    assert "No scan" in widget._caption.text()
    assert not viewer.canvas.overlays["tomolens_window"].visible


def test_the_planes_have_buttons(viewer, image, qtbot):
    widget = WindowWidget(viewer)
    qtbot.addWidget(widget)
    for button, order in zip(widget._planes, ((0, 1, 2), (1, 0, 2), (2, 0, 1)), strict=True):
        button.click()
        assert tuple(viewer.dims.order) == order


def test_hanging_a_viewer_twice_changes_nothing(viewer, image):
    callbacks, overlays = len(viewer.mouse_drag_callbacks), set(viewer.canvas.overlays)
    hang(viewer)
    assert len(viewer.mouse_drag_callbacks) == callbacks
    assert set(viewer.canvas.overlays) == overlays
