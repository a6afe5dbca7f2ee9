"""How like the texture of an image is to that of another: the amplitude of what is fine in them, by frequency.

A network without texture is far from a noisy full-dose image, and so is one whose grain is of the wrong size. The
figure says nothing of whether the texture is true.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 32


def distance(image: NDArray[np.float32], like: NDArray[np.float32], places: NDArray[np.intp]) -> float:
    """Difference of the amplitude spectra over the spectrum of ``like``: 0 for the same texture, 1 for none.

    Parameters
    ----------
    image, like
        (row, column), in one unit.
    places
        (n, 2) first rows and columns of blocks of 32 pixels, as of `even_places`.
    """
    made, wanted = (amplitude(part, places) for part in (image, like))
    return float(np.abs(made - wanted).sum() / wanted.sum())


def amplitude(image: NDArray[np.float32], places: NDArray[np.intp]) -> NDArray[np.float64]:
    """By frequency from 1/32 to 1/2 cycle a pixel: the root of the mean power of blocks freed of their slopes."""
    j, i = np.mgrid[:BLOCK, :BLOCK] - (BLOCK - 1) / 2
    slopes = np.stack([np.ones_like(j), j, i], axis=-1).reshape(-1, 3)
    blocks = np.stack([image[row : row + BLOCK, column : column + BLOCK].ravel() for row, column in places], axis=1)
    blocks = blocks - slopes @ np.linalg.lstsq(slopes, blocks, rcond=None)[0]
    window = np.outer(np.hanning(BLOCK), np.hanning(BLOCK))[..., None]
    power = (np.abs(np.fft.fft2(blocks.reshape(BLOCK, BLOCK, -1) * window, axes=(0, 1))) ** 2).mean(axis=-1)
    ring = np.rint(np.hypot(*np.meshgrid(*[np.fft.fftfreq(BLOCK) * BLOCK] * 2))).astype(int)
    radial = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    return np.sqrt(radial[1 : BLOCK // 2 + 1])


def distance_along_slices(image: NDArray[np.float32], like: NDArray[np.float32], factor: int) -> float:
    """As `distance`, along the first axis and above what slices ``factor`` times as thick can hold."""
    made, wanted = (_along_slices(part)[BLOCK // (2 * factor) + 1 :] for part in (image, like))
    return float(np.abs(made - wanted).sum() / wanted.sum())


def _along_slices(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """By frequency from 0 to 1/2 cycle a slice, the root of the mean power over all pixels."""
    whole = len(image) // BLOCK * BLOCK
    runs = image[:whole].reshape(-1, BLOCK, *image.shape[1:])
    runs = (runs - runs.mean(axis=1, keepdims=True)) * np.hanning(BLOCK)[:, None, None]
    return np.sqrt((np.abs(np.fft.rfft(runs, axis=1)) ** 2).mean(axis=(0, 2, 3)))


def even_places(image: NDArray[np.float32], inside: NDArray[np.bool_], most: int = 12) -> NDArray[np.intp]:
    """First rows and columns of the blocks inside with the least spread: (n, 2), at most ``most``."""
    rows, columns = ((np.arange(n // (BLOCK // 2) - 1) * (BLOCK // 2)) for n in image.shape)
    places = [(j, i) for j in rows for i in columns if inside[j : j + BLOCK, i : i + BLOCK].all()]
    spread = [float(image[j : j + BLOCK, i : i + BLOCK].std()) for j, i in places]
    return np.array(places, np.intp).reshape(-1, 2)[np.argsort(spread)[:most]]
