"""Whether denoising helps or harms the nodule detector: the same held-out cases at full dose, a quarter, and denoised.

Cases are those of ``benchmarks/detection.py``: held-out nodules in the held-out real lung. Since a case holds the lungs
and 25 mm around them, not the whole chest, dose is lowered to the noise that is printed rather than by a share alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from inserted_cases import held_out_nodules, real_cases, real_lung

from tomolens import Volume, load_detector
from tomolens.core.evaluation import evaluate
from tomolens.core.reconstruction import Job, ReconstructOptions
from tomolens.models.reconstructor import baseline_of, load_reconstructor
from tomolens.physics.low_dose import low_dose
from tomolens.physics.noise import noise_level
from tomolens.pipelines.reconstruct import reconstruct

if TYPE_CHECKING:
    from tomolens.core.froc import MarkedScan

DOSE = 0.25
SEED = 5
NETWORK = "ct-denoiser"
QUICK_CASES, CASES = 1, 4


def report(shared: Path, quick: bool) -> None:
    detector = load_detector(device="cpu")
    denoisers = {name: load_reconstructor(name, device="cpu") for name in (baseline_of(Job.DENOISING), NETWORK)}
    plain = ReconstructOptions(uncertainty=False)
    seen: dict[str, list[MarkedScan]] = {}
    noise: dict[str, list[float]] = {}
    cases = real_cases(real_lung(shared), held_out_nodules(shared), QUICK_CASES if quick else CASES)
    for number, case in enumerate(cases):
        poor = low_dose(case.volume, DOSE, seed=SEED + number)
        scans: dict[str, Volume] = {"full dose": case.volume, f"dose {DOSE:g}": poor}
        for name, denoiser in denoisers.items():
            scans[f"dose {DOSE:g}, {name}"] = reconstruct(poor, denoiser, plain).volume
        for name, scan in scans.items():
            seen.setdefault(name, []).append(case.marked(detector.detect(scan)[0]))
            noise.setdefault(name, []).append(middle_noise(scan))
    threshold = detector.card.default_min_score
    print(f"{detector.card.name} {detector.card.version} on {len(seen['full dose'])} cases")
    for name, marked in seen.items():
        print(f"  {name:28s} noise {np.mean(noise[name]):5.1f} HU  {told(marked, threshold)}", flush=True)


def told(marked: list[MarkedScan], threshold: float) -> str:
    evaluation = evaluate(marked, threshold)
    one, four = evaluation.curve.at((1.0, 4.0))
    nodules = sum(len(scan.nodules) for scan in marked)
    return f"sensitivity {one:.3f} at 1, {four:.3f} at 4 false positives a scan ({nodules} nodules)"


def middle_noise(scan: Volume) -> float:
    """Noise of the slices in the middle third, in HU."""
    third = len(scan.voxels) // 3
    return float(np.median([noise_level(image) for image in scan.voxels[third : 2 * third : 8]]))
