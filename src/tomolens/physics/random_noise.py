"""Noise of many kernels, drawn at random: what denoising networks are trained with. No scanner is simulated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Spectrum:
    """The power of noise by frequency, P(f) = (f + f0) exp(-(f / fc)^p), f in cycles a pixel.

    The ramp is that of filtered back-projection, ``floor`` what electronics and interpolation add to it, and the rest
    the kernel. ``streak`` from 0 to 1 makes it stronger across ``angle`` (radians), as shoulders do.
    """

    floor: float
    cut: float
    fall: float
    streak: float
    angle: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Spectrum:
        """One at random: as often a smooth soft-tissue kernel as a sharp one, and some sharper than any lung kernel."""
        return cls(
            floor=float(rng.uniform(0.02, 0.12)),
            cut=float(np.exp(rng.uniform(np.log(0.1), np.log(0.9)))),
            fall=float(rng.uniform(1.5, 4.0)),
            streak=float(rng.uniform(0, 0.7) * (rng.random() < 0.5)),
            angle=float(rng.uniform(0, np.pi)),
        )

    def noise(self, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
        """Noise of standard deviation 1, independent from image to image: (..., row, column) float32."""
        white = rng.standard_normal(shape, np.float32)
        return np.asarray(fft.irfft2(fft.rfft2(white) * self._gain(*shape[-2:]), shape[-2:]), np.float32)

    def _gain(self, rows: int, columns: int) -> NDArray[np.float32]:
        fy, fx = fft.fftfreq(rows)[:, None], fft.rfftfreq(columns)[None, :]
        f = np.hypot(fy, fx)
        power = (f + self.floor) * np.exp(-((f / self.cut) ** self.fall))
        power = power * (1 + self.streak * np.cos(2 * (np.arctan2(fy, fx) - self.angle)))
        twice = np.where((fx > 0) & (fx < 0.5), 2.0, 1.0)
        return np.asarray(np.sqrt(power / ((power * twice).sum() / (rows * columns))), np.float32)


def random_level(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """How the noise's strength varies over a place: smooth, its mean about 1, (row, column) float32.

    Behind dense paths and off-centre noise is stronger; the field is drawn, not computed, so that a network learns from
    the map it is given and not from the anatomy.
    """
    coarse = rng.normal(0, rng.uniform(0, 0.45), (5, 5)).astype(np.float32)
    field = ndimage.zoom(coarse, np.divide(shape, coarse.shape), order=2, mode="nearest", grid_mode=True)
    return np.asarray(np.exp(field), np.float32)
