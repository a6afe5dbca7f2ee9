"""Denoising of quarter-dose CT: generated chests whose clean truth is known, and a real scan against its own full dose.

Dose is lowered in the sinogram (`tomolens.physics.low_dose`), not with the noise of training; the phantoms have other
seeds. Lesions are put in before the noise; what they keep of their contrast is told from the same noise without them.
A GAN is to look like the full dose, not like the clean truth: the last column compares with the full dose, whose noise
is part of that of the quarter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity
from texture import distance, even_places

from tomolens import Grid, Volume, read_volume
from tomolens.core.progress import silent
from tomolens.core.reconstruction import Job, Made, ReconstructOptions
from tomolens.models.reconstructor import Reconstructor, load_reconstructor, reconstruction_models
from tomolens.phantoms.chest import chest_phantom
from tomolens.physics.low_dose import low_dose
from tomolens.physics.noise import noise_frequency, noise_level

Image = NDArray[np.float32]

SEED = 950
PHANTOM_SEEDS = (950, 952, 954, 956)
"""One phantom's gain and contrasts are off by .1 dB and .02 from the mean of many."""
DOSE = 0.25
DOUBLED = 0.5
"""Of what has no noise: as much noise as a full dose of so many photons has."""
PLACE = 0.5
"""Of the slice that is measured, as a share of the scan's height."""
SPACING_MM, QUICK_SPACING_MM = (5.0, 0.8, 0.8), (5.0, 1.2, 1.2)
PHANTOM = [("soft", 1.2e5), ("ram-lak", 4e5), ("sharp", 8e5)]
"""Kernel and photons a ray at full dose, of pixels of 0.8 mm; larger ones are given fewer, for as much noise."""
REAL = ["soft", "sharp"]
LESIONS: Mapping[str, tuple[float, float, tuple[float, float]]] = {
    "-40 HU, 4 px": (-40.0, 4.0, (0, 110)),
    "+40 HU, 4 px": (40.0, 4.0, (0, 110)),
    "5 mm nodule": (850.0, 2.5, (-950, -750)),
    "ground glass, 10 mm": (250.0, 5.0, (-950, -750)),
}
"""Contrast in HU, radius (of the first two in pixels, else in mm) and the HU of the place."""
BANDS: Mapping[str, tuple[float, float]] = {
    "lung": (-950, -750), "fat": (-150, -60), "soft": (0, 110), "bone": (250, 1500)
}  # fmt: skip
PEAK_HU = 2000.0
SOFT_HU = (-150.0, 200.0)
SSIM_HU = (-1000.0, 400.0)


@dataclass(frozen=True, eq=False)
class Case:
    """Three slices: the truth, which a real scan has at full dose alone, the full dose, and a quarter; and lesions."""

    name: str
    kind: str
    clean: Volume
    full: Volume
    noisy: Volume
    lesions: Mapping[str, Image]

    @property
    def body(self) -> NDArray[np.bool_]:
        """Where the patient is."""
        return ndimage.gaussian_filter(self.middle, 3.0) > -960

    @property
    def middle(self) -> Image:
        """The slice that is measured."""
        return np.asarray(self.clean.voxels[1], np.float32)

    @property
    def full_dose(self) -> Image:
        """The same slice at full dose."""
        return np.asarray(self.full.voxels[1], np.float32)


def report(shared: Path, quick: bool) -> None:
    networks = [card.name for card in reconstruction_models(Job.DENOISING) if card.network]
    methods: dict[str, Reconstructor] = {
        name: load_reconstructor(name, device="cpu") for name in ("nlm", "tv", *networks)
    }
    cases = [*phantom_cases(quick), *real_cases(shared, quick)]
    for name, model in methods.items():
        rows = [measured(model, case) for case in cases]
        show(name, cases, rows)
    seconds(methods)


def phantom_cases(quick: bool) -> Iterator[Case]:
    for seed in PHANTOM_SEEDS[: 1 if quick else None]:
        volume = chest_phantom(seed, spacing_mm=QUICK_SPACING_MM if quick else SPACING_MM, noise_hu=0.0).volume
        clean = volume.cropped((int(PLACE * len(volume.voxels)) - 1, 0, 0), (3, *volume.shape[1:]))
        lesions = lesions_in(clean, seed)
        for kernel, photons in PHANTOM[::2] if quick else PHANTOM:
            photons *= (SPACING_MM[1] / clean.spacing_mm[1]) ** 3
            full = low_dose(clean, DOUBLED, kernel, seed=seed + 1, photons=photons)
            noisy = low_dose(full, DOSE, kernel, seed=seed, photons=photons)
            yield Case(f"phantom {kernel}", "phantom", clean, full, noisy, lesions)


def real_cases(shared: Path, quick: bool) -> Iterator[Case]:
    folder = shared / "open" / "ct" / "LIDC-IDRI-0314"
    if quick or not folder.is_dir():
        return
    volume = read_volume(folder).canonical()
    clean = volume.cropped((int(PLACE * len(volume.voxels)) - 1, 0, 0), (3, *volume.shape[1:]))
    for kernel in REAL:
        yield Case(f"0314 {kernel}", "real", clean, clean, low_dose(clean, DOSE, kernel, seed=SEED), {})


def lesions_in(clean: Volume, seed: int, most: int = 8) -> dict[str, Image]:
    """Of each kind what is added to the slices: soft discs, apart from each other and from edges."""
    image, pixel = np.asarray(clean.voxels[1], np.float32), clean.spacing_mm[2]
    rng, drawn, free = np.random.default_rng(seed), {}, np.ones(image.shape, bool)
    for name, (contrast, radius, hu) in LESIONS.items():
        radius_px = radius if "px" in name else radius / pixel
        reach = int(np.ceil(radius_px)) + 3
        even = ndimage.minimum_filter((image > hu[0]) & (image < hu[1]), 2 * reach + 1)
        added = np.zeros(image.shape, np.float32)
        for _ in range(most):
            places = np.argwhere(even & free)
            if not len(places):
                break
            j, i = places[rng.integers(len(places))]
            distance = np.hypot(np.arange(image.shape[0])[:, None] - j, np.arange(image.shape[1]) - i)
            added += np.float32(contrast) / (1 + np.exp(np.clip((distance - radius_px) / 0.4, -30, 30)))
            free &= distance > 3 * reach
        if added.any():
            drawn[name] = added
    return drawn


def measured(model: Reconstructor, case: Case) -> dict[str, float]:
    """The figures of one method on one case, all of the middle slice."""
    made = made_of(model, case.noisy)
    image, clean, body = made.image[1], case.middle, case.body
    row = {"psnr": psnr(image, clean, body), "ssim": ssim(image, clean, body)}
    row["psnr before"] = psnr(np.asarray(case.noisy.voxels[1], np.float32), clean, body)
    row["psnr full"] = psnr(image, case.full_dose, body)
    soft = (clean > SOFT_HU[0]) & (clean < SOFT_HU[1])
    row["texture"] = distance(image, case.full_dose, even_places(clean, soft))
    if case.kind == "phantom":
        for name, band in BANDS.items():
            inside = ndimage.binary_erosion((clean > band[0]) & (clean < band[1]), iterations=2)
            if inside.sum() > 30:
                row[f"bias {name}"] = float((image - clean)[inside].mean())
        row |= contrasts_kept(model, case, image)
        if made.uncertainty is not None:
            off = np.abs(image - clean)[body] / made.uncertainty[1][body]
            row |= {"within 1": float((off < 1).mean()), "within 2": float((off < 2).mean())}
    return row


def contrasts_kept(model: Reconstructor, case: Case, without: Image) -> dict[str, float]:
    """How much of each kind's contrast is there in what is made of the same noise with lesions in it.

    In the neighbouring slices they are half as strong.
    """
    put = np.multiply.outer(np.float32([0.5, 1, 0.5]), sum(case.lesions.values(), np.float32(0)))
    voxels = np.rint(np.asarray(case.noisy.voxels, np.float32) + put).astype(np.int16)
    gained = made_of(model, replace(case.noisy, voxels=voxels)).image[1] - without
    kept = {}
    for name, added in case.lesions.items():
        core = np.abs(added) > 0.9 * abs(LESIONS[name][0])
        kept[name] = float(gained[core].mean() / added[core].mean())
    return kept


def psnr(image: Image, clean: Image, body: NDArray[np.bool_]) -> float:
    return float(10 * np.log10(PEAK_HU**2 / ((image - clean)[body] ** 2).mean()))


def ssim(image: Image, clean: Image, body: NDArray[np.bool_]) -> float:
    both = [np.clip(part, *SSIM_HU) for part in (clean, image)]
    _, field = structural_similarity(*both, data_range=SSIM_HU[1] - SSIM_HU[0], full=True)
    return float(field[body].mean())


def show(name: str, cases: Sequence[Case], rows: Sequence[Mapping[str, float]]) -> None:
    """A line a kind of case, and the mean of what only phantoms have."""
    print(f"{name}")
    for kind in dict.fromkeys(case.name for case in cases):
        some = [(case, row) for case, row in zip(cases, rows, strict=True) if case.name == kind]
        noisy = [np.asarray(case.noisy.voxels, np.float32) for case, _ in some]
        level = np.mean([noise_level(part[1]) for part in noisy])
        print(
            f"  {kind:16} noise {level:5.1f} HU, {np.mean([noise_frequency(part) for part in noisy]):.2f} cycles/px   "
            f"PSNR {_mean(some, 'psnr before'):5.2f} -> {_mean(some, 'psnr'):5.2f} dB   "
            f"SSIM {_mean(some, 'ssim'):.4f}   "
            f"to full dose {_mean(some, 'psnr full'):5.2f} dB, texture off by {_mean(some, 'texture'):.2f}"
        )
    known = [(case, row) for case, row in zip(cases, rows, strict=True) if case.kind == "phantom"]
    print(f"  phantoms: PSNR {_mean(known, 'psnr'):.2f} dB, SSIM {_mean(known, 'ssim'):.4f}")
    print("  contrast kept: " + ", ".join(f"{key} {_mean(known, key):.3f}" for key in LESIONS))
    print("  bias, HU: " + ", ".join(f"{key} {_mean(known, f'bias {key}'):+.2f}" for key in BANDS))
    if any("within 1" in row for row in rows):
        print(f"  errors within 1 and 2 sigma: {_mean(known, 'within 1'):.3f}, {_mean(known, 'within 2'):.3f}")


def _mean(some: Sequence[tuple[Case, Mapping[str, float]]], key: str) -> float:
    there = [row[key] for _, row in some if key in row]
    return float(np.mean(there)) if there else float("nan")


def seconds(methods: Mapping[str, Reconstructor]) -> None:
    """Of a slice of 512 by 512, the measurement of its noise included; the least of three."""
    voxels = np.random.default_rng(0).normal(0, 20, (1, 512, 512)).astype(np.int16)
    volume = Volume(voxels, Grid.from_axes(voxels.shape, (1.0, 0.8, 0.8), (0.0, 0.0, 0.0)))
    for name, model in methods.items():
        walls, processor = zip(*(_clocked(partial(made_of, model, volume)) for _ in range(3)), strict=True)
        print(f"{name}: {min(walls):.2f} s a slice of 512 x 512, {min(processor):.2f} s of processor time")


def _clocked(work: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def made_of(model: Reconstructor, volume: Volume) -> Made:
    return model.reconstruct(volume, ReconstructOptions(), silent)
