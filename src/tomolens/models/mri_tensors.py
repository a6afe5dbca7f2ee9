"""A measured slice as the tensors that an unrolled network takes; training and inference prepare it alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from tomolens.physics.sense import tv_sense

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.physics.sense import Measured

_PER_NOISE, _LEAST, _STEPS = 0.3, 0.001, 12
"""Of TV-SENSE, from whose image a network starts; as many steps as a slice has time for."""


def started(measured: Measured) -> NDArray[np.complex64]:
    """The image that a network is given to better."""
    return tv_sense(measured, max(_PER_NOISE * measured.noise, _LEAST), _STEPS)


def tensors_of(measured: Measured) -> dict[str, torch.Tensor]:
    """What `tomolens.models.unrolled.UnrolledSense` takes, in its order, without the axis of a batch."""
    image = measured.model.adjoint(measured.data)
    start = started(measured)
    maps = np.ascontiguousarray(measured.maps)
    return {
        "start": torch.from_numpy(np.stack([start.real, start.imag])),
        "image": torch.from_numpy(np.stack([image.real, image.imag])),
        "maps": torch.from_numpy(maps.view(np.float32).reshape(*maps.shape, 2)),
        "acquired": torch.from_numpy(np.ascontiguousarray(measured.acquired)),
        "noise": torch.tensor(measured.noise, dtype=torch.float32),
    }
