"""Train reconstruction networks: one loop for every job; what is shown and how it is judged belongs to the job."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch.utils.data import DataLoader, Dataset

from tomolens.core.errors import OptionError
from tomolens.core.progress import Progress, silent
from tomolens.core.reconstruction import Job
from tomolens.training.batches import Batches
from tomolens.training.config import RunConfig
from tomolens.training.gan import AdversarialLearner, Adversary, Pictures
from tomolens.training.learner import Batch, Learner, Terms, start_network
from tomolens.training.runs import RECORD, RunFolder
from tomolens.training.team import Team, check_shared, team_of

if TYPE_CHECKING:
    import torch

    from tomolens.training.fingerprint import Record

_HOMES = {Job.DENOISING: "denoising", Job.MRI: "mri", Job.SUPER_RESOLUTION: "super_resolution"}
"""Modules of this package, each with `CONFIG`, what a run is configured with where nothing else is said, and a function
``lesson(config, data, progress)`` that gives a `Lesson`."""


@dataclass(frozen=True)
class ReconstructionConfig(RunConfig):
    """Everything that decides a training run of a reconstruction network, apart from its data; saved with it.

    The fields of `RunConfig`, and:

    Parameters
    ----------
    job
        One of `Job`.
    edge
        Pixels along each side of a patch.
    phantom_seeds
        Phantoms that are generated as further images.
    recipe
        Numbers of the job's own, by name: how examples are drawn. Each job's module lists them with their defaults.
    val_examples
        Examples of held-out images (never shown in training) whose loss is logged after each round; nothing is chosen
        by it.
    adversary
        Of a run that trains a network on as a GAN: its discriminator, and the weights of its loss.
    """

    job: str = Job.DENOISING
    edge: int = 96
    phantom_seeds: tuple[int, ...] = tuple(range(100, 106))
    recipe: Mapping[str, Any] = field(default_factory=dict)
    val_examples: int = 16
    adversary: Adversary | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.job not in set(Job):
            raise OptionError(f"job is {self.job!r}; accepted are {', '.join(Job)}.")


class Lesson(Protocol):
    """What one job shows its network, and how the answer is judged."""

    @property
    def record(self) -> Record:
        """The images that it is made from; phantoms follow from the configuration."""

    def examples(self, indices: Sequence[int], *, held_out: bool = False) -> Dataset[dict[str, torch.Tensor]]:
        """Example n depends on the run's seed and n alone; ``image`` is what the network is given.

        Held-out examples are of images that training never shows.
        """

    def loss(self, answer: Any, batch: Batch) -> Terms:
        """The terms of the loss; see `tomolens.training.learner.Terms`."""

    def pictures(self, answer: Any, batch: Batch) -> Pictures:
        """What the discriminator of a GAN is shown."""


def lesson_of(config: ReconstructionConfig, data: Path, progress: Progress = silent) -> Lesson:
    """The lesson of a run's job, its images read from the folder ``data`` and generated."""
    lesson: Lesson = _home(Job(config.job)).lesson(config, data, progress)
    return lesson


def config_for(job: Job) -> ReconstructionConfig:
    """What a run of a job is configured with where nothing else is said."""
    config: ReconstructionConfig = _home(job).CONFIG
    return config


def _home(job: Job) -> Any:
    return import_module(f"tomolens.training.{_HOMES[job]}")


def train_reconstruction(
    config: ReconstructionConfig,
    data: Path,
    folder: Path,
    device: str = "auto",
    *,
    processes: int = 1,
    progress: Progress = silent,
) -> Learner:
    """Train in ``folder`` to the last round; called again after a stop, it goes on from the last finished round.

    Processes, stops and errors as of `tomolens.training.detector.train_detector`.

    Raises
    ------
    OptionError
        If a GAN is to start from nothing, or to be trained by several processes.
    ReadError
        If ``folder`` holds a run that began with other images.
    """
    check_shared(config.batch, processes)
    if config.adversary is not None and config.start_from is None:
        raise OptionError("A GAN starts from a network that was trained without: give start_from (--start-from).")
    if config.adversary is not None and processes > 1:
        raise OptionError("A GAN is trained by one process.")
    with team_of(processes, device, _follow, config, data, folder) as team:
        return _train(team, config, lesson_of(config, data, progress), folder, progress)


def _follow(team: Team, config: ReconstructionConfig, data: Path, folder: Path) -> None:
    _train(team, config, lesson_of(config, data), folder, silent)


def _train(team: Team, config: ReconstructionConfig, lesson: Lesson, folder: Path, progress: Progress) -> Learner:
    learner, run = _learner(team, config, lesson), RunFolder(folder, config)
    state = run.resume(team.backend.device)
    if state is not None:
        run.check_data(state, lesson.record)
        learner.resume(state)
    for number in range(state["round"] if state else 0, config.rounds):
        started = time.perf_counter()
        losses = learner.train(Batches(config, team, number, lesson.examples), lesson.loss, progress)
        if team.leads:
            row = {"round": number + 1, "steps": learner.steps, **losses, **_held_out(learner, lesson, config)}
            rest = {"skipped": learner.skipped, "learning_rate": learner.rate, "seconds": time.perf_counter() - started}
            run.save({**learner.state(), RECORD: lesson.record, "round": number + 1}, {**row, **rest})
    return learner


def _learner(team: Team, config: ReconstructionConfig, lesson: Lesson) -> Learner:
    if config.adversary is None:
        return Learner(start_network(config), config, team)
    return AdversarialLearner(start_network(config), config, team, config.adversary, lesson.pictures)


def _held_out(learner: Learner, lesson: Lesson, config: ReconstructionConfig) -> dict[str, float]:
    """The averaged network's loss on the same held-out examples after every round."""
    if not config.val_examples:
        return {}
    examples = lesson.examples(range(config.val_examples), held_out=True)
    losses = learner.judge(DataLoader(examples, config.batch), lesson.loss)
    return {f"val_{name}": value for name, value in losses.items()}
