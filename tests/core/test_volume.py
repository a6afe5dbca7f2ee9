from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.core.grids import ORDERS, grids, numbered
from tomolens.core.errors import GeometryError
from tomolens.core.grid import Grid
from tomolens.core.series import Series
from tomolens.core.volume import Unit, Volume

volumes = grids().map(lambda grid: Volume(numbered(grid), grid))


def place_of(volume: Volume, value: int) -> np.ndarray:
    """The LPS point in mm of the one voxel that holds a value."""
    return volume.grid.to_mm(np.argwhere(volume.voxels == value)[0])


@given(volumes, st.data())
def test_each_value_stays_at_its_place_in_the_patient(volume: Volume, data: st.DataObject) -> None:
    value = data.draw(st.integers(0, volume.voxels.size - 1))
    order, axis = data.draw(ORDERS), data.draw(st.integers(-3, 2))
    place = place_of(volume, value)
    for same in (volume.permuted(order), volume.flipped(axis), volume.canonical()):
        assert_allclose(place_of(same, value), place, atol=1e-6)
        assert same.grid.frame_of_reference == volume.grid.frame_of_reference


@given(volumes, st.data())
def test_a_crop_holds_the_voxels_of_its_box_at_their_places(volume: Volume, data: st.DataObject) -> None:
    start = data.draw(st.tuples(*[st.integers(0, n - 1) for n in volume.shape]))
    shape = data.draw(st.tuples(*[st.integers(1, n - a) for n, a in zip(volume.shape, start, strict=True)]))
    cropped = volume.cropped(start, shape)
    first = int(cropped.voxels[0, 0, 0])
    assert cropped.shape == shape
    assert first == volume.voxels[start]
    assert_allclose(place_of(cropped, first), place_of(volume, first), atol=1e-6)


@given(volumes)
def test_a_canonical_volume_stays_as_it_is(volume: Volume) -> None:
    canonical = volume.canonical()
    again = canonical.canonical()
    assert canonical.grid.axis_letters == ("S", "P", "L")
    assert again.grid.same_place(canonical.grid)
    assert_array_equal(again.voxels, canonical.voxels)


def test_turning_and_cropping_copy_no_voxels() -> None:
    volume = Volume(np.zeros((4, 5, 6), np.int16), Grid.from_axes((4, 5, 6), directions=np.eye(3)))
    for view in (
        volume.canonical(),
        volume.permuted((2, 0, 1)),
        volume.flipped(1),
        volume.cropped((1, 1, 1), (2, 2, 2)),
    ):
        assert np.shares_memory(view.voxels, volume.voxels)


@pytest.mark.parametrize(("start", "shape"), [((-1, 0, 0), (2, 2, 2)), ((3, 0, 0), (2, 2, 2)), ((0, 0, 0), (4, 4, 7))])
def test_a_box_beyond_the_volume_is_refused_with_both_sizes(
    start: tuple[int, int, int], shape: tuple[int, int, int]
) -> None:
    volume = Volume(np.zeros((4, 5, 6), np.int16), Grid.from_axes((4, 5, 6)))
    with pytest.raises(GeometryError, match=re.escape("(4, 5, 6)")) as refusal:
        volume.cropped(start, shape)
    assert str(start) in str(refusal.value)


def test_voxels_that_do_not_fit_the_grid_are_refused() -> None:
    with pytest.raises(GeometryError, match=re.escape("(4, 5, 5) do not fit a grid of (4, 5, 6)")):
        Volume(np.zeros((4, 5, 5), np.int16), Grid.from_axes((4, 5, 6)))


def test_voxels_are_read_only_and_the_callers_array_stays_writeable() -> None:
    voxels = np.zeros((2, 2, 2), np.int16)
    volume = Volume(voxels, Grid.from_axes((2, 2, 2)))
    with pytest.raises(ValueError, match="read-only"):
        volume.voxels[0, 0, 0] = 1
    voxels[0, 0, 0] = 1


def test_new_voxels_keep_the_place_and_add_a_line_of_history() -> None:
    volume = Volume(np.zeros((2, 2, 2), np.int16), Grid.from_axes((2, 2, 2)), history=("read",))
    smoothed = volume.with_voxels(np.ones((2, 2, 2), np.float32), "smoothed, sigma 1 mm")
    assert smoothed.history == ("read", "smoothed, sigma 1 mm")
    assert smoothed.grid is volume.grid
    assert volume.history == ("read",)


def test_the_extent_reaches_from_outer_face_to_outer_face() -> None:
    volume = Volume(np.zeros((10, 20, 40), np.int16), Grid.from_axes((10, 20, 40), (2.5, 0.5, 0.5)))
    assert volume.extent_mm == (25.0, 10.0, 20.0)


def test_a_volume_is_named_by_its_series_and_else_by_its_modality() -> None:
    grid = Grid.from_axes((2, 2, 2))
    series = Series("1.2", "1.1", "MR", (), (2, 2, 2), (1, 1, 1), description="T2 axial")
    assert Volume(np.zeros((2, 2, 2)), grid, Unit.ARBITRARY, "MR", series).name == "T2 axial"
    assert Volume(np.zeros((2, 2, 2)), grid, Unit.ARBITRARY, "MR").name == "MR volume"


def test_the_notebook_shows_three_slices_and_says_size_spacing_and_unit() -> None:
    volume = Volume(np.zeros((4, 5, 6), np.int16), Grid.from_axes((4, 5, 6), (2.5, 0.7, 0.8)))
    html = volume._repr_html_()
    assert html.count("<svg") == 3
    assert "6 x 5 x 4 voxels of 0.80 x 0.70 x 2.50 mm, HU" in html


def test_the_notebook_escapes_what_a_header_says() -> None:
    series = Series("1.2", "1.1", "CT", (), (2, 2, 2), (1, 1, 1), description="<script>alert(1)</script>")
    volume = Volume(np.zeros((2, 2, 2), np.int16), Grid.from_axes((2, 2, 2)), series=series)
    assert "<script>" not in volume._repr_html_()
