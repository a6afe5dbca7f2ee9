"""Run a network over a lung box: whole where it fits, in slabs where it does not, telling after each block.

Out of memory is not the end: the slabs are halved, then the CPU takes over; each step is said and noted for the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from monai.networks.blocks import Convolution
from torch import nn

from tomolens.core.errors import ModelError, OptionError, OutOfMemory
from tomolens.core.progress import Progress, Step
from tomolens.models import openvino_engine
from tomolens.models.networks import DEEPEST_STRIDE
from tomolens.models.streaming import Opening, Streamed, streamed

Answer = TypeVar("Answer")

STAGE = "find nodules"
HALO_VOXELS = 64
"""Slabs overlap by this on each side, so that a nodule near a seam is seen with its surroundings."""
WHOLE_UP_TO_VOXELS = 48_000_000
"""Boxes up to this size (a very large chest has 40 million 1 mm voxels) go through in one piece."""
SMALLEST_SLAB = 32


ACCEPTED = "auto, cpu, cuda, cuda:N and openvino"


@dataclass(frozen=True)
class Backend:
    """Where and how precisely a network runs.

    ``engine`` is ``torch``, or ``openvino`` for networks that it knows how to run; ``device`` is then the CPU.
    ``reason`` says in a sentence why this was chosen; empty where the user named it.
    """

    device: torch.device
    dtype: torch.dtype
    engine: str = "torch"
    reason: str = field(default="", compare=False)

    @classmethod
    def choose(cls, wish: str = "auto") -> Backend:
        """Resolve ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``openvino``.

        ``auto`` takes the first CUDA GPU, else the CPU. bfloat16 is used on a GPU that has it and on a CPU with
        AVX512-BF16 or AMX; float32 elsewhere.

        Raises
        ------
        OptionError
            If the device is unknown, not in this machine, or not installed.
        """
        if wish == "auto":
            return cls._automatic()
        if wish == "openvino":
            openvino_engine.check_installed()
            return cls(torch.device("cpu"), _dtype(torch.device("cpu")), "openvino")
        try:
            device = torch.device(wish)
        except RuntimeError as unknown:
            raise OptionError(f"There is no device {wish!r}; accepted are {ACCEPTED}.") from unknown
        if device.type not in ("cpu", "cuda"):
            raise OptionError(f"Device {wish!r} is not supported; accepted are {ACCEPTED}.")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            found = torch.cuda.device_count()
            raise OptionError(
                f"Device {wish!r} is not in this machine: torch finds {found} CUDA GPUs. Use cpu or auto."
            )
        return cls(device, _dtype(device))

    @classmethod
    def _automatic(cls) -> Backend:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = _dtype(device)
        has = "which it is fast in" if dtype == torch.bfloat16 else "since it has no fast bfloat16"
        where = f"The GPU {torch.cuda.get_device_name(device)}" if device.type == "cuda" else "The CPU"
        why = "" if device.type == "cuda" else "; torch finds no CUDA GPU"
        return cls(device, dtype, reason=f"{where} runs the network in {_name(dtype)}, {has}{why}.")

    @property
    def name(self) -> str:
        """``cpu``, ``cuda:0``, ... or ``openvino``."""
        return str(self.device) if self.engine == "torch" else self.engine

    @property
    def precision(self) -> str:
        """``bfloat16`` or ``float32``."""
        return _name(self.dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if _has_bfloat16(device) else torch.float32


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@dataclass
class Pass:
    """One run of a network over one image.

    ``notes`` says why the device was chosen where that was left to the program, and what had to give way.
    """

    network: nn.Module
    backend: Backend
    progress: Progress
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.backend.reason:
            self.note(self.backend.reason)

    def over(self, image: torch.Tensor) -> torch.Tensor:
        """(k, j, i) float32 to (channels, k/4, j/4, i/4) float32 on the CPU.

        Sizes are padded with air to multiples of 16.

        Raises
        ------
        ModelError
            If the answer holds something that is no number.
        OutOfMemory
            If the smallest slab does not fit into the CPU's memory either.
        """
        padded = _padded(image)
        plane = padded.shape[1] * padded.shape[2]
        slab = max(SMALLEST_SLAB, min(len(padded), WHOLE_UP_TO_VOXELS // plane // DEEPEST_STRIDE * DEEPEST_STRIDE))

        def give_way() -> None:
            nonlocal slab
            slab = self._give_way(slab, plane)

        return until_it_fits(lambda: finite(self._slabs(padded, slab)), give_way)

    def _give_way(self, slab: int, plane: int) -> int:
        """Halve the slab; below the smallest move to the CPU; there give up."""
        if slab > SMALLEST_SLAB:
            smaller = max(SMALLEST_SLAB, slab // 2 // DEEPEST_STRIDE * DEEPEST_STRIDE)
            self.note(f"Out of memory on {self.backend.name} with slabs of {slab} mm; trying {smaller} mm.")
            return smaller
        if self.backend.name != "cpu":
            self.note(f"Out of memory on {self.backend.name}; going on with the CPU.")
            self.backend = Backend.choose("cpu")
            return max(SMALLEST_SLAB, WHOLE_UP_TO_VOXELS // plane // DEEPEST_STRIDE * DEEPEST_STRIDE)
        needed = (SMALLEST_SLAB + 2 * HALO_VOXELS) * plane * 50 / 2**30
        raise OutOfMemory(f"The network needs about {needed:.1f} GiB of free memory even in its smallest slabs.")

    def note(self, text: str) -> None:
        """Say it now and keep it for the run."""
        self.notes.append(text)
        self.progress(Step(text, 0, 0, remark=True))

    def _slabs(self, padded: torch.Tensor, slab: int) -> torch.Tensor:
        spans = [
            (start, max(0, start - HALO_VOXELS), min(len(padded), start + slab + HALO_VOXELS))
            for start in range(0, len(padded), slab)
        ]
        plane = tuple(padded.shape[1:])
        parts = []
        with self._runner([(high - low, *plane) for _, low, high in spans]) as run:
            for start, low, high in spans:
                output = run(padded[low:high][None, None])[0]
                first, cells = (start - low) // 4, min(slab, len(padded) - start) // 4
                parts.append(output[:, first : first + cells])
        return torch.cat(parts, dim=1)

    @contextmanager
    def _runner(self, shapes: list[tuple[int, ...]]) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
        """The network, ready for images of these shapes: (1, 1, k, j, i) float32 to its answer, float32 on the CPU."""
        if self.backend.engine == "openvino":
            engine = openvino_engine.compiled(self.network, self.backend.precision, torch.get_num_threads())
            yield partial(engine.run, told=openvino_engine.Told(self.progress, STAGE, len(shapes)))
            return
        device, dtype = self.backend.device, self.backend.dtype
        # a copy: the weights stay in float32 for the next run, and runs in several threads do not share their hooks
        network = prepared(deepcopy(self.network), device, dtype)

        def run(image: torch.Tensor) -> torch.Tensor:
            batch = image.to(device, dtype).contiguous(memory_format=torch.channels_last_3d)
            answer: torch.Tensor = network(batch)
            return answer.float().cpu()

        with torch.inference_mode(), _reported(network, self.progress, shapes, dtype):
            yield run


def prepared(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The network for inference on a device in a precision; it is changed, so give it a copy."""
    if device.type == "cpu":
        return streamed(network, dtype)
    placed: nn.Module = network.to(device, dtype).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's stub lacks it
    return placed


def _padded(image: torch.Tensor) -> torch.Tensor:
    room = [-n % DEEPEST_STRIDE for n in image.shape]
    return nn.functional.pad(image, (0, room[2], 0, room[1], 0, room[0]), value=-1.0)


def finite(answer: torch.Tensor) -> torch.Tensor:
    """An answer as it is; one that is no number would read as nothing found.

    Raises
    ------
    ModelError
        If a number in it is NaN or infinite.
    """
    if not bool(torch.isfinite(answer).all()):
        raise ModelError("The network's answer holds NaN or infinite numbers; nothing can be read from it.")
    return answer


def until_it_fits(work: Callable[[], Answer], give_way: Callable[[], None]) -> Answer:
    """Do ``work``; where memory runs out let something ``give_way``, which raises when nothing is left, and try again.

    Any other error passes through.
    """
    while True:
        try:
            return work()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as full:
            if not is_memory(full):
                raise
            give_way()


def with_pulse(network: nn.Module, pulse: Callable[[], None]) -> nn.Module:
    """The same network, with the same weights, that calls ``pulse`` after each of its layers; it may raise to stop.

    The network itself stays as it is, so that runs in several threads do not share their hooks.
    """
    shared = {id(kept): kept for kept in (*network.parameters(), *network.buffers())}
    told = deepcopy(network, shared)
    for layer in told.modules():
        if not any(layer.children()):
            layer.register_forward_hook(lambda *_: pulse())
    return told


def is_memory(problem: BaseException) -> bool:
    """Whether an error of torch says that memory ran out."""
    known = ("out of memory", "can't allocate memory", "could not create a memory object", "bad_alloc")
    return isinstance(problem, MemoryError | torch.OutOfMemoryError) or any(k in str(problem) for k in known)


@contextmanager
def _reported(
    network: nn.Module, progress: Progress, shapes: list[tuple[int, ...]], dtype: torch.dtype
) -> Iterator[None]:
    """Tell after each block of each pass; what ``progress`` raises leaves the network at once."""
    blocks = [block for block in network.modules() if isinstance(block, Convolution | Opening)]
    convolutions = sum(isinstance(block, Convolution) for block in blocks)
    pieces = [network.pieces(shape, dtype.itemsize) for shape in shapes] if isinstance(network, Streamed) else []
    done, total = 0, convolutions * len(shapes) + sum(pieces)
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
