"""What a network for undersampled MRI is shown: slices measured by invented coils, and the image behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch.nn.functional import avg_pool2d
from torch.utils.data import DataLoader, Dataset

from tomolens.core.errors import OptionError
from tomolens.core.progress import Step
from tomolens.core.reconstruction import Job
from tomolens.io.read import read_volume
from tomolens.models.mri_tensors import inputs_of, tensors_of
from tomolens.models.networks import build
from tomolens.phantoms.brain import brain_phantom
from tomolens.physics.masks import MaskKind, sampling_mask
from tomolens.physics.sense import MOST_COILS, Measured, combination
from tomolens.physics.undersampling import invented_coils, measured
from tomolens.training.config import record_of
from tomolens.training.fingerprint import fingerprint_of_volume
from tomolens.training.gan import Pictures
from tomolens.training.reconstruction import ReconstructionConfig

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import nn

    from tomolens.core.progress import Progress
    from tomolens.core.volume import Volume
    from tomolens.training.fingerprint import Record
    from tomolens.training.learner import Batch, Terms

CONFIG = ReconstructionConfig(
    job=Job.MRI, network="cascaded_sense", settings={"rounds": 5}, rounds=16, steps=90, batch=16, edge=104,
    learning_rate=1e-3, ema=0.99, phantom_seeds=tuple(range(100, 108)), recipe={"shown": 3}, val_examples=32,
)  # fmt: skip
"""What a run is configured with where nothing else is said: about five minutes on a GPU, some hours on two cores."""
_HELD_OUT = 0.15
"""Share of a scan's uppermost slices that training never shows."""
_THICK = 2.0
"""A volume whose slices are this many pixels thick is not cut across its slices."""
_FAINT = 0.25
"""Slices whose mean is below this share of the brightest slice's are left out."""
_SCANNER_NOISE = 0.02
"""What scans have in air, as a share of their bright tissue; taken off, for a network should not learn to make it."""
_PHANTOM_MM = 1.2
_ERROR_WEIGHT, _SSIM_WEIGHT, _DOUBT_WEIGHT = 10.0, 1.0, 0.03
"""With a structural similarity of a fifth of this weight noise in air was left, for it has little error."""
_TISSUE, _WITHIN_ONE = 0.1, 0.6827
_GRAIN = 0.05
"""The order of fine detail, as a share of bright tissue."""
_BLOCK, _DELAY = 6, 5
"""Examples come again by blocks of six batches, five new blocks later: where the number of workers divides six, the
one that made them has them still."""
_WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True)
class UndersamplingRecipe:
    """How examples are drawn; pairs are a least and a largest value.

    Parameters
    ----------
    acceleration, noise
        Drawn evenly by their logarithm; noise is a share of bright tissue, in each part and coil.
    coils
        Receivers; ``single`` of the examples have one.
    sizes
        Of the matrix's area, its square root times the run's ``edge``; drawn evenly by its logarithm.
    sides
        Of the matrix, times the square root of its area.
    poisson
        Share of Poisson-disc masks; the others are lines, random or evenly spaced, along either axis.
    known_maps
        Share of the examples whose sensitivities are known; of the others they are found from the centre.
    phantoms
        Share of the examples that are generated.
    whole
        Share of the examples that show a slice whole; the others show a piece.
    exact
        Share of the examples that are not interpolated, only turned by right angles and cut or surrounded with air:
        what is interpolated lacks the highest frequencies.
    shown
        How often each example is shown.
    """

    acceleration: tuple[float, float] = (1.6, 9.0)
    noise: tuple[float, float] = (0.002, 0.05)
    coils: tuple[int, int] = (2, 16)
    single: float = 0.08
    sizes: tuple[float, float] = (0.6, 1.9)
    sides: tuple[float, float] = (0.8, 1.25)
    poisson: float = 0.2
    known_maps: float = 0.25
    phantoms: float = 0.4
    whole: float = 0.65
    exact: float = 0.5
    shown: int = 1


@dataclass(frozen=True, eq=False)
class Plane:
    """A slice of an image, its pixel spacing in mm, and the scan that it was cut from; none of a phantom."""

    pixels: NDArray[np.float32]
    spacing_mm: tuple[float, float]
    scan: str = ""


@dataclass(frozen=True, eq=False)
class MriLesson:
    """See `tomolens.training.reconstruction.Lesson`."""

    config: ReconstructionConfig
    recipe: UndersamplingRecipe
    shown: Sequence[Plane] = field(repr=False)
    held_out: Sequence[Plane] = field(repr=False)
    record: Record = ()

    def examples(self, indices: Sequence[int], *, held_out: bool = False) -> Dataset[dict[str, torch.Tensor]]:
        """Slices as they would be measured; those of one batch have one matrix, number of coils and axis of lines."""
        planes = self.held_out if held_out else self.shown
        return Examples(planes, indices, self.config, self.recipe, int(held_out))

    def loss(self, answer: torch.Tensor, batch: Batch) -> Terms:
        """Root mean square error of each complex image, structural dissimilarity, likelihood of the magnitude's error.

        By the root each example pulls alike, however large its error is.
        """
        return reconstruction_loss(answer, batch)

    def pictures(self, answer: torch.Tensor, batch: Batch) -> Pictures:
        """Magnitudes in units of fine detail; the given one is the adjoint of the measurement."""
        images = batch["image"], answer[:, :2], batch["target"]
        return Pictures(*(image.pow(2).sum(dim=1, keepdim=True).add(1e-8).sqrt() / _GRAIN for image in images))


def lesson(config: ReconstructionConfig, data: Path, progress: Progress) -> MriLesson:
    """Read every scan in ``data/mri``, generate the phantoms, and set the highest slices of each apart.

    Raises
    ------
    OptionError
        If there are no scans and no phantoms, or the recipe has an unknown key.
    """
    recipe = record_of(UndersamplingRecipe, dict(config.recipe), "recipe")
    files = sorted((data / "mri").glob("*.nii*"))
    total = len(files) + len(config.phantom_seeds)
    shown: list[Plane] = []
    held_out: list[Plane] = []
    record: list[tuple[str, str]] = []
    sources: list[Path | int] = [*files, *config.phantom_seeds]
    for done, source in enumerate(sources):
        progress(Step("read images", done, total))
        scan = source.name if isinstance(source, Path) else ""
        volume = read_volume(source, modality="MR").canonical() if isinstance(source, Path) else _phantom(source)
        if scan:
            record.append((f"scan {scan}", fingerprint_of_volume(volume)))
        first_kept = round(volume.shape[0] * (1 - _HELD_OUT))
        shown += _planes(volume, slice(0, first_kept), scan, (0, 1, 2))
        held_out += _planes(volume, slice(first_kept, None), scan, (0,))
    if not shown:
        raise OptionError(f"There is nothing to train on: no NIfTI in {data / 'mri'} and no phantom seeds.")
    return MriLesson(config, recipe, shown, held_out, record)


def _phantom(seed: int) -> Volume:
    return brain_phantom(seed, spacing_mm=(_PHANTOM_MM,) * 3).clean


def _planes(volume: Volume, part: slice, scan: str, axes: tuple[int, ...]) -> list[Plane]:
    voxels = np.asarray(volume.voxels, np.float32)
    voxels = np.maximum(voxels / np.percentile(voxels, 99.5) - (_SCANNER_NOISE if scan else 0.0), 0)[part]
    spacing = volume.spacing_mm
    found = []
    for axis in axes:
        if spacing[0] > _THICK * spacing[1] and axis > 0:
            continue
        slices = np.moveaxis(voxels, axis, 0)
        means = slices.mean(axis=(1, 2))
        pixel = (spacing[1 if axis == 0 else 0], spacing[1 if axis == 2 else 2])
        found += [Plane(slices[k], pixel, scan) for k in np.flatnonzero(means > _FAINT * means.max())]
    return found


class Examples(Dataset[dict[str, torch.Tensor]]):
    """Example ``n``: the same seed and ``n`` give the same example on every machine and after every resume."""

    def __init__(
        self,
        planes: Sequence[Plane],
        indices: Sequence[int],
        config: ReconstructionConfig,
        recipe: UndersamplingRecipe,
        stream: int,
    ) -> None:
        self.planes, self.indices, self.config, self.recipe, self.stream = planes, indices, config, recipe, stream
        self._shown = 1 if stream else recipe.shown
        self._chances = _chances([plane.scan for plane in planes], recipe.phantoms)
        self._inputs = inputs_of(build(config.network, config.settings))
        self._kept: dict[int, dict[str, torch.Tensor]] = {}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        index = source_of(self.indices[item], self.config.batch, self._shown)
        if index not in self._kept:
            for old in [each for each in self._kept if each < index - self._most]:
                del self._kept[old]
            made = self._made(index)
            if self._shown == 1:
                return made
            self._kept[index] = made
        return dict(self._kept[index])

    @property
    def _most(self) -> int:
        return self._shown * _DELAY * _BLOCK * self.config.batch

    def _made(self, index: int) -> dict[str, torch.Tensor]:
        batch = np.random.default_rng((self.config.seed, 1 + self.stream, index // self.config.batch))
        rng = np.random.default_rng((self.config.seed, 3 + self.stream, index))
        setting = self._setting(batch)
        plane = self.planes[rng.choice(len(self.planes), p=self._chances)]
        image = recoloured(self._placed(plane, setting.shape, rng), rng)
        return example(image, setting, self._kind(setting, rng), self.recipe, self._inputs, rng)

    def _setting(self, rng: Generator) -> Setting:
        recipe = self.recipe
        edge = self.config.edge * float(np.exp(rng.uniform(*np.log(recipe.sizes))))
        rows = round(edge * rng.uniform(*recipe.sides))
        columns = round(edge**2 / rows)
        coils = 1 if rng.random() < recipe.single else int(rng.integers(recipe.coils[0], recipe.coils[1] + 1))
        lines = rng.random() >= recipe.poisson
        return Setting((rows, columns), coils, bool(lines), bool(rng.random() < 0.5))

    def _kind(self, setting: Setting, rng: Generator) -> MaskKind:
        line_kind = MaskKind.RANDOM if rng.random() < 0.5 else MaskKind.EQUISPACED
        return line_kind if setting.lines else MaskKind.POISSON

    def _placed(self, plane: Plane, shape: tuple[int, int], rng: Generator) -> NDArray[np.float32]:
        """The slice, or a piece of it, turned and scaled into a matrix."""
        if rng.random() < self.recipe.exact:
            return cut_or_surrounded(plane.pixels, shape, rng)
        size_mm = np.array(plane.pixels.shape) * plane.spacing_mm
        if rng.random() < self.recipe.whole:
            pixel_mm = float((size_mm / shape).max()) * rng.uniform(0.85, 1.2)
            middle = (np.array(plane.pixels.shape) - 1) / 2 + rng.normal(0, 0.03, 2) * plane.pixels.shape
        else:
            pixel_mm = float(np.mean(plane.spacing_mm)) * rng.uniform(0.9, 1.7)
            middle = rng.uniform(0.3, 0.7, 2) * plane.pixels.shape
        angle = rng.normal(0, 0.15) + rng.integers(4) * np.pi / 2
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn * [1, rng.choice([-1, 1])] * pixel_mm / np.array(plane.spacing_mm)[:, None]
        offset = middle - matrix @ ((np.array(shape) - 1) / 2)
        blur = 0.45 * np.maximum(pixel_mm / np.array(plane.spacing_mm) - 1, 0)
        smooth = ndimage.gaussian_filter(plane.pixels, blur)
        return np.asarray(ndimage.affine_transform(smooth, matrix, offset, shape, order=1), np.float32)


def source_of(index: int, batch: int, shown: int) -> int:
    """Which example an index shows: a third of the blocks are new where each example is shown three times."""
    number, place = divmod(index, batch)
    block, within = divmod(number, _BLOCK)
    fresh, again = divmod(block, shown)
    source = fresh - again * _DELAY if fresh >= again * _DELAY else fresh
    return (source * _BLOCK + within) * batch + place


def cut_or_surrounded(image: NDArray[np.float32], shape: tuple[int, int], rng: Generator) -> NDArray[np.float32]:
    """An image as it is, or with a mean of two by two pixels where it is much larger, turned at random."""
    if np.prod(image.shape) > 2 * np.prod(shape):
        image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        image = image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2).mean(axis=(1, 3))
    image = np.rot90(image, int(rng.integers(4)))[:: rng.choice([-1, 1])]
    placed = np.zeros(shape, np.float32)
    spans = []
    for inner, outer in zip(image.shape, shape, strict=True):
        most, off = min(inner, outer), int(rng.uniform(0.3, 0.7) * (inner - outer))
        spans.append((slice(max(off, 0), max(off, 0) + most), slice(max(-off, 0), max(-off, 0) + most)))
    placed[spans[0][1], spans[1][1]] = image[spans[0][0], spans[1][0]]
    return placed


def _chances(scans: Sequence[str], phantoms: float) -> NDArray[np.float64]:
    """Of each plane: all phantoms together have their share, the scans the rest in even parts."""
    names, which, counts = np.unique(scans, return_inverse=True, return_counts=True)
    shares = np.where(names == "", phantoms, (1 - phantoms) / max((names != "").sum(), 1)) / counts
    return np.asarray(shares[which] / shares[which].sum())


@dataclass(frozen=True)
class Setting:
    """What the examples of one batch have in common."""

    shape: tuple[int, int]
    coils: int
    lines: bool
    turned: bool


def recoloured(image: NDArray[np.float32], rng: Generator) -> NDArray[np.float32]:
    """Another contrast: a random rising curve, or one that bends down for the brightest; air stays 0."""
    image = image / max(float(np.percentile(image, 99)), 1e-3)
    knots = np.linspace(0, 1, 6)
    heights = np.concatenate([[0], np.cumsum(rng.uniform(0.2, 1, 5))])
    if rng.random() < 0.3:
        heights[3:] = rng.uniform(0.2, 1, 3) * heights[-1]
    return np.asarray(np.interp(image, knots, heights / heights.max()), np.float32)


def example(
    image: NDArray[np.float32],
    setting: Setting,
    kind: MaskKind,
    recipe: UndersamplingRecipe,
    inputs: Sequence[str],
    rng: Generator,
) -> dict[str, torch.Tensor]:
    """Measure an image and prepare it for a network's inputs; ``target`` (2, row, column) is what should come out."""
    acceleration = float(np.exp(rng.uniform(*np.log(recipe.acceleration))))
    shape = setting.shape[::-1] if setting.turned else setting.shape
    acquired = sampling_mask(kind, shape, min(acceleration, shape[0] / 8), int(rng.integers(2**31)))
    acquired = acquired.T.copy() if setting.turned else acquired
    maps = invented_coils((1, *image.shape), setting.coils, rng)[0]
    noise = float(np.exp(rng.uniform(*np.log(recipe.noise))))
    data = measured(image, maps, acquired, noise, rng)
    known = maps if rng.random() < recipe.known_maps else None
    prepared = Measured.of(data, acquired, known)
    seen = np.tensordot(combination(data, acquired, min(MOST_COILS, len(data))), maps, 1)
    turn = (prepared.maps.conj() * seen).sum(axis=0)
    target = image / np.float32(prepared.scale) * turn / np.maximum(np.abs(turn), np.float32(1e-6))
    wanted = torch.from_numpy(np.stack([target.real, target.imag]).astype(np.float32))
    return {**tensors_of(prepared, inputs), "target": wanted}


def reconstruction_loss(answer: torch.Tensor, batch: Batch) -> Terms:
    """See `MriLesson.loss`; ``answer`` as of `tomolens.models.cascade.CascadedSense`."""
    target = batch["target"]
    count, examples = (torch.tensor(float(n), device=target.device) for n in (target[:, 0].numel(), len(target)))
    error = ((answer[:, :2] - target) ** 2).sum(dim=1).mean(dim=(-2, -1)).add(1e-8).sqrt()
    seen, true = (image.pow(2).sum(dim=1, keepdim=True).add(1e-8).sqrt() for image in (answer[:, :2], target))
    likeness = structural_similarity(seen, true)
    off, log_sigma = (seen - true).detach()[:, 0], answer[:, 2]
    unlikely = log_sigma + 0.5 * (off**2 * torch.exp(-2 * log_sigma)).clamp(max=50)
    return {
        "error_loss": (_ERROR_WEIGHT * error.sum(), examples),
        "ssim_loss": (_SSIM_WEIGHT * (1 - likeness).mean(dim=(-3, -2, -1)).sum(), examples),
        "doubt_loss": (_DOUBT_WEIGHT * unlikely.sum(), count),
    }


def doubt_scale(network: nn.Module, held_out: Dataset[dict[str, torch.Tensor]]) -> float:
    """What the network's standard deviation is to be multiplied by so that 68 % of tissue lies within one.

    ``held_out`` as of `MriLesson.examples`; goes into a publication's settings.
    """
    times = []
    for example in DataLoader(held_out, 1):
        with torch.inference_mode():
            answer = network(*(example[name] for name in inputs_of(network)))
        seen, true = (image.pow(2).sum(dim=1).sqrt() for image in (answer[:, :2], example["target"]))
        tissue = true > _TISSUE
        times.append(((seen - true).abs() / answer[:, 2].exp())[tissue])
    return float(np.quantile(torch.cat(times).numpy(), _WITHIN_ONE))


def structural_similarity(seen: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Wang et al. 2004 with a uniform window of 7 pixels and a range of 1: a map, smaller by the window."""
    means, mean_true = avg_pool2d(seen, _WINDOW, 1), avg_pool2d(true, _WINDOW, 1)
    variance = avg_pool2d(seen**2, _WINDOW, 1) - means**2
    variance_true = avg_pool2d(true**2, _WINDOW, 1) - mean_true**2
    together = avg_pool2d(seen * true, _WINDOW, 1) - means * mean_true
    above = (2 * means * mean_true + _C1) * (2 * together + _C2)
    below = (means**2 + mean_true**2 + _C1) * (variance + variance_true + _C2)
    return above / below
