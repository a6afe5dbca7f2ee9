from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.physics.test_slices import AXIAL, SAGITTAL, centroids_mm, smooth
from tomolens.core.errors import Cancelled, ContractError, OutOfMemory
from tomolens.core.grid import Grid
from tomolens.core.progress import silent
from tomolens.core.reconstruction import Job, ReconstructOptions
from tomolens.core.series import Series
from tomolens.core.volume import Unit, Volume
from tomolens.models.classical import METHODS, THICK_SLICES
from tomolens.models.inference import Backend
from tomolens.models.networks import build
from tomolens.models.reconstructor import baseline_of, reconstruction_models
from tomolens.models.slice_network import offsets_of
from tomolens.models.super_resolution import CLASSICAL, ThinSlices, noise_share
from tomolens.phantoms.markers import marked_volume
from tomolens.physics.slices import averaged, thick
from tomolens.pipelines.reconstruct import reconstruct

CPU = Backend(torch.device("cpu"), torch.float32)
BASELINE = baseline_of(Job.SUPER_RESOLUTION)
CARD = replace(
    METHODS[Job.SUPER_RESOLUTION][BASELINE],
    name="random-slices",
    summary="Untrained.",
    ranges={"factor": (2, 4), "thick_mm": (2.0, 6.0), "noise_percent": (0.0, 50.0)},
)


def network(wild: bool = True) -> torch.nn.Module:
    """Of random weights: wild answers, or none at all as before the first step of a training."""
    torch.manual_seed(3)
    made = build("slice_net", {"channels": 8, "blocks": 2})
    if wild:
        for head in made.heads:
            torch.nn.init.normal_(head.weight, std=0.3)
    return made.eval()


def model(wild: bool = True) -> ThinSlices:
    return ThinSlices(CARD, network(wild), "0" * 64, CPU)


def slab(factor: int = 3, directions=AXIAL, unit: Unit = Unit.HU) -> Volume:
    grid = Grid.from_axes((8 * factor, 20, 23), (1.0, 0.8, 0.7), (5.0, -20.0, 80.0), directions)
    voxels = smooth(grid.shape)
    modality = "CT" if unit is Unit.HU else "MR"
    return thick(Volume(voxels.astype(np.int16) if unit is Unit.HU else voxels, grid, unit, modality), factor)


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
@pytest.mark.parametrize("unit", list(Unit))
def test_whatever_the_network_says_the_means_are_the_measured_slices(factor: int, unit: Unit):
    scan = slab(factor, unit=unit)
    made = reconstruct(scan, model(), ReconstructOptions(factor=factor))
    assert made.volume.shape == (scan.shape[0] * factor, *scan.shape[1:])
    rounding = 0.51 if unit is Unit.HU else 1e-4
    np.testing.assert_allclose(averaged(made.volume.voxels, factor), scan.voxels, atol=rounding)
    assert made.checks[0].value < 1e-3
    assert np.abs(made.difference).max() > 1, "the network was asked"
    assert scan.voxels.min() <= made.volume.voxels.min() <= made.volume.voxels.max() <= scan.voxels.max()


def test_an_untrained_network_gives_what_its_baseline_gives():
    made = reconstruct(slab(), model(wild=False), ReconstructOptions(factor=3), baseline=CLASSICAL[BASELINE].load())
    assert made.baseline is not None
    np.testing.assert_allclose(made.volume.voxels, made.baseline.voxels, atol=1)


def test_the_baseline_is_named_and_the_classical_methods_are_listed_after_the_network_and_before_its_gan():
    assert BASELINE == "cubic-backprojected"
    listed = [card.name for card in reconstruction_models(Job.SUPER_RESOLUTION)]
    assert listed[:4] == ["thin-slices", BASELINE, "cubic", "thin-slices-gan"]


@pytest.mark.parametrize("directions", [AXIAL, SAGITTAL])
def test_structures_stay_where_they_are_in_the_patient(directions):
    scan = marked_volume(Grid.from_axes((60, 36, 40), (1.0, 1.0, 1.0), (-31.0, 12.0, 240.0), directions))
    made = reconstruct(thick(scan, 3), CLASSICAL[BASELINE].load(), ReconstructOptions(factor=3))
    assert made.volume.grid.same_place(scan.grid)
    assert np.linalg.norm(centroids_mm(made.volume, 10.0) - centroids_mm(scan, 10.0), axis=1).mean() < 0.1


def test_an_offset_changes_nothing_and_a_multiple_gives_the_same_multiple():
    scan = slab(unit=Unit.ARBITRARY)
    options = ReconstructOptions(factor=3)
    plain, moved = (
        model().reconstruct(source, options, silent) for source in (scan, scan.with_voxels(4 * scan.voxels + 900, "x"))
    )
    np.testing.assert_allclose(4 * plain.image + 900, moved.image, atol=0.05)
    assert plain.uncertainty is not None
    assert moved.uncertainty is not None
    np.testing.assert_allclose(4 * plain.uncertainty, moved.uncertainty, rtol=1e-3)


def test_turning_the_stack_over_does_not_move_it():
    scan = slab(unit=Unit.ARBITRARY)
    options = ReconstructOptions(factor=3)
    up, down = (reconstruct(v, CLASSICAL[BASELINE].load(), options).volume for v in (scan, scan.flipped(0)))
    assert down.flipped(0).grid.same_place(up.grid)
    np.testing.assert_allclose(down.flipped(0).voxels, up.voxels, atol=1e-2)


def test_without_a_wish_the_factor_is_the_least_that_is_enough():
    made = reconstruct(slab(4), model())
    assert made.volume.spacing_mm[0] == pytest.approx(1.0)
    assert "Each slice of 4 mm became 4 of 1 mm." in made.run.notes


def test_what_lies_outside_the_training_range_is_said():
    made = reconstruct(slab(5), model(), ReconstructOptions(factor=5))
    assert any(warning.startswith("factor 5: OUT OF range") for warning in made.warnings)


def test_the_plain_spline_says_that_it_does_not_keep_the_measured_slices():
    made = reconstruct(slab(), CLASSICAL["cubic"].load(), ReconstructOptions(factor=3))
    assert any("difference from the measured slices" in warning for warning in made.warnings)
    assert made.uncertainty is None


def test_thin_slices_are_refused():
    with pytest.raises(ContractError, match="as fine as its pixels"):
        reconstruct(Volume(smooth((20, 20, 20)), Grid.from_axes((20, 20, 20))), model())


def test_padding_is_no_tissue_and_stays_padding():
    scan = slab()
    voxels = scan.voxels.copy()
    voxels[:, :4] = -3000
    made = reconstruct(replace(scan, voxels=voxels, padding=-3000.0), model(), ReconstructOptions(factor=3))
    assert (made.volume.voxels[:, :4] == -3000).all()
    assert made.volume.voxels[:, 4:].min() >= scan.voxels.min()
    assert made.uncertainty is not None
    assert not made.uncertainty[:, :4].any()


def test_it_is_stopped_between_planes_and_tells_every_plane():
    steps = []

    def stop(step):
        steps.append(step)
        if step.stage == "make thin slices":
            raise Cancelled

    with pytest.raises(Cancelled):
        reconstruct(slab(), model(), ReconstructOptions(factor=3), progress=stop)
    assert (steps[-1].total, steps[-1].stage) == (20 + 23, "make thin slices")


@pytest.mark.parametrize("name", CLASSICAL)
def test_an_interpolation_is_stopped_between_its_parts(name, monkeypatch):
    monkeypatch.setattr("tomolens.models.super_resolution._AT_ONCE", 24 * 23 * 5)
    told = []

    def stop(step):
        told.append((step.done, step.total))
        if step.done == 10:
            raise Cancelled

    with pytest.raises(Cancelled):
        reconstruct(slab(), CLASSICAL[name].load(), ReconstructOptions(factor=3), progress=stop)
    assert told == [(0, 20), (5, 20), (10, 20)]


@pytest.mark.parametrize(
    ("thickness_mm", "simulated", "percent"),
    [(3.0, False, None), (2.4, False, 80), (6.0, False, 200), (None, False, None), (2.0, True, 133), (1.0, True, None)],
)
def test_slices_that_overlap_or_leave_gaps_are_said_with_the_number(thickness_mm, simulated, percent):
    scan = slab()
    series = Series("1", "2", "CT", (), (24, 20, 23), (1.0 if simulated else 3.0, 0.8, 0.7), thickness_mm=thickness_mm)
    made = reconstruct(replace(scan, series=series), CLASSICAL[BASELINE].load(), ReconstructOptions(factor=3))
    told = [f"slice thickness {percent} % of their distance: OUT OF range (90 to 110 % of their distance)"]
    assert list(made.warnings) == (told if percent else [])
    assert ("slice thickness" in [check.name for check in made.checks]) == (thickness_mm is not None)


def test_where_memory_runs_out_fewer_planes_go_at_a_time_and_the_answer_is_the_same(monkeypatch):
    scan, options = slab(), ReconstructOptions(factor=3)
    expected = model().reconstruct(scan, options, silent)
    tight = model()
    whole, forward = tight.network, tight.network.forward

    def small(image, setting, factor=None):
        if len(image) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return forward(image, setting, factor)

    monkeypatch.setattr(whole, "forward", small)
    made = tight.reconstruct(scan, options, silent)
    np.testing.assert_allclose(made.image, expected.image, atol=1e-3)
    assert any("trying fewer" in note for note in made.run.notes)


def test_where_not_even_one_plane_fits_it_says_so(monkeypatch):
    tight = model()

    def full(*_: object):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(tight.network, "forward", full)
    with pytest.raises(OutOfMemory, match="single plane"):
        tight.reconstruct(slab(), ReconstructOptions(factor=3), silent)


def test_the_noise_is_told_as_a_share_of_the_contrast():
    rng = np.random.default_rng(1)
    steps = np.repeat(np.linspace(0, 1000, 8, dtype=np.float32), 40)[None, None] * np.ones((6, 30, 1), np.float32)
    noisy = steps + rng.normal(0, 20, steps.shape).astype(np.float32)
    assert noise_share(noisy) == pytest.approx(0.02, rel=0.15)
    assert noise_share(np.zeros((4, 4, 4), np.float32)) == 0


def test_ct_in_hu_and_mr_of_any_unit_are_taken_and_others_are_not():
    assert THICK_SLICES.modalities == ("CT", "MR")
    assert not THICK_SLICES.refusals(slab())
    assert not THICK_SLICES.refusals(slab(unit=Unit.ARBITRARY))
    assert THICK_SLICES.refusals(replace(slab(), modality="PT"))


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_the_networks_answer_sums_to_nothing_over_each_thick_slice(factor: int):
    answer = network()(torch.randn(2, 1, 9, 31), torch.rand(2, 2), factor)
    assert answer.shape == (2, 2 * factor, 9, 31)
    assert answer[:, :factor].mean(dim=1).abs().max() < 1e-5
    assert answer[:, factor:].min() > 0


def test_all_heads_stand_in_one_answer_where_no_factor_is_asked_for():
    image, setting = torch.randn(1, 1, 6, 12), torch.rand(1, 2)
    every = network()(image, setting)
    for factor in (2, 3, 4, 5):
        first = offsets_of(factor)
        torch.testing.assert_close(every[:, first : first + 2 * factor], network()(image, setting, factor))


def test_averaging_is_by_place():
    thin = np.arange(12, dtype=np.float32).reshape(6, 2, 1)
    np.testing.assert_array_equal(averaged(thin, 3)[:, 0, 0], [2, 8])
