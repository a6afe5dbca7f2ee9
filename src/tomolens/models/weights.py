"""Weights as safetensors: data without code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file

from tomolens.core.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


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
