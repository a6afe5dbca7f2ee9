"""A generated chest CT whose anatomy and nodules are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tomolens.core.volume import Unit, Volume
from tomolens.phantoms.anatomy import anatomy_of
from tomolens.phantoms.build import Build
from tomolens.phantoms.canvas import Canvas
from tomolens.phantoms.disease import add_look_alikes, add_nodules
from tomolens.phantoms.nodules import LookAlike, Nodule, NoduleWish, wishes_of
from tomolens.phantoms.scanner import Scanner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_LOW_LPS_MM = (-190.0, -150.0, -95.0)
_HIGH_LPS_MM = (190.0, 150.0, 205.0)


@dataclass(frozen=True, eq=False)
class ChestPhantom:
    """A generated chest CT and the truth about it.

    Parameters
    ----------
    volume
        HU, int16, axes superior, posterior, left.
    nodules
        Every nodule that was drawn; empty where none was asked for.
    look_alikes
        What was drawn to be mistaken for a nodule. The vessels and their forks are not listed.
    lungs
        Mask of both lungs on the volume's grid, vessels, airways inside the lung and nodules included.
    """

    volume: Volume
    nodules: tuple[Nodule, ...]
    look_alikes: tuple[LookAlike, ...]
    lungs: NDArray[np.bool_]


def chest_phantom(
    seed: int,
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    nodules: bool | Sequence[NoduleWish] = True,
    look_alikes: bool = True,
    noise_hu: float | None = None,
    sharpness: float | None = None,
) -> ChestPhantom:
    """Generate the chest CT of one made-up adult.

    Parameters
    ----------
    seed
        Everything that is not given is drawn from it: size and shape, fat, heart, vessels, disease, nodules, protocol.
        The same call gives the same voxels.
    spacing_mm
        Voxel spacing along slices, rows and columns. The field of view is 380 x 300 x 300 mm.
    nodules
        True draws one or more, False none; or the nodules wished for. One that finds no room is left out.
    look_alikes
        Whether to draw what may be mistaken for a nodule.
    noise_hu
        Standard deviation of the noise in the middle of the chest; 0 is a scan without noise.
    sharpness
        Of the reconstruction kernel, from 0 (soft tissue) to 1 (lung).
    """
    drawn = Scanner.of(seed)
    scanner = Scanner(
        drawn.noise_hu if noise_hu is None else noise_hu, drawn.sharpness if sharpness is None else sharpness
    )
    build = Build.of(seed)
    canvas = Canvas(_LOW_LPS_MM, _HIGH_LPS_MM, spacing_mm, scanner.edge_mm)
    anatomy = anatomy_of(build, canvas)
    rng = np.random.default_rng([seed, 8])
    lungs = canvas.inside(anatomy.thorax.lungs)
    alike = add_look_alikes(canvas, anatomy, rng) if look_alikes else ()
    wishes = wishes_of(rng) if nodules is True else tuple(nodules or ())
    found = add_nodules(canvas, anatomy, wishes, rng)
    scanner.add_noise(canvas, anatomy.image, seed)
    voxels = np.clip(np.rint(anatomy.image, out=anatomy.image), -1024, 3071).astype(np.int16)
    history = (f"generated chest phantom, seed {seed}",)
    return ChestPhantom(Volume(voxels, canvas.grid, Unit.HU, "CT", history=history), found, alike, lungs)
