"""Trees that fill the lungs: arteries, veins and the airways beside the arteries.

A tree starts at its lung's hilum and serves points strewn evenly through one lobe. The points are split in two again and
again; each part's branch leads from its parent towards the part's centre, and is as thick as the number of points that it
serves asks for (Murray's law). All branches of one generation are worked out together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.phantoms.tubes import Tubes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tomolens.phantoms.build import Build
    from tomolens.phantoms.canvas import Canvas
    from tomolens.phantoms.thorax import Thorax

_MURRAY = 2.75
_PIECES = 3
"""Straight pieces that a curved branch is drawn with."""
ARTERY_ROOTS = {"left": (47.0, 30.0, 73.0), "right": (-40.0, 12.0, 70.0)}
VEIN_ROOTS = {"left": (40.0, 16.0, 52.0), "right": (-34.0, 12.0, 52.0)}
BRONCHUS_ENDS = {"left": (42.0, 33.0, 69.0), "right": (-36.0, 27.0, 71.0)}


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
        out, into = self.leaving * length, self.arriving * length
        return [
            (2 * t**3 - 3 * t**2 + 1) * self.start
            + (t**3 - 2 * t**2 + t) * out
            + (3 * t**2 - 2 * t**3) * self.end
            + (t**3 - t**2) * into
            for t in np.linspace(0, 1, _PIECES + 1)
        ]


def tree(ends: NDArray[np.float64], root: NDArray[np.float64], rng: np.random.Generator) -> Branches:
    """Grow a tree from a root to (n, 3) end points."""
    points, owner = ends, np.zeros(len(ends), int)
    at, heading = root[None], np.zeros((1, 3))
    parent, offset = np.array([-1]), 0
    grown: list[tuple[NDArray[Any], ...]] = []
    while len(points):
        count = np.bincount(owner)
        center = _mean(points, owner, count)
        share = np.where(count == 1, 1.0, rng.uniform(0.32, 0.5, len(count)))[:, None]
        away = center - at
        length = np.linalg.norm(away, axis=1, keepdims=True)
        tip = at + share * away + 0.10 * share * length * rng.normal(size=at.shape) * (count > 1)[:, None]
        arriving = _unit(center - tip + 0.3 * _unit(tip - at) * length)
        leaving = _unit(_unit(tip - at) + 0.8 * heading)
        grown.append((at, tip, leaving, np.where(count[:, None] == 1, _unit(tip - at), arriving), count, parent))
        split = count > 1
        points, owner = points[split[owner]], (np.cumsum(split) - 1)[owner[split[owner]]]
        at, heading = np.repeat(tip[split], 2, axis=0), np.repeat(arriving[split], 2, axis=0)
        parent = np.repeat(offset + np.flatnonzero(split), 2)
        offset += len(count)
        owner = _split(points, owner, rng)
    return Branches(*(np.concatenate(parts) for parts in zip(*grown, strict=True)))


def _mean(points: NDArray[np.float64], owner: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    sums = [np.bincount(owner, points[:, n], len(count)) for n in range(3)]
    return np.asarray(np.stack(sums, axis=1) / count[:, None])


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))


def _split(points: NDArray[np.float64], owner: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Split every group across about its longest direction: owners 2g and 2g + 1."""
    if not len(points):
        return owner
    count = np.bincount(owner)
    away = points - _mean(points, owner, count)[owner]
    spread = np.stack([np.bincount(owner, away[:, n] ** 2) for n in range(3)], axis=1)
    direction = _unit(rng.normal(size=spread.shape) * (spread / spread.sum(axis=1, keepdims=True)) ** 1.5)
    along = (away * direction[owner]).sum(axis=1)
    order = np.lexsort((along, owner))
    rank = np.empty(len(points), int)
    rank[order] = np.arange(len(points)) - np.repeat(np.cumsum(count) - count, count)
    first = np.clip(np.round(rng.uniform(0.28, 0.72, len(count)) * count), 1, count - 1)
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
    arteries, veins, airways = [], [], []
    for side, lobe in lobes(thorax):
        for roots, into in ((ARTERY_ROOTS, arteries), (VEIN_ROOTS, veins)):
            ends = _strewn(canvas, lobe, build.vessel_spacing_mm, rng)
            branches = tree(ends, build.to_patient(roots[side]), rng)
            into.append(branches.tubes(build.twig_mm))
            if into is arteries:
                airways.append(_airways_beside(branches, build, build.to_patient(BRONCHUS_ENDS[side]), rng))
    return LungTrees(*(Tubes.joined(parts) for parts in (arteries, veins, airways)))


def lobes(thorax: Thorax) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The five lobes as signed distances: two on the left, three on the right."""
    left, right = thorax.left_lung, thorax.right_lung
    yield "left", np.maximum(left, -thorax.left_fissure)
    yield "left", np.maximum(left, thorax.left_fissure)
    front = np.maximum(right, -thorax.right_fissure)
    yield "right", np.maximum(right, thorax.right_fissure)
    yield "right", np.maximum(front, -thorax.minor_fissure)
    yield "right", np.maximum(front, thorax.minor_fissure)


def _strewn(
    canvas: Canvas, lobe: NDArray[np.float32], spacing_mm: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Strew points about evenly through a lobe, 2.5 mm or more from its surface."""
    low, high = (np.array([axis[end] for axis in canvas.lattice_axes])[::-1] for end in (0, -1))
    axes = [np.arange(a, b, spacing_mm) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points + rng.uniform(-0.5, 0.5, points.shape) * spacing_mm
    return np.asarray(points[canvas.sample(lobe, points) < -2.5])


def _airways_beside(branches: Branches, build: Build, root: NDArray[np.float64], rng: np.random.Generator) -> Tubes:
    """Lay an airway beside each larger artery, as wide as the artery, starting at the bronchus."""
    radius = build.twig_mm * branches.served ** (1 / _MURRAY)
    large = radius > 1.25
    beside = rng.normal(size=3)
    beside = beside / np.linalg.norm(beside)
    shift = 2.0 * radius[:, None] * beside
    start = branches.start + shift[branches.parent]
    start[0] = root
    chosen = replace(branches, start=start, end=branches.end + shift)
    return chosen.tubes(build.twig_mm)[np.tile(large, _PIECES)]
