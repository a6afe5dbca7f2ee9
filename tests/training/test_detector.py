from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_patches import ball, lung
from tomolens.core.errors import Cancelled, OptionError, ReadError
from tomolens.core.progress import Step
from tomolens.models import inference
from tomolens.training.backgrounds import Mark
from tomolens.training.detector import TrainConfig, Trainer, detection_loss
from tomolens.training.patches import PatchRecipe
from tomolens.training.runs import read_log
from tomolens.training.sources import TrainingData
from tomolens.training.team import Team

SMALL = TrainConfig(
    rounds=2,
    steps=3,
    batch=2,
    workers=0,
    phantom_seeds=(),
    settings={"channels": (8, 8, 8, 8), "pyramid": 8},
    recipe=PatchRecipe(edge=32, kinds=(("scan", 1.0),), inserted=1.0),
)


@pytest.fixture(autouse=True)
def single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact on every processor: oneDNN's bfloat16 gradients of such tiny features are not."""
    monkeypatch.setattr(inference, "_has_bfloat16", lambda device: False)


def data() -> TrainingData:
    return TrainingData((lung(0), lung(1)), (ball(),))


def trainer_in(folder: Path, config: TrainConfig = SMALL) -> Trainer:
    return Trainer(config, data(), folder, Team(inference.Backend.choose("cpu")))


def trained(folder: Path, config: TrainConfig = SMALL) -> Trainer:
    trainer = trainer_in(folder, config)
    trainer.run()
    return trainer


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().float().flatten() for p in trainer.learner.averaged.module.parameters()])


def test_a_stopped_run_goes_on_to_exactly_the_same_weights(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")

    def stop(step: Step) -> None:
        if step.stage.startswith("train") and step.done == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        trainer_in(tmp_path / "stopped").run(stop)
    resumed = trained(tmp_path / "stopped")
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
    assert len((tmp_path / "stopped" / "log.csv").read_text().splitlines()) == 3


def test_a_gradient_that_is_not_finite_is_left_out_and_counted(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    calls = iter(range(6))
    next(trainer.learner.network.parameters()).register_hook(
        lambda gradient: gradient * (1.0 if next(calls) == 0 else float("nan"))
    )
    trainer.run()
    assert trainer.learner.skipped == 5
    assert torch.isfinite(weights(trainer)).all()
    assert [row.split(",")[5] for row in (tmp_path / "log.csv").read_text().splitlines()] == ["skipped", "2", "5"]


def test_the_loss_of_scans_that_are_kept_out_is_logged_and_changes_nothing(tmp_path: Path) -> None:
    config = replace(SMALL, rounds=1, steps=1, val_patches=2)
    watched = replace(data(), held_out=TrainingData((lung(7),), ()))
    trainer = Trainer(config, watched, tmp_path / "watched", Team(inference.Backend.choose("cpu")))
    trainer.run()
    (row,) = read_log(tmp_path / "watched")
    assert row["val_score_loss"] > 0
    assert row["val_box_loss"] == 0, "nothing was inserted, and this lung has no nodule"
    torch.testing.assert_close(weights(trainer), weights(trained(tmp_path / "alone", config)), rtol=0, atol=0)


def test_another_configuration_does_not_go_on_in_the_same_folder(tmp_path: Path) -> None:
    trained(tmp_path)
    with pytest.raises(OptionError, match="another configuration"):
        trainer_in(tmp_path, replace(SMALL, seed=1))


def test_other_lungs_do_not_go_on_in_the_same_folder(tmp_path: Path) -> None:
    trained(tmp_path)
    others = TrainingData((lung(0), lung(7)), (ball(),))
    with pytest.raises(ReadError, match="gone: scan lung-1, marks of lung-1; new: scan lung-7, marks of lung-7"):
        Trainer(SMALL, others, tmp_path, Team(inference.Backend.choose("cpu")))


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"backgrounds": (lung(0), lung(1, marks=(Mark((40, 50, 60), 8, True),)))}, "changed: marks of lung-1"),
        ({"backgrounds": (lung(0), replace(lung(1), origin="other voxels"))}, "changed: scan lung-1"),
        ({"donors": (ball(), replace(ball(), name="b", origin="b"))}, "new: nodule b, ratings of b"),
        ({"donors": (ball(texture=1),)}, "changed: ratings of ball"),
        ({"donors": ()}, "gone: nodule ball, ratings of ball"),
        ({"held_out": TrainingData((lung(7),), ())}, "new: val scan lung-7, val marks of lung-7"),
    ],
)
def test_a_stopped_run_does_not_go_on_with_other_data(tmp_path: Path, now: dict[str, Any], said: str) -> None:
    config, team = replace(SMALL, rounds=1, steps=1), Team(inference.Backend.choose("cpu"))
    trained(tmp_path, config)
    with pytest.raises(ReadError, match=rf"was trained on other data than these \({said}\); go on with the same data"):
        Trainer(config, replace(data(), **now), tmp_path, team)


def test_the_configuration_survives_its_file() -> None:
    assert TrainConfig.from_json(SMALL.to_json()).to_json() == SMALL.to_json()


def loss_of(output: torch.Tensor, batch: dict[str, torch.Tensor]) -> float:
    return sum(float(part / count) for part, count in detection_loss(output, batch).values())


def test_a_perfect_answer_costs_nothing_and_a_missed_nodule_does() -> None:
    positive = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    positive[0, 1, 2, 3] = True
    batch = {"positive": positive, "counted": torch.ones_like(positive), "box": torch.zeros(1, 4, 4, 4, 4)}
    output = torch.zeros(1, 5, 4, 4, 4)
    output[:, 0] = torch.where(positive, 15.0, -15.0)
    assert loss_of(output, batch) < 1e-4
    output[:, 0] = -15.0
    assert loss_of(output, batch) > 10


def test_what_is_not_counted_costs_nothing() -> None:
    positive = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    batch = {"positive": positive, "counted": torch.zeros_like(positive), "box": torch.zeros(1, 4, 4, 4, 4)}
    assert detection_loss(torch.full((1, 5, 4, 4, 4), 9.0), batch)["score_loss"][0] == 0
