"""MONAI's RetinaNet as a detector: windows over the lung box, boxes as findings in the patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
from torch import nn

from tomolens.core.errors import ModelError, OutOfMemory
from tomolens.core.finding import Finding
from tomolens.core.progress import Progress, Step, silent
from tomolens.models.detector import MAX_CANDIDATES
from tomolens.models.inference import Backend, finite, until_it_fits
from tomolens.models.lungs import BOX_MARGIN_MM, find_lungs
from tomolens.models.manifest import Manifest
from tomolens.models.prepare import images_for, prepared
from tomolens.models.recipe import Recipe
from tomolens.models.registry import NO_SECOND_STAGE
from tomolens.models.segmenter import as_trained
from tomolens.models.weights import filled
from tomolens.models.windowed import places_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tomolens.core.card import ModelCard
    from tomolens.core.grid import Grid
    from tomolens.core.run import Run
    from tomolens.core.volume import Volume
    from tomolens.models.lungs import Lungs
    from tomolens.models.recipe import Boxes, Windows
    from tomolens.models.registry import Bundle

STAGE = "find nodules"
SMALLEST_WINDOW = 64


class RetinaDetector:
    """A RetinaNet with its card, ready to run on one device; the same protocol as `NoduleDetector`.

    Parameters
    ----------
    card
        What the model is and takes; its recipe has ``boxes`` and ``windows``.
    network
        In evaluation mode.
    weights_sha256
        Hash of the weights file.
    backend
        Device and precision.

    Raises
    ------
    ModelError
        If the card does not say how boxes are read.
    """

    def __init__(self, card: ModelCard, network: nn.Module, weights_sha256: str, backend: Backend) -> None:
        self.card, self.weights_sha256, self.backend = card, weights_sha256, backend
        self.recipe = Recipe.of(card)
        if self.recipe.boxes is None or self.recipe.windows is None:
            raise ModelError(f"The recipe of {card.name} lacks boxes or windows, which a box detector has.")
        self._boxes, self._windows = self.recipe.boxes, self.recipe.windows
        self._network = network.eval()

    def __repr__(self) -> str:
        return f"RetinaDetector({self.card.name!r}, {self.backend.device}, {self.backend.precision})"

    def detect(self, volume: Volume, progress: Progress = silent) -> tuple[Sequence[Finding], Run]:
        """Every box in the lungs down to the bundle's own floor, surest first, and how it was run.

        A finding is its box's centre; its diameter is the mean of the box's three sides.

        Raises
        ------
        ContractError
            If there is no lung in the volume.
        OutOfMemory
            If the smallest window does not fit into the CPU's memory either.
        """
        (volume,), manifest = images_for(self.card, volume), Manifest()
        progress(Step("find lungs", 0, 1))
        scan = volume.canonical()
        lungs = find_lungs(scan)
        manifest.lap("lungs")
        progress(Step("resample", 0, 1))
        image = prepared([scan.cropped(*lungs.box_kji(scan.grid, BOX_MARGIN_MM))], self.recipe.steps)
        manifest.lap("resample")
        search = BoxSearch(self._network, self._boxes, self._windows, self.backend, progress)
        boxes, scores = search.over(image.channels)
        manifest.lap("network")
        findings = _findings(boxes, scores, image.grid, lungs)
        floor = {"floor": self._boxes.score_thresh}
        return findings, manifest.run(self.card, self.weights_sha256, [volume], search.backend, search.notes, floor)


class BoxSearch:
    """One run of a RetinaNet over one image.

    ``notes`` says why the device was chosen where that was left to the program, and what had to give way.

    Parameters
    ----------
    network
        In evaluation mode, float32.
    boxes, windows
        How the answer is read, and the window that slides.
    backend
        Device and precision; half precision by autocast alone.
    progress
        Told after each window; what it raises ends the run.
    """

    def __init__(
        self, network: nn.Module, boxes: Boxes, windows: Windows, backend: Backend, progress: Progress
    ) -> None:
        self._network, self._boxes, self.windows = network, boxes, windows
        self.backend, self._progress = backend, progress
        self.notes: list[str] = []
        divisible: Any = network.size_divisible
        self._divisible = tuple(int(d) for d in divisible)
        if backend.reason:
            self._note(backend.reason)

    def over(self, image: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(1, a, b, c) to boxes (n, 6), low corner then high corner in voxels, and scores (n), surest first.

        Raises
        ------
        OutOfMemory
            If the smallest window does not fit into the CPU's memory either.
        """
        shape = tuple(image.shape[1:])
        return until_it_fits(lambda: self._boxes_of(image), lambda: self._give_way(shape))

    def _give_way(self, shape: tuple[int, ...]) -> None:
        """Halve the window's longest side; below the smallest move to the CPU; there give up."""
        roi = list(self._roi(shape))
        longest = max(range(3), key=lambda axis: min(roi[axis], shape[axis]))
        side = min(roi[longest], shape[longest])
        if side >= 2 * SMALLEST_WINDOW:
            roi[longest] = side // 32 * 16
            self._note(f"Out of memory on {self.backend.device}; trying windows of {roi[0]} x {roi[1]} x {roi[2]}.")
            self.windows = replace(self.windows, roi_size=tuple(roi))
        elif self.backend.device.type != "cpu":
            self._note(f"Out of memory on {self.backend.device}; going on with the CPU.")
            self.backend = Backend(torch.device("cpu"), torch.float32)
        else:
            raise OutOfMemory(
                f"The detector's smallest window of {roi} voxels does not fit into the memory that is free."
            )

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self._progress(Step(text, 0, 0, remark=True))

    def _padded(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The size that MONAI pads an image to."""
        return tuple(-(-n // int(d)) * int(d) for n, d in zip(shape, self._divisible, strict=True))

    def _roi(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        wished = zip(self.windows.roi_size, self._padded(shape), strict=True)
        return tuple(size if wish <= 0 else wish for wish, size in wished)

    def _boxes_of(self, image: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        shape = tuple(image.shape[1:])
        roi, padded = self._roi(shape), self._padded(shape)
        is_larger = any(size > window for size, window in zip(padded, roi, strict=True))
        sliding = is_larger and image[0].numel() >= prod(roi)  # as the zoo's own inferer decides
        around = tuple(max(size, window) for size, window in zip(padded, roi, strict=True))
        total = len(places_of(roi, self.windows.overlap, around)) if sliding else 1
        device, half = self.backend.device, self.backend.dtype != torch.float32
        with torch.no_grad(), torch.autocast(device.type, self.backend.dtype, enabled=half):
            (found,) = self._detector(roi, total)(image[None].to(device), use_inferer=sliding)
        scores = found["labels_scores"].double().cpu().numpy()
        order = np.argsort(-scores, kind="stable")
        return found["boxes"].double().cpu().numpy()[order], scores[order]

    def _detector(self, roi: tuple[int, ...], total: int) -> RetinaNetDetector:
        """MONAI's own reading of the answer around a copy of the network that tells of every window."""
        network = deepcopy(self._network).to(self.backend.device)
        done = 0

        def tell(_network: nn.Module, _image: object, answers: Mapping[str, list[torch.Tensor]]) -> None:
            nonlocal done
            for answer in (level for levels in answers.values() for level in levels):
                finite(answer)
            done += 1
            self._progress(Step(STAGE, done, total))

        network.register_forward_hook(tell)
        self._progress(Step(STAGE, 0, total))
        boxes, windows = self._boxes, self.windows
        anchors = AnchorGeneratorWithAnchorShape(boxes.feature_map_scales, boxes.base_anchor_shapes)
        detector = RetinaNetDetector(network, anchors).eval()
        detector.set_box_selector_parameters(
            score_thresh=boxes.score_thresh,
            topk_candidates_per_level=boxes.topk_candidates_per_level,
            nms_thresh=boxes.nms_thresh,
            detections_per_img=boxes.detections_per_img,
        )
        detector.set_sliding_window_inferer(
            roi,
            windows.batch,
            windows.overlap,
            windows.mode,
            windows.sigma_scale,
            windows.padding_mode,
            windows.cval,
            device="cpu",
        )
        return detector


def _findings(boxes: NDArray[np.float64], scores: NDArray[np.float64], grid: Grid, lungs: Lungs) -> list[Finding]:
    """Boxes whose centre lies in the lungs, as findings in the patient."""
    low, high = boxes[:, :3], boxes[:, 3:]
    places = grid.to_mm((low + high) / 2)
    diameters = ((high - low) * grid.spacing_mm).mean(axis=1)
    held = lungs.holds(places) & (diameters > 0)
    return [
        Finding((float(x), float(y), float(z)), float(diameter), float(score))
        for (x, y, z), diameter, score in zip(places[held], diameters[held], scores[held], strict=True)
    ][:MAX_CANDIDATES]


def load_retina_detector(bundle: Bundle, backend: Backend, second_stage: str | Path | None) -> RetinaDetector:
    """What `tomolens.load_detector` gives for an imported RetinaNet. No second stage knows its candidates.

    Raises
    ------
    ModelError
        If a second stage is asked for, or the folder is incomplete or damaged.
    """
    if second_stage not in (None, NO_SECOND_STAGE):
        raise ModelError(f"{bundle.card.name} is imported and runs without a second stage, not with {second_stage}.")
    card, network, digest = filled(bundle)
    return RetinaDetector(card, network, digest, as_trained(card, backend))
