"""Train the second stage: what a detector marks is looked at again, told from nodules and rated."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from tomolens.core.errors import ReadError
from tomolens.core.progress import Progress, Step, silent
from tomolens.models.inference import Backend
from tomolens.models.networks import folded
from tomolens.models.registry import find_bundle
from tomolens.models.weights import filled
from tomolens.training.batches import Batches
from tomolens.training.candidates import UNKNOWN, CandidatePatches, CandidateRecipe, Places, oversampling
from tomolens.training.config import RunConfig
from tomolens.training.detector import false_peaks
from tomolens.training.learner import Batch, Learner, Terms, start_network
from tomolens.training.runs import RECORD, RunFolder
from tomolens.training.team import Team, team_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tomolens.training.sources import TrainingData

_MARKED_FLOOR = 0.03
_MARKED_MOST = 150
_MALIGNANCY_WEIGHT = 0.5
_TEXTURE_WEIGHT = 0.4


@dataclass(frozen=True)
class ClassifierConfig(RunConfig):
    """Everything that decides a training run of the second stage, apart from its data; saved with it.

    The fields of `RunConfig`, and:

    Parameters
    ----------
    detector
        Name or folder of the detector whose marks are told from nodules; the default one where None.
    phantom_seeds
        Phantoms that are generated as further lungs.
    recipe
        How patches are drawn.
    val_patches
        Patches of the scans that were kept out (split ``val``), whose loss is logged after each round, where nodules
        were kept out; nothing is chosen by it.
    """

    network: str = "nodule_cnn_3d"
    batch: int = 32
    detector: str | None = None
    phantom_seeds: tuple[int, ...] = tuple(range(100, 110))
    recipe: CandidateRecipe = field(default_factory=CandidateRecipe)
    val_patches: int = 64


def verdict_loss(output: torch.Tensor, batch: Batch, oversampled: Sequence[float] = (0.0, 0.0, 0.0)) -> Terms:
    """Cross-entropies of nodule, malignancy and texture; those nobody rated are left out.

    ``output`` (n, 5) as of `NoduleClassifier`; ``batch`` as of `CandidatePatches`, stacked; ``oversampled`` as of
    `tomolens.training.candidates.oversampling`: textures that are drawn more often than they are met.
    """
    answer, nodule, malignancy, texture = output.float(), batch["nodule"], batch["malignancy"], batch["texture"]
    told, rated, typed = nodule != UNKNOWN, malignancy != UNKNOWN, texture != UNKNOWN
    textures = answer[typed, 2:] + torch.tensor(oversampled, device=answer.device)
    is_nodule = functional.binary_cross_entropy_with_logits(answer[told, 0], nodule[told], reduction="sum")
    is_malignant = functional.binary_cross_entropy_with_logits(answer[rated, 1], malignancy[rated], reduction="sum")
    kind = functional.cross_entropy(textures, texture[typed], reduction="sum")
    return {
        "nodule_loss": (is_nodule, told.sum()),
        "malignancy_loss": (_MALIGNANCY_WEIGHT * is_malignant, rated.sum()),
        "texture_loss": (_TEXTURE_WEIGHT * kind, typed.sum()),
    }


def train_classifier(
    config: ClassifierConfig,
    data: TrainingData,
    folder: Path,
    device: str = "auto",
    *,
    processes: int = 1,
    progress: Progress = silent,
) -> Learner:
    """Train in ``folder`` to the last round; called again after a stop, it goes on from the last finished round.

    The detector marks every lung once, before the first step; a run that goes on keeps the marks that it began with.
    Processes, stops and errors as of `train_detector`.

    Raises
    ------
    ReadError
        If ``folder`` holds a run that began with other data, or with other weights of the detector.
    """
    marked = _began_with(config, data, folder)
    if marked is None:
        marked = marked_places(config.detector, data, device, progress)
    with team_of(processes, device, _follow, config, data, marked, folder) as team:
        return _train(team, config, data, marked, folder, progress)


def _began_with(config: ClassifierConfig, data: TrainingData, folder: Path) -> tuple[Places, ...] | None:
    """The marks that the run in a folder began with; None of a new run."""
    run = RunFolder(folder, config)
    state = run.resume(torch.device("cpu"))
    if state is None:
        return None
    run.check_data(state, data.record)
    detector = find_bundle(config.detector)
    if state["detector_sha256"] != detector.weights_sha256:
        raise ReadError(
            f"{folder} was trained on what {detector.card.name} marked with other weights "
            f"({state['detector_sha256'][:12]}) than it has now ({detector.weights_sha256[:12]}); go on with the same "
            "detector, or in another folder."
        )
    return tuple([(k, j, i) for k, j, i in places] for places in state["marked"])


def _follow(team: Team, config: ClassifierConfig, data: TrainingData, marked: tuple[Places, ...], folder: Path) -> None:
    _train(team, config, data, marked, folder, silent)


def _train(
    team: Team,
    config: ClassifierConfig,
    data: TrainingData,
    marked: tuple[Places, ...],
    folder: Path,
    progress: Progress,
) -> Learner:
    learner, run = Learner(start_network(config), config, team), RunFolder(folder, config)
    detector_sha256 = find_bundle(config.detector).weights_sha256
    began = {RECORD: data.record, "marked": marked, "detector_sha256": detector_sha256}
    state = run.resume(team.backend.device)
    if state is not None:
        learner.resume(state)

    def patches(indices: Sequence[int]) -> CandidatePatches:
        return CandidatePatches(data.backgrounds, data.donors, marked, indices, config.seed, config.recipe)

    loss = partial(verdict_loss, oversampled=oversampling(data.donors, config.recipe).tolist())
    held_out = _held_out_patches(config, data.held_out, team, progress)
    for number in range(state["round"] if state else 0, config.rounds):
        started = time.perf_counter()
        losses = learner.train(Batches(config, team, number, patches), loss, progress)
        if team.leads:
            row = {"round": number + 1, "steps": learner.steps, **losses}
            row |= _held_out_losses(config, learner, held_out) | {"skipped": learner.skipped}
            row |= {"learning_rate": learner.rate, "seconds": time.perf_counter() - started}
            run.save({**learner.state(), **began, "round": number + 1}, row)
    return learner


def _held_out_patches(
    config: ClassifierConfig, data: TrainingData | None, team: Team, progress: Progress
) -> CandidatePatches | None:
    """Always the same patches of the scans that were kept out; None where no nodule was, or nobody looks at them."""
    if data is None or not config.val_patches or not team.leads:
        return None
    own = any(mark.nodule for lung in data.backgrounds if lung.kind != "cube" for mark in lung.marks)
    if not data.donors and not own:
        return None
    marked = marked_places(config.detector, data, str(team.backend.device), progress)
    return CandidatePatches(
        data.backgrounds, data.donors, marked, range(config.val_patches), config.seed, config.recipe
    )


def _held_out_losses(config: ClassifierConfig, learner: Learner, patches: CandidatePatches | None) -> dict[str, float]:
    """The averaged network's loss on patches that were kept out; what nobody rated in them is left out."""
    if patches is None:
        return {}
    oversampled = oversampling(patches.donors, config.recipe).tolist()

    def loss(output: torch.Tensor, batch: Batch) -> Terms:
        terms = verdict_loss(output, batch, oversampled)
        return {f"val_{name}": (part, count) for name, (part, count) in terms.items() if count > 0}

    return learner.judge(DataLoader(patches, config.batch), loss)


def marked_places(
    detector: str | None, data: TrainingData, device: str = "auto", progress: Progress = silent
) -> tuple[Places, ...]:
    """Where a detector marks each lung and there is no nodule, surest first."""
    backend = Backend.choose(device)
    _, trained, _ = filled(find_bundle(detector))
    network, places = folded(trained), []
    for number, background in enumerate(data.backgrounds):
        progress(Step("mark lungs", number, len(data.backgrounds)))
        places.append(false_peaks(network, background, backend, _MARKED_FLOOR, _MARKED_MOST))
    return tuple(places)
