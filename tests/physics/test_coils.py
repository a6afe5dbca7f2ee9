from __future__ import annotations

import numpy as np
import pytest

from tomolens.physics.coils import compression, espirit, low_resolution, sensitivities
from tomolens.physics.fourier import to_kspace
from tomolens.physics.undersampling import invented_coils

SHAPE = (96, 80)


def disc() -> np.ndarray:
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    texture = 1 + 0.3 * np.sin(9 * x) * np.cos(7 * y)
    return np.where(x**2 + y**2 < 0.6, texture, 0).astype(np.float32)


def measured(coils: int, noise: float = 0.005) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    maps = invented_coils((1, *SHAPE), coils, rng)[0]
    data = to_kspace(maps * disc())
    return data + noise * (rng.standard_normal(data.shape) + 1j * rng.standard_normal(data.shape)), maps


def likeness(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Cosine between vectors of coils, which no common phase changes, inside the object."""
    return np.abs((found.conj() * true).sum(axis=0))[disc() > 0]


@pytest.mark.parametrize("coils", [2, 5, 12])
def test_espirit_finds_the_true_maps_but_for_a_phase_that_all_coils_share(coils):
    data, true = measured(coils)
    found = espirit(data[:, 36:60, 28:52].astype(np.complex64), SHAPE)
    assert np.percentile(likeness(found, true), 1) > 0.98
    np.testing.assert_allclose((np.abs(found) ** 2).sum(axis=0), 1, atol=1e-3)


def test_espirit_finds_maps_better_than_the_low_resolution_image_does():
    data, true = measured(6)
    centre = data[:, 36:60, 28:52].astype(np.complex64)
    by_kernel, by_image = (likeness(method(centre, SHAPE), true) for method in (espirit, low_resolution))
    assert np.percentile(by_kernel, 2) > np.percentile(by_image, 2)


def test_maps_are_right_up_to_the_edges_of_a_field_that_the_object_fills():
    rng = np.random.default_rng(4)
    maps = invented_coils((1, *SHAPE), 6, rng)[0]
    data = to_kspace(maps * (1 + 0.3 * rng.random(SHAPE, np.float32)))
    found = espirit(data[:, 36:60, 28:52].astype(np.complex64), SHAPE)
    like = np.abs((found.conj() * maps).sum(axis=0))
    edge = np.ones(SHAPE, bool)
    edge[4:-4, 4:-4] = False
    assert like[edge].mean() > 0.98
    assert like[~edge].mean() > 0.995


def test_a_small_centre_still_gives_maps_and_a_single_coil_is_one_everywhere():
    data, true = measured(4)
    found = sensitivities(data[:, 44:52, 36:44].astype(np.complex64), SHAPE)
    assert np.median(likeness(found, true)) > 0.95
    assert (sensitivities(data[:1], SHAPE) == 1).all()


def test_compressed_coils_keep_the_noise_white_and_nearly_all_of_the_signal():
    data, _ = measured(12, noise=0)
    matrix = compression(data, 5)
    np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(5), atol=1e-5)
    kept = np.tensordot(matrix, data, 1)
    energy = (np.abs(kept) ** 2).sum(axis=(1, 2))
    assert energy.sum() > 0.98 * (np.abs(data) ** 2).sum()
    assert (np.diff(energy) <= 0).all()
