"""Numbers on one grid brought to another, through the patient: every axis order, flip, crop, tilt and spacing.

Positions are exact: voxel centres of the target are looked up in the source by both affines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.grid import Grid

_STRAIGHT_VOXELS = 1e-3
"""Axes run along each other where following one across the whole image strays less than this from the other."""


def resampled(
    channels: torch.Tensor,
    source: Grid,
    target: Grid,
    *,
    rows: slice = slice(None),
    nearest: bool = False,
    fill: float | None = 0.0,
) -> torch.Tensor:
    """(c, *source.shape) to (c, rows, *target.shape[1:]), linear or nearest; float32.

    ``rows`` are slices along the target's first axis. What lies beyond the source's outer faces is ``fill``; None
    repeats the edge.
    """
    to_source = np.linalg.inv(source.affine) @ target.affine
    index = np.arange(target.shape[0])[rows]
    order = _straight_order(to_source[:3, :3], target)
    if order is None:
        return _oblique(channels, to_source, index, target, nearest, fill)
    image = channels.permute(0, *[axis + 1 for axis in order])
    indices = (index, np.arange(target.shape[1]), np.arange(target.shape[2]))
    for axis, (where, along) in enumerate(zip(order, indices, strict=True)):
        image = _along(image, axis + 1, to_source[where, axis] * along + to_source[where, 3], nearest, fill)
    return image


def _straight_order(matrix: NDArray[np.float64], target: Grid) -> tuple[int, ...] | None:
    """The source axis that each target axis runs along, or None where one runs across."""
    order = tuple(int(axis) for axis in np.abs(matrix).argmax(axis=0))
    across = np.abs(matrix).copy()
    across[list(order), [0, 1, 2]] = 0
    strays = (across * np.asarray(target.shape)).max()
    return order if sorted(order) == [0, 1, 2] and strays < _STRAIGHT_VOXELS else None


def _along(
    image: torch.Tensor, axis: int, positions: NDArray[np.float64], nearest: bool, fill: float | None
) -> torch.Tensor:
    """Look up positions along one axis; the outer half voxels repeat the edge."""
    size = image.shape[axis]
    held = (positions >= -0.5 - _STRAIGHT_VOXELS) & (positions <= size - 0.5 + _STRAIGHT_VOXELS)
    at = torch.from_numpy(np.clip(positions, 0, size - 1))
    low = ((at + 0.5) if nearest else at).floor().long().clamp(max=size - 1)
    looked = image.index_select(axis, low).float()
    shape = [-1 if a == axis else 1 for a in range(image.ndim)]
    weight = (at - low).float().reshape(shape)
    if not nearest and bool(weight.any()):
        looked = torch.lerp(looked, image.index_select(axis, (low + 1).clamp(max=size - 1)).float(), weight)
    return looked if fill is None or held.all() else torch.where(torch.from_numpy(held).reshape(shape), looked, fill)


def _oblique(
    channels: torch.Tensor,
    to_source: NDArray[np.float64],
    index: NDArray[np.int_],
    target: Grid,
    nearest: bool,
    fill: float | None,
) -> torch.Tensor:
    """Look up each target voxel by itself, one slice at a time."""
    size = torch.tensor(channels.shape[1:], dtype=torch.float64)
    plane = np.stack(np.meshgrid(*map(np.arange, target.shape[1:]), indexing="ij"), axis=-1)
    slices = []
    for row in index:
        at = torch.from_numpy(plane @ to_source[:3, 1:3].T + to_source[:3, 0] * row + to_source[:3, 3])
        held = ((at >= -0.5) & (at <= size - 0.5)).all(dim=-1)
        unit = 2 * at / (size - 1).clamp(min=1) - 1
        mode = "nearest" if nearest else "bilinear"
        looked = functional.grid_sample(
            channels[None].float(), unit.flip(-1)[None, None].float(), mode, "border", align_corners=True
        )
        slices.append(looked[0] if fill is None else torch.where(held, looked[0], fill))
    return torch.cat(slices, dim=1)
