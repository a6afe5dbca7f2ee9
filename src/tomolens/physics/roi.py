"""What is measured in a region of interest on one plane: mean, noise, contrast to noise, noise power spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.errors import OptionError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SMALLEST_SQUARE = 12
"""Pixels along a side: the least that a noise power spectrum is made of."""
_FLAT = 1e-3
"""Corners that differ by less than this, in voxels, lie on one plane."""


@dataclass(frozen=True, eq=False)
class Region:
    """A rectangle or an ellipse, turned or not, on one plane of a voxel array.

    Parameters
    ----------
    axis, index
        The plane: the array axis across it, and which of its planes.
    mask
        The plane's pixels whose centres lie inside.
    """

    axis: int
    index: int
    mask: NDArray[np.bool_]

    @classmethod
    def between(cls, corners_kji: ArrayLike, shape: tuple[int, int, int], *, ellipse: bool = False) -> Region:
        """Make the region of four corners, in order around it.

        Parameters
        ----------
        corners_kji
            (4, 3) voxel indices, not rounded; an ellipse touches the middles of the four sides.
        shape
            Of the voxel array.
        ellipse
            Whether it is an ellipse.

        Raises
        ------
        OptionError
            If the corners do not lie on one plane of the array, or no pixel's centre lies between them.
        """
        corners = np.asarray(corners_kji, float)
        across = np.flatnonzero(np.ptp(corners, axis=0) < _FLAT) if corners.shape == (4, 3) else np.array([])
        if len(across) != 1:
            raise OptionError("A region is a rectangle or an ellipse on one axial, coronal or sagittal plane.")
        axis = int(across[0])
        index = round(float(corners[0, axis]))
        plane = shape[:axis] + shape[axis + 1 :]
        mask = _inside(np.delete(corners, axis, axis=1), (plane[0], plane[1]), ellipse)
        if not 0 <= index < shape[axis] or not mask.any():
            raise OptionError("No pixel of the scan has its centre in the region.")
        return cls(axis, index, mask)

    def values(self, voxels: NDArray[Any]) -> NDArray[np.float64]:
        """The numbers inside, in row order."""
        return np.asarray(voxels.take(self.index, self.axis)[self.mask], np.float64)

    def square(self, voxels: NDArray[Any]) -> NDArray[np.float64] | None:
        """The largest square of pixels in its middle; None where that is less than `SMALLEST_SQUARE` a side."""
        lines = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        widest = min(len(rows) for rows in lines)
        for side in range(widest, SMALLEST_SQUARE - 1, -1):
            box = tuple(slice(start, start + side) for start in ((n[0] + n[-1] + 1 - side) // 2 for n in lines))
            if self.mask[box].all():
                return np.asarray(voxels.take(self.index, self.axis)[box], np.float64)
        return None


def _inside(corners: NDArray[np.float64], shape: tuple[int, int], ellipse: bool) -> NDArray[np.bool_]:
    """The pixels with their centres inside, in the region's own coordinates: -1 to 1 from side to side."""
    along, down = corners[1] - corners[0], corners[3] - corners[0]
    area = along[0] * down[1] - along[1] * down[0]
    if abs(area) < _FLAT:
        return np.zeros(shape, bool)
    rows, columns = np.indices(shape) - corners[[0, 2]].mean(axis=0).reshape(2, 1, 1)
    u = 2 * (rows * down[1] - columns * down[0]) / area
    v = 2 * (columns * along[0] - rows * along[1]) / area
    return np.asarray(u**2 + v**2 <= 1 if ellipse else np.maximum(np.abs(u), np.abs(v)) <= 1)


@dataclass(frozen=True)
class Statistics:
    """Of the numbers in a region, in their unit: how many, their mean, their standard deviation (over n - 1)."""

    count: int
    mean: float
    sd: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> Statistics:
        """Measure at least one number; the standard deviation of one alone is 0."""
        return cls(values.size, float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else 0.0)


def contrast_to_noise(one: Statistics, other: Statistics) -> float:
    """Difference of two means by the root of their mean variance; infinite where there is no noise."""
    noise = float(np.sqrt((one.sd**2 + other.sd**2) / 2))
    contrast = abs(one.mean - other.mean)
    return contrast / noise if noise else float(np.inf if contrast else 0.0)


@dataclass(frozen=True, eq=False)
class NoisePower:
    """A radial noise power spectrum.

    Parameters
    ----------
    per_mm
        Spatial frequency, cycles a mm: the mean over each ring.
    power
        Mean over each ring, in the square of the unit times mm^2.
    share
        Area of frequency that each ring covers, per mm^2: the sum of ``power * share`` is the variance.
    """

    per_mm: NDArray[np.float64]
    power: NDArray[np.float64]
    share: NDArray[np.float64]

    @property
    def variance(self) -> float:
        """The integral over all frequencies."""
        return float((self.power * self.share).sum())


def noise_power(square: NDArray[Any], spacing_mm: tuple[float, float]) -> NoisePower:
    """Radial noise power spectrum of a patch in which nothing but noise varies.

    NPS(f) = dx dy / (Nx Ny) |DFT(patch - mean)|^2 (ICRU 87, 4.4.2), over rings one frequency step of the patch wide.

    Parameters
    ----------
    square
        (rows, columns) numbers.
    spacing_mm
        Between rows and columns.
    """
    rows, columns = square.shape
    dy, dx = spacing_mm
    power = np.abs(np.fft.fft2(square - square.mean())) ** 2 * dx * dy / (rows * columns)
    frequency = np.hypot(np.fft.fftfreq(rows, dy)[:, None], np.fft.fftfreq(columns, dx)[None])
    step = 1 / min(rows * dy, columns * dx)
    ring = np.rint(frequency / step).astype(int).ravel()
    count = np.bincount(ring)
    kept = count > 0
    area = 1 / (rows * dy * columns * dx)
    means = [np.bincount(ring, part.ravel())[kept] / count[kept] for part in (frequency, power)]
    return NoisePower(means[0], means[1], count[kept] * area)
