"""The generated head is asymmetric where it says so, and its k-space is that of its image."""

from __future__ import annotations

import numpy as np
import pytest

from tomolens.core.errors import GeometryError
from tomolens.core.volume import Unit
from tomolens.phantoms.brain import SIGNAL, BrainPhantom, brain_phantom
from tomolens.phantoms.kspace import brain_kspace
from tomolens.physics.fourier import to_images, to_kspace


@pytest.fixture(scope="module")
def head() -> BrainPhantom:
    return brain_phantom(4, spacing_mm=(3.0, 2.0, 2.0))


def test_the_same_seed_gives_the_same_head(head: BrainPhantom) -> None:
    assert np.array_equal(head.volume.voxels, brain_phantom(4, spacing_mm=(3.0, 2.0, 2.0)).volume.voxels)
    assert head.volume.modality == "MR"
    assert head.volume.unit is Unit.ARBITRARY


def test_the_left_lateral_ventricle_is_the_larger(head: BrainPhantom) -> None:
    grid, fluid = head.clean.grid, np.abs(head.clean.voxels - SIGNAL["fluid"]) < 60
    x, y, z = np.moveaxis(grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0)
    ventricles = fluid & (np.abs(x) > 5) & (np.abs(x) < 24) & (np.abs(y) < 30) & (z > 10) & (z < 32)
    assert x[ventricles].mean() > 2


def test_eyes_look_forward_and_the_cerebellum_lies_behind(head: BrainPhantom) -> None:
    grid = head.clean.grid
    for side in (-1, 1):
        k, j, i = np.rint(grid.to_kji((side * 32, -84, -26))).astype(int)
        assert head.clean.voxels[k, j, i] == pytest.approx(SIGNAL["eye"], abs=30)
    k, j, i = np.rint(grid.to_kji((0, 40, -34))).astype(int)
    assert head.clean.voxels[k - 2 : k + 3, j - 2 : j + 3, i - 2 : i + 3].mean() > SIGNAL["grey"]


def test_lesions_lie_where_the_truth_says(head: BrainPhantom) -> None:
    assert {"old infarct", "mass at the dura", "bleeding"} <= {lesion.kind for lesion in head.lesions}
    for lesion in head.lesions:
        k, j, i = np.rint(head.clean.grid.to_kji(lesion.center_lps_mm)).astype(int)
        value = head.clean.voxels[k, j, i]
        if lesion.kind == "bleeding":
            assert value > SIGNAL["fat"]
        elif lesion.kind == "old infarct":
            assert value < SIGNAL["grey"] - 150


def test_coil_images_combine_to_the_true_image() -> None:
    measured = brain_kspace(4, slices=2, spacing_mm=(6.0, 2.5, 2.0), coils=6, noise=2.0)
    assert measured.kspace.shape == (6, *measured.image.shape)
    seen = np.sqrt((np.abs(to_images(measured.kspace)) ** 2).sum(axis=0))
    assert np.corrcoef(seen.ravel(), measured.image.ravel())[0, 1] > 0.995
    combined = (measured.sensitivities.conj() * to_images(measured.kspace)).sum(axis=0)
    assert np.abs(combined - measured.image).mean() < 4


def test_k_space_is_centred_orthonormal_and_undone_by_its_inverse() -> None:
    rng = np.random.default_rng(0)
    image = (rng.normal(size=(2, 8, 6)) + 1j * rng.normal(size=(2, 8, 6))).astype(np.complex64)
    np.testing.assert_allclose(to_images(to_kspace(image)), image, atol=1e-5)
    assert np.abs(to_kspace(np.ones((8, 6), np.complex64))).argmax() == 4 * 6 + 3
    assert np.linalg.norm(to_kspace(image)) == pytest.approx(np.linalg.norm(image), rel=1e-5)


def test_more_slices_than_the_brain_has_are_refused() -> None:
    with pytest.raises(GeometryError, match="slices"):
        brain_kspace(1, slices=40, spacing_mm=(8.0, 4.0, 4.0))
