"""Marks and what is known, joined scan by scan: LUNA16's tables, and a table of one's own.

A scan in one table and not in the other is where evaluations go wrong unseen: it is refused, or counted and said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tomolens.core.errors import ReadError
from tomolens.core.froc import MarkedScan, Spheres
from tomolens.core.metrics import size_class
from tomolens.io.csv_rows import CsvRow, CsvTable, read_csv, read_lines, refuse_doubles
from tomolens.io.marks import KEYS, ScanMarks, keys_of, read_luna16_marks, read_marks

ANNOTATION_COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
TRUTH_COLUMNS = ("x_mm", "y_mm", "z_mm", "diameter_mm")
GROUPINGS = ("texture", "place")
"""Columns of one's own truth that sensitivity is split by, beside size."""
NOT_SAID = "not said"
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Joined:
    """Scans with marks and truth, the threshold that all results agree on, and what the reader should know."""

    scans: tuple[MarkedScan, ...]
    min_score: float | None
    notes: tuple[str, ...]


def luna16_scans(marks: Path, annotations: Path, excluded: Path, series: Path | None) -> Joined:
    """Join marks with LUNA16's tables.

    Parameters
    ----------
    marks
        A submission as CSV, or a folder of results of ``tomolens detect``.
    annotations, excluded
        Columns ``seriesuid, coordX, coordY, coordZ, diameter_mm`` (LPS mm); an excluded diameter below 0 is not known.
    series
        Every scan that was read, one SeriesInstanceUID a line. Where None, those of the two tables.

    Raises
    ------
    ReadError
        If a file cannot be right, or marks are of a series that is not listed.
    """
    marked = {scan.name: scan for scan in read_luna16_marks(marks)}
    nodules, other = _annotations(annotations, excluded=False), _annotations(excluded, excluded=True)
    listed = _listed(series) if series else sorted({*nodules, *other})
    unknown = sorted(set(marked) - set(listed))
    if unknown:
        more = "" if series else f" Neither {annotations.name} nor {excluded.name} names them: give --seriesuids."
        raise ReadError(f"{marks} marks {_some(unknown)}, not listed among the scans that were read.{more}")
    scans = tuple(_marked(name, marked.get(name), nodules.get(name), other.get(name)) for name in listed)
    return Joined(scans, None, _luna16_notes(scans, marked, nodules, series))


def _luna16_notes(
    scans: Sequence[MarkedScan], marked: Mapping[str, ScanMarks], nodules: Mapping[str, Spheres], series: Path | None
) -> tuple[str, ...]:
    names = {scan.name for scan in scans}
    beyond = [name for name in nodules if name not in names]
    unmarked = [name for name in names if name not in marked]
    notes = (
        (not series, "no list of scans was given: a scan without any annotation is not counted"),
        (beyond, f"{sum(len(nodules[n]) for n in beyond)} nodules are in {len(beyond)} scans not listed: left out"),
        (unmarked, f"{len(unmarked)} scans have no mark; they count as read"),
        _repeated(scans),
    )
    return tuple(note for said, note in notes if said)


def _annotations(path: Path, *, excluded: bool) -> dict[str, Spheres]:
    table = read_csv(path, ANNOTATION_COLUMNS)
    rows: dict[str, list[tuple[tuple[float, float, float], float]]] = defaultdict(list)
    for row in table.rows:
        rows[row.text("seriesuid")].append((row.point(ANNOTATION_COLUMNS[1:4]), _diameter(row, unknown=excluded)))
    if not excluded:
        places = (((row.values["seriesuid"], *row.point(ANNOTATION_COLUMNS[1:4])), row) for row in table.rows)
        refuse_doubles(places, "nodule")
    return {name: _spheres(known) for name, known in rows.items()}


def _diameter(row: CsvRow, *, unknown: bool) -> float:
    diameter = row.number("diameter_mm")
    if diameter <= 0 and not (unknown and diameter < 0):
        raise ReadError(f"{row.where}: diameter_mm is {diameter:g}, not above 0.")
    return diameter


def _spheres(known: Sequence[tuple[tuple[float, float, float], float]]) -> Spheres:
    return Spheres(np.array([center for center, _ in known]), np.array([diameter for _, diameter in known]))


def _listed(path: Path) -> list[str]:
    """One SeriesInstanceUID a line, with or without a heading ``seriesuid``."""
    lines = read_lines(path)
    if lines and lines[0][1][0].strip().lower() in ("seriesuid", "series_uid"):
        lines = lines[1:]
    rows = [CsvRow(path, line, {"seriesuid": values[0].strip()}) for line, values in lines]
    refuse_doubles((((row.text("seriesuid"),), row) for row in rows), "series")
    if not rows:
        raise ReadError(f"{path} lists no series.")
    return [row.text("seriesuid") for row in rows]


def _marked(
    name: str,
    marks: ScanMarks | None,
    nodules: Spheres | None,
    excluded: Spheres | None = None,
    labels: Mapping[str, tuple[str, ...]] | None = None,
) -> MarkedScan:
    nodules = nodules or Spheres.none()
    places, scores = (marks.lps_mm, marks.scores) if marks else (np.empty((0, 3)), np.empty(0))
    sizes = {"size": tuple(map(size_class, nodules.diameters_mm.tolist()))}
    return MarkedScan(name, places, scores, nodules, excluded or Spheres.none(), {**sizes, **(labels or {})})


def own_scans(results: Path, truth: Path) -> Joined:
    """Join results with a table of what is known in one's own scans.

    Parameters
    ----------
    results
        A folder of results of ``tomolens detect``, one ``findings.json``, or a CSV with ``score, x_mm, y_mm, z_mm`` and
        ``series_uid`` or ``source``.
    truth
        CSV with ``series_uid`` or ``source``, ``x_mm, y_mm, z_mm, diameter_mm`` (LPS mm) and, where wished, ``texture``
        and ``place``. A row with a scan's name alone says that it holds no nodule.

    Raises
    ------
    ReadError
        If a file cannot be right, or a result is of a scan that the truth does not name.
    """
    marked, table = read_marks(results), read_csv(truth, TRUTH_COLUMNS)
    rows: dict[str, list[CsvRow]] = defaultdict(list)
    found: dict[str, ScanMarks | None] = {}
    for row, (uid, source) in zip(table.rows, keys_of(table), strict=True):
        scan = _named(marked, uid, source, row)
        name = scan.name if scan else uid or source
        rows[name].append(row)
        found[name] = scan
    unknown = [scan.name for scan in marked if scan.name not in rows]
    if unknown:
        raise ReadError(
            f"{results} holds results of {_some(unknown)}, which {truth} does not name. A row with the scan's name and "
            "nothing else says that it holds no nodule."
        )
    scans = tuple(_own_scan(name, found[name], own) for name, own in rows.items())
    return Joined(scans, *_own_notes(scans, marked, found, table))


def _named(marked: Sequence[ScanMarks], uid: str, source: str, row: CsvRow) -> ScanMarks | None:
    """The result of a scan, by its SeriesInstanceUID where both give one, else by its source; None where none is."""
    scans = [s for s in marked if (s.series_uid == uid if uid and s.series_uid else s.source == source)]
    if len(scans) > 1:
        files = " and ".join(scan.where for scan in scans[:2])
        raise ReadError(f"{row.where}: {uid or source} names {len(scans)} results, e.g. {files}; give series_uid.")
    return scans[0] if scans else None


def _own_scan(name: str, marks: ScanMarks | None, rows: Sequence[CsvRow]) -> MarkedScan:
    nodules = [row for row in rows if not row.is_empty(TRUTH_COLUMNS)]
    if not nodules:
        return _marked(name, marks, None)
    if len(nodules) < len(rows):
        empty = next(row for row in rows if row not in nodules)
        raise ReadError(f"{empty.where}: says that {name} holds no nodule; line {nodules[0].line} has one.")
    refuse_doubles(((row.point(TRUTH_COLUMNS[:3]), row) for row in nodules), f"nodule of {name}")
    known = _spheres([(row.point(TRUTH_COLUMNS[:3]), _diameter(row, unknown=False)) for row in nodules])
    labels = {g: tuple(row.values[g] or NOT_SAID for row in nodules) for g in GROUPINGS if g in rows[0].values}
    return _marked(name, marks, known, labels=labels)


def _own_notes(
    scans: Sequence[MarkedScan], marked: Sequence[ScanMarks], found: Mapping[str, ScanMarks | None], table: CsvTable
) -> tuple[float | None, tuple[str, ...]]:
    thresholds = {scan.min_score for scan in marked}
    absent = [name for name, scan in found.items() if scan is None]
    other = [column for column in table.columns if column not in (*KEYS, *TRUTH_COLUMNS, *GROUPINGS)]
    notes = (
        (absent, f"{_some(absent)} have no result; they count as read, without a mark"),
        (len(thresholds) > 1, "the results were made with different thresholds: give --threshold for figures at one"),
        (other, f"columns of the truth that are not used: {', '.join(other)}"),
        _repeated(scans),
    )
    return next(iter(thresholds)) if len(thresholds) == 1 else None, tuple(note for said, note in notes if said)


def _repeated(scans: Sequence[MarkedScan]) -> tuple[int, str]:
    """How many marks stand at the very place of another, and what becomes of them: they are seldom meant."""
    times = sum(len(scan.scores) - len(set(map(tuple, scan.marks_lps_mm.tolist()))) for scan in scans)
    return times, (
        f"{times} marks stand where another mark of their scan does; each counts, as in LUNA16's own script: on a "
        "nodule as one more on the same, elsewhere as one more false positive"
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return (
        f"{len(names)} scans ({shown}{', ...' if len(names) > _SHOWN else ''})" if len(names) > 1 else f"scan {shown}"
    )
