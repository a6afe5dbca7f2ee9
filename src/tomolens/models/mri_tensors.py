"""A measured slice as the tensors that an unrolled network takes; training and inference prepare it alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from tomolens.physics.sense import Measured


def inputs_of(network: nn.Module) -> Sequence[str]:
    """What a network takes, by name and in its order."""
    names: Sequence[str] = network.inputs  # type: ignore[assignment] # torch's stub knows modules and tensors alone
    return names


def tensors_of(measured: Measured, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """What a network takes that calls its inputs ``names``, in their order, without the axis of a batch.

    See `tomolens.models.cascade.CascadedSense`.
    """
    return {name: _MADE[name](measured) for name in names}


def _parts(image: NDArray[np.complex64]) -> torch.Tensor:
    return torch.from_numpy(np.stack([image.real, image.imag]))


def _maps(measured: Measured) -> torch.Tensor:
    maps = np.ascontiguousarray(measured.maps)
    return torch.from_numpy(maps.view(np.float32).reshape(*maps.shape, 2))


_MADE: Mapping[str, Callable[[Measured], torch.Tensor]] = {
    "image": lambda measured: _parts(measured.model.adjoint(measured.data)),
    "maps": _maps,
    "acquired": lambda measured: torch.from_numpy(np.array(measured.acquired)),
    "noise": lambda measured: torch.tensor(measured.noise, dtype=torch.float32),
}
