from __future__ import annotations

import gc
import json
import weakref

import pytest

from tests.cli import scans
from tests.cli.test_reconstruct import measurement
from tomolens import write_volume
from tomolens.phantoms.markers import marked_volume


@pytest.fixture
def study(tmp_path):
    root = tmp_path / "scans"
    scans.ct(root / "a", seed=10, description="Lung 1.0 B60f")
    scans.ct_with_a_gap(root / "b")
    scans.mr(root / "c", seed=13)
    (root / "notes.txt").write_text("not an image")
    return root


def test_every_series_is_told_with_its_size_spacing_and_plane(tomolens, study):
    result = tomolens("info", study)
    assert result.exit_code == 0
    assert "Lung 1.0 B60f: CT, 28 x 24 x 16 at 1.50 x 1.50 x 2.50 mm" in result.stdout
    assert "16 files, axial" in result.stdout
    assert "T2: MR" in result.stdout


def test_a_series_that_cannot_be_read_says_refused_and_why(tomolens, study):
    assert "REFUSED: 1 slice is missing" in tomolens("info", study).stdout


def test_a_file_in_no_series_is_told_with_the_reason(tomolens, study):
    assert "notes.txt: not a DICOM file" in tomolens("info", study).stdout


def test_long_lines_are_not_cut_where_there_is_no_terminal(tomolens, study):
    gap = next(line for line in tomolens("info", study).stdout.splitlines() if "missing" in line)
    assert gap.endswith("2.50 mm.")


def test_no_patient_is_named(tomolens, study):
    shown = tomolens("info", study).stdout + tomolens("info", study, "--json").stdout
    assert not [word for word in ("Doe", "Jane", "19420229", "MRN-4711") if word in shown]


def test_the_json_holds_what_another_program_needs_to_choose_a_series(tomolens, study):
    told = json.loads(tomolens("info", study, "--json").stdout)
    assert (told["schema"], told["schema_version"]) == ("tomolens/info", 1)
    by_name = {series["description"]: series for series in told["series"]}
    lung = by_name["Lung 1.0 B60f"]
    assert lung["shape"] == [16, 24, 28]
    assert lung["spacing_mm"] == pytest.approx([2.5, 1.5, 1.5])
    assert (lung["modality"], lung["files"], lung["refused"], lung["problems"]) == ("CT", 16, False, [])
    assert by_name["Gap"]["refused"]
    assert by_name["Gap"]["problems"][0]["kind"] == "missing-slice"
    assert told["passed_over"] == [{"path": str(study / "notes.txt"), "reason": "not a DICOM file"}]


def test_an_image_file_is_told_too_and_what_was_guessed_of_it(tomolens, tmp_path):
    path = write_volume(marked_volume(scans.GRID), tmp_path / "case.nrrd")
    result = tomolens("info", path)
    assert "CT, 28 x 24 x 16 at 1.50 x 1.50 x 2.50 mm, axial, HU" in result.stdout
    (image,) = json.loads(tomolens("info", tmp_path, "--json").stdout)["images"]
    assert (image["shape"], image["orientation"], image["unit"]) == ([16, 24, 28], "axial", "HU")


def test_k_space_is_told_with_its_coils_matrix_slices_and_acceleration(tomolens, tmp_path):
    measurement(tmp_path / "raw")
    (tmp_path / "raw" / "broken.npz").write_bytes((tmp_path / "raw" / "brain.npz").read_bytes()[:-40])
    result = tomolens("info", tmp_path)
    assert "k-space, 4 coils, 20 x 24 x 3 at 2.00 x 2.00 x 4.00 mm, 2x accelerated" in result.stdout
    told = json.loads(tomolens("info", tmp_path, "--json").stdout)
    (raw,) = told["kspace"]
    assert (raw["coils"], raw["shape"], raw["acceleration"], raw["refused"]) == (4, [3, 24, 20], 2.0, False)
    assert (told["images"], len(told["passed_over"])) == ([], 1)


def test_no_more_than_one_image_file_is_in_memory_at_a_time(tomolens, tmp_path, monkeypatch):
    from tomolens.io import read

    for n in range(3):
        write_volume(marked_volume(scans.GRID), tmp_path / f"{n}.nii")
    volumes, alive = [], []

    def read_and_note(path):
        gc.collect()
        alive.append(sum(volume() is not None for volume in volumes))
        volume = read_volume(path)
        volumes.append(weakref.ref(volume))
        return volume

    read_volume = read.read_volume
    monkeypatch.setattr(read, "read_volume", read_and_note)
    assert tomolens("info", tmp_path).stdout.count("CT, 28 x 24 x 16") == 3
    assert alive == [0, 0, 0]


def test_a_damaged_image_file_is_told_as_refused_and_the_others_still_are_told(tomolens, tmp_path):
    write_volume(marked_volume(scans.GRID), tmp_path / "good.nii.gz")
    (tmp_path / "bad.nii.gz").write_bytes(b"not a NIfTI")
    result = tomolens("info", tmp_path)
    assert result.exit_code == 0
    assert "REFUSED" in result.stdout
    assert "CT, 28 x 24 x 16" in result.stdout


def test_a_folder_without_an_image_ends_with_one(tomolens, tmp_path):
    result = tomolens("info", tmp_path)
    assert result.exit_code == 1
    assert "no image series" in result.stdout


def test_many_files_that_are_no_images_are_counted_and_ten_of_them_are_named(tomolens, tmp_path):
    for n in range(14):
        (tmp_path / f"{n}.txt").write_text("text")
    told = tomolens("info", tmp_path).stdout
    assert "14 files passed over" in told
    assert told.count("not a DICOM file") == 10
    assert "and 4 more" in told


def test_what_cannot_be_read_is_told_for_real_files(tomolens, shared_data):
    result = tomolens("info", shared_data / "dicom_tricky")
    assert result.exit_code == 0
    assert "The gantry was tilted by 18.5 degrees" in result.stdout
    assert "SeriesInstanceUID is empty" in result.stdout
    assert "a segmentation (SEG), not an acquired image" in result.stdout
