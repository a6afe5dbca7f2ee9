"""MONAI's end-to-end variational network as a method of reconstruction, with its traps guarded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.apps.reconstruction.networks.nets.coil_sensitivity_model import CoilSensitivityModel
from monai.apps.reconstruction.networks.nets.complex_unet import ComplexUnet
from monai.apps.reconstruction.networks.nets.varnet import VariationalNetworkModel

from tomolens.core.errors import ContractError
from tomolens.physics.sense import Measured, varying_axes, zero_filled

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

_SPATIAL = 2


def var_net(
    num_cascades: int = 12,
    features: Sequence[int] = (18, 18, 36, 72, 144, 18),
    sensitivity_features: Sequence[int] = (8, 8, 16, 32, 64, 8),
) -> nn.Module:
    """MONAI's VarNet (Sriram et al. 2020, arXiv:2004.06688) over slices; widths as in MONAI's tutorial.

    Its 3D variant is not built: MONAI's cascades stay 2D there without a word.
    """
    coils = CoilSensitivityModel(spatial_dims=_SPATIAL, features=tuple(sensitivity_features))
    refinement = ComplexUnet(spatial_dims=_SPATIAL, features=tuple(features))
    network: nn.Module = VariationalNetworkModel(coils, refinement, num_cascades, _SPATIAL)
    return network


def magnitude(network: nn.Module, measured: Measured, device: torch.device) -> NDArray[np.float32]:
    """One slice through VarNet, which wants lines along the last axis but one and a centre with gaps beside it.

    Raises
    ------
    ContractError
        If single places rather than whole lines were measured, or the centre was not.
    """
    axes = varying_axes(measured.acquired)
    if not axes or not measured.data.any():
        return zero_filled(measured.data)
    if len(axes) > 1:
        raise ContractError("VarNet takes k-space of which whole lines were measured, not single places.")
    turned = axes == (-2,)
    data = measured.data.swapaxes(-1, -2) if turned else measured.data
    lines = np.asarray(measured.acquired.any(axis=1 if turned else 0), np.bool_)
    _check_centre(lines)
    parts = np.stack([data.real, data.imag], axis=-1)[None]
    with torch.inference_mode():
        made = network(torch.from_numpy(parts).to(device), torch.from_numpy(lines).reshape(1, 1, 1, -1, 1).to(device))
    image = np.asarray(made[0].float().cpu().numpy(), np.float32)
    return np.ascontiguousarray(image.T) if turned else image


def _check_centre(lines: NDArray[np.bool_]) -> None:
    """MONAI looks for the first gap on either side of the middle, and runs off the end where there is none."""
    middle = len(lines) // 2
    if not lines[middle] or lines[middle:].all() or lines[: middle + 1].all():
        raise ContractError(
            "VarNet finds the coils from a whole centre of k-space with a gap on either side; here "
            f"{int(lines.sum())} of {len(lines)} lines were measured, and there is none."
        )
