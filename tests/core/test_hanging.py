from __future__ import annotations

import numpy as np
import pytest

from tomolens.core.grid import Grid
from tomolens.core.hanging import Plane, standard_axes
from tomolens.phantoms.markers import MARKER_HU, marked_volume, marker_centers

UPRIGHT = Grid.from_axes((30, 40, 50), (2.0, 1.0, 0.8), (-20.0, -300.0, 55.0))
GRIDS = {
    "axial from the feet": UPRIGHT,
    "axial from the head": UPRIGHT.flipped(0),
    "prone": UPRIGHT.flipped(1).flipped(2),
    "coronal": UPRIGHT.permuted((1, 0, 2)),
    "coronal from the head": UPRIGHT.permuted((1, 0, 2)).flipped(1),
    "sagittal": UPRIGHT.permuted((2, 0, 1)).flipped(0),
    "columns first": UPRIGHT.permuted((0, 2, 1)).flipped(1),
    "mirrored": UPRIGHT.flipped(2),
}
HUNG = {"axial": "R L A P", "coronal": "R L S I", "sagittal": "A P S I"}


@pytest.fixture(params=GRIDS, ids=list(GRIDS))
def grid(request):
    return GRIDS[request.param]


def _planes(grid):
    middle = grid.to_mm((np.asarray(grid.shape) - 1) / 2)
    return {plane.name: plane for plane in (Plane.through(grid, axis, middle) for axis in standard_axes(grid))}


def test_the_three_planes_hang_as_a_radiologist_expects_however_the_array_lies(grid):
    for name, plane in _planes(grid).items():
        letters = plane.letters
        assert f"{letters.left} {letters.right} {letters.top} {letters.bottom}" == HUNG[name]


def test_the_ball_on_each_side_of_the_patient_is_drawn_beside_that_letter(grid):
    volume = marked_volume(grid)
    for plane in _planes(grid).values():
        pixels, letters = plane.pixels(volume.voxels), plane.letters
        balls = {side: np.argwhere(pixels == brightness) for side, brightness in MARKER_HU.items()}
        centers = {side: ball.mean(axis=0) / pixels.shape for side, ball in balls.items() if len(ball)}
        assert centers[letters.left][1] < 0.4
        assert centers[letters.right][1] > 0.6
        assert centers[letters.top][0] < 0.4
        assert centers[letters.bottom][0] > 0.6


def test_a_point_is_placed_on_the_pixel_that_shows_it(grid):
    volume = marked_volume(grid)
    for axis in range(3):
        for side, center in marker_centers(grid).items():
            plane = Plane.through(grid, axis, center)
            pixels, place = plane.pixels(volume.voxels), plane.place(center)
            height, width = plane.size_mm
            row, column = int(place.y_mm / height * pixels.shape[0]), int(place.x_mm / width * pixels.shape[1])
            assert pixels[row, column] == MARKER_HU[side]
            assert place.off_mm <= grid.spacing_mm[axis] / 2 + 1e-9


def test_a_field_is_the_wanted_square_with_its_point_in_the_middle(grid):
    for side, center in marker_centers(grid).items():
        for axis in range(3):
            plane = Plane.through(grid, axis, center, field_mm=24.0)
            place, pixels = plane.place(center), plane.pixels(marked_volume(grid).voxels)
            assert np.allclose(plane.size_mm, 24.0, atol=1.0)
            assert np.allclose((place.y_mm, place.x_mm), np.divide(plane.size_mm, 2), atol=1.01)
            assert pixels[pixels.shape[0] // 2, pixels.shape[1] // 2] == MARKER_HU[side]


def test_beyond_the_volume_a_field_is_as_dark_as_the_darkest_pixel_of_the_slice():
    volume = marked_volume(UPRIGHT)
    corner = Plane.through(UPRIGHT, 0, UPRIGHT.to_mm((15, 0, 0)), field_mm=20.0)
    pixels = corner.pixels(volume.voxels + np.int16(0))
    assert pixels.shape == (20, 25)
    assert (pixels == -1000).all()
    far = Plane.through(UPRIGHT, 0, UPRIGHT.to_mm((15, 500, -500)), field_mm=20.0)
    assert far.pixels(volume.voxels).shape == (20, 25)


def test_the_mean_along_an_axis_keeps_the_hanging_and_every_point_lies_on_it(grid):
    volume = marked_volume(grid)
    for axis in standard_axes(grid):
        plane = Plane(grid, axis, None)
        mean = plane.pixels(volume.voxels)
        assert mean.shape == Plane(grid, axis, 0).pixels(volume.voxels).shape
        assert plane.place(marker_centers(grid)["L"]).off_mm == 0.0
        assert "mean" in plane.caption


def test_a_picture_holds_no_reference_to_the_volume_it_was_cut_from():
    volume = marked_volume(UPRIGHT)
    for plane in (Plane(UPRIGHT, 0, 3), Plane.through(UPRIGHT, 1, (0, 0, 0), 20.0), Plane(UPRIGHT, 2, None)):
        assert not np.shares_memory(plane.pixels(volume.voxels), volume.voxels)
