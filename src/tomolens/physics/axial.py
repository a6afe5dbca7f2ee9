"""CT as it was measured: slices from below upwards, whichever way an array holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.volume import Volume


def axial_slices(volume: Volume) -> NDArray[Any]:
    """The voxels with axes superior, posterior, left; a view, nothing is resampled."""
    return volume.canonical().voxels


def as_in(volume: Volume, axial: NDArray[Any]) -> NDArray[Any]:
    """An array of the shape of `axial_slices`, turned to the axes of the volume; a view."""
    order, flips = volume.grid.canonical_order
    for axis in np.flatnonzero(flips):
        axial = np.flip(axial, int(axis))
    return axial.transpose(np.argsort(order))


def pixel_mm(volume: Volume) -> float:
    """The mean edge of a pixel in the axial slice."""
    _, down, across = volume.canonical().spacing_mm
    return (down + across) / 2
