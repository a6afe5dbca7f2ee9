"""The denoiser that is shipped: bars that its weights must clear, on generated noise of kernels that differ."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tomolens import Grid, Volume
from tomolens.core.progress import silent
from tomolens.core.reconstruction import ReconstructOptions
from tomolens.models.reconstructor import Reconstructor, load_reconstructor
from tomolens.physics.random_noise import Spectrum

SIZE = 112
SOFT, LUNG = (slice(12, 100), slice(8, 40)), (slice(12, 100), slice(72, 104))
KERNELS = {
    "smooth": Spectrum(floor=0.03, cut=0.22, fall=2.0, streak=0.0, angle=0.0),
    "sharp": Spectrum(floor=0.05, cut=0.8, fall=3.0, streak=0.3, angle=0.4),
}
STRENGTH_HU = 35.0


@cache
def denoiser() -> Reconstructor:
    return load_reconstructor("ct-denoiser", device="cpu")


def anatomy() -> np.ndarray:
    """Soft tissue beside lung with a rib between: (3, row, column)."""
    image = np.full((3, SIZE, SIZE), 45, np.float32)
    image[..., 56:] = -860
    image[..., 50:56] = 500
    return image


def scan(image: np.ndarray, kernel: str, seed: int = 1) -> Volume:
    noise = STRENGTH_HU * KERNELS[kernel].noise(image.shape, np.random.default_rng(seed))
    voxels = np.rint(np.maximum(image + noise, -1024)).astype(np.int16)
    return Volume(voxels, Grid.from_axes(voxels.shape, (2.5, 0.8, 0.8), (0.0, 0.0, 0.0)))


def made(volume: Volume, uncertainty: bool = False):
    return denoiser().reconstruct(volume, ReconstructOptions(uncertainty=uncertainty), silent)


@cache
def plain(kernel: str):
    return made(scan(anatomy(), kernel), uncertainty=True)


def disc(row: int, column: int, radius: float, contrast: float) -> np.ndarray:
    distance = np.hypot(np.arange(SIZE)[:, None] - row, np.arange(SIZE) - column)
    return np.float32(contrast) / (1 + np.exp(np.clip((distance - radius) / 0.4, -30, 30)))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("tissue", [SOFT, LUNG], ids=["soft", "lung"])
def test_most_of_the_noise_goes_and_the_mean_stays(kernel: str, tissue: tuple[slice, slice]) -> None:
    before, after, true = (
        scan(anatomy(), kernel).voxels[1][tissue],
        plain(kernel).image[1][tissue],
        anatomy()[1][tissue],
    )
    assert after.std() < {"smooth": 0.5, "sharp": 0.28}[kernel] * before.std()
    assert after.mean() == pytest.approx(true.mean(), abs=3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("column", "radius", "contrast", "least"),
    [(88, 3.1, 880.0, 0.97), (88, 6.2, 250.0, 0.97), (24, 8.0, -60.0, 0.95), (24, 4.0, 40.0, 0.9)],
    ids=["nodule of 5 mm", "ground glass", "dark lesion", "small faint lesion"],
)
def test_a_lesion_keeps_its_contrast(kernel: str, column: int, radius: float, contrast: float, least: float) -> None:
    added = disc(56, column, radius, contrast)
    wounded = made(scan(anatomy() + added, kernel)).image[1] - plain(kernel).image[1]
    core = np.abs(added) > 0.9 * abs(contrast)
    assert wounded[core].mean() / added[core].mean() > least


def test_a_slice_that_is_turned_is_denoised_alike() -> None:
    volume = scan(anatomy(), "sharp")
    for turn in (lambda a: a[..., ::-1], lambda a: np.rot90(a, axes=(1, 2))):
        turned = made(volume.with_voxels(np.ascontiguousarray(turn(volume.voxels)), "turned")).image
        assert (turned - turn(plain("sharp").image))[1].std() < 0.25 * STRENGTH_HU


def test_most_errors_lie_within_twice_the_uncertainty() -> None:
    off = np.abs(plain("sharp").image - anatomy())[1] / plain("sharp").uncertainty[1]
    assert 0.5 < (off < 1).mean()
    assert 0.85 < (off < 2).mean()


def test_what_it_was_trained_on_is_known_and_such_a_scan_is_inside() -> None:
    assert set(denoiser().card.ranges) == {"noise_hu", "noise_frequency", "pixel_mm", "slice_mm"}
    assert all(check.inside for check in plain("sharp").checks)
