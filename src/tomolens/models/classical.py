"""The methods without training, by job: what each is and takes. What it does stands beside the networks of its job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tomolens.core.card import InputContract, ModelCard
from tomolens.core.reconstruction import Job
from tomolens.core.volume import Unit

if TYPE_CHECKING:
    from tomolens.models.reconstructor import Reconstructor


@dataclass(frozen=True)
class Classical:
    """A method without training: its card, and what makes a reconstructor of it."""

    card: ModelCard
    load: Callable[[], Reconstructor]


@dataclass(frozen=True)
class _Kind:
    """What the methods of one job have in common."""

    job: Job
    intended_use: str
    trained_on: str
    input: InputContract

    def cards(self, summaries: Mapping[str, str], ranges: Mapping[str, tuple[float, float]]) -> dict[str, ModelCard]:
        return {name: self._card(name, summary, ranges) for name, summary in summaries.items()}

    def _card(self, name: str, summary: str, ranges: Mapping[str, tuple[float, float]]) -> ModelCard:
        return ModelCard(
            name=name,
            version="1",
            task=self.job,
            summary=summary,
            intended_use=self.intended_use,
            trained_on=self.trained_on,
            licence=_LICENCES.get(name, "Apache-2.0"),
            input=self.input,
            default_min_score=0.0,
            network="",
            ranges={} if name in _WITHOUT_RANGE else ranges,
        )


_WITHOUT_RANGE = {"zero-filled"}
_LICENCES = {"bm3d": "the package bm3d's own: non-commercial use alone"}
_DENOISING = _Kind(
    Job.DENOISING,
    "A baseline that networks are compared with.",
    "Nothing; its one number was chosen on simulated low-dose CT.",
    InputContract("CT", Unit.HU, max_spacing_mm=10.0, min_extent_mm=0.1),
)
_MRI = _Kind(
    Job.MRI,
    "Research; the plain answer that a network is compared with. Not a medical device.",
    "Nothing; its weights were tuned on the training images of the networks.",
    InputContract("MR", Unit.ARBITRARY, max_spacing_mm=50.0, min_extent_mm=0.0),
)
THICK_SLICES = InputContract("CT or MR", None, max_spacing_mm=12.0, min_extent_mm=10.0)
"""What every method of super-resolution takes."""
_SLICES = _Kind(
    Job.SUPER_RESOLUTION,
    "Reading thick slices in other planes. No structure between two slices is found that way.",
    "Nothing.",
    THICK_SLICES,
)
METHODS: Mapping[Job, Mapping[str, ModelCard]] = {
    Job.DENOISING: _DENOISING.cards(
        {
            "nlm": "Non-local means, told the noise of each place.",
            "tv": "Total variation, told the noise of each place.",
            "bm3d": "BM3D, told the noise of each place; an extra for non-commercial use.",
        },
        {},
    ),
    Job.MRI: _MRI.cards(
        {
            "tv-sense": "SENSE with total variation (FISTA): keeps edges, may look like patches.",
            "cg-sense": "SENSE with conjugate gradients: no prior but few steps.",
            "zero-filled": "The measurement as it is, zeros where there is none.",
        },
        # what the weights were tuned on, and what the coils can be told from
        {"acceleration": (1.0, 9.0), "centre": (8.0, 4096.0)},
    ),
    Job.SUPER_RESOLUTION: _SLICES.cards(
        {
            "cubic-backprojected": "The cubic spline, back-projected until its means are the measured slices.",
            "cubic": "The cubic spline through the thick slices; it does not keep them.",
        },
        {},
    ),
}
"""By job and name; the first of a job is the one that its networks are compared with."""
