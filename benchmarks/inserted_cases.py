"""The held-out cases that the benchmarks of the detector are measured on; made as `tomolens.training.cases` says.

Nodules of the ``open`` part of the data, which nothing is trained on, are put into free places of a held-out lung
(LIDC-IDRI-0314) and of phantoms whose seeds no training uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tomolens import read_volume
from tomolens.training.backgrounds import Background, background_of_scan
from tomolens.training.cases import LEAST_MM, Case, case_of
from tomolens.training.sources import nodule_donors, phantom_lung, read_marks

if TYPE_CHECKING:
    from tomolens.training.nodules import Donor

REAL_LUNG = "LIDC-IDRI-0314"
FIRST_PHANTOM_SEED = 9000
"""Training takes its phantoms from 100 upwards, calibration from 600."""


def held_out_nodules(shared: Path) -> list[Donor]:
    """The nodules of 4 mm and more that nothing was trained on."""
    return [donor for donor in nodule_donors(shared / "open") if donor.diameter_mm >= LEAST_MM]


def real_lung(shared: Path) -> Background:
    """The held-out lung."""
    folder = shared / "open" / "ct"
    marks = [read_marks(folder / f"annotations{part}.csv")[REAL_LUNG] for part in ("", "_excluded")]
    return background_of_scan(REAL_LUNG, read_volume(folder / REAL_LUNG), *marks)


def real_cases(lung: Background, donors: Sequence[Donor], count: int, *, altered: bool = False) -> Iterator[Case]:
    """Cases in one lung, each with other nodules at other places."""
    for number in range(count):
        yield case_of(lung, donors, number, altered=altered)


def phantom_cases(donors: Sequence[Donor], count: int) -> Iterator[Case]:
    """Cases in phantoms, each of another seed."""
    for seed in range(FIRST_PHANTOM_SEED, FIRST_PHANTOM_SEED + count):
        yield case_of(phantom_lung(seed), donors, seed)
