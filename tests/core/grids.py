"""Grids as hypothesis draws them: any rotation, handedness, spacing, shear and place."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tomolens.core.grid import Grid

SHAPES = st.tuples(*[st.integers(1, 12)] * 3)
SPACINGS_MM = st.tuples(*[st.floats(0.05, 12.0)] * 3)
ORIGINS_MM = st.tuples(*[st.floats(-500.0, 500.0)] * 3)
ORDERS = st.permutations((0, 1, 2)).map(tuple)


@st.composite
def rotations(draw: st.DrawFn) -> NDArray[np.float64]:
    """Rotation matrices, from quaternions; right angles and 45 degrees are drawn on purpose."""
    part = st.one_of(st.sampled_from([-1.0, 0.0, 1.0, 1 + 2**0.5]), st.floats(-1.0, 1.0))
    w, x, y, z = np.array(draw(st.tuples(*[part] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)))
    matrix = [
        [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
    ]
    return np.array(matrix) / (w * w + x * x + y * y + z * z)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Rectangular grids, oblique ones, mirrored ones and ones sheared by up to 30 degrees."""
    axes = draw(rotations()) * draw(st.sampled_from([1.0, -1.0]))
    tilt = np.radians(draw(st.sampled_from([0.0, 0.0, 18.5, -30.0])))
    slices = axes[0] * np.cos(tilt) + axes[1] * np.sin(tilt)
    return Grid.from_axes(
        draw(SHAPES), draw(SPACINGS_MM), draw(ORIGINS_MM), np.stack([slices, axes[1], axes[2]]), draw(FRAMES)
    )


FRAMES = st.sampled_from([None, "1.2.3"])


def numbered(grid: Grid) -> NDArray[Any]:
    """Voxels that are all different."""
    return np.arange(np.prod(grid.shape), dtype=np.int16).reshape(grid.shape)
