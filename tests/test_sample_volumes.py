"""The committed sample volumes are what the script makes, and their truth is true of them."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from tomolens import read_volume, sample_chest_ct
from tomolens.core.volume import Volume
from tomolens.physics.fourier import to_images

SAMPLES = Path(__file__).parents[1] / "sample_volumes"
MEAN_HU = {"solid": (-130, 90), "part-solid": (-450, 90), "ground-glass": (-730, -450), "calcified": (150, 500)}
"""What the inner half of a nodule may measure."""


@pytest.fixture(scope="module")
def make() -> Any:
    spec = spec_from_file_location("make_samples", SAMPLES / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def truth_of(name: str) -> dict[str, Any]:
    return dict(json.loads((SAMPLES / f"{name}.json").read_text()))


@pytest.fixture(scope="module")
def chest() -> Volume:
    return read_volume(SAMPLES / "chest_ct")


@pytest.fixture(scope="module")
def lungs() -> Volume:
    return read_volume(SAMPLES / "lungs_ct.nii.gz")


def test_every_sample_is_there_and_together_they_stay_small(make: Any) -> None:
    for _, files in make.SAMPLES.values():
        for file in files:
            assert (SAMPLES / file).exists(), file
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) <= 15_000_000


def test_the_files_hold_the_voxels_that_the_truth_was_written_for(make: Any, chest: Volume, lungs: Volume) -> None:
    for name, volume in (("chest_ct", chest), ("lungs_ct", lungs)):
        truth = truth_of(name)
        assert make.hash_of(volume.voxels) == truth["voxels_sha256"], name
        assert list(volume.shape) == truth["shape_kji"]
        np.testing.assert_allclose(volume.spacing_mm, truth["spacing_kji_mm"], atol=1e-4)


def test_the_api_generates_the_committed_chest_again(chest: Volume) -> None:
    """Almost every voxel: another processor may round a sine the other way."""
    made = sample_chest_ct()
    assert made.grid.shape == chest.grid.shape
    np.testing.assert_allclose(made.grid.affine, chest.grid.affine, atol=1e-3)
    assert (made.voxels != chest.voxels).mean() < 1e-3


@pytest.mark.parametrize("name", ["chest_ct", "lungs_ct"])
def test_each_nodule_differs_from_the_lung_around_it_as_its_texture_says(name: str, request: Any) -> None:
    volume = request.getfixturevalue(name.split("_")[0])
    spacing = np.asarray(volume.spacing_mm)
    for nodule in truth_of(name)["nodules"]:
        center = volume.grid.to_kji(nodule["center_lps_mm"])
        radius = nodule["diameter_mm"] / 2
        low = np.maximum(np.floor(center - 2 * radius / spacing), 0).astype(int)
        high = np.ceil(center + 2 * radius / spacing).astype(int) + 1
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        part = volume.voxels[box]
        kji = np.moveaxis(np.indices(part.shape), 0, -1) + low
        away = np.linalg.norm((kji - center) * spacing, axis=-1)
        inside = float(part[away < max(0.5 * radius, 1.3)].mean())
        lung = float(np.median(part[(away > 1.3 * radius) & (away < 1.9 * radius) & (part < -650)]))
        low_hu, high_hu = MEAN_HU[nodule["texture"]]
        assert low_hu < inside < high_hu, nodule
        assert inside > lung + 90, nodule


def test_the_chest_series_says_that_it_is_a_phantom() -> None:
    first = pydicom.dcmread(SAMPLES / "chest_ct" / "0001.dcm", stop_before_pixels=True)
    assert "Phantom" in str(first.PatientName)
    assert "PHANTOM" in first.PatientID
    assert list(first.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert first.file_meta.TransferSyntaxUID == pydicom.uid.JPEGLSLossless


def test_the_sagittal_dicom_brain_lies_where_the_axial_nifti_brain_lies() -> None:
    dicom, nifti = read_volume(SAMPLES / "brain_mr"), read_volume(SAMPLES / "brain_mr.nii.gz")
    assert dicom.grid.orientation == "sagittal"
    assert nifti.grid.orientation == "axial"
    first, second = dicom.canonical(), nifti.canonical()
    assert np.array_equal(first.voxels, second.voxels)
    np.testing.assert_allclose(first.grid.affine, second.grid.affine, atol=1e-3)


def test_the_kspace_gives_the_true_image_back() -> None:
    with np.load(SAMPLES / "brain_kspace.npz") as file:
        parts = file["kspace"] * file["kspace_step"]
        image = file["image"].astype(np.float32)
    kspace = (parts[..., 0] + 1j * parts[..., 1]).astype(np.complex64)
    assert kspace.ndim == 4
    assert kspace.shape[1:] == image.shape
    seen = np.sqrt((np.abs(to_images(kspace)) ** 2).sum(axis=0))
    assert np.corrcoef(seen.ravel(), image.ravel())[0, 1] > 0.99


def test_the_script_writes_only_what_is_absent(make: Any, tmp_path: Path) -> None:
    assert make.make(tmp_path, ["brain_mr"]) == ["brain_mr"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert make.make(tmp_path, ["brain_mr"]) == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    (tmp_path / "brain_mr.json").unlink()
    assert make.make(tmp_path, ["brain_mr"]) == ["brain_mr"]
    assert (tmp_path / "brain_mr" / "0001.dcm").read_bytes() == (SAMPLES / "brain_mr" / "0001.dcm").read_bytes()
