from __future__ import annotations

import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from tests.io.slices import CORONAL, SERIES, THICKNESS, stored_volume, write_series, write_slice
from tomolens.core.errors import Cancelled, ReadError
from tomolens.core.progress import Step
from tomolens.core.series import FolderScan, Series
from tomolens.io.dicom_series import find_series
from tomolens.io.read import read_volume


def kinds(series: Series) -> set[str]:
    return {problem.kind for problem in series.problems}


def reasons(scan: FolderScan) -> dict[str, str]:
    return {p.path.name: p.reason for p in scan.passed_over}


def test_a_series_is_described_from_its_headers(tmp_path: Path) -> None:
    write_series(tmp_path, ConvolutionKernel="B70f", Manufacturer="Maker", StudyDate="20200131")
    (series,) = find_series(tmp_path)
    assert series.uid == SERIES
    assert series.label == "3  Chest: CT, 9 x 7 x 6 at 0.70 x 0.80 x 2.50 mm"
    assert (series.orientation, series.kernel, series.manufacturer) == ("axial", "B70f", "Maker")
    assert (series.study_date, series.patient_id, series.part) == ("20200131", "PHANTOM", 0)
    assert series.problems == ()


def test_files_stand_in_the_order_of_their_positions_whatever_their_names_and_numbers_say(tmp_path: Path) -> None:
    names = list(range(6))
    random.Random(3).shuffle(names)
    expected = [
        write_slice(tmp_path / f"IM{names[k]}", stored, (0.0, 0.0, k * THICKNESS), InstanceNumber=60 - k)
        for k, stored in enumerate(stored_volume())
    ]
    (series,) = find_series(tmp_path)
    assert list(series.files) == expected


def test_slices_written_from_the_head_are_numbered_from_the_feet(tmp_path: Path) -> None:
    files = write_series(tmp_path, step=(0.0, 0.0, -THICKNESS))
    (series,) = find_series(tmp_path)
    assert list(series.files) == files[::-1]


def test_series_in_one_folder_are_told_apart_and_found_at_any_depth(tmp_path: Path) -> None:
    write_series(tmp_path, name="a{}")
    write_series(tmp_path, name="b{}", SeriesInstanceUID="1.2.9", SeriesNumber=1, SeriesDescription="Lung")
    write_series(tmp_path / "deep" / "er", SeriesInstanceUID="1.2.8", StudyInstanceUID="1.2.4")
    assert [s.description for s in find_series(tmp_path)] == ["Lung", "Chest", "Chest"]
    assert [len(s.files) for s in find_series(tmp_path)] == [6, 6, 6]


@pytest.mark.parametrize(
    "other",
    [
        {"orientation": CORONAL},
        {"FrameOfReferenceUID": "1.2.3.99"},
        {"PixelSpacing": [0.5, 0.5]},
        {"slices": stored_volume(6, 8, 9)},
    ],
    ids=["orientation", "frame of reference", "pixel spacing", "size"],
)
def test_what_cannot_be_one_volume_becomes_parts_of_one_series(tmp_path: Path, other: dict[str, Any]) -> None:
    write_series(tmp_path, name="a{}")
    write_series(tmp_path, name="b{}", **other)
    parts = find_series(tmp_path).series
    assert [(s.uid, s.part, len(s.files), s.refused) for s in parts] == [(SERIES, 1, 6, False), (SERIES, 2, 6, False)]


def test_a_scout_in_a_chest_series_becomes_a_part_of_its_own(tmp_path: Path) -> None:
    write_series(tmp_path, name="a{}")
    kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_slice(tmp_path / "scout", stored_volume(1)[0], (0.0, 0.0, 33.0), ImageType=kind, InstanceNumber=99)
    chest, scout = find_series(tmp_path)
    assert (len(chest.files), kinds(chest)) == (6, set())
    assert (len(scout.files), kinds(scout), scout.refused) == (1, {"localizer"}, True)


@pytest.mark.parametrize("mark", ["AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers"])
def test_phases_of_one_place_are_told_apart_by_what_their_headers_say(tmp_path: Path, mark: str) -> None:
    write_series(tmp_path, name="a{}", **{mark: 1})
    write_series(tmp_path, name="b{}", **{mark: 2})
    parts = find_series(tmp_path).series
    assert [{p.name[0] for p in s.files} for s in parts] == [{"a"}, {"b"}]
    assert [(s.part, s.refused, str(*s.problems)) for s in parts] == [
        (n, False, f"The series holds more than one volume; these slices have {mark} {n}.") for n in (1, 2)
    ]


def test_two_echoes_of_two_kinds_become_four_parts(tmp_path: Path) -> None:
    for echo in (1, 2):
        for kind in ("M", "P"):
            kinds_ = {"EchoNumbers": echo, "ImageType": ["ORIGINAL", "PRIMARY", kind], "Modality": "MR"}
            write_series(tmp_path, name=f"{echo}{kind}{{}}", **kinds_)
    found = find_series(tmp_path)
    assert sorted({p.name[:2] for p in s.files}.pop() for s in found) == ["1M", "1P", "2M", "2P"]
    assert all(len(s.files) == 6 for s in found)


def test_a_phase_with_a_missing_slice_leaves_the_whole_phase_readable(tmp_path: Path) -> None:
    write_series(tmp_path, name="a{}", AcquisitionNumber=1)
    write_series(tmp_path, name="b{}", AcquisitionNumber=2, only={0, 1, 3, 4, 5})
    whole, broken = find_series(tmp_path)
    assert not whole.refused
    assert kinds(broken) == {"missing-slice", "divided-series"}


def test_slices_of_one_place_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, name="a{}")
    write_series(tmp_path, name="b{}")
    (series,) = find_series(tmp_path)
    assert (kinds(series), series.refused, series.spacing_mm) == ({"repeated-positions"}, True, None)
    assert "6 of 12 slices" in str(series.problems[0])


def test_an_acquisition_number_a_slice_does_not_hide_repeated_places(tmp_path: Path) -> None:
    for n, k in enumerate((0, 1, 2, 2, 3, 4)):
        write_slice(tmp_path / f"{n}", stored_volume()[n], (0.0, 0.0, k * THICKNESS), AcquisitionNumber=n)
    (series,) = find_series(tmp_path)
    assert kinds(series) == {"repeated-positions"}


def test_copies_of_an_instance_are_used_once_and_said(tmp_path: Path) -> None:
    for path in write_series(tmp_path / "a"):
        (tmp_path / f"copy of {path.name}").write_bytes(path.read_bytes())
    (series,) = find_series(tmp_path)
    assert (len(series.files), len(series.copies), kinds(series)) == (6, 6, {"duplicate-instances"})
    assert not series.refused
    assert "and 5 more" in str(series.problems[0])


def test_an_instance_uid_used_for_different_places_hides_no_slice(tmp_path: Path) -> None:
    write_series(tmp_path, SOPInstanceUID=generate_uid())
    (series,) = find_series(tmp_path)
    assert (len(series.files), series.problems) == (6, ())


def test_a_missing_slice_is_found_and_its_gap_is_named(tmp_path: Path) -> None:
    write_series(tmp_path, 9, only={0, 1, 2, 3, 6, 7, 8})
    (series,) = find_series(tmp_path)
    assert kinds(series) == {"missing-slice"}
    assert str(series.problems[0]) == (
        "2 slices are missing: 7.50 mm between 003.dcm and 006.dcm (at 37.50 and 45.00 mm); "
        "the usual distance between slices is 2.50 mm."
    )


def test_a_missing_slice_is_found_where_only_three_are_left(tmp_path: Path) -> None:
    write_series(tmp_path, 4, only={0, 1, 3})
    (series,) = find_series(tmp_path)
    assert kinds(series) == {"missing-slice"}


def test_unequal_distances_are_told_from_a_missing_slice(tmp_path: Path) -> None:
    for k, z in enumerate((0.0, 2.0, 4.0, 6.0, 9.0, 11.0)):
        write_slice(tmp_path / f"{k}", stored_volume()[k], (0.0, 0.0, z))
    (series,) = find_series(tmp_path)
    assert (kinds(series), series.refused) == ({"unequal-spacing"}, True)
    assert "3.00 mm between 3 and 4" in str(series.problems[0])


def test_positions_rounded_to_one_decimal_are_still_one_grid(tmp_path: Path) -> None:
    for k, stored in enumerate(stored_volume(20)):
        write_slice(tmp_path / f"{k}", stored, (0.0, 0.0, round(0.625 * k, 1)))
    (series,) = find_series(tmp_path)
    assert not series.problems
    assert series.spacing_mm == pytest.approx((0.625, 0.8, 0.7), abs=0.005)


def test_slices_shifted_sideways_here_and_there_are_refused(tmp_path: Path) -> None:
    for k, stored in enumerate(stored_volume()):
        write_slice(tmp_path / f"{k}", stored, (0.0 if k < 3 else 1.5, 0.0, k * THICKNESS))
    (series,) = find_series(tmp_path)
    assert kinds(series) == {"shifted-slices"}


def test_thin_and_thick_slices_of_one_series_become_parts(tmp_path: Path) -> None:
    for k in range(8):
        z, thickness = (k * 2.0, 2.0) if k < 4 else (8.0 + (k - 4) * 5.0, 5.0)
        write_slice(tmp_path / f"{k}", stored_volume(8)[k], (0.0, 0.0, z), SliceThickness=thickness)
    assert [s.spacing_mm[0] for s in find_series(tmp_path) if s.spacing_mm] == [2.0, 5.0]


@pytest.mark.parametrize(
    ("keyword", "values"), [("ConvolutionKernel", ("B30f", "B70f")), ("SliceThickness", (1, 5)), ("KVP", (80, 140))]
)
def test_slices_made_differently_are_said_to_be_with_what_differs(
    tmp_path: Path, keyword: str, values: tuple[object, object]
) -> None:
    for n in (0, 1):
        write_series(tmp_path, only={n, n + 2, n + 4}, **{keyword: values[n]})
    (series,) = find_series(tmp_path)
    assert (kinds(series), series.refused) == ({"mixed-acquisition"}, False)
    assert f"{keyword} is {values[0]} in 3, {values[1]} in 3 slices" in str(series.problems[0])


def test_one_number_written_in_two_ways_is_one(tmp_path: Path) -> None:
    write_series(tmp_path, only={0, 1, 2}, KVP="120")
    write_series(tmp_path, only={3, 4, 5}, KVP="120.0")
    assert find_series(tmp_path)[0].problems == ()


def test_two_patients_under_one_series_uid_are_never_one_volume(tmp_path: Path) -> None:
    write_series(tmp_path, only={0, 1, 2}, PatientID="A")
    write_series(tmp_path, only={3, 4, 5}, PatientID="B")
    assert [(s.patient_id, s.part, len(s.files)) for s in find_series(tmp_path)] == [("A", 1, 3), ("B", 2, 3)]


def test_acquisitions_of_thin_and_thick_slices_each_become_parts_that_can_be_read(tmp_path: Path) -> None:
    for acquisition in (1, 2):
        for k in range(8):
            z, thickness = (k * 2.0, 2.0) if k < 4 else (8.0 + (k - 4) * 5.0, 5.0)
            marks = {"AcquisitionNumber": acquisition, "SliceThickness": thickness}
            write_slice(tmp_path / f"{acquisition}{k}", stored_volume(8)[k], (0.0, 0.0, z), **marks)
    parts = find_series(tmp_path).series
    assert [s.spacing_mm[0] for s in parts if s.spacing_mm] == [2.0, 5.0, 2.0, 5.0]
    assert "AcquisitionNumber 2, SliceThickness 5.0" in str(parts[3].problems[0])
    assert [read_volume(s).shape[0] for s in parts] == [4, 4, 4, 4]


def test_a_tilted_gantry_is_said_and_not_refused(tmp_path: Path) -> None:
    write_series(tmp_path, step=(0.0, 0.8, 2.4))
    (series,) = find_series(tmp_path)
    assert (kinds(series), series.refused) == ({"gantry-tilt"}, False)
    assert "18.4 degrees" in str(series.problems[0])


def test_an_empty_series_uid_is_said_and_two_studies_are_kept_apart(tmp_path: Path) -> None:
    write_series(tmp_path, name="a{}", SeriesInstanceUID="")
    write_series(tmp_path, name="b{}", SeriesInstanceUID="", StudyInstanceUID="1.2.5")
    write_series(tmp_path, name="c{}", SeriesInstanceUID="", SeriesDescription="Lung")
    found = find_series(tmp_path)
    assert [len(s.files) for s in found] == [6, 6, 6]
    assert all(kinds(s) == {"empty-series-uid"} and not s.refused for s in found)


def test_files_that_are_no_slices_are_passed_over_with_the_reason(tmp_path: Path) -> None:
    (stored,) = stored_volume(1)
    write_series(tmp_path, name="{}")
    (tmp_path / "notes.txt").write_text("a" * 300)
    (tmp_path / "empty").touch()
    write_slice(tmp_path / "seg", stored, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", Modality="SEG")
    write_slice(tmp_path / "map", stored, SOPClassUID="1.2.840.10008.5.1.4.1.1.30")
    write_slice(tmp_path / "sr", stored, Modality="SR", leave_out=("Rows", "Columns"))
    write_slice(tmp_path / "photo", stored, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    write_slice(tmp_path / "capture", stored, leave_out=("ImagePositionPatient",))
    write_slice(tmp_path / "skewed", stored, orientation=(1, 0, 0, 0.1, 1, 0))
    scan = find_series(tmp_path)
    assert [len(s.files) for s in scan] == [6]
    assert reasons(scan) == {
        "notes.txt": "not a DICOM file",
        "empty": "an empty file",
        "seg": "a segmentation (SEG), not an acquired image",
        "map": "a parametric map, not an acquired image",
        "sr": "no image (a SR object)",
        "photo": "a colour image (RGB), not a slice of numbers",
        "capture": "an image without a place in the patient (no ImagePositionPatient)",
        "skewed": "ImageOrientationPatient (1.0, 0.0, 0.0, 0.1, 1.0, 0.0) is not two unit vectors at right angles",
    }


def test_a_file_without_the_preamble_is_read(tmp_path: Path) -> None:
    for path in write_series(tmp_path):
        path.write_bytes(path.read_bytes()[132:])
    (series,) = find_series(tmp_path)
    assert len(series.files) == 6


def test_a_header_cut_short_is_passed_over_and_the_others_are_read(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    files[-1].write_bytes(files[-1].read_bytes()[:700])
    scan = find_series(tmp_path)
    assert [len(s.files) for s in scan] == [5]
    assert list(reasons(scan)) == ["005.dcm"]


def test_a_position_that_is_no_number_is_passed_over_by_name(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", stored_volume(1)[0], (-10.0, -20.0, 30.0))
    path.write_bytes(path.read_bytes().replace(b"-10.0\\-20.0\\30.0", b"-10.0\\-2O.0\\30.0"))
    assert reasons(find_series(tmp_path)) == {"a": "ImagePositionPatient is '-10.0\\\\-2O.0\\\\30.0', not numbers"}


def test_a_single_file_is_a_scan_of_one(tmp_path: Path) -> None:
    path = write_series(tmp_path)[2]
    (series,) = find_series(path)
    assert series.files == (path,)
    assert series.spacing_mm == pytest.approx((2.5, 0.8, 0.7))


def test_linked_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    write_series(tmp_path / "elsewhere")
    root = tmp_path / "root"
    write_slice(root / "own" / "a", stored_volume(1)[0], SeriesInstanceUID="1.2.9")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere")
    (root / "own" / "loop").symlink_to(root)
    (root / "above").symlink_to(tmp_path)
    assert sorted((len(s.files), len(s.copies)) for s in find_series(root)) == [(1, 0), (6, 0)]


def test_a_folder_that_cannot_be_opened_is_passed_over_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path)
    (tmp_path / "closed").mkdir()
    listed = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    scan = find_series(tmp_path)
    assert [len(s.files) for s in scan] == [6]
    assert reasons(scan) == {"closed": "a folder that cannot be opened (Permission denied)"}


def test_an_absent_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="nowhere: no such file or folder"):
        find_series(tmp_path / "nowhere")


def test_an_empty_folder_gives_no_series(tmp_path: Path) -> None:
    assert len(find_series(tmp_path)) == 0


def test_progress_counts_every_file_and_can_cancel(tmp_path: Path) -> None:
    write_series(tmp_path, 200)
    steps: list[Step] = []
    find_series(tmp_path, progress=steps.append)
    assert (steps[0], steps[-1]) == (Step("scan headers", 0, 200), Step("scan headers", 200, 200))
    assert len(steps) >= 4
    assert [s.done for s in steps] == sorted(s.done for s in steps)

    def cancel(step: Step) -> None:
        if step.done:
            raise Cancelled

    with pytest.raises(Cancelled):
        find_series(tmp_path, progress=cancel)


def test_a_scan_reads_no_pixels(tmp_path: Path) -> None:
    for path in write_series(tmp_path):
        content = path.read_bytes()
        path.write_bytes(content[: content.index(b"\xe0\x7f\x10\x00") + 12])
    (series,) = find_series(tmp_path)
    assert len(series.files) == 6
    assert not series.refused


def test_a_header_of_any_length_is_read_to_its_pixels(tmp_path: Path) -> None:
    for n, length in enumerate((0, 30_000, 33_000, 200_000)):
        path = write_slice(tmp_path / f"{n}", stored_volume(4)[n], (0, 0, n), TextValue="a" * length)
        assert (path.stat().st_size > 32_768) == (length > 31_000)
    assert np.array_equal(read_volume(tmp_path).voxels, stored_volume(4) - 1024)


def test_non_latin_descriptions_are_decoded(tmp_path: Path) -> None:
    write_series(tmp_path, SpecificCharacterSet="ISO_IR 192", SeriesDescription="Brust dünn 肺")
    (series,) = find_series(tmp_path)
    assert series.description == "Brust dünn 肺"


def test_the_tricky_folder_is_scanned_whole(shared_data: Path) -> None:
    scan = find_series(shared_data / "dicom_tricky")
    files = [p for p in (shared_data / "dicom_tricky").rglob("*") if p.is_file()]
    assert {*(p for s in scan for p in s.files), *(p.path for p in scan.passed_over)} == set(files)
    why = reasons(scan)
    assert why["mask.dcm"] == why["liver.dcm"] == "a segmentation (SEG), not an acquired image"
    assert why["parametric_map_float.dcm"] == "a parametric map, not an acquired image"
    assert why["HTJ2KLossless_08_RGB.dcm"] == "a colour image (RGB), not a slice of numbers"
    assert why["LICENSE"] == "not a DICOM file"
    assert "private transfer syntax" in why["ge_private_ts_PrivateGEImplicitVRBigEndianTransferSyntax16Bits.dcm"]
    assert why["emri_small_RLE.dcm"] == "10 frames that have no position each"


def test_slices_thicker_than_they_are_apart_without_series_uid_are_one_series(shared_data: Path) -> None:
    (series,) = find_series(shared_data / "dicom_tricky" / "totalseg_j2k_no_series_uid")
    assert (series.uid, series.shape, kinds(series)) == ("", (20, 512, 512), {"empty-series-uid"})
    assert series.spacing_mm == pytest.approx((2.0, 0.9765625, 0.9765625))


def test_four_time_points_in_four_enhanced_files_are_four_parts(shared_data: Path) -> None:
    scan = find_series(shared_data / "dicom_tricky" / "enhanced_multiframe")
    mr = [s for s in scan if s.description.startswith("REST1")]
    assert [(s.part, {p.name for p in s.files}, s.frames) for s in mr] == [
        (n, {f"6_{n}.dcm"}, (0, 1, 2, 3, 4, 5)) for n in (1, 2, 3, 4)
    ]


def test_a_head_ct_with_a_tilted_gantry_is_divided_where_its_slices_become_thicker(shared_data: Path) -> None:
    thin, thick = find_series(shared_data / "dicom_tricky" / "gantry_tilt_GE_head")
    assert [p.name for p in thin.files] == ["10.dcm", "11.dcm", "12.dcm", "13.dcm", "14.dcm"]
    assert [p.name for p in thick.files] == ["15.dcm"]
    assert kinds(thin) == {"gantry-tilt", "divided-series"}
    assert "these slices have SliceThickness 4.0" in str(thin.problems[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8), st.floats(0, 1))
def test_no_damage_to_a_header_stops_a_scan(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[float, int]], cut: float
) -> None:
    folder = tmp_path_factory.mktemp("series")
    broken = write_series(folder, 3)[1]
    content = bytearray(broken.read_bytes())
    for place, value in damage:
        content[int(place * (len(content) - 130))] = value
    broken.write_bytes(content[: int(cut * 3 * len(content))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pydicom says of broken files
        scan = find_series(folder)
    assert sum(len(s.files) for s in scan) + len(scan.passed_over) == 3


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PixelSpacing": [0, 0.7]}, "PixelSpacing is (0.0, 0.7) mm, not two distances"),
        ({"PixelSpacing": [0.7]}, "PixelSpacing has 1 values, not 2"),
        ({"BitsStored": 20}, "pixels of 20 of 16 bits up to bit 15, an unusual packing"),
        ({"BitsStored": 12}, "pixels of 12 of 16 bits up to bit 15, an unusual packing"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "pixels of 1 of 1 bits up to bit 0, an unusual packing"),
    ],
)
def test_values_that_make_no_image_are_passed_over_with_the_reason(
    tmp_path: Path, elements: dict[str, Any], reason: str
) -> None:
    write_slice(tmp_path / "a", stored_volume(1)[0], **elements)
    assert reasons(find_series(tmp_path)) == {"a": reason}
