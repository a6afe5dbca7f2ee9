"""Training patches of the detector: a piece of lung, nodules blended in, and what the network should answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tomolens.models.networks import CELL_MM
from tomolens.models.tensors import normalised
from tomolens.training.backgrounds import AROUND_MM, Background, Mark, a_place, chances_of, cut, drawn
from tomolens.training.nodules import BALLS_TRIED, Donor, Piece, decoy, paste, turned
from tomolens.training.scanner import another_scanner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator

POSITIVE_CELLS = 4
IGNORE_MM = 3.0
"""Around a nodule's surface no cell is called negative."""
EXCLUDED_IGNORE_MM = 9.0
"""Around a mark that is neither nodule nor negative."""
APART_MM = 5.0
"""Between the surfaces of what is pasted, and of what was there."""
NO_NODULE_WITHIN_MM = 22.0
"""Of the middle of a ball that shows no nodule, which is up to 9 mm in radius and has a soft rim."""


@dataclass(frozen=True)
class PatchRecipe:
    """How patches are drawn; shares are of all patches.

    ``kinds`` is the share of each kind of background. ``inserted`` of the patches get one to ``most_inserted`` nodules,
    ``decoys`` of them a ball of another lung, as far as there is lung in the patch that is free; ``mined`` of those
    without inserted nodules are centred on a hard negative, and ``real`` of all patches of scans on a real nodule.
    ``thick`` of all are read in thicker slices.
    """

    edge: int = 64
    kinds: tuple[tuple[str, float], ...] = (("scan", 0.5), ("phantom", 0.3), ("cube", 0.2))
    inserted: float = 0.6
    most_inserted: int = 3
    near_wall: float = 0.4
    decoys: float = 0.15
    mined: float = 0.6
    real: float = 0.06
    thick: float = 0.3

    def in_place(self) -> PatchRecipe:
        """For data without nodules to insert: what would get some is centred on a real nodule, where a lung has one."""
        return replace(self, inserted=0.0, real=self.inserted + self.real)


@dataclass(frozen=True, eq=False)
class Target:
    """What the network should answer on (k, j, i) cells: ``positive`` and ``counted`` bool, ``box`` (4, k, j, i)."""

    positive: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    box: NDArray[np.float32]


class Patches(Dataset[dict[str, torch.Tensor]]):
    """Patch ``n`` of a run: the same ``seed`` and ``n`` give the same patch on every machine and after every resume."""

    def __init__(
        self,
        backgrounds: Sequence[Background],
        donors: Sequence[Donor],
        mined: Sequence[Sequence[tuple[float, float, float]]],
        indices: Sequence[int],
        seed: int,
        recipe: PatchRecipe,
    ) -> None:
        self.backgrounds, self.donors, self.mined = backgrounds, donors, mined
        self.indices, self.seed, self.recipe = indices, seed, recipe if donors else recipe.in_place()
        room = [1.0 if b.kind == "cube" else np.sqrt(len(b.inner) + len(b.near_wall)) for b in backgrounds]
        self._chances = chances_of(backgrounds, recipe.kinds, room)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, self.indices[item]))
        voxels, marks, valid = self._draw(rng)
        voxels, marks, valid = _flipped(voxels, marks, valid, rng)
        target = target_of(marks, voxels.shape[0], valid)
        return {
            "image": normalised(another_scanner(voxels, rng, self.recipe.thick))[None],
            "positive": torch.from_numpy(target.positive),
            "counted": torch.from_numpy(target.counted),
            "box": torch.from_numpy(target.box),
        }

    def _draw(self, rng: Generator) -> tuple[NDArray[np.float32], list[Mark], NDArray[np.bool_]]:
        number = int(rng.choice(len(self.backgrounds), p=self._chances))
        background, recipe = self.backgrounds[number], self.recipe
        insert = rng.random() < recipe.inserted
        center, place = self._center(background, number, insert, rng)
        corner = np.round(center).astype(int) - recipe.edge // 2
        voxels, valid = cut(background.voxels, corner, recipe.edge)
        marks = [_moved(mark, corner) for mark in background.marks]
        room = _Room(background, corner, recipe.edge)
        if place is not None:
            marks += self._insert(voxels, room, place - corner, marks, rng)
        if rng.random() < recipe.decoys:
            self._paste_decoy(voxels, room, marks, rng)
        return voxels, marks, valid

    def _center(
        self, background: Background, number: int, insert: bool, rng: Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Where the patch lies, and where in the background a nodule goes."""
        jitter = rng.uniform(-1, 1, 3) * (self.recipe.edge / 2 - 8)
        if insert:
            place = a_place(background, self.recipe.near_wall, rng)
            return place + jitter, place
        nodules = [mark for mark in background.marks if mark.nodule]
        if nodules and rng.random() < self._real_share(background):
            return np.asarray(nodules[int(rng.integers(len(nodules)))].center_kji) + jitter, None
        if self.mined[number] and rng.random() < self.recipe.mined:
            return np.asarray(self.mined[number][int(rng.integers(len(self.mined[number])))]) + jitter / 2, None
        return a_place(background, self.recipe.near_wall, rng) + jitter, None

    def _real_share(self, background: Background) -> float:
        return {"phantom": 0.5, "scan": self.recipe.real / (1 - self.recipe.inserted), "cube": 0.5}[background.kind]

    def _insert(
        self, voxels: NDArray[np.float32], room: _Room, first: NDArray[np.float64], known: list[Mark], rng: Generator
    ) -> list[Mark]:
        """Blend in nodules, the first at its place in the patch where that is free, and say what is seen of them."""
        marks: list[Mark] = []
        for number in range(int(rng.integers(1, self.recipe.most_inserted + 1))):
            piece, taken = turned(self._donor(rng), rng), [*known, *marks]
            at: NDArray[np.float64] | None = first
            if number or not _are_free(first[None], piece.diameter_mm, taken).all():
                at = room.place(piece.diameter_mm, taken, self.recipe.near_wall, rng)
            pasted = None if at is None else paste(voxels, piece, np.round(at), room.thickness_mm, rng)
            if pasted is not None:
                marks.append(Mark(pasted.center_kji, pasted.diameter_mm, True))
        return marks

    def _donor(self, rng: Generator) -> Donor:
        """Any donor, those below 10 mm twice as often: they are what a scan mostly holds."""
        first, second = (self.donors[int(n)] for n in rng.integers(len(self.donors), size=2))
        return first if first.diameter_mm < 10 else second

    def _paste_decoy(self, voxels: NDArray[np.float32], room: _Room, known: list[Mark], rng: Generator) -> None:
        """Blend in one ball of which something is seen; none where the patch has no free lung."""
        for _ in range(BALLS_TRIED):
            ball = self._ball(rng)
            at = None if ball is None else room.place(ball.diameter_mm, known, 0.2, rng)
            if ball is not None and at is not None:
                if paste(voxels, ball, np.round(at), room.thickness_mm, rng) is not None:
                    return

    def _ball(self, rng: Generator) -> Piece | None:
        """A ball of a random lung; None where it leaves the lung or is too near to what is marked there."""
        source = self.backgrounds[int(rng.choice(len(self.backgrounds), p=self._chances))]
        center = a_place(source, 0.2, rng)
        if any(np.linalg.norm(center - m.center_kji) < m.diameter_mm / 2 + NO_NODULE_WITHIN_MM for m in source.marks):
            return None
        return decoy(source.voxels, np.round(center), rng)


class _Room:
    """Where in one patch there is lung to paste into, in the patch's own voxels."""

    def __init__(self, background: Background, corner: NDArray[np.int_], edge: int) -> None:
        self.thickness_mm = background.thickness_mm
        self._background, self._corner, self._edge = background, corner, edge

    @cached_property
    def _places(self) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """Away from the wall, and near it."""
        inner, near_wall = self._background.inner, self._background.near_wall
        return _within(inner, self._corner, self._edge), _within(near_wall, self._corner, self._edge)

    def place(
        self, diameter_mm: float, known: Sequence[Mark], near_wall: float, rng: Generator
    ) -> NDArray[np.float64] | None:
        """A random (k, j, i) for something of that size, apart from what is known; None where there is none."""
        room_mm = diameter_mm + 2 * AROUND_MM * np.sqrt(3)
        inner, close = (places[_are_free(places, room_mm, known)] for places in self._places)
        return drawn(inner, close, near_wall, rng) if len(inner) or len(close) else None


def _within(places: NDArray[np.int16], corner: NDArray[np.int_], edge: int) -> NDArray[np.int_]:
    """Those of (n, 3) places around which everything that is drawn lies in a patch, seen from its corner."""
    for axis in range(3):
        at = places[:, axis]
        places = places[(at >= corner[axis] + 2) & (at < corner[axis] + edge - 3)]
    return places - corner


def target_of(marks: Sequence[Mark], edge: int, valid: NDArray[np.bool_]) -> Target:
    """The answer for a patch: the cells nearest to each nodule are positive, the others around it are not counted."""
    cells = round(edge / CELL_MM)
    centers = (np.moveaxis(np.indices((cells, cells, cells)), 0, -1) + 0.5) * CELL_MM - 0.5
    positive = np.zeros((cells,) * 3, bool)
    counted = valid.reshape(cells, int(CELL_MM), cells, int(CELL_MM), cells, int(CELL_MM)).all(axis=(1, 3, 5))
    box = np.zeros((4, cells, cells, cells), np.float32)
    for mark in marks:
        distance = np.linalg.norm(centers - mark.center_kji, axis=-1)
        reach = mark.diameter_mm / 2 + IGNORE_MM if mark.nodule else EXCLUDED_IGNORE_MM
        counted &= distance > reach
    for mark in (m for m in marks if m.nodule and _inside(np.asarray(m.center_kji), edge)):
        distance = np.linalg.norm(centers - mark.center_kji, axis=-1)
        nearest = np.argsort(distance, axis=None)[:POSITIVE_CELLS]
        positive.reshape(-1)[nearest] = True
        flat = box.reshape(4, -1)
        flat[:3, nearest] = (np.asarray(mark.center_kji) - centers.reshape(-1, 3)[nearest]).T / CELL_MM
        flat[3, nearest] = np.log(mark.diameter_mm / CELL_MM)
    return Target(positive, counted | positive, box)


def _moved(mark: Mark, corner: NDArray[np.int_]) -> Mark:
    k, j, i = (c - a for c, a in zip(mark.center_kji, corner, strict=True))
    return Mark((float(k), float(j), float(i)), mark.diameter_mm, mark.nodule)


def _inside(at: NDArray[np.float64], edge: int) -> bool:
    return bool((at >= 1).all() and (at < edge - 2).all())


def _are_free(places: NDArray[Any], diameter_mm: float, known: Sequence[Mark]) -> NDArray[np.bool_]:
    """At which of (n, 3) places something of that size keeps apart from every mark."""
    free = np.ones(len(places), bool)
    low, high = (places.min(axis=0), places.max(axis=0)) if len(places) else (np.zeros(3), np.zeros(3))
    for mark in known:
        center, apart = np.asarray(mark.center_kji), (diameter_mm + mark.diameter_mm) / 2 + APART_MM
        if (center > low - apart).all() and (center < high + apart).all():
            free &= np.linalg.norm(places - center, axis=1) > apart
    return free


def _flipped(
    voxels: NDArray[np.float32], marks: list[Mark], valid: NDArray[np.bool_], rng: Generator
) -> tuple[NDArray[np.float32], list[Mark], NDArray[np.bool_]]:
    """Flip each axis or not, and swap rows and columns or not."""
    places = np.array([m.center_kji for m in marks]).reshape(-1, 3)
    for axis in np.flatnonzero(rng.random(3) < 0.5):
        voxels, valid = np.flip(voxels, int(axis)), np.flip(valid, int(axis))
        places[:, axis] = voxels.shape[axis] - 1 - places[:, axis]
    if rng.random() < 0.5:
        voxels, valid, places = voxels.swapaxes(1, 2), valid.swapaxes(1, 2), places[:, [0, 2, 1]]
    moved = [Mark((p[0], p[1], p[2]), m.diameter_mm, m.nodule) for p, m in zip(places, marks, strict=True)]
    return np.ascontiguousarray(voxels), moved, np.ascontiguousarray(valid)
