"""Noise that was put on is the noise that is measured."""

from __future__ import annotations

import numpy as np
import pytest

from tomolens.physics.noise import LEAST_HU, noise_frequency, noise_level, noise_map, noise_spectrum, quiet_noise
from tomolens.physics.random_noise import Spectrum, random_level

MIDDLE = Spectrum(floor=0.05, cut=0.4, fall=2.0, streak=0.0, angle=0.0)
SMOOTH = Spectrum(floor=0.03, cut=0.2, fall=2.0, streak=0.0, angle=0.0)
SHARP = Spectrum(floor=0.05, cut=0.9, fall=4.0, streak=0.0, angle=0.0)


def water(noise: np.ndarray | float = 0.0) -> np.ndarray:
    return np.zeros((192, 192), np.float32) + np.float32(30) + noise


def drawn(spectrum: Spectrum, seed: int = 1) -> np.ndarray:
    return spectrum.noise((192, 192), np.random.default_rng(seed))


@pytest.mark.parametrize("spectrum", [SMOOTH, MIDDLE, SHARP])
def test_drawn_noise_has_the_standard_deviation_of_one_and_no_mean(spectrum: Spectrum) -> None:
    noise = spectrum.noise((8, 192, 192), np.random.default_rng(0))
    assert noise.std() == pytest.approx(1, rel=0.02)
    assert abs(noise.mean()) < 0.01


@pytest.mark.parametrize("spectrum", [SMOOTH, MIDDLE, SHARP])
@pytest.mark.parametrize("strength", [8.0, 30.0, 90.0])
def test_noise_is_measured_within_a_quarter_whatever_its_strength_and_kernel(
    spectrum: Spectrum, strength: float
) -> None:
    assert noise_level(water(strength * drawn(spectrum))) == pytest.approx(strength, rel=0.25)


def test_the_measure_grows_as_the_noise_does() -> None:
    one, two = (noise_map(water(strength * drawn(MIDDLE))) for strength in (20, 40))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-3)


def test_edges_and_vessels_are_not_taken_for_noise() -> None:
    image = water(10 * drawn(MIDDLE))
    image[:, 96:] -= 900
    image[20:170:24] += 700
    assert noise_level(image) < 14


def test_noise_that_grows_across_a_slice_is_mapped_so() -> None:
    ramp = np.linspace(10, 40, 192, dtype=np.float32)
    level = noise_map(water(ramp * drawn(MIDDLE)))
    assert level[:, 150:170].mean() / level[:, 20:40].mean() == pytest.approx(36 / 14.7, rel=0.25)


def test_air_alone_has_no_noise_and_is_no_error() -> None:
    air = np.full((64, 64), -1000, np.float32)
    np.testing.assert_array_equal(noise_map(air), np.float32(LEAST_HU))
    assert noise_level(air) == LEAST_HU
    assert noise_spectrum(air[None])[0].size == 0
    assert np.isnan(noise_frequency(air[None]))
    assert np.isnan(quiet_noise(air))


def test_a_sharper_kernel_has_finer_noise_and_its_spectrum_is_the_one_drawn() -> None:
    finenesses = [noise_frequency(water(20 * drawn(spectrum))[None]) for spectrum in (SMOOTH, MIDDLE, SHARP)]
    assert finenesses == sorted(finenesses)
    frequency, power = noise_spectrum(np.stack([water(20 * drawn(MIDDLE, seed)) for seed in range(6)]))
    law = (frequency + MIDDLE.floor) * np.exp(-((frequency / MIDDLE.cut) ** MIDDLE.fall))
    np.testing.assert_allclose(power[2:14], (law / law.mean())[2:14], rtol=0.25)


def test_quiet_noise_is_that_of_soft_tissue_alone() -> None:
    image = water(10 * drawn(MIDDLE))
    image[:, 96:] = -850 + 100 * drawn(SHARP)[:, 96:]
    assert quiet_noise(image) == pytest.approx(10, rel=0.3)


def test_a_drawn_level_is_smooth_and_around_one() -> None:
    levels = np.stack([random_level((64, 80), np.random.default_rng(seed)) for seed in range(40)])
    assert levels.min() > 0
    assert np.median(levels) == pytest.approx(1, abs=0.2)
    assert np.abs(np.diff(np.log(levels), axis=1)).max() < 0.4


def test_a_turned_slice_has_its_map_turned_not_shifted() -> None:
    ramp = np.linspace(5, 60, 192, dtype=np.float32)
    image = water(ramp * drawn(MIDDLE))
    there, back = noise_map(image), noise_map(image[:, ::-1])[:, ::-1]
    slope = (ramp[-1] - ramp[0]) / 191
    shift = float((there - back)[40:-40, 40:-40].mean()) / slope
    assert abs(shift) < 1  # of a pixel


@pytest.mark.parametrize("shape", [(2, 33, 17), (1, 5, 7), (3, 20, 64)])
def test_of_slices_too_small_for_a_spectrum_nothing_is_measured(shape: tuple[int, int, int]) -> None:
    assert np.isnan(noise_frequency(np.random.default_rng(0).normal(40, 20, shape).astype(np.float32)))
