"""The kinds of result that are kept in folders and shown on a page."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tomolens.io import reconstructions, segmentations, tables
from tomolens.reports.label_montage import write_label_montage
from tomolens.reports.montage import write_montage
from tomolens.reports.reconstruction_montage import write_reconstruction_montage
from tomolens.reports.results import MONTAGE_NAME, Kind

if TYPE_CHECKING:
    from tomolens.core.finding import Detection
    from tomolens.core.reconstruction import Reconstruction
    from tomolens.core.segmentation import Segmentation


def _write_findings(detection: Detection, folder: Path, title: str) -> None:
    tables.write_detection(detection, folder)
    write_montage(detection, folder / MONTAGE_NAME, title=title)


def _finding_cells(detection: Detection) -> tuple[str, ...]:
    findings = detection.findings
    return str(len(findings)), f"{findings[0].score:.2f}" if findings else "\N{EN DASH}"


def _write_structures(segmentation: Segmentation, folder: Path, title: str) -> None:
    segmentations.write_segmentation(segmentation, folder)
    write_label_montage(segmentation, folder / MONTAGE_NAME, title=title)


def _structure_cells(record: segmentations.SegmentationRecord) -> tuple[str, ...]:
    return str(len(record)), f"{sum(structure.volume_ml for structure in record.found):.1f}"


def _write_reconstruction(
    reconstruction: Reconstruction, folder: Path, title: str, format: reconstructions.Format = "auto"
) -> None:
    reconstructions.write_reconstruction(reconstruction, folder, format=format)
    write_reconstruction_montage(reconstruction, folder / MONTAGE_NAME, title=title)


def _reconstruction_cells(record: reconstructions.ReconstructionRecord) -> tuple[str, ...]:
    out = sum(not check.inside for check in record.checks)
    return str(len(record.warnings)), f"{out} of {len(record.checks)}"


def reconstructions_as(format: reconstructions.Format) -> Kind[Reconstruction, reconstructions.ReconstructionRecord]:
    """`RECONSTRUCTIONS` whose images are written in a format: ``auto``, ``dicom`` or ``nifti``."""
    return replace(RECONSTRUCTIONS, write=partial(_write_reconstruction, format=format))


FINDINGS = Kind(
    command="detect",
    counted="findings",
    files=(tables.CSV_NAME, tables.JSON_NAME),
    write=_write_findings,
    read=tables.read_detection,
    template="findings.html.j2",
    columns=("Findings", "Surest score"),
    cells=_finding_cells,
    count=len,
)
STRUCTURES = Kind(
    command="segment",
    counted="structures",
    files=(segmentations.IMAGE_NAME, segmentations.CSV_NAME, segmentations.JSON_NAME),
    write=_write_structures,
    read=segmentations.read_record,
    template="structures.html.j2",
    columns=("Structures", "Together, ml"),
    cells=_structure_cells,
    count=len,
)
RECONSTRUCTIONS = Kind(
    command="reconstruct",
    counted="warnings",
    files=(reconstructions.JSON_NAME,),
    write=_write_reconstruction,
    read=reconstructions.read_record,
    template="reconstructions.html.j2",
    columns=("Warnings", "Checks out of range"),
    cells=_reconstruction_cells,
    count=lambda made: len(made.warnings),
)
KINDS = (FINDINGS, STRUCTURES, RECONSTRUCTIONS)
