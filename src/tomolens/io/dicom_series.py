"""Scan a folder of DICOM files into series, from the headers alone."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tomolens.core.errors import ReadError
from tomolens.core.progress import Progress, Step, silent
from tomolens.core.series import FolderScan, PassedOver, Series
from tomolens.io.dicom_division import stacks_of
from tomolens.io.dicom_header import NoSliceError, read_slices
from tomolens.io.dicom_problems import problems_of
from tomolens.io.dicom_slice import Slice
from tomolens.io.dicomdir import is_dicomdir, named_files
from tomolens.io.parallel import in_parallel

if TYPE_CHECKING:
    from tomolens.io.dicom_stack import Stack

Headers = tuple[Slice, ...] | PassedOver
"""What the header of one file gives."""
_FILES_A_BATCH = 64


def find_series(folder: Path | str, *, progress: Progress = silent) -> FolderScan:
    """Find every image series below a folder. Headers alone are read, no pixel is.

    Slices belong together where SeriesInstanceUID, FrameOfReferenceUID, orientation, pixel spacing and size agree;
    names and order of the files play no part. A series that holds more than one stack, or one place more than once
    (phases, echoes, ...), gives several `Series` with the same ``uid``, numbered by ``part``. What keeps a series from
    being one volume stands in its ``problems``; a file that is in no series stands in ``passed_over`` with the reason.

    Parameters
    ----------
    folder
        A folder, read at any depth and through links, a single DICOM file, or a DICOMDIR.
    progress
        Told ``Step("scan headers", files, all files)``; may raise `Cancelled` to stop.

    Raises
    ------
    ReadError
        If there is no such file or folder.
    """
    root = Path(folder)
    stacks, passed_over = scan(root, progress)
    return FolderScan(root, tuple(series for series, _ in stacks), passed_over)


def scan(root: Path, progress: Progress) -> tuple[list[tuple[Series, Stack]], tuple[PassedOver, ...]]:
    """Every series below ``root`` beside its stack of slices, and the files passed over."""
    if not root.exists():
        raise ReadError(f"{root}: no such file or folder.")
    walked = tuple(_files(root))
    files = sorted(path for path in walked if isinstance(path, Path))
    batches = [files[start : start + _FILES_A_BATCH] for start in range(0, len(files), _FILES_A_BATCH)]
    read: list[Headers] = []
    progress(Step("scan headers", 0, len(files)))
    with in_parallel(_headers, batches) as results:
        for batch in results:
            read += batch
            progress(Step("scan headers", len(read), len(files)))
    slices = [s for headers in read if not isinstance(headers, PassedOver) for s in headers]
    passed_over = [item for item in (*walked, *read) if isinstance(item, PassedOver)]
    return series_of(slices), tuple(sorted(passed_over, key=lambda p: p.path))


def _headers(paths: list[Path]) -> list[Headers]:
    return [_header(path) for path in paths]


def _header(path: Path) -> Headers:
    try:
        return read_slices(path)
    except ReadError as refused:
        return PassedOver(path, str(refused), isinstance(refused, NoSliceError))


def series_of(slices: Iterable[Slice]) -> list[tuple[Series, Stack]]:
    """Slices as series, in the order of study, number and description, each beside its stack."""
    families: dict[tuple[str, str], list[Stack]] = defaultdict(list)
    for stack in stacks_of(sorted(slices, key=lambda s: (s.instance_number, s.path, s.frame))):
        header = stack.slices[0].series
        families[header.study_uid, header.uid].append(stack)
    found = [
        (_series(stack, part if len(stacks) > 1 else 0), stack)
        for stacks in families.values()
        for part, stack in enumerate(stacks, start=1)
    ]
    return sorted(found, key=lambda pair: _order(pair[0]))


def _order(series: Series) -> tuple[str, int, str, str, int]:
    return (series.study_uid, series.number or 0, series.description, series.uid, series.part)


def _files(root: Path) -> Iterator[Path | PassedOver]:
    """Every file, and the folders that cannot be opened; links to folders are followed, but no folder is read twice."""
    if not root.is_dir():
        yield from named_files(root) if is_dicomdir(root) else (root,)
        return
    closed: list[OSError] = []
    seen = set(root.resolve().parents)
    for folder, inner, names in os.walk(root, onerror=closed.append, followlinks=True):
        place = Path(folder).resolve()
        if place in seen:
            inner.clear()
            continue
        seen.add(place)
        yield from (Path(folder, name) for name in names)
    yield from (PassedOver(Path(e.filename), f"a folder that cannot be opened ({e.strerror})") for e in closed)


def _series(stack: Stack, part: int) -> Series:
    first = stack.slices[0]
    header = first.series
    grid = stack.grid() if stack.is_regular else None
    return Series(
        uid=header.uid,
        study_uid=header.study_uid,
        modality=header.modality,
        files=tuple(s.path for s in stack.slices),
        frames=tuple(s.frame for s in stack.slices),
        copies=tuple((copy.path, copy.frame) for copy, _ in stack.copies),
        shape=(len(stack), first.pixels.rows, first.pixels.columns),
        spacing_mm=None if grid is None else grid.spacing_mm,
        description=header.description,
        number=header.number,
        part=part,
        orientation="" if grid is None else grid.orientation,
        frame_of_reference=header.frame_of_reference,
        kernel=header.kernel,
        manufacturer=header.manufacturer,
        patient_id=header.patient_id,
        study_date=header.study_date,
        transfer_syntax=first.pixels.transfer_syntax,
        problems=problems_of(stack),
        thickness_mm=first.thickness,
    )
