"""Findings as files: ``findings.json`` to read back and ``findings.csv`` to look at.

``findings.json`` is UTF-8 JSON, schema version 1:

==================  ================================================================================================
key                 value
==================  ================================================================================================
``schema``          ``"tomolens/findings"``
``schema_version``  1. A reader refuses a higher number; a change that an old reader can ignore keeps the number.
``notice``          That the result is for research use only.
``coordinates``     In words: DICOM's patient system, LPS, in mm.
``series_uid``      SeriesInstanceUID, ``""`` where the source has none.
``min_score``       The threshold, 0 to 1.
``findings``        What reaches the threshold, surest first: ``finding`` (from 1), ``score``, ``x_mm``, ``y_mm``,
                    ``z_mm``, ``diameter_mm``, ``slice`` (nearest slice index, from 0), ``texture`` (``""`` where
                    not known) and ``malignancy`` (0 to 1, null where not known).
``below_threshold``  The model's other candidates, surest first, without ``finding`` and ``slice``.
``grid``            ``shape`` (slices, rows, columns), ``affine`` (4x4, voxel (k, j, i) to LPS mm) and
                    ``frame_of_reference`` (UID or null) of the volume that was read.
``run``             The run manifest, the fields of `tomolens.core.run.Run`.
==================  ================================================================================================

The JSON keeps every number exactly. ``findings.csv`` has the columns ``series_uid, finding, score, x_mm, y_mm, z_mm,
diameter_mm, slice, texture, malignancy, source``, surest first, rounded to 4 decimals (score, malignancy) and 0.01 mm;
``source`` is the run's: the file's name or the series description.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from tomolens.core.errors import OutputError
from tomolens.core.finding import COLUMNS, RESEARCH_USE, Detection, Finding
from tomolens.io.atomic import whole_file
from tomolens.io.json_results import grid_from_json, grid_to_json, read_json, run_from_json, values_of, write_json

SCHEMA = "tomolens/findings"
SCHEMA_VERSION = 1
JSON_NAME = "findings.json"
CSV_NAME = "findings.csv"
COORDINATES = "DICOM patient system, LPS: +x left, +y posterior, +z superior, in mm"

_DECIMALS = {"score": 4, "x_mm": 2, "y_mm": 2, "z_mm": 2, "diameter_mm": 2, "malignancy": 4}


def write_detection(detection: Detection, folder: Path | str) -> Path:
    """Write ``findings.csv`` and ``findings.json`` into a folder, which is made where it is absent.

    Each file appears whole or not at all, the JSON last: where it stands, the result is complete.

    Returns
    -------
    Path
        Of ``findings.json``; `read_detection` reads it back.
    """
    folder = Path(folder)
    write_table(detection, folder / CSV_NAME)
    return write_table(detection, folder / JSON_NAME)


def write_table(detection: Detection, path: Path | str) -> Path:
    """Write findings into one file, as its suffix says: ``.json`` to read back, ``.csv`` to look at.

    Raises
    ------
    OutputError
        If the suffix is another.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in _WRITERS:
        raise OutputError(f"{target.name}: findings are written as {' or '.join(_WRITERS)}, not {suffix or 'without'}.")
    with whole_file(target) as temporary:
        _WRITERS[suffix](detection, temporary)
    return target


def _write_csv(detection: Detection, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rounded_rows(detection))


def _write_json(detection: Detection, path: Path) -> None:
    write_json(_to_json(detection), path)


_WRITERS = {".json": _write_json, ".csv": _write_csv}


def rounded_rows(detection: Detection) -> list[dict[str, Any]]:
    """The rows of ``findings.csv``: scores to 4 decimals, lengths to 0.01 mm."""
    return [{name: _rounded(name, value) for name, value in row.items()} for row in detection.rows()]


def _rounded(name: str, value: Any) -> Any:
    return value if value is None or name not in _DECIMALS else round(float(value), _DECIMALS[name])


def _to_json(detection: Detection) -> dict[str, Any]:
    findings = detection.findings
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "notice": RESEARCH_USE,
        "coordinates": COORDINATES,
        "series_uid": detection.run.series_uid,
        "min_score": float(detection.min_score),
        "findings": [
            {"finding": number, **_plain(finding), "slice": detection.slice_of(finding)}
            for number, finding in enumerate(findings, start=1)
        ],
        "below_threshold": [_plain(finding) for finding in detection.candidates[len(findings) :]],
        "grid": grid_to_json(detection.grid),
        "run": detection.run.to_dict(),
    }


def _plain(finding: Finding) -> dict[str, Any]:
    return {name: float(v) if isinstance(v, np.floating) else v for name, v in finding.to_dict().items()}


def read_detection(path: Path | str) -> Detection:
    """Read back what `write_detection` wrote.

    Parameters
    ----------
    path
        A ``findings.json``, or the folder that holds one.

    Returns
    -------
    Detection
        Equal to the one that was written, without its volume.

    Raises
    ------
    ReadError
        If there is no such file, it is not a findings file of a known version, or a value cannot be right; the
        message names the file and what is wrong.
    """
    path = Path(path)
    path = path / JSON_NAME if path.is_dir() else path
    content = read_json(path, SCHEMA, SCHEMA_VERSION)
    with values_of(path):
        return _from_json(content)


def _from_json(content: dict[str, Any]) -> Detection:
    above, below = (
        tuple(Finding.from_dict(values) for values in content[part]) for part in ("findings", "below_threshold")
    )
    place, run = grid_from_json(content["grid"]), run_from_json(content)
    detection = Detection(above + below, float(content["min_score"]), place, run)
    if sorted(above, key=_score) != sorted(detection.findings, key=_score):
        raise ValueError(f"findings are not the candidates that reach min_score, {detection.min_score}.")
    return detection


def _score(finding: Finding) -> float:
    return finding.score
