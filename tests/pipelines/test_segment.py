from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from tomolens.core.errors import Cancelled, ContractError, ModelError
from tomolens.core.grid import Grid
from tomolens.core.progress import Step
from tomolens.core.volume import Volume
from tomolens.phantoms.markers import MARKER_HU, marked_volume, marker_centers
from tomolens.pipelines.segment import segment
from tomolens.testing import FAKE_SEGMENTATION_CARD, FakeSegmenter

GRID = Grid.from_axes((16, 24, 28), (2.5, 1.5, 1.5), frame_of_reference="1.2.3")
SCAN = replace(marked_volume(GRID), history=("read 16 slices",))


@dataclass
class Answering(FakeSegmenter):
    """Answers with what it was given."""

    answer: Any = None

    def segment(self, volume, progress):
        return self.answer, super().segment(volume, progress)[1]


@pytest.mark.parametrize("turn", [lambda v: v, lambda v: v.permuted((2, 0, 1)), lambda v: v.flipped(1).flipped(2)])
def test_labels_lie_on_the_voxels_of_the_scan_however_it_is_stored(turn) -> None:
    scan = turn(SCAN)
    made = segment(scan, FakeSegmenter())
    assert made.grid is scan.grid
    assert made.volume is scan
    for side, center in marker_centers(scan.grid).items():
        kji = tuple(np.round(scan.grid.to_kji(center)).astype(int))
        assert made.labels[kji] == (2 if MARKER_HU[side] >= 450 else 1)
    assert [structure.name for structure in made.found] == ["soft", "dense"]


FOUR = replace(
    FAKE_SEGMENTATION_CARD, input=replace(FAKE_SEGMENTATION_CARD.input, channels=("T1", "T1c", "T2", "FLAIR"))
)


@dataclass
class Summing(FakeSegmenter):
    """Reads four images together."""

    def segment(self, volumes, progress):
        first, *rest = volumes
        return super().segment(first.with_voxels(sum((v.voxels for v in rest), first.voxels), "sum"), progress)


def test_a_model_that_reads_several_images_is_given_one_for_each_on_one_grid() -> None:
    zero = SCAN.with_voxels(np.zeros(SCAN.shape, np.int16), "zero")
    made = segment([SCAN, zero, zero, zero], Summing(card=FOUR))
    np.testing.assert_array_equal(made.labels, segment(SCAN, FakeSegmenter()).labels)
    assert made.volume is SCAN
    with pytest.raises(ContractError, match=r"reads 4 images \(T1, T1c, T2, FLAIR\), not 1"):
        segment(SCAN, Summing(card=FOUR))
    with pytest.raises(ContractError, match=r"\(T2\) does not lie on the grid"):
        segment([SCAN, zero, zero.flipped(0), zero], Summing(card=FOUR))


def test_the_run_says_which_model_drew_on_what() -> None:
    run = segment(SCAN, FakeSegmenter()).run
    assert (run.model, run.model_version, run.history) == ("fake-thresholds", "0.0.0", ("read 16 slices",))


def test_a_scan_without_any_of_the_structures_has_none() -> None:
    air = Volume(np.full(GRID.shape, -1000, np.int16), GRID)
    made = segment(air, FakeSegmenter())
    assert len(made) == 0
    assert [structure.volume_ml for structure in made.structures] == [0, 0]


def test_a_volume_outside_the_contract_is_refused_before_the_network_starts() -> None:
    steps: list[Step] = []
    with pytest.raises(ContractError, match="it is MR, the model takes CT"):
        segment(replace(SCAN, modality="MR"), FakeSegmenter(), progress=steps.append)
    assert steps == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (np.zeros((28, 24, 16), np.uint8), r"shape \(28, 24, 16\)"),
        (np.zeros(GRID.shape, np.float32), "not float32"),
        (np.full(GRID.shape, 3, np.uint8), "without a name: 3; named are 1 soft, 2 dense"),
    ],
)
def test_an_answer_that_cannot_be_right_is_never_shown(answer, why) -> None:
    with pytest.raises(ModelError, match=f"The answer of fake-thresholds cannot be right.*{why}"):
        segment(SCAN, Answering(answer=answer))


def test_a_cancelled_segmentation_stops_at_the_next_window() -> None:
    seen: list[int] = []

    def stop_at_two(step: Step) -> None:
        seen.append(step.done)
        if step.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        segment(SCAN, FakeSegmenter(windows=9), progress=stop_at_two)
    assert seen == [0, 1, 2]
