"""Segment one volume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from tomolens.core.errors import ModelError, SegmentationError
from tomolens.core.progress import Progress, silent
from tomolens.core.segmentation import Segmentation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.card import ModelCard
    from tomolens.core.run import Run
    from tomolens.core.volume import Volume


class Segmenter(Protocol):
    """The little that the pipeline needs of a model."""

    @property
    def card(self) -> ModelCard:
        """What the model is and takes."""

    @property
    def labels(self) -> Mapping[int, str]:
        """The channel table: what each label stands for, from 1; 0, the background, is not in it."""

    def segment(self, volume: Volume, progress: Progress) -> tuple[NDArray[Any], Run]:
        """Labels (k, j, i) on ``volume.grid``, uint8 or uint16, and how the network was run."""


def segment(volume: Volume, model: Segmenter, *, progress: Progress = silent) -> Segmentation:
    """Segment the structures that a model knows in one volume.

    Parameters
    ----------
    volume
        A CT or MR, as the model's contract says. It is not changed.
    model
        A segmenter, e.g. from `tomolens.load_segmenter`.
    progress
        Told after each unit of work; may raise `Cancelled` to stop.

    Returns
    -------
    Segmentation
        Labels on ``volume.grid``, named by the model's channel table; where nothing was found all are 0.

    Raises
    ------
    ContractError
        If the volume is not what the model was trained on.
    ModelError
        If the model answers with labels of another shape or kind, or with one that its channel table does not name.
    Cancelled
        If ``progress`` asked to stop.
    OutOfMemory
        If even the smallest window does not fit.
    """
    model.card.input.check(volume)
    labels, run = model.segment(volume, progress)
    try:
        return Segmentation(labels, model.labels, volume.grid, run, volume)
    except SegmentationError as wrong:
        raise ModelError(f"The answer of {model.card.name} cannot be right. {wrong}") from wrong
