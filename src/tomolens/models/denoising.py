"""Low-dose CT with less noise: a network or a classical method, slice by slice, on the scan's own grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from tomolens.core.errors import ContractError, OutOfMemory
from tomolens.core.progress import Progress, Step, silent
from tomolens.core.reconstruction import Check, Job, Made, ReconstructOptions
from tomolens.core.volume import Volume
from tomolens.models.classical import METHODS, Classical
from tomolens.models.inference import Backend, finite, until_it_fits
from tomolens.models.manifest import Manifest
from tomolens.models.range_checks import Known, against_ranges
from tomolens.models.slice_denoiser import DEEPEST_STRIDE, SLICES
from tomolens.models.weights import filled
from tomolens.models.windowed import on_device
from tomolens.physics import denoise
from tomolens.physics.axial import as_in, axial_slices
from tomolens.physics.noise import noise_frequency, noise_level, noise_map

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from tomolens.core.card import ModelCard
    from tomolens.core.kspace import KSpace
    from tomolens.models.registry import Bundle

    Method = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]

STAGE = "denoise"
HALO_PIXELS = 160
"""Tiles overlap by this on each side: as far as a pixel of the answer depends on the image."""
SMALLEST_TILE = 64
_WHOLE = 1 << 14
_MEASURED = 9
_AIR_HU = -1000.0


class SliceReconstructor:
    """A denoising network with its card, ready to run on one device.

    Parameters
    ----------
    card
        What the model is and takes; its ranges are what it was trained on.
    network
        See `tomolens.models.slice_denoiser.SliceDenoiser`; in evaluation mode.
    weights_sha256
        Hash of the weights file.
    backend
        Device and precision.
    """

    def __init__(self, card: ModelCard, network: nn.Module, weights_sha256: str, backend: Backend) -> None:
        self.card, self.weights_sha256, self.backend = card, weights_sha256, backend
        self._network = network.eval()

    def __repr__(self) -> str:
        return f"SliceReconstructor({self.card.name!r}, {self.backend.device}, {self.backend.precision})"

    def reconstruct(self, source: Volume | KSpace, options: ReconstructOptions, progress: Progress = silent) -> Made:
        """Take the noise out of each slice; beside the volume and what is made of it three slices are held.

        Raises
        ------
        ContractError
            If the source is no volume.
        ModelError
            If the network's answer holds something that is no number.
        OutOfMemory
            If the smallest tile does not fit into the CPU's memory either.
        """
        volume, manifest = _volume(source), Manifest()
        slices = _Slices(volume)
        tiles = TiledPass(self._network, self.backend, progress)
        image = np.empty(slices.shape, np.float32)
        doubt = np.empty(slices.shape, np.float32) if options.uncertainty else None
        for k in _told(slices.count, progress):
            answer = tiles.over(slices.around(k), slices.noise(k))
            image[k] = answer[0]
            if doubt is not None:
                doubt[k] = answer[1]
        manifest.lap(STAGE)
        run = manifest.run(self.card, self.weights_sha256, [volume], tiles.backend, tiles.notes)
        uncertainty = None if doubt is None else as_in(volume, doubt)
        return Made(as_in(volume, image), volume.voxels, volume.grid, run, uncertainty, slices.checks(self.card))


@dataclass
class TiledPass:
    """A network over one slice after another: whole, where memory runs out in tiles, then on the CPU.

    ``notes`` says what had to give way.
    """

    network: nn.Module
    backend: Backend
    progress: Progress = silent
    notes: list[str] = field(default_factory=list)
    tile: int = _WHOLE

    def __post_init__(self) -> None:
        if self.backend.reason:
            self._note(self.backend.reason)
        self._placed = on_device(self.network, self.backend.device)

    def over(self, image: NDArray[np.float32], sigma: NDArray[np.float32]) -> NDArray[np.float32]:
        """(3, row, column) HU and (row, column) of its noise to (answers, row, column), float32.

        Raises
        ------
        ModelError
            If the answer holds something that is no number.
        OutOfMemory
            If the smallest tile does not fit into the CPU's memory either.
        """
        parts = torch.from_numpy(image)[None], torch.from_numpy(sigma)[None, None]
        answer: NDArray[np.float32] = until_it_fits(lambda: finite(self._tiles(*parts)), self._give_way)[0].numpy()
        return answer

    def _give_way(self) -> None:
        """Halve the tile; below the smallest move to the CPU; there give up."""
        device = self.backend.device
        if self.tile > SMALLEST_TILE:
            self.tile = SMALLEST_TILE if self.tile <= 2 * SMALLEST_TILE else min(self.tile, 1024) // 2
            self._note(f"Out of memory on {device}; trying tiles of {self.tile} pixels.")
        elif device.type != "cpu":
            self.backend, self.tile = Backend(torch.device("cpu"), torch.float32), _WHOLE
            self._placed = on_device(self.network, self.backend.device)
            self._note(f"Out of memory on {device}; going on with the CPU.")
        else:
            raise OutOfMemory(f"A tile of {SMALLEST_TILE} pixels does not fit into the memory that is free.")

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.progress(Step(text, 0, 0, remark=True))

    def _tiles(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        answer = None
        for inner, outer, within in tiles_of((image.shape[2], image.shape[3]), self.tile):
            part = self._run(image[(..., *outer)], sigma[(..., *outer)])[(..., *within)]
            if answer is None:
                answer = torch.empty((*part.shape[:2], *image.shape[2:]))
            answer[(..., *inner)] = part
        return torch.empty(0) if answer is None else answer

    def _run(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        device, dtype = self.backend.device, self.backend.dtype
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            moved = image.to(device).contiguous(memory_format=torch.channels_last)
            answer: torch.Tensor = self._placed(moved, sigma.to(device)).float().cpu()
        return answer


Place = tuple[slice, slice]


def tiles_of(shape: tuple[int, int], edge: int) -> Iterator[tuple[Place, Place, Place]]:
    """Tiles that cover an image: what each answers for, what it is given, and where in that its answer lies.

    They begin at multiples of the network's deepest stride, so that a tile's answer is that of the whole image.
    """
    spans = [[_span(start, edge, size) for start in range(0, size, edge)] for size in shape]
    for down in spans[0]:
        for across in spans[1]:
            inner, outer, within = zip(down, across, strict=True)
            yield inner, outer, within


def _span(start: int, edge: int, size: int) -> tuple[slice, slice, slice]:
    stop = min(start + edge, size)
    low = max(0, start - HALO_PIXELS) // DEEPEST_STRIDE * DEEPEST_STRIDE
    high = min(size, stop + HALO_PIXELS)
    return slice(start, stop), slice(low, high), slice(start - low, stop - low)


class ClassicalDenoiser:
    """A method without training, slice by slice."""

    def __init__(self, card: ModelCard, method: Method) -> None:
        self.card, self._method = card, method

    def __repr__(self) -> str:
        return f"ClassicalDenoiser({self.card.name!r})"

    def reconstruct(self, source: Volume | KSpace, options: ReconstructOptions, progress: Progress = silent) -> Made:
        """Take the noise out of each slice; there is no map of the uncertainty.

        Raises
        ------
        ContractError
            If the source is no volume.
        OptionError
            If the method needs a package that is not installed.
        """
        volume, manifest = _volume(source), Manifest()
        slices = _Slices(volume)
        image = np.empty(slices.shape, np.float32)
        for k in _told(slices.count, progress):
            image[k] = self._method(slices.around(k)[SLICES // 2], slices.noise(k))
        manifest.lap(STAGE)
        run = manifest.run(self.card, "", [volume], Backend(torch.device("cpu"), torch.float32))
        return Made(as_in(volume, image), volume.voxels, volume.grid, run, None, slices.checks(self.card))


class _Slices:
    """The axial slices of a volume, each made ready when it is asked for: padding is air."""

    def __init__(self, volume: Volume) -> None:
        self._volume, self._voxels = volume, axial_slices(volume)
        self.shape = self._voxels.shape
        self.count = self.shape[0]

    def around(self, k: int) -> NDArray[np.float32]:
        """A slice between its neighbours, (3, row, column) float32; the first and the last are repeated."""
        some = self._voxels[np.clip(np.arange(k - SLICES // 2, k + SLICES // 2 + 1), 0, self.count - 1)]
        image = np.ascontiguousarray(some, np.float32)
        padding = self._volume.padding
        return image if padding is None else np.where(some == padding, np.float32(_AIR_HU), image)

    def noise(self, k: int) -> NDArray[np.float32]:
        """The map of a slice's noise."""
        return noise_map(self.around(k)[SLICES // 2])

    def checks(self, card: ModelCard) -> tuple[Check, ...]:
        """What a few slices tell of the noise, and the spacing, against the ranges of a card that has them."""
        if not card.ranges:
            return ()
        some = np.linspace(0, self.count - 1, min(_MEASURED, self.count)).round().astype(int)
        slices = np.stack([self.around(int(k))[SLICES // 2] for k in some])
        slice_mm, *pixel = self._volume.canonical().spacing_mm
        measured = {
            "noise_hu": Known("noise", float(np.median([noise_level(image) for image in slices])), "HU"),
            "noise_frequency": Known("noise frequency", noise_frequency(slices), "cycles/pixel"),
            "pixel_mm": Known("pixel", max(pixel), "mm"),
            "slice_mm": Known("slice distance", slice_mm, "mm"),
        }
        return against_ranges(measured, card.ranges)


def _told(count: int, progress: Progress) -> Iterator[int]:
    for k in range(count):
        progress(Step(STAGE, k, count))
        yield k
    progress(Step(STAGE, count, count))


def _volume(source: Volume | KSpace) -> Volume:
    if not isinstance(source, Volume):
        raise ContractError(f"{source.name} is k-space; denoising takes a CT.")
    return source


def reconstructor_of(bundle: Bundle, backend: Backend) -> SliceReconstructor:
    """A bundle's network on a device."""
    return SliceReconstructor(*filled(bundle), backend)


_METHODS: Mapping[str, Method] = {"nlm": denoise.nlm, "tv": denoise.tv, "bm3d": denoise.bm3d}
CLASSICAL = {
    name: Classical(card, partial(ClassicalDenoiser, card, _METHODS[name]))
    for name, card in METHODS[Job.DENOISING].items()
}
