"""Data to train on, described by one JSON file: scans, what is marked in them, and nodules cut out with their masks.

``docs/training_data.md`` describes the file. Everything is checked before any image is read; each refusal names the
file, the line and the column.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tomolens.core.errors import ReadError
from tomolens.io.csv_rows import CsvRow, read_csv
from tomolens.training.contradictions import both_ways, doubles, marks_of_no_scan, misspelt, strangers, two_splits
from tomolens.training.markings import Marking, read_markings

FORMAT = "tomolens-dataset-1"
DESCRIPTION = "dataset.json"
_SCAN_COLUMNS = ("path", "scan", "patient", "split", "modality", "series_uid", "kernel", "thickness_mm")
_NODULE_COLUMNS = ("image", "mask", "name", "patient", "split", "texture", "malignancy", "diagnosis")
_CUBE_COLUMNS = ("path", "ratings", "split", "patients")
BETWEEN_PATIENTS = ";"
_TEXTURES = {"ground glass": 1.0, "part-solid": 3.0, "solid": 5.0}
_SHOWN = 10

Item = TypeVar("Item", "ScanRecord", "NoduleRecord", "CubesRecord")


class Split(StrEnum):
    """What a part of the data is for: learning; a loss that is only logged; nothing that training may see."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@dataclass(frozen=True)
class ScanRecord:
    """A chest CT: an image file, or a folder of DICOM in which ``series_uid`` chooses.

    ``excluded`` places count neither as nodule nor as its absence. ``thickness_mm`` is the slice thickness where it
    differs from the spacing; ``kernel`` is kept for one's own tables.
    """

    path: Path
    scan: str
    patient: str
    where: str
    split: Split = Split.TRAIN
    modality: str = "CT"
    series_uid: str | None = None
    kernel: str | None = None
    thickness_mm: float | None = None
    nodules: tuple[Marking, ...] = ()
    excluded: tuple[Marking, ...] = ()


@dataclass(frozen=True)
class NoduleRecord:
    """A nodule cut out with its mask, on one grid, and what radiologists said of it; None where they did not.

    ``texture`` and ``malignancy`` are LIDC's ratings from 1 (ground glass; highly unlikely) to 5 (solid; highly
    suspicious), ``diagnosis`` is ``benign`` or ``malignant``.
    """

    image: Path
    mask: Path
    name: str
    patient: str
    where: str
    split: Split = Split.TRAIN
    texture: float | None = None
    malignancy: float | None = None
    diagnosis: str | None = None


@dataclass(frozen=True)
class CubesRecord:
    """An npz with ``image`` (n, k, j, i), HU at 1 mm, canonical, ``mask``, ``name``, ``patient``; textures by name.

    ``only`` are the patients whose cubes belong to this record; all of them where it is empty.
    """

    path: Path
    where: str
    split: Split = Split.TRAIN
    texture: Mapping[str, float] = field(default_factory=dict)
    only: frozenset[str] = frozenset()

    def patients(self) -> list[str]:
        """Whose nodules they are, in order; each its own patient where the file does not say."""
        return [name for name in patients_of(self.path) if self.holds(name)]

    def names(self) -> list[str]:
        """Of its nodules, in order."""
        with np.load(self.path) as arrays:
            names = [str(name) for name in arrays["name"]]
        return [name for name, patient in zip(names, patients_of(self.path), strict=True) if self.holds(patient)]

    def holds(self, patient: str) -> bool:
        """Whether a patient's cubes belong to this record."""
        return not self.only or patient in self.only


def patients_of(cubes: Path) -> list[str]:
    """Whose nodules are in an npz of cubes, one a cube; each its own patient where the file does not say."""
    with np.load(cubes) as arrays:
        return [str(name) for name in arrays["patient" if "patient" in arrays else "name"]]


@dataclass(frozen=True)
class Dataset:
    """Everything that a description lists, checked."""

    path: Path
    scans: tuple[ScanRecord, ...] = ()
    nodules: tuple[NoduleRecord, ...] = ()
    cubes: tuple[CubesRecord, ...] = ()
    unlisted: int = 0
    """Rows of marks that are of none of its scans."""

    @property
    def marks(self) -> int:
        """Nodules that are marked in its scans."""
        return sum(len(scan.nodules) for scan in self.scans)

    def of(self, split: Split) -> Dataset:
        """The part that belongs to one split."""

        def kept(items: Sequence[Item]) -> tuple[Item, ...]:
            return tuple(item for item in items if item.split is split)

        return Dataset(self.path, kept(self.scans), kept(self.nodules), kept(self.cubes))


def read_dataset(path: Path) -> Dataset:
    """Read a description and check all of it; no image is read.

    Raises
    ------
    ReadError
        If anything in it is wrong: a key, a column or a value that is not known, a file that is not there, a scan
        listed twice by its name or its file, marks of which none belongs to a listed scan or whose scan is called like
        a listed one but for suffix or letter case, a patient in two splits. Up to ten problems are named at once.
    """
    return dataset_of(_sections(path), path)


def dataset_of(sections: Mapping[str, Any], path: Path) -> Dataset:
    """What `read_dataset` makes of the sections of a description; ``path`` is named in refusals.

    Raises
    ------
    ReadError
        As `read_dataset`.
    """
    problems: list[str] = []
    dataset = Dataset(
        path,
        tuple(_made(_scan, _rows(path, sections, "scans", _SCAN_COLUMNS), problems)),
        tuple(_made(_nodule, _rows(path, sections, "nodule_volumes", _NODULE_COLUMNS), problems)),
        tuple(_made(_cubes, _rows(path, sections, "cubes", _CUBE_COLUMNS), problems)),
    )
    _refuse(path, problems)
    nodules, excluded = (_marked(path, sections, section) for section in ("nodules", "excluded"))
    scans = tuple(replace(s, nodules=_of(s, nodules), excluded=_of(s, excluded)) for s in dataset.scans)
    unlisted = [*marks_of_no_scan(scans, nodules), *marks_of_no_scan(scans, excluded)]
    dataset = replace(dataset, scans=scans, unlisted=len({marking for marking, _ in unlisted}))
    _refuse(path, [*doubles(dataset), *two_splits(dataset), *misspelt(dataset, unlisted)])
    _refuse(path, [*strangers(dataset, nodules), *both_ways(dataset)])
    return dataset


@dataclass(frozen=True)
class _JsonRow(CsvRow):
    """One object of a list in the description."""

    section: str = ""

    @property
    def where(self) -> str:
        return f"{self.path}, {self.section}[{self.line}]"


def _sections(path: Path) -> dict[str, Any]:
    accepted = ("format", "about", "scans", "nodules", "excluded", "nodule_volumes", "cubes")
    try:
        sections = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as wrong:
        raise ReadError(f"{path} is no description of a data set: {wrong}.") from wrong
    if not isinstance(sections, dict) or sections.get("format") != FORMAT:
        raise ReadError(f'{path} is no description of a data set: it has no "format": "{FORMAT}".')
    unknown = sorted(set(sections) - set(accepted))
    if unknown:
        raise ReadError(f"{path} has the unknown section {unknown[0]!r}; accepted are {', '.join(accepted)}.")
    return sections


def _rows(path: Path, sections: Mapping[str, Any], section: str, columns: Sequence[str]) -> Iterator[CsvRow]:
    """The rows of a section: a list of objects, or the name of a CSV with the same columns (and any others)."""
    content = sections.get(section, [])
    if isinstance(content, str):
        yield from read_csv(path.parent / content, columns[:1]).rows
        return
    if not isinstance(content, list):
        raise ReadError(f"{path}, {section} is {content!r}; accepted are a list of objects and the name of a CSV.")
    for number, values in enumerate(content):
        row = _JsonRow(path, number, {}, section)
        if not isinstance(values, dict) or set(values) - set(columns):
            raise ReadError(f"{row.where} is {values!r}; accepted is an object with the keys {', '.join(columns)}.")
        yield replace(row, values={key: "" if value is None else str(value) for key, value in values.items()})


def _made(make: Callable[[CsvRow], Item], rows: Iterable[CsvRow], problems: list[str]) -> Iterator[Item]:
    for row in rows:
        try:
            yield make(row)
        except ReadError as wrong:
            problems.append(str(wrong))


def _refuse(path: Path, problems: Sequence[str]) -> None:
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ReadError(f"{path} cannot be trained on:\n  " + "\n  ".join(problems[:_SHOWN]) + more)


def _scan(row: CsvRow) -> ScanRecord:
    path = _file(row, "path")
    name = (
        row.values.get("scan") or row.values.get("series_uid") or path.name.split(".nii")[0].removesuffix(path.suffix)
    )
    return ScanRecord(
        path,
        name,
        row.values.get("patient") or name,
        row.where,
        _split(row),
        _one_of(row, "modality", ("CT",)) or "CT",
        row.values.get("series_uid") or None,
        row.values.get("kernel") or None,
        _number(row, "thickness_mm", 0.1, 20.0),
    )


def _nodule(row: CsvRow) -> NoduleRecord:
    image = _file(row, "image")
    name = row.values.get("name") or image.name.partition(".")[0]
    return NoduleRecord(
        image,
        _file(row, "mask"),
        name,
        row.values.get("patient") or name,
        row.where,
        _split(row),
        _texture(row),
        _number(row, "malignancy", 1, 5),
        _one_of(row, "diagnosis", ("benign", "malignant")),
    )


def _cubes(row: CsvRow) -> CubesRecord:
    path = _file(row, "path")
    with np.load(path) as cubes:
        missing = {"image", "mask", "name"} - set(cubes)
    if missing:
        raise ReadError(f"{row.where}: {path} lacks {', '.join(sorted(missing))}.")
    ratings = _file(row, "ratings") if row.values.get("ratings") else None
    only = frozenset(filter(None, row.values.get("patients", "").split(BETWEEN_PATIENTS)))
    strangers = sorted(only - set(patients_of(path)))
    if strangers:
        raise ReadError(f"{row.where}: patients names {strangers[0]!r}, but {path} holds no cube of that patient.")
    return CubesRecord(path, row.where, _split(row), _textures(ratings) if ratings else {}, only)


def _textures(file: Path) -> dict[str, float]:
    """By the name of the cube: column ``name``, or ``Filename`` as in the published tables of LIDC cubes."""
    table = read_csv(file, ("texture",))
    key = "name" if "name" in table.columns else "Filename"
    rated = {row.text(key): _texture(row) for row in table.rows}
    return {name: value for name, value in rated.items() if value is not None}


def _file(row: CsvRow, column: str) -> Path:
    path = row.path.parent / row.text(column)
    if not path.exists():
        raise ReadError(f"{row.where}: {column} is {row.values[column]}, but there is no {path}.")
    return path


def _split(row: CsvRow) -> Split:
    return Split(_one_of(row, "split", tuple(Split)) or Split.TRAIN)


def _one_of(row: CsvRow, column: str, accepted: Sequence[str]) -> str | None:
    value = row.values.get(column)
    if value and value not in accepted:
        raise ReadError(f"{row.where}: {column} is {value!r}; accepted are {', '.join(accepted)}, or nothing.")
    return value or None


def _number(row: CsvRow, column: str, low: float, high: float) -> float | None:
    if not row.values.get(column):
        return None
    value = row.number(column)
    if not low <= value <= high:
        raise ReadError(f"{row.where}: {column} is {value:g}; accepted is {low:g} to {high:g}, or nothing.")
    return value


def _texture(row: CsvRow) -> float | None:
    said = row.values.get("texture", "")
    try:
        return _TEXTURES.get(said) or _number(row, "texture", 1, 5)
    except ReadError as wrong:
        raise ReadError(
            f"{row.where}: texture is {said!r}; accepted is 1 to 5, {', '.join(_TEXTURES)}, or nothing."
        ) from wrong


def _marked(path: Path, sections: Mapping[str, Any], section: str) -> dict[str, list[Marking]]:
    """The marks of a section's tables by each name of their scan."""
    files = sections.get(section, [])
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise ReadError(f"{path}, {section} is {files!r}; accepted is a list of CSV tables.")
    marked: dict[str, list[Marking]] = {}
    for names, marking in (pair for file in files for pair in read_markings(path.parent / file)):
        for name in names:
            marked.setdefault(name, []).append(marking)
    return marked


def _of(scan: ScanRecord, marked: Mapping[str, Sequence[Marking]]) -> tuple[Marking, ...]:
    names = dict.fromkeys((scan.scan, scan.series_uid or scan.scan))
    return tuple(dict.fromkeys(marking for name in names for marking in marked.get(name, ())))
