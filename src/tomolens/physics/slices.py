"""Thick slices of CT and MR: how they average what lies in them, and thin slices that agree with them.

The slice profile is a box as thick as the slices are apart: a thick slice is the mean of the ``factor`` thin ones that
it holds, and lies in their middle. Real profiles have soft edges, MR may leave gaps and CT may overlap: none of that is
modelled.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from tomolens.core.errors import ContractError, OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.grid import Grid
    from tomolens.core.volume import Volume

    Image = NDArray[np.float32]

FACTORS = range(2, 6)
"""Thin slices that one thick slice becomes."""
WISHED_RATIO = 1.5
"""Slices at most this many times as far apart as pixels count as thin."""
LEAST_SLICES = 4
"""A spline and a network need neighbours on both sides."""
ITERATIONS = 8
"""Of the back-projection; what is left of a residual by then is under a thousandth (the slowest part shrinks by 0.34 a
step), and the last step leaves nothing of it."""
_TOO_CLOSE = 1e-3


def thick(volume: Volume, factor: int) -> Volume:
    """Simulate thicker slices: the mean of each ``factor`` slices, in their middle.

    Whole numbers are rounded. Slices at the end that fill no thick one are left out. Where any of the slices has
    padding the thick one has it too: its mean was not measured.

    Raises
    ------
    OptionError
        If the factor is not 2 to 5, or more than there are slices.
    """
    _check_factor(factor)
    count = volume.shape[0] // factor
    if not count:
        raise OptionError(f"{volume.name} has {volume.shape[0]} slices; {factor} are needed for one thick one.")
    used = volume.cropped((0, 0, 0), (count * factor, *volume.shape[1:]))
    k, j, i = used.spacing_mm
    means = averaged(used.voxels, factor)
    voxels = np.rint(means).astype(volume.voxels.dtype) if volume.voxels.dtype.kind in "iu" else means
    if volume.padding is not None:
        outside = (used.voxels == volume.padding).reshape(-1, factor, *used.shape[1:]).any(axis=1)
        voxels = np.where(outside, voxels.dtype.type(volume.padding), voxels)
    step = f"simulated: thick slices of {k * factor:.4g} mm, each the mean of {factor}"
    grid = used.grid.respaced((k * factor, j, i))
    return replace(volume, voxels=voxels, grid=grid, history=(*volume.history, step))


def thin_grid(grid: Grid, factor: int) -> Grid:
    """The grid of ``factor`` thin slices in each slice of ``grid``; both cover the same field of view."""
    k, j, i = grid.spacing_mm
    return grid.respaced((k / factor, j, i))


def averaged(thin: NDArray[Any], factor: int) -> Image:
    """The mean of each ``factor`` slices, (slices, ...) to (slices / factor, ...), float32."""
    return np.asarray(thin.reshape(-1, factor, *thin.shape[1:]).mean(axis=1, dtype=np.float32))


def check_slices(grid: Grid, factor: int | None, name: str = "The volume") -> int:
    """The factor to use: the one asked for, or the least that brings slices to 1.5 times the pixel spacing, at most 5.

    Raises
    ------
    ContractError
        If slices are sheared, too few, not the coarsest axis, or already at most 1.5 times as far apart as pixels.
    OptionError
        If the factor is not 2 to 5.
    """
    k, j, i = grid.spacing_mm
    pixel = max(j, i)
    if grid.is_sheared:
        raise ContractError(
            f"{name} has a tilted gantry ({grid.tilt_degrees:.1f} degrees): its slices average across its grid's "
            "slice axis, not along it. Read it untilted, and take slices of that."
        )
    if k <= WISHED_RATIO * pixel:
        coarse = "its slices are not the coarsest axis" if k < pixel else "its slices are as fine as its pixels"
        raise ContractError(
            f"{name} has slices every {k:.3g} mm and pixels of {j:.3g} x {i:.3g} mm: {coarse}. Slices more than "
            f"{WISHED_RATIO:g} times as far apart as pixels are made thinner."
        )
    if grid.shape[0] < LEAST_SLICES:
        raise ContractError(f"{name} has {grid.shape[0]} slices; at least {LEAST_SLICES} are needed.")
    if factor is not None:
        _check_factor(factor)
        return factor
    return int(np.clip(np.ceil(k / (WISHED_RATIO * pixel) - _TOO_CLOSE), FACTORS[0], FACTORS[-1]))


def _check_factor(factor: int) -> None:
    if factor not in FACTORS:
        raise OptionError(f"factor is {FACTORS[0]} to {FACTORS[-1]}, not {factor}.")


def cubic(measured: NDArray[Any], factor: int) -> Image:
    """The cubic spline through the thick slices, where the thin slices lie: (slices * factor, ...), float32.

    Thin slice n of a thick one lies ``(n + 0.5) / factor - 0.5`` thick slices from its middle. Beyond the outer slices
    the image is mirrored at their outer faces.
    """
    return _along_slices(_spline(len(measured), factor), measured)


def back_projected(measured: NDArray[Any], factor: int, estimate: Image | None = None) -> Image:
    """Thin slices whose means are the thick ones: iterative back-projection, and an exact projection at the end.

    Each iteration takes the mean of the thin slices of the last, and adds the cubic spline of what is missing to the
    measured ones (Irani and Peleg, 1991, doi:10.1016/1049-9652(91)90045-L). The last step adds what is still missing
    evenly.

    Parameters
    ----------
    measured
        (slices, ...) thick slices.
    estimate
        (slices * factor, ...), what to start from; the cubic spline where None.
    """
    if estimate is None:
        return _along_slices(_spline_projection(len(measured), factor), measured)
    missing = measured - averaged(estimate, factor)
    return estimate + _along_slices(_spline_projection(len(measured), factor), missing)


def bounded(estimate: Image, measured: NDArray[Any], factor: int, low: float, high: float) -> Image:
    """The estimate kept within bounds that hold the measured slices, its means still the measured slices.

    What clipping takes from a thin slice is given evenly to those of the same thick slice that have room.
    """
    clipped = np.clip(estimate, np.float32(low), np.float32(high))
    parts = clipped.reshape(-1, factor, *clipped.shape[1:])
    for _ in range(factor):
        missing = measured - parts.mean(axis=1)
        room = np.where(missing[:, None] > 0, parts < high, parts > low)
        share = missing * factor / np.maximum(room.sum(axis=1), 1)
        parts = np.clip(parts + room * share[:, None], low, high).astype(np.float32)
    return parts.reshape(clipped.shape)


def residual_share(thin: Image, measured: NDArray[Any], factor: int) -> float:
    """The largest difference between the thin slices' means and the measured slices, as a share of these' range."""
    span = float(measured.max()) - float(measured.min())
    largest = max(
        float(np.abs(averaged(thin[k * factor : (k + 1) * factor], factor)[0] - measured[k]).max())
        for k in range(len(measured))
    )
    return largest / span if span else largest


@lru_cache(maxsize=16)
def _spline(slices: int, factor: int) -> Image:
    """(slices * factor, slices): what each thin slice takes of each thick one."""
    weights = ndimage.zoom(np.eye(slices), (factor, 1), order=3, mode="reflect", grid_mode=True)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


@lru_cache(maxsize=16)
def _spline_projection(slices: int, factor: int) -> Image:
    """The whole of `back_projected` as weights: it is linear, so it is done once, to each slice alone."""
    spline, measured = _spline(slices, factor).astype(np.float64), np.eye(slices)
    thin = spline.copy()
    for _ in range(ITERATIONS):
        thin += spline @ (measured - _means(thin, factor))
    thin += np.repeat(measured - _means(thin, factor), factor, axis=0)
    return np.asarray(thin, np.float32)


def _means(thin: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    return np.asarray(thin.reshape(-1, factor, thin.shape[1]).mean(axis=1))


def _along_slices(weights: Image, measured: NDArray[Any]) -> Image:
    flat = np.asarray(measured, np.float32).reshape(len(measured), -1)
    return (weights @ flat).reshape(len(weights), *measured.shape[1:])
