"""How strong the noise in a CT slice is, where, and how fine: measured in the slice itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_HU = 0.5
"""No noise is given as less than this: voxels are rounded to 1 HU, and the map is divided by."""
OUTSIDE_HU = -960.0
"""Places below this are air, whose noise scanners cut off at -1024 HU; nothing is measured there."""
BLOCK = 32
"""Pixels along the edge of a block whose spectrum is taken."""
_SOFT_HU = (-150.0, 200.0)
_STRIDE = 4
_WINDOW = 9
_SHARE = 0.1
_NEAR = 17
_CORRECTION = 1.18
"""Takes the lowest tenth of what is left of the noise above its slow part to its standard deviation: the mean ratio
over noise of the spectra of `tomolens.physics.random_noise` in a body of water, which varies by a tenth with the
spectrum, smooth ones being read low."""


def noise_map(image_hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standard deviation of the noise around each pixel, (row, column) float32 in HU, smooth.

    The fine part of the image (less a Gaussian of 2.5 pixels) has its root mean square taken in windows of 9 pixels;
    of the windows within 36 pixels the lowest tenth counts, so that edges and vessels do not. Where there is no
    body, the map goes on from the nearest that has one; a slice that has none is `LEAST_HU` throughout.
    """
    image = np.asarray(image_hu, np.float32)
    slow, fine = (part[::_STRIDE, ::_STRIDE] for part in _parts(image))
    body = slow > OUTSIDE_HU
    quiet = ndimage.percentile_filter(np.where(body, fine, np.float32(1e6)), 100 * _SHARE, size=_NEAR, mode="nearest")
    known = body & (quiet < 1e5)
    level = np.float32(_CORRECTION) * _spread(quiet, known)
    steps = np.full(2, 1 / _STRIDE)  # a sample lies on its pixel, not in the middle of those up to the next
    between = ndimage.affine_transform(level, steps, output_shape=image.shape, order=1, mode="nearest")
    return np.maximum(between, np.float32(LEAST_HU))


def _spread(values: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Smooth what is known, and carry it on to where it is not."""
    if not known.any():
        return np.zeros_like(values)
    filled = values
    if not known.all():
        nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        filled = values[tuple(nearest)]
    return np.asarray(ndimage.gaussian_filter(filled, 3.0, mode="nearest"), np.float32)


def noise_level(image_hu: NDArray[np.float32]) -> float:
    """One number for a slice: the median of its `noise_map` inside the body, in HU."""
    body = ndimage.gaussian_filter(np.asarray(image_hu, np.float32), 2.5) > OUTSIDE_HU
    return float(np.median(noise_map(image_hu)[body])) if body.any() else LEAST_HU


def quiet_noise(image_hu: NDArray[np.float32], anatomy_hu: NDArray[np.float32] | None = None) -> float:
    """The noise in the evenest soft tissue, in HU: the least that a slice has; NaN where it has no soft tissue.

    Where vessels and texture leave no even place, a `noise_map` takes some of them for noise; this takes the least.
    Of noise alone ``anatomy_hu`` says where soft tissue would be.
    """
    slow, fine = _parts(np.asarray(image_hu, np.float32))
    if anatomy_hu is not None:
        slow, _ = _parts(np.asarray(anatomy_hu, np.float32))
    soft = fine[(slow > _SOFT_HU[0]) & (slow < _SOFT_HU[1])]
    return float(np.percentile(soft, 5)) * _CORRECTION if len(soft) > BLOCK**2 // 4 else float("nan")


def _parts(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The slow part of an image, and the root mean square of the fine part around each pixel."""
    slow = ndimage.gaussian_filter(image, 2.5, mode="nearest")
    square = ndimage.uniform_filter((image - slow) ** 2, _WINDOW, mode="nearest")
    return slow, np.sqrt(np.maximum(square, 0))


def noise_spectrum(slices_hu: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The noise's power by frequency: cycles a pixel (bins of 1/32 to Nyquist), and power, its mean over them 1.

    Of the blocks of 32 pixels in (slice, row, column) the evenest twentieth counts, at least 8; each is freed of its
    mean and slopes and weighted by a Hann window. Both arrays are empty where no block lies inside a body.
    """
    blocks = _even_blocks(np.asarray(slices_hu, np.float32))
    if not len(blocks):
        return np.empty(0), np.empty(0)
    window = np.hanning(BLOCK)
    power = (np.abs(np.fft.fft2(blocks * np.outer(window, window))) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(BLOCK), np.fft.fftfreq(BLOCK)))
    ring = np.rint(frequency * BLOCK).astype(int)
    radial = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    half = radial[1 : BLOCK // 2 + 1]
    return np.arange(1, BLOCK // 2 + 1) / BLOCK, half / max(half.mean(), 1e-12)


def noise_frequency(slices_hu: NDArray[np.float32]) -> float:
    """How fine the noise is: its mean frequency in cycles a pixel, NaN where nothing can be measured.

    Smooth kernels give about 0.1 to 0.2, white noise 0.34: rings of higher frequency hold more of the plane.
    """
    frequency, power = noise_spectrum(slices_hu)
    share = power * frequency
    return float((share * frequency).sum() / share.sum()) if share.sum() > 0 else float("nan")


def _even_blocks(slices: NDArray[np.float32]) -> NDArray[np.float32]:
    """The evenest blocks inside the body, (block, row, column), freed of their mean and slopes."""
    rows, columns = (n // BLOCK for n in slices.shape[1:])
    if not rows * columns:
        return np.empty((0, BLOCK, BLOCK), np.float32)
    cut = slices[:, : rows * BLOCK, : columns * BLOCK].reshape(-1, rows, BLOCK, columns, BLOCK)
    blocks = cut.swapaxes(2, 3).reshape(-1, BLOCK, BLOCK)
    blocks = blocks[blocks.min(axis=(1, 2), initial=np.inf) > -1020]
    blocks = _without_slopes(blocks[blocks.mean(axis=(1, 2)) > OUTSIDE_HU])
    spread = blocks.std(axis=(1, 2))
    blocks, spread = blocks[spread > LEAST_HU / 2], spread[spread > LEAST_HU / 2]
    return np.asarray(blocks[np.argsort(spread)[: max(8, len(blocks) // 20)]], np.float32)


def _without_slopes(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    ramp = np.linspace(-1, 1, BLOCK, dtype=np.float32)
    size = BLOCK * float((ramp**2).sum())
    down = np.einsum("nji,j->n", blocks, ramp)[:, None, None] * ramp[:, None] / size
    across = np.einsum("nji,i->n", blocks, ramp)[:, None, None] * ramp / size
    return np.asarray(blocks - blocks.mean(axis=(1, 2), keepdims=True) - down - across, np.float32)
