from __future__ import annotations

import numpy as np
import pytest
import torch

from tomolens.models.cascade import CascadedSense
from tomolens.models.mri_tensors import tensors_of
from tomolens.models.networks import build
from tomolens.physics.masks import MaskKind, sampling_mask
from tomolens.physics.sense import Measured, tuned_cg
from tomolens.physics.undersampling import invented_coils, measured

SHAPE = (50, 44)
SMALL = {"rounds": 2, "channels": [8, 12, 16]}


def a_slice(kind: MaskKind = MaskKind.RANDOM, seed: int = 1) -> Measured:
    rng = np.random.default_rng(seed)
    image = np.zeros(SHAPE, np.float32)
    image[8:40, 10:32] = 1
    image[14:20, 14:25] = 0.4
    acquired = sampling_mask(kind, SHAPE, 2.5, seed)
    return Measured.of(measured(image, invented_coils((1, *SHAPE), 5, rng)[0], acquired, 0.01, rng), acquired)


def batch(*slices: Measured) -> list[torch.Tensor]:
    made = [tensors_of(each, CascadedSense.inputs).values() for each in slices]
    return [torch.stack(parts) for parts in zip(*made, strict=True)]


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(1)
    return build("cascaded_sense", SMALL).eval()


@pytest.fixture
def awake(network: torch.nn.Module) -> torch.nn.Module:
    """The same network, whose CNNs say something."""
    for each in network.rounds:
        torch.nn.init.normal_(each.last.weight, std=0.02)
    return network


@pytest.mark.parametrize("kind", MaskKind)
def test_an_untrained_network_is_about_cg_sense(network, kind):
    slice_ = a_slice(kind)
    with torch.inference_mode():
        real, imaginary, _ = network(*batch(slice_))[0].numpy()
    other = tuned_cg(slice_)
    assert np.linalg.norm(real + 1j * imaginary - other) < 0.1 * np.linalg.norm(other)


def test_every_round_is_shown_how_the_image_misses_the_measurement_and_what_the_one_before_saw(awake):
    shown = []
    for each in awake.rounds:
        each.register_forward_pre_hook(lambda _, given: shown.append(given))
    with torch.inference_mode():
        awake(*batch(a_slice()))
    (_, missed, _, nothing), (_, missed_later, _, features) = shown
    assert nothing is None
    assert features.abs().sum() > 0
    assert not torch.equal(missed, missed_later)


def test_the_measurement_that_has_the_last_word_is_met_more_nearly_with_the_same_weights(awake):
    consistent = build("cascaded_sense", {**SMALL, "consistent": True}).eval()
    consistent.load_state_dict(awake.state_dict())
    slice_ = a_slice()
    with torch.inference_mode():
        free, held = (each(*batch(slice_))[0, :2].numpy() for each in (awake, consistent))
    assert slice_.misfit(held[0] + 1j * held[1]) < 0.9 * slice_.misfit(free[0] + 1j * free[1])


def test_a_slice_is_answered_alike_alone_and_in_a_batch(awake):
    one, other = a_slice(), a_slice(MaskKind.EQUISPACED, seed=2)
    with torch.inference_mode():
        together = awake(*batch(one, other))
        alone = torch.cat([awake(*batch(one)), awake(*batch(other))])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-3)


def test_bfloat16_changes_the_answer_little(awake):
    given = batch(a_slice())
    with torch.inference_mode():
        exact = awake(*given)
        with torch.autocast("cpu", torch.bfloat16):
            rough = awake(*given)
    assert rough.dtype == torch.float32
    assert (rough - exact)[:, :2].abs().max() < 0.03


def test_doubt_is_scaled_and_what_is_learned_of_it_does_not_change_the_image(network):
    scaled = build("cascaded_sense", {**SMALL, "doubt_scale": 2.0}).eval()
    scaled.load_state_dict(network.state_dict())
    with torch.inference_mode():
        one, other = (each(*batch(a_slice()))[0] for each in (network, scaled))
    torch.testing.assert_close(other[:2], one[:2])
    torch.testing.assert_close(other[2].exp(), 2 * one[2].exp())
    network(*batch(a_slice()))[:, 2].sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in network.rounds.parameters())
    assert any(parameter.grad.any() for parameter in network.doubt.parameters())
