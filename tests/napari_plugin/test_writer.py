"""Scans and findings are saved as they are shown, in their place in the patient."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from napari.layers import Layer

from tests.napari_plugin.conftest import detection_in
from tests.napari_plugin.scans import scan
from tomolens.core.errors import OutputError
from tomolens.core.finding import Finding
from tomolens.io.read import read_volume
from tomolens.io.tables import read_detection
from tomolens.napari_plugin import layers
from tomolens.pipelines.segment import segment
from tomolens.testing import FakeSegmenter

pytestmark = pytest.mark.gui


def add_findings(viewer, volume):
    center = tuple(map(float, volume.grid.to_mm((13, 18, 16))))
    detection = detection_in(volume, Finding(center, 8.0, 0.9), Finding(center, 5.0, 0.4))
    return viewer.add_layer(Layer.create(*layers.findings(detection)))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_scan_is_saved_with_its_own_axes_and_grid(viewer, tmp_path, suffix):
    for name in ("axial from the head", "sagittal from the left"):
        volume = scan(name)
        image = viewer.add_layer(Layer.create(*layers.image(volume)))
        path = tmp_path / f"{name}{suffix}"
        assert image.save(str(path), plugin="tomolens") == [str(path)]
        back = read_volume(path)
        np.testing.assert_array_equal(back.canonical().voxels, volume.canonical().voxels)
        assert back.canonical().grid.same_place(volume.canonical().grid)


def test_findings_are_saved_at_the_threshold_that_is_set(viewer, tmp_path):
    volume = scan()
    points = add_findings(viewer, volume)
    for min_score, count in ((0.5, 1), (0.3, 2)):
        layers.set_threshold(points, min_score)
        assert points.save(str(tmp_path / "found.json"), plugin="tomolens") == [str(tmp_path / "found.json")]
        assert points.save(str(tmp_path / "found.csv"), plugin="tomolens") == [str(tmp_path / "found.csv")]
        back = read_detection(tmp_path / "found.json")
        assert back.findings == layers.detection_of(points).findings
        assert back.run == layers.detection_of(points).run
        with (tmp_path / "found.csv").open() as file:
            saved = list(csv.DictReader(file))
        assert len(saved) == count
        assert float(saved[0]["z_mm"]) == pytest.approx(back.findings[0].center_lps_mm[2], abs=0.01)


def test_points_that_are_no_findings_and_images_without_a_place_are_refused(viewer, tmp_path):
    points, cells = viewer.add_points(np.zeros((2, 3))), viewer.add_image(np.zeros((3, 4, 5)))
    with pytest.raises(OutputError, match="holds no findings"):
        points.save(str(tmp_path / "found.json"), plugin="tomolens")
    with pytest.raises(OutputError, match="does not say where it lies"):
        cells.save(str(tmp_path / "saved.nii.gz"), plugin="tomolens")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_segmentation_is_saved_on_the_scans_own_axes_and_grid(viewer, tmp_path, suffix):
    for name in ("axial from the head", "sagittal from the left"):
        segmentation = segment(scan(name), FakeSegmenter())
        drawn = viewer.add_layer(Layer.create(*layers.labels(segmentation)))
        path = tmp_path / f"{name}{suffix}"
        assert drawn.save(str(path), plugin="tomolens") == [str(path)]
        back = read_volume(path)
        np.testing.assert_array_equal(back.canonical().voxels, drawn.data)
        assert back.grid.same_place(segmentation.grid)


def test_labels_that_were_painted_or_are_none_of_ours_are_refused(viewer, tmp_path):
    drawn = viewer.add_layer(Layer.create(*layers.labels(segment(scan(), FakeSegmenter()))))
    drawn.data = np.ones_like(drawn.data)
    with pytest.raises(OutputError, match="changed by hand"):
        drawn.save(str(tmp_path / "saved.nii.gz"), plugin="tomolens")
    with pytest.raises(OutputError, match="holds no segmentation"):
        viewer.add_labels(np.zeros((3, 4, 5), int)).save(str(tmp_path / "saved.nii.gz"), plugin="tomolens")
    assert list(tmp_path.iterdir()) == []
