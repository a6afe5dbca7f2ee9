"""The headers of the slices that something was made from: which came from which, and what of a header still holds.

Kept are who the patient is, the study, how the images were acquired, and what a viewer needs to show them. Left out are
what describes other pixels (the smallest value, overlays, ...), the equipment that made them, and private elements:
nobody but their maker knows whether these still hold.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from tomolens.core.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataelem import DataElement

    from tomolens.core.grid import Grid
    from tomolens.core.series import Series

_KEPT_GROUPS = (0x0010, 0x0012, 0x0018)
"""Patient, de-identification and clinical trial, acquisition."""
_KEPT = frozenset(
    (
        "StudyDate StudyTime AcquisitionDate AcquisitionTime AcquisitionDateTime AccessionNumber"
        " IssuerOfAccessionNumberSequence ReferringPhysicianName StudyDescription ProcedureCodeSequence"
        " AnatomicRegionSequence TimezoneOffsetFromUTC StudyInstanceUID StudyID AcquisitionNumber FrameOfReferenceUID"
        " PositionReferenceIndicator Laterality ImageLaterality TemporalPositionIdentifier NumberOfTemporalPositions"
        " BurnedInAnnotation RecognizableVisualFeatures QualityControlImage LongitudinalTemporalInformationModified"
        " LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod WindowCenter WindowWidth"
        " WindowCenterWidthExplanation VOILUTFunction"
    ).split()
)
_EQUIPMENT = (
    "Manufacturer InstitutionName StationName ManufacturerModelName DeviceSerialNumber SoftwareVersions"
    " DateOfLastCalibration TimeOfLastCalibration SpatialResolution"
).split()
"""Of PS3.3 C.7.5.1; of a derived image it is the equipment that derived it."""
_ENHANCED = 0x9000
"""Elements of group 18 from here on are those of enhanced objects, which a single slice does not have."""
_NEIGHBOUR = 0.9
"""A source lies within this share of the sources' distance of a slice that was made from it."""


@dataclass(frozen=True, eq=False)
class Source:
    """One slice that something was made from: its header without pixels, and its frame from 1 in a file of several."""

    header: Dataset
    frame: int | None = None


def read_sources(series: Series) -> tuple[Source, ...]:
    """The headers of a series' slices, in their order; of a file of several frames each frame's own.

    Raises
    ------
    OutputError
        If a file is gone or its header cannot be understood.
    """
    wanted: dict[Path, list[tuple[int, int]]] = defaultdict(list)
    for k, (path, frame) in enumerate(zip(series.files, series.frames or (0,) * len(series.files), strict=True)):
        wanted[path].append((k, frame))
    found: dict[int, Source] = {}
    with pydicom.config.disable_value_validation():
        for path, slices in wanted.items():
            found.update(zip((k for k, _ in slices), _read(path, [frame for _, frame in slices]), strict=True))
    return tuple(found[k] for k in sorted(found))


def _read(path: Path, frames: Sequence[int]) -> list[Source]:
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        if "PerFrameFunctionalGroupsSequence" not in dataset:
            return [Source(dataset)]
        return [Source(_flat(dataset, frame), frame + 1) for frame in frames]
    except Exception as broken:  # pydicom meets broken values with many kinds of error
        raise OutputError(
            f"{path}, from which a derived series would take its header, cannot be read ({broken})."
        ) from broken


def _flat(dataset: Dataset, frame: int) -> Dataset:
    """The header of one frame: the functional groups (PS3.3 C.7.6.16) laid flat over that of the file."""
    flat = Dataset()
    flat.update({element.tag: element for element in dataset if element.VR != "SQ"})
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    for group in (*shared, dataset.PerFrameFunctionalGroupsSequence[frame]):
        for macro in group:
            if macro.VR == "SQ" and macro.value and not macro.tag.is_private:
                flat.update({element.tag: element for element in macro.value[0]})
    return flat


def still_true(header: Dataset) -> Dataset:
    """What of a source's header holds of whatever was made from its pixels; a value that cannot be read is left out."""
    kept = Dataset()
    for tag in list(header.keys()):
        keyword = keyword_for_tag(tag)
        acquired = tag.group in _KEPT_GROUPS and not (tag.group == 0x0018 and tag.element >= _ENHANCED)
        if keyword and keyword not in _EQUIPMENT and (acquired or keyword in _KEPT):
            with suppress(Exception):  # pydicom meets broken values with many kinds of error
                kept.add(_decoded(header[tag]))
    for paired in ("Laterality", "ImageLaterality", "InversionTime"):  # absent rather than empty (type 2C)
        if paired in kept and kept[paired].is_empty:
            del kept[paired]
    return kept


def _decoded(element: DataElement) -> DataElement:
    """An element whose texts, also those in the items of a sequence, can be written in any character set."""
    for item in element.value if element.VR == "SQ" else ():
        item.decode()
    return element


def contributed_to(header: Dataset) -> list[Dataset]:
    """The items of a source's own Contributing Equipment Sequence."""
    items = header.get("ContributingEquipmentSequence") or ()
    for item in items:
        item.decode()
    return list(items)


def equipment_of(header: Dataset) -> Dataset | None:
    """What made a source, as an item of the Contributing Equipment Sequence; None where its header does not say."""
    item = Dataset()
    stated = (header[keyword] for keyword in _EQUIPMENT if keyword in header)
    item.update({element.tag: element for element in stated if not element.is_empty})
    return item if "Manufacturer" in item else None


def sources_of(grid: Grid, sources: Sequence[Source], neighbours: int = 0) -> list[list[Source]]:
    """For each slice of a grid the sources that it was made from, the nearest first.

    Where slices lie parallel to the sources these are the sources that a slice lies on or between, or that a thicker
    slice covers, and so many ``neighbours`` on each side; in any other orientation all of them.
    """
    normal, heights = _heights(sources)
    mine = np.cross(grid.directions[2], grid.directions[1])
    if abs(float(normal @ mine)) < 0.999:
        return [list(sources)] * grid.shape[0]
    apart = _apart_mm(heights)
    covered = 0.5 * abs(float(grid.affine[:3, 0] @ normal)) + 1e-3
    reach = max(_NEIGHBOUR * apart, covered, (neighbours + 1 - _NEIGHBOUR) * apart)
    near = (_near(heights, float(grid.to_mm((k, 0, 0)) @ normal), reach) for k in range(grid.shape[0]))
    return [[sources[n] for n in numbers] for numbers in near]


def overlap_mm(sources: Sequence[Source]) -> float:
    """By how much slices are thicker than they are far apart, negative where they leave gaps; 0 where it is not known.

    The distance is that along their normal, also under a tilted gantry.
    """
    apart, thick = _apart_mm(_heights(sources)[1]), sources[0].header.get("SliceThickness")
    return float(thick) - apart if thick and apart else 0.0


def _heights(sources: Sequence[Source]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The normal of the sources, and how far along it each lies, in mm."""
    orientation = np.array([float(v) for v in sources[0].header.ImageOrientationPatient]).reshape(2, 3)
    normal = np.cross(*orientation)
    return normal, np.array([[float(v) for v in s.header.ImagePositionPatient] for s in sources]) @ normal


def _apart_mm(heights: NDArray[np.float64]) -> float:
    return float(np.diff(np.sort(heights)).mean()) if len(heights) > 1 else 0.0


def _near(heights: NDArray[np.float64], height: float, reach: float) -> tuple[int, ...]:
    away = np.abs(heights - height)
    order = np.argsort(away, kind="stable")
    return tuple(int(n) for n in order if away[n] <= reach) or (int(order[0]),)
