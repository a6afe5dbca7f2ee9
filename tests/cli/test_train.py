"""`tomolens train`: what it refuses and how it says so; the training itself is tested in tests/training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests.models.test_classifier import detector_naming, second_stage
from tests.training.lessons import TINY, teach
from tests.training.test_calibration import drawn, slab
from tests.training.test_dataset import chest
from tomolens.cli.main import app
from tomolens.cli.train import configured
from tomolens.io.write import write_volume
from tomolens.models.registry import Bundle
from tomolens.training.detector import TrainConfig
from tomolens.training.gan import Adversary
from tomolens.training.learner import start_network
from tomolens.training.reconstruction import ReconstructionConfig
from tomolens.training.sources import TrainingData

RUN = CliRunner()


def refused(*words: object) -> str:
    result = RUN.invoke(app, ["train", *map(str, words)])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


def test_data_that_hold_nothing_are_refused_in_one_line(tmp_path: Path) -> None:
    said = refused("detector", "--data", tmp_path, "-o", tmp_path / "run", "--phantoms", 0)
    assert "holds 0 lungs and 0 nodules" in said
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    assert "does not exist" in refused("detector", "--data", tmp_path / "absent", "-o", tmp_path / "run")


@pytest.mark.parametrize("trained", ["detector", "classifier"])
def test_an_unknown_key_of_a_configuration_is_refused_with_those_that_are_accepted(
    tmp_path: Path, trained: str
) -> None:
    (tmp_path / "run.json").write_text('{"epochs": 3}')
    said = refused(trained, "--data", tmp_path, "-o", tmp_path / "run", "--config", tmp_path / "run.json")
    assert "run.json has the unknown key 'epochs'; accepted are seed, rounds, steps" in said


def test_an_option_outside_what_is_accepted_is_refused_by_name(tmp_path: Path) -> None:
    assert "rounds is at least 1, not 0" in refused("detector", "--data", tmp_path, "-o", tmp_path, "--rounds", 0)


def test_options_stand_above_the_file_and_the_file_above_the_run_that_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(TrainConfig(seed=1, steps=11, batch=2).to_json())
    (tmp_path / "mine.json").write_text('{"seed": 5, "ema": 0.9}')
    wishes: dict[str, Any] = {"steps": 7, "seed": None, "phantom_seeds": (100,)}
    chosen = configured(TrainConfig, tmp_path, tmp_path / "mine.json", wishes)
    assert (chosen.seed, chosen.ema, chosen.steps, chosen.batch, chosen.phantom_seeds) == (5, 0.9, 7, 8, (100,))
    assert configured(TrainConfig, tmp_path, None, {}) == TrainConfig(seed=1, steps=11, batch=2)
    assert configured(TrainConfig, tmp_path / "new", None, {}) == TrainConfig()


def test_a_reconstruction_is_trained_with_its_jobs_defaults_under_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(monkeypatch)
    (tmp_path / "mine.json").write_text('{"val_examples": 2}')
    words = ["--data", tmp_path, "-o", tmp_path / "run", "--rounds", 1, "--config", tmp_path / "mine.json"]
    result = RUN.invoke(app, ["train", "reconstruction", "ct-denoising", *map(str, words), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "Trained 3 steps" in result.output
    saved = ReconstructionConfig.from_json((tmp_path / "run" / "config.json").read_text())
    assert saved == replace(TINY, rounds=1, val_examples=2)


def test_a_gan_starts_from_a_model_and_keeps_the_weights_that_the_file_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(monkeypatch)
    monkeypatch.setattr("tomolens.training.reconstruction.start_network", lambda config: start_network(TINY))
    words = ["reconstruction", "ct-denoising", "--data", tmp_path, "-o", tmp_path / "run", "--device", "cpu", "--gan"]
    assert "give start_from (--start-from)" in refused(*words)
    (tmp_path / "mine.json").write_text('{"edge": 32, "adversary": {"channels": 8, "faithful": 0.5, "layers": 1}}')
    words += ["--start-from", "any", "--rounds", 1, "--config", tmp_path / "mine.json"]
    result = RUN.invoke(app, ["train", *map(str, words)])
    assert result.exit_code == 0, result.output
    saved = ReconstructionConfig.from_json((tmp_path / "run" / "config.json").read_text())
    assert saved.adversary == Adversary(channels=8, faithful=0.5, layers=1)


def test_what_data_hold_and_how_many_marks_fit_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_volume(chest(), tmp_path / "a.nii")
    table = "seriesuid,coordX,coordY,coordZ,diameter_mm\na,90,130,90,8\nb,1,2,3,8\n"
    (tmp_path / "annotations.csv").write_text(table)
    monkeypatch.setattr("tomolens.training.detector.train_detector", lambda *_, **__: None)
    words = ["--data", str(tmp_path), "-o", str(tmp_path / "run"), "--phantoms", "0"]
    result = RUN.invoke(app, ["train", "detector", *words])
    assert result.exit_code == 0, result.output
    assert "1 scans with 1 nodules, 0 nodule volumes, 0 cubes; 1 rows of scans that are not listed" in result.output
    assert "0 of 1 marked nodules are denser than the lung around them" in result.output
    said = " ".join(refused("classifier", *words).split())
    assert "this training needs some with masks (nodule_volumes, cubes)" in said


def test_every_field_of_the_configuration_can_be_set(tmp_path: Path) -> None:
    """By an option of its own, or by the file that --config names, which takes them all."""
    shown = typer.main.get_command(app).commands["train"].commands["detector"]  # type: ignore[attr-defined]
    assert "config" in {parameter.name for parameter in shown.params}
    (tmp_path / "all.json").write_text(TrainConfig().to_json())
    assert configured(TrainConfig, tmp_path / "run", tmp_path / "all.json", {}) == TrainConfig()


def test_a_description_is_written_and_what_it_holds_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "annotations.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\na,1,2,3,8\n")
    result = RUN.invoke(app, ["train", "describe", str(tmp_path), "-o", str(tmp_path / "dataset.json"), "--val", "a"])
    assert result.exit_code == 0, result.output
    assert "1 scans with 1 nodules" in result.output
    assert json.loads((tmp_path / "dataset.json").read_text())["scans"][0]["split"] == "val"


def test_a_log_is_drawn_again_and_an_absent_one_is_said(tmp_path: Path) -> None:
    assert "holds no log.csv" in refused("plot", tmp_path)
    (tmp_path / "log.csv").write_text("round,steps,score_loss,val_score_loss\n1,5,2.0,\n2,10,1.0,1.5\n")
    result = RUN.invoke(app, ["train", "plot", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "log.png").read_bytes().startswith(b"\x89PNG")


def test_publishing_a_folder_without_a_run_says_what_is_missing(tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_text(
        '{"name": "a", "version": "1", "summary": "", "intended_use": "", "trained_on": "", "licence": "Apache-2.0",'
        ' "authors": "", "default_min_score": 0.5, "figures": {}}'
    )
    assert "checkpoint.pt" in refused("publish", tmp_path / "run", card, "-o", tmp_path / "model")


def test_calibrating_says_what_is_fitted_on_and_of_which_model_it_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = second_stage(tmp_path / "second")
    mine = detector_naming(tmp_path / "mine", second)
    shown = TrainingData((slab(),), ())
    monkeypatch.setattr("tomolens.training.sources.open_dataset", lambda _: None)
    monkeypatch.setattr("tomolens.training.calibration.kept_out", lambda *_: (shown, "nodules of train are taken."))
    monkeypatch.setattr("tomolens.training.calibration.judged", lambda *_: drawn(500))
    words = ("train", "calibrate", second, "--data", tmp_path, "--detector", mine, "--device", "cpu")
    run = CliRunner().invoke(app, list(map(str, words)))
    assert run.exit_code == 0, run.output
    assert "nodules of train are taken." in run.stderr
    assert "The lungs of slab are left out: it covers 4 mm" in run.stderr
    assert [line.split()[0] for line in run.stderr.splitlines() if "does not say what it learned from" in line] == [
        Bundle.open(folder).card.name for folder in (mine, second)
    ]
