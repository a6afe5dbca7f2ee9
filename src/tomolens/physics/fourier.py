"""The Fourier transform between images and k-space, as MR uses it: centred and orthonormal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AXES = (-2, -1)


def to_kspace(images: NDArray[Any]) -> NDArray[np.complex64]:
    """Transform (..., row, column) images to (..., ky, kx) k-space, zero frequency in the middle."""
    moved = fft.fft2(fft.ifftshift(images, _AXES), norm="ortho")
    return np.asarray(fft.fftshift(moved, _AXES), np.complex64)


def to_images(kspace: NDArray[Any]) -> NDArray[np.complex64]:
    """Transform (..., ky, kx) k-space to images; undoes `to_kspace`."""
    moved = fft.ifft2(fft.ifftshift(kspace, _AXES), norm="ortho")
    return np.asarray(fft.fftshift(moved, _AXES), np.complex64)
