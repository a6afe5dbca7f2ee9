"""The nodule detector: a chest CT in, scored places out."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit
from torch import nn

from tomolens.core.errors import ModelError
from tomolens.core.finding import Finding
from tomolens.core.progress import Progress, Step, silent
from tomolens.core.run import Run
from tomolens.models.classifier import NoduleClassifier, Verdict, calibrated_apart, classifier_of
from tomolens.models.inference import Backend, Pass
from tomolens.models.lungs import BOX_MARGIN_MM, Lungs, find_lungs
from tomolens.models.networks import CELL_MM, folded
from tomolens.models.registry import NO_SECOND_STAGE, find_bundle, find_second_stage
from tomolens.models.tensors import NETWORK_MM, isotropic, normalised
from tomolens.models.weights import filled

if TYPE_CHECKING:
    from tomolens.core.card import Calibration, ModelCard
    from tomolens.core.grid import Grid
    from tomolens.core.volume import Volume
    from tomolens.models.retina_detector import RetinaDetector

FLOOR = 0.03
"""Peaks below this are not kept: the detector's own answer, before calibration."""
MAX_CANDIDATES = 50
"""The surest of a scan that are looked at again and kept; LUNA16 reads at most 100 marks."""
MAX_PEAKS = 400
"""Of one answer, in the lungs or not."""
MIN_SEPARATION_MM = 5.0


@dataclass(frozen=True)
class Peaks:
    """Local maxima of the answer, surest first: ``kji`` (n, 3) in input voxels, diameters in mm, scores 0 to 1."""

    kji: NDArray[np.float64]
    diameters_mm: NDArray[np.float64]
    scores: NDArray[np.float64]


def peaks_of(output: torch.Tensor, floor: float = FLOOR) -> Peaks:
    """Read `CenterNet`'s (5, k, j, i) answer: a peak in each 3x3x3 of cells, and of overlapping spheres the surest."""
    score = output[:1].sigmoid()
    highest = nn.functional.max_pool3d(score[None], 3, 1, 1)[0]
    cells = torch.nonzero((score == highest)[0] & (score[0] >= floor))
    kji, diameters = _agreed(output, cells)
    scores = score[0, *cells.T].double().numpy()
    kept = _apart(kji, diameters, scores)
    return Peaks(kji[kept], diameters[kept], scores[kept])


def _agreed(output: torch.Tensor, cells: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (n, 3) and diameters (n,) in voxels that each peak and the cells around it agree on, by their scores.

    Counted are cells whose centre lies within a cell of the peak's own, so that a neighbouring nodule does not draw it.
    """
    steps = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)
    around = cells[:, None] + steps
    limits = torch.tensor(output.shape[1:])
    inside = ((around >= 0) & (around < limits)).all(dim=-1)
    k, j, i = around.clamp(min=0).minimum(limits - 1).unbind(dim=-1)
    answer = output[:, k, j, i].double()
    centers = around + 0.5 + answer[1:4].clamp(-2, 2).movedim(0, -1)
    own = centers[:, len(steps) // 2, None]
    weight = answer[0].sigmoid() * inside * ((centers - own).norm(dim=-1) < 1)
    weight = (weight / weight.sum(dim=1, keepdim=True)).nan_to_num()
    kji = (centers * weight[..., None]).sum(dim=1) * CELL_MM - 0.5
    diameters = (answer[4].clamp(-1.5, 2.5) * weight).sum(dim=1).exp() * CELL_MM
    return kji.numpy(), diameters.numpy()


def _apart(kji: NDArray[np.float64], diameters: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.int_]:
    """Surest first, without those whose centre lies in the sphere of a surer one (or within `MIN_SEPARATION_MM`)."""
    kept: list[int] = []
    for n in np.argsort(-scores, kind="stable"):
        reach = np.maximum(np.maximum(diameters[kept], diameters[n]) / 2, MIN_SEPARATION_MM)
        if (np.linalg.norm(kji[kept] - kji[n], axis=1) >= reach).all():
            kept.append(int(n))
        if len(kept) == MAX_PEAKS:
            break
    return np.array(kept, int)


@dataclass(frozen=True)
class Candidates:
    """Places in the patient (n, 3) with diameters in mm, what the detector answers there, and its second stage if any.

    ``logits`` are the detector's; ``verdicts`` is empty without a second stage.
    """

    centers_lps_mm: NDArray[np.float64]
    diameters_mm: NDArray[np.float64]
    logits: NDArray[np.float64]
    verdicts: Sequence[Verdict]

    @property
    def second_logits(self) -> NDArray[np.float64]:
        """The second stage's, zeros without one."""
        return np.array([v.logit for v in self.verdicts]) if self.verdicts else np.zeros(len(self.logits))

    def scores(self, scale: Calibration) -> NDArray[np.float64]:
        """Calibrated, 0 to 1."""
        logits = scale.detector * self.logits + scale.classifier * self.second_logits + scale.offset
        return np.asarray(expit(logits))


class NoduleDetector:
    """A trained network with its card, ready to run on one device.

    Parameters
    ----------
    card
        What the model is and takes.
    network
        In evaluation mode, batch norms folded.
    weights_sha256
        Hash of the weights file.
    backend
        Device and precision.
    second_stage
        Looks again at every candidate: its score, texture and malignancy; None does without.
    """

    def __init__(
        self,
        card: ModelCard,
        network: nn.Module,
        weights_sha256: str,
        backend: Backend,
        second_stage: NoduleClassifier | None = None,
    ) -> None:
        self.card, self.backend, self.weights_sha256 = card, backend, weights_sha256
        self.second_stage = second_stage
        self._network = network

    def __repr__(self) -> str:
        second = "" if self.second_stage is None else f", then {self.second_stage.card.name!r}"
        return f"NoduleDetector({self.card.name!r}{second}, {self.backend.name}, {self.backend.precision})"

    def detect(self, volume: Volume, progress: Progress = silent) -> tuple[Sequence[Finding], Run]:
        """Every candidate in a chest CT down to `FLOOR`, surest first with calibrated scores, and how it was run.

        Raises
        ------
        ContractError
            If there is no lung in the volume.
        OutOfMemory
            If a stage does not fit into the CPU's memory either.
        """
        started, clock, once = datetime.now(UTC), _Clock(), Pass(self._network, self.backend, progress)
        if self.doubt:
            once.note(self.doubt)
        candidates = self._marked(volume, once, clock)
        return self._findings(candidates), self._run(volume, once, clock, started)

    @property
    def doubt(self) -> str:
        """What every run notes where the second stage was not calibrated with this detector; else empty."""
        second = self.second_stage
        return "" if second is None else calibrated_apart(second.card, self.card, self.weights_sha256)

    def candidates(self, volume: Volume) -> Candidates:
        """What both stages answer, before calibration."""
        return self._marked(volume, Pass(self._network, self.backend, silent), _Clock())

    def _marked(self, volume: Volume, once: Pass, clock: _Clock) -> Candidates:
        once.progress(Step("find lungs", 0, 1))
        scan = volume.canonical()
        lungs = find_lungs(scan)
        clock.lap("lungs")
        once.progress(Step("resample", 0, 1))
        box = isotropic(scan.cropped(*lungs.box_kji(scan.grid, BOX_MARGIN_MM)), NETWORK_MM)
        image = normalised(box.voxels)
        clock.lap("resample")
        peaks = _held(peaks_of(once.over(image)), box.grid, lungs)
        clock.lap("network")
        verdicts = self._looked_again(image, peaks, once)
        clock.lap("second stage")
        return Candidates(box.grid.to_mm(peaks.kji), peaks.diameters_mm, logit(peaks.scores), verdicts)

    def _looked_again(self, image: torch.Tensor, peaks: Peaks, once: Pass) -> list[Verdict]:
        if self.second_stage is None:
            return []
        look = self.second_stage.look(once.progress)
        verdicts = look.at(image, peaks.kji)
        once.notes += look.notes
        return verdicts

    def _findings(self, candidates: Candidates) -> list[Finding]:
        """Candidates as findings, surest first by the calibrated score."""
        card = self.second_stage.card if self.second_stage else self.card
        scores = candidates.scores(card.calibration)
        places, diameters, verdicts = candidates.centers_lps_mm, candidates.diameters_mm, candidates.verdicts
        rated: list[tuple[str, float | None]] = [(verdict.texture, verdict.malignancy) for verdict in verdicts]
        rated = rated or [("", None)] * len(places)
        order = np.argsort(-scores, kind="stable")
        return [Finding(tuple(places[n].tolist()), float(diameters[n]), float(scores[n]), *rated[n]) for n in order]

    def _run(self, volume: Volume, once: Pass, clock: _Clock, started: datetime) -> Run:
        return Run(
            model=self.card.name,
            model_version=self.card.version,
            weights_sha256=self.weights_sha256,
            options={"floor": FLOOR, **_second_stage_of(self.second_stage)},
            series_uid=volume.series.uid if volume.series else "",
            source=volume.name,
            history=volume.history,
            device=once.backend.name,
            precision=once.backend.precision,
            started=started.isoformat(timespec="seconds"),
            seconds=clock.seconds(),
            peak_memory_mb=peak_memory_mb(),
            versions={name: version(name) for name in ("tomolens", "torch", "monai", "numpy", "scipy")}
            | {"python": platform.python_version()},
            notes=tuple(once.notes),
        )


class _Clock:
    """Wall seconds by stage."""

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._first = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._laps[stage], self._last = now - self._last, now

    def seconds(self) -> dict[str, float]:
        return {**self._laps, "total": time.perf_counter() - self._first}


def _held(peaks: Peaks, grid: Grid, lungs: Lungs) -> Peaks:
    """The surest peaks that lie in the lungs."""
    held = np.flatnonzero(lungs.holds(grid.to_mm(peaks.kji)))[:MAX_CANDIDATES]
    return Peaks(peaks.kji[held], peaks.diameters_mm[held], peaks.scores[held])


def _second_stage_of(second: NoduleClassifier | None) -> dict[str, str]:
    """What a run manifest says of the second stage."""
    if second is None:
        return {}
    return {
        "second_stage": f"{second.card.name} {second.card.version}",
        "second_stage_sha256": second.weights_sha256,
    }


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far, in MiB; None on systems that do not tell (Windows)."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)


def load_detector(
    name: str | Path | None = None, *, device: str = "auto", second_stage: str | Path | None = None
) -> NoduleDetector | RetinaDetector:
    """Load a nodule detector once, for as many volumes as wanted.

    Parameters
    ----------
    name
        A shipped model's name (see `list_models`), or the folder of a model; None takes the default detector.
    device
        ``auto`` (a CUDA GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, or ``openvino`` where it is installed.
    second_stage
        The model that looks again at each candidate, by name or folder; None takes the one that the detector's card
        names, ``"none"`` does without. One that was calibrated with another detector is taken where it is asked for,
        and every run notes that its scores are not calibrated.

    Raises
    ------
    ModelError
        If there is no such model, it is of another kind, its folder is incomplete or damaged, or the second stage that
        the detector's card names was calibrated with another detector.
    OptionError
        If the device is unknown or not in this machine.
    """
    backend = Backend.choose(device)
    bundle = find_bundle(name)
    if bundle.card.task != "detection":
        raise ModelError(f"{bundle.card.name} does {bundle.card.task}; a detector is needed.")
    if bundle.card.recipe:  # an imported box detector
        from tomolens.models.retina_detector import load_retina_detector

        return load_retina_detector(bundle, backend, second_stage)
    card, network, digest = filled(bundle)
    again = find_second_stage(bundle, second_stage)
    second = None if again is None else classifier_of(again, backend)
    detector = NoduleDetector(card, folded(network), digest, backend, second)
    if second_stage is None and second is not None and second.card.calibrated_for is not None and detector.doubt:
        raise ModelError(
            f"{detector.doubt} Calibrate a copy of it (tomolens train calibrate FOLDER --detector {bundle.folder}), or "
            f'choose: the second stage {second.card.name} by its name, to use it as it is, or "{NO_SECOND_STAGE}".'
        )
    return detector
