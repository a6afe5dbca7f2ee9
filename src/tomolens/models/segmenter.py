"""A segmentation network with its card: one or more volumes in, labels on the scan's own grid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from tomolens.core.errors import ModelError, OptionError
from tomolens.core.progress import Progress, Step, silent
from tomolens.models.inference import Backend
from tomolens.models.label_maps import covered_regions, labels_on
from tomolens.models.manifest import Manifest
from tomolens.models.prepare import images_for, prepared
from tomolens.models.recipe import Recipe, Windows
from tomolens.models.registry import find_bundle
from tomolens.models.weights import filled
from tomolens.models.windowed import WindowedPass

if TYPE_CHECKING:
    from torch import nn

    from tomolens.core.card import ModelCard
    from tomolens.core.run import Run
    from tomolens.core.volume import Volume

WHOLE = Windows(roi_size=(0, 0, 0), overlap=0.0)
"""One window over all of the image, for the models whose recipe has none."""


class Segmenter:
    """A trained network with its card, ready to run on one device.

    Parameters
    ----------
    card
        What the model is and takes; its `labels` name the numbers in the answer.
    network
        In evaluation mode.
    weights_sha256
        Hash of the weights file.
    backend
        Device and precision.
    """

    def __init__(self, card: ModelCard, network: nn.Module, weights_sha256: str, backend: Backend) -> None:
        self.card, self.weights_sha256, self.backend = card, weights_sha256, backend
        self.recipe = Recipe.of(card)
        self._network = network.eval()

    def __repr__(self) -> str:
        return f"Segmenter({self.card.name!r}, {self.backend.device}, {self.backend.precision})"

    @property
    def labels(self) -> Mapping[int, str]:
        """What each number in the answer names; 0, the background, is not in it."""
        return self.card.labels

    def segment(self, volume: Volume | Sequence[Volume], progress: Progress = silent) -> tuple[NDArray[Any], Run]:
        """Labels (k, j, i) on the volume's own grid, uint8 or uint16, and how they were made.

        Parameters
        ----------
        volume
            One volume, or one for each of ``card.input.channels``, in that order and on one grid.
        progress
            Told after each batch of windows and each slab of labels; may raise `Cancelled`.

        Raises
        ------
        ContractError
            If the volumes are not what the model reads.
        OutOfMemory
            If a single window does not fit.
        """
        volumes, manifest = images_for(self.card, volume), Manifest()
        progress(Step("prepare", 0, 1))
        image = prepared(volumes, self.recipe.steps)
        manifest.lap("prepare")
        windows = WindowedPass(self._network, self.recipe.windows or WHOLE, self.backend, progress)
        channels = windows.over(image.channels)
        manifest.lap("network")
        labels = labels_on(volumes[0].grid, channels, image.grid, self.recipe.answer, progress, image.cropped_to)
        notes = covered_regions(channels, image.grid, self.recipe.answer, self.labels)
        manifest.lap("labels")
        run = manifest.run(self.card, self.weights_sha256, volumes, windows.backend, [*windows.notes, *notes])
        return labels, run


def load_segmenter(name: str | Path, *, device: str = "auto") -> Segmenter:
    """Load a segmentation model once, for as many volumes as wanted.

    Parameters
    ----------
    name
        A model's name (see `list_models`), or its folder.
    device
        ``auto`` (a CUDA GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    ModelError
        If there is no such model, it does not segment, or its folder is incomplete or damaged.
    OptionError
        If the device is unknown or not in this machine.
    """
    backend = Backend.choose(device)
    card, network, digest = loaded(name, "segmentation")
    return Segmenter(card, network, digest, as_trained(card, backend))


def loaded(name: str | Path, task: str) -> tuple[ModelCard, nn.Module, str]:
    """Card, filled network and weights' hash of the model of that name.

    Raises
    ------
    ModelError
        If there is no such model, it does something else, or its folder is incomplete or damaged.
    """
    bundle = find_bundle(name)
    if bundle.card.task != task or not bundle.card.recipe:
        raise ModelError(f"{bundle.card.name} does {bundle.card.task}; a model for {task} with a recipe is needed.")
    return filled(bundle)


def as_trained(card: ModelCard, backend: Backend) -> Backend:
    """Half precision only where the model's authors ran it so.

    Raises
    ------
    OptionError
        If the engine is not torch.
    """
    if backend.engine != "torch":
        raise OptionError(f"{card.name} is imported and runs with torch, not {backend.engine}; use auto, cpu or cuda.")
    if Recipe.of(card).half or backend.dtype == torch.float32:
        return backend
    reason = backend.reason and f"The network runs on {backend.device} in float32, as its authors ran it."
    return Backend(backend.device, torch.float32, reason=reason)
