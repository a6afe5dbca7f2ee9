"""The folder of one series: its result, its picture, and what they were made from.

A result folder holds the files of its `Kind` (see `tomolens.io.tables` and `tomolens.io.segmentations`),
``montage.png`` and ``series.json``. It appears whole or not at all. Where a series failed, its folder holds
``error.txt`` alone.

``series.json`` is UTF-8 JSON with ``schema`` (``"tomolens/series"``), ``schema_version`` (1), ``about`` (the fields of
`About`: what the series is, without name, birth date or ID of the patient) and ``request`` (those of `Request`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from tomolens.core.errors import ReadError
from tomolens.io.atomic import whole_folder

ERROR_NAME = "error.txt"
MONTAGE_NAME = "montage.png"
SERIES_NAME = "series.json"
SCHEMA = "tomolens/series"
SCHEMA_VERSION = 1

T = TypeVar("T")
Made = TypeVar("Made")
"""A result as a pipeline makes it, with its volume."""
Kept = TypeVar("Kept")
"""A result as it is read back from a folder."""


@dataclass(frozen=True)
class Kind(Generic[Made, Kept]):
    """How the results of one command are kept in a series' folder and shown on the page.

    Parameters
    ----------
    command
        The command that makes them, e.g. ``detect``.
    counted
        What is counted in a result, e.g. ``findings``.
    files
        The names of its files; the last is written last and tells a finished result of this kind.
    write
        Writes them into a folder, with ``montage.png`` under a title.
    read
        Reads a result back; raises `ReadError` where a file is missing or damaged.
    template
        The page that gathers such results.
    columns, cells
        The page's table: titles, and the texts for one result. All are numbers, or a dash.
    count
        How many there are of what is counted, in a result as it was made or as it was read back.
    """

    command: str
    counted: str
    files: tuple[str, ...]
    write: Callable[[Made, Path, str], None]
    read: Callable[[Path], Kept]
    template: str
    columns: tuple[str, ...]
    cells: Callable[[Kept], tuple[str, ...]]
    count: Callable[[Made | Kept], int]

    def stands_in(self, out: Path) -> bool:
        """Whether an output folder holds a result of this kind."""
        return next(out.glob(f"[!.]*/{self.files[-1]}"), None) is not None


@dataclass(frozen=True)
class Request:
    """All that decides a result: the model, the options and the files.

    ``min_score`` is None where a model has no threshold; ``second_stage`` names what looked again, if anything did.
    ``options`` are those that one command alone has, as plain values.
    ``fingerprint`` is a hash that changes where a file is another or was written anew.
    """

    model: str
    model_version: str
    weights_sha256: str
    min_score: float | None
    tilt: str
    missing: str
    modality: str | None
    files: int
    fingerprint: str
    second_stage: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def differences(self, other: Request) -> str:
        """What differs, e.g. ``min_score 0.5, now 0.3``; empty where nothing does."""
        mine, now = self._told(), other._told()
        changes = ((name, mine.get(name), now.get(name)) for name in {**mine, **now})
        return "; ".join(f"{name} was {_short(old)}, is {_short(new)}" for name, old, new in changes if old != new)

    def _told(self) -> dict[str, Any]:
        values = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "options"}
        return values | dict(self.options)


def _short(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"{text[:12]}..." if len(text) == 64 else text or "none"


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
class Result(Generic[Kept]):
    """A finished series, as read back from its folder."""

    folder: Path
    about: About
    request: Request
    content: Kept

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.folder.name


def write_result(kind: Kind[Made, Kept], folder: Path, about: About, request: Request, made: Made) -> None:
    """Write the folder of one series, in place of whatever stood there.

    Raises
    ------
    OutputError
        If the result does not hold its volume, which the picture needs.
    """
    content = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "about": asdict(about), "request": asdict(request)}
    with whole_folder(folder) as temporary:
        kind.write(made, temporary, about.description)
        (temporary / SERIES_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_error(folder: Path, message: str, details: str) -> None:
    """Write why a series failed, in place of whatever stood there: the message, an empty line, the details."""
    with whole_folder(folder) as temporary:
        (temporary / ERROR_NAME).write_text(f"{message}\n\n{details}", encoding="utf-8")


def read_result(kind: Kind[Made, Kept], folder: Path) -> Result[Kept]:
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
    return Result(folder, about, request, kind.read(folder))


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
