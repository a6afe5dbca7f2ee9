from __future__ import annotations

import pytest
import torch

from tomolens.core.errors import Cancelled, OptionError, OutOfMemory
from tomolens.core.progress import Step, silent
from tomolens.models import inference
from tomolens.models.inference import Backend, Pass
from tomolens.models.networks import CenterNet, folded

FLOAT = Backend(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(3)
    small = CenterNet(channels=(8, 8, 16, 16), pyramid=8)
    small.train()
    with torch.no_grad():
        small(torch.randn(2, 1, 32, 32, 32))
    return folded(small)


def test_folding_the_norms_changes_no_answer() -> None:
    torch.manual_seed(1)
    whole = CenterNet(channels=(8, 8, 16, 16), pyramid=8)
    whole(torch.randn(2, 1, 32, 32, 32))
    image = torch.randn(1, 1, 48, 32, 32)
    with torch.inference_mode():
        before = whole.eval()(image)
        after = folded(whole)(image)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm3d) for m in whole.modules())


def test_sizes_are_padded_with_air_to_what_the_network_takes(network: torch.nn.Module) -> None:
    output = Pass(network, FLOAT, silent).over(torch.zeros(33, 20, 47))
    assert output.shape == (5, 48 // 4, 32 // 4, 48 // 4)


def test_slabs_answer_as_the_whole_does(network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(256, 32, 32) * 2 - 1
    whole = Pass(network, FLOAT, silent).over(image)
    monkeypatch.setattr(inference, "WHOLE_UP_TO_VOXELS", 64 * 32 * 32)
    slabs = Pass(network, FLOAT, silent).over(image)
    assert slabs.shape == whole.shape
    # not equal to the last bit: the deepest features reach further than the overlap
    torch.testing.assert_close(slabs, whole, atol=0.02, rtol=0.02)


def test_progress_ends_at_its_total_and_never_falls(network: torch.nn.Module) -> None:
    steps: list[Step] = []
    Pass(network, FLOAT, steps.append).over(torch.zeros(32, 32, 32))
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert steps[-1].done == steps[-1].total > 10


def test_a_cancelled_pass_stops_at_the_next_block_and_leaves_no_hook(network: torch.nn.Module) -> None:
    seen = 0

    def stop(step: Step) -> None:
        nonlocal seen
        seen += 1
        if step.done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        Pass(network, FLOAT, stop).over(torch.zeros(32, 32, 32))
    assert seen == 4
    assert not any(module._forward_hooks for module in network.modules())


class Hungry(torch.nn.Module):
    """Runs out of memory above a number of slices."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.seen: list[int] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(image.shape[2])
        if image.shape[2] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
        return image[:, :, ::4, ::4, ::4].expand(-1, 5, -1, -1, -1)


def test_a_pass_in_half_precision_leaves_the_weights_as_they_were(network: torch.nn.Module) -> None:
    before = [parameter.clone() for parameter in network.parameters()]
    Pass(network, Backend(torch.device("cpu"), torch.bfloat16), silent).over(torch.zeros(32, 32, 32))
    for parameter, expected in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, expected, rtol=0, atol=0)


def test_out_of_memory_halves_the_slabs_and_says_so() -> None:
    hungry, told = Hungry(280), []
    once = Pass(hungry, FLOAT, told.append)
    output = once.over(torch.zeros(512, 32, 32))
    assert output.shape == (5, 128, 8, 8)
    assert [note for note in once.notes if "Out of memory" in note]
    assert any("Out of memory" in step.stage for step in told)


def test_when_nothing_fits_the_needed_memory_is_named() -> None:
    with pytest.raises(OutOfMemory, match="GiB of free memory"):
        Pass(Hungry(0), FLOAT, silent).over(torch.zeros(64, 32, 32))


def test_another_error_of_the_network_is_not_taken_for_memory() -> None:
    class Broken(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("weights are upside down")

    with pytest.raises(RuntimeError, match="upside down"):
        Pass(Broken(), FLOAT, silent).over(torch.zeros(32, 32, 32))


@pytest.mark.parametrize("wish", ["gpu", "tpu:0", "meta", ""])
def test_an_unknown_device_is_refused_with_what_is_accepted(wish: str) -> None:
    with pytest.raises(OptionError, match="auto, cpu, cuda"):
        Backend.choose(wish)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(OptionError, match="not in this machine"):
        Backend.choose("cuda:63")
