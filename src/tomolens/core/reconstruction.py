"""What a reconstruction is: an image, what it was made from, how sure it is, and whether its model knew such input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.errors import GeometryError, OptionError
from tomolens.core.kspace import ASSUMED_MM, FIRST_OF
from tomolens.core.reconstruction_picture import reconstruction_html
from tomolens.core.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.grid import Grid
    from tomolens.core.run import Run

GENERATIVE = "GAN: texture may be invented"
"""Stands in the history, the series description and the layer's name of whatever a GAN made."""


def is_invented(history: Iterable[str]) -> bool:
    """Whether a GAN made it, or what it was made from."""
    return any(GENERATIVE in step for step in history)


MAP_MODALITY = "OT"
"""DICOM's modality of what is none of its other kinds (PS3.3 C.7.3.1.1.1): so no model takes a map for a scan."""


class Job(StrEnum):
    """What is reconstructed; also the ``task`` of a model that does it."""

    DENOISING = "ct-denoising"
    """A low-dose CT with less noise, on its own grid."""
    MRI = "mri-reconstruction"
    """An image from undersampled k-space."""
    SUPER_RESOLUTION = "super-resolution"
    """Thin slices from thick ones, ``factor`` times as many."""


@dataclass(frozen=True)
class ReconstructOptions:
    """What is asked of a reconstruction.

    Parameters
    ----------
    strength
        Share of the change that is kept, 0 to 1: the result is ``reference + strength * (made - reference)``. Below 1
        for denoising only.
    uncertainty
        Whether a map of it is made too.
    factor
        Of super-resolution, how many thin slices one thick one becomes; None takes the least that brings the slices to
        at most 1.5 times the pixel spacing.
    generative
        Whether the output of a GAN is accepted, whose texture may be invented.

    Raises
    ------
    OptionError
        If a number is outside what is accepted.
    """

    strength: float = 1.0
    uncertainty: bool = True
    factor: int | None = None
    generative: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise OptionError(f"strength is 0 to 1, not {self.strength}.")
        if self.factor is not None and not 2 <= self.factor <= 5:
            raise OptionError(f"factor is 2 to 5, not {self.factor}.")


@dataclass(frozen=True)
class Check:
    """One number about the input or the result, against what the model was trained or measured on.

    ``low`` and ``high`` bound what is in range; None where there is no bound on that side. ``value`` is NaN where it
    could not be measured, which is never in range.

    Raises
    ------
    OptionError
        If there is no bound at all.
    """

    name: str
    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise OptionError(f"The check of {self.name} has no bound; it needs a least or a largest value.")

    @property
    def inside(self) -> bool:
        """Whether the number is in range; never for what is no number."""
        above = self.low is None or self.value >= self.low
        below = self.high is None or self.value <= self.high
        return self._is_number and above and below

    @property
    def verdict(self) -> str:
        """``in range``, ``OUT OF range`` or ``not measured``."""
        if not self._is_number:
            return "not measured"
        return "in range" if self.inside else "OUT OF range"

    @property
    def number(self) -> str:
        """The value with its unit; a dash where it could not be measured."""
        return f"{_shown(self.value)} {self.unit}".rstrip() if self._is_number else "\N{EN DASH}"

    def __str__(self) -> str:
        bounds = f"{self.bounds} {self.unit}".rstrip()
        if not self._is_number:
            return f"{self.name}: not measured (in range would be {bounds})"
        return f"{self.name} {self.number}: {self.verdict} ({bounds})"

    @property
    def _is_number(self) -> bool:
        return bool(np.isfinite(self.value))

    @property
    def bounds(self) -> str:
        """What is in range, e.g. ``5 to 80``; in the check's unit."""
        if self.low is None:
            return f"at most {_shown(self.high)}"
        return f"at least {_shown(self.low)}" if self.high is None else f"{_shown(self.low)} to {_shown(self.high)}"


def _shown(number: float | None) -> str:
    return f"{number:.0f}" if number is not None and abs(number) >= 1000 else f"{number:.3g}"


@dataclass(frozen=True, eq=False)
class Made:
    """What a model makes of its input, before the pipeline checks it and gives it its place.

    Parameters
    ----------
    image
        (slice, row, column) float32 in the input's unit.
    reference
        The same place without the model: the noisy input (in its own kind of number), the zero-filled image, the cubic
        spline.
    grid
        Of both.
    run
        How it was made.
    uncertainty
        Standard deviation of ``image`` in its unit, float32; None where it was not asked for or the method has none.
    checks
        The input against the training range, and residuals against what was measured.
    """

    image: NDArray[np.float32]
    reference: NDArray[Any]
    grid: Grid
    run: Run
    uncertainty: NDArray[np.float32] | None = None
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A finished reconstruction.

    Parameters
    ----------
    job
        What was done.
    volume
        The result.
    reference
        On the same grid, what it is to be compared with: the noisy input, the zero-filled image, the cubic spline.
    run
        Everything needed to repeat it.
    uncertainty
        (slice, row, column) float32, one standard deviation in the volume's unit; None where there is none. Below full
        strength the noise of the input that stays is in it, as far as the model would have taken it.
    checks
        See `Made`.
    baseline
        What the classical method makes of the same input, where it was asked for; its history names the method.
    generative
        Whether a GAN made it, or what it was made from.

    Raises
    ------
    GeometryError
        If the parts do not lie on one grid.
    """

    job: Job
    volume: Volume
    reference: Volume
    run: Run
    uncertainty: NDArray[np.float32] | None = field(default=None, repr=False)
    checks: tuple[Check, ...] = ()
    baseline: Volume | None = None
    generative: bool = False

    def __post_init__(self) -> None:
        others = [self.reference, *([self.baseline] if self.baseline else [])]
        if not all(other.grid.same_place(self.volume.grid) for other in others):
            raise GeometryError("The parts of a reconstruction lie on different grids.")
        if self.uncertainty is not None and self.uncertainty.shape != self.volume.shape:
            raise GeometryError(f"Uncertainty of {self.uncertainty.shape} does not fit {self.volume.shape}.")

    @property
    def difference(self) -> NDArray[np.float32]:
        """Result minus reference, float32, in the volume's unit."""
        return np.asarray(np.subtract(self.volume.voxels, self.reference.voxels, dtype=np.float32))

    @property
    def maps(self) -> dict[str, Volume]:
        """The ``difference`` and, where there is one, the ``uncertainty``, as volumes that are no scans."""
        maps = {"difference": self._map(self.difference, "difference: result minus reference")}
        if self.uncertainty is not None:
            maps["uncertainty"] = self._map(self.uncertainty, "uncertainty: one standard deviation of the result")
        return maps

    def _map(self, numbers: NDArray[np.float32], meaning: str) -> Volume:
        unit = self.volume.unit
        history = (*self.volume.history, f"{meaning}, in {unit}")
        return Volume(numbers, self.volume.grid, unit, MAP_MODALITY, history=history)

    @property
    def placed(self) -> bool:
        """Whether it is known where in the patient it lies, and so which side is left."""
        return self.volume.placed

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader must know before trusting it: invented texture, sides or sizes not known, failed checks."""
        invented = (GENERATIVE + ".",) if self.generative else ()
        unplaced = (
            () if self.placed else ("Left and right are not known: the file does not say where it was measured.",)
        )
        unsized = any(ASSUMED_MM in step for step in self.volume.history)
        sizes = (f"Sizes are not known: the file states no spacing, {ASSUMED_MM}.",) if unsized else ()
        partial = tuple(f"Of the file {step}." for step in self.volume.history if step.startswith(FIRST_OF))
        return (*invented, *unplaced, *sizes, *partial, *(str(check) for check in self.checks if not check.inside))

    def _repr_html_(self) -> str:
        return reconstruction_html(self)
