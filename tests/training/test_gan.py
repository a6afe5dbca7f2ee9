"""A network that is trained on against a discriminator, with a lesson that takes milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.lessons import TINY, Doubling, teach
from tomolens.core.errors import OptionError
from tomolens.models.inference import Backend
from tomolens.training.gan import AdversarialLearner, Adversary, Pictures
from tomolens.training.learner import start_network
from tomolens.training.reconstruction import ReconstructionConfig, train_reconstruction
from tomolens.training.runs import read_log
from tomolens.training.team import Team

ADVERSARY = Adversary(channels=8, layers=2, learning_rate=1e-3)
EDGE = 32


def learner(adversary: Adversary = ADVERSARY) -> AdversarialLearner:
    config = replace(TINY, edge=EDGE)
    return AdversarialLearner(
        start_network(config), config, Team(Backend.choose("cpu")), adversary, Doubling(config).pictures
    )


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    return {"image": torch.rand(4, 1, EDGE, EDGE, generator=torch.Generator().manual_seed(seed))}


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_the_discriminator_learns_to_tell_made_from_real() -> None:
    gan, losses = learner(), []
    for seed in range(60):
        image = batch(seed)["image"]
        losses.append(float(gan._discriminate(Pictures(image, 2 * image, 3 * image))))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_each_of_the_two_learns_by_its_own_loss_alone() -> None:
    gan = learner()
    before = weights(gan.network), weights(gan.discriminator)
    terms = gan._terms(batch(), Doubling(TINY).loss)
    assert torch.equal(weights(gan.network), before[0])
    assert not torch.equal(weights(gan.discriminator), before[1])
    torch.stack([part for part, _ in terms.values()]).sum().backward()
    assert all(parameter.grad is not None for parameter in gan.network.parameters())
    judged = weights(gan.discriminator)
    gan.optimizer.step()
    assert torch.equal(weights(gan.discriminator), judged)
    assert set(terms) == {"loss", *(f"gan_{name}_loss" for name in ("discriminator", "deceit", "features", "coarse"))}


def test_the_network_comes_nearer_to_what_is_real_than_its_old_loss_would_have_it() -> None:
    """The old loss wants twice the image, what is real is three times as bright."""
    gan = learner(replace(ADVERSARY, coarse=4.0, faithful=0.1))
    gan.network.train()
    for seed in range(120):
        gan._step(batch(seed), Doubling(TINY).loss)
    shown = batch(999)["image"]
    with torch.inference_mode():
        brightness = float((gan.network(shown) / shown).median())
    assert brightness > 2.3


def test_a_gan_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach(monkeypatch)
    monkeypatch.setattr("tomolens.training.reconstruction.start_network", lambda config: start_network(TINY))
    config = replace(TINY, start_from="any", adversary=ADVERSARY, edge=EDGE)
    whole = train_reconstruction(config, tmp_path, tmp_path / "whole", "cpu")
    saved: list[int] = []

    def stop(*_: object) -> None:
        saved.append(1)
        if len(saved) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_reconstruction(config, tmp_path, tmp_path / "parts", "cpu", progress=stop)
    parts = train_reconstruction(config, tmp_path, tmp_path / "parts", "cpu")
    assert torch.equal(weights(whole.network), weights(parts.network))
    assert torch.equal(weights(whole.discriminator), weights(parts.discriminator))  # type: ignore[attr-defined]
    assert "gan_deceit_loss" in read_log(tmp_path / "parts")[-1]


def test_a_gan_from_nothing_and_one_of_several_processes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="give start_from"):
        train_reconstruction(replace(TINY, adversary=ADVERSARY), tmp_path, tmp_path / "run", "cpu")
    with pytest.raises(OptionError, match="channels, layers and learning_rate are above 0"):
        Adversary(channels=0)
    read = ReconstructionConfig.from_json(replace(TINY, start_from="any", adversary=ADVERSARY).to_json())
    assert read.adversary == ADVERSARY
    config = replace(TINY, start_from="any", adversary=ADVERSARY)
    with pytest.raises(OptionError, match="trained by one process"):
        train_reconstruction(config, tmp_path, tmp_path / "run", "cpu", processes=2)
