"""Thin slices from thick ones: the cubic spline, back-projection, and a network between the two.

Whatever the method but the plain spline, the thin slices' means are the measured slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tomolens.core.errors import ContractError, OptionError, OutOfMemory
from tomolens.core.progress import Progress, Step, silent
from tomolens.core.reconstruction import Check, Job, Made, ReconstructOptions
from tomolens.core.volume import Volume
from tomolens.models.classical import METHODS, Classical
from tomolens.models.inference import Backend, finite, until_it_fits
from tomolens.models.manifest import Manifest
from tomolens.models.range_checks import Known, against_ranges
from tomolens.models.slice_network import setting_of
from tomolens.models.weights import filled
from tomolens.models.windowed import on_device
from tomolens.physics.slices import back_projected, bounded, check_slices, cubic, residual_share, thin_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from tomolens.core.card import ModelCard
    from tomolens.core.grid import Grid
    from tomolens.core.kspace import KSpace
    from tomolens.core.run import Run
    from tomolens.models.registry import Bundle

    Image = NDArray[np.float32]

STAGE = "make thin slices"
LARGEST_RESIDUAL_PERCENT = 0.1
INTERPOLATE = "interpolate"
PROFILE_PERCENT = (90.0, 110.0)
"""How thick slices may be by their distance: methods and training take them to be as thick as they are apart."""
_AT_ONCE = 8_000_000
"""Thin voxels that are interpolated at once."""
_BATCH_VALUES = 64_000_000
"""Values in the network's maps, about 4 bytes each, of the planes that go through it together."""
_MAPS = 8
"""Maps of full width that the network holds at once."""
_NOISE_SLICES = 16


@dataclass(frozen=True, eq=False)
class Stack:
    """Thick slices, ready to be made thin.

    Parameters
    ----------
    measured
        (k, j, i) float32 in the source's unit; padding has become the least number of the rest.
    factor
        Thin slices of one.
    grid
        Of the thin slices.
    low, high
        The least and the largest number measured; no thin slice goes beyond.
    profile
        See `profile_check`.
    progress
        Told after each part of an interpolation.
    """

    measured: Image
    factor: int
    grid: Grid
    low: float
    high: float
    profile: tuple[Check, ...] = ()
    progress: Progress = silent

    @classmethod
    def of(cls, source: Volume | KSpace, options: ReconstructOptions, progress: Progress = silent) -> Stack:
        """Read the source.

        Raises
        ------
        ContractError
            If it is no image of thick slices; see `tomolens.physics.slices.check_slices`.
        """
        if not isinstance(source, Volume):
            raise ContractError(f"{source.name} is k-space; {Job.SUPER_RESOLUTION} takes an image.")
        factor = check_slices(source.grid, options.factor, source.name)
        inside = source.voxels if source.padding is None else source.voxels[source.voxels != source.padding]
        if not inside.size:
            raise ContractError(f"{source.name} holds nothing but padding ({source.padding:g}).")
        low, high = float(inside.min()), float(inside.max())
        measured = np.array(source.voxels, np.float32)
        if source.padding is not None:
            measured[source.voxels == source.padding] = low
        grid = thin_grid(source.grid, factor)
        return cls(measured, factor, grid, low, high, profile_check(source), progress)

    def by_rows(self, work: Callable[..., Image], *others: Image) -> Image:
        """``work`` on some rows at a time of the measured slices and of ``others``, (k * factor, j, i)."""
        made = np.empty(self.grid.shape, np.float32)
        slices, rows, columns = self.grid.shape
        step = max(1, _AT_ONCE // (slices * columns))
        for first in range(0, rows, step):
            self.progress(Step(INTERPOLATE, first, rows))
            part = slice(first, first + step)
            made[:, part] = work(self.measured[:, part], *(other[:, part] for other in others))
        return made

    def spline(self) -> Image:
        """The cubic spline."""
        return self.by_rows(partial(cubic, factor=self.factor))

    def projected(self, estimate: Image | None = None) -> Image:
        """An estimate, or the spline, brought to agree with the measured slices, within their numbers."""

        def work(measured: Image, *start: Image) -> Image:
            made = back_projected(measured, self.factor, *start)
            return bounded(made, measured, self.factor, self.low, self.high)

        return self.by_rows(work, *(() if estimate is None else (estimate,)))

    def checks(self, image: Image, card: ModelCard) -> tuple[Check, ...]:
        """What the result leaves of the measured slices, and the input against the card's ranges."""
        residual = 100 * residual_share(image, self.measured, self.factor)
        thin, *pixels = self.grid.spacing_mm
        known = {
            "factor": Known("factor", float(self.factor)),
            "thin_mm": Known("distance of thin slices", thin, "mm"),
            "thick_mm": Known("distance of thick slices", thin * self.factor, "mm"),
            "pixel_mm": Known("pixels", max(pixels), "mm"),
            "noise_percent": Known("noise", 100 * noise_share(self.measured), "% of the contrast"),
        }
        percent = "% of their range"
        kept = Check("difference from the measured slices", residual, percent, high=LARGEST_RESIDUAL_PERCENT)
        return (kept, *self.profile, *against_ranges(known, card.ranges))


def profile_check(source: Volume) -> tuple[Check, ...]:
    """How thick the slices are by how far apart they lie, where the headers say how thick: they may overlap or gap.

    Slices that were averaged since they were read overlap, or leave gaps, by as many mm as those that were read.
    """
    series, apart_mm = source.series, source.spacing_mm[0]
    if series is None or series.spacing_mm is None or series.thickness_mm is None:
        return ()
    thick_mm = apart_mm + series.thickness_mm - series.spacing_mm[0]
    return (Check("slice thickness", 100 * thick_mm / apart_mm, "% of their distance", *PROFILE_PERCENT),)


def noise_share(measured: Image) -> float:
    """The noise as a share of the image's contrast, from the first to the last percentile.

    The noise is the median second difference along the rows, where the image is brighter than a tenth of its contrast,
    over what white noise of standard deviation 1 gives.
    """
    some = measured[:: -(-len(measured) // _NOISE_SLICES)]
    low, high = np.percentile(some, (1, 99))
    if high <= low or some.shape[-1] < 3:
        return 0.0
    second = np.abs(np.diff(some, 2, axis=-1))[some[..., 1:-1] > low + 0.1 * (high - low)]
    return float(np.median(second) / (0.6745 * 6**0.5) / (high - low)) if second.size else 0.0


@dataclass(frozen=True)
class Interpolation:
    """A method without training, as a reconstructor; ``keeps`` says whether it keeps the measured slices."""

    card: ModelCard
    keeps: bool

    def reconstruct(self, source: Volume | KSpace, options: ReconstructOptions, progress: Progress) -> Made:
        """Thin slices between the thick ones; it has no uncertainty.

        Raises
        ------
        ContractError
            If the source is not made of thick slices.
        """
        stack, manifest = Stack.of(source, options, progress), Manifest()
        reference = stack.spline()
        image = stack.projected() if self.keeps else reference
        manifest.lap("interpolate")
        run = _run(manifest, self.card, "", source, stack, Backend.choose("cpu"))
        return Made(image, reference, stack.grid, run, None, stack.checks(image, self.card))


class ThinSlices:
    """A trained network with its card, ready to run on one device.

    Each plane along the rows and each along the columns is asked for what back-projection leaves out; the two answers
    for a voxel are averaged. At the end the thin slices are projected onto the measured ones once more, exactly.

    Parameters
    ----------
    card
        What the model is and takes.
    network
        A `tomolens.models.slice_network.SliceNet` in evaluation mode.
    weights_sha256
        Hash of the weights file.
    backend
        The device; numbers are float32 everywhere.
    """

    def __init__(self, card: ModelCard, network: nn.Module, weights_sha256: str, backend: Backend) -> None:
        self.card, self.weights_sha256, self.backend = card, weights_sha256, backend
        self.network = network.eval()

    def __repr__(self) -> str:
        return f"ThinSlices({self.card.name!r}, {self.backend.device})"

    def reconstruct(self, source: Volume | KSpace, options: ReconstructOptions, progress: Progress) -> Made:
        """Thin slices that agree with the thick ones, their uncertainty, and the spline as the reference.

        Raises
        ------
        ContractError
            If the source is not made of thick slices.
        ModelError
            If the network's answer is no number.
        OutOfMemory
            If a single plane does not fit into the CPU's memory.
        """
        stack, manifest = Stack.of(source, options, progress), Manifest()
        image = stack.projected()
        manifest.lap("back-project")
        planes = Planes(self.network, self.backend, stack, progress)
        sigma = planes.add_to(image, options.uncertainty)
        manifest.lap("network")
        image = stack.projected(image)
        checks = stack.checks(image, self.card)
        manifest.lap("project")
        run = _run(manifest, self.card, self.weights_sha256, source, stack, planes.backend, planes.notes)
        return Made(image, stack.spline(), stack.grid, run, sigma, checks)


@dataclass
class Planes:
    """One pass of a network over the planes of a stack that hold the slice axis; ``notes`` says what gave way."""

    network: nn.Module
    backend: Backend
    stack: Stack
    progress: Progress
    notes: list[str] = field(default_factory=list)
    _values: int = _BATCH_VALUES

    def __post_init__(self) -> None:
        self.scale = usual_difference(self.stack.measured)
        if self.backend.reason:
            self._note(self.backend.reason)

    def add_to(self, image: Image, with_sigma: bool, axes: tuple[int, ...] = (1, 2)) -> Image | None:
        """Add the network's answer to (k * factor, j, i), in place; the standard deviation of the sum where wished.

        ``axes`` are those that planes are taken along: rows, columns, or both, whose answers are averaged.
        """
        sigma = np.zeros_like(image) if with_sigma else None
        done, total = 0, sum(image.shape[axis] for axis in axes)
        for axis in axes:
            for part in self._batches(axis):
                added, doubt = self._answers(axis, part, self.scale / len(axes))
                place = (slice(None), part) if axis == 1 else (slice(None), slice(None), part)
                image[place] += added
                if sigma is not None:
                    sigma[place] += doubt
                done += added.shape[axis]
                self.progress(Step(STAGE, done, total))
        return sigma

    def _batches(self, axis: int) -> Iterator[slice]:
        """Planes one after another, as many at a time as memory allows by then."""
        first, size = 0, self.stack.measured.shape[axis]
        while first < size:
            part = slice(first, min(size, first + self._at_once(axis)))
            yield part
            first = part.stop

    def _at_once(self, axis: int) -> int:
        slices, width = len(self.stack.measured), self.stack.measured.shape[3 - axis]
        channels = max(parameter.shape[0] for parameter in self.network.parameters())
        return int(max(1, self._values // (slices * width * channels * _MAPS)))

    def _answers(self, axis: int, part: slice, scale: float) -> tuple[Image, Image]:
        """What is added and its standard deviation, each (k * factor, j, i) of some planes, in multiples of scale."""
        answer = until_it_fits(lambda: self._asked(axis, part), partial(self._give_way, axis)).numpy()
        placed = np.moveaxis(answer * np.float32(scale), 0, axis + 1)
        factor = self.stack.factor
        added, doubt = (np.moveaxis(some, 0, 1) for some in (placed[:factor], placed[factor:]))
        return added.reshape(-1, *added.shape[2:]), doubt.reshape(-1, *doubt.shape[2:])

    def _asked(self, axis: int, part: slice) -> torch.Tensor:
        """(planes, 2 * factor, k, width) float32 on the CPU, in units of the usual difference."""
        measured = np.moveaxis(self.stack.measured, axis, 0)[part] / np.float32(self.scale)
        network, device = on_device(self.network, self.backend.device), self.backend.device
        thin_mm, *pixels = self.stack.grid.spacing_mm
        factor = self.stack.factor
        setting = torch.tensor(setting_of(factor, thin_mm * factor, pixels[2 - axis]))
        parts = []
        with torch.inference_mode():
            for first in range(0, len(measured), self._at_once(axis)):
                some = torch.from_numpy(measured[first : first + self._at_once(axis)])
                image = some[:, None].to(device).contiguous(memory_format=torch.channels_last)
                parts.append(network(image, setting.expand(len(some), 2).to(device), factor).float().cpu())
        return finite(torch.cat(parts))

    def _give_way(self, axis: int) -> None:
        """Halve the planes at a time; below one move to the CPU; there give up."""
        at_once = self._at_once(axis)
        if at_once > 1:
            self._values //= 2
            self._note(f"Out of memory on {self.backend.device} with {at_once} planes at a time; trying fewer.")
        elif self.backend.device.type != "cpu":
            self.backend, self._values = Backend(torch.device("cpu"), torch.float32), _BATCH_VALUES
            self._note("Out of memory on the GPU; going on with the CPU.")
        else:
            raise OutOfMemory("A single plane of the slices does not fit into the memory that is free.")

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.progress(Step(text, 0, 0, remark=True))


def usual_difference(measured: NDArray[Any]) -> float:
    """The mean difference between neighbouring slices, at least a little: what counts as 1 for the network."""
    total = sum(float(np.abs(after - before).mean()) for before, after in pairwise(measured))
    least = 1e-3 * (float(measured.max()) - float(measured.min()))
    return max(total / max(len(measured) - 1, 1), least, 1e-6)


def reconstructor_of(bundle: Bundle, backend: Backend) -> ThinSlices:
    """The network of a model folder.

    Raises
    ------
    ModelError
        If the folder is incomplete or damaged.
    OptionError
        If the engine is not torch.
    """
    if backend.engine != "torch":
        raise OptionError(f"{bundle.card.name} runs with torch, not {backend.engine}; use auto, cpu or cuda.")
    card, network, digest = filled(bundle)
    reason = backend.reason and f"The network runs on {backend.device} in float32."
    return ThinSlices(card, network, digest, Backend(backend.device, torch.float32, reason=reason))


def _run(
    manifest: Manifest,
    card: ModelCard,
    digest: str,
    source: Volume | KSpace,
    stack: Stack,
    backend: Backend,
    notes: tuple[str, ...] | list[str] = (),
) -> Run:
    thin = stack.grid.spacing_mm[0]
    told = f"Each slice of {thin * stack.factor:.3g} mm became {stack.factor} of {thin:.3g} mm."
    volumes = [source] if isinstance(source, Volume) else []
    return manifest.run(card, digest, volumes, Backend(backend.device, torch.float32), [told, *notes])


CLASSICAL = {
    name: Classical(card, partial(Interpolation, card, name == "cubic-backprojected"))
    for name, card in METHODS[Job.SUPER_RESOLUTION].items()
}
