"""A tilted gantry's sheared slices onto a rectangular grid."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from tomolens.core.grid import Grid
from tomolens.core.volume import Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.volume import Volume

_AIR_HU = -1024.0


def untilted(volume: Volume) -> Volume:
    """Shift each slice within its own plane so that the grid becomes rectangular.

    The slices stay where they were measured; only the voxels within each are interpolated (linearly, whole numbers
    rounded), and padding is never mixed with tissue. The new grid covers the old one. What the old one does not cover
    holds the volume's padding, or where it has none -1024 HU (0 without a unit), which becomes its padding.
    """
    shear = _shear(volume.grid)
    shifts = np.arange(volume.shape[0])[:, None] * shear
    low = np.floor(shifts.min(axis=0) + 1e-9).astype(int)
    grown = np.ceil(shifts.max(axis=0) - 1e-9).astype(int) - low
    grid = _rectangular(volume.grid, shear, low, grown)
    fill = volume.padding
    if fill is None:
        fill = _AIR_HU if volume.unit is Unit.HU else 0.0
    voxels = np.empty(grid.shape, volume.voxels.dtype)
    for k, values in enumerate(volume.voxels):
        moved = _shifted(values, shifts[k] - low, (grid.shape[1], grid.shape[2]), volume.padding, fill)
        voxels[k] = np.round(moved) if voxels.dtype.kind == "i" else moved
    tilt = f"{volume.grid.tilt_degrees:.1f} degrees"
    step = f"gantry tilt of {tilt} resampled onto a rectangular grid, linearly within each slice"
    return replace(volume, voxels=voxels, grid=grid, padding=fill, history=(*volume.history, step))


def _shear(grid: Grid) -> NDArray[np.float64]:
    """(rows, columns) in voxels by which each slice lies further along than the one before."""
    in_plane = grid.affine[:3, 1:3]
    return np.asarray(np.linalg.lstsq(in_plane, grid.affine[:3, 0], rcond=None)[0])


def _rectangular(grid: Grid, shear: NDArray[Any], low: NDArray[Any], grown: NDArray[Any]) -> Grid:
    """The grid of the same planes whose slice axis is their normal, ``grown`` by some rows and columns."""
    affine = grid.affine.copy()
    affine[:3, 0] -= affine[:3, 1:3] @ shear
    affine[:3, 3] = grid.to_mm((0, *low))
    slices, rows, columns = grid.shape
    return Grid((slices, rows + int(grown[0]), columns + int(grown[1])), affine, grid.frame_of_reference)


def _shifted(
    values: NDArray[Any], shift: NDArray[Any], shape: tuple[int, int], padding: float | None, fill: float
) -> NDArray[np.float32]:
    """One slice moved by ``shift`` (rows, columns): the mean of the real voxels around each place, else ``fill``."""
    real = np.zeros(shape, np.float32)
    real[: values.shape[0], : values.shape[1]] = 1.0 if padding is None else values != padding
    framed = np.zeros(shape, np.float32)
    framed[: values.shape[0], : values.shape[1]] = values
    weighted, weight = (
        ndimage.shift(image, shift, order=1, mode="grid-constant", prefilter=False) for image in (framed * real, real)
    )
    return np.where(weight >= 0.5, weighted / np.maximum(weight, 0.5), np.float32(fill)).astype(np.float32)
