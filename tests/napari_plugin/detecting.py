"""Detectors that are slow or broken, and the steps of a user of *Detect lung nodules*."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
from napari.layers import Points
from qtpy.QtCore import Qt

from tomolens.core.errors import OutOfMemory
from tomolens.core.finding import Finding
from tomolens.core.progress import Step
from tomolens.phantoms.markers import marker_centers
from tomolens.testing import FakeDetector

SCORES = {"L": 0.95, "P": 0.8, "S": 0.6, "R": 0.4, "A": 0.2}


def found_in(volume):
    centers = marker_centers(volume.grid)
    return tuple(Finding(tuple(map(float, centers[side])), 9.0, score) for side, score in SCORES.items())


@dataclass
class SlowDetector(FakeDetector):
    """Takes its time over each window, asleep or at work, and remembers how far it got."""

    window_s: float = 0.1
    reached: list[int] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    def detect(self, volume, progress):
        try:
            for done in range(self.windows):
                progress(Step("find nodules", done, self.windows))
                self.reached.append(done)
                time.sleep(self.window_s / 2)
                until = time.monotonic() + self.window_s / 2
                while time.monotonic() < until:
                    np.linalg.norm(np.ones((200, 200)) @ np.ones((200, 200)))
            return super().detect(volume, progress)
        finally:
            self.left.set()


@dataclass
class BrokenDetector(FakeDetector):
    error: Exception = field(default_factory=lambda: OutOfMemory("The network needs about 9.1 GiB of free memory."))

    def detect(self, volume, progress):
        progress(Step("find nodules", 0, 4))
        raise self.error


def run(widget, qtbot):
    with qtbot.waitSignal(widget.panel.returned, timeout=10_000):
        qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)


def points_in(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, Points)]


def rows(widget):
    table = widget.table
    return [
        [table.item(row, column).text() for column in range(table.columnCount())] for row in range(table.rowCount())
    ]


def click_row(widget, qtbot, row):
    item = widget.table.visualItemRect(widget.table.item(row, 1))
    qtbot.mouseClick(widget.table.viewport(), Qt.MouseButton.LeftButton, pos=item.center())
