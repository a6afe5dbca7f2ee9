"""The same chest on another scanner: thicker slices, other kernels, noise and offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.random import Generator

THICK_MM = (1.5, 6.0)
"""Slices are made this thick: training reaches beyond the 5 mm that chest models take at most."""


def another_scanner(voxels: NDArray[np.float32], rng: Generator, thick: float = 0.3) -> NDArray[np.float32]:
    """Another scanner: a share of ``thick`` slices, else at times a softer or a sharper kernel; noise, an offset."""
    kind, others = rng.random(), 1 - thick
    if kind < thick:
        voxels = thick_slices(voxels, float(rng.uniform(*THICK_MM)), rng)
    elif kind < thick + 0.215 * others:
        voxels = ndimage.gaussian_filter(voxels, (rng.uniform(0, 0.8), *(rng.uniform(0.3, 0.9),) * 2))
    elif kind < thick + 0.43 * others:
        soft = ndimage.gaussian_filter(voxels, (0, 0.8, 0.8))
        voxels = voxels + np.float32(rng.uniform(0.3, 1.5)) * (voxels - soft)
    if rng.random() < 0.5:
        noise = rng.standard_normal(voxels.shape, np.float32)
        grain = rng.uniform(0, 1.0)
        if grain > 0.3:
            noise = ndimage.gaussian_filter(noise, (grain / 2, grain, grain))
            noise /= noise.std()
        voxels = voxels + noise * np.float32(rng.gamma(2.0, 14.0))
    return np.asarray(voxels * np.float32(rng.uniform(0.97, 1.03)) + np.float32(rng.uniform(-20, 20)), np.float32)


def thick_slices(voxels: NDArray[np.float32], thickness_mm: float, rng: Generator) -> NDArray[np.float32]:
    """What slices of that thickness, at a random phase, come back as at 1 mm."""
    size = voxels.shape[0]
    centers = np.arange(rng.uniform(-thickness_mm, 0), size + thickness_mm, thickness_mm)
    sums = np.cumsum(np.pad(voxels, ((1, 0), (0, 0), (0, 0))), axis=0, dtype=np.float64)
    low, high = (np.clip(centers + side * thickness_mm / 2 + 0.5, 0, size) for side in (-1, 1))
    full = high - low > 0.5
    slices = (_at(sums, high[full]) - _at(sums, low[full])) / (high - low)[full, None, None]
    middle = (low + high)[full] / 2 - 0.5
    return np.asarray(_at(slices, np.interp(np.arange(size), middle, np.arange(len(middle)))), np.float32)


def _at(stack: NDArray[np.float64], where: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear interpolation along the first axis."""
    low = np.clip(np.floor(where).astype(int), 0, len(stack) - 2)
    weight = (where - low)[:, None, None]
    return np.asarray(stack[low] * (1 - weight) + stack[low + 1] * weight)
