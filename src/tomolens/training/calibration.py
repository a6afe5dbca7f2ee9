"""Fit what is shown to what it shall mean: of such findings so many are nodules, of such nodules so many malignant."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from tomolens.core.card import CalibratedFor, Calibration, InputContract
from tomolens.core.errors import ModelError, OptionError, ReadError
from tomolens.core.progress import Progress, Step, silent
from tomolens.core.volume import Volume
from tomolens.io.atomic import whole_file
from tomolens.models.detector import NoduleDetector, load_detector
from tomolens.models.registry import NO_SECOND_STAGE, SECOND_STAGE, Bundle, find_bundle
from tomolens.training.cases import LEAST_MM, case_of
from tomolens.training.dataset import Dataset, Split
from tomolens.training.fingerprint import read_contents
from tomolens.training.publish import CONTENTS, METADATA
from tomolens.training.sides import check_sides
from tomolens.training.sources import TrainingData, donors_of, load_split

if TYPE_CHECKING:
    from tomolens.training.cases import Case
    from tomolens.training.nodules import Donor

NODULES_A_SCAN = 1186 / 888
"""Accepted nodules a scan in LUNA16."""
LEAST_RATED = 20
"""Rated nodules from which malignancy is calibrated."""
_STIFFNESS = 1e-4


@dataclass(frozen=True, eq=False)
class Rated:
    """What a second stage answers of malignancy where rated nodules were put (n,), each of them once or several times.

    ``malignant`` is the probability that the nodule is, ``names`` says which it is.
    """

    logits: NDArray[np.float64]
    malignant: NDArray[np.float64]
    names: Sequence[str]

    @property
    def count(self) -> int:
        """How many nodules they are."""
        return len(set(self.names))

    @property
    def is_enough(self) -> bool:
        """Whether malignancy can be calibrated by them: they are many, and not all alike."""
        return self.count >= LEAST_RATED and bool(np.ptp(self.malignant) > 0)

    @property
    def weights(self) -> NDArray[np.float64]:
        """By which each nodule counts once."""
        times = Counter(self.names)
        return np.array([1 / times[name] for name in self.names])

    @property
    def targets(self) -> NDArray[np.float64]:
        """``malignant``, no surer than so many nodules allow.

        Of m malignant and b benign ones (m + 1) / (m + 2) and 1 / (b + 2): Platt, Probabilistic outputs for support
        vector machines, 1999. Otherwise a few dozen that are told apart without an error would make the slope endless.
        """
        malignant = float(self.weights @ self.malignant)
        surest, least = (malignant + 1) / (malignant + 2), 1 / (self.count - malignant + 2)
        return np.asarray(least + (surest - least) * self.malignant)


@dataclass(frozen=True, eq=False)
class Judged:
    """Candidates of many cases: logits of both stages (n, 2), whether each is a nodule, and how much each counts.

    ``rated`` are the nodules of these cases of which malignancy is known.
    """

    logits: NDArray[np.float64]
    is_nodule: NDArray[np.bool_]
    weights: NDArray[np.float64]
    rated: Rated


def kept_out(dataset: Dataset, phantom_seeds: Sequence[int], progress: Progress = silent) -> tuple[TrainingData, str]:
    """What is fitted on, and what is to be said of it: the split ``val``, and phantoms.

    Where ``val`` holds no nodule that can be inserted, those of ``train`` are; without that split all of ``train`` is
    taken.

    Raises
    ------
    ReadError, ContractError
        As of `tomolens.training.sources.load`.
    """
    train, val = dataset.of(Split.TRAIN), dataset.of(Split.VAL)
    if not (val.scans or val.nodules or val.cubes):
        shown, doubt = load_split(train, phantom_seeds, progress), "there is no split val"
    else:
        shown, doubt = load_split(val, phantom_seeds, progress), ""
        if not _insertable(shown.donors):
            shown = replace(shown, donors=tuple(donors_of(train, progress)))
            doubt = f"the split val holds no nodule with a mask of {LEAST_MM:g} mm and more"
    check_sides(shown.seen)
    if not _insertable(shown.donors):
        raise ReadError(
            f"{dataset.path} holds no nodule with a mask (nodule_volumes, cubes) of {LEAST_MM:g} mm and more."
        )
    return shown, f"{dataset.path}: {doubt}, so nodules of train are taken." if doubt else ""


def without_refused(shown: TrainingData, contracts: Sequence[InputContract]) -> tuple[TrainingData, str]:
    """What models that take ``contracts`` can be shown, and what is to be said of scans that one refuses, as slabs."""
    reasons = {
        lung.name: [r for contract in contracts for r in contract.refusals(Volume(lung.voxels, lung.grid))]
        for lung in shown.backgrounds
        if lung.grid is not None
    }
    kept = tuple(lung for lung in shown.backgrounds if not reasons.get(lung.name))
    said = (f"The lungs of {name} are left out: {why[0]}." for name, why in reasons.items() if why)
    return replace(shown, backgrounds=kept), " ".join(said)


def answering(folder: Path, detector: str | Path | None) -> list[Bundle]:
    """The models from whose answers the score in a model folder follows: of a second stage its detector's too.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    model = Bundle.open(folder)
    return [find_bundle(detector), model] if is_second_stage(model) else [model]


def learned(bundle: Bundle, shown: TrainingData) -> str:
    """What is to be said of a model: what it learned from of that which it is shown, or that it is not known."""
    table = bundle.folder / CONTENTS
    if not table.is_file():
        return (
            f"{bundle.card.name} does not say what it learned from ({CONTENTS}); where that was what scores are fitted "
            "on, they will be too sure."
        )
    known = {seen for split, _, seen in read_contents(table) if split == Split.TRAIN}
    scans = [lung.origin in known for lung in shown.backgrounds if lung.kind == "scan"]
    nodules = [donor.origin in known for donor in _insertable(shown.donors)]
    counts = [(sum(items), len(items), kind) for kind, items in (("scans", scans), ("nodules", nodules))]
    said = " and ".join(f"{some} of {every} {kind}" for some, every, kind in counts if some)
    return f"{bundle.card.name} learned from {said} that scores are fitted on: they will be too sure." if said else ""


def _insertable(donors: Iterable[Donor]) -> list[Donor]:
    return [donor for donor in donors if donor.diameter_mm >= LEAST_MM]


def judged(detector: NoduleDetector, cases: Iterable[Case], donors: Iterable[Donor]) -> Judged:
    """Let a detector mark cases that hold nodules of ``donors``; a candidate on an ignored place is left out.

    Cases hold more nodules than patients do: a candidate on a nodule counts as many times less.
    """
    malignancies = {donor.name: donor.malignancy for donor in donors if donor.malignancy is not None}
    logits, hits, nodules, scans = [], [], 0, 0
    answers, names = list[float](), list[str]()
    for case in cases:
        marked = detector.candidates(case.volume)
        hit = np.asarray(case.known.hold(marked.centers_lps_mm).any(axis=1))
        counted = np.logical_or(hit, ~case.ignored.hold(marked.centers_lps_mm).any(axis=1))
        logits.append(np.stack([marked.logits, marked.second_logits], axis=1)[counted])
        hits.append(hit[counted])
        nodules, scans = nodules + len(case.known), scans + 1
        known = [nodule for nodule in case.nodules if nodule.donor in malignancies]
        if detector.second_stage is not None:
            verdicts = detector.second_stage.classify(case.volume, [nodule.center_lps_mm for nodule in known])
            answers += [verdict.malignancy_logit for verdict in verdicts]
            names += [nodule.donor for nodule in known]
    if not nodules:
        raise OptionError(f"{scans} cases without any nodule cannot calibrate a score.")
    is_nodule = np.concatenate(hits)
    rated = Rated(np.array(answers), np.array([malignancies[name] for name in names]), names)
    return Judged(np.concatenate(logits), is_nodule, weights_of(is_nodule, nodules, scans), rated)


def weights_of(is_nodule: NDArray[np.bool_], nodules: int, scans: int) -> NDArray[np.float64]:
    """How much each candidate of ``scans`` cases with so many ``nodules`` counts, for patients have fewer: LUNA16's."""
    return np.where(is_nodule, NODULES_A_SCAN * scans / nodules, 1.0)


def fit(seen: Judged, *, second_stage: bool = True) -> Calibration:
    """Platt's scaling of both logits (of the detector's alone without a second stage), by weighted maximum likelihood.

    Neither logit is given a negative weight. Malignancy is fitted to `Rated.targets`, and left as it is where there are
    too few rated nodules.
    """
    columns = seen.logits if second_stage else seen.logits[:, :1]
    *slopes, offset = _platt(columns, seen.is_nodule.astype(float), seen.weights)
    scale = Calibration(slopes[0], slopes[1] if second_stage else 0.0, offset)
    rated = seen.rated
    if not rated.is_enough:
        return scale
    slope, offset = _platt(rated.logits[:, None], rated.targets, rated.weights)
    return replace(scale, malignancy=slope, malignancy_offset=offset)


def _platt(columns: NDArray[np.float64], truth: NDArray[np.float64], weights: NDArray[np.float64]) -> list[float]:
    """A slope of at least 0 for each of the columns (n, m), and an offset."""

    def cost(values: NDArray[np.float64]) -> float:
        margin = columns @ values[:-1] + values[-1]
        likelihood = np.logaddexp(0, margin) - truth * margin
        return float((weights * likelihood).sum() + _STIFFNESS * (values**2).sum())

    def slope(values: NDArray[np.float64]) -> NDArray[np.float64]:
        error = weights * (expit(columns @ values[:-1] + values[-1]) - truth)
        return np.append(columns.T @ error, error.sum()) + 2 * _STIFFNESS * values

    bounds: Sequence[tuple[float | None, float | None]] = [(0, None)] * columns.shape[1] + [(None, None)]
    best = minimize(cost, np.append(np.full(columns.shape[1], 0.5), 0.0), jac=slope, bounds=bounds).x
    return [float(value) for value in best]


def cases(data: TrainingData, a_scan: int = 3, progress: Progress = silent) -> Iterator[Case]:
    """Nodules put into every scan, ``a_scan`` times anew, and once into every phantom."""
    donors = _insertable(data.donors)
    counts = {"scan": a_scan, "phantom": 1}
    lungs = [lung for lung in data.backgrounds for _ in range(counts.get(lung.kind, 0))]
    for number, lung in enumerate(lungs):
        progress(Step("mark cases", number, len(lungs)))
        yield case_of(lung, donors, number)


def calibrate(folder: Path, marker: NoduleDetector, seen: Judged) -> Calibration:
    """Fit what a model folder's scores mean, and write it into its card; into a second stage's, for which detector.

    ``marker`` is what `calibrated_detector` gave for the folder, ``seen`` what it marked.

    Raises
    ------
    ModelError
        If ``folder`` holds no model.
    """
    bundle = Bundle.open(folder)
    again = is_second_stage(bundle)
    scale = fit(seen, second_stage=again)
    metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    metadata["tomolens"]["calibration"] = {name: round(value, 4) for name, value in asdict(scale).items()}
    if again:
        metadata["tomolens"]["calibrated_for"] = asdict(CalibratedFor(marker.card.name, marker.weights_sha256))
    with whole_file(folder / METADATA) as temporary:
        temporary.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    return scale


def calibrated_detector(folder: Path, detector: str | Path | None, device: str = "auto") -> NoduleDetector:
    """The detector whose scores a model folder's calibration is about: itself alone, or the one it looks again for.

    Raises
    ------
    ModelError
        If there is no such model, or the detector is an imported one, whose scores are its own.
    """
    again = is_second_stage(Bundle.open(folder))
    name, second = (detector, folder) if again else (folder, NO_SECOND_STAGE)
    model = load_detector(name, device=device, second_stage=second)
    if not isinstance(model, NoduleDetector):
        raise ModelError(f"{model.card.name} is imported; only detectors trained by Tomolens are calibrated.")
    return model


def is_second_stage(bundle: Bundle) -> bool:
    """Whether a model looks again, or marks."""
    return bundle.card.task == SECOND_STAGE
