"""Trees that fill the lungs: arteries, veins and the airways beside the arteries.

A tree starts at its lung's hilum and serves points strewn evenly through one lobe. The points are split in two again
and again; each part's branch leads from its parent towards the part's centre, and is as thick as the number of points
that it serves asks for (Murray's law). All branches of one generation are worked out together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.phantoms.tubes import Tubes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.phantoms.build import Build
    from tomolens.phantoms.canvas import Canvas
    from tomolens.phantoms.thorax import Thorax

_MURRAY = 3.0
_PIECES = 3
"""Straight pieces that a curved branch is drawn with."""
_STEMS: dict[str, dict[str, list[tuple[float, float, float]]]] = {
    "left upper": {
        "artery": [(44, 28, 78), (50, 20, 86), (54, 14, 90)],
        "vein": [(34, 6, 52), (42, -2, 60), (48, -4, 66)],
        "bronchus": [(42, 33, 69), (48, 26, 72), (53, 18, 76)],
    },
    "left lower": {
        "artery": [(46, 30, 74), (50, 38, 62), (50, 44, 48)],
        "vein": [(32, 18, 46), (38, 30, 40), (42, 40, 34)],
        "bronchus": [(42, 33, 69), (43, 38, 58), (43, 43, 46)],
    },
    "right lower": {
        "artery": [(-38, 10, 70), (-47, 24, 60), (-49, 34, 46)],
        "vein": [(-26, 18, 46), (-34, 30, 40), (-38, 40, 34)],
        "bronchus": [(-36, 27, 71), (-40, 32, 60), (-41, 40, 46)],
    },
    "right upper": {
        "artery": [(-36, 8, 72), (-46, 12, 82), (-52, 14, 88)],
        "vein": [(-28, 6, 52), (-42, -4, 62), (-48, -6, 74)],
        "bronchus": [(-26, 27, 80), (-38, 24, 84), (-48, 22, 88)],
    },
    "right middle": {
        "artery": [(-44, 18, 64), (-50, 6, 56), (-54, -4, 52)],
        "vein": [(-28, 6, 50), (-42, -6, 48), (-50, -12, 46)],
        "bronchus": [(-40, 32, 60), (-45, 20, 54), (-50, 8, 50)],
    },
}
"""Template paths from the hilum to where each lobe's tree starts, LPS mm."""


@dataclass(frozen=True, eq=False)
class Branches:
    """Branches of one tree, parents before children.

    ``start`` and ``end`` are LPS mm, ``leaving`` and ``arriving`` the directions there, ``served`` the number of end
    points that a branch serves, ``parent`` the row of the branch that it leaves, -1 for the first.
    """

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    leaving: NDArray[np.float64]
    arriving: NDArray[np.float64]
    served: NDArray[np.int64]
    parent: NDArray[np.int64]

    def tubes(self, twig_mm: float) -> Tubes:
        """Draw every branch as a curve that tapers to its own radius."""
        radius = twig_mm * self.served ** (1 / _MURRAY)
        points = self._curves()
        taper = np.linspace(1.12, 1.0, _PIECES + 1)[:, None] * radius
        pieces = [np.stack([taper[n], taper[n + 1]], axis=1) for n in range(_PIECES)]
        count = len(radius) * _PIECES
        return Tubes(
            np.concatenate(points[:-1]),
            np.concatenate(points[1:]),
            np.concatenate(pieces),
            np.ones(count),
            np.zeros((count, 3)),
        )

    def _curves(self) -> list[NDArray[np.float64]]:
        length = np.linalg.norm(self.end - self.start, axis=1, keepdims=True)
        out, into = 0.8 * self.leaving * length, 0.8 * self.arriving * length
        return [
            (2 * t**3 - 3 * t**2 + 1) * self.start
            + (t**3 - 2 * t**2 + t) * out
            + (3 * t**2 - 2 * t**3) * self.end
            + (t**3 - t**2) * into
            for t in np.linspace(0, 1, _PIECES + 1)
        ]


def tree(
    ends: NDArray[np.float64], root: NDArray[np.float64], heading: NDArray[np.float64], rng: np.random.Generator
) -> Branches:
    """Grow a tree to (n, 3) end points, from a root that is reached in the direction ``heading``."""
    points, owner = ends, np.zeros(len(ends), int)
    at, heading = root[None], heading[None]
    parent, offset = np.array([-1]), 0
    grown: list[tuple[NDArray[Any], ...]] = []
    while len(points):
        count = np.bincount(owner)
        away = _mean(points, owner, count) - at
        alone = (count == 1)[:, None]
        length = np.linalg.norm(away, axis=1, keepdims=True)
        share = np.where(alone, 1.0, rng.uniform(0.28, 0.42, alone.shape))
        tip = at + share * away + np.where(alone, 0.0, 0.04 * length * rng.normal(size=at.shape))
        leaving = _unit(_unit(tip - at) + 0.25 * heading)
        arriving = _unit(_unit(tip - at) + 0.8 * _unit(at + away - tip) * ~alone)
        grown.append((at, tip, leaving, arriving, count, parent))
        split = count > 1
        points, owner = points[split[owner]], (np.cumsum(split) - 1)[owner[split[owner]]]
        owner = _split(points, owner, arriving[split], rng)
        at, heading = np.repeat(tip[split], 2, axis=0), np.repeat(arriving[split], 2, axis=0)
        parent = np.repeat(offset + np.flatnonzero(split), 2)
        offset += len(count)
    return Branches(*(np.concatenate(parts) for parts in zip(*grown, strict=True)))


def _mean(points: NDArray[np.float64], owner: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    sums = [np.bincount(owner, points[:, n], len(count)) for n in range(3)]
    return np.asarray(np.stack(sums, axis=1) / count[:, None])


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))


def _split(
    points: NDArray[np.float64], owner: NDArray[np.int64], heading: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Split every group in two, owners 2g and 2g + 1, across its longest direction that the branch does not follow."""
    if not len(points):
        return owner
    count = np.bincount(owner)
    away = points - _mean(points, owner, count)[owner]
    away -= 0.45 * (away * heading[owner]).sum(axis=1, keepdims=True) * heading[owner]
    spread = np.empty((len(count), 3, 3))
    for n in range(3):
        for m in range(3):
            spread[:, n, m] = np.bincount(owner, away[:, n] * away[:, m])
    direction = np.linalg.eigh(spread)[1][:, :, 2] + 0.25 * rng.normal(size=(len(count), 3))
    along = (away * direction[owner]).sum(axis=1)
    rank = np.empty(len(points), int)
    rank[np.lexsort((along, owner))] = np.arange(len(points)) - np.repeat(np.cumsum(count) - count, count)
    minor = rng.uniform(0.12, 0.48, len(count))
    first = np.clip(np.round(np.where(rng.random(len(count)) < 0.5, minor, 1 - minor) * count), 1, count - 1)
    return np.asarray(2 * owner + (rank >= first[owner]))


@dataclass(frozen=True, eq=False)
class LungTrees:
    """What runs through the lungs, as tubes in the patient."""

    arteries: Tubes
    veins: Tubes
    airways: Tubes

    @property
    def vessels(self) -> Tubes:
        """Arteries and veins."""
        return Tubes.joined([self.arteries, self.veins])


def grow(build: Build, thorax: Thorax, canvas: Canvas) -> LungTrees:
    """Grow the vessels and airways of both lungs, lobe by lobe."""
    rng = np.random.default_rng([build.seed, 3])
    arteries: list[Tubes] = []
    veins: list[Tubes] = []
    airways: list[Tubes] = []
    for lobe, inside in lobes(thorax).items():
        artery, vein, bronchus = (build.to_patient(_STEMS[lobe][kind]) for kind in ("artery", "vein", "bronchus"))
        for stem, into in ((artery, arteries), (vein, veins)):
            ends = _strewn(canvas, inside, build.vessel_spacing_mm, rng)
            branches = tree(ends, stem[-1], _unit(stem[-1:] - stem[-2])[0], rng)
            trunk = min(build.twig_mm * len(ends) ** (1 / _MURRAY), 8.0)
            into.append(Tubes.joined([Tubes.along(stem, trunk), branches.tubes(build.twig_mm)]))
            if into is arteries:
                airways.append(Tubes.along(bronchus, 0.9 * trunk))
                airways.append(_airways_beside(branches, build.twig_mm, bronchus[-1]))
    return LungTrees(*(Tubes.joined(parts) for parts in (arteries, veins, airways)))


def lobes(thorax: Thorax) -> dict[str, NDArray[np.float32]]:
    """Give the five lobes as signed distances on the lattice."""
    left, right = thorax.left_lung, thorax.right_lung
    front = np.maximum(right, -thorax.right_fissure)
    return {
        "left upper": np.maximum(left, -thorax.left_fissure),
        "left lower": np.maximum(left, thorax.left_fissure),
        "right lower": np.maximum(right, thorax.right_fissure),
        "right upper": np.maximum(front, -thorax.minor_fissure),
        "right middle": np.maximum(front, thorax.minor_fissure),
    }


def _strewn(
    canvas: Canvas, lobe: NDArray[np.float32], spacing_mm: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Strew points about evenly through a lobe, 2.5 mm or more from its surface."""
    low, high = (np.array([axis[end] for axis in canvas.lattice_axes])[::-1] for end in (0, -1))
    axes = [np.arange(a, b, spacing_mm) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points + rng.uniform(-0.5, 0.5, points.shape) * spacing_mm
    return np.asarray(points[canvas.sample(lobe, points) < -2.5])


def _airways_beside(branches: Branches, twig_mm: float, root: NDArray[np.float64]) -> Tubes:
    """Lay an airway beside each larger artery, about as wide, starting at the end of the bronchus."""
    radius = twig_mm * branches.served ** (1 / _MURRAY)
    beside = _unit((root - branches.start[0])[None])[0]
    shift = 2.0 * radius[:, None] * beside
    start = branches.start + shift[branches.parent]
    start[0] = root
    return replace(branches, start=start, end=branches.end + shift).tubes(0.92 * twig_mm)[
        np.tile(radius > 1.3, _PIECES)
    ]
