"""A generated chest CT whose anatomy and nodules are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tomolens.core.errors import OptionError
from tomolens.core.volume import Unit, Volume
from tomolens.phantoms.anatomy import anatomy_of
from tomolens.phantoms.build import Build
from tomolens.phantoms.canvas import Canvas
from tomolens.phantoms.look_alikes import LookAlike, add_look_alikes, add_scars
from tomolens.phantoms.nodules import Nodule, NoduleWish, wishes_of
from tomolens.phantoms.placing import add_nodules
from tomolens.phantoms.scanner import Scanner
from tomolens.phantoms.thorax import field_of_view, thorax_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Corner = tuple[float, float, float]

_SAMPLE_STEP_HU = 8
"""The sample's HU are rounded to this, which noise hides, to keep its files small."""


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
    around_lungs_mm: float | None = None,
) -> ChestPhantom:
    """Generate the chest CT of one made-up adult.

    Parameters
    ----------
    seed
        Everything that is not given is drawn from it: size and shape, fat, heart, vessels, disease, nodules, protocol.
        The same call gives the same voxels.
    spacing_mm
        Voxel spacing along slices, rows and columns. Thick slices average what lies in them.
    nodules
        True draws one or more, False none; or the nodules wished for. One that finds no room is left out.
    look_alikes
        Whether to draw what may be mistaken for a nodule. Scars, as many as the patient has, are drawn anyway.
    noise_hu
        Standard deviation of the noise in the middle of the chest; 0 is a scan without noise.
    sharpness
        Of the reconstruction kernel, from 0 (soft tissue) to 1 (lung).
    around_lungs_mm
        Show only the lungs and this margin, which is faster; None shows the whole chest. What is placed at random
        finds other places in another field of view.

    Raises
    ------
    OptionError
        If a spacing is not between 0.3 and 6 mm, the noise is negative or the sharpness not between 0 and 1.
    """
    scanner = Scanner.of(seed).but(noise_hu, sharpness)
    build = Build.of(seed)
    thick, fine, layers = _canvases(build, scanner, spacing_mm, around_lungs_mm)
    anatomy = anatomy_of(build, fine)
    rng = np.random.default_rng([seed, 8])
    scars = add_scars(build, fine, anatomy, rng)
    alike = add_look_alikes(build, fine, anatomy, rng) if look_alikes else ()
    wishes = wishes_of(rng) if nodules is True else tuple(nodules or ())
    drawn = add_nodules(fine, anatomy, wishes, alike, rng)
    image = anatomy.image.reshape(-1, layers, *fine.grid.shape[1:]).mean(axis=1)
    scanner.add_noise(thick, image, seed)
    voxels = np.clip(np.rint(image, out=image), -1024, 3071).astype(np.int16)
    lungs = fine.inside(anatomy.thorax.lungs)[layers // 2 :: layers]
    history = (f"generated chest phantom, seed {seed}",)
    return ChestPhantom(Volume(voxels, thick.grid, Unit.HU, "CT", history=history), drawn, (*alike, *scars), lungs)


def sample_chest_ct() -> Volume:
    """Generate the sample chest CT: the voxels of ``sample_volumes/chest_ct``."""
    return sample_chest().volume


def sample_chest() -> ChestPhantom:
    """Generate the sample chest CT with its truth: an unenhanced scan with eight nodules of every texture and place."""
    wishes = (
        NoduleWish(15.0, "part-solid", "parenchyma"),
        NoduleWish(13.0, "solid", "juxtapleural"),
        NoduleWish(12.0, "ground-glass", "parenchyma"),
        NoduleWish(10.0, "solid", "parenchyma"),
        NoduleWish(8.0, "solid", "juxtavascular"),
        NoduleWish(7.5, "ground-glass", "juxtapleural"),
        NoduleWish(7.0, "calcified", "parenchyma"),
        NoduleWish(6.0, "solid", "parenchyma"),
    )
    return _rounded(chest_phantom(14, spacing_mm=(1.8, 1.0, 1.0), nodules=wishes, noise_hu=8.0, sharpness=0.1))


def sample_lungs() -> ChestPhantom:
    """Generate another patient, after contrast agent, in 2.5 mm slices cropped to the lungs, with three nodules."""
    wishes = (
        NoduleWish(19.0, "solid", "parenchyma"),
        NoduleWish(9.0, "solid", "juxtapleural"),
        NoduleWish(11.0, "part-solid", "juxtavascular"),
    )
    spacing = (2.5, 1.2, 1.2)
    return _rounded(
        chest_phantom(15, spacing_mm=spacing, nodules=wishes, noise_hu=7.0, sharpness=0.4, around_lungs_mm=14.0)
    )


def _rounded(chest: ChestPhantom) -> ChestPhantom:
    step = _SAMPLE_STEP_HU
    voxels = (np.rint(chest.volume.voxels / np.float32(step)) * step).astype(np.int16)
    volume = chest.volume.with_voxels(voxels, f"rounded to {step} HU")
    return replace(chest, volume=volume)


def _canvases(
    build: Build, scanner: Scanner, spacing_mm: tuple[float, float, float], around_lungs_mm: float | None
) -> tuple[Canvas, Canvas, int]:
    """The canvas of the scan, the one with thinner slices that is painted on, and how many of those make a slice."""
    if not all(0.3 <= step <= 6 for step in spacing_mm):
        raise OptionError(f"Spacings are between 0.3 and 6 mm, not {spacing_mm}.")
    low, high = field_of_view(build)
    edge = max(scanner.edge_mm, 0.6 * max(spacing_mm[1:]))
    if around_lungs_mm is not None:
        low, high = _box_of_lungs(build, Canvas(low, high, (4.0, 4.0, 4.0), edge), around_lungs_mm)
    layers = int(np.ceil(spacing_mm[0] / 1.8))
    thick = Canvas(low, high, spacing_mm, edge)
    return thick, thick.with_thinner_slices(layers), layers


def _box_of_lungs(build: Build, rough: Canvas, margin_mm: float) -> tuple[Corner, Corner]:
    inside = np.argwhere(thorax_of(build, rough).lungs < 0)
    low, high = (
        tuple(float(axis[n]) for axis, n in zip(rough.lattice_axes[::-1], ends[::-1], strict=True))
        for ends in (inside.min(axis=0), inside.max(axis=0))
    )
    x, y, z = ((a - margin_mm - 2, b + margin_mm + 2) for a, b in zip(low, high, strict=True))
    return (x[0], y[0], z[0]), (x[1], y[1], z[1])
