"""A tiny volume that shows every flip: one ball of its own brightness on each side of the patient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tomolens.core.errors import GeometryError
from tomolens.core.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.grid import Grid

MARKER_HU = {"L": 700, "R": 600, "A": 500, "P": 400, "S": 300, "I": 200}
"""The brightness of the ball on each side of the patient; all else is air, -1000 HU."""

_TOWARDS = {"L": (1, 0, 0), "R": (-1, 0, 0), "A": (0, -1, 0), "P": (0, 1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def marked_volume(grid: Grid) -> Volume:
    """Draw the six balls of `MARKER_HU` on any grid: rotated, permuted, flipped or sheared.

    Raises
    ------
    GeometryError
        If the grid is too small for six balls of a few voxels, about 12 voxels an axis.
    """
    points = grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1))
    centers = marker_centers(grid)
    middle = grid.to_mm((np.asarray(grid.shape) - 1) / 2)
    radius = 0.4 * min(float(np.linalg.norm(center - middle)) for center in centers.values())
    if 4 * radius**3 < 8 * abs(np.linalg.det(grid.affine[:3, :3])):
        raise GeometryError(f"A grid of {grid.shape} is too small for markers; about 12 voxels an axis are enough.")
    voxels = np.full(grid.shape, -1000, np.int16)
    for side, center in centers.items():
        voxels[np.linalg.norm(points - center, axis=-1) <= radius] = MARKER_HU[side]
    return Volume(voxels, grid, history=("generated markers",))


def marker_centers(grid: Grid) -> dict[str, NDArray[np.float64]]:
    """Say where `marked_volume` puts each ball: side of the patient to LPS mm."""
    half = np.asarray(grid.shape) / 2
    middle = grid.to_mm(half - 0.5)
    centers = {}
    for side, towards in _TOWARDS.items():
        step = grid.to_kji(middle + towards) - (half - 0.5)
        reach = float((half / np.maximum(np.abs(step), 1e-9)).min())
        centers[side] = middle + 0.6 * reach * np.asarray(towards)
    return centers


def found_markers(volume: Volume) -> dict[str, NDArray[np.float64]]:
    """Find the balls by brightness: side of the patient to LPS mm; a ball that is not there is left out."""
    found = {}
    for side, brightness in MARKER_HU.items():
        kji = np.argwhere(np.abs(volume.voxels - float(brightness)) <= 40)
        if len(kji):
            found[side] = volume.grid.to_mm(kji).mean(axis=0)
    return found
