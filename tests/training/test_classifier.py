from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from tests.training.test_patches import ball, lung
from tomolens.core.metrics import auc
from tomolens.models import inference
from tomolens.models.classifier import EDGE
from tomolens.training.backgrounds import Mark
from tomolens.training.candidates import UNKNOWN, CandidatePatches, CandidateRecipe, texture_class
from tomolens.training.classifier import ClassifierConfig, _train, verdict_loss
from tomolens.training.learner import Learner
from tomolens.training.sources import TrainingData
from tomolens.training.team import Team

SMALL = ClassifierConfig(
    rounds=2, steps=2, batch=4, workers=0, phantom_seeds=(), settings={"channels": [4, 4, 8, 8]}, learning_rate=1e-2
)


@pytest.fixture(autouse=True)
def single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact on every processor."""
    monkeypatch.setattr(inference, "_has_bfloat16", lambda device: False)


def candidates(count: int = 120, **changes) -> CandidatePatches:
    lungs = [lung(0), lung(1, marks=(Mark((60.0, 60.0, 60.0), 10.0, True),))]
    recipe = CandidateRecipe(kinds=(("scan", 1.0),), **changes)
    return CandidatePatches(lungs, [ball(malignancy=1.0)], [[(40.0, 50.0, 60.0)], []], range(count), 5, recipe)


def test_the_same_number_gives_the_same_patch() -> None:
    first, again = candidates()[7], candidates()[7]
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_half_the_patches_show_a_nodule_and_only_what_is_known_is_taught() -> None:
    labels = [{name: float(patch[name]) for name in ("nodule", "malignancy", "texture")} for patch in candidates()]
    counts = Counter(label["nodule"] for label in labels)
    assert counts[0] == pytest.approx(60, abs=18)
    assert counts[UNKNOWN] > 5
    assert {label["malignancy"] for label in labels if label["nodule"] == 0} == {UNKNOWN}
    assert {label["texture"] for label in labels if label["nodule"] == 0} == {UNKNOWN}
    assert {label["malignancy"] for label in labels if label["nodule"] == UNKNOWN} == {1.0}


def test_a_blended_nodule_is_in_the_middle_of_its_patch() -> None:
    sharp = {"nodules": 1.0, "as_found": 0.0, "own": 0.0, "altered": 0.0, "jitter_mm": 0.0, "near_wall": 0.0}
    middle = slice(EDGE // 2 - 2, EDGE // 2 + 3)
    patches = [candidates(**sharp)[n]["image"][0] for n in range(10)]
    inside = np.mean([float(patch[middle, middle, middle].mean()) for patch in patches])
    whole = np.mean([float(patch.mean()) for patch in patches])
    assert inside > whole + 0.6


def test_lidc_texture_ratings_fall_into_three_classes() -> None:
    assert [texture_class(rating) for rating in (1, 2, 3, 4, 5)] == [0, 0, 1, 2, 2]


def test_what_nobody_rated_costs_nothing() -> None:
    batch = {
        "nodule": torch.tensor([1.0, 0.0, UNKNOWN]),
        "malignancy": torch.tensor([UNKNOWN, UNKNOWN, 1.0]),
        "texture": torch.tensor([UNKNOWN, UNKNOWN, 2]),
    }
    answer = torch.tensor([[9.0, -9, 0, 0, 0], [-9, -9, 0, 0, 0], [-9, 9, -9, -9, 9]])
    terms = verdict_loss(answer, batch)
    assert {name: int(count) for name, (_, count) in terms.items()} == {
        "nodule_loss": 2,
        "malignancy_loss": 1,
        "texture_loss": 1,
    }
    assert sum(float(part) for part, _ in terms.values()) < 0.01
    worse = verdict_loss(-answer, batch)
    assert all(float(worse[name][0]) > float(terms[name][0]) + 1 for name in terms)


@pytest.mark.parametrize("network", ["nodule_cnn_3d", "nodule_views_25d"])
def test_a_stopped_run_goes_on_to_exactly_the_same_weights(tmp_path: Path, network: str) -> None:
    config = ClassifierConfig(**{**vars(SMALL), "network": network})
    data = TrainingData((lung(0), lung(1)), (ball(malignancy=0.0),))
    marked = ([(40.0, 50.0, 60.0)], [])
    team = Team(inference.Backend.choose("cpu"))

    def stop(step) -> None:
        if step.done > 3:
            raise KeyboardInterrupt

    def trained(folder: Path, progress=lambda step: None) -> Learner:
        return _train(team, config, data, marked, folder, progress)

    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", stop)
    resumed = trained(tmp_path / "stopped")
    for name, tensor in whole.averaged.state_dict().items():
        assert torch.equal(tensor, resumed.averaged.state_dict()[name]), name


def test_it_learns_to_tell_a_nodule_from_parenchyma(tmp_path: Path) -> None:
    recipe = CandidateRecipe(kinds=(("scan", 1.0),), as_found=0, own=0, decoys=0, anywhere=1, neighbours=0, near_wall=0)
    config = ClassifierConfig(**{**vars(SMALL), "rounds": 1, "steps": 80, "batch": 8, "ema": 0.5, "recipe": recipe})
    data = TrainingData((lung(0), lung(1)), (ball(),))
    learner = _train(Team(inference.Backend.choose("cpu")), config, data, ([], []), tmp_path, lambda step: None)
    unseen = CandidatePatches(data.backgrounds, data.donors, [[], []], range(500, 540), 9, recipe)
    batch = default_collate([unseen[n] for n in range(40)])
    with torch.inference_mode():
        said = learner.published()(batch["image"])[:, 0]
    assert auc(said.numpy(), (batch["nodule"] == 1).numpy()).value > 0.9
