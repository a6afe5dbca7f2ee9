"""A reconstruction with what it takes to show it at another strength without running its model again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tomolens.pipelines.reconstruct import Reconstructor, reconstruct

if TYPE_CHECKING:
    from pathlib import Path

    from tomolens.core.card import ModelCard
    from tomolens.core.kspace import KSpace
    from tomolens.core.progress import Progress
    from tomolens.core.reconstruction import Made, Reconstruction, ReconstructOptions
    from tomolens.core.volume import Volume


@dataclass(frozen=True, eq=False)
class Remembered:
    """Stands for a model that has run: gives what that made, at once."""

    card: ModelCard
    made: Made = field(repr=False)

    def reconstruct(self, source: Volume | KSpace, options: ReconstructOptions, progress: Progress) -> Made:
        """What was made, at full strength."""
        return self.made


class _Remembering:
    """Runs a model and keeps what it makes."""

    def __init__(self, model: Reconstructor) -> None:
        self._model = model
        self.made: Made | None = None

    @property
    def card(self) -> ModelCard:
        return self._model.card

    def reconstruct(self, source: Volume | KSpace, options: ReconstructOptions, progress: Progress) -> Made:
        self.made = self._model.reconstruct(source, options, progress)
        return self.made


@dataclass(frozen=True, eq=False)
class Kept:
    """A reconstruction, and all that made it.

    Parameters
    ----------
    reconstruction
        At the strength of ``options``.
    source
        What it was made of.
    model
        What the model made of it, at full strength.
    options
        What was asked for.
    origin
        What the user chose: the volume of a scan's layer, or a file of k-space.
    name
        Of the scan or file, for layers.
    """

    reconstruction: Reconstruction
    source: Volume | KSpace = field(repr=False)
    model: Remembered
    options: ReconstructOptions
    origin: Volume | Path
    name: str

    @property
    def card(self) -> ModelCard:
        """Of the model that made it."""
        return self.model.card

    def at(self, strength: float) -> Kept:
        """The same at another strength, just as a run at that strength would have made it."""
        options = replace(self.options, strength=strength)
        again = reconstruct(self.source, self.model, options)
        beside = replace(again, baseline=self.reconstruction.baseline)
        return replace(self, reconstruction=beside, options=options)


def run(
    source: Volume | KSpace,
    model: Reconstructor,
    options: ReconstructOptions,
    baseline: Reconstructor | None,
    origin: Volume | Path,
    name: str,
    progress: Progress,
) -> Kept:
    """Reconstruct, and keep what the model made; raises as `tomolens.pipelines.reconstruct.reconstruct`."""
    remembering = _Remembering(model)
    reconstruction = reconstruct(source, remembering, options, baseline=baseline, progress=progress)
    made = remembering.made or model.reconstruct(source, options, progress)
    return Kept(reconstruction, source, Remembered(model.card, made), options, origin, name)
