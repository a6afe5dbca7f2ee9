"""Read a volume from whatever holds it: a DICOM series, NIfTI, NRRD or MetaImage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tomolens.core.errors import AmbiguousSource, ReadError
from tomolens.core.progress import Progress, silent
from tomolens.core.series import FolderScan, Series
from tomolens.io.dicom_series import scan
from tomolens.io.dicom_volume import Missing, Tilt, read_series, read_stack
from tomolens.io.image_files import IMAGE_SUFFIXES, image_suffix, read_image

if TYPE_CHECKING:
    from tomolens.core.volume import Volume
    from tomolens.io.dicom_stack import Stack

_NAMED_REASONS = 3


def read_volume(
    source: Series | Path | str,
    *,
    series_uid: str | None = None,
    part: int | None = None,
    modality: str | None = None,
    tilt: Tilt = "keep",
    missing: Missing = "refuse",
    progress: Progress = silent,
) -> Volume:
    """Read one volume.

    Parameters
    ----------
    source
        A `Series` from `find_series`, a folder with DICOM files at any depth, a DICOM file, a DICOMDIR, or an image
        file (``.nii``, ``.nii.gz``, ``.nrrd``, ``.nhdr``, ``.mha``, ``.mhd``).
    series_uid, part
        Which series of a DICOM folder; needed where it holds several. A scout beside them does not count.
    modality
        What an image file shows, ``CT`` or ``MR``, where the file itself does not say. Without it a file with whole
        numbers that go down to -900 or less is taken for CT in HU, anything else for MR; the guess stands in the
        volume's history.
    tilt, missing, progress
        See `tomolens.io.dicom_volume.read_series`.

    Raises
    ------
    AmbiguousSource
        If several series stand in the folder and none was chosen; the message names them.
    ReadError
        If nothing there can be read.
    GeometryError
        If the slices are not one regular grid, or the image file does not say where it lies.
    """
    if isinstance(source, Series):
        return read_series(source, tilt=tilt, missing=missing, progress=progress)
    path = Path(source)
    if path.is_file() and image_suffix(path) in IMAGE_SUFFIXES:
        return read_image(path, modality=modality)
    series, stack = _chosen(path, series_uid, part, progress)
    return read_stack(series, stack, tilt=tilt, missing=missing, progress=progress)


def _chosen(path: Path, uid: str | None, part: int | None, progress: Progress) -> tuple[Series, Stack]:
    found, passed_over = scan(path, progress)
    wanted = [pair for pair in found if uid in (None, pair[0].uid) and part in (None, pair[0].part)]
    if len(wanted) > 1 and uid is None:
        wanted = [pair for pair in wanted if not _is_scout(pair[0])] or wanted
    if len(wanted) == 1:
        return wanted[0]
    if wanted:
        raise AmbiguousSource(_several(path, [series for series, _ in wanted]))
    raise ReadError(_none(FolderScan(path, tuple(series for series, _ in found), passed_over), uid, part))


def _is_scout(series: Series) -> bool:
    return any(problem.kind == "localizer" for problem in series.problems)


def _several(path: Path, series: list[Series]) -> str:
    lines = "".join(f"\n  {s.label} [{s.uid or 'no SeriesInstanceUID'}]" for s in series)
    return f"{path} holds {len(series)} series; choose one by series_uid (and part), or from find_series:{lines}"


def _none(scan: FolderScan, uid: str | None, part: int | None) -> str:
    if scan.series:
        asked = f"{uid or 'any series'}{'' if part is None else f' part {part}'}"
        return f"{scan.root} does not hold the series asked for ({asked}), but {len(scan)} others."
    reasons = "; ".join(f"{p.path.name}: {p.reason}" for p in scan.passed_over[:_NAMED_REASONS])
    more = len(scan.passed_over) - _NAMED_REASONS
    return (
        f"{scan.root} holds no image series. {reasons}{f'; and {more} more files' if more > 0 else ''}".rstrip() + "."
    )
