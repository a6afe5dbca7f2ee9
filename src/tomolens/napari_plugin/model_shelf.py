"""The models to choose from: which take a scan, and each loaded once. torch is imported when the first is loaded."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from tomolens.core.reconstruction import Job
from tomolens.napari_plugin.choice_box import Choice

if TYPE_CHECKING:
    from tomolens.core.card import ModelCard
    from tomolens.core.volume import Volume


class ModelShelf:
    """The models of one task: those that ship with Tomolens, those that were imported, methods without training."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.cards = _cards(task)
        self.load = lru_cache(maxsize=1)(partial(_load, task))

    def load_baseline(self) -> Any:
        """The classical method that the networks of a reconstruction are compared with."""
        return _load(self.task, self.baseline, "auto")

    @property
    def baseline(self) -> str:
        """Its name."""
        return _baseline(Job(self.task))

    def choices(self, volume: Volume | None) -> list[Choice]:
        """Every model, those that refuse the volume with all reasons."""
        return [Choice(_title(card), card, _refused(card, volume), card.summary) for card in self.cards]


def _title(card: ModelCard) -> str:
    return f"{card.name} (GAN)" if card.generative else card.name


def _refused(card: ModelCard, volume: Volume | None) -> str:
    reasons = card.input.refusals(volume) if volume is not None else ()
    return f"{volume.name} is not for this model: {'; '.join(reasons)}." if volume is not None and reasons else ""


def _cards(task: str) -> tuple[ModelCard, ...]:
    if task in set(Job):
        return _reconstruction_cards(Job(task))
    from tomolens.models.registry import list_models

    return tuple(card for card in list_models() if card.task == task)


def _reconstruction_cards(job: Job) -> tuple[ModelCard, ...]:
    from tomolens.models.reconstructor import reconstruction_models

    return reconstruction_models(job)


def _baseline(job: Job) -> str:
    from tomolens.models.reconstructor import baseline_of

    return baseline_of(job)


def _load(task: str, name: str, device: str) -> Any:
    if task == "detection":
        from tomolens.models.detector import load_detector

        return load_detector(name, device=device)
    if task in set(Job):
        from tomolens.models.reconstructor import load_reconstructor

        return load_reconstructor(name, device=device)
    from tomolens.models.segmenter import load_segmenter

    return load_segmenter(name, device=device)
