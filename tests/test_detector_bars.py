"""What the shipped detector must find, on scans that it was not trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tomolens import Detection, Grid, Volume, detect_nodules, load_detector, read_volume
from tomolens.models.detector import NoduleDetector
from tomolens.training.sources import read_marks

SAMPLES = Path(__file__).parent.parent / "sample_volumes"


@pytest.fixture(scope="module")
def detector() -> NoduleDetector:
    return load_detector(device="cpu")


@pytest.fixture(scope="module")
def sample() -> Volume:
    return read_volume(SAMPLES / "chest_ct")


@pytest.fixture(scope="module")
def answer(sample: Volume, detector: NoduleDetector) -> Detection:
    return detect_nodules(sample, detector)


def inside(detection: Detection, center: tuple[float, float, float], diameter: float) -> list[int]:
    """Which findings have their centre strictly in that sphere."""
    return [
        n
        for n, finding in enumerate(detection.findings)
        if np.linalg.norm(np.subtract(finding.center_lps_mm, center)) < diameter / 2
    ]


def test_the_nodule_of_a_real_scan_is_the_surest_finding_and_false_ones_are_few(
    detector: NoduleDetector, shared_data: Path
) -> None:
    folder = shared_data / "open" / "ct"
    detection = detect_nodules(read_volume(folder / "LIDC-IDRI-0314"), detector)
    [(center, diameter)] = read_marks(folder / "annotations.csv")["LIDC-IDRI-0314"]
    excluded = read_marks(folder / "annotations_excluded.csv")["LIDC-IDRI-0314"]
    assert np.linalg.norm(np.subtract(detection.findings[0].center_lps_mm, center)) <= 3.0
    assert detection.findings[0].diameter_mm == pytest.approx(diameter, rel=0.35)
    counted = {n for c, d in [(center, diameter), *excluded] for n in inside(detection, c, d)}
    assert len(detection) - len(counted) <= 1


def test_every_nodule_of_the_sample_is_found_with_one_false_finding_at_most(answer: Detection) -> None:
    truth = json.loads((SAMPLES / "chest_ct.json").read_text(encoding="utf-8"))
    found = [inside(answer, n["center_lps_mm"], n["diameter_mm"]) for n in truth["nodules"]]
    assert [nodule for nodule, findings in zip(truth["nodules"], found, strict=True) if not findings] == []
    assert len(answer) - len({n for findings in found for n in findings}) <= 1


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0)], ids=["sagittal", "coronal"])
def test_another_order_of_axes_and_flips_move_no_finding(
    sample: Volume, answer: Detection, detector: NoduleDetector, order: tuple[int, int, int]
) -> None:
    turned = sample.permuted(order).flipped(0).flipped(2)
    assert turned.grid.orientation == {(2, 0, 1): "sagittal", (1, 2, 0): "coronal"}[order]
    detection = detect_nodules(turned, detector)
    assert len(detection) == len(answer) > 0
    for finding, expected in zip(detection, answer, strict=True):
        np.testing.assert_allclose(finding.center_lps_mm, expected.center_lps_mm, atol=1e-6)


def test_a_tilted_gantry_moves_no_finding(sample: Volume, answer: Detection, detector: NoduleDetector) -> None:
    """Each slice is shifted by one row against the one before, and the grid says so."""
    slices, rows, columns = sample.shape
    voxels = np.full((slices, rows + slices, columns), -1000, np.int16)
    for k in range(slices):
        voxels[k, slices - k : slices - k + rows] = sample.voxels[k]
    affine = sample.grid.affine.copy()
    affine[:3, 0] += affine[:3, 1]
    affine[:3, 3] = sample.grid.to_mm((0, -slices, 0))
    tilted = Volume(voxels, Grid(voxels.shape, affine))
    assert tilted.grid.is_sheared
    np.testing.assert_allclose(tilted.grid.to_mm((5, slices - 5 + 9, 7)), sample.grid.to_mm((5, 9, 7)))
    detection = detect_nodules(tilted, detector)
    for expected in (finding for finding in answer if finding.score > 0.5):
        away = [np.linalg.norm(np.subtract(f.center_lps_mm, expected.center_lps_mm)) for f in detection]
        assert min(away) < 1.5
