"""DICOM files for tests, one element at a time: as right or as wrong as a test wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
SERIES, STUDY, FRAME = "1.2.3.1", "1.2.3.2", "1.2.3.3"
ROWS, COLUMNS = 7, 9
SPACING = (0.8, 0.7)
THICKNESS = 2.5
NATIVE = {ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}


def stored_volume(slices: int = 6, rows: int = ROWS, columns: int = COLUMNS) -> NDArray[np.int16]:
    """Stored values that differ from voxel to voxel, so that any flip, swap or shift shows."""
    k, j, i = np.indices((slices, rows, columns))
    return (100 + 100 * k + 10 * j + i).astype(np.int16)


def write_slice(
    path: Path,
    stored: NDArray[Any],
    position: tuple[float, ...] = (-10.0, -20.0, 30.0),
    *,
    orientation: tuple[float, ...] = AXIAL,
    syntax: str = ExplicitVRLittleEndian,
    leave_out: tuple[str, ...] = (),
    **elements: Any,
) -> Path:
    """Write one CT slice, intercept -1024. ``elements`` replace or add values by keyword."""
    dataset = _dataset(path, syntax, CTImageStorage)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = [float(f"{v:.10g}") for v in position]
    dataset.ImageOrientationPatient = list(orientation)
    dataset.PixelSpacing = list(SPACING)
    dataset.SliceThickness = THICKNESS
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    _add_pixels(dataset, stored)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    for keyword in leave_out:
        delattr(dataset, keyword)
    return _save(dataset, path, syntax)


def write_series(
    folder: Path,
    slices: int | NDArray[Any] = 6,
    *,
    first: tuple[float, float, float] = (-10.0, -20.0, 30.0),
    step: tuple[float, float, float] | None = None,
    orientation: tuple[float, ...] = AXIAL,
    name: str = "{:03d}.dcm",
    only: set[int] | None = None,
    **elements: Any,
) -> list[Path]:
    """Write a CT series along +normal, in order of the slices; ``only`` leaves the other slices out."""
    volume = stored_volume(slices) if isinstance(slices, int) else slices
    normal = np.cross(orientation[:3], orientation[3:]) * THICKNESS
    step = tuple(normal) if step is None else step
    return [
        write_slice(
            folder / name.format(k),
            stored,
            tuple(np.add(first, np.multiply(k, step))),
            orientation=orientation,
            **{"InstanceNumber": k + 1, **elements},
        )
        for k, stored in enumerate(volume)
        if only is None or k in only
    ]


def write_enhanced(path: Path, frames: list[tuple[NDArray[Any], dict[str, Any]]], **elements: Any) -> Path:
    """Write an enhanced multi-frame CT; each frame brings its position and what differs from the others."""
    syntax = elements.pop("syntax", ExplicitVRLittleEndian)
    dataset = _dataset(path, syntax, EnhancedCTImageStorage)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    _add_pixels(dataset, np.stack([stored for stored, _ in frames]))
    dataset.NumberOfFrames = len(frames)
    dataset.SharedFunctionalGroupsSequence = [_group(PixelMeasuresSequence={"PixelSpacing": list(SPACING)})]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(**facts) for _, facts in frames]
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return _save(dataset, path, syntax)


def _frame(
    position: tuple[float, ...],
    orientation: tuple[float, ...] = AXIAL,
    slope: float = 1,
    intercept: float = -1024,
    kind: str = "HU",
    thickness: float = THICKNESS,
    **content: Any,
) -> Dataset:
    return _group(
        PlanePositionSequence={"ImagePositionPatient": list(position)},
        PlaneOrientationSequence={"ImageOrientationPatient": list(orientation)},
        PixelMeasuresSequence={"PixelSpacing": list(SPACING), "SliceThickness": thickness},
        PixelValueTransformationSequence={"RescaleSlope": slope, "RescaleIntercept": intercept, "RescaleType": kind},
        FrameContentSequence=content,
    )


def _group(**macros: dict[str, Any]) -> Dataset:
    group = Dataset()
    for sequence, values in macros.items():
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        setattr(group, sequence, [item])
    return group


def _dataset(path: Path, syntax: str, sop_class: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.Modality = "CT"
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = SERIES, STUDY, FRAME
    dataset.SeriesDescription, dataset.SeriesNumber, dataset.PatientID = "Chest", 3, "PHANTOM"
    dataset.InstanceNumber = 1
    return dataset


def _add_pixels(dataset: Dataset, stored: NDArray[Any]) -> None:
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = stored.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()


def _save(dataset: FileDataset, path: Path, syntax: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax not in NATIVE:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        plugin = "pydicom" if syntax == RLELossless else ""  # GDCM's encoder aborts the process on some images
        dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    if syntax == ExplicitVRBigEndian:
        stored = np.frombuffer(dataset.PixelData, f"<u{dataset.BitsAllocated // 8}")
        dataset.PixelData = stored.byteswap().tobytes()
        dataset.set_original_encoding(False, False)
    dataset["PixelData"].VR = "OW" if syntax in NATIVE else "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path
