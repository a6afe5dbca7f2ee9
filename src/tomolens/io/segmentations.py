"""Segmentations as files: labels as an image, and what they are beside it.

A folder holds ``segmentation.nii.gz`` (the labels on the very grid of the scan, as `tomolens.write_volume` writes it),
``volumes.csv`` (``series_uid, label, name, voxels, volume_ml``, to 0.001 ml) and ``segmentation.json``, which is UTF-8
JSON, schema version 1:

==================  ================================================================================================
key                 value
==================  ================================================================================================
``schema``          ``"tomolens/segmentation"``
``schema_version``  1. A reader refuses a higher number; a change that an old reader can ignore keeps the number.
``notice``          That the result is for research use only.
``series_uid``      SeriesInstanceUID, ``""`` where the source has none.
``image``           ``segmentation.nii.gz``, beside this file.
``image_sha256``    Its SHA-256: an image that was altered since is refused.
``structures``      The channel table in the order of its labels: ``label``, ``name``, ``voxels`` (0 where it was not
                    found), ``volume_ml``, ``colour`` (as the pictures show it).
``grid``            ``shape`` (slices, rows, columns), ``affine`` (4x4, voxel (k, j, i) to LPS mm) and
                    ``frame_of_reference`` (UID or null) of the volume that was read.
``run``             The run manifest, the fields of `tomolens.core.run.Run`.
==================  ================================================================================================
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.errors import ReadError
from tomolens.core.finding import RESEARCH_USE
from tomolens.core.label_picture import hex_colour
from tomolens.core.segmentation import Segmentation, Structure
from tomolens.core.volume import Unit, Volume
from tomolens.io.atomic import whole_file
from tomolens.io.json_results import grid_from_json, grid_to_json, read_json, run_from_json, values_of, write_json
from tomolens.io.nifti import read_nifti
from tomolens.io.write import write_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.grid import Grid
    from tomolens.core.run import Run

SCHEMA = "tomolens/segmentation"
SCHEMA_VERSION = 1
JSON_NAME = "segmentation.json"
IMAGE_NAME = "segmentation.nii.gz"
CSV_NAME = "volumes.csv"
COLUMNS = ("series_uid", "label", "name", "voxels", "volume_ml")
MODALITY = "SEG"
"""DICOM's modality of a segmentation (PS3.3 C.7.3.1.1.1): so no model takes one for a scan."""


@dataclass(frozen=True, eq=False)
class SegmentationRecord:
    """What ``segmentation.json`` says: all of a segmentation but its voxels."""

    structures: tuple[Structure, ...]
    grid: Grid
    run: Run

    @property
    def found(self) -> tuple[Structure, ...]:
        """The structures of at least one voxel."""
        return tuple(structure for structure in self.structures if structure.voxels)

    def __len__(self) -> int:
        return len(self.found)


def label_volume(segmentation: Segmentation) -> Volume:
    """The labels as a volume, to be written as an image."""
    run = segmentation.run
    step = f"segmented by {run.model} {run.model_version}"
    return Volume(segmentation.labels, segmentation.grid, Unit.ARBITRARY, MODALITY, history=(*run.history, step))


def write_segmentation(segmentation: Segmentation, folder: Path | str) -> Path:
    """Write ``segmentation.nii.gz``, ``volumes.csv`` and ``segmentation.json`` into a folder, made where it is absent.

    Each file appears whole or not at all, the JSON last: where it stands, the result is complete.

    Returns
    -------
    Path
        Of ``segmentation.json``; `read_segmentation` reads it back.
    """
    folder = Path(folder)
    image = write_volume(label_volume(segmentation), folder / IMAGE_NAME)
    with whole_file(folder / CSV_NAME) as temporary:
        _write_csv(segmentation, temporary)
    with whole_file(folder / JSON_NAME) as temporary:
        write_json(_to_json(segmentation, _sha256(image)), temporary)
    return folder / JSON_NAME


def _write_csv(segmentation: Segmentation, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "volume_ml": round(row["volume_ml"], 3)} for row in segmentation.rows())


def _to_json(segmentation: Segmentation, image_sha256: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "notice": RESEARCH_USE,
        "series_uid": segmentation.run.series_uid,
        "image": IMAGE_NAME,
        "image_sha256": image_sha256,
        "structures": [{**asdict(s), "colour": hex_colour(s.label)} for s in segmentation.structures],
        "grid": grid_to_json(segmentation.grid),
        "run": segmentation.run.to_dict(),
    }


def read_record(path: Path | str) -> SegmentationRecord:
    """Read what a segmentation says of itself, without its voxels.

    Parameters
    ----------
    path
        A ``segmentation.json``, or the folder that holds one.

    Raises
    ------
    ReadError
        If there is no such file, it is not of a known version, a value cannot be right, or its image is not beside it
        as it was written; the message names the file.
    """
    path = _json_at(path)
    content = read_json(path, SCHEMA, SCHEMA_VERSION)
    with values_of(path):
        record = _from_json(content)
        _check_image(path.with_name(IMAGE_NAME), content["image_sha256"])
    return record


def read_segmentation(path: Path | str) -> Segmentation:
    """Read back what `write_segmentation` wrote.

    Parameters
    ----------
    path
        A ``segmentation.json``, or the folder that holds one.

    Returns
    -------
    Segmentation
        Equal to the one that was written, without its volume.

    Raises
    ------
    ReadError
        As `read_record`, and if the image does not hold what the JSON says.
    """
    path, record = _json_at(path), read_record(path)
    image = path.with_name(IMAGE_NAME)
    content, names = read_nifti(image), {structure.label: structure.name for structure in record.structures}
    with values_of(image):
        segmentation = Segmentation(_as_labels(content.voxels), names, record.grid, record.run)
        if segmentation.structures != record.structures or not content.grid.same_place(record.grid):
            raise ValueError(f"its labels or its grid are not those of {path.name}.")
    return segmentation


def _json_at(path: Path | str) -> Path:
    return Path(path) / JSON_NAME if Path(path).is_dir() else Path(path)


def _from_json(content: dict[str, Any]) -> SegmentationRecord:
    structures = tuple(_structure(values) for values in content["structures"])
    return SegmentationRecord(structures, grid_from_json(content["grid"]), run_from_json(content))


def _structure(values: dict[str, Any]) -> Structure:
    return Structure(int(values["label"]), str(values["name"]), int(values["voxels"]), float(values["volume_ml"]))


def _check_image(image: Path, sha256: str) -> None:
    if not image.is_file():
        raise ReadError(f"{image} is missing.")
    if _sha256(image) != sha256:
        raise ReadError(f"{image} was altered since it was written: its SHA-256 is another.")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _as_labels(voxels: NDArray[Any]) -> NDArray[Any]:
    """The exact inverse of how image files widen small whole numbers."""
    return voxels.astype(np.uint8 if voxels.max() <= np.iinfo(np.uint8).max else np.uint16)
