"""The models to choose from: which take a scan, and each loaded once. torch is imported when the first is loaded."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from tomolens.napari_plugin.choice_box import Choice

if TYPE_CHECKING:
    from tomolens.core.card import ModelCard
    from tomolens.core.volume import Volume


class ModelShelf:
    """The models of one task, those that ship with Tomolens and those that were imported."""

    def __init__(self, task: str) -> None:
        from tomolens.models.registry import list_models

        self.cards = tuple(card for card in list_models() if card.task == task)
        self.load = lru_cache(maxsize=1)(partial(_load, task))

    def choices(self, volume: Volume | None) -> list[Choice]:
        """Every model, those that refuse the volume with all reasons."""
        return [Choice(card.name, card, _refused(card, volume), card.summary) for card in self.cards]


def _refused(card: ModelCard, volume: Volume | None) -> str:
    reasons = card.input.refusals(volume) if volume is not None else ()
    return f"{volume.name} is not for this model: {'; '.join(reasons)}." if volume is not None and reasons else ""


def _load(task: str, name: str, device: str) -> Any:
    if task == "detection":
        from tomolens.models.detector import load_detector

        return load_detector(name, device=device)
    from tomolens.models.segmenter import load_segmenter

    return load_segmenter(name, device=device)
