"""The benchmarks' own pieces: what each change does to a scan."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.training.test_cases import donor, lung
from tomolens import Finding, Grid, Volume
from tomolens.core.froc import MarkedScan, Spheres
from tomolens.training.cases import Case, case_of

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
def robustness(benchmark) -> ModuleType:
    return benchmark("robustness")


def test_the_calibration_of_what_a_user_is_shown_has_a_bar_of_its_own(benchmark, capsys) -> None:
    """Nineteen in twenty candidates score about 0 and are none; those that are shown promise far too much."""
    nodule = Spheres(np.array([[0.0, 0.0, 0.0]]), np.array([8.0]))
    places = np.array([[0.0, 0.0, 0.0], *[[50.0, 0.0, n] for n in range(99)]])
    scores = np.array([0.9, *[0.8] * 4, *[0.001] * 95])
    scans = [MarkedScan(f"{n}", places, scores, nodule, Spheres.none()) for n in range(3)]
    benchmark("detection").calibration(scans, 0.1, None)
    everything, shown = (line for line in capsys.readouterr().out.splitlines() if "bar:" in line)
    assert "all 300 candidates: 0.03" in everything
    assert "holds (95 %" in everything
    assert "15 candidates of at least 0.1: 0." in shown
    assert "MISSED (95 %" in shown


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


def test_the_changed_scan_is_what_is_read(robustness) -> None:
    """A disc one slice thin fades to a fifth in slices of 5 mm."""
    voxels = np.full(GRID.shape, -850, np.int16)
    voxels[33, 20:30, 30:40] = 150
    case = Case("disc", Volume(voxels, GRID), (), Spheres.none(), Spheres.none())
    read: list[Volume] = []

    def detect(volume: Volume):
        read.append(volume)
        return [], None

    for mm in robustness.SLICES_MM:
        change = robustness.CHANGES[f"slices of {mm:g} mm"]
        robustness.add(robustness.Reading(), case, [], change, detect, np.random.default_rng(0))
    assert [volume.spacing_mm[0] for volume in read] == pytest.approx(robustness.SLICES_MM)
    brightest = {mm: int(volume.voxels.max()) for mm, volume in zip(robustness.SLICES_MM, read, strict=True)}
    assert brightest[5.0] == -650
    assert brightest[2.5] == -450


def test_a_change_that_loses_nodules_is_missed_in_the_table(robustness) -> None:
    case = case_of(lung(), [donor()], 0)
    marks = [Finding(nodule.center_lps_mm, 8.0, 0.9) for nodule in case.nodules]
    nothing = Spheres.none()
    case = Case(case.name, case.volume, case.nodules, nothing, nothing)
    blind, moved = robustness.Reading(), robustness.Reading()
    before = robustness.Reading([case.marked(marks)])
    robustness.add(blind, case, marks, robustness.smoother, lambda _: ([], None), np.random.default_rng(0))
    off = [Finding((x + 2.0, y, z), 8.0, 0.9) for x, y, z in (mark.center_lps_mm for mark in marks)]
    robustness.add(moved, case, marks, robustness.smoother, lambda _: (off, None), np.random.default_rng(0))
    first, second = list(robustness.table(before, {"blind": blind, "moved": moved}))[-2:]
    assert first.split()[1:4] == ["0.000", "-1.000", str(len(marks))]
    assert "MISSED" in first
    assert second.split()[-2:] == ["2.00", "MISSED"]
