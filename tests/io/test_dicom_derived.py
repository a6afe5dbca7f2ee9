"""A derived series is valid DICOM, lies where its source lies, says what it is, and is read back as it was written."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from tests.io.slices import stored_volume, write_enhanced, write_series
from tomolens.core.errors import OutputError
from tomolens.core.grid import Grid
from tomolens.core.reconstruction import GENERATIVE
from tomolens.core.volume import Unit, Volume
from tomolens.io.dicom_derived import Derivation, derivation_description, series_description, write_derived_series
from tomolens.io.read import read_volume
from tomolens.io.synthetic_series import write_ct_series, write_mr_series
from tomolens.phantoms.markers import found_markers, marked_volume

AXIAL = Grid.from_axes((16, 24, 28), (2.5, 1.5, 1.25), (-20.0, -18.0, -300.0))
SAGITTAL = Grid.from_axes((24, 30, 28), (1.2, 0.8, 0.9), (4, -9, 30), [(-1, 0, 0), (0, 0, -1), (0, 1, 0)])
TILTED = Grid((16, 24, 28), [[0, 0, 1.2, -5], [0.9, 1.1, 0, 3], [2.4, 0, 0, 40], [0, 0, 0, 1]])
DENOISED = Derivation("denoised by fake", "smoothing", "fake 1.0", "2026-01-02T03:04:05+00:00")
PATIENT = {"PatientName": "Döe^Jané", "PatientID": "MRN-4711", "PatientBirthDate": "19420229", "PatientSex": "F"}
TYPE_1 = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality FrameOfReferenceUID ImageType"
    " ImagePositionPatient ImageOrientationPatient PixelSpacing Rows Columns SamplesPerPixel BitsAllocated BitsStored"
    " HighBit PixelRepresentation PhotometricInterpretation InstanceNumber SeriesNumber"
).split()
"""What has a value in every CT and MR image (PS3.3 A.3, A.4), and what a list of series is sorted by."""


def ct(folder: Path, grid: Grid = AXIAL, **header: object) -> Volume:
    scan = marked_volume(grid)
    write_ct_series(scan, folder, jpeg_ls=False, header={"SeriesDescription": "Thorax", **PATIENT, **header})
    return read_volume(folder)


def mr(folder: Path, grid: Grid = SAGITTAL) -> Volume:
    numbers = np.arange(np.prod(grid.shape), dtype=np.float32).reshape(grid.shape) % 1900
    write_mr_series(Volume(numbers, grid, Unit.ARBITRARY, "MR"), folder, jpeg_ls=False)
    return read_volume(folder)


def less(volume: Volume, step: str = "ct-denoising by fake 1.0") -> Volume:
    """A volume with other numbers, as a denoiser makes."""
    return volume.with_voxels(np.asarray(volume.voxels // 2, volume.voxels.dtype), step)


def headers(files: list[Path]) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(file) for file in files]


def problems_named_by_dciodvfy(file: Path) -> list[str]:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    lines = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True).stderr.splitlines()
    return [line for line in lines if line.startswith(("Error", "Warning"))]


@pytest.mark.parametrize("grid", [AXIAL, SAGITTAL, TILTED], ids=["axial", "sagittal", "tilted"])
def test_a_ct_is_read_back_as_it_was_written(tmp_path: Path, grid: Grid) -> None:
    made = less(ct(tmp_path / "source", grid))
    write_derived_series(made, tmp_path / "derived", DENOISED)
    again = read_volume(tmp_path / "derived")
    np.testing.assert_array_equal(again.voxels, made.voxels)
    assert again.voxels.dtype == np.int16
    np.testing.assert_array_equal(again.grid.affine, made.grid.affine)
    assert again.grid.same_place(made.grid)
    assert (again.unit, again.modality, again.history) == (Unit.HU, "CT", made.history)


def test_an_mr_of_whole_numbers_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made = less(mr(tmp_path / "source"))
    write_derived_series(made, tmp_path / "derived", DENOISED)
    again = read_volume(tmp_path / "derived")
    np.testing.assert_array_equal(again.voxels, made.voxels)
    assert again.grid.same_place(made.grid)
    assert again.history == made.history


@pytest.mark.parametrize(("largest", "times"), [(1900.0, 1.0), (0.5, 1000.0), (9e5, 0.01)])
def test_an_mr_of_any_numbers_is_rounded_to_integers_and_says_how(tmp_path: Path, largest: float, times: float) -> None:
    source = mr(tmp_path / "source")
    numbers = np.random.default_rng(1).random(source.shape, np.float32) * np.float32(largest)
    made = source.with_voxels(numbers, "made")
    write_derived_series(made, tmp_path / "derived", DENOISED)
    again = read_volume(tmp_path / "derived")
    assert again.history[-1] == f"numbers stored times {times:g}, rounded"
    np.testing.assert_allclose(again.voxels, numbers.astype(float) * times, atol=0.501)


def test_hounsfield_units_that_are_not_whole_are_stored_as_finely_as_16_bits_allow(tmp_path: Path) -> None:
    source = ct(tmp_path / "source")
    numbers = np.random.default_rng(1).uniform(-1000, 1500, source.shape).astype(np.float32)
    write_derived_series(source.with_voxels(numbers, "made"), tmp_path / "derived", DENOISED)
    np.testing.assert_allclose(read_volume(tmp_path / "derived").voxels, numbers, atol=0.051)


@pytest.mark.parametrize("make", [ct, mr])
def test_an_independent_reader_sees_the_same_numbers_in_the_same_place(tmp_path: Path, make) -> None:
    made = less(make(tmp_path / "source"))
    files = write_derived_series(made, tmp_path / "derived", DENOISED)
    reader = sitk.ImageSeriesReader()
    assert len(reader.GetGDCMSeriesIDs(str(tmp_path / "derived"))) == 1
    names = reader.GetGDCMSeriesFileNames(str(tmp_path / "derived"))
    assert sorted(names) == sorted(map(str, files))
    image = sitk.ReadImage(names)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), made.voxels)
    corner = made.grid.to_mm(np.subtract(made.shape, 1))
    np.testing.assert_allclose(
        image.TransformIndexToPhysicalPoint([n - 1 for n in made.shape[::-1]]), corner, atol=1e-3
    )


@pytest.mark.parametrize("make", [ct, mr])
def test_a_validator_finds_nothing_wrong(tmp_path: Path, make) -> None:
    files = write_derived_series(less(make(tmp_path / "source")), tmp_path / "derived", DENOISED)
    assert problems_named_by_dciodvfy(files[0]) == []
    assert problems_named_by_dciodvfy(files[-1]) == []


@pytest.mark.parametrize("make", [ct, mr])
def test_every_image_has_what_no_ct_or_mr_image_is_without(tmp_path: Path, make) -> None:
    for header in headers(write_derived_series(less(make(tmp_path / "source")), tmp_path / "derived", DENOISED)):
        assert not [keyword for keyword in TYPE_1 if header.get(keyword) in (None, "")]
        assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID
        assert header.file_meta.MediaStorageSOPClassUID == header.SOPClassUID


def test_every_image_is_new_and_names_the_very_image_that_it_was_made_from(tmp_path: Path) -> None:
    source = ct(tmp_path / "source")
    originals = [pydicom.dcmread(path) for path in source.series.files]
    made = headers(write_derived_series(less(source), tmp_path / "derived", DENOISED))
    assert len({header.SOPInstanceUID for header in made} | {o.SOPInstanceUID for o in originals}) == 2 * len(made)
    assert {header.SeriesInstanceUID for header in made} & {originals[0].SeriesInstanceUID} == set()
    assert len({header.SeriesInstanceUID for header in made}) == 1
    for header, original in zip(made, originals, strict=True):
        (reference,) = header.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == original.SOPInstanceUID
        assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        for kept in ("StudyInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient"):
            assert header[kept].value == original[kept].value


def test_the_header_says_what_was_done_by_what_and_to_whom(tmp_path: Path) -> None:
    source = ct(tmp_path / "source", Manufacturer="ACME", DeviceSerialNumber="7", SpecificCharacterSet="ISO_IR 100")
    (header, *_) = headers(write_derived_series(less(source), tmp_path / "derived", DENOISED))
    assert list(header.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert header.SeriesDescription == "denoised by fake: Thorax"
    assert header.DerivationDescription.endswith("ct-denoising by fake 1.0")
    assert header.DerivationCodeSequence[0].CodeValue == "113087"
    assert (str(header.PatientName), header.PatientID, header.PatientSex) == ("Döe^Jané", "MRN-4711", "F")
    assert (header.KVP, header.ConvolutionKernel, header.ContentDate) == (120, "PHANTOM", "20260102")
    acquired, processed = header.ContributingEquipmentSequence
    assert (acquired.Manufacturer, acquired.DeviceSerialNumber) == ("ACME", "7")
    assert acquired.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert processed.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert (header.Manufacturer, "DeviceSerialNumber" in header) == ("Tomolens", False)
    assert "fake 1.0" in processed.ContributionDescription


def test_padding_and_past_loss_by_compression_are_kept_and_private_elements_are_not(tmp_path: Path) -> None:
    stored = stored_volume()
    stored[:, :2] = -2000
    lossy = {"LossyImageCompression": "01", "LossyImageCompressionRatio": 9.5, "PixelPaddingValue": -2000}
    write_series(tmp_path / "source", stored, **lossy)
    for path in (tmp_path / "source").iterdir():
        header = pydicom.dcmread(path)
        header.private_block(0x0011, "ACME", create=True).add_new(1, "LO", "whatever")
        header.save_as(path)
    source = read_volume(tmp_path / "source")
    made = headers(write_derived_series(less(source), tmp_path / "derived", DENOISED))
    again = read_volume(tmp_path / "derived")
    assert source.padding is not None
    assert again.padding == source.padding
    assert (made[0].LossyImageCompression, made[0].LossyImageCompressionRatio) == ("01", 9.5)
    assert any(problem.kind == "lossy-compression" for problem in again.series.problems)
    assert not [element for element in made[0] if element.tag.is_private]


def test_a_value_that_is_broken_keeps_no_series_from_being_written(tmp_path: Path) -> None:
    write_series(tmp_path / "source", 4, TimezoneOffsetFromUTC="+0100", KVP=120)
    for path in (tmp_path / "source").iterdir():
        content = path.read_bytes()
        path.write_bytes(content.replace(b"DS\x06\x00120.0 ", b"DS\x06\x00abcde "))
    files = write_derived_series(less(read_volume(tmp_path / "source")), tmp_path / "derived", DENOISED)
    assert pydicom.dcmread(files[0]).ContentTime == "040405"  # in the time zone of its source
    assert read_volume(tmp_path / "derived").shape == (4, 7, 9)


def test_thin_slices_name_the_thick_ones_around_them_and_are_as_thick_as_they_are_far_apart(tmp_path: Path) -> None:
    source = ct(tmp_path / "source")
    thin = source.grid.respaced((source.spacing_mm[0] / 2, *source.spacing_mm[1:]))
    numbers = marked_volume(thin).voxels
    made = replace(source, voxels=numbers, grid=thin, history=(*source.history, "super-resolution by fake 1.0"))
    files = headers(write_derived_series(made, tmp_path / "derived", replace(DENOISED, code="resampling")))
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in source.series.files]
    named = [[uids.index(r.ReferencedSOPInstanceUID) for r in header.SourceImageSequence] for header in files]
    assert named[:5] == [[0], [0, 1], [1, 0], [1, 2], [2, 1]]
    assert {header.SliceThickness for header in files} == {1.25}
    again = read_volume(tmp_path / "derived")
    assert again.grid.same_place(thin)
    np.testing.assert_array_equal(again.voxels, numbers)
    assert problems_named_by_dciodvfy(tmp_path / "derived" / "0002.dcm") == []


def test_slices_that_overlap_stay_as_thick_as_they_were_and_an_upright_grid_has_no_tilt(tmp_path: Path) -> None:
    source = ct(tmp_path / "source", TILTED, SliceThickness=5.0, GantryDetectorTilt=10.0)
    kept = headers(write_derived_series(less(source), tmp_path / "kept", DENOISED))
    assert {(header.SliceThickness, header.GantryDetectorTilt) for header in kept} == {(5.0, 10.0)}
    upright = read_volume(tmp_path / "source", tilt="resample")
    files = headers(write_derived_series(less(upright), tmp_path / "upright", DENOISED))
    assert {(float(header.SliceThickness), float(header.SpacingBetweenSlices)) for header in files} == {(5.0, 2.4)}
    assert not any("GantryDetectorTilt" in header for header in files)


def test_slices_name_the_neighbours_that_they_were_made_from_too(tmp_path: Path) -> None:
    source = ct(tmp_path / "source")
    files = headers(write_derived_series(less(source), tmp_path / "derived", replace(DENOISED, neighbours=1)))
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in source.series.files]
    named = [[uids.index(r.ReferencedSOPInstanceUID) for r in header.SourceImageSequence] for header in files]
    assert named[:3] == [[0, 1], [1, 0, 2], [2, 1, 3]]


def test_a_volume_that_was_turned_stays_where_it_is_in_the_patient(tmp_path: Path) -> None:
    turned = ct(tmp_path / "source").permuted((2, 0, 1)).flipped(0)
    files = write_derived_series(turned, tmp_path / "derived", DENOISED)
    found, expected = found_markers(read_volume(tmp_path / "derived")), found_markers(turned)
    for side, place in expected.items():
        np.testing.assert_allclose(found[side], place, atol=1e-3)
    assert len(pydicom.dcmread(files[0]).SourceImageSequence) == AXIAL.shape[0]


def test_frames_of_one_file_become_single_images_that_name_their_frame(tmp_path: Path) -> None:
    stored = stored_volume(4)
    frames = [(stored[k], {"position": (-10.0, -20.0, 30.0 + 2.5 * k)}) for k in range(4)]
    write_enhanced(tmp_path / "source" / "all.dcm", frames, **PATIENT)
    made = less(read_volume(tmp_path / "source"))
    files = headers(write_derived_series(made, tmp_path / "derived", DENOISED))
    assert [header.SourceImageSequence[0].ReferencedFrameNumber for header in files] == [1, 2, 3, 4]
    assert {header.SOPClassUID.name for header in files} == {"CT Image Storage"}
    again = read_volume(tmp_path / "derived")
    np.testing.assert_array_equal(again.voxels, made.voxels)
    assert again.grid.same_place(made.grid)


def test_the_same_run_again_gives_the_same_uids_and_other_numbers_give_others(tmp_path: Path) -> None:
    source = ct(tmp_path / "source")
    later = replace(DENOISED, started="2027-01-01T00:00:00+00:00")
    first, again, other = (
        [h.SOPInstanceUID for h in headers(write_derived_series(made, tmp_path / name, derivation))]
        for name, made, derivation in (
            ("one", less(source), DENOISED),
            ("two", less(source), later),
            ("three", source.with_voxels(source.voxels + 1, "ct-denoising by fake 1.0"), DENOISED),
        )
    )
    assert first == again
    assert not set(first) & set(other)


def test_the_source_is_not_changed(tmp_path: Path) -> None:
    source = ct(tmp_path / "source")
    before = {path: path.read_bytes() for path in source.series.files}
    write_derived_series(less(source), tmp_path / "derived", DENOISED)
    assert {path: path.read_bytes() for path in source.series.files} == before


def test_a_gans_series_is_known_as_such_when_it_is_read_and_derived_from_again(tmp_path: Path) -> None:
    invented = less(ct(tmp_path / "source"), f"super-resolution by gan 1.0 ({GENERATIVE})")
    write_derived_series(invented, tmp_path / "gan", replace(DENOISED, label=GENERATIVE))
    read = read_volume(tmp_path / "gan")
    assert GENERATIVE in read.history[-1]
    assert read.series.description.startswith(GENERATIVE)
    write_derived_series(less(read, "cut out"), tmp_path / "again", DENOISED)
    again = read_volume(tmp_path / "again")
    assert again.history == (*read.history, "cut out")
    equipment = pydicom.dcmread(again.series.files[0]).ContributingEquipmentSequence
    purposes = [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in equipment]
    assert purposes == ["109101", "109102", "109102"]


def test_a_long_history_is_cut_at_its_oldest_steps_but_never_hides_invented_texture() -> None:
    steps = [f"sr by gan ({GENERATIVE})", *(f"step {n} {'x' * 60}" for n in range(40)), "the last"]
    text = derivation_description(steps)
    assert len(text) <= 1024
    assert GENERATIVE in text
    assert text.splitlines()[-1] == "the last"
    assert text.startswith(f"({len(steps) - len(text.splitlines()) + 1} earlier steps left out)")


def test_a_long_series_description_keeps_what_was_done() -> None:
    text = series_description("denoised by fake", "x" * 80)
    assert len(text) == 64
    assert text.startswith("denoised by fake: xxx")
    assert series_description("denoised by fake", "") == "denoised by fake"


def test_what_cannot_be_a_derived_series_is_refused(tmp_path: Path) -> None:
    source = ct(tmp_path / "source")
    with pytest.raises(OutputError, match="came from no DICOM series"):
        write_derived_series(replace(source, series=None), tmp_path / "x", DENOISED)
    with pytest.raises(OutputError, match="is PT; derived series are written of CT and MR"):
        write_derived_series(replace(source, modality="PT"), tmp_path / "x", DENOISED)
    nothing = source.with_voxels(np.full(source.shape, np.nan, np.float32), "broken")
    with pytest.raises(OutputError, match="NaN"):
        write_derived_series(nothing, tmp_path / "x", DENOISED)
    huge = source.with_voxels(np.full(source.shape, 1e9, np.float32), "broken")
    with pytest.raises(OutputError, match="too large for 16-bit DICOM"):
        write_derived_series(huge, tmp_path / "x", DENOISED)
    source.series.files[3].unlink()
    with pytest.raises(OutputError, match=r"0004\.dcm.*cannot be read"):
        write_derived_series(source, tmp_path / "x", DENOISED)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("part", ["open/ct/LIDC-IDRI-0314"])
def test_a_real_scan_gives_a_series_that_a_validator_accepts(shared_data: Path, tmp_path: Path, part: str) -> None:
    source = read_volume(shared_data / part).cropped((100, 0, 0), (4, 512, 512))
    files = write_derived_series(less(source), tmp_path, DENOISED)
    assert not [line for line in problems_named_by_dciodvfy(files[1]) if line.startswith("Error")]
    np.testing.assert_array_equal(read_volume(tmp_path).voxels, less(source).voxels)
