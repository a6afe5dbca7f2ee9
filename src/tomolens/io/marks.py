"""What a detector marked, whoever's it is: our own results, a table like ours, or a submission to LUNA16."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomolens.core.errors import ReadError
from tomolens.io.csv_rows import CsvRow, CsvTable, Point, read_csv
from tomolens.io.tables import CSV_NAME, JSON_NAME, read_detection

OUR_COLUMNS = ("x_mm", "y_mm", "z_mm", "score")
LUNA16_COLUMNS = ("coordX", "coordY", "coordZ", "probability")
KEYS = ("series_uid", "source")
"""Either names a scan in a table of ours: its SeriesInstanceUID, or the name of what was read."""


@dataclass(frozen=True, eq=False)
class ScanMarks:
    """The marks of one scan.

    Parameters
    ----------
    series_uid, source
        What the scan is called; either may be empty.
    lps_mm, scores
        (n, 3) and (n,); may be empty.
    min_score
        The threshold that the result was made with; None where it says none.
    where
        The file that says so, for messages.
    """

    series_uid: str
    source: str
    lps_mm: NDArray[np.float64]
    scores: NDArray[np.float64]
    min_score: float | None
    where: str

    @property
    def name(self) -> str:
        """What tells the scan apart."""
        return self.series_uid or self.source


def read_luna16_marks(path: Path) -> list[ScanMarks]:
    """Read a submission to LUNA16 (``seriesuid, coordX, coordY, coordZ, probability``), or a folder of our results.

    Raises
    ------
    ReadError
        If it is neither, a value is no finite number, or a result names no series.
    """
    if not path.is_dir():
        table = read_csv(path, ("seriesuid", *LUNA16_COLUMNS))
        return _of_table(table, [(row.text("seriesuid"), "") for row in table.rows], LUNA16_COLUMNS)
    marks = read_results(path)
    for scan in marks:
        if not scan.series_uid:
            raise ReadError(f"{scan.where} names no SeriesInstanceUID, by which LUNA16 tells scans apart.")
    return marks


def read_marks(path: Path) -> list[ScanMarks]:
    """Read our results (a folder, or one ``findings.json``), or a CSV with ``score, x_mm, y_mm, z_mm`` and a key.

    Raises
    ------
    ReadError
        If it is neither, a value is no finite number, a source alone names several series, or a scan has two results.
    """
    if path.suffix.lower() != ".csv":
        return read_results(path)
    table = read_csv(path, OUR_COLUMNS)
    return _of_table(table, keys_of(table, shared=True), OUR_COLUMNS)


def keys_of(table: CsvTable, *, shared: bool = False) -> list[tuple[str, str]]:
    """The (series_uid, source) of each row, either by itself completed from the rows of the same scan that have both.

    A source that several series share, e.g. their description, is empty beside their series_uid, for it names none of
    them; it stands there where ``shared``.

    Raises
    ------
    ReadError
        If the table has neither column, a row nothing in both, or alone a source that several series share.
    """
    if not set(KEYS) & set(table.columns):
        raise ReadError(
            f"{table.path} has neither of the columns {' and '.join(KEYS)}: nothing says which scan a row belongs to. "
            f"Its first line has {', '.join(table.columns)}."
        )
    series: dict[str, list[str]] = defaultdict(list)
    for row in table.rows:
        uid, source = _said(row)
        if uid and source and uid not in series[source]:
            series[source].append(uid)
    named = [(source, uids) for source, uids in reversed(series.items()) if shared or len(uids) == 1]
    sources = {uid: source for source, uids in named for uid in uids}
    return [_key(row, series, sources) for row in table.rows]


def _said(row: CsvRow) -> tuple[str, str]:
    uid, source = (row.values.get(key, "") for key in KEYS)
    return uid, source


def _key(row: CsvRow, series: Mapping[str, Sequence[str]], sources: Mapping[str, str]) -> tuple[str, str]:
    uid, source = _said(row)
    if not (uid or source):
        raise ReadError(f"{row.where}: neither series_uid nor source says which scan the row belongs to.")
    uids = [uid] if uid else series.get(source, [])
    if len(uids) > 1:
        raise ReadError(
            f"{row.where}: {source} names {len(uids)} series, e.g. {' and '.join(uids[:2])}; give series_uid."
        )
    return (uids[0], sources.get(uids[0], "")) if uids else ("", source)


def _of_table(table: CsvTable, keys: Sequence[tuple[str, str]], columns: Sequence[str]) -> list[ScanMarks]:
    scans: dict[tuple[str, str], list[tuple[Point, float]]] = {}
    for key, row in zip(keys, table.rows, strict=True):
        scans.setdefault(key, []).append((row.point(columns[:3]), row.number(columns[3])))
    return [
        _scan(*key, [place for place, _ in marks], [score for _, score in marks], None, table.path)
        for key, marks in scans.items()
    ]


def read_results(path: Path) -> list[ScanMarks]:
    """Read what ``tomolens detect`` wrote: every ``findings.json`` in a folder, or one.

    All candidates count, those below the threshold too.

    Raises
    ------
    ReadError
        If there is none, one is damaged, or two are of the same scan.
    """
    files = sorted(path.rglob(JSON_NAME)) if path.is_dir() else [path]
    files = [file for file in files if not file.parent.name.startswith(".")]
    if not files:
        lone = any(path.rglob(CSV_NAME))
        why = f" Its {CSV_NAME} alone will not do: it lacks what lies below the threshold." if lone else ""
        raise ReadError(f"{path} holds no {JSON_NAME} at any depth, as `tomolens detect` writes it.{why}")
    marks = [_result(file) for file in files]
    seen: dict[str, ScanMarks] = {}
    for scan in marks:
        if scan.name in seen:
            raise ReadError(f"{scan.where} and {seen[scan.name].where} are of the same scan, {scan.name}.")
        seen[scan.name] = scan
    return marks


def _result(file: Path) -> ScanMarks:
    detection = read_detection(file)
    run = detection.run
    if not (run.series_uid or run.source):
        raise ReadError(f"{file} names neither a series nor a source.")
    places = [finding.center_lps_mm for finding in detection.candidates]
    scores = [finding.score for finding in detection.candidates]
    return _scan(run.series_uid, run.source, places, scores, detection.min_score, file)


def _scan(
    uid: str, source: str, places: Sequence[Point], scores: Sequence[float], min_score: float | None, where: Path
) -> ScanMarks:
    return ScanMarks(
        uid, source, np.array(places, float).reshape(-1, 3), np.array(scores, float), min_score, str(where)
    )
