"""What the shipped super-resolution network does to generated images; its figures come from benchmarks/."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from tomolens.core.grid import Grid
from tomolens.core.progress import silent
from tomolens.core.reconstruction import Job, ReconstructOptions
from tomolens.core.volume import Unit, Volume
from tomolens.models.inference import Backend
from tomolens.models.reconstructor import baseline_of
from tomolens.models.registry import find_bundle
from tomolens.models.super_resolution import CLASSICAL, ThinSlices, reconstructor_of
from tomolens.physics.slices import thick

BASELINE = baseline_of(Job.SUPER_RESOLUTION)
NAME = "thin-slices"
SHAPE = (60, 40, 44)


@pytest.fixture(scope="module")
def model() -> ThinSlices:
    return reconstructor_of(find_bundle(NAME), Backend(torch.device("cpu"), torch.float32))


def of_ct(voxels: np.ndarray) -> Volume:
    return Volume(voxels.astype(np.float32), Grid.from_axes(voxels.shape, (0.8, 0.8, 0.8)))


def organs(seed: int) -> np.ndarray:
    """Rounded regions of soft tissue, fat, lung and vessels with sharp borders, in HU."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal(SHAPE), size) for size in (7.0, 4.0, 2.0)]
    tissue = np.where(fields[0] > 0, 50.0, -850.0)
    tissue[(fields[1] > fields[1].std()) & (tissue > 0)] = -100
    tissue[fields[2] > 1.7 * fields[2].std()] = 40
    return ndimage.gaussian_filter(tissue, 0.5)


def error(made: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((made - truth) ** 2)))


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_it_is_nearer_to_the_thin_slices_than_back_projection(model: ThinSlices, factor: int):
    truth = organs(factor)
    options = ReconstructOptions(factor=factor)
    slab = thick(of_ct(truth), factor)
    plain = CLASSICAL[BASELINE].load().reconstruct(slab, options, silent)
    made = model.reconstruct(slab, options, silent)
    assert error(made.image, truth) < 0.93 * error(plain.image, truth)
    assert made.checks[0].value < 0.001


def test_what_changes_slowly_gets_no_structure(model: ThinSlices):
    k, j, i = np.indices(SHAPE)
    slow = 100 + 3.0 * j + 40 * np.sin(k / 15) + 20 * np.cos(i / 12)
    slab = thick(of_ct(slow), 3)
    made = model.reconstruct(slab, ReconstructOptions(factor=3), silent)
    assert np.abs(made.image - slow)[6:-6].max() < 2


def test_noise_is_not_made_stronger_than_back_projection_makes_it(model: ThinSlices):
    noise = 20 * np.random.default_rng(3).standard_normal(SHAPE)
    slab, options = thick(of_ct(noise), 3), ReconstructOptions(factor=3)
    plain = CLASSICAL[BASELINE].load().reconstruct(slab, options, silent)
    made = model.reconstruct(slab, options, silent)
    assert made.image.std() < 1.05 * plain.image.std()


@pytest.mark.parametrize("contrast_hu", [150.0, 900.0])
def test_a_small_nodule_keeps_its_place_and_is_not_lost(model: ThinSlices, contrast_hu: float):
    distance = np.linalg.norm((np.moveaxis(np.indices(SHAPE), 0, -1) - (31.0, 20.0, 22.0)) * 0.8, axis=-1)
    truth = -850 + contrast_hu / (1 + np.exp((distance - 2.5) / 0.3))
    options = ReconstructOptions(factor=4)
    slab = thick(of_ct(truth), 4)
    plain, made = (m.reconstruct(slab, options, silent).image + 850 for m in (CLASSICAL[BASELINE].load(), model))
    ball = distance < 2.5
    assert abs(made[ball].mean() - (truth[ball].mean() + 850)) <= abs(plain[ball].mean() - (truth[ball].mean() + 850))
    weight = np.clip(made, 0, None) * (distance < 8)
    center = [float((axis * weight).sum() / weight.sum()) for axis in np.indices(SHAPE)]
    assert np.abs(np.array(center) - (31.0, 20.0, 22.0)).max() * 0.8 < 0.2


def test_the_uncertainty_is_larger_where_the_error_is(model: ThinSlices):
    truth = organs(9)
    made = model.reconstruct(thick(of_ct(truth), 3), ReconstructOptions(factor=3), silent)
    assert made.uncertainty is not None
    wrong = np.abs(made.image - truth)
    surest, least_sure = (made.uncertainty < np.quantile(made.uncertainty, q) for q in (0.5, 0.9))
    assert wrong[~least_sure].mean() > 5 * wrong[surest].mean()


def test_mr_in_any_unit_is_answered_alike(model: ThinSlices):
    slab = thick(of_ct(organs(2)), 3)
    as_mr = Volume((slab.voxels + 1000) * np.float32(0.37), slab.grid, Unit.ARBITRARY, "MR")
    options = ReconstructOptions(factor=3, uncertainty=False)
    one, other = (model.reconstruct(volume, options, silent).image for volume in (slab, as_mr))
    np.testing.assert_allclose((one + 1000) * 0.37, other, atol=0.05)
