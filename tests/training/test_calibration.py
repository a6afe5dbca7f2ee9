from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from tests.models.test_classifier import detector_naming, second_stage
from tests.training.test_cases import donor, lung
from tomolens.core.card import CalibratedFor, Calibration, InputContract
from tomolens.core.errors import ModelError
from tomolens.core.metrics import expected_calibration_error
from tomolens.core.volume import Unit, Volume
from tomolens.models.classifier import Verdict
from tomolens.models.detector import Candidates, load_detector
from tomolens.models.registry import Bundle
from tomolens.training.backgrounds import Background
from tomolens.training.calibration import (
    LEAST_RATED,
    Judged,
    Rated,
    calibrate,
    calibrated_detector,
    fit,
    judged,
    without_refused,
)
from tomolens.training.cases import case_of
from tomolens.training.sources import TrainingData

TRUE = np.array([0.4, 1.1, -2.0])
NOBODY = Rated(np.zeros(0), np.zeros(0), [])


def slab() -> Background:
    """A few slices of the even lung."""
    whole = lung()
    return replace(whole, name="slab", voxels=whole.voxels[:4], grid=whole.grid.cropped((0, 0, 0), (4, 110, 130)))


def drawn(count: int, seed: int = 0) -> Judged:
    """Candidates whose share of nodules follows a known logistic function of both logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, 2))
    return Judged(logits, rng.random(count) < expit(logits @ TRUE[:2] + TRUE[2]), np.ones(count), NOBODY)


def rated(count: int, seed: int = 0) -> Rated:
    """Nodules of which the network is twice as sure as it should be, and finds too many malignant."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, count)
    malignant = (rng.random(count) < expit(0.5 * logits - 1)).astype(float)
    return Rated(logits, malignant, [f"nodule {n}" for n in range(count)])


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
    rarer = fit(Judged(seen.logits, seen.is_nodule, np.where(seen.is_nodule, 0.1, 1.0), NOBODY))
    assert rarer.offset == pytest.approx(fit(seen).offset + np.log(0.1), abs=0.4)


def test_no_stage_is_ever_counted_against_itself() -> None:
    seen = drawn(500)
    turned = fit(Judged(seen.logits * [1, -1], seen.is_nodule, seen.weights, NOBODY))
    assert turned.classifier == pytest.approx(0, abs=1e-9)
    assert turned.detector > 0


def test_a_calibrated_malignancy_is_the_share_of_malignant_nodules_on_nodules_it_was_not_fitted_to() -> None:
    scale, strange = fit(replace(drawn(500), rated=rated(2000))), rated(2000, seed=1)
    shown = expit(scale.malignancy * strange.logits + scale.malignancy_offset)
    assert expected_calibration_error(shown, strange.malignant > 0.5) < 0.04
    assert expected_calibration_error(expit(strange.logits), strange.malignant > 0.5) > 0.1


def test_nodules_that_are_told_apart_without_an_error_do_not_make_malignancy_certain() -> None:
    logits = np.linspace(-3, 3, 40)
    apart = Rated(logits, (logits > 0).astype(float), [f"nodule {n}" for n in range(40)])
    assert set(apart.targets.round(9)) == {round(1 / 22, 9), round(21 / 22, 9)}
    assert 1 < fit(replace(drawn(500), rated=apart)).malignancy < 3


def test_repeated_nodules_do_not_make_the_targets_surer() -> None:
    few = rated(60)
    thrice = Rated(np.tile(few.logits, 3), np.tile(few.malignant, 3), [*few.names] * 3)
    np.testing.assert_allclose(thrice.targets, np.tile(few.targets, 3))


def test_too_few_rated_nodules_leave_malignancy_as_it_is() -> None:
    scale = fit(replace(drawn(500), rated=rated(LEAST_RATED - 1)))
    assert (scale.malignancy, scale.malignancy_offset) == (1.0, 0.0)


def test_rated_nodules_that_are_all_alike_leave_malignancy_as_it_is() -> None:
    alike = replace(rated(200), malignant=np.zeros(200))
    scale = fit(replace(drawn(500), rated=alike))
    assert (scale.malignancy, scale.malignancy_offset) == (1.0, 0.0)


def test_a_nodule_that_was_put_into_many_places_counts_once() -> None:
    few = rated(LEAST_RATED)
    repeated = Rated(*(np.tile(part, 3) for part in (few.logits, few.malignant)), [*few.names] * 3)
    once, thrice = (fit(replace(drawn(500), rated=some)) for some in (few, repeated))
    assert thrice.malignancy == pytest.approx(once.malignancy, rel=1e-3)
    one = Rated(few.logits, few.malignant, ["the same"] * LEAST_RATED)
    assert fit(replace(drawn(500), rated=one)).malignancy == 1.0


def test_a_second_stage_is_asked_for_malignancy_where_rated_nodules_were_put() -> None:
    grave, unrated = replace(donor(), name="grave", malignancy=0.75), replace(donor(), name="unrated")
    case = case_of(lung(), [grave, unrated], 0)
    wanted = [nodule.center_lps_mm for nodule in case.nodules if nodule.donor == "grave"]
    seen = judged(Marker(), [case], [grave, unrated])
    assert 0 < len(wanted) < len(case.nodules)
    np.testing.assert_allclose(seen.rated.logits, [x for x, _, _ in wanted])
    assert set(seen.rated.malignant) == {0.75}


def test_lungs_that_the_model_refuses_in_use_are_left_out_and_said() -> None:
    takes = InputContract("CT", Unit.HU, max_spacing_mm=5.0, min_extent_mm=32.0)
    shown, said = without_refused(TrainingData((lung(), slab()), ()), [takes])
    assert [kept.name for kept in shown.backgrounds] == ["even"]
    assert "slab are left out: it covers 4 mm" in said
    assert without_refused(shown, [takes])[1] == ""


class Marker:
    """Marks nothing; its second stage answers with where it looks, as malignancy."""

    second_stage = property(lambda self: self)

    def candidates(self, volume: Volume) -> Candidates:
        return Candidates(np.zeros((0, 3)), np.zeros(0), np.zeros(0), ())

    def classify(self, volume: Volume, centers_lps_mm: list[tuple[float, float, float]]) -> list[Verdict]:
        return [Verdict(0.5, 0.5, "solid", 0.0, x) for x, _, _ in centers_lps_mm]


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
