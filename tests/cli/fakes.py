"""The command line with a detector without a network. ``python -m tests.cli.fakes ARG...`` is `tomolens ARG...` so.

Environment: ``FAKE_SECONDS``, how long each window of a detection takes; ``FAKE_WEIGHTS``, the folder of the model.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli.reconstructors import METHODS, NETWORKS
from tests.cli.scans import GRID
from tomolens.core.errors import ModelError
from tomolens.core.finding import Finding
from tomolens.core.progress import Step
from tomolens.models.registry import Bundle
from tomolens.testing import FAKE_CARD, FakeDetector, FakeSegmenter

FINDINGS = (
    Finding(tuple(GRID.to_mm((7.2, 12, 20))), 6.123456, 0.987654),
    Finding(tuple(GRID.to_mm((3, 5, 6))), 9.0, 0.62),
    Finding(tuple(GRID.to_mm((12, 20, 6))), 5.0, 0.31),
)


@dataclass
class SlowDetector(FakeDetector):
    """Takes its time over each window."""

    candidates: Any = FINDINGS
    seconds: float = 0.0

    def detect(self, volume, progress):
        for done in range(self.windows):
            time.sleep(self.seconds)
            progress(Step("find nodules", done + 1, self.windows))
        return super().detect(volume, progress)


@dataclass
class FakeModels:
    """Takes the place of the shipped models, and notes each load."""

    folder: Path
    detector: Any = field(default_factory=SlowDetector)
    segmenter: Any = field(default_factory=FakeSegmenter)
    networks: dict[str, Any] = field(default_factory=lambda: {r.card.name: r for r in NETWORKS})
    methods: dict[str, Any] = field(default_factory=lambda: {r.card.name: r for r in METHODS})
    loads: list[tuple[Any, str]] = field(default_factory=list)

    def __post_init__(self):
        weights = self.folder / "models" / "model.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        if not weights.exists():
            weights.write_bytes(b"weights 1")

    def retrain(self):
        """Change the weights, as a new version of the model would."""
        (self.folder / "models" / "model.safetensors").write_bytes(b"weights 2")

    def find_network(self, name):
        if name not in self.networks:
            raise ModelError(f"There is no model {name!r}.")
        folder = self.folder / name
        shutil.copytree(self.folder / "models", folder / "models", dirs_exist_ok=True)
        return Bundle(folder, self.networks[name].card)

    def classical(self, job):
        return {name: method.card for name, method in self.methods.items() if method.card.task == job}

    def load_reconstructor(self, name, *, device="auto"):
        name = Path(name).name
        self.loads.append((name, device))
        return self.networks.get(name) or self.methods[name]

    def find(self, name=None):
        return Bundle(self.folder, self.segmenter.card if name == self.segmenter.card.name else FAKE_CARD)

    def find_second_stage(self, bundle, wish=None):
        return None if wish is None else Bundle(self.folder, replace(FAKE_CARD, name=wish))

    def load(self, name=None, *, device="auto", second_stage=None):
        self.loads.append((name, device))
        return self.segmenter if name == self.segmenter.card.name else self.detector

    def install(self, monkeypatch):
        monkeypatch.setattr("tomolens.cli.tasks.find_bundle", self.find)
        monkeypatch.setattr("tomolens.cli.tasks.find_second_stage", self.find_second_stage)
        monkeypatch.setattr("tomolens.cli.reconstructing.find_bundle", self.find_network)
        cards = [network.card for network in self.networks.values()]
        monkeypatch.setattr(
            "tomolens.cli.reconstructing.reconstruction_models",
            lambda job: (*[card for card in cards if card.task == job], *self.classical(job).values()),
        )
        monkeypatch.setattr("tomolens.cli.reconstructing.classical_cards", self.classical)
        loader = SimpleNamespace(load_reconstructor=self.load_reconstructor)
        monkeypatch.setitem(sys.modules, "tomolens.models.reconstructor", loader)
        for kind in ("detector", "segmenter"):
            without_torch = SimpleNamespace(**{f"load_{kind}": self.load})
            monkeypatch.setitem(sys.modules, f"tomolens.models.{kind}", without_torch)


if __name__ == "__main__":
    from tomolens.cli.main import app

    detector = SlowDetector(seconds=float(os.environ.get("FAKE_SECONDS", "0")))
    FakeModels(Path(os.environ["FAKE_WEIGHTS"]), detector).install(pytest.MonkeyPatch())
    app()
