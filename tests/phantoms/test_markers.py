"""The markers show every flip."""

import numpy as np
import pytest

from tomolens.core.errors import GeometryError
from tomolens.core.grid import Grid
from tomolens.phantoms.markers import MARKER_HU, found_markers, marked_volume, marker_centers

SHEARED = Grid((20, 24, 28), [[0.9, 0, 0.8, -5], [0, 0.7, 0, 3], [2.0, -0.2, 0.1, 40], [0, 0, 0, 1]])
SAGITTAL = Grid.from_axes((24, 30, 28), (1.2, 0.8, 0.9), (4, -9, 30), [(-1, 0, 0), (0, 0, -1), (0, 1, 0)])


@pytest.mark.parametrize("grid", [Grid.from_axes((16, 20, 24)), SHEARED, SAGITTAL])
def test_every_ball_is_found_on_its_side_of_the_patient(grid):
    found = found_markers(marked_volume(grid))
    assert set(found) == set(MARKER_HU)
    for side, center in marker_centers(grid).items():
        assert np.linalg.norm(found[side] - center) < max(grid.spacing_mm)
    assert found["L"][0] > found["R"][0]
    assert found["P"][1] > found["A"][1]
    assert found["S"][2] > found["I"][2]


def test_balls_stay_in_place_when_the_axes_are_permuted_and_flipped_but_move_when_only_the_voxels_are():
    volume = marked_volume(SAGITTAL)
    turned = volume.permuted((2, 0, 1)).flipped(1)
    for side, center in found_markers(volume).items():
        np.testing.assert_allclose(found_markers(turned)[side], center, atol=1e-9)
    mirrored = volume.with_voxels(volume.voxels[::-1], "mirrored by mistake")
    assert found_markers(mirrored)["L"][0] < found_markers(mirrored)["R"][0]


def test_a_grid_too_small_for_markers_is_refused():
    with pytest.raises(GeometryError, match="too small"):
        marked_volume(Grid.from_axes((4, 20, 20)))
