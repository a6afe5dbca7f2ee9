from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomolens.core.errors import OptionError
from tomolens.physics.masks import MaskKind, fully_sampled_centre, sampling_mask, widest_gap

KINDS = pytest.mark.parametrize("kind", MaskKind)


@KINDS
@pytest.mark.parametrize("acceleration", [1.0, 2.0, 3.7, 8.0])
@pytest.mark.parametrize("shape", [(128, 96), (93, 150)])
def test_a_mask_has_the_acceleration_that_was_asked_for_but_for_rounding(kind, acceleration, shape):
    mask = sampling_mask(kind, shape, acceleration, seed=3)
    assert mask.shape == shape
    wanted = round(shape[0] / acceleration) * shape[1]
    if kind is MaskKind.POISSON:
        wanted = round(shape[0] * shape[1] / acceleration)
    assert mask.sum() == wanted


@KINDS
def test_the_same_seed_gives_the_same_mask_and_another_seed_another(kind):
    first, again, other = (sampling_mask(kind, (64, 48), 4, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@KINDS
def test_the_middle_of_k_space_is_measured_without_a_gap(kind):
    rows, columns = fully_sampled_centre(sampling_mask(kind, (128, 128), 4, seed=5))
    assert 12 <= rows.stop - rows.start <= 40
    assert columns.stop - columns.start >= 12
    assert rows.start < 64 < rows.stop


@pytest.mark.parametrize("kind", [MaskKind.RANDOM, MaskKind.EQUISPACED])
def test_lines_are_measured_whole(kind):
    mask = sampling_mask(kind, (90, 70), 5, seed=8)
    assert (mask == mask[:, :1]).all()


def test_evenly_spaced_lines_differ_in_distance_by_one_at_most_on_either_side_of_the_centre():
    mask = sampling_mask(MaskKind.EQUISPACED, (256, 4), 4, seed=2)
    centre = fully_sampled_centre(mask)[0]
    for side in (slice(0, centre.start - 1), slice(centre.stop + 1, 256)):
        assert np.ptp(np.diff(np.flatnonzero(mask[side, 0]))) <= 1


def test_poisson_discs_leave_smaller_gaps_than_lines_do():
    shape = (128, 128)
    gaps = [widest_gap(sampling_mask(kind, shape, 6, seed=4)) for kind in (MaskKind.POISSON, MaskKind.RANDOM)]
    assert gaps[0] < gaps[1] / 2


@given(st.integers(1, 24), st.integers(1, 20), st.integers(1, 24), st.integers(1, 20))
def test_the_centre_that_is_found_is_the_one_that_was_measured(rows, columns, further_rows, further_columns):
    mask = np.zeros((2 * (rows + further_rows), 2 * (columns + further_columns)), bool)
    middle = rows + further_rows, columns + further_columns
    mask[middle[0] - rows : middle[0] + rows, middle[1] - columns : middle[1] + columns] = True
    found = fully_sampled_centre(mask)
    assert mask[found].all()
    assert [span.stop - span.start for span in found] == [2 * rows, 2 * columns]


def test_a_whole_measurement_is_all_centre_and_has_no_gap():
    whole = np.ones((31, 44), bool)
    assert whole[fully_sampled_centre(whole)].shape == (31, 44)
    assert widest_gap(whole) == 0


@pytest.mark.parametrize("acceleration", [0.5, 33.0, float("nan")])
def test_an_acceleration_that_leaves_nothing_is_refused(acceleration):
    with pytest.raises(OptionError, match="acceleration is 1 to 16"):
        sampling_mask(MaskKind.RANDOM, (64, 64), acceleration, seed=1)
