"""Fine random variation of tissue, from one small periodic block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.phantoms.canvas import Canvas

_BLOCK_MM = 72.0


class Grain:
    """A random field of zero mean that repeats every 72 mm.

    Parameters
    ----------
    canvas
        The voxels that it will be laid over.
    length_mm
        Width of its hills.
    spread_hu
        Its standard deviation.
    """

    def __init__(self, canvas: Canvas, length_mm: float, spread_hu: float, rng: np.random.Generator) -> None:
        shape = [max(8, round(_BLOCK_MM / step)) for step in canvas.spacing_mm]
        f2 = sum(
            np.reshape(f**2, [-1 if n == axis else 1 for n in range(3)])
            for axis, f in enumerate(
                [
                    fft.fftfreq(shape[0], canvas.spacing_mm[0]),
                    fft.fftfreq(shape[1], canvas.spacing_mm[1]),
                    fft.rfftfreq(shape[2], canvas.spacing_mm[2]),
                ]
            )
        )
        smooth = np.exp(-2 * (np.pi * length_mm / 2.4) ** 2 * f2).astype(np.float32)
        block = fft.irfftn(fft.rfftn(rng.standard_normal(shape, np.float32)) * smooth, shape)
        block -= block.mean()
        self._block = np.asarray(block * (spread_hu / block.std()), np.float32)

    def over(self, box: tuple[slice, slice, slice]) -> NDArray[np.float32]:
        """The field over a box of voxels."""
        wrapped = (np.arange(s.start, s.stop) % n for s, n in zip(box, self._block.shape, strict=True))
        return self._block[np.ix_(*wrapped)]
