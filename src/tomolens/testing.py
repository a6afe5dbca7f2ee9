"""Fakes for the tests of Tomolens and of what is built on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.card import InputContract, ModelCard
from tomolens.core.finding import Finding
from tomolens.core.progress import Progress, Step
from tomolens.core.reconstruction import Check, Job, Made
from tomolens.core.run import Run
from tomolens.core.volume import Unit, Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tomolens.core.reconstruction import ReconstructOptions

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
        return self.candidates, _run(self.card, volume)


FAKE_SEGMENTATION_CARD = replace(
    FAKE_CARD, name="fake-thresholds", task="segmentation", summary="Tells dense from soft by their numbers alone."
)


@dataclass
class FakeSegmenter:
    """A segmenter without a network: a voxel has the last label whose threshold it reaches.

    It reports ``windows`` windows of progress. ``thresholds`` are label to least number, in the volume's unit.
    """

    labels: Mapping[int, str] = field(default_factory=lambda: {1: "soft", 2: "dense"})
    thresholds: Mapping[int, float] = field(default_factory=lambda: {1: 0.0, 2: 450.0})
    windows: int = 4
    card: ModelCard = field(default=FAKE_SEGMENTATION_CARD)

    def segment(self, volume: Volume, progress: Progress) -> tuple[NDArray[Any], Run]:
        """Report every window, then label the voxels."""
        for done in range(self.windows + 1):
            progress(Step("segment", done, self.windows))
        drawn = np.zeros(volume.shape, np.uint8)
        for label, least in self.thresholds.items():
            drawn[volume.voxels >= least] = label
        return drawn, _run(self.card, volume)


FAKE_DENOISING_CARD = replace(FAKE_CARD, name="fake-mean", task=Job.DENOISING, summary="A mean over three columns.")


@dataclass
class FakeReconstructor:
    """A denoiser without a network: each voxel becomes the mean of itself and its two neighbours along the row.

    Its uncertainty is ``sigma`` everywhere, and it reports ``windows`` windows of progress.
    """

    windows: int = 4
    sigma: float = 5.0
    card: ModelCard = field(default=FAKE_DENOISING_CARD)
    checks: tuple[Check, ...] = (Check("noise", 20.0, "HU", 5.0, 80.0),)

    def reconstruct(self, source: Volume, options: ReconstructOptions, progress: Progress) -> Made:
        """Report every window, then smooth."""
        for done in range(self.windows + 1):
            progress(Step("reconstruct", done, self.windows))
        reference = np.asarray(source.voxels, np.float32)
        wide = np.pad(reference, ((0, 0), (0, 0), (1, 1)), mode="edge")
        image = (wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]) / np.float32(3)
        uncertainty = np.full(source.shape, self.sigma, np.float32) if options.uncertainty else None
        return Made(image, reference, source.grid, _run(self.card, source), uncertainty, self.checks)


def _run(card: ModelCard, volume: Volume) -> Run:
    uid = volume.series.uid if volume.series else ""
    return Run(card.name, card.version, "0" * 64, series_uid=uid, history=volume.history)
