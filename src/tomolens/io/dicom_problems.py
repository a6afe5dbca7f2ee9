"""What a reader of a stack should know, and what keeps it from being a volume.

The kinds of `Problem`. Refused: ``repeated-positions``, ``missing-slice``, ``unequal-spacing``, ``shifted-slices``,
``localizer``, ``modality-lut``, ``rescale-slope``, ``transfer-syntax``, ``not-hu``. Said only: ``empty-series-uid``,
``divided-series``, ``duplicate-instances``, ``no-thickness``, ``gantry-tilt``, ``mixed-acquisition``, ``mosaic``,
``lossy-compression``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tomolens.core.series import Problem
from tomolens.io.dicom_header import MARKS
from tomolens.io.dicom_pixels import is_supported, syntax_name

if TYPE_CHECKING:
    from tomolens.io.dicom_slice import Slice
    from tomolens.io.dicom_stack import Stack

_NAMED_GAPS = 3
_NAMED_VALUES = 5
_ALIKE = ("ConvolutionKernel", "SliceThickness", "KVP")
"""What the slices of one acquisition have in common."""


def problems_of(stack: Stack) -> tuple[Problem, ...]:
    """Every problem of a stack, from its headers alone."""
    return (*_placing(stack), *_numbers(stack))


def _placing(stack: Stack) -> Iterator[Problem]:
    """Problems of where the slices are."""
    first = stack.slices[0]
    if not first.series.uid:
        yield Problem("empty-series-uid", "SeriesInstanceUID is empty; slices were gathered by study, place and size.")
    if stack.mark:
        yield Problem("divided-series", f"The series holds more than one volume; these slices have {stack.mark}.")
    if stack.copies:
        yield Problem("duplicate-instances", _copies(stack))
    if stack.repeats:
        yield Problem("repeated-positions", _repeats(stack), refused=True)
    elif not stack.is_regular:
        yield _irregular(stack)
    elif len(stack) == 1 and first.depth is None:
        yield Problem("no-thickness", f"{first.where} does not say how thick its only slice is; 1 mm is assumed.")
    if stack.is_regular and stack.grid().is_sheared:
        tilt = stack.grid().tilt_degrees
        yield Problem("gantry-tilt", f"The gantry was tilted by {tilt:.1f} degrees: the slices are sheared.")


def _copies(stack: Stack) -> str:
    copy, original = stack.copies[0]
    more = f" and {len(stack.copies) - 1} more" if len(stack.copies) > 1 else ""
    return f"{copy.path.name} repeats the instance of {stack.slices[original].where}{more}; each is used once."


def _repeats(stack: Stack) -> str:
    k = int(np.argmin(stack.distances))
    return (
        f"{stack.repeats} of {len(stack)} slices lie where another one lies, e.g. {_between(stack, k)}, and neither "
        "acquisition, time, echo nor kind of image tells them apart."
    )


def _irregular(stack: Stack) -> Problem:
    usual = f"the usual distance between slices is {stack.usual_distance:.2f} mm"
    if stack.missing:
        count = sum(stack.missing)
        subject = "1 slice is" if count == 1 else f"{count} slices are"
        return Problem("missing-slice", f"{subject} missing: {_gaps(stack)}; {usual}.", refused=True)
    if stack.gaps:
        return Problem("unequal-spacing", f"Slices are not equally far apart: {_gaps(stack)}; {usual}.", refused=True)
    message = (
        f"Slices lie up to {stack.deviation_mm:.2f} mm from a regular grid, at most {stack.tolerance_mm:.2f} will do."
    )
    return Problem("shifted-slices", message, refused=True)


def _gaps(stack: Stack) -> str:
    named = [
        f"{stack.distances[k]:.2f} mm between {_between(stack, k)}"
        f" (at {stack.heights[k]:.2f} and {stack.heights[k + 1]:.2f} mm)"
        for k in stack.gaps[:_NAMED_GAPS]
    ]
    more = len(stack.gaps) - _NAMED_GAPS
    return "; ".join([*named, f"and {more} more gaps"] if more > 0 else named)


def _between(stack: Stack, k: int) -> str:
    return f"{stack.slices[k].where} and {stack.slices[k + 1].where}"


def _numbers(stack: Stack) -> Iterator[Problem]:
    """Problems of what the pixels mean."""
    first = stack.slices[0]
    mixed = tuple(_mixed(stack))
    if mixed:
        yield Problem("mixed-acquisition", f"Its slices were not all made alike: {'; '.join(mixed)}.")
    if first.is_localizer:
        yield Problem("localizer", "A scout (ImageType LOCALIZER), not a stack of slices.", refused=True)
    if "MOSAIC" in first.image_type:
        yield Problem(
            "mosaic", "A mosaic: each image shows many slices side by side; places across tiles are not real."
        )
    if any(s.is_lossy for s in stack.slices):
        yield Problem(
            "lossy-compression", "Its pixels were once compressed with loss: small densities may have changed."
        )
    if any(s.rescale.has_table for s in stack.slices):
        yield Problem("modality-lut", "Its numbers come from a table (Modality LUT), which is not read.", refused=True)
    sloping = next((s for s in stack.slices if not _is_slope(s)), None)
    if sloping is not None:
        yield Problem("rescale-slope", _no_slope(sloping), refused=True)
    undecodable = next((s for s in stack.slices if not is_supported(s.pixels)), None)
    if undecodable is not None:
        name = syntax_name(undecodable.pixels.transfer_syntax)
        yield Problem(
            "transfer-syntax", f"The pixels of {undecodable.where} are stored as {name}: no decoder.", refused=True
        )
    unlike = next((s for s in stack.slices if s.series.modality == "CT" and not is_hu(s)), None)
    if unlike is not None and not first.is_localizer:
        yield Problem("not-hu", _not_hu(unlike), refused=True)


def _mixed(stack: Stack) -> Iterator[str]:
    for keyword in _ALIKE:
        stated = Counter(filter(None, (_plain(s.marks[MARKS.index(keyword)]) for s in stack.slices)))
        if len(stated) > 1:
            named = [f"{value} in {count}" for value, count in stated.most_common(_NAMED_VALUES)]
            yield f"{keyword} is {', '.join(named)}{', ...' if len(stated) > _NAMED_VALUES else ''} slices"


def _plain(value: str) -> str:
    """A number as it is written shortest, any other text as it is."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def _is_slope(item: Slice) -> bool:
    """Whether the rescale slope can be meant: 0 makes all numbers one, and in HU the denser is the greater."""
    return item.rescale.slope > 0 or (item.rescale.slope < 0 and item.series.modality != "CT")


def _no_slope(item: Slice) -> str:
    accepted = "a slope above 0" if item.series.modality == "CT" else "a slope other than 0"
    return f"RescaleSlope of {item.where} is {item.rescale.slope:g}; {accepted} is accepted."


def is_hu(item: Slice) -> bool:
    """Whether a CT slice's rescaled numbers are Hounsfield units.

    Rescale Type is required where the numbers are not HU (PS3.3 C.8.2.1), so none means HU, as does ``HU`` itself. An
    original image other than a localizer is in HU whatever it says, unless it is multi-energy (same paragraph); many
    scanners write ``US`` (unspecified) there. A derived image marked ``US`` may be a perfusion map.
    """
    if not item.rescale.stated:
        return False
    kind = item.rescale.type.upper()
    return kind in ("", "HU") or (kind == "US" and item.image_type[:1] == ("ORIGINAL",) and not item.is_multienergy)


def _not_hu(item: Slice) -> str:
    if not item.rescale.stated:
        return f"{item.where} has no Rescale Slope and Intercept, so its numbers cannot be taken for Hounsfield units."
    kind = "\\".join(item.image_type)
    return f"The numbers of {item.where} are not Hounsfield units: RescaleType {item.rescale.type!r}, ImageType {kind}."
