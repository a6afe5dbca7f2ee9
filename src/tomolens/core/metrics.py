"""Figures of a detector at a threshold, of a classifier and of a score's honesty, each with what chance does to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomolens.core.errors import OptionError

if TYPE_CHECKING:
    from tomolens.core.froc import Matched

_Z95 = 1.959963984540054
BINS = 10
SIZES_MM = (6.0, 10.0)
"""Between the size classes that a sensitivity is split by."""


@dataclass(frozen=True)
class Share:
    """So many of so many, e.g. nodules found of those there are.

    Raises
    ------
    OptionError
        If it is not a count and a total that holds it.
    """

    count: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.total:
            raise OptionError(f"{self.count} of {self.total} is no share.")

    @property
    def value(self) -> float | None:
        """0 to 1; None of nothing."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 % by Wilson's score (doi:10.1080/01621459.1927.10502953); (0, 1) of nothing."""
        if not self.total:
            return 0.0, 1.0
        share, n, z2 = self.count / self.total, self.total, _Z95**2
        middle = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z95 / (1 + z2 / n) * float(np.sqrt(share * (1 - share) / n + z2 / (4 * n**2)))
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Counts:
    """What marks at a threshold make of a set of scans, by LUNA16's rules of what hits.

    Parameters
    ----------
    found, missed
        Nodules (not marks: several marks on one nodule count once).
    false_positives
        Marks that hit neither a nodule nor an excluded finding.
    scans
        That were read.
    """

    found: int
    missed: int
    false_positives: int
    scans: int

    @property
    def sensitivity(self) -> Share:
        """The share of nodules that are found; also called recall."""
        return Share(self.found, self.found + self.missed)

    @property
    def precision(self) -> Share:
        """The share of what is shown that is a nodule; marks on excluded findings are left out."""
        return Share(self.found, self.found + self.false_positives)

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and sensitivity; None where there is neither nodule nor mark."""
        return self._of(2 * self.found, 2 * self.found + self.missed + self.false_positives)

    @property
    def accuracy(self) -> float | None:
        """Found / (found + missed + false positives): of all that is or is said to be a nodule, the share that is both.

        A detector has no true negatives, since nobody can count the places where it rightly marks nothing; this is
        what remains of accuracy without them (the critical success index, or Jaccard index). It cannot be compared
        with a classifier's accuracy.
        """
        return self._of(self.found, self.found + self.missed + self.false_positives)

    @property
    def false_positives_a_scan(self) -> float:
        """Mean over all scans that were read."""
        return self.false_positives / self.scans

    @staticmethod
    def _of(part: int, whole: int) -> float | None:
        return part / whole if whole else None


def counts_at(scans: Sequence[Matched], threshold: float) -> Counts:
    """Count at a threshold: marks whose score is at least that are shown.

    Raises
    ------
    OptionError
        If no scan is given.
    """
    if not scans:
        raise OptionError("Counts need at least one scan.")
    found = sum(int((scan.nodule_scores >= threshold).sum()) for scan in scans)
    nodules = sum(len(scan.nodule_scores) for scan in scans)
    false = sum(int((scan.false_scores >= threshold).sum()) for scan in scans)
    return Counts(found, nodules - found, false, len(scans))


def subgroups(scans: Sequence[Matched], grouping: str) -> dict[str, list[Matched]]:
    """The scans once for each label of a grouping, with the nodules of that label alone; labels in their order.

    False positives stay what they are, so a subgroup's curve stands at the same false positives a scan as the whole.
    """
    labels = sorted({label for scan in scans for label in scan.labels.get(grouping, ())}, key=_label_order)
    return {label: [scan.of(grouping, label) for scan in scans] for label in labels}


def size_class(diameter_mm: float) -> str:
    """The size class of a nodule, e.g. ``6 to 10 mm``."""
    small, large = SIZES_MM
    if diameter_mm < small:
        return f"under {small:g} mm"
    return f"{small:g} to {large:g} mm" if diameter_mm < large else f"{large:g} mm and more"


_SIZE_CLASSES = tuple(size_class(diameter) for diameter in (0.0, *SIZES_MM))


def _label_order(label: str) -> tuple[int, str]:
    return (_SIZE_CLASSES.index(label) if label in _SIZE_CLASSES else len(_SIZE_CLASSES), label)


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve with its 95 % interval."""

    value: float
    low: float
    high: float
    positives: int
    negatives: int


def auc(scores: ArrayLike, truth: ArrayLike) -> Auc:
    """The chance that a positive scores higher than a negative; equal scores count half.

    The interval is DeLong's (doi:10.2307/2531595), cut at 0 and 1. Where the classes are perfectly apart DeLong's
    variance is 0; the interval then reaches down to .025^(1/n), n the smaller class: what n successes of n leave open.
    Where a class has one member, or all scores are equal, nothing is known of the variance: it is 0 to 1.

    Parameters
    ----------
    scores
        (n,) finite numbers, higher is surer.
    truth
        (n,) whether each is positive.

    Raises
    ------
    OptionError
        If a class is empty, the lengths differ or a score is not finite.
    """
    numbers, positive = _checked(scores, truth)
    above, below = numbers[positive], numbers[~positive]
    m, n = len(above), len(below)
    if not m or not n:
        raise OptionError(f"An AUC needs positives and negatives; there are {m} and {n}.")
    both, own, other = _midranks(np.concatenate([above, below])), _midranks(above), _midranks(below)
    value = float((both[:m].sum() - m * (m + 1) / 2) / (m * n))
    of_positive, of_negative = (both[:m] - own) / n, 1 - (both[m:] - other) / m
    variance = _variance(of_positive) / m + _variance(of_negative) / n
    half = _Z95 * float(np.sqrt(variance)) if min(m, n) > 1 and (variance or value in (0, 1)) else 1.0
    open_end = 0.025 ** (1 / min(m, n))
    low = open_end if value == 1 else max(0.0, value - half)
    high = 1 - open_end if value == 0 else min(1.0, value + half)
    return Auc(value, low, high, m, n)


def _checked(scores: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    numbers, positive = np.asarray(scores, np.float64).reshape(-1), np.asarray(truth, bool).reshape(-1)
    if len(numbers) != len(positive):
        raise OptionError(f"There are {len(numbers)} scores but {len(positive)} truths.")
    if not np.isfinite(numbers).all():
        raise OptionError(f"Scores are finite numbers; {int((~np.isfinite(numbers)).sum())} are not.")
    return numbers, positive


def _variance(values: NDArray[np.float64]) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank of each value from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse], np.float64)


@dataclass(frozen=True)
class ReliabilityBin:
    """The scores from ``low`` to ``high``: how many, their weight, their mean, and the share of them that was right."""

    low: float
    high: float
    count: int
    weight: float
    mean_score: float
    share_true: float


def reliability(
    scores: ArrayLike, truth: ArrayLike, bins: int = BINS, *, weights: ArrayLike | None = None
) -> tuple[ReliabilityBin, ...]:
    """Points of the reliability diagram: equally wide bins of the score, empty ones left out.

    Parameters
    ----------
    scores, truth
        (n,) from 0 to 1, and whether each came true. A score on a border belongs to the upper bin, 1 to the last.
    bins
        How many.
    weights
        (n,) above 0: how much each counts, for a sample whose positives are more or fewer than they are in use; equally
        where None.

    Raises
    ------
    OptionError
        If a score is not between 0 and 1, a weight not above 0, or the lengths differ.
    """
    numbers, positive = _checked(scores, truth)
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() <= 1):
        raise OptionError(
            f"Calibration needs scores from 0 to 1; these go from {numbers.min():g} to {numbers.max():g}."
        )
    edges = np.arange(bins + 1) / bins
    which = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, bins - 1)
    heavy = _weights(weights, len(numbers))
    return tuple(
        ReliabilityBin(
            float(edges[n]),
            float(edges[n + 1]),
            int(own.sum()),
            float(heavy[own].sum()),
            float(np.average(numbers[own], weights=heavy[own])),
            float(np.average(positive[own], weights=heavy[own])),
        )
        for n in range(bins)
        if (own := which == n).any()
    )


def _weights(weights: ArrayLike | None, count: int) -> NDArray[np.float64]:
    values = np.ones(count) if weights is None else np.asarray(weights, np.float64).reshape(-1)
    if len(values) != count or not (np.isfinite(values).all() and (values > 0).all()):
        raise OptionError(f"Weights are {count} numbers above 0, one a score.")
    return values


def expected_calibration_error(
    scores: ArrayLike, truth: ArrayLike, bins: int = BINS, *, weights: ArrayLike | None = None
) -> float:
    """Mean over all scores of how far their bin's mean score lies from its share of true ones (arXiv:1706.04599).

    Parameters are those of `reliability`.

    Raises
    ------
    OptionError
        If there is no score, one is not between 0 and 1, a weight is not above 0, or the lengths differ.
    """
    points = reliability(scores, truth, bins, weights=weights)
    total = sum(point.weight for point in points)
    if not total:
        raise OptionError("A calibration error needs at least one score.")
    return sum(point.weight * abs(point.mean_score - point.share_true) for point in points) / total


@dataclass(frozen=True)
class CalibrationError:
    """An expected calibration error with its 95 % band, over the scores of at least ``floor``; ``count`` of them."""

    value: float
    low: float
    high: float
    count: int
    floor: float


def calibration_error_by_case(
    cases: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike]],
    floor: float = 0.0,
    *,
    bins: int = BINS,
    samples: int = 1000,
    seed: int = 0,
) -> CalibrationError:
    """The expected calibration error of scores that come in cases, and what the chance of cases does to it.

    The band holds 95 % of ``samples`` bootstraps, each of as many whole cases drawn with replacement: scores of one
    case are not independent. A draw without any score is drawn again. A calibration error is never below 0, so its
    bootstraps lie above it on average; of a single case the band says nothing.

    Parameters
    ----------
    cases
        Scores, truth and weights of each, as of `reliability`.
    floor
        Scores below are left out: what a reader at that threshold is not shown.

    Raises
    ------
    OptionError
        If no score is left, or as `reliability` does.
    """
    kept = [_from(floor, *case) for case in cases]
    count = sum(len(scores) for scores, _, _ in kept)
    if not count:
        raise OptionError(
            f"A calibration error needs at least one score; in {len(cases)} cases none is at least {floor:g}."
        )
    sums = np.stack([_sums(scores, truth, weights, bins) for scores, truth, weights in kept])
    rng, drawn = np.random.default_rng(seed), [np.ones(len(kept), int)]
    while len(drawn) <= samples:
        draw = rng.multinomial(len(kept), np.full(len(kept), 1 / len(kept)))
        drawn += [draw] if draw @ sums[:, 0].sum(axis=1) else []
    weight, score, true = np.moveaxis(np.tensordot(drawn, sums, axes=1), 1, 0)
    errors = np.abs(score - true).sum(axis=1) / weight.sum(axis=1)
    low, high = np.percentile(errors[1:], [2.5, 97.5])
    return CalibrationError(float(errors[0]), float(low), float(high), count, floor)


def _from(
    floor: float, scores: ArrayLike, truth: ArrayLike, weights: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    numbers, positive = _checked(scores, truth)
    kept = numbers >= floor
    return numbers[kept], positive[kept], _weights(weights, len(numbers))[kept]


def _sums(scores: ArrayLike, truth: ArrayLike, weights: ArrayLike, bins: int) -> NDArray[np.float64]:
    """(3, bins): the weight in each bin, and the weighted sums of scores and of what came true."""
    sums = np.zeros((3, bins))
    for point in reliability(scores, truth, bins, weights=weights):
        values = np.array([1.0, point.mean_score, point.share_true])
        sums[:, round(point.low * bins)] = point.weight * values
    return sums
