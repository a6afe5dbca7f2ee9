"""What the second stage says of held-out nodules: malignancy, with LIDC's diagnosis as truth, and texture.

Part of ``benchmarks/detection.py``. Each nodule of ``open/lidc_voi`` is shown twice: as it is, in a cut-out that has
almost no slices above or below it (what is missing is air), and at a free place of a held-out lung, turned at random,
with its own size and density. "Diagnosis" follows from the readers' ratings of malignancy; it is no histology.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from inserted_cases import real_lung
from numpy.typing import NDArray

from tomolens import Grid, Volume, read_volume
from tomolens.core.finding import TEXTURES
from tomolens.core.metrics import Share, auc, expected_calibration_error, reliability, size_class
from tomolens.training.candidates import texture_class
from tomolens.training.cases import NEAR_WALL_SHARE
from tomolens.training.nodules import Donor, donor_from_volume, paste, turned

if TYPE_CHECKING:
    from tomolens.models.classifier import NoduleClassifier, Verdict
    from tomolens.training.backgrounds import Background

BAR_AUC = 0.88
ROOM_MM = 48.0
"""A cut-out is set into air until it is as large as this along each axis."""
LEAST_IN_SUBGROUP = 5
"""Of malignant and of benign nodules; of fewer an AUC says nothing."""
_AIR_HU = -1000
_SEED = 78
_TRIES = 60


@dataclass(frozen=True, eq=False)
class Rated:
    """A nodule with what its readers said."""

    name: str
    image: Volume
    mask: Volume
    malignant: bool
    texture: str

    @property
    def center_lps_mm(self) -> NDArray[np.float64]:
        """The mean of its mask."""
        return self.mask.grid.to_mm(np.argwhere(self.mask.voxels > 0.5).mean(axis=0))

    @property
    def donor(self) -> Donor:
        """The nodule, ready to be put elsewhere."""
        return donor_from_volume(self.name, self.image, self.mask, 5)


def second_stage(shared: Path, classifiers: Sequence[NoduleClassifier]) -> None:
    """Judge the held-out nodules by each second stage; say where there is none."""
    if not classifiers:
        print("malignancy and texture: the model has no second stage\n")
        return
    rated, lung = list(rated_nodules(shared)), real_lung(shared)
    for classifier in classifiers:
        print(f"second stage {classifier.card.name} {classifier.card.version}")
        for title, show in (("as they are", as_it_is), ("pasted into the held-out lung", pasted_into(lung))):
            judge(title, rated, classifier, show)


def rated_nodules(shared: Path) -> Iterator[Rated]:
    folder = shared / "open" / "lidc_voi"
    table = pd.read_csv(folder / "metadata.csv")
    columns = (table[column].tolist() for column in ("k", "Diagnosis_value", "Texture_value"))
    for name, malignant, texture in zip(*columns, strict=True):
        image, mask = (read_volume(folder / part / f"{name}.nii.gz", modality="CT") for part in ("image", "mask"))
        yield Rated(name, image, mask, bool(malignant), TEXTURES[texture_class(int(texture))])


Shown = tuple[Volume, NDArray[np.float64]]
"""A volume and the nodule's place in it (LPS mm)."""


def as_it_is(nodule: Rated) -> Shown:
    """The cut-out, set into air."""
    missing = np.maximum(0, np.ceil((ROOM_MM - np.array(nodule.image.extent_mm)) / nodule.image.spacing_mm)).astype(int)
    before = missing // 2
    voxels = np.pad(nodule.image.voxels, list(zip(before, missing - before, strict=True)), constant_values=_AIR_HU)
    start = tuple((-before).tolist())
    return Volume(voxels, nodule.image.grid.cropped(start, voxels.shape)), nodule.center_lps_mm


def pasted_into(lung: Background) -> Callable[[Rated], Shown | None]:
    """Puts a nodule into a free place of a lung; None where all of it finds no room."""
    marks = [(np.array(mark.center_kji), mark.diameter_mm) for mark in lung.marks]
    grid: Grid = lung.grid

    def show(nodule: Rated) -> Shown | None:
        rng = np.random.default_rng((_SEED, *nodule.name.encode()))
        donor = nodule.donor
        for _ in range(_TRIES):
            places = lung.near_wall if rng.random() < NEAR_WALL_SHARE else lung.inner
            at = places[rng.integers(len(places))].astype(float)
            if any(np.linalg.norm(at - center) < (diameter + ROOM_MM) / 2 for center, diameter in marks):
                continue
            voxels = lung.voxels.astype(np.float32)
            pasted = paste(voxels, turned(donor, rng, altered=False), at, lung.thickness_mm, rng)
            if pasted and pasted.diameter_mm > 0.9 * donor.diameter_mm:
                return Volume(voxels.astype(np.int16), grid), grid.to_mm(pasted.center_kji)
        return None

    return show


def judge(
    title: str, rated: Sequence[Rated], classifier: NoduleClassifier, show: Callable[[Rated], Shown | None]
) -> None:
    """Ask for each nodule and print AUC, calibration and texture."""
    answers: list[tuple[Rated, Verdict]] = []
    for nodule in rated:
        shown = show(nodule)
        if shown:
            (verdict,) = classifier.classify(shown[0], shown[1][None])
            answers.append((nodule, verdict))
    left = f" ({len(rated) - len(answers)} found no place)" if len(answers) < len(rated) else ""
    print(f" {len(answers)} nodules {title}{left}")
    malignancy(answers)
    texture(answers)
    print(flush=True)


def malignancy(answers: Sequence[tuple[Rated, Verdict]]) -> None:
    scores = np.array([verdict.malignancy for _, verdict in answers])
    truth = np.array([nodule.malignant for nodule, _ in answers])
    whole = auc(scores, truth)
    bar = "holds" if whole.value >= BAR_AUC else "MISSED"
    counts = f"{whole.positives} malignant, {whole.negatives} benign"
    print(f"  malignancy AUC {whole.value:.3f} (95 % {whole.low:.3f} to {whole.high:.3f}, DeLong; {counts})")
    print(f"  bar: AUC at least {BAR_AUC:.2f}: {bar}")
    print(f"  ECE of 10 bins {expected_calibration_error(scores, truth):.3f}, by chance {by_chance(scores):.3f}")
    for point in reliability(scores, truth, 5):
        print(f"    shown {point.mean_score:.2f}, malignant {point.share_true:.2f} of {point.count}")
    groups = {
        "size": [size_class(nodule.donor.diameter_mm) for nodule, _ in answers],
        "texture": [nodule.texture for nodule, _ in answers],
    }
    for labels in groups.values():
        for label in dict.fromkeys(sorted(labels)):
            own = np.array(labels) == label
            print(f"    {label:16s} {subgroup(scores[own], truth[own])}")


def by_chance(scores: NDArray[np.float64], draws: int = 1000) -> float:
    """The mean calibration error of as many nodules of which exactly as many are malignant as the scores say."""
    rng = np.random.default_rng(_SEED)
    truths = rng.random((draws, len(scores))) < scores
    return float(np.mean([expected_calibration_error(scores, truth) for truth in truths]))


def subgroup(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> str:
    counts = f"{truth.sum()} malignant, {(~truth).sum()} benign"
    if min(truth.sum(), (~truth).sum()) < LEAST_IN_SUBGROUP:
        return f"too few ({counts})"
    part = auc(scores, truth)
    return f"AUC {part.value:.3f} (95 % {part.low:.3f} to {part.high:.3f}; {counts})"


def texture(answers: Sequence[tuple[Rated, Verdict]]) -> None:
    right = Share(sum(verdict.texture == nodule.texture for nodule, verdict in answers), len(answers))
    low, high = right.interval
    most = max(sum(nodule.texture == label for nodule, _ in answers) for label in TEXTURES)
    print(f"  texture accuracy {right.count / right.total:.3f} (95 % {low:.3f} to {high:.3f})", end="")
    print(f"; calling all the commonest gives {most / len(answers):.3f}")
    for label in TEXTURES:
        own = [verdict.texture for nodule, verdict in answers if nodule.texture == label]
        called = ", ".join(f"{own.count(name)} {name}" for name in TEXTURES)
        print(f"    {len(own):3d} {label:13s} called {called}")
