"""How a slice hangs: which way up, which side left, where a point of the patient lies in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from tomolens.core.grid import Grid

OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
PLANE_ACROSS = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal", "L": "sagittal", "R": "sagittal"}
"""The plane that is cut by holding still the array axis that grows towards this side."""
INDEX_NAMES = ("slice", "row", "column")
"""What is counted, from 0, along array axes k, j, i."""

_RANK = {"S": 0, "I": 0, "A": 1, "P": 1, "L": 2, "R": 2}
_MOST_PROJECTED = 128
"""A projection averages at most about this many samples along its axis."""


@dataclass(frozen=True)
class Letters:
    """The patient's sides on the four edges of a picture."""

    left: str
    right: str
    top: str
    bottom: str


@dataclass(frozen=True)
class Place:
    """Where a point lies in a picture: mm from its left and upper edge, and mm off the slice (0 in a projection)."""

    x_mm: float
    y_mm: float
    off_mm: float


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice across an array axis, or the mean along it, hung as radiologists hang it.

    An axial slice shows the patient's right on the left and the front on top; a coronal one the right on the left and
    the head on top; a sagittal one the front on the left and the head on top.

    Parameters
    ----------
    grid
        The volume's grid.
    axis
        The array axis (0 k, 1 j, 2 i) that the slice holds still.
    index
        Which slice, from 0; None is the mean of all of them.
    box
        (top, left, height, width) in pixels of the hung slice; None is all of it. It may reach beyond the slice.
    """

    grid: Grid
    axis: int
    index: int | None
    box: tuple[int, int, int, int] | None = None

    @classmethod
    def through(cls, grid: Grid, axis: int, lps_mm: ArrayLike, field_mm: float | None = None) -> Plane:
        """The slice nearest to a point; where ``field_mm`` is given, the square of that width centred on the point."""
        kji = grid.to_kji(lps_mm)
        whole = cls(grid, axis, int(np.clip(round(float(kji[axis])), 0, grid.shape[axis] - 1)))
        if field_mm is None:
            return whole
        row, column = whole._hung(kji)
        down_mm, right_mm = whole._pixel_mm
        height, width = max(1, round(field_mm / down_mm)), max(1, round(field_mm / right_mm))
        top, left = round(row - (height - 1) / 2), round(column - (width - 1) / 2)
        return cls(grid, axis, whole.index, (top, left, height, width))

    @property
    def name(self) -> str:
        """``axial``, ``coronal`` or ``sagittal``."""
        return PLANE_ACROSS[self.grid.axis_letters[self.axis]]

    @property
    def caption(self) -> str:
        """The plane and its index, e.g. ``axial, slice 112``; the index counts from 0."""
        return f"{self.name}, {'mean' if self.index is None else f'{INDEX_NAMES[self.axis]} {self.index}'}"

    @cached_property
    def _axes(self) -> tuple[int, int]:
        """Array axes of the picture's rows and columns: S-I above A-P above L-R."""
        rows, columns = sorted((a for a in range(3) if a != self.axis), key=lambda a: _RANK[self.grid.axis_letters[a]])
        return rows, columns

    @cached_property
    def _flips(self) -> tuple[bool, bool]:
        """Whether rows and columns are turned round: rows go towards I or P, columns towards L or P."""
        rows, columns = (self.grid.axis_letters[a] for a in self._axes)
        return rows in "SA", columns in "RA"

    @property
    def _pixel_mm(self) -> tuple[float, float]:
        rows, columns = self._axes
        return self.grid.spacing_mm[rows], self.grid.spacing_mm[columns]

    @property
    def _extent(self) -> tuple[int, int, int, int]:
        rows, columns = self._axes
        return self.box or (0, 0, self.grid.shape[rows], self.grid.shape[columns])

    def _hung(self, kji: NDArray[np.float64]) -> tuple[float, float]:
        """(row, column) of a voxel index in the whole hung slice; pixel centres are whole numbers."""
        row, column = (
            float(self.grid.shape[a] - 1 - kji[a] if flip else kji[a])
            for a, flip in zip(self._axes, self._flips, strict=True)
        )
        return row, column

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width of the picture."""
        _, _, height, width = self._extent
        down_mm, right_mm = self._pixel_mm
        return height * down_mm, width * right_mm

    @property
    def letters(self) -> Letters:
        """The patient's sides on the edges."""
        down, right = (
            OPPOSITE[self.grid.axis_letters[a]] if flip else self.grid.axis_letters[a]
            for a, flip in zip(self._axes, self._flips, strict=True)
        )
        return Letters(left=OPPOSITE[right], right=right, top=OPPOSITE[down], bottom=down)

    def place(self, lps_mm: ArrayLike) -> Place:
        """Where a point of the patient (LPS, mm) lies in the picture."""
        kji = self.grid.to_kji(lps_mm)
        row, column = self._hung(kji)
        top, left, _, _ = self._extent
        down_mm, right_mm = self._pixel_mm
        off = 0.0 if self.index is None else abs(float(kji[self.axis]) - self.index) * self.grid.spacing_mm[self.axis]
        return Place((column - left + 0.5) * right_mm, (row - top + 0.5) * down_mm, off)

    def pixels(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """(rows, columns) of the hung slice, a copy; beyond the volume stands the slice's smallest number."""
        rows, columns = self._axes
        plane = self._mean(voxels) if self.index is None else voxels.take(self.index, self.axis)
        plane = plane if rows < columns else plane.T
        plane = plane[:: -1 if self._flips[0] else 1, :: -1 if self._flips[1] else 1]
        return plane if self.box is None else _cut(plane, self.box)

    def _mean(self, voxels: NDArray[Any]) -> NDArray[np.float32]:
        step = [slice(None)] * 3
        step[self.axis] = slice(None, None, max(1, voxels.shape[self.axis] // _MOST_PROJECTED))
        return np.asarray(voxels[tuple(step)].mean(self.axis, dtype=np.float32))


def _cut(plane: NDArray[Any], box: tuple[int, int, int, int]) -> NDArray[Any]:
    top, left, height, width = box
    picture = np.full((height, width), plane.min(), plane.dtype)
    first = max(top, 0), max(left, 0)
    inside = plane[first[0] : max(top + height, 0), first[1] : max(left + width, 0)]
    picture[first[0] - top :, first[1] - left :][: inside.shape[0], : inside.shape[1]] = inside
    return picture


def standard_axes(grid: Grid) -> tuple[int, int, int]:
    """The array axes whose slices are axial, coronal and sagittal, in this order."""
    return grid.canonical_order[0]
