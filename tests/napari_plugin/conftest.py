"""A real viewer for each test that asks for one, and one clear line where there is no display."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from napari.layers import Layer

from tests.napari_plugin.detecting import found_in
from tests.napari_plugin.scans import scan
from tomolens.core.finding import Detection, Finding
from tomolens.core.reconstruction import Job
from tomolens.core.run import Run
from tomolens.napari_plugin import layers
from tomolens.testing import FAKE_CARD, FAKE_SEGMENTATION_CARD, FakeDetector, FakeReconstructor, FakeSegmenter

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomolens.core.volume import Volume

NO_DISPLAY = "needs a display: scripts/test makes a virtual one, or put xvfb-run in front"


def has_display() -> bool:
    """Whether Qt can open a window; without one it would end the whole process."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not has_display():
        for item in items:
            if item.get_closest_marker("gui"):
                item.add_marker(pytest.mark.skip(reason=NO_DISPLAY))


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    """A viewer with the plugins that are installed, not on the screen: nothing is drawn, all else is real."""
    return make_napari_viewer(show=False)


@pytest.fixture
def shown_viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    """A viewer on the screen."""
    return make_napari_viewer(show=True)


@dataclass
class Shelf:
    """The models that the widget finds, and what each load gives."""

    cards: tuple[Any, ...] = (FAKE_CARD,)
    detector: Any = field(default_factory=FakeDetector)
    segmenter: Any = field(default_factory=FakeSegmenter)
    reconstructors: dict[str, Any] = field(default_factory=lambda: {"fake-mean": FakeReconstructor()})
    baselines: dict[str, str] = field(default_factory=lambda: dict.fromkeys(Job, "fake-mean"))
    loaded: list[tuple[str, str]] = field(default_factory=list)

    def load(self, task: str, name: str, device: str) -> Any:
        self.loaded.append((name, device))
        if task in set(Job):
            return self.reconstructors[name]
        return self.detector if task == "detection" else self.segmenter

    def reconstruction_cards(self, job: Job) -> tuple[Any, ...]:
        return tuple(model.card for model in self.reconstructors.values() if model.card.task == job)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """Puts fakes in the place of the shipped models: no weights, no torch."""
    cards = (FAKE_CARD, FAKE_SEGMENTATION_CARD)
    mr_only = [replace(card, name=f"{card.name}-mr", input=replace(card.input, modality="MR")) for card in cards]
    made = Shelf(cards=(*cards, *mr_only))
    monkeypatch.setattr("tomolens.models.registry.list_models", lambda: made.cards)
    monkeypatch.setattr("tomolens.napari_plugin.model_shelf._load", made.load)
    monkeypatch.setattr("tomolens.napari_plugin.model_shelf._reconstruction_cards", made.reconstruction_cards)
    monkeypatch.setattr("tomolens.napari_plugin.model_shelf._baseline", lambda job: made.baselines[job])
    return made


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every message that the user is shown."""
    from napari.utils.notifications import notification_manager

    notification_manager.records.clear()
    shown: list[str] = []

    def keep(notification: Any) -> None:
        shown.append(str(notification.message))

    notification_manager.notification_ready.connect(keep)
    yield shown
    notification_manager.notification_ready.disconnect(keep)


def detection_in(volume: Volume, *findings: Finding, min_score: float = 0.5) -> Detection:
    uid = volume.series.uid if volume.series else ""
    return Detection(findings, min_score, volume.grid, Run("fake", "0.0.0", "0" * 64, series_uid=uid), volume)


@pytest.fixture
def volume():
    return scan()


@pytest.fixture
def image(viewer, volume):
    return viewer.add_layer(Layer.create(*layers.image(volume)))


@pytest.fixture
def widget(viewer, image, volume, shelf):
    shelf.detector = FakeDetector(found_in(volume))
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Detect lung nodules")
    return widget
