"""Regions drawn on the picture measure the input and the result, live."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Layer

from tests.napari_plugin.scans import acquired
from tomolens.core.volume import Volume
from tomolens.napari_plugin import layers, region_layer
from tomolens.napari_plugin.measure_panel import MeasurePanel
from tomolens.napari_plugin.orientation import show_plane

pytestmark = pytest.mark.gui


@pytest.fixture
def noisy():
    """Noise of 20 HU on a step from 0 to 100 HU half-way to the left, acquired sagittally."""
    grid = acquired("sagittal from the left")
    left = grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1))[..., 0]
    noise = np.random.default_rng(0).normal(0, 20, grid.shape)
    return Volume(np.rint(noise + 100 * (left > left.mean())).astype(np.int16), grid)


@pytest.fixture
def shown(viewer, noisy):
    return viewer.add_layer(Layer.create(*layers.image(noisy)))


@pytest.fixture
def panel(viewer, shown, qtbot):
    panel = MeasurePanel(viewer)
    qtbot.addWidget(panel)
    panel.show_images(shown, {"Input": shown.data, "half": shown.data // 2})
    return panel


def rows(panel):
    table = panel.table
    return [[table.item(row, n).text() for n in range(4)] for row in range(table.rowCount())]


def measured(panel, qtbot):
    with qtbot.waitSignal(panel._timer.timeout, timeout=5000):
        panel._later()
    return rows(panel)


@pytest.mark.parametrize("plane", ["Axial", "Coronal", "Sagittal"])
def test_a_new_region_lies_in_the_middle_of_the_view_on_the_slice_that_is_seen(viewer, shown, panel, plane):
    show_plane(viewer, plane)
    panel.add_button.click()
    (shapes,) = [layer for layer in viewer.layers if layer.name == region_layer.NAME]
    (region,) = region_layer.regions_in(shapes, shown).values()
    across = viewer.dims.order[0]
    assert region.axis == across
    world = [shapes.data_to_world(corner) for corner in shapes.data[0]]
    np.testing.assert_allclose([corner[across] for corner in world], viewer.dims.point[across])
    assert region.mask.sum() >= 16 * 16 - 40


def test_mean_and_standard_deviation_are_those_of_the_voxels_inside_in_every_image(viewer, shown, panel, qtbot):
    panel.add_button.click()
    (region,) = region_layer.regions_in(viewer.layers[region_layer.NAME], shown).values()
    inside = region.values(shown.data)
    half = region.values(shown.data // 2)
    assert measured(panel, qtbot) == [
        ["1", "Input", f"{inside.mean():.1f}", f"{inside.std(ddof=1):.1f}"],
        ["1", "half", f"{half.mean():.1f}", f"{half.std(ddof=1):.1f}"],
    ]


def test_the_numbers_follow_a_region_that_is_moved(viewer, shown, panel, qtbot):
    panel.add_button.click()
    before = measured(panel, qtbot)
    shapes = viewer.layers[region_layer.NAME]
    with qtbot.waitSignal(panel._timer.timeout, timeout=5000):
        shapes.data = [shapes.data[0] + (0, 0, 6)]
    assert rows(panel) != before


def test_shapes_that_are_no_longer_measured_in_are_no_longer_listened_to(viewer, shown, panel, qtbot):
    panel.add_button.click()
    first = viewer.layers[region_layer.NAME]
    viewer.add_shapes(None, ndim=3, name="others")
    panel._timer.stop()
    first.add_rectangles(first.data[0] + (0, 3, 3))
    assert not panel._timer.isActive()


def test_two_regions_on_either_side_of_the_step_have_its_contrast_by_its_noise(viewer, shown, panel, qtbot):
    panel.add_button.click()
    assert "add a second region" in panel.contrast.text() or measured(panel, qtbot)
    shapes = viewer.layers[region_layer.NAME]
    k, (top, bottom), columns = 5, (4, 28), ((1, 11), (14, 24))
    shapes.data = []
    boxes = [[(k, top, low), (k, bottom, low), (k, bottom, high), (k, top, high)] for low, high in columns]
    shapes.add_rectangles([np.array(box, float) for box in boxes])
    table = measured(panel, qtbot)
    assert [row[0] for row in table] == ["1", "1", "2", "2"]
    ratio = float(panel.contrast.text().partition("Input ")[2].partition(",")[0])
    assert ratio == pytest.approx(5, rel=0.15)
    assert list(shapes.features["region"]) == ["1", "2"]


def test_the_spectrum_of_the_first_region_is_drawn_for_each_image_and_a_small_one_has_none(viewer, shown, panel, qtbot):
    panel.add_button.click()
    measured(panel, qtbot)
    assert [line.get_label() for line in panel.plot.axes.lines] == ["Input", "half"]
    shapes = viewer.layers[region_layer.NAME]
    shapes.data = [np.array([(5, 4, 4), (5, 9, 4), (5, 9, 9), (5, 4, 9)], float)]
    measured(panel, qtbot)
    assert panel.plot.axes.lines == [] or len(panel.plot.axes.lines) == 0


def test_ellipses_count_and_what_is_no_region_is_left_out(viewer, shown, panel, qtbot):
    shapes = viewer.add_shapes(ndim=3, scale=shown.scale, translate=shown.translate)
    shapes.add_ellipses(np.array([(5, 4, 4), (5, 30, 4), (5, 30, 20), (5, 4, 20)], float))
    shapes.add_lines(np.array([(5, 4, 4), (5, 30, 4)], float))
    assert [row[0] for row in measured(panel, qtbot)] == ["1", "1"]


def test_without_a_result_there_is_nothing_to_measure(panel, qtbot):
    panel.add_button.click()
    assert measured(panel, qtbot) != []
    panel.show_images(None, {})
    panel.measure()
    assert rows(panel) == []
    assert not panel.add_button.isEnabled()
