"""The detectors to choose from: which take a scan, and each loaded once. torch is imported when the first is loaded."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from tomolens.napari_plugin.choice_box import Choice

if TYPE_CHECKING:
    from tomolens.core.card import ModelCard
    from tomolens.core.volume import Volume
    from tomolens.pipelines.detect_nodules import Detector


class ModelShelf:
    """The shipped detection models."""

    def __init__(self) -> None:
        from tomolens.models.registry import list_models

        self.cards = tuple(card for card in list_models() if card.task == "detection")
        self.load = lru_cache(maxsize=1)(_load)

    def choices(self, volume: Volume | None) -> list[Choice]:
        """Every model, those that refuse the volume with all reasons."""
        return [Choice(card.name, card, _refused(card, volume), card.summary) for card in self.cards]


def _refused(card: ModelCard, volume: Volume | None) -> str:
    reasons = card.input.refusals(volume) if volume is not None else ()
    return f"{volume.name} is not for this model: {'; '.join(reasons)}." if volume is not None and reasons else ""


def _load(name: str, device: str) -> Detector:
    from tomolens.models.detector import load_detector

    return load_detector(name, device=device)
