"""A CT as it would look at a lower dose: noise is put on what the rays measured, and goes through a kernel from there.

The geometry is that of parallel rays. What the patient lets through decides how much noise each ray has, so streaks
behind shoulders and the pattern of the kernel come by themselves. This is not the noise that networks are trained with
(`tomolens.physics.random_noise`), so that a figure measured here is none of what was learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft, ndimage

from tomolens.core.errors import ContractError, OptionError
from tomolens.core.progress import Progress, Step, silent
from tomolens.core.volume import Unit, Volume
from tomolens.physics.axial import as_in, axial_slices, pixel_mm
from tomolens.physics.noise import quiet_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

WATER_PER_MM = 0.0195
"""Attenuation of water at about 70 keV, per mm."""
ELECTRONIC_PHOTONS = 8.0
"""Standard deviation of the electronics' noise, as a count of photons."""
KERNELS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "ram-lak": np.ones_like,
    "soft": lambda share: np.cos(np.pi / 2 * np.minimum(share / 0.8, 1)) ** 2,
    "sharp": lambda share: (1 + 2.2 * share**2) * np.cos(np.pi / 2 * share**6),
}
"""What multiplies the ramp, by the share of the Nyquist frequency of the pixels."""
_VIEWS = 360
_COARSE = 4
_AT_ONCE = 4
_LEAST_NOISE_HU = 1.0
_AIR_HU = -1000.0


@dataclass(frozen=True)
class Exposure:
    """How a scan is made anew with less dose.

    Parameters
    ----------
    dose
        Share of the scan's own dose, above 0 and below 1.
    kernel
        One of `KERNELS`.
    electronic
        Standard deviation of the electronics' noise in photons.
    photons
        Photons a ray at full dose in air. None: as many as give the noise that the scan has, with this kernel.

    Raises
    ------
    OptionError
        If a value is not accepted.
    """

    dose: float
    kernel: str = "soft"
    electronic: float = ELECTRONIC_PHOTONS
    photons: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.dose < 1:
            raise OptionError(f"dose is a share of the scan's own, above 0 and below 1, not {self.dose}.")
        if self.kernel not in KERNELS:
            raise OptionError(f"kernel is {self.kernel!r}; accepted are {', '.join(KERNELS)}.")
        if self.electronic < 0 or (self.photons is not None and self.photons <= 0):
            raise OptionError(f"electronic is 0 or more and photons above 0, not {self.electronic}, {self.photons}.")


def low_dose(
    volume: Volume,
    dose: float,
    kernel: str = "soft",
    electronic: float = ELECTRONIC_PHOTONS,
    seed: int = 0,
    *,
    photons: float | None = None,
    progress: Progress = silent,
) -> Volume:
    """Simulate a scan of the same patient at a share of the dose.

    Quantum noise of variance 1 / N on each line integral, N the photons that come through, and electronic noise are
    added as far as the lower dose has more of them; they are filtered, back-projected and added to the slices.

    Parameters
    ----------
    volume
        CT in HU.
    dose, kernel, electronic, photons
        See `Exposure`.
    seed
        Of the noise; slice k of the same scan has the same noise with the same seed.
    progress
        Told after every few slices.

    Returns
    -------
    Volume
        int16 on the same grid, padding untouched, its history beginning the last line with ``simulated low dose``.

    Raises
    ------
    ContractError
        If the volume is no CT in HU.
    OptionError
        If a value is not accepted, or ``photons`` is left to be found in a scan without noise.
    """
    exposure = Exposure(dose, kernel, electronic, photons)
    if volume.unit is not Unit.HU or volume.modality != "CT":
        raise ContractError(f"{volume.name} is {volume.modality} in {volume.unit}; dose is simulated for CT in HU.")
    slices = _measured(volume)
    rays = _Rays.of(slices.shape[1:], pixel_mm(volume))
    air = exposure.photons or _photons(slices[len(slices) // 2], rays, exposure, seed)
    noisy = slices.astype(np.float32)
    for first in range(0, len(slices), _AT_ONCE):
        progress(Step("simulate", first, len(slices)))
        some = noisy[first : first + _AT_ONCE]
        some += rays.noise(some, exposure, air, [np.random.default_rng([seed, first + n]) for n in range(len(some))])
    progress(Step("simulate", len(slices), len(slices)))
    return _simulated(volume, as_in(volume, noisy), exposure, air, seed)


def _measured(volume: Volume) -> NDArray[Any]:
    """The axial slices, with air for padding."""
    slices = axial_slices(volume)
    return slices if volume.padding is None else np.where(slices == volume.padding, _AIR_HU, slices)


def _simulated(volume: Volume, noisy: NDArray[np.float32], exposure: Exposure, air: float, seed: int) -> Volume:
    low = min(-1024.0, float(volume.voxels.min()))
    voxels = np.clip(np.rint(noisy), low, np.iinfo(np.int16).max).astype(np.int16)
    if volume.padding is not None:
        outside = volume.voxels == volume.padding
        voxels[~outside & (voxels == volume.padding)] += 1
        voxels[outside] = np.int16(volume.padding)
    how = f"{exposure.kernel} kernel, {air:.3g} photons a ray, electronic {exposure.electronic:g}, seed {seed}"
    return volume.with_voxels(voxels, f"simulated low dose: {exposure.dose:g} of the scan's, {how}")


def _photons(middle: NDArray[np.float32], rays: _Rays, exposure: Exposure, seed: int) -> float:
    """Photons N in air with which the scan's own noise comes about: its variance is quantum / N + electronic / N^2."""
    there = quiet_noise(middle) ** 2
    if not there > _LEAST_NOISE_HU**2:
        raise OptionError("The scan has no noise that its dose could be told from; say the photons a ray.")

    def variance(electronic: float) -> float:
        made = rays.noise(middle[None], Exposure(0.5, exposure.kernel, electronic), 1.0, [np.random.default_rng(seed)])
        return quiet_noise(made[0], middle) ** 2

    quantum = variance(0.0)
    electronic = max(0.0, variance(exposure.electronic) - quantum) / 3
    return 2 * electronic / (np.sqrt(quantum**2 + 4 * electronic * there) - quantum) if electronic else quantum / there


@dataclass(frozen=True, eq=False)
class _Rays:
    """Parallel rays a pixel apart through slices of one shape."""

    shape: tuple[int, int]
    pixel_mm: float
    count: int

    @classmethod
    def of(cls, shape: tuple[int, ...], pixel: float) -> _Rays:
        rows, columns = shape
        return cls((rows, columns), pixel, int(np.ceil(np.hypot(rows, columns))) + 2 * _COARSE)

    def noise(
        self, slices_hu: NDArray[np.float32], exposure: Exposure, air: float, rngs: list[np.random.Generator]
    ) -> NDArray[np.float32]:
        """What the lower dose adds to slices, (slice, row, column) in HU."""
        through = air * np.exp(-np.stack([self._integrals(image) for image in slices_hu], axis=-1))
        quantum = (1 / exposure.dose - 1) / through
        electronic = (1 / exposure.dose**2 - 1) * (exposure.electronic / through) ** 2
        white = np.stack([rng.standard_normal(through.shape[:2], np.float32) for rng in rngs], axis=-1)
        filtered = self._filtered(np.sqrt(quantum + electronic) * white, exposure.kernel)
        return self._back(filtered) * np.float32(1000 / WATER_PER_MM)

    def _integrals(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Attenuation along each ray, (view, ray), from a coarser image: noise varies slowly with it."""
        room = [(0, -n % _COARSE) for n in self.shape]
        wide = np.pad(image, room, constant_values=_AIR_HU).astype(np.float32)
        blocks = wide.reshape(wide.shape[0] // _COARSE, _COARSE, wide.shape[1] // _COARSE, _COARSE)
        per_mm = np.maximum(blocks.mean(axis=(1, 3)) / 1000 + 1, 0) * WATER_PER_MM
        count = -(-self.count // _COARSE)
        weights = (per_mm * self.pixel_mm * _COARSE).ravel()
        coarse = []
        for low, part in self._places(per_mm.shape, count):
            ends = np.bincount(low, weights * (1 - part), count) + np.bincount(low + 1, weights * part, count)
            coarse.append(ends[:count])
        smooth = ndimage.gaussian_filter1d(np.asarray(coarse), 1.0, axis=1)
        return np.repeat(smooth, _COARSE, axis=1)[:, : self.count].astype(np.float32)

    def _filtered(self, measured: NDArray[np.float32], kernel: str) -> NDArray[np.float32]:
        """The ramp and the kernel along the rays, per mm."""
        size = fft.next_fast_len(2 * self.count, True)
        share = fft.rfftfreq(size) * 2
        gain = share / (2 * self.pixel_mm) * KERNELS[kernel](share)
        spectrum = fft.rfft(measured, size, axis=1) * gain[None, :, None]
        return np.asarray(fft.irfft(spectrum, size, axis=1)[:, : self.count], np.float32)

    def _back(self, filtered: NDArray[np.float32]) -> NDArray[np.float32]:
        """Back-projection, (slice, row, column)."""
        image = np.zeros((self.shape[0] * self.shape[1], filtered.shape[-1]), np.float32)
        for view, (low, part) in zip(filtered, self._places(self.shape, self.count), strict=True):
            steps = np.diff(view, axis=0)
            image += view[low] + part[:, None] * steps[low]
        image *= np.float32(np.pi / _VIEWS)
        return np.ascontiguousarray(np.moveaxis(image.reshape(*self.shape, -1), -1, 0))

    def _places(self, shape: tuple[int, ...], count: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Of each view: the ray before each pixel, and how far the pixel is on the way to the next."""
        down, across = ((np.arange(n, dtype=np.float32) - (n - 1) / 2) for n in shape)

        for angle in np.arange(_VIEWS) * np.pi / _VIEWS:
            along = (across * np.float32(np.cos(angle)) + down[:, None] * np.float32(np.sin(angle))).ravel()
            along += np.float32((count - 1) / 2)
            low = along.astype(np.intp)
            yield low, (along - low).astype(np.float32)
