from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from tests.core.grids import ORDERS, SPACINGS_MM, grids
from tomolens.core.errors import GeometryError
from tomolens.core.grid import Grid

AXES = st.integers(0, 2)
POINTS = st.tuples(*[st.floats(-50.0, 50.0)] * 3)


def corners(grid: Grid) -> np.ndarray[Any, Any]:
    """Indices of the eight outermost voxels."""
    return np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1).T


@given(grids(), POINTS)
def test_an_index_taken_to_mm_and_back_is_the_same_index(grid: Grid, kji: tuple[float, ...]) -> None:
    assert_allclose(grid.to_kji(grid.to_mm(kji)), kji, atol=1e-6)


@given(grids(), st.lists(POINTS, min_size=1, max_size=5))
def test_many_points_go_as_one_by_one(grid: Grid, points: list[tuple[float, ...]]) -> None:
    assert_allclose(grid.to_mm(points), [grid.to_mm(point) for point in points])
    assert_allclose(grid.to_kji(points), [grid.to_kji(point) for point in points])


def test_the_default_grid_grows_superior_posterior_left() -> None:
    grid = Grid.from_axes((30, 20, 10), (2.5, 0.7, 0.8), (-10.0, -20.0, -30.0))
    assert_allclose(grid.to_mm((1, 2, 3)), (-10 + 3 * 0.8, -20 + 2 * 0.7, -30 + 2.5))
    assert grid.axis_letters == ("S", "P", "L")
    assert grid.orientation == "axial"


@given(grids(), AXES, st.data())
def test_a_flip_leaves_every_voxel_where_it_is(grid: Grid, axis: int, data: st.DataObject) -> None:
    kji = np.array(data.draw(st.tuples(*[st.integers(0, n - 1) for n in grid.shape])))
    there = kji.copy()
    there[axis] = grid.shape[axis] - 1 - kji[axis]
    assert_allclose(grid.flipped(axis).to_mm(there), grid.to_mm(kji), atol=1e-6)
    assert grid.flipped(axis).flipped(axis).same_place(grid)


@given(grids(), ORDERS)
def test_a_permutation_leaves_every_voxel_where_it_is(grid: Grid, order: tuple[int, int, int]) -> None:
    permuted = grid.permuted(order)
    assert_allclose(permuted.to_mm(corners(grid)[:, list(order)]), grid.to_mm(corners(grid)), atol=1e-6)
    assert permuted.spacing_mm == tuple(grid.spacing_mm[axis] for axis in order)


@given(grids(), AXES)
def test_an_axis_counted_from_the_end_is_the_same_axis(grid: Grid, axis: int) -> None:
    assert grid.flipped(axis - 3).same_place(grid.flipped(axis))
    assert grid.permuted((-1, -3, -2)).same_place(grid.permuted((2, 0, 1)))


@pytest.mark.parametrize("axis", [3, -4])
def test_an_axis_that_is_not_there_is_refused(axis: int) -> None:
    with pytest.raises(IndexError):
        Grid.from_axes((2, 2, 2)).flipped(axis)


@given(grids(), st.tuples(*[st.integers(-5, 20)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_a_crop_keeps_places(grid: Grid, start: tuple[int, int, int], shape: tuple[int, int, int]) -> None:
    cropped = grid.cropped(start, shape)
    assert cropped.shape == shape
    assert_allclose(cropped.to_mm(corners(cropped)), grid.to_mm(corners(cropped) + start), atol=1e-6)


@given(grids(), SPACINGS_MM)
def test_respacing_keeps_the_outer_faces(grid: Grid, spacing_mm: tuple[float, float, float]) -> None:
    respaced = grid.respaced(spacing_mm)
    assert_allclose(respaced.spacing_mm, spacing_mm)
    assert_allclose(respaced.directions, grid.directions, atol=1e-9)
    assert_allclose(respaced.to_mm((-0.5, -0.5, -0.5)), grid.to_mm((-0.5, -0.5, -0.5)), atol=1e-6)
    for size, old, new, old_size in zip(respaced.shape, grid.spacing_mm, spacing_mm, grid.shape, strict=True):
        assert abs(size * new - old_size * old) <= new / 2 + 1e-9 or size == 1


@pytest.mark.parametrize("spacing_mm", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, np.nan), (np.inf, 1.0, 1.0)])
def test_a_spacing_that_is_not_a_length_is_refused(spacing_mm: tuple[float, float, float]) -> None:
    with pytest.raises(GeometryError, match="positive number of mm"):
        Grid.from_axes((4, 4, 4)).respaced(spacing_mm)


PLANES = {"LR": "sagittal", "PA": "coronal", "SI": "axial"}


def side_pair(letter: str) -> str:
    return next(pair for pair in PLANES if letter in pair)


@given(grids())
def test_each_pair_of_patient_sides_labels_one_axis(grid: Grid) -> None:
    pairs = [side_pair(letter) for letter in grid.axis_letters]
    assert sorted(pairs) == sorted(PLANES)
    assert grid.orientation == PLANES[pairs[0]]


@given(grids(), AXES)
def test_a_flip_turns_one_letter_round(grid: Grid, axis: int) -> None:
    turned = list(grid.axis_letters)
    turned[axis] = side_pair(turned[axis]).replace(turned[axis], "")
    assert list(grid.flipped(axis).axis_letters) == turned


@given(grids())
def test_a_grid_put_in_canonical_order_is_canonical(grid: Grid) -> None:
    order, flips = grid.canonical_order
    turned = grid.permuted(order)
    for axis in np.flatnonzero(flips):
        turned = turned.flipped(int(axis))
    assert turned.axis_letters == ("S", "P", "L")
    assert turned.canonical_order == ((0, 1, 2), (False, False, False))


def test_a_scan_at_45_degrees_has_one_canonical_order() -> None:
    half = 0.5**0.5
    tied = Grid.from_axes((3, 4, 5), directions=((0, 0, 1), (half, half, 0), (-half, half, 0)))
    other = tied.permuted((0, 2, 1))
    assert tied.canonical_order[0] == (0, 1, 2)
    assert other.canonical_order[0] == (0, 1, 2)


@pytest.mark.parametrize(
    ("directions", "letters", "orientation"),
    [
        (((1, 0, 0), (0, 0, -1), (0, 1, 0)), ("L", "I", "P"), "sagittal"),
        (((0, 1, 0), (0, 0, -1), (1, 0, 0)), ("P", "I", "L"), "coronal"),
        (((0, 0, -1), (0, 1, 0), (1, 0, 0)), ("I", "P", "L"), "axial"),
        (((0, 0.3, 0.95), (0, 0.95, -0.3), (1, 0, 0)), ("S", "P", "L"), "axial"),
    ],
)
def test_letters_name_the_side_each_index_grows_towards(
    directions: Any, letters: tuple[str, str, str], orientation: str
) -> None:
    grid = Grid.from_axes((5, 5, 5), directions=directions)
    assert grid.axis_letters == letters
    assert grid.orientation == orientation


@pytest.mark.parametrize("degrees", [0.0, 18.5, -30.0])
def test_a_gantry_tilt_is_measured_and_makes_the_grid_sheared(degrees: float) -> None:
    tilt = np.radians(degrees)
    grid = Grid.from_axes(
        (9, 5, 5), (3.0, 1.0, 1.0), directions=((0, np.sin(tilt), np.cos(tilt)), (0, 1, 0), (1, 0, 0))
    )
    assert grid.is_sheared is (degrees != 0)
    assert grid.tilt_degrees == pytest.approx(abs(degrees), abs=1e-6)


def test_directions_rounded_by_a_scanner_are_no_shear() -> None:
    grid = Grid.from_axes((9, 5, 5), directions=((0.000002, 0, 1), (0, 0.999999, 0.000314), (1, 0, 0)))
    assert not grid.is_sheared


@given(grids(), AXES)
def test_points_inside_the_outer_faces_are_contained_and_points_beyond_are_not(grid: Grid, axis: int) -> None:
    inside, beyond = np.zeros(3), np.zeros(3)
    inside[axis], beyond[axis] = grid.shape[axis] - 0.501, grid.shape[axis] - 0.499
    assert grid.contains(grid.to_mm([inside, beyond])).tolist() == [True, False]


def test_the_same_numbers_in_another_frame_of_reference_are_another_place() -> None:
    here = Grid.from_axes((4, 4, 4), frame_of_reference="1.2.3")
    assert here.same_place(Grid.from_axes((4, 4, 4), frame_of_reference="1.2.3"))
    assert not here.same_place(Grid.from_axes((4, 4, 4), frame_of_reference="1.2.4"))
    assert not here.same_place(Grid.from_axes((4, 4, 5), frame_of_reference="1.2.3"))
    assert not here.same_place(Grid.from_axes((4, 4, 4), origin_lps_mm=(0, 0, 0.1), frame_of_reference="1.2.3"))


@given(grids())
def test_a_slightly_turned_grid_is_the_same_place_only_within_tolerance(grid: Grid) -> None:
    affine = grid.affine.copy()
    affine[0, 3] += 0.5
    moved = Grid(grid.shape, affine, grid.frame_of_reference)
    assert not grid.same_place(moved)
    assert grid.same_place(moved, tolerance_mm=0.6)


def test_a_grid_of_micrometres_is_a_grid() -> None:
    assert Grid.from_axes((4, 4, 4), (1e-4, 1e-4, 1e-4)).spacing_mm == pytest.approx((1e-4, 1e-4, 1e-4))


@pytest.mark.parametrize("shape", [(0, 4, 4), (4, 4), (4, 4, 4, 1), (4, 4, 3.7), "abc", None])
def test_a_shape_that_is_not_three_sizes_is_refused_with_the_value(shape: Any) -> None:
    with pytest.raises(GeometryError, match="three sizes") as refusal:
        Grid(shape, np.eye(4))
    assert str(shape) in str(refusal.value)


@pytest.mark.parametrize(
    "affine",
    [
        np.eye(3),
        np.full((4, 4), np.nan),
        np.diag([1.0, 1.0, 1.0, 2.0]),
        np.diag([1.0, 0.0, 1.0, 1.0]),
        np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    ],
)
def test_an_affine_that_is_no_grid_is_refused(affine: Any) -> None:
    with pytest.raises(GeometryError, match="affine"):
        Grid((4, 4, 4), affine)


def test_a_grid_cannot_be_changed_and_does_not_change_with_its_source() -> None:
    affine = np.eye(4)
    grid = Grid((4, 4, 4), affine)
    affine[0, 3] = 99
    assert grid.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 1
