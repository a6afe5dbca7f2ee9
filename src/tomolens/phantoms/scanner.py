"""What the scanner adds: the table, the noise and the streaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from tomolens.core.errors import OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.phantoms.canvas import Canvas

_WATER_PER_MM = 0.0195
"""Attenuation of water at about 70 keV, per mm."""


@dataclass(frozen=True)
class Scanner:
    """How a scan was made.

    Parameters
    ----------
    noise_hu
        Standard deviation of the noise in the middle of the chest.
    sharpness
        From 0, a smooth soft-tissue kernel, to 1, a sharp lung kernel.
    """

    noise_hu: float
    sharpness: float

    @classmethod
    def of(cls, seed: int) -> Scanner:
        """Draw a protocol."""
        rng = np.random.default_rng([seed, 4])
        sharpness = float(rng.beta(1.2, 1.6))
        return cls(noise_hu=float(rng.uniform(9, 24) * (1 + 1.2 * sharpness**2)), sharpness=sharpness)

    def but(self, noise_hu: float | None, sharpness: float | None) -> Scanner:
        """The same protocol with what is given put in its place.

        Raises
        ------
        OptionError
            If the noise is negative or the sharpness is not between 0 and 1.
        """
        noise = self.noise_hu if noise_hu is None else noise_hu
        sharp = self.sharpness if sharpness is None else sharpness
        if noise < 0 or not 0 <= sharp <= 1:
            raise OptionError(f"Noise is 0 HU or more and sharpness from 0 to 1, not {noise} and {sharp}.")
        return Scanner(noise, sharp)

    @property
    def edge_mm(self) -> float:
        """Half-width of a soft edge."""
        return 1.25 - 0.45 * self.sharpness

    def add_noise(self, canvas: Canvas, image: NDArray[np.float32], seed: int) -> None:
        """Add noise, correlated within a slice, stronger and streakier where the rays cross more tissue."""
        rng = np.random.default_rng([seed, 5])
        rows, columns = image.shape[1:]
        size = fft.next_fast_len(rows, True), fft.next_fast_len(columns, True)
        iso, streaky = self._spectra(canvas, size)
        for k in range(len(image)):
            across, level = _ray_lengths(image[k], canvas.spacing_mm)
            spectrum = fft.rfft2(rng.standard_normal(size, np.float32))
            fine = fft.irfft2(spectrum * iso, size)[:rows, :columns]
            coarse = fft.irfft2(spectrum * streaky, size)[:rows, :columns]
            image[k] += np.float32(self.noise_hu) * (level * fine + across[:, None] * coarse)

    def _spectra(self, canvas: Canvas, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Filters of unit gain in standard deviation: an even one, and one of streaks from left to right."""
        rows, columns = size
        fy = np.abs(fft.fftfreq(rows, canvas.spacing_mm[1]))[:, None]
        fx = np.abs(fft.rfftfreq(columns, canvas.spacing_mm[2]))[None, :]
        f = np.hypot(fx, fy)
        cut = 0.30 + 0.45 * self.sharpness
        iso = (f + 0.03) * np.exp(-((f / cut) ** 2.2))
        streaky = np.sqrt(fy + 0.01) * np.exp(-((fx / 0.05) ** 2)) * np.exp(-((fy / cut) ** 2))
        return _unit_gain(iso, columns), _unit_gain(streaky, columns)


def _unit_gain(spectrum: NDArray[np.float64], columns: int) -> NDArray[np.float32]:
    twice = np.full(spectrum.shape[1], 2.0)
    twice[0] = 1.0
    if columns % 2 == 0:
        twice[-1] = 1.0
    power = (spectrum**2 * twice).sum() / (len(spectrum) * columns)
    return np.asarray(spectrum / np.sqrt(power), np.float32)


def _ray_lengths(
    image: NDArray[np.float32], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Excess of attenuation along each row, and the noise level of each pixel relative to an average chest."""
    tissue = np.maximum(image[::2, ::2] + 1000, 0) * np.float32(2e-3)
    along_x = np.repeat(tissue.sum(axis=1), 2)[: len(image)] * spacing_mm[2]
    along_y = np.repeat(tissue.sum(axis=0), 2)[: image.shape[1]] * spacing_mm[1]
    strength_x = np.exp(np.minimum(along_x - 230, 260) * (_WATER_PER_MM / 4))
    strength_y = np.exp(np.minimum(along_y - 150, 260) * (_WATER_PER_MM / 4))
    level = 0.55 * strength_x[:, None] + 0.45 * strength_y[None, :]
    return (0.8 * np.maximum(strength_x - 1.15, 0)).astype(np.float32), level.astype(np.float32)


def table_image(canvas: Canvas, top_mm: float) -> NDArray[np.float32]:
    """One slice of the table: HU where there is table, -1000 elsewhere."""
    _, y, x = canvas.voxel_axes
    curve = top_mm - 0.0011 * x[None, :] ** 2
    below = y[:, None] - curve
    width = np.clip((215 - np.abs(x)) / 4, 0, 1)[None, :]
    image = np.full((len(y), len(x)), -1000.0, np.float32)
    shell = np.clip(1.6 - np.abs(below - 1.5), 0, 1) + np.clip(
        1.6 - np.abs(below - 34 - 0.0004 * x[None, :] ** 2), 0, 1
    )
    core = np.clip(np.minimum(below - 1.5, 34 + 0.0004 * x[None, :] ** 2 - below), 0, 1)
    image += (np.minimum(shell, 1) * 1150 + core * 60).astype(np.float32) * width.astype(np.float32)
    return image
