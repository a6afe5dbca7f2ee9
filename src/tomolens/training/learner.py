"""A network that is being trained: its averaged weights, its optimiser and its schedule, alone or in a team."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import cos, pi
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tomolens.core.progress import Progress, Step, silent
from tomolens.models.networks import build
from tomolens.models.registry import find_bundle
from tomolens.models.weights import load_weights

if TYPE_CHECKING:
    from tomolens.training.config import RunConfig
    from tomolens.training.team import Team

Batch = Mapping[str, torch.Tensor]
"""Tensors by name, the first axis that of the batch; ``image`` is what the network is given, unless it names its
``inputs`` itself."""
Terms = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Of each term of a loss its sum over the batch, and the count that it is divided by: the team's, not one member's."""
Loss = Callable[[Any, Batch], Terms]
"""From the network's answer and the batch."""

_EMA_EVERY = 5
"""Steps between updates of the averaged weights; saves a tenth of a step on a CPU."""
_LARGEST_GRADIENT = 5.0
_RECENT = 50
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Schedule:
    """The learning rate by step: a linear warm-up over 2 % of the steps, then one cosine down to zero."""

    peak: float
    total_steps: int

    def rate(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        warm = max(1, self.total_steps // 50)
        return self.peak * min((step + 1) / warm, 0.5 + 0.5 * cos(pi * step / self.total_steps))


def start_network(config: RunConfig) -> nn.Module:
    """The network that a run starts with: random by the seed, or with the weights of the model to fine-tune."""
    torch.manual_seed(config.seed)
    network = build(config.network, config.settings)
    if config.start_from is not None:
        load_weights(network, find_bundle(config.start_from).weights)
    return network


class Learner:
    """Trains a network; `state` and `resume` make a stopped run go on exactly.

    In a team each member has the same weights throughout: gradients are averaged, and every term of the loss is divided
    by the count of the whole batch, so that a team learns what one process would. Batch norms are the exception: on
    CUDA they share their statistics (SyncBatchNorm); on the CPU each member normalises by its own part of the batch,
    and the running statistics are the first one's.
    """

    def __init__(self, network: nn.Module, config: RunConfig, team: Team) -> None:
        self.team, self.schedule = team, Schedule(config.learning_rate, config.total_steps)
        device = team.backend.device
        if team.size > 1 and device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        network = network.to(memory_format=_layout_of(network))  # type: ignore[call-overload] # torch's stub lacks it
        self.network: nn.Module = network.to(device)
        average = get_ema_multi_avg_fn(config.ema**_EMA_EVERY)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.steps = self.skipped = 0
        self._asked = DistributedDataParallel(self.network) if team.size > 1 else self.network

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return self.schedule.rate(max(self.steps - 1, 0))

    def train(self, batches: Iterable[Batch], loss: Loss, progress: Progress = silent) -> dict[str, float]:
        """Learn from each batch; the mean of each term over all of them, and over the team."""
        self.network.train()
        seen: list[list[float]] = []
        names: list[str] = []
        for batch in batches:
            terms = self._step(batch, loss)
            names = list(terms)
            seen.append(list(terms.values()))
            recent = np.sum(seen[-_RECENT:]) / len(seen[-_RECENT:])
            progress(Step(f"train, loss {recent:.3f}", self.steps, self.schedule.total_steps))
        means = torch.tensor(np.mean(seen, axis=0), dtype=torch.float32, device=self.team.backend.device)
        return dict(zip(names, (self.team.total(means) / self.team.size).tolist(), strict=True))

    def judge(self, batches: Iterable[Batch], loss: Loss) -> dict[str, float]:
        """The mean of each term with the averaged weights; nothing is learned. One member's alone, not the team's."""
        network = self.published()
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        with torch.inference_mode():
            for batch in batches:
                moved = self._moved(batch)
                for name, (part, count) in loss(self._answer(network, moved), moved).items():
                    sums[name] = sums.get(name, 0.0) + float(part)
                    counts[name] = counts.get(name, 0.0) + float(count)
        return {name: part / max(counts[name], 1.0) for name, part in sums.items()}

    def published(self) -> nn.Module:
        """A copy of the network with the averaged weights, ready to be used."""
        network: nn.Module = deepcopy(self.averaged.module).eval()
        return network

    def state(self) -> dict[str, Any]:
        """Everything that `resume` needs, as plain values and tensors."""
        kept = {name: getattr(self, name).state_dict() for name in ("network", "averaged", "optimizer")}
        return {**kept, "steps": self.steps, "skipped": self.skipped}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        for name in ("network", "averaged", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.steps, self.skipped = state["steps"], state["skipped"]

    def _step(self, batch: Batch, loss: Loss) -> dict[str, float]:
        terms = self._shared(self._terms(self._moved(batch), loss))
        self.optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.steps)
        # oneDNN's bfloat16 weight gradient is, rarely, not finite on tiny features: such a step is left out
        if torch.isfinite(nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)):
            self.optimizer.step()
        else:
            self.skipped += 1
        self.steps += 1
        if self.steps % _EMA_EVERY == 0:
            self.averaged.update_parameters(self.network)
        return {name: float(term.detach()) for name, term in terms.items()}

    def _terms(self, batch: Batch, loss: Loss) -> Terms:
        """The loss of a batch that is on the device."""
        return loss(self._answer(self._asked, batch), batch)

    def _moved(self, batch: Batch) -> dict[str, torch.Tensor]:
        moved = {name: tensor.to(self.team.backend.device) for name, tensor in batch.items()}
        layout = _LAYOUTS[moved["image"].ndim]
        return {**moved, "image": moved["image"].contiguous(memory_format=layout)}

    def _answer(self, network: nn.Module, batch: Batch) -> Any:
        backend = self.team.backend
        with torch.autocast(backend.device.type, backend.dtype, enabled=backend.dtype != torch.float32):
            return network(*(batch[name] for name in _inputs(network)))

    def _shared(self, terms: Terms) -> dict[str, torch.Tensor]:
        """Each term divided by the team's mean count, so that the team's mean gradient is that of the whole batch."""
        counts = self.team.total(torch.stack([count.detach().float() for _, count in terms.values()]))
        divisors = counts.clamp(min=1) / self.team.size
        return {name: part / divisor for (name, (part, _)), divisor in zip(terms.items(), divisors, strict=True)}


def _inputs(network: nn.Module) -> Sequence[str]:
    """The tensors of a batch that a network takes, in its order."""
    inner = network.module if isinstance(network, DistributedDataParallel) else network
    names: Sequence[str] = getattr(inner, "inputs", ("image",))
    return names


def _layout_of(network: nn.Module) -> torch.memory_format:
    """Channels last, of images for a 2D network and of volumes for a 3D one."""
    ranks = {parameter.ndim for parameter in network.parameters()}
    return _LAYOUTS[4] if 4 in ranks else _LAYOUTS[5]
