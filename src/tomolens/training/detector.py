"""Train the nodule detector: rounds of patches, hard negatives mined before each, checkpoints that resume exactly."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from tomolens.core.progress import Progress, Step, silent
from tomolens.models.detector import peaks_of
from tomolens.models.inference import Backend, Pass
from tomolens.models.networks import folded
from tomolens.models.tensors import normalised
from tomolens.training.batches import Batches
from tomolens.training.config import RunConfig
from tomolens.training.learner import Batch, Learner, Terms, start_network
from tomolens.training.patches import Patches, PatchRecipe
from tomolens.training.runs import RECORD, RunFolder
from tomolens.training.team import Team, check_shared, team_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tomolens.training.backgrounds import Background
    from tomolens.training.sources import TrainingData

Places = list[tuple[float, float, float]]

_MINED_FLOOR = 0.15
_MINED_MOST = 60
_MARK_MARGIN_MM = 8.0


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Everything that decides a training run of the detector, apart from its data; saved with it.

    The fields of `RunConfig`; before each round the hard negatives are mined anew, save before the first of a network
    that starts from random weights. And:

    Parameters
    ----------
    phantom_seeds
        Phantoms that are generated as further lungs.
    recipe
        How patches are drawn.
    val_patches
        Patches of the scans that were kept out (split ``val``), whose loss is logged after each round; nothing is
        chosen by it.
    """

    network: str = "center_net"
    phantom_seeds: tuple[int, ...] = tuple(range(100, 110))
    recipe: PatchRecipe = field(default_factory=PatchRecipe)
    val_patches: int = 64


def detection_loss(output: torch.Tensor, batch: Batch) -> Terms:
    """Focal loss (gamma 2; Lin et al. 2017, arXiv:1708.02002) of the score and smooth L1 of the box, per positive cell.

    ``output`` (n, 5, k, j, i) as of `CenterNet`; ``batch`` as of `Patches`, stacked.
    """
    positive, counted = batch["positive"], batch["counted"]
    logit, box = output[:, 0].float(), output[:, 1:].float()
    count = positive.sum()
    right = torch.where(positive, logit, -logit)
    focal = -functional.logsigmoid(right) * torch.sigmoid(-right) ** 2
    weight = torch.where(positive, 0.75, 0.25) * counted
    error = functional.smooth_l1_loss(box, batch["box"], reduction="none", beta=0.1).sum(dim=1)
    return {"score_loss": (4 * (focal * weight).sum(), count), "box_loss": ((error * positive).sum(), count)}


def train_detector(
    config: TrainConfig,
    data: TrainingData,
    folder: Path,
    device: str = "auto",
    *,
    processes: int = 1,
    progress: Progress = silent,
) -> Learner:
    """Train in ``folder`` to the last round; called again after a stop, it goes on from the last finished round.

    With several processes each takes its part of every batch (`Team`); a script that asks for them needs the usual
    ``if __name__ == "__main__":``.

    Raises
    ------
    OptionError
        If ``folder`` holds a run with another configuration, or the batch cannot be shared by the processes.
    ReadError
        If its checkpoint is damaged or was trained on other data.
    Cancelled
        If ``progress`` asked to stop; the round that was going on is lost.
    """
    check_shared(config.batch, processes)
    with team_of(processes, device, _follow, config, data, folder) as team:
        trainer = Trainer(config, data, folder, team)
        trainer.run(progress)
    return trainer.learner


def _follow(team: Team, config: TrainConfig, data: TrainingData, folder: Path) -> None:
    Trainer(config, data, folder, team).run()


class Trainer:
    """One run in one folder. Make it anew with the same folder to go on from the last checkpoint."""

    def __init__(self, config: TrainConfig, data: TrainingData, folder: Path, team: Team) -> None:
        self.config, self.data, self.team = config, data, team
        self.learner = Learner(start_network(config), config, team)
        self.folder = RunFolder(folder, config)
        self.round = 0
        self.mined: list[Places] = [[] for _ in data.backgrounds]
        state = self.folder.resume(team.backend.device)
        if state is not None:
            self._resume(state)

    def run(self, progress: Progress = silent) -> None:
        """Train to the last round; what ``progress`` raises stops the run and loses the round that was going on."""
        if not self.round and self.config.start_from is not None:
            self._mine(progress)
        while self.round < self.config.rounds:
            started = time.perf_counter()
            losses = self.learner.train(self._batches(), detection_loss, progress)
            self.round += 1
            if self.round < self.config.rounds:
                self._mine(progress)
            if self.team.leads:
                self._save(losses, started)

    def _batches(self) -> Batches:
        return Batches(self.config, self.team, self.round, self._patches)

    def _patches(self, indices: Sequence[int]) -> Patches:
        data, config = self.data, self.config
        return Patches(data.backgrounds, data.donors, self.mined, indices, config.seed, config.recipe)

    def _mine(self, progress: Progress) -> None:
        """Where the averaged network sees nodules that are none, in every whole scan and in a third of the phantoms."""
        if self.team.leads:
            network, rng = folded(self.learner.published()), np.random.default_rng((self.config.seed, self.round))
            for number, background in enumerate(self.data.backgrounds):
                progress(Step("mine hard negatives", number, len(self.data.backgrounds)))
                if background.kind == "scan" or (background.kind == "phantom" and rng.random() < 1 / 3):
                    self.mined[number] = false_peaks(network, background, self.team.backend)
        self.mined = self.team.told(self.mined)

    def _resume(self, state: dict[str, Any]) -> None:
        self.folder.check_data(state, self.data.record)
        self.learner.resume(state)
        self.round = state["round"]
        self.mined = [[(k, j, i) for k, j, i in places] for places in state["mined"]]

    def _save(self, losses: dict[str, float], started: float) -> None:
        held_out = {f"val_{name}": value for name, value in self._held_out_losses().items()}
        row = {
            "round": self.round,
            "steps": self.learner.steps,
            **losses,
            **held_out,
            "mined": sum(map(len, self.mined)),
            "skipped": self.learner.skipped,
            "learning_rate": self.learner.rate,
            "seconds": time.perf_counter() - started,
        }
        kept = {"round": self.round, "mined": self.mined, RECORD: self.data.record}
        self.folder.save({**self.learner.state(), **kept}, row)

    def _held_out_losses(self) -> dict[str, float]:
        """The averaged network's loss on the same patches of the scans that were kept out, after every round."""
        data, config = self.data.held_out, self.config
        if data is None or not config.val_patches:
            return {}
        nothing: list[Places] = [[] for _ in data.backgrounds]
        patches = Patches(data.backgrounds, data.donors, nothing, range(config.val_patches), config.seed, config.recipe)
        return self.learner.judge(DataLoader(patches, config.batch), detection_loss)


def false_peaks(
    network: nn.Module,
    background: Background,
    backend: Backend,
    floor: float = _MINED_FLOOR,
    most: int = _MINED_MOST,
) -> Places:
    """Peaks of a network in a lung that are near no known mark, surest first, at most so many."""
    output = Pass(network, backend, silent).over(normalised(background.voxels))
    peaks = peaks_of(output, floor)
    kept = [(float(p[0]), float(p[1]), float(p[2])) for p in peaks.kji if _is_unknown(p, background)]
    return kept[:most]


def _is_unknown(place: Sequence[float], background: Background) -> bool:
    if background.lungs is not None and background.grid is not None:
        if not background.lungs.holds(background.grid.to_mm([place]))[0]:
            return False
    return all(
        np.linalg.norm(np.subtract(place, m.center_kji)) > m.diameter_mm / 2 + _MARK_MARGIN_MM for m in background.marks
    )
