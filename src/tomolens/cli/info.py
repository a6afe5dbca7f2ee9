"""`tomolens info`: what stands below a folder, from the headers alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tomolens.cli.console import Narrator
from tomolens.core.errors import TomolensError

if TYPE_CHECKING:
    from tomolens.cli.jobs import Found
    from tomolens.core.series import PassedOver, Series

SCHEMA = "tomolens/info"
SCHEMA_VERSION = 1
_SHOWN_FILES = 10

Line = tuple[str, str]
"""A line of text and its style."""


def info(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER_OR_FILE", exists=True, help="DICOM at any depth, an image file, or k-space files."
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for another program, with every file's fate.")
    ] = False,
) -> None:
    """Say what series stand below a folder, their geometry and their problems.

    Of DICOM the headers alone are read, image files and k-space whole. A series marked REFUSED cannot be read as it is.
    Nothing is written; no patient's name, birth date or ID is shown.

    \b
    Examples:
      tomolens info scans/
      tomolens info scans/ --json | jq '.series[] | select(.refused)'

    \b
    Exit codes:
      0    at least one series, image file or k-space was found
      1    none was
      2    wrong usage
    """  # noqa: D301 - \b keeps typer from wrapping a table
    from tomolens.cli.jobs import find_jobs

    with Narrator() as narrator:
        found = find_jobs(source, narrator.step, kspace=True)
        files = {job.source: _file(job.source, job.kspace) for job in found.jobs if isinstance(job.source, Path)}
    if as_json:
        typer.echo(json.dumps(_to_json(source, found, files), indent=2))
    else:
        console = Console(highlight=False)
        for text, style in _lines(source, found, files):
            console.print(text, style=style or None, markup=False, soft_wrap=True)
    raise typer.Exit(0 if found.jobs else 1)


@dataclass(frozen=True)
class ImageFacts:
    """What is told of an image file; its voxels are let go."""

    modality: str
    unit: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    history: tuple[str, ...]
    orientation: str


@dataclass(frozen=True)
class KSpaceFacts:
    """What is told of k-space; its numbers are let go. ``shape`` is that of the image: slices, rows, columns."""

    coils: int
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    acceleration: float
    history: tuple[str, ...]


Facts = ImageFacts | KSpaceFacts | str
"""Of a file: what it holds, or why it cannot be read."""


def _file(path: Path, kspace: bool) -> Facts:
    from tomolens.io.kspace import read_kspace
    from tomolens.io.read import read_volume

    try:
        if kspace:
            raw = read_kspace(path)
            return KSpaceFacts(raw.coils, raw.shape, raw.grid.spacing_mm, raw.acceleration, raw.history)
        volume = read_volume(path)
    except TomolensError as wrong:
        return str(wrong)
    grid = volume.grid
    return ImageFacts(volume.modality, volume.unit, volume.shape, grid.spacing_mm, volume.history, grid.orientation)


def _series_in(found: Found) -> list[Series]:
    return [job.series for job in found.jobs if job.series is not None]


def _lines(source: Path, found: Found, files: dict[Path, Facts]) -> Iterator[Line]:
    series = _series_in(found)
    if not found.jobs:
        yield f"{source}: no image series.", "bold"
    for study, group in groupby(series, key=lambda s: (s.study_uid, s.study_date)):
        uid, date = study
        yield f"Study {uid or '(no StudyInstanceUID)'}{f', {date}' if date else ''}", "bold"
        for one in group:
            yield from _series_lines(one)
    for path, facts in files.items():
        yield from _file_lines(path, facts)
    yield from _passed_over_lines(found.passed_over)


def _series_lines(series: Series) -> Iterator[Line]:
    from tomolens.io.dicom_pixels import syntax_name

    facts = [
        f"{len(series.files)} file{'s' * (len(series.files) != 1)}",
        series.orientation,
        f"kernel {series.kernel}" if series.kernel else "",
        series.manufacturer,
        syntax_name(series.transfer_syntax) if series.transfer_syntax else "",
    ]
    yield f"  {series.label}", ""
    yield f"      {', '.join(filter(None, facts))}", "dim"
    yield f"      {series.uid or '(no SeriesInstanceUID)'}", "dim"
    for problem in series.problems:
        yield f"      {'REFUSED: ' if problem.refused else ''}{problem}", "red" if problem.refused else "yellow"


def _file_lines(path: Path, facts: Facts) -> Iterator[Line]:
    yield str(path), "bold"
    if isinstance(facts, str):
        yield f"      REFUSED: {facts}", "red"
        return
    slices, rows, columns = facts.shape
    k, j, i = facts.spacing_mm
    size = f"{columns} x {rows} x {slices} at {i:.2f} x {j:.2f} x {k:.2f} mm"
    if isinstance(facts, KSpaceFacts):
        coils = f"{facts.coils} coil{'s' * (facts.coils != 1)}"
        yield f"  k-space, {coils}, {size}, {facts.acceleration:.3g}x accelerated", ""
    else:
        yield f"  {facts.modality}, {size}, {facts.orientation}, {facts.unit}", ""
    for line in facts.history:
        yield f"      {line}", "dim"


def _passed_over_lines(files: tuple[PassedOver, ...]) -> Iterator[Line]:
    if files:
        yield f"{len(files)} file{'s' * (len(files) != 1)} passed over", "bold"
    for file in files[:_SHOWN_FILES]:
        yield f"  {_reason(file)}", "dim"
    if len(files) > _SHOWN_FILES:
        yield f"  and {len(files) - _SHOWN_FILES} more; --json lists all", "dim"


def _reason(file: PassedOver) -> str:
    return file.reason if str(file.path) in file.reason else f"{file.path}: {file.reason}"


def _to_json(source: Path, found: Found, files: dict[Path, Facts]) -> dict[str, Any]:
    measured = {job.source for job in found.jobs if job.kspace}
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "source": str(source),
        "series": [_series_to_json(series) for series in _series_in(found)],
        "images": [_file_to_json(path, facts) for path, facts in files.items() if path not in measured],
        "kspace": [_file_to_json(path, facts) for path, facts in files.items() if path in measured],
        "passed_over": [{"path": str(file.path), "reason": file.reason} for file in found.passed_over],
    }


def _series_to_json(series: Series) -> dict[str, Any]:
    kept = _attributes(
        series,
        ("modality", "description", "number", "part", "shape", "spacing_mm", "orientation", "kernel", "manufacturer"),
    )
    return {
        "series_uid": series.uid,
        "study_uid": series.study_uid,
        "study_date": series.study_date,
        **kept,
        "frame_of_reference": series.frame_of_reference,
        "transfer_syntax": series.transfer_syntax,
        "files": len(series.files),
        "first_file": str(series.files[0]),
        "refused": series.refused,
        "problems": [asdict(problem) for problem in series.problems],
    }


def _attributes(thing: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in names}


def _file_to_json(path: Path, facts: Facts) -> dict[str, Any]:
    if isinstance(facts, str):
        return {"path": str(path), "refused": True, "reason": facts}
    return {"path": str(path), "refused": False, **asdict(facts)}
