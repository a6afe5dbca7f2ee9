from __future__ import annotations

import numpy as np
import pytest

from tomolens.physics.fourier import to_images, to_kspace
from tomolens.physics.masks import MaskKind, sampling_mask
from tomolens.physics.sense import Measured, Sense, cg_sense, noise_of, tv_sense, zero_filled
from tomolens.physics.undersampling import invented_coils, measured

SHAPE = (72, 61)
"""An even and an odd side: shifts of the two differ."""


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def blocks() -> np.ndarray:
    image = np.zeros(SHAPE, np.float32)
    image[10:60, 8:50] = 0.6
    image[20:40, 15:30] = 1.0
    image[45:50, 20:45] = 0.2
    return image


def a_slice(acceleration: float, kind: MaskKind = MaskKind.RANDOM, coils: int = 6, spread: float = 0.01) -> Measured:
    rng = np.random.default_rng(7)
    maps = invented_coils((1, *SHAPE), coils, rng)[0]
    acquired = sampling_mask(kind, SHAPE, acceleration, seed=2)
    return Measured.of(measured(blocks(), maps, acquired, spread, rng), acquired)


def error(image: np.ndarray, slice_: Measured) -> float:
    return float(np.sqrt(((np.abs(image) * slice_.scale - blocks()) ** 2).mean()))


def test_the_transform_keeps_energy_and_its_inverse_undoes_it():
    image = noise(SHAPE, 1)
    np.testing.assert_allclose(to_images(to_kspace(image)), image, atol=1e-5)
    assert np.linalg.norm(to_kspace(image)) == pytest.approx(np.linalg.norm(image), rel=1e-5)


def test_a_constant_image_has_its_signal_in_the_middle_of_k_space():
    spectrum = np.abs(to_kspace(np.ones(SHAPE)))
    assert np.unravel_index(spectrum.argmax(), SHAPE) == (36, 30)


@pytest.mark.parametrize("kind", MaskKind)
@pytest.mark.parametrize("turned", [False, True])
def test_the_adjoint_is_the_adjoint_and_the_normal_operator_both_in_turn(kind, turned):
    acquired = sampling_mask(kind, SHAPE[::-1] if turned else SHAPE, 3, seed=2)
    model = Sense(noise((4, *SHAPE), 2), acquired.T.copy() if turned else acquired)
    image, data = noise(SHAPE, 3), noise((4, *SHAPE), 4)
    left, right = np.vdot(model.forward(image), data), np.vdot(image, model.adjoint(data))
    assert left == pytest.approx(right, rel=1e-4)
    both = model.adjoint(model.forward(image))
    np.testing.assert_allclose(model.normal(image), both, atol=1e-4 * np.abs(both).max())


def test_a_whole_measurement_without_noise_gives_the_image_back():
    whole = a_slice(1.0, spread=0)
    assert error(cg_sense(whole, 0.0, 5), whole) < 1e-3
    assert zero_filled(whole.data)[30, 25] == pytest.approx(1 / whole.scale, rel=1e-3)


@pytest.mark.parametrize("kind", MaskKind)
def test_fitting_beats_filling_with_zeros_and_total_variation_beats_fitting(kind):
    slice_ = a_slice(4, kind)
    filled, fitted = zero_filled(slice_.data), cg_sense(slice_, 0.01, 12)
    smooth = tv_sense(slice_, 0.3 * slice_.noise, 60)
    assert error(smooth, slice_) < 0.8 * error(fitted, slice_) < 0.8 * error(filled, slice_)


def test_noise_is_read_from_the_edge_of_k_space():
    data = 0.3 * noise((3, 120, 110), 5)
    data[:, 50:70, 45:65] += 40
    assert noise_of(data, np.ones((120, 110), bool)) == pytest.approx(0.3, rel=0.05)


def test_an_image_that_fits_leaves_noise_alone_and_a_wrong_one_more():
    slice_ = a_slice(2, spread=0.02)
    fitted = cg_sense(slice_, 0.001, 20)
    assert 0.4 < slice_.misfit(fitted) < 1.5
    assert slice_.misfit(1.2 * fitted) > 2 * slice_.misfit(fitted)


def test_many_coils_are_combined_and_the_image_stays_the_same():
    many = a_slice(2, coils=20)
    assert len(many.data) == len(many.maps) == 8
    assert error(cg_sense(many, 0.005, 12), many) < 0.05


def test_a_measurement_times_a_factor_gives_the_image_times_that_factor():
    rng = np.random.default_rng(7)
    maps = invented_coils((1, *SHAPE), 4, rng)[0]
    acquired = sampling_mask(MaskKind.RANDOM, SHAPE, 3, seed=2)
    data = measured(blocks(), maps, acquired, 0.01, rng)
    one, other = (Measured.of(factor * data, acquired) for factor in (np.float32(1), np.float32(5000)))
    images = [np.abs(tv_sense(m, 0.3 * m.noise, 20)) * m.scale for m in (one, other)]
    np.testing.assert_allclose(images[1], 5000 * images[0], rtol=1e-2, atol=5)


def test_a_slice_without_any_signal_gives_zeros_and_no_error():
    nothing = Measured.of(np.zeros((3, *SHAPE), np.complex64), np.ones(SHAPE, bool))
    for image in (cg_sense(nothing, 0.01, 5), tv_sense(nothing, 0.01, 5)):
        assert not image.any()
