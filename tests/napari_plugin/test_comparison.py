"""Two images are compared in three ways, and afterwards everything is as it was."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Layer
from qtpy.QtCore import Qt

from tests.napari_plugin.scans import scan
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.compare_panel import KEY, ComparePanel
from tomolens.napari_plugin.comparison import Mode
from tomolens.napari_plugin.lazy_arrays import Blended, Swiped
from tomolens.napari_plugin.orientation import show_plane

pytestmark = pytest.mark.gui


def numbers(seed, shape=(4, 5, 6)):
    return np.random.default_rng(seed).integers(0, 100, shape, np.int16)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    "index", [(2,), (slice(None), 3), (slice(None), slice(None), 4), (1, slice(1, 4)), (3, 2, 1), ()]
)
def test_a_swipe_is_one_array_up_to_its_line_and_the_other_beyond_however_it_is_sliced(axis, index):
    left, right = numbers(0), numbers(1)
    swiped = Swiped(left, right)
    swiped.divide(axis, 0.5)
    whole = right.copy()
    first = (slice(None),) * axis + (slice(0, round(left.shape[axis] / 2)),)
    whole[first] = left[first]
    np.testing.assert_array_equal(swiped[index], whole[index])
    np.testing.assert_array_equal(np.asarray(swiped), whole)


@pytest.fixture
def pair(viewer):
    """A scan, a result and a map over it that is seen."""
    before = viewer.add_layer(Layer.create(*layers.image(scan())))
    after = viewer.add_layer(Layer.create(*layers.image(scan().with_voxels(scan().voxels // 2, "halved"))))
    viewer.add_image(np.zeros(before.data.shape), name="map", metadata={"map": None})
    viewer.add_points(np.zeros((1, 3)), name="findings")
    return before, after


@pytest.fixture
def panel(viewer, pair, qtbot):
    panel = ComparePanel(viewer)
    qtbot.addWidget(panel)
    panel.compare(pair[1], [pair[0]])
    return panel


def seen(viewer):
    return [layer.name for layer in viewer.layers if layer.visible]


def click(panel, qtbot, mode):
    qtbot.mouseClick(panel.buttons[mode], Qt.MouseButton.LeftButton)


def test_one_key_flips_between_the_two_and_says_which_is_seen(viewer, pair, panel):
    before, after = pair
    press = viewer.keymap[next(key for key in viewer.keymap if str(key) == KEY)]
    press(viewer)
    assert (before.visible, after.visible) == (True, False)
    assert before.name in panel.hint.text()
    assert before.name_overlay.visible
    press(viewer)
    assert (before.visible, after.visible) == (False, True)
    assert "map" not in seen(viewer)
    assert "findings" in seen(viewer)


def test_side_by_side_is_a_grid_of_the_two_alone_with_the_input_on_the_left(viewer, pair, panel, qtbot):
    zoom = viewer.scene.camera.zoom
    click(panel, qtbot, Mode.SIDE)
    assert viewer.canvas.grid.enabled
    assert set(seen(viewer)) == {layer.name for layer in pair}
    assert viewer.scene.camera.zoom == zoom / 2, "each has half the room"
    order = list(viewer.layers)
    assert viewer.canvas.grid.actual_shape(order) == (1, 2)
    assert [viewer.canvas.grid.position(order.index(layer), order) for layer in pair] == [(0, 0), (0, 1)]
    viewer.layers.move(order.index(pair[0]), len(order))
    click(panel, qtbot, Mode.OFF)
    click(panel, qtbot, Mode.SIDE)
    order = list(viewer.layers)
    assert [viewer.canvas.grid.position(order.index(layer), order) for layer in pair] == [(0, 0), (0, 1)]


@pytest.mark.parametrize("plane", ["Axial", "Coronal", "Sagittal"])
def test_a_swipe_shows_the_input_on_the_left_of_the_screen_in_every_plane(viewer, pair, panel, qtbot, plane):
    before, after = pair
    show_plane(viewer, plane)
    click(panel, qtbot, Mode.SWIPE)
    panel.slider.setValue(panel.slider.maximum() // 4)
    swipe = viewer.layers[-1]
    axis = viewer.dims.displayed[-1]
    line = round(after.data.shape[axis] / 4)
    np.testing.assert_array_equal(
        np.asarray(swipe.data),
        np.concatenate(
            [before.data.take(range(line), axis), after.data.take(range(line, after.data.shape[axis]), axis)], axis
        ),
    )
    np.testing.assert_allclose(swipe.data_to_world((1, 2, 3)), after.data_to_world((1, 2, 3)))
    after.contrast_limits = (0, 77)
    assert swipe.contrast_limits == [0, 77]


def test_a_swipe_follows_a_result_that_is_shown_at_another_strength(viewer, pair, panel, qtbot):
    before, after = pair
    click(panel, qtbot, Mode.SWIPE)
    panel.slider.setValue(panel.slider.maximum() // 4)
    swipe = viewer.layers[-1]
    line = swipe.data.first
    after.data = before.data // 3
    np.testing.assert_array_equal(np.asarray(swipe.data)[..., line:], after.data[..., line:])
    np.testing.assert_array_equal(np.asarray(swipe.data)[..., :line], before.data[..., :line])
    blended = Blended(before.data, after.data)
    after.data = blended
    drawn = []
    swipe.events.set_data.connect(lambda _event: drawn.append(True))
    blended.share = 0.5
    after.refresh()
    assert drawn
    np.testing.assert_allclose(np.asarray(swipe.data)[..., line:], np.asarray(after.data)[..., line:], atol=1)


@pytest.mark.parametrize("mode", [Mode.FLIP, Mode.SIDE, Mode.SWIPE])
def test_back_to_normal_everything_is_as_it_was(viewer, pair, panel, qtbot, mode):
    viewer.layers["findings"].visible = False

    def state():
        grid = viewer.canvas.grid
        named = [layer.name_overlay.visible for layer in viewer.layers]
        zoom = viewer.scene.camera.zoom
        return [layer.name for layer in viewer.layers], seen(viewer), named, grid.enabled, grid.shape, grid.stride, zoom

    was = state()
    click(panel, qtbot, mode)
    assert state() != was
    click(panel, qtbot, Mode.OFF)
    assert state() == was
    assert panel.comparison.mode is Mode.OFF


def test_from_one_way_to_the_next_nothing_is_left_behind(viewer, pair, panel, qtbot):
    names = [layer.name for layer in viewer.layers]
    for mode in (Mode.SWIPE, Mode.SIDE, Mode.FLIP, Mode.SWIPE, Mode.OFF):
        click(panel, qtbot, mode)
    assert [layer.name for layer in viewer.layers] == names
    assert not viewer.canvas.grid.enabled


def test_removing_one_of_the_two_ends_the_comparison(viewer, pair, panel, qtbot):
    click(panel, qtbot, Mode.SWIPE)
    viewer.layers.remove(pair[1])
    assert panel.comparison.mode is Mode.OFF
    assert panel.comparison.pair is None
    assert len(viewer.layers) == 3
    assert "map" in seen(viewer)


def test_images_on_different_grids_are_flipped_but_not_swiped(viewer, pair, panel):
    other = viewer.add_layer(Layer.create(*layers.image(scan().cropped((0, 0, 0), (20, 30, 30)))))
    panel.compare(pair[1], [other])
    assert not panel.buttons[Mode.SWIPE].isEnabled()
    assert panel.buttons[Mode.SIDE].isEnabled()


def test_the_flip_key_is_free():
    from napari.utils.shortcuts import default_shortcuts

    from tomolens.napari_plugin import windowing

    taken = {str(key) for keys in default_shortcuts.values() for key in keys}
    assert KEY not in taken | {preset.key for preset in windowing.PRESETS}
