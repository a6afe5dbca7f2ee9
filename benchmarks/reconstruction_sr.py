"""Thin slices from thick ones whose thin truth is known: the cubic spline, back-projection, and the network.

Thick slices are simulated by averaging (a box profile); real profiles differ, and the noise of real thin slices stands
in the truth and in PSNR. Held out: LIDC-IDRI-0314 (a whole chest, 1 mm), an abdominal T2 along its rows, phantoms of
other seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from texture import distance_along_slices

if TYPE_CHECKING:
    from tomolens import Volume

MODELS = ("thin-slices", "thin-slices-gan")
"""The network, whose gain is told in the end, and its GAN."""
FACTORS = (2, 3, 4, 5)
BAR_DB = 0.7
BAR_RESIDUAL_PERCENT = 0.1
PHANTOM_SEED = 911
CT_RANGE_HU = 2000.0
CROP, QUICK_CROP = 128, 64
SPEED_SHAPE = (60, 512, 512)


@dataclass(frozen=True)
class Scores:
    """Of one method on one scan: dB, similarity, what is left of the measured slices in % of their range, texture."""

    psnr: float
    ssim: float
    residual: float
    texture: float
    within: tuple[float, float] | None = None


def report(shared: Path, quick: bool, models: Sequence[str | Path] = MODELS) -> None:
    """Print a table a scan, the gain of the first model over back-projection, and its seconds."""
    from tomolens.models.reconstructor import load_reconstructor

    networks = {str(name): load_reconstructor(name) for name in models}
    first = str(models[0])
    print(
        f"{'scan':24}{'factor':>7}  {'method':22}{'PSNR':>7}{'SSIM':>7}{'left %':>8}{'texture off':>13}   "
        "within 1, 2 sigma"
    )
    gains = []
    for name, thin in scans(shared, quick):
        for factor in (3,) if quick else FACTORS:
            rows = compared(thin, factor, networks)
            for method, row in rows.items():
                shares = "" if row.within is None else f"   {row.within[0]:.2f}, {row.within[1]:.2f}"
                print(
                    f"{name:24}{factor:7}  {method:22}{row.psnr:7.2f}{row.ssim:7.3f}{row.residual:8.4f}"
                    f"{row.texture:13.2f}{shares}",
                    flush=True,
                )
            gains.append((name, factor, rows[first].psnr - rows["cubic-backprojected"].psnr, rows[first]))
    print_gains(gains)
    if not quick:
        print_speed(networks[first])


def print_gains(gains: list[tuple[str, int, float, Scores]]) -> None:
    print(f"\ndB over back-projection (bar {BAR_DB})")
    for name in dict.fromkeys(row[0] for row in gains):
        of_scan = [row for row in gains if row[0] == name]
        each = "  ".join(f"{factor}x {gain:+.2f}" for _, factor, gain, _ in of_scan)
        print(f"  {name:24}{each}   mean {np.mean([gain for _, _, gain, _ in of_scan]):+.2f}")
    print(f"  {'all':24}mean {np.mean([gain for _, _, gain, _ in gains]):+.2f}")
    left = max(row.residual for _, _, _, row in gains)
    print(f"largest difference from the measured slices {left:.5f} % of their range (bar {BAR_RESIDUAL_PERCENT})")


def scans(shared: Path, quick: bool) -> Iterator[tuple[str, Volume]]:
    """Names and thin truths, cropped to what takes seconds."""
    from tomolens import read_volume
    from tomolens.phantoms.brain import brain_phantom
    from tomolens.phantoms.chest import chest_phantom

    crop = QUICK_CROP if quick else CROP
    if (shared / "open").is_dir():
        yield "CT LIDC-IDRI-0314", cropped(read_volume(shared / "open" / "ct" / "LIDC-IDRI-0314"), crop)
        abdomen = read_volume(next((shared / "open" / "mri").glob("*.nii.gz")), modality="MR")
        yield "MR abdomen, along rows", along_rows(abdomen, 4 if quick else 16)
    yield "CT chest phantom", cropped(chest_phantom(PHANTOM_SEED).volume, crop)
    yield "MR brain phantom", cropped(brain_phantom(PHANTOM_SEED, spacing_mm=(1.0, 1.0, 1.0)).volume, crop)


def cropped(volume: Volume, size: int) -> Volume:
    """The middle rows and columns of every slice."""
    start = [max(0, (n - size) // 2) for n in volume.shape[1:]]
    shape = [min(n, size) for n in volume.shape[1:]]
    return volume.cropped((0, start[0], start[1]), (volume.shape[0], shape[0], shape[1]))


def along_rows(volume: Volume, count: int) -> Volume:
    """Slices whose rows are to be the thin axis: (row, slice, column), the middle ``count`` slices."""
    first = (volume.shape[0] - count) // 2
    return volume.cropped((first, 0, 0), (count, *volume.shape[1:])).permuted((1, 0, 2))


def compared(thin: Volume, factor: int, networks: Mapping[str, Any]) -> dict[str, Scores]:
    """Scores by method on a scan made ``factor`` times as thick."""
    from tomolens.physics.slices import thick

    slab = thick(thin.with_voxels(np.asarray(thin.voxels, np.float32), "as float32"), factor)
    truth = np.asarray(thin.voxels[: slab.shape[0] * factor], np.float32)
    return {method: scored(truth, thin, slab, *work(slab, factor)) for method, work in methods(networks).items()}


def methods(networks: Mapping[str, Any]) -> dict[str, Callable[[Volume, int], tuple[Any, Any]]]:
    from tomolens.physics.slices import back_projected, cubic

    return {
        "cubic": lambda slab, factor: (cubic(slab.voxels, factor), None),
        "cubic-backprojected": lambda slab, factor: (back_projected(slab.voxels, factor), None),
        **{name: partial(by_network, network) for name, network in networks.items()},
    }


def by_network(model: Any, slab: Volume, factor: int) -> tuple[Any, Any]:
    """As the pipeline does it; of slices far apart only the planes that lie within one."""
    from tomolens.core.progress import silent
    from tomolens.core.reconstruction import ReconstructOptions
    from tomolens.models.super_resolution import Planes, Stack
    from tomolens.physics.slices import thin_grid

    k, j, i = slab.spacing_mm
    if k > max(j, i):
        made = model.reconstruct(slab, ReconstructOptions(factor=factor), silent)
        return made.image, made.uncertainty
    low, high = float(slab.voxels.min()), float(slab.voxels.max())
    stack = Stack(np.array(slab.voxels, np.float32), factor, thin_grid(slab.grid, factor), low, high)
    image = stack.projected()
    sigma = Planes(model.network, model.backend, stack, silent).add_to(image, True, axes=(1,))
    return stack.projected(image), sigma


def scored(truth: Any, thin: Volume, slab: Volume, made: Any, sigma: Any) -> Scores:
    from skimage.metrics import structural_similarity

    from tomolens.physics.slices import residual_share

    span = CT_RANGE_HU if thin.modality == "CT" else float(np.percentile(truth, 99.9) - truth.min())
    psnr = 10 * np.log10(span**2 / np.mean((made - truth) ** 2, dtype=np.float64))
    planes = np.linspace(0, truth.shape[1] - 1, 8).astype(int)
    ssim = np.mean([structural_similarity(truth[:, j], made[:, j], data_range=span) for j in planes])
    residual = 100 * residual_share(made, slab.voxels, len(truth) // len(slab.voxels))
    within = None
    if sigma is not None:
        ratio = np.abs(made - truth) / sigma
        within = (float((ratio < 1).mean()), float((ratio < 2).mean()))
    texture = distance_along_slices(made, truth, len(truth) // len(slab.voxels))
    return Scores(float(psnr), float(ssim), residual, texture, within)


def print_speed(model: Any) -> None:
    """Seconds for a scan of a clinical size; its content does not matter."""
    from tomolens import Grid, Volume
    from tomolens.core.progress import silent
    from tomolens.core.reconstruction import ReconstructOptions

    voxels = np.random.default_rng(0).normal(0, 100, SPEED_SHAPE).astype(np.int16)
    scan = Volume(voxels, Grid.from_axes(SPEED_SHAPE, (3.0, 0.7, 0.7)))
    clock = time.perf_counter()
    made = model.reconstruct(scan, ReconstructOptions(factor=3), silent)
    print(f"\n{' x '.join(map(str, SPEED_SHAPE))} to {made.grid.shape[0]} slices: {time.perf_counter() - clock:.0f} s")
