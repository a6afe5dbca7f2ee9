"""The skeleton of the chest as tubes in the patient: ribs, spine, sternum, clavicles, shoulder blades."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import CubicSpline

from tomolens.phantoms.shapes import along
from tomolens.phantoms.thorax import CAVITY_BACK, CAVITY_FRONT, CAVITY_HALF_WIDTH, SPINE_Y
from tomolens.phantoms.tubes import Tubes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.phantoms.build import Build

RIB_HEADS_Z = (172, 153, 132, 110, 88, 65, 42, 18, -7, -33, -60, -88)
"""Template height of the heads of ribs 1 to 12, which is also that of the discs above their vertebrae."""
_RIB_DROP = (34, 52, 64, 74, 82, 86, 88, 86, 80, 66, 46, 34)
_RIB_END = (0.86, 0.84, 0.83, 0.81, 0.79, 0.77, 0.74, 0.71, 0.67, 0.62, 0.48, 0.36)
"""Where the bony rib ends, as a share of the half circle from the spine to the sternum."""
_STERNUM = np.array([[0, -58, 150], [0, -70, 132], [0, -84, 96], [0, -94, 50], [0, -99, 22]], float)
_VERTEBRAE_Z = (*(RIB_HEADS_Z[n] - 11 for n in range(12)), -113, 184, 205)


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Tubes by what they are made of; ``ribs`` are in the order right 1-12, left 1-12."""

    ribs: tuple[Tubes, ...]
    cartilages: tuple[Tubes, ...]
    flat_bones: Tubes
    arches: Tubes
    canal: Tubes


def skeleton_of(build: Build) -> Skeleton:
    """Lay out the bones of one patient."""
    ribs, cartilages = [], []
    for side in (-1, 1):
        for number in range(12):
            rib, cartilage = _rib(build, side, number)
            ribs.append(rib)
            cartilages.extend(cartilage)
    return Skeleton(tuple(ribs), tuple(cartilages), _flat_bones(build), _arches(build), _canal(build))


def first_rib_end(build: Build, side: int) -> NDArray[np.float64]:
    """Where the bone of the first rib meets its cartilage; ``side`` is -1 on the right, 1 on the left."""
    return np.asarray(_rib(build, side, 0)[0].end[-1])


def _on_cage(side: int, turn: NDArray[np.float64], z: NDArray[np.float64], outside_mm: float) -> NDArray[np.float64]:
    """Points on the rib cage: ``turn`` runs from 0 at the back to 1 at the front."""
    width = along(z, CAVITY_HALF_WIDTH).astype(float) + outside_mm
    front, back = along(z, CAVITY_FRONT).astype(float) - outside_mm, along(z, CAVITY_BACK).astype(float) + outside_mm
    angle = turn * np.pi
    x = side * width * np.abs(np.sin(angle)) ** (2 / 2.35)
    y = (front + back) / 2 + (back - front) / 2 * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / 2.35)
    return np.stack([x, y, z], axis=1)


def _rib(build: Build, side: int, number: int) -> tuple[Tubes, list[Tubes]]:
    """One rib and its cartilage."""
    head_z, drop, end = RIB_HEADS_Z[number], _RIB_DROP[number], _RIB_END[number]
    turn = np.linspace(0.2, end, 13)
    fall = np.clip((turn - 0.08) / (end - 0.08), 0, 1)
    z = head_z + 3 - drop * (0.55 * fall + 0.45 * fall**2)
    cage = _on_cage(side, turn, z, 5.5)
    spine = float(along(np.array([head_z], np.float32), SPINE_Y)[0])
    roots = np.array([[side * 19, spine + 10, head_z], [side * 33, spine + 24, head_z + 3]])
    points = _smooth(np.concatenate([roots, cage]), 26)
    outward = points * (1, 1, 0) - (0, points[:, 1].mean() * 0.2, 0)
    thick = 3.4 if number else 3.0
    taper = np.interp(np.linspace(0, 1, len(points)), (0, 0.06, 0.9, 1), (0.85, 1, 1, 1.1))
    rib = Tubes.along(build.to_patient(points), thick * taper, 1.85, outward)
    if number > 9:
        return rib, []
    return rib, [_cartilage(build, side, number, points[-1], outward[-1])]


def _cartilage(build: Build, side: int, number: int, start: NDArray[np.float64], outward: NDArray[np.float64]) -> Tubes:
    """From the rib's end to the sternum, or for the lower ribs towards the arch below it."""
    at = _STERNUM[0] + (_STERNUM[-1] - _STERNUM[0]) * min(number / 6.5, 1.0)
    height = float(np.interp(number, range(7), np.linspace(140, 20, 7)))
    y = float(np.interp(height, _STERNUM[::-1, 2], _STERNUM[::-1, 1]))
    at = np.array([side * (17 if number < 7 else 24 + 9 * (number - 6)), y + 2, height - (9 * max(number - 6, 0))])
    middle = (start + at) / 2 + (side * 4, -5, -6)
    points = _smooth(np.stack([start, middle, at]), 8)
    return Tubes.along(build.to_patient(points), 3.6, 1.7, np.broadcast_to(outward, points.shape))


def _smooth(points: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """A smooth curve through points, resampled evenly by their distances."""
    steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return np.asarray(CubicSpline(steps, points)(np.linspace(0, steps[-1], count)))


def _spine_at(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centres of the vertebral bodies."""
    y = along(z, SPINE_Y).astype(float)
    return np.stack([np.zeros_like(z), y, z], axis=1)


def _arches(build: Build) -> Tubes:
    """Pedicles, laminae, transverse and spinous processes."""
    parts = []
    for z in _VERTEBRAE_Z:
        _, y, _ = _spine_at(np.array([float(z)]))[0]
        for side in (-1, 1):
            pedicle = [[side * 10, y + 10, z + 4], [side * 13, y + 22, z + 3]]
            across = [[side * 13, y + 24, z + 2], [side * 33, y + 32, z + 5]]
            lamina = [[side * 13, y + 24, z + 1], [side * 2, y + 33, z - 5]]
            parts += [
                _process(build, p, r, f) for p, r, f in ((pedicle, 4.2, 1.5), (across, 3.8, 1.2), (lamina, 2.8, 2.8))
            ]
        parts.append(_process(build, [[0, y + 33, z - 4], [0, y + 47, z - 12], [0, y + 57, z - 20]], 2.6, 1.9))
    return Tubes.joined(parts)


def _process(build: Build, points: list[list[float]], radius: float, flat: float) -> Tubes:
    along_it = np.asarray(points, float)
    direction = along_it[-1] - along_it[0]
    sideways = np.cross(direction, (0.0, 0.0, 1.0))
    return Tubes.along(build.to_patient(along_it), radius, flat, sideways)


def _canal(build: Build) -> Tubes:
    """The spinal canal."""
    z = np.arange(-130.0, 226.0, 8.0)
    return Tubes.along(build.to_patient(_spine_at(z) + np.array([0, 23, 0])), 8.2, 0.9, (1.0, 0.0, 0.0))


def _flat_bones(build: Build) -> Tubes:
    """Sternum, clavicles and the heads of the humeri."""
    sternum = _smooth(_STERNUM, 14)
    width = np.interp(sternum[:, 2], (20, 60, 118, 128, 140, 152), (14, 17, 15, 19, 26, 22))
    parts = [Tubes.along(build.to_patient(sternum), width, 0.27, (1.0, 0.0, 0.0))]
    for side in (-1, 1):
        clavicle = np.array([[22, -58, 154], [52, -62, 168], [96, -38, 186], [140, -8, 206]], float) * (side, 1, 1)
        parts.append(Tubes.along(build.to_patient(_smooth(clavicle, 10)), 6.0))
        humerus = np.array([[166, 14, 192], [182, 4, 236]], float) * (side, 1, 1)
        parts.append(Tubes.along(build.to_patient(humerus), [22, 14]))
        parts += _shoulder_blade(build, side)
    return Tubes.joined(parts)


def _shoulder_blade(build: Build, side: int) -> list[Tubes]:
    """A thin plate outside the ribs, thick along its outer edge, with its spine across the back."""
    parts = []
    for z in np.arange(36.0, 158.0, 5.0):
        up = (z - 30) / 120
        plate = _on_cage(side, np.linspace(0.23 + 0.02 * up, 0.27 + 0.26 * up, 7), np.full(7, z), 21.0)
        plate += np.linspace(0, 1, 7)[:, None] ** 2 * np.array([side * 16, -4, 0]) * up
        for n, width in enumerate((1.5, 1.1, 1.0, 1.0, 1.3, 2.0)):
            parts.append(Tubes.along(build.to_patient(plate[n : n + 2]), 5.5, 0.33 * width, (0.0, 0.0, 1.0)))
    ridge = _on_cage(side, np.array([0.24, 0.3, 0.38, 0.44]), np.array([118.0, 126, 140, 158]), 30.0)
    ridge += np.linspace(0, 1, 4)[:, None] * np.array([side * 26, -6, 0])
    socket = np.array([[142, 24, 150], [144, 20, 182]], float) * (side, 1, 1)
    return [
        *parts,
        Tubes.along(build.to_patient(_smooth(ridge, 8)), 4.0, 1.4),
        Tubes.along(build.to_patient(socket), 7),
    ]


def vertebral_bodies(
    build: Build, points: tuple[NDArray[np.float32], ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Signed distances, at the patient's x, y and z, to the vertebral bodies and to the discs between them."""
    x, y, z = build.to_template(*points)
    levels = np.sort(np.asarray(_VERTEBRAE_Z, np.float32))
    nearest = np.clip(np.searchsorted((levels[1:] + levels[:-1]) / 2, z), 0, len(levels) - 1)
    height = np.interp(levels, (-110, 170), (11.0, 8.0)).astype(np.float32)[nearest]
    size = np.interp(levels, (-110, 170, 210), (1.14, 0.86, 0.72)).astype(np.float32)[nearest]
    off = np.abs(z - levels[nearest])
    behind = y - along(z, SPINE_Y)
    ring = np.sqrt(x**2 + (behind / 0.82) ** 2) / size
    notch = np.maximum(0, 3.0 - np.hypot(x / 6, (behind - 14) / 3))
    column = ring + notch - 17.4 + 2.2 * np.clip(1 - (off / height) ** 2, 0, 1)
    return np.maximum(column, off - height), np.maximum(ring + notch - 16.8, height - off)
