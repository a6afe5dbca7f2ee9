"""Whole lungs with nodules put into them, so that every nodule is known: what detectors are calibrated and judged on.

Nodules are turned at random but keep their own size and density; ``altered`` cases change both, as training does, and
know what texture that gave. Into the same lungs go nodule-free balls of the same lung, pasted by the same recipe:
whatever fires on these has learned the pasting.

What a lung held before (its own nodules, and marks that are neither nodule nor its absence) is ignored, by LUNA16's
rule for excluded findings. So is an inserted nodule of which less than a sphere of 4 mm can be seen. A mark on a
nodule-free ball is a false positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tomolens.core.errors import ContractError
from tomolens.core.finding import TEXTURES
from tomolens.core.froc import MarkedScan, Spheres
from tomolens.core.metrics import size_class
from tomolens.core.volume import Volume
from tomolens.training.candidates import texture_class
from tomolens.training.nodules import Donor, Piece, decoy, paste, turned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tomolens.core.finding import Finding
    from tomolens.training.backgrounds import Background

NODULES_A_CASE = 8
CONTROLS_A_CASE = 4
LEAST_MM = 4.0
NEAR_WALL_SHARE = 0.4
APART_MM = 24.0
NOT_RATED = "not rated"
"""Texture of an inserted nodule of which nobody said it."""
_TRIES = 400
_SEED = 77


@dataclass(frozen=True)
class Inserted:
    """A nodule that was put into a lung: what is seen of it, what it is and where it comes from."""

    center_lps_mm: tuple[float, float, float]
    diameter_mm: float
    texture: str
    place: str
    donor: str


@dataclass(frozen=True, eq=False)
class Case:
    """A volume and what is known in it."""

    name: str
    volume: Volume
    nodules: tuple[Inserted, ...]
    ignored: Spheres
    controls: Spheres

    @property
    def centers_lps_mm(self) -> NDArray[np.float64]:
        """(n, 3), of the nodules."""
        return np.array([nodule.center_lps_mm for nodule in self.nodules]).reshape(-1, 3)

    @property
    def known(self) -> Spheres:
        """The nodules' places."""
        return Spheres(self.centers_lps_mm, np.array([nodule.diameter_mm for nodule in self.nodules]))

    def marked(self, findings: Sequence[Finding]) -> MarkedScan:
        """The case with a detector's marks, ready to be scored."""
        return MarkedScan(
            self.name,
            np.array([finding.center_lps_mm for finding in findings]).reshape(-1, 3),
            np.array([finding.score for finding in findings]),
            self.known,
            self.ignored,
            {
                "size": tuple(size_class(nodule.diameter_mm) for nodule in self.nodules),
                "texture": tuple(nodule.texture for nodule in self.nodules),
                "place": tuple(nodule.place for nodule in self.nodules),
            },
        )


def case_of(lung: Background, donors: Sequence[Donor], number: int, *, altered: bool = False) -> Case:
    """Put nodules, then nodule-free balls, into free places of a lung; the same number gives the same case.

    Raises
    ------
    ContractError
        If the lung is a cube without a place in a patient.
    """
    filling = _Filling(lung, np.random.default_rng((_SEED, number, altered)))
    for _ in range(_TRIES):
        if len(filling.nodules) < NODULES_A_CASE:
            filling.add_nodule(donors, altered)
        elif len(filling.controls) < CONTROLS_A_CASE:
            filling.add_control()
    return filling.case(f"{lung.name}, {'altered ' if altered else ''}case {number}")


class _Filling:
    """A lung while things are put into it; places are in its voxels of 1 mm."""

    def __init__(self, lung: Background, rng: np.random.Generator) -> None:
        if lung.grid is None:
            raise ContractError(f"{lung.name} has no place in a patient; nodules are put into whole scans.")
        self.lung, self.grid, self.rng = lung, lung.grid, rng
        self.voxels = lung.voxels.astype(np.float32)
        self.known = [(np.array(mark.center_kji), max(mark.diameter_mm, 6.0)) for mark in lung.marks]
        self.taken, self.ignored = list(self.known), list(self.known)
        self.controls: list[tuple[NDArray[np.float64], float]] = []
        self.nodules: list[Inserted] = []

    def add_nodule(self, donors: Sequence[Donor], altered: bool) -> None:
        donor = donors[int(self.rng.integers(len(donors)))]
        piece = turned(donor, self.rng, altered=altered)
        near_wall = bool(self.rng.random() < NEAR_WALL_SHARE)
        seen = self._paste(piece, self._place(near_wall))
        if seen and seen[1] >= LEAST_MM:
            self.nodules.append(self._inserted(donor, piece, seen, near_wall))
        elif seen:
            self.ignored.append((seen[0], max(seen[1], 6.0)))

    def _inserted(
        self, donor: Donor, piece: Piece, seen: tuple[NDArray[np.float64], float], near_wall: bool
    ) -> Inserted:
        x, y, z = self.grid.to_mm(seen[0]).tolist()
        texture = NOT_RATED if piece.texture is None else TEXTURES[texture_class(piece.texture)]
        place = "near the wall" if near_wall else "inner"
        return Inserted((x, y, z), seen[1], texture, place, donor.name)

    def add_control(self) -> None:
        center = self.lung.inner[self.rng.integers(len(self.lung.inner))]
        if any(np.linalg.norm(center - known) < diameter / 2 + 12 for known, diameter in self.known):
            return
        ball = decoy(self.lung.voxels, center, self.rng)
        seen = ball and self._paste(ball, self._place(bool(self.rng.random() < NEAR_WALL_SHARE)))
        if seen:
            self.controls.append(seen)

    def _place(self, near_wall: bool) -> NDArray[np.float64]:
        places = self.lung.near_wall if near_wall else self.lung.inner
        return np.asarray(places[self.rng.integers(len(places))], float)

    def _paste(self, piece: Piece, at: NDArray[np.float64]) -> tuple[NDArray[np.float64], float] | None:
        """Where it is seen, and the diameter of that; None where there is no room or it drowns."""
        if any(np.linalg.norm(at - center) < diameter / 2 + APART_MM for center, diameter in self.taken):
            return None
        pasted = paste(self.voxels, piece, at, self.lung.thickness_mm, self.rng)
        if pasted is None:
            return None
        seen = (np.array(pasted.center_kji), pasted.diameter_mm)
        self.taken.append(seen)
        return seen

    def case(self, name: str) -> Case:
        volume = Volume(self.voxels.astype(np.int16), self.grid)
        return Case(name, volume, tuple(self.nodules), self._spheres(self.ignored), self._spheres(self.controls))

    def _spheres(self, known: Sequence[tuple[NDArray[np.float64], float]]) -> Spheres:
        centers = self.grid.to_mm(np.array([center for center, _ in known]).reshape(-1, 3))
        return Spheres(centers, np.array([diameter for _, diameter in known]))
