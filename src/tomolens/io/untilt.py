"""A tilted gantry's sheared slices onto a rectangular grid."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from tomolens.core.grid import Grid

if TYPE_CHECKING:
    from tomolens.core.volume import Volume

_AIR_HU = -1024.0


def untilted(volume: Volume) -> Volume:
    """Shift each slice within its own plane so that the grid becomes rectangular.

    The slices stay where they were measured; only voxels within them are interpolated (linearly). The new grid covers
    every old voxel. What no old voxel covers holds ``padding``, or -1024 HU (0 without unit) where there was none, which
    is then the new volume's padding.
    """
    grid = volume.grid
    row, column = grid.directions[1], grid.directions[2]
    step = grid.affine[:3, 0]
    per_slice = np.linalg.lstsq(
        np.stack([row * grid.spacing_mm[1], column * grid.spacing_mm[2]], axis=1), step, rcond=None
    )[0]
    shifts = np.arange(grid.shape[0])[:, None] * per_slice
    low = np.floor(shifts.min(axis=0) + 1e-9).astype(int)
    high = np.ceil(shifts.max(axis=0) - 1e-9).astype(int)
    shape = (grid.shape[0], grid.shape[1] + int(high[0] - low[0]), grid.shape[2] + int(high[1] - low[1]))
    affine = grid.affine.copy()
    affine[:3, 0] = step - affine[:3, 1:3] @ per_slice
    affine[:3, 3] = grid.to_mm((0, low[0], low[1]))
    fill = volume.padding if volume.padding is not None else (_AIR_HU if volume.unit == "HU" else 0.0)
    voxels = np.full(shape, fill, volume.voxels.dtype)
    for k, slice_ in enumerate(volume.voxels):
        framed = np.full(shape[1:], fill, np.float32)
        framed[: grid.shape[1], : grid.shape[2]] = slice_
        moved = ndimage.shift(framed, shifts[k] - low, order=1, mode="constant", cval=fill)
        voxels[k] = np.round(moved) if voxels.dtype.kind == "i" else moved
    step_text = f"tilt of {grid.tilt_degrees:.1f} degrees resampled onto a rectangular grid (linear, within each slice)"
    return replace(
        volume,
        voxels=voxels,
        grid=Grid(shape, affine, grid.frame_of_reference),
        padding=fill,
        history=(*volume.history, step_text),
    )
