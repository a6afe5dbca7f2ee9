from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from tomolens.core.errors import OptionError
from tomolens.models.networks import build
from tomolens.training.learner import start_network
from tomolens.training.mri import (
    CONFIG,
    Plane,
    cut_or_surrounded,
    doubt_scale,
    lesson,
    reconstruction_loss,
    source_of,
    structural_similarity,
)
from tomolens.training.reconstruction import config_for, train_reconstruction

TINY = replace(
    CONFIG, rounds=1, steps=2, batch=2, edge=40, workers=0, val_examples=2, phantom_seeds=(), recipe={},
    settings={"rounds": 1, "channels": [4, 6, 8]},
)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with one made-up scan: a ball with a brighter corner."""
    k, j, i = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 44, 48)], indexing="ij")
    voxels = np.where(k**2 + j**2 + i**2 < 0.8, 400 + 300 * (i > 0.2) * (j > 0), 3).astype(np.int16)
    (tmp_path / "mri").mkdir()
    nib.save(nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 1.5, 1])), tmp_path / "mri" / "ball.nii.gz")
    return tmp_path


def silent(step: object) -> None:
    """Report nothing."""


def test_the_examples_of_a_batch_can_be_stacked_and_depend_on_their_number_alone(data):
    made = lesson(TINY, data, silent)
    for first in range(0, 12, 2):
        one, other = (made.examples(range(first, first + 2))[n] for n in (0, 1))
        assert {name: tensor.shape for name, tensor in one.items()} == {n: t.shape for n, t in other.items()}
    again = lesson(TINY, data, silent).examples([7])[0]
    for name, tensor in made.examples([3, 7])[1].items():
        torch.testing.assert_close(tensor, again[name])


def test_the_target_is_what_the_measurement_shows_where_it_is_whole_and_without_noise(data):
    recipe = {"acceleration": [1.0, 1.0], "noise": [1e-6, 1e-6], "poisson": 0.0}
    examples = lesson(replace(TINY, recipe=recipe), data, silent).examples(range(6))
    for n in range(6):
        example = examples[n]
        assert bool(example["acquired"].all())
        off = (example["image"] - example["target"]).abs().max()
        assert float(off) < 0.12 * float(example["target"].abs().max())


def test_held_out_slices_are_those_at_the_top_and_never_shown(data):
    made = lesson(TINY, data, silent)
    top = np.concatenate([plane.pixels.ravel() for plane in made.held_out])
    assert top.size
    shown = [plane for plane in made.shown if plane.pixels.shape == made.held_out[0].pixels.shape]
    assert not any(np.array_equal(plane.pixels, each.pixels) for plane in shown for each in made.held_out)


def test_nothing_to_train_on_and_unknown_recipes_are_refused(tmp_path, data):
    with pytest.raises(OptionError, match="nothing to train on"):
        lesson(TINY, tmp_path / "empty", silent)
    with pytest.raises(OptionError, match="unknown key 'speed'"):
        lesson(replace(TINY, recipe={"speed": 2}), data, silent)


def test_the_true_image_has_the_least_loss(data):
    example = {name: tensor[None] for name, tensor in lesson(TINY, data, silent).examples([0])[0].items()}
    doubt = torch.full_like(example["target"][:, :1], -4.0)
    true = reconstruction_loss(torch.cat([example["target"], doubt], 1), example)
    worse = reconstruction_loss(torch.cat([1.1 * example["target"], doubt], 1), example)
    for name in ("error_loss", "ssim_loss"):
        assert float(true[name][0]) < float(worse[name][0])
    assert float(true["ssim_loss"][0]) == pytest.approx(0, abs=1e-4)


def test_a_discriminator_is_shown_magnitudes_of_the_measurement_the_answer_and_the_truth(data):
    made = lesson(TINY, data, silent)
    batch = {name: tensor[None] for name, tensor in made.examples([0])[0].items()}
    turned = torch.stack([-batch["target"][:, 1], batch["target"][:, 0]], dim=1)
    pictures = made.pictures(torch.cat([turned, turned[:, :1]], dim=1), batch)
    shape = (1, 1, *batch["target"].shape[-2:])
    assert all(image.shape == shape for image in (pictures.given, pictures.made, pictures.real))
    torch.testing.assert_close(pictures.made, pictures.real)  # whatever the phase
    assert float((pictures.given - pictures.real).abs().mean()) > 0.1
    assert 10 < float(pictures.real.max()) < 40  # brightest tissue in units of fine detail


def test_similarity_is_one_for_the_same_image_and_less_for_any_other():
    image = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(structural_similarity(image, image), torch.ones(1, 1, 14, 14))
    assert float(structural_similarity(image, image.flip(-1)).mean()) < 0.9


def test_a_run_trains_and_changes_the_network(data, tmp_path):
    assert config_for("mri-reconstruction") is CONFIG  # type: ignore[arg-type]
    learner = train_reconstruction(TINY, data, tmp_path / "run", "cpu")
    before, after = start_network(TINY).state_dict(), learner.network.state_dict()
    assert any((before[name] != after[name]).any() for name in before if "rounds" in name)
    assert "val_error_loss" in (tmp_path / "run" / "log.csv").read_text()


def test_the_doubt_is_scaled_until_two_thirds_of_tissue_lie_within_one_deviation(data):
    held_out = lesson(TINY, data, silent).examples(range(4), held_out=True)
    network = start_network(TINY)
    scale = doubt_scale(network, held_out)
    again = build(TINY.network, {**TINY.settings, "doubt_scale": scale})
    again.load_state_dict(network.state_dict())
    assert doubt_scale(again, held_out) == pytest.approx(1, rel=1e-3)


def test_a_plane_knows_the_scan_that_it_was_cut_from(data):
    assert {plane.scan for plane in lesson(TINY, data, silent).shown} == {"ball.nii.gz"}
    assert Plane(np.zeros((2, 2), np.float32), (1.0, 1.0)).scan == ""


def test_an_example_comes_again_to_the_worker_that_made_it():
    batch, shown = 4, 3
    sources = [source_of(index, batch, shown) for index in range(batch * 6 * 300)]
    blocks = [sources[first : first + batch * 6] for first in range(0, len(sources), batch * 6)]
    assert all(each == list(range(each[0], each[0] + batch * 6)) and each[0] % (batch * 6) == 0 for each in blocks)
    counts = np.unique(sources[: -batch * 6 * 60], return_counts=True)[1]
    assert np.median(counts) == shown
    assert [source_of(index, batch, 1) for index in range(50)] == list(range(50))


def test_an_example_that_comes_again_is_the_same(data):
    config = replace(TINY, recipe={"shown": 2})
    kept, alone = lesson(config, data, silent).examples(range(24)), lesson(TINY, data, silent)
    for index in (0, 12, 13):
        source = source_of(index, TINY.batch, 2)
        for name, tensor in kept[index].items():
            torch.testing.assert_close(tensor, alone.examples([source])[0][name])


@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (9, 9)])
def test_what_is_not_interpolated_is_cut_or_surrounded_with_air(shape):
    image = np.full((40, 30), 2.0, np.float32)
    placed = cut_or_surrounded(image, shape, np.random.default_rng(3))
    assert placed.shape == shape
    assert set(np.unique(placed)) <= {0.0, 2.0}
    assert (placed > 0).sum() > 0.2 * min(placed.size, image.size / 4)
