"""Where training data come from: a folder of scans, nodule cubes and nodule volumes, and generated phantoms.

The folder is laid out so (each part may be absent, but not all)::

    ct/*.nii.gz                      chest CT in HU; annotations.csv and annotations_excluded.csv beside them, as in
    LUNA16:
                                     volume, coordX, coordY, coordZ (LPS mm), diameter_mm (negative where unknown)
    lidc_cubes51/cubes.npz           image (n, k, j, i) HU at 1 mm, mask, name; ratings.csv with Filename, texture
    lidc_voi/{image,mask}/*.nii.gz   nodules at native spacing; metadata.csv with k (file name), Texture_value
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tomolens.core.errors import ReadError
from tomolens.core.progress import Progress, Step, silent
from tomolens.io.read import read_volume
from tomolens.phantoms.chest import chest_phantom
from tomolens.training.backgrounds import Background, background_of_cube, background_of_scan, usable
from tomolens.training.nodules import Donor, donor_from_volume, donor_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MARK_COLUMNS = ("volume", "coordX", "coordY", "coordZ", "diameter_mm")
_UNKNOWN_DIAMETER_MM = 10.0
"""LUNA16's reading of a negative diameter."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Lungs to train in and nodules to put into them; and those of the split ``val``, which are only looked at."""

    backgrounds: tuple[Background, ...]
    donors: tuple[Donor, ...]
    held_out: TrainingData | None = None


def load_training_data(folder: Path, phantom_seeds: Sequence[int], progress: Progress = silent) -> TrainingData:
    """Load everything that a folder holds and generate the phantoms.

    Raises
    ------
    ReadError
        If the folder holds no scan or no nodule.
    """
    backgrounds = [*_scans(folder / "ct", progress), *_cubes(folder / "lidc_cubes51")]
    donors = nodule_donors(folder, progress)
    if not backgrounds or not donors:
        raise ReadError(
            f"{folder} holds {len(backgrounds)} lungs and {len(donors)} nodules; training needs some "
            "of both, laid out as `tomolens train detector --help` says."
        )
    return TrainingData((*backgrounds, *_phantoms(phantom_seeds, progress)), tuple(donors))


def nodule_donors(folder: Path, progress: Progress = silent) -> list[Donor]:
    """The nodules of a folder that can be put into other lungs."""
    donors = (*_cube_donors(folder / "lidc_cubes51"), *_voi_donors(folder / "lidc_voi", progress))
    return [donor for donor in donors if donor.is_usable]


def _scans(folder: Path, progress: Progress) -> Iterator[Background]:
    files = sorted(folder.glob("*.nii.gz"))
    nodules, excluded = read_marks(folder / "annotations.csv"), read_marks(folder / "annotations_excluded.csv")
    for done, file in enumerate(files):
        progress(Step("read scans", done, len(files)))
        name = file.name.removesuffix(".nii.gz")
        volume = read_volume(file, modality="CT")
        yield usable(background_of_scan(name, volume, nodules.get(name, []), excluded.get(name, [])))


def read_marks(file: Path) -> dict[str, list[tuple[tuple[float, float, float], float]]]:
    """Marks by volume from a LUNA16 table, as (centre LPS mm, diameter mm); an absent file holds none."""
    marks: dict[str, list[tuple[tuple[float, float, float], float]]] = {}
    if not file.exists():
        return marks
    table = pd.read_csv(file)
    for name, x, y, z, diameter in zip(*(table[column].tolist() for column in _MARK_COLUMNS), strict=True):
        marks.setdefault(str(name), []).append(((x, y, z), diameter if diameter > 0 else _UNKNOWN_DIAMETER_MM))
    return marks


def _load_cubes(folder: Path) -> dict[str, Any]:
    file = folder / "cubes.npz"
    if not file.exists():
        return {"name": [], "image": [], "mask": []}
    with np.load(file) as cubes:
        return {key: cubes[key] for key in ("name", "image", "mask")}


def _cubes(folder: Path) -> Iterator[Background]:
    cubes = _load_cubes(folder)
    for name, image, mask in zip(cubes["name"], cubes["image"], cubes["mask"], strict=True):
        background = background_of_cube(str(name), image, mask)
        if len(background.inner) >= 500:
            yield background


def _cube_donors(folder: Path) -> Iterator[Donor]:
    cubes = _load_cubes(folder)
    ratings = folder / "ratings.csv"
    texture = pd.read_csv(ratings).set_index("Filename")["texture"].to_dict() if ratings.exists() else {}
    for name, image, mask in zip(cubes["name"], cubes["image"], cubes["mask"], strict=True):
        yield donor_of(str(name), image, mask, int(texture.get(str(name), 5)))


def _voi_donors(folder: Path, progress: Progress) -> Iterator[Donor]:
    if not (folder / "metadata.csv").exists():
        return
    table = pd.read_csv(folder / "metadata.csv")
    columns = (table[column].tolist() for column in ("k", "Texture_value", "Diagnosis_value"))
    for done, (name, texture, malignant) in enumerate(zip(*columns, strict=True)):
        progress(Step("read nodules", done, len(table)))
        image, mask = (read_volume(folder / part / f"{name}.nii.gz", modality="CT") for part in ("image", "mask"))
        yield donor_from_volume(name, image, mask, int(texture), float(malignant))


def _phantoms(seeds: Sequence[int], progress: Progress) -> Iterator[Background]:
    for done, seed in enumerate(seeds):
        progress(Step("generate phantoms", done, len(seeds)))
        phantom = chest_phantom(seed)
        nodules = [(n.center_lps_mm, n.diameter_mm) for n in phantom.nodules]
        yield background_of_scan(f"phantom-{seed}", phantom.volume, nodules, kind="phantom")
