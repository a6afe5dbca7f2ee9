"""An imported GAN's generator: a seed in, made-up images out."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from tomolens.core.errors import OptionError
from tomolens.models.inference import Backend
from tomolens.models.recipe import Recipe
from tomolens.models.segmenter import as_trained, loaded
from tomolens.models.windowed import on_device

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from tomolens.core.card import ModelCard


class ImageGenerator:
    """A generator network with its card, ready to run on one device. What it makes is no patient.

    Parameters
    ----------
    card
        What the model is.
    network
        In evaluation mode.
    backend
        Device and precision.
    """

    def __init__(self, card: ModelCard, network: nn.Module, backend: Backend) -> None:
        self.card, self.backend, self._network = card, backend, network.eval()
        self._activation = Recipe.of(card).answer.activation

    def generate(self, seed: int, n: int = 1) -> NDArray[np.float32]:
        """(n, channels, ...) images in the network's own axes; the same seed gives the same images.

        The latent is drawn uniformly from 0 to 1, as the zoo's bundles do. Of a bundle with a sigmoid the numbers lie
        between 0 and 1, else they are the network's own.

        Raises
        ------
        OptionError
            If ``n`` is below 1.
        """
        if n < 1:
            raise OptionError(f"At least one image is generated, not {n}.")
        shape = self.card.settings["latent_shape"]
        size = prod(shape) if isinstance(shape, list | tuple) else int(shape)
        latent = torch.rand(n, size, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            images = on_device(self._network, self.backend.device)(latent.to(self.backend.device)).float().cpu()
        made: NDArray[Any] = (images.sigmoid() if self._activation == "sigmoid" else images).numpy()
        return made


def load_generator(name: str | Path, *, device: str = "auto") -> ImageGenerator:
    """Load an imported generator.

    Raises
    ------
    ModelError
        If there is no such model, it does not generate, or its folder is incomplete or damaged.
    OptionError
        If the device is unknown or not in this machine.
    """
    backend = Backend.choose(device)
    card, network, _ = loaded(name, "generation")
    return ImageGenerator(card, network, as_trained(card, backend))
