from __future__ import annotations

import gc
import threading
import weakref
from contextlib import closing

import numpy as np
import pytest

from tomolens.core.errors import Cancelled, ReadError
from tomolens.core.grid import Grid
from tomolens.core.volume import Volume
from tomolens.pipelines.batch import detect_each
from tomolens.pipelines.detect_nodules import DetectOptions
from tomolens.testing import FakeDetector

GRID = Grid.from_axes((10, 12, 14), (2.0, 1.0, 1.0))


def _volume(modality="CT") -> Volume:
    return Volume(np.zeros(GRID.shape, np.int16), GRID, modality=modality)


def _read(item, progress) -> Volume:
    if item == "damaged":
        raise ReadError("damaged: the file is cut short.")
    return _volume("MR" if item == "mr" else "CT")


def _drop(item, detection):
    pass


def test_every_item_comes_back_in_its_order_with_its_findings():
    outcomes = list(detect_each(["a", "b", "c"], _read, FakeDetector(), keep=_drop))
    assert [outcome.item for outcome in outcomes] == ["a", "b", "c"]
    assert [len(outcome.detection) for outcome in outcomes] == [1, 1, 1]
    assert all(outcome.seconds > 0 for outcome in outcomes)


def test_what_is_kept_still_holds_its_volume_and_what_comes_back_does_not():
    kept = {}
    outcomes = list(detect_each("ab", _read, FakeDetector(), keep=lambda i, d: kept.update({i: d})))
    assert all(detection.volume is not None for detection in kept.values())
    assert all(outcome.detection.volume is None for outcome in outcomes)


def test_the_options_reach_the_detection():
    (outcome,) = detect_each("a", _read, FakeDetector(), DetectOptions(0.95), keep=_drop)
    assert outcome.detection.min_score == 0.95
    assert len(outcome.detection) == 0


def test_a_damaged_item_fails_alone_and_says_why():
    outcomes = list(detect_each(["a", "damaged", "b"], _read, FakeDetector(), keep=_drop))
    assert [outcome.failure is None for outcome in outcomes] == [True, False, True]
    assert outcomes[1].failure.message == "damaged: the file is cut short."
    assert "Traceback" in outcomes[1].failure.details
    assert not outcomes[1].failure.refused


def test_a_volume_that_the_model_was_not_made_for_is_refused_not_failed():
    (outcome,) = detect_each(["mr"], _read, FakeDetector(), keep=_drop)
    assert outcome.failure.refused
    assert "it is MR, the model takes CT" in outcome.failure.message


def test_a_result_that_cannot_be_kept_fails_alone():
    def keep(item, detection):
        if item == "a":
            raise OSError("No space left on device")

    first, second = detect_each("ab", _read, FakeDetector(), keep=keep)
    assert first.failure.message == "No space left on device"
    assert second.failure is None


def test_an_error_without_a_word_is_named_by_its_kind():
    class Broken(FakeDetector):
        def detect(self, volume, progress):
            raise MemoryError

    (outcome,) = detect_each("a", _read, Broken(), keep=_drop)
    assert outcome.failure.message == "MemoryError"


def test_to_cancel_stops_everything_and_the_reading_too():
    def stop(step):
        if step.stage == "find nodules":
            raise Cancelled("stop")

    began = []

    def read(item, progress):
        began.append(item)
        return _read(item, progress)

    with pytest.raises(Cancelled):
        list(detect_each(range(50), read, FakeDetector(), keep=_drop, progress=stop))
    assert len(began) <= 3


def test_a_reader_is_told_to_stop_when_the_caller_leaves():
    began, told = threading.Event(), threading.Event()

    def read(item, progress):
        if item == 0:
            return _volume()
        began.set()
        try:
            while True:
                progress(None)
                threading.Event().wait(0.005)
        except Cancelled:
            told.set()
            raise

    with closing(detect_each(range(3), read, FakeDetector(), keep=_drop)) as outcomes:
        next(outcomes)
        assert began.wait(5)
    assert told.wait(5)


def test_no_more_than_two_volumes_are_in_memory_at_any_time():
    alive: list[weakref.ref] = []
    most = 0

    def read(item, progress):
        nonlocal most
        volume = _volume()
        alive.append(weakref.ref(volume))
        most = max(most, sum(ref() is not None for ref in alive))
        if item % 3 == 1:
            raise ReadError("damaged")
        return volume

    gc.disable()  # what only the collector could free would count as still in memory
    try:
        outcomes = list(detect_each(range(20), read, FakeDetector(), keep=_drop))
    finally:
        gc.enable()
    assert len(outcomes) == 20
    assert most <= 2
    assert not any(ref() is not None for ref in alive)
