"""Run a network over a lung box: whole where it fits, in slabs where it does not, telling after each block.

Out of memory is not the end: the slabs are halved, then the CPU takes over; each step is noted for the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from monai.networks.blocks import Convolution
from torch import nn

from tomolens.core.errors import OptionError, OutOfMemory
from tomolens.core.progress import Progress, Step
from tomolens.models.networks import DEEPEST_STRIDE

STAGE = "find nodules"
HALO_VOXELS = 64
"""Slabs overlap by this on each side, so that a nodule near a seam is seen with its surroundings."""
WHOLE_UP_TO_VOXELS = 48_000_000
"""Boxes up to this size (a very large chest has 40 million 1 mm voxels) go through in one piece."""
SMALLEST_SLAB = 32


@dataclass(frozen=True)
class Backend:
    """Where and how precisely a network runs."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, wish: str = "auto") -> Backend:
        """Resolve ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

        ``auto`` takes the first CUDA GPU, else the CPU. bfloat16 is used on a GPU that has it and on a CPU with
        AVX512-BF16 or AMX; float32 elsewhere.

        Raises
        ------
        OptionError
            If the device is unknown or not in this machine.
        """
        if wish == "auto":
            wish = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(wish)
        except RuntimeError as unknown:
            raise OptionError(f"There is no device {wish!r}; accepted are auto, cpu, cuda and cuda:N.") from unknown
        if device.type not in ("cpu", "cuda"):
            raise OptionError(f"Device {wish!r} is not supported; accepted are auto, cpu, cuda and cuda:N.")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            found = torch.cuda.device_count()
            raise OptionError(
                f"Device {wish!r} is not in this machine: torch finds {found} CUDA GPUs. Use cpu or auto."
            )
        return cls(device, torch.bfloat16 if _has_bfloat16(device) else torch.float32)

    @property
    def precision(self) -> str:
        """``bfloat16`` or ``float32``."""
        return str(self.dtype).removeprefix("torch.")


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@dataclass
class Pass:
    """One run of a network over one image; ``notes`` says what had to give way."""

    network: nn.Module
    backend: Backend
    progress: Progress
    notes: list[str] = field(default_factory=list)

    def over(self, image: torch.Tensor) -> torch.Tensor:
        """(k, j, i) float32 to (channels, k/4, j/4, i/4) float32 on the CPU.

        Sizes are padded with air to multiples of 16.

        Raises
        ------
        OutOfMemory
            If the smallest slab does not fit into the CPU's memory either.
        """
        padded = _padded(image)
        plane = padded.shape[1] * padded.shape[2]
        slab = max(SMALLEST_SLAB, min(len(padded), WHOLE_UP_TO_VOXELS // plane // DEEPEST_STRIDE * DEEPEST_STRIDE))
        while True:
            try:
                return self._slabs(padded, slab)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as full:
                if not _is_memory(full):
                    raise
                slab = self._give_way(slab, plane)

    def _give_way(self, slab: int, plane: int) -> int:
        """Halve the slab; below the smallest move to the CPU; there give up."""
        if slab > SMALLEST_SLAB:
            smaller = max(SMALLEST_SLAB, slab // 2 // DEEPEST_STRIDE * DEEPEST_STRIDE)
            self._note(f"Out of memory on {self.backend.device} with slabs of {slab} mm; trying {smaller} mm.")
            return smaller
        if self.backend.device.type != "cpu":
            self._note(f"Out of memory on {self.backend.device}; going on with the CPU.")
            self.backend = Backend.choose("cpu")
            return WHOLE_UP_TO_VOXELS // plane // DEEPEST_STRIDE * DEEPEST_STRIDE
        needed = (SMALLEST_SLAB + 2 * HALO_VOXELS) * plane * 50 / 2**30
        raise OutOfMemory(f"The network needs about {needed:.1f} GiB of free memory even in its smallest slabs.")

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.progress(Step(text, 0, 0))

    def _slabs(self, padded: torch.Tensor, slab: int) -> torch.Tensor:
        # a copy: the weights stay in float32 for the next run, and runs in several threads do not share their hooks
        network = deepcopy(self.network).to(self.backend.device, self.backend.dtype)
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's stub lacks it
        starts = range(0, len(padded), slab)
        parts = []
        with torch.inference_mode(), _reported(network, self.progress, len(starts)):
            for start in starts:
                low, high = max(0, start - HALO_VOXELS), min(len(padded), start + slab + HALO_VOXELS)
                batch = padded[low:high][None, None].to(self.backend.device, self.backend.dtype)
                output = network(batch.contiguous(memory_format=torch.channels_last_3d))[0].float().cpu()
                first, cells = (start - low) // 4, min(slab, len(padded) - start) // 4
                parts.append(output[:, first : first + cells])
        return torch.cat(parts, dim=1)


def _padded(image: torch.Tensor) -> torch.Tensor:
    room = [-n % DEEPEST_STRIDE for n in image.shape]
    return nn.functional.pad(image, (0, room[2], 0, room[1], 0, room[0]), value=-1.0)


def _is_memory(problem: BaseException) -> bool:
    known = ("out of memory", "can't allocate memory", "could not create a memory object", "bad_alloc")
    return isinstance(problem, MemoryError | torch.OutOfMemoryError) or any(k in str(problem) for k in known)


@contextmanager
def _reported(network: nn.Module, progress: Progress, passes: int) -> Iterator[None]:
    """Tell after each convolution block of each pass; what ``progress`` raises leaves the network at once."""
    blocks = [block for block in network.modules() if isinstance(block, Convolution)]
    done, total = 0, len(blocks) * passes
    progress(Step(STAGE, 0, total))

    def tell(*_: object) -> None:
        nonlocal done
        done += 1
        progress(Step(STAGE, done, total))

    hooks = [block.register_forward_hook(tell) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
