"""From a described data set to lungs to train in and nodules to put into them; phantoms are generated beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.errors import ReadError
from tomolens.core.progress import Progress, Step, silent
from tomolens.io.read import read_volume
from tomolens.phantoms.chest import chest_phantom
from tomolens.training.backgrounds import Background, background_of_cube, background_of_scan, usable
from tomolens.training.dataset import (
    DESCRIPTION,
    Dataset,
    NoduleRecord,
    ScanRecord,
    Split,
    dataset_of,
    patients_of,
    read_dataset,
)
from tomolens.training.describe import describe
from tomolens.training.fingerprint import fingerprint, fingerprint_of_cube, fingerprint_of_volume
from tomolens.training.markings import Marking, read_markings
from tomolens.training.nodules import MAX_DIAMETER_MM, MIN_DIAMETER_MM, Donor, donor_from_volume, donor_of
from tomolens.training.sides import IN_LPS, Seen, check_sides, seen

if TYPE_CHECKING:
    from tomolens.core.volume import Volume
    from tomolens.training.backgrounds import Mark
    from tomolens.training.dataset import CubesRecord

_LEAST_ROOM = 500
_MARK_TOLERANCE_MM = 5.0


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Lungs to train in and nodules to put into them; and those of the split ``val``, which are only looked at."""

    backgrounds: tuple[Background, ...]
    donors: tuple[Donor, ...]
    held_out: TrainingData | None = None
    seen: tuple[Seen, ...] = ()
    """How the nodules look that are marked in its scans."""

    @property
    def record(self) -> list[tuple[str, str]]:
        """Everything that decides a run, by what it is called; `tomolens.training.fingerprint` compares two."""
        lungs = [(f"{lung.kind} {lung.name}", lung.origin) for lung in self.backgrounds]
        marks = [(f"marks of {lung.name}", f"{_hashed(lung.marks)} {lung.thickness_mm:g}") for lung in self.backgrounds]
        nodules = [(f"nodule {donor.name}", donor.origin) for donor in self.donors]
        ratings = [(f"ratings of {donor.name}", f"{donor.texture} {donor.malignancy}") for donor in self.donors]
        held_out = self.held_out.record if self.held_out else []
        return [*lungs, *marks, *nodules, *ratings, *((f"{Split.VAL} {what}", seen) for what, seen in held_out)]


def _hashed(marks: Sequence[Mark]) -> str:
    """A hash of marks, to a hundredth of a millimetre."""
    values = [[*mark.center_kji, mark.diameter_mm, mark.nodule] for mark in marks]
    return fingerprint(np.round(np.array(values, float) * 100).astype(int))


def open_dataset(path: Path) -> Dataset:
    """A description, or a folder: with its ``dataset.json``, or laid out so that it can be described by itself.

    Raises
    ------
    ReadError
        If there is no data set, or anything in its description is wrong.
    """
    if path.is_dir() and not (path / DESCRIPTION).is_file():
        return dataset_of(describe(path), path)
    return read_dataset(path / DESCRIPTION if path.is_dir() else path)


def load_dataset(path: Path, phantom_seeds: Sequence[int] = (), progress: Progress = silent) -> TrainingData:
    """Open a data set as `open_dataset` does, and `load` it with nodules to insert."""
    return load(open_dataset(path), phantom_seeds, progress)


def load(
    dataset: Dataset, phantom_seeds: Sequence[int] = (), progress: Progress = silent, *, inserting: bool = True
) -> TrainingData:
    """Load the split ``train`` of a data set, and ``val`` beside it; generate the phantoms.

    Parameters
    ----------
    phantom_seeds
        Phantoms that are generated as further lungs, each with its nodules.
    inserting
        Whether there must be nodules that can be put into other lungs; else nodules marked in scans do.

    Raises
    ------
    ReadError
        If there is no lung or no nodule in the split ``train`` (which is said before any scan is read), a nodule lies
        outside its scan, or the marks of a table are in other coordinates than LPS.
    ContractError
        If there is hardly any lung in a scan.
    """
    train, val = dataset.of(Split.TRAIN), dataset.of(Split.VAL)
    if (val.nodules or val.cubes) and not val.scans:
        raise ReadError(f"{dataset.path}: the split val holds nodules, but no scan to look for them in.")
    lungs = len(train.scans) + len(train.cubes) + len(phantom_seeds)
    _check_enough(train, lungs, len(train.nodules) + len(train.cubes), inserting)
    loaded = load_split(train, phantom_seeds, progress)
    _check_enough(train, len(loaded.backgrounds), len(loaded.donors), inserting)
    held_out = load_split(val, (), progress) if val.scans else None
    check_sides([*loaded.seen, *(held_out.seen if held_out else ())])
    return replace(loaded, held_out=held_out)


def _check_enough(train: Dataset, lungs: int, donors: int, inserting: bool) -> None:
    marks = 0 if inserting else train.marks
    if not lungs or not donors + marks:
        masks = "; this training needs some with masks (nodule_volumes, cubes)" if inserting else ""
        raise ReadError(
            f"{train.path} holds {len(train.scans)} scans with {train.marks} marked nodules in the split train, and "
            f"{donors} nodules with masks of {MIN_DIAMETER_MM:g} to {MAX_DIAMETER_MM:g} mm; with phantoms and cubes "
            f"{lungs} lungs. Training needs some lung and some nodule{masks}."
        )


def nodule_donors(path: Path, progress: Progress = silent) -> list[Donor]:
    """The nodules of a data set's split ``train`` that can be put into other lungs."""
    return list(donors_of(open_dataset(path).of(Split.TRAIN), progress))


def read_marks(file: Path) -> dict[str, list[tuple[tuple[float, float, float], float]]]:
    """Marks by each name of their scan, as (centre LPS mm, diameter mm); an absent file holds none."""
    marks: dict[str, list[tuple[tuple[float, float, float], float]]] = {}
    for names, marking in read_markings(file) if file.exists() else []:
        for name in names:
            marks.setdefault(name, []).append((marking.center_lps_mm, marking.diameter_mm))
    return marks


def load_split(dataset: Dataset, phantom_seeds: Sequence[int], progress: Progress) -> TrainingData:
    """All that a data set holds of one split, as `Dataset.of` gives it, and phantoms; errors as of `load`."""
    places: list[Seen] = []
    scans = _scans(dataset.scans, places, progress)
    lungs = (*scans, *_cubes(dataset.cubes), *_phantoms(phantom_seeds, progress))
    return TrainingData(lungs, tuple(donors_of(dataset, progress)), seen=tuple(places))


def _scans(scans: Sequence[ScanRecord], places: list[Seen], progress: Progress) -> Iterator[Background]:
    """Read each scan; how its nodules look is added to ``places``."""
    for done, scan in enumerate(scans):
        progress(Step("read scans", done, len(scans)))
        volume = read_volume(scan.path, series_uid=scan.series_uid, modality=scan.modality)
        for marking in scan.nodules:
            _check_inside(marking, volume, scan)
        places += [seen(marking, volume) for marking in scan.nodules]
        nodules, excluded = ([(m.center_lps_mm, m.diameter_mm) for m in ms] for ms in (scan.nodules, scan.excluded))
        background = usable(background_of_scan(scan.scan, volume, nodules, excluded))
        thickness_mm = scan.thickness_mm or background.thickness_mm
        yield replace(background, thickness_mm=thickness_mm, origin=fingerprint_of_volume(volume))


def _check_inside(marking: Marking, volume: Volume, scan: ScanRecord) -> None:
    """A nodule outside its scan is a sign that the table is in other coordinates than LPS, or of another scan.

    What counts neither way may lie outside: a part of a scan comes with the table of all of it.
    """
    room = _MARK_TOLERANCE_MM / np.asarray(volume.spacing_mm)
    place = volume.grid.to_kji(marking.center_lps_mm)
    if (place < -room).any() or (place > np.asarray(volume.shape) - 1 + room).any():
        raise ReadError(f"{marking.where}: the nodule at {marking.center_lps_mm} lies outside {scan.path}. {IN_LPS}")


def _load_cubes(record: CubesRecord) -> Iterator[tuple[str, Any, Any]]:
    held = [record.holds(patient) for patient in patients_of(record.path)]
    with np.load(record.path) as cubes:
        yield from zip(map(str, cubes["name"][held]), cubes["image"][held], cubes["mask"][held], strict=True)


def _cubes(records: Sequence[CubesRecord]) -> Iterator[Background]:
    for name, image, mask in (cube for record in records for cube in _load_cubes(record)):
        background = background_of_cube(name, image, mask)
        if len(background.inner) >= _LEAST_ROOM:
            yield replace(background, origin=fingerprint_of_cube(image, mask))


def donors_of(dataset: Dataset, progress: Progress = silent) -> Iterator[Donor]:
    """The nodules with masks of one split that can be put into other lungs."""
    for record in dataset.cubes:
        for name, image, mask in _load_cubes(record):
            donor = donor_of(name, image, mask, _rating(record.texture.get(name)))
            yield from _usable(replace(donor, origin=fingerprint_of_cube(image, mask)))
    for done, nodule in enumerate(dataset.nodules):
        progress(Step("read nodules", done, len(dataset.nodules)))
        yield from _usable(donor_of_record(nodule))


def _usable(donor: Donor) -> Iterator[Donor]:
    if donor.is_usable:
        yield donor


def donor_of_record(record: NoduleRecord) -> Donor:
    """Read a nodule with its mask.

    Raises
    ------
    ReadError
        If the mask is empty, or image and mask are not of one shape.
    """
    image, mask = (read_volume(path, modality="CT") for path in (record.image, record.mask))
    if image.shape != mask.shape:
        raise ReadError(f"{record.where}: image is {image.shape}, mask {mask.shape}; they must lie on one grid.")
    if not (mask.voxels > 0).any():
        raise ReadError(f"{record.where}: the mask {record.mask} is empty.")
    donor = donor_from_volume(record.name, image, mask, _rating(record.texture), _malignancy(record))
    return replace(donor, origin=fingerprint_of_volume(image, mask))


def _rating(texture: float | None) -> int | None:
    return None if texture is None else round(texture)


def _malignancy(record: NoduleRecord) -> float | None:
    """The probability that a nodule is malignant: by its diagnosis, else as its readers rate it, from 1 to 5."""
    if record.diagnosis is not None:
        return float(record.diagnosis == "malignant")
    return None if record.malignancy is None else (record.malignancy - 1) / 4


def _phantoms(seeds: Sequence[int], progress: Progress) -> Iterator[Background]:
    for done, seed in enumerate(seeds):
        progress(Step("generate phantoms", done, len(seeds)))
        yield phantom_lung(seed)


def phantom_lung(seed: int) -> Background:
    """A generated chest with its own nodules known."""
    phantom = chest_phantom(seed)
    nodules = [(nodule.center_lps_mm, nodule.diameter_mm) for nodule in phantom.nodules]
    return background_of_scan(f"phantom-{seed}", phantom.volume, nodules, kind="phantom")
