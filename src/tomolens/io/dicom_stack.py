"""Slices in their order: what is one regular grid, what is not, and why.

Two facts carry everything here (PS3.3 C.7.6.2.1.1): a slice lies where Image Position and Image Orientation say, and
nothing else (Instance Number, Slice Location, Spacing Between Slices, file names) says where. So slices are sorted by
the projection of their position on the common normal, and the distance between slices is measured, never read.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tomolens.core.errors import GeometryError
from tomolens.core.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tomolens.io.dicom_slice import Slice

SAME_PLACE_MM = 0.01
"""Slices closer than this lie in the same place."""
_LARGEST_SHIFT_MM = 0.1
_LARGEST_SHIFT = 0.2
"""A slice may lie this far from its place in the regular grid: a fifth of the distance between slices, and never more
than 0.1 mm. Scanners that write positions with one decimal stay within it; a missing slice never does."""
_ASSUMED_THICKNESS_MM = 1.0


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices of one size and orientation, sorted along their normal.

    ``copies`` are files that repeat an instance of ``slices``, each beside the index of the slice that it repeats.
    ``mark`` says what tells these slices from others of their series, where a series had to be divided.
    """

    slices: tuple[Slice, ...]
    copies: tuple[tuple[Slice, int], ...] = ()
    mark: str = ""

    @classmethod
    def of(cls, slices: list[Slice]) -> Stack:
        """Sort slices of one orientation and set copies of an instance aside."""
        normal = normal_of(slices[0])
        ordered = sorted(slices, key=lambda s: (float(normal @ s.position), s.instance_number, str(s.path), s.frame))
        kept: list[Slice] = []
        copies: list[tuple[Slice, int]] = []
        places: dict[tuple[str, int], int] = {}
        for item in ordered:
            name = (item.instance_uid, item.frame)
            original = places.get(name) if item.instance_uid else None
            if original is not None and _distance(item, kept[original]) < SAME_PLACE_MM:
                copies.append((item, original))
            else:
                places[name] = len(kept)
                kept.append(item)
        return cls(tuple(kept), tuple(copies))

    def __len__(self) -> int:
        return len(self.slices)

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """(slices, 3) LPS mm: the centre of each slice's first pixel."""
        return np.array([s.position for s in self.slices])

    @cached_property
    def heights(self) -> NDArray[np.float64]:
        """(slices,) mm along the normal, rising."""
        return self.positions @ normal_of(self.slices[0])

    @cached_property
    def distances(self) -> NDArray[np.float64]:
        """(slices - 1,) mm along the normal between neighbours."""
        return np.diff(self.heights)

    @cached_property
    def usual_distance(self) -> float:
        """The distance between slices that most neighbours have, in mm; 0 for a single slice."""
        distances = np.sort(self.distances)
        return float(distances[(len(distances) - 1) // 2]) if len(distances) else 0.0

    @property
    def tolerance_mm(self) -> float:
        """How far a slice may lie from its place in the regular grid."""
        return min(_LARGEST_SHIFT_MM, _LARGEST_SHIFT * self.usual_distance)

    @property
    def repeats(self) -> int:
        """How many slices lie where the slice before them lies."""
        return int((self.distances < SAME_PLACE_MM).sum())

    @cached_property
    def deviation_mm(self) -> float:
        """The farthest that a slice lies from the regular, perhaps sheared, grid between the first and the last."""
        wanted = self.positions[0] + np.arange(len(self))[:, None] * self.step
        return float(np.linalg.norm(self.positions - wanted, axis=1).max())

    @property
    def is_regular(self) -> bool:
        """Whether every slice lies on a regular grid, sheared or not."""
        return not self.repeats and self.deviation_mm <= self.tolerance_mm

    @property
    def gaps(self) -> tuple[int, ...]:
        """Indices of the slices after which the distance is not the usual one."""
        odd = np.abs(self.distances - self.usual_distance) > 2 * self.tolerance_mm
        return tuple(int(k) for k in np.flatnonzero(odd))

    @property
    def missing(self) -> tuple[int, ...]:
        """How many slices are missing in each gap; empty where a gap is no multiple of the usual distance."""
        ratios = self.distances[list(self.gaps)] / max(self.usual_distance, SAME_PLACE_MM)
        counts = np.round(ratios)
        whole = np.abs(ratios - counts) * self.usual_distance <= 2 * self.tolerance_mm
        return tuple(int(n) - 1 for n in counts) if whole.all() and (counts > 1).all() else ()

    def chosen(self, indices: Iterable[int], mark: str = "") -> Stack:
        """Some of the slices, in the order of ``indices``, and their copies."""
        places = {k: n for n, k in enumerate(indices)}
        copies = tuple((copy, places[k]) for copy, k in self.copies if k in places)
        return Stack(tuple(self.slices[k] for k in places), copies, mark or self.mark)

    def longest_run(self) -> tuple[int, int]:
        """The first and the past-the-last index of the longest run of equal distances; the first of several."""
        edges = [0, *(k + 1 for k in self.gaps), len(self)]
        runs = list(itertools.pairwise(edges))
        return max(runs, key=lambda run: run[1] - run[0])

    def grid(self) -> Grid:
        """The grid of the slices; sheared where they are shifted against each other, as under a tilted gantry.

        Raises
        ------
        GeometryError
            If the slices are not regular.
        """
        if not self.is_regular:
            raise GeometryError("These slices do not lie on a regular grid.")
        first = self.slices[0]
        affine = np.eye(4)
        affine[:3, 0] = self.step
        affine[:3, 1] = np.asarray(first.orientation[3:]) * first.spacing[0]
        affine[:3, 2] = np.asarray(first.orientation[:3]) * first.spacing[1]
        affine[:3, 3] = first.position
        shape = (len(self), first.pixels.rows, first.pixels.columns)
        return Grid(shape, affine, first.series.frame_of_reference)

    @cached_property
    def step(self) -> NDArray[np.float64]:
        """From one slice to the next, LPS mm; a single slice is as far from the next as it is thick."""
        if len(self) == 1:
            return normal_of(self.slices[0]) * (self.slices[0].depth or _ASSUMED_THICKNESS_MM)
        return np.asarray((self.positions[-1] - self.positions[0]) / (len(self) - 1))


def normal_of(item: Slice) -> NDArray[np.float64]:
    """The unit normal of a slice, LPS: row cosines x column cosines."""
    return np.cross(item.orientation[:3], item.orientation[3:])


def _distance(a: Slice, b: Slice) -> float:
    return float(np.linalg.norm(np.subtract(a.position, b.position)))
