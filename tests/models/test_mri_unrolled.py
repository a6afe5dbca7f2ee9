"""The network that is shipped, with its weights, on a generated brain of a seed that training never saw."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tomolens.core.grid import Grid
from tomolens.core.kspace import KSpace
from tomolens.core.reconstruction import Job, Reconstruction
from tomolens.models.inference import Backend
from tomolens.models.mri import CLASSICAL, MriReconstructor, reconstructor_of
from tomolens.models.reconstructor import reconstruction_models
from tomolens.models.registry import find_bundle
from tomolens.phantoms.kspace import MultiCoilSlices, brain_kspace
from tomolens.physics.masks import MaskKind, sampling_mask
from tomolens.pipelines.reconstruct import reconstruct


@cache
def network() -> MriReconstructor:
    return reconstructor_of(find_bundle("mri-unrolled"), Backend.choose("cpu"))


@cache
def brain() -> MultiCoilSlices:
    return brain_kspace(77, slices=1, spacing_mm=(5.0, 2.2, 2.2))


def measured(mask: np.ndarray | None = None) -> KSpace:
    head = brain()
    grid = Grid.from_axes(head.image.shape, head.spacing_mm)
    data = np.ascontiguousarray(head.kspace.swapaxes(0, 1))
    whole = KSpace(data, np.ones(head.image.shape, bool), grid)
    return whole if mask is None else whole.kept(mask, "undersampled")


def psnr_db(made: Reconstruction) -> float:
    off = np.asarray(made.volume.voxels) - brain().image
    return float(20 * np.log10(brain().image.max() / np.sqrt(np.mean(off**2))))


@pytest.mark.parametrize(
    ("kind", "acceleration"),
    [
        (MaskKind.RANDOM, 2.0),
        (MaskKind.RANDOM, 4.0),
        (MaskKind.EQUISPACED, 4.0),
        (MaskKind.POISSON, 6.0),
        (MaskKind.RANDOM, 8.0),
    ],
)
def test_it_is_never_below_conjugate_gradients(kind, acceleration):
    kspace = measured(sampling_mask(kind, brain().image.shape[1:], acceleration, seed=9))
    made, plain = (reconstruct(kspace, model) for model in (network(), CLASSICAL["cg-sense"].load()))
    assert psnr_db(made) > psnr_db(plain)


def test_at_four_times_it_is_nearer_to_the_truth_than_total_variation_and_is_the_default():
    kspace = measured(sampling_mask(MaskKind.EQUISPACED, brain().image.shape[1:], 4.0, seed=9))
    made, plain = (reconstruct(kspace, model) for model in (network(), CLASSICAL["tv-sense"].load()))
    assert psnr_db(made) > psnr_db(plain) + 0.5
    assert reconstruction_models(Job.MRI)[0].name == "mri-unrolled"


@pytest.mark.parametrize("lines", ["whole", "half", "twelvefold"])
def test_out_of_range_it_says_so_and_does_not_fall_below_conjugate_gradients_either(lines):
    rows = brain().image.shape[1]
    masks = {
        "whole": None,
        "half": (np.arange(rows) < 0.6 * rows)[:, None],
        "twelvefold": sampling_mask(MaskKind.RANDOM, brain().image.shape[1:], 12.0, seed=9),
    }
    kspace = measured(masks[lines])
    made, plain = (reconstruct(kspace, model) for model in (network(), CLASSICAL["cg-sense"].load()))
    assert any(not check.inside for check in made.checks)
    assert psnr_db(made) > psnr_db(plain) - 0.1


def test_in_range_every_check_passes_and_about_two_thirds_of_tissue_lie_within_one_deviation():
    made = reconstruct(measured(sampling_mask(MaskKind.RANDOM, brain().image.shape[1:], 3.0, seed=9)), network())
    assert not made.warnings
    assert made.uncertainty is not None
    tissue = brain().image > 100
    within = np.abs(made.volume.voxels - brain().image)[tissue] < made.uncertainty[tissue]
    assert 0.5 < within.mean() < 0.9
