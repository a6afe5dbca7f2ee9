"""Which places of k-space an undersampled measurement visits."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from tomolens.core.errors import OptionError

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

_ACS_SHARE = 0.32
"""The centre that is measured whole, times the acceleration: .08 of the lines at 4x, .04 at 8x, as fastMRI has it
(Zbontar et al. 2018, arXiv:1811.08839)."""
_LEAST_ACS = 16
_POISSON_SLOPE = 2.0
"""Discs at the edge of k-space have (1 + slope) times the radius of those in the middle."""
_BISECTIONS = 7


class MaskKind(StrEnum):
    """How places are chosen outside the centre."""

    RANDOM = "random"
    """Whole lines of ky, at random."""
    EQUISPACED = "equispaced"
    """Whole lines of ky, at even distances."""
    POISSON = "poisson-disc"
    """Single places of (ky, kx), none close to another, denser in the middle."""


def sampling_mask(kind: MaskKind, shape: tuple[int, int], acceleration: float, seed: int) -> NDArray[np.bool_]:
    """Draw which places of (ky, kx) are measured, with a centre that is measured whole.

    Parameters
    ----------
    kind
        Lines lie along kx.
    shape
        Rows (ky) and columns (kx).
    acceleration
        Places of k-space by those that are measured, the centre counted; met but for rounding to whole lines (places
        for `MaskKind.POISSON`).
    seed
        The same call gives the same mask.

    Raises
    ------
    OptionError
        If the acceleration is below 1, or leaves fewer than 4 lines.
    """
    rows, columns = shape
    if not 1 <= acceleration <= rows / 4:
        raise OptionError(f"acceleration is 1 to {rows / 4:g} for {rows} lines, not {acceleration:g}.")
    rng = np.random.default_rng([seed, 41])
    if kind is MaskKind.POISSON:
        return _poisson(shape, acceleration, rng)
    lines = round(rows / acceleration)
    chosen = _centre(rows, lines)
    outside = np.flatnonzero(~chosen)
    left = lines - int(chosen.sum())
    if kind is MaskKind.RANDOM:
        chosen[rng.choice(outside, left, replace=False)] = True
    elif left:
        chosen[outside[np.floor((np.arange(left) + rng.random()) * len(outside) / left).astype(int)]] = True
    return np.repeat(chosen[:, None], columns, axis=1)


def fully_sampled_centre(acquired: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The largest box around zero frequency in which (ky, kx) is measured without a gap; may be empty."""
    half = [0, 0]
    middle = [n // 2 for n in acquired.shape]
    for growing in ((0, 1), (0,), (1,)):
        while _grows(acquired, half, middle, growing):
            for axis in growing:
                half[axis] += 1
    rows, columns = (slice(max(m - h, 0), m + h) for m, h in zip(middle, half, strict=True))
    return rows, columns


def widest_gap(acquired: NDArray[np.bool_]) -> float:
    """How far the place farthest from any measured one is away, as a share of the larger side of k-space."""
    return float(ndimage.distance_transform_edt(~acquired).max() / max(acquired.shape))


def _grows(acquired: NDArray[np.bool_], half: list[int], middle: list[int], axes: tuple[int, ...]) -> bool:
    """Whether the box may be one larger on both sides along some axes; beyond an edge nothing is missing."""
    more = [h + (axis in axes) for axis, h in enumerate(half)]
    if any(more[axis] > -(-acquired.shape[axis] // 2) for axis in axes):
        return False
    rows, columns = (slice(max(m - h, 0), m + h) for m, h in zip(middle, more, strict=True))
    return bool(acquired[rows, columns].all())


def _centre(rows: int, lines: int) -> NDArray[np.bool_]:
    """The lines of the centre: at least 16, at most half of all that are measured."""
    acs = min(max(_LEAST_ACS, round(_ACS_SHARE * lines)), max(4, lines // 2))
    chosen = np.zeros(rows, bool)
    first = rows // 2 - acs // 2
    chosen[first : first + acs] = True
    return chosen


def _poisson(shape: tuple[int, int], acceleration: float, rng: Generator) -> NDArray[np.bool_]:
    """Discs whose radius is found by bisection so that as many fit as are wanted; the rest is drawn at random."""
    wanted = round(shape[0] * shape[1] / acceleration)
    y, x = (np.abs(np.arange(n) - n // 2) / (n / 2) for n in shape)
    growth = 1 + _POISSON_SLOPE * np.hypot(y[:, None], x[None, :]).astype(np.float32)
    centre = _box(shape, min(24, int(np.sqrt(wanted / 3))))
    order = rng.permutation(shape[0] * shape[1]).reshape(shape).astype(np.int32)
    low, high = 0.1, 3.0
    for _ in range(_BISECTIONS):
        radius = np.sqrt(low * high)
        many = int((_discs(radius * growth, order) | centre).sum()) > wanted
        low, high = (radius, high) if many else (low, radius)
    chosen = _discs(low * growth, order) | centre
    surplus = int(chosen.sum()) - wanted
    change = np.flatnonzero((chosen & ~centre) if surplus > 0 else ~chosen)
    chosen.flat[rng.choice(change, abs(surplus), replace=False)] = surplus < 0
    return chosen


def _box(shape: tuple[int, int], edge: int) -> NDArray[np.bool_]:
    box = np.zeros(shape, bool)
    rows, columns = (slice(n // 2 - edge // 2, n // 2 - edge // 2 + edge) for n in shape)
    box[rows, columns] = True
    return box


def _discs(radius: NDArray[np.float32], order: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Places of which no two are nearer than the geometric mean of their radii; a lower ``order`` goes first.

    Of all that are left, each that comes before all its neighbours is chosen and its neighbours are struck out, until
    none is left (Luby 1986): the same set as one after another in that order.
    """
    rows, columns = order.shape
    reach = int(np.ceil(radius.max()))
    late = np.int32(order.size)
    padded_radius = np.pad(radius, reach)
    near = [
        (y, x, y * y + x * x < radius * _shifted(padded_radius, reach, y, x, rows, columns))
        for y in range(-reach, reach + 1)
        for x in range(-reach, reach + 1)
        if (y, x) != (0, 0)
    ]
    near = [(y, x, close) for y, x, close in near if close.any()]
    waiting, chosen = order.copy(), np.zeros(order.shape, bool)
    while (waiting < late).any():
        first = np.pad(waiting, reach, constant_values=late)
        earliest = np.full(order.shape, late)
        for y, x, close in near:
            np.minimum(earliest, np.where(close, _shifted(first, reach, y, x, rows, columns), late), out=earliest)
        new = (waiting < late) & (waiting < earliest)
        chosen |= new
        struck = new.copy()
        seen = np.pad(new, reach)
        for y, x, close in near:
            struck |= close & _shifted(seen, reach, y, x, rows, columns)
        waiting[struck] = late
    return chosen


def _shifted(padded: NDArray[Any], reach: int, y: int, x: int, rows: int, columns: int) -> NDArray[Any]:
    return padded[reach + y : reach + y + rows, reach + x : reach + x + columns]
