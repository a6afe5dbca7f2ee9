"""Where a phantom is drawn: a fine voxel grid, a coarse lattice under it, and the brushes.

Large smooth organs are signed distances on the lattice, whose points are a few millimetres apart, interpolated to the
voxels when they are painted; thin curved things are tubes, evaluated only in the voxels around them. All edges are soft
by the width of the scanner's point spread, so nothing has to be supersampled or blurred afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from tomolens.core.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tomolens.phantoms.shapes import Field
    from tomolens.phantoms.texture import Grain

_SLAB = 24
"""Slices painted at a time, so that the work stays in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """A voxel grid with axes superior, posterior, left, and the lattice under it.

    Parameters
    ----------
    low_lps_mm, high_lps_mm
        Opposite corners of the field of view.
    spacing_mm
        Voxel spacing along k, j, i.
    edge_mm
        Width of the soft edge of everything that is drawn.
    pitch_mm
        Distance between lattice points.
    """

    low_lps_mm: tuple[float, float, float]
    high_lps_mm: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    edge_mm: float
    pitch_mm: float = 4.0

    @cached_property
    def grid(self) -> Grid:
        """The voxel grid: k superior, j posterior, i left."""
        k, j, i = (
            max(1, round((high - low) / step))
            for low, high, step in zip(self.low_lps_mm[::-1], self.high_lps_mm[::-1], self.spacing_mm, strict=True)
        )
        x, y, z = (low + step / 2 for low, step in zip(self.low_lps_mm, self.spacing_mm[::-1], strict=True))
        return Grid.from_axes((k, j, i), self.spacing_mm, (x, y, z))

    def with_thinner_slices(self, layers: int) -> Canvas:
        """The same canvas with ``layers`` slices for each of its own."""
        thin = self.spacing_mm[0] / layers
        depth = self.grid.shape[0] * self.spacing_mm[0]
        high = (self.high_lps_mm[0], self.high_lps_mm[1], self.low_lps_mm[2] + depth)
        return replace(self, spacing_mm=(thin, *self.spacing_mm[1:]), high_lps_mm=high)

    @cached_property
    def voxel_axes(self) -> tuple[NDArray[np.float64], ...]:
        """Coordinates of the voxel centres along z, y, x in mm."""
        start = self.grid.affine[:3, 3][::-1]
        return tuple(
            np.asarray(a + np.arange(n) * s) for a, n, s in zip(start, self.grid.shape, self.spacing_mm, strict=True)
        )

    @cached_property
    def lattice_axes(self) -> tuple[NDArray[np.float64], ...]:
        """Coordinates of the lattice points along z, y, x in mm; two points beyond the field of view on each side."""
        return tuple(
            np.asarray(low + self.pitch_mm * np.arange(-2, int(np.ceil((high - low) / self.pitch_mm)) + 3), np.float64)
            for low, high in zip(self.low_lps_mm[::-1], self.high_lps_mm[::-1], strict=True)
        )

    @cached_property
    def lattice(self) -> tuple[Field, Field, Field]:
        """The lattice points' x, y and z in mm, each of the lattice's full shape."""
        z, y, x = np.meshgrid(*[axis.astype(np.float32) for axis in self.lattice_axes], indexing="ij")
        return x, y, z

    @cached_property
    def _weights(self) -> tuple[csr_array, ...]:
        return tuple(
            _cubic_weights(axis, lattice) for axis, lattice in zip(self.voxel_axes, self.lattice_axes, strict=True)
        )

    def slabs(self, field: Field, below: float) -> Iterator[tuple[tuple[slice, slice, slice], Field]]:
        """Interpolate a field to the voxels, slab by slab, only in the box where it is under ``below``."""
        box = _box_under(field, below, self._weights)
        for start in range(box[0].start, box[0].stop, _SLAB):
            slab = (slice(start, min(start + _SLAB, box[0].stop)), box[1], box[2])
            yield slab, self.fine(field, slab)

    def fine(self, field: Field, box: tuple[slice, slice, slice]) -> Field:
        """Interpolate a field to the voxels of a box."""
        for axis in (2, 1, 0):
            weights = self._weights[axis][box[axis]]
            used = slice(int(weights.indices.min()), int(weights.indices.max()) + 1)
            front = np.moveaxis(field, axis, 0)[used]
            spread = weights[:, used] @ front.reshape(len(front), -1)
            field = np.moveaxis(spread.reshape(-1, *front.shape[1:]), 0, axis)
        return np.ascontiguousarray(field)

    def paint(self, image: NDArray[np.float32], field: Field, value: float, grain: Grain | None = None) -> None:
        """Put ``value``, varied by ``grain``, where ``field`` is negative, with a soft edge."""
        for box, distance in self.slabs(field, self.edge_mm):
            alpha = self.coverage(distance)
            part = image[box]
            alpha *= (np.float32(value) if grain is None else grain.over(box) + np.float32(value)) - part
            part += alpha

    def coverage(self, distance: NDArray[np.float32]) -> NDArray[np.float32]:
        """Share of a voxel that is inside, from the signed distance of its centre; overwrites ``distance``."""
        distance *= -1 / (2 * self.edge_mm)
        distance += 0.5
        return np.clip(distance, 0, 1, out=distance)

    def inside(self, field: Field) -> NDArray[np.bool_]:
        """Mark the voxels where a field is negative."""
        mask = np.zeros(self.grid.shape, bool)
        for box, distance in self.slabs(field, 0.0):
            mask[box] = distance < 0
        return mask

    def sample(self, field: Field, points_lps_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Interpolate a field linearly at (n, 3) LPS points."""
        from scipy.ndimage import map_coordinates

        low = np.array([axis[0] for axis in self.lattice_axes])
        where = (np.asarray(points_lps_mm)[:, ::-1] - low) / self.pitch_mm
        return np.asarray(map_coordinates(field, where.T, order=1, mode="nearest"), np.float64)


def _cubic_weights(points: NDArray[np.float64], lattice: NDArray[np.float64]) -> csr_array:
    """(points, lattice) weights of Catmull-Rom interpolation, four a point."""
    t = np.abs((points[:, None] - lattice[None, :]) / (lattice[1] - lattice[0]))
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return csr_array(np.where(t < 1, near, np.where(t < 2, far, 0)).astype(np.float32))


def _box_under(field: Field, below: float, weights: tuple[csr_array, ...]) -> tuple[slice, slice, slice]:
    """Box of the voxels that a lattice point under ``below`` can reach; without slices where there is none."""
    hit = field < below
    box = []
    for axis, weight in enumerate(weights):
        others = tuple(other for other in range(3) if other != axis)
        reach = np.flatnonzero(abs(weight).toarray() @ hit.any(axis=others))
        box.append(slice(int(reach[0]), int(reach[-1]) + 1) if len(reach) else slice(0, 0))
    return box[0], box[1], box[2]
