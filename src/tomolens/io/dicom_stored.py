"""Numbers as the 16-bit integers that DICOM's CT and MR images hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.errors import OutputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.volume import Volume

_FACTORS = (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01, 0.001)
_ENOUGH_STEPS = 1000
"""An MR image whose numbers span this many whole ones loses less by rounding than its noise hides."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A volume's numbers ``times`` a power of ten, rounded.

    CT is stored signed and its RescaleSlope is 1 / ``times``. An MR image has no such slope (PS3.3 A.4), so its numbers
    stay as they are but for rounding wherever that can be, and ``step`` says what was done to them.
    """

    values: NDArray[Any]
    times: float
    padding: int | None
    step: str = ""


def stored_numbers(volume: Volume) -> Stored:
    """Choose how a volume is stored: whole numbers exactly; others as finely as 16 bits allow, MR at best as they are.

    Raises
    ------
    OutputError
        If a number is none, or too large for the coarsest factor.
    """
    voxels = volume.voxels
    low, high = float(voxels.min()), float(voxels.max())
    if not np.isfinite((low, high)).all():
        raise OutputError(f"{volume.name} holds numbers that are none (NaN or infinite): it cannot be stored as DICOM.")
    is_ct = volume.modality == "CT"
    limits = np.iinfo(np.int16 if is_ct or low < 0 else np.uint16)
    whole = voxels.dtype.kind in "iu" or bool((voxels == np.rint(voxels)).all())
    first = 1.0 if whole or (not is_ct and high - low >= _ENOUGH_STEPS) else _FACTORS[0]
    fitting = (f for f in _FACTORS if f <= first and limits.min <= round(low * f) and round(high * f) <= limits.max)
    times = next(fitting, None)
    if times is None:
        raise OutputError(f"{volume.name} holds numbers from {low:g} to {high:g}, too large for 16-bit DICOM.")
    scaled = voxels if times == 1 else voxels.astype(np.float64) * times
    values = np.rint(scaled).astype(limits.dtype)
    padding = None if volume.padding is None else round(volume.padding * times)
    step = "" if is_ct or (whole and times == 1) else f"numbers stored times {times:g}, rounded"
    return Stored(values, times, padding, step)
