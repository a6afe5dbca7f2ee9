"""Images from undersampled k-space, slice by slice: a trained network, MONAI's VarNet, or a classical method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from tomolens.core.errors import ContractError, OptionError, OutOfMemory
from tomolens.core.kspace import KSpace
from tomolens.core.progress import Progress, Step
from tomolens.core.reconstruction import Job, Made, ReconstructOptions
from tomolens.models.classical import METHODS, Classical
from tomolens.models.inference import Backend, until_it_fits, with_pulse
from tomolens.models.manifest import Manifest
from tomolens.models.mri_checks import checks_of, held_out_misfit, measurement
from tomolens.models.mri_tensors import inputs_of, tensors_of
from tomolens.models.varnet import magnitude
from tomolens.models.weights import filled
from tomolens.physics.sense import MOST_COILS, Measured, tuned_cg, tuned_tv, zero_filled

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from tomolens.core.card import ModelCard
    from tomolens.core.volume import Volume
    from tomolens.models.registry import Bundle

STAGE = "reconstruct"
CHECK_STAGE, REFERENCE_STAGE = "check", "reference"
_HELD_OUT_SLICES = 3
"""Slices in which the method is asked to foretell lines that it was not shown."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method makes of a `Measured` slice, in its unit; ``image`` None where it gives a magnitude alone."""

    magnitude: NDArray[np.float32]
    image: NDArray[np.complex64] | None = None
    sigma: NDArray[np.float32] | None = None


class Method(Protocol):
    """What makes an image of a slice."""

    @property
    def most_coils(self) -> int | None:
        """Of which more are combined first; None where coils stay as they are."""

    @property
    def notes(self) -> Sequence[str]:
        """What the reader should know of how it ran."""

    def __call__(self, measured: Measured) -> Answer:
        """Make the image."""


class MriReconstructor:
    """A method with its card."""

    def __init__(self, card: ModelCard, method: Method, weights_sha256: str, backend: Backend) -> None:
        self.card, self.weights_sha256 = card, weights_sha256
        self._method, self._backend = method, backend

    def __repr__(self) -> str:
        return f"MriReconstructor({self.card.name!r}, {self._backend.device})"

    def reconstruct(self, source: Volume | KSpace, options: ReconstructOptions, progress: Progress) -> Made:
        """Reconstruct every slice of a `KSpace`; the reference is the root sum of squares with zeros filled in.

        Raises
        ------
        ContractError
            If the source is no k-space, or the method cannot read what was measured.
        OutOfMemory
            If a single slice does not fit.
        """
        if not isinstance(source, KSpace):
            raise ContractError(f"{source.name} is an image; {self.card.name} takes k-space.")
        manifest = Manifest()
        work = _Work(source, self._method, progress, "held-out misfit" in self.card.ranges)
        done = [work.slice(k) for k in range(source.shape[0])]
        manifest.lap("images")
        values = measurement(source, [each.noise for each in done]) | work.fit(done)
        manifest.lap("checks")
        run = manifest.run(self.card, self.weights_sha256, (), self._backend, self._method.notes)
        sigma = [each.sigma for each in done if each.sigma is not None]
        return Made(
            image=np.stack([each.magnitude for each in done]),
            reference=work.reference(),
            grid=source.grid,
            run=replace(run, source=source.name, history=source.history),
            uncertainty=np.stack(sigma) if sigma and options.uncertainty else None,
            checks=checks_of(values, self.card.ranges),
        )


@dataclass(frozen=True, eq=False)
class _Done:
    """A finished slice in the measurement's own unit, its noise as a share of bright tissue, and how well it fits.

    ``measured`` is the slice as the method had it, of those that are to be checked.
    """

    magnitude: NDArray[np.float32]
    sigma: NDArray[np.float32] | None
    noise: float
    misfit: float | None
    measured: Measured | None


@dataclass(frozen=True, eq=False)
class _Work:
    """A method at work on a measurement; ``held_out`` is whether it is asked to foretell what it was not shown."""

    kspace: KSpace
    method: Method
    progress: Progress
    held_out: bool

    @property
    def checked(self) -> set[int]:
        """Slices in which it is asked."""
        if not self.held_out:
            return set()
        return set(np.linspace(0, self.kspace.shape[0] - 1, _HELD_OUT_SLICES + 2).round()[1:-1].astype(int).tolist())

    def measured(self, k: int, step: Step) -> Measured:
        """A slice, ready for the method; sensitivities are found where the measurement brings none."""
        self.progress(step)
        maps = None if self.kspace.sensitivities is None else self.kspace.sensitivities[k]
        return self.paced(Measured.of(self.kspace.data[k], self.kspace.acquired[k], maps, self.method.most_coils), step)

    def paced(self, measured: Measured, step: Step) -> Measured:
        """The same slice; the progress is told ``step``, which may stop the work, as long as it is worked on."""
        self.progress(step)
        return replace(measured, pulse=partial(self.progress, step))

    def slice(self, k: int) -> _Done:
        """Make one."""
        total = self.kspace.shape[0]
        measured = self.measured(k, Step(STAGE, k, total))
        answer, scale = self.method(measured), np.float32(measured.scale)
        misfit = None if answer.image is None else measured.misfit(answer.image)
        if k == total - 1:
            self.progress(Step(STAGE, total, total))
        sigma = None if answer.sigma is None else answer.sigma * scale
        kept = measured if k in self.checked else None
        return _Done(answer.magnitude * scale, sigma, measured.noise, misfit, kept)

    def fit(self, done: Sequence[_Done]) -> dict[str, float]:
        """How well the images fit what was measured, and what was kept from the method in a few slices."""
        known = [each.misfit for each in done if each.misfit is not None]
        if not known:
            return {}
        chosen = [each.measured for each in done if each.measured is not None]
        steps = (Step(CHECK_STAGE, n, len(chosen)) for n in range(len(chosen)))
        slices = map(self.paced, chosen, steps)
        foretold = held_out_misfit(slices, lambda measured: self.method(measured).image)
        return {"misfit": float(np.median(known)), **({} if foretold is None else {"held-out misfit": foretold})}

    def reference(self) -> NDArray[np.float32]:
        """The root sum of squares of each slice, zeros filled in."""
        images = np.empty(self.kspace.shape, np.float32)
        for k, data in enumerate(self.kspace.data):
            self.progress(Step(REFERENCE_STAGE, k, len(images)))
            images[k] = zero_filled(data)
        return images


class _Network:
    """A network with the place where it runs."""

    def __init__(self, network: nn.Module, backend: Backend) -> None:
        self.place = _Place(network, backend)

    @property
    def notes(self) -> Sequence[str]:
        """What the reader should know of how it ran."""
        return self.place.notes


class Unrolled(_Network):
    """The project's own network; see `tomolens.models.cascade`."""

    most_coils: int | None = MOST_COILS

    def __call__(self, measured: Measured) -> Answer:
        """Image and uncertainty of one slice."""

        def work(network: nn.Module, device: torch.device) -> NDArray[np.float32]:
            batch = tensors_of(measured, inputs_of(network))
            answer: torch.Tensor = network(*(tensor[None].to(device) for tensor in batch.values()))
            return np.asarray(answer[0].float().cpu().numpy(), np.float32)

        real, imaginary, log_sigma = self.place.run(work, measured.pulse)
        image = np.asarray(real + 1j * imaginary, np.complex64)
        return Answer(np.abs(image), image, np.exp(log_sigma))


class VarNet(_Network):
    """MONAI's VarNet; it finds the coils itself and gives a magnitude alone."""

    most_coils: int | None = None

    def __call__(self, measured: Measured) -> Answer:
        """Image of one slice."""
        return Answer(self.place.run(lambda network, device: magnitude(network, measured, device), measured.pulse))


@dataclass
class _Place:
    """Where a network runs: its device until memory runs out there, then the CPU."""

    network: nn.Module
    backend: Backend
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.backend.engine != "torch":
            raise OptionError(f"This model runs with torch, not {self.backend.engine}; use auto, cpu or cuda.")
        self.network = self.network.to(self.backend.device)

    def run(
        self, work: Callable[[nn.Module, torch.device], NDArray[np.float32]], pulse: Callable[[], None]
    ) -> NDArray[np.float32]:
        """Do work that takes the network and its device; ``pulse`` is called after each layer."""

        def whole() -> NDArray[np.float32]:
            with torch.inference_mode():
                return work(with_pulse(self.network, pulse), self.backend.device)

        return until_it_fits(whole, self._to_cpu)

    def _to_cpu(self) -> None:
        if self.backend.device.type == "cpu":
            raise OutOfMemory("A single slice does not fit into the memory of this machine.")
        self.notes.append(f"Out of memory on {self.backend.name}; going on with the CPU.")
        self.backend = Backend(torch.device("cpu"), torch.float32)
        self.network = self.network.cpu()


@dataclass(frozen=True)
class ByHand:
    """A classical method."""

    make: Callable[[Measured], NDArray[np.complex64]]
    most_coils: int | None = MOST_COILS
    notes: tuple[str, ...] = ()

    def __call__(self, measured: Measured) -> Answer:
        """Image of one slice."""
        image = self.make(measured)
        return Answer(np.abs(image), image)


@dataclass(frozen=True)
class ZerosFilled:
    """The root sum of squares of the coils' images, as it is."""

    most_coils: int | None = None
    notes: tuple[str, ...] = ()

    def __call__(self, measured: Measured) -> Answer:
        """Image of one slice."""
        return Answer(zero_filled(measured.data))


def reconstructor_of(bundle: Bundle, backend: Backend) -> MriReconstructor:
    """The reconstructor of a model folder, in single precision: Fourier transforms have no half.

    Raises
    ------
    ModelError
        If the folder is incomplete or damaged.
    """
    card, network, digest = filled(bundle)
    backend = replace(backend, dtype=torch.float32)
    kind = VarNet if card.network == "var_net" else Unrolled
    return MriReconstructor(card, kind(network, backend), digest, backend)


def _by_hand(card: ModelCard) -> MriReconstructor:
    """A method without training, on the CPU."""
    return MriReconstructor(card, _METHODS[card.name], "", Backend(torch.device("cpu"), torch.float32))


_METHODS: Mapping[str, Method] = {
    "tv-sense": ByHand(tuned_tv),
    "cg-sense": ByHand(tuned_cg),
    "zero-filled": ZerosFilled(),
}
CLASSICAL = {name: Classical(card, partial(_by_hand, card)) for name, card in METHODS[Job.MRI].items()}
