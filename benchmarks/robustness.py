"""How well the nodule detector stands what scanners and protocols do: the same cases, changed.

    python benchmarks/robustness.py [--shared ../shared/data] [--model NAME] [--cases 8] [--phantoms 8] [--only WORD]

Cases are those of ``inserted_cases.py``. Each is read as it is and after each change; sensitivity is taken at 1 false
positive a scan on the curve of that change. "lost" and "won" are nodules found at that point before and not after, and
the other way round. The shift is the median distance between where a nodule is marked after the change and where its
mark before it belongs then, over nodules marked both times.

The changes, on the lung box of 1 mm:

flipped      the array is turned over and its affine follows: nothing moves in the patient
mirrored     the patient is: the array is turned over and its affine stays
rotated      by 10 degrees about the middle of the box, linear interpolation; what comes in at the edges repeats them
slices       thicker ones are the mean over their thickness, at that distance; 0.6 mm are interpolated (without the
             noise that so thin slices would have)
dose         noise is added until its variance is 2 or 4 times what is measured (the 10th percentile of the standard
             deviation in windows of 7 x 7 voxels of soft tissue, over .83, which it is of pure noise with a standard
             deviation of 1). Its spectrum in the slice is
             (f + 0.05) exp(-(f / 0.4)^2.2), f in cycles a mm: the ramp of filtered back projection, ended by a
             kernel; slices are independent and the level is the same everywhere in the box
smoother     convolved in the slice with a Gaussian of 0.8 mm
sharper      the slice plus its difference from itself convolved with a Gaussian of 1 mm; noise is sharpened too
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from inserted_cases import held_out_nodules, phantom_cases, real_cases, real_lung
from numpy.typing import NDArray
from scipy import fft, ndimage

from tomolens import Finding, Grid, Volume, load_detector
from tomolens.core.errors import ContractError
from tomolens.core.froc import MarkedScan, Matched, Spheres, froc, match
from tomolens.training.cases import Case

ROOT = Path(__file__).parent.parent
RATE = 1.0
MOST_FALL, MOST_SHIFT_MM = 0.10, 1.5
DEGREES = 10.0
SLICES_MM = (0.6, 1.25, 2.5, 5.0)
PURE_NOISE = 0.83
"""The 10th percentile of the standard deviation in such windows of noise of standard deviation 1."""
_SEED = 79
_HU = (-1024, 3071)

Places = NDArray[np.float64]
Move = Callable[[Places], Places]
Changed = tuple[Volume, Move]
"""A volume, and where (n, 3) LPS points of the old one lie in it."""
Change = Callable[[Volume, np.random.Generator], Changed]


def stays(places: Places) -> Places:
    return places


def flipped(axis: int, volume: Volume, _: np.random.Generator) -> Changed:
    return volume.flipped(axis), stays


def mirrored(axis: int, volume: Volume, _: np.random.Generator) -> Changed:
    grid = volume.grid

    def move(places: Places) -> Places:
        kji = grid.to_kji(places)
        kji[:, axis] = grid.shape[axis] - 1 - kji[:, axis]
        return grid.to_mm(kji)

    return replace(volume, voxels=np.flip(volume.voxels, axis)), move


def rotated(axis: int, volume: Volume, _: np.random.Generator) -> Changed:
    """About one array axis of a volume with cubic voxels, into a box that holds all of it."""
    turn = rotation(axis)
    corners = np.array(np.meshgrid(*[(-n / 2, n / 2) for n in volume.shape])).reshape(3, -1).T @ turn.T
    shape = tuple(np.ceil(np.ptp(corners, axis=0)).astype(int).tolist())
    old_middle, new_middle = ((np.array(box) - 1) / 2 for box in (volume.shape, shape))
    voxels = ndimage.affine_transform(
        volume.voxels, turn.T, old_middle - turn.T @ new_middle, shape, np.float32, order=1, mode="nearest"
    )
    grid = Grid(shape, volume.grid.affine)

    def move(places: Places) -> Places:
        return grid.to_mm((volume.grid.to_kji(places) - old_middle) @ turn.T + new_middle)

    return Volume(as_hu(voxels), grid), move


def rotation(axis: int) -> NDArray[np.float64]:
    cosine, sine = np.cos(np.radians(DEGREES)), np.sin(np.radians(DEGREES))
    turn = np.eye(3)
    first, second = (n for n in range(3) if n != axis)
    turn[[first, first, second, second], [first, second, first, second]] = cosine, -sine, sine, cosine
    return turn


def resliced(thickness_mm: float, volume: Volume, _: np.random.Generator) -> Changed:
    """Slices of another thickness, as far apart as they are thick."""
    old = volume.spacing_mm
    grid = volume.grid.respaced((thickness_mm, *old[1:]))
    voxels = volume.voxels.astype(np.float32)
    middles = (np.arange(grid.shape[0]) + 0.5) * thickness_mm / old[0]
    if thickness_mm < old[0]:
        return Volume(as_hu(sampled(voxels, middles - 0.5)), grid), stays
    total = np.concatenate([np.zeros((1, *voxels.shape[1:])), np.cumsum(voxels, axis=0, dtype=np.float64)])
    half = thickness_mm / old[0] / 2
    low, high = (np.clip(middles + side * half, 0, len(voxels)) for side in (-1, 1))
    means = (sampled(total, high) - sampled(total, low)) / (high - low)[:, None, None]
    return Volume(as_hu(means), grid), stays


def sampled(image: NDArray, at: NDArray[np.float64]) -> NDArray:
    """Linear along the first axis; the edges are repeated."""
    at = np.clip(at, 0, len(image) - 1)
    low = np.minimum(at.astype(int), len(image) - 2)
    share = (at - low)[:, None, None]
    return image[low] * (1 - share) + image[low + 1] * share


def with_dose(share: float, volume: Volume, rng: np.random.Generator) -> Changed:
    added = noise_hu(volume) * np.sqrt(1 / share - 1)
    return Volume(as_hu(volume.voxels + np.float32(added) * noise(volume.shape, rng)), volume.grid), stays


def noise_hu(volume: Volume) -> float:
    """Standard deviation of a scan's noise, from the quietest windows of soft tissue."""
    voxels = volume.voxels[::4].astype(np.float32)
    window = (1, 7, 7)
    tissue = ndimage.minimum_filter((voxels > -100) & (voxels < 150), window)
    mean = ndimage.uniform_filter(voxels, window)
    variance = ndimage.uniform_filter(voxels**2, window) - mean**2
    return float(np.sqrt(np.percentile(variance[tissue].clip(0), 10))) / PURE_NOISE if tissue.any() else 20.0


def noise(shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Of standard deviation 1, with the spectrum of filtered back projection in each slice."""
    rows, columns = (fft.next_fast_len(n, True) for n in shape[1:])
    f = np.hypot(fft.fftfreq(rows)[:, None], fft.rfftfreq(columns)[None])
    gain = np.sqrt((f + 0.05) * np.exp(-((f / 0.4) ** 2.2))).astype(np.float32)
    image = np.empty(shape, np.float32)
    for k in range(shape[0]):
        white = fft.rfft2(rng.standard_normal((rows, columns), np.float32))
        image[k] = fft.irfft2(white * gain, (rows, columns))[: shape[1], : shape[2]]
    return image / image.std()


def smoother(volume: Volume, _: np.random.Generator) -> Changed:
    return Volume(as_hu(in_plane(volume, 0.8)), volume.grid), stays


def sharper(volume: Volume, _: np.random.Generator) -> Changed:
    return Volume(as_hu(2 * volume.voxels.astype(np.float32) - in_plane(volume, 1.0)), volume.grid), stays


def in_plane(volume: Volume, sigma_mm: float) -> NDArray[np.float32]:
    sigma = (0.0, *(sigma_mm / np.array(volume.spacing_mm[1:])))
    return ndimage.gaussian_filter(volume.voxels.astype(np.float32), sigma)


def as_hu(voxels: NDArray) -> NDArray[np.int16]:
    return np.clip(np.rint(voxels), *_HU).astype(np.int16)


CHANGES: dict[str, Change] = {
    "flipped left-right": partial(flipped, 2),
    "flipped head-foot": partial(flipped, 0),
    "mirrored left-right": partial(mirrored, 2),
    "mirrored head-foot": partial(mirrored, 0),
    "rotated about head-foot": partial(rotated, 0),
    "rotated about front-back": partial(rotated, 1),
    "rotated about left-right": partial(rotated, 2),
    **{f"slices of {mm:g} mm": partial(resliced, mm) for mm in SLICES_MM},
    "half the dose": partial(with_dose, 0.5),
    "a quarter of the dose": partial(with_dose, 0.25),
    "smoother kernel": smoother,
    "sharper kernel": sharper,
}
"""Of volumes with axes superior, posterior, left."""


@dataclass
class Reading:
    """One change's marks, case by case, and where the marks of the unchanged case belong in it."""

    scans: list[MarkedScan] = field(default_factory=list)
    expected: list[Places] = field(default_factory=list)
    refused: int = 0

    @property
    def matched(self) -> list[Matched]:
        """Scored by LUNA16's rules."""
        return [match(scan) for scan in self.scans]


def main() -> None:
    wishes = parsed()
    clock = time.perf_counter()
    model = load_detector(wishes.model, device=wishes.device, second_stage=wishes.second_stage)
    chosen = {name: change for name, change in CHANGES.items() if wishes.only in name}
    print(f"{model!r} {model.card.version}")
    before, after = Reading(), {name: Reading() for name in chosen}
    for number, case in enumerate(cases(wishes)):
        findings = read(model.detect, case.volume) or ()
        before.scans.append(case.marked(findings))
        for name, change in chosen.items():
            add(after[name], case, findings, change, model.detect, np.random.default_rng((_SEED, number)))
    for line in table(before, after):
        print(line)
    print(f"took {time.perf_counter() - clock:.0f} s")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--model", default=None, help="a detector's name or folder")
    parser.add_argument("--second-stage", default=None, help="instead of the detector's own: a name, a folder or none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cases", type=int, default=8, help="cases in the real lung (default 8)")
    parser.add_argument("--phantoms", type=int, default=8, help="cases in phantoms (default 8)")
    parser.add_argument("--only", default="", metavar="WORD", help="only changes with this in their name, e.g. slices")
    return parser.parse_args()


def cases(wishes: argparse.Namespace) -> Iterator[Case]:
    donors = held_out_nodules(wishes.shared)
    if wishes.cases:
        yield from real_cases(real_lung(wishes.shared), donors, wishes.cases)
    yield from phantom_cases(donors, wishes.phantoms)


Detect = Callable[[Volume], tuple[Iterable[Finding], object]]


def read(detect: Detect, volume: Volume) -> list[Finding] | None:
    """What is marked; None where the model refuses the volume."""
    try:
        return list(detect(volume)[0])
    except ContractError:
        return None


def add(
    reading: Reading, case: Case, findings: Iterable[Finding], change: Change, detect: Detect, rng: np.random.Generator
) -> None:
    """Read a changed case; one that is refused counts as read without a mark."""
    volume, move = change(case.volume, rng)
    marks = read(detect, volume)
    reading.refused += marks is None
    reading.scans.append(moved(case, volume, move).marked(marks or ()))
    reading.expected.append(move(np.array([finding.center_lps_mm for finding in findings]).reshape(-1, 3)))


def moved(case: Case, volume: Volume, move: Move) -> Case:
    """The case with its truth at the new places."""
    places = move(case.centers_lps_mm).tolist()
    nodules = tuple(replace(n, center_lps_mm=tuple(at)) for n, at in zip(case.nodules, places, strict=True))
    ignored, controls = (Spheres(move(s.centers_lps_mm), s.diameters_mm) for s in (case.ignored, case.controls))
    return Case(case.name, volume, nodules, ignored, controls)


def table(before: Reading, after: dict[str, Reading]) -> Iterator[str]:
    """A line a change: sensitivity, its fall, nodules lost and won, the shift, and whether the bars hold."""
    curve = froc(before.matched)
    first = float(curve.at(RATE))
    yield f"{curve.scans} cases, {curve.nodules} nodules; sensitivity at {RATE:g} false positive a scan"
    yield f"bars: it falls by at most {MOST_FALL:.2f}; the median shift is at most {MOST_SHIFT_MM} mm\n"
    yield f"{'':26}{'sens.':>7}{'change':>8}{'lost':>6}{'won':>5}{'mean':>7}{'shift mm':>10}  bars"
    yield f"{'as they are':26}{first:7.3f}{'':8}{'':6}{'':5}{curve.cpm:7.3f}"
    for name, reading in after.items():
        now = froc(reading.matched)
        change, shift = float(now.at(RATE)) - first, shift_mm(before, reading)
        lost, won = exchanged(before, reading)
        holds = change >= -MOST_FALL and (shift is None or shift <= MOST_SHIFT_MM)
        figures = f"{first + change:7.3f}{change:+8.3f}{lost:6d}{won:5d}{now.cpm:7.3f}"
        moved_by = f"{'-' if shift is None else f'{shift:.2f}':>10}"
        refused = f", {reading.refused} cases refused" if reading.refused else ""
        yield f"{name:26}{figures}{moved_by}  {'hold' if holds else 'MISSED'}{refused}"


def exchanged(before: Reading, after: Reading) -> tuple[int, int]:
    """Nodules found at the rate before and not after, and the other way round."""
    old, new = found(before.matched), found(after.matched)
    return int((old & ~new).sum()), int((new & ~old).sum())


def found(matched: list[Matched]) -> NDArray[np.bool_]:
    threshold = froc(matched).threshold_at(RATE)
    return np.concatenate([scan.nodule_scores >= threshold for scan in matched])


def shift_mm(before: Reading, after: Reading) -> float | None:
    """Median distance between new marks and where the old ones belong, of nodules marked both times."""
    away: list[float] = []
    for old, new, scan, expected in zip(before.matched, after.matched, after.scans, after.expected, strict=True):
        both = (old.nodule_marks >= 0) & (new.nodule_marks >= 0)
        places, wanted = scan.marks_lps_mm[new.nodule_marks[both]], expected[old.nodule_marks[both]]
        away += np.linalg.norm(places - wanted, axis=1).tolist()
    return float(np.median(away)) if away else None


if __name__ == "__main__":
    main()
