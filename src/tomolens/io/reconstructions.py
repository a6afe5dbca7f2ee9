"""Reconstructions as files: the images, what was changed, how sure it is, and what they are beside it.

A folder holds ``reconstruction.nii.gz``, or where the source was DICOM ``dicom/`` with a derived series (see
`tomolens.io.dicom_derived`); ``difference.nii.gz`` (result minus reference); ``uncertainty.nii.gz`` (one standard
deviation), where there is one; ``reference.nii.gz``, where the result is not to be compared with the source itself;
``baseline.nii.gz``, where a classical method was run beside the model; and ``reconstruction.json``, UTF-8 JSON, schema
version 1:

==================  ================================================================================================
key                 value
==================  ================================================================================================
``schema``          ``"tomolens/reconstruction"``
``schema_version``  1. A reader refuses a higher number; a change that an old reader can ignore keeps the number.
``notice``          That the result is for research use only.
``series_uid``      SeriesInstanceUID of the source, ``""`` where it has none.
``job``             ``ct-denoising``, ``mri-reconstruction`` or ``super-resolution``.
``generative``      Whether a GAN made it, whose texture may be invented.
``warnings``        What a reader must know before trusting it.
``checks``          ``name``, ``value`` (null where it is no number), ``unit``, ``low``, ``high``, ``inside``.
``difference``      Its ``mean``, ``standard_deviation`` and ``largest`` size in its ``unit``, HU or % of the range.
``images``          For each image its ``file`` (or folder) and its SHA-256: one that was altered since is refused. Of a
                    folder it is the hash of the hashes of its files, in the order of their names. ``times`` is what
                    the numbers of a DICOM series were stored times, 1 elsewhere.
``grid``            ``shape`` (slices, rows, columns), ``affine`` (4x4, voxel (k, j, i) to LPS mm) and
                    ``frame_of_reference`` (UID or null) of the result.
``run``             The run manifest, the fields of `tomolens.core.run.Run`.
==================  ================================================================================================
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from tomolens.core.errors import OptionError, OutputError, ReadError
from tomolens.core.finding import RESEARCH_USE
from tomolens.core.grid import Grid
from tomolens.core.kspace import is_placed
from tomolens.core.reconstruction import GENERATIVE, Check, Job, Reconstruction
from tomolens.core.reconstruction_picture import difference_unit
from tomolens.io.atomic import whole_file, whole_folder
from tomolens.io.dicom_derived import Derivation, write_derived_series
from tomolens.io.dicom_stored import stored_numbers
from tomolens.io.json_results import grid_from_json, grid_to_json, read_json, run_from_json, values_of, write_json
from tomolens.io.read import read_volume
from tomolens.io.write import write_volume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tomolens.core.run import Run
    from tomolens.core.volume import Volume

Format = Literal["auto", "dicom", "nifti"]
SCHEMA = "tomolens/reconstruction"
SCHEMA_VERSION = 1
JSON_NAME = "reconstruction.json"
IMAGE_NAME = "reconstruction.nii.gz"
DICOM_NAME = "dicom"
_ROLES = ("reconstruction", "difference", "uncertainty", "reference", "baseline")
_VERBS = {Job.DENOISING: "denoised", Job.MRI: "reconstructed", Job.SUPER_RESOLUTION: "thin slices made"}
_CODES = {Job.DENOISING: "smoothing", Job.MRI: "smoothing", Job.SUPER_RESOLUTION: "resampling"}


@dataclass(frozen=True)
class Difference:
    """Result minus reference in a few numbers; ``largest`` is the largest size of one."""

    unit: str
    mean: float
    standard_deviation: float
    largest: float


@dataclass(frozen=True, eq=False)
class ReconstructionRecord:
    """What ``reconstruction.json`` says: all of a reconstruction but its voxels.

    ``files`` are the images by role; the numbers of the result were stored ``times`` what they are.
    """

    job: Job
    grid: Grid
    run: Run
    checks: tuple[Check, ...]
    difference: Difference
    generative: bool
    warnings: tuple[str, ...]
    files: Mapping[str, str]
    times: float = 1.0

    @property
    def placed(self) -> bool:
        """Whether it is known where in the patient it lies, and so which side is left."""
        return is_placed(self.run.history)


def write_reconstruction(reconstruction: Reconstruction, folder: Path | str, *, format: Format = "auto") -> Path:
    """Write a reconstruction's images and ``reconstruction.json`` into a folder, made where it is absent.

    Each file, and the folder of a DICOM series, appears whole or not at all, the JSON last: where it stands, the result
    is complete. A DICOM series holds the patient's name and ID, as its source does; nothing else does.

    Parameters
    ----------
    reconstruction
        As `tomolens.reconstruct` made it.
    folder
        A result that it holds is replaced, with the images that the new one does not have.
    format
        Of the result: ``dicom``, ``nifti``, or ``auto``, DICOM where the source was.

    Returns
    -------
    Path
        Of ``reconstruction.json``; `read_reconstruction` reads it back.

    Raises
    ------
    OptionError
        If ``format`` is another.
    OutputError
        If DICOM is asked for and the source was not, the folder of the DICOM series is where the source lies, or a
        file cannot be written.
    """
    if format not in get_args(Format):
        raise OptionError(f"format is one of {', '.join(get_args(Format))}, not {format!r}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    as_dicom = format == "dicom" or (format == "auto" and reconstruction.volume.series is not None)
    stale = _standing(folder)
    if as_dicom or folder / DICOM_NAME in stale:
        _spare_source(reconstruction.volume, folder / DICOM_NAME)
    (folder / JSON_NAME).unlink(missing_ok=True)  # from here on the images stand for no result
    result = (
        _write_dicom(reconstruction, folder) if as_dicom else write_volume(reconstruction.volume, folder / IMAGE_NAME)
    )
    images = {"reconstruction": result}
    for role, volume in _beside(reconstruction).items():
        images[role] = write_volume(volume, folder / f"{role}.nii.gz")
    for left in stale - set(images.values()):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    with whole_file(folder / JSON_NAME) as temporary:
        write_json(_to_json(reconstruction, images), temporary)
    return folder / JSON_NAME


def _standing(folder: Path) -> set[Path]:
    """Where an earlier result's images are; a DICOM series only where its JSON names it."""
    images = {folder / f"{role}.nii.gz" for role in _ROLES}
    try:
        named = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))["images"].values()
        if any(image["file"] == DICOM_NAME for image in named):
            images.add(folder / DICOM_NAME)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # none, or none of ours
        pass
    return images


def _spare_source(volume: Volume, place: Path) -> None:
    files = volume.series.files if volume.series is not None else ()
    if any(place.resolve() in file.resolve().parents for file in files):
        raise OutputError(f"{place} holds the source itself; write the result into another folder.")


def derivation_of(reconstruction: Reconstruction) -> Derivation:
    """How a reconstruction names itself in DICOM."""
    run, verb = reconstruction.run, _VERBS[reconstruction.job]
    label = f"{GENERATIVE}; {run.model}" if reconstruction.generative else f"{verb} by {run.model}"
    weights = f", weights {run.weights_sha256[:12]}" if run.weights_sha256 else ""
    seen = 1 if run.weights_sha256 and reconstruction.job is Job.DENOISING else 0
    return Derivation(label, _CODES[reconstruction.job], f"{run.model} {run.model_version}{weights}", run.started, seen)


def _write_dicom(reconstruction: Reconstruction, folder: Path) -> Path:
    with whole_folder(folder / DICOM_NAME) as temporary:
        write_derived_series(reconstruction.volume, temporary, derivation_of(reconstruction))
    return folder / DICOM_NAME


def _beside(made: Reconstruction) -> dict[str, Volume]:
    """The images beside the result, by the name of their file."""
    images = {"reference": made.reference} if made.job is not Job.DENOISING else {}
    return images | made.maps | ({} if made.baseline is None else {"baseline": made.baseline})


def _to_json(made: Reconstruction, images: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "notice": RESEARCH_USE,
        "series_uid": made.run.series_uid,
        "job": str(made.job),
        "generative": made.generative,
        "warnings": list(made.warnings),
        "checks": [_check_to_json(check) for check in made.checks],
        "difference": asdict(difference_of(made)),
        "images": {role: _image_to_json(made, path) for role, path in images.items()},
        "grid": grid_to_json(made.volume.grid),
        "run": made.run.to_dict(),
    }


def _image_to_json(made: Reconstruction, path: Path) -> dict[str, Any]:
    times = stored_numbers(made.volume).times if path.name == DICOM_NAME and made.volume.modality != "CT" else 1.0
    return {"file": path.name, "sha256": _sha256(path), "times": times}


def difference_of(made: Reconstruction) -> Difference:
    """How much was changed."""
    unit, factor = difference_unit(made)
    difference = made.difference
    mean = float(difference.mean(dtype=np.float64))
    squares = sum(float(((image - mean) ** 2).sum(dtype=np.float64)) for image in difference)
    deviation = float(np.sqrt(squares / difference.size))
    largest = max(abs(float(difference.min())), abs(float(difference.max())))
    return Difference(unit, factor * mean, factor * deviation, factor * largest)


def _check_to_json(check: Check) -> dict[str, Any]:
    return {**asdict(check), "value": check.value if math.isfinite(check.value) else None, "inside": check.inside}


def _check_from_json(values: Mapping[str, Any]) -> Check:
    value = math.nan if values["value"] is None else float(values["value"])
    return Check(str(values["name"]), value, str(values["unit"]), values["low"], values["high"])


def read_record(path: Path | str) -> ReconstructionRecord:
    """Read what a reconstruction says of itself, without its voxels.

    Parameters
    ----------
    path
        A ``reconstruction.json``, or the folder that holds one.

    Raises
    ------
    ReadError
        If there is no such file, it is not of a known version, a value cannot be right, or an image is not beside it as
        it was written; the message names the file.
    """
    path = _json_at(path)
    content = read_json(path, SCHEMA, SCHEMA_VERSION)
    with values_of(path):
        record = _from_json(content)
        for image in content["images"].values():
            _check_image(path.with_name(image["file"]), image["sha256"])
    return record


def _from_json(content: dict[str, Any]) -> ReconstructionRecord:
    return ReconstructionRecord(
        job=Job(content["job"]),
        grid=grid_from_json(content["grid"]),
        run=run_from_json(content),
        checks=tuple(map(_check_from_json, content["checks"])),
        difference=Difference(**content["difference"]),
        generative=bool(content["generative"]),
        warnings=tuple(map(str, content["warnings"])),
        files={role: str(image["file"]) for role, image in content["images"].items()},
        times=float(content["images"]["reconstruction"]["times"]),
    )


def read_reconstruction(path: Path | str) -> Reconstruction:
    """Read back what `write_reconstruction` wrote.

    Parameters
    ----------
    path
        A ``reconstruction.json``, or the folder that holds one.

    Returns
    -------
    Reconstruction
        Equal to the one that was written, but that numbers which DICOM cannot hold were rounded.

    Raises
    ------
    ReadError
        As `read_record`, and if the images do not lie on the grid that the JSON names.
    """
    path, record = _json_at(path), read_record(path)
    with values_of(path):
        images = {role: read_volume(path.with_name(file)) for role, file in record.files.items()}
        volume = _laid(images.pop("reconstruction"), record, path)
        return _together(record, volume, images)


def _laid(read: Volume, record: ReconstructionRecord, path: Path) -> Volume:
    """The result on its grid: DICOM counts slices along their normal and names a frame of reference of its own."""
    volume = replace(read, grid=Grid(read.shape, read.grid.affine, record.grid.frame_of_reference))
    if not volume.grid.same_place(record.grid):
        volume = volume.flipped(0)
    if not volume.grid.same_place(record.grid):
        raise ValueError(f"its image does not lie on the grid that {path.name} names.")
    if record.times == 1:
        return volume
    return volume.with_voxels(volume.voxels / np.float32(record.times), f"numbers divided by {record.times:g} again")


def _together(record: ReconstructionRecord, volume: Volume, images: Mapping[str, Volume]) -> Reconstruction:
    """A reconstruction of its parts; of a denoised scan the reference is the result less the difference."""
    reference = images.get("reference")
    if reference is None:
        numbers = np.asarray(volume.voxels, np.float32) - images["difference"].voxels
        reference = replace(volume, voxels=numbers.astype(volume.voxels.dtype), history=record.run.history)
    sigma = images.get("uncertainty")
    return Reconstruction(
        record.job,
        volume,
        reference,
        record.run,
        None if sigma is None else np.asarray(sigma.voxels, np.float32),
        record.checks,
        images.get("baseline"),
        record.generative,
    )


def _json_at(path: Path | str) -> Path:
    return Path(path) / JSON_NAME if Path(path).is_dir() else Path(path)


def _check_image(image: Path, sha256: str) -> None:
    if not image.exists():
        raise ReadError(f"{image} is missing.")
    if _sha256(image) != sha256:
        raise ReadError(f"{image} was altered since it was written: its SHA-256 is another.")


def _sha256(path: Path) -> str:
    """Of a file; of a folder that of its files' hashes, in the order of their names."""
    if path.is_dir():
        return hashlib.sha256("".join(_sha256(file) for file in sorted(path.iterdir())).encode()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
