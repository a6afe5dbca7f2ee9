"""What a network learns super-resolution from: planes that are sharp along both axes, averaged along one of them.

Slices of CT and MR are sharp in their own plane, which few scans are across it: so the thin axis of an example lies
within a slice of a real scan, and only in generated patients across slices. Thin slices get noise before they are
averaged, which weakens it as a scanner does; the truth keeps it, for it is what thin slices show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import fft, ndimage
from torch.utils.data import Dataset

from tomolens.core.errors import OptionError, ReadError
from tomolens.core.progress import Progress, Step, silent
from tomolens.core.reconstruction import Job
from tomolens.io.read import read_volume
from tomolens.models.slice_network import FACTORS, offsets_of, setting_of
from tomolens.models.super_resolution import usual_difference
from tomolens.phantoms.brain import brain_phantom
from tomolens.phantoms.chest import chest_phantom
from tomolens.physics.slices import averaged, back_projected
from tomolens.training.fingerprint import fingerprint, fingerprint_of_axes, fingerprint_of_volume
from tomolens.training.gan import Pictures
from tomolens.training.reconstruction import ReconstructionConfig

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import nn

    from tomolens.training.fingerprint import Record
    from tomolens.training.learner import Batch, Terms

    Plane = NDArray[np.float32]

CONFIG = ReconstructionConfig(
    job=Job.SUPER_RESOLUTION,
    network="slice_net",
    settings={"channels": 32, "blocks": 6},
    edge=64,
    batch=16,
    rounds=12,
    steps=200,
    phantom_seeds=(100, 101),
    val_examples=64,
)
_HELD_OUT = 8
"""The last slices of each volume, one in so many, are never shown in training."""
_LEAST_SLICES = 16
_NOISE_CT_HU = 40.0
_NOISE_MR_SHARE = 0.08
_SIGMA_WEIGHT = 0.1
_TRIES = 20


@dataclass(frozen=True)
class Recipe:
    """How examples are drawn: a run's ``recipe``.

    Parameters
    ----------
    slices
        Thick slices of an example.
    thin_mm
        Least and largest distance of the thin slices; pixels vary alike.
    noise, kernel, interpolated
        Shares of the examples with further noise, with another kernel, and with slices that the scanner interpolated:
        these hold little or nothing that thick slices lose, and the network must not invent it.
    """

    slices: int = 20
    thin_mm: tuple[float, float] = (0.6, 1.5)
    noise: float = 0.5
    kernel: float = 0.4
    interpolated: float = 0.2

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Recipe:
        """From a run's ``recipe``.

        Raises
        ------
        OptionError
            If it has an unknown key.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise OptionError(f"recipe has the unknown key {unknown[0]!r}; accepted are {', '.join(known)}.")
        low, high = values.get("thin_mm", cls.thin_mm)
        return cls(**{**values, "thin_mm": (float(low), float(high))})


@dataclass(frozen=True, eq=False)
class Planes:
    """Planes that are sharp along both axes.

    Parameters
    ----------
    voxels
        (plane, a, b) int16 or float32.
    spacing_mm
        Along a and b.
    noise
        The largest standard deviation of noise that is added, in the voxels' unit.
    weight
        How often it is drawn.
    record
        Of the scan or cubes that they were cut from.
    """

    voxels: NDArray[Any]
    spacing_mm: tuple[float, float]
    noise: float
    weight: float
    record: Record = ()

    def plane(self, rng: Generator, held_out: bool) -> Plane:
        """One at random, of those for training or of the last, held-out ones."""
        shown = len(self.voxels) - max(1, len(self.voxels) // _HELD_OUT)
        low, high = (shown, len(self.voxels)) if held_out else (0, shown)
        return np.asarray(self.voxels[rng.integers(low, high)], np.float32)


def lesson(config: ReconstructionConfig, data: Path, progress: Progress = silent) -> SliceLesson:
    """The lesson of a run: the volumes of ``data`` (folders ``ct``, ``mri``, ``lidc_cubes51``) and phantoms.

    Raises
    ------
    ReadError
        If ``data`` holds no volume and no phantom is asked for.
    """
    planes = [*_volumes(data, progress), *_cubes(data / "lidc_cubes51" / "cubes.npz")]
    planes += list(_phantoms(config.phantom_seeds, progress))
    if not planes:
        raise ReadError(f"{data} holds no volume to learn from: ct/*.nii.gz, mri/*.nii.gz, lidc_cubes51/cubes.npz.")
    gan = config.adversary is not None
    return SliceLesson(tuple(planes), Recipe.of(config.recipe), config.edge, config.seed, gan)


@dataclass(frozen=True, eq=False)
class SliceLesson:
    """See `tomolens.training.reconstruction.Lesson`."""

    planes: tuple[Planes, ...]
    recipe: Recipe
    edge: int
    seed: int
    gan: bool = False

    @property
    def record(self) -> Record:
        """The scans and cubes that its planes were cut from."""
        return [entry for planes in self.planes for entry in planes.record]

    def examples(self, indices: Sequence[int], *, held_out: bool = False) -> Dataset[dict[str, torch.Tensor]]:
        """Examples of planes that are shown in training, or of those that are not."""
        return _Examples(self, indices, held_out)

    def loss(self, answer: torch.Tensor, batch: Batch) -> Terms:
        """``left``: the error's share of what back-projection leaves out; ``sigma``: how honest the uncertainty is.

        The latter is the negative log-likelihood of a Laplace distribution of the stated standard deviation; it teaches
        the uncertainty alone.
        """
        error, scale, doubt = answer.new_zeros(()), answer.new_zeros(()), answer.new_zeros(())
        for factor in FACTORS:
            rows = batch["factor"] == factor
            if bool(rows.any()):
                first, target = offsets_of(factor), batch["target"][rows, :factor]
                part = answer[rows, first : first + 2 * factor]
                wrong = (part[:, :factor] - target).abs()
                width = part[:, factor:] / 2**0.5
                error, scale = error + wrong.sum(), scale + target.abs().sum()
                doubt = doubt + (wrong.detach() / width + width.log()).mean(dim=(1, 2, 3)).sum() * _SIGMA_WEIGHT
        return {"left": (error, scale.detach()), "sigma": (doubt, torch.ones_like(doubt) * len(batch["factor"]))}

    def pictures(self, answer: torch.Tensor, batch: Batch) -> Pictures:
        """The first thin slices of each plane, in units of the usual difference between thick ones."""
        parts = []
        for factor in FACTORS:
            rows = batch["factor"] == factor
            if bool(rows.any()):
                first, projected = offsets_of(factor), batch["projected"][rows, :factor]
                made, real = answer[rows, first : first + factor], batch["target"][rows, :factor]
                thick = batch["image"][rows].expand(-1, factor, -1, -1)
                parts.append([_thin(part) for part in (thick, projected + made, projected + real)])
        return Pictures(*(torch.cat(some) for some in zip(*parts, strict=True)))


def _thin(slices: torch.Tensor) -> torch.Tensor:
    """(n, factor, k, i) to (n, 1, 2 * k, i): of the thin slices the first, as many for each factor."""
    return slices.transpose(1, 2).flatten(1, 2)[:, None, : FACTORS[0] * slices.shape[2]]


class _Examples(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, lesson: SliceLesson, indices: Sequence[int], held_out: bool) -> None:
        self.lesson, self.indices, self.held_out = lesson, indices, held_out

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        return example(self.lesson, self.indices[place], self.held_out)


def example(lesson: SliceLesson, index: int, held_out: bool) -> dict[str, torch.Tensor]:
    """Thick slices of one plane, and what the thin ones hold beyond back-projection.

    ``image`` (1, slices, edge), ``target`` (5, slices, edge) of which ``factor`` are used, ``setting`` (2,); for a GAN
    also ``projected``, to which the target is added.
    """
    rng = np.random.default_rng([lesson.seed, int(held_out), index])
    factor = int(rng.choice(FACTORS))
    thin, spacing = _sharp(lesson, factor, rng, held_out)
    measured = averaged(thin, factor)
    projected = back_projected(measured, factor)
    scale = np.float32(rng.uniform(0.5, 2.0) * rng.choice((-1, 1)) / usual_difference(measured))
    shown = {
        "image": torch.from_numpy((measured - measured.mean()) * scale)[None],
        "target": _by_offset((thin - projected) * scale, factor),
        "setting": torch.tensor(setting_of(factor, factor * spacing[0], spacing[1])),
        "factor": torch.tensor(factor),
    }
    return shown | ({"projected": _by_offset((projected - measured.mean()) * scale, factor)} if lesson.gan else {})


def _by_offset(thin: Plane, factor: int) -> torch.Tensor:
    """(slices * factor, edge) to (5, slices, edge): the first thin slice of each thick one, the second, ..., zeros."""
    apart = np.zeros((FACTORS[-1], len(thin) // factor, thin.shape[1]), np.float32)
    apart[:factor] = thin.reshape(-1, factor, thin.shape[1]).transpose(1, 0, 2)
    return torch.from_numpy(apart)


def sigma_scale(network: nn.Module, lesson: SliceLesson, count: int) -> tuple[float, ...]:
    """What each factor's standard deviation is to be multiplied by, from ``count`` held-out examples.

    After it 95 % of the errors lie within two of them. It stands in a publication's ``settings``.
    """
    ratios: dict[int, list[NDArray[Any]]] = {factor: [] for factor in FACTORS}
    with torch.inference_mode():
        for index in range(count):
            shown = example(lesson, index, True)
            factor = int(shown["factor"])
            answer = network(shown["image"][None], shown["setting"][None], factor)[0]
            wrong = (answer[:factor] - shown["target"][:factor]).abs()
            ratios[factor].append((wrong / answer[factor:]).numpy().ravel())
    return tuple(round(float(np.quantile(np.concatenate(ratios[factor]), 0.95)) / 2, 3) for factor in FACTORS)


def _sharp(lesson: SliceLesson, factor: int, rng: Generator, held_out: bool) -> tuple[Plane, tuple[float, float]]:
    """Thin slices (slices * factor, edge) and the distances between slices and between pixels, in mm."""
    size = (lesson.recipe.slices * factor, lesson.edge)
    weights = np.array([planes.weight for planes in lesson.planes])
    for _ in range(_TRIES):
        planes = lesson.planes[rng.choice(len(weights), p=weights / weights.sum())]
        plane, spacing = planes.plane(rng, held_out), planes.spacing_mm
        if rng.random() < 0.5:
            plane, spacing = plane.T, (spacing[1], spacing[0])
        window = _window(plane, spacing, size, lesson.recipe.thin_mm, rng)
        if window is not None and np.ptp(window[0]) > 0:
            patch, shown = window
            for axis in (0, 1):
                patch = np.flip(patch, axis) if rng.random() < 0.5 else patch
            scanned = _scanned(patch, planes.noise, lesson.recipe, rng)
            return _interpolated(scanned, factor, rng) if rng.random() < lesson.recipe.interpolated else scanned, shown
    raise OptionError(f"No plane is as large as {size[0]} x {size[1]} pixels; use fewer slices or a smaller edge.")


def _window(
    plane: Plane, spacing: tuple[float, float], size: tuple[int, int], range_mm: tuple[float, float], rng: Generator
) -> tuple[Plane, tuple[float, float]] | None:
    """A patch of ``size`` at a random place and scale; None where the plane is too small."""
    room = [min(n / wish, range_mm[1] / mm) for n, wish, mm in zip(plane.shape, size, spacing, strict=True)]
    if min(room) < 1:
        return None
    ratio = [1.0 if rng.random() < 0.4 else float(rng.uniform(1, most)) for most in room]
    need = [int(np.ceil(wish * by)) for wish, by in zip(size, ratio, strict=True)]
    first = [int(rng.integers(0, max(n - wish, 0) + 1)) for n, wish in zip(plane.shape, need, strict=True)]
    patch = plane[first[0] : first[0] + need[0], first[1] : first[1] + need[1]]
    if max(ratio) > 1:
        patch = ndimage.gaussian_filter(patch, [0.5 * (by**2 - 1) ** 0.5 for by in ratio])
        where = [
            np.minimum((np.arange(n) + 0.5) * by - 0.5, m - 1)
            for n, by, m in zip(size, ratio, patch.shape, strict=True)
        ]
        patch = ndimage.map_coordinates(patch, np.meshgrid(*where, indexing="ij"), order=1, mode="nearest")
    return patch[: size[0], : size[1]], (spacing[0] * ratio[0], spacing[1] * ratio[1])


def _scanned(patch: Plane, noise: float, recipe: Recipe, rng: Generator) -> Plane:
    """Another kernel, and noise of random strength and grain."""
    if rng.random() < recipe.kernel:
        soft = ndimage.gaussian_filter(patch, rng.uniform(0.3, 0.8, 2))
        patch = soft if rng.random() < 0.6 else patch + np.float32(rng.uniform(0.2, 0.8)) * (patch - soft)
    if rng.random() < recipe.noise:
        grain = rng.standard_normal(patch.shape, np.float32)
        grain = ndimage.gaussian_filter(grain, (rng.uniform(0, 0.6), rng.uniform(0, 0.9)))
        patch = patch + grain * np.float32(rng.uniform(0, noise) / grain.std())
    return np.asarray(patch, np.float32)


def _interpolated(patch: Plane, factor: int, rng: Generator) -> Plane:
    """Slices with few high frequencies or none, as MR has them of zero-filled k-space and CT of overlapping slices."""
    if rng.random() < 0.5:
        return np.asarray(ndimage.gaussian_filter1d(patch, factor * rng.uniform(0.25, 0.5), axis=0))
    parts = fft.dct(patch, axis=0, norm="ortho")
    parts[int(len(parts) * min(rng.uniform(0.7, 1.6) / factor, 1.0)) :] = 0
    return np.asarray(fft.idct(parts, axis=0, norm="ortho"), np.float32)


def _volumes(data: Path, progress: Progress) -> Iterator[Planes]:
    files = [(modality, file) for modality, name in (("CT", "ct"), ("MR", "mri")) for file in _images(data / name)]
    for done, (modality, file) in enumerate(files):
        progress(Step("read volumes", done, len(files)))
        volume = read_volume(file, modality=modality)
        noise = _NOISE_CT_HU if modality == "CT" else _NOISE_MR_SHARE * float(volume.voxels.std())
        if volume.shape[0] >= _LEAST_SLICES:
            name = f"{modality} {file.name}"
            record = [(f"scan {name}", fingerprint_of_volume(volume)), (f"axes of {name}", fingerprint_of_axes(volume))]
            weight = 1.0 if modality == "CT" else 1.5
            yield Planes(np.asarray(volume.voxels), volume.spacing_mm[1:], noise, weight, record)


def _images(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.nii.gz"))


def _cubes(file: Path) -> Iterator[Planes]:
    if file.is_file():
        with np.load(file) as cubes:
            if "image" not in cubes:
                raise ReadError(f"{file} lacks image, the cubes' HU (n, k, j, i).")
            image = cubes["image"]
        record = [(f"cube {number}", fingerprint(cube.astype(np.float32))) for number, cube in enumerate(image)]
        yield Planes(image.reshape(-1, *image.shape[2:]), (1.0, 1.0), _NOISE_CT_HU, 1.0, record)


def _phantoms(seeds: Sequence[int], progress: Progress) -> Iterator[Planes]:
    """A chest and a head a seed at 1 mm, cut across the slices: the thin axis is the patient's own."""
    for done, seed in enumerate(seeds):
        progress(Step("generate phantoms", done, len(seeds)))
        chest = chest_phantom(seed, noise_hu=8.0).volume.voxels
        head = brain_phantom(seed, spacing_mm=(1.0, 1.0, 1.0)).volume.voxels
        for voxels, noise in ((chest, _NOISE_CT_HU), (head, _NOISE_MR_SHARE * float(head.std()))):
            yield Planes(voxels.transpose(1, 0, 2), (1.0, 1.0), noise, 1.0 / len(seeds))
            yield Planes(voxels.transpose(2, 0, 1), (1.0, 1.0), noise, 1.0 / len(seeds))
