"""What the super-resolution network is shown, on planes that are made here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from tomolens.core.errors import OptionError, ReadError
from tomolens.models.inference import Backend
from tomolens.models.networks import build
from tomolens.physics.slices import FACTORS
from tomolens.training.learner import Learner
from tomolens.training.super_resolution import CONFIG, Planes, Recipe, SliceLesson, lesson, sigma_scale
from tomolens.training.team import Team

TINY = replace(
    CONFIG, settings={"channels": 8, "blocks": 1}, batch=8, rounds=1, steps=60, learning_rate=1e-2, edge=24, ema=0.5
)


def shown(noise: float = 0.0) -> SliceLesson:
    """Planes of sharp blobs; the held-out ones are brighter by 5000."""
    rng = np.random.default_rng(4)
    planes = (ndimage.gaussian_filter(rng.standard_normal((16, 90, 90)), (0, 1.5, 1.5)) > 0.1).astype(np.float32) * 400
    planes[-2:] += 5000
    return SliceLesson((Planes(planes, (0.8, 0.8), noise, 1.0),), Recipe(slices=8), 24, 7)


def batch_of(taught: SliceLesson, count: int, held_out: bool = False) -> dict[str, torch.Tensor]:
    examples = taught.examples(range(count), held_out=held_out)
    return {name: torch.stack([examples[n][name] for n in range(count)]) for name in examples[0]}


def test_an_example_depends_on_the_seed_and_its_number_alone():
    one, again = (shown().examples([5, 6])[1] for _ in range(2))
    other = replace(shown(), seed=8).examples([6])[0]
    for name in one:
        torch.testing.assert_close(one[name], again[name], rtol=0, atol=0)
    assert not torch.equal(one["image"], other["image"])


def test_what_is_to_be_added_sums_to_nothing_over_each_thick_slice_and_all_factors_come():
    batch = batch_of(shown(), 40)
    assert set(batch["factor"].tolist()) == set(FACTORS)
    assert batch["target"].sum(dim=1).abs().max() < 1e-2
    for factor, target in zip(batch["factor"].tolist(), batch["target"], strict=True):
        assert target[:factor].abs().max() > 0.1
        assert not target[factor:].any()


def test_held_out_planes_are_never_shown():
    planes = shown().planes[0]
    rng = np.random.default_rng(0)
    assert max(planes.plane(rng, held_out=False).max() for _ in range(50)) < 5000
    assert min(planes.plane(rng, held_out=True).min() for _ in range(50)) >= 5000


def test_the_loss_starts_at_all_of_what_back_projection_leaves_out_and_a_training_lessens_it():
    taught = shown()
    learner = Learner(build(TINY.network, TINY.settings), TINY, Team(Backend(torch.device("cpu"), torch.float32)))
    batch = batch_of(taught, 8)
    before = learner.judge([batch], taught.loss)["left"]
    learner.train([batch] * TINY.steps, taught.loss)
    assert before == pytest.approx(1.0)
    assert learner.judge([batch], taught.loss)["left"] < 0.9


def test_a_gan_is_shown_thin_slices_in_their_order_beside_the_thick_ones():
    taught = replace(shown(), gan=True)
    batch = batch_of(taught, 12)
    n, _, k, i = batch["image"].shape
    answer = torch.cat([batch["target"][:, :factor].repeat(1, 2, 1, 1) for factor in FACTORS], dim=1)
    pictures = taught.pictures(answer, batch)
    assert pictures.given.shape == pictures.made.shape == pictures.real.shape == (n, 1, 2 * k, i)
    torch.testing.assert_close(pictures.made, pictures.real)
    order = [at for factor in FACTORS for at in range(n) if batch["factor"][at] == factor]
    for place, at in enumerate(order):
        factor = int(batch["factor"][at])
        whole = 2 * k // factor
        mean = pictures.real[place, 0, : whole * factor].reshape(whole, factor, i).mean(dim=1)
        torch.testing.assert_close(mean, batch["image"][at, 0, :whole], rtol=0, atol=1e-3)
        torch.testing.assert_close(pictures.given[place, 0, :factor], batch["image"][at, 0, :1].expand(factor, -1))


def test_the_uncertainty_is_scaled_until_19_of_20_held_out_errors_lie_within_two_of_it():
    taught = shown(noise=40.0)
    network = build(TINY.network, TINY.settings).eval()
    scaled = build(TINY.network, {**TINY.settings, "sigma_scale": sigma_scale(network, taught, 60)}).eval()
    scaled.load_state_dict(network.state_dict())
    assert sigma_scale(scaled, taught, 60) == pytest.approx((1.0,) * 4, abs=0.01)


def test_an_unknown_word_in_the_recipe_is_refused():
    with pytest.raises(OptionError, match="unknown key 'thickness'"):
        Recipe.of({"thickness": 3})
    assert Recipe.of({"thin_mm": [0.7, 1.0]}).thin_mm == (0.7, 1.0)


def test_planes_that_are_too_small_are_refused():
    with pytest.raises(OptionError, match="No plane is as large as"):
        replace(shown(), edge=200).examples([0])[0]


def test_a_folder_without_images_is_refused(tmp_path: Path):
    with pytest.raises(ReadError, match="no volume to learn from"):
        lesson(replace(TINY, phantom_seeds=()), tmp_path)
