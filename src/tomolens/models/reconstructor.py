"""Reconstruction models by name: networks in bundle folders and classical methods, alike to whoever uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tomolens.core.errors import ModelError
from tomolens.core.reconstruction import Job
from tomolens.models.inference import Backend
from tomolens.models.registry import find_bundle, list_models

if TYPE_CHECKING:
    from tomolens.core.card import ModelCard
    from tomolens.core.kspace import KSpace
    from tomolens.core.progress import Progress
    from tomolens.core.reconstruction import Made, ReconstructOptions
    from tomolens.core.volume import Volume
    from tomolens.models.registry import Bundle

_HOMES = {Job.DENOISING: "denoising", Job.MRI: "mri", Job.SUPER_RESOLUTION: "super_resolution"}
"""Modules of this package, each with `CLASSICAL`, `BASELINE` and ``reconstructor_of(bundle, backend)``."""


class Reconstructor(Protocol):
    """What `load_reconstructor` gives."""

    @property
    def card(self) -> ModelCard:
        """What the model is and takes."""

    def reconstruct(self, source: Volume | KSpace, options: ReconstructOptions, progress: Progress) -> Made:
        """Make an image of the source, at full strength."""


@dataclass(frozen=True)
class Classical:
    """A method without training: its card, and what makes a reconstructor of it."""

    card: ModelCard
    load: Callable[[], Reconstructor]


def classical_methods(job: Job) -> Mapping[str, Classical]:
    """The methods without training for a job, by name."""
    methods: Mapping[str, Classical] = _home(job).CLASSICAL
    return methods


def baseline_of(job: Job) -> str:
    """The name of the classical method that a job's networks are compared with."""
    name: str = _home(job).BASELINE
    return name


def reconstruction_models(job: Job) -> tuple[ModelCard, ...]:
    """The cards of all that does a job: networks that are no GAN first, then GANs, then classical methods."""
    networks = sorted((card for card in list_models() if card.task == job), key=lambda card: card.generative)
    return (*networks, *(method.card for method in classical_methods(job).values()))


def load_reconstructor(name: str | Path, *, device: str = "auto") -> Reconstructor:
    """Load a reconstruction model once, for as many sources as wanted.

    Parameters
    ----------
    name
        A classical method's name, a model's name (see `list_models`), or its folder.
    device
        ``auto`` (a CUDA GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``; classical methods use the CPU.

    Raises
    ------
    ModelError
        If there is no such model, it reconstructs nothing, or its folder is incomplete or damaged.
    OptionError
        If the device is unknown or not in this machine.
    """
    for job in Job:
        if str(name) in classical_methods(job):
            return classical_methods(job)[str(name)].load()
    bundle = find_bundle(name)
    if bundle.card.task not in set(Job):
        raise ModelError(f"{bundle.card.name} does {bundle.card.task}; a model for {', '.join(Job)} is needed.")
    return _of(bundle, Backend.choose(device))


def _of(bundle: Bundle, backend: Backend) -> Reconstructor:
    made: Reconstructor = _home(Job(bundle.card.task)).reconstructor_of(bundle, backend)
    return made


def _home(job: Job) -> Any:
    return import_module(f"tomolens.models.{_HOMES[job]}")
