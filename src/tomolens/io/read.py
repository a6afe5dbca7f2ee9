"""Read a volume from whatever holds it: a DICOM series, NIfTI, NRRD or MetaImage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tomolens.core.errors import AmbiguousSource, ReadError
from tomolens.core.progress import Progress, silent
from tomolens.core.series import PassedOver, Series
from tomolens.io.dicom_series import scan
from tomolens.io.dicom_volume import Missing, Tilt, check_option, read_series, read_stack, with_tilt
from tomolens.io.image_files import IMAGE_SUFFIXES, image_suffix, read_image

if TYPE_CHECKING:
    from tomolens.core.volume import Volume
    from tomolens.io.dicom_stack import Stack

_NAMED_FILES = 3
_NAMED_SERIES = 20


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
        Of a DICOM folder, only series of this modality count. Of an image file, what it shows, ``CT`` or ``MR``, where
        the file itself does not say. Without it, a file of whole numbers that go down to -900 or less and lie as air
        and soft tissue do is taken for CT in HU, any other for MR; the guess stands in the volume's history.
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
    OptionError
        If an option is not one of those accepted.
    """
    if isinstance(source, Series):
        return read_series(source, tilt=tilt, missing=missing, progress=progress)
    path = Path(source)
    if path.is_file() and image_suffix(path) in IMAGE_SUFFIXES:
        check_option("tilt", tilt, get_args(Tilt))
        return with_tilt(read_image(path, modality=modality, progress=progress), tilt)
    wish = _Wish(series_uid, part, modality)
    found, passed_over = scan(path, progress)
    series, stack = _chosen(path, wish, found, passed_over)
    volume = read_stack(series, stack, tilt=tilt, missing=missing, progress=progress)
    return replace(volume, history=(*_lost(series, passed_over), *volume.history))


@dataclass(frozen=True)
class _Wish:
    """Which series of a folder is wanted; None is any."""

    uid: str | None
    part: int | None
    modality: str | None

    def fits(self, series: Series) -> bool:
        """Whether it can be this one."""
        pairs = ((self.uid, series.uid), (self.part, series.part), (self.modality, series.modality))
        return all(wanted in (None, given) for wanted, given in pairs)

    def __str__(self) -> str:
        names = (("SeriesInstanceUID", self.uid), ("part", self.part), ("modality", self.modality))
        return ", ".join(f"{name} {value}" for name, value in names if value is not None)


def _chosen(
    path: Path, wish: _Wish, found: list[tuple[Series, Stack]], passed_over: tuple[PassedOver, ...]
) -> tuple[Series, Stack]:
    fitting = [pair for pair in found if wish.fits(pair[0])]
    wanted = [pair for pair in fitting if not _is_scout(pair[0])] or fitting
    if len(wanted) == 1:
        return wanted[0]
    if wanted:
        raise AmbiguousSource(_several(path, [series for series, _ in wanted]))
    if found:
        raise ReadError(f"{path} holds {len(found)} series, but none with {wish}.")
    raise ReadError(_none(path, passed_over))


def _is_scout(series: Series) -> bool:
    return any(problem.kind == "localizer" for problem in series.problems)


def _several(path: Path, series: list[Series]) -> str:
    lines = [f"\n  {s.label} [{s.uid or 'no SeriesInstanceUID'}]{_mark(s)}" for s in series[:_NAMED_SERIES]]
    more = len(series) - _NAMED_SERIES
    rest = f"\n  and {more} more" if more > 0 else ""
    choose = "choose one by series_uid, part or modality, or from find_series"
    return f"{path} holds {len(series)} series; {choose}:{''.join(lines)}{rest}"


def _mark(series: Series) -> str:
    return "".join(f" {problem}" for problem in series.problems if problem.kind == "divided-series")


def _none(path: Path, passed_over: tuple[PassedOver, ...]) -> str:
    return f"{path} holds no image series. {_reasons(passed_over)}".rstrip(". ") + "."


def _lost(series: Series, passed_over: tuple[PassedOver, ...]) -> tuple[str, ...]:
    """What stands beside the series and may have been a slice of it, as a step of the volume's history."""
    folders = {file.parent for file in series.files}
    lost = tuple(p for p in passed_over if not p.harmless and p.path.parent in folders)
    files = "1 file" if len(lost) == 1 else f"{len(lost)} files"
    return (f"passed over {files} beside the series: {_reasons(lost)}",) if lost else ()


def _reasons(passed_over: tuple[PassedOver, ...]) -> str:
    reasons = [f"{p.path.name}: {p.reason}" for p in passed_over[:_NAMED_FILES]]
    more = len(passed_over) - _NAMED_FILES
    return "; ".join([*reasons, f"and {more} more files"] if more > 0 else reasons)
