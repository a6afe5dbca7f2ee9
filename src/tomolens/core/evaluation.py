"""How good a detector was on a set of scans: its curve, its figures at a threshold, and both by subgroup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tomolens.core.errors import OptionError
from tomolens.core.froc import BOOTSTRAPS, Band, Froc, MarkedScan, Matched, bootstrapped, froc, match
from tomolens.core.metrics import Counts, Share, counts_at, subgroups


@dataclass(frozen=True, eq=False)
class Subgroup:
    """The nodules of one label: their curve (at all false positives), and how many are found at the threshold."""

    grouping: str
    label: str
    curve: Froc
    found: Share | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of one detector on one set of scans.

    Parameters
    ----------
    scans, matched
        What was marked and known, and how it was told apart, scan by scan.
    curve, band
        Sensitivity against false positives a scan, and its 95 % band over ``band.samples`` bootstraps from ``seed``.
    threshold, counts
        Figures at one score; None where none was given.
    subgroups
        Of every grouping of the nodules.
    """

    scans: tuple[MarkedScan, ...]
    matched: tuple[Matched, ...]
    curve: Froc
    band: Band
    seed: int
    threshold: float | None
    counts: Counts | None
    subgroups: tuple[Subgroup, ...]

    @property
    def scans_without_nodules(self) -> int:
        """They count in the denominator of false positives a scan."""
        return sum(not len(scan.nodules) for scan in self.scans)

    def marks(self) -> dict[str, int]:
        """How many marks there were and what became of them."""
        found = [matched.nodule_marks[matched.nodule_marks >= 0] for matched in self.matched]
        return {
            "read": sum(len(scan.scores) for scan in self.scans),
            "beyond_the_100_surest": sum(matched.dropped for matched in self.matched),
            "hits": sum(len(np.unique(which)) for which in found),
            "doubles": sum(matched.doubles for matched in self.matched),
            "on_excluded": sum(matched.ignored for matched in self.matched),
            "false_positives": sum(len(matched.false_scores) for matched in self.matched),
        }

    def nodules(self) -> list[dict[str, Any]]:
        """One row a nodule: where it is, its labels, the score it was found with and how far off; None where missed."""
        return [
            row for scan, matched in zip(self.scans, self.matched, strict=True) for row in _nodule_rows(scan, matched)
        ]

    def centre_error_mm(self) -> float | None:
        """Median distance from a nodule's centre to the mark that found it; None where none was found."""
        away = [row["away_mm"] for row in self.nodules() if row["away_mm"] is not None]
        return float(np.median(away)) if away else None


def _nodule_rows(scan: MarkedScan, matched: Matched) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for n, ((x, y, z), diameter) in enumerate(
        zip(scan.nodules.centers_lps_mm.tolist(), scan.nodules.diameters_mm.tolist(), strict=True)
    ):
        mark = int(matched.nodule_marks[n])
        score = float(matched.nodule_scores[n]) if mark >= 0 else None
        away = float(np.linalg.norm(scan.marks_lps_mm[mark] - (x, y, z))) if mark >= 0 else None
        place = {"scan": scan.name, "x_mm": x, "y_mm": y, "z_mm": z, "diameter_mm": diameter}
        labels = {grouping: values[n] for grouping, values in scan.labels.items()}
        rows.append({**place, **labels, "score": score, "away_mm": away})
    return rows


def evaluate(
    scans: Sequence[MarkedScan], threshold: float | None = None, *, samples: int = BOOTSTRAPS, seed: int = 0
) -> Evaluation:
    """Score marks by LUNA16's protocol.

    Parameters
    ----------
    scans
        Every scan that was read, without nodules or marks too.
    threshold
        For precision, recall and their like; none of them where None.
    samples, seed
        Of the bootstrap.

    Raises
    ------
    OptionError
        If there is no nodule in any scan, two scans have one name, or the threshold is not finite.
    """
    if threshold is not None and not np.isfinite(threshold):
        raise OptionError(f"A threshold is a finite number, not {threshold}.")
    names = [scan.name for scan in scans]
    if len(set(names)) < len(names):
        raise OptionError(f"Two scans are called {max(names, key=names.count)}; each counts once.")
    matched = tuple(map(match, scans))
    return Evaluation(
        scans=tuple(scans),
        matched=matched,
        curve=froc(matched),
        band=bootstrapped(matched, samples, seed),
        seed=seed,
        threshold=threshold,
        counts=None if threshold is None else counts_at(matched, threshold),
        subgroups=tuple(_subgroups(matched, threshold)),
    )


def _subgroups(matched: Sequence[Matched], threshold: float | None) -> list[Subgroup]:
    groupings = list(dict.fromkeys(grouping for scan in matched for grouping in scan.labels))
    return [
        Subgroup(grouping, label, froc(group), None if threshold is None else counts_at(group, threshold).sensitivity)
        for grouping in groupings
        for label, group in subgroups(matched, grouping).items()
    ]
