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
from torch.nn import functional

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
    grid, factors = _respaced(volume.grid, spacing_mm)
    return Volume(_interpolated(volume.voxels, factors, grid.shape), grid, volume.unit, volume.modality)


def normalised(voxels: NDArray[Any]) -> torch.Tensor:
    """HU to -1..1 over `HU_WINDOW`, clipped; float32, same shape."""
    low, high = HU_WINDOW
    hu = torch.from_numpy(np.clip(voxels, low, high, dtype=np.float32))
    return hu.sub_((low + high) / 2).div_((high - low) / 2)


def _respaced(grid: Grid, spacing_mm: float) -> tuple[Grid, tuple[float, float, float]]:
    """The isotropic grid and the exact scale factors; sizes are rounded down as torch does."""
    k, j, i = (old / spacing_mm for old in grid.spacing_mm)
    shape = [max(1, int(np.floor(n * f + 1e-6))) for n, f in zip(grid.shape, (k, j, i), strict=True)]
    affine = grid.affine.copy()
    affine[:3, :3] = grid.directions.T * spacing_mm
    affine[:3, 3] = grid.to_mm((0.5 / np.array([k, j, i])) - 0.5)
    return Grid((shape[0], shape[1], shape[2]), affine, grid.frame_of_reference), (k, j, i)


def _interpolated(
    voxels: NDArray[Any], factors: tuple[float, float, float], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Linear, in plane first and a few slices at a time (bounded memory), then along the slices."""
    plane = np.empty((len(voxels), shape[1], shape[2]), np.float32)
    for first in range(0, len(voxels), _SLICES_AT_ONCE):
        part = torch.from_numpy(voxels[first : first + _SLICES_AT_ONCE].astype(np.float32))
        scaled = _scaled(part[:, None], factors[1:], shape[1:], "bilinear")
        plane[first : first + _SLICES_AT_ONCE] = scaled[:, 0].numpy()
    if abs(factors[0] - 1) < 1e-6:
        return plane[: shape[0]]
    columns = torch.from_numpy(plane).reshape(1, 1, len(voxels), -1)
    return np.asarray(_scaled(columns, (factors[0], 1.0), (shape[0], columns.shape[-1]), "bilinear").numpy()).reshape(
        shape
    )


def _scaled(images: torch.Tensor, factors: tuple[float, float], shape: tuple[int, int], mode: str) -> torch.Tensor:
    """Torch's interpolation with the exact factors: output pixel o samples (o + 0.5) / factor - 0.5."""
    # nudged up so that torch's floor(n * factor) never falls one short of the grid; the shift is under 1e-6 voxel
    nudged = tuple(f * (1 + 1e-9) for f in factors)
    scaled = functional.interpolate(
        images, scale_factor=nudged, mode=mode, align_corners=False, recompute_scale_factor=False
    )
    missing = [max(0, want - have) for want, have in zip(shape, scaled.shape[2:], strict=True)]
    if any(missing):
        scaled = functional.pad(scaled, (0, missing[1], 0, missing[0]), mode="replicate")
    return scaled[..., : shape[0], : shape[1]]


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
