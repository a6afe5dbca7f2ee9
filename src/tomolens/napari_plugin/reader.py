"""Open DICOM folders and files, NIfTI, NRRD, MetaImage, ``findings.json`` and ``segmentation.json`` in napari.

K-space is no image yet: a file of it opens *Reconstruct* with that file chosen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tomolens.core.errors import AmbiguousSource, ReadError
from tomolens.core.progress import Step
from tomolens.core.series import PassedOver
from tomolens.io.image_files import IMAGE_SUFFIXES, image_suffix
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.messages import reported, say, viewer_at_hand

if TYPE_CHECKING:
    from napari.layers import Image

    from tomolens.core.finding import Detection
    from tomolens.core.progress import Progress
    from tomolens.core.segmentation import Segmentation
    from tomolens.core.series import Series
    from tomolens.core.volume import Volume
    from tomolens.io.dicom_slice import Slice

Reader = Callable[[str | list[str]], list[layers.LayerData] | list[tuple[None]]]

NOTHING: list[tuple[None]] = [(None,)]
"""What tells napari that the reader did its work and there is no layer: the user cancelled, or was told why not."""
_FINDINGS, _SEGMENTATION = "findings.json", "segmentation.json"
_BART = ".cfl"
_KSPACE_SUFFIXES = (".h5", ".hdf5", _BART, ".hdr", ".npz")
_NAMED_FILES = 3
_LOOKED_INTO = 2000
"""A folder is DICOM's if one of this many files is; enough for any disc, 0.1 s for a folder that is not."""


def get_reader(path: str | list[str]) -> Reader | None:
    """The reader, if one of the paths is one that Tomolens reads; None at once for anything else (npe2's rule)."""
    return read if any(_is_known(Path(p)) for p in _listed(path)) else None


def _listed(path: str | list[str]) -> list[str]:
    return [path] if isinstance(path, str) else list(path)


def _is_known(path: Path) -> bool:
    if path.is_dir():
        return any(_is_dicom(file) or _is_kspace(file) for file in islice(_files(path), _LOOKED_INTO))
    is_result = path.name.endswith((_FINDINGS, _SEGMENTATION))
    return is_result or image_suffix(path) in IMAGE_SUFFIXES or _is_dicom(path) or _is_kspace(path)


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names)


def _is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's mark after the 128 bytes of preamble (PS3.10 7.1)."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _is_kspace(path: Path) -> bool:
    """Whether it is a file of k-space. Half of one of BART's is named by *Reconstruct*, and means nothing to others."""
    suffix = path.suffix.lower()
    if suffix not in _KSPACE_SUFFIXES:
        return False
    from tomolens.io.kspace import is_kspace

    return is_kspace(path) or (suffix == _BART and path.is_file())


def read(path: str | list[str]) -> list[layers.LayerData] | list[tuple[None]]:
    """Read into layers; the user is asked which where there are several series, and told why where one is refused."""
    paths = [Path(p) for p in _listed(path)]
    with reported() as progress:
        if all(p.name.endswith(_FINDINGS) for p in paths):
            return [_findings(p) for p in paths]
        if all(p.name.endswith(_SEGMENTATION) for p in paths):
            return [_segmentation(p) for p in paths]
        if all(image_suffix(p) in IMAGE_SUFFIXES for p in paths):
            return [_image_file(p) for p in paths]
        if any(map(_is_kspace, paths)):
            return _kspace(paths)
        return _dicom(paths, progress)
    return NOTHING


def _kspace(paths: list[Path]) -> list[tuple[None]]:
    """Hand the first file of k-space to *Reconstruct*; the user is told so."""
    chosen, *others = [path for path in paths if _is_kspace(path)]
    viewer = viewer_at_hand()
    if viewer is None:
        raise ReadError(f"{chosen} is k-space, no image: Reconstruct, in napari's menu Plugins, makes one of it.")
    from tomolens.napari_plugin.reconstruct_widget import open_kspace

    open_kspace(viewer, chosen)
    more = f" One is reconstructed at a time: {len(others)} more were passed over." if others else ""
    say(f"{chosen.name} is chosen in Reconstruct, for k-space is no image yet. Choose a model there, press Run.{more}")
    return NOTHING


def _findings(path: Path) -> layers.LayerData:
    from tomolens.io.tables import read_detection

    detection = read_detection(path)
    return layers.findings(detection, _scan_of(detection))


def _segmentation(path: Path) -> layers.LayerData:
    from tomolens.io.segmentations import read_segmentation

    segmentation = read_segmentation(path)
    return layers.labels(segmentation, _scan_of(segmentation))


def _scan_of(result: Detection | Segmentation) -> Image | None:
    """The open scan that a result was made of."""
    viewer = viewer_at_hand()
    open_scans = layers.scans(viewer.layers) if viewer is not None else []
    return next((scan for scan in open_scans if layers.is_of(result, scan.metadata["volume"])), None)


def _image_file(path: Path) -> layers.LayerData:
    from tomolens.io.read import read_volume

    volume = read_volume(path)
    return _layer(volume, path.name.removesuffix(image_suffix(path)), list(volume.history))


def _dicom(paths: list[Path], progress: Progress) -> list[layers.LayerData] | list[tuple[None]]:
    series = _chosen(_images(paths, progress))
    if not series:
        return NOTHING
    tilt = _tilt(series)
    if tilt is None:
        return NOTHING
    return [_read_series(one, tilt, paths[0].name, progress) for one in series]


def _images(paths: list[Path], progress: Progress) -> tuple[Series, ...]:
    """The series in the paths, without scouts where there is anything else; what is passed over is said."""
    from tomolens.io.dicom_series import find_series, series_of

    if len(paths) == 1:
        scan = find_series(paths[0], progress=progress)
        found, passed_over = scan.series, scan.passed_over
    else:
        slices, passed_over = _headers(paths, progress)
        found = tuple(series for series, _ in series_of(slices))
    if not found:
        measured = any(_is_kspace(file) for path in paths for file in _files(path))
        hint = "It holds k-space: open one of its files. " if measured else ""
        raise ReadError(f"{paths[0]} holds no DICOM images. {hint}{_told(passed_over)}".rstrip())
    _say_passed_over(paths, passed_over)
    return tuple(s for s in found if not _has(s, "localizer")) or found


def _headers(paths: list[Path], progress: Progress) -> tuple[list[Slice], tuple[PassedOver, ...]]:
    """The slices in files and folders that were opened together, each file once, and what is in none."""
    from tomolens.io.dicom_header import NoSliceError, read_slices

    files = sorted({file for path in paths for file in (_files(path) if path.is_dir() else (path,))})
    slices: list[Slice] = []
    passed_over = []
    for done, file in enumerate(files, start=1):
        try:
            slices += read_slices(file)
        except ReadError as refused:
            passed_over.append(PassedOver(file, str(refused), isinstance(refused, NoSliceError)))
        progress(Step("scan headers", done, len(files)))
    return slices, tuple(passed_over)


def _say_passed_over(paths: list[Path], passed_over: tuple[PassedOver, ...]) -> None:
    """Say which files were opened by name, or may have been slices, and are in no series."""
    unexpected = tuple(file for file in passed_over if file.path in paths or not file.harmless)
    if unexpected:
        say(_told(unexpected))


def _told(passed_over: tuple[PassedOver, ...]) -> str:
    if not passed_over:
        return ""
    reasons = [f"{file.path}: {file.reason}" for file in passed_over[:_NAMED_FILES]]
    more = len(passed_over) - _NAMED_FILES
    return "Passed over: " + "; ".join([*reasons, *([f"and {more} more files"] if more > 0 else [])]) + "."


def _has(series: Series, kind: str) -> bool:
    return any(problem.kind == kind for problem in series.problems)


def _chosen(series: tuple[Series, ...]) -> tuple[Series, ...]:
    """The only series, or those that the user chooses; none where the user cancels."""
    if len(series) > 1:
        if viewer_at_hand() is None:
            raise AmbiguousSource(f"{len(series)} series and nobody to ask: {'; '.join(s.label for s in series)}.")
        from tomolens.napari_plugin.series_dialog import choose_series

        series = choose_series(series)
    for one in series:
        if one.refused:
            reasons = " ".join(problem.message for problem in one.problems if problem.refused)
            raise ReadError(f"{one.label} cannot be opened: {reasons}")
    return series


def _tilt(series: Iterable[Series]) -> Literal["keep", "resample"] | None:
    """How to show a series that was taken with a tilted gantry; None where the user cancels."""
    tilted = [one for one in series if _has(one, "gantry-tilt")]
    if not tilted or viewer_at_hand() is None:
        return "keep"
    from tomolens.napari_plugin.series_dialog import ask_tilt

    return ask_tilt(tilted)


def _read_series(
    series: Series, tilt: Literal["keep", "resample"], path_name: str, progress: Progress
) -> layers.LayerData:
    from tomolens.io.dicom_volume import read_series

    volume = read_series(series, tilt=tilt, progress=progress)
    notes = [problem.message for problem in series.problems if problem.kind != "gantry-tilt"]
    part = f" part {series.part}" if series.part else ""
    return _layer(volume, (series.description or path_name) + part, notes)


def _layer(volume: Volume, name: str, notes: list[str]) -> layers.LayerData:
    """The layer; what is to be known of it is said in one message."""
    data, attributes, kind = layers.image(volume)
    if not layers.is_in_patient_frame(volume.grid):
        notes = [*notes, "It is oblique or sheared: it is shown along its own axes, in mm from its first voxel."]
    if notes:
        say(f"{name}: {' '.join(notes)}")
    return data, {**attributes, "name": name}, kind
