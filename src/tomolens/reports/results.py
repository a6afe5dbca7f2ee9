"""The folder of one series: its findings, its picture, and what they were made from.

A result folder holds ``findings.json`` and ``findings.csv`` (see `tomolens.io.tables`), ``montage.png`` and
``series.json``. It appears whole or not at all. Where a series failed, its folder holds ``error.txt`` alone.

``series.json`` is UTF-8 JSON with ``schema`` (``"tomolens/series"``), ``schema_version`` (1), ``about`` (the fields of
`About`: what the series is, without name, birth date or ID of the patient) and ``request`` (those of `Request`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tomolens.core.errors import ReadError
from tomolens.io.atomic import whole_folder
from tomolens.io.tables import read_detection, write_detection
from tomolens.reports.montage import write_montage

if TYPE_CHECKING:
    from tomolens.core.finding import Detection

ERROR_NAME = "error.txt"
MONTAGE_NAME = "montage.png"
SERIES_NAME = "series.json"
SCHEMA = "tomolens/series"
SCHEMA_VERSION = 1

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """All that decides a result: the model, the options and the files.

    ``fingerprint`` is a hash that changes where a file is another or was written anew.
    """

    model: str
    model_version: str
    weights_sha256: str
    min_score: float
    tilt: str
    missing: str
    modality: str | None
    files: int
    fingerprint: str

    def differences(self, other: Request) -> str:
        """What differs, e.g. ``min_score 0.5, now 0.3``; empty where nothing does."""
        changes = ((field.name, getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return "; ".join(f"{name} was {_short(old)}, is {_short(new)}" for name, old, new in changes if old != new)


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text


@dataclass(frozen=True)
class About:
    """What a series is, for the reader of a result.

    ``problems`` are sentences. Nothing here names the patient.
    """

    series_uid: str
    part: int
    study_uid: str
    description: str
    modality: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """A finished series, as read back from its folder."""

    folder: Path
    about: About
    request: Request
    detection: Detection

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.folder.name


def write_result(folder: Path, about: About, request: Request, detection: Detection) -> None:
    """Write the folder of one series, in place of whatever stood there.

    Raises
    ------
    OutputError
        If the detection does not hold its volume, which the picture needs.
    """
    content = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "about": asdict(about), "request": asdict(request)}
    with whole_folder(folder) as temporary:
        write_detection(detection, temporary)
        write_montage(detection, temporary / MONTAGE_NAME, title=about.description)
        (temporary / SERIES_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_error(folder: Path, message: str, details: str) -> None:
    """Write why a series failed, in place of whatever stood there: the message, an empty line, the details."""
    with whole_folder(folder) as temporary:
        (temporary / ERROR_NAME).write_text(f"{message}\n\n{details}", encoding="utf-8")


def read_result(folder: Path) -> Result:
    """Read back what `write_result` wrote.

    Raises
    ------
    ReadError
        If a file is missing or damaged; the message names it.
    """
    path = folder / SERIES_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["schema"], content["schema_version"]) != (SCHEMA, SCHEMA_VERSION):
            raise ReadError(f"{path} is not {SCHEMA} of version {SCHEMA_VERSION}.")
        about, request = _filled(About, content["about"]), _filled(Request, content["request"])
    except OSError as wrong:
        raise ReadError(f"{path} cannot be read: {wrong}.") from wrong
    except (ValueError, KeyError, TypeError) as wrong:
        raise ReadError(f"{path} is not what was written: {wrong}.") from wrong
    if not (folder / MONTAGE_NAME).is_file():
        raise ReadError(f"{folder / MONTAGE_NAME} is missing.")
    return Result(folder, about, request, read_detection(folder))


def _filled(kind: type[T], values: dict[str, Any]) -> T:
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def result_folders(out: Path) -> list[Path]:
    """The folders of finished series in an output folder, by name."""
    return sorted(path.parent for path in out.glob(f"[!.]*/{SERIES_NAME}"))


def errors_in(out: Path) -> dict[str, str]:
    """Why series failed: folder name to message."""
    return {
        path.parent.name: path.read_text(encoding="utf-8").partition("\n\n")[0]
        for path in sorted(out.glob(f"[!.]*/{ERROR_NAME}"))
    }
