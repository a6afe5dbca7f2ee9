"""What `tomolens reconstruct` does with each volume or measurement: which model, beside which classical method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tomolens.cli.tasks import Task
from tomolens.core.errors import ContractError, ModelError
from tomolens.core.progress import Step
from tomolens.core.reconstruction import Job, Reconstruction, ReconstructOptions
from tomolens.core.volume import Volume
from tomolens.models.reconstructor import classical_cards, reconstruction_models
from tomolens.models.registry import find_bundle
from tomolens.pipelines.reconstruct import check_options, reconstruct
from tomolens.reports.kinds import reconstructions_as

if TYPE_CHECKING:
    from tomolens.cli import jobs
    from tomolens.cli.tasks import Work
    from tomolens.core.card import ModelCard
    from tomolens.core.kspace import KSpace
    from tomolens.core.progress import Progress
    from tomolens.io.reconstructions import Format

NO_BASELINE = "none"
_OF_THE_CPU = ("auto", "cpu")


@dataclass(frozen=True)
class ReconstructWish:
    """What was asked for on the command line; ``model`` None takes the job's first network that is no GAN."""

    job: Job
    model: str | None
    options: ReconstructOptions
    baseline: str = NO_BASELINE
    format: Format = "auto"


@dataclass(frozen=True)
class _Model:
    """A network or a classical method that was found; the hash is empty where there are no weights."""

    card: ModelCard
    weights_sha256: str = ""
    folder: str = ""

    def __str__(self) -> str:
        return f"{self.card.name} {self.card.version} {self.weights_sha256[:12]}".rstrip()


def reconstructing(wish: ReconstructWish) -> Task[Reconstruction]:
    """Denoise, reconstruct or make thin slices.

    Raises
    ------
    ModelError
        If there is no such model or classical method, or it does another job.
    OptionError
        If the model is a GAN and that was not accepted, or an option does not fit the job.
    """
    model = _found(wish.job, wish.model)
    check_options(wish.job, model.card, wish.options)
    baseline = None if wish.baseline == NO_BASELINE else _classical(wish.job, wish.baseline)

    def load(device: str) -> Work[Reconstruction]:
        from tomolens.models.reconstructor import load_reconstructor  # torch, and not needed where all is finished

        loaded = load_reconstructor(model.folder or model.card.name, device=device)
        plain = None if baseline is None else load_reconstructor(baseline.folder or baseline.card.name, device=device)

        def work(source: Volume | KSpace, progress: Progress) -> Reconstruction:
            if not model.weights_sha256 and device not in _OF_THE_CPU:
                progress(
                    Step(f"{model.card.name} runs on the CPU; --device {device} is for networks.", 0, 0, remark=True)
                )
            _refuse_format(source, wish.format)
            return reconstruct(source, loaded, wish.options, baseline=plain, progress=progress)

        return work

    return Task(
        reconstructions_as(wish.format),
        model.card,
        model.weights_sha256,
        load,
        options=_decisive(wish, baseline),
        refusal=lambda job: _refusal(wish, job),
        kspace=wish.job is Job.MRI,
    )


def _decisive(wish: ReconstructWish, baseline: _Model | None) -> dict[str, Any]:
    """What decides a result beside the model and the files."""
    return {
        "strength": wish.options.strength,
        "factor": wish.options.factor,
        "uncertainty": wish.options.uncertainty,
        "baseline": "" if baseline is None else str(baseline),
        "format": wish.format,
    }


def _refusal(wish: ReconstructWish, job: jobs.Job) -> str:
    if job.kspace and wish.format == "dicom":
        return "it is k-space, which has no DICOM header to derive a series from"
    if wish.job is Job.MRI and not job.kspace:
        return "it is an image, not k-space; undersampling one afterwards is a simulation: tomolens simulate"
    return "it has no DICOM header to derive a series from" if wish.format == "dicom" and job.series is None else ""


def _refuse_format(source: Volume | KSpace, format: Format) -> None:
    """Refuse before the work what could not be written after it."""
    if format == "dicom" and not (isinstance(source, Volume) and source.series is not None):
        raise ContractError(f"{source.name} has no DICOM header to derive a series from.")


def _classical(job: Job, name: str) -> _Model:
    methods = classical_cards(job)
    if name not in methods:
        raise ModelError(f"{name} is no method without training for {job}; --baseline takes {', '.join(methods)}.")
    return _Model(methods[name])


def _found(job: Job, name: str | None) -> _Model:
    """The model of that name that does the job; without a name the one that is chosen by default."""
    name = name or reconstruction_models(job)[0].name
    try:
        bundle = find_bundle(name)
    except ModelError as unknown:
        methods = classical_cards(job)
        if name in methods:
            return _Model(methods[name])
        raise ModelError(f"{unknown} Methods without training for {job}: {', '.join(methods)}.") from unknown
    if bundle.card.task != job:
        raise ModelError(f"{bundle.card.name} does {bundle.card.task}; a model for {job} is needed.")
    return _Model(bundle.card, bundle.weights_sha256, str(bundle.folder))
