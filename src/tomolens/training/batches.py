"""The batches of one round: examples prepared by other processes, each shown once or, where they lag, more often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomolens.training.config import RunConfig
    from tomolens.training.learner import Batch
    from tomolens.training.team import Team

_MIXED = 64
"""Of so many batches, the last that were prepared, an echo is mixed."""


class Batches:
    """Round ``number`` of a run, iterated once or more: the part of each batch that this member of a team takes.

    With ``config.echo`` above 1 every prepared batch is followed by echoes (Choi et al. 2019, arXiv:1907.05550):
    batches drawn at random from the examples that were prepared last, which are kept on the device. A round gives the
    same batches each time, so that a resumed run is the same run.
    """

    def __init__(
        self, config: RunConfig, team: Team, number: int, examples: Callable[[Sequence[int]], Dataset[Any]]
    ) -> None:
        share = team.share(config.indices(number), config.batch)
        self.config, self.device, self.seed = config, team.backend.device, (config.seed, number, team.rank)
        self.loader = DataLoader(examples(share), config.batch // team.size, num_workers=config.workers)

    def __iter__(self) -> Iterator[Batch]:
        if self.config.echo == 1:
            yield from self.loader
            return
        rng, kept, left = np.random.default_rng(self.seed), list[dict[str, torch.Tensor]](), self.config.steps
        for prepared in self.loader:
            fresh = {name: tensor.to(self.device) for name, tensor in prepared.items()}
            kept = [*kept[-_MIXED + 1 :], fresh]
            yield fresh
            echoes = min(self.config.echo, left) - 1
            for _ in range(echoes):
                yield _mixed(kept, rng)
            left -= 1 + echoes


def _mixed(batches: Sequence[dict[str, torch.Tensor]], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """A batch of random examples of several."""
    size = len(next(iter(batches[0].values())))
    drawn = rng.integers([[len(batches)], [size]], size=(2, size)).T.tolist()
    return {name: torch.stack([batches[which][name][row] for which, row in drawn]) for name in batches[0]}
