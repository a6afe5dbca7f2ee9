"""Known noise has a known standard deviation, contrast and spectrum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from tomolens.core.errors import OptionError
from tomolens.physics.roi import SMALLEST_SQUARE, Region, Statistics, contrast_to_noise, noise_power

SHAPE = (5, 40, 50)


def corners(axis, index, low, high):
    """Around a rectangle, as napari's Shapes hold it."""
    (a, b), (c, d) = low, high
    return np.insert(np.array([(a, b), (c, b), (c, d), (a, d)], float), axis, index, axis=1)


def noise(sd, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(0, sd, shape)


def test_a_region_holds_the_pixels_whose_centres_lie_in_it_on_its_plane_alone():
    voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    region = Region.between(corners(0, 2, (9.6, 19.6), (14.4, 30.4)), SHAPE)
    np.testing.assert_array_equal(region.values(voxels), voxels[2, 10:15, 20:31].ravel())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_region_may_lie_on_any_of_the_three_planes(axis):
    voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    region = Region.between(corners(axis, 3, (0.8, 1.8), (4.2, 9.2)), SHAPE)
    np.testing.assert_array_equal(region.values(voxels), voxels.take(3, axis)[1:5, 2:10].ravel())


def test_an_ellipse_has_its_own_area_and_a_turned_rectangle_keeps_its():
    shape = (1, 200, 200)
    upright = corners(0, 0, (50, 40), (150, 160))
    assert Region.between(upright, shape, ellipse=True).mask.sum() == pytest.approx(np.pi * 50 * 60, rel=0.01)
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    turned = upright.copy()
    turned[:, 1:] = (upright[:, 1:] - 100) @ turn.T + 100
    assert Region.between(turned, shape).mask.sum() == pytest.approx(100 * 120, rel=0.01)


def test_what_is_on_no_plane_outside_the_scan_or_without_area_is_refused():
    oblique = np.array([(0, 0, 0), (1, 9, 0), (1, 9, 9), (0, 0, 9)], float)
    with pytest.raises(OptionError, match="on one axial, coronal or sagittal plane"):
        Region.between(oblique, SHAPE)
    with pytest.raises(OptionError, match="on one axial"):
        Region.between(np.zeros((3, 3)), SHAPE)
    for outside in (corners(0, 7, (1, 1), (9, 9)), corners(0, 2, (90, 90), (99, 99))):
        with pytest.raises(OptionError, match="No pixel"):
            Region.between(outside, SHAPE)


@given(st.floats(0.5, 100), st.floats(-1000, 1000))
def test_known_noise_has_its_mean_and_standard_deviation(sd, mean):
    measured = Statistics.of(noise(sd, (100, 100)) + mean)
    assert measured.count == 10_000
    assert measured.mean == pytest.approx(mean, abs=0.05 * sd)
    assert measured.sd == pytest.approx(sd, rel=0.03)


def test_contrast_to_noise_is_that_of_two_known_regions_and_halves_with_twice_the_noise():
    def regions(sd):
        return Statistics.of(noise(sd, seed=1)), Statistics.of(noise(sd, seed=2) + 40)

    assert contrast_to_noise(*regions(10)) == pytest.approx(4, rel=0.05)
    assert contrast_to_noise(*regions(20)) == pytest.approx(2, rel=0.05)
    still = Statistics(9, 1.0, 0.0)
    assert contrast_to_noise(still, still) == 0
    assert contrast_to_noise(still, Statistics(9, 2.0, 0.0)) == np.inf


@given(st.integers(12, 40), st.integers(12, 40), st.floats(0.3, 3), st.floats(0.3, 3))
def test_the_integral_of_the_noise_power_spectrum_is_the_variance(rows, columns, dy, dx):
    patch = gaussian_filter(noise(25, (rows, columns)), 1) + 40
    assert noise_power(patch, (dy, dx)).variance == pytest.approx(patch.var(), rel=1e-9)


def test_white_noise_is_flat_at_its_variance_times_a_pixel_s_area_and_smoothing_takes_the_high_frequencies():
    patch = noise(30, (128, 128))
    white, smooth = noise_power(patch, (0.7, 0.7)), noise_power(gaussian_filter(patch, 1.5), (0.7, 0.7))
    rings = slice(5, 60)
    assert white.power[rings].mean() == pytest.approx(900 * 0.49, rel=0.05)
    assert white.per_mm.max() == pytest.approx(np.hypot(0.5, 0.5) / 0.7, rel=0.01)
    high = white.per_mm > 0.35
    assert smooth.power[high].sum() < 0.01 * white.power[high].sum()
    assert smooth.power[1:4].mean() > 0.7 * white.power[1:4].mean()


def test_a_pattern_of_one_frequency_stands_where_it_belongs():
    row = np.cos(2 * np.pi * 8 * np.arange(64) / 64)
    spectrum = noise_power(np.tile(row, (64, 1)), (0.5, 0.5))
    assert spectrum.per_mm[spectrum.power.argmax()] == pytest.approx(8 / 32, rel=0.05)


def test_the_square_for_a_spectrum_lies_in_the_middle_and_a_small_region_has_none():
    voxels = noise(1)
    region = Region.between(corners(0, 2, (5.6, 9.6), (25.4, 39.4)), SHAPE)
    np.testing.assert_array_equal(region.square(voxels), voxels[2, 6:26, 15:35])
    round_one = Region.between(corners(0, 2, (4.5, 9.5), (34.5, 39.5)), SHAPE, ellipse=True)
    square = round_one.square(voxels)
    assert square.shape[0] == square.shape[1]
    assert 30 / np.sqrt(2) - 2 <= len(square) <= 30 / np.sqrt(2) + 1
    side = SMALLEST_SQUARE - 1
    assert Region.between(corners(0, 2, (0, 0), (side - 1, side - 1)), SHAPE).square(voxels) is None
