"""What opens in napari, what the user is asked, and what is refused."""

from __future__ import annotations

import time
from dataclasses import replace

import h5py
import numpy as np
import pytest
from napari.layers import Points
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QDialog, QDialogButtonBox, QMessageBox

from tests.napari_plugin.conftest import detection_in
from tests.napari_plugin.reconstructing import kspace
from tests.napari_plugin.scans import ACQUIRED, scan
from tomolens.core.errors import AmbiguousSource, ReadError
from tomolens.core.finding import Finding
from tomolens.core.volume import Unit, Volume
from tomolens.io.kspace import write_kspace
from tomolens.io.synthetic_series import write_ct_series
from tomolens.io.tables import write_detection
from tomolens.io.write import write_volume
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.reader import NOTHING, get_reader
from tomolens.napari_plugin.series_dialog import SeriesDialog

TILTED = "axial, tilted gantry"


def write(folder, name="axial from the feet", **options):
    return write_ct_series(scan(name), folder, jpeg_ls=False, **options)


def answer(qtbot, act, times=1):
    """Let ``act`` answer the next dialogs, as a user would while they are open."""
    answered = []

    def look():
        dialog = QApplication.activeModalWidget()
        if dialog is not None:
            act(dialog)
            answered.append(dialog)
        if len(answered) < times:
            QTimer.singleShot(50, look)

    QTimer.singleShot(50, look)
    return answered


# Which paths are ours


@pytest.mark.parametrize("name", ["picture.png", "stack.tif", "table.csv", "notes", "scan.json"])
def test_other_files_are_left_to_others(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x00" * 300)
    assert get_reader(str(tmp_path / name)) is None
    assert get_reader(str(tmp_path)) is None
    assert get_reader(str(tmp_path / "absent")) is None


def test_a_folder_without_dicom_is_left_to_others_within_a_moment(tmp_path):
    for n in range(3000):
        (tmp_path / f"{n:04d}.txt").touch()
    began = time.perf_counter()
    assert get_reader(str(tmp_path)) is None
    assert time.perf_counter() - began < 2.0


@pytest.mark.parametrize("file_name", ["{:04d}.dcm", "IM{:05d}", "{}", "1.2.840.{}"])
def test_dicom_is_known_by_its_header_whatever_its_name(tmp_path, file_name):
    deep = tmp_path / "study" / "series"
    files = write(deep, file_name=file_name)
    assert get_reader(str(tmp_path)) is not None
    assert get_reader(str(files[0])) is not None
    assert get_reader([str(path) for path in files]) is not None


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_image_files_are_known_by_their_suffix(tmp_path, suffix):
    path = write_volume(scan(), tmp_path / f"scan{suffix}")
    assert get_reader(str(path)) is not None


def kspace_files(folder):
    """One measurement in each format, by suffix."""
    measured = kspace()
    slices, coils, rows, columns = measured.data.shape
    (folder / "bart.hdr").write_text(f"# Dimensions\n{columns} {rows} 1 {coils} {'1 ' * 9}{slices} 1 1\n")
    (folder / "bart.cfl").write_bytes(measured.data.tobytes())
    with h5py.File(folder / "fastmri.h5", "w") as file:
        file["kspace"] = measured.data
    write_kspace(measured, folder / "brain.npz")
    return {path.suffix: path for path in folder.iterdir()}


def test_k_space_is_known_by_what_is_in_the_file_and_other_arrays_are_left_to_others(tmp_path):
    for path in kspace_files(tmp_path).values():
        assert get_reader(str(path)) is not None
    np.savez(tmp_path / "arrays.npz", image=np.zeros((4, 5, 6)))
    with h5py.File(tmp_path / "arrays.h5", "w") as file:
        file["image"] = np.zeros((4, 5, 6))
    (tmp_path / "analyze.hdr").write_bytes(b"\x00" * 348)
    for name in ("arrays.npz", "arrays.h5", "analyze.hdr", "absent.npz", "absent.cfl"):
        assert get_reader(str(tmp_path / name)) is None


# Without a viewer


def test_without_a_viewer_k_space_is_refused_with_the_way_to_an_image(tmp_path):
    path = str(kspace_files(tmp_path)[".npz"])
    with pytest.raises(ReadError, match=r"brain\.npz is k-space, no image: Reconstruct, in napari's menu Plugins"):
        get_reader(path)(path)


def test_a_folder_of_k_space_alone_is_refused_with_what_to_open(tmp_path):
    kspace_files(tmp_path)
    with pytest.raises(ReadError, match=r"no DICOM images\. It holds k-space: open one of its files"):
        get_reader(str(tmp_path))(str(tmp_path))


def test_without_a_viewer_the_reader_raises_and_asks_nobody(tmp_path):
    write(tmp_path, seed=1)
    write(tmp_path, seed=2, file_name="b{:04d}.dcm")
    with pytest.raises(AmbiguousSource, match="2 series and nobody to ask"):
        get_reader(str(tmp_path))(str(tmp_path))


def test_without_a_viewer_one_series_is_a_layer_with_its_volume(tmp_path):
    write(tmp_path, header={"SeriesDescription": "Lung"})
    ((data, attributes, kind),) = get_reader(str(tmp_path))(str(tmp_path))
    assert kind == "image"
    assert attributes["name"] == "Lung"
    np.testing.assert_array_equal(data, attributes["metadata"]["volume"].canonical().voxels)


# In a viewer


@pytest.mark.gui
def test_k_space_that_is_dropped_opens_reconstruct_with_the_file_chosen(viewer, shelf, tmp_path, messages):
    for path in kspace_files(tmp_path).values():
        messages.clear()
        assert viewer.open(path, plugin="tomolens") == []
        dock, widget = viewer.window.add_plugin_dock_widget("tomolens", "Reconstruct")
        assert not dock.isHidden()
        assert widget.job.currentText() == "MRI from k-space"
        assert widget.file.path() == path
        assert messages == [
            f"{path.name} is chosen in Reconstruct, for k-space is no image yet. Choose a model there, press Run."
        ]
        dock.hide()


@pytest.mark.gui
def test_half_of_bart_is_told_where_it_is_run(viewer, tmp_path, messages, qtbot):
    kspace_files(tmp_path)[".hdr"].unlink()
    viewer.open(tmp_path / "bart.cfl", plugin="tomolens")
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Reconstruct")
    messages.clear()
    widget.panel.run_button.click()
    qtbot.waitUntil(lambda: bool(messages), timeout=30_000)
    assert "bart.hdr: BART's header is missing" in messages[0]


@pytest.mark.gui
def test_a_dicom_folder_opens_with_every_voxel_in_its_place(viewer, tmp_path):
    for number, name in enumerate(name for name in ACQUIRED if name != TILTED):
        folder = tmp_path / name
        write(folder, name, seed=number, shuffled=True, file_name="IM{:05d}", header={"SeriesDescription": ""})
        (image,) = viewer.open(folder, plugin="tomolens")
        before = scan(name).canonical()
        assert image.name == name
        np.testing.assert_array_equal(image.data, before.voxels)
        np.testing.assert_array_equal(layers.volume_of(image).canonical().voxels, before.voxels)
        np.testing.assert_allclose(image.translate, before.grid.to_mm((0, 0, 0))[::-1], atol=1e-3)
    assert viewer.canvas.overlays["tomolens_left"].text == "R"


@pytest.mark.gui
def test_a_single_file_and_a_stack_of_files_open_too(viewer, tmp_path):
    files = write(tmp_path)
    (one,) = viewer.open(files[5], plugin="tomolens")
    assert one.data.shape == (1, 36, 32)
    (stack,) = viewer.open(files, stack=True, plugin="tomolens")
    assert stack.data.shape == (26, 36, 32)


def test_two_folders_that_are_opened_together_are_looked_through(tmp_path):
    files = write(tmp_path / "first")
    (tmp_path / "second").mkdir()
    for file in files[13:]:
        file.rename(tmp_path / "second" / file.name)
    folders = [str(tmp_path / "first"), str(tmp_path / "second")]
    ((data, _, _),) = get_reader(folders)(folders)
    assert data.shape == (26, 36, 32)


@pytest.mark.gui
def test_a_file_in_a_stack_that_is_no_image_is_passed_over_by_name(viewer, tmp_path, messages):
    files = write(tmp_path)
    (tmp_path / "notes.dcm").write_text("text")
    (stack,) = viewer.open([*files, tmp_path / "notes.dcm"], stack=True, plugin="tomolens")
    assert stack.data.shape == (26, 36, 32)
    assert len(messages) == 1
    assert f"{tmp_path / 'notes.dcm'}: not a DICOM file" in messages[0]


@pytest.mark.gui
def test_a_damaged_file_beside_a_series_is_named_and_a_text_is_not(viewer, tmp_path, messages):
    damaged = write(tmp_path)[-1]
    damaged.write_bytes(damaged.read_bytes()[:200])
    (tmp_path / "notes.txt").write_text("text")
    viewer.open(tmp_path, plugin="tomolens")
    assert any(str(damaged) in message for message in messages)
    assert not any("notes.txt" in message for message in messages)


@pytest.mark.gui
def test_image_files_open_in_the_same_place_whatever_their_format(viewer, tmp_path):
    volume = scan("coronal from the front")
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha"):
        (image,) = viewer.open(write_volume(volume, tmp_path / f"scan{suffix}"), plugin="tomolens")
        assert image.name.startswith("scan")
        np.testing.assert_array_equal(image.data, volume.canonical().voxels)
        expected = volume.canonical().grid.to_mm((0, 0, 0))[::-1]
        np.testing.assert_allclose(image.translate, expected, atol=1e-3)


@pytest.mark.gui
def test_a_guess_at_the_modality_is_said(viewer, tmp_path, messages):
    import SimpleITK

    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(scan().voxels), tmp_path / "plain.nrrd")
    viewer.open(tmp_path / "plain.nrrd", plugin="tomolens")
    assert len(messages) == 1
    assert "taken for CT: plain.nrrd does not say" in messages[0]


@pytest.mark.gui
def test_all_that_is_known_of_an_image_file_is_said(viewer, tmp_path, messages):
    path = write_volume(replace(scan(), history=("resampled to remove a tilt",)), tmp_path / "scan.nrrd")
    viewer.open(path, plugin="tomolens")
    assert any("resampled to remove a tilt" in message for message in messages)


@pytest.mark.gui
def test_of_several_series_the_user_chooses(viewer, tmp_path, qtbot):
    write(tmp_path, seed=1, header={"SeriesDescription": "Lung", "SeriesNumber": 1})
    write(tmp_path, "sagittal from the left", seed=2, file_name="b{}", header={"SeriesDescription": "Bone"})
    write(tmp_path, seed=3, file_name="c{}", header={"SeriesDescription": "Soft", "SeriesNumber": 3})

    def choose(dialog):
        assert isinstance(dialog, SeriesDialog)
        labels = [item.text(0) for item in dialog._items]
        assert any("Lung: CT, 32 x 36 x 26 at 1.30 x 1.10 x 2.00 mm" in label for label in labels)
        button = dialog._buttons.button(QDialogButtonBox.StandardButton.Open)
        assert not button.isEnabled()
        for item in dialog._items:
            item.setSelected("Lung" in item.text(0) or "Soft" in item.text(0))
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    answered = answer(qtbot, choose)
    opened = viewer.open(tmp_path, plugin="tomolens")
    assert len(answered) == 1
    assert sorted(image.name for image in opened) == ["Lung", "Soft"]


@pytest.mark.gui
def test_a_user_who_cancels_gets_nothing(viewer, tmp_path, qtbot, messages):
    write(tmp_path, seed=1)
    write(tmp_path, seed=2, file_name="b{}")
    answer(qtbot, QDialog.reject)
    assert viewer.open(tmp_path, plugin="tomolens") == []
    assert len(viewer.layers) == 0
    assert messages == []


@pytest.mark.gui
def test_in_the_list_a_series_that_cannot_be_one_volume_is_grey_with_its_reason(viewer, tmp_path, qtbot):
    write(tmp_path, seed=1, header={"SeriesDescription": "Whole"})
    gap = write(tmp_path, seed=2, file_name="b{}", header={"SeriesDescription": "Gap"})
    gap[7].unlink()
    seen = {}

    def look(dialog):
        for item in dialog._items:
            seen[item.text(0).split(":")[0].split()[-1]] = (
                bool(item.flags() & Qt.ItemFlag.ItemIsEnabled),
                item.text(1),
            )
        dialog.reject()

    answer(qtbot, look)
    viewer.open(tmp_path, plugin="tomolens")
    assert seen["Whole"] == (True, "")
    assert seen["Gap"][0] is False
    assert "1 slice is missing" in seen["Gap"][1]


@pytest.mark.gui
def test_a_missing_slice_is_refused_with_one_message_that_names_the_gap(viewer, tmp_path, messages):
    write(tmp_path)[7].unlink()
    assert viewer.open(tmp_path, plugin="tomolens") == []
    assert len(messages) == 1
    assert "1 slice is missing" in messages[0]
    assert "4.00 mm between" in messages[0]
    assert len(viewer.layers) == 0


@pytest.mark.gui
@pytest.mark.parametrize(("button", "sheared"), [("As acquired", True), ("Straighten", False)])
def test_a_tilted_gantry_is_asked_about(viewer, tmp_path, qtbot, messages, button, sheared):
    write(tmp_path, TILTED)

    def press(box):
        assert isinstance(box, QMessageBox)
        assert "tilted by 18.5 degrees" in box.text()
        next(b for b in box.buttons() if b.text().replace("&", "") == button).click()

    answered = answer(qtbot, press)
    (image,) = viewer.open(tmp_path, plugin="tomolens")
    assert len(answered) == 1
    assert layers.volume_of(image).grid.is_sheared is sheared
    assert any("shown along its own axes" in message for message in messages) is sheared
    assert (tuple(image.translate) == (0, 0, 0)) is sheared


@pytest.mark.gui
def test_findings_open_beside_the_scan_they_were_made_in(viewer, tmp_path, qtbot, shelf):
    write(tmp_path / "scan")
    (image,) = viewer.open(tmp_path / "scan", plugin="tomolens")
    volume = layers.volume_of(image)
    center = volume.grid.to_mm((13, 18, 16))
    detection = detection_in(volume, Finding(tuple(map(float, center)), 8.0, 0.9))
    path = write_detection(replace(detection, volume=None), tmp_path / "out")
    (points,) = viewer.open(path, plugin="tomolens")
    assert isinstance(points, Points)
    np.testing.assert_allclose(layers.center_of(points, 0), center[::-1], atol=1e-3)
    assert layers.detection_of(points).findings == detection.findings
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Detect lung nodules")
    assert widget.table.rowCount() == 1


@pytest.mark.gui
def test_a_broken_file_is_one_message(viewer, tmp_path, messages):
    (tmp_path / "broken.nii.gz").write_bytes(b"no gzip at all")
    assert viewer.open(tmp_path / "broken.nii.gz", plugin="tomolens") == []
    assert len(messages) == 1
    assert "broken.nii.gz" in messages[0]


def test_a_broken_file_raises_where_nobody_looks(tmp_path):
    (tmp_path / "broken.nii.gz").write_bytes(b"no gzip at all")
    with pytest.raises(ReadError, match=r"broken\.nii\.gz"):
        get_reader(str(tmp_path / "broken.nii.gz"))(str(tmp_path / "broken.nii.gz"))
    assert NOTHING == [(None,)]


@pytest.mark.gui
def test_an_mr_is_windowed_by_its_own_numbers(viewer, tmp_path):
    marked = scan()
    mr = Volume((marked.voxels + 1000).astype(np.float32), marked.grid, Unit.ARBITRARY, "MR")
    (image,) = viewer.open(write_volume(mr, tmp_path / "mr.nii.gz"), plugin="tomolens")
    low, high = image.contrast_limits
    assert 0 <= low < high <= 1700
    assert viewer.canvas.overlays["tomolens_window"].text.startswith("W ")


@pytest.mark.gui
def test_a_whole_real_ct_opens_where_its_annotations_say_the_nodule_is(viewer, shared_data):
    (image,) = viewer.open(shared_data / "open" / "ct" / "LIDC-IDRI-0314", plugin="tomolens")
    x, y, z = -57.43923954, 131.2325201, -520.3592267
    k, j, i = np.round(image.world_to_data((z, y, x))).astype(int)
    nodule = image.data[k - 2 : k + 3, j - 2 : j + 3, i - 2 : i + 3]
    assert image.data.shape == (275, 512, 512)
    assert nodule.mean() > -200  # in the middle of aerated lung
