from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.io.slices import SERIES, stored_volume, write_series, write_slice
from tomolens.core.errors import AmbiguousSource, ReadError
from tomolens.core.grid import Grid
from tomolens.core.volume import Volume
from tomolens.io.dicom_series import find_series
from tomolens.io.read import read_volume
from tomolens.io.write import write_volume

HU = stored_volume() - 1024


def test_a_folder_a_series_and_a_text_path_give_the_same_volume(tmp_path: Path) -> None:
    write_series(tmp_path)
    (series,) = find_series(tmp_path)
    volumes = [read_volume(source) for source in (tmp_path, str(tmp_path), series)]
    for volume in volumes:
        assert np.array_equal(volume.voxels, HU)
        assert volume.grid.same_place(volumes[0].grid)


def test_one_of_several_series_is_never_guessed(tmp_path: Path) -> None:
    write_series(tmp_path, name="a{}")
    write_series(tmp_path, name="b{}", SeriesInstanceUID="1.2.9", SeriesDescription="Lung", SeriesNumber=4)
    with pytest.raises(AmbiguousSource) as refused:
        read_volume(tmp_path)
    message = str(refused.value)
    assert "holds 2 series; choose one by series_uid" in message
    assert "3  Chest: CT, 9 x 7 x 6 at 0.70 x 0.80 x 2.50 mm [1.2.3.1]" in message
    assert "4  Lung" in message
    assert read_volume(tmp_path, series_uid="1.2.9").name == "Lung"


def test_one_of_several_parts_is_never_guessed(tmp_path: Path) -> None:
    write_series(tmp_path, name="a{}", AcquisitionNumber=1)
    write_series(tmp_path, stored_volume() + 1, name="b{}", AcquisitionNumber=2)
    with pytest.raises(
        AmbiguousSource, match=r"Chest part 1: .*AcquisitionNumber 1\.\n.*Chest part 2.*AcquisitionNumber 2\."
    ):
        read_volume(tmp_path, series_uid=SERIES)
    assert np.array_equal(read_volume(tmp_path, part=2).voxels, HU + 1)


def test_a_modality_chooses_among_series(tmp_path: Path) -> None:
    write_series(tmp_path, name="a{}")
    write_series(tmp_path, name="b{}", SeriesInstanceUID="1.2.9", Modality="MR")
    assert read_volume(tmp_path, modality="MR").modality == "MR"
    with pytest.raises(ReadError, match="holds 2 series, but none with modality PT"):
        read_volume(tmp_path, modality="PT")


def test_a_scout_beside_a_scan_does_not_make_the_choice_hard(tmp_path: Path) -> None:
    write_series(tmp_path, name="a{}")
    kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_slice(tmp_path / "scout", stored_volume(1)[0], (0, 0, 0), ImageType=kind, SeriesInstanceUID="1.2.7")
    assert read_volume(tmp_path).shape == (6, 7, 9)


def test_a_scout_alone_is_refused_as_one(tmp_path: Path) -> None:
    write_slice(tmp_path / "scout", stored_volume(1)[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(ReadError, match="A scout"):
        read_volume(tmp_path)


def test_damaged_slices_at_the_ends_of_a_scan_stand_in_its_history(tmp_path: Path) -> None:
    first, *_, last = write_series(tmp_path)
    first.write_bytes(first.read_bytes()[:100])
    write_slice(last, stored_volume()[5], leave_out=("ImagePositionPatient",))
    assert read_volume(tmp_path).history == (
        "passed over 2 files beside the series: 000.dcm: not a DICOM file; "
        "005.dcm: an image without a place in the patient (no ImagePositionPatient)",
    )


def test_files_that_never_were_slices_leave_no_trace_in_the_history(tmp_path: Path) -> None:
    (stored,) = stored_volume(1)
    write_series(tmp_path)
    (tmp_path / "notes.txt").write_text("a" * 300)
    write_slice(tmp_path / "sr.dcm", stored, Modality="SR", leave_out=("Rows", "Columns"))
    write_slice(tmp_path / "seg.dcm", stored, Modality="SEG")
    write_slice(tmp_path / "DICOMDIR", stored, SOPClassUID="1.2.840.10008.1.3.10", leave_out=("Rows", "Columns"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "empty").touch()
    assert read_volume(tmp_path).history == ()


def test_a_folder_without_images_says_what_is_there(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / f"{n}.txt").write_text("a")
    with pytest.raises(ReadError, match=r"holds no image series\. 0\.txt: not a DICOM file; .*and 2 more files"):
        read_volume(tmp_path)


def test_a_series_that_is_not_there_is_refused_by_its_uid(tmp_path: Path) -> None:
    write_series(tmp_path)
    with pytest.raises(ReadError, match=r"holds 1 series, but none with SeriesInstanceUID 9\.9"):
        read_volume(tmp_path, series_uid="9.9")


def test_an_absent_path_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="nothing: no such file or folder"):
        read_volume(tmp_path / "nothing")
    with pytest.raises(ReadError, match=r"nothing\.nii\.gz: no such file or folder"):
        read_volume(tmp_path / "nothing.nii.gz")


def test_suffixes_are_known_in_capitals(tmp_path: Path) -> None:
    path = write_volume(Volume(HU, Grid.from_axes(HU.shape)), tmp_path / "a.nii.gz")
    path.rename(tmp_path / "A.NII.GZ")
    assert np.array_equal(read_volume(tmp_path / "A.NII.GZ").voxels, HU)


def test_a_dicom_file_with_the_suffix_of_an_image_is_no_image(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a.nii", stored_volume(1)[0])
    with pytest.raises(ReadError, match="not a readable NIfTI"):
        read_volume(path)
