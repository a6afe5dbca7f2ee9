"""What the denoising network is shown: slices without noise, then with noise that is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tomolens import Grid, Volume
from tomolens.core.errors import OptionError, ReadError
from tomolens.io.write import write_volume
from tomolens.models.networks import build
from tomolens.physics.random_noise import Spectrum
from tomolens.training.clean_slices import CleanStack, clean_stacks, made_clean
from tomolens.training.denoising import CONFIG, RECIPE, Denoising, add_lesion, lesson, uncertainty_factor
from tomolens.training.gan import Adversary

EDGE = 32
SMALL = replace(CONFIG, edge=EDGE, phantom_seeds=(), settings={"channels": [8, 8, 8]}, val_examples=2)


def soft(slices: int = 16, rows: int = 120, columns: int = 130) -> np.ndarray:
    """Soft tissue beside lung, other from slice to slice."""
    image = np.full((slices, rows, columns), 40, np.int16)
    image[:, :, columns // 2 :] = -850
    return image + np.arange(slices, dtype=np.int16)[:, None, None]


STACKS = [CleanStack("scan", soft(), False), CleanStack("phantom-1", soft(), True)]


def denoising(**changes: float) -> Denoising:
    return Denoising(replace(SMALL, recipe={**RECIPE, **changes}), STACKS)


def test_an_example_depends_on_the_seed_and_its_number_alone() -> None:
    one, other = denoising().examples(range(5, 9)), denoising().examples([7])
    for name, tensor in one[2].items():
        torch.testing.assert_close(tensor, other[0][name], rtol=0, atol=0)
    assert one[2]["image"].shape == (3, EDGE, EDGE)
    assert not torch.equal(one[0]["image"], one[2]["image"])


def test_the_examples_of_a_pair_differ_by_their_lesions_alone() -> None:
    wounded, bare, _, another = denoising(lesions=6.0).examples(range(20, 24))
    lesions = wounded["target"] - bare["target"]
    assert lesions.abs().max() > 8
    outside = lesions.abs() < 1e-3
    changed = wounded["image"][1:2] - bare["image"][1:2]
    torch.testing.assert_close(changed[outside], lesions[outside], rtol=0, atol=1e-2)
    assert not torch.equal(bare["target"], another["target"])


def test_a_lesion_that_is_wiped_out_costs_its_whole_contrast_and_noise_costs_none() -> None:
    examples = denoising(lesions=6.0).examples([20, 21])
    batch = {name: torch.stack([examples[0][name], examples[1][name]]) for name in examples[0]}
    batch["sigma"][:] = 1.0
    doubt, noise = torch.ones_like(batch["target"]), torch.randn(1, 1, EDGE, EDGE)

    def lost(image: torch.Tensor) -> float:
        part, count = denoising(contrast_weight=1.0).loss(torch.cat([image, doubt], dim=1), batch)["contrast_loss"]
        return float(part / count)

    assert lost(batch["target"] + noise) == pytest.approx(0, abs=1e-4)
    assert lost(batch["target"][1:].repeat(2, 1, 1, 1)) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(("robust", "times"), [(1.0, 4.0), (0.01, 2.0)])
def test_an_error_counts_squared_up_to_so_much_noise_and_by_its_modulus_above(robust: float, times: float) -> None:
    examples = denoising().examples([20, 21])
    batch = {name: torch.stack([examples[0][name], examples[1][name]]) for name in examples[0]}
    batch["sigma"][:] = 20.0

    def loss(off_hu: float) -> float:
        answer = torch.cat([batch["target"] + off_hu, torch.ones_like(batch["target"])], dim=1)
        part, count = denoising(robust=robust).loss(answer, batch)["fine_loss"]
        return float(part / count)

    assert loss(4.0) / loss(2.0) == pytest.approx(times, rel=0.1)


def test_half_a_pair_is_refused() -> None:
    batch = {name: tensor[None] for name, tensor in denoising().examples([1])[0].items()}
    with pytest.raises(OptionError, match="learns from pairs: a process's part of a batch is even, not 1"):
        denoising().loss(batch["image"], batch)


def test_a_gan_is_shown_the_slice_at_four_times_the_dose_whose_noise_is_part_of_the_image_s() -> None:
    gan = Denoising(replace(SMALL, adversary=Adversary(), start_from="ct-denoiser"), STACKS)
    shown = [gan.examples([n])[0] for n in range(1, 25, 2)]
    noises = [((e["full"] - e["target"]).ravel(), (e["image"][1:2] - e["target"]).ravel()) for e in shown]
    assert np.median([float(full.std() / quarter.std()) for full, quarter in noises]) == pytest.approx(0.5, abs=0.05)
    assert np.median([np.corrcoef(*pair)[0, 1] for pair in noises]) == pytest.approx(0.5, abs=0.15)
    batch = {name: tensor[None] for name, tensor in shown[0].items()}
    pictures = gan.pictures(torch.cat([batch["full"], batch["sigma"]], dim=1), batch)
    assert torch.equal(pictures.made, pictures.real)
    assert 0.2 < float(pictures.given.std()) < 5


def test_what_is_held_out_is_never_shown() -> None:
    for count in (3, 5, 12, 123):
        stack = CleanStack("any", soft(count, 4, 4), False)
        shown = {n for k in stack.shown for n in (k - 1, k, k + 1)}
        assert len(stack.held_out)
        assert len(stack.shown)
        assert not shown & set(stack.held_out)


def test_the_noise_is_as_strong_as_the_recipe_says_and_the_map_tells_it() -> None:
    examples = denoising(least_noise_hu=29.0, most_noise_hu=31.0, lesions=0.0).examples(range(12))
    off = [float((e["image"][1] - e["target"][0])[:, :].std()) for e in examples]
    told = [float(e["sigma"].mean()) for e in examples]
    assert np.median(off) == pytest.approx(30, rel=0.35)
    assert np.median(told) == pytest.approx(30, rel=0.35)


def test_lesions_are_put_into_the_target_and_not_called_noise() -> None:
    plain, wounded = soft(3).astype(np.float32), soft(3).astype(np.float32)
    rng = np.random.default_rng(3)
    for _ in range(6):
        add_lesion(wounded, rng)
    changed = np.abs(wounded - plain)
    assert changed[1].max() > 8
    assert (changed[1] >= changed[0] - 1e-3).mean() > 0.95


def test_the_loss_is_least_for_the_truth_and_its_uncertainty_for_the_true_size_of_the_error() -> None:
    batch = {name: tensor[None].repeat(2, 1, 1, 1) for name, tensor in denoising().examples([1])[0].items()}

    def loss(error: float, doubt: float) -> dict[str, float]:
        answer = torch.cat([batch["target"] + error, torch.full_like(batch["target"], doubt)], dim=1)
        return {name: float(part / count) for name, (part, count) in denoising().loss(answer, batch).items()}

    assert loss(0, 5)["fine_loss"] == loss(0, 5)["coarse_loss"] == 0
    assert loss(3, 5)["fine_loss"] > 0
    assert loss(10, 10)["doubt_loss"] < min(loss(10, 5)["doubt_loss"], loss(10, 20)["doubt_loss"])


def test_the_map_of_the_uncertainty_teaches_the_image_nothing() -> None:
    network = build(SMALL.network, SMALL.settings)
    torch.nn.init.normal_(network.doubt.weight, std=0.1)
    network(torch.zeros(1, 3, 16, 16), torch.full((1, 1, 16, 16), 20.0))[:, 1:].sum().backward()
    assert network.doubt.weight.grad is not None
    assert all(p.grad is None or not p.grad.any() for p in network.stem.parameters())


def test_the_factor_makes_a_known_share_of_the_errors_lie_within_one() -> None:
    """An untrained network leaves the noise in, and says the noise as its uncertainty: the factor is near one."""
    network = build(SMALL.network, SMALL.settings)
    one = uncertainty_factor(network, denoising(least_noise_hu=20.0, most_noise_hu=60.0), 8)
    assert one == pytest.approx(1, rel=0.3)
    network.uncertainty_factor = 2.0
    halved = uncertainty_factor(network, denoising(least_noise_hu=20.0, most_noise_hu=60.0), 8)
    assert halved == pytest.approx(one / 2, rel=1e-4)


@pytest.mark.parametrize(("noise", "factor"), [(2.0, 1), (12.0, 2), (20.0, 3)])
def test_scans_are_made_coarser_the_more_noise_they_have(noise: float, factor: int) -> None:
    spectrum = Spectrum(floor=0.05, cut=0.4, fall=2.0, streak=0.0, angle=0.0)
    noisy = 40 + noise * spectrum.noise((8, 120, 120), np.random.default_rng(0))
    made = made_clean(noisy)
    assert made is not None
    assert made.shape == (8, 120 // factor, 120 // factor)
    assert made.std() < 8


def test_a_scan_that_stays_noisy_is_left_out() -> None:
    noisy = 40 + 90 * np.random.default_rng(0).standard_normal((8, 120, 120), np.float32)
    assert made_clean(noisy) is None


def test_a_folder_without_ct_is_refused_and_one_with_a_scan_is_read(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="holds no CT file"):
        clean_stacks(tmp_path, ())
    voxels = np.maximum(soft(), -1000)
    write_volume(Volume(voxels, Grid.from_axes(voxels.shape, (2.5, 0.8, 0.8), (0.0, 0.0, 0.0))), tmp_path / "a.nii.gz")
    (stack,) = lesson(SMALL, tmp_path).stacks
    assert (stack.name, stack.generated) == ("a.nii.gz", False)
    (tmp_path / "p2").mkdir()
    write_volume(Volume(voxels, Grid.from_axes(voxels.shape)), tmp_path / "p2" / "a.nii.gz")
    assert [what for what, _ in lesson(SMALL, tmp_path).record] == ["scan a.nii.gz", "scan p2/a.nii.gz"]


def test_a_recipe_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'salt' is amiss"):
        lesson(replace(SMALL, recipe={**RECIPE, "salt": 1}), tmp_path)
