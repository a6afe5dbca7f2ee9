from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tomolens.core.errors import ContractError, OptionError
from tomolens.core.grid import Grid
from tomolens.core.volume import Volume
from tomolens.phantoms.markers import MARKER_HU, marked_volume, marker_centers
from tomolens.physics.slices import (
    FACTORS,
    averaged,
    back_projected,
    bounded,
    check_slices,
    cubic,
    residual_share,
    thick,
    thin_grid,
)

AXIAL = ((0, 0, 1), (0, 1, 0), (1, 0, 0))
SAGITTAL = ((-1, 0, 0), (0, 0, -1), (0, 1, 0))
CORONAL = ((0, 1, 0), (0, 0, -1), (-1, 0, 0))


def smooth(shape: tuple[int, int, int]) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.float32(300) * ndimage.gaussian_filter(rng.standard_normal(shape), 2.0).astype(np.float32)


def centroids_mm(volume: Volume, radius_mm: float) -> np.ndarray:
    """(6, 3): the centre of brightness above air around each place of a marker."""
    points = volume.grid.to_mm(np.moveaxis(np.indices(volume.shape), 0, -1))
    above = volume.voxels.astype(float) + 1000
    weights = [
        np.where(np.linalg.norm(points - center, axis=-1) < radius_mm, above, 0)
        for center in marker_centers(volume.grid).values()
    ]
    return np.array([(points * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum() for weight in weights])


@pytest.mark.parametrize("factor", [2, 5])
@pytest.mark.parametrize("directions", [AXIAL, SAGITTAL, CORONAL])
def test_nothing_moves_in_the_patient_by_more_than_a_tenth_of_a_millimetre(factor: int, directions):
    scan = marked_volume(Grid.from_axes((60, 36, 40), (1.0, 1.0, 1.0), (-31.0, 12.0, 240.0), directions))
    slab = thick(scan, factor)
    thin = thin_grid(slab.grid, factor)
    assert thin.same_place(scan.grid)
    moved = centroids_mm(Volume(back_projected(slab.voxels, factor), thin), 10.0) - centroids_mm(scan, 10.0)
    assert np.linalg.norm(moved, axis=1).mean() < 0.1
    assert np.linalg.norm(moved.mean(axis=0)) < 0.05


@pytest.mark.parametrize("factor", FACTORS)
def test_a_thick_slice_lies_in_the_middle_of_its_thin_ones_on_any_grid(factor: int):
    grid = Grid.from_axes((4 * factor + 1, 6, 5), (0.7, 0.5, 0.6), (3.0, -8.0, 90.0), SAGITTAL)
    slab = thick(Volume(smooth(grid.shape), grid), factor)
    assert slab.shape == (4, 6, 5)
    for k in range(4):
        held = np.array([(n, 2, 3) for n in range(k * factor, (k + 1) * factor)])
        np.testing.assert_allclose(slab.grid.to_mm((k, 2, 3)), grid.to_mm(held).mean(axis=0), atol=1e-9)
    assert slab.history == (f"simulated: thick slices of {0.7 * factor:.4g} mm, each the mean of {factor}",)


@pytest.mark.parametrize("factor", FACTORS)
def test_the_mean_of_the_thin_slices_is_the_measured_slice(factor: int):
    measured = smooth((9, 12, 11))
    assert residual_share(back_projected(measured, factor), measured, factor) < 1e-5
    wild = np.random.default_rng(2).normal(0, 500, (9 * factor, 12, 11)).astype(np.float32)
    assert residual_share(back_projected(measured, factor, wild), measured, factor) < 1e-5


@pytest.mark.parametrize("factor", FACTORS)
def test_bounds_are_kept_and_the_measured_slices_too(factor: int):
    measured = np.clip(smooth((9, 12, 11)), -20, 25)
    wild = np.random.default_rng(2).normal(0, 60, (9 * factor, 12, 11)).astype(np.float32)
    made = bounded(back_projected(measured, factor, wild), measured, factor, -20, 25)
    assert -20 <= made.min() <= made.max() <= 25
    assert residual_share(made, measured, factor) < 1e-5


@pytest.mark.parametrize("method", [cubic, back_projected])
@pytest.mark.parametrize("factor", FACTORS)
def test_what_changes_evenly_along_the_slices_is_met_exactly_away_from_the_ends(method, factor: int):
    ramp = np.arange(24 * factor, dtype=np.float32)[:, None, None] * np.ones((1, 2, 3), np.float32)
    made = method(averaged(ramp, factor), factor)
    inner = slice(9 * factor, 15 * factor)
    np.testing.assert_allclose(made[inner], ramp[inner], atol=2e-3 * factor)


def test_an_even_image_stays_even_to_its_outermost_slice():
    even = np.full((5, 3, 4), -820, np.int16)
    for method in (cubic, back_projected):
        np.testing.assert_allclose(method(even, 4), -820, rtol=1e-5)


@pytest.mark.parametrize("factor", FACTORS)
def test_back_projection_is_nearer_to_the_thin_slices_than_the_spline(factor: int):
    truth = smooth((12 * factor, 16, 16))
    measured = averaged(truth, factor)
    spline, projected = (np.abs(method(measured, factor) - truth).mean() for method in (cubic, back_projected))
    assert projected < 0.95 * spline


def test_whole_numbers_stay_whole_numbers():
    scan = marked_volume(Grid.from_axes((24, 24, 24)))
    assert thick(scan, 3).voxels.dtype == np.int16
    assert int(thick(scan, 2).voxels.max()) <= MARKER_HU["L"]


@pytest.mark.parametrize(
    ("spacing_mm", "factor"), [((5.0, 0.7, 0.7), 5), ((2.5, 0.7, 0.7), 3), ((3.0, 1.0, 1.0), 2), ((9.0, 0.5, 0.5), 5)]
)
def test_the_factor_is_the_least_that_gives_thin_slices_and_at_most_five(spacing_mm, factor: int):
    assert check_slices(Grid.from_axes((9, 9, 9), spacing_mm), None) == factor


@pytest.mark.parametrize(
    ("spacing_mm", "why"),
    [((1.0, 1.0, 1.0), "as fine as its pixels"), ((0.8, 0.8, 5.0), "not the coarsest axis")],
)
def test_slices_that_are_thin_already_are_refused_with_the_reason(spacing_mm, why: str):
    with pytest.raises(ContractError, match=why):
        check_slices(Grid.from_axes((9, 9, 9), spacing_mm), 2)


def test_a_tilted_gantry_is_refused_with_its_angle():
    tilt = np.radians(18.5)
    directions = ((0, np.sin(tilt), np.cos(tilt)), (0, 1, 0), (1, 0, 0))
    with pytest.raises(ContractError, match=r"tilted gantry \(18\.5 degrees\)"):
        check_slices(Grid.from_axes((9, 9, 9), (5.0, 0.7, 0.7), directions=directions), 2)


def test_too_few_slices_are_refused():
    with pytest.raises(ContractError, match="at least 4"):
        check_slices(Grid.from_axes((3, 9, 9), (5.0, 0.7, 0.7)), 2)


@pytest.mark.parametrize("factor", [1, 6])
def test_a_factor_outside_two_to_five_is_refused(factor: int):
    with pytest.raises(OptionError, match="2 to 5"):
        thick(marked_volume(Grid.from_axes((24, 24, 24))), factor)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_padding_is_never_averaged_with_tissue(dtype):
    grid = Grid.from_axes((6, 4, 5))
    voxels = np.full(grid.shape, 40, dtype)
    voxels[:, 0] = -2000
    voxels[1, 1] = -2000
    made = thick(Volume(voxels, grid, padding=-2000.0), 3)
    assert set(np.unique(made.voxels)) == {-2000, 40}
    assert (made.voxels == -2000).any(axis=2).tolist() == [[True, True, False, False], [True, False, False, False]]
    assert made.voxels.dtype == dtype
