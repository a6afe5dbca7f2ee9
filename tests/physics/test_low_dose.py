"""The laws of dose: variance grows with what is missing of it, means stay, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tomolens import Grid, Volume
from tomolens.core.errors import ContractError, OptionError
from tomolens.core.volume import Unit
from tomolens.physics.low_dose import KERNELS, low_dose
from tomolens.physics.noise import noise_frequency

SIZE = 96


def body(slices: int = 2, pixel_mm: float = 2.5) -> Volume:
    """An ellipse of water in air, wider than it is thick."""
    y, x = (np.arange(SIZE) - (SIZE - 1) / 2)[:, None] / 26, (np.arange(SIZE) - (SIZE - 1) / 2) / 40
    image = np.where(y**2 + x**2 < 1, 0, -1000).astype(np.int16)
    grid = Grid.from_axes((slices, SIZE, SIZE), (5.0, pixel_mm, pixel_mm), (0.0, 0.0, 0.0))
    return Volume(np.repeat(image[None], slices, axis=0), grid)


INSIDE = body().voxels > -500
MIDDLE = (slice(None), slice(38, 58), slice(30, 66))


def added(dose: float, kernel: str = "soft", **wishes: float) -> np.ndarray:
    volume = body()
    return low_dose(volume, dose, kernel, **{"photons": 2e4, **wishes}).voxels.astype(float) - volume.voxels


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_variance_grows_with_what_is_missing_of_the_dose(kernel: str) -> None:
    variances = {dose: added(dose, kernel, electronic=0)[INSIDE].var() for dose in (0.5, 0.25, 0.1)}
    for dose, variance in variances.items():
        assert variance / variances[0.5] == pytest.approx(1 / dose - 1, rel=0.03)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_mean_stays(kernel: str) -> None:
    assert abs(added(0.25, kernel)[INSIDE].mean()) < 0.5


def test_noise_is_strongest_where_the_rays_cross_most() -> None:
    """Along the long axis of the ellipse: streaks from left to right, and more in the middle than at the rim."""
    noise = added(0.1)
    across, down = (np.abs(np.diff(noise, axis=axis))[MIDDLE].mean() for axis in (2, 1))
    assert down > 1.15 * across
    assert noise[MIDDLE].std() > 1.15 * noise[:, 24:28, 44:52].std()


def test_electronics_add_noise_most_of_all_at_a_low_dose() -> None:
    without, with_it = (added(0.05, electronic=electronic)[INSIDE].std() for electronic in (0, 60))
    assert with_it > 1.1 * without


def test_a_sharper_kernel_gives_stronger_and_finer_noise() -> None:
    noises = {kernel: added(0.25, kernel) for kernel in KERNELS}
    strengths = [noises[kernel][MIDDLE].std() for kernel in ("soft", "ram-lak", "sharp")]
    assert strengths == sorted(strengths)
    fine = [noise_frequency(noises[kernel].astype(np.float32)) for kernel in ("soft", "sharp")]
    assert fine[0] < 0.8 * fine[1]


@pytest.mark.parametrize("electronic", [0.0, 2.0])
def test_the_scans_own_noise_tells_its_dose(electronic: float) -> None:
    """At half the dose the variance of quantum noise doubles: as much is added as there was."""
    own = added(0.5, photons=3e3, electronic=0)
    full = body().with_voxels((body().voxels + own).astype(np.int16), "noise")
    more = low_dose(full, 0.5, electronic=electronic, seed=7).voxels.astype(float) - full.voxels
    assert more[MIDDLE].std() == pytest.approx(own[MIDDLE].std(), rel=0.35)


def test_padding_is_untouched_and_the_history_says_what_was_done() -> None:
    voxels = body().voxels.copy()
    voxels[:, :8] = -2000
    padded = replace(body(), voxels=voxels, padding=-2000)
    noisy = low_dose(padded, 0.25, seed=3, photons=1e5)
    assert (noisy.voxels[:, :8] == -2000).all()
    assert noisy.grid == padded.grid
    assert noisy.history[-1].startswith("simulated low dose: 0.25 of the scan's, soft kernel, 1e+05 photons")
    assert "seed 3" in noisy.history[-1]


def test_noise_makes_no_air_to_padding() -> None:
    voxels = body().voxels.copy()
    voxels[:, :8] = -1024
    padded = replace(body(), voxels=voxels, padding=-1024)
    noisy = low_dose(padded, 0.1, photons=2e4)
    np.testing.assert_array_equal(noisy.voxels == -1024, voxels == -1024)


def test_the_same_seed_gives_the_same_scan_however_its_array_is_turned() -> None:
    turned = body().permuted((2, 0, 1)).flipped(1)
    one, other = (low_dose(volume, 0.25, seed=5, photons=1e5) for volume in (body(), turned))
    np.testing.assert_array_equal(one.canonical().voxels, other.canonical().voxels)
    assert (low_dose(body(), 0.25, seed=6, photons=1e5).voxels != one.voxels).any()


@pytest.mark.parametrize(
    ("wish", "wrong"),
    [
        ({"dose": 1.0}, "below 1, not 1.0"),
        ({"dose": 0.5, "kernel": "B30f"}, "kernel is 'B30f'; accepted are ram-lak, soft, sharp"),
        ({"dose": 0.5, "photons": -1.0}, "photons above 0"),
        ({"dose": 0.5}, "no noise that its dose could be told from"),
    ],
)
def test_what_cannot_be_meant_is_refused(wish: dict, wrong: str) -> None:
    with pytest.raises(OptionError, match=wrong):
        low_dose(body(), **wish)


def test_an_mr_image_has_no_dose() -> None:
    with pytest.raises(ContractError, match="dose is simulated for CT in HU"):
        low_dose(replace(body(), unit=Unit.ARBITRARY, modality="MR"), 0.5)
