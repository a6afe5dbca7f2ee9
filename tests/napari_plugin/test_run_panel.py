"""What a panel keeps of the work that it ran."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

from tomolens.core.progress import Step
from tomolens.napari_plugin.run_panel import RunPanel

pytestmark = pytest.mark.gui


class Work:
    """Stands for work that holds a volume."""

    def __call__(self, progress):
        progress(Step("find nodules", 1, 1))
        return "found"


def test_a_panel_lets_go_of_a_job_its_work_and_its_volume_when_it_ends(qtbot):
    panel = RunPanel()
    qtbot.addWidget(panel)
    alive = []
    for _ in range(3):
        work = Work()
        with qtbot.waitSignal(panel.returned, timeout=5000):
            panel.start(work)
            alive += [weakref.ref(work), weakref.ref(panel._current.job)]
            del work
    qtbot.wait(50)
    gc.collect()
    assert [thing() for thing in alive if thing() is not None] == []


def test_a_panel_that_is_destroyed_stops_its_job(qtbot):
    panel, inside, left = RunPanel(), threading.Event(), threading.Event()

    def work(progress):
        inside.set()
        try:
            while True:
                time.sleep(0.02)
                progress(Step("find nodules", 0, 1))
        finally:
            left.set()

    panel.start(work)
    qtbot.waitUntil(inside.is_set, timeout=5000)
    panel.deleteLater()
    qtbot.waitUntil(left.is_set, timeout=5000)
