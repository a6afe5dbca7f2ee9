"""Work in a thread: progress, one ending, a cancel within one window."""

from __future__ import annotations

import threading
import time

import pytest

from tomolens.core.errors import OutOfMemory
from tomolens.core.progress import Step
from tomolens.napari_plugin.job import Job, TimeLeft

pytestmark = pytest.mark.gui


class Ear:
    """Hears everything that a job says, and on which thread."""

    def __init__(self, job):
        self.heard = []
        job.stepped.connect(self.on_step)
        job.returned.connect(lambda result: self.on("returned", result))
        job.failed.connect(lambda error: self.on("failed", error))
        job.cancelled.connect(lambda: self.on("cancelled", None))

    def on_step(self, step):
        self.on("stepped", step)

    def on(self, what, value):
        assert threading.current_thread() is threading.main_thread()
        self.heard.append((what, value))

    @property
    def ends(self):
        return [(what, value) for what, value in self.heard if what != "stepped"]


def windows(progress, count=4, seconds=0.02):
    for done in range(count + 1):
        progress(Step("find nodules", done, count))
        time.sleep(seconds)
    return threading.current_thread().name


def test_a_job_works_in_another_thread_and_tells_its_result_on_the_gui_thread(qtbot):
    job = Job(windows)
    ear = Ear(job)
    with qtbot.waitSignal(job.returned, timeout=5000):
        job.start()
    assert [what for what, _ in ear.ends] == ["returned"]
    assert ear.ends[0][1] != threading.main_thread().name
    steps = [step for what, step in ear.heard if what == "stepped" and step.stage == "find nodules"]
    assert steps[0] == Step("find nodules", 0, 4)
    assert steps[-1] == Step("find nodules", 4, 4)


@pytest.mark.parametrize("error", [OutOfMemory("8 GB are needed."), RuntimeError("CUDA error"), KeyError("bug")])
def test_a_job_that_raises_fails_once_with_its_exception_whatever_it_is(qtbot, error):
    def work(progress):
        raise error

    job = Job(work)
    ear = Ear(job)
    with qtbot.waitSignal(job.failed, timeout=5000):
        job.start()
    qtbot.wait(50)
    assert ear.ends == [("failed", error)]


def test_a_cancelled_job_stops_within_one_window(qtbot):
    after = []

    def work(progress):
        for done in range(1000):
            progress(Step("find nodules", done, 1000))
            after.append(done)
            time.sleep(0.02)

    job = Job(work)
    ear = Ear(job)
    job.start()
    qtbot.waitUntil(lambda: len(after) > 3, timeout=5000)
    seen = len(after)
    with qtbot.waitSignal(job.cancelled, timeout=5000):
        job.cancel()
    assert len(after) <= seen + 1
    assert ear.ends == [("cancelled", None)]


def test_an_abandoned_job_is_waited_for_and_says_nothing_more(qtbot):
    inside, left = threading.Event(), threading.Event()

    def work(progress):
        inside.set()
        try:
            while True:
                time.sleep(0.05)
                progress(Step("find nodules", 0, 1))
        finally:
            left.set()

    job = Job(work)
    ear = Ear(job)
    job.start()
    qtbot.waitUntil(inside.is_set, timeout=5000)
    heard = len(ear.ends)
    job.abandon()
    assert left.is_set()
    qtbot.wait(50)
    assert len(ear.ends) == heard == 0


def test_a_job_that_is_cancelled_before_it_begins_never_does_its_work(qtbot):
    done = []
    job = Job(lambda progress: done.append(1))
    job.cancel()
    with qtbot.waitSignal(job.cancelled, timeout=10_000):
        job.start()
    assert done == []


def test_reports_that_come_thousands_a_second_do_not_flood_the_gui(qtbot):
    job = Job(lambda progress: [progress(Step("scan headers", n, 20_000)) for n in range(1, 20_001)] and None)
    ear = Ear(job)
    with qtbot.waitSignal(job.returned, timeout=10_000):
        job.start()
    steps = [value for what, value in ear.heard if what == "stepped"]
    assert len(steps) < 200
    assert steps[-1].done == 20_000


def test_the_time_left_is_what_the_stage_took_so_far_carried_on():
    clock = iter([0.0, 2.0, 4.0, 10.0, 11.0])
    left = TimeLeft(lambda: next(clock))
    assert left.after(Step("read", 0, 4)) is None
    assert left.after(Step("read", 1, 4)) == pytest.approx(6.0)
    assert left.after(Step("read", 2, 4)) == pytest.approx(4.0)
    assert left.after(Step("find", 0, 2)) is None
    assert left.after(Step("find", 1, 2)) == pytest.approx(1.0)
