"""Weights as safetensors: data without code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file

from tomolens.core.errors import ModelError
from tomolens.models.networks import build

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from tomolens.core.card import ModelCard
    from tomolens.models.registry import Bundle


def load_weights(network: nn.Module, file: Path) -> None:
    """Fill a network from a safetensors file.

    Raises
    ------
    ModelError
        If the file is missing or damaged, or holds other tensors than the network has.
    """
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()})
    except (SafetensorError, RuntimeError, OSError) as wrong:
        raise ModelError(f"{file} does not hold the weights of this network: {wrong}") from wrong


def filled(bundle: Bundle) -> tuple[ModelCard, nn.Module, str]:
    """Card, filled network and weights' hash of a bundle.

    Raises
    ------
    ModelError
        If its folder is incomplete or damaged.
    """
    digest = bundle.weights_sha256
    network = build(bundle.card.network, bundle.card.settings)
    load_weights(network, bundle.weights)
    return bundle.card, network.eval(), digest
