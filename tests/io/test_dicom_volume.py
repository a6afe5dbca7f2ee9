from __future__ import annotations

import csv
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.io.slices import AXIAL, CORONAL, SAGITTAL, THICKNESS, stored_volume, write_series, write_slice
from tomolens.core.errors import Cancelled, GeometryError, MissingSliceError, OptionError, ReadError
from tomolens.core.progress import Step
from tomolens.core.volume import Unit
from tomolens.io.dicom_series import find_series
from tomolens.io.dicom_volume import read_series
from tomolens.io.read import read_volume

OBLIQUE = (0.8, 0.6, 0.0, 0.36, -0.48, 0.8)


def test_a_series_becomes_hounsfield_units_on_its_grid(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.voxels, stored_volume() - 1024)
    assert (volume.voxels.dtype, volume.unit, volume.modality) == (np.int16, Unit.HU, "CT")
    expected = [[0, 0, 0.7, -10], [0, 0.8, 0, -20], [2.5, 0, 0, 30], [0, 0, 0, 1]]
    assert np.allclose(volume.grid.affine, expected, atol=1e-12)
    assert volume.grid.frame_of_reference == "1.2.3.3"
    assert (volume.padding, volume.history) == (None, ())
    assert volume.series is not None
    assert volume.series.label.startswith("3  Chest")


@pytest.mark.parametrize(
    ("orientation", "letters"), [(AXIAL, "SPL"), (CORONAL, "PIL"), (SAGITTAL, "RIP"), (OBLIQUE, "ASL")]
)
def test_every_voxel_lies_where_its_own_slice_says(
    tmp_path: Path, orientation: tuple[float, ...], letters: str
) -> None:
    write_series(tmp_path, orientation=orientation)
    volume = read_volume(tmp_path)
    normal = np.cross(orientation[:3], orientation[3:])
    for k, j, i in [(0, 0, 0), (5, 0, 0), (0, 6, 0), (0, 0, 8), (3, 2, 7)]:
        by_hand = np.array([-10, -20, 30]) + k * 2.5 * normal
        by_hand = by_hand + j * 0.8 * np.array(orientation[3:]) + i * 0.7 * np.array(orientation[:3])
        assert volume.grid.to_mm((k, j, i)) == pytest.approx(by_hand)
        assert volume.voxels[k, j, i] == 100 + 100 * k + 10 * j + i - 1024
    assert "".join(volume.grid.axis_letters) == letters


def test_sagittal_coronal_and_axial_scans_of_one_patient_agree_at_every_point(tmp_path: Path) -> None:
    """Isotropic slices through one synthetic patient whose value is a function of the place alone."""
    volumes = []
    for name, orientation in [("axial", AXIAL), ("coronal", CORONAL), ("sagittal", SAGITTAL)]:
        row, column = np.array(orientation[:3]), np.array(orientation[3:])
        normal = np.cross(row, column)
        first = 10.0 - 5 * (row + column + normal)
        k, j, i = np.indices((11, 11, 11))
        places = first + k[..., None] * normal + j[..., None] * column + i[..., None] * row
        stored = np.round(places @ [1, 20, 400]).astype(np.int16)
        place = {"first": tuple(first), "step": tuple(normal), "orientation": orientation}
        write_series(tmp_path / name, stored, PixelSpacing=[1, 1], **place)
        volumes.append(read_volume(tmp_path / name).canonical())
    for volume in volumes:
        assert volume.grid.axis_letters == ("S", "P", "L")
        assert np.allclose(volume.grid.affine, volumes[0].grid.affine)
        assert np.array_equal(volume.voxels, volumes[0].voxels)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(5)), st.permutations(range(5)))
def test_names_numbers_and_their_order_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, names: list[int], numbers: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("series")
    for k, stored in enumerate(stored_volume(5)):
        write_slice(folder / f"{names[k]}", stored, (0.0, 0.0, k * THICKNESS), InstanceNumber=numbers[k])
    volume = read_volume(folder)
    assert np.array_equal(volume.voxels, stored_volume(5) - 1024)
    assert volume.grid.to_mm((0, 0, 0)) == pytest.approx((0, 0, 0))


def test_whole_slopes_that_differ_from_slice_to_slice_stay_exact_integers(tmp_path: Path) -> None:
    for k, stored in enumerate(stored_volume()):
        write_slice(tmp_path / f"{k}", stored, (0.0, 0.0, k * 1.0), RescaleSlope=k + 1, RescaleIntercept=-1000 - k)
    volume = read_volume(tmp_path)
    k = np.arange(6)[:, None, None]
    assert volume.voxels.dtype == np.int16
    assert np.array_equal(volume.voxels, stored_volume() * (k + 1) - 1000 - k)


def test_fractional_slopes_that_differ_from_slice_to_slice_become_float32(tmp_path: Path) -> None:
    for k, stored in enumerate(stored_volume()):
        write_slice(tmp_path / f"{k}", stored, (0.0, 0.0, k * 1.0), RescaleSlope=f"{0.1 * (k + 1):.1f}")
    volume = read_volume(tmp_path)
    k = np.arange(6)[:, None, None]
    assert volume.voxels.dtype == np.float32
    assert np.allclose(volume.voxels, stored_volume() * 0.1 * (k + 1) - 1024, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_the_ends_of_every_stored_type_are_read_with_their_sign(tmp_path: Path, dtype: Any) -> None:
    ends = np.iinfo(dtype)
    stored = np.zeros((3, 4, 5), dtype)
    stored[1, 2, 3], stored[2, 0, 1] = ends.min, ends.max
    write_series(tmp_path, stored)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.voxels.astype(int), stored.astype(int) - 1024)


def test_numbers_too_wide_for_16_bits_become_float32_and_stay_exact(tmp_path: Path) -> None:
    stored = np.full((3, 4, 5), 60000, np.uint16)
    write_series(tmp_path, stored)
    volume = read_volume(tmp_path)
    assert (volume.voxels.dtype, volume.voxels[0, 0, 0]) == (np.float32, 58976)


def test_a_sign_in_12_bits_is_extended(tmp_path: Path) -> None:
    stored = np.zeros((3, 4, 5), np.int16)
    stored[0, 0, 0] = 0x0F00  # -256 in 12 bits
    write_series(tmp_path, stored, BitsStored=12, HighBit=11, RescaleIntercept=0)
    assert read_volume(tmp_path).voxels[0, 0, 0] == -256


def test_an_overlay_in_the_unused_high_bits_is_no_density(tmp_path: Path) -> None:
    stored = np.full((3, 4, 5), 1024, np.uint16)
    stored[1, 1, 1] |= 0x8000
    for path in write_series(tmp_path, stored, BitsStored=12, HighBit=11):
        dataset = pydicom.dcmread(path)
        dataset.add_new((0x6002, 0x0102), "US", 15)
        dataset.save_as(path)
    assert not read_volume(tmp_path).voxels.any()


@pytest.mark.parametrize(("dtype", "value"), [(np.int16, 5000), (np.int16, 3000), (np.uint16, 5000)])
def test_values_that_need_more_bits_than_are_stored_are_refused_with_the_numbers(
    tmp_path: Path, dtype: Any, value: int
) -> None:
    stored = np.zeros((3, 4, 5), dtype)
    stored[1, 1, 1], stored[1, 2, 2] = value, np.iinfo(dtype).min // 32
    write_series(tmp_path, stored, BitsStored=12, HighBit=11)
    with pytest.raises(ReadError, match=rf"001\.dcm: .* to {value}, but the 12 bits stored hold"):
        read_volume(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "padding", "least"), [(np.int16, -32768, -2048), (np.uint16, 63536, 0), (np.uint16, 65535, 0)]
)
def test_padding_that_the_stored_bits_cannot_hold_is_neither_tissue_nor_bone(
    tmp_path: Path, dtype: Any, padding: int, least: int
) -> None:
    stored = stored_volume().astype(dtype)
    stored[:, 0, 0] = padding
    write_series(tmp_path, stored, BitsStored=12, HighBit=11, PixelPaddingValue=padding)
    volume = read_volume(tmp_path)
    assert volume.padding == least - 1024
    assert (volume.voxels == volume.padding).sum() == 6
    assert np.array_equal(volume.voxels[:, 1:], stored_volume()[:, 1:] - 1024)


def test_a_range_of_padding_beyond_the_pixels_bits_marks_nothing(tmp_path: Path) -> None:
    stored = stored_volume(1).astype(np.uint8)
    write_series(tmp_path, stored, PixelPaddingValue=65535, PixelPaddingRangeLimit=65000)
    assert np.array_equal(read_volume(tmp_path).voxels, stored.astype(int) - 1024)


def test_inverted_display_changes_no_number(tmp_path: Path) -> None:
    write_series(tmp_path, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_volume(tmp_path).voxels, stored_volume() - 1024)


def test_the_padding_value_is_rescaled_with_the_numbers(tmp_path: Path) -> None:
    stored = stored_volume()
    stored[:, 0, 0] = -2000
    write_series(tmp_path, stored, PixelPaddingValue=-2000)
    volume = read_volume(tmp_path)
    assert volume.padding == -3024
    assert (volume.voxels == volume.padding).sum() == 6


def test_a_range_of_padding_values_becomes_one(tmp_path: Path) -> None:
    stored = stored_volume()
    stored[:, 0, :3] = (-2000, -1990, -1980)
    write_series(tmp_path, stored, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1985)
    volume = read_volume(tmp_path)
    assert volume.voxels[0, 0, :3].tolist() == [-3024, -3024, -3004]


def test_mr_has_no_unit(tmp_path: Path) -> None:
    write_series(tmp_path, Modality="MR", leave_out=("RescaleSlope", "RescaleIntercept"))
    volume = read_volume(tmp_path)
    assert (volume.unit, volume.modality) == (Unit.ARBITRARY, "MR")
    assert np.array_equal(volume.voxels, stored_volume())


@pytest.mark.parametrize(
    ("elements", "accepted"),
    [
        ({"RescaleType": "HU"}, True),
        ({"RescaleType": "US"}, True),
        ({"RescaleType": "US", "ImageType": ["DERIVED", "PRIMARY", "PERFUSION"]}, False),
        ({"RescaleType": "OD"}, False),
        ({"RescaleType": "Z_EFF"}, False),
        ({"RescaleType": "US", "MultienergyCTAcquisition": "YES"}, False),
        ({"leave_out": ("RescaleIntercept",)}, False),
    ],
    ids=str,
)
def test_ct_is_read_where_the_standard_makes_it_hounsfield_units(
    tmp_path: Path, elements: dict[str, Any], accepted: bool
) -> None:
    write_series(tmp_path, **elements)
    if accepted:
        assert read_volume(tmp_path).unit == Unit.HU
    else:
        with pytest.raises(ReadError, match="Hounsfield"):
            read_volume(tmp_path)


def test_numbers_from_a_table_are_refused(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    write_series(tmp_path, ModalityLUTSequence=[Dataset()])
    with pytest.raises(ReadError, match="Modality LUT"):
        read_volume(tmp_path)


@pytest.mark.parametrize(("slope", "modality"), [(0, "CT"), (-1, "CT"), (0, "MR")])
def test_a_slope_that_cannot_be_meant_is_refused_with_its_file_and_value(
    tmp_path: Path, slope: int, modality: str
) -> None:
    write_series(tmp_path, Modality=modality)
    write_slice(tmp_path / "003.dcm", stored_volume()[3], (-10, -20, 37.5), RescaleSlope=slope, Modality=modality)
    with pytest.raises(ReadError, match=rf"RescaleSlope of 003\.dcm is {slope}"):
        read_volume(tmp_path)


def test_a_series_with_a_missing_slice_is_refused_and_names_the_gap(tmp_path: Path) -> None:
    write_series(tmp_path, 9, only={0, 1, 2, 3, 5, 6, 7, 8})
    with pytest.raises(MissingSliceError) as refused:
        read_volume(tmp_path)
    message = str(refused.value)
    assert "3  Chest" in message
    assert "1 slice is missing: 5.00 mm between 003.dcm and 005.dcm (at 37.50 and 42.50 mm)" in message


def test_the_longest_run_of_a_broken_series_is_read_on_request_and_recorded(tmp_path: Path) -> None:
    write_series(tmp_path, 9, only={0, 1, 2, 4, 5, 6, 7, 8})
    volume = read_volume(tmp_path, missing="keep-largest")
    assert np.array_equal(volume.voxels, stored_volume(9)[4:] - 1024)
    assert volume.grid.to_mm((0, 0, 0)) == pytest.approx((-10, -20, 40))
    assert volume.history == ("kept the longest run of equally distant slices: slices 4 to 8 of 8, 40.00 to 50.00 mm",)


def test_repeated_places_are_refused_even_when_gaps_are_accepted(tmp_path: Path) -> None:
    write_series(tmp_path, name="a{}")
    write_series(tmp_path, name="b{}")
    with pytest.raises(GeometryError, match="6 of 12 slices lie where another one lies"):
        read_volume(tmp_path, missing="keep-largest")


def test_copies_of_an_instance_are_read_once(tmp_path: Path) -> None:
    for path in write_series(tmp_path / "a"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert np.array_equal(read_volume(tmp_path).voxels, stored_volume() - 1024)


def test_two_files_that_claim_to_be_one_instance_but_differ_are_refused(tmp_path: Path) -> None:
    """As a denoiser leaves them that keeps the original UIDs."""
    path = write_series(tmp_path)[3]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    (tmp_path / "denoised.dcm").write_bytes(content)
    with pytest.raises(ReadError, match=r"003\.dcm and .*denoised\.dcm claim to be one instance"):
        read_volume(tmp_path)


def test_a_tilted_gantry_keeps_its_shear(tmp_path: Path) -> None:
    write_series(tmp_path, step=(0.0, 0.8, 2.4))
    volume = read_volume(tmp_path)
    assert volume.grid.is_sheared
    assert volume.grid.to_mm((5, 0, 0)) == pytest.approx((-10, -20 + 5 * 0.8, 30 + 5 * 2.4))
    assert np.array_equal(volume.voxels, stored_volume() - 1024)


def test_a_tilt_of_whole_voxels_is_resampled_exactly(tmp_path: Path) -> None:
    write_series(tmp_path, step=(0.0, 1.6, 2.4))
    sheared, upright = read_volume(tmp_path), read_volume(tmp_path, tilt="resample")
    assert not upright.grid.is_sheared
    assert upright.shape == (6, 7 + 10, 9)
    assert upright.padding == -1024
    places = np.moveaxis(np.indices(sheared.shape), 0, -1)
    there = np.round(upright.grid.to_kji(sheared.grid.to_mm(places))).astype(int)
    assert np.allclose(upright.grid.to_mm(there), sheared.grid.to_mm(places))
    assert np.array_equal(upright.voxels[tuple(np.moveaxis(there, -1, 0))], sheared.voxels)
    assert (upright.voxels != -1024).sum() == sheared.voxels.size
    assert "resampled onto a rectangular grid" in upright.history[0]


@settings(max_examples=20, deadline=None)
@given(st.floats(-2, 2), st.floats(-2, 2))
def test_a_resampled_tilt_moves_nothing(tmp_path_factory: pytest.TempPathFactory, down: float, right: float) -> None:
    """A linear ramp over the patient is interpolated exactly, so the number at a place must not change."""
    folder = tmp_path_factory.mktemp("series")
    k, j, i = np.indices((4, 12, 14))
    places = np.stack([right * k + 0.7 * i, down * k + 0.8 * j, 3.0 * k], axis=-1)
    stored = np.round(places @ [300, 200, 100]).astype(np.int16)
    write_series(folder, stored, first=(0, 0, 0), step=(right, down, 3.0), RescaleIntercept=0)
    upright = read_volume(folder, tilt="resample")
    where = np.argwhere(upright.voxels != -1024 if upright.padding is not None else np.isfinite(upright.voxels))
    there = upright.grid.to_mm(where)
    old = read_volume(folder).grid.to_kji(there)
    inside = ((old >= 0) & (old <= np.array([3, 11, 13]))).all(axis=1)
    assert inside.sum() >= 4 * 11 * 13
    assert np.allclose(upright.voxels[tuple(where[inside].T)], there[inside] @ [300, 200, 100], atol=1.5)


def test_padding_is_not_mixed_into_tissue_when_a_tilt_is_resampled(tmp_path: Path) -> None:
    stored = np.full((4, 9, 9), 1024, np.int16)
    stored[:, :, :3] = -2000
    stored[:, :2, :] = -2000
    write_series(tmp_path, stored, step=(0.0, 0.5, 2.4), PixelPaddingValue=-2000)
    upright = read_volume(tmp_path, tilt="resample")
    assert set(np.unique(upright.voxels)) == {-3024, 0}


def test_an_upright_scan_is_left_as_it_is_when_a_tilt_would_be_resampled(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume = read_volume(tmp_path, tilt="resample")
    assert (volume.shape, volume.history) == ((6, 7, 9), ())


def test_options_that_are_not_known_are_refused_by_name(tmp_path: Path) -> None:
    write_series(tmp_path)
    (series,) = find_series(tmp_path)
    with pytest.raises(OptionError, match="tilt is one of keep, resample, not 'drop'"):
        read_series(series, tilt="drop")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="missing is one of refuse, keep-largest, not 'fill'"):
        read_series(series, missing="fill")  # type: ignore[arg-type]


def test_pixels_cut_short_are_refused_with_the_file(tmp_path: Path) -> None:
    path = write_series(tmp_path)[4]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ReadError, match=r"004\.dcm.*cut short"):
        read_volume(tmp_path)


def test_a_file_that_vanished_since_the_scan_is_refused_with_its_name(tmp_path: Path) -> None:
    path = write_series(tmp_path)[4]
    (series,) = find_series(tmp_path)
    path.unlink()
    with pytest.raises(ReadError, match=r"004\.dcm: no such file"):
        read_series(series)


def test_files_that_changed_since_the_scan_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path)
    (series,) = find_series(tmp_path)
    write_slice(tmp_path / "004.dcm", stored_volume()[4], (0.0, 0.0, 200.0))
    with pytest.raises(ReadError, match="changed since the folder was scanned"):
        read_series(series)


def test_progress_counts_every_slice_and_a_cancel_leaves_no_thread_behind(tmp_path: Path) -> None:
    write_series(tmp_path, 40)
    (series,) = find_series(tmp_path)
    steps: list[Step] = []
    read_series(series, progress=steps.append)
    assert steps == [Step("read slices", n, 40) for n in range(41)]

    def cancel(step: Step) -> None:
        if step.done == 3:
            raise Cancelled

    before = threading.active_count()
    with pytest.raises(Cancelled):
        read_series(series, progress=cancel)
    assert threading.active_count() == before


def test_reading_changes_neither_a_byte_nor_a_date(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    for path in files:
        path.chmod(0o444)
    before = [(p.read_bytes(), p.stat().st_mtime_ns) for p in files]
    read_volume(tmp_path)
    assert [(p.read_bytes(), p.stat().st_mtime_ns) for p in files] == before
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_one_slice_is_as_thick_as_it_says(tmp_path: Path) -> None:
    volume = read_volume(write_slice(tmp_path / "a", stored_volume(1)[0]))
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.7))


def test_one_slice_that_does_not_say_how_thick_it_is_is_taken_for_1_mm_and_that_is_said(tmp_path: Path) -> None:
    write_slice(tmp_path / "a", stored_volume(1)[0], leave_out=("SliceThickness",))
    volume = read_volume(tmp_path)
    assert volume.spacing_mm[0] == 1
    assert volume.series is not None
    assert [p.kind for p in volume.series.problems] == ["no-thickness"]


@pytest.mark.parametrize("folder", ["open/ct/LIDC-IDRI-0314", "dicom_tricky/totalseg_j2k_no_series_uid"])
def test_a_plain_real_series_is_what_simpleitk_reads(shared_data: Path, folder: str) -> None:
    volume = read_volume(shared_data / folder)
    reader = sitk.ImageSeriesReader()
    assert volume.series is not None
    reader.SetFileNames([str(p) for p in volume.series.files])
    image = reader.Execute()
    assert np.array_equal(sitk.GetArrayViewFromImage(image), volume.voxels)
    for k, j, i in [(0, 0, 0), (volume.shape[0] - 1, 0, 0), (3, 500, 17)]:
        assert volume.grid.to_mm((k, j, i)) == pytest.approx(image.TransformIndexToPhysicalPoint((i, j, k)), abs=1e-3)


def test_the_real_nodule_stands_where_its_annotation_says(shared_data: Path) -> None:
    """LUNA16's centre of the one accepted nodule of LIDC-IDRI-0314: soft tissue there, lung around it."""
    folder = shared_data / "open" / "ct"
    volume = read_volume(folder / "LIDC-IDRI-0314")
    with (folder / "annotations.csv").open() as file:
        (row,) = (r for r in csv.DictReader(file) if volume.series and volume.series.uid in r.values())
    x, y, z = (float(row[name]) for name in ("coordX", "coordY", "coordZ"))
    k, j, i = np.round(volume.grid.to_kji((x, y, z))).astype(int)
    assert volume.voxels[k - 1 : k + 2, j - 2 : j + 3, i - 2 : i + 3].mean() > -200


def test_a_real_tilted_head_keeps_its_shear_and_is_resampled_on_request(shared_data: Path) -> None:
    folder = shared_data / "dicom_tricky" / "gantry_tilt_GE_head"
    volume = read_volume(folder, part=1)
    assert volume.grid.tilt_degrees == pytest.approx(18.5, abs=0.01)
    assert volume.grid.to_mm((4, 0, 0)) == pytest.approx((-125, -123.5404569, 60.6960586), abs=1e-4)
    assert volume.padding == -1500
    upright = read_volume(folder, part=1, tilt="resample")
    assert not upright.grid.is_sheared
    assert upright.spacing_mm[0] == pytest.approx(4.22 * np.cos(np.radians(18.5)), abs=1e-3)
    # the skull, thresholded, has its centre of mass at the same place in the patient
    for level in (300, 700):
        centres = [v.grid.to_mm(np.argwhere(v.voxels > level).mean(axis=0)) for v in (volume, upright)]
        assert np.abs(centres[0] - centres[1]).max() < 0.25
