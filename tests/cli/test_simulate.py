"""What is simulated is called so, in the file's name, in the series description and in the history."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.cli import scans
from tomolens import find_series, read_kspace, read_volume, write_volume
from tomolens.core.grid import Grid
from tomolens.core.volume import Unit, Volume
from tomolens.io.synthetic_series import write_ct_series

GRID = Grid.from_axes((8, 48, 44), (2.5, 1.5, 1.5), (-20.0, -18.0, -300.0))


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """A CT of a water cylinder with the noise of a scanner."""
    j, i = np.indices(GRID.shape[1:])
    inside = np.hypot(j - 24, i - 22) < 18
    voxels = np.where(inside, 0, -1000) + np.random.default_rng(1).normal(0, 12, GRID.shape)
    header = {"SeriesDescription": "Abdomen", **scans.PATIENT}
    write_ct_series(Volume(np.rint(voxels).astype(np.int16), GRID), tmp_path / "ct", jpeg_ls=False, header=header)
    return tmp_path / "ct"


def test_a_low_dose_scan_has_more_noise_and_is_a_derived_series_of_the_same_patient(tomolens, noisy, tmp_path):
    result = tomolens("simulate", "low-dose", noisy, "-o", tmp_path / "out", "--dose", "0.25")
    assert result.exit_code == 0, result.stderr
    (folder,) = (tmp_path / "out").glob("SIMULATED-low-dose-0.25-soft-seed-0-ct-????????")
    assert str(folder) in result.stdout
    made, source = read_volume(folder), read_volume(noisy)
    middle = (slice(None), slice(18, 30), slice(16, 28))
    assert made.voxels[middle].std() > 1.4 * source.voxels[middle].std()
    assert made.series.description == "SIMULATED low dose 0.25: Abdomen"
    assert any(step.startswith("simulated low dose: 0.25") for step in made.history)
    assert made.grid.same_place(source.grid)
    assert pydicom.dcmread(made.series.files[0]).PatientID == "MRN-4711"


def test_thick_slices_of_dicom_name_the_slices_that_they_are_the_mean_of(tomolens, noisy, tmp_path):
    tomolens("simulate", "thick-slices", noisy, "-o", tmp_path / "out", "--factor", "4")
    (series,) = find_series(tmp_path / "out")
    assert series.shape[0] == 2
    assert series.spacing_mm[0] == pytest.approx(10.0)
    header = pydicom.dcmread(series.files[0])
    assert (header.SliceThickness, len(header.SourceImageSequence)) == (10.0, 4)
    assert header.SeriesDescription.startswith("SIMULATED thick slices 4")


def test_an_image_file_gives_nifti_and_kspace_gives_an_archive(tomolens, tmp_path):
    voxels = np.zeros(GRID.shape, np.float32)
    voxels[:, 12:36, 10:34] = 100
    source = write_volume(Volume(voxels, GRID, Unit.ARBITRARY, "MR"), tmp_path / "brain 1.nii.gz")
    assert tomolens("simulate", "thick-slices", source, "-o", tmp_path, "--factor", "2").exit_code == 0
    (thick,) = tmp_path.glob("SIMULATED-thick-slices-2-brain-1-????????.nii.gz")
    assert "simulated: thick slices" in read_volume(thick).history[-1]
    assert tomolens("simulate", "undersampled", source, "-o", tmp_path, "--coils", "3").exit_code == 0
    (file,) = tmp_path.glob("SIMULATED-undersampled-4x-equispaced-3-coils-noise-0.01-seed-0-brain-1-????????.npz")
    measured = read_kspace(file)
    assert (measured.coils, measured.history[-1].startswith("simulated: equispaced undersampling 4x")) == (3, True)
    assert measured.acceleration == pytest.approx(4, rel=0.1)
    assert measured.grid.same_place(read_volume(source).grid)


def test_the_same_call_simulates_the_same_and_another_seed_another(tomolens, noisy, tmp_path):
    made = []
    for n, seed in enumerate((1, 1, 2)):
        tomolens("simulate", "low-dose", noisy, "-o", tmp_path / str(n), "--dose", "0.5", "--seed", seed)
        made.append(read_volume(tmp_path / str(n)))
    assert made[0].series.uid == made[1].series.uid != made[2].series.uid
    np.testing.assert_array_equal(made[0].voxels, made[1].voxels)
    assert (made[0].voxels != made[2].voxels).any()


@pytest.mark.parametrize(
    "other", [("--seed", 1), ("--mask", "random"), ("--coils", 4), ("--noise", 0.02), ("--acceleration", 4.0000001)]
)
def test_a_simulation_with_another_setting_or_of_another_scan_never_replaces_one(tomolens, tmp_path, other):
    for name in ("a", "b"):
        write_volume(Volume(np.ones(GRID.shape, np.float32), GRID, Unit.ARBITRARY, "MR"), tmp_path / name / "mr.nii")
    words = ("simulate", "undersampled", "-o", tmp_path / "out", "--coils", "3")
    calls = (tmp_path / "a" / "mr.nii",), (tmp_path / "a" / "mr.nii", *other), (tmp_path / "b" / "mr.nii",)
    told = [tomolens(*words, *call).stdout.split("  ")[0] for call in (*calls, calls[0])]
    assert (len(set(told)), told[3]) == (3, told[0])
    assert {str(path) for path in (tmp_path / "out").iterdir()} == set(told)


def test_two_series_of_one_folder_are_simulated_beside_each_other(tomolens, tmp_path):
    scans.ct(tmp_path / "both" / "a", seed=1)
    scans.ct(tmp_path / "both" / "b", seed=2)
    uids = [series.uid for series in find_series(tmp_path / "both")]
    for uid in uids:
        words = ("simulate", "thick-slices", tmp_path / "both", "-o", tmp_path / "out", "--factor", "2")
        assert tomolens(*words, "--series-uid", uid).exit_code == 0
    assert len(set(uids)) == len(list((tmp_path / "out").iterdir())) == 2


def test_what_cannot_be_simulated_is_said_and_nothing_is_written(tomolens, tmp_path):
    source = scans.mr(tmp_path / "mr")
    wrong = tomolens("simulate", "low-dose", source, "-o", tmp_path / "out", "--dose", "0.25")
    assert (wrong.exit_code, "dose is simulated for CT in HU" in wrong.stderr) == (1, True)
    assert tomolens("simulate", "thick-slices", source, "-o", tmp_path / "out", "--factor", "9").exit_code == 2
    (tmp_path / "file").write_text("")
    into_a_file = tomolens("simulate", "thick-slices", source, "-o", tmp_path / "file", "--factor", "2")
    assert (into_a_file.exit_code, "is a file; -o takes a folder" in into_a_file.stderr) == (2, True)
    assert not (tmp_path / "out").exists()
