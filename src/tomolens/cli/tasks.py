"""What a command does with each volume below a folder: which model, what work, how its results are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

from tomolens.core.errors import ModelError
from tomolens.core.progress import Progress
from tomolens.models.registry import Bundle, find_bundle, find_second_stage
from tomolens.pipelines.batch import R
from tomolens.pipelines.detect_nodules import DetectOptions, detect_nodules
from tomolens.pipelines.segment import segment
from tomolens.reports.kinds import FINDINGS, STRUCTURES

if TYPE_CHECKING:
    from tomolens.cli.jobs import Job
    from tomolens.core.card import ModelCard
    from tomolens.core.finding import Detection
    from tomolens.core.segmentation import Segmentation
    from tomolens.reports.results import Kind

Work = Callable[[Any, Progress], R]
"""Makes a result of a volume, or of a measurement in k-space."""


def _takes_all(job: Job) -> str:
    return ""


@dataclass(frozen=True)
class Task(Generic[R]):
    """One command's work, before its model is loaded.

    Parameters
    ----------
    kind
        How results are kept and shown.
    card, weights_sha256
        What the model is, and the hash of its weights; empty for a method that has none.
    load
        Loads the model onto a device and gives the work; torch is imported only here.
    min_score
        The threshold that the work uses; None where there is none.
    second_stage
        Of a detector, the model that looks again; None where there is none.
    options
        What else decides a result, as plain values.
    refusal
        Why the work is not for a job, as far as its headers tell; empty where it may be.
    kspace
        Whether measurements in k-space are looked for too.
    """

    kind: Kind[R, Any]
    card: ModelCard
    weights_sha256: str
    load: Callable[[str], Work[R]]
    min_score: float | None = None
    second_stage: Bundle | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    refusal: Callable[[Job], str] = _takes_all
    kspace: bool = False


def detecting(model: str | None, min_score: float | None, second_stage: str | None = None) -> Task[Detection]:
    """Find lung nodules.

    Raises
    ------
    ModelError
        If there is no such model, it is no detector, or the second stage is none.
    """
    bundle = _bundle(model, "detection", "detector")
    threshold = bundle.card.default_min_score if min_score is None else min_score

    def load(device: str) -> Work[Detection]:
        from tomolens.models.detector import load_detector  # torch: seconds, and not needed where all is finished

        detector = load_detector(model, device=device, second_stage=second_stage)
        options = DetectOptions(min_score)
        return lambda volume, progress: detect_nodules(volume, detector, options, progress=progress)

    second = find_second_stage(bundle, second_stage)
    return Task(FINDINGS, bundle.card, bundle.weights_sha256, load, threshold, second)


def segmenting(model: str) -> Task[Segmentation]:
    """Segment what a model knows.

    Raises
    ------
    ModelError
        If there is no such model, it is no segmenter, or it reads several images together.
    """
    bundle = _bundle(model, "segmentation", "segmentation model")
    channels = bundle.card.input.channels
    if len(channels) > 1:
        raise ModelError(
            f"{bundle.card.name} reads {len(channels)} images of one patient together ({', '.join(channels)}), and a "
            "folder does not say which is which. The Segment widget in napari and tomolens.segment in Python take them."
        )

    def load(device: str) -> Work[Segmentation]:
        from tomolens.models.segmenter import load_segmenter  # torch: seconds, and not needed where all is finished

        segmenter = load_segmenter(model, device=device)
        return lambda volume, progress: segment(volume, segmenter, progress=progress)

    return Task(STRUCTURES, bundle.card, bundle.weights_sha256, load)


def _bundle(model: str | None, task: str, needed: str) -> Bundle:
    bundle = find_bundle(model)
    if bundle.card.task != task:
        raise ModelError(f"{bundle.card.name} does {bundle.card.task}; a {needed} is needed.")
    return bundle
