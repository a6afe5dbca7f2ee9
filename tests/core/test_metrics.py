from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomolens.core.errors import OptionError
from tomolens.core.froc import MISSED, Matched
from tomolens.core.metrics import (
    Share,
    auc,
    calibration_error_by_case,
    counts_at,
    expected_calibration_error,
    reliability,
    size_class,
    subgroups,
)


def result(nodules: list[float], false: list[float], **labels: tuple[str, ...]) -> Matched:
    return Matched("1.2.3", np.array(nodules, float), np.full(len(nodules), -1), np.array(false, float), labels=labels)


SCANS = [
    result([0.9, 0.6, MISSED], [0.7, 0.2], size=("10 mm and more", "under 6 mm", "under 6 mm")),
    result([], [0.55]),
    result([0.3], [], size=("6 to 10 mm",)),
]


def test_precision_recall_f1_and_accuracy_are_counted_over_nodules_at_a_threshold() -> None:
    counts = counts_at(SCANS, 0.55)
    assert (counts.found, counts.missed, counts.false_positives, counts.scans) == (2, 2, 2, 3)
    assert counts.precision.value == 0.5
    assert counts.sensitivity.value == 0.5
    assert counts.f1 == 0.5
    assert counts.accuracy == pytest.approx(1 / 3)
    assert counts.false_positives_a_scan == pytest.approx(2 / 3)


def test_a_score_at_the_threshold_is_shown() -> None:
    assert counts_at(SCANS, 0.9).found == 1
    assert counts_at(SCANS, np.nextafter(0.9, 1)).found == 0


def test_figures_of_nothing_are_none_and_not_0_or_1() -> None:
    nothing = counts_at([result([], [])], 0.5)
    assert (nothing.precision.value, nothing.sensitivity.value, nothing.f1, nothing.accuracy) == (None,) * 4
    with pytest.raises(OptionError, match="at least one scan"):
        counts_at([], 0.5)


def test_subgroups_stand_in_the_order_of_size_and_hold_every_nodule_once() -> None:
    groups = subgroups(SCANS, "size")
    assert list(groups) == ["under 6 mm", "6 to 10 mm", "10 mm and more"]
    assert [counts_at(group, 0.5).sensitivity for group in groups.values()] == [Share(1, 2), Share(0, 1), Share(1, 1)]
    assert {counts_at(group, 0.5).false_positives for group in groups.values()} == {2}
    assert subgroups(SCANS, "texture") == {}


@pytest.mark.parametrize(
    ("mm", "label"), [(5.99, "under 6 mm"), (6.0, "6 to 10 mm"), (9.99, "6 to 10 mm"), (10.0, "10 mm and more")]
)
def test_a_size_on_a_border_belongs_to_the_larger_class(mm: float, label: str) -> None:
    assert size_class(mm) == label


def test_the_interval_of_a_share_is_wilsons() -> None:
    low, high = Share(8, 10).interval
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert Share(10, 10).interval[1] == pytest.approx(1)
    assert Share(10, 10).interval[0] == pytest.approx(0.7225, abs=1e-4)
    assert Share(0, 0).interval == (0, 1)
    with pytest.raises(OptionError, match="3 of 2"):
        Share(3, 2)


def test_the_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    assert auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]).value == 0.75
    assert auc([0.5, 0.5, 0.5], [True, False, False]).value == 0.5


def test_the_interval_of_an_auc_is_delongs() -> None:
    """By hand: V10 = (1, .5, 1), V01 = (1, 1, 2/3, 2/3); variance 1/12/3 + 1/27/4."""
    found = auc([0.9, 0.3, 0.8, 0.1, 0.2, 0.5, 0.4], [True] * 3 + [False] * 4)
    assert found.value == pytest.approx(10 / 12)
    half = 1.959964 * np.sqrt((1 / 12) / 3 + (1 / 27) / 4)
    assert found.low == pytest.approx(10 / 12 - half, abs=1e-6)
    assert found.high == 1
    assert (found.positives, found.negatives) == (3, 4)


def test_a_perfect_auc_on_few_cases_is_not_certain() -> None:
    found = auc([0.9, 0.8, 0.7, 0.2, 0.1], [True, True, True, False, False])
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(0.025**0.5)
    assert auc([1, 2], [True, False]).high == pytest.approx(0.975)


def test_an_auc_of_one_class_is_refused() -> None:
    with pytest.raises(OptionError, match="2 and 0"):
        auc([0.1, 0.2], [True, True])
    with pytest.raises(OptionError, match="1 are not"):
        auc([0.1, np.nan], [True, False])
    with pytest.raises(OptionError, match="2 scores but 1 truths"):
        auc([0.1, 0.2], [True])


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_the_auc_counts_pairs_and_ties_by_half(cases: list[tuple[int, bool]]) -> None:
    above, below = [s for s, positive in cases if positive], [s for s, positive in cases if not positive]
    if above and below:
        pairs = np.mean([(a > b) + 0.5 * (a == b) for a in above for b in below])
        found = auc(*zip(*cases, strict=True))
        assert found.value == pytest.approx(pairs)
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_the_calibration_error_is_the_mean_distance_from_the_diagonal() -> None:
    scores, truth = [0.05, 0.15, 0.15, 0.95], [False, True, False, True]
    points = reliability(scores, truth)
    assert [(p.low, p.count, p.share_true) for p in points] == [(0.0, 1, 0.0), (0.1, 2, 0.5), (0.9, 1, 1.0)]
    assert expected_calibration_error(scores, truth) == pytest.approx((0.05 + 2 * 0.35 + 0.05) / 4)


def test_scores_on_a_border_belong_to_the_upper_bin_and_1_to_the_last() -> None:
    points = reliability([0.0, 0.1, 0.3, 0.7, 1.0], [True] * 5)
    assert [p.low for p in points] == [0.0, 0.1, 0.3, 0.7, 0.9]


def test_shares_that_come_true_have_no_calibration_error() -> None:
    assert expected_calibration_error([0.25] * 4, [True, False, False, False]) == 0


def test_a_calibration_of_what_is_no_probability_is_refused() -> None:
    with pytest.raises(OptionError, match=r"from -1 to 0\.5"):
        expected_calibration_error([-1, 0.5], [True, False])
    with pytest.raises(OptionError, match="at least one score"):
        expected_calibration_error([], [])


def test_a_weight_counts_as_so_many_of_the_same() -> None:
    scores, truth, times = [0.15, 0.12, 0.8, 0.85], [True, False, True, False], [1, 3, 2, 1]
    repeated = [np.repeat(values, times) for values in (scores, truth)]
    assert expected_calibration_error(scores, truth, weights=times) == pytest.approx(
        expected_calibration_error(*repeated)
    )
    weighted, plain = reliability(scores, truth, weights=times), reliability(*repeated)
    assert [(p.weight, p.share_true) for p in weighted] == [(p.count, p.share_true) for p in plain]
    assert [p.count for p in weighted] == [2, 2]


Scored = tuple[list[float], list[bool], list[float]]


def scored(rng: np.random.Generator, count: int, promised: float) -> Scored:
    """A case whose scores all promise the same, half of which comes true."""
    return [promised] * count, (rng.random(count) < promised / 2).tolist(), [1.0] * count


def test_the_error_by_case_is_that_of_all_scores_together_and_lies_in_its_band() -> None:
    rng = np.random.default_rng(2)
    cases = [(rng.random(30), rng.random(30) < 0.4, rng.uniform(0.5, 2, 30)) for _ in range(20)]
    score, truth, weights = (np.concatenate(parts) for parts in zip(*cases, strict=True))
    error = calibration_error_by_case(cases)
    assert error.value == pytest.approx(expected_calibration_error(score, truth, weights=weights))
    assert error.low < error.value < error.high
    assert (error.count, error.floor) == (600, 0.0)


def test_a_crowd_of_scores_near_0_does_not_hide_an_error_of_those_that_are_shown() -> None:
    rng = np.random.default_rng(3)
    crowd: Scored = ([0.001] * 200, [False] * 200, [1.0] * 200)
    cases = [case for _ in range(10) for case in (crowd, scored(rng, 20, 0.8))]
    everything, shown = calibration_error_by_case(cases), calibration_error_by_case(cases, 0.1)
    assert everything.value < 0.05
    assert shown.value == pytest.approx(0.4, abs=0.08)
    assert (everything.count, shown.count) == (2200, 200)
    assert shown.low > 0.25


def test_fewer_cases_make_the_band_of_the_error_wider() -> None:
    rng = np.random.default_rng(4)
    few, many = ([scored(rng, 10, 0.6) for _ in range(count)] for count in (5, 80))
    narrow, wide = calibration_error_by_case(many), calibration_error_by_case(few)
    assert narrow.high - narrow.low < (wide.high - wide.low) / 2


def test_an_error_of_no_score_is_refused_with_the_floor() -> None:
    with pytest.raises(OptionError, match=r"at least one score; in 1 cases none is at least 0\.9"):
        calibration_error_by_case([([0.5], [True], [1.0])], 0.9)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, np.nan], [1.0, -1.0]])
def test_a_weight_that_is_not_above_0_is_refused(weights: list[float]) -> None:
    with pytest.raises(OptionError, match="2 numbers above 0"):
        reliability([0.1, 0.2], [True, False], weights=weights)


def test_an_auc_of_one_positive_or_of_equal_scores_alone_tells_nothing_of_its_interval() -> None:
    alone = auc([0.5, *np.linspace(0, 1, 1000)], [True, *[False] * 1000])
    even = auc([0.5] * 4, [True, True, False, False])
    assert (alone.low, alone.high) == (0.0, 1.0)
    assert (even.value, even.low, even.high) == (0.5, 0.0, 1.0)
