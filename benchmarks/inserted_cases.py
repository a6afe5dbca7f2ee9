"""Whole lungs with held-out nodules in them: the cases that the benchmarks of the detector are measured on.

Nodules of the ``open`` part of the data, which nothing is trained on, are put into free places of a held-out lung
(LIDC-IDRI-0314) and of phantoms whose seeds no training uses. They are turned at random but keep their own size and
density; ``altered`` cases change both, as training does, and know what texture that gave. Into the same lungs go
nodule-free balls of the same lung, pasted by the same recipe: whatever fires on these has learned the pasting.

What a lung held before (its own nodules, and marks that are neither nodule nor its absence) is ignored, by LUNA16's
rule for excluded findings. So is an inserted nodule of which less than a sphere of 4 mm can be seen. A mark on a
nodule-free ball is a false positive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomolens import Finding, Volume, read_volume
from tomolens.core.finding import TEXTURES
from tomolens.core.froc import MarkedScan, Spheres
from tomolens.core.metrics import size_class
from tomolens.phantoms.chest import chest_phantom
from tomolens.training.backgrounds import Background, background_of_scan
from tomolens.training.candidates import texture_class
from tomolens.training.nodules import Donor, Piece, decoy, paste, turned
from tomolens.training.sources import nodule_donors, read_marks

REAL_LUNG = "LIDC-IDRI-0314"
FIRST_PHANTOM_SEED = 9000
"""Training takes its phantoms from 100 upwards."""
NODULES_A_CASE = 8
CONTROLS_A_CASE = 4
LEAST_MM = 4.0
NEAR_WALL_SHARE = 0.4
APART_MM = 24.0
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


def held_out_nodules(shared: Path) -> list[Donor]:
    """The nodules of 4 mm and more that nothing was trained on."""
    return [donor for donor in nodule_donors(shared / "open") if donor.diameter_mm >= LEAST_MM]


def real_lung(shared: Path) -> Background:
    """The held-out lung."""
    folder = shared / "open" / "ct"
    marks = [read_marks(folder / f"annotations{part}.csv")[REAL_LUNG] for part in ("", "_excluded")]
    return background_of_scan(REAL_LUNG, read_volume(folder / REAL_LUNG), *marks)


def phantom_lung(seed: int) -> Background:
    """A phantom's lung with its own nodules known."""
    phantom = chest_phantom(seed)
    nodules = [(nodule.center_lps_mm, nodule.diameter_mm) for nodule in phantom.nodules]
    return background_of_scan(f"phantom {seed}", phantom.volume, nodules, kind="phantom")


def real_cases(lung: Background, donors: Sequence[Donor], count: int, *, altered: bool = False) -> Iterator[Case]:
    """Cases in one lung, each with other nodules at other places."""
    for number in range(count):
        yield case_of(lung, donors, number, altered=altered)


def phantom_cases(donors: Sequence[Donor], count: int) -> Iterator[Case]:
    """Cases in phantoms, each of another seed."""
    for seed in range(FIRST_PHANTOM_SEED, FIRST_PHANTOM_SEED + count):
        yield case_of(phantom_lung(seed), donors, seed)


def case_of(lung: Background, donors: Sequence[Donor], number: int, *, altered: bool = False) -> Case:
    """Put nodules, then nodule-free balls, into free places of a lung; the same number gives the same case."""
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
        self.lung, self.rng = lung, rng
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
        x, y, z = self.lung.grid.to_mm(seen[0]).tolist()
        texture, place = TEXTURES[texture_class(piece.texture)], "near the wall" if near_wall else "inner"
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
        return places[self.rng.integers(len(places))].astype(float)

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
        volume = Volume(self.voxels.astype(np.int16), self.lung.grid)
        return Case(name, volume, tuple(self.nodules), self._spheres(self.ignored), self._spheres(self.controls))

    def _spheres(self, known: Sequence[tuple[NDArray[np.float64], float]]) -> Spheres:
        centers = self.lung.grid.to_mm(np.array([center for center, _ in known]).reshape(-1, 3))
        return Spheres(centers, np.array([diameter for _, diameter in known]))
