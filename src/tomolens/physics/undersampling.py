"""Simulate the undersampled measurement of a magnitude image: its phase and its coils are invented."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tomolens.core.errors import ContractError, OptionError
from tomolens.core.kspace import KSpace
from tomolens.physics.fourier import to_kspace
from tomolens.physics.masks import MaskKind, sampling_mask

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from tomolens.core.volume import Volume


def simulated_kspace(
    volume: Volume, coils: int, acceleration: float, kind: MaskKind, noise: float, seed: int
) -> KSpace:
    """Simulate what an MR scanner might have measured of a magnitude image, slice by slice.

    A magnitude image has lost its phase and its coils; both are made up, smooth and random, so that figures on such a
    measurement are those of a simulation. Its history says so first.

    Parameters
    ----------
    volume
        Magnitude; negative numbers count as 0.
    coils
        Invented receivers.
    acceleration, kind
        As of `sampling_mask`; every slice gets a mask of its own.
    noise
        Standard deviation of real and imaginary part in each coil, as a share of the image's 99th percentile.
    seed
        The same call gives the same measurement.

    Raises
    ------
    OptionError
        If ``coils`` is below 1, ``noise`` negative, or the acceleration not accepted.
    ContractError
        If the volume is not MR: no scanner measures Hounsfield units in k-space.
    """
    if volume.modality != "MR":
        raise ContractError(f"{volume.name} is {volume.modality}; k-space is simulated of MR images.")
    if coils < 1 or noise < 0:
        raise OptionError(f"coils is at least 1 and noise at least 0, not {coils} and {noise:g}.")
    rng = np.random.default_rng([seed, 42])
    image = np.maximum(np.asarray(volume.voxels, np.float32), 0)
    maps = invented_coils(image.shape, coils, rng)
    spread = noise * float(np.percentile(image, 99))
    seeds = rng.integers(0, 2**31, len(image))
    acquired = np.stack([sampling_mask(kind, image.shape[1:], acceleration, int(each)) for each in seeds])
    data = np.empty((len(image), coils, *image.shape[1:]), np.complex64)
    for k, slice_ in enumerate(image):
        data[k] = measured(slice_, maps[k], acquired[k], spread, rng)
    step = (
        f"simulated: {kind} undersampling {acceleration:g}x of a magnitude image, {coils} invented coils, "
        f"invented phase, noise {noise:g}, seed {seed}"
    )
    name, history = f"simulated k-space of {volume.name}", (*volume.history, step)
    return KSpace(data, acquired, volume.grid, name=name, history=history)


def measured(
    image: NDArray[np.float32],
    maps: NDArray[np.complex64],
    acquired: NDArray[np.bool_],
    noise: float,
    rng: Generator,
) -> NDArray[np.complex64]:
    """What coils with such maps would measure of one slice, (coil, ky, kx), with noise of ``noise`` in each part."""
    data = to_kspace(maps * image)
    data += np.float32(noise) * rng.standard_normal((*data.shape, 2), np.float32).view(np.complex64)[..., 0]
    return np.where(acquired, data, np.complex64(0))


def invented_coils(shape: tuple[int, ...], coils: int, rng: Generator) -> NDArray[np.complex64]:
    """Draw smooth receivers around the object, its own smooth phase in them: (slice, coil, row, column) complex64.

    Each falls off with the square of the distance from a place near a ring; together they have unit root sum of
    squares.
    """
    z, y, x = np.meshgrid(*[_axis(n) for n in shape], indexing="ij", sparse=True)
    depth, turn, arc = rng.uniform(0.15, 0.8), rng.uniform(0, 2 * np.pi), rng.choice([1.0, 1.0, 0.6])
    maps = np.empty((shape[0], coils, *shape[1:]), np.complex64)
    for coil in range(coils):
        angle = turn + 2 * np.pi * arc * (coil + rng.uniform(-0.2, 0.2)) / coils
        ring, level = rng.uniform(1.0, 1.5), rng.uniform(-1, 1)
        away2 = (x - ring * np.cos(angle)) ** 2 + (y - ring * np.sin(angle)) ** 2 + 0.2 * (z - level) ** 2
        phase = angle * rng.choice([0.0, 1.0]) + rng.normal(0, 0.7) * x + rng.normal(0, 0.7) * y
        maps[:, coil] = np.exp(1j * (phase + rng.uniform(-0.5, 0.5) * away2)) / (depth + away2)
    maps *= np.exp(1j * _object_phase(x, y, z, rng))[:, None]
    return np.asarray(maps / np.sqrt((np.abs(maps) ** 2).sum(axis=1, keepdims=True)), np.complex64)


def _axis(length: int) -> NDArray[np.float32]:
    return np.linspace(-1, 1, length, dtype=np.float32) if length > 1 else np.zeros(1, np.float32)


def _object_phase(
    x: NDArray[np.float32], y: NDArray[np.float32], z: NDArray[np.float32], rng: Generator
) -> NDArray[np.float32]:
    """A few waves longer than a third of the field of view, and a tilt."""
    phase = rng.uniform(-np.pi, np.pi) + rng.normal(0, 0.6) * x + rng.normal(0, 0.6) * y + rng.normal(0, 0.3) * z
    for _ in range(4):
        fx, fy, fz = rng.normal(0, 1.6, 3)
        phase = phase + rng.normal(0, 0.25) * np.cos(fx * x + fy * y + 0.5 * fz * z + rng.uniform(0, 6.3))
    return np.asarray(phase, np.float32)
