"""Voxels that know where they are and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tomolens.core.errors import GeometryError
from tomolens.core.kspace import is_placed
from tomolens.core.picture import volume_html

if TYPE_CHECKING:
    from tomolens.core.grid import Grid
    from tomolens.core.series import Series


class Unit(StrEnum):
    """What a voxel's number means."""

    HU = "HU"
    """Hounsfield units, RescaleType HU (PS3.3 C.11.1.1.2)."""
    ARBITRARY = "a.u."
    """No physical unit, as in MR magnitude images."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D image in its place in the patient.

    Parameters
    ----------
    voxels
        (slices, rows, columns), int16 or float32, in ``unit``. Held read-only; not copied.
    grid
        Where the voxels lie. Its shape is that of ``voxels``.
    unit
        What the numbers mean.
    modality
        DICOM's Modality (PS3.3 C.7.3.1.1.1): ``CT``, ``MR``, ...
    series
        The headers it came from, or None.
    padding
        The value, in ``unit``, that marks voxels outside the scanner's field of view; None where there is none.
    history
        What was done to the voxels since acquisition, one line a step.

    Raises
    ------
    GeometryError
        If the shapes of ``voxels`` and ``grid`` differ.
    """

    voxels: NDArray[Any] = field(repr=False)
    grid: Grid
    unit: Unit = Unit.HU
    modality: str = "CT"
    series: Series | None = field(default=None, repr=False)
    padding: float | None = None
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.voxels.shape != self.grid.shape:
            raise GeometryError(f"Voxels of shape {self.voxels.shape} do not fit a grid of {self.grid.shape}.")
        view = self.voxels.view()
        view.flags.writeable = False
        object.__setattr__(self, "voxels", view)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return self.grid.shape

    @property
    def placed(self) -> bool:
        """Whether it is known where in the patient it lies, and so which side is left; see `KSpace`."""
        return is_placed(self.history)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along k, j, i in mm."""
        return self.grid.spacing_mm

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Field of view along k, j, i in mm, from outer face to outer face."""
        k, j, i = (n * spacing for n, spacing in zip(self.shape, self.spacing_mm, strict=True))
        return k, j, i

    @property
    def name(self) -> str:
        """A short name for lists and layers."""
        return (self.series.description if self.series else "") or f"{self.modality} volume"

    def with_voxels(self, voxels: NDArray[Any], step: str) -> Volume:
        """The same place with new numbers; ``step`` is added to the history."""
        return replace(self, voxels=voxels, history=(*self.history, step))

    def permuted(self, order: tuple[int, int, int]) -> Volume:
        """The same voxels in the same place, array axes in another order. No number changes."""
        return replace(self, voxels=self.voxels.transpose(order), grid=self.grid.permuted(order))

    def flipped(self, axis: int) -> Volume:
        """The same voxels in the same place, one array axis counted from its other end. No number changes."""
        return replace(self, voxels=np.flip(self.voxels, axis), grid=self.grid.flipped(axis))

    def canonical(self) -> Volume:
        """The same volume with axes ordered and turned to (superior, posterior, left); a view, nothing is resampled."""
        order, flips = self.grid.canonical_order
        volume = self.permuted(order)
        for axis in np.flatnonzero(flips):
            volume = volume.flipped(int(axis))
        return volume

    def cropped(self, start_kji: tuple[int, int, int], shape: tuple[int, int, int]) -> Volume:
        """The part inside a box; a view.

        Raises
        ------
        GeometryError
            If the box reaches beyond the volume.
        """
        stop = tuple(a + n for a, n in zip(start_kji, shape, strict=True))
        if min(start_kji) < 0 or any(s > n for s, n in zip(stop, self.shape, strict=True)):
            raise GeometryError(f"The box from {start_kji} to {stop} reaches beyond a volume of {self.shape}.")
        box = tuple(slice(a, b) for a, b in zip(start_kji, stop, strict=True))
        return replace(self, voxels=self.voxels[box], grid=self.grid.cropped(start_kji, shape))

    def _repr_html_(self) -> str:
        return volume_html(self.voxels, self.grid, self._caption(), self.modality)

    def _caption(self) -> str:
        slices, rows, columns = self.shape
        k, j, i = self.spacing_mm
        return f"{self.name}: {columns} x {rows} x {slices} voxels of {i:.2f} x {j:.2f} x {k:.2f} mm, {self.unit}"
