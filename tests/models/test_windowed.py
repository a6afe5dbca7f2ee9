from __future__ import annotations

import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from tomolens.core.errors import Cancelled, ModelError, OutOfMemory
from tomolens.models.inference import Backend
from tomolens.models.recipe import Windows
from tomolens.models.windowed import WindowedPass

CPU = Backend(torch.device("cpu"), torch.float32)


class Edges(nn.Module):
    """An answer that depends on where the window ends, so that blending shows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv3d(2, 3, 5, padding=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image) + image.mean(dim=(1, 2, 3, 4), keepdim=True)


IMAGE = torch.rand(2, 21, 34, 17, generator=torch.Generator().manual_seed(1))
SETTINGS = {
    "constant": Windows((16, 16, 16), 1, 0.5),
    "gaussian": Windows((16, 16, 16), 3, 0.25, "gaussian"),
    "a quarter again, in batches": Windows((12, 20, 9), 4, 0.25, "gaussian", 0.2),
    "larger than the image": Windows((32, 32, 32), 2, 0.5, "gaussian"),
    "padded by its edge": Windows((32, 40, 24), 2, 0.5, "gaussian", padding_mode="replicate"),
    "the whole of an axis": Windows((16, 0, 16), 1, 0.6),
}


@pytest.mark.parametrize("windows", SETTINGS.values(), ids=SETTINGS)
def test_the_blended_answer_is_that_of_monais_sliding_window(windows):
    network = Edges().eval()
    ours = WindowedPass(network, windows, CPU, lambda step: None).over(IMAGE)
    with torch.no_grad():
        theirs = sliding_window_inference(
            IMAGE[None], windows.roi_size, windows.batch, network, windows.overlap, windows.mode,
            windows.sigma_scale, windows.padding_mode,
        )[0]  # fmt: skip
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_every_batch_of_windows_is_told_and_a_cancel_ends_the_run():
    steps = []
    WindowedPass(Edges(), Windows((16, 16, 16), 2), CPU, steps.append).over(IMAGE)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == steps[-1].total > 4

    def stop(step):
        if step.done >= 4:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        WindowedPass(Edges(), Windows((16, 16, 16), 2), CPU, stop).over(IMAGE)


class Full(nn.Module):
    """Runs out of memory above a number of windows."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if len(image) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return image


def test_too_little_memory_takes_fewer_windows_at_a_time_and_says_so():
    steps = []
    windowed = WindowedPass(Full(1), Windows((16, 16, 16), 4), CPU, steps.append)
    assert torch.allclose(windowed.over(IMAGE), IMAGE)
    assert [note.split(";")[0] for note in windowed.notes] == [
        "Out of memory on cpu with 4 windows at a time",
        "Out of memory on cpu with 2 windows at a time",
    ]
    assert {step.stage for step in steps} >= set(windowed.notes)


def test_a_full_gpu_hands_over_to_the_cpu():
    class FullGpu(WindowedPass):
        def _answers(self, network, batch):
            if self.backend.device.type != "cpu":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super()._answers(network, batch)

    windowed = FullGpu(Edges(), Windows((16, 16, 16)), Backend(torch.device("meta"), torch.float32), lambda step: None)
    assert windowed.over(IMAGE).shape == (3, 21, 34, 17)
    assert windowed.notes == ["Out of memory on meta; going on with the CPU."]
    assert windowed.backend.device.type == "cpu"


def test_no_memory_at_all_is_an_error_that_names_the_window():
    with pytest.raises(OutOfMemory, match="A single window of 16 x 16 x 16 voxels"):
        WindowedPass(Full(0), Windows((16, 16, 16), 2), CPU, lambda step: None).over(IMAGE)


def test_another_error_of_the_network_is_not_taken_for_memory():
    class Broken(nn.Module):
        def forward(self, image):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        WindowedPass(Broken(), Windows((16, 16, 16)), CPU, lambda step: None).over(IMAGE)


def test_a_network_that_does_not_answer_voxel_by_voxel_is_refused():
    with pytest.raises(ModelError, match="answers voxel by voxel"):
        WindowedPass(nn.AvgPool3d(2), Windows((16, 16, 16)), CPU, lambda step: None).over(IMAGE)
