from __future__ import annotations

import numpy as np
import pytest

from tomolens.core.finding import Finding
from tomolens.core.froc import match
from tomolens.core.grid import Grid
from tomolens.training.backgrounds import Background, Mark
from tomolens.training.cases import APART_MM, NODULES_A_CASE, case_of
from tomolens.training.nodules import Donor, donor_of


def lung() -> Background:
    """An even lung with one known nodule."""
    voxels = np.full((120, 110, 130), -850, np.int16)
    inner = np.argwhere(np.ones((9, 8, 10), bool)) * 10 + 20
    mark = Mark((60.0, 50.0, 60.0), 12.0, True)
    grid = Grid.from_axes(voxels.shape, origin_lps_mm=(-60.0, -50.0, -500.0))
    return Background("even", voxels, (mark,), inner.astype(np.int16), inner[:4].astype(np.int16), 1.0, "scan", grid)


def donor(diameter_mm: float = 8.0, texture: int | None = 5) -> Donor:
    radius = np.linalg.norm(np.indices((31, 31, 31)) - 15, axis=0)
    mask = radius <= diameter_mm / 2
    return donor_of("ball", np.where(mask, 40, -850), mask, texture)


def test_the_same_number_gives_the_same_case_and_another_gives_another() -> None:
    one, again, other = (case_of(lung(), [donor()], n) for n in (3, 3, 4))
    np.testing.assert_array_equal(one.volume.voxels, again.volume.voxels)
    assert one.nodules == again.nodules
    assert one.nodules != other.nodules


def test_inserted_nodules_stand_where_the_case_says_and_apart_from_what_was_known() -> None:
    case = case_of(lung(), [donor()], 0)
    assert 3 <= len(case.nodules) <= NODULES_A_CASE
    for nodule in case.nodules:
        k, j, i = np.round(case.volume.grid.to_kji(nodule.center_lps_mm)).astype(int)
        assert case.volume.voxels[k, j, i] > -100
        assert nodule.diameter_mm == pytest.approx(8.0, abs=1.5)
        assert nodule.texture == "solid"
    places = np.vstack([case.centers_lps_mm, case.ignored.centers_lps_mm])
    away = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e3 * np.eye(len(places))
    assert away.min() >= APART_MM


def test_a_nodule_keeps_its_size_and_texture_unless_the_case_is_altered() -> None:
    plain = case_of(lung(), [donor(texture=1)], 0)
    assert {nodule.texture for nodule in plain.nodules} == {"ground glass"}
    altered = [case_of(lung(), [donor(10.0)], n, altered=True) for n in range(8)]
    sizes = [nodule.diameter_mm for case in altered for nodule in case.nodules]
    assert max(sizes) - min(sizes) > 2
    assert len({nodule.texture for case in altered for nodule in case.nodules}) > 1


def test_a_mark_on_what_the_lung_held_before_is_ignored_and_one_on_a_ball_is_false() -> None:
    case = case_of(lung(), [donor()], 0)
    old, ball = case.ignored.centers_lps_mm[0], (500.0, 0.0, 0.0)
    marked = case.marked([Finding(tuple(old), 9.0, 0.9), Finding(ball, 9.0, 0.8)])
    assert match(marked).ignored == 1
    assert match(marked).false_scores.tolist() == [0.8]
    assert marked.labels["place"]


def test_a_nodule_that_nobody_rated_is_not_called_solid() -> None:
    case = case_of(lung(), [donor(texture=None)], 4, altered=True)
    assert {nodule.texture for nodule in case.nodules} == {"not rated"}
