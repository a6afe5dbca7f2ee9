"""A run becomes a model folder; the runs here end before they learned anything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
import torch

from tests.training.lessons import TINY
from tests.training.test_detector import SMALL
from tomolens.core.errors import ModelError, OptionError
from tomolens.core.metrics import reliability
from tomolens.core.reconstruction import Job
from tomolens.models.classifier import load_classifier
from tomolens.models.detector import load_detector
from tomolens.models.inference import Backend
from tomolens.models.networks import build, folded
from tomolens.models.registry import Bundle
from tomolens.models.weights import load_weights
from tomolens.training.classifier import ClassifierConfig
from tomolens.training.config import RunConfig
from tomolens.training.curves import draw_reliability
from tomolens.training.gan import Adversary
from tomolens.training.learner import Learner, start_network
from tomolens.training.publish import CONTENTS, Publication, publish
from tomolens.training.runs import CHECKPOINT, RunFolder
from tomolens.training.team import Team

SAID: dict[str, Any] = {
    "name": "tiny", "version": "0.0.1", "summary": "A test.", "intended_use": "None.", "trained_on": "Noise.",
    "licence": "Apache-2.0", "authors": "A clinic", "default_min_score": 0.4, "figures": {"speed": "none"},
}  # fmt: skip


def said(**changes: Any) -> Publication:
    return Publication(**{**SAID, **changes})


MEASURED = "Printed by `benchmarks/reconstruction.py`, on data that was not trained on."
DENOISER: dict[str, Any] = {
    "task": "ct-denoising", "ranges": {"noise_hu": [5, 80]}, "default_min_score": None,
    "input": {"modality": "CT", "unit": "HU", "max_spacing_mm": 5.0, "min_extent_mm": 0.5},
}  # fmt: skip


def run_in(
    folder: Path,
    config: RunConfig = SMALL,
    variance: float | None = None,
    network: torch.nn.Module | None = None,
    **began: Any,
) -> torch.nn.Module:
    """A run that has saved its first round; its averaged network."""
    team = Team(Backend(torch.device("cpu"), torch.float32))
    learner = Learner(network or start_network(config), config, team)
    if variance is not None:
        learner.averaged.module.head[0].adn.N.running_var.fill_(variance)
    row = {"round": 1, "steps": 3, "score_loss": 1.0, "box_loss": 0.5, "seconds": 1.0}
    RunFolder(folder, config).save({**learner.state(), **began, "round": 1, "mined": []}, row)
    return learner.published()


def test_a_published_run_loads_as_a_model_with_its_card(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    (tmp_path / "card.json").write_text(json.dumps(SAID))
    publish(tmp_path / "run", Publication.read(tmp_path / "card.json"), tmp_path / "bundle")
    detector = load_detector(tmp_path / "bundle", device="cpu")
    assert detector.card.default_min_score == 0.4
    assert detector.card.licence == "Apache-2.0"
    inference = json.loads((tmp_path / "bundle" / "configs" / "inference.json").read_text())
    assert inference["network_def"]["settings"] == {"channels": [8, 8, 8, 8], "pyramid": 8}
    page = (tmp_path / "bundle" / "docs" / "README.md").read_text()
    assert "tiny" in page
    assert "](log.png)" in page
    assert "monai.bundle run" in page
    assert 0 < (tmp_path / "bundle" / "docs" / "log.png").stat().st_size < 150_000


def test_a_published_run_says_by_fingerprints_what_it_learned_from(tmp_path: Path) -> None:
    run_in(tmp_path / "old")
    assert not (publish(tmp_path / "old", said(), tmp_path / "model").folder / CONTENTS).exists()
    trained = [("nodule A", "aa"), ("marks of B", "bb"), ("cube C (val)", "cc"), ("phantom D", "")]
    run_in(tmp_path / "run", record=[*trained, ("val nodule E", "ee")])
    written = (publish(tmp_path / "run", said(), tmp_path / "model").folder / CONTENTS).read_text(encoding="utf-8")
    assert written.split() == ["split,kind,fingerprint", "train,nodule,aa", "train,cube,cc", "val,nodule,ee"]


def test_a_model_that_was_trained_on_learned_from_what_the_first_one_did_too(tmp_path: Path) -> None:
    run_in(tmp_path / "first", record=[("scan A", "aa"), ("nodule B", "bb")])
    publish(tmp_path / "first", said(), tmp_path / "base")
    on = replace(SMALL, start_from=str(tmp_path / "base"))
    run_in(tmp_path / "run", on, record=[("nodule B", "bb"), ("nodule C", "cc")])
    written = (publish(tmp_path / "run", said(), tmp_path / "model").folder / CONTENTS).read_text(encoding="utf-8")
    assert written.split()[1:] == ["train,scan,aa", "train,nodule,bb", "train,nodule,cc"]
    (tmp_path / "base" / CONTENTS).unlink()
    assert not (publish(tmp_path / "run", said(), tmp_path / "model").folder / CONTENTS).exists()
    rmtree(tmp_path / "base")
    assert not (publish(tmp_path / "run", said(), tmp_path / "model").folder / CONTENTS).exists()


def test_a_second_stage_is_published_with_its_task_and_calibration(tmp_path: Path) -> None:
    run_in(tmp_path / "run", ClassifierConfig(settings={"channels": [8, 8, 8, 8]}))
    card = said(task="nodule classification", calibration={"detector": 0.5, "classifier": 0.9, "offset": -1.0})
    publish(tmp_path / "run", card, tmp_path / "bundle")
    classifier = load_classifier(tmp_path / "bundle", device="cpu")
    assert (classifier.card.task, classifier.card.calibration.classifier) == ("nodule classification", 0.9)


@pytest.mark.parametrize("job", Job)
def test_a_reconstruction_is_published_with_its_ranges_and_what_was_fitted_later(tmp_path: Path, job: Job) -> None:
    run_in(tmp_path / "run", TINY)
    card = said(**{**DENOISER, "task": str(job)}, settings={"dropout": 0.25}, generative=True, figures_from=MEASURED)
    bundle = publish(tmp_path / "run", card, tmp_path / "bundle")
    read = Bundle.open(bundle.folder).card
    assert (read.task, read.ranges, read.generative) == (job, {"noise_hu": (5, 80)}, True)
    assert read.settings == {**TINY.settings, "dropout": 0.25}
    assert read.input.min_extent_mm == 0.5
    page = (tmp_path / "bundle" / "docs" / "README.md").read_text()
    assert MEASURED in page
    assert "--output FOLDER --allow_gan True" in page
    assert (tmp_path / "bundle" / "configs" / "inference.json").is_file()
    assert "default_min_score" not in json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())


def test_a_gan_s_card_says_that_it_is_one_though_nobody_said_so(tmp_path: Path) -> None:
    run_in(tmp_path / "run", replace(TINY, start_from="any", adversary=Adversary()), network=start_network(TINY))
    bundle = publish(tmp_path / "run", said(**DENOISER), tmp_path / "bundle")
    assert Bundle.open(bundle.folder).card.generative


def test_publishing_changes_no_answer_even_where_a_variance_overflows_half_precision(tmp_path: Path) -> None:
    averaged = run_in(tmp_path / "run", variance=8e6)
    publish(tmp_path / "run", said(), tmp_path / "bundle")
    network = build(SMALL.network, SMALL.settings)
    load_weights(network, tmp_path / "bundle" / "models" / "model.safetensors")
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(image), averaged(image), atol=2e-3, rtol=2e-2)


def test_what_a_team_trained_with_shared_norms_is_published_as_one_process_would(tmp_path: Path) -> None:
    network = start_network(SMALL)
    network(torch.rand(2, 1, 32, 32, 32))
    averaged = run_in(tmp_path / "run", network=torch.nn.SyncBatchNorm.convert_sync_batchnorm(network))
    publish(tmp_path / "run", said(), tmp_path / "bundle")
    published = build(SMALL.network, SMALL.settings)
    load_weights(published, tmp_path / "bundle" / "models" / "model.safetensors")
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(folded(published)(image), averaged(image), atol=2e-3, rtol=2e-2)


def test_a_published_model_can_be_fine_tuned_and_the_new_card_says_so(tmp_path: Path) -> None:
    run_in(tmp_path / "first")
    publish(tmp_path / "first", said(), tmp_path / "bundle")
    config = RunConfig(network=SMALL.network, settings=SMALL.settings, start_from=str(tmp_path / "bundle"))
    start = {name: tensor.half() for name, tensor in start_network(config).state_dict().items() if tensor.ndim > 1}
    network = build(SMALL.network, SMALL.settings)
    load_weights(network, tmp_path / "bundle" / "models" / "model.safetensors")
    assert start
    assert all(torch.equal(network.state_dict()[name].half(), tensor) for name, tensor in start.items())


def test_a_new_version_keeps_what_the_old_one_said_of_itself(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    publish(tmp_path / "run", said(), tmp_path / "bundle")
    publish(tmp_path / "run", said(version="0.0.2", changes="better"), tmp_path / "bundle")
    changelog = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())["changelog"]
    assert changelog == {"0.0.1": "first version", "0.0.2": "better"}


def test_a_licence_of_ones_own_is_taken_from_beside_the_card(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    (tmp_path / "MINE").write_text("All yours.")
    (tmp_path / "card.json").write_text(json.dumps({**SAID, "licence": "CC BY-NC 4.0", "licence_file": "MINE"}))
    bundle = publish(tmp_path / "run", Publication.read(tmp_path / "card.json"), tmp_path / "bundle")
    assert (bundle.folder / "LICENSE").read_text() == "All yours."


def test_a_card_says_nothing_that_its_author_did_not_say(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    folder = publish(tmp_path / "run", said(), tmp_path / "bundle").folder
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert (metadata["authors"], metadata["copyright"]) == ("A clinic", "A clinic")
    assert "Apache License" in (folder / "LICENSE").read_text()
    page = (folder / "docs" / "README.md").read_text()
    assert "As the authors gave them; it is not said what measured them." in page
    assert "benchmarks/" not in page
    assert "not trained on" not in page


def test_a_card_without_figures_says_so(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    page = publish(tmp_path / "run", said(figures={}), tmp_path / "bundle").folder / "docs" / "README.md"
    assert "## Figures\n\nNothing was measured.\n" in page.read_text()
    assert "| measure |" not in page.read_text()


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ('{"name": "tiny"}', "default_min_score"),
        (json.dumps({name: value for name, value in SAID.items() if name != "authors"}), "'authors'"),
        (json.dumps({**SAID, "licence": "CC BY-NC 4.0"}), "licence is 'CC BY-NC 4.0': licence_file is needed"),
        (json.dumps({**SAID, "nickname": "t"}), "unknown key 'nickname'; accepted are name, version"),
        (json.dumps({**SAID, "default_min_score": "high"}), "'high' is not of the kind"),
        (json.dumps({**SAID, "task": "drawing"}), "task is 'drawing'; accepted are detection"),
        (json.dumps({**SAID, "default_min_score": None}), "default_min_score is needed of a detector"),
        (json.dumps({**SAID, "default_min_score": 7}), "default_min_score is a number from 0 to 1, not 7"),
        (json.dumps({**SAID, "task": "ct-denoising"}), "input is needed for ct-denoising: modality"),
        (json.dumps({**SAID, "licence_file": "absent"}), "absent, but there is no such file"),
    ],
)
def test_a_card_that_cannot_be_meant_is_refused(tmp_path: Path, content: str, wrong: str) -> None:
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(OptionError, match=wrong):
        Publication.read(tmp_path / "card.json")


def test_a_threshold_of_nothing_is_published_as_one(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    publish(tmp_path / "run", said(default_min_score=0.0), tmp_path / "bundle")
    assert load_detector(tmp_path / "bundle", device="cpu").card.default_min_score == 0


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"input": {"modality": "CT", "unit": "HU"}}, "The card of tiny .*max_spacing_mm"),
        ({"settings": {"channels": [8, 8, 8, 16]}}, "weights of this network"),
    ],
)
def test_what_would_not_load_replaces_no_model(tmp_path: Path, changes: dict[str, Any], wrong: str) -> None:
    run_in(tmp_path / "run")
    publish(tmp_path / "run", said(), tmp_path / "bundle")
    with pytest.raises(ModelError, match=wrong):
        publish(tmp_path / "run", said(version="0.0.2", **changes), tmp_path / "bundle")
    assert load_detector(tmp_path / "bundle", device="cpu").card.version == "0.0.1"
    assert sorted(place.name for place in tmp_path.iterdir()) == ["bundle", "run"]


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OptionError, match="something else"):
        publish(tmp_path / "run", said(), tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_folder_without_checkpoint_cannot_be_published(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=CHECKPOINT):
        publish(tmp_path, said(), tmp_path / "b")


def test_a_reliability_diagram_goes_with_the_card(tmp_path: Path) -> None:
    points = reliability([0.05, 0.2, 0.9, 0.95], [False, False, True, True])
    draw_reliability(points, tmp_path / "measured.png")
    assert (tmp_path / "measured.png").stat().st_size > 5000
    card = {**SAID, "reliability": "measured.png"}
    (tmp_path / "card.json").write_text(json.dumps(card))
    run_in(tmp_path / "run")
    publish(tmp_path / "run", Publication.read(tmp_path / "card.json"), tmp_path / "bundle")
    docs = tmp_path / "bundle" / "docs"
    assert (docs / "reliability.png").read_bytes() == (tmp_path / "measured.png").read_bytes()
    assert "](reliability.png)" in (docs / "README.md").read_text()
    (tmp_path / "card.json").write_text(json.dumps({**card, "reliability": "absent.png"}))
    with pytest.raises(OptionError, match=r"reliability is .*absent.png, but there is no such file"):
        Publication.read(tmp_path / "card.json")
