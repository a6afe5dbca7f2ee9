"""Three doors, one path: napari, the command line and Python give the same findings, labels and images of a scan."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tomolens
from tests.cli import scans
from tests.models.own_bundles import metadata, write_bundle
from tests.napari_plugin.conftest import NO_DISPLAY, has_display
from tomolens.io.reconstructions import read_reconstruction
from tomolens.io.segmentations import read_segmentation
from tomolens.io.synthetic_series import write_ct_series
from tomolens.phantoms.markers import marked_volume

SAMPLE = Path(__file__).parents[1] / "sample_volumes" / "chest_ct"


@pytest.fixture(scope="module")
def answer() -> tomolens.Detection:
    """What Python answers."""
    detection = tomolens.detect_nodules(tomolens.read_volume(SAMPLE), tomolens.load_detector(device="cpu"))
    assert len(detection) > 0
    return detection


def assert_same(detection: tomolens.Detection, answer: tomolens.Detection) -> None:
    assert detection.candidates == answer.candidates
    assert detection.min_score == answer.min_score
    assert detection.grid.same_place(answer.grid)
    for fact in ("model", "model_version", "weights_sha256", "series_uid", "options", "device", "precision"):
        assert getattr(detection.run, fact) == getattr(answer.run, fact)


def test_the_command_line_finds_what_python_finds(answer: tomolens.Detection, tmp_path: Path) -> None:
    words = ["-m", "tomolens.cli", "detect", str(SAMPLE), "-o", str(tmp_path), "--device", "cpu"]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert_same(tomolens.read_detection(folder), answer)


@pytest.mark.gui
@pytest.mark.skipif(not has_display(), reason=NO_DISPLAY)
def test_the_napari_widget_finds_what_python_finds(answer: tomolens.Detection, make_napari_viewer, qtbot) -> None:
    from qtpy.QtCore import Qt

    viewer = make_napari_viewer(show=True)
    viewer.open(str(SAMPLE), plugin="tomolens")
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Detect lung nodules")
    widget.device.setCurrentText("cpu")
    with qtbot.waitSignal(widget.panel.returned, timeout=300_000) as returned:
        qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    assert_same(returned.args[0], answer)


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, tomolens.Segmentation]:
    """A scan, and what an imported model with random weights answers in Python."""
    write_bundle(tmp_path / "models" / "tiny", metadata("tiny"))
    monkeypatch.setenv("TOMOLENS_MODELS", str(tmp_path / "models"))
    scan = scans.ct(tmp_path / "scan")
    answer = tomolens.segment(tomolens.read_volume(scan), tomolens.load_segmenter("tiny", device="cpu"))
    assert len(answer) > 0
    return scan, answer


def assert_same_labels(segmentation: tomolens.Segmentation, answer: tomolens.Segmentation) -> None:
    np.testing.assert_array_equal(segmentation.labels, answer.labels)
    assert segmentation.names == answer.names
    assert segmentation.structures == answer.structures
    assert segmentation.grid.same_place(answer.grid)
    for fact in ("model", "model_version", "weights_sha256", "series_uid", "options", "device", "precision"):
        assert getattr(segmentation.run, fact) == getattr(answer.run, fact)


def test_the_command_line_segments_what_python_segments(
    imported: tuple[Path, tomolens.Segmentation], tmp_path: Path
) -> None:
    scan, answer = imported
    words = ["segment", str(scan), "-o", str(tmp_path / "out"), "--model", "tiny", "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "tomolens.cli", *words], check=True, capture_output=True)
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert_same_labels(read_segmentation(folder), answer)


@pytest.mark.gui
@pytest.mark.skipif(not has_display(), reason=NO_DISPLAY)
def test_the_napari_widget_segments_what_python_segments(
    imported: tuple[Path, tomolens.Segmentation], make_napari_viewer, qtbot
) -> None:
    from qtpy.QtCore import Qt

    scan, answer = imported
    viewer = make_napari_viewer(show=True)
    viewer.open(str(scan), plugin="tomolens")
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Segment")
    widget.model.setCurrentText("tiny")
    widget.device.setCurrentText("cpu")
    with qtbot.waitSignal(widget.panel.returned, timeout=300_000) as returned:
        qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    assert_same_labels(returned.args[0], answer)


def noisy_scan(folder: Path) -> Path:
    """A small CT with noise."""
    noise = np.random.default_rng(5).normal(0, 30, scans.GRID.shape)
    volume = marked_volume(scans.GRID)
    write_ct_series(volume.with_voxels((volume.voxels + noise).astype(np.int16), "noise"), folder, jpeg_ls=False)
    return folder


def assert_same_images(made: tomolens.Reconstruction, answer: tomolens.Reconstruction) -> None:
    np.testing.assert_array_equal(made.volume.voxels, answer.volume.voxels)
    np.testing.assert_array_equal(made.reference.voxels, answer.reference.voxels)
    assert (made.uncertainty is None) == (answer.uncertainty is None)
    assert made.volume.grid.same_place(answer.volume.grid)
    assert (made.job, made.checks, made.warnings) == (answer.job, answer.checks, answer.warnings)
    for fact in ("model", "model_version", "weights_sha256", "series_uid", "device", "precision"):
        assert getattr(made.run, fact) == getattr(answer.run, fact)


@pytest.mark.parametrize(("job", "model"), [("ct-denoising", "tv"), ("super-resolution", "cubic-backprojected")])
def test_the_command_line_reconstructs_what_python_reconstructs(tmp_path: Path, job: str, model: str) -> None:
    scan = noisy_scan(tmp_path / "scan")
    answer = tomolens.reconstruct(tomolens.read_volume(scan), tomolens.load_reconstructor(model, device="cpu"))
    words = ["reconstruct", str(scan), "-o", str(tmp_path / "out"), "--job", job, "--model", model, "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "tomolens.cli", *words], check=True, capture_output=True)
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert_same_images(read_reconstruction(folder), answer)


def test_another_threshold_after_the_run_is_the_same_as_before_it(answer: tomolens.Detection) -> None:
    options = tomolens.DetectOptions(min_score=0.2)
    volume, detector = tomolens.read_volume(SAMPLE), tomolens.load_detector(device="cpu")
    before = tomolens.detect_nodules(volume, detector, options)
    assert before.findings == answer.at(0.2).findings


def test_an_image_file_of_the_sample_has_the_findings_of_its_dicom(answer: tomolens.Detection, tmp_path: Path) -> None:
    path = tomolens.write_volume(tomolens.read_volume(SAMPLE), tmp_path / "sample.nii.gz")
    detection = tomolens.detect_nodules(tomolens.read_volume(path), tomolens.load_detector(device="cpu"))
    assert [f.score for f in detection] == pytest.approx([f.score for f in answer], abs=1e-3)
    for found, expected in zip(detection, answer, strict=True):
        assert found.center_lps_mm == pytest.approx(expected.center_lps_mm, abs=0.01)
