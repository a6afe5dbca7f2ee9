from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from tomolens.core.card import InputContract
from tomolens.core.errors import ContractError, ModelError, OptionError, TomolensError
from tomolens.core.grid import Grid
from tomolens.core.kspace import ASSUMED_MM, FIRST_OF, KSpace
from tomolens.core.reconstruction import GENERATIVE, Check, Job, Made, ReconstructOptions
from tomolens.core.run import Run
from tomolens.core.volume import Unit, Volume
from tomolens.pipelines.reconstruct import reconstruct
from tomolens.testing import FAKE_DENOISING_CARD, FakeReconstructor

GRID = Grid.from_axes((4, 16, 16), (2.0, 1.0, 1.0))


def noisy(padding: float | None = None) -> Volume:
    voxels = np.random.default_rng(3).normal(0, 40, GRID.shape).astype(np.int16)
    if padding is not None:
        voxels[:, :3] = np.int16(padding)
    return Volume(voxels, GRID, padding=padding)


def test_strength_blends_between_the_input_and_the_full_result():
    scan = noisy()
    full, half, none = (reconstruct(scan, FakeReconstructor(), ReconstructOptions(strength=s)) for s in (1.0, 0.5, 0.0))
    np.testing.assert_array_equal(none.volume.voxels, scan.voxels)
    np.testing.assert_allclose(half.difference, full.difference / 2, atol=1.0)
    assert full.uncertainty is not None
    assert half.uncertainty is not None
    assert none.uncertainty is not None
    np.testing.assert_array_equal(full.uncertainty, FakeReconstructor().sigma)
    taken = float(np.sqrt((full.difference**2).mean()))
    assert np.sqrt((none.uncertainty**2).mean()) == pytest.approx(taken, rel=0.02)
    np.testing.assert_allclose(half.uncertainty**2, (none.uncertainty**2 + full.uncertainty**2) / 4, rtol=1e-5)
    assert half.run.options["strength"] == 0.5


def test_a_scan_is_finished_slice_by_slice_in_little_more_than_its_result_takes():
    shape = (80, 64, 64)
    scan = Volume(np.zeros(shape, np.int16), Grid.from_axes(shape), padding=-2000.0)
    image = np.ones(shape, np.float32)
    made = Made(image, scan.voxels, scan.grid, Run("fake-mean", "0", ""), image)

    class Remembered(FakeReconstructor):
        def reconstruct(self, source, options, progress):
            return made

    tracemalloc.start()
    result = reconstruct(scan, Remembered(), ReconstructOptions(strength=0.5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    parts = (result.volume.voxels, result.reference.voxels, result.uncertainty)
    assert peak < 1.3 * sum(part.nbytes for part in parts)


def test_padding_is_untouched_and_no_number_lies_outside_those_of_the_scan():
    scan = noisy(padding=-2000)
    made = reconstruct(scan, FakeReconstructor())
    outside = scan.voxels == -2000
    assert (made.volume.voxels[outside] == -2000).all()
    inside = made.volume.voxels[~outside]
    assert scan.voxels[~outside].min() <= inside.min() <= inside.max() <= scan.voxels[~outside].max()
    assert made.volume.voxels.dtype == np.int16
    assert made.uncertainty is not None
    assert not made.uncertainty[outside].any()


def test_numbers_beyond_int16_are_cut_off_and_do_not_turn_negative():
    voxels = np.full(GRID.shape, 40_000, np.float32)
    voxels[0] = -40_000
    made = reconstruct(Volume(voxels, GRID, padding=-40_000.0), FakeReconstructor())
    assert (made.volume.voxels[0] == made.volume.padding).all()
    assert (made.volume.voxels[1:] == 32_767).all()


def test_padding_that_is_no_whole_number_is_padding_afterwards_too():
    scan = Volume(noisy(padding=-2000).voxels.astype(np.float32) / 2 - 0.75, GRID, padding=-1000.75)
    made = reconstruct(scan, FakeReconstructor())
    np.testing.assert_array_equal(made.volume.voxels == made.volume.padding, scan.voxels == scan.padding)
    np.testing.assert_array_equal(made.reference.voxels == made.reference.padding, scan.voxels == scan.padding)


def test_padding_of_an_image_without_a_unit_is_untouched_too():
    card = replace(FAKE_DENOISING_CARD, input=InputContract("MR", None, 6.0, 4.0))
    scan = replace(noisy(padding=-99), unit=Unit.ARBITRARY, modality="MR")
    made = reconstruct(scan, FakeReconstructor(card=card))
    np.testing.assert_array_equal(made.volume.voxels == -99, scan.voxels == -99)


def test_a_baseline_that_cannot_read_the_scan_is_refused_before_the_model_runs():
    told: list[object] = []
    for change in ({"input": InputContract("MR", None, 6.0, 4.0)}, {"task": Job.SUPER_RESOLUTION}):
        other = FakeReconstructor(card=replace(FAKE_DENOISING_CARD, **change))
        with pytest.raises(TomolensError):
            reconstruct(noisy(), FakeReconstructor(), baseline=other, progress=told.append)
    assert not told


def test_what_was_done_stands_in_the_history_and_the_scan_is_not_changed():
    scan = noisy()
    before = scan.voxels.copy()
    made = reconstruct(scan, FakeReconstructor())
    assert made.volume.history == ("ct-denoising by fake-mean 0.0.0",)
    np.testing.assert_array_equal(scan.voxels, before)


def test_a_gan_runs_only_where_it_is_accepted_and_says_what_it_is():
    gan = FakeReconstructor(card=replace(FAKE_DENOISING_CARD, generative=True))
    with pytest.raises(OptionError, match="may be invented"):
        reconstruct(noisy(), gan)
    made = reconstruct(noisy(), gan, ReconstructOptions(generative=True))
    assert GENERATIVE in made.volume.history[-1]
    assert made.warnings[0].startswith(GENERATIVE)


def test_what_is_made_of_a_gans_image_stays_invented():
    gan = FakeReconstructor(card=replace(FAKE_DENOISING_CARD, generative=True))
    invented = reconstruct(noisy(), gan, ReconstructOptions(generative=True)).volume
    made = reconstruct(invented, FakeReconstructor())
    assert made.generative
    assert made.warnings[0].startswith(GENERATIVE)
    assert not reconstruct(noisy(), FakeReconstructor()).generative


def test_sizes_that_were_guessed_and_measurements_that_were_left_out_are_warned_of():
    history = (f"its spacing is not known, {ASSUMED_MM}", f"{FIRST_OF} 2 repetitions was read")
    told = reconstruct(replace(noisy(), history=history), FakeReconstructor()).warnings
    assert told[:2] == (
        f"Sizes are not known: the file states no spacing, {ASSUMED_MM}.",
        "Of the file the first of 2 repetitions was read.",
    )


def test_an_image_is_no_kspace_and_the_refusal_names_the_simulation():
    mri = FakeReconstructor(card=replace(FAKE_DENOISING_CARD, task=Job.MRI))
    with pytest.raises(ContractError, match=r"not k-space.*simulation"):
        reconstruct(noisy(), mri)


def test_kspace_is_no_image():
    measured = KSpace(np.ones((4, 2, 16, 16), np.complex64), np.ones(GRID.shape, bool), GRID)
    with pytest.raises(ContractError, match="takes an image"):
        reconstruct(measured, FakeReconstructor())


def test_a_model_that_reconstructs_nothing_is_refused():
    with pytest.raises(ModelError, match="a model for ct-denoising"):
        reconstruct(noisy(), FakeReconstructor(card=replace(FAKE_DENOISING_CARD, task="detection")))


def test_the_classical_result_stands_beside_the_models():
    plain = FakeReconstructor(card=replace(FAKE_DENOISING_CARD, name="plain"))
    made = reconstruct(noisy(), FakeReconstructor(), baseline=plain)
    assert made.baseline is not None
    assert "plain" in made.baseline.history[-1]


@pytest.mark.parametrize("part", ["image", "reference", "uncertainty"])
def test_an_answer_that_is_no_number_is_refused(part):
    class Broken(FakeReconstructor):
        def reconstruct(self, source, options, progress):
            made = super().reconstruct(source, options, progress)
            return replace(made, **{part: np.full_like(made.image, np.nan)})

    with pytest.raises(ModelError, match="NaN"):
        reconstruct(noisy(), Broken())


@pytest.mark.parametrize(
    ("value", "low", "high", "inside"), [(5.0, None, 4.0, False), (5.0, 5.0, None, True), (9.1, 0.0, 9.0, False)]
)
def test_a_check_says_whether_a_number_is_in_range(value, low, high, inside):
    check = Check("noise", value, "HU", low, high)
    assert check.inside is inside
    assert ("OUT OF" in str(check)) is not inside


def test_what_could_not_be_measured_is_never_in_range_and_says_so():
    check = Check("noise", np.nan, "HU", 0.0, 9.0)
    assert (check.inside, check.verdict, check.number) == (False, "not measured", "\N{EN DASH}")
    assert str(check) == "noise: not measured (in range would be 0 to 9 HU)"
