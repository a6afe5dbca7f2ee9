from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from tests.models.test_classifier import detector_naming, second_stage
from tomolens.core.card import CalibratedFor, Calibration
from tomolens.core.errors import ModelError
from tomolens.core.metrics import expected_calibration_error
from tomolens.models.detector import Candidates, load_detector
from tomolens.models.registry import Bundle
from tomolens.training.calibration import Judged, calibrate, calibrated_detector, fit

TRUE = np.array([0.4, 1.1, -2.0])


def drawn(count: int, seed: int = 0) -> Judged:
    """Candidates whose share of nodules follows a known logistic function of both logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, 2))
    return Judged(logits, rng.random(count) < expit(logits @ TRUE[:2] + TRUE[2]), np.ones(count))


def test_the_fit_finds_the_function_that_made_the_truth() -> None:
    found = fit(drawn(20_000))
    np.testing.assert_allclose([found.detector, found.classifier, found.offset], TRUE, atol=0.12)


def test_a_calibrated_score_is_the_share_of_nodules_on_candidates_it_was_not_fitted_to() -> None:
    scale, unseen = fit(drawn(4000)), drawn(4000, seed=1)
    seen = Candidates(np.zeros((4000, 3)), np.ones(4000), unseen.logits[:, 0], ())
    alone = fit(drawn(4000), second_stage=False)
    assert alone.classifier == 0
    assert expected_calibration_error(seen.scores(alone), unseen.is_nodule) < 0.03
    assert expected_calibration_error(expit(unseen.logits @ TRUE[:2]), unseen.is_nodule) > 0.1
    both = expit(unseen.logits @ [scale.detector, scale.classifier] + scale.offset)
    assert expected_calibration_error(both, unseen.is_nodule) < 0.03


def test_rarer_nodules_lower_every_score() -> None:
    seen = drawn(4000)
    rarer = fit(Judged(seen.logits, seen.is_nodule, np.where(seen.is_nodule, 0.1, 1.0)))
    assert rarer.offset == pytest.approx(fit(seen).offset + np.log(0.1), abs=0.4)


def test_no_stage_is_ever_counted_against_itself() -> None:
    seen = drawn(500)
    turned = fit(Judged(seen.logits * [1, -1], seen.is_nodule, seen.weights))
    assert turned.classifier == pytest.approx(0, abs=1e-9)
    assert turned.detector > 0


def test_without_calibration_a_score_is_the_detectors_own() -> None:
    marked = Candidates(np.zeros((2, 3)), np.ones(2), np.array([-1.0, 2.0]), ())
    np.testing.assert_allclose(marked.scores(Calibration()), expit([-1.0, 2.0]))


def test_a_calibrated_second_stage_names_its_detector_and_is_taken_with_it_without_being_asked_for(
    tmp_path: Path,
) -> None:
    stranger = {"detector": "theirs", "weights_sha256": "ab" * 32}
    second = second_stage(tmp_path / "second", calibrated_for=stranger)
    mine = detector_naming(tmp_path / "mine", second)
    with pytest.raises(ModelError, match="not calibrated"):
        load_detector(mine, device="cpu")
    marker = calibrated_detector(second, mine, "cpu")
    scale = calibrate(second, marker, drawn(500))
    assert Bundle.open(second).card.calibrated_for == CalibratedFor("mine", Bundle.open(mine).weights_sha256)
    paired = load_detector(mine, device="cpu")
    assert paired.second_stage.card.calibration.classifier == pytest.approx(scale.classifier, abs=1e-4)
    assert paired.doubt == ""


def test_a_detectors_own_calibration_names_no_other_model(tmp_path: Path) -> None:
    mine = detector_naming(tmp_path, Path("none"))
    calibrate(mine, calibrated_detector(mine, None, "cpu"), drawn(500))
    assert Bundle.open(mine).card.calibrated_for is None
