"""How good and how fast the nodule detector is, on data it was never trained on, beside a classical blob detector.

    python benchmarks/detection.py [--shared ../shared/data] [--model NAME] [--cases 12]

Prints four tables: the real scan LIDC-IDRI-0314; the sample phantom; held-out LIDC nodules inserted into a held-out
real lung and into phantoms of other seeds, with the control of nodule-free balls pasted by the same recipe; seconds and
memory from DICOM folder to findings. The baseline is the Laplacian of Gaussian, the blob detector of every textbook and of
scikit-image, inside the same lung mask.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import ndimage

from tomolens import detect_nodules, load_detector, read_volume
from tomolens.core.finding import Finding
from tomolens.core.volume import Volume
from tomolens.models.detector import NoduleDetector, peak_memory_mb
from tomolens.models.lungs import find_lungs
from tomolens.models.tensors import isotropic
from tomolens.phantoms.chest import chest_phantom
from tomolens.training.backgrounds import Background, background_of_scan
from tomolens.training.nodules import Donor, decoy, paste, turned
from tomolens.training.sources import _cube_donors, _voi_donors

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent
Find = "Callable[[Volume], Sequence[Finding]]"
RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)
NODULES_A_CASE = 8
PHANTOM_SEEDS = range(9000, 9012)


@dataclass
class Case:
    """A volume and what is known in it: (centre LPS mm, diameter mm) of nodules, uncounted places, controls."""

    name: str
    volume: Volume
    nodules: list[tuple[np.ndarray, float]]
    ignored: list[tuple[np.ndarray, float]] = field(default_factory=list)
    controls: list[tuple[np.ndarray, float]] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--model", default=None)
    parser.add_argument("--cases", type=int, default=12, help="real-lung cases with inserted nodules")
    arguments = parser.parse_args()
    model = load_detector(arguments.model, device="cpu")
    finders = {model.card.name: lambda v: model.detect(v)[0], "LoG blobs": log_blobs}
    threshold = model.card.default_min_score
    print(f"model {model.card.name} {model.card.version}, default threshold {threshold}, {model.backend.precision}\n")
    real_scan(arguments.shared, finders, threshold)
    sample_phantom(finders, threshold)
    inserted(arguments.shared, finders, arguments.cases)
    speed(arguments.shared, model)


def log_blobs(volume: Volume) -> list[Finding]:
    """The baseline: maxima over space and scale of the scale-normalised Laplacian of Gaussian, in the lung mask."""
    scan = volume.canonical()
    lungs = find_lungs(scan)
    box = isotropic(scan.cropped(*lungs.box_kji(scan.grid, 8.0)))
    image = np.clip(box.voxels, -1000, 200) / 1200
    sigmas = (1.5, 2.2, 3.2, 4.6, 6.6)
    stack = np.stack([-(s**2) * ndimage.gaussian_laplace(image, s) for s in sigmas])
    best = stack.max(axis=0)
    peaks = np.argwhere((ndimage.maximum_filter(best, 5) == best) & (best > 0.1))
    places = box.grid.to_mm(peaks)
    held = lungs.holds(places)
    scores, scale = best[tuple(peaks.T)], stack.argmax(axis=0)[tuple(peaks.T)]
    found = [
        Finding(tuple(p), 2 * np.sqrt(3) * sigmas[n], float(min(s, 1)))
        for p, s, n, h in zip(places, scores, scale, held, strict=True)
        if h
    ]
    return sorted(found, key=lambda f: -f.score)[:100]


def hits(finding: Finding, known: Sequence[tuple[np.ndarray, float]]) -> list[int]:
    """The known places whose sphere strictly holds the finding's centre (LUNA16's rule)."""
    return [n for n, (c, d) in enumerate(known) if np.sum(np.subtract(finding.center_lps_mm, c) ** 2) < (d / 2) ** 2]


def real_scan(shared: Path, finders: dict[str, Find], threshold: float) -> None:
    volume = read_volume(shared / "open/ct/LIDC-IDRI-0314")
    nodules, ignored = marks(shared / "open/ct")
    print("LIDC-IDRI-0314, one accepted nodule of 15.5 mm (excluded marks are neither)")
    for name, find in finders.items():
        findings = find(volume)
        away = [float(np.linalg.norm(np.subtract(f.center_lps_mm, nodules[0][0]))) for f in findings]
        rank = next((n for n, f in enumerate(findings) if hits(f, nodules)), None)
        false = [f for f in findings if f.score >= threshold and not hits(f, nodules) and not hits(f, ignored)]
        spared = sum(f.score >= threshold and not hits(f, nodules) and bool(hits(f, ignored)) for f in findings)
        where = (
            "not found"
            if rank is None
            else f"rank {rank + 1}, {away[rank]:.1f} mm from its centre, diameter {findings[rank].diameter_mm:.1f} mm"
        )
        at = (
            f"; {len(false)} false positives and {spared} on excluded marks at the threshold"
            if name != "LoG blobs"
            else ""
        )
        print(f"  {name:24s} {where}, score {0 if rank is None else findings[rank].score:.2f}{at}")
    print()


def marks(folder: Path) -> tuple[list[tuple[np.ndarray, float]], list[tuple[np.ndarray, float]]]:
    def of(file: str) -> list[tuple[np.ndarray, float]]:
        rows = pd.read_csv(folder / file)
        return [
            (np.array([r.coordX, r.coordY, r.coordZ]), r.diameter_mm if r.diameter_mm > 0 else 10.0)
            for r in rows.itertuples()
        ]

    return of("annotations.csv"), of("annotations_excluded.csv")


def sample_phantom(finders: dict[str, Find], threshold: float) -> None:
    truth_file = next((ROOT / "sample_volumes").glob("*chest*.json"))
    truth = json.loads(truth_file.read_text())
    volume = read_volume(ROOT / "sample_volumes" / truth["dicom"])
    nodules = [(np.array(n["center_lps_mm"]), n["diameter_mm"]) for n in truth["nodules"]]
    print(f"sample phantom, {len(nodules)} nodules")
    for name, find in finders.items():
        findings = (
            [f for f in find(volume) if f.score >= threshold] if name != "LoG blobs" else find(volume)[: len(nodules)]
        )
        found = {n for f in findings for n in hits(f, nodules)}
        solid = [n for n, t in enumerate(truth["nodules"]) if t["texture"] == "solid" and t["diameter_mm"] >= 5]
        false = sum(not hits(f, nodules) for f in findings)
        note = "" if name != "LoG blobs" else f" (its best {len(nodules)})"
        print(
            f"  {name:24s} solid >= 5 mm {len(found & set(solid))}/{len(solid)}, all {len(found)}/{len(nodules)}, false positives {false}{note}"
        )
    print()


def inserted(shared: Path, finders: dict[str, Find], cases: int) -> None:
    donors = [
        d
        for d in (*_cube_donors(shared / "open/lidc_cubes51"), *_voi_donors(shared / "open/lidc_voi", lambda _: None))
        if d.diameter_mm >= 4
    ]
    nodules, ignored = marks(shared / "open/ct")
    scan = read_volume(shared / "open/ct/LIDC-IDRI-0314")
    real = background_of_scan("LIDC-IDRI-0314", scan, nodules, ignored)
    print(f"held-out nodules of 4 mm and more ({len(donors)} donors), {NODULES_A_CASE} a case")
    table([case_of(real, donors, n) for n in range(cases)], finders, "real lung 0314")
    phantoms = (
        background_of_scan(
            f"phantom-{s}",
            (p := chest_phantom(s)).volume,
            [(n.center_lps_mm, n.diameter_mm) for n in p.nodules],
            kind="phantom",
        )
        for s in PHANTOM_SEEDS
    )
    table([case_of(background, donors, 1000 + n) for n, background in enumerate(phantoms)], finders, "phantom lungs")
    print()


def case_of(background: Background, donors: Sequence[Donor], number: int) -> Case:
    """Insert nodules and nodule-free balls at free places of a lung."""
    rng = np.random.default_rng((77, number))
    voxels = background.voxels.astype(np.float32)
    grid = background.grid
    known = [(np.array(m.center_kji), m.diameter_mm, m.nodule) for m in background.marks]
    fresh: list[tuple[np.ndarray, float]] = []
    controls: list[tuple[np.ndarray, float]] = []
    for _ in range(40 * NODULES_A_CASE):
        wanted, kind = (fresh, "nodule") if len(fresh) < NODULES_A_CASE else (controls, "control")
        if len(controls) == NODULES_A_CASE // 2:
            break
        places = background.near_wall if rng.random() < 0.4 else background.inner
        at = places[rng.integers(len(places))].astype(float)
        taken = [*known, *((c, d, True) for c, d in (*fresh, *controls))]
        if any(np.linalg.norm(at - c) < d / 2 + 24 for c, d, _ in taken):
            continue
        source = background.inner[rng.integers(len(background.inner))]
        free = all(np.linalg.norm(source - c) > d / 2 + 12 for c, d, _ in taken)
        piece = (
            turned(donors[rng.integers(len(donors))], rng)
            if kind == "nodule"
            else (decoy(background.voxels, source, rng) if free else None)
        )
        pasted = paste(voxels, piece, at, background.thickness_mm, rng) if piece is not None else None
        if pasted is not None:
            wanted.append((np.array(pasted.center_kji), pasted.diameter_mm))
    volume = Volume(voxels.astype(np.int16), grid)
    place = lambda listed: [(grid.to_mm(c), d) for c, d in listed]  # noqa: E731
    old_nodules = [(grid.to_mm(c), max(d, 6.0)) for c, d, _ in known]
    return Case(background.name, volume, place(fresh), old_nodules, place(controls))


def table(cases: list[Case], finders: dict[str, Find], title: str) -> None:
    total = sum(len(c.nodules) for c in cases)
    print(f" {title}: {len(cases)} cases, {total} inserted nodules")
    for name, find in finders.items():
        scored: list[tuple[float, tuple[int, int] | None]] = []
        fired, shown, errors = 0, 0, []
        for number, case in enumerate(cases):
            for f in find(case.volume):
                if hit := hits(f, case.nodules):
                    scored.append((f.score, (number, hit[0])))
                    errors.append(np.linalg.norm(np.subtract(f.center_lps_mm, case.nodules[hit[0]][0])))
                elif not hits(f, case.ignored):
                    scored.append((f.score, None))
                fired += bool(hits(f, case.controls)) and f.score >= 0.5
            shown += len(case.controls)
        values = sensitivities(scored, total, len(cases))
        line = " ".join(f"{v:.2f}" for v in values)
        print(
            f"  {name:24s} at {'/'.join(f'{r:g}' for r in RATES)} FP a scan: {line}; mean {np.mean(values):.3f}; centre error {np.median(errors or [np.nan]):.1f} mm; controls fired {fired}/{shown}"
        )
    sys.stdout.flush()


def sensitivities(scored: list[tuple[float, tuple[int, int] | None]], total: int, scans: int) -> np.ndarray:
    """Sensitivity at each of `RATES`, linear between the points of the curve; double marks count once."""
    seen: set[tuple[int, int]] = set()
    rate, sensitivity, false = [0.0], [0.0], 0
    for _, hit in sorted(scored, key=lambda s: -s[0]):
        if hit is None:
            false += 1
        else:
            seen.add(hit)
        rate.append(false / scans)
        sensitivity.append(len(seen) / total)
    return np.interp(RATES, rate, sensitivity)


def speed(shared: Path, model: NoduleDetector) -> None:
    folder = shared / "open/ct/LIDC-IDRI-0314"
    print("DICOM folder to findings, 275 slices of 512x512 (JPEG-LS), model loaded; median of 3")
    rows = []
    for _ in range(3):
        clock = time.perf_counter()
        volume = read_volume(folder)
        read = time.perf_counter() - clock
        detection = detect_nodules(volume, model)
        rows.append({"read": read, **detection.run.seconds, "all": time.perf_counter() - clock})
    median = pd.DataFrame(rows).median()
    print("  " + ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in median.items()))
    print(f"  peak resident memory of this process {peak_memory_mb():.0f} MiB (all tables included)")


if __name__ == "__main__":
    main()
