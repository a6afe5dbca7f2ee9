"""What the parts of a described data set say against each other, a line for each; nothing where they agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tomolens.io.image_files import IMAGE_SUFFIXES, image_suffix

if TYPE_CHECKING:
    from tomolens.training.dataset import Dataset, ScanRecord, Split
    from tomolens.training.markings import Marking


def marks_of_no_scan(
    scans: Sequence[ScanRecord], marked: Mapping[str, Sequence[Marking]]
) -> Iterator[tuple[Marking, str]]:
    """Marks of none of the scans, with each name of theirs."""
    known = {marking for scan in scans for marking in (*scan.nodules, *scan.excluded)}
    yield from ((marking, name) for name, ms in marked.items() for marking in ms if marking not in known)


def misspelt(dataset: Dataset, unlisted: Sequence[tuple[Marking, str]]) -> Iterator[str]:
    """Marks that are meant for a listed scan, which would be trained on as if it had none."""
    listed = {_plain(name): name for scan in dataset.scans for name in (scan.scan, scan.series_uid) if name}
    for marking, name in unlisted:
        if _plain(name) in listed:
            meant = listed[_plain(name)]
            yield (
                f"{marking.where}: the scan is called {name!r}, but the listed one {meant!r}; write both alike, suffix "
                "and letter case too."
            )


def _plain(name: str) -> str:
    """A scan's name in lower case, without the suffix of a file."""
    suffix = image_suffix(Path(name))
    return name.lower().removesuffix(suffix) if suffix in (*IMAGE_SUFFIXES, ".dcm") else name.lower()


def doubles(dataset: Dataset) -> Iterator[str]:
    """What is listed already: scans by name, or by another name as the same file or series; nodules by name."""
    names: dict[str, str] = {}
    files: dict[Path, dict[str | None, str]] = {}
    for scan in dataset.scans:
        uid, series = scan.series_uid, files.setdefault(scan.path.resolve(), {})
        here = next((where for other, where in series.items() if other == uid or None in (other, uid)), None)
        if scan.scan in names:
            yield f"{scan.where}: the scan {scan.scan!r} is already listed in {names[scan.scan]}."
        elif here:
            yield f"{scan.where}: {scan.path} is already listed in {here}."
        names.setdefault(scan.scan, scan.where)
        series.setdefault(uid, scan.where)
    nodules: dict[str, str] = {}
    items = [(nodule.name, nodule.where) for nodule in dataset.nodules]
    items += [(name, cubes.where) for cubes in dataset.cubes for name in cubes.names()]
    for name, where in items:
        if name in nodules:
            yield f"{where}: the nodule {name!r} is already listed in {nodules[name]}; give each a name of its own."
        nodules.setdefault(name, where)


def two_splits(dataset: Dataset) -> Iterator[str]:
    """Patients of whom something is trained on and something kept out."""
    seen: dict[str, tuple[Split, str]] = {}
    items = [(scan.patient, scan.split, scan.where) for scan in dataset.scans]
    items += [(nodule.patient, nodule.split, nodule.where) for nodule in dataset.nodules]
    items += [(patient, cubes.split, cubes.where) for cubes in dataset.cubes for patient in cubes.patients()]
    for patient, split, where in items:
        first, before = seen.setdefault(patient, (split, where))
        if split is not first:
            yield f"{where}: the patient {patient!r} is in the split {split}, but in {before} in the split {first}."


def both_ways(dataset: Dataset) -> Iterator[str]:
    """Places that count as a nodule by one table, and neither way by another."""
    for scan in dataset.scans:
        nodules = {nodule.center_lps_mm: nodule.where for nodule in scan.nodules}
        for marking in (m for m in scan.excluded if m.center_lps_mm in nodules):
            nodule = nodules[marking.center_lps_mm]
            yield f"{marking.where}: the place is marked as a nodule in {nodule}; leave out one of the two."


def strangers(dataset: Dataset, marked: Mapping[str, Sequence[Marking]]) -> Iterator[str]:
    """Marks of which none belongs to a scan: the two name scans differently, and all nodules would be negatives."""
    if dataset.scans and marked and not dataset.marks:
        name, (marking, *_) = next(iter(marked.items()))
        yield (
            f"{marking.where}: no mark belongs to a listed scan; this one is of {name!r}, the first scan is called "
            f"{dataset.scans[0].scan!r}."
        )
