from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tomolens.core.errors import Cancelled, ContractError, OptionError
from tomolens.core.finding import Finding
from tomolens.core.grid import Grid
from tomolens.core.progress import Step
from tomolens.core.reconstruction import GENERATIVE
from tomolens.core.volume import Volume
from tomolens.pipelines.detect_nodules import DetectOptions, detect_nodules
from tomolens.testing import FAKE_CARD, FakeDetector

GRID = Grid.from_axes((40, 40, 40), frame_of_reference="1.2.3")
CHEST = Volume(np.full((40, 40, 40), -800, np.int16), GRID, history=("read 40 slices",))
SURE, DOUBTFUL = Finding((10.0, 10.0, 10.0), 8.0, 0.9), Finding((20.0, 20.0, 20.0), 5.0, 0.3)


def test_findings_reach_the_models_own_threshold_and_the_rest_are_kept_as_candidates() -> None:
    detection = detect_nodules(CHEST, FakeDetector((DOUBTFUL, SURE)))
    assert detection.findings == (SURE,)
    assert detection.candidates == (SURE, DOUBTFUL)
    assert detection.min_score == FAKE_CARD.default_min_score


def test_the_users_threshold_goes_before_the_models_and_zero_is_a_threshold() -> None:
    model = FakeDetector((DOUBTFUL, SURE))
    assert detect_nodules(CHEST, model, DetectOptions(min_score=0.95)).findings == ()
    assert detect_nodules(CHEST, model, DetectOptions(min_score=0.0)).findings == (SURE, DOUBTFUL)


def test_findings_lie_in_the_volumes_grid_and_frame_of_reference() -> None:
    detection = detect_nodules(CHEST, FakeDetector())
    assert detection.grid is GRID
    assert detection.volume is CHEST


def test_the_run_says_what_was_asked_of_which_model_on_what() -> None:
    run = detect_nodules(CHEST, FakeDetector(), DetectOptions(min_score=0.7)).run
    assert (run.model, run.model_version) == ("fake", "0.0.0")
    assert run.options["min_score"] == 0.7
    assert run.history == ("read 40 slices",)


def test_the_run_records_the_threshold_that_was_used_where_none_was_asked_for() -> None:
    assert detect_nodules(CHEST, FakeDetector()).run.options["min_score"] == FAKE_CARD.default_min_score


def test_a_volume_outside_the_contract_is_refused_before_the_network_starts() -> None:
    steps: list[Step] = []
    with pytest.raises(ContractError, match="it is MR, the model takes CT"):
        detect_nodules(replace(CHEST, modality="MR"), FakeDetector(), progress=steps.append)
    assert steps == []


def test_progress_rises_to_its_total() -> None:
    steps: list[Step] = []
    detect_nodules(CHEST, FakeDetector(windows=3), progress=steps.append)
    assert [step.done for step in steps] == [0, 1, 2, 3]
    assert steps[-1].fraction == 1.0


def test_a_cancelled_detection_stops_at_the_next_window() -> None:
    seen: list[int] = []

    def stop_at_two(step: Step) -> None:
        seen.append(step.done)
        if step.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        detect_nodules(CHEST, FakeDetector(windows=9), progress=stop_at_two)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("min_score", [-0.01, 1.01, float("nan")])
def test_a_threshold_that_is_no_score_is_refused_before_any_work(min_score: float) -> None:
    with pytest.raises(OptionError, match="from 0 to 1"):
        DetectOptions(min_score=min_score)


def test_a_scan_that_a_gan_made_is_called_so_in_the_run_and_while_it_is_read() -> None:
    steps: list[Step] = []
    invented = replace(CHEST, history=(*CHEST.history, f"super-resolution by sr-gan 1.0 ({GENERATIVE})"))
    detection = detect_nodules(invented, FakeDetector(), progress=steps.append)
    (note,) = detection.run.notes
    assert "was made by a GAN: texture may be invented" in note
    assert [step.stage for step in steps if step.remark] == [note]


def test_what_was_done_to_a_scan_stands_in_the_run_and_a_denoised_one_is_no_gans() -> None:
    steps: list[Step] = []
    quiet = replace(CHEST, history=(*CHEST.history, "ct-denoising by ct-unet 1.0, strength 0.7"))
    detection = detect_nodules(quiet, FakeDetector(), progress=steps.append)
    assert detection.run.history == ("read 40 slices", "ct-denoising by ct-unet 1.0, strength 0.7")
    assert detection.run.notes == ()
    assert not [step for step in steps if step.remark]
