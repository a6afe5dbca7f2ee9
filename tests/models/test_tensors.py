from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tomolens.core.grid import Grid
from tomolens.core.volume import Volume
from tomolens.models.tensors import isotropic, normalised

spacing = st.floats(0.4, 5.0)


def ramp(grid: Grid, axis: int) -> Volume:
    """A volume whose voxels say their own LPS coordinate."""
    places = grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1))
    return Volume(places[..., axis].astype(np.float32), grid)


@settings(max_examples=50)
@example((1.0625, 1.0, 1.0), 2)  # the output has as many slices as the input
@given(st.tuples(spacing, spacing, spacing), st.sampled_from([0, 1, 2]))
def test_every_resampled_voxel_lies_where_its_grid_says(spacing_mm: tuple[float, float, float], axis: int) -> None:
    volume = ramp(Grid.from_axes((12, 21, 17), spacing_mm, (7.0, -30.0, 210.0)), axis)
    cubic = isotropic(volume)
    expected = ramp(cubic.grid, axis)
    inner = volume.grid.to_kji(cubic.grid.to_mm(np.moveaxis(np.indices(cubic.shape), 0, -1)))
    whole = ((inner >= 0) & (inner <= np.array(volume.shape) - 1)).all(axis=-1)
    np.testing.assert_allclose(cubic.voxels[whole], expected.voxels[whole], atol=2e-3)
    assert cubic.spacing_mm == pytest.approx((1, 1, 1))


def test_a_tilted_scan_is_straightened_without_moving_anything() -> None:
    grid = Grid.from_axes((20, 30, 30), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    affine = grid.affine.copy()
    affine[1, 0] = 0.7
    tilted = Grid(grid.shape, affine)
    for axis in range(3):
        straight = isotropic(ramp(tilted, axis))
        kji = tilted.to_kji(straight.grid.to_mm(np.moveaxis(np.indices(straight.shape), 0, -1)))
        inside = ((kji >= 0) & (kji <= np.array(tilted.shape) - 1)).all(axis=-1)
        assert not straight.grid.is_sheared
        assert inside.sum() > 10_000
        np.testing.assert_allclose(straight.voxels[inside], ramp(straight.grid, axis).voxels[inside], atol=2e-3)


def test_the_window_is_clipped_and_scaled() -> None:
    hu = np.array([-3024, -1000, -300, 400, 3071], np.int16)
    torch.testing.assert_close(normalised(hu), torch.tensor([-1.0, -1.0, 0.0, 1.0, 1.0]))
