from __future__ import annotations

import numpy as np
import pytest
import torch

from tomolens.models.mri_tensors import started, tensors_of
from tomolens.models.networks import build
from tomolens.models.unrolled import UnrolledSense
from tomolens.physics.masks import MaskKind, sampling_mask
from tomolens.physics.sense import Measured
from tomolens.physics.undersampling import invented_coils, measured

SHAPE = (50, 44)


def a_slice(kind: MaskKind = MaskKind.RANDOM, seed: int = 1) -> Measured:
    rng = np.random.default_rng(seed)
    image = np.zeros(SHAPE, np.float32)
    image[8:40, 10:32] = 1
    image[14:20, 14:25] = 0.4
    acquired = sampling_mask(kind, SHAPE, 2.5, seed)
    return Measured.of(measured(image, invented_coils((1, *SHAPE), 5, rng)[0], acquired, 0.01, rng), acquired)


def batch(*slices: Measured) -> list[torch.Tensor]:
    return [
        torch.stack(parts)
        for parts in zip(*[tensors_of(each, UnrolledSense.inputs).values() for each in slices], strict=True)
    ]


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(1)
    return build("unrolled_sense", {"rounds": 2, "channels": [8, 12, 16]}).eval()


@pytest.mark.parametrize("kind", MaskKind)
def test_an_untrained_network_is_tv_sense_brought_nearer_to_the_measurement(network, kind):
    slice_ = a_slice(kind)
    with torch.inference_mode():
        real, imaginary, _ = network(*batch(slice_))[0].numpy()
    start = started(slice_)
    assert np.linalg.norm(real + 1j * imaginary - start) < 0.1 * np.linalg.norm(start)
    assert slice_.misfit(real + 1j * imaginary) < slice_.misfit(start)


def test_the_cnn_is_shown_how_the_image_misses_the_measurement(network):
    torch.nn.init.normal_(network.prior.last.weight, std=0.3)
    shown = dict(zip(network.inputs, batch(a_slice()), strict=True))
    with torch.inference_mode():
        one, other = (network(**{**shown, "image": factor * shown["image"]})[:, :2] for factor in (1.0, 1.05))
    assert not torch.allclose(one, other, atol=1e-3)


def test_a_slice_is_answered_alike_alone_and_in_a_batch(network):
    one, other = a_slice(), a_slice(MaskKind.EQUISPACED, seed=2)
    torch.nn.init.normal_(network.prior.last.weight, std=0.02)
    with torch.inference_mode():
        together = network(*batch(one, other))
        alone = torch.cat([network(*batch(one)), network(*batch(other))])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-3)


def test_turning_the_measurement_turns_the_untrained_answer(network):
    slice_ = a_slice()
    turned = Measured(
        slice_.data.swapaxes(-1, -2), slice_.acquired.T, slice_.maps.swapaxes(-1, -2), slice_.noise, slice_.scale
    )
    with torch.inference_mode():
        upright, across = (network(*batch(each))[0, :2] for each in (slice_, turned))
    torch.testing.assert_close(across.transpose(-1, -2), upright, atol=1e-4, rtol=1e-3)


def test_doubt_is_scaled_and_nothing_else(network):
    scaled = build("unrolled_sense", {"rounds": 2, "channels": [8, 12, 16], "doubt_scale": 2.0}).eval()
    scaled.load_state_dict(network.state_dict())
    with torch.inference_mode():
        one, other = (each(*batch(a_slice()))[0] for each in (network, scaled))
    torch.testing.assert_close(other[:2], one[:2])
    torch.testing.assert_close(other[2].exp(), 2 * one[2].exp())


def test_what_is_learned_of_the_doubt_does_not_change_the_image(network):
    network(*batch(a_slice()))[:, 2].sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in network.prior.parameters())
    assert any(parameter.grad.any() for parameter in network.doubt.parameters())
