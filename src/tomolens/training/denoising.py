"""What the denoising network is shown: clean slices with lesions and noise of every strength and kernel put on them.

Examples come in pairs that share the place and the noise; the second has no lesions. So the loss can ask what is left
of a lesion's contrast, which no average over pixels tells: a network that wipes small faint ones out hardly errs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from tomolens.core.errors import OptionError
from tomolens.core.progress import Progress, silent
from tomolens.core.reconstruction import Job
from tomolens.physics.noise import noise_map
from tomolens.physics.random_noise import Spectrum, random_level
from tomolens.training.clean_slices import CleanStack, clean_stacks
from tomolens.training.gan import Pictures
from tomolens.training.reconstruction import ReconstructionConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.training.fingerprint import Record
    from tomolens.training.learner import Batch, Terms

RECIPE: Mapping[str, Any] = {
    "least_noise_hu": 4.0,
    "most_noise_hu": 150.0,
    "lesions": 4.0,
    "generated": 0.5,
    "single_slices": 0.25,
    "robust": 1.0,
    "coarse_weight": 3.0,
    "contrast_weight": 1.5,
}
"""Defaults of ``ReconstructionConfig.recipe``: the noise, drawn evenly in its logarithm; lesions a patch, on average;
the share of patches from phantoms; the share whose neighbours repeat the slice, as in a scan of one or of thick
slices; the error in units of the noise up to which it counts squared, which makes HU right on average, and above which
its modulus counts, which makes them right for the median; the weight of the error of means over 4 by 4 pixels; that of
what lesions lose of their contrast."""

CONFIG = ReconstructionConfig(
    job=Job.DENOISING, rounds=18, steps=150, batch=4, learning_rate=1.5e-3, network="slice_denoiser",
    settings={"channels": [48, 96, 128]}, phantom_seeds=tuple(range(100, 105)), recipe=RECIPE, val_examples=32,
)  # fmt: skip

_MARGIN = 24
"""The noise is measured in this much more than a patch, as in a scan."""
_AIR_HU = -900.0
_LUNG_HU = -600.0
_SOFT_HU = 40.0
_CUT_OFF_HU = -1024.0
_LEAST_SCALE_HU = 2.0
_POOL = 4
_FAINT, _SEEN = 0.3, 0.1
"""Contrast in units of the noise, of means over 4 by 4 pixels: below the first a loss counts for less, below the second
not at all."""
_AROUND = 8
_FULL_DOSE = 0.5
"""Noise at four times the dose."""


@dataclass(frozen=True, eq=False)
class Examples(Dataset[dict[str, torch.Tensor]]):
    """Patches by their number: ``image`` (3, edge, edge) and ``target`` (1, edge, edge) in HU, ``sigma`` the map.

    Where a GAN is trained, also ``full`` (1, edge, edge): the slice at four times the dose, its noise part of that of
    the image.
    """

    config: ReconstructionConfig
    stacks: Sequence[CleanStack]
    indices: Sequence[int]
    held_out: bool

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        number, bare = divmod(self.indices[place], 2)
        rng = np.random.default_rng([self.config.seed, number, self.held_out])
        recipe, edge = self.config.recipe, self.config.edge
        clean = _clean_patch(self.stacks, edge + 2 * _MARGIN, rng, recipe["generated"], self.held_out)
        wounded = clean.copy()
        for _ in range(rng.poisson(recipe["lesions"])):
            add_lesion(wounded, rng)
        clean = clean if bare else wounded
        if rng.random() < recipe["single_slices"]:
            noisy, full = (np.repeat(part, 3, axis=0) for part in _noisy(clean[1:2], rng, recipe))
        else:
            noisy, full = _noisy(clean, rng, recipe)
        inner = (slice(None), slice(_MARGIN, _MARGIN + edge), slice(_MARGIN, _MARGIN + edge))
        parts = {"image": noisy, "sigma": noise_map(noisy[1])[None], "target": clean[1:2]}
        if self.config.adversary is not None:
            parts["full"] = full[1:2]
        return {name: torch.from_numpy(np.ascontiguousarray(part[inner])) for name, part in parts.items()}


@dataclass(frozen=True)
class Denoising:
    """The lesson: see `tomolens.training.reconstruction.Lesson`."""

    config: ReconstructionConfig
    stacks: Sequence[CleanStack]

    @property
    def record(self) -> Record:
        """The scans that its slices were made from."""
        return [(f"scan {stack.name}", stack.origin) for stack in self.stacks if not stack.generated]

    def examples(self, indices: Sequence[int], *, held_out: bool = False) -> Examples:
        """Patches; held-out ones are of slices that training never shows."""
        return Examples(self.config, self.stacks, indices, held_out)

    def loss(self, answer: torch.Tensor, batch: Batch) -> Terms:
        """What is wrong with pixels and means, in units of the noise, and with contrasts; the uncertainty's likelihood.

        A GAN's pixels are held to the slice at four times the dose.

        Raises
        ------
        OptionError
            If a batch, or a process's part of it, holds half a pair.
        """
        if len(answer) % 2:
            raise OptionError(f"Denoising learns from pairs: a process's part of a batch is even, not {len(answer)}.")
        recipe, sigma = self.config.recipe, batch["sigma"].clamp(min=_LEAST_SCALE_HU)
        error = (answer[:, :1] - batch["target"]) / sigma
        coarse = functional.avg_pool2d(error, _POOL)
        doubt = answer[:, 1:] / sigma
        likely = doubt.log() + 0.5 * (error.detach() / doubt) ** 2
        grain = (answer[:, :1] - batch.get("full", batch["target"])) / sigma
        terms = {
            "fine_loss": _charbonnier(grain, recipe["robust"]),
            "coarse_loss": recipe["coarse_weight"] * _charbonnier(coarse, recipe["robust"] / _POOL),
            "doubt_loss": likely,
        }
        count = torch.tensor(float(len(error)), device=error.device)
        summed = {name: (term.mean(dim=(1, 2, 3)).sum(), count) for name, term in terms.items()}
        lost, seen = _lost_contrast(error, batch["target"], sigma)
        return {**summed, "contrast_loss": (recipe["contrast_weight"] * lost, seen)}

    def pictures(self, answer: torch.Tensor, batch: Batch) -> Pictures:
        """Contrasts to the clean surroundings in units of the noise; real is the slice at four times the dose."""
        sigma = batch["sigma"].clamp(min=_LEAST_SCALE_HU)
        slow = functional.avg_pool2d(batch["target"], 2 * _AROUND + 1, 1, _AROUND, count_include_pad=False)
        images = batch["image"][:, 1:2], answer[:, :1], batch["full"]
        return Pictures(*((image - slow) / sigma for image in images))


def lesson(config: ReconstructionConfig, data: Path, progress: Progress = silent) -> Denoising:
    """The lesson, its slices made from the CT files below a folder and from phantoms.

    Raises
    ------
    OptionError
        If the recipe has an unknown key.
    ReadError
        If there are no slices.
    """
    unknown = sorted(set(config.recipe) ^ set(RECIPE))
    if unknown:
        raise OptionError(f"The recipe of {Job.DENOISING} has the keys {', '.join(RECIPE)}; {unknown[0]!r} is amiss.")
    return Denoising(config, clean_stacks(data, config.phantom_seeds, progress))


def uncertainty_factor(network: nn.Module, lesson: Denoising, count: int = 48) -> float:
    """What the network's standard deviations are multiplied by to hold on held-out slices.

    At least 68.3 % of the errors then lie within one and 95.4 % within two, as of a normal distribution. It is given
    to the network as ``uncertainty_factor`` where a run is published.
    """
    ratios = []
    for batch in DataLoader(lesson.examples(range(count), held_out=True), 1):
        with torch.inference_mode():
            answer = network.eval()(batch["image"], batch["sigma"])
        ratios.append(((answer[:, :1] - batch["target"]).abs() / answer[:, 1:]).flatten())
    one, two = np.quantile(torch.cat(ratios).numpy(), [0.683, 0.954])
    return float(max(one, two / 2))


def add_lesion(slices_hu: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Put a soft disc into the middle of (3, row, column) slices, smaller or absent in the others; in place.

    In the lung it is solid or ground glass, elsewhere 8 to 120 HU above or below what is there: what a network must
    have seen if it is not to wipe it out.
    """
    rows, columns = slices_hu.shape[1:]
    center = rng.uniform((0, 0), (rows, columns))
    radius = float(np.exp(rng.uniform(np.log(1.2), np.log(11))))
    there = float(slices_hu[1, int(center[0]), int(center[1])])
    if there < _AIR_HU - 50:
        return
    in_lung = rng.uniform(60, 400) if rng.random() < 0.5 else _SOFT_HU - there
    contrast = in_lung if there < _LUNG_HU else rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(8), np.log(120)))
    soft = rng.uniform(0.3, 1.0)
    near = tuple(slice(max(0, int(at - 3 * radius - 10)), int(at + 3 * radius + 11)) for at in center)
    distance = np.hypot(np.arange(rows)[near[0], None] - center[0], np.arange(columns)[near[1]] - center[1])
    for image, share in zip(slices_hu, (rng.uniform(-0.3, 1), 1.0, rng.uniform(-0.3, 1)), strict=True):
        if share > 0:
            image[near] += np.float32(contrast) / (1 + np.exp(np.clip((distance - radius * share) / soft, -30, 30)))


def _clean_patch(
    stacks: Sequence[CleanStack], size: int, rng: np.random.Generator, generated: float, held_out: bool
) -> NDArray[np.float32]:
    """Three slices of a random place that is not all air, turned and stretched in HU at random."""
    kinds = [[stack for stack in stacks if stack.generated is kind] for kind in (False, True)]
    some = kinds[int(rng.random() < generated)] or stacks
    for _ in range(8):
        stack = some[int(rng.integers(len(some)))]
        patch = _cut(stack, int(rng.choice(stack.held_out if held_out else stack.shown)), size, rng)
        if (patch[1] > _AIR_HU).mean() > 0.2:
            break
    share = np.float32(rng.uniform(0.2, 1.0))
    patch[::2] = patch[1] + share * (patch[::2] - patch[1])
    turned = np.rot90(patch if rng.random() < 0.5 else patch[..., ::-1], int(rng.integers(4)), axes=(1, 2))
    return np.asarray((turned + 1000) * rng.uniform(0.93, 1.07) - 1000 + rng.uniform(-10, 10), np.float32)


def _cut(stack: CleanStack, k: int, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random place of a slice and its neighbours; a slice that is smaller is mirrored at its edges."""
    starts = [int(rng.integers(max(n - size, 0) + 1)) for n in stack.slices_hu.shape[1:]]
    patch = stack.around(k, tuple(slice(start, start + size) for start in starts))
    room = [size - n for n in patch.shape[1:]]
    return np.pad(patch, ((0, 0), *((n // 2, n - n // 2) for n in room)), "symmetric") if any(room) else patch


def _noisy(
    clean: NDArray[np.float32], rng: np.random.Generator, recipe: Mapping[str, Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Slices with noise of one spectrum and strength, somewhat alike in neighbours, and those at four times the dose.

    Both are cut off as scanners do, mostly.
    """
    strength = np.exp(rng.uniform(np.log(recipe["least_noise_hu"]), np.log(recipe["most_noise_hu"])))
    spectrum, alike = Spectrum.draw(rng), np.float32(rng.uniform(0, 0.5))
    kept, further = (_alike(spectrum.noise(clean.shape, rng), alike) for _ in range(2))
    level = np.float32(strength) * random_level(clean.shape[1:], rng)
    full = clean + level * (np.float32(_FULL_DOSE) * kept)
    noisy = full + level * (np.float32(np.sqrt(1 - _FULL_DOSE**2)) * further)
    least = _CUT_OFF_HU if rng.random() < 0.8 else -np.inf
    return np.maximum(noisy, np.float32(least)), np.maximum(full, np.float32(least))


def _alike(noise: NDArray[np.float32], share: np.float32) -> NDArray[np.float32]:
    if len(noise) > 1:
        noise[::2] = share * noise[1] + np.sqrt(1 - share**2) * noise[::2]
    return noise


def _lost_contrast(error: torch.Tensor, target: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far lesions are from their contrast, as shares of it, summed over places of 4 by 4 pixels; and how many.

    What is left of a lesion is the answer's difference between the two examples of a pair, so noise plays no part.
    """
    lesion = functional.avg_pool2d((target[::2] - target[1::2]) / sigma[1::2], _POOL).abs()
    lost = functional.avg_pool2d(error[::2] * (sigma[::2] / sigma[1::2]) - error[1::2], _POOL).abs()
    there = lesion > _SEEN
    return (lost / (lesion + _FAINT))[there].sum(), there.sum()


def _charbonnier(error: torch.Tensor, robust: float) -> torch.Tensor:
    """Square of small errors, modulus of large ones."""
    return (error**2 + robust**2).sqrt() - robust
