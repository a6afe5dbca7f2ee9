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
from tomolens.core.label_picture import hex_colour
from tomolens.io.atomic import whole_file
from tomolens.io.tables import COORDINATES
from tomolens.reports.montage import SHOWN
from tomolens.reports.results import MONTAGE_NAME, Kept, Kind, Result, errors_in, read_result, result_folders

INDEX_NAME = "index.html"


@dataclass(frozen=True)
class _Line:
    """A series in the table on top of the page."""

    name: str
    description: str
    cells: tuple[str, ...]
    problems: int


def write_index(kind: Kind[Any, Kept], out: Path, refused: Mapping[str, str] | None = None) -> Path:
    """Write ``index.html`` for every series folder in ``out``, whichever call made it.

    The series are read from their folders one at a time, so that the page of ten thousand series needs no more memory
    than that of one.

    Parameters
    ----------
    kind
        Of the results.
    out
        The output folder.
    refused
        Series without a folder, and why the model was not made for them; label to reason.
    """
    lines, errors = _survey(kind, out)
    page = _environment().get_template(kind.template)
    content = page.stream(
        kind=kind,
        lines=lines,
        errors=errors,
        refused=refused or {},
        results=_results(kind, out, lines),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    with whole_file(out / INDEX_NAME) as path:
        content.dump(str(path), encoding="utf-8")
    return out / INDEX_NAME


def _survey(kind: Kind[Any, Kept], out: Path) -> tuple[list[_Line], dict[str, str]]:
    """A line for each finished series, and what is wrong with the others."""
    lines, errors = [], errors_in(out)
    for folder in result_folders(out):
        try:
            lines.append(_line(kind, read_result(kind, folder)))
        except ReadError as damaged:
            errors[folder.name] = str(damaged)
    return lines, errors


def _line(kind: Kind[Any, Kept], result: Result[Kept]) -> _Line:
    return _Line(result.name, result.about.description, kind.cells(result.content), len(result.about.problems))


def _results(kind: Kind[Any, Kept], out: Path, lines: list[_Line]) -> Iterator[Result[Kept]]:
    for line in lines:
        with suppress(ReadError):  # another call may be renewing it at this moment, and will write the page again
            yield read_result(kind, out / line.name)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tomolens.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": _plain, "colour": hex_colour}
    environment.globals |= {
        "notice": RESEARCH_USE,
        "coordinates": COORDINATES,
        "version": version("tomolens"),
        "drawn": SHOWN,
        "montage": MONTAGE_NAME,
    }
    return environment


def _plain(value: Any) -> str:
    """A value of the run manifest as text."""
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
