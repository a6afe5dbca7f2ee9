"""What somebody marked in scans, as tables: LUNA16's as they are, or one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tomolens.core.errors import ReadError
from tomolens.io.csv_rows import CsvRow, Point, read_csv

NAME_COLUMNS = ("scan", "volume", "seriesuid", "series_uid")
PLACE_COLUMNS = (("coordX", "coordY", "coordZ"), ("x_mm", "y_mm", "z_mm"))
UNKNOWN_DIAMETER_MM = 10.0
"""LUNA16's reading of a negative diameter."""
MOST_DIAMETER_MM = 200.0
"""No lesion of a lung is larger: a unit is wrong, or a column."""


@dataclass(frozen=True)
class Marking:
    """A place in a scan that somebody marked; ``where`` is the line of the ``table`` that says so."""

    center_lps_mm: Point
    diameter_mm: float
    where: str
    table: Path


def read_markings(file: Path) -> list[tuple[tuple[str, ...], Marking]]:
    """A table of marks: the names of the scan in each row, and the mark.

    Columns: one or more of ``scan``, ``volume``, ``seriesuid``, ``series_uid``; ``coordX, coordY, coordZ`` or
    ``x_mm, y_mm, z_mm`` (LPS mm); ``diameter_mm``, for which LUNA16 writes -1 where it is not known.

    Raises
    ------
    ReadError
        If a column is missing, a row names no scan, a place or diameter is no number, or a diameter is 0 or larger than
        `MOST_DIAMETER_MM`.
    """
    table = read_csv(file, ("diameter_mm",))
    columns = [column for column in NAME_COLUMNS if column in table.columns]
    place = next((columns for columns in PLACE_COLUMNS if set(columns) <= set(table.columns)), None)
    if not columns or place is None:
        raise ReadError(
            f"{file} has the columns {', '.join(table.columns)}; needed are one of {', '.join(NAME_COLUMNS)}, and "
            f"{' or '.join(', '.join(columns) for columns in PLACE_COLUMNS)}."
        )
    return [(_names(row, columns), _marking(row, place)) for row in table.rows]


def _names(row: CsvRow, columns: Sequence[str]) -> tuple[str, ...]:
    if row.is_empty(columns):
        raise ReadError(f"{row.where}: nothing stands in {' or '.join(columns)} to say which scan it is of.")
    return tuple(row.values[column] for column in columns if row.values[column])


def _marking(row: CsvRow, place: Sequence[str]) -> Marking:
    return Marking(row.point(place), _diameter(row), row.where, row.path)


def _diameter(row: CsvRow) -> float:
    diameter = row.number("diameter_mm")
    if diameter == 0 or diameter > MOST_DIAMETER_MM:
        raise ReadError(
            f"{row.where}: diameter_mm is {diameter:g}; accepted is above 0 to {MOST_DIAMETER_MM:g}, or a negative "
            "number where it is not known."
        )
    return diameter if diameter > 0 else UNKNOWN_DIAMETER_MM
