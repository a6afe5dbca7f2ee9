"""Training patches of the detector: a piece of lung, nodules blended in, and what the network should answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tomolens.models.networks import CELL_MM
from tomolens.models.tensors import normalised
from tomolens.training.backgrounds import Background, Mark, a_place, chances_of, cut
from tomolens.training.nodules import Donor, decoy, paste, turned
from tomolens.training.scanner import another_scanner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator

POSITIVE_CELLS = 4
IGNORE_MM = 3.0
"""Around a nodule's surface no cell is called negative."""
EXCLUDED_IGNORE_MM = 9.0
"""Around a mark that is neither nodule nor negative."""


@dataclass(frozen=True)
class PatchRecipe:
    """How patches are drawn; shares are of all patches.

    ``kinds`` is the share of each kind of background. ``inserted`` of the patches get one to ``most_inserted`` nodules,
    ``decoys`` of them a ball of another lung, ``mined`` of those without inserted nodules are centred on a hard
    negative, and ``real`` of them on a real nodule.
    """

    edge: int = 64
    kinds: tuple[tuple[str, float], ...] = (("scan", 0.5), ("phantom", 0.3), ("cube", 0.2))
    inserted: float = 0.6
    most_inserted: int = 3
    near_wall: float = 0.4
    decoys: float = 0.15
    mined: float = 0.6
    real: float = 0.06


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
        self.indices, self.seed, self.recipe = indices, seed, recipe
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
            "image": normalised(another_scanner(voxels, rng))[None],
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
        if rng.random() < recipe.decoys:
            self._paste_decoy(voxels, background, corner, marks, rng)
        if insert:
            marks += self._insert(voxels, background, corner, place, marks, rng)
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
        self,
        voxels: NDArray[np.float32],
        background: Background,
        corner: NDArray[np.int_],
        place: NDArray[np.float64] | None,
        known: list[Mark],
        rng: Generator,
    ) -> list[Mark]:
        marks: list[Mark] = []
        for number in range(int(rng.integers(1, self.recipe.most_inserted + 1))):
            at = (
                place if number == 0 and place is not None else a_place(background, self.recipe.near_wall, rng)
            ) - corner
            piece = turned(self._donor(rng), rng)
            if _is_free(at, piece.diameter_mm, [*known, *marks]) and _inside(at, voxels.shape[0]):
                pasted = paste(voxels, piece, np.round(at), background.thickness_mm, rng)
                if pasted is not None:
                    marks.append(Mark(pasted.center_kji, pasted.diameter_mm, True))
        return marks

    def _donor(self, rng: Generator) -> Donor:
        """Any donor, those below 10 mm twice as often: they are what a scan mostly holds."""
        first, second = (self.donors[int(n)] for n in rng.integers(len(self.donors), size=2))
        return first if first.diameter_mm < 10 else second

    def _paste_decoy(
        self,
        voxels: NDArray[np.float32],
        background: Background,
        corner: NDArray[np.int_],
        known: list[Mark],
        rng: Generator,
    ) -> None:
        source = self.backgrounds[int(rng.choice(len(self.backgrounds), p=self._chances))]
        center = a_place(source, 0.2, rng)
        piece = decoy(source.voxels, np.round(center), rng)
        near = any(np.linalg.norm(center - m.center_kji) < m.diameter_mm / 2 + 22 for m in source.marks)
        at = a_place(background, 0.2, rng) - corner
        if piece is None or near or not _inside(at, voxels.shape[0]) or not _is_free(at, piece.diameter_mm, known):
            return
        paste(voxels, piece, np.round(at), background.thickness_mm, rng)


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


def _is_free(at: NDArray[np.float64], diameter_mm: float, known: Sequence[Mark]) -> bool:
    return all(np.linalg.norm(at - m.center_kji) > (diameter_mm + m.diameter_mm) / 2 + 5 for m in known)


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
