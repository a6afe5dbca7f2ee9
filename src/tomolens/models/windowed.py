"""A network over a large image, window by window, the windows blended; told after each, stopped between two.

The windows, their weights and the padding are those of MONAI's `sliding_window_inference`. Out of memory is not the
end: fewer windows at a time, then the CPU; each step is noted for the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch.nn import functional

from tomolens.core.errors import ModelError, OutOfMemory
from tomolens.core.progress import Progress, Step
from tomolens.models.inference import Backend, finite, until_it_fits

if TYPE_CHECKING:
    from torch import nn

    from tomolens.models.recipe import Windows


@dataclass
class WindowedPass:
    """One run of a network over one image.

    ``notes`` says why the device was chosen where that was left to the program, and what had to give way.

    Parameters
    ----------
    network
        In evaluation mode, float32. (n, channels, a, b, c) to (n, answers, a, b, c); of a 2D network without ``c``.
    windows
        The window and how it moves.
    backend
        Device and precision; half precision is used by autocast alone, the sums are float32.
    progress
        Told after each batch of windows; what it raises ends the run.
    stage
        What the progress is called.
    """

    network: nn.Module
    windows: Windows
    backend: Backend
    progress: Progress
    stage: str = "segment"
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.backend.reason:
            self._note(self.backend.reason)

    def over(self, image: torch.Tensor) -> torch.Tensor:
        """(channels, a, b, c) to (answers, a, b, c), float32 on the CPU.

        Raises
        ------
        ModelError
            If the answer has another size than the window, or holds something that is no number.
        OutOfMemory
            If a single window does not fit into the CPU's memory either.
        """
        return until_it_fits(lambda: finite(self._blended(image)), self._give_way)

    def _give_way(self) -> None:
        """Halve the batch; below one move to the CPU; there give up."""
        batch, device = self.windows.batch, self.backend.device
        if batch > 1:
            self.windows = replace(self.windows, batch=batch // 2)
            self._note(f"Out of memory on {device} with {batch} windows at a time; trying {batch // 2}.")
        elif device.type != "cpu":
            self.backend = Backend(torch.device("cpu"), torch.float32)
            self._note(f"Out of memory on {device}; going on with the CPU.")
        else:
            roi = " x ".join(map(str, self.windows.roi_size))
            raise OutOfMemory(
                f"A single window of {roi} voxels and the answer do not fit into the memory that is free."
            )

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.progress(Step(text, 0, 0, remark=True))

    def _blended(self, image: torch.Tensor) -> torch.Tensor:
        roi = self._roi(tuple(image.shape[1:]))
        padded, inner = self._padded(image, roi)
        network = on_device(self.network, self.backend.device)
        places = places_of(roi, self.windows.overlap, tuple(padded.shape[1:]))
        weight = compute_importance_map(roi, mode=self.windows.mode, sigma_scale=self.windows.sigma_scale)
        total, weights = None, torch.zeros(padded.shape[1:])
        with torch.no_grad(), self._precision():
            for done, batch in self._batches(places):
                answers = self._answers(network, torch.stack([padded[(slice(None), *place)] for place in batch]))
                if total is None:
                    total = torch.zeros((answers.shape[1], *padded.shape[1:]))
                for place, answer in zip(batch, answers, strict=True):
                    total[(slice(None), *place)] += answer * weight
                    weights[place] += weight
                self.progress(Step(self.stage, done, len(places)))
            assembled = total if total is not None else padded
            return assembled.div_(weights)[(slice(None), *inner)]

    def _batches(self, places: list[tuple[slice, ...]]) -> Iterator[tuple[int, list[tuple[slice, ...]]]]:
        self.progress(Step(self.stage, 0, len(places)))
        for first in range(0, len(places), self.windows.batch):
            batch = places[first : first + self.windows.batch]
            yield first + len(batch), batch

    def _answers(self, network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        axis = self.windows.slice_axis
        batch = batch.to(self.backend.device)
        raw = network(batch if axis is None else batch.squeeze(axis + 2))
        answer = raw[0] if isinstance(raw, list | tuple) else raw
        answers: torch.Tensor = answer if axis is None else answer.unsqueeze(axis + 2)
        if answers.shape[2:] != batch.shape[2:]:
            raise ModelError(
                f"The network answers a window of {tuple(batch.shape[2:])} with {tuple(answers.shape[2:])}; "
                "a segmentation network answers voxel by voxel."
            )
        return answers.float().cpu()

    def _precision(self) -> AbstractContextManager[object]:
        if self.backend.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.backend.device.type, self.backend.dtype)

    def _roi(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        roi = self.windows.roi_size
        if self.windows.slice_axis is not None and len(roi) == len(shape) - 1:
            roi = (*roi[: self.windows.slice_axis], 1, *roi[self.windows.slice_axis :])
        if len(roi) != len(shape):
            raise ModelError(f"A window of {roi} voxels does not fit an image of {len(shape)} dimensions.")
        return tuple(size if wish <= 0 else wish for wish, size in zip(roi, shape, strict=True))

    def _padded(self, image: torch.Tensor, roi: tuple[int, ...]) -> tuple[torch.Tensor, tuple[slice, ...]]:
        """The image at least as large as a window, and where in it the image lies."""
        missing = [max(window - size, 0) for window, size in zip(roi, image.shape[1:], strict=True)]
        room = [side for lack in reversed(missing) for side in (lack // 2, lack - lack // 2)]
        inner = tuple(slice(lack // 2, lack // 2 + size) for lack, size in zip(missing, image.shape[1:], strict=True))
        if not any(missing):
            return image, inner
        mode, value = self.windows.padding_mode, self.windows.cval if self.windows.padding_mode == "constant" else None
        return functional.pad(image[None], room, mode, value)[0], inner


def places_of(roi: tuple[int, ...], overlap: float, shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Every window of an image at least as large as one, in MONAI's order."""
    steps = tuple(w if w == size else max(1, int(w * (1 - overlap))) for w, size in zip(roi, shape, strict=True))
    return list(dense_patch_slices(shape, roi, steps))


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on a device; where it lies elsewhere a copy, so that the weights stay for the next run."""
    lies = next((parameter.device for parameter in network.parameters()), device)
    return network if lies == device else deepcopy(network).to(device)
