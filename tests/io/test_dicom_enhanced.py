from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.io.slices import CORONAL, stored_volume, write_enhanced
from tomolens.core.errors import AmbiguousSource, MissingSliceError, ReadError
from tomolens.core.volume import Unit
from tomolens.io.dicom_series import find_series
from tomolens.io.read import read_volume

ORDER = (3, 0, 5, 1, 4, 2)


def test_frames_of_an_enhanced_ct_are_sorted_by_their_own_positions(tmp_path: Path) -> None:
    stored = stored_volume()
    path = write_enhanced(tmp_path / "a.dcm", [(stored[k], {"position": (1, 2, 3 + 2.0 * k)}) for k in ORDER])
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.voxels, stored - 1024)
    assert (volume.unit, volume.modality) == (Unit.HU, "CT")
    assert volume.grid.to_mm((5, 0, 0)) == pytest.approx((1, 2, 13))
    assert volume.series is not None
    assert set(volume.series.files) == {path}
    assert volume.series.frames == tuple(np.argsort(ORDER))


def test_each_frame_is_rescaled_by_its_own_slope(tmp_path: Path) -> None:
    stored = stored_volume()
    frames = [(s, {"position": (0, 0, k), "slope": k + 1, "intercept": -k}) for k, s in enumerate(stored)]
    write_enhanced(tmp_path / "a.dcm", frames)
    k = np.arange(6)[:, None, None]
    assert np.array_equal(read_volume(tmp_path).voxels, stored * (k + 1) - k)


def test_two_stacks_in_one_file_become_two_parts(tmp_path: Path) -> None:
    stored = stored_volume()
    axial = [(s, {"position": (0, 0, 2.0 * k), "StackID": "1"}) for k, s in enumerate(stored)]
    coronal = [
        (s + 1, {"position": (0, 2.0 * k, 0), "StackID": "2", "orientation": CORONAL}) for k, s in enumerate(stored)
    ]
    write_enhanced(tmp_path / "a.dcm", axial + coronal)
    scan = find_series(tmp_path)
    assert [(s.part, s.orientation) for s in scan] == [(1, "axial"), (2, "coronal")]
    assert np.array_equal(read_volume(scan[0]).voxels, stored - 1024)
    assert np.array_equal(read_volume(scan[1]).voxels, stored - 1023)
    with pytest.raises(AmbiguousSource, match="holds 2 series"):
        read_volume(tmp_path)


def test_two_times_in_one_file_become_two_parts(tmp_path: Path) -> None:
    stored = stored_volume()
    frames = [
        (s + time, {"position": (0, 0, 2.0 * k), "TemporalPositionIndex": time})
        for time in (1, 2)
        for k, s in enumerate(stored)
    ]
    write_enhanced(tmp_path / "a.dcm", frames)
    volumes = [read_volume(s) for s in find_series(tmp_path)]
    assert [int(v.voxels[0, 0, 0]) for v in volumes] == [101 - 1024, 102 - 1024]
    assert np.array_equal(read_volume(tmp_path, part=2).voxels, volumes[1].voxels)


def test_a_missing_frame_is_refused_and_names_its_neighbours(tmp_path: Path) -> None:
    frames = [(s, {"position": (0, 0, 2.0 * k)}) for k, s in enumerate(stored_volume()) if k != 2]
    write_enhanced(tmp_path / "a.dcm", frames)
    with pytest.raises(MissingSliceError, match=r"4\.00 mm between a\.dcm frame 2 and a\.dcm frame 3"):
        read_volume(tmp_path)


def test_frames_without_a_description_each_are_passed_over(tmp_path: Path) -> None:
    write_enhanced(
        tmp_path / "a.dcm", [(s, {"position": (0, 0, k)}) for k, s in enumerate(stored_volume())], NumberOfFrames=5
    )
    with pytest.raises(ReadError, match="5 frames, but 6 functional groups that describe them"):
        read_volume(tmp_path)


def test_a_real_enhanced_mr_is_read_on_its_grid(shared_data: Path) -> None:
    volume = read_volume(shared_data / "dicom_tricky" / "enhanced_multiframe" / "6_1.dcm")
    assert (volume.shape, volume.unit, volume.modality) == ((6, 64, 64), Unit.ARBITRARY, "MR")
    assert volume.spacing_mm == pytest.approx((2.4, 3.375, 3.375))
    assert volume.grid.to_mm((0, 0, 0)) == pytest.approx((-109.79, -58.4773, -5.40356))
    assert volume.voxels.std() > 10


def test_magnitude_and_field_map_of_one_real_file_become_two_parts_with_their_own_slopes(shared_data: Path) -> None:
    path = shared_data / "dicom_tricky" / "enhanced_multiframe" / "IM_0027_fMAP.dcm"
    magnitude, field = (read_volume(s) for s in find_series(path))
    assert magnitude.shape == field.shape == (32, 64, 64)
    assert magnitude.grid.same_place(field.grid)
    assert magnitude.voxels.min() == 0
    assert -500 <= field.voxels.min() < -490
    assert field.voxels.dtype == np.float32


def test_a_real_perfusion_map_is_not_taken_for_hounsfield_units(shared_data: Path) -> None:
    path = shared_data / "dicom_tricky" / "enhanced_multiframe" / "eCT_Supplemental.dcm"
    with pytest.raises(ReadError, match=r"not Hounsfield units: RescaleType 'US', ImageType DERIVED.PRIMARY.PERFUSION"):
        read_volume(path)
