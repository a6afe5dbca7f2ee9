"""Volumes and findings go to napari and come back as they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image, Layer, Points

from tests.core.grids import grids, numbered
from tests.napari_plugin.conftest import detection_in
from tests.napari_plugin.scans import ACQUIRED, scan
from tomolens.core.errors import FindingError, GeometryError
from tomolens.core.finding import Finding
from tomolens.core.grid import Grid
from tomolens.core.series import Series
from tomolens.core.volume import Volume
from tomolens.napari_plugin import layers
from tomolens.phantoms.markers import MARKER_HU, marker_centers


def image_of(volume):
    return Layer.create(*layers.image(volume))


def voxel_at(image, world):
    return image.data[tuple(np.round(image.world_to_data(world)).astype(int))]


def points_of(detection, image=None):
    return Layer.create(*layers.findings(detection, image))


@pytest.mark.parametrize("name", ACQUIRED)
def test_a_scan_is_shown_with_axes_to_the_head_the_back_and_the_left_however_it_was_acquired(name):
    volume = scan(name)
    image = image_of(volume)
    for side, center in marker_centers(volume.grid).items():
        shown = volume.canonical().grid.to_kji(center).round().astype(int)
        assert abs(int(image.data[tuple(shown)]) - MARKER_HU[side]) < 1, side
    assert volume.canonical().grid.axis_letters == layers.AXIS_LETTERS
    assert np.shares_memory(image.data, volume.voxels)


@pytest.mark.parametrize("name", [name for name in ACQUIRED if "tilted" not in name])
def test_the_world_under_the_mouse_is_the_patient_in_mm(name):
    volume = scan(name)
    image = image_of(volume)
    for side, center in marker_centers(volume.grid).items():
        z, y, x = center[::-1]
        assert voxel_at(image, (z, y, x)) == MARKER_HU[side]


def test_a_tilted_scan_is_shown_in_its_own_frame_and_its_findings_lie_on_the_right_voxels():
    volume = scan("axial, tilted gantry")
    image = image_of(volume)
    assert not layers.is_in_patient_frame(volume.grid)
    assert tuple(image.translate) == (0, 0, 0)
    assert image.metadata["volume"].grid.is_sheared
    found = tuple(Finding(tuple(c), 5.0, 0.9) for c in marker_centers(volume.grid).values())
    points = points_of(detection_in(volume, *found), image)
    for index, side in enumerate(marker_centers(volume.grid)):
        assert voxel_at(image, layers.center_of(points, index)) == MARKER_HU[side]


@given(grids())
def test_a_volume_comes_back_from_its_layer_as_the_very_same(grid):
    volume = Volume(numbered(grid), grid)
    data, attributes, _ = layers.image(volume)
    assert layers.volume_in(data, attributes["metadata"], "scan") is volume
    copied = layers.volume_in(data.copy(), attributes["metadata"], "scan")
    assert copied is volume


@given(grids())
def test_voxels_changed_in_napari_come_back_in_their_places_and_the_history_says_so(grid):
    volume = Volume(numbered(grid), grid)
    data, attributes, _ = layers.image(volume)
    back = layers.volume_in(np.asarray(data + 1), attributes["metadata"], "scan")
    np.testing.assert_array_equal(back.voxels, volume.voxels + 1)
    assert back.grid is volume.grid
    assert "changed in napari" in back.history[-1]


@given(grids(), st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=5))
def test_a_finding_is_drawn_on_its_voxel_whatever_the_grid(grid, places):
    volume = Volume(numbered(grid), grid)
    kji = np.array(places) * (np.array(grid.shape) - 1)
    found = [Finding(tuple(map(float, grid.to_mm(index))), 4.0, 0.9) for index in kji]
    data, attributes, _ = layers.findings(detection_in(volume, *found))
    shown = volume.canonical().grid
    _, frame, _ = layers.image(volume)
    drawn = (data * attributes["scale"] - frame["translate"]) / frame["scale"]
    expected = shown.to_kji([f.center_lps_mm for f in found])
    np.testing.assert_allclose(drawn, expected, atol=1e-6 * max(1, np.abs(expected).max()))


def test_a_layer_that_tomolens_did_not_open_is_refused_and_told_how_to_open_it():
    with pytest.raises(GeometryError, match=r"'cells'.*does not say where it lies.*reader Tomolens"):
        layers.volume_of(Image(np.zeros((4, 4, 4)), name="cells"))


def test_a_cropped_layer_is_refused_because_its_place_is_not_known():
    image = image_of(scan())
    with pytest.raises(GeometryError, match=r"\(10, 36, 32\) voxels where its scan has \(26, 36, 32\).*cropped"):
        layers.volume_in(image.data[:10], image.metadata, image.name)


def sizes_by_slice(volume, points, z_mm):
    model = ViewerModel()
    model.add_layer(image_of(volume))
    model.add_layer(points)
    shown = []
    for z in z_mm:
        model.dims.set_point(0, z)
        shown.append(float(points._view_size[0] * points.scale[0]) if len(points._view_size) else 0.0)
    return np.array(shown)


def test_a_finding_is_a_circle_that_shrinks_and_vanishes_with_the_slice_as_its_sphere_does():
    volume = scan()
    center = volume.grid.to_mm((13, 18, 16))
    points = points_of(detection_in(volume, Finding(tuple(center), 20.0, 0.9), Finding(tuple(center), 4.0, 0.2)))
    offsets = np.array([0, 3, 6, 8, 9.9, 10.1, 14, -6, -10.1])
    expected = 2 * np.sqrt(np.maximum(10.0**2 - offsets**2, 0))
    np.testing.assert_allclose(sizes_by_slice(volume, points, center[2] + offsets), expected, atol=1e-6)


def test_the_images_of_a_viewer_are_not_blurred_by_the_findings_in_it():
    model = ViewerModel()
    volume = scan()
    image = model.add_layer(image_of(volume))
    model.add_layer(points_of(detection_in(volume, Finding(tuple(volume.grid.to_mm((13, 18, 16))), 20.0, 0.9)), image))
    assert model.dims.thickness == (0, 0, 0)
    np.testing.assert_array_equal(image._slice.image.raw, image.data[model.dims.current_step[0]])


def test_the_sliders_keep_the_steps_of_the_scan():
    model = ViewerModel()
    volume = scan()
    image = model.add_layer(image_of(volume))
    before = model.dims.range
    model.add_layer(points_of(detection_in(volume, Finding(tuple(volume.grid.to_mm((13, 18, 16))), 2.0, 0.9)), image))
    assert model.dims.range == before
    assert model.dims.nsteps == image.data.shape


@pytest.mark.parametrize("diameter", [4.0, 9.0, 14.0])
def test_a_label_begins_outside_the_circle_of_its_finding(diameter):
    volume = scan()
    points = points_of(detection_in(volume, Finding(tuple(volume.grid.to_mm((13, 18, 16))), diameter, 0.9)))
    right_mm = points.text.translation[2] * points.scale[2]
    ring_mm = (points.size[0] / 2 + points.border_width[0]) * points.scale[2]
    assert right_mm > ring_mm, "text is drawn to the right of there"


@pytest.mark.parametrize("k", [6.0, 6.25, 6.5, 6.75])
def test_no_finding_falls_between_two_slices(k):
    grid = Grid.from_axes((12, 30, 30), (5.0, 1.0, 1.0))
    volume = Volume(numbered(grid), grid)
    points = points_of(detection_in(volume, Finding(tuple(grid.to_mm((k, 15, 15))), 3.0, 0.9)))
    assert (sizes_by_slice(volume, points, 5.0 * np.arange(12)) > 0).sum() >= 1


def three_findings(volume):
    center = volume.grid.to_mm((13, 18, 16))
    return [Finding(tuple(center + offset), 8.0, score) for offset, score in ((0, 0.9), (3, 0.6), (-3, 0.3))]


@pytest.mark.parametrize("ndisplay", [2, 3])
def test_the_threshold_hides_and_shows_findings_without_a_new_layer(ndisplay):
    volume = scan()
    model = ViewerModel()
    points = model.add_layer(points_of(detection_in(volume, *three_findings(volume))))
    model.dims.ndisplay = ndisplay
    for min_score, labels in ((0.95, []), (0.0, ["1: 0.90", "2: 0.60", "3: 0.30"]), (0.5, ["1: 0.90", "2: 0.60"])):
        detection = layers.set_threshold(points, min_score)
        assert detection.min_score == min_score
        assert list(points.text.values) == labels
        assert len(points.data) == len(detection) == len(labels)
        assert layers.detection_of(points) is detection


def test_no_findings_is_an_empty_layer_that_a_lower_threshold_fills():
    volume = scan()
    points = points_of(detection_in(volume, *three_findings(volume), min_score=1.0))
    assert len(points.data) == 0
    assert len(layers.set_threshold(points, 0.0)) == 3
    assert len(points_of(detection_in(volume)).data) == 0


def test_findings_moved_by_hand_are_no_longer_taken_for_what_was_found():
    volume = scan()
    points = points_of(detection_in(volume, *three_findings(volume)))
    points.data = points.data + 0.1
    with pytest.raises(FindingError, match="moved or removed by hand"):
        layers.detection_of(points)
    with pytest.raises(FindingError, match="holds no findings"):
        layers.detection_of(Points(np.zeros((1, 3))))


def test_findings_follow_a_scan_that_was_turned():
    volume = scan()
    image = image_of(volume)
    image.rotate = (0, 0, 90)
    points = points_of(detection_in(volume, *three_findings(volume)), image)
    index = volume.canonical().grid.to_kji(three_findings(volume)[0].center_lps_mm)
    np.testing.assert_allclose(layers.center_of(points, 0), image.data_to_world(index))


def test_findings_belong_to_the_volume_they_were_made_in_or_to_a_copy_of_the_same_series():
    volume, other = scan(), scan()
    image = image_of(volume)
    points = points_of(detection_in(volume, *three_findings(volume)), image)
    assert layers.findings_of([image, points], volume) is points
    assert layers.findings_of([image, points], other) is None  # the same grid proves nothing
    named = Series("1.2.3", "1.2", "CT", (), volume.shape, volume.spacing_mm)
    first, copy = replace(volume, series=named), replace(other, series=named)
    assert layers.is_of(detection_in(first), copy)
    assert layers.is_of(replace(detection_in(volume), volume=None), other)  # all that a file can say
