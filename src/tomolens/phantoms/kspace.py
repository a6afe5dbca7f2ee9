"""What a multi-coil MR scanner would measure of a generated slice: its k-space, fully sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tomolens.core.errors import GeometryError
from tomolens.phantoms.brain import brain_phantom
from tomolens.physics.fourier import to_kspace

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class MultiCoilSlices:
    """A fully sampled measurement and the truth about it.

    Parameters
    ----------
    kspace
        (coil, slice, ky, kx) complex64, zero frequency in the middle of ky and kx: the centred, orthonormal Fourier
        transform of each coil's image. ky belongs to the image's rows, kx to its columns.
    image
        (slice, row, column) float32: the true magnitude, as no coil and no noise would show it.
    sensitivities
        (coil, slice, row, column) complex64, of unit root sum of squares.
    spacing_mm
        Pixel spacing along slices, rows and columns.
    """

    kspace: NDArray[np.complex64]
    image: NDArray[np.float32]
    sensitivities: NDArray[np.complex64]
    spacing_mm: tuple[float, float, float]


def brain_kspace(
    seed: int,
    *,
    slices: int = 4,
    spacing_mm: tuple[float, float, float] = (4.0, 1.25, 1.25),
    coils: int = 8,
    noise: float = 6.0,
) -> MultiCoilSlices:
    """Measure evenly spaced axial slices of a generated brain.

    Parameters
    ----------
    seed
        Of the head and of the coils.
    slices
        How many, from the base of the brain to its top.
    spacing_mm
        Slice thickness and pixel spacing.
    coils
        Receivers in a ring around the head.
    noise
        Standard deviation of real and imaginary part in each coil; white matter gives 720.

    Raises
    ------
    GeometryError
        If the head has fewer slices of this thickness.
    """
    head = brain_phantom(seed, spacing_mm=spacing_mm, noise=0.0).clean
    low, high = (float(head.grid.to_kji((0, 0, z))[0]) for z in (-20, 55))
    chosen = np.rint(np.linspace(low, high, slices)).astype(int)
    if len(np.unique(chosen)) < slices:
        raise GeometryError(f"The brain has no {slices} slices of {spacing_mm[0]:g} mm.")
    rng = np.random.default_rng([seed, 31])
    image = np.asarray(head.voxels[chosen], np.float32)
    maps = _sensitivities(image.shape, coils, rng)
    seen = maps * image
    seen = seen + noise * (rng.standard_normal(seen.shape) + 1j * rng.standard_normal(seen.shape))
    return MultiCoilSlices(to_kspace(seen), image, maps, spacing_mm)


def _sensitivities(shape: tuple[int, ...], coils: int, rng: np.random.Generator) -> NDArray[np.complex64]:
    """Draw smooth complex receivers in a ring, with the object's own smooth phase, (coil, slice, row, column)."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    maps = []
    for angle in 2 * np.pi * (np.arange(coils) + rng.uniform(0, 0.5)) / coils:
        ring = 1.25 + rng.uniform(-0.1, 0.1)
        away2 = (x - ring * np.cos(angle)) ** 2 + (y - ring * np.sin(angle)) ** 2 + 0.2 * (z - rng.uniform(-1, 1)) ** 2
        phase = angle + rng.normal(0, 0.7) * x + rng.normal(0, 0.7) * y + 0.5 * away2
        maps.append(np.exp(1j * phase) / (0.35 + away2))
    together = np.stack(maps) * np.exp(1j * (0.8 * x * y + 0.5 * y**2))
    return np.asarray(together / np.sqrt((np.abs(together) ** 2).sum(axis=0)), np.complex64)
