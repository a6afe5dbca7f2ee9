"""MR images from undersampled k-space: the network beside zeros filled in, CG-SENSE and TV-SENSE.

Part of ``benchmarks/reconstruction.py``. Three kinds of measurement that training never showed: k-space of generated
brains of other seeds with coils that are drawn otherwise than in training, the sample volume, and a **simulation** on
a real abdomen (T2), whose phase and coils are invented. PSNR and SSIM compare the magnitude with the true one, by its
largest value; both are means over slices. The classical methods' weights were tuned on training images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from tomolens import read_volume
from tomolens.core.grid import Grid
from tomolens.core.kspace import KSpace
from tomolens.core.progress import silent
from tomolens.core.reconstruction import Made, ReconstructOptions
from tomolens.core.volume import Volume
from tomolens.io.kspace import read_kspace
from tomolens.models.inference import Backend
from tomolens.models.mri import CLASSICAL, MriReconstructor, reconstructor_of
from tomolens.models.registry import find_bundle, shipped_names
from tomolens.phantoms.kspace import brain_kspace
from tomolens.physics.masks import MaskKind, sampling_mask
from tomolens.physics.undersampling import simulated_kspace

NETWORK = "mri-unrolled"
BAR_DB, BAR_S = 2.5, 0.6
METHODS = ("zero-filled", "cg-sense", "tv-sense", NETWORK)
SAMPLE = Path(__file__).parent.parent / "sample_volumes" / "brain_kspace.npz"
_BRAIN_SEEDS = (901, 902)
_ABDOMEN = "abdomen_SCAN002_T2.nii.gz"
_NOISE = 0.01
_SEED = 55
_STACK = 16


@dataclass(frozen=True, eq=False)
class Truth:
    """A whole measurement, and the magnitude that should come out."""

    name: str
    kspace: KSpace
    image: NDArray[np.float32]

    def undersampled(self, acceleration: float, kind: MaskKind) -> KSpace:
        """What remains with a mask of its own in each slice."""
        shape = self.kspace.shape
        masks = [sampling_mask(kind, shape[1:], acceleration, _SEED + k) for k in range(shape[0])]
        return self.kspace.kept(np.stack(masks), f"undersampled {acceleration:g}x, {kind}")


@dataclass(frozen=True)
class Score:
    """Means over slices."""

    psnr_db: float
    ssim: float


def report(shared: Path, quick: bool) -> None:
    methods = loaded()
    truths = list(measurements(shared, quick))
    print("PSNR in dB and SSIM at 4x; every measurement has 8 coils\n")
    four = [(MaskKind.RANDOM, 4.0), (MaskKind.EQUISPACED, 4.0)]
    gains = [table(truth, four[:1] if quick else four, methods) for truth in truths]
    verdicts(gains)
    others = [(MaskKind.RANDOM, 2.0), (MaskKind.RANDOM, 8.0), (MaskKind.POISSON, 4.0), (MaskKind.POISSON, 8.0)]
    print("\nelsewhere: the network may not fall below CG-SENSE\n")
    for truth in truths[: 1 if quick else None]:
        table(truth, others[:2] if quick else others, methods)
    if NETWORK in methods:
        doubt(truths, methods[NETWORK])
        checked(truths[0], methods[NETWORK])
    speed(methods)


def loaded() -> dict[str, MriReconstructor]:
    """The classical methods, and the network where it is shipped."""
    methods = {name: CLASSICAL[name].load() for name in METHODS if name in CLASSICAL}
    if NETWORK not in shipped_names():
        print("the network is not shipped: classical methods alone\n")
        return methods
    return {**methods, NETWORK: reconstructor_of(find_bundle(NETWORK), Backend.choose("cpu"))}


def measurements(shared: Path, quick: bool) -> Iterator[Truth]:
    for seed in _BRAIN_SEEDS[: 1 if quick else None]:
        brain = brain_kspace(seed, slices=2 if quick else 3, spacing_mm=(4.0, 1.1, 1.1))
        yield whole(f"brain phantom {seed}", brain.kspace.swapaxes(0, 1), brain.image, brain.spacing_mm)
    if not quick:
        with np.load(SAMPLE) as file:
            yield Truth("sample volume", read_kspace(SAMPLE), file["image"].astype(np.float32))
    scan = read_volume(shared / "open" / "mri" / _ABDOMEN, modality="MR").canonical()
    chosen = np.linspace(0.3, 0.7, 2 if quick else 4) * scan.shape[0]
    voxels = np.maximum(np.stack([scan.voxels[int(k)] for k in chosen]).astype(np.float32), 0)
    abdomen = Volume(voxels, Grid.from_axes(voxels.shape, scan.spacing_mm), scan.unit, "MR")
    simulated = simulated_kspace(abdomen, 8, 1.0, MaskKind.RANDOM, _NOISE, _SEED)
    yield Truth("abdomen T2 (simulated k-space)", simulated, voxels)


def whole(
    name: str, data: NDArray[np.complex64], image: NDArray[np.float32], spacing_mm: tuple[float, float, float]
) -> Truth:
    grid = Grid.from_axes(image.shape, spacing_mm)
    return Truth(name, KSpace(np.ascontiguousarray(data), np.ones(image.shape, bool), grid), image)


def table(
    truth: Truth, settings: Sequence[tuple[MaskKind, float]], methods: dict[str, MriReconstructor]
) -> list[dict[str, Score]]:
    """Print one line a setting; the scores by method."""
    rows = []
    for kind, acceleration in settings:
        kspace = truth.undersampled(acceleration, kind)
        scores = {name: score(made_by(method, kspace).image, truth.image) for name, method in methods.items()}
        told = "  ".join(f"{name} {each.psnr_db:5.2f} {each.ssim:.3f}" for name, each in scores.items())
        lost = NETWORK in scores and scores[NETWORK].psnr_db < scores["cg-sense"].psnr_db
        print(f"{truth.name:32} {kind:12} {acceleration:g}x  {told}{'  BELOW CG-SENSE' if lost else ''}")
        rows.append(scores)
    return rows


def made_by(method: MriReconstructor, kspace: KSpace) -> Made:
    return method.reconstruct(kspace, ReconstructOptions(), silent)


def score(image: NDArray[np.float32], true: NDArray[np.float32]) -> Score:
    psnr, ssim = [], []
    for seen, wanted in zip(image, true, strict=True):
        most = float(wanted.max())
        psnr.append(20 * np.log10(most / np.sqrt(np.mean((seen - wanted) ** 2))))
        ssim.append(structural_similarity(seen, wanted, data_range=most))
    return Score(float(np.mean(psnr)), float(np.mean(ssim)))


def verdicts(rows: Sequence[Sequence[dict[str, Score]]]) -> None:
    scores = [each for row in rows for each in row if NETWORK in each]
    if not scores:
        return
    gain = float(np.mean([each[NETWORK].psnr_db - each["tv-sense"].psnr_db for each in scores]))
    ssim = float(np.mean([each[NETWORK].ssim - each["tv-sense"].ssim for each in scores]))
    met = "met" if gain >= BAR_DB and ssim >= 0 else "MISSED"
    print(f"\nover TV-SENSE at 4x: {gain:+.2f} dB (at least {BAR_DB:+g}), SSIM {ssim:+.3f} (not lower): {met}")


def doubt(truths: Sequence[Truth], network: MriReconstructor) -> None:
    """How often the true magnitude lies within one and two standard deviations, where there is tissue."""
    print("\nuncertainty: share of tissue within 1 and 2 sigma (Gaussian: 0.68, 0.95)\n")
    for truth in truths:
        made = made_by(network, truth.undersampled(4.0, MaskKind.RANDOM))
        tissue = truth.image > 0.1 * np.percentile(truth.image, 99)
        off = np.abs(made.image - truth.image)[tissue] / np.maximum(made.uncertainty[tissue], 1e-12)
        print(f"{truth.name:32} {np.mean(off < 1):.2f} {np.mean(off < 2):.2f}")


def checked(truth: Truth, network: MriReconstructor) -> None:
    """What is told of a measurement in range, and of ones that are not."""
    print("\nchecks that failed, of six measurements\n")
    four = truth.undersampled(4.0, MaskKind.RANDOM)
    rows = truth.kspace.shape[1]
    half = np.zeros(truth.kspace.shape, bool)
    half[:, : int(0.55 * rows)] = True
    cases: dict[str, Callable[[], KSpace]] = {
        "4x random": lambda: four,
        "whole": lambda: truth.kspace,
        "16x random": lambda: truth.undersampled(16.0, MaskKind.RANDOM),
        "half of k-space alone": lambda: truth.kspace.kept(half, "half"),
        "every fourth line, no centre": lambda: truth.kspace.kept((np.arange(rows) % 4 == 1)[:, None], "no centre"),
        "30 times the noise": lambda: noisier(four),
    }
    for name, make in cases.items():
        kspace = make()
        made = made_by(network, kspace)
        other = score(made_by(CLASSICAL["cg-sense"].load(), kspace).image, truth.image).psnr_db
        failed = "; ".join(f"{check.name} {check.value:.3g}" for check in made.checks if not check.inside) or "none"
        print(f"{name:32} {score(made.image, truth.image).psnr_db:5.2f} dB (CG-SENSE {other:5.2f})  {failed}")


def noisier(kspace: KSpace) -> KSpace:
    rng = np.random.default_rng(_SEED)
    spread = 30 * 6.0
    added = spread * rng.standard_normal((*kspace.data.shape, 2), np.float32).view(np.complex64)[..., 0]
    return KSpace(np.where(kspace.acquired[:, None], kspace.data + added, 0), kspace.acquired, kspace.grid)


def speed(methods: dict[str, MriReconstructor]) -> None:
    """Seconds a slice, sensitivities and checks included, of one slice alone and of a stack; the best of three."""
    print(f"\nseconds a slice of 256 x 256 from 8 coils (at most {BAR_S})\n")
    for name, method in methods.items():
        (alone, image), (stacked, _) = (_seconds_a_slice(method, slices) for slices in (1, _STACK))
        print(f"{name:14} {alone:.2f} alone, of which the image {image:.2f}; {stacked:.2f} in a stack of {_STACK}")


def _seconds_a_slice(method: MriReconstructor, slices: int) -> tuple[float, float]:
    rng = np.random.default_rng(_SEED)
    image = np.zeros((slices, 256, 256), np.float32)
    image[:, 40:220, 60:200] = 1 + 0.2 * rng.random((slices, 180, 140), np.float32)
    kspace = simulated_kspace(
        Volume(image, Grid.from_axes(image.shape), modality="MR"), 8, 4.0, MaskKind.RANDOM, _NOISE, _SEED
    )
    times = []
    for _ in range(3):
        clock = time.perf_counter()
        made = made_by(method, kspace)
        times.append((time.perf_counter() - clock, made.run.seconds["images"]))
    took, images = min(times)
    return took / slices, images / slices
