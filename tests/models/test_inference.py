from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from tomolens.core.errors import Cancelled, ModelError, OptionError, OutOfMemory
from tomolens.core.progress import Step, silent
from tomolens.models import inference
from tomolens.models.inference import Backend, Pass, finite
from tomolens.models.networks import CenterNet, folded
from tomolens.models.streaming import streamed

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


def test_norms_that_a_team_shared_are_folded_as_plain_ones_are() -> None:
    torch.manual_seed(1)
    plain = CenterNet(channels=(8, 8, 16, 16), pyramid=8)
    plain(torch.randn(2, 1, 32, 32, 32))
    shared = torch.nn.SyncBatchNorm.convert_sync_batchnorm(deepcopy(plain))
    assert any(isinstance(m, torch.nn.SyncBatchNorm) for m in shared.modules())
    assert list(shared.state_dict()) == list(plain.state_dict())
    image = torch.randn(1, 1, 48, 32, 32)
    with torch.inference_mode():
        before = plain.eval()(image)
        torch.testing.assert_close(shared.eval()(image), before)
        torch.testing.assert_close(streamed(deepcopy(shared), torch.float32)(image), before, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(folded(shared)(image), before, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, torch.nn.SyncBatchNorm) for m in shared.modules())


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


def test_auto_says_in_a_sentence_what_it_chose_and_why() -> None:
    chosen = Backend.choose("auto")
    told: list[Step] = []
    once = Pass(Hungry(64), chosen, told.append)
    assert chosen.reason.endswith(".")
    assert once.notes == [chosen.reason]
    assert told == [Step(chosen.reason, 0, 0, remark=True)]
    assert chosen.device.type == "cuda" or "no CUDA GPU" in chosen.reason
    assert chosen.precision in chosen.reason


def test_a_device_that_the_user_named_needs_no_reason() -> None:
    assert Backend.choose("cpu").reason == ""


class Starved(torch.nn.Module):
    """Finds no memory on what the test takes for a GPU (it computes in float64), however small the slab."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.dtype == torch.float64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
        return image[:, :, ::4, ::4, ::4].expand(-1, 5, -1, -1, -1)


def test_after_the_smallest_slab_on_a_gpu_the_cpu_takes_over_and_each_step_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(Backend, "name", property(lambda self: "cpu" if self == Backend.choose("cpu") else "cuda:0"))
    told: list[Step] = []
    once = Pass(Starved(), Backend(cpu, torch.float64), told.append)
    output = once.over(torch.zeros(256, 32, 32))
    assert output.shape == (5, 64, 8, 8)
    assert once.notes == [
        "Out of memory on cuda:0 with slabs of 256 mm; trying 128 mm.",
        "Out of memory on cuda:0 with slabs of 128 mm; trying 64 mm.",
        "Out of memory on cuda:0 with slabs of 64 mm; trying 32 mm.",
        "Out of memory on cuda:0; going on with the CPU.",
    ]
    assert [step.stage for step in told if step.remark] == once.notes
    assert once.backend == Backend.choose("cpu")


def test_what_the_cpu_says_when_its_memory_is_full_is_understood() -> None:
    class Full(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"
            )

    told: list[Step] = []
    with pytest.raises(OutOfMemory, match="GiB of free memory"):
        Pass(Full(), FLOAT, told.append).over(torch.zeros(64, 32, 32))
    assert [step.stage for step in told if step.remark] == ["Out of memory on cpu with slabs of 64 mm; trying 32 mm."]


def test_an_answer_that_is_no_number_is_refused_and_not_read_as_nothing_found() -> None:
    with pytest.raises(ModelError, match="NaN or infinite"):
        finite(torch.tensor([0.0, float("nan")]))
    assert finite(torch.ones(2)).sum() == 2
