from __future__ import annotations

import numpy as np
import pytest
import torch

from tomolens.core.errors import ContractError, ModelError
from tomolens.models.networks import build
from tomolens.models.varnet import magnitude
from tomolens.physics.masks import MaskKind, sampling_mask
from tomolens.physics.sense import Measured, zero_filled
from tomolens.physics.undersampling import invented_coils, measured

SHAPE = (48, 40)
SMALL = {"num_cascades": 2, "features": [4, 4, 8, 8, 16, 4], "sensitivity_features": [4, 4, 8, 8, 16, 4]}
CPU = torch.device("cpu")


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(3)
    return build("var_net", SMALL).eval()


def a_slice(acquired: np.ndarray) -> Measured:
    rng = np.random.default_rng(2)
    image = np.zeros(SHAPE, np.float32)
    image[8:38, 9:30] = 1
    maps = invented_coils((1, *SHAPE), 3, rng)[0]
    return Measured.of(measured(image, maps, acquired, 0.01, rng), acquired, most_coils=None)


def columns() -> np.ndarray:
    return sampling_mask(MaskKind.RANDOM, SHAPE[::-1], 2.5, seed=4).T.copy()


def test_the_answer_is_that_of_monai_called_directly(network):
    slice_ = a_slice(columns())
    stacked = torch.view_as_real(torch.from_numpy(slice_.data))[None]
    mask = torch.from_numpy(columns()[0]).reshape(1, 1, 1, -1, 1)
    with torch.inference_mode():
        directly = network(stacked, mask)[0].numpy()
    np.testing.assert_allclose(magnitude(network, slice_, CPU), directly, rtol=1e-5, atol=1e-6)


def test_lines_along_the_other_axis_give_the_turned_answer(network):
    slice_ = a_slice(columns())
    turned = Measured(slice_.data.swapaxes(-1, -2), slice_.acquired.T, slice_.maps, slice_.noise, slice_.scale)
    upright, across = magnitude(network, slice_, CPU), magnitude(network, turned, CPU)
    np.testing.assert_allclose(across.T, upright, rtol=1e-4, atol=1e-5)


def test_a_whole_measurement_needs_no_network_and_monai_would_run_off_the_end(network):
    whole = a_slice(np.ones(SHAPE, bool))
    np.testing.assert_array_equal(magnitude(network, whole, CPU), zero_filled(whole.data))


def test_no_signal_gives_no_image_rather_than_numbers_that_are_none(network):
    nothing = Measured(np.zeros((3, *SHAPE), np.complex64), columns(), np.ones((3, *SHAPE), np.complex64), 0.0, 1.0)
    assert not magnitude(network, nothing, CPU).any()


def test_single_places_and_a_centre_without_gaps_beside_it_are_refused(network):
    with pytest.raises(ContractError, match="whole lines"):
        magnitude(network, a_slice(sampling_mask(MaskKind.POISSON, SHAPE, 3, seed=1)), CPU)
    half = np.zeros(SHAPE, bool)
    half[:, 10:] = True
    gap = columns()
    gap[:, 20] = False
    for mask in (half, gap):
        with pytest.raises(ContractError, match="gap on either side"):
            magnitude(network, a_slice(mask), CPU)


def test_settings_that_monai_does_not_know_are_refused():
    with pytest.raises(ModelError, match="cannot be built"):
        build("var_net", {"spatial_dims": 3})
