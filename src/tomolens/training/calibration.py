"""Fit the score that is shown to what it shall mean: the share of such findings that are nodules, among patients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from tomolens.core.card import Calibration
from tomolens.core.errors import OptionError

if TYPE_CHECKING:
    from tomolens.core.froc import Spheres
    from tomolens.core.volume import Volume
    from tomolens.models.detector import NoduleDetector

NODULES_A_SCAN = 1186 / 888
"""Accepted nodules a scan in LUNA16."""
_STIFFNESS = 1e-4


class KnownCase(Protocol):
    """A volume with every nodule in it known."""

    @property
    def volume(self) -> Volume:
        """A chest CT."""

    @property
    def known(self) -> Spheres:
        """Its nodules."""

    @property
    def ignored(self) -> Spheres:
        """Places that are neither nodule nor its absence."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Candidates of many cases: logits of both stages (n, 2), whether each is a nodule, and how much each counts."""

    logits: NDArray[np.float64]
    is_nodule: NDArray[np.bool_]
    weights: NDArray[np.float64]


def judged(detector: NoduleDetector, cases: Iterable[KnownCase]) -> Judged:
    """Let a detector mark cases; a candidate on an ignored place is left out.

    Cases hold more nodules than patients do: a candidate on a nodule counts as many times less.
    """
    logits, hits, nodules, scans = [], [], 0, 0
    for case in cases:
        marked = detector.candidates(case.volume)
        hit = np.asarray(case.known.hold(marked.centers_lps_mm).any(axis=1))
        counted = np.logical_or(hit, ~case.ignored.hold(marked.centers_lps_mm).any(axis=1))
        logits.append(np.stack([marked.logits, marked.second_logits], axis=1)[counted])
        hits.append(hit[counted])
        nodules, scans = nodules + len(case.known), scans + 1
    if not nodules:
        raise OptionError(f"{scans} cases without any nodule cannot calibrate a score.")
    is_nodule = np.concatenate(hits)
    weights = np.where(is_nodule, NODULES_A_SCAN * scans / nodules, 1.0)
    return Judged(np.concatenate(logits), is_nodule, weights)


def fit(seen: Judged, *, second_stage: bool = True) -> Calibration:
    """Platt's scaling of both logits (of the detector's alone without a second stage), by weighted maximum likelihood.

    Neither logit is given a negative weight.
    """
    columns = seen.logits if second_stage else seen.logits[:, :1]
    truth = seen.is_nodule.astype(float)

    def cost(values: NDArray[np.float64]) -> float:
        margin = columns @ values[:-1] + values[-1]
        likelihood = np.logaddexp(0, margin) - truth * margin
        return float((seen.weights * likelihood).sum() + _STIFFNESS * (values**2).sum())

    def slope(values: NDArray[np.float64]) -> NDArray[np.float64]:
        error = seen.weights * (expit(columns @ values[:-1] + values[-1]) - truth)
        return np.append(columns.T @ error, error.sum()) + 2 * _STIFFNESS * values

    bounds: Sequence[tuple[float | None, float | None]] = [(0, None)] * columns.shape[1] + [(None, None)]
    best = minimize(cost, np.append(np.full(columns.shape[1], 0.5), 0.0), jac=slope, bounds=bounds).x
    classifier = float(best[1]) if second_stage else 0.0
    return Calibration(float(best[0]), classifier, float(best[-1]))
