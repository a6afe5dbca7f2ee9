"""How well marks find nodules: the protocol of LUNA16.

A mark hits a nodule where its squared distance to the centre is strictly less than (diameter / 2) squared, in mm. A
diameter below 0 stands for 10 mm. Of a scan's marks at most 100 count, the surest. Several marks on one nodule count
once, with the highest score. A mark on an excluded finding counts neither as hit nor as false positive, unless it also
hits a nodule. A mark in two nodules finds both. Every scan that was read counts in the denominator, with nodules or
without, with marks or without. The curve starts at (0, 0), is linear between its points and level after the last.
Scores are any finite numbers, higher is surer; equal scores enter the curve together, so their order decides nothing.

Setio et al., Validation, comparison, and combination of algorithms for automatic detection of pulmonary nodules in
computed tomography images: the LUNA16 challenge, Medical Image Analysis 42 (2017), doi:10.1016/j.media.2017.06.015.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomolens.core.errors import FindingError, OptionError

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a scan at which the mean sensitivity (CPM) is taken."""
MAX_MARKS = 100
UNKNOWN_DIAMETER_MM = 10.0
BOOTSTRAPS = 1000
MISSED = -np.inf
"""The score of a nodule that no mark hits."""

_STEPS_AN_OCTAVE = 16
BAND_RATES = 2.0 ** (np.arange(6 * _STEPS_AN_OCTAVE + 1) / _STEPS_AN_OCTAVE - 3)
"""Where a band is given, from 1/8 to 8 false positives a scan; every 16th is one of `RATES`."""
BAND_RATES.flags.writeable = False


@dataclass(frozen=True, eq=False)
class Spheres:
    """Known places, each a sphere.

    Parameters
    ----------
    centers_lps_mm
        (n, 3); none is an empty list.
    diameters_mm
        (n,); below 0 where it is not known, which is read as 10 mm.

    Raises
    ------
    FindingError
        If the lengths differ or a number is not finite.
    """

    centers_lps_mm: NDArray[np.float64]
    diameters_mm: NDArray[np.float64]

    def __post_init__(self) -> None:
        centers = _points(self.centers_lps_mm, "centres")
        diameters = _numbers(self.diameters_mm, len(centers), "diameters")
        object.__setattr__(self, "centers_lps_mm", centers)
        object.__setattr__(self, "diameters_mm", np.where(diameters < 0, UNKNOWN_DIAMETER_MM, diameters))

    @classmethod
    def none(cls) -> Spheres:
        """No place."""
        return cls(np.empty((0, 3)), np.empty(0))

    def __len__(self) -> int:
        return len(self.diameters_mm)

    def squared_distances(self, lps_mm: ArrayLike) -> NDArray[np.float64]:
        """(points, spheres): from each of (points, 3) to each centre, in square mm."""
        away = np.asarray(lps_mm, np.float64)[:, None, :] - self.centers_lps_mm[None]
        return np.asarray((away**2).sum(axis=2))

    def hold(self, lps_mm: ArrayLike) -> NDArray[np.bool_]:
        """(points, spheres): whether each point lies strictly inside each sphere."""
        return np.asarray(self.squared_distances(lps_mm) < (self.diameters_mm / 2) ** 2)


def _points(values: ArrayLike, what: str) -> NDArray[np.float64]:
    points = np.asarray(values, np.float64).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise FindingError(f"The {what} are finite mm; row {_first_bad(points)} (from 0) is not.")
    return points


def _numbers(values: ArrayLike, count: int, what: str) -> NDArray[np.float64]:
    numbers = np.asarray(values, np.float64).reshape(-1)
    if len(numbers) != count:
        raise FindingError(f"There are {count} places but {len(numbers)} {what}.")
    if not np.isfinite(numbers).all():
        raise FindingError(f"The {what} are finite numbers; number {_first_bad(numbers)} (from 0) is not.")
    return numbers


def _first_bad(values: NDArray[np.float64]) -> int:
    return int(np.argwhere(~np.isfinite(values))[0][0])


@dataclass(frozen=True, eq=False)
class MarkedScan:
    """One scan that was read: what was marked in it and what is known to be there.

    Parameters
    ----------
    name
        Its SeriesInstanceUID, or whatever tells it apart.
    marks_lps_mm, scores
        (n, 3) and (n,); may be empty.
    nodules
        What is to be found; may be empty.
    excluded
        What counts neither as nodule nor as its absence.
    labels
        Of each nodule by the name of a grouping, e.g. ``{"texture": ("solid", "part-solid")}``.

    Raises
    ------
    FindingError
        If lengths differ or a number is not finite.
    """

    name: str
    marks_lps_mm: NDArray[np.float64]
    scores: NDArray[np.float64]
    nodules: Spheres = field(default_factory=Spheres.none)
    excluded: Spheres = field(default_factory=Spheres.none)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        marks = _points(self.marks_lps_mm, f"marks of {self.name}")
        object.__setattr__(self, "marks_lps_mm", marks)
        object.__setattr__(self, "scores", _numbers(self.scores, len(marks), f"scores of {self.name}"))
        for grouping, labels in self.labels.items():
            if len(labels) != len(self.nodules):
                raise FindingError(
                    f"{self.name} has {len(self.nodules)} nodules but {len(labels)} labels {grouping!r}."
                )


@dataclass(frozen=True, eq=False)
class Matched:
    """One scan's marks, told apart.

    Parameters
    ----------
    name
        Of the scan.
    nodule_scores
        (nodules,): the highest score that hits each; `MISSED` where none does.
    nodule_marks
        (nodules,): which mark that is, as an index into the scan's marks; -1 where none does.
    false_scores
        Scores of the marks that hit nothing.
    ignored, doubles, dropped
        How many marks lie on excluded findings, hit a nodule that a surer mark hits, are beyond the 100 surest.
    labels
        As the scan's.
    """

    name: str
    nodule_scores: NDArray[np.float64]
    nodule_marks: NDArray[np.int_]
    false_scores: NDArray[np.float64]
    ignored: int = 0
    doubles: int = 0
    dropped: int = 0
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, grouping: str, label: str) -> Matched:
        """The scan as if it had the nodules with that label alone; marks on the others are ignored, not false."""
        own = self.labels.get(grouping, ())
        kept = np.array([n for n, given in enumerate(own) if given == label], int)
        labels = {name: tuple(values[n] for n in kept) for name, values in self.labels.items()}
        return replace(
            self, nodule_scores=self.nodule_scores[kept], nodule_marks=self.nodule_marks[kept], labels=labels
        )


def surest(scores: NDArray[np.float64], most: int = MAX_MARKS) -> NDArray[np.int_]:
    """Indices of the marks that count, in their order: at most ``most``.

    As in LUNA16's own script, of more marks those count that are surer than mark number ``most + 1``. Of marks with
    equal scores at that border none counts, so that their order decides nothing.
    """
    if len(scores) <= most:
        return np.arange(len(scores))
    return np.flatnonzero(scores > np.sort(scores)[-most - 1])


def match(scan: MarkedScan) -> Matched:
    """Tell a scan's marks apart by the protocol that stands atop this module."""
    kept = surest(scan.scores)
    marks, scores = scan.marks_lps_mm[kept], scan.scores[kept]
    hits = scan.nodules.hold(marks)
    ignored = scan.excluded.hold(marks).any(axis=1) & ~hits.any(axis=1)
    wrong = ~hits.any(axis=1) & ~ignored
    best = np.where(hits, scores[:, None], MISSED)
    found = hits.any(axis=0)
    first = best.argmax(axis=0) if len(kept) else np.zeros(len(scan.nodules), int)
    which = np.where(found, kept[first] if len(kept) else -1, -1)
    return Matched(
        name=scan.name,
        nodule_scores=best.max(axis=0, initial=MISSED),
        nodule_marks=which,
        false_scores=scores[wrong],
        ignored=int(ignored.sum()),
        doubles=int(hits.any(axis=1).sum() - len(np.unique(which[found]))),
        dropped=len(scan.scores) - len(kept),
        labels=scan.labels,
    )


@dataclass(frozen=True, eq=False)
class Froc:
    """Sensitivity against false positives a scan.

    Parameters
    ----------
    false_positives
        (n,) a scan, from 0 upwards.
    sensitivity
        (n,) shares of all nodules.
    thresholds
        (n,): at this score and above, that many; the first point, (0, 0), has infinity.
    nodules, scans
        How many there are.
    """

    false_positives: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    nodules: int
    scans: int

    def at(self, rates: ArrayLike) -> NDArray[np.float64]:
        """Sensitivity at these false positives a scan: linear between the points, level after the last."""
        return np.asarray(np.interp(np.asarray(rates, np.float64), self.false_positives, self.sensitivity))

    @cached_property
    def cpm(self) -> float:
        """The mean sensitivity at `RATES`, LUNA16's competition performance metric."""
        return float(self.at(RATES).mean())

    def threshold_at(self, rate: float) -> float:
        """The lowest score whose marks and all surer ones make at most ``rate`` false positives a scan."""
        return float(self.thresholds[np.searchsorted(self.false_positives, rate, side="right") - 1])


@dataclass(frozen=True, eq=False)
class Band:
    """What chance in the choice of scans does to a curve.

    ``low``, ``mean`` and ``high`` are sensitivities at ``rates``: the 2.5th percentile, the mean and the 97.5th
    percentile over the bootstraps; ``cpm_low`` and ``cpm_high`` those of the CPM. ``samples`` counts the bootstraps.
    """

    rates: NDArray[np.float64]
    low: NDArray[np.float64]
    mean: NDArray[np.float64]
    high: NDArray[np.float64]
    cpm_low: float
    cpm_high: float
    samples: int

    def at(self, rate: float) -> tuple[float, float]:
        """Low and high at one rate."""
        return float(np.interp(rate, self.rates, self.low)), float(np.interp(rate, self.rates, self.high))


def froc(scans: Sequence[Matched]) -> Froc:
    """The curve over all scans.

    Raises
    ------
    OptionError
        If there is no nodule in any scan: there is no sensitivity then.
    """
    return _Events.of(scans).curve(np.ones(len(scans), int))


def bootstrapped(scans: Sequence[Matched], samples: int = BOOTSTRAPS, seed: int = 0) -> Band:
    """The 95 % band of the curve: as many scans are drawn with replacement, ``samples`` times.

    A draw without any nodule has no sensitivity and is drawn again. Of a single scan the band says nothing: it is the
    curve itself.

    Raises
    ------
    OptionError
        If there is no nodule in any scan.
    """
    events, rng = _Events.of(scans), np.random.default_rng(seed)
    events.check()
    curves: list[NDArray[np.float64]] = []
    while len(curves) < samples:
        drawn = rng.multinomial(len(scans), np.full(len(scans), 1 / len(scans)))
        if drawn @ events.nodules_a_scan:
            curves.append(events.curve(drawn).at(BAND_RATES))
    stacked = np.stack(curves)
    low, high = np.percentile(stacked, [2.5, 97.5], axis=0)
    cpm_low, cpm_high = np.percentile(stacked[:, ::_STEPS_AN_OCTAVE].mean(axis=1), [2.5, 97.5])
    return Band(BAND_RATES, low, stacked.mean(axis=0), high, float(cpm_low), float(cpm_high), samples)


@dataclass(frozen=True, eq=False)
class _Events:
    """Hits and false positives of all scans, surest first: ``scan`` says where, ``hit`` what it was.

    ``last`` are the events after which the score falls.
    """

    scan: NDArray[np.int_]
    hit: NDArray[np.bool_]
    score: NDArray[np.float64]
    last: NDArray[np.int_]
    nodules_a_scan: NDArray[np.int_]

    @classmethod
    def of(cls, scans: Sequence[Matched]) -> _Events:
        found = [matched.nodule_scores[matched.nodule_scores > MISSED] for matched in scans]
        parts = [
            part for n, matched in enumerate(scans) for part in ((n, True, found[n]), (n, False, matched.false_scores))
        ]
        score = np.concatenate([np.empty(0), *(scores for _, _, scores in parts)])
        sizes = [len(scores) for _, _, scores in parts]
        order = np.argsort(-score, kind="stable")
        score = score[order]
        return cls(
            np.repeat([n for n, _, _ in parts], sizes).astype(int)[order],
            np.repeat([hit for _, hit, _ in parts], sizes).astype(bool)[order],
            score,
            np.flatnonzero(np.append(np.diff(score) < 0, True)) if len(score) else np.empty(0, int),
            np.array([len(matched.nodule_scores) for matched in scans], int),
        )

    def check(self) -> None:
        if not self.nodules_a_scan.sum():
            raise OptionError(f"There is no nodule in these {len(self.nodules_a_scan)} scans, so no sensitivity.")

    def curve(self, times: NDArray[np.int_]) -> Froc:
        """The curve where each scan counts as often as ``times`` says."""
        self.check()
        nodules, scans = int(times @ self.nodules_a_scan), int(times.sum())
        weight = times[self.scan]
        false = np.cumsum(np.where(self.hit, 0, weight))[self.last] / scans
        sensitivity = np.cumsum(np.where(self.hit, weight, 0))[self.last] / nodules
        return Froc(
            np.concatenate([[0.0], false]),
            np.concatenate([[0.0], sensitivity]),
            np.concatenate([[np.inf], self.score[self.last]]),
            nodules,
            scans,
        )
