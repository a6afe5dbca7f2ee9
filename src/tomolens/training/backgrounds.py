"""Lungs to train in: whole scans, cubes around nodules and generated phantoms, each with its known marks.

All are prepared by the functions that inference uses, at 1 mm in canonical order, and kept in HU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomolens.core.errors import ContractError
from tomolens.core.grid import Grid
from tomolens.core.volume import Volume
from tomolens.models.lungs import BOX_MARGIN_MM, Lungs, find_lungs
from tomolens.models.tensors import isotropic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator
    from numpy.typing import ArrayLike

PARENCHYMA_BELOW_HU = -650.0
AIRWAY_BELOW_HU = -965.0
WALL_ABOVE_HU = -250.0
WALL_THICKNESS_MM = 9.0
"""Soft tissue at least this thick is chest wall, mediastinum or diaphragm, not a vessel."""
NEAR_WALL_MM = 7.0
AROUND_MM = 1.0
"""Places are known on every second voxel; what is drawn lies around one of them."""


@dataclass(frozen=True)
class Mark:
    """A place that is known: a nodule, or something that counts neither as nodule nor as its absence.

    ``center_kji`` is in voxels of the background, which are 1 mm.
    """

    center_kji: tuple[float, float, float]
    diameter_mm: float
    nodule: bool


@dataclass(frozen=True, eq=False)
class Background:
    """One lung, or part of one, to draw training patches from.

    Parameters
    ----------
    name
        Where it comes from.
    voxels
        (k, j, i) int16 HU at 1 mm, canonical order.
    marks
        What is known to be in it.
    inner, near_wall
        (n, 3) int16 voxel places in the parenchyma, away from and close to the wall.
    thickness_mm
        Slice thickness of the acquisition, which decides how sharp an inserted nodule may look.
    kind
        ``scan``, ``cube`` or ``phantom``.
    origin
        A hash of what it was made from; empty of a phantom, which its seed makes anew.
    """

    name: str
    voxels: NDArray[np.int16]
    marks: tuple[Mark, ...]
    inner: NDArray[np.int16]
    near_wall: NDArray[np.int16]
    thickness_mm: float
    kind: str
    grid: Grid | None = None
    lungs: Lungs | None = None
    origin: str = ""


def background_of_scan(
    name: str,
    volume: Volume,
    nodules: Sequence[tuple[Sequence[float], float]],
    excluded: Sequence[tuple[Sequence[float], float]] = (),
    kind: str = "scan",
) -> Background:
    """Prepare a chest CT: lung box, 1 mm, marks from (centre LPS mm, diameter mm) pairs."""
    scan = volume.canonical()
    lungs = find_lungs(scan)
    box = isotropic(scan.cropped(*lungs.box_kji(scan.grid, BOX_MARGIN_MM)))
    marks = [
        Mark(tuple(box.grid.to_kji(center).tolist()), float(diameter), nodule)
        for listed, nodule in ((nodules, True), (excluded, False))
        for center, diameter in listed
    ]
    inner, near_wall = _places(box, lungs)
    voxels = np.clip(box.voxels, -1024, 3071).astype(np.int16)
    return Background(name, voxels, tuple(marks), inner, near_wall, scan.spacing_mm[0], kind, box.grid, lungs)


def background_of_cube(name: str, voxels: NDArray[np.int16], mask: NDArray[Any]) -> Background:
    """Prepare a cube with a nodule in its centre (1 mm, canonical): the nodule is known, the rest is free."""
    where = np.argwhere(mask > 0)
    diameter = float((len(where) * 6 / np.pi) ** (1 / 3))
    center = where.mean(axis=0)
    nodule = Mark((float(center[0]), float(center[1]), float(center[2])), diameter, True)
    volume = Volume(voxels, Grid.from_axes((voxels.shape[0], voxels.shape[1], voxels.shape[2])))
    inner, near_wall = _places(volume, None)
    return Background(name, voxels, (nodule,), inner, near_wall, 1.5, "cube")


def _places(box: Volume, lungs: Lungs | None) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Voxel places in the parenchyma: away from the wall, and near it. Every second voxel along each axis."""
    coarse = np.asarray(box.voxels[::2, ::2, ::2], np.float32)
    smooth = ndimage.uniform_filter(coarse, 3)
    parenchyma = (smooth < PARENCHYMA_BELOW_HU) & (smooth > AIRWAY_BELOW_HU)
    tissue = smooth > WALL_ABOVE_HU
    thick = ndimage.distance_transform_edt(tissue, 2.0) > WALL_THICKNESS_MM / 2
    wall_mm = ndimage.distance_transform_edt(~thick, 2.0) - WALL_THICKNESS_MM / 2 if thick.any() else None
    places = np.argwhere(parenchyma) * 2
    if lungs is not None:
        places = places[lungs.holds(box.grid.to_mm(places))]
    if wall_mm is None:
        return places.astype(np.int16), places[:0].astype(np.int16)
    close = wall_mm[tuple((places // 2).T)] < NEAR_WALL_MM
    return places[~close].astype(np.int16), places[close].astype(np.int16)


def usable(background: Background) -> Background:
    """Check that a background has room for training.

    Raises
    ------
    ContractError
        If there is hardly any parenchyma in it.
    """
    if len(background.inner) + len(background.near_wall) < 200:
        raise ContractError(f"{background.name} has hardly any lung parenchyma to train in.")
    return background


def chances_of(
    backgrounds: Sequence[Background], kinds: Sequence[tuple[str, float]], room: ArrayLike
) -> NDArray[np.float64]:
    """Probability of each background: the share of its kind, split by ``room`` (n,); zeros where there is none at all.

    The share of a kind without room goes to the others.
    """
    chances, size = np.zeros(len(backgrounds)), np.asarray(room, np.float64)
    for kind, share in kinds:
        of_kind = np.array([background.kind == kind for background in backgrounds])
        if size[of_kind].sum() > 0:
            chances[of_kind] = share * size[of_kind] / size[of_kind].sum()
    return np.asarray(chances / chances.sum()) if chances.any() else chances


def a_place(background: Background, near_wall: float, rng: Generator) -> NDArray[np.float64]:
    """A random (k, j, i) in the parenchyma; ``near_wall`` is the share that lies close to the wall."""
    return drawn(background.inner, background.near_wall, near_wall, rng)


def drawn(
    inner: NDArray[np.integer], close: NDArray[np.integer], near_wall: float, rng: Generator
) -> NDArray[np.float64]:
    """One of (n, 3) places and up to `AROUND_MM` away from it along each axis, by ``near_wall`` one of the ``close``.

    Where one of the two is empty it is of the other.
    """
    places = close if len(close) and (not len(inner) or rng.random() < near_wall) else inner
    return np.asarray(places[rng.integers(len(places))] + rng.uniform(-AROUND_MM, AROUND_MM, 3))


def cut(
    voxels: NDArray[np.int16], corner: NDArray[np.int_], edge: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A cube of ``edge`` voxels, mirrored where it leaves the background, and where it does not."""
    index = [np.arange(a, a + edge) for a in corner]
    inside = [(i >= 0) & (i < n) for i, n in zip(index, voxels.shape, strict=True)]
    mirrored = [_mirrored(i, n) for i, n in zip(index, voxels.shape, strict=True)]
    valid = inside[0][:, None, None] & inside[1][:, None] & inside[2]
    return voxels[np.ix_(*mirrored)].astype(np.float32), valid


def _mirrored(index: NDArray[np.int_], size: int) -> NDArray[np.int_]:
    folded = np.mod(index, 2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded)
