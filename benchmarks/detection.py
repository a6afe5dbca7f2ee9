"""How good the nodule detector is on data that it was never trained on, beside a classical blob detector.

    python benchmarks/detection.py [--shared ../shared/data] [--model NAME] [--cases 36] [--phantoms 24] [-o OUT]

Printed are: the real scan LIDC-IDRI-0314; the sample phantom; held-out LIDC nodules in a held-out real lung and in
phantoms of other seeds (``inserted_cases.py`` says how), with the nodule-free balls pasted by the same recipe; the
calibration of the score over all candidates in these; and what the second stage says of the held-out nodules:
malignancy against LIDC's diagnosis and texture. Scoring is that of ``tomolens evaluate``: LUNA16's rules, 95 % bands
over 1000 bootstraps of cases.

The baseline is the Laplacian of Gaussian, the blob detector of every textbook and of scikit-image, inside the same
lung mask; at a threshold it shows its best case, as many marks as there are nodules.

What these figures cannot say: the cases in the real lung are one patient many times, so their bands hold the chance of
nodules and places, not that of patients; and pasted nodules are easier than real ones, which the share of balls that
fire bounds from below. Trust whole scans more.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from inserted_cases import REAL_LUNG, held_out_nodules, phantom_cases, real_cases, real_lung
from numpy.typing import NDArray
from scipy import ndimage
from second_stage import second_stage

from tomolens import Finding, Volume, load_detector, read_volume
from tomolens.cli.evaluate import lines_of
from tomolens.core.evaluation import Evaluation, evaluate
from tomolens.core.froc import MarkedScan, Spheres
from tomolens.core.metrics import (
    CalibrationError,
    Share,
    calibration_error_by_case,
    expected_calibration_error,
    reliability,
)
from tomolens.models.classifier import NoduleClassifier, load_classifier
from tomolens.models.lungs import BOX_MARGIN_MM, find_lungs
from tomolens.models.tensors import isotropic
from tomolens.reports.evaluation import write_evaluation
from tomolens.training.calibration import NODULES_A_SCAN, weights_of
from tomolens.training.cases import LEAST_MM, NODULES_A_CASE, Case
from tomolens.training.curves import draw_reliability
from tomolens.training.publish import RELIABILITY
from tomolens.training.sources import read_marks

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "sample_volumes"
BASELINE = "Laplacian of Gaussian"
BARS = {1.0: 0.88, 4.0: 0.95}
"""Sensitivity at false positives a scan."""
BAR_MEAN, BAR_CONTROLS, BAR_ECE = 0.85, 0.05, 0.05

Find = Callable[[Volume], Sequence[Finding]]


@dataclass
class Answers:
    """What one detector said of a set of cases; their volumes are let go."""

    scans: list[MarkedScan] = field(default_factory=list)
    fired: int = 0
    controls: int = 0

    def add(self, case: Case, findings: Sequence[Finding], threshold: float) -> None:
        """Keep the marks, and count the nodule-free balls that fire."""
        shown = [finding.center_lps_mm for finding in findings if finding.score >= threshold]
        self.scans.append(case.marked(findings))
        self.controls += len(case.controls)
        self.fired += int(case.controls.hold(np.array(shown).reshape(-1, 3)).any(axis=0).sum())


def main() -> None:
    wishes = parsed()
    clock = time.perf_counter()
    model = load_detector(wishes.model, device=wishes.device, second_stage=wishes.second_stage)
    threshold = model.card.default_min_score
    print(f"{model!r} {model.card.version}, default threshold {threshold}\n")
    finders: dict[str, Find] = {model.card.name: lambda volume: model.detect(volume)[0], BASELINE: log_blobs}
    real_scan(wishes.shared, finders, threshold)
    sample_phantom(finders, threshold)
    answers = inserted(wishes, finders, threshold)
    calibration([scan for told in answers for scan in told.scans], threshold, wishes.out)
    second_stage(wishes.shared, classifiers(model, wishes))
    print(f"took {time.perf_counter() - clock:.0f} s")


def classifiers(model: object, wishes: argparse.Namespace) -> list[NoduleClassifier]:
    """The detector's own second stage, and others that were asked for."""
    own = getattr(model, "second_stage", None)  # an imported detector has none
    others = [load_classifier(name, device=wishes.device) for name in wishes.classifier]
    return [*([own] if own else []), *others]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--model", default=None, help="a detector's name or folder")
    parser.add_argument("--second-stage", default=None, help="instead of the detector's own: a name, a folder or none")
    parser.add_argument("--classifier", nargs="*", default=[], help="further second stages to judge nodules alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cases", type=int, default=36, help="cases in the real lung (default 36)")
    parser.add_argument("--phantoms", type=int, default=24, help="cases in phantoms (default 24)")
    parser.add_argument("--altered", type=int, default=12, help="further cases with altered nodules (default 12)")
    parser.add_argument("--log-cases", type=int, default=6, help="of each kind for the baseline, which is slow")
    parser.add_argument("-o", "--out", type=Path, help="folder for each evaluation and the reliability diagram")
    return parser.parse_args()


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


def centers(findings: Sequence[Finding]) -> NDArray[np.float64]:
    return np.array([finding.center_lps_mm for finding in findings]).reshape(-1, 3)


def kept_by(name: str, findings: Sequence[Finding], threshold: float, best: int) -> list[Finding]:
    """What a user sees: findings at the model's threshold; of the baseline its surest, as many as there are nodules."""
    return list(findings[:best]) if name == BASELINE else [f for f in findings if f.score >= threshold]


def spheres(marks: Sequence[tuple[Sequence[float], float]]) -> Spheres:
    return Spheres(np.array([c for c, _ in marks]).reshape(-1, 3), np.array([diameter for _, diameter in marks]))


def real_scan(shared: Path, finders: dict[str, Find], threshold: float) -> None:
    folder = shared / "open/ct"
    volume = read_volume(folder / REAL_LUNG)
    nodule, ignored = (spheres(read_marks(folder / f"annotations{x}.csv")[REAL_LUNG]) for x in ("", "_excluded"))
    print(f"{REAL_LUNG}, one accepted nodule of {nodule.diameters_mm[0]:.1f} mm")
    for name, find in finders.items():
        findings = find(volume)
        rank = next((n for n, hit in enumerate(nodule.hold(centers(findings)).any(axis=1)) if hit), None)
        seen = centers(kept_by(name, findings, threshold, 1))
        seen = seen[~nodule.hold(seen).any(axis=1)]
        spared = int(ignored.hold(seen).any(axis=1).sum())
        where = "not found" if rank is None else described(findings[rank], rank, nodule.centers_lps_mm[0])
        shown = "its surest mark alone" if name == BASELINE else "at the threshold"
        print(f"  {name:24s} {where}; {shown}: {len(seen) - spared} false positives, {spared} on excluded marks")
    print(flush=True)


def described(finding: Finding, rank: int, center: NDArray[np.float64]) -> str:
    away = float(np.linalg.norm(finding.center_lps_mm - center))
    place = f"{away:.1f} mm off centre, diameter {finding.diameter_mm:.1f} mm"
    return f"rank {rank + 1}, score {finding.score:.2f}, {place}"


def sample_phantom(finders: dict[str, Find], threshold: float) -> None:
    truth = json.loads((SAMPLE / "chest_ct.json").read_text())["nodules"]
    volume = read_volume(SAMPLE / "chest_ct")
    nodules = spheres([(n["center_lps_mm"], float(n["diameter_mm"])) for n in truth])
    solid = np.array([n["texture"] == "solid" and n["diameter_mm"] >= 5 for n in truth])
    print(f"sample phantom, {len(nodules)} nodules, {solid.sum()} of them solid and 5 mm or more")
    for name, find in finders.items():
        hits = nodules.hold(centers(kept_by(name, find(volume), threshold, len(nodules))))
        found, false = hits.any(axis=0), int((~hits.any(axis=1)).sum())
        counts = f"solid {(found & solid).sum()}/{solid.sum()}, all {found.sum()}/{len(nodules)}"
        print(f"  {name:24s} {counts}, {false} false positives")
    print(flush=True)


def inserted(wishes: argparse.Namespace, finders: dict[str, Find], threshold: float) -> list[Answers]:
    """FROC on each kind of case; the model's answers on those with nodules as they were."""
    donors = held_out_nodules(wishes.shared)
    lung = real_lung(wishes.shared)
    print(f"{len(donors)} held-out nodules of {LEAST_MM:g} mm and more, up to {NODULES_A_CASE} a case\n")
    model, baseline = finders
    kinds: dict[str, Iterable[Case]] = {
        f"real lung {REAL_LUNG}": real_cases(lung, donors, wishes.cases),
        "phantom lungs": phantom_cases(donors, wishes.phantoms),
        f"real lung {REAL_LUNG}, sizes and densities altered": real_cases(lung, donors, wishes.altered, altered=True),
    }
    answers: list[Answers] = []
    for kind, cases in kinds.items():
        told = asked(cases, finders, threshold, wishes.log_cases)
        if told[model].scans:
            report(kind, told[model], threshold, wishes.out, bars=len(answers) < 2)
            beside(told[baseline])
            answers.append(told[model])
    together(answers[:2], threshold)
    return answers[:2]


def together(answers: Sequence[Answers], threshold: float) -> None:
    """Both kinds of cases with nodules as they were."""
    scans = [scan for told in answers for scan in told.scans]
    if len(answers) > 1:
        report("real lung and phantoms together", Answers(scans, *summed(answers)), threshold, None, bars=False)


def summed(answers: Sequence[Answers]) -> tuple[int, int]:
    return sum(told.fired for told in answers), sum(told.controls for told in answers)


def asked(cases: Iterable[Case], finders: dict[str, Find], threshold: float, log_cases: int) -> dict[str, Answers]:
    told = {name: Answers() for name in finders}
    for number, case in enumerate(cases):
        for name, find in finders.items():
            if name != BASELINE or number < log_cases:
                told[name].add(case, find(case.volume), threshold)
    return told


def report(kind: str, told: Answers, threshold: float, out: Path | None, *, bars: bool) -> None:
    evaluation = evaluate(told.scans, threshold)
    for line in lines_of(evaluation, kind):
        print(line)
    controls = Share(told.fired, told.controls)
    low, high = controls.interval
    share = "no ball" if controls.value is None else f"{controls.value:.3f} ({low:.3f} to {high:.3f})"
    print(f"nodule-free balls that fire at {threshold:g}: {told.fired} of {told.controls}, {share}")
    if bars:
        for line in held(evaluation, controls.value or 0.0):
            print(line)
    if out:
        write_evaluation(evaluation, out / kind.replace(" ", "-").replace(",", ""), title=kind, inputs={})
    print(flush=True)


def held(evaluation: Evaluation, fired: float) -> list[str]:
    """Each bar, and whether it holds."""
    figures = [
        (f"sensitivity at {rate:g} FP at least {bar:.2f}", value := float(evaluation.curve.at(rate)), value >= bar)
        for rate, bar in BARS.items()
    ]
    mean = evaluation.curve.cpm
    figures += [(f"mean over 1/8 to 8 at least {BAR_MEAN:.2f}", mean, mean >= BAR_MEAN)]
    figures += [(f"balls that fire under {BAR_CONTROLS:.2f}", fired, fired < BAR_CONTROLS)]
    return [f"  bar: {name:36s} {value:.3f} {'holds' if holds else 'MISSED'}" for name, value, holds in figures]


def beside(told: Answers) -> None:
    """The baseline on the first cases of the same kind."""
    if told.scans:
        curve = evaluate(told.scans, samples=1).curve
        rates = ", ".join(f"{value:.2f}" for value in curve.at([1, 2, 4, 8]))
        print(f"  {BASELINE} on the first {curve.scans} of these cases: {rates} at 1, 2, 4, 8; mean {curve.cpm:.3f}\n")


def calibration(scans: Sequence[MarkedScan], threshold: float, out: Path | None) -> None:
    """Whether a score is the share of such candidates that are nodules.

    The score promises that share among patients, who have fewer nodules than these cases: a candidate on a nodule
    counts as many times less. Beside it stands the error without these weights. Most candidates score about 0 and are
    none, which flatters the error over all of them: the bar is also held to those that a user is shown.
    """
    cases = [judged(scan) for scan in scans]
    score, true = (np.concatenate(parts) for parts in zip(*cases, strict=True)) if cases else (np.empty(0),) * 2
    if not true.any():
        return
    nodules = sum(len(scan.nodules) for scan in scans)
    weights, plain = weights_of(true, nodules, len(scans)), expected_calibration_error(score, true)
    weighted = [(scores, hit, weights_of(hit, nodules, len(scans))) for scores, hit in cases]
    print(f"calibration of the score: {len(score)} candidates of {len(scans)} cases, {true.sum()} on nodules,")
    print(f"  these weighted to {NODULES_A_SCAN:.2f} nodules a scan, as many as in LUNA16")
    print("  " + "".join(f"{name:>12}" for name in ("score", "candidates", "mean score", "nodules")))
    points = reliability(score, true, weights=weights)
    if out:
        draw_reliability(points, out / RELIABILITY)
    for point in points:
        place = f"{point.low:.1f} to {point.high:.1f}"
        print(f"  {place:>12}{point.count:>12}{point.mean_score:>12.3f}{point.share_true:>12.3f}")
    for floor in (0.0, threshold):
        if (score >= floor).any():
            print(error_bar(calibration_error_by_case(weighted, floor)))
    print(f"  without weights, at {nodules / len(scans):.1f} nodules a scan: {plain:.3f}\n", flush=True)


def error_bar(error: CalibrationError) -> str:
    """The bar of the calibration error, and whether it holds."""
    those = f"{error.count} candidates of at least {error.floor:g}" if error.floor else f"all {error.count} candidates"
    held = "holds" if error.value <= BAR_ECE else "MISSED"
    band = f"{error.value:.3f} {held} (95 % {error.low:.3f} to {error.high:.3f}, by case)"
    return f"  bar: ECE of 10 bins at most {BAR_ECE:g}, {those}: {band}"


def judged(scan: MarkedScan) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores of a case's candidates and whether each lies in a nodule; those on ignored places are left out."""
    hit = scan.nodules.hold(scan.marks_lps_mm).any(axis=1)
    counted = hit | ~scan.excluded.hold(scan.marks_lps_mm).any(axis=1)
    return scan.scores[counted], hit[counted]


if __name__ == "__main__":
    main()
