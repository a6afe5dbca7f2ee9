"""How good and how fast the nodule detector is, on data it was never trained on, beside a classical blob detector.

    python benchmarks/detection.py [--shared ../shared/data] [--model NAME] [--cases 12] [--phantoms 12]

Prints four tables: the real scan LIDC-IDRI-0314; the sample phantom; held-out LIDC nodules inserted into a held-out
real lung and into phantoms of other seeds, with the control of nodule-free balls pasted by the same recipe; seconds and
memory from DICOM folder to findings. The baseline is the Laplacian of Gaussian, the blob detector of every textbook and
of scikit-image, inside the same lung mask; its threshold is set to its best case, as many marks as there are nodules.

A finding hits a nodule when its centre lies strictly inside the nodule's sphere (LUNA16's rule); marks on excluded
places are neither hits nor false positives.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from tomolens import Finding, Volume, detect_nodules, load_detector, read_volume
from tomolens.models.detector import NoduleDetector, peak_memory_mb
from tomolens.models.lungs import BOX_MARGIN_MM, find_lungs
from tomolens.models.tensors import isotropic
from tomolens.phantoms.chest import chest_phantom
from tomolens.training.backgrounds import Background, background_of_scan
from tomolens.training.nodules import Donor, decoy, paste, turned
from tomolens.training.sources import nodule_donors, read_marks

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "sample_volumes"
BASELINE = "Laplacian of Gaussian"
RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)
NODULES_A_CASE = 8
CONTROLS_A_CASE = 4
FIRST_PHANTOM_SEED = 9000

Find = Callable[[Volume], Sequence[Finding]]
Known = list[tuple[NDArray[np.float64], float]]


@dataclass
class Case:
    """A volume and what is known in it, as (centre LPS mm, diameter mm)."""

    volume: Volume
    nodules: Known
    ignored: Known = field(default_factory=list)
    controls: Known = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--model", default=None)
    parser.add_argument("--cases", type=int, default=12, help="real-lung cases with inserted nodules")
    parser.add_argument("--phantoms", type=int, default=12, help="phantom-lung cases")
    wishes = parser.parse_args()
    model = load_detector(wishes.model, device="cpu")
    threshold = model.card.default_min_score
    print(f"{model.card.name} {model.card.version}, default threshold {threshold}, {model.backend.precision}\n")
    finders: dict[str, Find] = {model.card.name: lambda v: model.detect(v)[0], BASELINE: log_blobs}
    speed(wishes.shared, model)
    real_scan(wishes.shared, finders, threshold)
    sample_phantom(finders, threshold)
    inserted(wishes.shared, finders, threshold, wishes.cases, wishes.phantoms)


def log_blobs(volume: Volume) -> list[Finding]:
    """The baseline: maxima over space and scale of the scale-normalised Laplacian of Gaussian, in the lung mask."""
    scan = volume.canonical()
    lungs = find_lungs(scan)
    box = isotropic(scan.cropped(*lungs.box_kji(scan.grid, BOX_MARGIN_MM)))
    image = np.clip(box.voxels, -1000, 200) / 1200
    sigmas = np.array([1.5, 2.2, 3.2, 4.6, 6.6])
    stack = np.stack([-(s**2) * ndimage.gaussian_laplace(image, s) for s in sigmas])
    best = stack.max(axis=0)
    peaks = np.argwhere((ndimage.maximum_filter(best, 5) == best) & (best > 0.1))
    places = box.grid.to_mm(peaks)
    peaks, places = peaks[lungs.holds(places)], places[lungs.holds(places)]
    scores = best[tuple(peaks.T)].clip(0, 1)
    diameters = 2 * np.sqrt(3) * sigmas[stack.argmax(axis=0)[tuple(peaks.T)]]
    order = np.argsort(-scores)[:100]
    return [Finding(tuple(places[n].tolist()), float(diameters[n]), float(scores[n])) for n in order]


def hits(finding: Finding, known: Known) -> list[int]:
    """The known places whose sphere strictly holds the finding's centre."""
    away = [np.linalg.norm(np.subtract(finding.center_lps_mm, center)) for center, _ in known]
    return [n for n, (_, diameter) in enumerate(known) if away[n] < diameter / 2]


def kept_by(name: str, findings: Sequence[Finding], threshold: float, best: int) -> list[Finding]:
    """What a user sees: findings at the model's threshold; of the baseline its surest, as many as there are nodules."""
    return list(findings[:best]) if name == BASELINE else [f for f in findings if f.score >= threshold]


def real_scan(shared: Path, finders: dict[str, Find], threshold: float) -> None:
    folder = shared / "open/ct"
    volume = read_volume(folder / "LIDC-IDRI-0314")
    nodules = as_known(read_marks(folder / "annotations.csv"))
    ignored = as_known(read_marks(folder / "annotations_excluded.csv"))
    print("LIDC-IDRI-0314, one accepted nodule of 15.5 mm")
    for name, find in finders.items():
        findings = find(volume)
        rank = next((n for n, f in enumerate(findings) if hits(f, nodules)), None)
        seen = [f for f in kept_by(name, findings, threshold, 1) if not hits(f, nodules)]
        spared = sum(bool(hits(f, ignored)) for f in seen)
        where = "not found" if rank is None else described(findings[rank], rank, nodules[0][0])
        shown = "its surest mark alone" if name == BASELINE else "at the threshold"
        print(f"  {name:24s} {where}; {shown}: {len(seen) - spared} false positives, {spared} on excluded marks")
    print()


def described(finding: Finding, rank: int, center: NDArray[np.float64]) -> str:
    away = float(np.linalg.norm(np.subtract(finding.center_lps_mm, center)))
    return (
        f"rank {rank + 1}, score {finding.score:.2f}, {away:.1f} mm off centre, diameter {finding.diameter_mm:.1f} mm"
    )


def as_known(marks: dict[str, list[tuple[tuple[float, float, float], float]]]) -> Known:
    return [(np.array(center), diameter) for listed in marks.values() for center, diameter in listed]


def sample_phantom(finders: dict[str, Find], threshold: float) -> None:
    truth = json.loads((SAMPLE / "chest_ct.json").read_text())
    volume = read_volume(SAMPLE / "chest_ct")
    nodules = [(np.array(n["center_lps_mm"]), float(n["diameter_mm"])) for n in truth["nodules"]]
    solid = {n for n, t in enumerate(truth["nodules"]) if t["texture"] == "solid" and t["diameter_mm"] >= 5}
    print(f"sample phantom, {len(nodules)} nodules, {len(solid)} of them solid and 5 mm or more")
    for name, find in finders.items():
        findings = kept_by(name, find(volume), threshold, len(nodules))
        found = {n for f in findings for n in hits(f, nodules)}
        false = sum(not hits(f, nodules) for f in findings)
        counts = f"solid {len(found & solid)}/{len(solid)}, all {len(found)}/{len(nodules)}"
        print(f"  {name:24s} {counts}, {false} false positives")
    print()


def inserted(shared: Path, finders: dict[str, Find], threshold: float, cases: int, phantoms: int) -> None:
    donors = [d for d in nodule_donors(shared / "open") if d.diameter_mm >= 4]
    marks = [read_marks(shared / "open/ct" / f"annotations{x}.csv")["LIDC-IDRI-0314"] for x in ("", "_excluded")]
    real = background_of_scan("LIDC-IDRI-0314", read_volume(shared / "open/ct/LIDC-IDRI-0314"), *marks)
    print(f"held-out nodules of 4 mm and more ({len(donors)} of them), {NODULES_A_CASE} a case")
    froc("real lung 0314", (case_of(real, donors, n) for n in range(cases)), finders, threshold)
    seeds = range(FIRST_PHANTOM_SEED, FIRST_PHANTOM_SEED + phantoms)
    froc("phantom lungs", (case_of(phantom_lung(seed), donors, seed) for seed in seeds), finders, threshold)


def phantom_lung(seed: int) -> Background:
    phantom = chest_phantom(seed)
    nodules = [(n.center_lps_mm, n.diameter_mm) for n in phantom.nodules]
    return background_of_scan(f"phantom-{seed}", phantom.volume, nodules, kind="phantom")


def case_of(background: Background, donors: Sequence[Donor], number: int) -> Case:
    """Insert nodules, then nodule-free balls, at free places of a lung."""
    rng = np.random.default_rng((77, number))
    voxels = background.voxels.astype(np.float32)
    taken: Known = [(np.array(m.center_kji), m.diameter_mm) for m in background.marks]
    old = [(c, max(d, 6.0)) for c, d in taken]
    nodules: Known = []
    controls: Known = []
    for _ in range(400):
        if len(nodules) == NODULES_A_CASE and len(controls) == CONTROLS_A_CASE:
            break
        at = a_place(background, rng)
        if any(np.linalg.norm(at - c) < d / 2 + 24 for c, d in taken):
            continue
        wanted = nodules if len(nodules) < NODULES_A_CASE else controls
        piece = (
            turned(donors[int(rng.integers(len(donors)))], rng) if wanted is nodules else a_ball(background, old, rng)
        )
        pasted = piece and paste(voxels, piece, at, background.thickness_mm, rng)
        if pasted:
            wanted.append((np.array(pasted.center_kji), pasted.diameter_mm))
            taken.append(wanted[-1])
    volume = Volume(voxels.astype(np.int16), background.grid)
    return Case(volume, *([(background.grid.to_mm(c), d) for c, d in known] for known in (nodules, old, controls)))


def a_place(background: Background, rng: np.random.Generator) -> NDArray[np.float64]:
    places = background.near_wall if rng.random() < 0.4 else background.inner
    return places[rng.integers(len(places))].astype(float)


def a_ball(background: Background, old: Known, rng: np.random.Generator):
    center = background.inner[rng.integers(len(background.inner))]
    if any(np.linalg.norm(center - c) < d / 2 + 12 for c, d in old):
        return None
    return decoy(background.voxels, center, rng)


def froc(title: str, cases: Iterable[Case], finders: dict[str, Find], threshold: float) -> None:
    """Sensitivity against false positives a scan for each finder over the same cases."""
    marks: dict[str, list[tuple[float, tuple[int, int] | None]]] = {name: [] for name in finders}
    errors: dict[str, list[float]] = {name: [] for name in finders}
    fired = dict.fromkeys(finders, 0)
    total = scans = controls = 0
    for number, case in enumerate(cases):
        total, scans, controls = total + len(case.nodules), scans + 1, controls + len(case.controls)
        for name, find in finders.items():
            for finding in find(case.volume):
                if hit := hits(finding, case.nodules):
                    marks[name].append((finding.score, (number, hit[0])))
                    errors[name].append(float(np.linalg.norm(finding.center_lps_mm - case.nodules[hit[0]][0])))
                elif not hits(finding, case.ignored):
                    marks[name].append((finding.score, None))
                fired[name] += bool(hits(finding, case.controls)) and finding.score >= threshold
    print(f" {title}: {scans} cases, {total} nodules; sensitivity at {', '.join(f'{r:g}' for r in RATES)} FP a scan")
    for name in finders:
        values = sensitivities(marks[name], total, scans)
        line = " ".join(f"{v:.2f}" for v in values)
        note = "" if name == BASELINE else f"; {fired[name]} of {controls} controls fired at {threshold}"
        print(f"  {name:24s} {line}; mean {values.mean():.3f}; centre error {np.median(errors[name]):.1f} mm{note}")
    print(flush=True)


def sensitivities(marks: list[tuple[float, tuple[int, int] | None]], total: int, scans: int) -> NDArray[np.float64]:
    """Sensitivity at each of `RATES`, linear between the points of the curve; double marks count once."""
    seen: set[tuple[int, int]] = set()
    rate, sensitivity, false = [0.0], [0.0], 0
    for _, hit in sorted(marks, key=lambda mark: -mark[0]):
        false += hit is None
        seen |= set() if hit is None else {hit}
        rate.append(false / scans)
        sensitivity.append(len(seen) / total)
    return np.interp(RATES, rate, sensitivity)


def speed(shared: Path, model: NoduleDetector) -> None:
    print("DICOM folder to findings, LIDC-IDRI-0314: 275 slices of 512x512 in JPEG-LS; model loaded; median of 3")
    rows = []
    for _ in range(3):
        clock = time.perf_counter()
        volume = read_volume(shared / "open/ct/LIDC-IDRI-0314")
        read = time.perf_counter() - clock
        stages = {k: v for k, v in detect_nodules(volume, model).run.seconds.items() if k != "total"}
        rows.append({"read": read, **stages, "all": time.perf_counter() - clock})
    median = pd.DataFrame(rows).median()
    print("  " + ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in median.items()))
    print(f"  peak resident memory of the process so far: {peak_memory_mb():.0f} MiB\n", flush=True)


if __name__ == "__main__":
    main()
