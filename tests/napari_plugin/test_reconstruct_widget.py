"""Reconstruct, as a user meets it in a real viewer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Layer
from napari.layers._layer_actions import _duplicate_layer, _project
from qtpy.QtCore import Qt

from tests.napari_plugin.detecting import found_in, points_in, rows, run
from tests.napari_plugin.reconstructing import (
    GAN_CARD,
    MEDIAN_CARD,
    CountingReconstructor,
    SlowReconstructor,
    ThinMarkers,
    ZeroFilled,
    kspace,
    parts_in,
    result_in,
)
from tests.napari_plugin.scans import scan
from tomolens.core.errors import ModelError
from tomolens.core.finding import RESEARCH_USE
from tomolens.core.grid import Grid
from tomolens.core.reconstruction import GENERATIVE, Check, ReconstructOptions
from tomolens.core.volume import Volume
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.compare_panel import KEY
from tomolens.napari_plugin.comparison import Mode
from tomolens.napari_plugin.reconstruction_layers import Part
from tomolens.pipelines.reconstruct import reconstruct
from tomolens.testing import FAKE_DENOISING_CARD, FakeDetector, FakeReconstructor

pytestmark = pytest.mark.gui


def opened(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Reconstruct")
    return widget


@pytest.fixture
def widget(viewer, image, shelf):
    return opened(viewer)


def checks(widget):
    table = widget.checks
    return [[table.item(row, n).text() for n in range(table.columnCount())] for row in range(table.rowCount())]


def set_strength(widget, qtbot, value):
    with qtbot.waitSignal(widget._timer.timeout, timeout=5000):
        widget.strength.setValue(value)


def test_a_run_shows_the_result_like_its_scan_and_hides_the_maps(viewer, widget, image, volume, qtbot):
    image.contrast_limits = (-200, 300)
    image.colormap = "bop blue"
    run(widget, qtbot)
    made = parts_in(viewer)
    answer = reconstruct(volume, FakeReconstructor())
    np.testing.assert_array_equal(made[Part.RESULT].data, answer.volume.canonical().voxels)
    np.testing.assert_array_equal(made[Part.DIFFERENCE].data, made[Part.RESULT].data - image.data.astype(np.float32))
    assert (made[Part.UNCERTAINTY].data == 5).all()
    assert {part: layer.visible for part, layer in made.items()} == {
        Part.RESULT: True,
        Part.DIFFERENCE: False,
        Part.UNCERTAINTY: False,
    }
    result = made[Part.RESULT]
    assert result.name == "fake-mean of CT volume"
    assert result.contrast_limits == image.contrast_limits
    assert result.colormap.name == image.colormap.name
    low, high = made[Part.DIFFERENCE].contrast_limits
    assert low == -high < 0
    assert "HU" in made[Part.DIFFERENCE].name
    assert "fake-mean 0.0.0, cpu" in widget.summary.text()


def test_the_window_of_scan_and_result_is_one(viewer, widget, image, qtbot):
    run(widget, qtbot)
    result = result_in(viewer)
    image.contrast_limits = (-100, 250)
    assert result.contrast_limits == [-100, 250]
    result.contrast_limits = (0, 80)
    assert image.contrast_limits == [0, 80]
    assert parts_in(viewer)[Part.DIFFERENCE].contrast_limits != [0, 80]


def test_the_result_is_a_scan_for_every_other_widget_and_its_history_travels(viewer, widget, qtbot, shelf):
    run(widget, qtbot)
    result = result_in(viewer)
    assert layers.volume_of(result).history[-1] == "ct-denoising by fake-mean 0.0.0"
    shelf.detector = FakeDetector(found_in(scan()))
    _, detect = viewer.window.add_plugin_dock_widget("tomolens", "Detect lung nodules")
    detect.scan.setCurrentIndex(detect.scan.findText(result.name))
    run(detect, qtbot)
    (found,) = points_in(viewer)
    assert found.name == f"Findings in {result.name}"
    assert found.metadata["detection"].run.history[-1] == "ct-denoising by fake-mean 0.0.0"
    offered = {detect.scan.itemText(row) for row in range(detect.scan.count())}
    assert offered == {"CT volume", result.name}, "maps are no scans"


def test_findings_in_a_result_are_not_taken_for_findings_in_its_scan(viewer, image, shelf, qtbot, tmp_path):
    from tests.cli import scans

    viewer.layers.remove(image)
    viewer.open(str(scans.ct(tmp_path / "ct")), plugin="tomolens")  # has a SeriesInstanceUID, which the result keeps
    widget = opened(viewer)
    run(widget, qtbot)
    result = result_in(viewer)
    _, detect = viewer.window.add_plugin_dock_widget("tomolens", "Detect lung nodules")
    detect.scan.setCurrentIndex(detect.scan.findText(result.name))
    run(detect, qtbot)
    own = next(row for row in range(detect.scan.count()) if detect.scan.itemText(row) != result.name)
    detect.scan.setCurrentIndex(own)
    assert rows(detect) == []
    run(detect, qtbot)
    assert len(points_in(viewer)) == 2


def test_thin_slices_come_with_the_cubic_spline_that_they_are_compared_with(viewer, image, shelf, qtbot):
    shelf.reconstructors = {"fake-thin": ThinMarkers()}
    widget = opened(viewer)
    widget.job.setCurrentIndex(widget.job.findText("Thin slices"))
    widget.factor.setCurrentIndex(widget.factor.findText("3"))
    run(widget, qtbot)
    made = parts_in(viewer)
    assert set(made) == {Part.REFERENCE, Part.RESULT, Part.DIFFERENCE}
    assert made[Part.RESULT].data.shape[0] == 3 * image.data.shape[0]
    assert [widget.compare.other.itemText(n) for n in range(2)] == ["CT volume", "Cubic spline of CT volume"]


def test_the_classical_method_is_shown_beside_where_that_is_wished(viewer, image, shelf, qtbot):
    shelf.reconstructors["fake-median"] = FakeReconstructor(card=MEDIAN_CARD)
    shelf.baselines["ct-denoising"] = "fake-median"
    widget = opened(viewer)
    assert "fake-median" in widget.baseline.text()
    widget.baseline.setChecked(True)
    run(widget, qtbot)
    made = parts_in(viewer)
    assert set(made) == {Part.RESULT, Part.BASELINE, Part.DIFFERENCE, Part.UNCERTAINTY}
    assert made[Part.BASELINE].name == "fake-median of CT volume"
    assert not made[Part.BASELINE].visible
    widget.model.setCurrentIndex(widget.model.findText("fake-median"))
    assert not widget.baseline.isEnabled()


def test_the_strength_acts_at_once_without_another_run_and_is_just_that_of_the_pipeline(
    viewer, image, volume, shelf, qtbot
):
    model = shelf.reconstructors["fake-mean"] = CountingReconstructor()
    widget = opened(viewer)
    run(widget, qtbot)
    set_strength(widget, qtbot, 0.4)
    made, answer = parts_in(viewer), reconstruct(volume, FakeReconstructor(), ReconstructOptions(strength=0.4))
    np.testing.assert_array_equal(made[Part.RESULT].data, answer.volume.canonical().voxels)
    np.testing.assert_array_equal(made[Part.DIFFERENCE].data, layers.turned(answer.difference, volume.grid))
    assert answer.uncertainty is not None
    np.testing.assert_array_equal(made[Part.UNCERTAINTY].data, layers.turned(answer.uncertainty, volume.grid))
    assert layers.volume_of(made[Part.RESULT]).history == answer.volume.history
    assert made[Part.RESULT].metadata["reconstruction"].run.options["strength"] == 0.4
    assert model.runs == 1
    set_strength(widget, qtbot, 0.0)
    np.testing.assert_array_equal(result_in(viewer).data, image.data)
    set_strength(widget, qtbot, 1.0)
    np.testing.assert_array_equal(result_in(viewer).data, reconstruct(volume, model).volume.canonical().voxels)


def test_while_the_slider_moves_the_slice_is_blended_at_once_and_the_volume_when_it_rests(
    viewer, widget, image, volume, qtbot
):
    run(widget, qtbot)
    full = reconstruct(volume, FakeReconstructor()).volume.canonical().voxels
    widget.strength.setValue(0.5)
    result = result_in(viewer)
    np.testing.assert_allclose(np.asarray(result.data), (image.data + full.astype(float)) / 2, atol=1)
    assert layers.volume_of(result).history[-1] == "voxels changed in napari"
    qtbot.waitUntil(lambda: isinstance(result.data, np.ndarray), timeout=5000)
    assert layers.volume_of(result).history[-1].endswith("strength 0.5")


@pytest.fixture
def two_scans(viewer, image, shelf, qtbot):
    """Two scans and two models; the first model has run on the first scan, which is chosen."""
    shelf.reconstructors["fake-median"] = FakeReconstructor(card=MEDIAN_CARD)
    viewer.add_layer(Layer.create(*layers.image(scan("coronal from the front")))).name = "Other scan"
    widget = opened(viewer)
    widget.scan.setCurrentIndex(widget.scan.findText("CT volume"))
    run(widget, qtbot)
    return widget


@pytest.mark.parametrize(
    ("box", "other"), [("scan", "Other scan"), ("model", "fake-median"), ("job", "MRI from k-space")]
)
def test_another_choice_right_after_the_slider_moved_leaves_the_old_result_at_its_new_strength(
    viewer, two_scans, volume, box, other
):
    chosen, result = getattr(two_scans, box), result_in(viewer)
    before = chosen.currentText()
    two_scans.strength.setValue(0.5)
    chosen.setCurrentIndex(chosen.findText(other))
    answer = reconstruct(volume, FakeReconstructor(), ReconstructOptions(strength=0.5))
    np.testing.assert_array_equal(result.data, answer.volume.canonical().voxels)
    assert layers.volume_of(result).history == answer.volume.history
    assert not two_scans._timer.isActive()
    chosen.setCurrentIndex(chosen.findText(before))
    assert two_scans.strength.value() == 0.5


def test_a_layer_that_comes_while_the_slider_moves_does_not_take_the_strength_back(viewer, widget, qtbot):
    run(widget, qtbot)
    widget.strength.setValue(0.5)
    viewer.add_points(np.zeros((1, 3)))
    assert widget.strength.value() == 0.5
    assert layers.volume_of(result_in(viewer)).history[-1].endswith("strength 0.5")


def test_where_a_strength_cannot_be_made_what_was_there_before_is_shown(viewer, widget, qtbot, messages, monkeypatch):
    def fail(kept, strength):
        raise ModelError("The network broke.")

    run(widget, qtbot)
    full = result_in(viewer).data
    monkeypatch.setattr("tomolens.napari_plugin.kept_reconstruction.Kept.at", fail)
    set_strength(widget, qtbot, 0.5)
    assert messages == ["The network broke."]
    np.testing.assert_array_equal(result_in(viewer).data, full)
    assert layers.volume_of(result_in(viewer)).history[-1] == "ct-denoising by fake-mean 0.0.0"
    assert widget.strength.value() == 1


def test_a_result_that_arrives_while_the_slider_moves_is_not_overwritten(viewer, widget, image, volume, qtbot):
    run(widget, qtbot)
    qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    widget.strength.setValue(0.0)
    qtbot.waitUntil(lambda: not widget.panel.busy, timeout=5000)
    qtbot.wait(2 * widget._timer.interval())
    answer = reconstruct(volume, FakeReconstructor())
    np.testing.assert_array_equal(result_in(viewer).data, answer.volume.canonical().voxels)
    assert widget.strength.value() == 1


def test_a_copy_of_a_result_and_a_projection_of_it_are_left_alone(viewer, widget, image, qtbot):
    run(widget, qtbot)
    result = result_in(viewer)
    full = result.data.copy()
    viewer.layers.selection = {result}
    for made in (_duplicate_layer, _project):
        viewer.layers.selection.active = result
        made(viewer.layers)
    copy, projection = (viewer.layers[f"{result.name} {name}"] for name in ("copy", "max-proj"))
    set_strength(widget, qtbot, 0.0)
    np.testing.assert_array_equal(result.data, image.data)
    np.testing.assert_array_equal(copy.data, full)
    np.testing.assert_array_equal(projection.data, full.max(0))
    run(widget, qtbot)
    assert copy in viewer.layers
    assert result not in viewer.layers


def test_a_run_at_less_strength_can_be_strengthened_afterwards(viewer, widget, volume, qtbot):
    set_strength(widget, qtbot, 0.3)
    run(widget, qtbot)
    assert layers.volume_of(result_in(viewer)).history[-1].endswith("strength 0.3")
    set_strength(widget, qtbot, 1.0)
    answer = reconstruct(volume, FakeReconstructor())
    np.testing.assert_array_equal(result_in(viewer).data, answer.volume.canonical().voxels)


def test_running_again_replaces_the_result_of_that_model_and_a_deleted_result_is_forgotten(viewer, image, shelf, qtbot):
    shelf.reconstructors["fake-median"] = FakeReconstructor(card=MEDIAN_CARD)
    widget = opened(viewer)
    run(widget, qtbot)
    run(widget, qtbot)
    assert len(viewer.layers) == 1 + 3
    widget.model.setCurrentIndex(widget.model.findText("fake-median"))
    assert widget.summary.text() == ""
    run(widget, qtbot)
    assert len(viewer.layers) == 1 + 6
    assert "fake-median" in widget.summary.text()
    viewer.layers.remove("fake-median of CT volume")
    assert widget.summary.text() == ""
    assert checks(widget) == []


def test_checks_say_in_words_what_is_in_range_and_what_is_not_and_failures_stand_on_top(viewer, image, shelf, qtbot):
    known, unknown = Check("noise", 20.0, "HU", 5.0, 80.0), Check("spacing", 9.0, "mm", 0.5, 3.0)
    shelf.reconstructors["fake-mean"] = FakeReconstructor(checks=(known, unknown))
    widget = opened(viewer)
    run(widget, qtbot)
    assert checks(widget) == [
        ["spacing", "9 mm", "0.5 to 3", "OUT OF range"],
        ["noise", "20 HU", "5 to 80", "in range"],
    ]
    assert widget.warnings.text() == str(unknown)
    assert not widget.warnings.isHidden()


def test_models_that_refuse_the_scan_are_grey_with_the_reason(viewer, image, shelf):
    picky = replace(FAKE_DENOISING_CARD, name="picky", input=replace(FAKE_DENOISING_CARD.input, max_spacing_mm=1.0))
    shelf.reconstructors["picky"] = FakeReconstructor(card=picky)
    widget = opened(viewer)
    row = widget.model.findText("picky")
    assert not widget.model._rows.item(row).isEnabled()
    assert "its spacing is 2.00 mm" in widget.model.itemData(row, Qt.ItemDataRole.ToolTipRole)


# GANs


@pytest.fixture
def gan(viewer, image, shelf):
    shelf.reconstructors["fake-gan"] = FakeReconstructor(card=GAN_CARD)
    widget = opened(viewer)
    widget.model.setCurrentIndex(widget.model.findText("fake-gan (GAN)"))
    return widget


def test_a_gan_runs_only_where_its_invented_texture_is_accepted_and_its_layer_says_so(viewer, gan, qtbot):
    assert not gan.panel.run_button.isEnabled()
    assert "may be invented" in gan.panel.status.text()
    assert not gan.accept.isHidden()
    gan.accept.setChecked(True)
    run(gan, qtbot)
    result = result_in(viewer)
    assert result.name == f"fake-gan of CT volume ({GENERATIVE})"
    assert GENERATIVE in gan.warnings.text()
    assert GENERATIVE in layers.volume_of(result).history[-1]


def test_the_tick_for_gans_is_there_for_gans_alone(widget, shelf):
    assert widget.accept.isHidden()


# MRI


@pytest.fixture
def measured(monkeypatch, tmp_path):
    path = tmp_path / "brain.npz"
    path.write_bytes(b"k-space")
    monkeypatch.setattr("tomolens.napari_plugin.reconstruct_widget._read_kspace", lambda read: kspace())
    monkeypatch.setattr("tomolens.napari_plugin.reconstruct_widget._kspace_suffixes", lambda: (".npz",))
    return path


@pytest.fixture
def mri(viewer, shelf):
    shelf.reconstructors["fake-fill"] = ZeroFilled()
    widget = opened(viewer)
    widget.job.setCurrentIndex(widget.job.findText("MRI from k-space"))
    return widget


def test_k_space_comes_from_a_file_and_its_result_is_compared_with_the_zero_filled_image(viewer, mri, measured, qtbot):
    assert not mri.panel.run_button.isEnabled()
    assert "Choose a file of k-space" in mri.panel.status.text()
    mri.file.line.setText(str(measured.with_name("none.npz")))
    assert "There is no file" in mri.panel.status.text()
    mri.file.line.setText(str(measured))
    run(mri, qtbot)
    made = parts_in(viewer)
    assert set(made) == {Part.REFERENCE, Part.RESULT, Part.DIFFERENCE, Part.UNCERTAINTY}
    assert made[Part.REFERENCE].name == "Zero-filled of brain.npz"
    assert "% of range" in made[Part.DIFFERENCE].name
    np.testing.assert_allclose(made[Part.RESULT].data, 2 * made[Part.REFERENCE].data)
    assert made[Part.RESULT].metadata["volume"].modality == "MR"
    assert mri.compare.other.currentText() == "Zero-filled of brain.npz"
    assert "acceleration 9: OUT OF range" in mri.warnings.text()
    made[Part.RESULT].contrast_limits = (0, 55)
    assert made[Part.REFERENCE].contrast_limits == [0, 55]


def test_running_k_space_again_replaces_its_layers(viewer, mri, measured, qtbot):
    mri.file.line.setText(str(measured))
    run(mri, qtbot)
    run(mri, qtbot)
    assert len(viewer.layers) == 4


def test_the_file_dialog_writes_what_was_chosen(mri, measured, qtbot, monkeypatch):
    monkeypatch.setattr("tomolens.napari_plugin.file_box.QFileDialog.getOpenFileName", lambda *_: (str(measured), ""))
    qtbot.mouseClick(mri.file.button, Qt.MouseButton.LeftButton)
    assert mri.file.path() == measured
    assert mri.panel.run_button.isEnabled()


def test_each_job_shows_its_own_wishes(viewer, mri, image):
    def wishes():
        return {name for name in ("scan", "file", "strength", "factor") if not getattr(mri, name).isHidden()}

    assert wishes() == {"file"}
    mri.job.setCurrentIndex(mri.job.findText("CT denoising"))
    assert wishes() == {"scan", "strength"}
    mri.job.setCurrentIndex(mri.job.findText("Thin slices"))
    assert wishes() == {"scan", "factor"}


# Closing


def test_a_dock_that_is_closed_lets_go_of_the_viewer_and_another_takes_over(viewer, widget, image, qtbot):
    def bound():
        return next((function for key, function in viewer.keymap.items() if str(key) == KEY), None)

    run(widget, qtbot)
    names = [layer.name for layer in viewer.layers]
    widget.compare.comparison.show(Mode.SWIPE)
    widget.strength.setValue(0.5)
    viewer.window.remove_dock_widget(widget)
    assert [layer.name for layer in viewer.layers] == names
    assert layers.volume_of(result_in(viewer)).history[-1].endswith("strength 0.5")
    assert bound() is None
    offered = widget.scan.count()
    viewer.add_layer(Layer.create(*layers.image(scan())))
    viewer.add_shapes(np.zeros((4, 3)))
    assert widget.scan.count() == offered
    assert not widget.measure._timer.isActive()
    again = opened(viewer)
    again.scan.setCurrentIndex(again.scan.findText(image.name))
    bound()(viewer)
    assert again.compare.comparison.mode is Mode.FLIP
    assert widget.compare.comparison.mode is Mode.OFF


def test_a_closed_dock_leaves_a_key_alone_that_is_no_longer_its_own(viewer, widget):
    viewer.bind_key(KEY, lambda _viewer: None, overwrite=True)
    viewer.window.remove_dock_widget(widget)
    assert KEY in {str(key) for key in viewer.keymap}


def test_a_widget_that_is_docked_again_follows_the_viewer_again(viewer, widget):
    viewer.window.remove_dock_widget(widget)
    viewer.add_layer(Layer.create(*layers.image(scan("coronal from the front")))).name = "Other scan"
    viewer.window.add_dock_widget(widget)
    assert widget.scan.findText("Other scan") >= 0
    assert KEY in {str(key) for key in viewer.keymap}
    viewer.layers.remove("Other scan")
    assert widget.scan.findText("Other scan") < 0


# Stopping


def test_cancel_stops_a_real_network_within_two_slices_and_leaves_no_layer(viewer, qtbot, monkeypatch):
    from tomolens.models.denoising import TiledPass

    shape, over, begun, pressed = (40, 128, 128), TiledPass.over, [], []
    monkeypatch.setattr(TiledPass, "over", lambda tiles, *slices: begun.append(1) or over(tiles, *slices))
    noise = np.random.default_rng(0).normal(40, 30, shape).astype(np.int16)
    viewer.add_layer(Layer.create(*layers.image(Volume(noise, Grid.from_axes(shape, (1.0, 0.8, 0.8))))))
    widget = opened(viewer)
    widget.model.setCurrentText("ct-denoiser")

    def press(step):
        if begun and not pressed:
            qtbot.mouseClick(widget.panel.cancel_button, Qt.MouseButton.LeftButton)
            pressed.append(len(begun))

    qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    widget.panel._current.job.stepped.connect(press)
    qtbot.waitUntil(lambda: not widget.panel.busy, timeout=60_000)
    assert widget.panel.status.text() == "Cancelled."
    assert len(begun) <= pressed[0] + 1 < shape[0]
    assert len(viewer.layers) == 1


def test_cancel_stops_within_one_window_and_leaves_no_result(viewer, widget, qtbot, shelf):
    slow = shelf.reconstructors["fake-mean"] = SlowReconstructor(windows=1000)
    qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(slow.reached) >= 3, timeout=5000)
    qtbot.mouseClick(widget.panel.cancel_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not widget.panel.busy, timeout=5000)
    assert widget.panel.status.text() == "Cancelled."
    assert parts_in(viewer) == {}


def test_closing_the_dock_during_a_run_stops_it_and_waits(viewer, widget, qtbot, shelf):
    slow = shelf.reconstructors["fake-mean"] = SlowReconstructor(windows=1000)
    qtbot.mouseClick(widget.panel.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(slow.reached) >= 2, timeout=5000)
    viewer.window.remove_dock_widget(widget)
    assert slow.left.is_set()
    assert parts_in(viewer) == {}


def test_research_use_is_said_in_the_widget_and_on_the_picture(viewer, widget, qtbot):
    run(widget, qtbot)
    assert viewer.canvas.overlays["tomolens_notice"].visible
    assert any(label.text() == RESEARCH_USE for label in widget.findChildren(type(widget.summary)))


@pytest.mark.parametrize(("job", "model"), [("CT denoising", "tv"), ("Thin slices", "cubic-backprojected")])
def test_the_widget_reconstructs_what_python_reconstructs(viewer, qtbot, tmp_path, job, model):
    from tests.cli import scans
    from tomolens.io.read import read_volume
    from tomolens.models.reconstructor import load_reconstructor

    folder = scans.ct(tmp_path / "ct")
    viewer.open(str(folder), plugin="tomolens")
    widget = opened(viewer)
    widget.job.setCurrentText(job)
    widget.model.setCurrentText(model)
    run(widget, qtbot)
    made = result_in(viewer).metadata["reconstruction"]
    answer = reconstruct(read_volume(folder), load_reconstructor(model, device="cpu"))
    np.testing.assert_array_equal(made.volume.voxels, answer.volume.voxels)
    np.testing.assert_array_equal(made.reference.voxels, answer.reference.voxels)
    assert made.volume.grid.same_place(answer.volume.grid)
    assert made.volume.history == answer.volume.history
    assert (made.job, made.checks, made.warnings) == (answer.job, answer.checks, answer.warnings)
    for fact in ("model", "model_version", "weights_sha256", "series_uid", "options", "device", "precision"):
        assert getattr(made.run, fact) == getattr(answer.run, fact)
