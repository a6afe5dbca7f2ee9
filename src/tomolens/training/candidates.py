"""Training patches of the second stage: nodules, and what a detector takes for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tomolens.core.finding import TEXTURES
from tomolens.models.classifier import EDGE
from tomolens.models.tensors import normalised
from tomolens.training.backgrounds import Background, a_place, chances_of, cut
from tomolens.training.nodules import AIR_HU, BALLS_TRIED, SCENE_MM, Donor, altered_textures, decoy, paste, turned
from tomolens.training.scanner import another_scanner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator

Places = list[tuple[float, float, float]]

UNKNOWN = -1
"""The label of what is not known or not to be learned from this patch."""
_ROOM = EDGE + 16
_OTHER_NODULE_MM = 16.0


@dataclass(frozen=True)
class CandidateRecipe:
    """How patches are drawn.

    ``nodules`` is the share of patches with a nodule in their middle: ``as_found`` of them with as much of their own
    surroundings as was kept (malignancy and texture are learned from these, but not what a nodule is: the frame would
    tell), ``own`` of them in the lung where they grew (of scans and phantoms; a cube's nodule lies in its middle, so
    the cube's faces would tell, and is shown as found alone), the others blended into a lung, ``altered`` of these in
    size and density. ``subsolid`` of all these nodules are drawn from the ground-glass and part-solid ones alone. Of
    the patches without, ``decoys`` show a ball of another lung and ``anywhere`` a random place, the others a place that
    the detector marked; ``neighbours`` of all those have a nodule off their middle.
    """

    nodules: float = 0.5
    as_found: float = 0.35
    own: float = 0.1
    altered: float = 0.5
    subsolid: float = 0.3
    decoys: float = 0.1
    anywhere: float = 0.1
    neighbours: float = 0.15
    near_wall: float = 0.4
    jitter_mm: float = 1.5
    kinds: tuple[tuple[str, float], ...] = (("scan", 0.55), ("phantom", 0.25), ("cube", 0.2))


@dataclass(frozen=True)
class _Label:
    nodule: int
    malignancy: float = UNKNOWN
    texture: int = UNKNOWN


_NONE = _Label(0)
_UNRATED = _Label(1)


class CandidatePatches(Dataset[dict[str, torch.Tensor]]):
    """Patch ``n`` of a run: the same ``seed`` and ``n`` give the same patch on every machine and after every resume.

    ``marked`` holds for each background the places that a detector marked and that are no nodule. Without ``donors``
    the nodules are those of the backgrounds alone, of which nothing but that is known.
    """

    def __init__(
        self,
        backgrounds: Sequence[Background],
        donors: Sequence[Donor],
        marked: Sequence[Places],
        indices: Sequence[int],
        seed: int,
        recipe: CandidateRecipe,
    ) -> None:
        self.backgrounds, self.donors, self.marked = backgrounds, donors, marked
        self.indices, self.seed, self.recipe = indices, seed, recipe
        self._chances = chances_of(backgrounds, recipe.kinds, np.ones(len(backgrounds)))
        self._marked = chances_of(backgrounds, recipe.kinds, np.sqrt([len(places) for places in marked]))
        self._subsolid = [n for n, donor in enumerate(donors) if _is_subsolid(donor)]
        self._own = [n for n, b in enumerate(backgrounds) if b.kind != "cube" and any(mark.nodule for mark in b.marks)]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, self.indices[item]))
        voxels, label = self._nodule(rng) if rng.random() < self.recipe.nodules else self._false(rng)
        image = normalised(_turned_over(another_scanner(voxels, rng), rng))
        return {
            "image": image[None],
            "nodule": torch.tensor(float(label.nodule)),
            "malignancy": torch.tensor(float(label.malignancy)),
            "texture": torch.tensor(label.texture),
        }

    def _nodule(self, rng: Generator) -> tuple[NDArray[np.float32], _Label]:
        kind = rng.random()
        if not self.donors:
            return self._own_nodule(rng), _UNRATED
        if kind < self.recipe.as_found:
            donor = self._donor(rng)
            voxels = _middle(donor.scene.astype(np.float32), rng.uniform(-1, 1, 3))
            return voxels, replace(_label(donor, donor.texture, True), nodule=UNKNOWN)
        if kind < self.recipe.as_found + self.recipe.own and self._own:
            return self._own_nodule(rng), _UNRATED
        return self._pasted(rng)

    def _own_nodule(self, rng: Generator) -> NDArray[np.float32]:
        background = self.backgrounds[self._own[int(rng.integers(len(self._own)))]]
        nodules = [mark for mark in background.marks if mark.nodule]
        center = nodules[int(rng.integers(len(nodules)))].center_kji
        return self._around(background, np.asarray(center), rng)

    def _pasted(self, rng: Generator) -> tuple[NDArray[np.float32], _Label]:
        """A nodule blended into a lung; another place is tried where it drowns."""
        while True:
            background, at = self._clear_place(rng)
            voxels = _room(background, at)
            altered, donor = rng.random() < self.recipe.altered, self._donor(rng)
            piece = turned(donor, rng, altered=altered)
            pasted = paste(voxels, piece, np.full(3, _ROOM // 2), background.thickness_mm, rng)
            if pasted is not None:
                off = np.asarray(pasted.center_kji) - _ROOM // 2 + self._jitter(rng)
                return _middle(voxels, off), _label(donor, piece.texture, not altered)

    def _false(self, rng: Generator) -> tuple[NDArray[np.float32], _Label]:
        kind = rng.random()
        if kind < self.recipe.decoys:
            return self._decoy(rng), _NONE
        if kind < self.recipe.decoys + self.recipe.anywhere or not self._marked.any():
            return self._around(*self._clear_place(rng), rng), _NONE
        number = int(rng.choice(len(self.backgrounds), p=self._marked))
        at = self.marked[number][int(rng.integers(len(self.marked[number])))]
        return self._around(self.backgrounds[number], np.asarray(at), rng), _NONE

    def _decoy(self, rng: Generator) -> NDArray[np.float32]:
        """A ball of another lung of which something is seen; a clear place alone where no ball is."""
        background, at = self._clear_place(rng)
        voxels = _room(background, at)
        for _ in range(BALLS_TRIED):
            source, center = self._clear_place(rng)
            ball = decoy(source.voxels, np.round(center), rng)
            if ball is not None and paste(voxels, ball, np.full(3, _ROOM // 2), background.thickness_mm, rng):
                break
        return _middle(voxels, self._jitter(rng))

    def _around(self, background: Background, at: NDArray[np.float64], rng: Generator) -> NDArray[np.float32]:
        voxels = _room(background, at)
        if rng.random() < self.recipe.neighbours and self.donors:
            direction = rng.standard_normal(3)
            off = direction / np.linalg.norm(direction) * (_OTHER_NODULE_MM + rng.uniform(0, 8))
            donor = self._donor(rng)
            if donor.diameter_mm < _OTHER_NODULE_MM:
                piece = turned(donor, rng, altered=False)
                paste(voxels, piece, np.round(_ROOM // 2 + off), background.thickness_mm, rng)
        return _middle(voxels, self._jitter(rng))

    def _clear_place(self, rng: Generator) -> tuple[Background, NDArray[np.float64]]:
        """A random place in a random lung, away from every mark."""
        while True:
            background = self.backgrounds[int(rng.choice(len(self.backgrounds), p=self._chances))]
            at = a_place(background, self.recipe.near_wall, rng)
            if _is_clear(background, at):
                return background, at

    def _donor(self, rng: Generator) -> Donor:
        few = self._subsolid and rng.random() < self.recipe.subsolid
        number = int(rng.choice(self._subsolid)) if few else int(rng.integers(len(self.donors)))
        return self.donors[number]

    def _jitter(self, rng: Generator) -> NDArray[np.float64]:
        """Detectors are not exact."""
        return np.clip(rng.normal(0, self.recipe.jitter_mm, 3), -(SCENE_MM - EDGE) / 2, (SCENE_MM - EDGE) / 2)


def _is_subsolid(donor: Donor) -> bool:
    return donor.texture is not None and TEXTURES[texture_class(donor.texture)] != "solid"


def _label(donor: Donor, texture: int | None, as_it_was: bool) -> _Label:
    """What is known of a nodule with that rating of its texture; its malignancy only ``as_it_was``."""
    malignancy = donor.malignancy if as_it_was else None
    return _Label(
        1, UNKNOWN if malignancy is None else malignancy, UNKNOWN if texture is None else texture_class(texture)
    )


def texture_class(rating: int) -> int:
    """Index into `TEXTURES` of LIDC's texture rating: 1 and 2 ground glass, 3 part-solid, 4 and 5 solid."""
    return TEXTURES.index("ground glass" if rating <= 2 else "part-solid" if rating == 3 else "solid")


def oversampling(donors: Sequence[Donor], recipe: CandidateRecipe) -> NDArray[np.float64]:
    """How many times as often as among the donors each of `TEXTURES` is drawn, as a natural logarithm: (3,).

    A network whose texture logits were this much larger in training answers for nodules as common as the donors are
    (logit adjustment; Menon et al., 2021, arXiv:2007.07314). One more of each class is counted, so that none is 0.
    """
    subsolid = [donor for donor in donors if _is_subsolid(donor)]
    few = recipe.subsolid if subsolid else 0.0
    pasted = 1 - recipe.as_found - recipe.own
    altered = recipe.altered * pasted / max(pasted + recipe.as_found, 1e-6)
    natural, drawn = np.ones(len(TEXTURES)), np.ones(len(TEXTURES))
    for donor in donors:
        if donor.texture is None:
            continue
        natural[texture_class(donor.texture)] += 1
        often = 1 - few + (few * len(donors) / len(subsolid) if _is_subsolid(donor) else 0.0)
        drawn[texture_class(donor.texture)] += often * (1 - altered)
        for now, chance in altered_textures(donor.texture).items():
            drawn[texture_class(now)] += often * altered * chance
    return np.asarray(np.log(drawn / drawn.sum()) - np.log(natural / natural.sum()))


def _is_clear(background: Background, at: NDArray[np.float64]) -> bool:
    return all(np.linalg.norm(at - m.center_kji) > m.diameter_mm / 2 + 12 for m in background.marks)


def _room(background: Background, at: NDArray[np.float64]) -> NDArray[np.float32]:
    """The lung around a place, its middle at voxel ``_ROOM // 2``; air beyond the background, as in use."""
    voxels, valid = cut(background.voxels, np.round(at).astype(int) - _ROOM // 2, _ROOM)
    return np.asarray(np.where(valid, voxels, np.float32(AIR_HU)))


def _middle(voxels: NDArray[np.float32], off: NDArray[np.float64]) -> NDArray[np.float32]:
    """A cube of `EDGE` around the middle voxel and ``off``, as far as there is room."""
    size = voxels.shape[0]
    low = np.clip(np.round(size // 2 + off).astype(int) - EDGE // 2, 0, size - EDGE)
    return voxels[tuple(slice(a, a + EDGE) for a in low)]


def _turned_over(voxels: NDArray[np.float32], rng: Generator) -> NDArray[np.float32]:
    """Flip each axis or not, and swap rows and columns or not.

    A cube of even size is flipped about a voxel, not about its middle, by less than the detector errs.
    """
    voxels = np.flip(voxels, tuple(np.flatnonzero(rng.random(3) < 0.5).tolist()))
    return np.ascontiguousarray(voxels.swapaxes(1, 2) if rng.random() < 0.5 else voxels)
