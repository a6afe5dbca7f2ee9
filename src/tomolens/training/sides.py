"""Whether marked nodules look like nodules where their table says, or where it would say so with x and y negated.

A table in RAS taken for LPS puts most marks inside the body and none on its nodule, which nothing else would notice.
One mark proves little: a nodule may be of ground glass or lie in the wall, and a vessel looks like a nodule. In five
chest CTs one in 25 places of the lungs' box did, by the rule below, one in twelve of the lungs themselves, and half of
what LIDC's readers had marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from tomolens.core.errors import ReadError
from tomolens.training.backgrounds import AIRWAY_BELOW_HU, PARENCHYMA_BELOW_HU

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.volume import Volume
    from tomolens.training.markings import Marking

IN_LPS = "Places are in DICOM's LPS mm: +x left, +y posterior, +z superior; NIfTI tools write RAS: negate x and y."
DENSER_BY_HU = 150.0
LUNG_AROUND = 0.4
"""Share of the places around a nodule that are lung; a nodule deep in the wall has less and is not counted."""
AROUND_MM = (3.0, 6.0)
"""From a nodule's surface."""
LEAST_MARKS = 3
_DIRECTIONS = np.array([step for step in np.ndindex(3, 3, 3) if step != (1, 1, 1)], float) - 1
_BALL_MM = np.vstack([np.zeros(3), 0.87 * _DIRECTIONS])
_SPHERE = _DIRECTIONS / np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True)
_NEGATED = (-1.0, -1.0, 1.0)


@dataclass(frozen=True)
class Seen:
    """Whether a marked nodule looks like one ``here``, and ``mirrored`` in x and y; None where that leaves the scan."""

    table: Path
    here: bool
    mirrored: bool | None


def seen(marking: Marking, volume: Volume) -> Seen:
    """Look where a nodule is marked, and where its place would be if it were in RAS."""
    here, mirrored = np.array(marking.center_lps_mm), np.array(marking.center_lps_mm) * _NEGATED
    inside = bool(volume.grid.contains(mirrored[None])[0])
    return Seen(
        marking.table,
        _looks_like_a_nodule(volume, here, marking.diameter_mm),
        _looks_like_a_nodule(volume, mirrored, marking.diameter_mm) if inside else None,
    )


def check_sides(places: Sequence[Seen]) -> None:
    """Refuse tables that are in RAS.

    Raises
    ------
    ReadError
        If most of the nodules of a table, and no less than `LEAST_MARKS`, look like nodules only with x and y negated,
        and no more than a third as many where they are marked.
    """
    for table in dict.fromkeys(place.table for place in places):
        either = [place for place in places if place.table == table and place.mirrored is not None]
        here = sum(place.here for place in either)
        mirrored = sum(bool(place.mirrored) and not place.here for place in either)
        if mirrored >= max(LEAST_MARKS, len(either) / 2, 3 * here):
            raise ReadError(
                f"{table}: {mirrored} of {len(either)} marked nodules are denser than the lung around them only with x "
                f"and y negated, {here} where they are marked. {IN_LPS}"
            )


def _looks_like_a_nodule(volume: Volume, center_lps_mm: NDArray[np.float64], diameter_mm: float) -> bool:
    """Whether a ball of 3 mm is denser than the lung around the nodule, and there is lung."""
    shells = [center_lps_mm + (diameter_mm / 2 + away) * _SPHERE for away in AROUND_MM]
    around = _sampled(volume, np.concatenate(shells))
    lung = (around > AIRWAY_BELOW_HU) & (around < PARENCHYMA_BELOW_HU)
    if lung.mean() < LUNG_AROUND:
        return False
    return bool(np.median(_sampled(volume, center_lps_mm + _BALL_MM)) > np.median(around[lung]) + DENSER_BY_HU)


def _sampled(volume: Volume, places_lps_mm: NDArray[np.float64]) -> NDArray[np.float32]:
    """HU at (n, 3) places; of the nearest voxel where one lies outside."""
    at = volume.grid.to_kji(places_lps_mm).T
    return np.asarray(ndimage.map_coordinates(volume.voxels, at, np.float32, order=1, mode="nearest"))
