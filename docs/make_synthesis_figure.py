"""Draw ten nodules as training blends them into lungs, before and after, for a radiologist to judge the seam.

Without arguments the lungs and the nodules are generated phantoms, so that the picture may be published with the
project: ``docs/images/inserted_nodules.png``. With ``--data FOLDER_OR_JSON -o FILE`` they are those of a data set that
you have, for looking only.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tomolens.phantoms.chest import ChestPhantom, chest_phantom
from tomolens.training.backgrounds import Background, a_place, background_of_scan, cut
from tomolens.training.nodules import Donor, donor_of, paste, turned
from tomolens.training.sources import TrainingData, load_dataset

if TYPE_CHECKING:
    from tomolens.core.grid import Grid

PUBLISHED = Path(__file__).parent / "images" / "inserted_nodules.png"
LUNG_WINDOW_HU = (-1350, 150)
EDGE = 64
SAMPLES = 10
NEAR_WALL = 0.4
_TEXTURES = {1: "ground glass", 2: "ground glass", 3: "part-solid", 4: "part-solid", 5: "solid"}


@dataclass(frozen=True)
class Sample:
    """One axial slice of 64 mm through an inserted nodule, before and after, in HU."""

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    title: str


def samples(data: TrainingData, seed: int) -> Iterator[Sample]:
    """Nodules at random places of the whole lungs, the textures taking turns."""
    rng = np.random.default_rng(seed)
    lungs = [background for background in data.backgrounds if background.kind != "cube"]
    by_texture = [
        [d for d in data.donors if _TEXTURES[d.texture] == name] for name in dict.fromkeys(_TEXTURES.values())
    ]
    groups = [group for group in reversed(by_texture) if group]
    made = 0
    while made < SAMPLES:
        group = groups[made % len(groups)]
        sample = inserted(lungs[made % len(lungs)], group[int(rng.integers(len(group)))], rng)
        if sample is not None:
            made += 1
            yield sample


def inserted(lung: Background, donor: Donor, rng: np.random.Generator) -> Sample | None:
    """A nodule as a training patch gets it, before noise and kernel are varied; None where it would not be seen."""
    place = np.round(a_place(lung, NEAR_WALL, rng)).astype(int)
    before, _ = cut(lung.voxels, place - EDGE // 2, EDGE)
    after = before.copy()
    piece = turned(donor, rng)
    pasted = paste(after, piece, np.full(3, EDGE // 2), lung.thickness_mm, rng)
    if pasted is None:
        return None
    k = round(pasted.center_kji[0])
    kind = _TEXTURES[piece.texture]
    return Sample(before[k], after[k], f"{kind}, {pasted.diameter_mm:.0f} mm, slices {lung.thickness_mm:.1f} mm")


def generated(seeds: Sequence[int] = (301, 302)) -> TrainingData:
    """Lungs of one phantom, nodules of another, cut out by spheres since a phantom's own are known to be."""
    giver, taker = (chest_phantom(seed) for seed in seeds)
    marks = [(nodule.center_lps_mm, nodule.diameter_mm) for nodule in taker.nodules]
    lung = background_of_scan(f"phantom-{seeds[1]}", taker.volume, marks)
    return TrainingData((lung,), tuple(donors_of(giver)))


def donors_of(phantom: ChestPhantom) -> Iterator[Donor]:
    """A phantom's nodules of 5 mm and more."""
    rating = {"part-solid": 3, "ground-glass": 1}
    for number, nodule in enumerate(n for n in phantom.nodules if n.diameter_mm >= 5):
        voxels = phantom.volume.canonical()
        box, mask = ball(voxels.voxels, voxels.grid, nodule.center_lps_mm, nodule.diameter_mm)
        yield donor_of(f"phantom-nodule-{number}", box, mask & (box > -780), rating.get(nodule.texture, 5))


def ball(
    voxels: NDArray[np.int16], grid: Grid, center_lps_mm: Sequence[float], diameter_mm: float
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """A box around a sphere, and where the sphere is."""
    center = grid.to_kji(center_lps_mm)
    half = int(np.ceil(diameter_mm / 2)) + 8
    low = np.maximum(np.round(center).astype(int) - half, 0)
    box = voxels[tuple(slice(a, a + 2 * half + 1) for a in low)]
    distance = np.linalg.norm(np.moveaxis(np.indices(box.shape), 0, -1) + low - center, axis=-1)
    return box, distance <= diameter_mm / 2 + 0.5


def draw(made: Sequence[Sample], file: Path, dpi: int) -> None:
    """Two rows of five pairs: above without, below with the nodule."""
    columns = SAMPLES // 2
    figure = Figure(figsize=(2.2 * columns, 9.6), layout="constrained", facecolor="black")
    axes = figure.subplots(4, columns)
    for number, sample in enumerate(made):
        row, column = 2 * (number // columns), number % columns
        for axis, image in zip(axes[row : row + 2, column], (sample.before, sample.after), strict=True):
            low, high = LUNG_WINDOW_HU
            axis.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
            axis.set_axis_off()
        axes[row, column].set_title(sample.title, fontsize=7, color="white")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=dpi)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set of your own; its picture is not for publishing")
    parser.add_argument("-o", "--out", type=Path, default=PUBLISHED)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--dpi", type=int, default=80)
    wishes = parser.parse_args()
    if wishes.data and wishes.out == PUBLISHED:
        parser.error("a picture of your own data goes elsewhere than into the project: give -o")
    data = load_dataset(wishes.data) if wishes.data else generated()
    draw(list(samples(data, wishes.seed)), wishes.out, wishes.dpi)
    print(wishes.out)


if __name__ == "__main__":
    main()
