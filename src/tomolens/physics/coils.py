"""What each coil sees, from the measured centre of k-space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.physics.fourier import to_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KERNEL = 5
_NULL_SPACE = 0.02
"""Singular values below this share of the largest belong to noise (Uecker et al. 2014, section Methods)."""
_CALIBRATION = 28
"""Of a larger centre only this many places a side are read: more adds work and next to nothing."""
_LEAST_FOR_ESPIRIT = 10
_COARSE = 48
"""Maps are found on a grid of this many points a side, on which a kernel of five places is smooth, and interpolated."""
_SQUARINGS = 6
_MARGIN, _DEGREE = 1.25, 4
"""So many times the width of what the centre resolves, from the field's edge inward, maps are continued from within,
by a polynomial of this degree and what it leaves at the margin."""
_DOUBTED, _TRUSTED = 0.9, 0.98
"""Shares of the low-resolution images' energy: explained up to this much the eigenvector is not believed, from there it
is alone."""


def compression(centre: NDArray[np.complex64], most: int) -> NDArray[np.complex64]:
    """The (virtual, coil) matrix of the ``most`` strongest combinations of coils (Buehrer et al. 2007).

    Its rows are orthonormal, so that noise stays as strong and white; the strongest combination comes first.

    Parameters
    ----------
    centre
        (coil, ky, kx), fully sampled.
    """
    flat = centre.reshape(len(centre), -1)
    _, vectors = np.linalg.eigh(flat @ flat.conj().T)
    strongest: NDArray[np.complex64] = vectors[:, ::-1][:, :most].conj().T.astype(np.complex64)
    return strongest


def sensitivities(centre: NDArray[np.complex64], shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Coil sensitivities of unit root sum of squares, by ESPIRiT, or from the low-resolution image of a small centre.

    Parameters
    ----------
    centre
        (coil, ky, kx), fully sampled around zero frequency.
    shape
        Rows and columns of the maps.

    Returns
    -------
    NDArray
        (coil, row, column) complex64; ones for a single coil, whose sensitivity cannot be told from the image.
    """
    if len(centre) == 1:
        return np.ones((1, *shape), np.complex64)
    small = centre[(slice(None), *(_middle(n) for n in centre.shape[1:]))]
    if min(small.shape[1:]) < _LEAST_FOR_ESPIRIT:
        return low_resolution(small, shape)
    return espirit(small, shape)


def low_resolution(centre: NDArray[np.complex64], shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Sensitivities as the coils' images of the centre alone, smoothly windowed, by their root sum of squares."""
    return unit(_smooth_images(centre, shape))


def _smooth_images(centre: NDArray[np.complex64], shape: tuple[int, int]) -> NDArray[np.complex64]:
    """What each coil sees, at the resolution of the centre and without ringing: (coil, row, column)."""
    windows = [np.hanning(n + 2)[1:-1] for n in centre.shape[1:]]
    return to_images(_padded(centre * windows[0][:, None] * windows[1], shape))


def espirit(centre: NDArray[np.complex64], shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Sensitivities by ESPIRiT: at each place the eigenvector to eigenvalue 1 of the calibration's row space.

    Uecker et al., Magn Reson Med 2014; 71:990-1001, doi:10.1002/mrm.24751. One set of maps. Near the edges of the field
    of view the calibration mixes what lies on opposite sides, where coils see differently: there the maps are continued
    from within. Where they do not explain the coils' low-resolution images elsewhere, those images say more; none is
    cut off, so that no tissue can be lost.
    """
    kernels = _row_space(centre)
    coarse = (min(_COARSE, shape[0]), min(_COARSE, shape[1]))
    seen = to_images(_padded(kernels, coarse)).transpose(2, 3, 1, 0)
    maps = _strongest(seen @ seen.conj().swapaxes(-1, -2))
    first = maps[:1]
    maps = maps * (first.conj() / (np.abs(first) + np.float32(1e-20)))
    inner = [_inner(n, m) for n, m in zip(coarse, centre.shape[1:], strict=True)]
    maps = _continued(maps, (np.abs(_smooth_images(centre, coarse)) ** 2).sum(axis=0), inner)
    rows, columns = (_interpolation(n, c) for n, c in zip(shape, coarse, strict=True))
    fine, plain = unit(rows @ maps @ columns.T), low_resolution(centre, shape)
    explained = np.abs((fine.conj() * plain).sum(axis=0)) ** 2
    trusted = np.clip((explained - _DOUBTED) / (_TRUSTED - _DOUBTED), 0, 1).astype(np.float32)
    within = [_inner(n, m) for n, m in zip(shape, centre.shape[1:], strict=True)]
    sure = np.ones_like(trusted)
    sure[within[0], within[1]] = trusted[within[0], within[1]]
    plain *= np.exp(-1j * np.angle(plain[:1]))
    return unit(sure * fine + (1 - sure) * plain)


def _inner(length: int, resolved: int) -> slice:
    """The part of an axis that is away from the field's edges; at least its middle half."""
    margin = min(int(np.ceil(_MARGIN * length / resolved)), length // 4)
    return slice(margin, length - margin)


def _continued(
    maps: NDArray[np.complex64], energy: NDArray[np.float32], inner: Sequence[slice]
) -> NDArray[np.complex64]:
    """Maps (coil, row, column) as they are within ``inner``, and their smooth continuation from there to the edges.

    ``energy`` (row, column) says where there is an object by which maps can be told.
    """
    places = [np.linspace(-1, 1, n)[:, None] ** np.arange(_DEGREE + 1) for n in maps.shape[1:]]
    terms = [(i, j) for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)]
    base = np.stack([np.outer(places[0][:, i], places[1][:, j]) for i, j in terms])
    weight = np.sqrt(energy + 1e-3 * energy.max() + 1e-20)[inner[0], inner[1]].ravel()
    shown = base[:, inner[0], inner[1]].reshape(len(terms), -1) * weight
    wanted = maps[:, inner[0], inner[1]].reshape(len(maps), -1) * weight
    squared = shown @ shown.T
    squared += 1e-6 * np.trace(squared) / len(terms) * np.eye(len(terms))
    smooth = np.tensordot(np.linalg.solve(squared, shown @ wanted.T).T, base, 1)
    nearest = np.ix_(*[np.clip(np.arange(n), s.start, s.stop - 1) for n, s in zip(energy.shape, inner, strict=True)])
    left = maps - smooth
    return np.asarray(smooth + left[:, nearest[0], nearest[1]], np.complex64)


def _strongest(space: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """(coil, row, column): the eigenvector to the largest eigenvalue, by squaring (row, column, coil, coil)."""
    power = space
    for _ in range(_SQUARINGS):
        power = power @ power
        power /= np.abs(power).max(axis=(-2, -1), keepdims=True) + np.float32(1e-30)
    strongest = np.argmax(np.abs(np.diagonal(power, axis1=-2, axis2=-1)), axis=-1)
    return unit(np.take_along_axis(power, strongest[..., None, None], axis=-1)[..., 0].transpose(2, 0, 1))


def _row_space(centre: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """(kernel, coil, ky, kx): an orthonormal base of what the calibration's patches span."""
    coils = len(centre)
    patches = np.lib.stride_tricks.sliding_window_view(centre, (_KERNEL, _KERNEL), axis=(1, 2))
    matrix = patches.transpose(1, 2, 0, 3, 4).reshape(-1, coils * _KERNEL**2)
    squared, vectors = np.linalg.eigh(matrix.T @ matrix.conj())
    kept = vectors[:, squared > _NULL_SPACE**2 * squared[-1]]
    return np.asarray(kept.T.reshape(-1, coils, _KERNEL, _KERNEL), np.complex64)


def _middle(length: int) -> slice:
    """The part of a centre that is read."""
    left = max(0, (length - _CALIBRATION) // 2)
    return slice(left, left + min(length, _CALIBRATION))


def _padded(kspace: NDArray[np.complex64], shape: tuple[int, int]) -> NDArray[np.complex64]:
    """With zeros around, the middle in the middle; cut where it is larger."""
    padded = np.zeros((*kspace.shape[:-2], *shape), np.complex64)
    spans = [(min(n, s), n // 2, s // 2) for n, s in zip(kspace.shape[-2:], shape, strict=True)]
    source, target = ([slice(m - n // 2, m - n // 2 + n) for n, m in pairs] for pairs in _both(spans))
    padded[..., target[0], target[1]] = kspace[..., source[0], source[1]]
    return padded


def _both(spans: list[tuple[int, int, int]]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    return [(n, inner) for n, inner, _ in spans], [(n, outer) for n, _, outer in spans]


def _interpolation(length: int, coarse: int) -> NDArray[np.float32]:
    """(length, coarse) weights of linear interpolation, middle on middle, going on straight beyond the last point."""
    at = (np.arange(length) - length // 2) * coarse / length + coarse // 2
    low = np.clip(np.floor(at).astype(int), 0, max(coarse - 2, 0))
    weights = np.zeros((length, coarse), np.float32)
    weights[np.arange(length), low] = 1 - (at - low)
    weights[np.arange(length), np.minimum(low + 1, coarse - 1)] += (at - low).astype(np.float32)
    return weights


def unit(maps: NDArray[Any]) -> NDArray[np.complex64]:
    """Divided by their root sum of squares over the coils."""
    together = np.sqrt((np.abs(maps) ** 2).sum(axis=0))
    return np.asarray(maps / np.maximum(together, np.float32(1e-20)), np.complex64)
