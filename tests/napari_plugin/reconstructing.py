"""Models that reconstruct without a network, and the steps of a user of *Reconstruct*."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace

import numpy as np

from tomolens.core.card import InputContract
from tomolens.core.grid import Grid
from tomolens.core.kspace import KSpace
from tomolens.core.progress import Step
from tomolens.core.reconstruction import Check, Job, Made
from tomolens.core.run import Run
from tomolens.core.volume import Unit
from tomolens.napari_plugin.reconstruction_layers import Part
from tomolens.phantoms.markers import marked_volume
from tomolens.physics.fourier import to_images, to_kspace
from tomolens.testing import FAKE_DENOISING_CARD, FakeReconstructor

MEDIAN_CARD = replace(FAKE_DENOISING_CARD, name="fake-median")
GAN_CARD = replace(FAKE_DENOISING_CARD, name="fake-gan", generative=True)
THIN_CARD = replace(FAKE_DENOISING_CARD, name="fake-thin", task=Job.SUPER_RESOLUTION)
MRI_CARD = replace(
    FAKE_DENOISING_CARD,
    name="fake-fill",
    task=Job.MRI,
    input=InputContract(modality="MR", unit=Unit.ARBITRARY, max_spacing_mm=6.0, min_extent_mm=8.0),
)


@dataclass
class SlowReconstructor(FakeReconstructor):
    """Takes its time over each window, and remembers how far it got."""

    reached: list[int] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    def reconstruct(self, source, options, progress):
        try:
            for done in range(self.windows):
                progress(Step("reconstruct", done, self.windows))
                self.reached.append(done)
                time.sleep(0.05)
            return super().reconstruct(source, options, progress)
        finally:
            self.left.set()


@dataclass
class CountingReconstructor(FakeReconstructor):
    """Counts how often it is run."""

    runs: int = 0

    def reconstruct(self, source, options, progress):
        self.runs += 1
        return super().reconstruct(source, options, progress)


@dataclass
class ThinMarkers(FakeReconstructor):
    """Draws the markers anew on the thin slices, so that each must come to lie at its true place in mm."""

    card: object = THIN_CARD

    def reconstruct(self, source, options, progress):
        thin = marked_volume(thin_grid(source.grid, options.factor or 2))
        image = np.asarray(thin.voxels, np.float32)
        return Made(image, image - 1, thin.grid, Run(self.card.name, "0", "0" * 64))


def thin_grid(grid: Grid, factor: int) -> Grid:
    k, j, i = grid.spacing_mm
    return grid.respaced((k / factor, j, i))


@dataclass
class ZeroFilled(FakeReconstructor):
    """The root of the sum of squares over coils; the reference is half of it."""

    card: object = MRI_CARD
    checks: tuple[Check, ...] = (Check("acceleration", 9.0, "", 2.0, 8.0),)

    def reconstruct(self, source, options, progress):
        image = np.sqrt((np.abs(to_images(source.data)) ** 2).sum(axis=1)).astype(np.float32)
        return Made(image, image / 2, source.grid, Run(self.card.name, "0", "0" * 64), image / 10, self.checks)


def kspace(slices=3, size=24):
    images = np.zeros((slices, 2, size, size), np.complex64)
    images[:, :, 4:12, 6:20] = 100
    grid = Grid.from_axes((slices, size, size), (4.0, 1.2, 1.2), (0.0, 0.0, 0.0))
    return KSpace(to_kspace(images), np.ones((slices, size, size), bool), grid, name="brain")


def parts_in(viewer):
    return {layer.metadata["part"]: layer for layer in viewer.layers if "part" in layer.metadata}


def result_in(viewer):
    return parts_in(viewer)[Part.RESULT]
