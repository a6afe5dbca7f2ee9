"""A measured slice as the tensors that an unrolled network takes; training and inference prepare it alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from tomolens.physics.sense import Measured


def tensors_of(measured: Measured) -> dict[str, torch.Tensor]:
    """``image``, ``maps``, ``acquired`` and ``noise`` as of `tomolens.models.unrolled.UnrolledSense`, without batch."""
    image = measured.model.adjoint(measured.data)
    maps = np.ascontiguousarray(measured.maps)
    return {
        "image": torch.from_numpy(np.stack([image.real, image.imag])),
        "maps": torch.from_numpy(maps.view(np.float32).reshape(*maps.shape, 2)),
        "acquired": torch.from_numpy(np.ascontiguousarray(measured.acquired)),
        "noise": torch.tensor(measured.noise, dtype=torch.float32),
    }
