"""Segment one volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tomolens.core.errors import ContractError, ModelError, SegmentationError
from tomolens.core.progress import Progress, silent
from tomolens.core.segmentation import Segmentation
from tomolens.core.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.card import ModelCard
    from tomolens.core.run import Run


class Segmenter(Protocol):
    """The little that the pipeline needs of a model."""

    @property
    def card(self) -> ModelCard:
        """What the model is and takes."""

    @property
    def labels(self) -> Mapping[int, str]:
        """The channel table: what each label stands for, from 1; 0, the background, is not in it."""

    def segment(self, volume: Volume | Sequence[Volume], progress: Progress) -> tuple[NDArray[Any], Run]:
        """Labels (k, j, i) on the volume's grid, uint8 or uint16, and how the network was run.

        It is given one volume, or where its contract names several channels one for each.
        """


def segment(volume: Volume | Sequence[Volume], model: Segmenter, *, progress: Progress = silent) -> Segmentation:
    """Segment the structures that a model knows in one volume.

    Parameters
    ----------
    volume
        A CT or MR, as the model's contract says; of a model that reads several images together one for each of
        ``model.card.input.channels``, in that order and on one grid. It is not changed.
    model
        A segmenter, e.g. from `tomolens.load_segmenter`.
    progress
        Told after each unit of work; may raise `Cancelled` to stop.

    Returns
    -------
    Segmentation
        Labels on the grid of the (first) volume, named by the model's channel table; where nothing was found all are 0.

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
    volumes = (volume,) if isinstance(volume, Volume) else tuple(volume)
    _check(volumes, model.card)
    labels, run = model.segment(volumes[0] if len(volumes) == 1 else volumes, progress)
    try:
        return Segmentation(labels, model.labels, volumes[0].grid, run, volumes[0])
    except SegmentationError as wrong:
        raise ModelError(f"The answer of {model.card.name} cannot be right. {wrong}") from wrong


def _check(volumes: Sequence[Volume], card: ModelCard) -> None:
    channels = card.input.channels
    if len(volumes) != len(channels):
        raise ContractError(f"{card.name} reads {len(channels)} images ({', '.join(channels)}), not {len(volumes)}.")
    for channel, volume in zip(channels, volumes, strict=True):
        card.input.check(volume)
        if not volume.grid.same_place(volumes[0].grid):
            raise ContractError(
                f"{volume.name} ({channel}) does not lie on the grid of {volumes[0].name} ({channels[0]}): "
                f"{card.name} reads its images on one grid."
            )
