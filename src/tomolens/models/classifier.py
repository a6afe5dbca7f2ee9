"""The second stage: looks again at each place that a detector marked, and says what it is."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import nn

from tomolens.core.errors import OutOfMemory
from tomolens.core.finding import TEXTURES
from tomolens.core.progress import Progress, Step, silent
from tomolens.models.inference import Backend, finite, until_it_fits
from tomolens.models.lungs import BOX_MARGIN_MM
from tomolens.models.registry import find_classifier
from tomolens.models.tensors import NETWORK_MM, isotropic, normalised
from tomolens.models.weights import filled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from tomolens.core.card import Calibration, ModelCard
    from tomolens.core.volume import Volume
    from tomolens.models.registry import Bundle

EDGE = 48
"""Voxels of 1 mm along each side of what the second stage sees of a place."""
STAGE = "look again"
_AT_ONCE = 16
_GIB_A_PLACE = 0.1
"""Measured is 0.06 in float32 on a CPU for one place, 0.09 for 16, with what torch takes at its first convolution."""
_AIR = -1.0


@dataclass(frozen=True)
class Verdict:
    """What the second stage says of one place.

    Parameters
    ----------
    nodule
        Probability that it is a nodule and not a vessel, a scar or chest wall, for as many of both as in training.
    malignancy
        From 0 to 1, by the card's calibration: how likely radiologists would call it malignant, if it is a nodule
        (LIDC-IDRI's ratings; no histology). Where the card has none, it is what the network answers.
    texture
        One of `tomolens.core.finding.TEXTURES`.
    logit
        ``nodule`` before the logistic function.
    malignancy_logit
        What the network answers of malignancy, before calibration.
    """

    nodule: float
    malignancy: float
    texture: str
    logit: float
    malignancy_logit: float


class NoduleClassifier:
    """A trained second stage with its card, ready to run on one device.

    Its network takes (n, 1, 48, 48, 48) at 1 mm and answers (n, 5): logits of nodule, malignancy and three textures.
    """

    def __init__(self, card: ModelCard, network: nn.Module, weights_sha256: str, backend: Backend) -> None:
        self.card, self.backend, self.weights_sha256 = card, backend, weights_sha256
        self._network = network.eval()

    def __repr__(self) -> str:
        return f"NoduleClassifier({self.card.name!r}, {self.backend.device}, {self.backend.precision})"

    def classify(self, volume: Volume, centers_lps_mm: ArrayLike, progress: Progress = silent) -> list[Verdict]:
        """Judge places of a chest CT, given as (n, 3) LPS mm; a verdict each, in their order.

        Raises
        ------
        ContractError
            If the volume is not what the model was trained on.
        """
        self.card.input.check(volume)
        centers = np.asarray(centers_lps_mm, float).reshape(-1, 3)
        if not len(centers):
            return []
        scan = volume.canonical()
        kji = scan.grid.to_kji(centers)
        room = (EDGE / 2 + BOX_MARGIN_MM) / np.asarray(scan.spacing_mm)
        low = np.clip(np.floor(kji.min(axis=0) - room).astype(int), 0, np.asarray(scan.shape) - 2)
        size = np.clip(np.ceil(kji.max(axis=0) + room).astype(int) + 1, low + 2, scan.shape) - low
        start, shape = ((int(k), int(j), int(i)) for k, j, i in (low, size))
        box = isotropic(scan.cropped(start, shape), NETWORK_MM)
        return self.judge(normalised(box.voxels), box.grid.to_kji(centers), progress)

    def judge(self, image: torch.Tensor, kji: NDArray[np.float64], progress: Progress = silent) -> list[Verdict]:
        """Judge places (n, 3) of a normalised (k, j, i) image at 1 mm; a verdict each, in their order.

        Raises
        ------
        OutOfMemory
            If not even one place fits into the CPU's memory.
        """
        return self.look(progress).at(image, kji)

    def look(self, progress: Progress = silent) -> Look:
        """One run over the places of one image, which keeps notes."""
        return Look(self._network, self.backend, self.card.calibration, progress)


@dataclass
class Look:
    """One run of a second stage over places of one image.

    Parameters
    ----------
    network
        In evaluation mode, float32, on the CPU.
    backend
        Device and precision; half precision by autocast alone.
    scale
        How a malignancy follows from the network's answer.
    progress
        Told before each batch; what it raises ends the run.
    notes
        What had to give way.
    """

    network: nn.Module
    backend: Backend
    scale: Calibration
    progress: Progress = silent
    notes: list[str] = field(default_factory=list)
    _at_once: int = _AT_ONCE

    def at(self, image: torch.Tensor, kji: NDArray[np.float64]) -> list[Verdict]:
        """What `NoduleClassifier.judge` gives."""
        return until_it_fits(lambda: self._verdicts(image, kji), self._give_way)

    def _verdicts(self, image: torch.Tensor, kji: NDArray[np.float64]) -> list[Verdict]:
        device, verdicts = self.backend.device, list[Verdict]()
        network = self.network if device.type == "cpu" else deepcopy(self.network).to(device)
        for first in range(0, len(kji), self._at_once):
            self.progress(Step(STAGE, first, len(kji)))
            answers = self._answers(network, surroundings(image, kji[first : first + self._at_once]))
            verdicts += [_verdict(answer, self.scale) for answer in answers]
        return verdicts

    def _answers(self, network: nn.Module, patches: torch.Tensor) -> torch.Tensor:
        device, dtype = self.backend.device, self.backend.dtype
        patches = patches.to(device).contiguous(memory_format=torch.channels_last_3d)
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            answers: torch.Tensor = network(patches)
        return finite(answers.float().cpu())

    def _give_way(self) -> None:
        """Halve the batch; from one place alone move to the CPU; there give up."""
        if self._at_once > 1:
            self._note(f"trying {self._at_once // 2}.")
            self._at_once //= 2
        elif self.backend.name != "cpu":
            self._note("going on with the CPU.")
            self.backend, self._at_once = Backend.choose("cpu"), _AT_ONCE
        else:
            raise OutOfMemory(f"The second stage needs about {_GIB_A_PLACE} GiB of free memory even for one place.")

    def _note(self, now: str) -> None:
        text = f"Out of memory on {self.backend.name} looking again at {self._at_once} places at once; {now}"
        self.notes.append(text)
        self.progress(Step(text, 0, 0, remark=True))


def surroundings(image: torch.Tensor, kji: Sequence[Sequence[float]] | NDArray[np.float64]) -> torch.Tensor:
    """What the second stage sees of places of a normalised (k, j, i) image: (n, 1, 48, 48, 48), air beyond its edge."""
    half = EDGE // 2
    places = np.round(np.asarray(kji, float)).astype(int).reshape(-1, 3)
    cubes = torch.full((len(places), 1, EDGE, EDGE, EDGE), _AIR)
    for cube, place in zip(cubes, places, strict=True):
        low = np.clip(place - half, 0, image.shape)
        high = np.clip(place + half, 0, image.shape)
        there = tuple(slice(a, b) for a, b in zip(low - place + half, high - place + half, strict=True))
        here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        cube[0][there] = image[here]
    return cubes


def calibrated_apart(second: ModelCard, detector: ModelCard, weights_sha256: str) -> str:
    """What is to be said where a second stage was not calibrated with these weights of a detector; else empty.

    The score is a sum of what both networks answer, and its weights belong to one pair of networks.
    """
    known = second.calibrated_for
    if known is None:
        return (
            f"The card of {second.name} does not say which detector it was calibrated with; with {detector.name} its "
            "scores may promise too much or too little."
        )
    if known.weights_sha256 == weights_sha256:
        return ""
    return (
        f"{second.name} was calibrated with {known.detector} (weights {known.weights_sha256[:12]}), not with "
        f"{detector.name} (weights {weights_sha256[:12]}): these scores are not calibrated."
    )


def _verdict(answer: torch.Tensor, scale: Calibration) -> Verdict:
    nodule, malignancy = answer[:2].tolist()
    rated = expit(scale.malignancy * malignancy + scale.malignancy_offset)
    return Verdict(float(expit(nodule)), float(rated), TEXTURES[int(answer[2:].argmax())], nodule, malignancy)


def load_classifier(name: str | Path, *, device: str = "auto") -> NoduleClassifier:
    """Load a second stage by name or folder; ``device`` as for `load_detector`.

    Raises
    ------
    ModelError
        If there is no such model, it is no second stage, or its folder is incomplete or damaged.
    OptionError
        If the device is unknown or not in this machine.
    """
    return classifier_of(find_classifier(name), Backend.choose(device))


def classifier_of(bundle: Bundle, backend: Backend) -> NoduleClassifier:
    """The second stage in a model folder that `find_classifier` or `find_second_stage` gave.

    Raises
    ------
    ModelError
        If the folder is incomplete or damaged.
    """
    return NoduleClassifier(*filled(bundle), backend)
