"""Reconstruction models without networks, one for each job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tomolens.core.card import InputContract, ModelCard
from tomolens.core.reconstruction import Check, Job, Made
from tomolens.core.run import Run
from tomolens.core.volume import Unit
from tomolens.testing import FAKE_DENOISING_CARD, FakeReconstructor

MR = InputContract("MR", Unit.ARBITRARY, 6.0, 8.0)


@dataclass
class Repeating:
    """Super-resolution without a network: each thick slice is repeated."""

    card: ModelCard = field(default=replace(FAKE_DENOISING_CARD, name="fake-thin", task=Job.SUPER_RESOLUTION))

    def reconstruct(self, source, options, progress):
        factor = options.factor or 2
        k, *in_plane = source.spacing_mm
        image = np.repeat(np.asarray(source.voxels, np.float32), factor, axis=0)
        checks = (Check("slice distance", 2.5, "mm", 1.0, 6.0), Check("factor", factor, "", 2, 4))
        run = Run(self.card.name, self.card.version, "0" * 64, series_uid=_uid(source), history=source.history)
        return Made(image + 1, image, source.grid.respaced((k / factor, *in_plane)), run, None, checks)


@dataclass
class ZeroFilled:
    """An image of k-space without a network: the root sum of squares over the coils."""

    card: ModelCard = field(default=replace(FAKE_DENOISING_CARD, name="fake-mri", task=Job.MRI, input=MR))

    def reconstruct(self, source, options, progress):
        coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(source.data, (-2, -1)), norm="ortho"), (-2, -1))
        image = np.sqrt((np.abs(coils) ** 2).sum(axis=1)).astype(np.float32)
        run = Run(self.card.name, self.card.version, "0" * 64, source=source.name, history=source.history)
        check = Check("acceleration", source.acceleration, "times", 2.0, 8.0)
        return Made(image, image, source.grid, run, np.full(image.shape, 0.01, np.float32), (check,))


def _uid(source: Any) -> str:
    return source.series.uid if source.series else ""


NETWORKS = (
    FakeReconstructor(),
    FakeReconstructor(card=replace(FAKE_DENOISING_CARD, name="fake-gan", generative=True)),
    Repeating(),
    ZeroFilled(),
)
METHODS = (FakeReconstructor(card=replace(FAKE_DENOISING_CARD, name="plain", summary="A classical method.")),)
