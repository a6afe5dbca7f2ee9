"""The volumes below a folder, each with the name of its result folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from tomolens.core.series import PassedOver, Series
from tomolens.io.bart_files import is_bart
from tomolens.io.dicom_series import find_series
from tomolens.io.image_files import IMAGE_SUFFIXES, image_suffix
from tomolens.io.kspace import KSPACE_SUFFIXES, is_kspace
from tomolens.reports.results import About

if TYPE_CHECKING:
    from tomolens.core.progress import Progress
    from tomolens.core.volume import Volume

_NO_SCAN = {"localizer", "not-hu"}
"""Kinds of problem that say that a CT series is no scan of the body in HU, rather than that it is broken."""
_DETACHED = {".nhdr", ".mhd"}
"""Headers whose voxels lie in a file of their own."""
_LONGEST_SLUG = 48


@dataclass(frozen=True)
class Job:
    """One volume to read.

    ``name`` is that of its result folder: from the description, and from a hash of the SeriesInstanceUID (of the whole
    path where there is none), so that it is the same in every call whatever else lies in the folder.

    ``fingerprint`` is another where the files are others, or were written anew, since the folder was looked through. A
    DICOM series keeps it when its folder is moved; what has no SeriesInstanceUID does not.

    ``kspace`` says that it is a measurement in k-space.
    """

    source: Series | Path
    name: str
    fingerprint: str
    kspace: bool = False

    @property
    def series(self) -> Series | None:
        """The DICOM series, None for an image file or k-space."""
        return self.source if isinstance(self.source, Series) else None

    @property
    def place(self) -> Path:
        """Its file, or the first of them."""
        return self.source if isinstance(self.source, Path) else self.source.files[0]

    @property
    def description(self) -> str:
        """SeriesDescription, or the file's name."""
        return self.source.name if isinstance(self.source, Path) else self.source.description

    @property
    def files(self) -> int:
        """How many files the volume is made of."""
        return 1 if self.series is None else len(self.series.files)

    def refusal(self, modality: str) -> str:
        """Why a model for ``modality`` is not made for this, as far as the headers tell; empty where it may be."""
        if self.series is None:
            return ""
        if self.series.modality not in modality.split(" or "):
            return f"it is {self.series.modality}, the model takes {modality}"
        return "; ".join(problem.message for problem in self.series.problems if problem.kind in _NO_SCAN)

    def about(self, volume: Volume) -> About:
        """What the result says of the series."""
        series = self.series
        return About(
            series_uid=series.uid if series else "",
            part=series.part if series else 0,
            study_uid=series.study_uid if series else "",
            description=self.description,
            modality=volume.modality,
            shape=volume.shape,
            spacing_mm=volume.spacing_mm,
            problems=tuple(map(str, series.problems)) if series else (),
        )


@dataclass(frozen=True)
class Found:
    """What stands below a folder: volumes, and the files that are in none."""

    jobs: tuple[Job, ...]
    passed_over: tuple[PassedOver, ...]


def find_jobs(root: Path, progress: Progress, *, kspace: bool = False, out: Path | None = None) -> Found:
    """Every DICOM series and every image file at any depth, and with ``kspace`` every measurement in k-space too.

    What was made by an earlier call with the output folder ``out`` is left out, or it would be worked on in turn.

    Raises
    ------
    ReadError
        If there is no such file or folder.
    """
    if root.is_file() and _is_image(root):
        return Found((_image_job(root),), ())
    if kspace and root.is_file() and root.suffix.lower() in KSPACE_SUFFIXES:  # reading it tells what is wrong with it
        return Found((_kspace_job(_measurement(root)),), ())
    scan = find_series(root, progress=progress)
    images = [p.path for p in scan.passed_over if _is_image(p.path)]
    measured = [p.path for p in scan.passed_over if kspace and is_kspace(p.path)]
    whole = dict.fromkeys(map(_measurement, measured))
    jobs = (*map(_series_job, scan), *map(_image_job, images), *map(_kspace_job, whole))
    taken, is_result = {*images, *measured}, _is_result(root, out)
    others = tuple(p for p in scan.passed_over if p.path not in taken and not is_result(p.path))
    return Found(_distinct(tuple(job for job in jobs if not is_result(job.place))), others)


def _is_image(path: Path) -> bool:
    """Whether the name is an image file's; what macOS writes beside it as ``._NAME`` is none."""
    return image_suffix(path) in IMAGE_SUFFIXES and not path.name.startswith("._")


def _measurement(path: Path) -> Path:
    """The file that stands for a measurement: of BART's two, either of which may be named, that with the numbers."""
    return path.with_suffix(".cfl") if path.suffix.lower() == ".hdr" and is_bart(path) else path


def _is_result(root: Path, out: Path | None) -> Callable[[Path], bool]:
    """Tells whether a file below ``root`` is of a result in ``out``, where that is the same folder or lies in it."""
    if out is None or not out.resolve().is_relative_to(root.resolve()):
        return lambda path: False
    inner = root / out.resolve().relative_to(root.resolve())

    def told(path: Path) -> bool:
        if inner not in path.parents:
            return False
        return inner != root or (inner / path.relative_to(inner).parts[0] / "series.json").is_file()

    return told


def _series_job(series: Series) -> Job:
    identity = series.uid or f"{series.study_uid} {series.files[0].resolve()}"
    files = {*series.files, *(file for file, _ in series.copies)}
    name = _name(series.description, f"{identity} {series.part}")
    return Job(series, name, _fingerprint(identity, files))


def _image_job(path: Path) -> Job:
    identity, stem = str(path.resolve()), path.name.removesuffix(image_suffix(path))
    files = {path}
    if image_suffix(path) in _DETACHED:
        files |= {file for file in path.parent.iterdir() if file.stem == path.stem and file.is_file()}
    return Job(path, _name(stem, identity), _fingerprint(identity, files))


def _kspace_job(path: Path) -> Job:
    identity, header = str(path.resolve()), path.with_suffix(".hdr")
    files = {path, header} if path.suffix.lower() == ".cfl" and header.is_file() else {path}
    return Job(path, _name(path.stem, identity), _fingerprint(identity, files), kspace=True)


def _fingerprint(identity: str, files: Iterable[Path]) -> str:
    return _sha256("\n".join([identity, *sorted(map(_state, files))]))


def _state(file: Path) -> str:
    """What changes when a file is written anew; reading it tells why it cannot be read, not this."""
    try:
        facts = file.stat()
    except OSError:
        return file.name
    return f"{file.name} {facts.st_size} {facts.st_mtime_ns}"


def _sha256(text: str) -> str:
    return sha256(text.encode(errors="surrogateescape")).hexdigest()


def _name(description: str, identity: str) -> str:
    slug = "-".join(re.findall(r"[A-Za-z0-9]+", description))[:_LONGEST_SLUG].strip("-")
    return f"{slug or 'series'}-{_sha256(identity)[:8]}"


def _distinct(jobs: tuple[Job, ...]) -> tuple[Job, ...]:
    """The same jobs; a name that is there twice gets a number."""
    seen: Counter[str] = Counter()
    named = []
    for job in jobs:
        seen[job.name] += 1
        named.append(job if seen[job.name] == 1 else replace(job, name=f"{job.name}-{seen[job.name]}"))
    return tuple(named)
