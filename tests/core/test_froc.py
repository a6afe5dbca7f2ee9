"""The LUNA16 protocol, one hand-made case a rule."""

from __future__ import annotations

import time
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomolens.core.errors import FindingError, OptionError
from tomolens.core.froc import (
    BAND_RATES,
    MISSED,
    RATES,
    MarkedScan,
    Matched,
    Spheres,
    bootstrapped,
    froc,
    match,
    surest,
)

FAR = (500.0, 500.0, 500.0)


def spheres(*places: tuple[tuple[float, float, float], float]) -> Spheres:
    return Spheres([center for center, _ in places], [diameter for _, diameter in places])


def scan(
    *marks: tuple[tuple[float, float, float], float], nodules: Spheres | None = None, excluded: Spheres | None = None
) -> MarkedScan:
    places, scores = [place for place, _ in marks], [score for _, score in marks]
    return MarkedScan("1.2.3", places, scores, nodules or Spheres.none(), excluded or Spheres.none())


def result(nodules: list[float], false: list[float]) -> Matched:
    """A scan whose nodules were found with these scores (`MISSED` where not), and its false positives."""
    return Matched("1.2.3", np.array(nodules, float), np.full(len(nodules), -1), np.array(false, float))


def at_origin(diameter: float) -> Spheres:
    return spheres(((0.0, 0.0, 0.0), diameter))


def test_a_mark_exactly_on_the_sphere_does_not_hit() -> None:
    assert match(scan(((5.0, 0.0, 0.0), 0.9), nodules=at_origin(10.0))).nodule_scores.tolist() == [MISSED]
    assert match(scan(((3.0, 4.0, 0.0), 0.9), nodules=at_origin(10.0))).false_scores.tolist() == [0.9]


def test_a_mark_just_inside_the_sphere_hits() -> None:
    inside = (float(np.nextafter(5.0, 0.0)), 0.0, 0.0)
    matched = match(scan((inside, 0.9), nodules=at_origin(10.0)))
    assert matched.nodule_scores.tolist() == [0.9]
    assert matched.nodule_marks.tolist() == [0]
    assert matched.false_scores.size == 0


def test_a_mark_on_an_excluded_finding_is_neither_hit_nor_false_positive() -> None:
    matched = match(scan(((1.0, 0.0, 0.0), 0.9), (FAR, 0.4), nodules=spheres((FAR, 4.0)), excluded=at_origin(6.0)))
    assert matched.ignored == 1
    assert matched.false_scores.size == 0
    assert matched.nodule_scores.tolist() == [0.4]


@pytest.mark.parametrize(("away_mm", "ignored"), [(4.99, 1), (5.0, 0)])
def test_an_excluded_finding_of_unknown_size_is_10_mm_wide(away_mm: float, ignored: int) -> None:
    matched = match(scan(((away_mm, 0.0, 0.0), 0.9), excluded=at_origin(-1.0)))
    assert (matched.ignored, matched.false_scores.size) == (ignored, 1 - ignored)


def test_a_nodule_wins_over_an_excluded_finding_at_the_same_place() -> None:
    matched = match(scan(((0.0, 0.0, 0.0), 0.9), nodules=at_origin(6.0), excluded=at_origin(20.0)))
    assert matched.nodule_scores.tolist() == [0.9]
    assert matched.ignored == 0


def test_several_marks_on_one_nodule_count_once_with_the_highest_score() -> None:
    marks = (((1.0, 0.0, 0.0), 0.3), ((0.0, 1.0, 0.0), 0.8), ((0.0, 0.0, 1.0), 0.5))
    matched = match(scan(*marks, nodules=at_origin(6.0)))
    assert matched.nodule_scores.tolist() == [0.8]
    assert matched.nodule_marks.tolist() == [1]
    assert matched.doubles == 2
    assert matched.false_scores.size == 0


def test_a_mark_in_two_nodules_finds_both() -> None:
    matched = match(scan(((1.0, 0.0, 0.0), 0.7), nodules=spheres(((0.0, 0.0, 0.0), 6.0), ((2.0, 0.0, 0.0), 6.0))))
    assert matched.nodule_scores.tolist() == [0.7, 0.7]
    assert matched.doubles == 0


def test_of_more_than_100_marks_the_100_surest_count() -> None:
    marks = [((500.0 + n, 0.0, 0.0), 1.0 - n / 200) for n in range(120)]
    hit_by_the_101st = spheres(((600.0, 0.0, 0.0), 0.5))
    matched = match(scan(*marks[::-1], nodules=hit_by_the_101st))
    assert matched.dropped == 20
    assert matched.nodule_scores.tolist() == [MISSED]
    assert sorted(matched.false_scores.tolist()) == sorted(score for _, score in marks[:100])


def test_exactly_100_marks_all_count() -> None:
    assert match(scan(*[(FAR, 0.5)] * 100)).false_scores.size == 100


def test_marks_with_equal_scores_at_the_border_of_the_100_do_not_depend_on_their_order() -> None:
    scores = np.array([0.9] * 60 + [0.5] * 60)
    for order in (np.arange(120), np.arange(120)[::-1], np.random.default_rng(1).permutation(120)):
        kept = surest(scores[order])
        assert scores[order][kept].tolist() == [0.9] * 60


def test_a_scan_without_nodules_and_one_without_marks_count_in_the_denominator() -> None:
    found, empty, unread = result([0.9], [0.8, 0.7]), result([], []), result([MISSED], [])
    assert froc([found]).false_positives.tolist() == [0, 0, 1, 2]
    curve = froc([found, empty, unread])
    assert curve.scans == 3
    np.testing.assert_allclose(curve.false_positives, [0, 0, 1 / 3, 2 / 3])
    np.testing.assert_allclose(curve.sensitivity, [0, 0.5, 0.5, 0.5])


def test_false_positives_in_a_scan_without_nodules_count() -> None:
    assert froc([result([0.3], []), result([], [0.5, 0.5])]).false_positives.tolist() == [0, 1, 1]


def test_equal_scores_enter_the_curve_together() -> None:
    curve = froc([result([0.5, 0.5], [0.5, 0.5])])
    assert curve.false_positives.tolist() == [0, 2]
    assert curve.sensitivity.tolist() == [0, 1]
    np.testing.assert_allclose(curve.at([0.5, 1, 2, 8]), [0.25, 0.5, 1, 1])


def test_the_order_of_marks_changes_nothing() -> None:
    marks = [((1.0, 0.0, 0.0), 0.5), ((0.0, 1.0, 0.0), 0.5), (FAR, 0.5), ((-500.0, 0.0, 0.0), 0.2)]
    curves = [froc([match(scan(*order, nodules=at_origin(6.0)))]) for order in permutations(marks)]
    for curve in curves:
        assert curve.false_positives.tolist() == [0, 1, 2]
        assert curve.sensitivity.tolist() == [0, 1, 1]


def test_the_curve_starts_at_the_origin_is_linear_between_points_and_level_after_the_last() -> None:
    curve = froc([result([0.9, 0.4], [0.8, 0.7, 0.6, 0.5]), result([], [])])
    np.testing.assert_allclose(curve.false_positives, [0, 0, 0.5, 1, 1.5, 2, 2])
    np.testing.assert_allclose(curve.at([0, 0.25, 1, 2, 8]), [0.5, 0.5, 0.5, 1, 1])
    tied = froc([result([0.9], [0.9])])
    np.testing.assert_allclose(tied.at(RATES), [0.125, 0.25, 0.5, 1, 1, 1, 1])
    assert tied.cpm == pytest.approx((0.125 + 0.25 + 0.5 + 4) / 7)


def test_marks_that_find_everything_and_nothing_else_have_a_cpm_of_1() -> None:
    assert froc([result([0.9, 0.2], [])]).cpm == 1


def test_no_mark_at_all_is_a_sensitivity_of_0() -> None:
    curve = froc([result([MISSED], []), result([], [])])
    assert curve.cpm == 0
    assert curve.thresholds.tolist() == [np.inf]


def test_the_threshold_of_a_rate_keeps_at_most_that_many_false_positives() -> None:
    curve = froc([result([0.9, 0.4], [0.8, 0.6, 0.6])])
    assert curve.threshold_at(0) == 0.9
    assert curve.threshold_at(1) == 0.8
    assert curve.threshold_at(2.9) == 0.8
    assert curve.threshold_at(3) == 0.4


def test_without_any_nodule_there_is_no_sensitivity() -> None:
    for work in (froc, bootstrapped):
        with pytest.raises(OptionError, match="no nodule in these 2 scans"):
            work([result([], [0.5]), result([], [])])


def test_scores_may_be_any_finite_numbers() -> None:
    assert froc([result([-3.0], [-7.5, 12.0])]).thresholds.tolist() == [np.inf, 12.0, -3.0, -7.5]
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(FindingError, match=r"scores of 1.2.3 .* number 1"):
            scan((FAR, 0.5), (FAR, bad))


def test_places_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(FindingError, match="row 0"):
        scan(((np.nan, 0.0, 0.0), 0.5))
    with pytest.raises(FindingError, match="diameters"):
        Spheres([(0, 0, 0)], [np.nan])
    with pytest.raises(FindingError, match="1 places but 2 diameters"):
        Spheres([(0, 0, 0)], [1, 2])


def test_a_subgroup_keeps_all_false_positives_and_ignores_the_other_nodules() -> None:
    nodules = spheres(((0.0, 0.0, 0.0), 6.0), ((50.0, 0.0, 0.0), 6.0))
    marked = MarkedScan(
        "a", [(0, 0, 0), (50, 0, 0), FAR], [0.9, 0.3, 0.5], nodules, labels={"texture": ("solid", "ground glass")}
    )
    solid = froc([match(marked).of("texture", "solid")])
    thin = froc([match(marked).of("texture", "ground glass")])
    assert (solid.nodules, thin.nodules) == (1, 1)
    assert solid.at([0.5]) == 1
    assert thin.at([0.5]) == 0
    assert thin.at([1]) == 1


def test_labels_that_do_not_fit_the_nodules_are_refused() -> None:
    with pytest.raises(FindingError, match="1 nodules but 2 labels 'size'"):
        MarkedScan("a", [], [], at_origin(5.0), labels={"size": ("x", "y")})


def some_scans(count: int = 30) -> list[Matched]:
    rng = np.random.default_rng(7)
    return [
        result(
            np.where(rng.random(n := rng.integers(0, 4)) < 0.3, MISSED, rng.random(n)).tolist(), rng.random(9).tolist()
        )
        for _ in range(count)
    ]


def test_the_band_of_a_seed_is_always_the_same_and_holds_the_curve() -> None:
    scans = some_scans()
    band, again, other = bootstrapped(scans, 200, 3), bootstrapped(scans, 200, 3), bootstrapped(scans, 200, 4)
    np.testing.assert_array_equal(band.low, again.low)
    assert (band.low != other.low).any()
    sensitivity = froc(scans).at(BAND_RATES)
    assert ((band.low <= sensitivity) & (sensitivity <= band.high)).all()
    assert ((band.low <= band.mean) & (band.mean <= band.high)).all()
    assert band.cpm_low < froc(scans).cpm < band.cpm_high
    assert band.samples == 200


def test_a_bootstrap_draws_scans_not_marks() -> None:
    """Three in four scans are found entirely, one not at all: the share of found scans decides, binomial in 4 draws."""
    scans = [result([0.9] * 10, [])] * 3 + [result([MISSED] * 10, [])]
    band = bootstrapped(scans, 2000)
    assert band.at(1.0) == (0.25, 1.0)
    assert band.mean[0] == pytest.approx(0.75, abs=0.02)


def test_a_bootstrap_without_a_nodule_is_drawn_again() -> None:
    band = bootstrapped([result([0.9], []), *[result([], [0.5])] * 4], 100)
    assert np.isfinite(band.low).all()
    assert band.samples == 100


def test_the_band_of_one_scan_is_its_curve() -> None:
    band = bootstrapped([result([0.9, 0.3], [0.5])], 20)
    np.testing.assert_array_equal(band.low, band.high)


def test_rates_lie_on_the_grid_of_the_band() -> None:
    np.testing.assert_array_equal(BAND_RATES[::16], RATES)


def test_888_scans_with_100_marks_each_are_bootstrapped_in_seconds() -> None:
    rng = np.random.default_rng(0)
    scans = [result(rng.random(1).tolist(), rng.random(99).tolist()) for _ in range(888)]
    before = time.process_time()
    bootstrapped(scans, 100)
    assert time.process_time() - before < 5


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 2)), min_size=1, max_size=30))
def test_the_curve_is_what_counting_at_each_threshold_gives(events: list[tuple[int, bool, int]]) -> None:
    scans = [
        result(
            [s / 5 for s, hit, n in events if hit and n == number] + [MISSED],
            [s / 5 for s, hit, n in events if not hit and n == number],
        )
        for number in range(3)
    ]
    curve = froc(scans)
    nodules = 3 + sum(hit for _, hit, _ in events)
    for threshold, false, sensitivity in zip(curve.thresholds, curve.false_positives, curve.sensitivity, strict=True):
        assert false == pytest.approx(sum(not hit and s / 5 >= threshold for s, hit, _ in events) / 3)
        assert sensitivity == pytest.approx(sum(hit and s / 5 >= threshold for s, hit, _ in events) / nodules)
    assert (np.diff(curve.false_positives) >= 0).all()
    assert (np.diff(curve.sensitivity) >= 0).all()
