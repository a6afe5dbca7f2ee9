from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.io.test_dicom_derived import ct, mr
from tomolens.core.errors import OptionError, OutputError, ReadError
from tomolens.core.grid import Grid
from tomolens.core.reconstruction import Check, Job, Reconstruction, ReconstructOptions
from tomolens.core.run import Run
from tomolens.core.volume import Unit, Volume
from tomolens.io.reconstructions import read_reconstruction, read_record, write_reconstruction
from tomolens.pipelines.reconstruct import reconstruct
from tomolens.testing import FakeReconstructor

GRID = Grid.from_axes((4, 14, 12), (3.0, 0.8, 0.9), (-4, 9, 30))
CHECKS = (
    Check("noise", 20.0, "HU", 5.0, 80.0),
    Check("sharpness", math.nan, "", 0.5),
    Check("distance", 9.0, "mm", None, 5.0),
)


def denoised(baseline: bool = False) -> Reconstruction:
    voxels = np.random.default_rng(3).normal(0, 40, GRID.shape).astype(np.int16)
    model = FakeReconstructor(checks=CHECKS)
    return reconstruct(Volume(voxels, GRID), model, baseline=model if baseline else None)


def assert_same(again: Reconstruction, made: Reconstruction) -> None:
    np.testing.assert_array_equal(again.volume.voxels, made.volume.voxels)
    np.testing.assert_array_equal(again.reference.voxels, made.reference.voxels)
    np.testing.assert_array_equal(again.difference, made.difference)
    np.testing.assert_array_equal(again.uncertainty, made.uncertainty)
    assert again.volume.grid.same_place(made.volume.grid)
    assert again.volume.history == made.volume.history
    assert (again.job, again.generative, again.warnings) == (made.job, made.generative, made.warnings)
    assert again.run == made.run


@pytest.mark.parametrize("baseline", [False, True])
def test_a_reconstruction_is_read_back_as_it_was_written(tmp_path: Path, baseline: bool) -> None:
    made = denoised(baseline)
    again = read_reconstruction(write_reconstruction(made, tmp_path))
    assert_same(again, made)
    assert (again.baseline is not None) is baseline
    assert again.checks[0] == CHECKS[0]
    assert math.isnan(again.checks[1].value)
    assert [check.inside for check in again.checks] == [True, False, False]


def test_an_image_of_no_unit_is_read_back_with_its_reference(tmp_path: Path) -> None:
    image = np.random.default_rng(1).random(GRID.shape, np.float32)
    volume, reference = (Volume(v, GRID, Unit.ARBITRARY, "MR", history=("mri",)) for v in (image, image / 2))
    made = Reconstruction(Job.MRI, volume, reference, Run("net", "1", "0" * 64), np.full_like(image, 0.1))
    assert_same(read_reconstruction(write_reconstruction(made, tmp_path)), made)
    record = read_record(tmp_path)
    assert record.difference.unit == "% of range"
    assert record.difference.largest == pytest.approx(
        100 * (image / 2).max() / np.ptp(np.percentile(image / 2, (1, 99.5))), rel=1e-4
    )


@pytest.mark.parametrize("flipped", [False, True])
def test_dicom_is_read_back_on_the_very_grid_of_its_maps(tmp_path: Path, flipped: bool) -> None:
    source = ct(tmp_path / "source")
    made = reconstruct(source.flipped(0) if flipped else source, FakeReconstructor())
    again = read_reconstruction(write_reconstruction(made, tmp_path / "made"))
    assert_same(again, made)
    assert again.volume.series.uid != source.series.uid


def test_an_mr_series_whose_numbers_were_stored_times_a_thousand_comes_back_as_it_was(tmp_path: Path) -> None:
    source = mr(tmp_path / "source")
    image = np.random.default_rng(1).random(source.shape, np.float32)
    volume, reference = source.with_voxels(image, "made"), source.with_voxels(image / 2, "reference")
    made = Reconstruction(Job.SUPER_RESOLUTION, volume, reference, Run("net", "1", "0" * 64))
    again = read_reconstruction(write_reconstruction(made, tmp_path / "made"))
    np.testing.assert_allclose(again.volume.voxels, image, atol=5.1e-4)
    assert again.volume.history[-2:] == ("numbers stored times 1000, rounded", "numbers divided by 1000 again")


def test_the_json_says_which_checks_failed_and_by_which_numbers(tmp_path: Path) -> None:
    content = json.loads(write_reconstruction(denoised(), tmp_path).read_text())
    assert [(c["value"], c["low"], c["high"], c["inside"]) for c in content["checks"]] == [
        (20.0, 5.0, 80.0, True),
        (None, 0.5, None, False),
        (9.0, None, 5.0, False),
    ]
    assert content["warnings"][1] == "distance 9 mm: OUT OF range (at most 5 mm)"
    assert content["difference"]["unit"] == "HU"


@pytest.mark.parametrize("name", ["reconstruction.nii.gz", "difference.nii.gz", "uncertainty.nii.gz"])
def test_an_image_that_is_missing_or_was_altered_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write_reconstruction(denoised(), tmp_path)
    image = tmp_path / name
    image.write_bytes(image.read_bytes()[:-1])
    with pytest.raises(ReadError, match=f"{name} was altered"):
        read_reconstruction(tmp_path)
    image.unlink()
    with pytest.raises(ReadError, match=f"{name} is missing"):
        read_record(tmp_path)


def test_a_slice_that_is_missing_from_the_series_is_noticed(tmp_path: Path) -> None:
    write_reconstruction(reconstruct(ct(tmp_path / "source"), FakeReconstructor()), tmp_path / "made")
    (tmp_path / "made" / "dicom" / "0003.dcm").unlink()
    with pytest.raises(ReadError, match="dicom was altered"):
        read_reconstruction(tmp_path / "made")


def test_dicom_is_not_made_of_what_never_was_dicom(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="came from no DICOM series"):
        write_reconstruction(denoised(), tmp_path / "made", format="dicom")
    with pytest.raises(OptionError, match="format is one of auto, dicom, nifti, not 'jpeg'"):
        write_reconstruction(denoised(), tmp_path / "made", format="jpeg")
    assert not list(tmp_path.rglob("*.json"))


def test_a_json_that_names_another_grid_is_refused(tmp_path: Path) -> None:
    path = write_reconstruction(denoised(), tmp_path)
    content = json.loads(path.read_text())
    content["grid"]["affine"][0][3] += 5
    path.write_text(json.dumps(content))
    with pytest.raises(ReadError, match="does not lie on the grid"):
        read_reconstruction(tmp_path)


def test_a_denoised_image_of_a_gan_stays_one(tmp_path: Path) -> None:
    again = read_reconstruction(write_reconstruction(replace(denoised(), generative=True), tmp_path))
    assert again.generative
    assert again.warnings[0].startswith("GAN")


def test_what_an_earlier_result_left_in_a_folder_does_not_stay_beside_a_new_one(tmp_path: Path) -> None:
    source = ct(tmp_path / "source")
    model = FakeReconstructor()
    write_reconstruction(reconstruct(source, model, baseline=model), tmp_path / "made")
    (tmp_path / "made" / "notes.txt").write_text("mine")
    later = reconstruct(source, model, ReconstructOptions(uncertainty=False))
    write_reconstruction(later, tmp_path / "made", format="nifti")
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert names == {"reconstruction.nii.gz", "difference.nii.gz", "reconstruction.json", "notes.txt"}
    assert read_reconstruction(tmp_path / "made").uncertainty is None


def test_while_a_result_is_replaced_its_folder_holds_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_reconstruction(denoised(), tmp_path)

    def full(*_: object) -> None:
        raise OutputError("No space left on device")

    monkeypatch.setattr("tomolens.io.reconstructions.write_volume", full)
    with pytest.raises(OutputError, match="No space"):
        write_reconstruction(denoised(baseline=True), tmp_path)
    with pytest.raises(ReadError, match="cannot be read"):
        read_record(tmp_path)


def test_a_series_that_a_result_is_made_of_is_never_replaced_by_it(tmp_path: Path) -> None:
    source = ct(tmp_path / "patient" / "dicom")
    made = reconstruct(source, FakeReconstructor())
    with pytest.raises(OutputError, match="holds the source itself"):
        write_reconstruction(made, tmp_path / "patient")
    assert all(file.exists() for file in source.series.files)
    write_reconstruction(made, tmp_path / "patient", format="nifti")
    assert all(file.exists() for file in source.series.files)
