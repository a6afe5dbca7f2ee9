"""What a detector found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.errors import FindingError, OptionError
from tomolens.core.picture import detection_html

if TYPE_CHECKING:
    import pandas as pd

    from tomolens.core.grid import Grid
    from tomolens.core.run import Run
    from tomolens.core.volume import Volume

RESEARCH_USE = "Research use only. Not a medical device; not for diagnosis."
"""Said wherever a result is shown."""


@dataclass(frozen=True)
class Finding:
    """One suspected nodule.

    Parameters
    ----------
    center_lps_mm
        Centre in the patient: +x left, +y posterior, +z superior, in mm.
    diameter_mm
        Diameter of the sphere of the same size, in mm.
    score
        The model's confidence, 0 to 1.

    Raises
    ------
    FindingError
        If a number is not finite, the diameter not positive or the score not between 0 and 1: a NaN would
        otherwise drop out of every comparison unseen.
    """

    center_lps_mm: tuple[float, float, float]
    diameter_mm: float
    score: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.center_lps_mm).all() and 0 < self.diameter_mm < np.inf and 0 <= self.score <= 1):
            raise FindingError(
                f"A finding has a finite centre, a diameter above 0 mm and a score from 0 to 1, not {self}."
            )

    def to_dict(self) -> dict[str, float]:
        """Plain values, named as the columns of the findings table."""
        x, y, z = self.center_lps_mm
        return {"score": self.score, "x_mm": x, "y_mm": y, "z_mm": z, "diameter_mm": self.diameter_mm}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Finding:
        """The inverse of `to_dict`."""
        center = (float(values["x_mm"]), float(values["y_mm"]), float(values["z_mm"]))
        return cls(center, float(values["diameter_mm"]), float(values["score"]))


@dataclass(frozen=True, eq=False)
class Detection:
    """What a detector found in one volume.

    Parameters
    ----------
    candidates
        Everything that the model marked down to its floor, surest first; may be empty.
    min_score
        The threshold: `findings` are the candidates that reach it. `at` gives the same detection at another one
        without running again.
    grid
        The grid of the volume that was read; findings lie in its frame of reference.
    run
        How the result was made.
    volume
        The volume itself, where it is at hand, for pictures; never written with the findings.

    Raises
    ------
    OptionError
        If ``min_score`` is not between 0 and 1.
    """

    candidates: tuple[Finding, ...]
    min_score: float
    grid: Grid
    run: Run
    volume: Volume | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise OptionError(f"min_score is a number from 0 to 1, not {self.min_score}.")
        object.__setattr__(self, "candidates", tuple(sorted(self.candidates, key=lambda f: -f.score)))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The candidates that reach the threshold, surest first."""
        return tuple(f for f in self.candidates if f.score >= self.min_score)

    def at(self, min_score: float) -> Detection:
        """The same detection at another threshold."""
        return replace(self, min_score=min_score)

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def to_dataframe(self) -> pd.DataFrame:
        """The findings as a table, surest first.

        Columns ``series_uid, finding, score, x_mm, y_mm, z_mm, diameter_mm, slice``: patient LPS in mm; ``finding``
        counts from 1; ``slice`` is the nearest slice index k of the grid, from 0.
        """
        import pandas as pd

        columns = ["series_uid", "finding", "score", "x_mm", "y_mm", "z_mm", "diameter_mm", "slice"]
        return pd.DataFrame(self.rows(), columns=columns)

    def rows(self) -> list[dict[str, Any]]:
        """The table of `to_dataframe` as plain values."""
        return [
            {"series_uid": self.run.series_uid, "finding": number, **finding.to_dict(), "slice": self.slice_of(finding)}
            for number, finding in enumerate(self.findings, start=1)
        ]

    def slice_of(self, finding: Finding) -> int:
        """Index k of the slice nearest to a finding's centre."""
        k = round(float(self.grid.to_kji(finding.center_lps_mm)[0]))
        return int(np.clip(k, 0, self.grid.shape[0] - 1))

    def _repr_html_(self) -> str:
        return detection_html(self)
