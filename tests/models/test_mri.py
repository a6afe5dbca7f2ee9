from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tomolens.core.card import InputContract, ModelCard
from tomolens.core.errors import Cancelled, ContractError, OptionError, OutOfMemory
from tomolens.core.grid import Grid
from tomolens.core.kspace import KSpace
from tomolens.core.progress import Step
from tomolens.core.reconstruction import Job, ReconstructOptions
from tomolens.core.volume import Unit, Volume
from tomolens.models.inference import Backend
from tomolens.models.mri import CLASSICAL, MriReconstructor, Unrolled, VarNet
from tomolens.models.mri_checks import spared
from tomolens.models.mri_tensors import tensors_of
from tomolens.models.networks import build
from tomolens.models.reconstructor import baseline_of
from tomolens.physics.masks import MaskKind, fully_sampled_centre, sampling_mask
from tomolens.physics.sense import Measured
from tomolens.physics.undersampling import invented_coils, simulated_kspace
from tomolens.pipelines.reconstruct import reconstruct

CPU = Backend(torch.device("cpu"), torch.float32)
RANGES = {
    "acceleration": (1.6, 9.0), "coils": (1.0, 16.0), "noise": (0.1, 7.0), "centre": (4.0, 4096.0),
    "widest gap": (0.0, 20.0), "matrix": (30.0, 512.0), "misfit": (0.0, 100.0), "held-out misfit": (0.0, 1.2),
}  # fmt: skip
SMALL = {"rounds": 2, "channels": [8, 8, 8]}
CARD = ModelCard(
    "untrained", "0", Job.MRI, "An untrained network.", "Tests.", "Nothing.", "Apache-2.0",
    InputContract("MR", Unit.ARBITRARY, 50.0, 0.0), 0.0, "cascaded_sense", ranges=RANGES,
)  # fmt: skip


def head() -> Volume:
    """Three slices, each with a block of its own, in an oblique place."""
    voxels = np.zeros((3, 56, 48), np.float32)
    voxels[:, 10:46, 8:40] = 500
    for k in range(3):
        voxels[k, 14 + 8 * k : 22 + 8 * k, 12:30] = 900
    turn = [[0, 0.6, 0.8], [0, -0.8, 0.6], [1, 0, 0]]
    return Volume(voxels, Grid.from_axes(voxels.shape, (5, 1.2, 1.0), (3, -4, 60), turn), Unit.ARBITRARY, "MR")


def measured(acceleration: float = 2.5, kind: MaskKind = MaskKind.RANDOM, noise: float = 0.01) -> KSpace:
    return simulated_kspace(head(), 5, acceleration, kind, noise, seed=3)


def untrained() -> MriReconstructor:
    torch.manual_seed(2)
    return MriReconstructor(CARD, Unrolled(build("cascaded_sense", SMALL), CPU), "0" * 64, CPU)


def error(image: np.ndarray) -> float:
    return float(np.sqrt(np.mean((image - head().voxels) ** 2)))


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_classical_method_makes_each_slice_in_its_place_and_unit(name):
    kspace = measured(2.0)
    made = reconstruct(kspace, CLASSICAL[name].load())
    assert made.job is Job.MRI
    assert made.volume.grid.same_place(head().grid)
    assert (made.volume.modality, made.volume.unit) == ("MR", Unit.ARBITRARY)
    for k in range(3):
        likeness = [np.corrcoef(made.volume.voxels[k].ravel(), head().voxels[n].ravel())[0, 1] for n in range(3)]
        assert int(np.argmax(likeness)) == k
    assert made.volume.voxels[:, 20:25, 33:38].mean() == pytest.approx(500, rel=0.15)


@pytest.mark.parametrize("kind", MaskKind)
def test_the_baseline_beats_conjugate_gradients_and_those_beat_zeros(kind):
    errors = [error(reconstruct(measured(3, kind), CLASSICAL[name].load()).volume.voxels) for name in CLASSICAL]
    assert next(iter(CLASSICAL)) == baseline_of(Job.MRI)
    assert errors == sorted(errors)


def test_the_history_begins_with_the_simulation_and_ends_with_the_model():
    made = reconstruct(measured(), CLASSICAL["cg-sense"].load())
    assert made.volume.history[0].startswith("simulated: ")
    assert made.volume.history[-1] == "mri-reconstruction by cg-sense 1"
    assert made.run.history == measured().history


def test_an_untrained_network_answers_with_uncertainty_checks_and_a_reference():
    kspace = measured()
    made = reconstruct(kspace, untrained(), baseline=CLASSICAL[baseline_of(Job.MRI)].load())
    assert {check.name for check in made.checks} == {*RANGES, "matrix rows", "matrix columns"} - {"matrix"}
    assert made.uncertainty is not None
    assert (made.uncertainty > 0).all()
    assert made.baseline is not None
    assert error(made.volume.voxels) < error(made.reference.voxels)
    assert reconstruct(kspace, untrained(), ReconstructOptions(uncertainty=False)).uncertainty is None


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda: measured(1.0), "acceleration"),
        (lambda: measured(noise=0.3), "noise"),
        (lambda: simulated_kspace(head(), 24, 2.0, MaskKind.RANDOM, 0.01, seed=3), "coils"),
        (lambda: measured(1.0).kept((np.arange(56) < 32)[:, None], "half"), "widest gap"),
        (lambda: measured(1.0).kept((np.arange(56) % 2 == 1)[:, None], "no centre"), "centre"),
    ],
)
def test_what_lies_outside_the_training_range_is_said_with_its_number(change, name):
    failed = {check.name: check for check in reconstruct(change(), untrained()).checks if not check.inside}
    assert name in failed
    assert "OUT OF range" in str(failed[name])


def test_the_number_of_the_check_is_that_of_the_measurement():
    checks = {check.name: check.value for check in reconstruct(measured(), untrained()).checks}
    assert checks["acceleration"] == pytest.approx(measured().acceleration)
    assert checks["coils"] == 5
    assert (checks["matrix rows"], checks["matrix columns"]) == (56, 48)
    assert 0.5 < checks["misfit"] < 20


def test_a_few_lines_outside_the_centre_are_kept_from_the_method():
    for kind in MaskKind:
        mask = sampling_mask(kind, (100, 80), 3, seed=1)
        kept = spared(mask)
        assert (mask[kept]).all()
        assert not kept[fully_sampled_centre(mask)].any()
        assert 0.01 < kept.sum() / mask.sum() < 0.08
        assert kind is MaskKind.POISSON or (kept == kept[:, :1]).all()


def test_slices_of_nothing_are_made_and_checked_without_an_error():
    nothing = replace(measured(), data=np.zeros_like(measured().data))
    made = reconstruct(nothing, replace_ranges(CLASSICAL["tv-sense"].load()))
    assert not made.volume.voxels.any()
    assert "held-out misfit: not measured (in range would be 0 to 1.2 of CG-SENSE's)" in made.warnings


def test_a_matrix_that_is_too_long_on_one_side_alone_is_out_of_range():
    model = replace_ranges(CLASSICAL["cg-sense"].load())
    model.card = replace(model.card, ranges={"matrix": (30.0, 50.0)})
    rows, columns = reconstruct(measured(), model).checks
    assert (str(rows), columns.inside) == ("matrix rows 56 pixels: OUT OF range (30 to 50 pixels)", True)


def test_a_range_that_nothing_is_measured_for_is_said_to_be_not_measured():
    model = replace_ranges(CLASSICAL["cg-sense"].load())
    model.card = replace(model.card, ranges={"field_strength": (1.0, 3.0)})
    assert reconstruct(measured(), model).warnings == ("field strength: not measured (in range would be 1 to 3)",)


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("shape", [(1, 16), (16, 1)])
def test_a_single_line_is_an_image_too(name, shape):
    line = KSpace(np.ones((1, 2, *shape), np.complex64), np.ones((1, *shape), bool), Grid.from_axes((1, *shape)))
    assert reconstruct(line, CLASSICAL[name].load()).volume.shape == (1, *shape)


@pytest.mark.parametrize("name", ["tv-sense", "cg-sense"])
def test_sensitivities_in_another_unit_change_nothing(name):
    known = replace(measured(), sensitivities=invented_coils((3, 56, 48), 5, np.random.default_rng([3, 42])))
    loud = replace(known, sensitivities=10 * known.sensitivities)
    one, other = (reconstruct(kspace, CLASSICAL[name].load()).volume.voxels for kspace in (known, loud))
    np.testing.assert_allclose(other, one, rtol=1e-3, atol=0.1)


def replace_ranges(model: MriReconstructor) -> MriReconstructor:
    """The model with every check."""
    model.card = replace(model.card, ranges=RANGES)
    return model


def test_known_sensitivities_are_used():
    kspace = measured(2.0)
    wrong = np.ones_like(kspace.data) / np.sqrt(5, dtype=np.float32)
    found, given = (
        reconstruct(each, CLASSICAL["cg-sense"].load()) for each in (kspace, replace(kspace, sensitivities=wrong))
    )
    assert error(found.volume.voxels) < error(given.volume.voxels)


def test_a_mask_that_may_not_be_written_to_is_copied_for_the_network():
    slice_ = Measured.of(measured().data[0], np.broadcast_to(measured().acquired[0], (56, 48)))
    tensors_of(slice_, ["acquired"])["acquired"][:] = (
        False  # torch warns of memory that is read-only, and would write to it
    )
    assert slice_.acquired.any()


def test_a_single_coil_is_reconstructed_too():
    kspace = simulated_kspace(head(), 1, 1.5, MaskKind.RANDOM, 0.01, seed=3)
    assert error(reconstruct(kspace, CLASSICAL[baseline_of(Job.MRI)].load()).volume.voxels) < 90


def test_an_image_is_refused_by_the_model_too():
    with pytest.raises(ContractError, match="is an image"):
        untrained().reconstruct(head(), ReconstructOptions(), lambda step: None)


def test_the_work_is_told_slice_by_slice_and_can_be_stopped():
    steps: list[Step] = []

    def stop(step: Step) -> None:
        steps.append(step)
        if step.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        reconstruct(measured(), CLASSICAL["cg-sense"].load(), progress=stop)
    assert list(dict.fromkeys((step.done, step.total) for step in steps)) == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize("name", ["tv-sense", "cg-sense"])
def test_a_classical_method_is_heard_before_each_of_its_steps(name):
    times = 0

    def count(step: Step) -> None:
        nonlocal times
        times += step.done == 1
        if times == 8:
            raise Cancelled

    with pytest.raises(Cancelled):
        reconstruct(measured(), CLASSICAL[name].load(), progress=count)


@pytest.mark.parametrize("stage", ["reconstruct", "check"])
def test_a_network_is_heard_in_each_of_its_layers_also_while_it_is_checked(stage):
    model, times = untrained(), 0
    layers = sum(not any(layer.children()) for layer in model._method.place.network.modules())

    def count(step: Step) -> None:
        nonlocal times
        times += (step.stage, step.done) == (stage, 0)
        if times == layers:
            raise Cancelled

    with pytest.raises(Cancelled):
        reconstruct(measured(), model, progress=count)
    assert not any(layer._forward_hooks for layer in model._method.place.network.modules())


def test_a_slice_that_is_checked_is_not_prepared_a_second_time(monkeypatch):
    prepared, prepare = [], Measured.of.__func__
    monkeypatch.setattr(Measured, "of", classmethod(lambda cls, *given: prepared.append(1) or prepare(cls, *given)))
    made = reconstruct(measured(), untrained())
    assert "held-out misfit" in {check.name for check in made.checks if check.verdict != "not measured"}
    assert len(prepared) == 3


class Full(torch.nn.Module):
    """A network that never fits."""

    inputs = ("image",)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA out of memory")


def test_a_slice_that_does_not_fit_into_memory_is_told():
    with pytest.raises(OutOfMemory, match="single slice"):
        reconstruct(measured(), MriReconstructor(CARD, Unrolled(Full(), CPU), "", CPU))


def test_an_engine_that_cannot_run_it_is_refused():
    with pytest.raises(OptionError, match="runs with torch"):
        Unrolled(Full(), replace(CPU, engine="openvino"))


def test_varnet_runs_as_a_model_like_any_other():
    torch.manual_seed(1)
    small = [4, 4, 8, 8, 16, 4]
    network = build("var_net", {"num_cascades": 1, "features": small, "sensitivity_features": small})
    model = MriReconstructor(replace(CARD, network="var_net"), VarNet(network.eval(), CPU), "", CPU)
    made = reconstruct(measured(2.0, MaskKind.EQUISPACED), model)
    assert made.volume.shape == head().shape
    assert made.uncertainty is None
    assert {check.name for check in made.checks if check.verdict == "not measured"} == {"misfit", "held-out misfit"}
