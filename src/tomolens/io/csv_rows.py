"""Tables that people wrote, read row by row: what is wrong is said with its file and line."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tomolens.core.errors import ReadError

Point = tuple[float, float, float]


@dataclass(frozen=True)
class CsvRow:
    """One row of a table; a column that it lacks is empty."""

    path: Path
    line: int
    values: dict[str, str]

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.path}, line {self.line}"

    def text(self, column: str) -> str:
        """What stands in a column, without the spaces around it.

        Raises
        ------
        ReadError
            If it is empty.
        """
        if not self.values.get(column):
            raise ReadError(f"{self.where}: {column} is empty.")
        return self.values[column]

    def number(self, column: str) -> float:
        """A finite number.

        Raises
        ------
        ReadError
            If it is none, e.g. empty or ``nan``.
        """
        try:
            value = float(self.values.get(column, ""))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ReadError(f"{self.where}: {column} is {self.values.get(column, '')!r}, not a finite number.")
        return value

    def point(self, columns: Sequence[str]) -> Point:
        """Three finite numbers."""
        x, y, z = map(self.number, columns)
        return x, y, z

    def is_empty(self, columns: Iterable[str]) -> bool:
        """Whether nothing stands in any of these columns."""
        return not any(self.values.get(column) for column in columns)


@dataclass(frozen=True)
class CsvTable:
    """A table with its columns as they stand in its first line."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[CsvRow, ...]


def read_csv(path: Path, needed: Sequence[str]) -> CsvTable:
    """Read a table with at least the ``needed`` columns, in any order; empty lines are passed over.

    Raises
    ------
    ReadError
        If it cannot be read, lacks a column, has one twice, or a row has more or fewer values than the first line.
    """
    lines = read_lines(path)
    columns = tuple(name.strip() for name in lines[0][1]) if lines else ()
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ReadError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}: "
            f"its first line has {', '.join(columns) or 'nothing'}; needed are {', '.join(needed)}."
        )
    if len(set(columns)) < len(columns):
        raise ReadError(f"{path} has a column twice: {', '.join(columns)}.")
    return CsvTable(path, columns, tuple(_row(path, line, columns, values) for line, values in lines[1:]))


def _row(path: Path, line: int, columns: tuple[str, ...], values: list[str]) -> CsvRow:
    if len(values) != len(columns):
        raise ReadError(f"{path}, line {line}: {len(values)} values stand under {len(columns)} columns.")
    return CsvRow(path, line, dict(zip(columns, map(str.strip, values), strict=True)))


def read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """The lines of a CSV that are not empty, with their numbers from 1.

    Raises
    ------
    ReadError
        If the file cannot be read as text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            return [(reader.line_num, values) for values in reader if any(value.strip() for value in values)]
    except OSError as wrong:
        raise ReadError(f"{path} cannot be read: {wrong.strerror}.") from wrong
    except (UnicodeDecodeError, csv.Error) as wrong:
        raise ReadError(f"{path} is not a CSV in UTF-8: {wrong}.") from wrong


def refuse_doubles(rows: Iterable[tuple[tuple[object, ...], CsvRow]], what: str) -> None:
    """Refuse a table where two rows have the same key.

    Raises
    ------
    ReadError
        Naming both lines.
    """
    seen: dict[tuple[object, ...], CsvRow] = {}
    for key, row in rows:
        if key in seen:
            raise ReadError(f"{row.where}: the same {what} stands in line {seen[key].line} already.")
        seen[key] = row
