"""A generated volume written as DICOM is the same volume when it is read, and says that it is no patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from tomolens.core.errors import GeometryError, OptionError
from tomolens.core.grid import Grid
from tomolens.core.volume import Unit, Volume
from tomolens.io.read import read_volume
from tomolens.io.synthetic_series import write_ct_series, write_mr_series
from tomolens.phantoms.markers import found_markers, marked_volume

AXIAL = Grid.from_axes((14, 18, 16), (2.0, 0.7, 0.8), (-3.0, 5.5, 40.0))
CORONAL = Grid.from_axes((16, 18, 14), (1.5, 0.8, 0.9), (4.0, -9.0, 30.0), [(0, 1, 0), (0, 0, -1), (1, 0, 0)])
TILTED = Grid((20, 24, 28), [[0, 0, 0.8, -5], [0.5, 0.7, 0, 3], [2.0, 0, 0, 40], [0, 0, 0, 1]])


@pytest.mark.parametrize("grid", [AXIAL, CORONAL, TILTED], ids=["axial", "coronal", "tilted"])
@pytest.mark.parametrize("storage", [{}, {"jpeg_ls": False}, {"signed": True}], ids=["jpeg-ls", "plain", "signed"])
def test_every_orientation_and_storage_is_read_back_in_its_place(
    grid: Grid, storage: dict[str, Any], tmp_path: Path
) -> None:
    volume = marked_volume(grid)
    write_ct_series(volume, tmp_path, **storage)
    read = read_volume(tmp_path)
    assert read.grid.orientation == grid.orientation
    assert read.grid.is_sheared == grid.is_sheared
    for side, center in found_markers(volume).items():
        np.testing.assert_allclose(found_markers(read)[side], center, atol=1e-3)


def test_the_same_call_writes_the_same_bytes_and_another_seed_another_series(tmp_path: Path) -> None:
    volume = marked_volume(AXIAL)
    first, again, other = (write_ct_series(volume, tmp_path / str(n), seed=seed) for n, seed in enumerate((1, 1, 2)))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    one, two = (pydicom.dcmread(files[0]) for files in (first, other))
    assert one.SeriesInstanceUID != two.SeriesInstanceUID
    assert one.StudyInstanceUID == two.StudyInstanceUID


def test_files_can_be_named_without_suffix_and_numbered_in_any_order(tmp_path: Path) -> None:
    files = write_ct_series(marked_volume(AXIAL), tmp_path, file_name="IM{:05d}", shuffled=True)
    assert {path.suffix for path in files} == {""}
    assert [path.name for path in files] != sorted(path.name for path in files)
    assert [pydicom.dcmread(path).InstanceNumber for path in files] == list(range(1, len(files) + 1))


def test_each_slice_can_have_its_own_slope(tmp_path: Path) -> None:
    volume = marked_volume(AXIAL)
    slopes = np.linspace(0.5, 4.0, len(volume.voxels))
    files = write_ct_series(volume, tmp_path, slope=list(slopes))
    for path, slope, voxels in zip(files, slopes, volume.voxels, strict=True):
        image = pydicom.dcmread(path)
        hu = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        assert np.abs(hu - voxels).max() <= slope / 2 + 1e-6


def test_nobody_can_take_it_for_a_patient(tmp_path: Path) -> None:
    header = pydicom.dcmread(write_ct_series(marked_volume(AXIAL), tmp_path)[0])
    assert "Phantom" in str(header.PatientName)
    assert list(header.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]


def test_padding_and_header_values_are_written_as_asked(tmp_path: Path) -> None:
    volume = Volume(marked_volume(AXIAL).voxels, AXIAL, padding=-1000.0)
    files = write_ct_series(volume, tmp_path, header={"SeriesDescription": "Lung", "PatientID": "TEST"})
    header = pydicom.dcmread(files[0])
    assert header.PixelPaddingValue + header.RescaleIntercept == -1000
    assert header.SeriesDescription == "Lung"
    assert header.PatientID == "TEST"


def test_a_magnetic_resonance_volume_is_read_back(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 1000, AXIAL.shape).astype(np.int16)
    write_mr_series(Volume(voxels, AXIAL, Unit.ARBITRARY, "MR"), tmp_path)
    read = read_volume(tmp_path)
    assert read.modality == "MR"
    assert np.array_equal(read.voxels, voxels)


def test_rows_and_columns_that_are_not_at_right_angles_are_refused(tmp_path: Path) -> None:
    affine = [[0, 0.3, 0.8, 0], [0, 0.7, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]]
    volume = Volume(np.zeros((3, 4, 5), np.int16), Grid((3, 4, 5), affine))
    with pytest.raises(GeometryError, match="right angles"):
        write_ct_series(volume, tmp_path)


@pytest.mark.parametrize("slope", [0.0, [1.0, 2.0], 0.001])
def test_a_slope_that_cannot_hold_the_values_is_refused(slope: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"slope|fit"):
        write_ct_series(marked_volume(AXIAL), tmp_path, slope=slope)
