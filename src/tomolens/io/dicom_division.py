"""Slices of many files into stacks: what belongs together, and what only shares a SeriesInstanceUID."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from itertools import chain, combinations
from typing import TYPE_CHECKING

import numpy as np

from tomolens.io.dicom_header import MARKS
from tomolens.io.dicom_stack import SAME_PLACE_MM, Stack

if TYPE_CHECKING:
    from tomolens.io.dicom_slice import Slice

_SAME_COSINE = 1e-4
_SAME_SPACING = 1e-4
"""Cosines and pixel spacings (relative) that differ by less are equal: under 0.05 mm over a field of view of 500 mm."""


def stacks_of(slices: Iterable[Slice]) -> list[Stack]:
    """Divide slices into stacks of one patient, series, frame of reference, orientation, size and acquisition.

    Slices of one series that repeat a place are told apart by what their headers say (acquisition, time, echo, kind of
    image, ...); where nothing tells them apart they stay together, and the stack is not regular.
    """
    families: dict[Hashable, list[Slice]] = defaultdict(list)
    for item in slices:
        families[_family(item)].append(item)
    oriented = chain.from_iterable(_by_orientation(family) for family in families.values())
    return list(chain.from_iterable(_divided(Stack.of(group)) for group in oriented))


def _family(item: Slice) -> Hashable:
    series = item.series
    patient = (series.patient_id, series.study_uid)
    family = (*patient, series.uid, series.frame_of_reference, series.modality, item.is_localizer)
    size = (item.pixels.rows, item.pixels.columns)
    named = () if series.uid else (series.number, series.description, series.kernel)
    return (*family, *size, *named)


def _by_orientation(slices: list[Slice]) -> list[list[Slice]]:
    """Groups of the same orientation and pixel spacing, each compared with the first slice of the group."""
    groups: list[list[Slice]] = []
    for item in slices:
        group = next((g for g in groups if _same_plane(g[0], item)), None)
        if group is None:
            groups.append([item])
        else:
            group.append(item)
    return groups


def _same_plane(a: Slice, b: Slice) -> bool:
    if a.orientation == b.orientation and a.spacing == b.spacing:
        return True
    turned = np.abs(np.subtract(a.orientation, b.orientation)).max()
    stretched = np.abs(np.divide(a.spacing, b.spacing) - 1).max()
    return bool(turned < _SAME_COSINE and stretched < _SAME_SPACING)


def _divided(stack: Stack) -> list[Stack]:
    if stack.repeats:
        return list(chain.from_iterable(_by_thickness(part) for part in _by_marks(stack)))
    return _by_thickness(stack)


def _by_marks(stack: Stack) -> list[Stack]:
    """Divide by the first mark, or pair of marks, that leaves no place occupied twice and no more parts than needed."""
    differing = [n for n in range(len(MARKS)) if len({s.marks[n] for s in stack.slices}) > 1]
    needed = _times_occupied(stack)
    for chosen in chain(combinations(differing, 1), combinations(differing, 2)):
        parts = _parted(stack, [_told(s, chosen) for s in stack.slices])
        if len(parts) == needed and not any(part.repeats for part in parts):
            return parts
    return [stack]


def _told(item: Slice, chosen: tuple[int, ...]) -> str:
    return ", ".join(f"{MARKS[n]} {item.marks[n] or '(none)'}" for n in chosen)


def _by_thickness(stack: Stack) -> list[Stack]:
    """Divide at a change of slice thickness, as in a head CT of thin and thick slices, where each part is regular."""
    if stack.is_regular or stack.repeats:
        return [stack]
    parts = _parted(stack, [f"SliceThickness {s.depth}" for s in stack.slices])
    longest = max(len(part) for part in parts)
    return parts if longest > 1 and all(part.is_regular for part in parts) else [stack]


def _times_occupied(stack: Stack) -> int:
    """How many slices lie in the place that has most."""
    places = np.concatenate([[0], np.cumsum(stack.distances >= SAME_PLACE_MM)])
    return max(Counter(places.tolist()).values())


def _parted(stack: Stack, marks: list[str]) -> list[Stack]:
    """The stack divided by a mark for each slice, in order of the marks' first appearance."""
    members: dict[str, list[int]] = defaultdict(list)
    for k, mark in enumerate(marks):
        members[mark].append(k)
    before = f"{stack.mark}, " if stack.mark else ""
    return [stack.chosen(indices, before + mark) for mark, indices in members.items()]
