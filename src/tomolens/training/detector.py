"""Train the nodule detector: rounds of patches, hard negatives mined between them, checkpoints that resume exactly."""

from __future__ import annotations

import csv
import json
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from tomolens.core.errors import OptionError, ReadError
from tomolens.core.progress import Progress, Step, silent
from tomolens.io.atomic import whole_file
from tomolens.models.detector import peaks_of
from tomolens.models.inference import Backend, Pass
from tomolens.models.networks import build, folded
from tomolens.models.registry import find_bundle
from tomolens.models.tensors import normalised
from tomolens.models.weights import load_weights
from tomolens.training.patches import Patches, PatchRecipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tomolens.training.backgrounds import Background
    from tomolens.training.sources import TrainingData

Places = list[tuple[float, float, float]]

CHECKPOINT = "checkpoint.pt"
CONFIG = "config.json"
LOG = "log.csv"
_EMA_EVERY = 5
"""Steps between updates of the averaged weights; saves a tenth of a step on a CPU."""
_MINED_FLOOR = 0.15
_MINED_MOST = 60
_MARK_MARGIN_MM = 8.0


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run; saved with it.

    Parameters
    ----------
    rounds, steps, batch
        Rounds of ``steps`` batches; after each the hard negatives are mined anew and a checkpoint is written.
    learning_rate
        Peak of AdamW's one cosine, after a warm-up of 2 % of the steps.
    ema
        Decay a step of the averaged weights, which are the ones that are published.
    phantom_seeds
        Phantoms that are generated as further lungs.
    workers
        Processes that prepare patches; 0 prepares them in this one. Does not change a patch.
    start_from
        Name or folder of the model whose weights the run starts from (fine-tuning); random weights where None.
    """

    seed: int = 20
    rounds: int = 7
    steps: int = 300
    batch: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    ema: float = 0.995
    phantom_seeds: tuple[int, ...] = tuple(range(100, 110))
    workers: int = 1
    start_from: str | None = None
    network: str = "center_net"
    settings: Mapping[str, Any] = field(default_factory=dict)
    recipe: PatchRecipe = field(default_factory=PatchRecipe)

    def __post_init__(self) -> None:
        for name in ("rounds", "steps", "batch"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is at least 1, not {getattr(self, name)}.")

    @property
    def total_steps(self) -> int:
        """Batches in the whole run."""
        return self.rounds * self.steps

    def to_json(self) -> str:
        """As saved beside the checkpoint."""
        return json.dumps(asdict(self), indent=2, default=list)

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """The inverse of `to_json`."""
        values = json.loads(text)
        recipe = values.pop("recipe")
        recipe["kinds"] = tuple((kind, share) for kind, share in recipe["kinds"])
        known = {f.name for f in fields(cls)}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        return cls(**values, recipe=PatchRecipe(**recipe))


def detection_loss(output: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Focal loss (gamma 2; Lin et al. 2017, arXiv:1708.02002) of the score and smooth L1 of the box, per positive cell.

    ``output`` (n, 5, k, j, i) as of `CenterNet`; ``batch`` as of `Patches`, stacked.
    """
    positive, counted = batch["positive"], batch["counted"]
    logit, box = output[:, 0].float(), output[:, 1:].float()
    count = positive.sum().clamp(min=1)
    right = torch.where(positive, logit, -logit)
    focal = -functional.logsigmoid(right) * torch.sigmoid(-right) ** 2
    weight = torch.where(positive, 0.75, 0.25) * counted
    error = functional.smooth_l1_loss(box, batch["box"], reduction="none", beta=0.1).sum(dim=1)
    return 4 * (focal * weight).sum() / count, (error * positive).sum() / count


class Trainer:
    """One run in one folder. Make it anew with the same folder to go on from the last checkpoint."""

    def __init__(self, config: TrainConfig, data: TrainingData, folder: Path, device: str = "auto") -> None:
        self.config, self.data, self.folder = config, data, folder
        self.backend = Backend.choose(device)
        torch.manual_seed(config.seed)
        network = build(config.network, config.settings)
        if config.start_from is not None:
            load_weights(network, find_bundle(config.start_from).weights)
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's stub lacks it
        self.network: nn.Module = network.to(self.backend.device)
        average = get_ema_multi_avg_fn(config.ema**_EMA_EVERY)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        warm = max(1, config.total_steps // 50)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda n: min((n + 1) / warm, 0.5 + 0.5 * float(np.cos(np.pi * n / config.total_steps)))
        )
        self.round = self.skipped = 0
        self.mined: list[Places] = [[] for _ in data.backgrounds]
        self._resume()

    def run(self, progress: Progress = silent) -> None:
        """Train to the last round; what ``progress`` raises stops the run and loses the round that was going on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / CONFIG).write_text(self.config.to_json(), encoding="utf-8")
        while self.round < self.config.rounds:
            started = time.perf_counter()
            losses = self._train_round(progress)
            self.round += 1
            if self.round < self.config.rounds:
                self._mine(progress)
            self._save()
            self._log(*losses, seconds=time.perf_counter() - started)

    def _train_round(self, progress: Progress) -> tuple[float, float]:
        config, first = self.config, self.round * self.config.steps
        indices = range(first * config.batch, (first + config.steps) * config.batch)
        patches = Patches(self.data.backgrounds, self.data.donors, self.mined, indices, config.seed, config.recipe)
        loader = DataLoader(patches, config.batch, num_workers=config.workers)
        self.network.train()
        losses = []
        for step, batch in enumerate(loader, start=first + 1):
            losses.append(self._step(batch))
            if step % _EMA_EVERY == 0:
                self.averaged.update_parameters(self.network)
            progress(Step(f"train, loss {np.mean(losses[-50:]):.3f}", step, config.total_steps))
        score, box = np.mean(losses, axis=0)
        return float(score), float(box)

    def _step(self, batch: Mapping[str, torch.Tensor]) -> tuple[float, float]:
        batch = {name: tensor.to(self.backend.device) for name, tensor in batch.items()}
        image = batch["image"].contiguous(memory_format=torch.channels_last_3d)
        half = self.backend.dtype != torch.float32
        with torch.autocast(self.backend.device.type, self.backend.dtype, enabled=half):
            output = self.network(image)
        score, box = detection_loss(output, batch)
        self.optimizer.zero_grad()
        torch.autograd.backward(score + box)
        # oneDNN's bfloat16 weight gradient is, rarely, not finite on tiny features: such a step is left out
        if torch.isfinite(nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)):
            self.optimizer.step()
        else:
            self.skipped += 1
        self.schedule.step()
        return float(score.detach()), float(box.detach())

    def _mine(self, progress: Progress) -> None:
        """Where the averaged network sees nodules that are none, in every whole scan and in a third of the phantoms."""
        network = folded(deepcopy(self.averaged.module))
        rng = np.random.default_rng((self.config.seed, self.round))
        for number, background in enumerate(self.data.backgrounds):
            progress(Step("mine hard negatives", number, len(self.data.backgrounds)))
            if background.kind == "scan" or (background.kind == "phantom" and rng.random() < 1 / 3):
                self.mined[number] = false_peaks(network, background, self.backend)

    def _resume(self) -> None:
        file = self.folder / CHECKPOINT
        if not file.exists():
            return
        if (self.folder / CONFIG).read_text(encoding="utf-8") != self.config.to_json():
            raise OptionError(
                f"{self.folder} holds a run with another configuration; choose another folder, or the same."
            )
        state = torch.load(file, map_location=self.backend.device, weights_only=True)
        if len(state["mined"]) != len(self.mined):
            raise ReadError(f"{file} was trained on {len(state['mined'])} lungs, the data now hold {len(self.mined)}.")
        for name in ("network", "averaged", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.round, self.skipped = state["round"], state["skipped"]
        self.mined = [[(k, j, i) for k, j, i in places] for places in state["mined"]]

    def _save(self) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("network", "averaged", "optimizer", "schedule")}
        with whole_file(self.folder / CHECKPOINT) as temporary:
            torch.save({**state, "round": self.round, "skipped": self.skipped, "mined": self.mined}, temporary)

    def _log(self, score: float, box: float, seconds: float) -> None:
        file = self.folder / LOG
        new = not file.exists()
        with file.open("a", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            if new:
                rows.writerow(["round", "steps", "score_loss", "box_loss", "mined", "skipped", "seconds"])
            steps, mined = self.round * self.config.steps, sum(map(len, self.mined))
            rows.writerow([self.round, steps, f"{score:.4f}", f"{box:.4f}", mined, self.skipped, f"{seconds:.0f}"])


def false_peaks(network: nn.Module, background: Background, backend: Backend) -> Places:
    """Peaks of a network in a lung that are near no known mark, surest first."""
    output = Pass(network, backend, silent).over(normalised(background.voxels))
    peaks = peaks_of(output, _MINED_FLOOR)
    kept = [(float(p[0]), float(p[1]), float(p[2])) for p in peaks.kji if _is_unknown(p, background)]
    return kept[:_MINED_MOST]


def _is_unknown(place: Sequence[float], background: Background) -> bool:
    if background.lungs is not None and background.grid is not None:
        if not background.lungs.holds(background.grid.to_mm([place]))[0]:
            return False
    return all(
        np.linalg.norm(np.subtract(place, m.center_kji)) > m.diameter_mm / 2 + _MARK_MARGIN_MM for m in background.marks
    )
