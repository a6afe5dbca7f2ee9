"""Weights as safetensors: data without code."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file

from tomolens.core.errors import ModelError

if TYPE_CHECKING:
    from torch import nn


def load_weights(network: nn.Module, file: Path) -> str:
    """Fill a network from a safetensors file and return the file's SHA-256.

    Raises
    ------
    ModelError
        If the file is missing or damaged, or holds other tensors than the network has.
    """
    if not file.is_file():
        raise ModelError(f"There are no weights at {file}; a model folder holds models/model.safetensors.")
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()})
    except (SafetensorError, RuntimeError, OSError) as wrong:
        raise ModelError(f"{file} does not hold the weights of this network: {wrong}") from wrong
    return sha256_of(file)


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
