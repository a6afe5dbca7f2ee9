"""Where a regular voxel array lies in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from operator import index

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomolens.core.errors import GeometryError

_POSITIVE = "LPS"
_NEGATIVE = "RAI"
_ORTHOGONAL_COSINE = 1e-3
"""Axes whose cosine is below this (0.06 degrees) count as orthogonal; scanners write 6 decimals."""
_SMALLEST_VOLUME = 1e-6
"""Of the box that three unit vectors along the axes span. Below this the axes lie in one plane."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where a regular voxel array lies in the patient.

    Parameters
    ----------
    shape
        Voxels along (slice k, row j, column i).
    affine
        (4, 4) float64. Takes a voxel centre ``(k, j, i, 1)`` to ``(x, y, z, 1)`` in mm, in DICOM's patient
        system: +x left, +y posterior, +z superior (PS3.3 C.7.6.2.1.1).
    frame_of_reference
        DICOM's FrameOfReferenceUID (PS3.3 C.7.4.1), or None where it is not known. Points of grids with different
        frames cannot be compared.

    Raises
    ------
    GeometryError
        If ``shape`` is not three positive integers, or ``affine`` is not 4x4, not finite, or cannot be inverted.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    frame_of_reference: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checked_shape(self.shape))
        object.__setattr__(self, "affine", _checked_affine(self.affine))

    @classmethod
    def from_axes(
        cls,
        shape: tuple[int, int, int],
        spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
        origin_lps_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
        directions: ArrayLike = ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
        frame_of_reference: str | None = None,
    ) -> Grid:
        """Build a grid from spacing, the centre of voxel (0, 0, 0) and a unit LPS direction for each of k, j, i.

        The default directions are those of an axial scan numbered from the feet: k superior, j posterior, i left.
        """
        affine = np.eye(4)
        affine[:3, :3] = np.asarray(directions, float).T * np.asarray(spacing_mm, float)
        affine[:3, 3] = origin_lps_mm
        return cls(shape, affine, frame_of_reference)

    def to_mm(self, kji: ArrayLike) -> NDArray[np.float64]:
        """(..., 3) voxel indices to (..., 3) LPS points in mm."""
        return np.asarray(kji, np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_kji(self, lps_mm: ArrayLike) -> NDArray[np.float64]:
        """(..., 3) LPS points in mm to (..., 3) voxel indices, not rounded."""
        return (np.asarray(lps_mm, np.float64) - self.affine[:3, 3]) @ self._inverse.T

    @cached_property
    def _inverse(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.inv(self.affine[:3, :3]), np.float64)

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along k, j and i, in mm."""
        k, j, i = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(k), float(j), float(i)

    @cached_property
    def directions(self) -> NDArray[np.float64]:
        """(3, 3): row a is the LPS unit vector along which array axis a (k, j, i) grows."""
        return np.asarray((self.affine[:3, :3] / self.spacing_mm).T)

    @cached_property
    def is_sheared(self) -> bool:
        """Whether the axes are not at right angles, as after a CT with a tilted gantry."""
        cosines = self.directions @ self.directions.T
        return bool(np.abs(cosines - np.diag(np.diag(cosines))).max() > _ORTHOGONAL_COSINE)

    @cached_property
    def tilt_degrees(self) -> float:
        """Angle between the slice axis and the normal of the slices, 0 for a rectangular grid."""
        normal = np.cross(self.directions[1], self.directions[2])
        cosine = abs(float(normal @ self.directions[0])) / float(np.linalg.norm(normal))
        return float(np.degrees(np.arccos(min(cosine, 1.0))))

    @cached_property
    def axis_letters(self) -> tuple[str, str, str]:
        """The patient side that k, j and i grow towards, one of L R A P S I each, e.g. ``("S", "P", "L")``.

        Each letter pair (L/R, A/P, S/I) appears once, also on an oblique grid: the assignment that fits best overall.
        """
        letters = ["", "", ""]
        for axis, world in enumerate(self._world_axes):
            letters[axis] = (_NEGATIVE if self.directions[axis, world] < 0 else _POSITIVE)[world]
        return letters[0], letters[1], letters[2]

    @cached_property
    def _world_axes(self) -> tuple[int, ...]:
        """For each array axis the world axis (0 x, 1 y, 2 z) that it follows most.

        Compared in millionths, so that rounding decides nothing. In a tie, as at 45 degrees, the array order
        (superior, posterior, left) wins: a canonical grid stays as it is.
        """
        size = np.rint(np.abs(self.directions) * 1e6).astype(int)
        return max(permutations((2, 1, 0)), key=lambda order: sum(size[a, w] for a, w in enumerate(order)))

    @cached_property
    def orientation(self) -> str:
        """``axial``, ``coronal`` or ``sagittal``: the plane that the slices are nearest to."""
        return ("sagittal", "coronal", "axial")[self._world_axes[0]]

    @property
    def canonical_order(self) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
        """Array axes in the order (superior, posterior, left), and whether each must be flipped to grow that way."""
        order = tuple(self._world_axes.index(world) for world in (2, 1, 0))
        flips = tuple(bool(self.directions[axis, world] < 0) for axis, world in zip(order, (2, 1, 0), strict=True))
        return (order[0], order[1], order[2]), (flips[0], flips[1], flips[2])

    def permuted(self, order: tuple[int, int, int]) -> Grid:
        """The grid of ``voxels.transpose(order)``."""
        a, b, c = (range(3)[axis] for axis in order)
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, [a, b, c]]
        return Grid((self.shape[a], self.shape[b], self.shape[c]), affine, self.frame_of_reference)

    def flipped(self, axis: int) -> Grid:
        """The grid of ``np.flip(voxels, axis)``."""
        axis = range(3)[axis]
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, axis] * (self.shape[axis] - 1)
        affine[:3, axis] *= -1
        return Grid(self.shape, affine, self.frame_of_reference)

    def cropped(self, start_kji: tuple[int, int, int], shape: tuple[int, int, int]) -> Grid:
        """The grid of the box of ``shape`` whose first voxel is ``start_kji``; it may reach beyond this grid."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_mm(start_kji)
        return Grid(shape, affine, self.frame_of_reference)

    def respaced(self, spacing_mm: tuple[float, float, float]) -> Grid:
        """The grid over the same field of view with another spacing.

        The outer faces of the first voxels coincide, so the new first centre lies half the difference in spacing
        inside the old one; the far faces coincide to within half a new voxel, where that leaves a voxel at all.

        Raises
        ------
        GeometryError
            If a spacing is not a positive number.
        """
        if not all(0 < s < np.inf for s in spacing_mm):
            raise GeometryError(f"Spacing is a positive number of mm along each of k, j, i, not {spacing_mm}.")
        ratio = np.asarray(spacing_mm) / self.spacing_mm
        shape = tuple(max(1, round(n / r)) for n, r in zip(self.shape, ratio, strict=True))
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, :3] * ratio
        affine[:3, 3] = self.to_mm((ratio - 1) / 2)
        return Grid((shape[0], shape[1], shape[2]), affine, self.frame_of_reference)

    def same_place(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether every voxel centre of both grids coincides, in the same frame of reference."""
        if self.shape != other.shape or self.frame_of_reference != other.frame_of_reference:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1).T
        return bool(np.abs(self.to_mm(corners) - other.to_mm(corners)).max() <= tolerance_mm)

    def contains(self, lps_mm: ArrayLike) -> NDArray[np.bool_]:
        """Whether (..., 3) LPS points lie inside the field of view (voxel faces included)."""
        kji = self.to_kji(lps_mm)
        return np.asarray(((kji >= -0.5) & (kji <= np.asarray(self.shape) - 0.5)).all(axis=-1))


def _checked_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    try:
        k, j, i = map(index, shape)
    except (TypeError, ValueError):
        k = j = i = 0
    if min(k, j, i) < 1:
        raise GeometryError(f"A grid has three sizes of at least 1 (slices, rows, columns), not {shape}.")
    return k, j, i


def _checked_affine(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    checked = np.array(affine, dtype=np.float64)
    if checked.shape != (4, 4) or not np.isfinite(checked).all() or not np.array_equal(checked[3], (0, 0, 0, 1)):
        raise GeometryError(f"An affine is a finite 4x4 matrix ending in 0 0 0 1, not {affine!r}.")
    axes = checked[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not lengths.all() or abs(np.linalg.det(axes / lengths)) < _SMALLEST_VOLUME:
        raise GeometryError(f"This affine has no inverse: its axes lie in one plane or one has no length.\n{checked}")
    checked.flags.writeable = False
    return checked
