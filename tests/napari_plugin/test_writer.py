"""Scans and findings are saved as they are shown, in their place in the patient."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from napari.layers import Layer

from tests.napari_plugin.conftest import detection_in
from tests.napari_plugin.reconstructing import GAN_CARD
from tests.napari_plugin.scans import scan
from tomolens.core.errors import OutputError
from tomolens.core.finding import Finding
from tomolens.core.progress import silent
from tomolens.core.reconstruction import GENERATIVE, ReconstructOptions
from tomolens.io.read import read_volume
from tomolens.io.reconstructions import write_reconstruction
from tomolens.io.tables import read_detection
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.kept_reconstruction import run
from tomolens.napari_plugin.reconstruction_layers import Part, made_layers
from tomolens.pipelines.reconstruct import reconstruct
from tomolens.pipelines.segment import segment
from tomolens.testing import FAKE_DENOISING_CARD, FakeReconstructor, FakeSegmenter

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


# Reconstructions


def made_of(viewer, volume, model):
    kept = run(volume, model, ReconstructOptions(generative=True), None, volume, "scan", silent)
    made = [viewer.add_layer(Layer.create(*data)) for data in made_layers(kept, None)]
    return {layer.metadata["part"]: layer for layer in made}


@pytest.fixture
def asked(monkeypatch):
    """Every question that the user is asked, and what is answered."""

    class Asked(list):
        answer = True

        def __call__(self, name):
            self.append(name)
            return self.answer

    questions = Asked()
    monkeypatch.setattr("tomolens.napari_plugin.messages.accepts_invented", questions)
    return questions


def test_a_result_and_its_maps_are_saved_in_their_place_with_their_history_and_nobody_is_asked(viewer, tmp_path, asked):
    volume = scan("sagittal from the left")
    made = made_of(viewer, volume, FakeReconstructor())
    answer = reconstruct(volume, FakeReconstructor())
    expected = {
        Part.RESULT: (answer.volume.voxels, "ct-denoising by fake-mean 0.0.0"),
        Part.DIFFERENCE: (answer.difference, "difference: result minus reference, in HU"),
        Part.UNCERTAINTY: (answer.uncertainty, "uncertainty: one standard deviation of the result, in HU"),
    }
    for part, (voxels, step) in expected.items():
        path = tmp_path / f"{part}.nii.gz"
        assert made[part].save(str(path), plugin="tomolens") == [str(path)]
        back = read_volume(path)
        np.testing.assert_array_equal(back.voxels, voxels)
        assert back.grid.same_place(volume.grid)
        assert step in back.history
    assert asked == []


def test_maps_are_saved_as_the_command_line_saves_them_and_no_model_takes_them_for_a_scan(viewer, tmp_path):
    volume = scan("sagittal from the left")
    made = made_of(viewer, volume, FakeReconstructor())
    write_reconstruction(reconstruct(volume, FakeReconstructor()), tmp_path)
    for part in (Part.DIFFERENCE, Part.UNCERTAINTY):
        saved = tmp_path / f"saved {part}.nii.gz"
        made[part].save(str(saved), plugin="tomolens")
        ours, theirs = read_volume(saved), read_volume(tmp_path / f"{part}.nii.gz")
        np.testing.assert_array_equal(ours.voxels, theirs.voxels)
        assert ours.grid.same_place(theirs.grid)
        assert (ours.modality, ours.padding) == (theirs.modality, theirs.padding) == ("OT", None)
        assert (ours.unit, ours.history) == (theirs.unit, theirs.history)
        assert FAKE_DENOISING_CARD.input.refusals(ours)


def test_saving_what_a_gan_made_asks_and_the_file_says_so(viewer, tmp_path, asked):
    made = made_of(viewer, scan(), FakeReconstructor(card=GAN_CARD))
    path = tmp_path / "gan.nrrd"
    made[Part.RESULT].save(str(path), plugin="tomolens")
    assert asked == [made[Part.RESULT].name]
    assert any(GENERATIVE in step for step in read_volume(path).history)


def test_whoever_says_no_saves_nothing_of_a_gan_nor_of_what_was_made_of_its_result(viewer, tmp_path, asked):
    asked.answer = False
    invented = made_of(viewer, scan(), FakeReconstructor(card=GAN_CARD))[Part.RESULT]
    again = made_of(viewer, layers.volume_of(invented), FakeReconstructor())[Part.RESULT]
    for layer in (invented, again):
        with pytest.raises(OutputError, match="was not saved"):
            layer.save(str(tmp_path / "gan.nrrd"), plugin="tomolens")
    assert list(tmp_path.iterdir()) == []


def test_the_question_names_the_layer_and_the_risk_and_escape_is_no(viewer, qtbot):
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication, QMessageBox

    from tomolens.napari_plugin import messages

    texts = []

    def press(button):
        box = next(w for w in QApplication.topLevelWidgets() if isinstance(w, QMessageBox) and w.isVisible())
        texts.append(f"{box.text()} {box.informativeText()}")
        assert box.defaultButton() is box.button(QMessageBox.StandardButton.Cancel)
        box.button(button).click()

    for button, answer in ((QMessageBox.StandardButton.Cancel, False), (QMessageBox.StandardButton.Save, True)):
        QTimer.singleShot(300, lambda button=button: press(button))
        assert messages.accepts_invented("gan of scan") is answer
    assert all("gan of scan" in text and GENERATIVE in text and "may not be in the patient" in text for text in texts)
