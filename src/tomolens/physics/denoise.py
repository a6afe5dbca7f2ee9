"""Denoising without training: non-local means, total variation and BM3D, each told how strong the noise is where.

A slice is divided by its map of the noise (`tomolens.physics.noise`), so that the methods see noise of one, and their
numbers need not know the scan. Each number lies where the mean squared error of 16 training patches (the first of
`tomolens.training.denoising`, with 15 to 100 HU of noise) hardly changes any more. It takes off, in dB: TV 0.3 2.64,
0.4 2.95, 0.5 2.93, 0.6 2.92, 0.7 2.71, 1.0 2.10; NLM 0.4 3.09, 0.5 3.13, 0.6 3.10, 0.7 2.99, 0.9 2.55.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from skimage import restoration

from tomolens.core.errors import OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NLM_STRENGTH = 0.6
TV_WEIGHT = 0.5


def nlm(
    image_hu: NDArray[np.float32], noise_hu: NDArray[np.float32], strength: float = NLM_STRENGTH
) -> NDArray[np.float32]:
    """Non-local means (Buades et al., CVPR 2005) over 5 by 5 patches within 13 by 13 pixels; (row, column) HU."""
    cleaned = restoration.denoise_nl_means(
        image_hu / noise_hu, patch_size=5, patch_distance=6, h=strength, sigma=1.0, fast_mode=True
    )
    return np.asarray(cleaned * noise_hu, np.float32)


def tv(image_hu: NDArray[np.float32], noise_hu: NDArray[np.float32], weight: float = TV_WEIGHT) -> NDArray[np.float32]:
    """Total variation (Rudin, Osher and Fatemi, 1992; Chambolle's algorithm, 2004); (row, column) HU."""
    cleaned = restoration.denoise_tv_chambolle(image_hu / noise_hu, weight=weight)
    return np.asarray(cleaned * noise_hu, np.float32)


def bm3d(image_hu: NDArray[np.float32], noise_hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """BM3D (Dabov et al., IEEE TIP 2007), of the package of its authors; (row, column) HU.

    Raises
    ------
    OptionError
        If the package is not installed: its licence is for non-commercial use alone, so it is an extra.
    """
    if find_spec("bm3d") is None:
        raise OptionError('bm3d is not installed; its licence is for non-commercial use: pip install "tomolens[bm3d]".')
    cleaned = import_module("bm3d").bm3d(image_hu / noise_hu, sigma_psd=1.0)
    return np.asarray(cleaned * noise_hu, np.float32)
