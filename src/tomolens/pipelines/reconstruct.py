"""Reconstruct one volume or one measurement in k-space."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy import ndimage

from tomolens.core.errors import ContractError, ModelError, OptionError
from tomolens.core.kspace import KSpace
from tomolens.core.progress import Progress, silent
from tomolens.core.reconstruction import GENERATIVE, Job, Made, Reconstruction, ReconstructOptions, is_invented
from tomolens.core.volume import Unit, Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from tomolens.core.card import ModelCard
    from tomolens.core.grid import Grid

_DEFAULT = ReconstructOptions()
_INT16 = (-32768.0, 32767.0)


class Reconstructor(Protocol):
    """The little that the pipeline needs of a model, a network or a classical method."""

    @property
    def card(self) -> ModelCard:
        """What the model is and takes; its ``task`` is a `Job`."""

    def reconstruct(self, source: Volume | KSpace, options: ReconstructOptions, progress: Progress) -> Made:
        """Make an image of the source, at full strength."""


def reconstruct(
    source: Volume | KSpace,
    model: Reconstructor,
    options: ReconstructOptions = _DEFAULT,
    *,
    baseline: Reconstructor | None = None,
    progress: Progress = silent,
) -> Reconstruction:
    """Denoise a CT, make an MR image of undersampled k-space, or make thin slices of thick ones.

    Parameters
    ----------
    source
        A volume, or for MRI reconstruction a measurement in k-space. It is not changed.
    model
        From `tomolens.load_reconstructor`.
    options
        What is asked for.
    baseline
        A classical method for the same job, whose result is kept beside the model's.
    progress
        Told after each unit of work; may raise `Cancelled` to stop.

    Returns
    -------
    Reconstruction
        The result with its reference, uncertainty and checks. Padding is untouched. Of a CT no number lies outside
        those of the source, and voxels are int16: padding that is no whole number becomes the next lower one.

    Raises
    ------
    ContractError
        If the source is not what the model takes.
    OptionError
        If an option does not fit the job, or the model is a GAN and that was not accepted.
    ModelError
        If the model's answer is no image of the source, or the baseline does another job.
    Cancelled
        If ``progress`` asked to stop.
    """
    job = _job_of(source, model.card, options)
    plain = ReconstructOptions(uncertainty=False, factor=options.factor)
    if baseline is not None and _job_of(source, baseline.card, plain) is not job:
        raise ModelError(f"{baseline.card.name} does {baseline.card.task}; a baseline for {job} is needed.")
    made = _checked(model.reconstruct(source, options, progress), model.card)
    volume, uncertainty = _blended(source, made, model.card, options)
    reference = _volume(source, made, made.reference.__getitem__, "reference: the input without the model")
    beside = None
    if baseline is not None:
        other = _checked(baseline.reconstruct(source, plain, progress), baseline.card)
        beside, _ = _blended(source, other, baseline.card, plain)
    run = replace(made.run, options={**made.run.options, **asdict(options)})
    return Reconstruction(job, volume, reference, run, uncertainty, made.checks, beside, is_invented(volume.history))


def _job_of(source: Volume | KSpace, card: ModelCard, options: ReconstructOptions) -> Job:
    """The job, once source, model and options are known to fit each other."""
    if card.task not in set(Job):
        raise ModelError(f"{card.name} does {card.task}; a model for {', '.join(Job)} is needed.")
    job = Job(card.task)
    if job is Job.MRI and isinstance(source, Volume):
        raise ContractError(
            f"{source.name} is an image, not k-space: {card.name} needs what coils measured (ISMRMRD, fastMRI, BART "
            "or npz). Undersampling an image afterwards is a simulation; ask for one by name."
        )
    if job is not Job.MRI and isinstance(source, KSpace):
        raise ContractError(f"{source.name} is k-space; {card.name} does {job} and takes an image.")
    if isinstance(source, Volume):
        card.input.check(source)
    check_options(job, card, options)
    return job


def check_options(job: Job, card: ModelCard, options: ReconstructOptions) -> None:
    """Refuse options that do not fit a job and its model, before anything is read.

    Raises
    ------
    OptionError
        If the model is a GAN and that was not accepted, or an option is another job's.
    """
    if card.generative and not options.generative:
        raise OptionError(
            f"{card.name} is a GAN. {GENERATIVE}: what looks like anatomy may not be there. It is for teaching and "
            "comparison, and runs only where that is accepted (--allow-gan, or generative=True in Python)."
        )
    if options.strength != 1 and job is not Job.DENOISING:
        raise OptionError(f"strength is for {Job.DENOISING}; {job} takes 1, not {options.strength:g}.")
    if options.factor is not None and job is not Job.SUPER_RESOLUTION:
        raise OptionError(f"factor is for {Job.SUPER_RESOLUTION}; {job} takes none.")


def _checked(made: Made, card: ModelCard) -> Made:
    shapes = {made.image.shape, made.reference.shape, made.grid.shape}
    if len(shapes) > 1:
        raise ModelError(f"The answer of {card.name} has parts of different shapes: {sorted(shapes)}.")
    parts = [part for part in (made.image, made.reference, made.uncertainty) if part is not None]
    if not all(np.isfinite(image).all() for part in parts for image in part):
        raise ModelError(f"The answer of {card.name} holds numbers that are none (NaN or infinite).")
    return made


def _blended(
    source: Volume | KSpace, made: Made, card: ModelCard, options: ReconstructOptions
) -> tuple[Volume, NDArray[np.float32] | None]:
    """The result at the strength asked for, and its uncertainty; what lies outside the scan stays as it was."""
    share = np.float32(options.strength)

    def image(k: int) -> NDArray[Any]:
        reference = np.asarray(made.reference[k], np.float32)
        return np.asarray(made.image[k] if share == 1 else reference + share * (made.image[k] - reference))

    return _volume(source, made, image, _step(card, options)), _uncertainty(source, made, share)


def _uncertainty(source: Volume | KSpace, made: Made, share: np.float32) -> NDArray[np.float32] | None:
    """One standard deviation at a strength: that of the model's part, and what is left of the noise that it would take.

    The latter is the root mean square of what the model takes away, over 9 by 9 pixels; both count as independent.
    Outside the scan it is zero.
    """
    outside = _outside(source, made.grid)
    if made.uncertainty is None or (share == 1 and outside is None):
        return made.uncertainty
    doubt = np.empty(made.grid.shape, np.float32)
    for k, sigma in enumerate(made.uncertainty):
        doubt[k] = sigma
        if share != 1:
            taken = ndimage.uniform_filter((made.reference[k] - made.image[k]) ** 2, 9)
            doubt[k] = np.sqrt((1 - share) ** 2 * np.maximum(taken, 0) + (share * sigma) ** 2)
        if outside is not None:
            doubt[k][outside(k)] = 0
    return doubt


def _step(card: ModelCard, options: ReconstructOptions) -> str:
    strength = f", strength {options.strength:g}" if options.strength != 1 else ""
    warning = f" ({GENERATIVE})" if card.generative else ""
    return f"{card.task} by {card.name} {card.version}{strength}{warning}"


def _volume(source: Volume | KSpace, made: Made, image: Callable[[int], NDArray[Any]], step: str) -> Volume:
    """A result of its slices as numbers are kept; one after another, since a whole scan takes gigabytes."""
    history = (*source.history, step)
    kind, low, high = _kept(source)
    voxels = np.empty(made.grid.shape, kind)
    outside, padding = _outside(source, made.grid), None
    if isinstance(source, Volume) and source.padding is not None:
        padding = source.padding if kind != np.int16 else float(np.clip(np.floor(source.padding), *_INT16))
    for k in range(len(voxels)):
        voxels[k] = image(k) if kind != np.int16 else np.clip(np.rint(image(k)), low, high)
        if outside is not None and padding is not None:
            voxels[k][outside(k)] = padding
    if isinstance(source, KSpace):
        return Volume(voxels, made.grid, Unit.ARBITRARY, "MR", history=history)
    return replace(source, voxels=voxels, grid=made.grid, padding=padding, history=history)


def _outside(source: Volume | KSpace, grid: Grid) -> Callable[[int], NDArray[np.bool_]] | None:
    """Where in a result's slice the source has padding: of thin slices where their thick one has; None without any."""
    times, rest = divmod(grid.shape[0], source.shape[0])
    if isinstance(source, KSpace) or source.padding is None or rest or grid.shape[1:] != source.shape[1:]:
        return None
    return lambda k: np.asarray(source.voxels[k // times] == source.padding)


def _kept(source: Volume | KSpace) -> tuple[type[np.generic], float, float]:
    """How a result's numbers are kept: CT as int16, within the whole numbers of the source that are not padding."""
    if isinstance(source, KSpace) or source.unit is not Unit.HU:
        return np.float32, -np.inf, np.inf
    least, largest = np.inf, -np.inf
    for image in source.voxels:
        inside = image if source.padding is None else image[image != source.padding]
        if inside.size:
            least, largest = min(least, float(inside.min())), max(largest, float(inside.max()))
    low, high = (np.ceil(least), np.floor(largest)) if least <= largest else (-1024.0, 3071.0)
    return np.int16, float(np.clip(low, *_INT16)), float(np.clip(high, *_INT16))
