"""Volumes to tensors and back to places: the one home of that conversion, for inference and training alike.

A network sees a chest in canonical order (superior, posterior, left) at 1 mm, clipped to a HU window and scaled to
-1..1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from tomolens.core.grid import Grid
from tomolens.core.volume import Volume

NETWORK_MM = 1.0
HU_WINDOW = (-1000.0, 400.0)
_SLICES_AT_ONCE = 32


def isotropic(volume: Volume, spacing_mm: float = NETWORK_MM) -> Volume:
    """A canonical volume resampled to cubic voxels, linear, float32 HU.

    The outer faces of the first voxels coincide. A sheared grid (tilted gantry) comes back rectangular, over the box
    that holds all of it; what it did not cover is air (-1024 HU).
    """
    if volume.grid.is_sheared:
        return _unsheared(volume, spacing_mm)
    grid = volume.grid.respaced((spacing_mm, spacing_mm, spacing_mm))
    k, j, i = (old / spacing_mm for old in volume.spacing_mm)
    return Volume(_interpolated(volume.voxels, (k, j, i), grid.shape), grid, volume.unit, volume.modality)


def normalised(voxels: NDArray[Any]) -> torch.Tensor:
    """HU to -1..1 over `HU_WINDOW`, clipped; float32, same shape."""
    low, high = HU_WINDOW
    hu = torch.from_numpy(np.clip(voxels, low, high, dtype=np.float32))
    return hu.sub_((low + high) / 2).div_((high - low) / 2)


def _interpolated(
    voxels: NDArray[Any], factors: tuple[float, float, float], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Linear, in plane first and a few slices at a time (bounded memory), then along the slices."""
    plane = torch.empty((len(voxels), shape[1], shape[2]))
    for first in range(0, len(voxels), _SLICES_AT_ONCE):
        part = torch.from_numpy(voxels[first : first + _SLICES_AT_ONCE].astype(np.float32))
        rows = _along(part, 1, factors[1], shape[1])
        plane[first : first + _SLICES_AT_ONCE] = _along(rows, 2, factors[2], shape[2])
    return np.asarray(_along(plane, 0, factors[0], shape[0]).numpy())


def _along(image: torch.Tensor, axis: int, factor: float, size: int) -> torch.Tensor:
    """Linear interpolation along one axis: output o samples (o + 0.5) / factor - 0.5; the edges are repeated.

    Not torch's `interpolate`: where rounding gives the output the input's size, that copies and drops the factor.
    """
    if size == image.shape[axis] and abs(factor - 1) < 1e-9:
        return image
    at = ((torch.arange(size, dtype=torch.float64) + 0.5) / factor - 0.5).clamp(0, image.shape[axis] - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=image.shape[axis] - 1)
    weight = (at - low).float().reshape([-1 if a == axis else 1 for a in range(3)])
    return torch.lerp(image.index_select(axis, low), image.index_select(axis, high), weight)


def _unsheared(volume: Volume, spacing_mm: float) -> Volume:
    """Resample through the full affine onto the patient's own axes."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in volume.shape])).reshape(3, -1).T
    places = volume.grid.to_mm(corners)
    low, high = places.min(axis=0), places.max(axis=0)
    shape = [int(np.floor(e / spacing_mm)) + 1 for e in (high - low)[::-1]]
    grid = Grid.from_axes(
        (shape[0], shape[1], shape[2]),
        (spacing_mm,) * 3,
        (low[0], low[1], low[2]),
        frame_of_reference=volume.grid.frame_of_reference,
    )
    to_index = np.linalg.inv(volume.grid.affine[:3, :3])
    voxels: NDArray[np.float32] = ndimage.affine_transform(
        volume.voxels,
        to_index @ grid.affine[:3, :3],
        volume.grid.to_kji(grid.to_mm((0, 0, 0))),
        output_shape=grid.shape,
        output=np.float32,
        order=1,
        cval=-1024.0,
    )
    return Volume(voxels, grid, volume.unit, volume.modality)
