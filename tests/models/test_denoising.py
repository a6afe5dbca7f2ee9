"""Denoising slice by slice: where things lie, what is untouched, what gives way; networks here are untrained."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tests.physics.test_noise import MIDDLE
from tomolens import Grid, Volume
from tomolens.core.errors import Cancelled, ContractError, ModelError, OptionError, OutOfMemory
from tomolens.core.progress import Step
from tomolens.core.reconstruction import Job, ReconstructOptions
from tomolens.models.classical import METHODS
from tomolens.models.denoising import CLASSICAL, SliceReconstructor, TiledPass, tiles_of
from tomolens.models.inference import Backend
from tomolens.models.networks import build
from tomolens.models.reconstructor import baseline_of, load_reconstructor, reconstruction_models
from tomolens.models.slice_denoiser import fast
from tomolens.physics.noise import noise_map
from tomolens.pipelines.reconstruct import reconstruct

CPU = Backend(torch.device("cpu"), torch.float32)
RANGES = {"noise_hu": (5, 80), "noise_frequency": (0.1, 0.4), "pixel_mm": (0.5, 1.5), "slice_mm": (0.5, 5.0)}
CARD = replace(CLASSICAL["tv"].card, name="wild", ranges=RANGES)


def wild(seed: int = 0, **settings: float) -> torch.nn.Module:
    """A network whose answer is far from its input."""
    torch.manual_seed(seed)
    network = build("slice_denoiser", {"channels": [8, 8, 8], **settings})
    for head in (network.change, network.doubt):
        torch.nn.init.normal_(head.weight, std=0.05)
    return network.eval()


def model(network: torch.nn.Module | None = None) -> SliceReconstructor:
    return SliceReconstructor(CARD, network or wild(), "0" * 64, CPU)


def scan(slices: int = 4, rows: int = 72, columns: int = 140) -> Volume:
    noise = MIDDLE.noise((slices, rows, columns), np.random.default_rng(2))
    voxels = np.rint(40 + 25 * noise).astype(np.int16)
    voxels[:, :, 96:] -= 800
    return Volume(voxels, Grid.from_axes(voxels.shape, (2.5, 0.8, 0.8), (0.0, 0.0, 0.0)))


def test_an_untrained_network_leaves_a_scan_as_it_is() -> None:
    network = build("slice_denoiser", {"channels": [8, 8, 8]})
    made = reconstruct(scan(), model(network))
    np.testing.assert_array_equal(made.volume.voxels, scan().voxels)
    np.testing.assert_allclose(made.uncertainty[1], noise_map(scan().voxels[1].astype(np.float32)), rtol=1e-5)


def test_a_reformat_is_told_by_its_longer_pixel_edge() -> None:
    long = replace(scan(), grid=Grid.from_axes(scan().shape, (0.7, 2.0, 0.7)))
    told = {check.name: check for check in reconstruct(long, model()).checks}["pixel"]
    assert (told.value, told.inside) == (2.0, False)


def test_a_scan_that_is_turned_gives_the_same_slices_in_the_same_place() -> None:
    turned = scan().permuted((1, 2, 0)).flipped(2)
    one, other = (reconstruct(volume, model()) for volume in (scan(), turned))
    np.testing.assert_array_equal(one.volume.canonical().voxels, other.volume.canonical().voxels)
    assert other.volume.grid.same_place(turned.grid)
    assert (one.volume.voxels != scan().voxels).mean() > 0.5


def test_padding_is_untouched_and_is_not_seen() -> None:
    voxels = scan().voxels.copy()
    voxels[:, :5] = -2000
    other = voxels.copy()
    other[:, :5] = -3024
    padded, deeper = (replace(scan(), voxels=v, padding=v.min()) for v in (voxels, other))
    one, two = (reconstruct(volume, model()) for volume in (padded, deeper))
    assert (one.volume.voxels[:, :5] == -2000).all()
    assert (one.uncertainty[:, :5] == 0).all()
    np.testing.assert_array_equal(one.volume.voxels[:, 5:], two.volume.voxels[:, 5:])


def test_a_slice_depends_on_its_neighbours_and_no_further() -> None:
    changed = scan(6).voxels.copy()
    changed[5] += 100
    one, other = (
        model().reconstruct(volume, ReconstructOptions()).image
        for volume in (scan(6), replace(scan(6), voxels=changed))
    )
    same = [bool((a == b).all()) for a, b in zip(one, other, strict=True)]
    assert same == [True, True, True, True, False, False]


def test_a_single_slice_will_do() -> None:
    assert reconstruct(scan(1), model()).volume.shape == (1, 72, 140)


def test_progress_is_told_slice_by_slice_and_stops_the_work() -> None:
    steps: list[Step] = []

    def tell(step: Step) -> None:
        steps.append(step)
        if step.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        reconstruct(scan(), model(), progress=tell)
    assert [(step.done, step.total) for step in steps if not step.remark] == [(0, 4), (1, 4), (2, 4)]


@pytest.mark.parametrize("kept_px", [0.0, 3.0, 6.5])
def test_tiles_give_what_the_whole_gives(kept_px: float) -> None:
    image = np.repeat(scan(1, 300, 330).voxels.astype(np.float32), 3, axis=0)
    noise = noise_map(image[1])
    network = wild(kept_px=kept_px)
    whole, parts = TiledPass(network, CPU), TiledPass(network, CPU, tile=64)
    np.testing.assert_allclose(parts.over(image, noise), whole.over(image, noise), atol=0.02)


@pytest.mark.parametrize("edge", [8, 64, 500])
def test_tiles_cover_every_pixel_once(edge: int) -> None:
    seen = np.zeros((130, 71), int)
    for inner, outer, within in tiles_of(seen.shape, edge):
        seen[inner] += 1
        numbered = np.arange(seen.size).reshape(seen.shape)
        np.testing.assert_array_equal(numbered[outer][within], numbered[inner])
    assert (seen == 1).all()


class Greedy(torch.nn.Module):
    """Runs out of memory on anything larger than ``most`` pixels."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.inner = most, wild()

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        if image.shape[-1] * image.shape[-2] > self.most:
            raise torch.OutOfMemoryError("out of memory")
        answer: torch.Tensor = self.inner(image, sigma)
        return answer


def test_where_memory_runs_out_tiles_are_halved_and_the_run_says_so() -> None:
    volume = scan(1, 400, 420)
    made = reconstruct(volume, model(Greedy(150_000)))
    assert any("Out of memory on cpu; trying tiles of" in note for note in made.run.notes)
    plain = reconstruct(volume, model())
    np.testing.assert_allclose(made.volume.voxels, plain.volume.voxels, atol=1)


@pytest.mark.parametrize(("period_px", "taken"), [(24, 0.03), (9.8, 0.5), (5, 1.0)])
def test_of_what_varies_slowly_nothing_is_taken_off(period_px: float, taken: float) -> None:
    wave = torch.sin(2 * torch.pi * torch.arange(240) / period_px).expand(1, 1, 240, 240)
    inner = (..., slice(60, 180), slice(60, 180))
    left = fast(wave, kept_px=3.0)
    assert float((left * wave)[inner].sum() / (wave**2)[inner].sum()) == pytest.approx(taken, abs=0.03)
    assert fast(wave, kept_px=0.0) is wave


def test_a_mean_that_was_measured_is_kept() -> None:
    volume = scan(1, 200, 200)
    changed = {kept: model(wild(kept_px=kept)).reconstruct(volume, ReconstructOptions()).image for kept in (0.0, 3.0)}
    off = {kept: abs(float((image - volume.voxels)[0, 40:160, 20:80].mean())) for kept, image in changed.items()}
    assert off[3.0] < 0.2 < 1 < off[0.0]


def test_training_takes_all_of_it_off() -> None:
    image, sigma = torch.randn(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    answer = [wild(kept_px=kept).train(mode)(image, sigma) for kept, mode in ((3.0, True), (0.0, True), (3.0, False))]
    assert torch.equal(answer[0], answer[1])
    assert not torch.allclose(answer[0], answer[2], atol=0.1)


def test_where_not_even_the_smallest_tile_fits_that_is_said() -> None:
    with pytest.raises(OutOfMemory, match="tile of 64 pixels"):
        reconstruct(scan(), model(Greedy(10)))


def test_an_answer_that_is_no_number_is_refused() -> None:
    network = wild()
    torch.nn.init.constant_(network.change.bias, float("nan"))
    with pytest.raises(ModelError, match="NaN"):
        reconstruct(scan(), model(network))


def test_what_lies_outside_the_training_range_is_said() -> None:
    quiet = replace(scan(), voxels=np.full(scan().shape, 40, np.int16))
    assert not reconstruct(scan(), model()).warnings
    coarse = replace(scan(), grid=Grid.from_axes(scan().shape, (6.0, 2.0, 2.0), (0.0, 0.0, 0.0)))
    said = " ".join(reconstruct(coarse, model()).warnings)
    assert "pixel 2 mm: OUT OF range" in said
    assert "slice distance 6 mm: OUT OF range" in said
    assert any("noise 0.5 HU: OUT OF" in warning for warning in reconstruct(quiet, model()).warnings)


@pytest.mark.parametrize("name", [name for name in CLASSICAL if name != "bm3d" or find_spec("bm3d")])
def test_a_classical_method_takes_noise_off_and_keeps_the_means(name: str) -> None:
    made = reconstruct(scan(), load_reconstructor(name))
    for half in (slice(5, 90), slice(102, 135)):
        before, after = (volume.voxels[..., half].astype(float) for volume in (made.reference, made.volume))
        assert after.std() < 0.7 * before.std()
        assert after.mean() == pytest.approx(before.mean(), abs=1.0)
    assert made.uncertainty is None
    assert made.run.model == name


def test_the_card_of_bm3d_says_that_its_licence_is_for_non_commercial_use() -> None:
    assert "non-commercial" in METHODS[Job.DENOISING]["bm3d"].licence
    assert METHODS[Job.DENOISING]["nlm"].licence == "Apache-2.0"


@pytest.mark.skipif(find_spec("bm3d") is not None, reason="it is installed")
def test_bm3d_is_offered_and_says_how_it_is_got() -> None:
    with pytest.raises(OptionError, match="bm3d is not installed"):
        reconstruct(scan(), load_reconstructor("bm3d"))


def test_the_baseline_is_one_of_the_classical_methods_and_they_are_listed() -> None:
    names = [card.name for card in reconstruction_models(Job.DENOISING)]
    assert baseline_of(Job.DENOISING) in names
    assert set(CLASSICAL) <= set(names)


def test_an_mr_image_is_refused() -> None:
    with pytest.raises(ContractError, match="it is MR, the model takes CT"):
        reconstruct(replace(scan(), modality="MR"), model())
