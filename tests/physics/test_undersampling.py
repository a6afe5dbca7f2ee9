from __future__ import annotations

import numpy as np
import pytest

from tomolens.core.errors import OptionError
from tomolens.core.grid import Grid
from tomolens.core.volume import Unit, Volume
from tomolens.physics.masks import MaskKind
from tomolens.physics.sense import zero_filled
from tomolens.physics.undersampling import invented_coils, simulated_kspace


def volume() -> Volume:
    voxels = np.zeros((3, 40, 32), np.float32)
    voxels[:, 8:30, 6:20] = 500
    voxels[:, 12:18, 8:12] = 900
    grid = Grid.from_axes(voxels.shape, (5.0, 1.2, 1.1), (-10.0, 4.0, 8.0))
    return Volume(voxels, grid, Unit.ARBITRARY, "MR")


def test_a_simulation_says_first_that_it_is_one_and_stays_in_its_place():
    made = simulated_kspace(volume(), 5, 2.0, MaskKind.RANDOM, 0.01, seed=1)
    assert made.history[-1].startswith("simulated: ")
    assert "invented" in made.history[-1]
    assert made.grid.same_place(volume().grid)
    assert made.coils == 5
    assert made.acceleration == pytest.approx(2.0)


def test_without_undersampling_and_noise_the_magnitude_comes_back():
    made = simulated_kspace(volume(), 4, 1.0, MaskKind.RANDOM, 0.0, seed=2)
    np.testing.assert_allclose(zero_filled(made.data), volume().voxels, atol=0.5)


def test_noise_is_a_share_of_bright_tissue_in_each_part():
    quiet, loud = (simulated_kspace(volume(), 2, 1.0, MaskKind.RANDOM, share, seed=3) for share in (0.0, 0.02))
    added = loud.data - quiet.data
    bright = np.percentile(volume().voxels, 99)
    assert added.real.std() == pytest.approx(0.02 * bright, rel=0.05)
    assert added.imag.std() == pytest.approx(0.02 * bright, rel=0.05)


def test_every_slice_has_a_mask_of_its_own_and_the_seed_decides():
    made, again = (simulated_kspace(volume(), 2, 4.0, MaskKind.RANDOM, 0.01, seed=4) for _ in range(2))
    assert (made.acquired[0] != made.acquired[1]).any()
    np.testing.assert_array_equal(made.data, again.data)


def test_invented_coils_together_see_the_same_everywhere_and_vary_smoothly():
    maps = invented_coils((2, 64, 64), 7, np.random.default_rng(5))
    np.testing.assert_allclose((np.abs(maps) ** 2).sum(axis=1), 1, atol=1e-4)
    assert max(np.abs(np.diff(maps, axis=axis)).max() for axis in (2, 3)) < 0.35


@pytest.mark.parametrize(("coils", "noise"), [(0, 0.1), (4, -0.1)])
def test_no_coils_and_negative_noise_are_refused(coils, noise):
    with pytest.raises(OptionError, match="coils is at least 1"):
        simulated_kspace(volume(), coils, 2.0, MaskKind.RANDOM, noise, seed=1)
