"""Padding that a file does not name: what a CT holds outside its round field of view."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tomolens.core.volume import Unit

if TYPE_CHECKING:
    from tomolens.core.volume import Volume

LEAST_AIR_HU = -1100
"""Noise in air goes lower, in few voxels and to many values."""
_LEAST_VOXELS, _LEAST_SHARE = 100, 0.001


def with_padding_found(volume: Volume) -> Volume:
    """The volume, the least number of a CT without named padding taken for that where nothing else can be meant.

    It is below any air, at least a hundred voxels and a thousandth of all have it, and a tenth as many at most lie
    between it and air. The history says so.
    """
    if volume.unit is not Unit.HU or volume.padding is not None:
        return volume
    low = float(volume.voxels.min())
    if low >= LEAST_AIR_HU:
        return volume
    count = np.count_nonzero(volume.voxels == low)
    between = np.count_nonzero(volume.voxels < LEAST_AIR_HU) - count
    if count < max(_LEAST_VOXELS, _LEAST_SHARE * volume.voxels.size) or between > count / 10:
        return volume
    step = f"{low:g} HU, in {count / volume.voxels.size:.1%} of the voxels, was taken for padding: the file names none"
    return replace(volume, padding=low, history=(*volume.history, step))
