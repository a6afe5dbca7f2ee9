"""An imported classifier of whole images: a volume in, a probability for each class out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tomolens.core.errors import ContractError, OutOfMemory
from tomolens.models.inference import Backend, finite, is_memory
from tomolens.models.prepare import images_for, prepared
from tomolens.models.recipe import Recipe
from tomolens.models.segmenter import as_trained, loaded
from tomolens.models.windowed import on_device

if TYPE_CHECKING:
    from torch import nn

    from tomolens.core.card import ModelCard
    from tomolens.core.volume import Volume


class ImageClassifier:
    """A classification network with its card, ready to run on one device.

    Parameters
    ----------
    card
        What the model is and takes; its `labels` name the classes.
    network
        In evaluation mode, 2D or 3D.
    backend
        Device and precision.
    """

    def __init__(self, card: ModelCard, network: nn.Module, backend: Backend) -> None:
        self.card, self.backend, self._network = card, backend, network.eval()
        self._recipe = Recipe.of(card)

    def classify(self, volume: Volume | Sequence[Volume]) -> dict[str, float]:
        """The probability of each class by its name, in the bundle's order.

        Classes that exclude each other add to 1 (softmax); a model that reads each for itself (sigmoid, threshold)
        gives each its own. A 2D network reads a volume of one slice.

        Raises
        ------
        ContractError
            If the volume, or the number of volumes, is not what the model reads.
        OutOfMemory
            If the image does not fit into memory.
        """
        image = prepared(images_for(self.card, volume), self._recipe.steps).channels[None]
        if self.card.settings.get("spatial_dims", 3) == 2:
            if image.shape[-1] != 1:
                raise ContractError(
                    f"{self.card.name} reads one slice, not {image.shape[-1]}; give a volume of one slice."
                )
            image = image[..., 0]
        alone = self._recipe.answer.activation == "sigmoid" or self._recipe.answer.decision == "threshold"
        logits = finite(self._answer(image).float().cpu())
        probabilities = logits.sigmoid() if alone else logits.softmax(dim=0)
        if len(logits) == 1 and len(self.card.labels) == 2:  # one logit for the second of two classes
            probabilities = torch.cat([1 - probabilities, probabilities])
        return {name: float(probabilities[number]) for number, name in self.card.labels.items()}

    def _answer(self, image: torch.Tensor) -> torch.Tensor:
        try:
            with torch.no_grad():
                answer: torch.Tensor = on_device(self._network, self.backend.device)(image.to(self.backend.device))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as full:
            if not is_memory(full):
                raise
            sizes = " x ".join(map(str, image.shape[2:]))
            raise OutOfMemory(f"An image of {sizes} does not fit into the memory of {self.backend.device}.") from full
        return (answer[0] if isinstance(answer, list | tuple) else answer)[0]


def load_image_classifier(name: str | Path, *, device: str = "auto") -> ImageClassifier:
    """Load an imported classifier once, for as many volumes as wanted.

    Raises
    ------
    ModelError
        If there is no such model, it does not classify, or its folder is incomplete or damaged.
    OptionError
        If the device is unknown or not in this machine.
    """
    backend = Backend.choose(device)
    card, network, _ = loaded(name, "classification")
    return ImageClassifier(card, network, as_trained(card, backend))
