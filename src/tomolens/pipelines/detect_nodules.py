"""Find lung nodules in one chest CT."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Protocol

from tomolens.core.errors import OptionError
from tomolens.core.finding import Detection, Finding
from tomolens.core.progress import Progress, Step, silent
from tomolens.core.reconstruction import is_invented

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tomolens.core.card import ModelCard
    from tomolens.core.run import Run
    from tomolens.core.volume import Volume


class Detector(Protocol):
    """The little that the pipeline needs of a model."""

    @property
    def card(self) -> ModelCard:
        """What the model is and takes."""

    def detect(self, volume: Volume, progress: Progress) -> tuple[Sequence[Finding], Run]:
        """Every candidate down to the model's floor, and how the network was run."""


@dataclass(frozen=True)
class DetectOptions:
    """What a user may ask of a detection.

    Parameters
    ----------
    min_score
        Threshold on the score, 0 to 1; None takes the model's own default.

    Raises
    ------
    OptionError
        If ``min_score`` is not between 0 and 1.
    """

    min_score: float | None = None

    def __post_init__(self) -> None:
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise OptionError(f"min_score is a number from 0 to 1, not {self.min_score}.")


def detect_nodules(
    volume: Volume, model: Detector, options: DetectOptions | None = None, *, progress: Progress = silent
) -> Detection:
    """Find lung nodules in one chest CT.

    Parameters
    ----------
    volume
        A chest CT in HU. It is not changed.
    model
        A detector, e.g. from `tomolens.load_detector`.
    options
        Threshold; the model's defaults where None.
    progress
        Told after each unit of work; may raise `Cancelled` to stop.

    Returns
    -------
    Detection
        Findings in ``volume.grid``'s patient space (LPS mm), surest first; none is an empty tuple. Where a GAN made the
        volume, the run's notes say so.

    Raises
    ------
    ContractError
        If the volume is not what the model was trained on.
    Cancelled
        If ``progress`` asked to stop.
    OutOfMemory
        If even the smallest window does not fit.
    """
    options = options or DetectOptions()
    model.card.input.check(volume)
    candidates, run = model.detect(volume, progress)
    threshold = model.card.default_min_score if options.min_score is None else options.min_score
    notes = _notes(volume)
    for note in notes:
        progress(Step(note, 0, 0, remark=True))
    run = replace(run, options={**run.options, **asdict(options), "min_score": threshold}, notes=(*run.notes, *notes))
    return Detection(tuple(candidates), threshold, volume.grid, run, volume)


def _notes(volume: Volume) -> tuple[str, ...]:
    """What a reader of the findings must know of how the voxels were made."""
    if not is_invented(volume.history):
        return ()
    return (f"{volume.name} was made by a GAN: texture may be invented, and with it what was found or missed.",)
