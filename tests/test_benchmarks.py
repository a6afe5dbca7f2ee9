"""The benchmarks' own pieces: what they insert where, and what each change does to a scan."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tomolens import Finding, Grid, Volume
from tomolens.core.froc import Spheres
from tomolens.training.backgrounds import Background, Mark
from tomolens.training.nodules import Donor, donor_of

FOLDER = Path(__file__).parents[1] / "benchmarks"
GRID = Grid.from_axes((60, 50, 70), (1.0, 1.0, 1.0), (-30.0, 10.0, -400.0))


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Import a script of the benchmarks as it is when it is run: with its folder first on the path."""
    from importlib import import_module

    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield import_module
    for name in set(sys.modules) - before:
        if (FOLDER / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture
def inserted_cases(benchmark) -> ModuleType:
    return benchmark("inserted_cases")


@pytest.fixture
def robustness(benchmark) -> ModuleType:
    return benchmark("robustness")


def lung() -> Background:
    """An even lung with one known nodule."""
    voxels = np.full((120, 110, 130), -850, np.int16)
    inner = np.argwhere(np.ones((9, 8, 10), bool)) * 10 + 20
    mark = Mark((60.0, 50.0, 60.0), 12.0, True)
    grid = Grid.from_axes(voxels.shape, origin_lps_mm=(-60.0, -50.0, -500.0))
    return Background("even", voxels, (mark,), inner.astype(np.int16), inner[:4].astype(np.int16), 1.0, "scan", grid)


def donor(diameter_mm: float = 8.0, texture: int = 5) -> Donor:
    radius = np.linalg.norm(np.indices((31, 31, 31)) - 15, axis=0)
    mask = radius <= diameter_mm / 2
    return donor_of("ball", np.where(mask, 40, -850), mask, texture)


def test_the_same_number_gives_the_same_case_and_another_gives_another(inserted_cases) -> None:
    one, again, other = (inserted_cases.case_of(lung(), [donor()], n) for n in (3, 3, 4))
    np.testing.assert_array_equal(one.volume.voxels, again.volume.voxels)
    assert one.nodules == again.nodules
    assert one.nodules != other.nodules


def test_inserted_nodules_stand_where_the_case_says_and_apart_from_what_was_known(inserted_cases) -> None:
    case = inserted_cases.case_of(lung(), [donor()], 0)
    assert 3 <= len(case.nodules) <= inserted_cases.NODULES_A_CASE
    for nodule in case.nodules:
        k, j, i = np.round(case.volume.grid.to_kji(nodule.center_lps_mm)).astype(int)
        assert case.volume.voxels[k, j, i] > -100
        assert nodule.diameter_mm == pytest.approx(8.0, abs=1.5)
        assert nodule.texture == "solid"
    places = np.vstack([case.centers_lps_mm, case.ignored.centers_lps_mm])
    away = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e3 * np.eye(len(places))
    assert away.min() >= inserted_cases.APART_MM


def test_a_nodule_keeps_its_size_and_texture_unless_the_case_is_altered(inserted_cases) -> None:
    plain = inserted_cases.case_of(lung(), [donor(texture=1)], 0)
    assert {nodule.texture for nodule in plain.nodules} == {"ground glass"}
    altered = [inserted_cases.case_of(lung(), [donor(10.0)], n, altered=True) for n in range(8)]
    sizes = [nodule.diameter_mm for case in altered for nodule in case.nodules]
    assert max(sizes) - min(sizes) > 2
    assert len({nodule.texture for case in altered for nodule in case.nodules}) > 1


def test_a_mark_on_what_the_lung_held_before_is_ignored_and_one_on_a_ball_is_false(inserted_cases) -> None:
    case = inserted_cases.case_of(lung(), [donor()], 0)
    old, ball = case.ignored.centers_lps_mm[0], (500.0, 0.0, 0.0)
    marked = case.marked([Finding(tuple(old), 9.0, 0.9), Finding(ball, 9.0, 0.8)])
    from tomolens.core.froc import match

    assert match(marked).ignored == 1
    assert match(marked).false_scores.tolist() == [0.8]
    assert marked.labels["place"]


def blob(center_lps_mm: tuple[float, float, float]) -> Volume:
    """A soft ball of 400 HU above lung, 6 mm in sigma, on the test grid."""
    places = GRID.to_mm(np.moveaxis(np.indices(GRID.shape), 0, -1))
    squared = ((places - center_lps_mm) ** 2).sum(axis=-1)
    return Volume((-850 + 400 * np.exp(-squared / (2 * 4.0**2))).astype(np.int16), GRID)


@pytest.mark.parametrize(
    "name",
    [
        "flipped left-right",
        "flipped head-foot",
        "mirrored left-right",
        "mirrored head-foot",
        "rotated about head-foot",
        "rotated about front-back",
        "rotated about left-right",
        "slices of 0.6 mm",
        "slices of 1.25 mm",
        "slices of 2.5 mm",
        "slices of 5 mm",
        "smoother kernel",
        "sharper kernel",
    ],
)
def test_a_change_moves_what_is_seen_to_where_it_says(robustness, name: str) -> None:
    center = (12.0, 30.0, -375.0)
    volume, move = robustness.CHANGES[name](blob(center), np.random.default_rng(0))
    above = np.clip(volume.voxels.astype(float) + 840, 0, None)
    kji = (np.moveaxis(np.indices(volume.shape), 0, -1) * above[..., None]).sum(axis=(0, 1, 2)) / above.sum()
    seen, expected = volume.grid.to_mm(kji), move(np.array([center]))[0]
    assert np.linalg.norm(seen - expected) < 0.25
    assert (np.linalg.norm(expected - center) > 1) == name.startswith(("mirrored", "rotated"))


def test_every_change_is_tested_above_but_noise(robustness) -> None:
    assert len(robustness.CHANGES) == 13 + 2


@pytest.mark.parametrize(("name", "times"), [("half the dose", 1.0), ("a quarter of the dose", 3.0)])
def test_less_dose_adds_as_much_noise_as_the_scan_lacks(robustness, name: str, times: float) -> None:
    rng = np.random.default_rng(1)
    scan = Volume((40 + 15 * robustness.noise(GRID.shape, rng)).astype(np.int16), GRID)
    measured = robustness.noise_hu(scan)
    assert measured == pytest.approx(15, rel=0.07)
    changed, move = robustness.CHANGES[name](scan, rng)
    added = (changed.voxels.astype(float) - scan.voxels).std()
    assert added == pytest.approx(measured * np.sqrt(times), rel=0.03)
    np.testing.assert_array_equal(move(np.ones((2, 3))), np.ones((2, 3)))


def test_thick_slices_keep_the_mean(robustness) -> None:
    rng = np.random.default_rng(2)
    scan = Volume(rng.normal(-800, 50, GRID.shape).astype(np.int16), GRID)
    thick, _ = robustness.CHANGES["slices of 5 mm"](scan, rng)
    assert thick.shape[0] == 12
    np.testing.assert_allclose(thick.voxels, scan.voxels.reshape(12, 5, 50, 70).mean(axis=1), atol=0.51)


def test_a_change_that_loses_nodules_is_missed_in_the_table(robustness, inserted_cases) -> None:
    case = inserted_cases.case_of(lung(), [donor()], 0)
    marks = [Finding(nodule.center_lps_mm, 8.0, 0.9) for nodule in case.nodules]
    nothing = Spheres.none()
    case = inserted_cases.Case(case.name, case.volume, case.nodules, nothing, nothing)
    blind, moved = robustness.Reading(), robustness.Reading()
    before = robustness.Reading([case.marked(marks)])
    robustness.add(blind, case, marks, robustness.smoother, lambda _: ([], None), np.random.default_rng(0))
    off = [Finding((x + 2.0, y, z), 8.0, 0.9) for x, y, z in (mark.center_lps_mm for mark in marks)]
    robustness.add(moved, case, marks, robustness.smoother, lambda _: (off, None), np.random.default_rng(0))
    first, second = list(robustness.table(before, {"blind": blind, "moved": moved}))[-2:]
    assert first.split()[1:4] == ["0.000", "-1.000", str(len(marks))]
    assert "MISSED" in first
    assert second.split()[-2:] == ["2.00", "MISSED"]
