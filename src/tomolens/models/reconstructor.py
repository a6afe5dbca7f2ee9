"""Reconstruction models by name: networks in bundle folders and classical methods, alike to whoever uses them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tomolens.core.errors import ModelError
from tomolens.core.reconstruction import Job
from tomolens.models.classical import METHODS
from tomolens.models.registry import find_bundle, list_models

if TYPE_CHECKING:
    from tomolens.core.card import ModelCard
    from tomolens.core.kspace import KSpace
    from tomolens.core.progress import Progress
    from tomolens.core.reconstruction import Made, ReconstructOptions
    from tomolens.core.volume import Volume
    from tomolens.models.inference import Backend
    from tomolens.models.registry import Bundle

_HOMES = {Job.DENOISING: "denoising", Job.MRI: "mri", Job.SUPER_RESOLUTION: "super_resolution"}
"""Modules of this package, each with `CLASSICAL` and ``reconstructor_of(bundle, backend)``; they load torch."""


class Reconstructor(Protocol):
    """What `load_reconstructor` gives."""

    @property
    def card(self) -> ModelCard:
        """What the model is and takes."""

    def reconstruct(self, source: Volume | KSpace, options: ReconstructOptions, progress: Progress) -> Made:
        """Make an image of the source, at full strength."""


def classical_cards(job: Job) -> Mapping[str, ModelCard]:
    """The methods without training for a job, by name; torch is not loaded."""
    return METHODS[job]


def baseline_of(job: Job) -> str:
    """The name of the classical method that a job's networks are compared with."""
    return next(iter(METHODS[job]))


def reconstruction_models(job: Job, cards: Iterable[ModelCard] | None = None) -> tuple[ModelCard, ...]:
    """The cards of all that does a job, the one that is chosen by default first.

    Networks come first, then classical methods, then what is experimental, then GANs. ``cards`` are those of the models
    at hand; None takes `list_models`.
    """
    at_hand = list_models() if cards is None else cards
    networks = sorted((card for card in at_hand if card.task == job), key=_caution)
    trusted = [card for card in networks if not any(_caution(card))]
    return (*trusted, *METHODS[job].values(), *networks[len(trusted) :])


def _caution(card: ModelCard) -> tuple[bool, bool]:
    return card.generative, card.experimental


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
        if str(name) in METHODS[job]:
            _backend(device)  # refuses what is no device
            method: Reconstructor = _home(job).CLASSICAL[str(name)].load()
            return method
    bundle = find_bundle(name)
    if bundle.card.task not in set(Job):
        raise ModelError(f"{bundle.card.name} does {bundle.card.task}; a model for {', '.join(Job)} is needed.")
    return _of(bundle, device)


def _of(bundle: Bundle, device: str) -> Reconstructor:
    made: Reconstructor = _home(Job(bundle.card.task)).reconstructor_of(bundle, _backend(device))
    return made


def _backend(device: str) -> Backend:
    from tomolens.models.inference import Backend  # torch: seconds, and not needed to list what there is

    return Backend.choose(device)


def _home(job: Job) -> Any:
    return import_module(f"tomolens.models.{_HOMES[job]}")
