from __future__ import annotations

import gc
import threading
import weakref
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from tomolens.core.errors import Cancelled, ReadError
from tomolens.core.grid import Grid
from tomolens.core.volume import Volume
from tomolens.pipelines.batch import run_each
from tomolens.pipelines.detect_nodules import DetectOptions, detect_nodules
from tomolens.pipelines.reconstruct import reconstruct
from tomolens.pipelines.segment import segment
from tomolens.testing import FakeDetector, FakeReconstructor, FakeSegmenter

GRID = Grid.from_axes((10, 12, 14), (2.0, 1.0, 1.0))


def _volume(modality="CT") -> Volume:
    return Volume(np.zeros(GRID.shape, np.int16), GRID, modality=modality)


def _read(item, progress) -> Volume:
    if item == "damaged":
        raise ReadError("damaged: the file is cut short.")
    return _volume("MR" if item == "mr" else "CT")


def _finding(model, options=None):
    return lambda volume, progress: detect_nodules(volume, model, options, progress=progress)


def _drop(item, detection):
    """Keep a result as a command does: what is left of it holds no volume."""
    return replace(detection, volume=None)


def test_every_item_comes_back_in_its_order_with_its_findings():
    outcomes = list(run_each(["a", "b", "c"], _read, _finding(FakeDetector()), keep=_drop))
    assert [outcome.item for outcome in outcomes] == ["a", "b", "c"]
    assert [len(outcome.result) for outcome in outcomes] == [1, 1, 1]
    assert all(outcome.seconds > 0 for outcome in outcomes)


def test_what_is_kept_still_holds_its_volume_and_what_is_left_of_it_comes_back():
    held = []

    def keep(item, detection):
        held.append(detection.volume is not None)
        return f"{item}: {len(detection)}"

    outcomes = list(run_each("ab", _read, _finding(FakeDetector()), keep=keep))
    assert held == [True, True]
    assert [outcome.result for outcome in outcomes] == ["a: 1", "b: 1"]


def test_segmentations_are_made_in_the_same_way():
    def work(volume, progress):
        return segment(volume, FakeSegmenter(), progress=progress)

    outcomes = list(run_each(["a", "damaged", "mr"], _read, work, keep=_drop))
    assert [outcome.failure is None for outcome in outcomes] == [True, False, False]
    assert len(outcomes[0].result) == 1


def test_reconstructions_are_made_in_the_same_way():
    def work(volume, progress):
        return reconstruct(volume, FakeReconstructor(), progress=progress)

    def keep(item, made):
        return made.volume.history[-1]

    outcomes = list(run_each(["a", "damaged", "mr"], _read, work, keep=keep))
    assert [outcome.result for outcome in outcomes] == ["ct-denoising by fake-mean 0.0.0", None, None]


def test_the_options_reach_the_detection():
    (outcome,) = run_each("a", _read, _finding(FakeDetector(), DetectOptions(0.95)), keep=_drop)
    assert outcome.result.min_score == 0.95
    assert len(outcome.result) == 0


def test_a_damaged_item_fails_alone_and_says_why():
    outcomes = list(run_each(["a", "damaged", "b"], _read, _finding(FakeDetector()), keep=_drop))
    assert [outcome.failure is None for outcome in outcomes] == [True, False, True]
    assert outcomes[1].failure.message == "damaged: the file is cut short."
    assert "Traceback" in outcomes[1].failure.details
    assert not outcomes[1].failure.refused


def test_a_volume_that_the_model_was_not_made_for_is_refused_not_failed():
    (outcome,) = run_each(["mr"], _read, _finding(FakeDetector()), keep=_drop)
    assert outcome.failure.refused
    assert "it is MR, the model takes CT" in outcome.failure.message


def test_a_result_that_cannot_be_kept_fails_alone():
    def keep(item, detection):
        if item == "a":
            raise OSError("No space left on device")

    first, second = run_each("ab", _read, _finding(FakeDetector()), keep=keep)
    assert first.failure.message == "No space left on device"
    assert second.failure is None


def test_an_error_without_a_word_is_named_by_its_kind():
    class Broken(FakeDetector):
        def detect(self, volume, progress):
            raise MemoryError

    (outcome,) = run_each("a", _read, _finding(Broken()), keep=_drop)
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
        list(run_each(range(50), read, _finding(FakeDetector()), keep=_drop, progress=stop))
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

    with closing(run_each(range(3), read, _finding(FakeDetector()), keep=_drop)) as outcomes:
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
        outcomes = list(run_each(range(20), read, _finding(FakeDetector()), keep=_drop))
    finally:
        gc.enable()
    assert len(outcomes) == 20
    assert most <= 2
    assert not any(ref() is not None for ref in alive)
