"""One HTML page that gathers every series of an output folder. It needs no server and no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tomolens.core.errors import ReadError
from tomolens.core.finding import RESEARCH_USE
from tomolens.io.atomic import whole_file
from tomolens.io.tables import COORDINATES, CSV_NAME, JSON_NAME
from tomolens.reports.montage import SHOWN
from tomolens.reports.results import ERROR_NAME, MONTAGE_NAME, Result, errors_in, read_result, result_folders

INDEX_NAME = "index.html"


@dataclass(frozen=True)
class _Line:
    """A series in the table on top of the page."""

    name: str
    description: str
    findings: int
    surest: float | None
    problems: int


def write_index(out: Path, refused: Mapping[str, str] | None = None) -> Path:
    """Write ``index.html`` for every series folder in ``out``, whichever call made it.

    The series are read from their folders one at a time, so that the page of ten thousand series needs no more memory
    than that of one.

    Parameters
    ----------
    out
        The output folder.
    refused
        Series without a folder, and why the model was not made for them; label to reason.
    """
    lines, errors = _survey(out)
    page = _environment().get_template("index.html.j2")
    content = page.stream(
        lines=lines,
        errors=errors,
        refused=refused or {},
        results=_results(out, lines),
        notice=RESEARCH_USE,
        coordinates=COORDINATES,
        version=version("tomolens"),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        drawn=SHOWN,
        names={"montage": MONTAGE_NAME, "csv": CSV_NAME, "json": JSON_NAME, "error": ERROR_NAME},
    )
    with whole_file(out / INDEX_NAME) as path:
        content.dump(str(path), encoding="utf-8")
    return out / INDEX_NAME


def _survey(out: Path) -> tuple[list[_Line], dict[str, str]]:
    """A line for each finished series, and what is wrong with the others."""
    lines, errors = [], errors_in(out)
    for folder in result_folders(out):
        try:
            lines.append(_line(read_result(folder)))
        except ReadError as damaged:
            errors[folder.name] = str(damaged)
    return lines, errors


def _line(result: Result) -> _Line:
    findings = result.detection.findings
    surest = findings[0].score if findings else None
    return _Line(result.name, result.about.description, len(findings), surest, len(result.about.problems))


def _results(out: Path, lines: list[_Line]) -> Iterator[Result]:
    for line in lines:
        with suppress(ReadError):  # another call may be renewing it at this moment, and will write the page again
            yield read_result(out / line.name)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tomolens.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = _plain
    return environment


def _plain(value: Any) -> str:
    """A value of the run manifest as text."""
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
