"""Fakes for the tests of Tomolens and of what is built on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tomolens.core.card import InputContract, ModelCard
from tomolens.core.finding import Finding
from tomolens.core.progress import Progress, Step
from tomolens.core.run import Run
from tomolens.core.volume import Unit, Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

FAKE_CARD = ModelCard(
    name="fake",
    version="0.0.0",
    task="detection",
    summary="Marks the brightest voxel.",
    intended_use="Tests.",
    trained_on="Nothing.",
    licence="Apache-2.0",
    input=InputContract(modality="CT", unit=Unit.HU, max_spacing_mm=6.0, min_extent_mm=8.0),
    default_min_score=0.5,
    network="none",
)


@dataclass
class FakeDetector:
    """A detector without a network: it returns ``candidates`` and reports ``windows`` windows of progress."""

    candidates: Sequence[Finding] = (Finding((0.0, 0.0, 0.0), 8.0, 0.9),)
    windows: int = 4
    card: ModelCard = field(default=FAKE_CARD)

    def detect(self, volume: Volume, progress: Progress) -> tuple[Sequence[Finding], Run]:
        """Report every window, then return the candidates."""
        for done in range(self.windows + 1):
            progress(Step("find nodules", done, self.windows))
        uid = volume.series.uid if volume.series else ""
        return self.candidates, Run(self.card.name, self.card.version, "0" * 64, series_uid=uid, history=volume.history)
