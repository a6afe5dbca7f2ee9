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

TEXTURES = ("ground glass", "part-solid", "solid")

COLUMNS = (
    "series_uid",
    "finding",
    "score",
    "x_mm",
    "y_mm",
    "z_mm",
    "diameter_mm",
    "slice",
    "texture",
    "malignancy",
    "source",
)
"""Of the findings table, wherever it is written."""


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
    texture
        ``solid``, ``part-solid`` or ``ground glass``, as the model's second stage sees it; empty without one.
    malignancy
        From 0 to 1; of a second stage that is calibrated for it the probability that radiologists would call it
        malignant, if it is a nodule; no histology. None without a second stage.

    Raises
    ------
    FindingError
        If a number is not finite, the diameter not positive, the score or the malignancy not between 0 and 1 or the
        texture unknown: a NaN would otherwise drop out of every comparison unseen.
    """

    center_lps_mm: tuple[float, float, float]
    diameter_mm: float
    score: float
    texture: str = ""
    malignancy: float | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.center_lps_mm).all() and 0 < self.diameter_mm < np.inf and 0 <= self.score <= 1):
            raise FindingError(
                f"A finding has a finite centre, a diameter above 0 mm and a score from 0 to 1, not {self}."
            )
        if self.texture not in ("", *TEXTURES) or not (self.malignancy is None or 0 <= self.malignancy <= 1):
            raise FindingError(
                f"A finding's texture is one of {', '.join(TEXTURES)} or empty, its malignancy from 0 to 1, not {self}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, named as the columns of the findings table."""
        x, y, z = self.center_lps_mm
        place = {"x_mm": x, "y_mm": y, "z_mm": z, "diameter_mm": self.diameter_mm}
        return {"score": self.score, **place, "texture": self.texture, "malignancy": self.malignancy}

    @property
    def kind(self) -> str:
        """Texture and malignancy in words, e.g. ``part-solid, malignant 0.62``; empty where neither is known."""
        rated = "" if self.malignancy is None else f"malignant {self.malignancy:.2f}"
        return ", ".join(filter(None, (self.texture, rated)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Finding:
        """The inverse of `to_dict`."""
        center = (float(values["x_mm"]), float(values["y_mm"]), float(values["z_mm"]))
        malignancy = values.get("malignancy")
        return cls(
            center,
            float(values["diameter_mm"]),
            float(values["score"]),
            str(values.get("texture", "")),
            None if malignancy is None else float(malignancy),
        )


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

        Columns as of `COLUMNS`: patient LPS in mm; ``finding`` counts from 1; ``slice`` is the nearest slice index k of
        the grid, from 0; ``texture`` and ``malignancy`` are empty where not known; ``source`` is the run's name of what
        was read, which tells scans apart where there is no ``series_uid``.
        """
        import pandas as pd

        return pd.DataFrame(self.rows(), columns=list(COLUMNS))

    def rows(self) -> list[dict[str, Any]]:
        """The table of `to_dataframe` as plain values."""
        uid, source = self.run.series_uid, self.run.source
        return [
            {
                "series_uid": uid,
                "finding": number,
                **finding.to_dict(),
                "slice": self.slice_of(finding),
                "source": source,
            }
            for number, finding in enumerate(self.findings, start=1)
        ]

    def slice_of(self, finding: Finding) -> int:
        """Index k of the slice nearest to a finding's centre."""
        k = round(float(self.grid.to_kji(finding.center_lps_mm)[0]))
        return int(np.clip(k, 0, self.grid.shape[0] - 1))

    def _repr_html_(self) -> str:
        return detection_html(self)
