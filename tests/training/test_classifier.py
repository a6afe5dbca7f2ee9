from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import default_collate

from tests.models.own_bundles import metadata, write_bundle
from tests.training.test_patches import ball, coarse, lung
from tomolens.core.errors import Cancelled, ReadError
from tomolens.core.metrics import auc
from tomolens.core.progress import Step
from tomolens.models import inference
from tomolens.models.classifier import EDGE
from tomolens.training.backgrounds import Mark
from tomolens.training.candidates import UNKNOWN, CandidatePatches, CandidateRecipe, oversampling, texture_class
from tomolens.training.classifier import ClassifierConfig, _train, train_classifier, verdict_loss
from tomolens.training.learner import Learner
from tomolens.training.nodules import paste
from tomolens.training.runs import load_checkpoint, read_log
from tomolens.training.sources import TrainingData
from tomolens.training.team import Team

SMALL = ClassifierConfig(
    rounds=2, steps=2, batch=4, workers=0, phantom_seeds=(), settings={"channels": [4, 4, 8, 8]}, learning_rate=1e-2
)


@pytest.fixture(autouse=True)
def single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact on every processor."""
    monkeypatch.setattr(inference, "_has_bfloat16", lambda device: False)


def candidates(count: int = 120, kind: str = "scan", texture: int | None = 5, **changes) -> CandidatePatches:
    lungs = [lung(0, kind), lung(1, kind, marks=(Mark((60.0, 60.0, 60.0), 10.0, True),))]
    recipe, donor = CandidateRecipe(kinds=((kind, 1.0),), **changes), ball(texture=texture, malignancy=1.0)
    return CandidatePatches(lungs, [donor], [[(40.0, 50.0, 60.0)], []], range(count), 5, recipe)


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


def labels_of(patches: CandidatePatches) -> list[tuple[float, int]]:
    """Malignancy and texture of each."""
    return [(float(patches[n]["malignancy"]), int(patches[n]["texture"])) for n in range(len(patches))]


def test_a_nodule_whose_texture_nobody_rated_teaches_malignancy_but_no_texture() -> None:
    labels = labels_of(candidates(40, texture=None, nodules=1.0, own=0.0))
    assert {texture for _, texture in labels} == {UNKNOWN}
    assert {malignancy for malignancy, _ in labels} == {UNKNOWN, 1.0}


def test_the_nodule_in_the_middle_of_a_cube_is_not_taught_as_one_that_grew_in_a_lung() -> None:
    alone = {"nodules": 1.0, "as_found": 0.0, "own": 1.0, "altered": 0.0}
    in_scan, in_cube = (labels_of(candidates(6, kind, **alone)) for kind in ("scan", "cube"))
    assert set(in_scan) == {(UNKNOWN, UNKNOWN)}, "the scan's own nodule, unrated"
    assert set(in_cube) == {(1.0, 2)}, "blended in; the cube's own is left to what is shown as found"


def test_a_blended_nodule_is_in_the_middle_of_its_patch() -> None:
    sharp = {"nodules": 1.0, "as_found": 0.0, "own": 0.0, "altered": 0.0, "jitter_mm": 0.0, "near_wall": 0.0}
    middle = slice(EDGE // 2 - 2, EDGE // 2 + 3)
    patches = [candidates(**sharp)[n]["image"][0] for n in range(10)]
    inside = np.mean([float(patch[middle, middle, middle].mean()) for patch in patches])
    whole = np.mean([float(patch.mean()) for patch in patches])
    assert inside > whole + 0.6


def test_a_decoy_shows_a_ball_and_not_the_bare_lung(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def noted(*arguments):
        seen.append(paste(*arguments))
        return seen[-1]

    monkeypatch.setattr("tomolens.training.candidates.paste", noted)
    lungs = [coarse(96, 0), coarse(96, 1)]
    recipe = CandidateRecipe(kinds=(("scan", 1.0),), nodules=0.0, decoys=1.0)
    made, pasted = CandidatePatches(lungs, [ball()], [[], []], range(30), 5, recipe), 0
    for n in range(30):
        seen.clear()
        assert made[n]["nodule"] == 0
        pasted += any(seen)
    assert pasted == 30


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


@pytest.mark.parametrize("drawn", [{}, {"subsolid": 0.0, "altered": 0.0}, {"subsolid": 0.6, "altered": 1.0}])
def test_how_much_more_often_a_texture_is_drawn_is_what_the_patches_show(drawn: dict[str, float]) -> None:
    recipe = CandidateRecipe(kinds=(("scan", 1.0),), nodules=1.0, neighbours=0.0, **drawn)
    ratings = [5] * 12 + [4] * 3 + [3] + [1] * 2 + [None] * 2
    donors = [ball(texture=rating, malignancy=1.0) for rating in ratings]
    patches = CandidatePatches([lung(0)], donors, [[]], range(240), 5, recipe)
    told = Counter(texture for _, texture in labels_of(patches) if texture != UNKNOWN)
    among_donors = np.array([2, 1, 15]) + 1
    expected = np.exp(oversampling(donors, recipe)) * among_donors / among_donors.sum()
    assert expected.sum() == pytest.approx(1)
    assert [told[n] / told.total() for n in range(3)] == pytest.approx(expected.tolist(), abs=0.09)


def test_a_texture_that_is_drawn_too_often_is_answered_as_rarely_as_it_is_met() -> None:
    answer, oversampled = torch.zeros(200, 5, requires_grad=True), np.log([0.5, 0.1, 0.4]) - np.log([0.1, 0.1, 0.8])
    texture = torch.tensor([0] * 100 + [1] * 20 + [2] * 80)
    unknown = torch.full((200,), float(UNKNOWN))
    batch = {"nodule": unknown, "malignancy": unknown, "texture": texture}
    slope = {}
    for said in (np.log([0.1, 0.1, 0.8]), np.log([0.5, 0.1, 0.4])):
        answer.data[:, 2:] = torch.tensor(said, dtype=torch.float32)
        (term, _) = verdict_loss(answer, batch, oversampled.tolist())["texture_loss"]
        slope[said[0]] = float(torch.autograd.grad(term, answer)[0].sum(dim=0).abs().max())
    natural, as_drawn = slope.values()
    assert natural < 1e-3 < as_drawn, "where nothing else tells them apart, the answer is how common they are"


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


def own_detector(folder: Path) -> Path:
    settings = {"channels": [8, 8, 8, 8], "pyramid": 8}
    return write_bundle(folder, metadata("mine", task="detection", network="center_net", settings=settings))


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClassifierConfig:
    """A run in ``tmp_path/run`` that was stopped after its first round; its configuration."""
    config = ClassifierConfig(**{**vars(SMALL), "detector": str(own_detector(tmp_path / "detector"))})
    marked = ([(40.0, 50.0, 60.0)], [])
    monkeypatch.setattr("tomolens.training.classifier.marked_places", lambda *_: marked)

    def stop(step: Step) -> None:
        if step.done > 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        train_classifier(config, TrainingData((lung(0), lung(1)), (ball(),)), tmp_path / "run", "cpu", progress=stop)
    assert load_checkpoint(tmp_path / "run")["round"] == 1
    monkeypatch.setattr("tomolens.training.classifier.marked_places", lambda *_: pytest.fail("It is marked anew."))
    return config


def test_a_run_goes_on_with_the_marks_that_it_began_with(tmp_path: Path, stopped: ClassifierConfig) -> None:
    learner = train_classifier(stopped, TrainingData((lung(0), lung(1)), (ball(),)), tmp_path / "run", "cpu")
    after = load_checkpoint(tmp_path / "run")
    assert learner.steps == stopped.total_steps
    assert (after["round"], after["marked"]) == (2, ([(40.0, 50.0, 60.0)], []))
    assert [what for what, _ in after["record"]][:2] == ["scan lung-0", "scan lung-1"]


def test_a_run_does_not_go_on_with_other_lungs(tmp_path: Path, stopped: ClassifierConfig) -> None:
    differing = {(0, 7): "new: scan lung-7", (1, 0): "in another order: scan lung-1", (0,): "gone: scan lung-1"}
    for seeds, said in differing.items():
        lungs = tuple(map(lung, seeds))
        with pytest.raises(ReadError, match=f"run was trained on other data than these .*{said}"):
            train_classifier(stopped, TrainingData(lungs, (ball(),)), tmp_path / "run", "cpu")


def test_a_run_does_not_go_on_with_a_detector_whose_weights_have_changed(
    tmp_path: Path, stopped: ClassifierConfig
) -> None:
    weights = tmp_path / "detector" / "models" / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights)
    with pytest.raises(ReadError, match=r"what mine marked with other weights \(\w{12}\) than it has now"):
        train_classifier(stopped, TrainingData((lung(0), lung(1)), (ball(),)), tmp_path / "run", "cpu")


MARKED = lung(7, marks=(Mark((60.0, 60.0, 60.0), 10.0, True),))


@pytest.mark.parametrize(
    ("held_out", "logged"),
    [
        (None, set()),
        (TrainingData((lung(7),), ()), set()),
        (TrainingData((MARKED,), ()), {"val_nodule_loss"}),
        (
            TrainingData((lung(7),), (ball(malignancy=1.0),)),
            {"val_nodule_loss", "val_malignancy_loss", "val_texture_loss"},
        ),
    ],
)
def test_the_loss_of_what_is_known_of_nodules_that_are_kept_out_is_logged_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: TrainingData | None, logged: set[str]
) -> None:
    monkeypatch.setattr("tomolens.training.classifier.marked_places", lambda *_: ([(40.0, 50.0, 60.0)],))
    config = ClassifierConfig(**{**vars(SMALL), "rounds": 1, "val_patches": 24})
    data, team = TrainingData((lung(0),), (ball(),)), Team(inference.Backend.choose("cpu"))

    def trained(folder: Path, data: TrainingData) -> Learner:
        return _train(team, config, data, ([],), folder, lambda step: None)

    watched = trained(tmp_path / "watched", replace(data, held_out=held_out))
    (row,) = read_log(tmp_path / "watched")
    assert {name for name in row if name.startswith("val_")} == logged
    assert all(row[name] > 0 for name in logged)
    for name, tensor in trained(tmp_path / "alone", data).averaged.state_dict().items():
        assert torch.equal(tensor, watched.averaged.state_dict()[name]), name


def test_it_learns_to_tell_a_nodule_from_parenchyma(tmp_path: Path) -> None:
    recipe = CandidateRecipe(kinds=(("scan", 1.0),), as_found=0, own=0, decoys=0, anywhere=1, neighbours=0, near_wall=0)
    short = {"rounds": 1, "steps": 80, "batch": 16, "echo": 2, "learning_rate": 3e-3, "ema": 0.9}
    config = ClassifierConfig(**{**vars(SMALL), **short, "recipe": recipe})
    data = TrainingData((lung(0), lung(1)), (ball(),))
    learner = _train(Team(inference.Backend.choose("cpu")), config, data, ([], []), tmp_path, lambda step: None)
    unseen = CandidatePatches(data.backgrounds, data.donors, [[], []], range(500, 580), 9, recipe)
    batch = default_collate([unseen[n] for n in range(80)])
    with torch.inference_mode():
        said = learner.published()(batch["image"])[:, 0]
    assert auc(said.numpy(), (batch["nodule"] == 1).numpy()).value > 0.95
