r"""A volume that was made from a DICOM series, as a DICOM series of its own.

Every image is a classic single-frame CT or MR image, explicit little endian, DERIVED\SECONDARY (PS3.3 C.7.6.1.1.2),
with new UIDs, in the study and the frame of reference of its source. Each names the source images that it was made from
(purpose 121322, CID 7202); what was done stands in DerivationDescription, one step a line, from where reading a series
takes it into a volume's history. The equipment is Tomolens, and the scanner stands among what contributed (PS3.3
C.12.1.1.5): 109101 acquired, 109102 processed. The patient's name and ID are those of the source.

UIDs follow from the sources, from what was done and from the numbers themselves. A run that is repeated gives the same
images with the same UIDs, which an archive knows; one that gives other numbers, on another device perhaps, never bears
the UID of the first.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from tomolens.core.errors import OutputError
from tomolens.core.finding import RESEARCH_USE
from tomolens.core.reconstruction import GENERATIVE
from tomolens.io.atomic import whole_file
from tomolens.io.dicom_sources import (
    Source,
    contributed_to,
    equipment_of,
    overlap_mm,
    read_sources,
    sources_of,
    still_true,
)
from tomolens.io.dicom_stored import Stored, stored_numbers
from tomolens.io.dicom_uids import named_uid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tomolens.core.grid import Grid
    from tomolens.core.series import Series
    from tomolens.core.volume import Volume

CODES = {
    "smoothing": ("113087", "Smoothing"),
    "resampling": ("113085", "Spatial resampling"),
    "addition": ("113042", "Pixel by pixel addition"),
    "mean": ("113049", "Pixel by pixel mean"),
}
"""Image derivations of CID 7203."""
SOURCE_IMAGE = ("121322", "Source image for image processing operation")
ACQUIRED = ("109101", "Acquisition Equipment")
PROCESSED = ("109102", "Processing Equipment")
_LONGEST_DESCRIPTION, _LONGEST_TEXT = 64, 1024
"""Characters of an LO and an ST (PS3.5 6.2)."""
_SAME_COSINE, _SAME_SPACING_MM, _SAME_MM = 1e-4, 1e-4, 0.1
"""How far an image may lie from its source and still be called the same place: what a regular grid forgives."""
_PLACE = (
    "Rows Columns ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness SpacingBetweenSlices"
    " SliceLocation"
).split()
_TIMED = ("Series", "Content", "InstanceCreation")
_FIRST_NUMBER = 1000
"""Added to the source's SeriesNumber."""
_SOP_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage}
_NEEDED = {
    "": "StudyDate StudyTime AccessionNumber ReferringPhysicianName StudyID PatientName PatientID PatientBirthDate"
    " PatientSex PositionReferenceIndicator AcquisitionNumber",
    "CT": "KVP",
    "MR": "ScanOptions MRAcquisitionType EchoTime EchoTrainLength",
}
"""Elements of type 2: they are there, and empty where nobody knows their value."""
_SEQUENCES = {"SPIN": "SE", "GRADIENT": "GR"}


@dataclass(frozen=True)
class Derivation:
    """What made a series, as its header says it.

    Parameters
    ----------
    label
        Opens SeriesDescription, before that of the source, e.g. ``denoised by ct-unet``.
    code
        The key of `CODES` that comes nearest.
    method
        What did it, with its version and the hash of its weights.
    started
        UTC time, ISO 8601; now where empty.
    neighbours
        How many slices of the source on each side of a slice it was made from too.
    """

    label: str
    code: str
    method: str = ""
    started: str = ""
    neighbours: int = 0


def write_derived_series(volume: Volume, folder: Path | str, derivation: Derivation) -> list[Path]:
    """Write a volume that was made from a DICOM series as a derived series, one file a slice.

    Parameters
    ----------
    volume
        CT or MR, whose ``series`` says which files it came from; these are read again for their headers and are not
        changed. Its grid may have other slices, rows and columns than the source.
    folder
        Made where it is absent.

    Returns
    -------
    list of Path
        The files in the order of the slices k; `tomolens.read_volume` reads the volume back.

    Raises
    ------
    OutputError
        If the volume came from no DICOM series, is neither CT nor MR, its rows and columns are not at right angles, a
        number cannot be stored, or a file of the source cannot be read.
    """
    series = _checked(volume)
    stored, sources = stored_numbers(volume), read_sources(series)
    with pydicom.config.disable_value_validation():  # what a source says wrongly is copied, not mended
        shared = _shared(volume, series, stored, sources, derivation)
        made_from = sources_of(volume.grid, sources, derivation.neighbours)
        images = _images(volume, stored, made_from, shared, overlap_mm(sources))
        return [_saved(image, Path(folder) / f"{k:04d}.dcm") for k, image in enumerate(images, start=1)]


def _checked(volume: Volume) -> Series:
    if volume.series is None:
        raise OutputError(f"{volume.name} came from no DICOM series, so there is none to derive one from.")
    if volume.modality not in _SOP_CLASSES:
        raise OutputError(f"{volume.name} is {volume.modality}; derived series are written of CT and MR.")
    if abs(cosine := float(volume.grid.directions[1] @ volume.grid.directions[2])) > 1e-3:
        raise OutputError(f"Rows and columns of a DICOM image are at right angles; here their cosine is {cosine:.3f}.")
    return volume.series


def series_description(label: str, source: str) -> str:
    """A SeriesDescription that opens with what was done, cut to the 64 characters of an LO."""
    text = f"{label}: {source}" if source else label
    return text if len(text) <= _LONGEST_DESCRIPTION else f"{text[: _LONGEST_DESCRIPTION - 3].rstrip()}..."


def derivation_description(steps: Sequence[str]) -> str:
    """The history as DerivationDescription, one step a line, within the 1024 characters of an ST.

    Where it is longer, the oldest steps that do not tell of invented texture are left out, and it says how many.
    """
    kept = list(steps)
    while len(text := _told(kept, len(steps) - len(kept))) > _LONGEST_TEXT and len(kept) > 1:
        kept.remove(next((step for step in kept[:-1] if GENERATIVE not in step), kept[0]))
    return text[:_LONGEST_TEXT]


def _told(steps: Sequence[str], left_out: int) -> str:
    head = [f"({left_out} earlier steps left out)"] if left_out else []
    return "\r\n".join([*head, *(" ".join(step.split()) for step in steps)])


def _images(
    volume: Volume, stored: Stored, made_from: Sequence[Sequence[Source]], shared: Mapping[str, Any], overlap: float
) -> Iterator[Dataset]:
    grid = volume.grid
    unmoved = all(_lies_on(grid, k, nearest.header) for k, (nearest, *_) in enumerate(made_from))
    for k, (nearest, *others) in enumerate(made_from):
        image = still_true(nearest.header)
        place = _same_place(nearest.header) if unmoved else _new_place(grid, k, overlap)
        for keyword, value in {**shared, **place}.items():
            setattr(image, keyword, value)
        if not grid.is_sheared and "GantryDetectorTilt" in image:
            del image.GantryDetectorTilt
        image.InstanceNumber = k + 1
        image.SOPInstanceUID = named_uid("derived", image.SeriesInstanceUID, k)
        image.SourceImageSequence = [_reference(s, unmoved) for s in (nearest, *others) if "SOPInstanceUID" in s.header]
        _complete(image, nearest.header)
        _put_pixels(image, stored, k)
        yield image


def _shared(
    volume: Volume, series: Series, stored: Stored, sources: Sequence[Source], derivation: Derivation
) -> dict[str, Any]:
    """What all images of the series have in common, by keyword."""
    first, is_ct = sources[0].header, volume.modality == "CT"
    steps = derivation_description([*volume.history, *filter(None, [stored.step])])
    study = first.get("StudyInstanceUID") or named_uid("study", series.patient_id, *map(_instance, sources))
    written = _moment(derivation.started, first.get("TimezoneOffsetFromUTC", ""))
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": _SOP_CLASSES[volume.modality],
        "Modality": volume.modality,
        "ImageType": _image_type(first, is_ct),
        "StudyInstanceUID": study,
        "SeriesInstanceUID": _series_uid(volume, stored, sources, steps),
        "FrameOfReferenceUID": first.get("FrameOfReferenceUID") or named_uid("frame", study, series.uid),
        "SeriesNumber": (series.number or 0) + _FIRST_NUMBER,
        "SeriesDescription": series_description(derivation.label, series.description),
        "DerivationDescription": steps,
        "DerivationCodeSequence": [_coded(CODES[derivation.code])],
        "ContributingEquipmentSequence": _equipment(first, derivation, written),
        "ImageComments": RESEARCH_USE,
        "Manufacturer": "Tomolens",
        "ManufacturerModelName": "Tomolens",
        "SoftwareVersions": version("tomolens"),
        **{f"{what}Date": f"{written:%Y%m%d}" for what in _TIMED},
        **{f"{what}Time": f"{written:%H%M%S}" for what in _TIMED},
        **({"RescaleSlope": _ds(1 / stored.times), "RescaleIntercept": "0", "RescaleType": "HU"} if is_ct else {}),
    }


def _image_type(source: Dataset, is_ct: bool) -> list[str]:
    """DERIVED, SECONDARY, and the source's own third value (PS3.3 C.8.2.1.1.1, C.8.3.1.1.1)."""
    stated = [str(value) for value in source.get("ImageType") or ()]
    third = "AXIAL" if is_ct else (stated[2:3] or ["OTHER"])[0]
    return ["DERIVED", "SECONDARY", third]


def _series_uid(volume: Volume, stored: Stored, sources: Sequence[Source], steps: str) -> str:
    numbers = sha256(stored.values.tobytes()).hexdigest()
    return named_uid("derived", *map(_instance, sources), volume.grid.affine.tolist(), steps, numbers)


def _instance(source: Source) -> str:
    return f"{source.header.get('SOPInstanceUID', '')} {source.frame or ''}"


def _moment(started: str, offset: str) -> datetime:
    """When it was made, in the time zone that the header's other times are in: its own, or where it is silent here."""
    moment = datetime.fromisoformat(started) if started else datetime.now(UTC)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    zone = None
    with suppress(ValueError):
        zone = datetime.strptime(offset.strip(), "%z").tzinfo
    return moment.astimezone(zone)


def _equipment(source: Dataset, derivation: Derivation, written: datetime) -> list[Dataset]:
    """What contributed before, the scanner where that does not name it, and Tomolens."""
    items = contributed_to(source)
    purposes = {code.get("CodeValue") for item in items for code in item.get("PurposeOfReferenceCodeSequence") or ()}
    scanner = equipment_of(source)
    if scanner is not None and ACQUIRED[0] not in purposes:
        scanner.PurposeOfReferenceCodeSequence = [_coded(ACQUIRED)]
        items.append(scanner)
    ours = Dataset()
    ours.Manufacturer = ours.ManufacturerModelName = "Tomolens"
    ours.SoftwareVersions = version("tomolens")
    ours.ContributionDateTime = f"{written:%Y%m%d%H%M%S}"
    ours.ContributionDescription = f"{derivation.label}. {derivation.method}".strip()[:_LONGEST_TEXT]
    ours.PurposeOfReferenceCodeSequence = [_coded(PROCESSED)]
    return [*items, ours]


def _coded(code: tuple[str, str]) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code[0], "DCM", code[1]
    return item


def _reference(source: Source, unmoved: bool) -> Dataset:
    header, item = source.header, Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    if source.frame is not None:
        item.ReferencedFrameNumber = source.frame
    item.SpatialLocationsPreserved = "YES" if unmoved else "NO"
    item.PurposeOfReferenceCodeSequence = [_coded(SOURCE_IMAGE)]
    return item


def _lies_on(grid: Grid, k: int, source: Dataset) -> bool:
    """Whether every pixel of a slice lies where the source's lies."""
    size = (source.Rows, source.Columns) == grid.shape[1:]
    turned = np.abs(np.subtract(_floats(source.ImageOrientationPatient), (*grid.directions[2], *grid.directions[1])))
    stretched = np.abs(np.subtract(_floats(source.PixelSpacing), grid.spacing_mm[1:]))
    moved = np.abs(np.subtract(_floats(source.ImagePositionPatient), grid.to_mm((k, 0, 0))))
    return bool(size and turned.max() < _SAME_COSINE and stretched.max() < _SAME_SPACING_MM and moved.max() < _SAME_MM)


def _floats(values: Iterable[Any]) -> list[float]:
    return [float(value) for value in values]


def _same_place(source: Dataset) -> dict[str, Any]:
    """Where an image lies (PS3.3 C.7.6.2), in the very words of its source."""
    return {keyword: source[keyword].value for keyword in _PLACE if keyword in source}


def _new_place(grid: Grid, k: int, overlap: float) -> dict[str, Any]:
    """Where an image lies that no source lies on; images overlap, or leave gaps, by as many mm as the sources do."""
    row, column = grid.directions[2], grid.directions[1]
    apart = abs(float(np.cross(row, column) @ grid.affine[:3, 0]))
    return {
        "Rows": grid.shape[1],
        "Columns": grid.shape[2],
        "ImagePositionPatient": [_ds(v) for v in grid.to_mm((k, 0, 0))],
        "ImageOrientationPatient": [_ds(v) for v in (*row, *column)],
        "PixelSpacing": [_ds(v) for v in grid.spacing_mm[1:]],
        "SliceThickness": _ds(apart + overlap if apart + overlap > 0 else apart),
        "SpacingBetweenSlices": _ds(apart),
    }


def _complete(image: Dataset, source: Dataset) -> None:
    """Give an image the elements without which it is no CT or MR image (PS3.3 C.8.2.1, C.8.3.1)."""
    for keyword in f"{_NEEDED['']} {_NEEDED[image.Modality]}".split():
        if keyword not in image:
            setattr(image, keyword, None)
    if "PatientPosition" not in image:
        image.PatientPosition = None
    image.PhotometricInterpretation = source.get("PhotometricInterpretation") or "MONOCHROME2"
    if image.Modality == "MR":
        pulse = _SEQUENCES.get(str(source.get("EchoPulseSequence", "")), "RM")
        image.ScanningSequence = image.get("ScanningSequence") or pulse
        image.SequenceVariant = image.get("SequenceVariant") or "NONE"


def _put_pixels(image: Dataset, stored: Stored, k: int) -> None:
    """PS3.3 C.7.6.3; a window that was set for other numbers is stretched with them."""
    values = stored.values[k]
    image.SamplesPerPixel = 1
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, int(values.dtype.kind == "i")
    if stored.padding is not None:
        image.PixelPaddingValue = stored.padding
    if stored.step:
        for keyword in ("WindowCenter", "WindowWidth"):
            if image.get(keyword) is not None:
                image[keyword].value = [_ds(float(v) * stored.times) for v in np.atleast_1d(image[keyword].value)]
    image.add_new("PixelData", "OW", np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())


def _saved(image: Dataset, path: Path) -> Path:
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with whole_file(path) as temporary:
        pydicom.dcmwrite(temporary, image, enforce_file_format=True)
    return path


def _ds(value: float) -> str:
    return str(format_number_as_ds(float(value)))
