"""A measurement in k-space, and the image grid that belongs to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tomolens.core.errors import GeometryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.grid import Grid

NO_PLACE = "its place in the patient is not known"
"""Stands in the history of k-space whose file does not say where in the patient it was measured."""

ASSUMED_MM = "1 mm was taken"
"""Stands in the history of k-space whose file states no spacing."""
FIRST_OF = "the first of"
"""Opens a step in the history of k-space whose file holds more than was read."""


def is_placed(history: Iterable[str]) -> bool:
    """Whether a history leaves it known where in the patient the image lies, and so which side is left."""
    return not any(NO_PLACE in step for step in history)


@dataclass(frozen=True, eq=False)
class KSpace:
    """What the coils of an MR scanner measured, slice by slice.

    Parameters
    ----------
    data
        (slice, coil, ky, kx) complex64: the centred, orthonormal Fourier transform of each coil's image, zero frequency
        in the middle; ky belongs to the image's rows, kx to its columns. Zero where nothing was measured.
    acquired
        (slice, ky, kx) bool: where something was measured.
    grid
        Where the image lies in the patient; its shape is (slices, ky, kx).
    sensitivities
        (slice, coil, row, column) complex64 of unit root sum of squares inside the body; None where they are not known.
    name
        A short name for lists and layers.
    history
        What was done to the numbers since they were measured, one line a step; a simulation says so here.

    Raises
    ------
    GeometryError
        If shapes do not fit each other, or nothing was acquired in a slice.
    """

    data: NDArray[np.complex64] = field(repr=False)
    acquired: NDArray[np.bool_] = field(repr=False)
    grid: Grid
    sensitivities: NDArray[np.complex64] | None = field(default=None, repr=False)
    name: str = "k-space"
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        slices, coils, rows, columns = self.data.shape if self.data.ndim == 4 else (0, 0, 0, 0)
        if (slices, rows, columns) != self.grid.shape or not coils:
            raise GeometryError(
                f"k-space of shape {self.data.shape} does not fit a grid of {self.grid.shape}; "
                "it is (slice, coil, ky, kx)."
            )
        if self.acquired.shape != self.grid.shape:
            raise GeometryError(f"A mask of shape {self.acquired.shape} does not fit a grid of {self.grid.shape}.")
        if self.sensitivities is not None and self.sensitivities.shape != self.data.shape:
            raise GeometryError(f"Sensitivities of shape {self.sensitivities.shape} do not fit {self.data.shape}.")
        if not self.acquired.any(axis=(1, 2)).all():
            raise GeometryError(f"{self.name} has a slice in which nothing was acquired.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return self.grid.shape

    @property
    def coils(self) -> int:
        """How many coils measured."""
        return int(self.data.shape[1])

    @property
    def acceleration(self) -> float:
        """Places of k-space by those that were measured: 1 where all were."""
        return float(self.acquired.size / self.acquired.sum())

    def kept(self, mask: NDArray[np.bool_], step: str) -> KSpace:
        """What remains where only ``mask``, which broadcasts to (slice, ky, kx), had been measured too."""
        acquired = self.acquired & mask
        data = np.where(acquired[:, None], self.data, np.complex64(0))
        return replace(self, data=data, acquired=acquired, history=(*self.history, step))
