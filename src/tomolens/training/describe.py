"""Describe a folder of training data that nobody has described: scans, LUNA16's tables, LIDC cubes and nodules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tomolens.core.errors import OptionError, ReadError
from tomolens.io.csv_rows import CsvRow, read_csv
from tomolens.io.dicom_series import find_series
from tomolens.io.image_files import IMAGE_SUFFIXES, image_suffix
from tomolens.training.dataset import BETWEEN_PATIENTS, FORMAT, Split, patients_of

_CUBES = "lidc_cubes51"
_VOI = "lidc_voi"
_LIDC_PATIENT = re.compile(r"LIDC-IDRI-\d{4}")
_DIAGNOSES = {"Benign": "benign", "Malign": "malignant"}


def describe(folder: Path, val: Sequence[str] = ()) -> dict[str, Any]:
    """A description of what lies in a folder, as `tomolens.training.dataset.read_dataset` reads it.

    Found are, each where it is there: image files and ``annotations*.csv`` in the folder itself, in ``ct/`` and in
    LUNA16's ``subset0/`` to ``subset9/`` (tables with ``excluded`` in their name say what counts neither way); DICOM
    series of CT at any depth; ``lidc_cubes51/cubes.npz`` with ``ratings.csv``; ``lidc_voi/{image,mask}`` with
    ``metadata.csv``. Paths are absolute. A scan that is called by its series UID is of the patient that ``lidc_voi``
    names for that series.

    Parameters
    ----------
    val
        Names of folders (``subset9``), scans or patients that are kept out for the split ``val``, and with them all
        scans, nodule volumes and cubes of the same patients.

    Raises
    ------
    ReadError
        If there is nothing of all that.
    OptionError
        If nothing has one of the names in ``val``.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise ReadError(f"{folder} is no folder.")
    scans = [*_image_files(folder), *_dicom(folder)]
    tables = sorted(file for place in _places(folder) for file in place.glob("annotations*.csv"))
    sections: dict[str, Any] = {
        "scans": scans,
        "nodules": [str(file) for file in tables if "excluded" not in file.name],
        "excluded": [str(file) for file in tables if "excluded" in file.name],
        "nodule_volumes": list(_voi(folder / _VOI)),
        "cubes": _cubes(folder / _CUBES),
    }
    if not scans and not sections["nodule_volumes"] and not sections["cubes"]:
        raise ReadError(f"{folder} holds 0 lungs and 0 nodules: no CT, no {_CUBES}/cubes.npz, no {_VOI}/metadata.csv.")
    _name_patients(scans, folder / _VOI)
    _keep_out(sections, val)
    return {"format": FORMAT, **{name: content for name, content in sections.items() if content}}


def _places(folder: Path) -> list[Path]:
    """Where scans and tables are looked for."""
    return [folder, folder / "ct", *sorted(folder.glob("subset*"))]


def _image_files(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(file for place in _places(folder) for file in place.glob("*")):
        if image_suffix(file) in IMAGE_SUFFIXES and file.is_file():
            name = file.name[: -len(image_suffix(file))]
            lidc = _LIDC_PATIENT.match(name)
            yield {"path": str(file), "scan": name, "patient": lidc.group() if lidc else name}


def _dicom(folder: Path) -> Iterator[dict[str, Any]]:
    for series in find_series(folder).series if any(folder.rglob("*.dcm")) else ():
        if series.modality == "CT" and series.uid and not series.problems:
            yield {
                "path": str(series.files[0].parent),
                "scan": series.uid,
                "series_uid": series.uid,
                "patient": series.patient_id or series.uid,
            }


def _cubes(folder: Path) -> list[dict[str, Any]]:
    if not (folder / "cubes.npz").is_file():
        return []
    ratings = folder / "ratings.csv"
    return [{"path": str(folder / "cubes.npz"), **({"ratings": str(ratings)} if ratings.is_file() else {})}]


def _voi(folder: Path) -> Iterator[dict[str, Any]]:
    if not (folder / "metadata.csv").is_file():
        return
    for row in read_csv(folder / "metadata.csv", ("k", "patient_id", "Texture_value")).rows:
        yield _nodule(folder, row)


def _nodule(folder: Path, row: CsvRow) -> dict[str, Any]:
    name = row.text("k")
    return {
        "image": str(folder / "image" / f"{name}.nii.gz"),
        "mask": str(folder / "mask" / f"{name}.nii.gz"),
        "name": name,
        "patient": row.text("patient_id"),
        "texture": row.number("Texture_value"),
        "malignancy": row.number("Malignancy_value") if row.values.get("Malignancy_value") else None,
        "diagnosis": _DIAGNOSES.get(row.values.get("Diagnosis", "")),
    }


def _name_patients(scans: Sequence[dict[str, Any]], voi: Path) -> None:
    """LUNA16 calls its scans by their series; whose they are stands in the table of LIDC's nodules."""
    if (voi / "metadata.csv").is_file():
        rows = read_csv(voi / "metadata.csv", ("patient_id",)).rows
        known = {row.values.get("seriesuid"): row.text("patient_id") for row in rows}
        for scan in scans:
            scan["patient"] = known.get(scan["scan"], scan["patient"])


def _keep_out(sections: dict[str, Any], val: Sequence[str]) -> None:
    """Put what has one of the names into the split ``val``, and with it all that is of the same patients."""
    items = [*sections["scans"], *sections["nodule_volumes"]]
    of_cubes = {patient for cubes in sections["cubes"] for patient in patients_of(Path(cubes["path"]))}
    held: set[str] = set()
    for name in val:
        patients = {item["patient"] for item in items if name in _names(item)} | ({name} & of_cubes)
        if not patients:
            raise OptionError(f"Nothing here is of a folder, scan or patient called {name!r}.")
        held |= patients
    for item in items:
        if item["patient"] in held:
            item["split"] = str(Split.VAL)
    sections["cubes"] = [part for cubes in sections["cubes"] for part in _parted(cubes, held)]


def _parted(cubes: dict[str, Any], held: set[str]) -> Iterator[dict[str, Any]]:
    """One file of cubes, as the part of the patients that are kept out and the part of the others."""
    patients = dict.fromkeys(patients_of(Path(cubes["path"])))
    out = [patient for patient in patients if patient in held]
    rest = [patient for patient in patients if patient not in held]
    for part, split in ((rest, Split.TRAIN), (out, Split.VAL)):
        if part:
            yield {**cubes, "split": str(split), "patients": BETWEEN_PATIENTS.join(part)} if out else cubes


def _names(item: dict[str, Any]) -> set[str]:
    path = Path(item.get("path") or item["image"])
    return {path.parent.name, *(str(item[key]) for key in ("scan", "name", "patient", "series_uid") if key in item)}
