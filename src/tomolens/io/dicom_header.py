"""Read what the header of one DICOM file says of its slices. No pixel is read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tomolens.core.errors import ReadError
from tomolens.io.dicom_elements import Elements, tag
from tomolens.io.dicom_slice import PixelFormat, Rescale, SeriesHeader, Slice

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NOT_IMAGES = {
    "1.2.840.10008.1.3.10": "a DICOMDIR index; the files it names are read themselves",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation (SEG), not an acquired image",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map segmentation, not an acquired image",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map, not an acquired image",
}
"""Storage SOP Classes (PS3.4 B.5) that are no acquired image although they may have rows, columns and a place."""

_IMAGING = ("", "CT", "MR", "PT")
"""Modalities whose files are slices; one without rows and columns is damaged."""
_SLICE_SUFFIXES = (".dcm", ".dicom", ".ima")

_SERIES = (
    "SOPClassUID SeriesInstanceUID StudyInstanceUID Modality FrameOfReferenceUID SeriesDescription SeriesNumber"
    " ConvolutionKernel Manufacturer PatientID StudyDate"
).split()
_IMAGE = (
    "SOPInstanceUID InstanceNumber ImageType ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness"
    " SpacingBetweenSlices RescaleSlope RescaleIntercept RescaleType ModalityLUTSequence PixelPaddingValue"
    " PixelPaddingRangeLimit MultienergyCTAcquisition LossyImageCompression DerivationDescription"
    " SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
).split()
_PIXELS = (
    "Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit"
    " PixelRepresentation"
).split()
MARKS = (
    "AcquisitionNumber TemporalPositionIdentifier TemporalPositionIndex EchoNumbers EchoTime EffectiveEchoTime"
    " InversionTime ImageType FrameType DiffusionBValue DiffusionGradientOrientation TriggerTime StackID"
    " FrameAcquisitionNumber KVP ConvolutionKernel SliceThickness AcquisitionTime ContentTime"
).split()
"""What can tell two acquisitions of one place apart, the most telling first."""
_OVERLAY_BITS = range(0x6000_0102, 0x6020_0102, 0x2_0000)
"""Overlay Bit Position (60xx,0102) of each overlay there can be (PS3.5 7.6)."""
_WANTED = sorted({tag(keyword) for keyword in (*_SERIES, *_IMAGE, *_PIXELS, *MARKS)} | set(_OVERLAY_BITS))
_WANTED_SET = frozenset(_WANTED)
_COSINE = 1e-3
"""How far a direction may be from unit length, or two from a right angle: scanners write as few as 4 digits."""
_LEAST_MM = 1e-3
"""Distances below a micrometre are none."""
_DICM_OFFSET = 128
_HEAD_BYTES = 32768
"""The header of most slices fits into these."""
_PIXEL_GROUP = (b"\xe0\x7f", b"\x7f\xe0")
_TRANSFER_SYNTAX = b"\x02\x00\x10\x00"
_DICOM_ROOT = "1.2.840.10008."


class NoSliceError(ReadError):
    """A file that never was a slice."""


def read_slices(path: Path) -> tuple[Slice, ...]:
    """Read the slices of one file from its header: one, or one for each frame.

    Raises
    ------
    ReadError
        If the file is no DICOM image that has a place in the patient; the message is the reason, without the path.
    """
    dataset, end = _opened(path)
    try:
        return _described(path, dataset, end)
    except ReadError:
        raise
    except Exception as broken:  # pydicom converts some elements only here
        raise ReadError(f"a damaged DICOM file ({type(broken).__name__}: {broken})") from broken


def _described(path: Path, dataset: Dataset, end: int) -> tuple[Slice, ...]:
    elements = Elements(dataset)
    sop_class = elements.text("SOPClassUID") or str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    _refuse_other_objects(elements, sop_class)
    syntax = _transfer_syntax(dataset)
    pixels = _pixel_format(elements, syntax, None if syntax == DeflatedExplicitVRLittleEndian else end)
    series = _series(elements)
    frames = enumerate(_frames(elements, pixels.frames))
    return tuple(_slice(path, number, frame, elements, series, pixels) for number, frame in frames)


def _opened(path: Path) -> tuple[Dataset, int]:
    """The wanted elements before the pixels, and where the reading of them ended."""
    if not path.is_file():
        raise ReadError("not a file" if path.exists() else "no such file")
    try:
        with path.open("rb") as file:
            start = file.read(_HEAD_BYTES)
            _refuse_foreign(start, path.suffix.lower())
            file.seek(0)
            return _in_head(start) or _parsed(file)
    except OSError as refused:
        if isinstance(refused, ReadError):
            raise
        raise ReadError(f"cannot be opened ({refused.strerror})") from refused


def _in_head(start: bytes) -> tuple[Dataset, int] | None:
    """What the first bytes of a file say; None where its header does not end among them.

    One large read, parsed in memory, lets other threads go on: pydicom's many small ones would stop them all.
    """
    try:
        dataset, end = _parsed(BytesIO(start))
    except ReadError:
        return None
    return (dataset, end) if start[end : end + 2] in _PIXEL_GROUP or len(start) < _HEAD_BYTES else None


def _parsed(file: BinaryIO) -> tuple[Dataset, int]:
    try:
        return pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=_WANTED), file.tell()
    except Exception as broken:  # pydicom meets broken bytes with many kinds of error
        raise ReadError(f"a damaged DICOM file ({type(broken).__name__}: {broken})") from broken


def _refuse_foreign(start: bytes, suffix: str) -> None:
    """Refuse what is not DICOM, or in an encoding of some vendor's own: not even its header can be trusted."""
    if start[_DICM_OFFSET : _DICM_OFFSET + 4] != b"DICM" and not _looks_bare(start):
        error = ReadError if suffix in _SLICE_SUFFIXES or not start else NoSliceError
        raise error("not a DICOM file" if start else "an empty file")
    rest = start.partition(_TRANSFER_SYNTAX)[2]
    length = rest[2:4] if rest[:2] == b"UI" else rest[:4]
    syntax = rest[4 : 4 + int.from_bytes(length, "little")].decode("latin-1").strip("\0 ")
    if syntax and not syntax.startswith(_DICOM_ROOT):
        raise ReadError(f"a private transfer syntax ({syntax})")


def _looks_bare(start: bytes) -> bool:
    """Whether these may be the first bytes of a data set without the preamble of PS3.10 7.1."""
    group, element = start[:2], int.from_bytes(start[2:4], "little")
    return group in (b"\x02\x00", b"\x08\x00") and element < 0x20 and len(start) > _DICM_OFFSET


def _transfer_syntax(dataset: Dataset) -> str:
    stated = dataset.file_meta.get("TransferSyntaxUID")
    implicit, _ = dataset.original_encoding
    return str(stated or (ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian))


def _refuse_other_objects(elements: Elements, sop_class: str) -> None:
    modality = elements.text("Modality")
    reason = _NOT_IMAGES.get(sop_class)
    if reason is None and modality == "SEG":
        reason = _NOT_IMAGES["1.2.840.10008.5.1.4.1.1.66.4"]
    if reason is None and not (elements.binary("Rows") and elements.binary("Columns")):
        reason = f"no image{f' (a {modality} object)' if modality else ''}"
        if modality in _IMAGING:
            raise ReadError(reason)
    samples = elements.binary("SamplesPerPixel") or 1
    if reason is None and samples != 1:
        reason = f"a colour image ({elements.text('PhotometricInterpretation')}), not a slice of numbers"
    if reason is not None:
        raise NoSliceError(reason)


def _pixel_format(elements: Elements, transfer_syntax: str, offset: int | None) -> PixelFormat:
    allocated = elements.binary("BitsAllocated") or 16
    stored = elements.binary("BitsStored") or allocated
    highest = elements.binary("HighBit")
    if allocated not in (8, 16, 32) or not 0 < stored <= allocated or highest not in (None, stored - 1):
        raise ReadError(f"pixels of {stored} of {allocated} bits up to bit {highest}, an unusual packing")
    signed = elements.binary("PixelRepresentation") == 1
    overlays = (elements.binary(number) or 0 for number in _OVERLAY_BITS)
    return PixelFormat(
        transfer_syntax=transfer_syntax,
        rows=elements.binary("Rows") or 0,
        columns=elements.binary("Columns") or 0,
        frames=elements.integer("NumberOfFrames") or 1,
        bits_allocated=allocated,
        bits_stored=stored,
        signed=signed,
        photometric=elements.text("PhotometricInterpretation"),
        offset=offset,
        padding=_padding(elements, allocated, signed),
        has_overlay=any(bit >= stored for bit in overlays),
    )


def _series(elements: Elements) -> SeriesHeader:
    return SeriesHeader(
        uid=elements.text("SeriesInstanceUID"),
        study_uid=elements.text("StudyInstanceUID"),
        modality=elements.text("Modality"),
        frame_of_reference=elements.text("FrameOfReferenceUID") or None,
        description=elements.named("SeriesDescription"),
        number=elements.integer("SeriesNumber"),
        kernel=elements.named("ConvolutionKernel"),
        manufacturer=elements.named("Manufacturer"),
        patient_id=elements.named("PatientID"),
        study_date=elements.text("StudyDate"),
    )


def _frames(elements: Elements, count: int) -> Iterator[Elements]:
    """The elements of each frame: the file's own, or its functional groups (PS3.3 C.7.6.16) laid flat over them."""
    if "PerFrameFunctionalGroupsSequence" not in elements:
        if count > 1:
            raise ReadError(f"{count} frames that have no position each")
        yield elements
        return
    shared = elements.first("SharedFunctionalGroupsSequence")
    per_frame = list(elements.items("PerFrameFunctionalGroupsSequence"))
    if len(per_frame) != count:
        raise ReadError(f"{count} frames, but {len(per_frame)} functional groups that describe them")
    for frame in per_frame:
        yield elements.overlaid(_WANTED_SET, shared, frame)


def _slice(
    path: Path, number: int, frame: Elements, file: Elements, series: SeriesHeader, pixels: PixelFormat
) -> Slice:
    return Slice(
        path=path,
        frame=number,
        instance_uid=file.text("SOPInstanceUID"),
        instance_number=file.integer("InstanceNumber") or 0,
        series=series,
        pixels=pixels,
        position=_geometry(frame, "ImagePositionPatient", 3),
        orientation=_orientation(frame),
        spacing=_spacing(frame),
        thickness=_millimetres(frame, "SliceThickness"),
        distance=_millimetres(frame, "SpacingBetweenSlices"),
        rescale=_rescale(frame),
        image_type=frame.texts("FrameType") or file.texts("ImageType"),
        marks=tuple(frame.shown(keyword) for keyword in MARKS),
        is_multienergy=file.text("MultienergyCTAcquisition") == "YES",
        is_lossy=file.text("LossyImageCompression") == "01",
        derivation=file.named("DerivationDescription") if file.texts("ImageType")[:1] == ("DERIVED",) else "",
    )


def _geometry(frame: Elements, keyword: str, count: int) -> tuple[float, ...]:
    values = frame.floats(keyword)
    if not values:
        raise ReadError(f"an image without a place in the patient (no {keyword})")
    if len(values) != count:
        raise ReadError(f"{keyword} has {len(values)} values, not {count}")
    return values


def _spacing(frame: Elements) -> tuple[float, ...]:
    spacing = _geometry(frame, "PixelSpacing", 2)
    if min(spacing) < _LEAST_MM:
        raise ReadError(f"PixelSpacing is {spacing} mm, not two distances")
    return spacing


def _millimetres(frame: Elements, keyword: str) -> float | None:
    """A distance in mm; None where it is not stated or is none."""
    stated = abs(frame.float(keyword) or 0.0)
    return stated if stated >= _LEAST_MM else None


def _orientation(frame: Elements) -> tuple[float, ...]:
    """Row and column cosines, each of exactly unit length."""
    return _unit_vectors(_geometry(frame, "ImageOrientationPatient", 6))


@lru_cache(maxsize=64)
def _unit_vectors(values: tuple[float, ...]) -> tuple[float, ...]:
    row, column = np.reshape(values, (2, 3))
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not np.allclose(lengths, 1, atol=_COSINE) or abs(row @ column) > _COSINE:
        raise ReadError(f"ImageOrientationPatient {values} is not two unit vectors at right angles")
    return (*(row / lengths[0]).tolist(), *(column / lengths[1]).tolist())


def _rescale(frame: Elements) -> Rescale:
    slope, intercept = frame.float("RescaleSlope"), frame.float("RescaleIntercept")
    return Rescale(
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        type=frame.text("RescaleType"),
        stated=slope is not None and intercept is not None,
        has_table="ModalityLUTSequence" in frame,
    )


def _padding(file: Elements, bits: int, signed: bool) -> tuple[int, ...] | None:
    first, last = file.binary("PixelPaddingValue"), file.binary("PixelPaddingRangeLimit")
    if first is None:
        return None
    values = (first, first if last is None else last)
    return tuple(_signed(value, bits) for value in values) if signed else values


def _signed(value: int, bits: int) -> int:
    """An unsigned number read as two's complement: padding values are written as either (PS3.5 7.1)."""
    return value - (1 << bits) if value >= 1 << (bits - 1) else value
